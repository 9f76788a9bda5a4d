// A wait on a condition that a stop request or a deadline can end.
// Use for: every blocking wait of the library that takes a stop_token. Internal.
// Not for: waits without a predicate.
// Threads: as the condition variable's.
// Progress: blocking.
// Callbacks: the predicate runs under the caller's lock.
// Exceptions: those of the predicate.
// Lifetime: mutex and condition outlive the wait.
// Guide: docs/design.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <chrono>

#include "../stop_token.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// Wakes a waiter when its token stops. Taking the mutex first closes the gap between the waiter's
/// look at the token and its sleep.
struct stop_wakes {
  sync::mutex& mutex;
  sync::condition_variable& condition;

  void operator()() const noexcept {
    { const sync::lock_guard<sync::mutex> lock(mutex); }
    condition.notify_all();
  }
};

struct relock_at_end {
  sync::unique_lock<sync::mutex>& lock;
  ~relock_at_end() { lock.lock(); }
};

struct unlock_at_end {
  sync::unique_lock<sync::mutex>& lock;
  ~unlock_at_end() { lock.unlock(); }
};

/// One wait with the token's callback registered; wakes the caller to look again.
/// Result: whether the deadline has passed.
template <class Predicate>
bool wait_registered(sync::unique_lock<sync::mutex>& lock, sync::condition_variable& condition,
                     std::chrono::steady_clock::time_point deadline, const stop_token& token,
                     Predicate& ready) {
  // The callback takes the mutex, and request_stop() may run it in this very thread: register and
  // remove it unlocked, so that neither can wait for the other; also when ready() throws.
  lock.unlock();
  const relock_at_end relock{lock};
  const stop_callback<stop_wakes> wake(token, stop_wakes{*lock.mutex(), condition});
  lock.lock();
  const unlock_at_end unlock{lock};
  while (!ready() && !token.stop_requested()) {
    if (deadline == std::chrono::steady_clock::time_point::max()) {
      condition.wait(lock);  // woken by whoever makes ready() true, and by stop_wakes
    } else if (sync::steady_now() >= deadline) {
      return true;  // asked first: libc++ overflows on deadlines far in the past
    } else {
      condition.wait_until(lock, deadline);  // woken by the same; at the latest by the deadline
    }
  }
  return false;
}

/// Waits until `ready()` holds, the deadline passes, or `token` stops.
/// @param lock      held on entry and on return, also by an exception of `ready`; its mutex guards
///                  what `ready` reads
/// @param deadline  time_point::max() waits for ever
/// @return the last value of `ready()`; false only after the deadline or a stop
template <class Predicate>
bool wait_until(sync::unique_lock<sync::mutex>& lock, sync::condition_variable& condition,
                std::chrono::steady_clock::time_point deadline, const stop_token& token,
                Predicate ready) {
  bool late = false;
  // Between a wait and the look after it the lock is free, so another may undo what the wait saw:
  // hence the loop.
  while (!ready()) {
    if (late || token.stop_requested()) return false;
    late = wait_registered(lock, condition, deadline, token, ready);
  }
  return true;
}

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
