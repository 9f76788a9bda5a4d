// retry on a virtual clock whose sleeps move it: attempts that take time, fail in every way, name a
// wait, throw or ask to stop, under deadlines, attempt limits and timeouts of any size.
// Model: the schedule written out as a loop. Delays with jitter are checked as a range, and the
// model goes on from what was slept.
// SPDX-License-Identifier: BSL-1.0
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <vector>

#include "driver.hpp"
#include "veltrix/clock.hpp"
#include "veltrix/retry.hpp"
#include "veltrix/stop_token.hpp"

namespace veltrix_fuzz {
namespace {

using veltrix::backoff;
using veltrix::duration;
using veltrix::stop_reason;
using veltrix::time_point;
using veltrix::verdict;
using veltrix::verdict_kind;

/// What one attempt does.
struct scripted_attempt {
  duration takes{};
  verdict_kind kind = verdict_kind::success;
  duration told{};
  bool throws = false;
  bool asks_to_stop = false;
};

struct answer {
  verdict says;
};

struct attempt_failed : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Bits that are all zero or all one: the ends of every jitter.
struct extreme_bits {
  using result_type = std::uint64_t;
  static constexpr std::uint64_t min() { return 0; }
  static constexpr std::uint64_t max() { return ~std::uint64_t{0}; }
  explicit extreme_bits(std::uint64_t seed) : high(seed != 0) {}
  std::uint64_t operator()() { return high ? max() : min(); }
  bool high;
};

/// The curve of a backoff, in plain numbers.
struct plain_delay {
  std::size_t shape = 0;
  std::int64_t first = 1;
  std::int64_t step = 0;
  std::int64_t cap = 1;
  std::size_t jitter = 0;

  backoff make() const {
    const backoff curve = shape == 0   ? backoff(veltrix::constant{duration(first)})
                          : shape == 1 ? backoff(veltrix::linear{duration(first), duration(step)})
                                       : backoff(veltrix::exponential{duration(first), 2.0});
    const backoff bounded = curve | veltrix::capped{duration(cap)};
    if (jitter == 1) return bounded | veltrix::full_jitter{};
    if (jitter == 2) return bounded | veltrix::equal_jitter{};
    return bounded;
  }
  std::int64_t high(std::size_t index) const {
    std::int64_t value = first;
    for (std::size_t i = 0; i < index && value < cap; ++i)
      value = shape == 0 ? value : shape == 1 ? value + step : value * 2;
    return std::min(value, cap);
  }
  std::int64_t low(std::size_t index) const {
    if (jitter == 1) return 0;
    return jitter == 2 ? high(index) / 2 : high(index);
  }
};

struct settings {
  duration total{};
  std::uint32_t attempts = 1;
  duration timeout{};
  plain_delay delay{};
  bool high_bits = false;
  std::optional<duration> within{};  // an outer deadline
  bool only_unsent = false;
  bool stopped_before = false;
};

settings read_settings(byte_source& from) {
  settings made;
  const auto span = [&] { return duration(1 + static_cast<std::int64_t>(from.number(2))); };
  made.total = from.one_in(6) ? duration::max() : span();
  made.attempts =
      from.one_in(6) ? veltrix::retry::any_number : static_cast<std::uint32_t>(1 + from.below(6));
  made.timeout = from.one_in(6) ? duration::max() : span();
  made.delay.shape = from.below(3);
  made.delay.first = 1 + static_cast<std::int64_t>(from.below(200));
  made.delay.step = static_cast<std::int64_t>(from.below(100));
  made.delay.cap = 1 + static_cast<std::int64_t>(from.number(2) % 4000);
  made.delay.jitter = from.below(3);
  made.high_bits = from.flag();
  if (from.one_in(4)) made.within = duration(static_cast<std::int64_t>(from.number(2)));
  made.only_unsent = from.one_in(4);
  made.stopped_before = from.one_in(16);
  return made;
}

scripted_attempt read_attempt(byte_source& from) {
  scripted_attempt made;
  if (from.empty()) return made;  // the end of the input succeeds, so every call ends
  made.takes = duration(from.flag() ? static_cast<std::int64_t>(from.below(256))
                                    : static_cast<std::int64_t>(from.number(2)));
  const std::size_t kind = from.below(12);
  made.kind = kind == 0   ? verdict_kind::success
              : kind == 1 ? verdict_kind::permanent
              : kind == 2 ? verdict_kind::ignored
                          : verdict_kind::transient;
  if (kind > 8) made.told = duration(static_cast<std::int64_t>(from.number(2)) - 100);
  made.throws = kind == 5;
  made.asks_to_stop = from.one_in(32);
  return made;
}

/// What an attempt was seen to be.
struct seen_attempt {
  scripted_attempt script;
  time_point began;
  time_point deadline;
  std::uint32_t index;
};

class session {
 public:
  explicit session(byte_source& from) : from_(from), set_(read_settings(from)) {}

  void run() {
    using namespace veltrix;
    const auto classify = [](const answer& got) { return got.says; };
    const auto policy =
        deadline{set_.total} | retry{.attempts = set_.attempts, .delay = set_.delay.make()} |
        attempt_timeout{set_.timeout} | classifying(classify) | catching<attempt_failed>();
    if (set_.only_unsent) {
      call(policy | only_if_unsent{});
    } else {
      call(policy);
    }
  }

