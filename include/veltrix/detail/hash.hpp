// Hashing and equality without <functional>: mixing, a seed, and transparent comparison.
// Use for: spreading any hash over shards and lanes. Internal.
// Not for: cryptography.
// Threads: pure functions.
// Progress: wait-free.
// Callbacks: the key's hash and equality.
// Exceptions: those of the key's hash and equality.
// Lifetime: stateless, or a seed by value.
// Guide: docs/design.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>  // std::hash
#include <string>  // std::hash<std::string>
#include <string_view>
#include <type_traits>

#include "config.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// Spreads every input bit over every output bit (the 64 × 64 → 128 multiply-and-fold of wyhash).
[[nodiscard]] constexpr std::uint64_t mix(std::uint64_t value, std::uint64_t seed = 0) noexcept {
  __extension__ using wide = unsigned __int128;
  const wide product = static_cast<wide>((value ^ seed) ^ 0x9e3779b97f4a7c15ULL) *
                       static_cast<wide>(0xa0761d6478bd642fULL);
  const std::uint64_t folded =
      static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
  const wide again = static_cast<wide>(folded) * static_cast<wide>(0xe7037ed1a0b428dbULL);
  return static_cast<std::uint64_t>(again) ^ static_cast<std::uint64_t>(again >> 64);
}

/// std::hash, transparent for strings: a string_view or a literal finds a std::string key.
template <class Key>
struct default_hash {
  [[nodiscard]] std::size_t operator()(const Key& key) const
      noexcept(noexcept(std::hash<Key>{}(key))) {
    return std::hash<Key>{}(key);
  }
};

template <class Allocator>
struct default_hash<std::basic_string<char, std::char_traits<char>, Allocator>> {
  using is_transparent = void;
  [[nodiscard]] std::size_t operator()(std::string_view key) const noexcept {
    return std::hash<std::string_view>{}(key);
  }
};

template <>
struct default_hash<std::string_view> {
  using is_transparent = void;
  [[nodiscard]] std::size_t operator()(std::string_view key) const noexcept {
    return std::hash<std::string_view>{}(key);
  }
};

/// a == b, for any two types that compare.
struct default_equal {
  using is_transparent = void;
  template <class Left, class Right>
    requires requires(const Left& left, const Right& right) { left == right; }
  [[nodiscard]] constexpr bool operator()(const Left& left, const Right& right) const
      noexcept(noexcept(left == right)) {
    return left == right;
  }
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
