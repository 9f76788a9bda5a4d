// One byte for each slot of a hash table, compared eight or sixteen at a time.
// Use for: the inside of concurrent_map's tables. Internal.
// Not for: hashes that do not spread: a byte of the hash must tell most keys apart.
// Threads: looks from any thread, changes from one at a time.
// Progress: wait-free.
// Callbacks: none.
// Exceptions: none.
// Lifetime: a group lives in its table.
// Guide: docs/concurrent_map.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "config.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// What the tables take from a hash. Shards use the top 16 bits, groups the low ones.
struct hash_parts {
  /// 1 to 255: 0 stands for an empty slot.
  [[nodiscard]] static constexpr std::uint8_t tag(std::uint64_t hash) noexcept {
    const auto part = static_cast<std::uint8_t>(hash >> 32);
    return static_cast<std::uint8_t>(part + (part == 0 ? 1 : 0));
  }
  /// Where in its group of 15 a key would like to stand; 15: beside the next group's first.
  [[nodiscard]] static constexpr unsigned wish(std::uint64_t hash) noexcept {
    return static_cast<unsigned>(hash >> 43) & 15;
  }
  /// One of eight: which part of the keys a group's mark of overflow speaks of.
  [[nodiscard]] static constexpr unsigned overflow_part(std::uint64_t hash) noexcept {
    return static_cast<unsigned>(hash >> 40) & 7;
  }
};

/// Slots of a group, one bit each.
class slot_set {
 public:
  explicit constexpr slot_set(unsigned bits) noexcept : bits_(bits) {}
  [[nodiscard]] constexpr bool empty() const noexcept { return bits_ == 0; }
  [[nodiscard]] constexpr unsigned first() const noexcept {
    return static_cast<unsigned>(std::countr_zero(bits_));
  }
  constexpr void drop_first() noexcept { bits_ &= bits_ - 1; }
  /// Those of `wished` that are in it, if there are any; else itself.
  [[nodiscard]] constexpr slot_set prefer(slot_set wished) const noexcept {
    return (bits_ & wished.bits_) != 0 ? slot_set(bits_ & wished.bits_) : *this;
  }

 private:
  unsigned bits_;
};

/// The marks of overflow of a group: of which hashes a key may stand in a later one.
class overflow_marks {
 public:
  explicit constexpr overflow_marks(std::uint64_t last_word) noexcept : last_word_(last_word) {}
  [[nodiscard]] constexpr bool tells(std::uint64_t hash) const noexcept {
    return ((last_word_ >> (56 + hash_parts::overflow_part(hash))) & 1) != 0;
  }

 private:
  std::uint64_t last_word_;
};

/// The tags of a group as one look found them; the last byte has the marks of overflow.
template <std::size_t Words>
struct seen_tags {
  static constexpr std::size_t slots = sync::repeatable ? 2 : Words * 8 - 1;
  std::array<std::uint64_t, Words> words;

  [[nodiscard]] slot_set matching(std::uint8_t tag) const noexcept {
    return slot_set(equal_bytes(tag) & ((1U << slots) - 1));
  }
  [[nodiscard]] slot_set empty() const noexcept { return matching(0); }
  [[nodiscard]] slot_set used() const noexcept {
    return slot_set(~equal_bytes(0) & ((1U << slots) - 1));
  }

  [[nodiscard]] overflow_marks overflow() const noexcept {
    return overflow_marks(words[Words - 1]);
  }

  /// A bit for each byte that equals `tag`, on any machine.
  [[nodiscard]] unsigned equal_bytes_anywhere(std::uint8_t tag) const noexcept {
    unsigned found = 0;
    for (std::size_t i = 0; i < Words; ++i)
      found |= zero_bytes(words[i] ^ (tag * 0x0101010101010101ULL)) << (8 * i);
    return found;
  }

 private:
  [[nodiscard]] unsigned equal_bytes(std::uint8_t tag) const noexcept {
#if defined(__SSE2__)
    using bytes [[gnu::vector_size(16)]] = char;
    using pair [[gnu::vector_size(16)]] = long long;
    pair group = {static_cast<long long>(words[0]), 0};
    if constexpr (Words == 2) group[1] = static_cast<long long>(words[1]);
    const bytes wanted = bytes{} + static_cast<char>(tag);
    const auto equal = reinterpret_cast<bytes>(group) == wanted;
    return static_cast<unsigned>(__builtin_ia32_pmovmskb128(reinterpret_cast<bytes>(equal)));
#else
    return equal_bytes_anywhere(tag);
#endif
  }

  /// A bit for each byte that is 0: exact, as no carry crosses a byte.
  [[nodiscard]] static constexpr unsigned zero_bytes(std::uint64_t word) noexcept {
    constexpr std::uint64_t low = 0x7f7f7f7f7f7f7f7fULL;
    const std::uint64_t high_if_zero = ~(((word & low) + low) | word | low);
    return static_cast<unsigned>(((high_if_zero >> 7) * 0x0102040810204080ULL) >> 56);
  }
};

/// The tags of a group. The writer of the table stores whole words.
template <std::size_t Words>
class tag_group {
 public:
  using seen = seen_tags<Words>;
  static constexpr std::size_t slots = seen::slots;

  [[nodiscard]] seen look() const noexcept {
    seen found;
    for (std::size_t i = 0; i < Words; ++i) {
      // (1) acquire-load; pairs with release-store (2). Sees: what the writer did before, such as
      // the words of the slot.
      found.words[i] = words_[i].load(sync::acquire);
    }
    return found;
  }

  /// 0 empties the slot. By the table's writer.
  void set(std::size_t slot, std::uint8_t tag) noexcept { set_byte(slot, tag); }

  /// By the table's writer, before the key is to be found in a later group.
  void mark_overflow(std::uint64_t hash) noexcept {
    const std::uint64_t last = words_[Words - 1].load(sync::relaxed);  // relaxed: own stores
    const auto marks = static_cast<std::uint8_t>(last >> 56);
    const auto mark = static_cast<std::uint8_t>(1U << hash_parts::overflow_part(hash));
    set_byte(Words * 8 - 1, marks | mark);
  }

 private:
  void set_byte(std::size_t at, std::uint8_t byte) noexcept {
    sync::atomic<std::uint64_t>& word = words_[at / 8];
    const unsigned shift = 8 * (at % 8);
    const std::uint64_t others = word.load(sync::relaxed) & ~(0xffULL << shift);  // relaxed: own
    // (2) release-store; pairs with acquire-load (1). Publishes: what the writer did before.
    word.store(others | (std::uint64_t{byte} << shift), sync::release);
  }

  std::array<sync::atomic<std::uint64_t>, Words> words_{};  // written by the table's writer only
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
