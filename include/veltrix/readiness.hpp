// Whether an instance may take traffic: what it depends on has held for a while, and it caught up.
// Use for: the answer to a load balancer's or an orchestrator's readiness probe.
// Not for: liveness; an instance that is not ready must not be killed for it.
// Threads: all members may be called from any thread.
// Progress: a short lock.
// Callbacks: none.
// Exceptions: std::invalid_argument on bad options; std::bad_alloc of texts.
// Lifetime: a value of the process.
// Guide: docs/readiness.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "clock.hpp"
#include "detail/option_check.hpp"
#include "detail/sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// Options of a readiness.
struct readiness_options {
  /// How long a condition must hold again after it was lost; 0 to 1 h. The first time it counts at
  /// once: an instance that starts has nothing to prove.
  duration stable_for = std::chrono::seconds(30);
};

/// What a condition is.
enum class condition_state : std::uint8_t { unmet, met };

/// A fixed list of named conditions, each unmet at first. Ready when every one is met, and each of
/// those that was ever lost has been met for `stable_for` without a break.
class readiness {
 public:
  /// @param conditions  their names, one or more, as they stand in answers: "source attached"
  /// Throws std::invalid_argument when there is none, or the time is out of its bounds.
  explicit readiness(std::vector<std::string> conditions, readiness_options options = {})
      : options_(options) {
    const duration hour = std::chrono::hours(1);
    detail::require_between("readiness", "stable_for", options.stable_for, duration::zero(), hour);
    if (conditions.empty()) detail::refuse_option("readiness", "conditions", "none", "1 or more");
    for (std::string& name : conditions)
      conditions_.push_back({std::move(name)});
  }
  readiness(const readiness&) = delete;
  readiness& operator=(const readiness&) = delete;

  /// What became of a condition.
  struct news {
    condition_state state;
    std::string why{};  ///< of an unmet one: "generation 41 of 44"
  };
  /// The condition number `which` is as told, since `now` if that is a change.
  void set(std::size_t which, news told, time_point now) {
    const lock_guard lock(mutex_);
    VELTRIX_ASSERT(which < conditions_.size(), "a readiness was told of a condition it lacks");
    condition& one = conditions_[which];
    one.why = std::move(told.why);
    if (one.state == told.state && one.known) return;
    const bool lost = one.known && told.state == condition_state::unmet;
    if (lost) {
      ++flaps_;
      one.was_lost = true;
    }
    one.known = true;
    one.state = told.state;
    one.since = now;
  }

  /// The answer of a probe.
  struct [[nodiscard]] answer {
    bool ready;
    int http_status;       ///< 200 or 503
    duration retry_after;  ///< not before this can it be ready; zero: nobody knows
    std::string body;      ///< "ready", or a line for each condition that is in the way
  };
  [[nodiscard]] answer ask(time_point now) const {
    const lock_guard lock(mutex_);
    answer told{true, 200, {}, {}};
    bool known = true;
    for (const condition& each : conditions_) {
      const duration held = now - each.since;
      if (each.state == condition_state::unmet) {
        told.ready = known = false;
        told.body.append("not ready: ").append(each.name);
        if (!each.why.empty()) told.body.append(": ").append(each.why);
        if (each.known) told.body.append(", for ").append(detail::text_of(held));
        told.body.append("\n");
      } else if (each.was_lost && held < options_.stable_for) {
        told.ready = false;
        told.retry_after = std::max(told.retry_after, options_.stable_for - held);
        told.body.append("not ready: ").append(each.name).append(": holds for ");
        told.body.append(detail::text_of(held)).append(" of ");
        told.body.append(detail::text_of(options_.stable_for)).append("\n");
      }
    }
    if (!known) told.retry_after = {};
    told.http_status = told.ready ? 200 : 503;
    if (told.ready) told.body = "ready\n";
    return told;
  }

  /// How often a condition that was met was lost.
  [[nodiscard]] std::uint64_t flaps() const noexcept {
    const lock_guard lock(mutex_);
    return flaps_;
  }

 private:
  using lock_guard = detail::sync::lock_guard<detail::sync::mutex>;

  struct condition {
    std::string name;
    condition_state state = condition_state::unmet;
    bool known = false;     // set() was called
    bool was_lost = false;  // met, then unmet
    time_point since{};
    std::string why{};
  };

  const readiness_options options_;
  mutable detail::sync::mutex mutex_;  // guards everything below
  std::vector<condition> conditions_;
  std::uint64_t flaps_ = 0;
};

}  // namespace VELTRIX_ABI
}  // namespace veltrix
