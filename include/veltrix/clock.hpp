// Time as a parameter: the steady clock, a cheap coarse one, and a virtual one for tests.
// Use for: anything that sleeps, expires or measures, so that a test of 24 hours runs in ms.
// Not for: the time of day; every clock here is monotonic.
// Threads: all members may be called from any thread.
// Progress: now() is wait-free on the real clocks, a short lock on virtual_clock; sleeps block.
// Callbacks: call_at() functions run inside advance(), no lock held.
// Exceptions: call_at() may throw std::bad_alloc; what a timer throws leaves advance().
// Lifetime: a clock outlives its sleepers; checked builds abort if not.
// Guide: docs/clock.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <map>
#include <utility>

#include "detail/stoppable_wait.hpp"
#include "detail/sync.hpp"
#include "detail/task.hpp"
#include "stop_token.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

using duration = std::chrono::nanoseconds;
/// One time line for every clock here, so that a deadline means the same to each.
using time_point = std::chrono::time_point<std::chrono::steady_clock, duration>;

/// A deadline that never passes.
inline constexpr time_point no_deadline = time_point::max();

/// `from + by`, held at no_deadline instead of overflowing. A negative `by` gives `from`.
[[nodiscard]] constexpr time_point saturating_add(time_point from, duration by) noexcept {
  if (by <= duration::zero()) return from;
  return from > no_deadline - by ? no_deadline : from + by;
}

/// Tells the time.
template <class Clock>
concept clock_source = requires(Clock& clock) {
  { clock.now() } -> std::convertible_to<time_point>;
};

/// Tells the time and can wait for it. `sleep_until(t, token)` returns true once now() >= t, and
/// false as soon as the token stops.
template <class Clock>
concept sleeper =
    clock_source<Clock> && requires(Clock& clock, time_point until, const stop_token& token) {
      { clock.sleep_until(until, token) } -> std::same_as<bool>;
    };

/// The machine's monotonic clock. Stateless; copies are equal.
struct steady_clock {
  [[nodiscard]] static time_point now() noexcept {
    return std::chrono::time_point_cast<duration>(detail::sync::steady_now());
  }

  /// Blocks until `until` (true) or until `token` stops (false). Blocking.
  [[gnu::noinline]] static bool sleep_until(time_point until, const stop_token& token) {
    detail::sync::mutex mutex;  // guards nothing but the wait
    detail::sync::condition_variable never;
    detail::sync::unique_lock<detail::sync::mutex> lock(mutex);
    // woken by the deadline or the token only
    detail::wait_until(lock, never, until, token, [&] { return now() >= until; });
    return now() >= until;
  }
};

/// The kernel's cached monotonic time: cheaper, and up to a timer tick (1 to 10 ms) behind.
struct coarse_clock {
  [[nodiscard]] static time_point now() noexcept {
    return std::chrono::time_point_cast<duration>(detail::sync::coarse_now());
  }

  /// Blocks until this clock, not the exact one, reaches `until` (true) or `token` stops (false).
  static bool sleep_until(time_point until, const stop_token& token) {
    constexpr duration look_again = std::chrono::milliseconds(1);
    for (time_point next = until; now() < until;) {
      if (!steady_clock::sleep_until(next, token)) return now() >= until;
      next = saturating_add(steady_clock::now(), look_again);  // the cached time is behind
    }
    return true;
  }
};

/// What a sleeper on a virtual_clock does.
enum class virtual_sleep : std::uint8_t {
  waits,     ///< until another thread advances the clock far enough
  advances,  ///< moves the clock forward itself and returns at once: single-threaded tests
};

/// A clock that moves only when told. Starts at one hour, so that a test may look back.
class virtual_clock {
 public:
  explicit virtual_clock(virtual_sleep mode = virtual_sleep::waits) noexcept : mode_(mode) {}
  virtual_clock(const virtual_clock&) = delete;
  virtual_clock& operator=(const virtual_clock&) = delete;
  ~virtual_clock() {
    const lock_guard lock(mutex_);
    VELTRIX_ASSERT(sleepers_ == nullptr, "a virtual_clock ended under a sleeper");
  }

  [[nodiscard]] time_point now() const noexcept {
    const lock_guard lock(mutex_);
    return now_;
  }

  /// Moves time forward to `by` after now() (negative: not at all), running the timers that fall
  /// due in order, each at its own time, on this thread. Two threads that advance at once move it
  /// by the larger step, not by the sum.
  void advance(duration by) { advance_to(saturating_add(now(), by)); }

  /// Moves time forward to `target`; an earlier target changes nothing.
  void advance_to(time_point target) {
    for (;;) {
      detail::task due;
      {
        const lock_guard lock(mutex_);
        const auto first = timers_.begin();
        const bool has_due = first != timers_.end() && first->first <= target;
        const time_point step = has_due ? first->first : target;
        if (step > now_) now_ = step;
        if (has_due) {
          due = std::move(first->second);
          timers_.erase(first);
        }
      }
      moved_.notify_all();
      if (!due) return;
      due();
    }
  }

  /// Runs `callback` when the clock reaches `at`; a time already past waits for the next advance.
  void call_at(time_point at, detail::task callback) {
    const lock_guard lock(mutex_);
    timers_.emplace(at, std::move(callback));
  }

  /// See virtual_sleep. Result: true once now() >= `until`, false if `token` stopped first.
  bool sleep_until(time_point until, const stop_token& token) {
    if (token.stop_requested()) return now() >= until;
    if (mode_ == virtual_sleep::advances) {
      advance_to(until);
      return true;
    }
    detail::sync::unique_lock<detail::sync::mutex> lock(mutex_);
    if (now_ >= until) return true;
    sleeper_record self{until, token, sleepers_};
    sleepers_ = &self;
    moved_.notify_all();
    // woken by advance_to(), after it wrote now_; by the token
    const bool reached =
        detail::wait_until(lock, moved_, no_deadline, token, [&] { return now_ >= until; });
    sleeper_record** link = &sleepers_;
    while (*link != &self)
      link = &(*link)->next;
    *link = self.next;
    return reached;
  }

  /// Waits until `count` threads sleep on this clock: how a test orders itself without real time.
  /// A sleeper whose time has come, or whose token has stopped, no longer counts.
  void await_sleepers(std::size_t count) {
    detail::sync::unique_lock<detail::sync::mutex> lock(mutex_);
    while (asleep() < count)
      moved_.wait(lock);  // woken by sleep_until(), after it listed itself
  }

  /// Timers not yet run.
  [[nodiscard]] std::size_t pending_timers() const {
    const lock_guard lock(mutex_);
    return timers_.size();
  }

 private:
  using lock_guard = detail::sync::lock_guard<detail::sync::mutex>;

  /// A sleep_until() that has not returned; stands on its stack.
  struct sleeper_record {
    const time_point until;
    const stop_token& token;
    sleeper_record* next;
  };

  std::size_t asleep() const noexcept {
    std::size_t count = 0;
    for (const sleeper_record* each = sleepers_; each != nullptr; each = each->next) {
      if (now_ < each->until && !each->token.stop_requested()) ++count;
    }
    return count;
  }

  const virtual_sleep mode_;
  mutable detail::sync::mutex mutex_;               // guards everything below
  detail::sync::condition_variable moved_;          // now_ grew or a sleeper came
  time_point now_{std::chrono::hours(1)};           // guarded by mutex_
  sleeper_record* sleepers_ = nullptr;              // guarded by mutex_; the records as well
  std::multimap<time_point, detail::task> timers_;  // guarded by mutex_; equal times keep order
};

}  // namespace VELTRIX_ABI
}  // namespace veltrix
