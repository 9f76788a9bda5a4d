// How many workers a pool should have, learned from what it gets done.
// Use for: a pool whose best size is not known or changes, below a ceiling that somebody chose.
// Not for: pools whose size is an operator's decision; nothing resizes a pool by itself.
// Threads: one at a time.
// Progress: wait-free but for texts.
// Callbacks: none; adapt() calls the pool.
// Exceptions: std::invalid_argument on bad options; std::bad_alloc of texts, nothing changed then.
// Lifetime: a value beside the pool.
// Guide: docs/pool_sizer.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "clock.hpp"
#include "detail/message.hpp"
#include "detail/option_check.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

struct pool_sizer_options {
  std::size_t least = 1;                      ///< never below; 1 to ceiling
  std::size_t ceiling = 0;                    ///< never above; 1 to 65,536; no default
  duration window = std::chrono::seconds(1);  ///< what is judged at once; 1 ms to 1 h
  duration latency_budget = duration::max();  ///< above it is pressure; from 1 ns
  double gain = 0.05;                         ///< a change of the rate below it is none; 0.001 to 1
  double step = 0.125;                        ///< of the size, for a try; 0.01 to 0.5
  double after_pressure = 0.75;               ///< what is left of the size; 0.1 to 0.99
  std::uint32_t calm = 3;                     ///< quiet windows before growth; 0 to 100
};

/// What the pool did so far, and how it fares. Counters grow; the rest is of the last window.
struct pool_sample {
  std::uint64_t completed = 0;  ///< tasks that ended
  std::uint64_t timeouts = 0;   ///< calls that ran out of time
  std::uint64_t drops = 0;      ///< work refused or thrown away
  duration latency{};           ///< a high quantile of queue and service; zero: not known
};

/// Why a size was chosen.
enum class sizing_reason : std::uint8_t {
  none,      ///< the window is not over, or nothing is to be tried
  pressure,  ///< timeouts, drops, or a latency above the budget
  faster,    ///< the last change raised the rate: on in the same direction
  slower,    ///< it lowered the rate: back
  no_gain,   ///< it changed nothing: fewer workers do as well
};

/// The name of the value, as written in the code.
[[nodiscard]] constexpr const char* name_of(sizing_reason reason) noexcept {
  switch (reason) {
    case sizing_reason::none: return "none";
    case sizing_reason::pressure: return "pressure";
    case sizing_reason::faster: return "faster";
    case sizing_reason::slower: return "slower";
    case sizing_reason::no_gain: return "no_gain";
  }
  return "unknown";
}

/// What observe() decided.
struct [[nodiscard]] sizing_decision {
  std::size_t size = 0;  ///< workers wanted now
  sizing_reason reason = sizing_reason::none;
  std::string message = {};  ///< one line to log; empty while the size stays

  /// True when the size is another than before.
  [[nodiscard]] explicit operator bool() const noexcept { return !message.empty(); }
};

