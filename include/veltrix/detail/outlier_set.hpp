// Which hosts of a set are left out for a while because calls to them failed in a row.
// Use for: choosing a host per attempt; the `host_guard` of retry. Part of veltrix/resilience.hpp.
// Not for: a dependency that has one address; see circuit_breaker.
// Threads: all members may be called from any thread.
// Progress: one load while no host fails, else a short lock.
// Callbacks: none.
// Exceptions: the constructor throws std::invalid_argument, or std::bad_alloc; nothing else throws.
// Lifetime: the set outlives every policy that names it. A new list of hosts takes a new set.
// Guide: docs/resilience.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string_view>

#include "../clock.hpp"
#include "option_check.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

struct outlier_set_options {
  std::uint32_t failures = 3;                      ///< in a row; the last of them ejects; 1 to 1000
  duration eject_first = std::chrono::seconds(5);  ///< 1 ns to eject_longest
  duration eject_longest = std::chrono::seconds(300);  ///< to 24 h
  double max_ejected = 0.5;  ///< share of the hosts that may be out at once; 0 to 1
};

/// Ejects a host after `failures` failures in a row, for `eject_first` times the number of its
/// ejections that are not yet forgiven, at most `eject_longest`. It is in again at that time, with
/// no failures counted. Each whole `eject_first` that a host has been in again forgives one.
///
/// At most `max_ejected` of the hosts, rounded down, are out at once, and never all of them: who
/// fails beyond that stays in, and is ejected by its next failure when there is room.
///
/// I1: a host's row is 0 when its last result was a success, or none came since it is in again.
/// I2: a host whose `out` was never set has never been ejected, so its `until` is in the past.
class outlier_set {
 public:
  /// @param hosts  1 to 100,000; they are numbered from 0
  /// Throws std::invalid_argument when an option is out of its bounds.
  explicit outlier_set(std::uint32_t hosts, outlier_set_options options = {})
      : options_(checked(hosts, options)),
        size_(hosts),
        most_out_(std::min(
            hosts - 1,
            static_cast<std::uint32_t>(options.max_ejected * static_cast<double>(hosts) + 1e-9))),
        hosts_(std::make_unique<host[]>(hosts)) {}
  outlier_set(const outlier_set&) = delete;
  outlier_set& operator=(const outlier_set&) = delete;

  /// True when calls may go to `which`. One load and no clock while the host was not ejected.
  template <clock_source Clock>
  [[nodiscard]] bool is_in(std::uint32_t which, Clock& clock) const
      noexcept(noexcept(clock.now())) {
    if (!at(which).out.load(detail::sync::relaxed)) return true;
    return back_at(which) <= clock.now();
  }

  /// The first host that is in, from `first` on, round about: there always is one.
  /// O(hosts) when many are out.
  template <clock_source Clock>
  [[nodiscard]] std::uint32_t pick(std::uint32_t first, Clock& clock) const
      noexcept(noexcept(clock.now())) {
    for (std::uint32_t step = 0; step < size_; ++step) {
      const std::uint32_t which = (first % size_ + step) % size_;
      if (is_in(which, clock)) return which;
    }
    return first % size_;
  }

  /// The time from which `which` is in; in the past when it is in. A short lock.
  [[nodiscard]] time_point back_at(std::uint32_t which) const noexcept {
    const lock_guard lock(mutex_);
    return at(which).until;
  }

  /// A call to `which` succeeded. One load while its calls succeed.
  void success(std::uint32_t which) noexcept {
    host& told = at(which);
    if (told.row.load(detail::sync::relaxed) == 0) return;
    const lock_guard lock(mutex_);
    told.row.store(0, detail::sync::relaxed);
  }

