// The pools that elastic_pool is measured beside: each posts callables and counts nothing itself.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#if defined(VELTRIX_BENCH_TBB)
#include <oneapi/tbb/blocked_range.h>
#include <oneapi/tbb/global_control.h>
#include <oneapi/tbb/parallel_for.h>
#include <oneapi/tbb/parallel_invoke.h>
#include <oneapi/tbb/task_arena.h>
#include <oneapi/tbb/task_group.h>
#endif
#if defined(VELTRIX_BENCH_BS)
#include <BS_thread_pool.hpp>
#endif
#if defined(VELTRIX_BENCH_TASKFLOW)
#include <taskflow/taskflow.hpp>
#endif
#if defined(VELTRIX_BENCH_LIBFORK)
#include <libfork.hpp>
#endif
#if defined(VELTRIX_BENCH_ASIO)
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#endif

namespace veltrix_bench {

/// One mutex, one condition variable, one deque of std::function: the baseline.
class plain_pool {
 public:
  explicit plain_pool(unsigned workers) {
    for (unsigned i = 0; i < workers; ++i)
      crew_.emplace_back([this] { work(); });
  }
  plain_pool(const plain_pool&) = delete;
  plain_pool& operator=(const plain_pool&) = delete;
  ~plain_pool() {
    {
      const std::lock_guard lock(mutex_);
      closed_ = true;
    }
    wake_.notify_all();
    for (std::thread& each : crew_)
      each.join();
  }

  template <class Work>
  void post(Work&& work) {
    {
      const std::lock_guard lock(mutex_);
      tasks_.emplace_back(std::forward<Work>(work));
    }
    wake_.notify_one();
  }

 private:
  void work() {
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [this] { return closed_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      const std::function<void()> task = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      task();
      lock.lock();
    }
  }

  std::mutex mutex_;  // guards the rest
  std::condition_variable wake_;
  std::deque<std::function<void()>> tasks_;
  bool closed_ = false;
  std::vector<std::thread> crew_;
};

#if defined(VELTRIX_BENCH_TBB)
/// An arena whose slots are all for workers. TBB has one worker less than it is allowed threads.
class tbb_pool {
 public:
  explicit tbb_pool(unsigned workers)
      : allowed_(oneapi::tbb::global_control::max_allowed_parallelism, workers + 1),
        arena_(static_cast<int>(workers), 0) {}

  template <class Work>
  void post(Work&& work) {
    arena_.enqueue(std::forward<Work>(work));
  }

 private:
  oneapi::tbb::global_control allowed_;
  oneapi::tbb::task_arena arena_;
};
#endif

#if defined(VELTRIX_BENCH_TBB)
/// As many threads as `workers`, the caller one of them: what TBB makes of fork and join.
class tbb_crew {
 public:
  explicit tbb_crew(unsigned workers)
      : allowed_(oneapi::tbb::global_control::max_allowed_parallelism, workers),
        arena_(static_cast<int>(workers)) {}

  template <class Work>
  void run(Work&& work) {
    arena_.execute(std::forward<Work>(work));
  }

 private:
  oneapi::tbb::global_control allowed_;
  oneapi::tbb::task_arena arena_;
};
#endif

#if defined(VELTRIX_BENCH_ASIO)
class asio_pool {
 public:
  explicit asio_pool(unsigned workers) : pool_(workers) {}
  ~asio_pool() { pool_.join(); }

  template <class Work>
  void post(Work&& work) {
    boost::asio::post(pool_, std::forward<Work>(work));
  }

 private:
  boost::asio::thread_pool pool_;
};
#endif

#if defined(VELTRIX_BENCH_BS)
class bs_pool {
 public:
  explicit bs_pool(unsigned workers) : pool_(workers) {}

  template <class Work>
  void post(Work&& work) {
    pool_.detach_task(std::forward<Work>(work));
  }

 private:
  BS::light_thread_pool pool_;
};
#endif

#if defined(VELTRIX_BENCH_TASKFLOW)
class taskflow_pool {
 public:
  explicit taskflow_pool(unsigned workers) : executor_(workers) {}

  template <class Work>
  void post(Work&& work) {
    executor_.silent_async(std::forward<Work>(work));
  }

  /// Runs `work` on a worker and waits for it; it may fork and join by fork_join().
  template <class Work>
  void run(Work&& work) {
    executor_.async(std::forward<Work>(work)).get();
  }
  template <class First, class Second>
  void fork_join(First first, Second second) {
    tf::TaskGroup group = executor_.task_group();
    group.silent_async(second);
    first();
    group.corun();
  }

 private:
  tf::Executor executor_;
};
#endif

}  // namespace veltrix_bench
