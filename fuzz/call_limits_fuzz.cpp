// rate_limiter and bulkhead: callers whose clocks are apart and who take only starts that are soon
// enough; places that are taken, handed on and left.
// Model: every start ever granted: the next one is as late as each of them makes it.
// SPDX-License-Identifier: BSL-1.0
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "driver.hpp"
#include "veltrix/clock.hpp"
#include "veltrix/resilience.hpp"

namespace veltrix_fuzz {
namespace {

using veltrix::bulkhead;
using veltrix::duration;
using veltrix::rate_limiter;
using veltrix::rate_limiter_options;
using veltrix::time_point;

__extension__ using wide = __int128;  // sums of times that do not fit

rate_limiter_options read_options(byte_source& from) {
  constexpr double rates[] = {0.001, 0.3, 1, 7, 1000, 123'456.7, 3e8, 1e9};
  return {.per_second = rates[from.below(8)],
          .burst = from.one_in(8) ? 1'000'000U : static_cast<std::uint32_t>(1 + from.below(6))};
}

class rate_session {
 public:
  explicit rate_session(byte_source& from)
      : from_(from),
        options_(read_options(from)),
        interval_(static_cast<std::int64_t>(std::ceil(1e9 / options_.per_second))),
        subject_(options_) {}

  void run() {
    while (!from_.empty())
      step();
    bound_holds();
  }

 private:
  void step() {
    now_ += static_cast<std::int64_t>(from_.number(from_.below(6)));
    const std::int64_t behind = from_.one_in(4) ? static_cast<std::int64_t>(from_.number(2)) : 0;
    // The end of time is asked for now and then.
    const std::int64_t now = from_.one_in(32) ? duration::max().count() - behind : now_ - behind;
    std::int64_t latest = duration::max().count();
    if (from_.flag())
      latest = saturated(wide{now} + static_cast<wide>(from_.number(from_.below(6))));
    if (from_.one_in(4)) latest = now;
    const wide next = next_start(now);
    const wide base = next_base(now);
    const bool fits = next <= latest && base <= duration::max().count() - interval_;
    trace::add(fits ? "granted" : "refused");
    if (latest == now && from_.flag()) {
      agree(subject_.try_acquire(at(now)), fits, "whether it may go at once");
    } else {
      const rate_limiter::slot got = subject_.reserve({.now = at(now), .latest = at(latest)});
      agree(got.granted, fits, "whether a start was granted");
      agree(got.start_at.time_since_epoch().count(), static_cast<std::int64_t>(next), "the start");
    }
    if (fits) granted_.push_back({now, static_cast<std::int64_t>(next)});
  }

  static time_point at(std::int64_t nanoseconds) { return time_point(duration(nanoseconds)); }
  static std::int64_t saturated(wide value) {
    return static_cast<std::int64_t>(std::min<wide>(value, duration::max().count()));
  }

  /// A place on a line of intervals: that asked for at `now`, less what a quiet time saves, or one
  /// interval for each start granted since any earlier one, whichever is latest.
  wide next_base(std::int64_t now) const {
    const wide saved = static_cast<wide>(options_.burst - 1) * interval_;
    wide base = wide{now} - saved;
    for (std::size_t i = 0; i < granted_.size(); ++i) {
      const wide since = wide{granted_[i].asked} - saved;
      base = std::max(base, since + static_cast<wide>(granted_.size() - i) * interval_);
    }
    return base;
  }
  wide next_start(std::int64_t now) const { return std::max<wide>(now, next_base(now)); }

  /// In any span, no more starts than the burst and what the rate allows.
  void bound_holds() {
    std::sort(granted_.begin(), granted_.end(),
              [](const start& one, const start& other) { return one.at < other.at; });
    for (std::size_t i = 0; i < granted_.size(); ++i) {
      for (std::size_t j = i + options_.burst; j < granted_.size(); ++j) {
        const wide apart = static_cast<wide>(j - i + 1 - options_.burst) * interval_;
        require(wide{granted_[j].at} - granted_[i].at >= apart, "calls started in a span");
      }
    }
  }

  struct start {
    std::int64_t asked;
    std::int64_t at;
  };

  byte_source& from_;
  const rate_limiter_options options_;
  const std::int64_t interval_;
  rate_limiter subject_;
  std::int64_t now_ = duration(std::chrono::hours(1)).count();
  std::vector<start> granted_{};
};

class places_session {
 public:
  explicit places_session(byte_source& from)
      : from_(from), limit_(1 + from.below(4)), subject_(static_cast<std::uint32_t>(limit_)) {}

  void run() {
    while (!from_.empty()) {
      const std::size_t which = from_.below(hands);
      switch (from_.below(4)) {
        case 0: enter(which); break;
        case 1: leave(which); break;
        case 2: hand_on(which, from_.below(hands)); break;
        default: places_[which] = bulkhead::permit(); inside_[which] = false;
      }
      std::size_t inside = 0;
      for (std::size_t i = 0; i < hands; ++i) {
        agree(static_cast<bool>(places_[i]), inside_[i], "who is inside");
        inside += inside_[i] ? 1 : 0;
      }
      agree(subject_.in_use(), inside, "places taken");
      require(inside <= limit_, "the limit");
    }
  }

 private:
  static constexpr std::size_t hands = 6;

  void enter(std::size_t which) {
    trace::add("enter");
    std::size_t inside = 0;
    for (const bool each : inside_)
      inside += each ? 1 : 0;
    bulkhead::permit got = subject_.try_enter();
    agree(static_cast<bool>(got), inside < limit_, "whether there was a place");
    inside_[which] = static_cast<bool>(got);
    places_[which] = std::move(got);
  }
  void leave(std::size_t which) {
    trace::add("leave");
    places_[which].leave();
    inside_[which] = false;
  }
  void hand_on(std::size_t from, std::size_t to) {
    trace::add("hand on");
    bulkhead::permit moved = std::move(places_[from]);
    places_[to] = std::move(moved);
    const bool was = std::exchange(inside_[from], false);
    inside_[to] = was;
  }

  byte_source& from_;
  const std::size_t limit_;
  bulkhead subject_;
  bulkhead::permit places_[hands]{};
  bool inside_[hands]{};
};

}  // namespace

void one_input(byte_source& from) {
  if (from.below(4) == 0) {
    places_session(from).run();
  } else {
    rate_session(from).run();
  }
}

}  // namespace veltrix_fuzz
