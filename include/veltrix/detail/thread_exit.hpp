// Telling when a thread has really left the process, as an outside observer would.
// Use for: acknowledging a smaller pool once the kernel lists no thread of it more. Internal.
// Not for: joining; a joined thread may be listed under /proc for a moment longer, hence this.
// Threads: all functions may be called from any thread.
// Progress: thread_is_listed() is one system call; await_thread_exit() blocks until its deadline.
// Callbacks: none.
// Exceptions: none.
// Lifetime: numbers only; the kernel gives a number again after it went round all others.
// Guide: docs/design.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "../clock.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

using thread_number = long;

/// Waits until the thread is no longer listed. Polls: the kernel offers no wake-up this late in a
/// thread's life, which ends within microseconds of its last line.
/// @return false when the deadline passed first
inline bool await_thread_exit(thread_number number, time_point deadline) {
  constexpr int looks_before_sleep = 200;
  for (int looks = 0; sync::thread_is_listed(number); ++looks) {
    const time_point now = steady_clock::now();
    if (now >= deadline) return false;
    if (looks < looks_before_sleep) {
      sync::yield();
    } else {
      const time_point soon = saturating_add(now, std::chrono::microseconds(100));
      steady_clock::sleep_until(soon < deadline ? soon : deadline, stop_token());
    }
  }
  return true;
}

/// @return false when the deadline passed first; the thread is not joined then
template <class Thread>
bool join_or_give_up(Thread& thread, const thread_number& number, time_point deadline) noexcept {
  if (deadline == no_deadline) {
    thread.join();
    return true;
  }
  if constexpr (requires { thread.join_until(deadline); }) {
    return thread.join_until(deadline);
  } else {
    if (!await_thread_exit(number, deadline)) return false;
    thread.join();
    return true;
  }
}

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
