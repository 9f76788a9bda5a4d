// SPDX-License-Identifier: BSL-1.0
// error: hedge sends a call twice
#include <chrono>

#include "veltrix/hedge.hpp"
#include "veltrix/retry.hpp"

void build(veltrix::hedging& spare, veltrix::inline_executor& here, veltrix::timer_queue& timers) {
  using namespace veltrix;
  const auto repeated = deadline{std::chrono::seconds(2)} | retry{} | hedge{spare, here, timers};
#if defined(VELTRIX_RIGHT)
  static_cast<void>(repeated | attempt_timeout{std::chrono::seconds(1)});
#else
  static_cast<void>(repeated | only_if_unsent{});
#endif
}
