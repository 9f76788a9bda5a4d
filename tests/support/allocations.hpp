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

namespace veltrix_test {

/// Memory for operator new, or null: there is none, or no more is granted.
inline void* allocate(std::size_t bytes, std::align_val_t alignment) noexcept {
  if (allocations_left == 0) return nullptr;
  if (allocations_left > 0) --allocations_left;
  ++allocations_made;
  const auto multiple = static_cast<std::size_t>(alignment);
  if (multiple <= __STDCPP_DEFAULT_NEW_ALIGNMENT__) return std::malloc(bytes == 0 ? 1 : bytes);
  return std::aligned_alloc(multiple, (bytes + multiple - 1) / multiple * multiple);
}
inline void deallocate(void* at) noexcept {
  allocations_ended += at == nullptr ? 0 : 1;
  std::free(at);
}
inline constexpr std::align_val_t usual_alignment{__STDCPP_DEFAULT_NEW_ALIGNMENT__};

}  // namespace veltrix_test

// Not inlined: g++ 12 would take malloc() and delete for a mismatched pair.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  if (void* const got = veltrix_test::allocate(bytes, veltrix_test::usual_alignment)) return got;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  return veltrix_test::allocate(bytes, veltrix_test::usual_alignment);
}
[[gnu::noinline]] void* operator new(std::size_t bytes, std::align_val_t alignment) {
  if (void* const got = veltrix_test::allocate(bytes, alignment)) return got;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(std::size_t bytes, std::align_val_t alignment,
                                     const std::nothrow_t&) noexcept {
  return veltrix_test::allocate(bytes, alignment);
}
[[gnu::noinline]] void operator delete(void* at) noexcept {
  veltrix_test::deallocate(at);
}
[[gnu::noinline]] void operator delete(void* at, std::size_t) noexcept {
  veltrix_test::deallocate(at);
}
[[gnu::noinline]] void operator delete(void* at, const std::nothrow_t&) noexcept {
  veltrix_test::deallocate(at);
}
[[gnu::noinline]] void operator delete(void* at, std::align_val_t) noexcept {
  veltrix_test::deallocate(at);
}
[[gnu::noinline]] void operator delete(void* at, std::size_t, std::align_val_t) noexcept {
  veltrix_test::deallocate(at);
}
[[gnu::noinline]] void operator delete(void* at, std::align_val_t, const std::nothrow_t&) noexcept {
  veltrix_test::deallocate(at);
}
