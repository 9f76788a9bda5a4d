// Delays between attempts as plain values: a curve, a cap, a jitter. Nothing here sleeps.
// Use for: the `delay` of retry, and any loop of your own that waits between attempts.
// Not for: protecting an overloaded service; that takes a budget or a breaker (resilience.hpp).
// Threads: backoff is an immutable value; a sequence or a state serves one thread at a time.
// Progress: wait-free; no allocation, no clock.
// Callbacks: the random source, no lock held.
// Exceptions: building a backoff from bad values throws std::invalid_argument; nothing else does.
// Lifetime: values.
// Guide: docs/backoff.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <string_view>

#include "clock.hpp"
#include "detail/duration_text.hpp"
#include "detail/message.hpp"
#include "detail/small_random.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

// --- curves --------------------------------------------------------------------------------------

/// The same delay every time; at least 1 ns.
struct constant {
  duration delay;
};

/// first, first + step, first + 2 step, ... `first` at least 1 ns, `step` at least 0.
struct linear {
  duration first;
  duration step;
};

/// first, first × factor, first × factor², ... `first` at least 1 ns, `factor` 1 to 1000.
struct exponential {
  duration first;
  double factor = 2.0;
};

/// Each delay drawn between `first` (at least 1 ns) and three times the delay before it. Takes no
/// further jitter. Source: "decorrelated jitter", AWS Architecture Blog, 2015.
struct decorrelated_jitter {
  duration first;
};

// --- what `|` adds to a curve --------------------------------------------------------------------

/// No delay is longer; at least 1 ns. Before a jitter it bounds the curve that the jitter draws
/// from; after one it bounds what was drawn.
struct capped {
  duration longest;
};

/// A delay between 0 and the curve. Spreads clients most.
struct full_jitter {};

/// A delay between half the curve and the curve.
struct equal_jitter {};

/// A delay between (1 - fraction) and (1 + fraction) of the curve; `fraction` above 0, at most 1.
struct spread {
  double fraction;
};

/// Where a call chain stands in its delays. A plain value; a fresh one starts over.
struct backoff_state {
  std::uint64_t drawn = 0;  ///< delays given so far
  duration previous{};      ///< the last of them
};

/// A curve with its cap and jitter: `exponential{100ms} | capped{1s} | full_jitter{}`.
///
/// I1: 0 <= low_ <= high_; without jitter both are 1.
class backoff {
 public:
  /// Each throws std::invalid_argument when a value is out of the bounds named at its type.
  constexpr backoff(constant shape) : first_(shape.delay) {
    require_positive(shape.delay, "constant.delay");
  }
  constexpr backoff(linear shape) : first_(shape.first), step_(shape.step), kind_(kind::linear) {
    require_positive(shape.first, "linear.first");
    if (shape.step < duration::zero()) {
      refuse("linear.step", detail::text_of(shape.step), "0 s or more");
    }
  }
  constexpr backoff(exponential shape)
      : first_(shape.first), factor_(shape.factor), kind_(kind::exponential) {
    require_positive(shape.first, "exponential.first");
    if (!(shape.factor >= 1.0 && shape.factor <= 1000.0)) {
      refuse("exponential.factor", detail::text_of(shape.factor), "1 to 1000");
    }
  }
  constexpr backoff(decorrelated_jitter shape) : first_(shape.first), kind_(kind::decorrelated) {
    require_positive(shape.first, "decorrelated_jitter.first");
  }

  friend constexpr backoff operator|(backoff curve, capped cap);
  friend constexpr backoff operator|(backoff curve, full_jitter);
  friend constexpr backoff operator|(backoff curve, equal_jitter);
  friend constexpr backoff operator|(backoff curve, spread jitter);
  friend constexpr bool operator==(const backoff&, const backoff&) = default;

