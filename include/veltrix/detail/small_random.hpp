// A seedable generator of 64 random bits, eight bytes small, without <random>.
// Use for: jitter; any place that takes randomness as a parameter. Internal but for its type.
// Not for: secrets.
// Threads: one at a time; seeded() may be called from any thread.
// Progress: wait-free.
// Callbacks: none.
// Exceptions: none.
// Lifetime: a value.
// Guide: docs/backoff.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <concepts>
#include <cstdint>

#include "config.hpp"
#include "seed.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// Gives 64 random bits a call: small_random, std::mt19937_64, or a test's own.
template <class Random>
concept random_bits = requires(Random& random) {
  { random() } -> std::convertible_to<std::uint64_t>;
  requires Random::min() == 0;
  requires Random::max() == ~std::uint64_t{0};
};

/// splitmix64 (Steele, Lea and Flood, 2014): the same seed gives the same sequence everywhere.
class small_random {
 public:
  using result_type = std::uint64_t;

  explicit constexpr small_random(std::uint64_t seed) noexcept : state_(seed) {}

  /// A generator that differs from every other one of the process, and between processes.
  /// Costs one relaxed increment; only the first call of the process asks the kernel.
  [[nodiscard]] static small_random seeded() noexcept { return small_random(detail::fresh_seed()); }

  [[nodiscard]] static constexpr std::uint64_t min() noexcept { return 0; }
  [[nodiscard]] static constexpr std::uint64_t max() noexcept { return ~std::uint64_t{0}; }

  constexpr std::uint64_t operator()() noexcept {
    std::uint64_t mixed = (state_ += 0x9e3779b97f4a7c15ULL);
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9ULL;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebULL;
    return mixed ^ (mixed >> 31);
  }

 private:
  std::uint64_t state_;
};

namespace detail {

/// A random number from 0 up to, never reaching, 1.
template <random_bits Random>
[[nodiscard]] constexpr double random_fraction(Random& random) {
  return static_cast<double>(static_cast<std::uint64_t>(random()) >> 11) * 0x1p-53;
}

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
