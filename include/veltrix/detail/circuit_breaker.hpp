// Stops calling a dependency that fails, and asks it again one probe at a time.
// Use for: the `guard` of retry. Public as part of veltrix/resilience.hpp.
// Not for: many hosts at once; see outlier_set.
// Threads: all members may be called from any thread; what they hand out, from one at a time.
// Progress: one load while all is well, else a short lock.
// Callbacks: none.
// Exceptions: the constructor throws std::invalid_argument on bad options; nothing else throws.
// Lifetime: the breaker outlives its permits, and every policy that names it.
// Guide: docs/resilience.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>

#include "../clock.hpp"
#include "option_check.hpp"
#include "small_random.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

struct circuit_breaker_options {
  std::uint32_t window = 20;       ///< latest results that are judged; 1 to 64
  std::uint32_t min_samples = 10;  ///< results before it may open; 1 to window
  double failure_ratio = 0.5;      ///< share of failures that opens it; above 0, at most 1
  /// Zero: the latest `window` results are judged. Else those of this time, in tenths of it: the
  /// current tenth and the nine before; 1 us to 1 h. `min_samples` may then be up to 1,000,000.
  duration window_time{};
  duration slow_after{};    ///< a success that took longer is slow; zero: none is; to 1 h
  double slow_ratio = 0.5;  ///< share of slow successes that opens it too; above 0, at most 1
  duration open_first = std::chrono::milliseconds(250);  ///< first open time; 1 ns to open_longest
  duration open_longest = std::chrono::seconds(2);       ///< open times double up to this; to 1 h
  double open_jitter = 0.5;           ///< an open time is cut by up to this share; 0 to 1
  std::uint32_t probes_to_close = 3;  ///< successes in a row that close it; 1 to 1000
};

enum class breaker_state : std::uint8_t {
  closed,     ///< calls pass and are judged
  open,       ///< no call passes until a known time
  half_open,  ///< one probe at a time passes
};

/// Stops calling a dependency that fails, asks it again one probe at a time, and closes after
/// several successes. closed → open when the window says so; open → half_open when the open time
/// is over and somebody asks; half_open → closed after probes_to_close successes, → open (for
/// twice as long) at the first failure.
///
/// I1: every change of state raises generation_; a permit reports only to its own generation, so a
///     late result of an old state changes nothing.
/// I2: in half_open at most one live permit is the probe; it frees the slot whatever becomes of it.
/// I3: fast_ says closed, clean and the generation as of the last change. Clean means the window
///     is full of successes: one more changes nothing, so a healthy call writes nothing.
/// I4: where results are timed (window_time or slow_after), fast_ never says closed: every call
///     takes the lock.
class circuit_breaker {
 public:
  /// The right to make one call. Report once; dropped without a report it counts for nothing.
  class [[nodiscard]] permit {
   public:
    permit() noexcept = default;
    permit(permit&& other) noexcept
        : breaker_(std::exchange(other.breaker_, nullptr)),
          generation_(other.generation_),
          probe_(other.probe_),
          started_(other.started_) {}
    permit& operator=(permit&& other) noexcept {
      if (this != &other) {
        drop();
        breaker_ = std::exchange(other.breaker_, nullptr);
        generation_ = other.generation_;
        probe_ = other.probe_;
        started_ = other.started_;
      }
      return *this;
    }
    ~permit() { drop(); }

    /// True until reported or dropped.
    [[nodiscard]] explicit operator bool() const noexcept { return breaker_ != nullptr; }
    [[nodiscard]] bool is_probe() const noexcept { return breaker_ != nullptr && probe_; }

    /// The call succeeded. One load while all calls succeed, else a short lock.
    void success() noexcept {
      if (breaker_ != nullptr) std::exchange(breaker_, nullptr)->succeeded(generation_, started_);
    }
    /// The call succeeded at `now`: for a breaker that times(). A short lock there.
    void success(time_point now) noexcept {
      if (breaker_ == nullptr) return;
      circuit_breaker* const breaker = std::exchange(breaker_, nullptr);
      breaker->times() ? breaker->succeeded_at(generation_, started_, now)
                       : breaker->succeeded(generation_, started_);
    }
    /// The call failed at `now`. A short lock.
    void failure(time_point now) noexcept {
      if (breaker_ != nullptr) std::exchange(breaker_, nullptr)->failed(generation_, now);
    }
    /// The call says nothing about the dependency, or was not made: a probe's slot is free again.
    void drop() noexcept {
      if (breaker_ == nullptr) return;
      circuit_breaker* const breaker = std::exchange(breaker_, nullptr);
      if (probe_) breaker->dropped(generation_);
    }

