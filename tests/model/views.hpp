// What each thread knows of the others: vector clocks, and the views that messages carry.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <cstdint>

namespace veltrix_model {

inline constexpr unsigned max_threads = 8;
using epoch = std::uint16_t;

/// One epoch per thread: how far into that thread's operations something reaches. Trivial, as all
/// here: `{}` clears it, and what is not used costs nothing.
struct alignas(16) clock_vector {
  epoch of[max_threads];

  void join(const clock_vector& other) noexcept {
    for (unsigned i = 0; i < max_threads; ++i)
      of[i] = std::max(of[i], other.of[i]);
  }
  /// Whether every epoch here is within `other`.
  [[nodiscard]] bool within(const clock_vector& other) const noexcept {
    unsigned beyond = 0;
    for (unsigned i = 0; i < max_threads; ++i)
      beyond |= unsigned(of[i] > other.of[i]);
    return beyond == 0;
  }
  /// The first thread whose epoch here is beyond `other`; there must be one.
  [[nodiscard]] unsigned first_beyond(const clock_vector& other) const noexcept {
    unsigned i = 0;
    while (of[i] <= other.of[i])
      ++i;
    return i;
  }
};

/// What a thread, or a message it reads, has behind it.
///
/// `happened` is happens-before: what data races are judged by. `visible` adds what seq_cst fences
/// order without synchronising: a load may not read what is older than that, yet plain data is not
/// protected by it. `fence` is the place in the order of seq_cst operations of the latest fence.
struct view {
  clock_vector happened;
  clock_vector visible;
  std::uint32_t fence;

  void join(const view& other) noexcept {
    happened.join(other.happened);
    visible.join(other.visible);
    fence = std::max(fence, other.fence);
  }
};

}  // namespace veltrix_model
