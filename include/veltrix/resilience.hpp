// State that calls to one dependency share: retry budget, circuit breaker, rate limit, bulkhead.
// Use for: keeping retries from becoming the outage; one object per dependency, made once.
// Not for: deciding when to try again; retry.hpp does that, and takes these by reference.
// Threads: all members may be called from any thread; a permit or token belongs to one at a time.
// Progress: see each class; a healthy dependency costs loads only, else a short lock.
// Callbacks: none.
// Exceptions: constructors throw std::invalid_argument on bad options; operations throw nothing.
// Lifetime: each object outlives its permits and tokens, and every policy that names it.
// Guide: docs/resilience.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "clock.hpp"
#include "detail/cache_padded.hpp"
#include "detail/duration_text.hpp"
#include "detail/message.hpp"
#include "detail/small_random.hpp"
#include "detail/sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

namespace detail {

[[noreturn]] inline void refuse_option(std::string_view where, std::string_view what,
                                       const std::string& got, std::string_view allowed) {
  raise(std::invalid_argument(
      describe({where, what, got, allowed, "nothing was built", "correct the option"})));
}

/// Throws unless low <= value <= high. A NaN is never between.
template <class Number>
void require_between(std::string_view where, std::string_view what, Number value, Number low,
                     Number high) {
  if (value >= low && value <= high) return;
  refuse_option(where, what, text_of(value), text_of(low) + " to " + text_of(high));
}

}  // namespace detail

// --- retry_budget --------------------------------------------------------------------------------

struct retry_budget_options {
  double ratio = 0.1;        ///< tokens that each first attempt pays in; 0 to 1
  double per_second = 0.5;   ///< tokens that time pays in; 0 to 1,000,000
  std::uint32_t burst = 10;  ///< tokens held at most, and at the start; 1 to 1,000,000
};

/// How many retries all callers of a dependency may add to its load. A retry costs one token:
/// retries granted until a time t after construction <= burst + ratio × first attempts +
/// per_second × t. Counted in whole billionths, so a virtual clock gives exact answers.
///
/// A full budget is not written by deposit(): healthy calls share no written line.
/// I1: 0 <= balance_ <= capacity_; full_ holds balance_ == capacity_ as of the last write.
class retry_budget {
 public:
  /// A granted retry. Give it up unspent (by its destructor) and the budget has it back.
  class [[nodiscard]] token {
   public:
    token() noexcept = default;
    token(token&& other) noexcept : budget_(std::exchange(other.budget_, nullptr)) {}
    token& operator=(token&& other) noexcept {
      if (this != &other) {
        give_back();
        budget_ = std::exchange(other.budget_, nullptr);
      }
      return *this;
    }
    ~token() { give_back(); }

    /// True while it holds a grant.
    [[nodiscard]] explicit operator bool() const noexcept { return budget_ != nullptr; }
    /// The retry was made: the grant is used up.
    void spend() noexcept { budget_ = nullptr; }
    void give_back() noexcept {
      if (budget_ != nullptr) std::exchange(budget_, nullptr)->refund();
    }

   private:
    friend class retry_budget;
    explicit token(retry_budget& budget) noexcept : budget_(&budget) {}

    retry_budget* budget_ = nullptr;  // null: nothing granted, or spent
  };

  /// Throws std::invalid_argument when an option is out of its bounds.
  explicit retry_budget(retry_budget_options options = {}) : options_(options) {
    detail::require_between("retry_budget", "ratio", options.ratio, 0.0, 1.0);
    detail::require_between("retry_budget", "per_second", options.per_second, 0.0, 1e6);
    detail::require_between("retry_budget", "burst", options.burst, 1U, 1'000'000U);
  }
  retry_budget(const retry_budget&) = delete;
  retry_budget& operator=(const retry_budget&) = delete;

  /// A first attempt is made. One load while the budget is full, else a short lock.
  void deposit() noexcept {
    if (full_.load(detail::sync::relaxed)) return;
    const lock_guard lock(mutex_);
    add(paid_in_);
  }

