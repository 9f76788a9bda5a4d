// SPDX-License-Identifier: BSL-1.0
// error: nodiscard
#if !defined(VELTRIX_RIGHT)
#pragma GCC diagnostic error "-Wunused-result"
#endif
#include <chrono>

#include "veltrix/retry.hpp"

void call() {
  using namespace veltrix;
  const auto policy = deadline{std::chrono::seconds(2)} | retry{};
#if defined(VELTRIX_RIGHT)
  if (!policy.run([] { return true; })) return;
#else
  policy.run([] { return true; });
#endif
}
