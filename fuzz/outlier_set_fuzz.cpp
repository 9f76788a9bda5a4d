// outlier_set: results of calls to any host, late ones too, at any time.
// Model: of each host what has happened to it, as lists; who is out follows from them.
// SPDX-License-Identifier: BSL-1.0
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "driver.hpp"
#include "veltrix/clock.hpp"
#include "veltrix/resilience.hpp"

namespace veltrix_fuzz {
namespace {

using veltrix::duration;
using veltrix::outlier_set;
using veltrix::outlier_set_options;
using veltrix::time_point;

struct own_clock {
  time_point at{std::chrono::hours(1)};
  [[nodiscard]] time_point now() const noexcept { return at; }
};

/// A time out, and how many of them stood unforgiven when it began.
struct time_out {
  time_point from;
  time_point until;
  std::int64_t weight;
};

struct plain_host {
  std::size_t row = 0;
  std::vector<time_out> outs{};

  bool in_at(time_point now) const { return outs.empty() || outs.back().until <= now; }
};

outlier_set_options read_options(byte_source& from) {
  outlier_set_options made;
  made.failures = static_cast<std::uint32_t>(1 + from.below(4));
  made.eject_first = duration(1 + static_cast<std::int64_t>(from.number(2)));
  made.eject_longest = made.eject_first + duration(static_cast<std::int64_t>(from.number(3)));
  constexpr double shares[] = {0, 0.1, 0.25, 0.5, 0.5, 2.0 / 3, 0.9, 1};
  made.max_ejected = shares[from.below(8)];
  return made;
}

class session {
 public:
  explicit session(byte_source& from)
      : from_(from),
        options_(read_options(from)),
        hosts_(1 + from.below(9)),
        subject_(static_cast<std::uint32_t>(hosts_.size()), options_) {}

  void run() {
    while (!from_.empty()) {
      clock_.at += duration(static_cast<std::int64_t>(from_.number(from_.below(4))));
      const auto which = static_cast<std::uint32_t>(from_.below(hosts_.size()));
      if (from_.below(4) == 0) {
        trace::add("success");
        subject_.success(which);
        hosts_[which].row = 0;
      } else {
        fail(which);
      }
      compare();
    }
  }

 private:
  /// One host at least stays in, and the share is rounded down.
  std::size_t most_out() const {
    std::size_t most = 0;
    while (most + 1 < hosts_.size() &&
           static_cast<double>(most + 1) <=
               options_.max_ejected * static_cast<double>(hosts_.size()) + 1e-9)
      ++most;
    return most;
  }
  std::size_t out_at(time_point now) const {
    return static_cast<std::size_t>(std::count_if(
        hosts_.begin(), hosts_.end(), [&](const plain_host& each) { return !each.in_at(now); }));
  }

  void fail(std::uint32_t which) {
    trace::add("failure");
    // Told late, or by a thread whose look at the clock was earlier.
    const duration late =
        from_.one_in(6) ? duration(static_cast<std::int64_t>(from_.number(2))) : duration::zero();
    const time_point now = clock_.at - late;
    plain_host& host = hosts_[which];
    const bool told = subject_.failure(which, now);
    if (!host.in_at(now)) return require(!told, "while it is out, nothing counts");
    host.row = std::min<std::size_t>(host.row + 1, options_.failures);
    if (host.row < options_.failures) return require(!told, "it takes more failures in a row");
    if (out_at(now) >= most_out()) {
      ++spared_;
      return require(!told, "there is no room");
    }
    require(told, "it is ejected");
    host.row = 0;
    host.outs.push_back(next_out(host, now));
    ++ejections_;
  }

  /// Each whole first time since the last one ended forgives one.
  time_out next_out(const plain_host& host, time_point now) const {
    std::int64_t weight = 1;
    if (!host.outs.empty()) {
      time_point well = host.outs.back().until + options_.eject_first;
      std::int64_t left = host.outs.back().weight;
      for (; left > 0 && well <= now; well += options_.eject_first)
        --left;
      weight = left + 1;
    }
    duration span{};
    for (std::int64_t i = 0; i < weight && span < options_.eject_longest; ++i)
      span += options_.eject_first;
    return {now, now + std::min(span, options_.eject_longest), weight};
  }

  void compare() const {
    std::size_t in = 0;
    time_point last{duration::min()};
    for (std::uint32_t which = 0; which < hosts_.size(); ++which) {
      const plain_host& host = hosts_[which];
      agree(subject_.is_in(which, clock_), host.in_at(clock_.at), "whether a host is in");
      if (!host.outs.empty()) {
        require(subject_.back_at(which) == host.outs.back().until, "when it is back");
        last = std::max(last, host.outs.back().from);
      }
      in += host.in_at(clock_.at) ? 1 : 0;
    }
    require(in >= 1, "somebody is in");
    agree(subject_.ejected(clock_.at), out_at(std::max(clock_.at, last)), "how many are out");
    require(subject_.ejected(clock_.at) <= most_out(), "no more than the share");
    agree(subject_.stats().ejections, ejections_, "ejections");
    agree(subject_.stats().spared, spared_, "spared");
    const auto first = static_cast<std::uint32_t>(ejections_ % (hosts_.size() + 2));
    std::size_t expected = first % hosts_.size();
    while (!hosts_[expected].in_at(clock_.at))
      expected = (expected + 1) % hosts_.size();
    agree(subject_.pick(first, clock_), expected, "the first that is in");
  }

  byte_source& from_;
  const outlier_set_options options_;
  std::vector<plain_host> hosts_;
  outlier_set subject_;
  own_clock clock_{};
  std::uint64_t ejections_ = 0;
  std::uint64_t spared_ = 0;
};

}  // namespace

void one_input(byte_source& from) {
  session(from).run();
}

}  // namespace veltrix_fuzz
