// SPDX-License-Identifier: BSL-1.0
// error: nodiscard
#if !defined(VELTRIX_RIGHT)
#pragma GCC diagnostic error "-Wunused-result"
#endif
#include "veltrix/concurrent_map.hpp"

void look(veltrix::concurrent_map<int, int>& map) {
#if defined(VELTRIX_RIGHT)
  const auto held = map.find(1);
  static_cast<void>(held);
#else
  map.find(1);
#endif
}
