// SPDX-License-Identifier: BSL-1.0
// error: concurrent_map::update copies the entry
#include <memory>

#include "veltrix/concurrent_map.hpp"

#if defined(VELTRIX_RIGHT)
using value = std::shared_ptr<int>;
#else
using value = std::unique_ptr<int>;
#endif

void change(veltrix::concurrent_map<int, value>& map) {
  map.update(1, [](value& held) { held.reset(); });
}
