// SPDX-License-Identifier: BSL-1.0
// error: under only_if_unsent the function takes attempt&
#include <chrono>

#include "veltrix/retry.hpp"

void call() {
  using namespace veltrix;
  const auto policy = deadline{std::chrono::seconds(2)} | retry{} | only_if_unsent{};
#if defined(VELTRIX_RIGHT)
  static_cast<void>(policy.run([](attempt& each) {
    each.mark_sent();
    return true;
  }));
#else
  static_cast<void>(policy.run([] { return true; }));
#endif
}
