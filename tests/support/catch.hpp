// One include for Catch2 v2 (Debian 12) and v3 (Conan, vcpkg).
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <string>

#if __has_include(<catch2/catch_test_macros.hpp>)
#include <catch2/catch_all.hpp>
#else
#include <catch2/catch.hpp>
#endif

namespace veltrix_test {

/// A matcher for "the text has this part", under one name for both versions.
inline auto contains(const std::string& part) {
#if __has_include(<catch2/catch_test_macros.hpp>)
  return Catch::Matchers::ContainsSubstring(part);
#else
  return Catch::Matchers::Contains(part);
#endif
}

}  // namespace veltrix_test
