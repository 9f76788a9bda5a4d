// SPDX-License-Identifier: BSL-1.0
// error: use of deleted function|call to deleted constructor
#include "veltrix/snapshot_cell.hpp"

void share(veltrix::snapshot_cell<int>& cell) {
#if defined(VELTRIX_RIGHT)
  auto& other = cell;
#else
  auto other = cell;
#endif
  static_cast<void>(other.version());
}
