// How many retries all callers of one dependency may add to its load.
// Use for: the `budget` of retry. Public as part of veltrix/resilience.hpp.
// Not for: limiting first attempts; see rate_limiter.
// Threads: all members may be called from any thread; what they hand out, from one at a time.
// Progress: one load while the budget is full, else a short lock.
// Callbacks: none.
// Exceptions: the constructor throws std::invalid_argument on bad options; nothing else throws.
// Lifetime: the budget outlives its tokens, and every policy that names it.
// Guide: docs/resilience.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>

#include "../clock.hpp"
#include "option_check.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

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
    if (!full_.load(detail::sync::relaxed)) deposit_slowly();
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

  [[gnu::noinline]] void deposit_slowly() noexcept {
    const lock_guard lock(mutex_);
    add(paid_in_);
  }

  [[gnu::noinline]] void refund() noexcept {
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

}  // namespace VELTRIX_ABI
}  // namespace veltrix
