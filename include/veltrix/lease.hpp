// Holding a lease in a store, and refusing the effects of whoever held it before.
// Use for: one leader among instances, with a store that can compare and set.
// Not for: locks inside a process, and stores that lose what they promised.
// Threads: lease_holder: one at a time but for fence(); fence_gate: any.
// Progress: as the store; fence() and fence_gate are wait-free and lock-free.
// Callbacks: the store, no lock held.
// Exceptions: std::invalid_argument on bad options; what the store throws.
// Lifetime: the store outlives its holders.
// Guide: docs/lease.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <chrono>
#include <concepts>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "clock.hpp"
#include "detail/option_check.hpp"
#include "detail/sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// What a store answers to a request for a lease.
struct lease_answer {
  std::uint64_t fence = 0;  ///< granted: grows with each new holder. 0: somebody else has it
  duration left{};          ///< not granted: how long that one's term still lasts
};

/// Grants or prolongs a lease in one step: `acquire(name, holder, term)`. The same holder keeps its
/// fence while its term has not ended; every other grant has a higher fence than any before.
template <class Store>
concept lease_store = requires(Store& store, std::string_view text, duration term) {
  { store.acquire(text, text, term) } -> std::convertible_to<lease_answer>;
};

struct lease_options {
  duration term = std::chrono::seconds(10);  ///< 3 ms to 1 h; renewed at a third of it
  /// No fence is given in this last part of a term: how much faster the store's clock may be, and
  /// how long an effect takes to reach what checks its fence; 0 to a third of the term.
  duration margin = std::chrono::milliseconds(100);
};

/// Holds a lease, or waits for it. Somebody calls step() when it says so: a thread, or a timer.
///
/// I1: a term is counted from before the request was sent, so it ends here no later than there.
template <lease_store Store>
class lease_holder {
 public:
  /// Names the lease and this instance.
  struct names {
    std::string lease;
    std::string holder;
  };
  /// Throws std::invalid_argument when an option is out of its bounds.
  lease_holder(Store& store, names who, lease_options options = {})
      : store_(store), who_(std::move(who)), options_(options) {
    const duration least = std::chrono::milliseconds(3);
    const duration hour = std::chrono::hours(1);
    detail::require_between("lease_holder", "term", options.term, least, hour);
    detail::require_between("lease_holder", "margin", options.margin, duration::zero(),
                            options.term / 3);
  }
  lease_holder(const lease_holder&) = delete;
  lease_holder& operator=(const lease_holder&) = delete;

  /// Asks the store: to renew, or to take over. Result: when to call again. Blocking, as the store.
  template <clock_source Clock>
  time_point step(Clock& clock) {
    const time_point asked = clock.now();
    const lease_answer answer = store_.acquire(who_.lease, who_.holder, options_.term);
    if (answer.fence == 0) {
      // (3) release-store; pairs with acquire-load (2). Publishes: that the lease is another's.
      until_.store(duration::min().count(), detail::sync::release);
      // A moment after the other's term, and soon enough for a takeover within 150 ms.
      const duration pause = std::clamp<duration>(answer.left, std::chrono::milliseconds(1),
                                                  std::max(options_.term / 3, duration(1)));
      return saturating_add(clock.now(), pause);
    }
    const time_point until = saturating_add(asked, options_.term - options_.margin);
    fence_.store(answer.fence, detail::sync::relaxed);
    // (1) release-store; pairs with acquire-load (2). Publishes: fence_ before until_.
    until_.store(until.time_since_epoch().count(), detail::sync::release);
    return saturating_add(asked, options_.term / 3);
  }

  /// The fence to send with an effect at `now`; nothing when the lease may have ended. Look again
  /// before each effect: time may have passed.
  [[nodiscard]] std::optional<std::uint64_t> fence(time_point now) const noexcept {
    // (2) acquire-load; pairs with release-store (1), release-store (3). Sees: fence_ at least as
    // new as until_.
    const std::int64_t until = until_.load(detail::sync::acquire);
    if (now.time_since_epoch().count() >= until) return std::nullopt;
    return fence_.load(detail::sync::relaxed);
  }

 private:
  Store& store_;
  const names who_;
  const lease_options options_;
  // relaxed: ordered by until_
  detail::sync::atomic<std::uint64_t> fence_{0};
  detail::sync::atomic<std::int64_t> until_{duration::min().count()};
};

/// Lets effects through whose fence is not older than any seen: put it where the effects happen.
/// Lock-free.
class fence_gate {
 public:
  /// Result: true when an effect with this fence may happen; the holder before is out from then on.
  [[nodiscard]] bool admit(std::uint64_t fence) noexcept {
    std::uint64_t newest = newest_.load(detail::sync::relaxed);
    while (fence > newest) {
      if (newest_.compare_exchange_weak(newest, fence, detail::sync::relaxed)) return true;
    }
    return fence == newest && fence != 0;
  }
  [[nodiscard]] std::uint64_t newest() const noexcept {
    return newest_.load(detail::sync::relaxed);
  }

 private:
  // relaxed: the word is all there is; what an effect does is ordered by whoever does it
  detail::sync::atomic<std::uint64_t> newest_{0};
};

}  // namespace VELTRIX_ABI
}  // namespace veltrix
