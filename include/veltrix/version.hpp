// The version of the library, its one source, and the inline namespace that carries it.
// Use for: asking at compile time which Veltrix is included; keeping two copies apart at link time.
// Not for: run-time feature tests; every feature of a version is always present.
// Threads: constants only.
// Progress: compile time.
// Callbacks: none.
// Exceptions: none.
// Lifetime: static.
// Guide: docs/design.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <compare>

#define VELTRIX_VERSION_MAJOR 0
#define VELTRIX_VERSION_MINOR 1
#define VELTRIX_VERSION_PATCH 0
#define VELTRIX_VERSION_STRING "0.1.0"

// Checked mode (-DVELTRIX_CHECKED=1): misuse is reported on stderr and aborts. It adds checks,
// never members: a checked and a release object have the same layout.
#if !defined(VELTRIX_CHECKED)
#define VELTRIX_CHECKED 0
#endif

// Two copies of the headers that differ in version or mode may meet in one binary. The inline
// namespace gives their symbols different names, so that the linker never mixes them.
#if defined(VELTRIX_MODEL)
#define VELTRIX_ABI v0_1_0_model
#elif VELTRIX_CHECKED
#define VELTRIX_ABI v0_1_0_checked
#else
#define VELTRIX_ABI v0_1_0
#endif

namespace veltrix {
inline namespace VELTRIX_ABI {

/// A semantic version; ordered field by field.
struct version_number {
  int major_part;
  int minor_part;
  int patch_part;

  friend constexpr bool operator==(const version_number&, const version_number&) = default;
  friend constexpr auto operator<=>(const version_number&, const version_number&) = default;
};

/// The version of the headers in use.
inline constexpr version_number library_version{VELTRIX_VERSION_MAJOR, VELTRIX_VERSION_MINOR,
                                                VELTRIX_VERSION_PATCH};

}  // namespace VELTRIX_ABI
}  // namespace veltrix
