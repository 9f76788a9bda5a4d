// What a slot of a map's table holds: an entry in words of its own, or a pointer to an entry.
// Use for: the inside of concurrent_map. Internal.
// Not for: anything else.
// Threads: words are read by any thread while one writes; nodes change only in map_value.hpp.
// Progress: wait-free.
// Callbacks: none.
// Exceptions: none.
// Lifetime: a node lives while a table has it, a reader shows it, or somebody holds it.
// Guide: docs/concurrent_map.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <type_traits>
#include <utility>

#include "../reclaim.hpp"
#include "config.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// What a map retires: nodes and tables.
struct map_garbage : reclaimable {
  explicit map_garbage(std::uint32_t held) noexcept : holds(held) {}

  /// Of a node: one for its place in a table, one for each that found no slot to show it in or
  /// walks over it. 0: this is a table.
  sync::atomic<std::uint32_t> holds;
  map_garbage* next = nullptr;  // of a list whose owner alone uses it
};

/// The head of a table's memory.
struct map_block : map_garbage {
  explicit map_block(std::uintptr_t named) noexcept : map_garbage(0), word(named) {}
  const std::uintptr_t word;  // the table's name
};

/// An entry of its own; but for a value_in_place nothing of it changes. Whoever makes it constructs
/// and destroys `entry`.
template <class Entry>
struct map_node : map_garbage {
  explicit map_node(std::uint64_t hashed) noexcept : map_garbage(1), hash(hashed) {}
  map_node(const map_node&) = delete;
  map_node& operator=(const map_node&) = delete;
  ~map_node() {}  // leaves entry to its owner

  /// By one who shows it, holds it, or keeps its table's writer away.
  void hold() noexcept { holds.fetch_add(1, sync::relaxed); }  // relaxed: it cannot end meanwhile

  std::uint64_t hash;  // written before it is in a table
  union {
    Entry entry;
  };
};

/// A trivially copyable value in whole words, so that it can be read while it is replaced.
template <class T>
struct word_copy {
  static constexpr std::size_t words = std::is_empty_v<T> ? 0 : (sizeof(T) + 7) / 8;
  using array = std::array<std::uint64_t, words>;

  [[nodiscard]] static array of(const T& value) noexcept {
    array copy{};
    if constexpr (words != 0) std::memcpy(copy.data(), std::addressof(value), sizeof(T));
    return copy;
  }
  /// The value back. By value all the way: it stays in registers.
  [[nodiscard]] static T back(const array& copy) noexcept {
    std::array<unsigned char, sizeof(T)> bytes{};
    if constexpr (words != 0) std::memcpy(bytes.data(), copy.data(), sizeof(T));
    return std::bit_cast<T>(bytes);
  }
};

/// Whether entries stand in the table itself: a change of the value is one store then, and a key
/// that compares equal has equal bytes or none that differ for long.
template <class Key, class Value>
inline constexpr bool stands_in_words =
    std::is_trivially_copyable_v<Key> && std::is_copy_constructible_v<Key> &&
    std::has_unique_object_representations_v<Key> && sizeof(Key) <= 16 && alignof(Key) <= 16 &&
    std::is_trivially_copyable_v<Value> && std::is_copy_constructible_v<Value> &&
    sizeof(Value) <= 8 && alignof(Value) <= 8;

/// A slot with the entry itself. The key changes only while the slot's tag says that it is empty.
template <class Key, class Value>
class word_slot {
 public:
  using key_copy = word_copy<Key>;
  using value_copy = word_copy<Value>;
  using key_words = typename key_copy::array;
  using value_words = typename value_copy::array;

  [[nodiscard]] key_words key() const noexcept { return load<key_words>(key_); }
  [[nodiscard]] value_words value() const noexcept { return load<value_words>(value_); }
  void set_key(const key_words& words) noexcept { store(key_, words); }
  void set_value(const value_words& words) noexcept { store(value_, words); }

 private:
  template <class Words, class Atomics>
  static Words load(const Atomics& from) noexcept {
    Words copy{};
    for (std::size_t i = 0; i < copy.size(); ++i) {
      // (1) acquire-load; pairs with release-store (2). Sees: that the slot was emptied before it
      // was filled anew, and what the writer of a value did before.
      copy[i] = from[i].load(sync::acquire);
    }
    return copy;
  }
  template <class Words, class Atomics>
  static void store(Atomics& to, const Words& words) noexcept {
    for (std::size_t i = 0; i < words.size(); ++i) {
      // (2) release-store; pairs with acquire-load (1). Publishes: the shard's count of emptied
      // slots, raised before the slot is filled anew; what the writer did before.
      to[i].store(words[i], sync::release);
    }
  }

  std::array<sync::atomic<std::uint64_t>, key_copy::words> key_{};
  [[no_unique_address]] std::array<sync::atomic<std::uint64_t>, value_copy::words> value_{};
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
