// The version a source announced last, and since when each older one has been overtaken.
// Use for: nothing directly; include veltrix/loading_cache.hpp. Internal.
// Not for: versions that may fall.
// Threads: all members may be called from any thread.
// Progress: floor() is wait-free; the rest take a short lock.
// Callbacks: the clock's now(), this object's lock held.
// Exceptions: the constructor's std::bad_alloc; else what the clock throws.
// Lifetime: plain.
// Guide: docs/loading_cache.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "../clock.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// I1: kept_ ascends by version and by time, and holds at most `most_kept` moments.
/// I2: a version is told to be overtaken when it was, or earlier: stale values are never served
///     for longer than they may be.
class cache_announcements {
 public:
  static constexpr std::size_t most_kept = 128;

  /// @param remembered  how long it matters since when a version has been overtaken; 0: never
  explicit cache_announcements(duration remembered) : remembered_(remembered) {
    if (remembered > duration::zero()) kept_.reserve(most_kept + 1);
  }

  /// The highest version announced. What the source says from now on is at least as new.
  [[nodiscard]] std::uint64_t floor() const noexcept {
    return floor_.load(sync::acquire);  // (1) acquire-load; pairs with release-store (2)
  }

  /// Raises floor() to `version`; a lower one changes nothing.
  template <class Clock>
  void announce(std::uint64_t version, Clock& clock) {
    const sync::lock_guard<sync::mutex> lock(mutex_);
    if (version <= floor_.load(sync::relaxed)) return;  // relaxed: mutex_ is held
    if (remembered_ > duration::zero()) keep(version, clock.now());
    // (2) release-store; pairs with acquire-load (1). Publishes: what the announcer did before.
    floor_.store(version, sync::release);
  }

  /// When the first announcement above `version` came; `version` is below floor(). The beginning
  /// of time if that was longer ago than is remembered.
  [[nodiscard]] time_point overtaken_at(std::uint64_t version) const noexcept {
    const sync::lock_guard<sync::mutex> lock(mutex_);
    if (version < forgotten_) return time_point::min();
    const auto first = std::upper_bound(
        kept_.begin(), kept_.end(), version,
        [](std::uint64_t asked, const moment& each) { return asked < each.version; });
    return first == kept_.end() ? time_point::min() : first->at;
  }

 private:
  struct moment {
    std::uint64_t version;
    time_point at;
  };

  /// mutex_ is held; needs no memory.
  void keep(std::uint64_t version, time_point now) noexcept {
    const auto past = std::find_if(kept_.begin(), kept_.end(), [&](const moment& each) {
      return saturating_add(each.at, remembered_) > now;
    });
    if (past != kept_.begin()) forgotten_ = std::prev(past)->version;
    kept_.erase(kept_.begin(), past);
    kept_.push_back({version, now});
    if (kept_.size() > most_kept) join_two(now);
  }

  /// Joins the two neighbours whose distance matters least beside their age, at the earlier time.
  void join_two(time_point now) noexcept {
    std::size_t best = 0;
    double least = 2;
    for (std::size_t i = 0; i + 2 < kept_.size(); ++i) {  // not the newest one
      const auto distance = std::chrono::duration<double>(kept_[i + 1].at - kept_[i].at);
      const auto age = std::chrono::duration<double>(now - kept_[i].at);
      const double part = age.count() > 0 ? distance / age : 0;
      if (part >= least) continue;
      least = part;
      best = i;
    }
    kept_[best].version = kept_[best + 1].version;
    kept_.erase(kept_.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }

  const duration remembered_;
  mutable sync::mutex mutex_;             // guards the order of announcements and what follows
  std::vector<moment> kept_;              // those not longer ago than remembered_
  std::uint64_t forgotten_ = 0;           // versions below it: overtaken longer ago
  sync::atomic<std::uint64_t> floor_{0};  // written under mutex_
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