  /// The next delay, from 0 to the longest duration; any `state.drawn` is safe. Constant time.
  template <random_bits Random>
  [[nodiscard]] duration next(backoff_state& state, Random& random) const {
    const duration drawn = kind_ == kind::decorrelated ? draw_decorrelated(state, random)
                                                       : draw(curve(state.drawn), random);
    if (state.drawn != ~std::uint64_t{0}) ++state.drawn;
    state.previous = std::min(drawn, limit_);
    return state.previous;
  }

  /// The longest that the delay number `index` (from 0) can be.
  [[nodiscard]] duration longest(std::uint64_t index) const noexcept {
    if (kind_ == kind::decorrelated) {
      const double widest = ns(first_) * std::pow(3.0, static_cast<double>(index) + 1.0);
      return std::min({detail::saturated_nanoseconds(widest), longest_, limit_});
    }
    const duration top = curve(index);
    return std::min(high_ == 1.0 ? top : detail::saturated_nanoseconds(ns(top) * high_), limit_);
  }

  /// The shortest that any delay can be.
  [[nodiscard]] duration shortest() const noexcept {
    const duration low = std::min(first_, longest_);
    return std::min(low_ == 1.0 ? low : detail::saturated_nanoseconds(ns(low) * low_), limit_);
  }

  /// What `count` delays come to on average; with decorrelated jitter, or a cap after the jitter,
  /// an estimate from above.
  /// Constant time (decorrelated: at most some 60 steps), held at the longest duration.
  [[nodiscard]] duration mean_total(std::uint64_t count) const noexcept {
    if (kind_ == kind::decorrelated) return decorrelated_mean_total(count);
    const double mean = (low_ + high_) / 2.0;
    const double cap = std::min(ns(longest_), ns(limit_) / mean);
    return detail::saturated_nanoseconds(curve_total(static_cast<double>(count), cap) * mean);
  }

 private:
  enum class kind : std::uint8_t { constant, linear, exponential, decorrelated };

  static constexpr double ns(duration span) noexcept { return static_cast<double>(span.count()); }

  [[noreturn]] static void refuse(std::string_view what, const std::string& got,
                                  std::string_view allowed) {
    detail::raise(std::invalid_argument(detail::describe(
        {"backoff", what, got, allowed, "no backoff was built", "correct the value"})));
  }
  static constexpr void require_positive(duration span, std::string_view what) {
    if (span <= duration::zero()) refuse(what, detail::text_of(span), "1 ns or more");
  }

  constexpr void jitter_between(double low, double high, std::string_view what) {
    if (kind_ == kind::decorrelated || low_ != 1.0 || high_ != 1.0) {
      refuse(what, "a curve that has a jitter", "one jitter per curve");
    }
    low_ = low;
    high_ = high;
  }

  /// factor to the power of index. That of two, which is usual, is put together.
  static double power(double factor, std::uint64_t index) noexcept {
    constexpr std::uint64_t zero = 1023;  // the exponent of 1.0
    static_assert(std::numeric_limits<double>::is_iec559);
    if (factor == 2.0 && index <= zero) return std::bit_cast<double>((zero + index) << 52);
    return std::pow(factor, static_cast<double>(index));
  }

  /// The curve without jitter, cut at longest_. A double cannot hold every duration, here and in
  /// draw_decorrelated(): what it rounds must not fall below the first.
  [[nodiscard]] duration curve(std::uint64_t index) const noexcept {
    switch (kind_) {
      case kind::linear: {
        const auto room = static_cast<std::uint64_t>((duration::max() - first_).count());
        const auto step = static_cast<std::uint64_t>(step_.count());
        if (step != 0 && index > room / step) return longest_;
        return std::min(first_ + duration(static_cast<duration::rep>(index * step)), longest_);
      }
      case kind::exponential: {
        const double grown = ns(first_) * power(factor_, index);
        return std::min(std::max(detail::saturated_nanoseconds(grown), first_), longest_);
      }
      default: return std::min(first_, longest_);
    }
  }

  template <random_bits Random>
  [[nodiscard]] duration draw(duration top, Random& random) const {
    if (low_ == 1.0 && high_ == 1.0) return top;
    const double share = low_ + (high_ - low_) * detail::random_fraction(random);
    return detail::saturated_nanoseconds(ns(top) * share);
  }