   private:
    friend class circuit_breaker;
    permit(circuit_breaker& breaker, std::uint64_t generation) noexcept
        : breaker_(&breaker), generation_(generation) {}

    circuit_breaker* breaker_ = nullptr;  // null: refused, reported or dropped
    std::uint64_t generation_ = 0;
    bool probe_ = false;
    time_point started_{};  // valid where the breaker times()
  };

  /// The answer to enter(): a permit, or the time from which asking again makes sense.
  struct [[nodiscard]] entry {
    permit pass;
    time_point retry_at{};  ///< after now, when refused

    [[nodiscard]] explicit operator bool() const noexcept { return static_cast<bool>(pass); }
  };

  /// @param random  draws the jitter of the open times; give a seed to repeat a run
  /// Throws std::invalid_argument when an option is out of its bounds.
  explicit circuit_breaker(circuit_breaker_options options = {},
                           small_random random = small_random::seeded())
      : options_(checked(options)), random_(random) {}
  circuit_breaker(const circuit_breaker&) = delete;
  circuit_breaker& operator=(const circuit_breaker&) = delete;

  /// Asks to make a call. While closed: one load, no clock. Else a short lock and one clock read.
  template <clock_source Clock>
  entry enter(Clock& clock) noexcept(noexcept(clock.now())) {
    const std::uint64_t seen = fast_.load(detail::sync::relaxed);
    if ((seen & closed_bit) != 0) return {permit(*this, seen >> generation_shift)};
    return enter_slowly(clock.now());
  }

  /// What stands for a permit of a closed breaker that does not judge by time, without its size: a
  /// plain number, to be given to one of the next two, or to nobody.
  struct closed_pass {
    std::uint64_t generation = 0;
  };
  /// enter() for such a breaker: one load. Result: false when enter() is to be asked; nothing has
  /// happened then.
  [[nodiscard]] bool enter_closed(closed_pass& given) const noexcept {
    const std::uint64_t seen = fast_.load(detail::sync::relaxed);
    given.generation = seen >> generation_shift;
    return (seen & closed_bit) != 0;
  }
  /// As permit::success().
  void success(closed_pass held) noexcept { succeeded(held.generation, {}); }
  /// A permit in its place.
  permit keep(closed_pass held) noexcept { return permit(*this, held.generation); }

  /// True when it judges by time, so that success() is to be told it.
  [[nodiscard]] bool times() const noexcept { return timed_; }

  /// As of the last call that changed it: open stays open until somebody asks after its time.
  [[nodiscard]] breaker_state state() const noexcept {
    const lock_guard lock(mutex_);
    return state_;
  }

  struct counts {
    breaker_state state;
    std::uint64_t generation;  ///< changes of state so far
    std::uint64_t opened;      ///< times it opened
    std::uint64_t refused;     ///< calls it did not let pass
    time_point open_until;     ///< of the last open time
  };
  [[nodiscard]] counts stats() const noexcept {
    const lock_guard lock(mutex_);
    return {state_, generation_, opened_, refused_, open_until_};
  }
  [[nodiscard]] const circuit_breaker_options& options() const noexcept { return options_; }

 private:
  using lock_guard = detail::sync::lock_guard<detail::sync::mutex>;
  static constexpr std::uint64_t closed_bit = 1;
  static constexpr std::uint64_t clean_bit = 2;
  static constexpr int generation_shift = 2;

  /// What one tenth of a window of time has counted.
  struct tenth {
    std::uint32_t results = 0;
    std::uint32_t failures = 0;
    std::uint32_t slow = 0;
  };

