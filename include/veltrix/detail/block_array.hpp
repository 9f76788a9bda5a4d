// An array that grows by doubling and never moves an element: blocks of First, First, 2 First, ...
// Use for: elements that other threads use by index while the array grows. Internal.
// Not for: shrinking; or growing from two threads at once.
// Threads: one grows at a time, under its owner's lock; any number use what size() told them of.
// Progress: wait-free but for the allocation in grow().
// Callbacks: the default constructor of T, in grow().
// Exceptions: std::bad_alloc from grow(), nothing changed then.
// Lifetime: elements end with the array.
// Guide: docs/design.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <bit>
#include <cstddef>
#include <memory>

#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// I1: the elements below size() exist and stay where they are.
template <class T, std::size_t First>
class block_array {
  static_assert(std::has_single_bit(First), "blocks are powers of two");

 public:
  [[nodiscard]] std::size_t size() const noexcept {
    // (1) acquire-load; pairs with release-store (2). Sees: the blocks of all these elements.
    return size_.load(sync::acquire);
  }

  /// An element below a size() that the caller knows of.
  [[nodiscard]] T& operator[](std::size_t at) const noexcept {
    const auto block = static_cast<std::size_t>(std::bit_width(at / First));
    return blocks_[block][block == 0 ? at : at - (First << (block - 1))];
  }

  /// Makes the next block; its elements are value-initialised.
  void grow() {
    const std::size_t held = size_.load(sync::relaxed);  // relaxed: only who grows writes it
    const std::size_t more = held == 0 ? First : held;
    blocks_[static_cast<std::size_t>(std::bit_width(held / First))] =
        std::unique_ptr<T[]>(new T[more]());
    // (2) release-store; pairs with acquire-load (1). Publishes: the new block.
    size_.store(held + more, sync::release);
  }

 private:
  static constexpr std::size_t most_blocks = 34;  // for 2^32 blocks of First and more

  std::unique_ptr<T[]> blocks_[most_blocks];
  sync::atomic<std::size_t> size_{0};
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