  template <random_bits Random>
  [[nodiscard]] duration draw_decorrelated(const backoff_state& state, Random& random) const {
    const double low = ns(first_);
    const double high = 3.0 * ns(std::max(first_, state.previous));
    const double drawn = low + (high - low) * detail::random_fraction(random);
    return std::min(std::max(detail::saturated_nanoseconds(drawn), first_), longest_);
  }

  /// Sum of the first `count` values of the curve, each at most `cap`, in nanoseconds.
  [[nodiscard]] double curve_total(double count, double cap) const noexcept {
    const double first = ns(first_);
    const double step = ns(step_);
    if (first >= cap) return count * cap;
    if (kind_ == kind::linear && step > 0.0) {
      const double below = std::min(count, std::floor((cap - first) / step) + 1.0);
      return below * first + step * below * (below - 1.0) / 2.0 + (count - below) * cap;
    }
    if (kind_ == kind::exponential && factor_ > 1.0) {
      const double growth = std::log(factor_);
      const double below = std::min(count, std::ceil(std::log(cap / first) / growth));
      return first * std::expm1(below * growth) / (factor_ - 1.0) + (count - below) * cap;
    }
    return count * first;
  }

  /// The mean follows m' = min(cap, (first + 3 m) / 2), from m = first.
  [[nodiscard]] duration decorrelated_mean_total(std::uint64_t count) const noexcept {
    const double cap = std::min(ns(longest_), ns(limit_));
    double mean = ns(first_);
    double total = 0.0;
    while (count > 0 && mean < cap) {
      mean = std::min(cap, (ns(first_) + 3.0 * mean) / 2.0);
      total += mean;
      --count;
    }
    return detail::saturated_nanoseconds(total + static_cast<double>(count) * cap);
  }

  duration first_;
  duration step_{};                     // linear only
  double factor_ = 1.0;                 // exponential only
  duration longest_ = duration::max();  // cap of the curve
  duration limit_ = duration::max();    // cap of what a jitter drew
  double low_ = 1.0;                    // the jitter draws between these shares of the curve
  double high_ = 1.0;
  kind kind_ = kind::constant;
};

/// Throws std::invalid_argument when `cap.longest` is below 1 ns.
[[nodiscard]] constexpr backoff operator|(backoff curve, capped cap) {
  backoff::require_positive(cap.longest, "capped.longest");
  const bool jittered = curve.low_ != 1.0 || curve.high_ != 1.0;
  duration& bound = jittered ? curve.limit_ : curve.longest_;
  bound = std::min(bound, cap.longest);
  return curve;
}

/// Each of the three throws std::invalid_argument when the curve has a jitter already.
[[nodiscard]] constexpr backoff operator|(backoff curve, full_jitter) {
  curve.jitter_between(0.0, 1.0, "full_jitter");
  return curve;
}
[[nodiscard]] constexpr backoff operator|(backoff curve, equal_jitter) {
  curve.jitter_between(0.5, 1.0, "equal_jitter");
  return curve;
}
[[nodiscard]] constexpr backoff operator|(backoff curve, spread jitter) {
  if (!(jitter.fraction > 0.0 && jitter.fraction <= 1.0)) {
    backoff::refuse("spread.fraction", detail::text_of(jitter.fraction), "above 0, at most 1");
  }
  curve.jitter_between(1.0 - jitter.fraction, 1.0 + jitter.fraction, "spread");
  return curve;
}

/// The delays of one call chain. Made at the first failure, dropped with the call.
class backoff_sequence {
 public:
  explicit backoff_sequence(const backoff& policy) : policy_(policy) {}

  template <random_bits Random>
  [[nodiscard]] duration next(Random& random) {
    return policy_.next(state_, random);
  }

  [[nodiscard]] std::uint64_t drawn() const noexcept { return state_.drawn; }

 private:
  backoff policy_;
  backoff_state state_;
};

}  // namespace VELTRIX_ABI
}  // namespace veltrix