 private:
  template <class Policy>
  void call(const Policy& policy) {
    veltrix::env<veltrix::virtual_clock, extreme_bits> where(clock_, stopping_.get_token(),
                                                             extreme_bits(set_.high_bits));
    began_ = clock_.now();
    if (set_.within) where.within(began_ + *set_.within);
    if (set_.stopped_before) stopping_.request_stop();
    const auto told = policy.run(where, [this](veltrix::attempt& which) { return make(which); });
    ended_ = clock_.now();
    replay(told);
  }

  answer make(veltrix::attempt& which) {
    trace::add("attempt");
    const scripted_attempt script = read_attempt(from_);
    require(which.index() == seen_.size() + 1, "attempts are counted from 1");
    seen_.push_back({script, clock_.now(), which.deadline(), which.index()});
    which.mark_sent();
    clock_.advance(script.takes);
    if (script.asks_to_stop) stopping_.request_stop();
    if (script.throws) throw attempt_failed("scripted");
    return {{script.kind, script.told}};
  }

  time_point until() const {
    const time_point own = veltrix::saturating_add(began_, set_.total);
    return set_.within ? std::min(own, began_ + *set_.within) : own;
  }

  /// Goes through the call again, by the rules.
  template <class Outcome>
  void replay(const Outcome& told) {
    time_point now = began_;
    bool stopped = set_.stopped_before;
    for (std::size_t i = 0;; ++i) {
      if (stopped) return finish(told, stop_reason::stopped, i, now);
      if (now >= until() && until() != veltrix::no_deadline)
        return finish(told, stop_reason::deadline, i, now);
      require(i < seen_.size(), "an attempt that was due was not made");
      const seen_attempt& made = seen_[i];
      require(made.began == now, "an attempt begins when its wait is over");
      const time_point limit = std::min(until(), veltrix::saturating_add(now, set_.timeout));
      require(made.deadline == limit, "an attempt's deadline");
      now += made.script.takes;
      stopped = stopped || made.script.asks_to_stop;
      const auto reason = end_of(made, i, stopped);
      if (reason) return finish(told, *reason, i + 1, now);
      const auto waits = allowed_wait(made.script, i);
      const duration left = until() - now;
      const bool limited = until() != veltrix::no_deadline;
      if (limited && waits.low >= left) return finish(told, stop_reason::deadline, i + 1, now);
      const bool went_on = i + 1 < seen_.size();
      if (!went_on) {
        require(limited && waits.high >= left, "the call gave up although the wait fits");
        return finish(told, stop_reason::deadline, i + 1, now);
      }
      const duration slept = seen_[i + 1].began - now;
      require(slept >= waits.low && slept <= waits.high, "the wait is within its bounds");
      require(!limited || slept < left, "a wait ends before the deadline");
      now += slept;
    }
  }

  /// The reason for which no further attempt is considered.
  std::optional<stop_reason> end_of(const seen_attempt& made, std::size_t i, bool stopped) const {
    const verdict_kind kind = made.script.throws ? verdict_kind::transient : made.script.kind;
    if (kind == verdict_kind::success) return stop_reason::success;
    if (kind == verdict_kind::ignored) return stop_reason::ignored;
    if (kind == verdict_kind::permanent) return stop_reason::permanent;
    if (set_.attempts != veltrix::retry::any_number && i + 1 >= set_.attempts)
      return stop_reason::attempts_exhausted;
    if (set_.only_unsent) return stop_reason::already_sent;
    if (stopped) return stop_reason::stopped;
    return std::nullopt;
  }

  struct wait_range {
    duration low;
    duration high;
  };
  /// One nanosecond for what a fraction of a jitter rounds.
  wait_range allowed_wait(const scripted_attempt& made, std::size_t i) const {
    const duration low(std::max<std::int64_t>(set_.delay.low(i) - 1, 0));
    const duration high(set_.delay.high(i) + 1);
    const bool exact = set_.delay.jitter == 0;
    const wait_range own{exact ? low + duration(set_.delay.low(i) > 0 ? 1 : 0) : low,
                         exact ? high - duration(1) : high};
    const duration asked = made.throws ? duration::zero() : made.told;
    if (asked <= own.low) return own;
    // Clients told the same wait do not return together: up to half as long again.
    return {std::max(own.low, asked), std::max(own.high, asked + asked / 2)};
  }

  template <class Outcome>
  void finish(const Outcome& told, stop_reason reason, std::size_t attempts, time_point at) {
    if (told.reason() != reason) {
      std::fprintf(stderr, "fuzz: %s\n", told.message().c_str());
    }
    agree(static_cast<int>(told.reason()), static_cast<int>(reason), "why the call ended");
    agree(told.attempts(), attempts, "how many attempts were made");
    agree(seen_.size(), attempts, "how many times the function was called");
    require(ended_ == at, "the call ends without a further wait");
    agree(static_cast<bool>(told), reason == stop_reason::success, "success");
    require(!told.message().empty(), "every end has words");
    if (attempts == 0) {
      require(!told.has_result(), "no attempt, no result");
      return;
    }
    const scripted_attempt& last = seen_.back().script;
    agree(told.has_result(), !last.throws, "the last result is there, if there was one");
    agree(told.error() != nullptr, last.throws, "the last exception is there, if there was one");
    if (told.has_result()) {
      agree(static_cast<int>(told->says.kind), static_cast<int>(last.kind), "the last result");
    }
  }

  byte_source& from_;
  const settings set_;
  veltrix::virtual_clock clock_{veltrix::virtual_sleep::advances};
  veltrix::stop_source stopping_;
  std::vector<seen_attempt> seen_;
  time_point began_{};
  time_point ended_{};
};

}  // namespace

void one_input(byte_source& from) {
  session(from).run();
}

}  // namespace veltrix_fuzz
