// SPDX-License-Identifier: BSL-1.0
// error: use of deleted function|call to deleted constructor
#include "veltrix/concurrent_map.hpp"

void share(veltrix::concurrent_map<int, int>& map) {
#if defined(VELTRIX_RIGHT)
  auto& other = map;
#else
  auto other = map;
#endif
  other.clear();
}
