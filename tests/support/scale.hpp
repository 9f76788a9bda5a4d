// How much work a test does: all of it in a plain build, less where a sanitizer makes it slow.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>

#include "veltrix/detail/config.hpp"

namespace veltrix_test {

#if defined(__SANITIZE_ADDRESS__)
inline constexpr std::size_t slowdown = 4;
#elif VELTRIX_TSAN
inline constexpr std::size_t slowdown = 10;
#else
inline constexpr std::size_t slowdown = 1;
#endif

/// `count` rounds in a plain build, at least one under a sanitizer.
constexpr std::size_t scale(std::size_t count) {
  return count / slowdown == 0 ? 1 : count / slowdown;
}

}  // namespace veltrix_test