  /// Asks for one retry at `now`. Result: true as a bool when granted. A short lock.
  [[nodiscard]] token try_withdraw(time_point now) noexcept {
    const lock_guard lock(mutex_);
    refill(now);
    if (balance_ < one) {
      ++refused_;
      return token();
    }
    balance_ -= one;
    full_.store(false, detail::sync::relaxed);
    ++granted_;
    return token(*this);
  }

  /// Tokens there at `now`. A short lock.
  [[nodiscard]] double balance(time_point now) noexcept {
    const lock_guard lock(mutex_);
    refill(now);
    return static_cast<double>(balance_) / static_cast<double>(one);
  }

  struct counts {
    std::uint64_t granted;  ///< retries granted, without those given back
    std::uint64_t refused;
  };
  [[nodiscard]] counts stats() const noexcept {
    const lock_guard lock(mutex_);
    return {granted_, refused_};
  }
  [[nodiscard]] const retry_budget_options& options() const noexcept { return options_; }

 private:
  using lock_guard = detail::sync::lock_guard<detail::sync::mutex>;
  __extension__ using wide = __int128;
  static constexpr std::int64_t one = 1'000'000'000;     // billionths of a token
  static constexpr std::int64_t second = 1'000'000'000;  // nanoseconds

  void add(std::int64_t billionths) noexcept {
    balance_ = std::min(capacity_, balance_ + billionths);
    full_.store(balance_ == capacity_, detail::sync::relaxed);
  }

  void refund() noexcept {
    const lock_guard lock(mutex_);
    --granted_;
    add(one);
  }

  /// Pays in what time earned since the last refill; the rest of a division is kept for the next.
  void refill(time_point now) noexcept {
    if (!started_ || now <= refilled_) {
      if (!started_) refilled_ = now;
      started_ = true;
      return;
    }
    const wide earned =
        static_cast<wide>((now - refilled_).count()) * rate_ + static_cast<wide>(rest_);
    const wide whole = earned / second;
    rest_ = static_cast<std::int64_t>(earned % second);
    refilled_ = now;
    add(whole > capacity_ ? capacity_ : static_cast<std::int64_t>(whole));
  }

  const retry_budget_options options_;
  const std::int64_t capacity_ = static_cast<std::int64_t>(options_.burst) * one;
  const std::int64_t paid_in_ = std::llround(options_.ratio * 1e9);
  const std::int64_t rate_ = std::llround(options_.per_second * 1e9);  // billionths per second

  // relaxed: a deposit that sees it late is one that came before the withdrawal
  detail::sync::atomic<bool> full_{true};
  mutable detail::sync::mutex mutex_;  // guards everything below, and the writes of full_
  std::int64_t balance_ = capacity_;
  std::int64_t rest_ = 0;  // billionths of a billionth, earned and not yet paid in
  time_point refilled_{};
  bool started_ = false;  // until the first withdrawal the budget is full, and time adds nothing
  std::uint64_t granted_ = 0;
  std::uint64_t refused_ = 0;
};

// --- circuit_breaker -----------------------------------------------------------------------------

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

// --- rate_limiter --------------------------------------------------------------------------------

struct rate_limiter_options {
  double per_second;        ///< calls a second in the long run; 0.001 to 1,000,000,000
  std::uint32_t burst = 1;  ///< calls that may go at once after a quiet time; 1 to 1,000,000
};

/// A token bucket that hands out start times: whoever must wait is told until when, in the order
/// of asking. Calls started in any span t <= burst + per_second × t, when nobody starts early.
/// Lock-free. Source: the generic cell rate algorithm (ITU-T I.371).
class rate_limiter {
 public:
  /// The answer to reserve().
  struct [[nodiscard]] slot {
    bool granted;         ///< false: nothing was reserved
    time_point start_at;  ///< granted: start then, not before. Else: the first start there was
  };

  /// Throws std::invalid_argument when an option is out of its bounds.
  explicit rate_limiter(rate_limiter_options options) : options_(options) {
    detail::require_between("rate_limiter", "per_second", options.per_second, 0.001, 1e9);
    detail::require_between("rate_limiter", "burst", options.burst, 1U, 1'000'000U);
  }
  rate_limiter(const rate_limiter&) = delete;
  rate_limiter& operator=(const rate_limiter&) = delete;

