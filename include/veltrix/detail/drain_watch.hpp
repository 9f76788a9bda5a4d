// Waits for a moment at which no task of a pool is queued or runs.
// Use for: elastic_pool's drain(). Internal.
// Not for: keeping it so: tasks may be added at any time.
// Threads: all members may be called from any thread.
// Progress: look() is a glance while nobody waits, else a short lock and a sum over the workers.
// Callbacks: none.
// Exceptions: none.
// Lifetime: the supply outlives it.
// Guide: docs/elastic_pool.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "../clock.hpp"
#include "sync.hpp"
#include "work_supply.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// The counts of a pool are spread over its workers. Their sum is taken so that equal means done:
/// see work_supply::count(). Workers look for who waits only when they find nothing to do, or
/// leave; the last of them to do so finds it done.
class drain_watch {
 public:
  explicit drain_watch(const work_supply& supply) noexcept : supply_(supply) {}
  drain_watch(const drain_watch&) = delete;
  drain_watch& operator=(const drain_watch&) = delete;

  /// Whether nothing but `mine` tasks was queued or ran at a moment of the call.
  [[nodiscard]] bool now(std::uint64_t mine) const noexcept {
    const work_supply::counts work = supply_.count();
    return work.ended + mine == work.posted;
  }

  /// @return whether nothing was queued or ran at some moment of the call
  [[nodiscard]] bool wait(time_point deadline) {
    sync::unique_lock<sync::mutex> lock(mutex_);
    waiters_.fetch_add(1, sync::relaxed);  // relaxed: ordered by the fences, with the one of look()
    sync::full_fence();
    const std::uint64_t before = moments_;
    bool done = now(0);
    // Woken by look(), after it wrote moments_.
    while (!done) {
      const bool late =
          deadline != no_deadline && changed_.wait_until(lock, deadline) == std::cv_status::timeout;
      if (deadline == no_deadline) changed_.wait(lock);
      done = moments_ != before || now(0);
      if (late) break;
    }
    waiters_.fetch_sub(1, sync::relaxed);  // relaxed: too high a count costs a look
    return done;
  }

  /// By a worker, after a full fence that follows its last step.
  void look() noexcept {
    if (waiters_.load(sync::relaxed) == 0) [[likely]]
      return;  // relaxed: see wait()
    const sync::lock_guard<sync::mutex> lock(mutex_);
    if (!now(0)) return;
    ++moments_;
    changed_.notify_all();
  }

 private:
  const work_supply& supply_;
  sync::atomic<std::size_t> waiters_{0};  // written under mutex_
  sync::mutex mutex_;                     // guards moments_
  sync::condition_variable changed_;      // moments_ was written
  std::uint64_t moments_ = 0;             // guarded by mutex_; times that somebody saw it done
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
