// What a call under retry stands in: its clock, stop token, randomness and outer deadline.
// Use for: nothing directly; include veltrix/retry.hpp. Internal but for env.
// Not for: use without retry.hpp.
// Threads: one env serves one call at a time.
// Progress: wait-free; the first random() reads the system's randomness.
// Callbacks: none.
// Exceptions: those of the random source's copy.
// Lifetime: the clock outlives the env and its calls.
// Guide: docs/retry.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <concepts>
#include <optional>
#include <utility>

#include "../clock.hpp"
#include "../stop_token.hpp"
#include "small_random.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

inline steady_clock machine_clock;

}  // namespace detail

/// Clock, stop token, randomness and an outer deadline of calls, one call at a time. Seeded with
/// a number, and on a virtual clock, a sequence of calls repeats exactly.
template <clock_source Clock = steady_clock, random_bits Random = small_random>
class env {
 public:
  using clock_type = Clock;

  env() noexcept
    requires std::same_as<Clock, steady_clock>
      : clock_(&detail::machine_clock) {}
  explicit env(stop_token token) noexcept
    requires std::same_as<Clock, steady_clock>
      : clock_(&detail::machine_clock), token_(std::move(token)) {}
  /// `clock` is a sleeper for run(), a timer_source (timer_queue) for run_on() and awaited().
  explicit env(Clock& clock, stop_token token = {}) noexcept
      : clock_(&clock), token_(std::move(token)) {}
  env(Clock& clock, stop_token token, Random random)
      : clock_(&clock), token_(std::move(token)), random_(std::move(random)) {}

  /// No call goes on past `until`: how a nested call keeps the deadline of the outer attempt.
  env& within(time_point until) noexcept {
    until_ = until;
    return *this;
  }

  [[nodiscard]] Clock& clock() const noexcept { return *clock_; }
  [[nodiscard]] const stop_token& token() const noexcept { return token_; }
  [[nodiscard]] time_point until() const noexcept { return until_; }
  /// Seeded at the first use, which is the first failure.
  [[nodiscard]] Random& random() {
    if (!random_) random_.emplace(Random(small_random::seeded()()));
    return *random_;
  }

 private:
  Clock* clock_;
  stop_token token_;
  std::optional<Random> random_;  // empty until somebody draws
  time_point until_ = no_deadline;
};

env() -> env<>;
env(stop_token) -> env<>;

}  // namespace VELTRIX_ABI
}  // namespace veltrix
