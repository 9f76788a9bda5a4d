// Where the threads of a growth wait until all of them have come, or are sent away.
// Use for: pool_core. Internal.
// Not for: a meeting that repeats itself; a batch passes once.
// Threads: arrive() and wait() by the threads of a batch, arrive() by who starts them; the rest
//   under the pool's mutex.
// Progress: wait-free, O(1), but for a lock in open(), dismiss() and wait(), which blocks until
// them, and look_out(), which takes a moment.
// Callbacks: none.
// Exceptions: none.
// Lifetime: outlives every thread that has come to it.
// Guide: docs/elastic_pool.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

#include "../clock.hpp"
#include "look_out.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// One batch at a time: the next is expected when the fate of the last is decided. Threads know the
/// number of their batch, since some of one that was let in may not have woken yet by then. Who
/// starts them comes as well, when it has: before that, a thread that was let in and has left again
/// could be joined while its start has not returned.
///
/// I1: a batch is let in when all its threads exist and their starts have returned: the last one to
///     come knows it, and so does who started them. Those that come later than that pass at once.
/// I2: nobody of a dismissed batch is left when the next is expected.
class start_gate {
 public:
  enum class turn : std::uint8_t { early, last, late };

  start_gate() = default;
  start_gate(const start_gate&) = delete;
  start_gate& operator=(const start_gate&) = delete;

  /// A batch of `count` threads is about to be started.
  /// @return its number; its threads need it
  std::uint64_t expect(std::size_t count) noexcept {
    missing_.store(count + 1, sync::relaxed);  // relaxed: the start of a thread publishes it
    return ++batch_;
  }

  /// The calling thread has come: one of the batch, or the one that has started them all.
  [[nodiscard]] turn arrive() noexcept {
    // (1) acq_rel-sub; pairs with acq_rel-or (2), acq_rel-sub (1). Publishes: what the thread has
    // written of itself, and its starter of it, to who lets the batch in; what that one wrote, to
    // who is late.
    const std::size_t before = missing_.fetch_sub(1, sync::acq_rel);
    if ((before & let_in_bit) != 0) return turn::late;
    return before == 1 ? turn::last : turn::early;
  }

  /// Looks for a moment, up to the deadline, whether the batch was let in, while others may run.
  /// The last threads come within microseconds; to sleep and to be woken takes longer where a
  /// processor would fall asleep too. A moment only: who gives away a busy processor may get it
  /// back a time slice later.
  void look_out(time_point deadline) const noexcept {
    veltrix::detail::look_out(
        std::chrono::microseconds(200), deadline,
        [&] { return (missing_.load(sync::relaxed) & let_in_bit) != 0; },  // relaxed: a hint
        [] { sync::yield(); });
  }

  /// Nobody is waited for from here on.
  /// @return how many of the batch have not come: they are late
  [[nodiscard]] std::size_t let_in() noexcept {
    // (2) acq_rel-or; pairs with acq_rel-sub (1). Publishes: the size that late threads belong to.
    return missing_.fetch_or(let_in_bit, sync::acq_rel);
  }

  /// Lets those of the batch go on that wait; not under the pool's mutex, which they may want.
  void open(std::uint64_t batch) noexcept {
    {
      const sync::lock_guard<sync::mutex> lock(mutex_);
      if (opened_ < batch) opened_ = batch;  // a later one may have been faster
    }
    moved_.notify_all();
  }

  /// Sends the batch away.
  void dismiss(std::uint64_t batch) noexcept {
    {
      const sync::lock_guard<sync::mutex> lock(mutex_);
      opened_ = dismissed_ = batch;
    }
    moved_.notify_all();
  }

  /// Waits until the calling thread's batch is let in or dismissed.
  /// @return whether it was let in
  [[nodiscard]] bool wait(std::uint64_t batch) noexcept {
    sync::unique_lock<sync::mutex> lock(mutex_);
    while (opened_ < batch)
      moved_.wait(lock);  // woken by open() and dismiss(), after they wrote opened_
    return dismissed_ != batch;
  }

 private:
  static constexpr std::size_t let_in_bit = ~(~std::size_t{0} >> 1);

  sync::atomic<std::size_t> missing_{0};  // of the batch, and let_in_bit
  sync::mutex mutex_;                     // guards opened_ and dismissed_
  sync::condition_variable moved_;        // opened_ was written
  std::uint64_t batch_ = 0;               // guarded by the pool's mutex
  std::uint64_t opened_ = 0;              // guarded by mutex_; the last one let in or dismissed
  std::uint64_t dismissed_ = 0;           // guarded by mutex_; the last one sent away
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
