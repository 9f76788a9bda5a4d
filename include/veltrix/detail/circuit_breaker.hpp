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
#include <bit>
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

struct circuit_breaker_options {
  std::uint32_t window = 20;       ///< latest results that are judged; 1 to 64
  std::uint32_t min_samples = 10;  ///< results before it may open; 1 to window
  double failure_ratio = 0.5;      ///< share of failures that opens it; above 0, at most 1
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
class circuit_breaker {
 public:
  /// The right to make one call. Report once; dropped without a report it counts for nothing.
  class [[nodiscard]] permit {
   public:
    permit() noexcept = default;
    permit(permit&& other) noexcept
        : breaker_(std::exchange(other.breaker_, nullptr)),
          generation_(other.generation_),
          probe_(other.probe_) {}
    permit& operator=(permit&& other) noexcept {
      if (this != &other) {
        drop();
        breaker_ = std::exchange(other.breaker_, nullptr);
        generation_ = other.generation_;
        probe_ = other.probe_;
      }
      return *this;
    }
    ~permit() { drop(); }

    /// True until reported or dropped.
    [[nodiscard]] explicit operator bool() const noexcept { return breaker_ != nullptr; }
    [[nodiscard]] bool is_probe() const noexcept { return breaker_ != nullptr && probe_; }

    /// The call succeeded. One load while all calls succeed, else a short lock.
    void success() noexcept {
      if (breaker_ != nullptr) std::exchange(breaker_, nullptr)->succeeded(generation_);
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
    permit(circuit_breaker& breaker, std::uint64_t generation, bool probe) noexcept
        : breaker_(&breaker), generation_(generation), probe_(probe) {}

    circuit_breaker* breaker_ = nullptr;  // null: refused, reported or dropped
    std::uint64_t generation_ = 0;
    bool probe_ = false;
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
    if ((seen & closed_bit) != 0) return {permit(*this, seen >> generation_shift, false)};
    return enter_slowly(clock.now());
  }

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

  static circuit_breaker_options checked(const circuit_breaker_options& options) {
    constexpr std::string_view where = "circuit_breaker";
    detail::require_between(where, "window", options.window, 1U, 64U);
    detail::require_between(where, "min_samples", options.min_samples, 1U, options.window);
    detail::require_between(where, "failure_ratio", options.failure_ratio, 1e-9, 1.0);
    const duration hour = std::chrono::hours(1);
    detail::require_between(where, "open_longest", options.open_longest, duration(1), hour);
    detail::require_between(where, "open_first", options.open_first, duration(1),
                            options.open_longest);
    detail::require_between(where, "open_jitter", options.open_jitter, 0.0, 1.0);
    detail::require_between(where, "probes_to_close", options.probes_to_close, 1U, 1000U);
    return options;
  }

  entry enter_slowly(time_point now) noexcept {
    const lock_guard lock(mutex_);
    if (state_ == breaker_state::closed) return {permit(*this, generation_, false)};
    if (state_ == breaker_state::open) {
      if (now < open_until_) {
        ++refused_;
        return {permit(), open_until_};
      }
      change_to(breaker_state::half_open);
    }
    if (!probe_out_) {
      probe_out_ = true;
      return {permit(*this, generation_, true)};
    }
    // The probe's end is not known. Waiters are told different times, so that they spread.
    ++refused_;
    const double wait =
        static_cast<double>(options_.open_first.count()) * (0.5 + detail::random_fraction(random_));
    return {permit(), saturating_add(now, detail::saturated_nanoseconds(std::max(wait, 1.0)))};
  }

  void succeeded(std::uint64_t generation) noexcept {
    const std::uint64_t healthy = generation << generation_shift | clean_bit | closed_bit;
    if (fast_.load(detail::sync::relaxed) == healthy) return;
    const lock_guard lock(mutex_);
    if (generation != generation_) return;
    if (state_ == breaker_state::closed) {
      record(0);
      return;
    }
    probe_out_ = false;
    if (++probes_ok_ < options_.probes_to_close) return;
    reopened_ = 0;
    change_to(breaker_state::closed);
  }

  void failed(std::uint64_t generation, time_point now) noexcept {
    const lock_guard lock(mutex_);
    if (generation != generation_) return;
    if (state_ == breaker_state::closed) {
      record(1);
      if (samples_ < options_.min_samples) return;
      const double ratio = std::popcount(results_) / static_cast<double>(samples_);
      if (ratio < options_.failure_ratio) return;
    }
    open_until_ = saturating_add(now, next_open_time());
    ++opened_;
    change_to(breaker_state::open);
  }

  void dropped(std::uint64_t generation) noexcept {
    const lock_guard lock(mutex_);
    if (generation == generation_) probe_out_ = false;
  }

  /// Puts one result (1: failure) into the window of a closed breaker.
  void record(std::uint64_t failure) noexcept {
    const std::uint64_t kept = ~std::uint64_t{0} >> (64 - options_.window);
    results_ = (results_ << 1 | failure) & kept;
    samples_ = std::min(samples_ + 1, options_.window);
    tell_fast_path();
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
    samples_ = 0;
    probes_ok_ = 0;
    probe_out_ = false;
    tell_fast_path();
  }

  void tell_fast_path() noexcept {
    const bool closed = state_ == breaker_state::closed;
    const bool clean = closed && samples_ == options_.window && results_ == 0;
    fast_.store(
        generation_ << generation_shift | (clean ? clean_bit : 0) | (closed ? closed_bit : 0),
        detail::sync::relaxed);
  }

  const circuit_breaker_options options_;
  // relaxed: no other data is read through it; seen late, it lets a call pass that started earlier
  detail::sync::atomic<std::uint64_t> fast_{closed_bit};
  mutable detail::sync::mutex mutex_;  // guards everything below, and the writes of fast_
  small_random random_;
  breaker_state state_ = breaker_state::closed;
  std::uint64_t generation_ = 0;
  std::uint64_t results_ = 0;  // closed: the last `samples_` results, newest lowest, 1 a failure
  std::uint32_t samples_ = 0;
  std::uint32_t probes_ok_ = 0;  // half_open: successes in a row
  bool probe_out_ = false;       // half_open: the slot is taken
  std::uint32_t reopened_ = 0;   // times opened since it was last closed
  time_point open_until_{};
  std::uint64_t opened_ = 0;
  std::uint64_t refused_ = 0;
};

}  // namespace VELTRIX_ABI
}  // namespace veltrix
