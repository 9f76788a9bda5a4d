// Durations and ratios as a reader writes them, and the arithmetic that never overflows.
// Use for: error texts, and delays computed in floating point. Internal.
// Not for: parsing.
// Threads: pure functions.
// Progress: the texts allocate.
// Callbacks: none.
// Exceptions: std::bad_alloc.
// Lifetime: returns by value.
// Guide: docs/design.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <chrono>
#include <cstdio>
#include <string>

#include "config.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// `nanoseconds` as a duration: rounded down, held between zero and the longest duration.
[[nodiscard]] constexpr std::chrono::nanoseconds saturated_nanoseconds(
    double nanoseconds) noexcept {
  using result = std::chrono::nanoseconds;
  if (!(nanoseconds > 0.0)) return result::zero();
  if (nanoseconds >= 0x1p63) return result::max();
  return result(static_cast<result::rep>(nanoseconds));
}

/// At most four significant digits: "0.1", "2.5", "1e+06".
[[nodiscard]] inline std::string text_of(double number) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", number);
  return text;
}

/// In the largest unit that leaves a number of at least one: "400 ms", "1.5 s", "0 s".
[[nodiscard]] inline std::string text_of(std::chrono::nanoseconds span) {
  if (span == std::chrono::nanoseconds::max()) return "for ever";
  const double nanoseconds = static_cast<double>(span.count());
  const double size = nanoseconds < 0 ? -nanoseconds : nanoseconds;
  if (size == 0) return "0 s";
  if (size < 1e3) return text_of(nanoseconds) + " ns";
  if (size < 1e6) return text_of(nanoseconds / 1e3) + " us";
  if (size < 1e9) return text_of(nanoseconds / 1e6) + " ms";
  if (size < 7.2e12) return text_of(nanoseconds / 1e9) + " s";
  return text_of(nanoseconds / 3.6e12) + " h";
}

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
