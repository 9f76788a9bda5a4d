// SPDX-License-Identifier: BSL-1.0
// error: nodiscard
#if !defined(VELTRIX_RIGHT)
#pragma GCC diagnostic error "-Wunused-result"
#endif
#include "veltrix/elastic_pool.hpp"

void grow(veltrix::elastic_pool& pool) {
#if defined(VELTRIX_RIGHT)
  static_cast<void>(pool.resize_by(1));
#else
  pool.resize_by(1);
#endif
}
