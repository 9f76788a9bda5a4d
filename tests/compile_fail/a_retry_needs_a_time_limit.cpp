// SPDX-License-Identifier: BSL-1.0
// error: retry follows a time limit
#include <chrono>

#include "veltrix/retry.hpp"

void build(veltrix::circuit_breaker& breaker) {
  using namespace veltrix;
#if defined(VELTRIX_RIGHT)
  const auto policy = deadline{std::chrono::seconds(2)} | retry{} | guard{breaker};
#else
  const auto policy = retry{} | guard{breaker};
#endif
  static_cast<void>(policy.run([] { return true; }));
}
