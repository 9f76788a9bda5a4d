// A first-in first-out queue of tasks in one array that grows by doubling and never shrinks.
// Use for: the queue of elastic_pool. Internal.
// Not for: sharing; its owner locks.
// Threads: one at a time.
// Progress: amortised O(1).
// Callbacks: moves of captures.
// Exceptions: reserve() may throw std::bad_alloc and changes nothing then; the rest never throws.
// Lifetime: owns its tasks; those left are destroyed unrun.
// Guide: docs/design.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <memory>
#include <utility>

#include "task.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// I1: count_ <= cells; the tasks are cells_[(first_ + i) mod cells] for i < count_.
class task_ring {
 public:
  [[nodiscard]] std::size_t size() const noexcept { return count_; }
  [[nodiscard]] bool empty() const noexcept { return count_ == 0; }

  /// Makes room for `more` tasks beside those held.
  void reserve(std::size_t more) {
    if (more <= cells_held_ - count_) return;
    std::size_t wanted = cells_held_ == 0 ? first_cells : cells_held_ * 2;
    while (wanted - count_ < more)
      wanted *= 2;
    std::unique_ptr<task[]> larger(new task[wanted]);
    for (std::size_t i = 0; i < count_; ++i)
      larger[i] = std::move(cells_[(first_ + i) & (cells_held_ - 1)]);
    cells_ = std::move(larger);
    cells_held_ = wanted;
    first_ = 0;
  }

  /// Needs room: see reserve().
  void push_back(task&& work) noexcept {
    VELTRIX_ASSERT(count_ < cells_held_, "task_ring::push_back without reserve");
    cells_[(first_ + count_) & (cells_held_ - 1)] = std::move(work);
    ++count_;
  }

  /// The oldest task; there must be one.
  [[nodiscard]] task pop_front() noexcept {
    VELTRIX_ASSERT(count_ != 0, "task_ring::pop_front of nothing");
    task oldest = std::move(cells_[first_]);
    first_ = (first_ + 1) & (cells_held_ - 1);
    --count_;
    return oldest;
  }

 private:
  static constexpr std::size_t first_cells = 64;  // a power of two, as every later size

  std::unique_ptr<task[]> cells_;  // null until the first reserve()
  std::size_t cells_held_ = 0;     // 0 or a power of two
  std::size_t first_ = 0;          // the oldest task's cell
  std::size_t count_ = 0;
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
