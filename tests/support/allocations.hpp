// Replaces the program's operator new, so that a test can count allocations or let one fail.
// Include it in one file of the program.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>

namespace veltrix_test {

inline thread_local long allocations_left = -1;         // of this thread; below zero: unlimited
inline thread_local std::size_t allocations_made = 0;   // by this thread
inline thread_local std::size_t allocations_ended = 0;  // by this thread

/// Made by this thread and not ended by it.
inline long allocations_alive() {
  return static_cast<long>(allocations_made) - static_cast<long>(allocations_ended);
}

/// Calls `operation` with 0, 1, 2, ... allocations granted, until it gets through, and `check`
/// after each failure. Result: how many attempts failed with std::bad_alloc.
template <class Operation, class Check>
int fail_each_allocation(Operation operation, Check check) {
  for (int granted = 0;; ++granted) {
    allocations_left = granted;
    try {
      operation();
      allocations_left = -1;
      return granted;
    } catch (const std::bad_alloc&) {
      allocations_left = -1;
    } catch (...) {
      allocations_left = -1;
      throw;
    }
    check();
  }
}

}  // namespace veltrix_test

// Not inlined: g++ 12 would take malloc() and delete for a mismatched pair.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  if (veltrix_test::allocations_left == 0) throw std::bad_alloc();
  if (veltrix_test::allocations_left > 0) --veltrix_test::allocations_left;
  ++veltrix_test::allocations_made;
  if (void* const got = std::malloc(bytes == 0 ? 1 : bytes)) return got;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  if (veltrix_test::allocations_left == 0) return nullptr;
  if (veltrix_test::allocations_left > 0) --veltrix_test::allocations_left;
  ++veltrix_test::allocations_made;
  return std::malloc(bytes == 0 ? 1 : bytes);
}
[[gnu::noinline]] void operator delete(void* at) noexcept {
  veltrix_test::allocations_ended += at == nullptr ? 0 : 1;
  std::free(at);
}
[[gnu::noinline]] void operator delete(void* at, std::size_t) noexcept {
  veltrix_test::allocations_ended += at == nullptr ? 0 : 1;
  std::free(at);
}
[[gnu::noinline]] void operator delete(void* at, const std::nothrow_t&) noexcept {
  veltrix_test::allocations_ended += at == nullptr ? 0 : 1;
  std::free(at);
}
