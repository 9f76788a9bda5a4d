// SPDX-License-Identifier: BSL-1.0
// error: no matching function for call to|no matching constructor
#include "veltrix/elastic_pool.hpp"

void build() {
#if defined(VELTRIX_RIGHT)
  veltrix::elastic_pool pool(4);
#else
  veltrix::elastic_pool pool;
#endif
  static_cast<void>(pool.stats());
}
