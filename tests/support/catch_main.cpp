// The test runner's main: Catch2 v2 compiles it here, v3 links its own.
// SPDX-License-Identifier: BSL-1.0
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>
