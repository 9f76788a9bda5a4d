// What the library takes for granted of a platform, checked where it is compiled.
// Use for: failing early, with a sentence, on a platform where a header would be wrong. Internal.
// Not for: detecting features; see config.hpp.
// Threads: none.
// Progress: compile time.
// Callbacks: none.
// Exceptions: none.
// Lifetime: static.
// Guide: docs/design.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <climits>
#include <cstddef>
#include <cstdint>

static_assert(__cplusplus >= 202002L, "Veltrix needs C++20: compile with -std=c++20 or later");
static_assert(CHAR_BIT == 8, "Veltrix needs 8-bit bytes");
static_assert(sizeof(void*) == 8, "Veltrix needs 64-bit pointers: state words pack counts");
static_assert(sizeof(std::size_t) == 8, "Veltrix needs a 64-bit size_t");
static_assert(sizeof(std::uintptr_t) == sizeof(void*), "Veltrix stores pointers in uintptr_t");
static_assert(-1 == ~0, "Veltrix needs two's complement (C++20 promises it)");
