// Who waits until a pool has the size it is to have, and how it is told.
// Use for: pool_core. Internal.
// Not for: knowing the size; pool_size does.
// Threads: under the pool's mutex, but for look_out() and tell().
// Progress: wait() blocks until tell() or the deadline; look_out() takes microseconds; else O(1).
// Callbacks: none.
// Exceptions: none.
// Lifetime: outlives who waits and who tells.
// Guide: docs/elastic_pool.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <chrono>
#include <cstddef>

#include "../clock.hpp"
#include "look_out.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// Beside full processors each time a thread wakes may cost it a time slice. So it is told once, by
/// the last worker it waits for.
class settle_watch {
 public:
  settle_watch() = default;
  settle_watch(const settle_watch&) = delete;
  settle_watch& operator=(const settle_watch&) = delete;

  void begin() noexcept { ++waiters_; }
  void end() noexcept { --waiters_; }
  [[nodiscard]] bool any() const noexcept { return waiters_ != 0; }

  /// Before the lock is given away for look_out().
  /// @param settles  whether there is something to be told of
  void begin_look_out(bool settles) noexcept { told_.store(!settles, sync::relaxed); }

  /// Looks for a moment whether it was told: idle workers take little longer to leave than a
  /// sleeper takes to wake. It keeps the processor: given away, a busy one comes back late.
  void look_out(time_point deadline) const noexcept {
    veltrix::detail::look_out(
        std::chrono::microseconds(50), deadline, [&] { return told_.load(sync::relaxed); },
        [] { sync::spin_pause(); });
  }

  /// @return false when the deadline has passed
  [[nodiscard]] bool wait(sync::unique_lock<sync::mutex>& lock, time_point deadline) noexcept {
    if (deadline != no_deadline) {  // woken by tell()
      return changed_.wait_until(lock, deadline) == std::cv_status::no_timeout;
    }
    changed_.wait(lock);  // woken by tell()
    return true;
  }

  /// What they wait for has changed. Better not under the mutex: they want it.
  void tell() noexcept {
    told_.store(true, sync::relaxed);
    changed_.notify_all();
  }

 private:
  sync::condition_variable changed_;  // the size was written
  std::size_t waiters_ = 0;           // guarded by the pool's mutex
  sync::atomic<bool> told_{true};     // relaxed: a hint; the mutex orders
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
