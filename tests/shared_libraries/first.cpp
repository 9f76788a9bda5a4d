// SPDX-License-Identifier: BSL-1.0
#include "make_part.hpp"

const parts::part* veltrix_part_first() {
  static constexpr parts::part made = parts::make_part("first");
  return &made;
}
