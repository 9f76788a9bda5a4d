// How keys are hashed and compared where the user does not say: std::hash, text by a secret.
// Use for: the default parameters of maps and caches. Internal.
// Not for: cryptography, or hashes that are kept: text hashes otherwise in each process.
// Threads: pure functions.
// Progress: wait-free.
// Callbacks: the key's std::hash and operator==.
// Exceptions: those of the key's std::hash and operator==.
// Lifetime: stateless, or a secret by value.
// Guide: docs/concurrent_map.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>  // std::hash
#include <string>
#include <string_view>
#include <type_traits>

#include "config.hpp"
#include "hash.hpp"
#include "seed.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// Hashes text by a secret, sixteen bytes with a product: who does not know it cannot choose texts
/// that fall together. Texts have results of their own; to spread them over all bits is left to the
/// mixing that follows.
class text_hash {
 public:
  explicit constexpr text_hash(std::uint64_t seed) noexcept
      : left_(mix(seed)), right_(mix(left_)) {}

  [[nodiscard]] std::uint64_t operator()(std::string_view text) const noexcept {
    const char* at = text.data();
    const std::size_t size = text.size();
    // Times a large number: what a length differs by is not what a byte of text does.
    std::uint64_t so_far = right_ ^ (size * 0x9e3779b97f4a7c15ULL);
    if (size > 16) {
      for (std::size_t left = size; left > 16; left -= 16, at += 16)
        so_far = folded_product(word<8>(at) ^ left_, word<8>(at + 8) ^ so_far);
      const char* const end = text.data() + size;  // the last sixteen, some of them again
      return folded_product(word<8>(end - 16) ^ left_, word<8>(end - 8) ^ so_far);
    }
    if (size >= 8) {
      return folded_product(word<8>(at) ^ left_, word<8>(at + (size - 8)) ^ so_far);
    }
    if (size >= 4) {
      return folded_product(word<4>(at) ^ left_, word<4>(at + (size - 4)) ^ so_far);
    }
    if (size == 0) return so_far;
    const std::uint64_t first = word<1>(at);
    const std::uint64_t middle = word<1>(at + size / 2);
    const std::uint64_t last = word<1>(at + (size - 1));
    return folded_product((first | middle << 8 | last << 16) ^ left_, so_far);
  }

 private:
  template <std::size_t Bytes>
  static std::uint64_t word(const char* at) noexcept {
    std::uint64_t read = 0;
    std::memcpy(&read, at, Bytes);
    return read;
  }

  std::uint64_t left_;
  std::uint64_t right_;
};

/// The secret of this process.
inline std::uint64_t text_seed() noexcept {
  static const std::uint64_t secret = fresh_seed();
  return secret;
}

/// std::hash, but for text.
template <class Key>
struct default_hash {
  [[nodiscard]] std::size_t operator()(const Key& key) const
      noexcept(noexcept(std::hash<Key>{}(key))) {
    return std::hash<Key>{}(key);
  }
};

/// text_hash, transparent: a string_view or a literal finds a std::string key.
class default_text_hash {
 public:
  using is_transparent = void;
  default_text_hash() noexcept : hash_(text_seed()) {}
  explicit constexpr default_text_hash(std::uint64_t seed) noexcept : hash_(seed) {}
  [[nodiscard]] std::size_t operator()(std::string_view key) const noexcept {
    return static_cast<std::size_t>(hash_(key));
  }

 private:
  text_hash hash_;
};

template <class Allocator>
struct default_hash<std::basic_string<char, std::char_traits<char>, Allocator>>
    : default_text_hash {
  using default_text_hash::default_text_hash;
};

template <>
struct default_hash<std::string_view> : default_text_hash {
  using default_text_hash::default_text_hash;
};

/// A hash that takes a seed gets this one.
template <class Hash>
[[nodiscard]] Hash seeded(Hash hash, std::uint64_t seed) {
  if constexpr (std::is_base_of_v<default_text_hash, Hash>) {
    return Hash(seed);
  } else {
    return hash;
  }
}

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
