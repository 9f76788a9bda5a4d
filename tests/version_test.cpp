// The version of the library.
// SPDX-License-Identifier: BSL-1.0
#include "veltrix/version.hpp"

#include <string>

#include "support/catch.hpp"

using veltrix::library_version;
using veltrix::version_number;

static_assert(version_number{0, 1, 0} < version_number{0, 1, 1});
static_assert(version_number{0, 9, 9} < version_number{1, 0, 0});
static_assert(library_version == library_version);

TEST_CASE("library_version says the same as its text") {
  const std::string text = std::to_string(library_version.major_part) + "." +
                           std::to_string(library_version.minor_part) + "." +
                           std::to_string(library_version.patch_part);
  CHECK(text == VELTRIX_VERSION_STRING);
}
