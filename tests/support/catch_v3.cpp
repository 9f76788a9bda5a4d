// Catch2 v3 brings its own main; this file only gives the library a source.
// SPDX-License-Identifier: BSL-1.0
#include <catch2/catch_version.hpp>
