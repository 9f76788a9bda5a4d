// The reference worker's handler: none, or artificial work for load tests.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "veltrix/clock.hpp"
#include "veltrix/detail/sync.hpp"
#include "veltrix/stop_token.hpp"
#include "veltrix/worker/config.hpp"
#include "veltrix/worker/event.hpp"

namespace veltrix_worker {

/// Takes handler.work_us for each event: waits as for an answer from elsewhere, or, below what a
/// sleep can measure, computes.
class timed_handler {
 public:
  void configure(const veltrix::config_snapshot& config) {
    work_us_.store(config.integer(veltrix::key::handler_work_us), veltrix::detail::sync::relaxed);
  }

  void handle(const veltrix::event&) {
    const std::int64_t work = work_us_.load(veltrix::detail::sync::relaxed);
    if (work == 0) return;
    const veltrix::time_point until =
        veltrix::steady_clock::now() + std::chrono::microseconds(work);
    if (work >= shortest_sleep_us) {
      veltrix::steady_clock::sleep_until(until, stop_.get_token());
      return;
    }
    while (veltrix::steady_clock::now() < until)
      veltrix::detail::sync::spin_pause();
  }

  /// Ends all waits, also those to come: the run is given up.
  void cut_short() { stop_.request_stop(); }

 private:
  static constexpr std::int64_t shortest_sleep_us = 100;

  // relaxed: a change takes effect with a later event.
  veltrix::detail::sync::atomic<std::int64_t> work_us_{0};
  veltrix::stop_source stop_;
};

}  // namespace veltrix_worker
