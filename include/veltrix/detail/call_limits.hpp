// Fixed bounds on calls: how many a second, and how many at a time.
// Use for: the `limit` of retry. Public as part of veltrix/resilience.hpp.
// Not for: bounds that follow the load; see concurrency_limiter.
// Threads: all members may be called from any thread; what they hand out, from one at a time.
// Progress: lock-free; each call writes a shared word.
// Callbacks: none.
// Exceptions: the constructor throws std::invalid_argument on bad options; nothing else throws.
// Lifetime: each object outlives its permits, and every policy that names it.
// Guide: docs/resilience.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>

#include "../clock.hpp"
#include "cache_padded.hpp"
#include "option_check.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

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
