// A bound on calls at a time that follows what the dependency can take.
// Use for: the `limit` of retry, where the right number is not known or changes.
//   Part of veltrix/resilience.hpp.
// Not for: a bound that must hold exactly; see bulkhead.
// Threads: all members may be called from any thread; a permit belongs to one at a time.
// Progress: a short lock.
// Callbacks: none.
// Exceptions: the constructor throws std::invalid_argument on bad options; nothing else throws.
// Lifetime: the limiter outlives its permits, and every policy that names it.
// Guide: docs/resilience.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <string_view>
#include <utility>

#include "../clock.hpp"
#include "option_check.hpp"
#include "small_random.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// What lowers a concurrency_limiter's bound.
enum class limit_by : std::uint8_t {
  delay,     ///< failures, and successes that took long
  failures,  ///< failures alone: additive increase, multiplicative decrease
};

struct concurrency_limiter_options {
  limit_by follows = limit_by::delay;
  std::uint32_t first = 2;     ///< the bound at the start; 1 to most
  std::uint32_t most = 50;     ///< the bound grows no further; 1 to 100,000
  double slow_factor = 4.0;    ///< slow: took more than that times the usual; 1 to 1000
  duration slow_after{};       ///< slow: took longer than this, whatever is usual; zero: learned
  double after_slow = 0.8;     ///< what is left of the bound after a slow success; 0.1 to 1
  double after_failure = 0.5;  ///< what is left of it after a failure; 0.1 to 1
  duration cut_gap = std::chrono::milliseconds(100);  ///< it is lowered once in this; 0 to 1 min
};

/// Additive increase, multiplicative decrease, at the caller: a success raises the bound by
/// 1/bound while it is in use; a failure, or a success that took long, lowers it, once in
/// `cut_gap`. Never below 1: somebody can always ask.
///
/// What is usual is learned from successes: it follows shorter times fast and longer ones slowly,
/// so that a queue that stays does not soon count as usual. Source: TCP Vegas (Brakmo and Peterson,
/// 1995) for the delay; Chiu and Jain, 1989, for the rule of change.
///
/// Who waits for a place asks again, the sooner the fewer are ahead. Places go in the order of the
/// line, as near as can be told: a place that those ahead have left free for `patience` goes to
/// whoever asks, so that a sleeper in front holds nobody up.
///
/// I1: 1 <= bound_ <= most. I2: in_use_ counts live permits; waiting_ counts live places in line.
/// I3: ahead_of() a ticket are at most the live places in front of it; one behind it that was given
///     up counts as if it had been in front.
class concurrency_limiter {
 public:
  /// A call under way, or a place in line for one. Its end, unreported, counts for nothing.
  class [[nodiscard]] permit {
   public:
    permit() noexcept = default;
    permit(permit&& other) noexcept
        : limiter_(std::exchange(other.limiter_, nullptr)),
          inside_(std::exchange(other.inside_, false)),
          ticket_(other.ticket_),
          started_(other.started_) {}
    permit& operator=(permit&& other) noexcept {
      if (this != &other) {
        drop();
        limiter_ = std::exchange(other.limiter_, nullptr);
        inside_ = std::exchange(other.inside_, false);
        ticket_ = other.ticket_;
        started_ = other.started_;
      }
      return *this;
    }
    ~permit() { drop(); }

    /// True while the call may be made: not when refused, in line, reported or dropped.
    [[nodiscard]] explicit operator bool() const noexcept { return inside_; }
    /// The call succeeded at `now`.
    void success(time_point now) noexcept { leave(result::success, now); }
    /// The call failed at `now`.
    void failure(time_point now) noexcept { leave(result::failure, now); }
    /// The call was not made, or says nothing. A place in line is given up.
    void drop() noexcept { leave(result::nothing, {}); }

   private:
    friend class concurrency_limiter;
    enum class result : std::uint8_t { success, failure, nothing };

    void leave(result what, time_point now) noexcept {
      concurrency_limiter* const limiter = std::exchange(limiter_, nullptr);
      if (limiter == nullptr) return;
      if (std::exchange(inside_, false)) {
        limiter->left(what, now - started_, now);
      } else {
        limiter->gave_up();
      }
    }

    concurrency_limiter* limiter_ = nullptr;  // null: neither inside nor in line
    bool inside_ = false;
    std::uint64_t ticket_ = 0;  // valid in line
    time_point started_{};      // valid inside
  };

  /// @param random  spreads the times at which those in line ask again; a seed repeats a run
  /// Throws std::invalid_argument when an option is out of its bounds.
  explicit concurrency_limiter(concurrency_limiter_options options = {},
                               small_random random = small_random::seeded())
      : options_(checked(options)), random_(random) {}
  concurrency_limiter(const concurrency_limiter&) = delete;
  concurrency_limiter& operator=(const concurrency_limiter&) = delete;

  /// A call at `now`, or none: those in line come first. A short lock.
  [[nodiscard]] permit try_enter(time_point now) noexcept {
    permit got;
    const lock_guard lock(mutex_);
    if (may_take(waiting_, now)) take(got, now);
    return got;
  }

  /// A call at `now`, or a place in line, kept in `held` until it is let in or dropped.
  /// Result: `now` when `held` is inside; else when to ask again with the same permit, later than
  /// `now`. A short lock.
  [[nodiscard]] time_point enter_or_wait(permit& held, time_point now) noexcept {
    if (held.inside_) return now;
    const lock_guard lock(mutex_);
    const bool in_line = held.limiter_ != nullptr;
    const std::uint64_t ahead = in_line ? ahead_of(held.ticket_) : waiting_;
    if (may_take(ahead, now)) {
      if (in_line) depart();
      take(held, now);
      return now;
    }
    if (!in_line) {
      held.limiter_ = this;
      held.ticket_ = issued_++;
      ++waiting_;
    }
    return saturating_add(now, look_again(ahead));
  }

