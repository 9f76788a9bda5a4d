// Threads of a test: all at once, and one after another.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <list>
#include <thread>
#include <vector>

namespace veltrix_test {

/// Runs all bodies at once, each in its thread, and waits for their end.
inline void run_at_once(const std::vector<std::function<void()>>& bodies) {
  std::atomic<std::size_t> missing{bodies.size()};
  std::vector<std::thread> threads;
  threads.reserve(bodies.size());
  for (const auto& body : bodies) {
    threads.emplace_back([&missing, &body] {
      --missing;
      while (missing != 0)
        std::this_thread::yield();
      body();
    });
  }
  for (std::thread& each : threads)
    each.join();
}

/// Threads that stand still in a state of their own making until they are let go.
class standing_threads {
 public:
  standing_threads() = default;
  standing_threads(const standing_threads&) = delete;
  standing_threads& operator=(const standing_threads&) = delete;
  ~standing_threads() { let_go(); }

  /// Starts a thread that calls `body(stand)`, where stand() returns when it is let go. Returns
  /// when the thread stands.
  template <class Body>
  void add(Body body) {
    const std::size_t wanted = ++asked_;
    threads_.emplace_back([this, body = std::move(body)]() mutable {
      body([this] {
        ++standing_;
        standing_.notify_all();
        released_.wait(false);
      });
    });
    for (std::size_t now = standing_; now < wanted; now = standing_)
      standing_.wait(now);
  }

  void let_go() {
    released_ = true;
    released_.notify_all();
    for (std::thread& each : threads_)
      each.join();
    threads_.clear();
  }

 private:
  std::list<std::thread> threads_;  // of a vector g++ 12 warns without a reason
  std::size_t asked_ = 0;
  std::atomic<std::size_t> standing_{0};
  std::atomic<bool> released_{false};
};

}  // namespace veltrix_test
