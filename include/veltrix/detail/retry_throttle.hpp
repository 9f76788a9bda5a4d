// Stops retries while too many attempts fail: a count that failures lower and successes raise.
// Use for: the `throttle` of retry. Public as part of veltrix/resilience.hpp.
// Not for: a bound in time or per call; see retry_budget.
// Threads: all members may be called from any thread.
// Progress: lock-free; a healthy dependency costs one load.
// Callbacks: none.
// Exceptions: the constructor throws std::invalid_argument on bad options; nothing else throws.
// Lifetime: the throttle outlives every policy that names it.
// Guide: docs/resilience.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "option_check.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

struct retry_throttle_options {
  std::uint32_t tokens = 10;  ///< held at most, and at the start; 1 to 1000
  double paid_back = 0.1;     ///< tokens that a success pays in; 0.001 to 1
};

/// Allows retries while more than half of its tokens are there. A failed attempt takes one token,
/// a success pays `paid_back` in. Counted in thousandths. Source: gRFC A6, "Throttling Retry
/// Attempts and Hedged RPCs".
///
/// I1: 0 <= balance_ <= capacity_. A full throttle is not written: healthy calls share no written
///     line.
class retry_throttle {
 public:
  /// Throws std::invalid_argument when an option is out of its bounds.
  explicit retry_throttle(retry_throttle_options options = {}) : options_(options) {
    detail::require_between("retry_throttle", "tokens", options.tokens, 1U, 1000U);
    detail::require_between("retry_throttle", "paid_back", options.paid_back, 0.001, 1.0);
  }
  retry_throttle(const retry_throttle&) = delete;
  retry_throttle& operator=(const retry_throttle&) = delete;

  /// An attempt succeeded. One load while full. Lock-free.
  void success() noexcept { change(paid_back_); }
  /// An attempt failed. Lock-free.
  void failure() noexcept { change(-one); }
  /// True while a retry may be made. One load; wait-free.
  [[nodiscard]] bool allows() const noexcept {
    return balance_.load(detail::sync::relaxed) * 2 > capacity_;
  }
  [[nodiscard]] double balance() const noexcept {
    return static_cast<double>(balance_.load(detail::sync::relaxed)) / static_cast<double>(one);
  }
  [[nodiscard]] const retry_throttle_options& options() const noexcept { return options_; }

 private:
  static constexpr std::int64_t one = 1000;

  void change(std::int64_t by) noexcept {
    std::int64_t seen = balance_.load(detail::sync::relaxed);
    for (;;) {
      const std::int64_t next = std::clamp(seen + by, std::int64_t{0}, capacity_);
      if (next == seen) return;
      if (balance_.compare_exchange_weak(seen, next, detail::sync::relaxed)) return;
    }
  }

  const retry_throttle_options options_;
  const std::int64_t capacity_ = static_cast<std::int64_t>(options_.tokens) * one;
  const std::int64_t paid_back_ = std::llround(options_.paid_back * static_cast<double>(one));
  // relaxed: the word is all there is; it orders nothing else
  detail::sync::atomic<std::int64_t> balance_{capacity_};
};

}  // namespace VELTRIX_ABI
}  // namespace veltrix
