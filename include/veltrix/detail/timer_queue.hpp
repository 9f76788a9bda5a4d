// One thread that runs short callbacks at given times: how asynchronous waits hold no worker.
// Use for: the timers of asynchronous retry; one per process is enough. Public as timer_queue.
// Not for: work; a callback that takes long makes all others late. Post to an executor instead.
// Threads: all members may be called from any thread; the destructor from no callback.
// Progress: call_at() takes a short lock.
// Callbacks: run on the queue's thread, no lock held; they must not throw.
// Exceptions: the constructor throws std::system_error when no thread is to be had; call_at()
//   may throw std::bad_alloc, and then nothing was taken.
// Lifetime: the destructor destroys what is pending unrun and joins the thread.
// Guide: docs/retry.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <map>
#include <system_error>
#include <utility>

#include "../clock.hpp"
#include "sync.hpp"
#include "task.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// Tells the time and runs callbacks at times: timer_queue, or a virtual_clock in a test.
template <class Timers>
concept timer_source =
    clock_source<Timers> && requires(Timers& timers, time_point at, detail::task callback) {
      timers.call_at(at, std::move(callback));
    };

/// I1: every callback runs once or is destroyed unrun, never both.
class timer_queue {
 public:
  timer_queue() {
    const int error = thread_.start({.name = "vx-timer"}, [this] { serve(); });
    if (error != 0) {
      detail::raise(std::system_error(error, std::generic_category(),
                                      "veltrix: timer_queue: its thread did not start"));
    }
  }
  timer_queue(const timer_queue&) = delete;
  timer_queue& operator=(const timer_queue&) = delete;
  ~timer_queue() {
    std::multimap<time_point, detail::task> unrun;
    {
      const lock_guard lock(mutex_);
      closed_ = true;
      unrun.swap(pending_);
    }
    changed_.notify_all();
    unrun.clear();  // outside the lock: a destroyed callback may call back
    thread_.join();
  }

  [[nodiscard]] static time_point now() noexcept { return steady_clock::now(); }

  /// Runs `callback` at `at` or soon after; at once when that is past. Equal times keep their
  /// order. After the destructor began the callback is destroyed unrun.
  void call_at(time_point at, detail::task callback) {
    const lock_guard lock(mutex_);
    if (closed_) return;
    const auto place = pending_.emplace(at, std::move(callback));
    if (place == pending_.begin()) changed_.notify_all();
  }

  /// Callbacks not yet run.
  [[nodiscard]] std::size_t pending_timers() const {
    const lock_guard lock(mutex_);
    return pending_.size();
  }

 private:
  using lock_guard = detail::sync::lock_guard<detail::sync::mutex>;

  void serve() noexcept {
    detail::sync::unique_lock<detail::sync::mutex> lock(mutex_);
    while (!closed_) {
      if (pending_.empty()) {
        changed_.wait(lock);  // woken by call_at() after it inserted, or by the destructor
        continue;
      }
      const auto first = pending_.begin();
      if (const time_point due = first->first; due > now()) {
        changed_.wait_until(lock, due);  // woken by the same, or by the time
        continue;
      }
      detail::task callback = std::move(first->second);
      pending_.erase(first);
      lock.unlock();
      callback();
      callback.reset();
      lock.lock();
    }
  }

  mutable detail::sync::mutex mutex_;                // guards everything below but the thread
  detail::sync::condition_variable changed_;         // an earlier timer came, or closed_
  std::multimap<time_point, detail::task> pending_;  // equal times keep their order
  bool closed_ = false;
  detail::sync::native_thread thread_;  // started by the constructor, joined by the destructor
};

}  // namespace VELTRIX_ABI
}  // namespace veltrix
