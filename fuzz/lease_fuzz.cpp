// lease_holder and fence_gate: instances that ask, stall and act, a store that is slow, unreachable
// or loses its answer, and whose clock runs ahead within the margin.
// Model: the store itself, which knows who may act.
// SPDX-License-Identifier: BSL-1.0
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "driver.hpp"
#include "veltrix/clock.hpp"
#include "veltrix/lease.hpp"

namespace veltrix_fuzz {
namespace {

using veltrix::duration;
using veltrix::fence_gate;
using veltrix::lease_answer;
using veltrix::lease_holder;
using veltrix::lease_options;
using veltrix::time_point;

struct unreachable {};

/// The machines' time, which passes while a request is under way.
struct shared_time {
  time_point at{std::chrono::hours(1)};
  [[nodiscard]] time_point now() const noexcept { return at; }
};

/// Grants by its own clock: `lead` is how much of the last term that clock has skipped.
class plain_store {
 public:
  plain_store(byte_source& from, shared_time& time, duration most_lead)
      : from_(from), time_(time), most_lead_(most_lead) {}

  lease_answer acquire(std::string_view, std::string_view who, duration term) {
    pass();
    if (from_.one_in(8)) throw unreachable();
    const time_point here = time_.at;
    lease_answer told;
    if (here < until && holder != who) {
      told.left = until - here;
    } else {
      if (holder != who || here >= until) fence += 1 + from_.below(3);
      holder = who;
      // Its clock gains on ours: the term ends that much sooner here.
      const auto gained =
          duration(static_cast<std::int64_t>(from_.number(2)) % (most_lead_ + duration(1)).count());
      until = here + term - gained;
      told.fence = fence;
    }
    pass();
    if (from_.one_in(8)) throw unreachable();  // it happened, but nobody was told
    answered = told;
    return told;
  }

  std::string holder{};
  time_point until{};
  std::uint64_t fence = 0;
  std::optional<lease_answer> answered{};

 private:
  void pass() {
    time_.at += duration(std::chrono::microseconds(from_.flag() ? from_.number(2) : 0));
  }

  byte_source& from_;
  shared_time& time_;
  const duration most_lead_;
};

class session {
 public:
  explicit session(byte_source& from)
      : from_(from), options_(read_options(from)), store_(from, time_, options_.margin) {
    for (std::size_t i = 0; i < instances; ++i) {
      holders_.push_back(std::make_unique<lease_holder<plain_store>>(
          store_, lease_holder<plain_store>::names{"leader", name(i)}, options_));
    }
  }

  void run() {
    while (!from_.empty()) {
      if (from_.flag()) time_.at += duration(std::chrono::microseconds(from_.number(2)));
      const std::size_t which = from_.below(instances);
      switch (from_.below(3)) {
        case 0: step(which); break;
        case 1: act(which); break;
        default: stall(which); break;
      }
      compare();
    }
  }

 private:
  static constexpr std::size_t instances = 3;

  static std::string name(std::size_t which) { return "instance " + std::to_string(which); }
  static lease_options read_options(byte_source& from) {
    lease_options made;
    made.term = duration(std::chrono::milliseconds(3 + from.below(200)));
    made.margin = duration(static_cast<std::int64_t>(from.number(3)) % (made.term / 3).count());
    return made;
  }

  struct plain_holder {
    std::uint64_t fence = 0;
    time_point until{};  // no fence from then on
  };

  void step(std::size_t which) {
    trace::add("step");
    const time_point asked = time_.at;
    store_.answered.reset();
    time_point next{};
    try {
      next = holders_[which]->step(time_);
    } catch (const unreachable&) {
      return;  // what it knew still holds
    }
    const lease_answer& told = *store_.answered;
    if (told.fence == 0) {
      model_[which] = {};
      const duration most = options_.term / 3;
      const duration pause = std::clamp<duration>(told.left, std::chrono::milliseconds(1), most);
      require(next == time_.at + pause, "it asks again when the other's term is over");
      return;
    }
    model_[which] = {told.fence, asked + options_.term - options_.margin};
    require(next == asked + options_.term / 3, "it renews at a third");
  }

  /// An effect that reaches its gate at once.
  void act(std::size_t which) {
    trace::add("act");
    const auto fence = holders_[which]->fence(time_.at);
    if (fence) admit(*fence);
  }

  /// An effect of an instance that stalled since it looked.
  void stall(std::size_t which) {
    trace::add("stall");
    if (late_[which]) {
      admit(*late_[which]);
      late_[which].reset();
    } else {
      late_[which] = holders_[which]->fence(time_.at);
    }
  }

  void admit(std::uint64_t fence) {
    const bool newest = fence >= admitted_;
    agree(gate_.admit(fence), newest, "what is not older than all before is let through");
    admitted_ = std::max(admitted_, fence);
    agree(gate_.newest(), admitted_, "the newest fence");
  }

  void compare() const {
    std::size_t may_act = 0;
    for (std::size_t which = 0; which < instances; ++which) {
      const auto fence = holders_[which]->fence(time_.at);
      const bool holds = time_.at < model_[which].until;
      agree(fence.has_value(), holds, "whether it may act");
      if (!fence) continue;
      ++may_act;
      agree(*fence, model_[which].fence, "its fence");
      agree(*fence, store_.fence, "nobody has a newer one");
      agree(store_.holder, name(which), "the store says the same");
      require(time_.at < store_.until, "the store's term has not ended");
    }
    require(may_act <= 1, "one leader at most");
  }

  byte_source& from_;
  const lease_options options_;
  shared_time time_{};
  plain_store store_;
  std::vector<std::unique_ptr<lease_holder<plain_store>>> holders_{};
  plain_holder model_[instances]{};
  std::optional<std::uint64_t> late_[instances]{};
  fence_gate gate_{};
  std::uint64_t admitted_ = 0;
};

}  // namespace

void one_input(byte_source& from) {
  session(from).run();
}

}  // namespace veltrix_fuzz
