// A seed nobody outside can guess, cheap enough to draw one per container.
// Use for: hash seeds and jitter that must differ from object to object. Internal.
// Not for: cryptographic keys.
// Threads: may be called from any thread.
// Progress: wait-free but for the first call, which asks the kernel.
// Callbacks: none.
// Exceptions: none.
// Lifetime: static.
// Guide: docs/design.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <chrono>
#include <cstdint>

#include "hash.hpp"
#include "sync.hpp"

#if defined(__linux__)
#include <sys/random.h>
#elif defined(__APPLE__)
#include <stdlib.h>
#endif

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// Entropy of this process: the kernel's, or two clocks where the kernel has none ready. No address
/// goes into it, so a seed that leaks tells nothing of the memory's layout.
inline std::uint64_t process_entropy() noexcept {
  if constexpr (sync::repeatable) return 1;
  std::uint64_t drawn = 0;
#if defined(__linux__)
  if (::getrandom(&drawn, sizeof drawn, GRND_NONBLOCK) == static_cast<ssize_t>(sizeof drawn)) {
    return drawn;
  }
#elif defined(__APPLE__)
  ::arc4random_buf(&drawn, sizeof drawn);
  return drawn;
#endif
  const auto wall = std::chrono::system_clock::now().time_since_epoch().count();
  const auto steady = std::chrono::steady_clock::now().time_since_epoch().count();
  return mix(static_cast<std::uint64_t>(wall), mix(static_cast<std::uint64_t>(steady), drawn));
}

/// A seed of its own for each caller.
inline std::uint64_t fresh_seed() noexcept {
  static const std::uint64_t secret = process_entropy();
  static sync::atomic<std::uint64_t> drawn{0};  // relaxed: only that each number is given once
  return mix(drawn.fetch_add(1, sync::relaxed), secret);
}

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
