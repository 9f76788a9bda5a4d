// Skipping a test loudly: the word below makes ctest count it as skipped, with the reason.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstdio>

namespace veltrix_test {

/// Says why the test case cannot run here; return from the test case right after.
inline void skip(const char* reason) {
  std::printf("VELTRIX SKIPPED: %s\n", reason);
  std::fflush(stdout);
}

}  // namespace veltrix_test
