// SPDX-License-Identifier: BSL-1.0
// error: no matching (member )?function for call to
#include "veltrix/concurrent_map.hpp"

void increment(veltrix::concurrent_map<int, int>& map) {
  const auto add = [](int& value) { ++value; };
#if defined(VELTRIX_RIGHT)
  map.update(1, add);
#else
  map.visit(1, add);
#endif
}
