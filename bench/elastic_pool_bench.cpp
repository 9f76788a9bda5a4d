// elastic_pool beside the pool that everybody writes first.
// SPDX-License-Identifier: BSL-1.0
#include "veltrix/elastic_pool.hpp"

#include <condition_variable>
#include <deque>
#include <mutex>
#include <vector>

#include "harness.hpp"

namespace {

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

  void post(std::function<void()> task) {
    {
      const std::lock_guard lock(mutex_);
      tasks_.push_back(std::move(task));
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

/// Posts `operations` tasks with at most `window` unfinished, and waits for the last.
template <class Pool>
void windowed(Pool& pool, std::uint64_t operations, std::uint64_t window) {
  std::atomic<std::uint64_t> done{0};
  for (std::uint64_t i = 0; i < operations; ++i) {
    while (i - done.load(std::memory_order_acquire) >= window)
      std::this_thread::yield();
    static_cast<void>(pool.post([&done] { done.fetch_add(1, std::memory_order_release); }));
  }
  while (done.load(std::memory_order_acquire) != operations)
    std::this_thread::yield();
}

}  // namespace

int main(int argc, char** argv) {
  using namespace veltrix_bench;
  bench table("elastic_pool", parse(argc, argv));
  for (const unsigned workers : {2U, 64U}) {
    plain_pool plain(workers);
    veltrix::elastic_pool elastic(workers);
    table.run("empty task, 8192 in flight, " + std::to_string(workers) + " workers", 1,
              {{"mutex + deque", [&](unsigned, std::uint64_t n) { windowed(plain, n, 8192); }},
               {"elastic_pool", [&](unsigned, std::uint64_t n) { windowed(elastic, n, 8192); }}});
  }
  return table.finish();
}