  static circuit_breaker_options checked(const circuit_breaker_options& options) {
    constexpr std::string_view where = "circuit_breaker";
    detail::require_between(where, "window", options.window, 1U, 64U);
    const bool by_time = options.window_time != duration::zero();
    detail::require_between(where, "min_samples", options.min_samples, 1U,
                            by_time ? 1'000'000U : options.window);
    detail::require_between(where, "failure_ratio", options.failure_ratio, 1e-9, 1.0);
    const duration hour = std::chrono::hours(1);
    if (by_time) {
      const duration least = std::chrono::microseconds(1);
      detail::require_between(where, "window_time", options.window_time, least, hour);
    }
    detail::require_between(where, "slow_after", options.slow_after, duration::zero(), hour);
    detail::require_between(where, "slow_ratio", options.slow_ratio, 1e-9, 1.0);
    detail::require_between(where, "open_longest", options.open_longest, duration(1), hour);
    detail::require_between(where, "open_first", options.open_first, duration(1),
                            options.open_longest);
    detail::require_between(where, "open_jitter", options.open_jitter, 0.0, 1.0);
    detail::require_between(where, "probes_to_close", options.probes_to_close, 1U, 1000U);
    return options;
  }

  [[gnu::noinline]] entry enter_slowly(time_point now) noexcept {
    const lock_guard lock(mutex_);
    entry answer{permit(*this, generation_)};
    answer.pass.started_ = now;
    if (state_ == breaker_state::closed) return answer;
    if (state_ == breaker_state::open) {
      if (now < open_until_) {
        ++refused_;
        return {permit(), open_until_};
      }
      change_to(breaker_state::half_open);
    }
    if (!probe_out_) {
      probe_out_ = true;
      answer.pass.generation_ = generation_;
      answer.pass.probe_ = true;
      return answer;
    }
    // The probe's end is not known. Waiters are told different times, so that they spread.
    ++refused_;
    const double wait =
        static_cast<double>(options_.open_first.count()) * (0.5 + detail::random_fraction(random_));
    return {permit(), saturating_add(now, detail::saturated_nanoseconds(std::max(wait, 1.0)))};
  }

  void succeeded(std::uint64_t generation, time_point now) noexcept {
    const std::uint64_t healthy = generation << generation_shift | clean_bit | closed_bit;
    if (fast_.load(detail::sync::relaxed) == healthy) return;
    took_place({generation, now, result::success});
  }

  void succeeded_at(std::uint64_t generation, time_point started, time_point now) noexcept {
    const bool slow = options_.slow_after > duration::zero() && now - started > options_.slow_after;
    took_place({generation, now, slow ? result::slow : result::success});
  }

  void failed(std::uint64_t generation, time_point now) noexcept {
    took_place({generation, now, result::failure});
  }

  enum class result : std::uint8_t { success, slow, failure };
  struct report {
    std::uint64_t generation;
    time_point now;
    result what;
  };

  [[gnu::noinline]] void took_place(const report& told) noexcept {
    const lock_guard lock(mutex_);
    if (told.generation != generation_) return;
    if (state_ == breaker_state::closed) {
      record(told);
      if (told.what != result::success && too_bad()) open_at(told.now);
      return;
    }
    probe_out_ = false;
    if (told.what != result::success) return open_at(told.now);
    if (++probes_ok_ < options_.probes_to_close) return;
    reopened_ = 0;
    change_to(breaker_state::closed);
  }

  void open_at(time_point now) noexcept {
    open_until_ = saturating_add(now, next_open_time());
    ++opened_;
    change_to(breaker_state::open);
  }

  void dropped(std::uint64_t generation) noexcept {
    const lock_guard lock(mutex_);
    if (generation == generation_) probe_out_ = false;
  }

  /// Puts one result into the window of a closed breaker.
  void record(const report& told) noexcept {
    const std::uint64_t failure = told.what == result::failure ? 1 : 0;
    const std::uint64_t slow = told.what == result::slow ? 1 : 0;
    if (options_.window_time != duration::zero()) {
      tenth& now = tenth_at(told.now);
      ++now.results;
      now.failures += static_cast<std::uint32_t>(failure);
      now.slow += static_cast<std::uint32_t>(slow);
      return;
    }
    const std::uint64_t kept = ~std::uint64_t{0} >> (64 - options_.window);
    results_ = (results_ << 1 | failure) & kept;
    slow_ = (slow_ << 1 | slow) & kept;
    samples_ = std::min(samples_ + 1, options_.window);
    tell_fast_path();
  }

