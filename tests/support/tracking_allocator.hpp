// An allocator that knows what it gave out, and can be told to fail. For tests of leaks and faults.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <atomic>
#include <cstddef>
#include <new>

#include "support/faults.hpp"

namespace veltrix_test {

/// What allocators that share it have given out and got back; may be used by several threads.
struct allocation_book {
  std::atomic<std::size_t> live_bytes{0};
  std::atomic<std::size_t> live_blocks{0};
  std::atomic<std::size_t> allocations{0};
};

/// Allocates with operator new; each allocation is a point of faults, which throws std::bad_alloc.
/// Equal exactly when they share a book.
template <class T>
class tracking_allocator {
 public:
  using value_type = T;

  explicit tracking_allocator(allocation_book& book) noexcept : book_(&book) {}
  template <class U>
  tracking_allocator(const tracking_allocator<U>& other) noexcept : book_(&other.book()) {}

  T* allocate(std::size_t count) {
    if (faults::due()) throw std::bad_alloc();
    if (count > static_cast<std::size_t>(-1) / 2 / sizeof(T)) throw std::bad_array_new_length();
    void* const memory = ::operator new(count * sizeof(T), std::align_val_t(alignof(T)));
    book_->live_bytes += count * sizeof(T);
    ++book_->live_blocks;
    ++book_->allocations;
    return static_cast<T*>(memory);
  }

  void deallocate(T* memory, std::size_t count) noexcept {
    book_->live_bytes -= count * sizeof(T);
    --book_->live_blocks;
    ::operator delete(memory, std::align_val_t(alignof(T)));
  }

  allocation_book& book() const noexcept { return *book_; }

  template <class U>
  friend bool operator==(const tracking_allocator& left, const tracking_allocator<U>& right) {
    return &left.book() == &right.book();
  }

 private:
  allocation_book* book_;
};

}  // namespace veltrix_test
