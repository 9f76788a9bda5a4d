// Adds one to a counter while it lives.
// Use for: counting who uses an object, for statistics and for checks of misuse. Internal.
// Not for: deciding when an object may end.
// Threads: as a value's; the counter is atomic.
// Progress: wait-free.
// Callbacks: none.
// Exceptions: none.
// Lifetime: the counter outlives the mark, or is owned by it through a shared_ptr.
// Guide: docs/design.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <utility>

#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// `Counter` points, owning or not, to an atomic number; null counts nowhere.
template <class Counter>
class count_mark {
 public:
  explicit count_mark(Counter counter) noexcept : counter_(std::move(counter)) {
    if (counter_ != nullptr) counter_->fetch_add(1, sync::relaxed);
  }
  count_mark(count_mark&& other) noexcept : counter_(std::exchange(other.counter_, nullptr)) {}
  count_mark& operator=(count_mark&& other) noexcept {
    std::swap(counter_, other.counter_);
    return *this;
  }
  ~count_mark() {
    if (counter_ != nullptr) counter_->fetch_sub(1, sync::relaxed);
  }

 private:
  Counter counter_;  // null when not counting; relaxed: nothing is read through the number
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