/// Climbs the hill of the completion rate: a window at a time it tries a size a step away, goes on
/// while that pays, and turns back when it does not; where the rate is flat it goes down, so it
/// settles at the fewest workers that do the work. Pressure cuts the size at once and keeps it
/// from growing for `calm` windows. Source: additive increase, multiplicative decrease (D.-M.
/// Chiu and R. Jain, 1989); hill climbing on throughput as in .NET's thread pool (J. L.
/// Hellerstein et al., "Applying Control Theory in the Real World", 2009).
///
/// I1: least <= size_ <= ceiling.
class pool_sizer {
 public:
  /// @param size  workers at the start; least to ceiling
  /// Throws std::invalid_argument when an option or the size is out of its bounds.
  explicit pool_sizer(std::size_t size, pool_sizer_options options)
      : options_(checked(options)), size_(size) {
    detail::require_between("pool_sizer", "size", size, options.least, options.ceiling);
  }

  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] const pool_sizer_options& options() const noexcept { return options_; }

  /// What to do at `now`, given what the pool did until then. Decides once per window; the first
  /// call only begins one. O(1).
  sizing_decision observe(const pool_sample& seen, time_point now) {
    if (!begun_ || seen.completed < last_.completed) return begin(seen, now);
    const duration past = now - since_;
    if (past < options_.window) return {.size = size_};
    const double rate = static_cast<double>(seen.completed - last_.completed) * 1e9 /
                        static_cast<double>(past.count());
    const course before = course_;
    const sizing_reason why = judge(seen, rate);
    const std::size_t next = next_size(why);
    sizing_decision told{.size = next, .reason = why};
    VELTRIX_TRY {
      if (next != size_) told.message = text_of(next, why, seen, rate);
    }
    VELTRIX_CATCH_ALL {
      course_ = before;
      VELTRIX_RETHROW;
    }
    size_ = next;
    rate_ = rate;
    static_cast<void>(begin(seen, now));
    return told;
  }

  /// Keeps the size over a time that says nothing of it, as while a circuit breaker is open and
  /// calls fail without work. Judging begins anew at `now`: nothing that was counted before it is
  /// judged, and the first window after it is only measured. Call it as long as that time lasts.
  void hold(const pool_sample& seen, time_point now) noexcept {
    course_.judged = false;
    static_cast<void>(begin(seen, now));
  }

  /// The pool did not take the last size, as it says: it has `size`, which counts from here on.
  void correct(std::size_t size) noexcept {
    size_ = std::clamp(size, options_.least, options_.ceiling);
  }

 private:
  /// What a judgement changes.
  struct course {
    bool judged = false;          // rate_ is of a window that may be compared with
    bool up = true;               // the direction of the next try
    std::uint32_t calm_left = 0;  // windows before it may grow again
  };

  static const pool_sizer_options& checked(const pool_sizer_options& options) {
    constexpr std::string_view where = "pool_sizer";
    constexpr std::size_t most = 65536;
    detail::require_between(where, "ceiling", options.ceiling, std::size_t{1}, most);
    detail::require_between(where, "least", options.least, std::size_t{1}, options.ceiling);
    const duration hour = std::chrono::hours(1);
    const duration tick = std::chrono::milliseconds(1);
    detail::require_between(where, "window", options.window, tick, hour);
    detail::require_between(where, "latency_budget", options.latency_budget, duration(1),
                            duration::max());
    detail::require_between(where, "gain", options.gain, 0.001, 1.0);
    detail::require_between(where, "step", options.step, 0.01, 0.5);
    detail::require_between(where, "after_pressure", options.after_pressure, 0.1, 0.99);
    detail::require_between(where, "calm", options.calm, 0U, 100U);
    return options;
  }

  sizing_decision begin(const pool_sample& seen, time_point now) noexcept {
    begun_ = true;
    last_ = seen;
    since_ = now;
    return {.size = size_};
  }

  /// What the window says, and the direction that follows from it.
  sizing_reason judge(const pool_sample& seen, double rate) noexcept {
    const bool late = seen.latency > options_.latency_budget;
    if (seen.timeouts > last_.timeouts || seen.drops > last_.drops || late) {
      course_.calm_left = options_.calm;
      course_.up = false;
      course_.judged = false;  // the rate at another size says nothing of a try
      return sizing_reason::pressure;
    }
    if (course_.calm_left != 0) --course_.calm_left;
    if (!std::exchange(course_.judged, true)) return sizing_reason::none;
    if (rate > rate_ * (1 + options_.gain)) return sizing_reason::faster;
    if (rate < rate_ * (1 - options_.gain)) {
      course_.up = !course_.up;
      return sizing_reason::slower;
    }
    course_.up = size_ == options_.least;  // there it cannot try with fewer
    return sizing_reason::no_gain;
  }

  [[nodiscard]] std::size_t next_size(sizing_reason why) const noexcept {
    const auto of = [this](double share) {
      return static_cast<std::size_t>(static_cast<double>(size_) * share);
    };
    if (why == sizing_reason::none) return size_;
    if (why == sizing_reason::pressure) {
      const std::size_t cut = std::min(of(options_.after_pressure), size_ - 1);
      return std::max(cut, options_.least);
    }
    if (course_.up && course_.calm_left != 0) return size_;
    const std::size_t step = std::max<std::size_t>(of(options_.step), 1);
    if (course_.up) return std::min(size_ + step, options_.ceiling);
    return size_ - std::min(step, size_ - options_.least);
  }

  [[nodiscard]] std::string text_of(std::size_t next, sizing_reason why, const pool_sample& seen,
                                    double rate) const {
    const auto whole = [](double each) { return std::to_string(static_cast<std::uint64_t>(each)); };
    std::string text("veltrix: pool_sizer: ");
    text.append(std::to_string(size_)).append(" -> ").append(std::to_string(next));
    text.append(" workers: ").append(name_of(why)).append(": ").append(whole(rate));
    text.append(" tasks/s, ").append(whole(rate_)).append(" before, ");
    text.append(std::to_string(seen.timeouts - last_.timeouts)).append(" timeouts, ");
    text.append(std::to_string(seen.drops - last_.drops)).append(" drops, latency ");
    text.append(detail::text_of(seen.latency)).append("; bounds ");
    text.append(std::to_string(options_.least)).append(" to ");
    return text.append(std::to_string(options_.ceiling));
  }

  const pool_sizer_options options_;
  std::size_t size_;
  bool begun_ = false;
  course course_;
  double rate_ = 0;     // of the window before, per second
  pool_sample last_;    // at the begin of the window
  time_point since_{};  // likewise
};

/// What adapt() resizes, as elastic_pool: resize_to(size, options) answers with `target`.
template <class Pool, class Options>
concept resizable = requires(Pool& pool, std::int64_t size, const Options& how) {
  { pool.resize_to(size, how).target } -> std::convertible_to<std::size_t>;
};

/// Lets the sizer look, and the pool follow where it decided. The size that the pool then has is
/// what the sizer goes on from. Does not wait for workers that retire, but for threads that start.
/// @param how  of the resize, with its deadline
/// @return the decision; log its message
template <class Pool, class Options>
  requires resizable<Pool, Options>
sizing_decision adapt(Pool& pool, pool_sizer& sizer, const pool_sample& seen, time_point now,
                      const Options& how) {
  sizing_decision told = sizer.observe(seen, now);
  if (told) sizer.correct(pool.resize_to(static_cast<std::int64_t>(told.size), how).target);
  return told;
}

}  // namespace VELTRIX_ABI
}  // namespace veltrix