  struct asked {
    time_point now;
    time_point latest = no_deadline;  ///< a later start is of no use
  };

  /// Reserves the next start, if it is not after `when.latest`; it cannot be given back.
  slot reserve(asked when) noexcept {
    std::int64_t free_at = free_at_.load(detail::sync::relaxed);
    for (;;) {
      const std::int64_t at = when.now.time_since_epoch().count();
      const std::int64_t base = std::max(free_at, at - saved_);
      const time_point start = std::max(when.now, time_point(duration(base)));
      if (start > when.latest || base > duration::max().count() - interval_) return {false, start};
      if (free_at_.compare_exchange_weak(free_at, base + interval_, detail::sync::relaxed)) {
        return {true, start};
      }
    }
  }

  /// A call at `now`, or none. Result: true when it may go.
  [[nodiscard]] bool try_acquire(time_point now) noexcept {
    return reserve({.now = now, .latest = now}).granted;
  }

  [[nodiscard]] const rate_limiter_options& options() const noexcept { return options_; }

 private:
  const rate_limiter_options options_;
  // Rounded up to 1 ns: never faster than asked.
  const std::int64_t interval_ = static_cast<std::int64_t>(std::ceil(1e9 / options_.per_second));
  const std::int64_t saved_ = (static_cast<std::int64_t>(options_.burst) - 1) * interval_;
  // relaxed: the word is all there is; it orders nothing else
  detail::sync::atomic<std::int64_t> free_at_{duration::min().count()};
};

// --- bulkhead ------------------------------------------------------------------------------------

/// At most `limit` calls at a time, so that one slow dependency cannot hold every thread.
/// Lock-free; a permit costs two writes of a shared word.
class bulkhead {
 public:
  /// A place inside; its destructor leaves.
  class [[nodiscard]] permit {
   public:
    permit() noexcept = default;
    permit(permit&& other) noexcept : inside_(std::exchange(other.inside_, nullptr)) {}
    permit& operator=(permit&& other) noexcept {
      if (this != &other) {
        leave();
        inside_ = std::exchange(other.inside_, nullptr);
      }
      return *this;
    }
    ~permit() { leave(); }

    [[nodiscard]] explicit operator bool() const noexcept { return inside_ != nullptr; }
    void leave() noexcept {
      if (inside_ != nullptr) {
        std::exchange(inside_, nullptr)->in_use_.value.fetch_sub(1, detail::sync::relaxed);
      }
    }

   private:
    friend class bulkhead;
    explicit permit(bulkhead& inside) noexcept : inside_(&inside) {}

    bulkhead* inside_ = nullptr;  // null: not inside
  };

  /// @param limit  calls at a time; 1 to 1,000,000, else std::invalid_argument
  explicit bulkhead(std::uint32_t limit) : limit_(limit) {
    detail::require_between("bulkhead", "limit", limit, 1U, 1'000'000U);
  }
  bulkhead(const bulkhead&) = delete;
  bulkhead& operator=(const bulkhead&) = delete;

  /// Result: a permit, false as a bool when all places are taken.
  [[nodiscard]] permit try_enter() noexcept {
    std::uint32_t used = in_use_.value.load(detail::sync::relaxed);
    while (used < limit_) {
      if (in_use_.value.compare_exchange_weak(used, used + 1, detail::sync::relaxed)) {
        return permit(*this);
      }
    }
    return permit();
  }

  [[nodiscard]] std::uint32_t in_use() const noexcept {
    return in_use_.value.load(detail::sync::relaxed);
  }
  [[nodiscard]] std::uint32_t limit() const noexcept { return limit_; }

 private:
  const std::uint32_t limit_;
  // relaxed: it counts places and publishes nothing
  detail::cache_padded<detail::sync::atomic<std::uint32_t>> in_use_{0U};
};

}  // namespace VELTRIX_ABI
}  // namespace veltrix
