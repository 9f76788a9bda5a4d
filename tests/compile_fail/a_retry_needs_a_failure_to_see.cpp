// SPDX-License-Identifier: BSL-1.0
// error: nothing here tells a failure
#include <chrono>
#include <stdexcept>

#include "veltrix/retry.hpp"

int fetch();

void call() {
  using namespace veltrix;
#if defined(VELTRIX_RIGHT)
  const auto policy = deadline{std::chrono::seconds(2)} | retry{} | catching<std::runtime_error>();
#else
  const auto policy = deadline{std::chrono::seconds(2)} | retry{};
#endif
  static_cast<void>(policy.run(fetch));
}