  struct counts {
    double bound;           ///< its whole part is in force
    std::uint32_t in_use;   ///< calls under way
    std::uint32_t waiting;  ///< places in line
    duration usual;         ///< what a success usually takes; zero until one was seen
    std::uint64_t lowered;  ///< how often the bound was lowered
  };
  [[nodiscard]] counts stats() const noexcept {
    const lock_guard lock(mutex_);
    return {bound_, in_use_, waiting_, usual_, lowered_};
  }
  [[nodiscard]] const concurrency_limiter_options& options() const noexcept { return options_; }

 private:
  using lock_guard = detail::sync::lock_guard<detail::sync::mutex>;

  static const concurrency_limiter_options& checked(const concurrency_limiter_options& options) {
    constexpr std::string_view where = "concurrency_limiter";
    detail::require_between(where, "most", options.most, 1U, 100'000U);
    detail::require_between(where, "first", options.first, 1U, options.most);
    detail::require_between(where, "slow_factor", options.slow_factor, 1.0, 1000.0);
    const duration hour = std::chrono::hours(1);
    detail::require_between(where, "slow_after", options.slow_after, duration::zero(), hour);
    detail::require_between(where, "after_slow", options.after_slow, 0.1, 1.0);
    detail::require_between(where, "after_failure", options.after_failure, 0.1, 1.0);
    const duration minute = std::chrono::minutes(1);
    detail::require_between(where, "cut_gap", options.cut_gap, duration::zero(), minute);
    return options;
  }

  static std::uint32_t whole(double bound) noexcept { return static_cast<std::uint32_t>(bound); }

  void take(permit& held, time_point now) noexcept {
    ++in_use_;
    held.limiter_ = this;
    held.inside_ = true;
    held.started_ = now;
  }

  [[nodiscard]] std::uint64_t ahead_of(std::uint64_t ticket) const noexcept {
    return ticket > departed_ ? ticket - departed_ : 0;
  }

  [[nodiscard]] bool may_take(std::uint64_t ahead, time_point now) noexcept {
    const std::uint32_t places = whole(bound_);
    if (in_use_ >= places) return false;
    if (free_since_ == no_deadline) free_since_ = now;
    return ahead < places - in_use_ || now - free_since_ > patience();
  }

  /// Twice as long as the next in line sleep.
  [[nodiscard]] duration patience() const noexcept { return 2 * nap(); }
  /// How long the next in line sleep: an eighth of what is usual, 1 to 10 ms.
  [[nodiscard]] duration nap() const noexcept {
    return std::clamp<duration>(usual_ / 8, std::chrono::milliseconds(1),
                                std::chrono::milliseconds(10));
  }

  /// Half to all of what those ahead are likely to take, and at least a nap.
  [[nodiscard]] duration look_again(std::uint64_t ahead) noexcept {
    const double turns = static_cast<double>(ahead) / bound_;
    const double wait = static_cast<double>(usual_.count()) * (turns - 1.0) *
                        (0.5 + 0.5 * detail::random_fraction(random_));
    return std::max(detail::saturated_nanoseconds(wait), nap());
  }

  void depart() noexcept {
    --waiting_;
    ++departed_;
  }
  void gave_up() noexcept {
    const lock_guard lock(mutex_);
    depart();
  }

  void left(permit::result what, duration took, time_point now) noexcept {
    const lock_guard lock(mutex_);
    const std::uint32_t used = in_use_--;
    const bool tells_time = what != permit::result::nothing;
    if (used >= whole(bound_)) free_since_ = tells_time ? now : no_deadline;
    if (!tells_time) return;
    const bool failed = what == permit::result::failure;
    const bool slow = !failed && options_.follows == limit_by::delay && is_slow(took);
    if (!failed) learn(took);
    if (failed || slow) return lower(failed ? options_.after_failure : options_.after_slow, now);
    if (used * 2.0 >= bound_) bound_ = std::min<double>(options_.most, bound_ + 1.0 / bound_);
  }

  [[nodiscard]] bool is_slow(duration took) const noexcept {
    if (options_.slow_after > duration::zero()) return took > options_.slow_after;
    if (usual_ == duration::zero()) return false;
    return static_cast<double>(took.count()) >
           options_.slow_factor * static_cast<double>(usual_.count());
  }

  void learn(duration took) noexcept {
    if (usual_ == duration::zero()) {
      usual_ = std::max(took, duration(1));
      return;
    }
    const duration apart = took - usual_;
    usual_ = std::max(usual_ + apart / (apart < duration::zero() ? 16 : 1024), duration(1));
  }

  void lower(double share, time_point now) noexcept {
    if (lowered_ != 0 && now - lowered_at_ < options_.cut_gap) return;
    lowered_at_ = now;
    ++lowered_;
    bound_ = std::max(1.0, bound_ * share);
  }

  const concurrency_limiter_options options_;
  mutable detail::sync::mutex mutex_;  // guards everything below
  small_random random_;
  double bound_ = options_.first;
  std::uint32_t in_use_ = 0;
  std::uint32_t waiting_ = 0;
  std::uint64_t issued_ = 0;    // tickets: places in line so far
  std::uint64_t departed_ = 0;  // of them, no longer in line
  // When the last place that was in use became free; no_deadline: from the next look on.
  time_point free_since_{};
  duration usual_{};
  time_point lowered_at_{};
  std::uint64_t lowered_ = 0;
};

}  // namespace VELTRIX_ABI
}  // namespace veltrix
