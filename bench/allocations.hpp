// Replaces the program's operator new, so that a bench can count allocations. Include it in one
// file of the program.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace veltrix_bench {

inline thread_local std::uint64_t allocations = 0;  // by this thread: cheap, so nobody is slowed

}  // namespace veltrix_bench

// Not inlined: g++ 12 would take malloc() and delete for a mismatched pair.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  ++veltrix_bench::allocations;
  if (void* const got = std::malloc(bytes == 0 ? 1 : bytes)) return got;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* at) noexcept {
  std::free(at);
}
[[gnu::noinline]] void operator delete(void* at, std::size_t) noexcept {
  std::free(at);
}
