// How long a thread of a pool looks on before it sleeps: some microseconds.
// Use for: idle workers and joins of elastic_pool. Internal.
// Not for: waiting itself: the caller looks between two turns.
// Threads: one at a time.
// Progress: wait-free.
// Callbacks: none.
// Exceptions: none.
// Lifetime: plain data.
// Guide: docs/elastic_pool.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// Turns that are left.
class patience {
 public:
  /// @param nth  which of those that look on it is: the first is as quick as can be, a second one
  ///             at hand leaves the processor to whoever wants it, more are not needed
  void renew(std::size_t nth = 1) noexcept { left_ = nth == 1 ? turns : nth == 2 ? yields : 0; }

  /// Waits a little: first as short as can be, then letting others run who want the processor.
  /// @return false: none is left, and it did not wait
  bool turn() noexcept {
    if (left_ == 0) return false;
    --left_ >= yields ? sync::spin_pause() : sync::yield();
    return true;
  }

 private:
  static constexpr std::uint32_t yields = sync::repeatable ? 0 : 64;  // the last turns
  static constexpr std::uint32_t turns = sync::repeatable ? 1 : 32 + yields;

  std::uint32_t left_ = turns;
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
