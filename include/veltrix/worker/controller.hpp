// Decides when a pool is to change its size, and by how much; the same wherever it runs.
// Use for: keeping the workers that run at the number that the configuration asks for.
// Not for: choosing that number.
// Threads: one.
// Progress: wait-free.
// Callbacks: none.
// Exceptions: none.
// Lifetime: a value.
// Guide: docs/worker.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstdint>
#include <optional>

#include "../clock.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

struct controller_options {
  double dead_band = 0.10;                   ///< a larger share of difference is closed at once
  int dwell_ticks = 10;                      ///< any difference is closed after so many steps
  duration stale = std::chrono::seconds(5);  ///< an older desired value is not acted upon
};

/// What a step sees.
struct controller_view {
  std::optional<std::int64_t> desired{};  ///< empty: unknown, which is never 0
  duration age{};                         ///< of `desired`
  std::uint64_t config_generation = 0;    ///< of `desired`
  std::int64_t target = 0;                ///< the size that the pool works towards
  std::uint64_t epoch = 0;                ///< another number: another pool
  time_point now{};
};

enum class controller_verdict : std::uint8_t {
  settled,  ///< nothing to do
  hold,     ///< no resize now; `why` says so
  resize,   ///< by `delta`
};

struct controller_step {
  controller_verdict verdict = controller_verdict::settled;
  std::int64_t delta = 0;
  const char* why = "";  ///< in static storage
};

/// The first that applies: hold when the desired value is unknown, stale, or was refused; wait
/// while a backoff lasts; close the difference exactly if the configuration changed; close it if
/// it is beyond the dead band; close any difference after so many steps. So the dead band always
/// closes.
class pool_controller {
 public:
  explicit pool_controller(const controller_options& options = {}) : options_(options) {}

  [[nodiscard]] controller_step step(const controller_view& view) noexcept {
    if (!view.desired.has_value()) return hold("the desired number is unknown");
    if (view.age > options_.stale) return hold("the desired number is stale");
    const bool fresh = view.config_generation != config_generation_;
    if (refused_ && refused_number_ == *view.desired && epoch_ == view.epoch) {
      config_generation_ = view.config_generation;
      return hold("this number was refused");
    }
    refused_ = false;
    const std::int64_t delta = *view.desired - view.target;
    if (delta == 0) {
      config_generation_ = view.config_generation;
      ticks_off_ = 0;
      return {};
    }
    if (view.now < retry_at_) return hold("a backoff lasts");
    ++ticks_off_;
    const double share = static_cast<double>(delta < 0 ? -delta : delta) /
                         static_cast<double>(*view.desired > 0 ? *view.desired : 1);
    if (fresh) return {controller_verdict::resize, delta, "the configuration changed"};
    if (share > options_.dead_band) {
      return {controller_verdict::resize, delta, "the difference is beyond the dead band"};
    }
    if (ticks_off_ >= options_.dwell_ticks) {
      return {controller_verdict::resize, delta, "the difference has lasted"};
    }
    return hold("the difference is within the dead band");
  }

  /// The pool has the size that was asked for.
  void acked(const controller_view& asked) noexcept {
    config_generation_ = asked.config_generation;
    ticks_off_ = 0;
  }

  /// The pool asks for patience; the step stays as urgent as it was.
  void backed_off(time_point retry_at) noexcept { retry_at_ = retry_at; }

  /// The pool can never have it: hold until another number is desired or another pool answers.
  void refused(const controller_view& asked) noexcept {
    refused_ = true;
    refused_number_ = asked.desired.value_or(0);
    epoch_ = asked.epoch;
    config_generation_ = asked.config_generation;
  }

 private:
  static controller_step hold(const char* why) noexcept {
    return {controller_verdict::hold, 0, why};
  }

  controller_options options_;
  std::uint64_t config_generation_ = 0;  // of the last desired value that was dealt with
  bool refused_ = false;                 // the pool refused a number
  std::int64_t refused_number_ = 0;      // which
  std::uint64_t epoch_ = 0;              // of the pool that refused it
  int ticks_off_ = 0;                    // steps since target and desired differ
  time_point retry_at_{};                // no resize before this
};

}  // namespace VELTRIX_ABI
}  // namespace veltrix