  /// A call to `which` failed at `now`. Result: true when that ejected it. A short lock; O(hosts)
  /// for the failure that ejects. Failures of calls begun before an ejection count for nothing
  /// while it lasts.
  bool failure(std::uint32_t which, time_point now) noexcept {
    const lock_guard lock(mutex_);
    host& told = at(which);
    if (now < told.until) return false;
    const std::uint32_t row = std::min(told.row.load(detail::sync::relaxed) + 1, options_.failures);
    told.row.store(row, detail::sync::relaxed);
    if (row < options_.failures) return false;
    if (out_at(now) >= most_out_) {
      ++spared_;
      return false;
    }
    eject(told, now);
    return true;
  }

  /// Hosts that are out at `now`, or at the last ejection if that is later. O(hosts), under a short
  /// lock.
  [[nodiscard]] std::uint32_t ejected(time_point now) const noexcept {
    const lock_guard lock(mutex_);
    return out_at(std::max(now, last_ejection_));
  }

  struct counts {
    std::uint64_t ejections;  ///< so far
    std::uint64_t spared;     ///< failures that would have ejected, had there been room
  };
  [[nodiscard]] counts stats() const noexcept {
    const lock_guard lock(mutex_);
    return {ejections_, spared_};
  }
  [[nodiscard]] std::uint32_t size() const noexcept { return size_; }
  [[nodiscard]] const outlier_set_options& options() const noexcept { return options_; }

 private:
  using lock_guard = detail::sync::lock_guard<detail::sync::mutex>;

  struct host {
    // relaxed: a hint that spares the lock; who sees it late made its call earlier
    detail::sync::atomic<std::uint32_t> row{0};  // failures in a row; written under the mutex
    // relaxed: as row
    detail::sync::atomic<bool> out{false};  // was ever ejected; written under the mutex
    std::uint32_t times = 0;                // ejections not yet forgiven
    time_point until{duration::min()};      // in from then on
  };

  static const outlier_set_options& checked(std::uint32_t hosts,
                                            const outlier_set_options& options) {
    constexpr std::string_view where = "outlier_set";
    detail::require_between(where, "hosts", hosts, 1U, 100'000U);
    detail::require_between(where, "failures", options.failures, 1U, 1000U);
    const duration day = std::chrono::hours(24);
    detail::require_between(where, "eject_longest", options.eject_longest, duration(1), day);
    detail::require_between(where, "eject_first", options.eject_first, duration(1),
                            options.eject_longest);
    detail::require_between(where, "max_ejected", options.max_ejected, 0.0, 1.0);
    return options;
  }

  [[nodiscard]] host& at(std::uint32_t which) const noexcept {
    VELTRIX_ASSERT(which < size_, "an outlier_set was asked for a host that it does not have");
    return hosts_[which];
  }

  [[nodiscard]] std::uint32_t out_at(time_point now) const noexcept {
    std::uint32_t out = 0;
    for (std::uint32_t which = 0; which < size_; ++which)
      out += now < hosts_[which].until ? 1 : 0;
    return out;
  }

  void eject(host& told, time_point now) noexcept {
    if (told.times > 0) {
      const auto well = static_cast<std::uint64_t>((now - told.until) / options_.eject_first);
      told.times -= static_cast<std::uint32_t>(std::min<std::uint64_t>(well, told.times));
    }
    ++told.times;
    const bool longest = told.times > options_.eject_longest / options_.eject_first;
    told.until =
        saturating_add(now, longest ? options_.eject_longest : options_.eject_first * told.times);
    told.row.store(0, detail::sync::relaxed);
    told.out.store(true, detail::sync::relaxed);
    last_ejection_ = std::max(last_ejection_, now);
    ++ejections_;
  }

  const outlier_set_options options_;
  const std::uint32_t size_;
  const std::uint32_t most_out_;
  mutable detail::sync::mutex mutex_;  // guards the hosts but for reads of row and out; the counts
  const std::unique_ptr<host[]> hosts_;
  time_point last_ejection_{duration::min()};
  std::uint64_t ejections_ = 0;
  std::uint64_t spared_ = 0;
};

}  // namespace VELTRIX_ABI
}  // namespace veltrix