  /// What a share of the window says.
  [[nodiscard]] bool too_bad() const noexcept {
    tenth sum{samples_, static_cast<std::uint32_t>(std::popcount(results_)),
              static_cast<std::uint32_t>(std::popcount(slow_))};
    for (const tenth& each : tenths_) {
      sum.results += each.results;
      sum.failures += each.failures;
      sum.slow += each.slow;
    }
    if (sum.results < options_.min_samples) return false;
    const double results = sum.results;
    return sum.failures / results >= options_.failure_ratio ||
           sum.slow / results >= options_.slow_ratio;
  }

  /// The current tenth of the window, after those that are over were cleared. A time before it,
  /// from a thread that is late, counts as now.
  [[nodiscard]] tenth& tenth_at(time_point now) noexcept {
    const std::int64_t width = std::max<std::int64_t>(options_.window_time.count() / 10, 1);
    const std::int64_t number = now.time_since_epoch().count() / width;
    if (number - tenth_number_ >= 10) tenths_ = {};
    for (; tenth_number_ < number && number - tenth_number_ < 10; ++tenth_number_)
      tenths_[static_cast<std::size_t>(tenth_number_ + 1) % 10] = {};
    tenth_number_ = std::max(tenth_number_, number);
    return tenths_[static_cast<std::size_t>(tenth_number_) % 10];
  }

  duration next_open_time() noexcept {
    duration open = options_.open_first;
    for (std::uint32_t i = 0; i < reopened_ && open < options_.open_longest; ++i) {
      open = std::min(open * 2, options_.open_longest);
    }
    if (reopened_ < 64) ++reopened_;
    const double share = 1.0 - options_.open_jitter * detail::random_fraction(random_);
    const double jittered = static_cast<double>(open.count()) * share;
    return detail::saturated_nanoseconds(std::max(jittered, 1.0));
  }

  void change_to(breaker_state next) noexcept {
    state_ = next;
    ++generation_;
    results_ = 0;
    slow_ = 0;
    samples_ = 0;
    tenths_ = {};
    probes_ok_ = 0;
    probe_out_ = false;
    tell_fast_path();
  }

  void tell_fast_path() noexcept {
    const bool closed = state_ == breaker_state::closed && !timed_;
    const bool clean = closed && samples_ == options_.window && results_ == 0;
    fast_.store(
        generation_ << generation_shift | (clean ? clean_bit : 0) | (closed ? closed_bit : 0),
        detail::sync::relaxed);
  }

  const circuit_breaker_options options_;
  const bool timed_ =
      options_.window_time != duration::zero() || options_.slow_after != duration::zero();
  // relaxed: no other data is read through it; seen late, it lets a call pass that started earlier
  detail::sync::atomic<std::uint64_t> fast_{timed_ ? 0 : closed_bit};
  mutable detail::sync::mutex mutex_;  // guards everything below, and the writes of fast_
  small_random random_;
  breaker_state state_ = breaker_state::closed;
  std::uint64_t generation_ = 0;
  std::uint64_t results_ = 0;  // closed: the last `samples_` results, newest lowest, 1 a failure
  std::uint64_t slow_ = 0;     // the same, 1 a slow success
  std::uint32_t samples_ = 0;
  std::array<tenth, 10> tenths_{};  // closed, by time: tenth_number_ % 10 is the current one
  std::int64_t tenth_number_ = 0;
  std::uint32_t probes_ok_ = 0;  // half_open: successes in a row
  bool probe_out_ = false;       // half_open: the slot is taken
  std::uint32_t reopened_ = 0;   // times opened since it was last closed
  time_point open_until_{};
  std::uint64_t opened_ = 0;
  std::uint64_t refused_ = 0;
};

}  // namespace VELTRIX_ABI
}  // namespace veltrix
