// A fixed pool of threads for tests: its bounded queue can be closed, or emptied as by a stop.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <deque>
#include <thread>
#include <utility>
#include <vector>

#include "veltrix/detail/sync.hpp"
#include "veltrix/detail/task.hpp"
#include "veltrix/executor.hpp"

namespace veltrix_test {

/// Tasks run first in, first out. The destructor runs what was accepted, then joins.
class small_pool {
 public:
  explicit small_pool(std::size_t threads, std::size_t capacity = 1024) : capacity_(capacity) {
    for (std::size_t i = 0; i < threads; ++i)
      threads_.emplace_back([this] { work(); });
  }
  small_pool(const small_pool&) = delete;
  small_pool& operator=(const small_pool&) = delete;
  ~small_pool() {
    close();
    for (std::thread& each : threads_)
      each.join();
  }

  veltrix::post_result try_post(veltrix::detail::task&& work) {
    const lock_guard lock(mutex_);
    if (closed_) return {veltrix::post_status::closed, "the small pool is closed"};
    if (tasks_.size() >= capacity_) {
      return {veltrix::post_status::full, "the small pool's queue is full"};
    }
    tasks_.push_back(std::move(work));
    changed_.notify_one();
    return {};
  }

  /// Refuses further tasks; those accepted still run.
  void close() {
    const lock_guard lock(mutex_);
    closed_ = true;
    changed_.notify_all();
  }

  /// Destroys what waits in the queue, as a pool that is stopped would. Result: how many.
  std::size_t drop_waiting() {
    std::deque<veltrix::detail::task> dropped;
    {
      const lock_guard lock(mutex_);
      dropped.swap(tasks_);
    }
    return dropped.size();
  }

  [[nodiscard]] std::size_t waiting() const {
    const lock_guard lock(mutex_);
    return tasks_.size();
  }

 private:
  using lock_guard = veltrix::detail::sync::lock_guard<veltrix::detail::sync::mutex>;

  void work() {
    veltrix::detail::sync::unique_lock<veltrix::detail::sync::mutex> lock(mutex_);
    for (;;) {
      while (tasks_.empty() && !closed_)
        changed_.wait(lock);  // woken by try_post(), after push_back, and by close()
      if (tasks_.empty()) return;
      veltrix::detail::task next = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      next();
      next.reset();
      lock.lock();
    }
  }

  const std::size_t capacity_;
  mutable veltrix::detail::sync::mutex mutex_;  // guards everything below
  veltrix::detail::sync::condition_variable changed_;
  std::deque<veltrix::detail::task> tasks_;
  bool closed_ = false;
  std::vector<std::thread> threads_;  // owner's thread only
};

}  // namespace veltrix_test
