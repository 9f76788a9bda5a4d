// Spreading a hash over all its bits.
// Use for: spreading any hash over shards and lanes. Internal.
// Not for: cryptography.
// Threads: pure functions.
// Progress: wait-free.
// Callbacks: none.
// Exceptions: none.
// Lifetime: stateless, or a seed by value.
// Guide: docs/design.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstdint>

#include "config.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// The 128-bit product of two numbers, its halves folded by xor.
[[nodiscard]] constexpr std::uint64_t folded_product(std::uint64_t left,
                                                     std::uint64_t right) noexcept {
  __extension__ using wide = unsigned __int128;
  const wide product = static_cast<wide>(left) * static_cast<wide>(right);
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

/// Spreads every input bit over every output bit (the multiply-and-fold of wyhash, twice).
[[nodiscard]] constexpr std::uint64_t mix(std::uint64_t value, std::uint64_t seed = 0) noexcept {
  const std::uint64_t once =
      folded_product((value ^ seed) ^ 0x9e3779b97f4a7c15ULL, 0xa0761d6478bd642fULL);
  return folded_product(once, 0xe7037ed1a0b428dbULL);
}

/// The same by factors that nobody knows: so nobody can tell which values it sends together.
class secret_mix {
 public:
  explicit constexpr secret_mix(std::uint64_t seed) noexcept
      : mask_(mix(seed)), first_(mix(mask_) | 1), second_(mix(first_) | 1) {}
  [[nodiscard]] constexpr std::uint64_t operator()(std::uint64_t value) const noexcept {
    return folded_product(folded_product(value ^ mask_, first_), second_);
  }

 private:
  std::uint64_t mask_;
  std::uint64_t first_;
  std::uint64_t second_;
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
