// One shard of a map, and the types that a map is made of.
// Use for: the inside of concurrent_map. Internal.
// Not for: anything else.
// Threads: each member says who may use it.
// Progress: no waits.
// Callbacks: `matches`, where it is passed.
// Exceptions: those of `matches`.
// Lifetime: shards live as long as their map.
// Guide: docs/concurrent_map.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "config.hpp"
#include "map_memory.hpp"
#include "map_slots.hpp"
#include "map_table.hpp"
#include "map_value.hpp"
#include "park_lock.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// A slot with the address of an entry's node.
template <class Node>
struct node_slot {
  sync::atomic<Node*> at{nullptr};  // written by the table's writer
};

/// One shard. Its first line changes when a table is rebuilt or a slot in words is emptied; its
/// second with every change.
struct alignas(cache_line) map_shard {
  sync::atomic<std::uintptr_t> table{0};   // written under lock
  sync::atomic<std::uint64_t> emptied{0};  // slots in words emptied so far; written under lock

  alignas(cache_line) park_lock lock;
  bool frozen = false;                   // guarded by lock; so are all below but the atomics
  std::uint8_t least_log2 = 0;           // of the table's groups: what was reserved
  std::uint32_t resizes = 0;             // wraps
  sync::atomic<std::uint32_t> waits{0};  // relaxed: statistics only; wraps
  std::uint32_t longest_walk = 0;        // groups passed by a key that came into this table
  std::size_t room = 0;                  // keys that may come before the table is rebuilt
  dropped_nodes dropped;                 // out of the table, not yet retired
  sync::atomic<std::size_t> entries{0};  // relaxed: written under lock; estimates read it
};
static_assert(sync::repeatable || sizeof(map_shard) == 2 * cache_line);

/// The same with what its values need to be replaced in place.
template <class Transit>
struct map_shard_with : map_shard {
  [[no_unique_address]] Transit transit;  // written under lock
};

/// The kinds of things that a map of these types is made of. An entry stands in words of its slot,
/// or in a node: whole and unchanged, or with a value that is replaced in place.
template <class Key, class Value, class Allocator>
struct map_types {
  using key_type = Key;
  using mapped_type = Value;
  using allocator = Allocator;
  using entry = std::pair<const Key, Value>;
  static constexpr bool in_words = stands_in_words<Key, Value>;
  static constexpr bool in_place = changes_in_place<Key, Value>;
  using stored = std::conditional_t<in_place, std::pair<const Key, value_in_place<Value>>, entry>;
  using shard =
      map_shard_with<typename value_in_place<std::conditional_t<in_place, Value, int>>::transit>;
  using node = map_node<stored>;
  using words = std::conditional_t<in_words, word_slot<Key, Value>, node_slot<node>>;
  using table = map_table<words, !in_words>;
  using place = typename table::place;
  using memory = map_memory<stored, table, Allocator>;

  /// What stands in words, read whole.
  struct hit {
    typename word_copy<Key>::array key;
    typename word_copy<Value>::array value;
    [[nodiscard]] entry copy() const noexcept {
      return entry(word_copy<Key>::back(key), word_copy<Value>::back(value));
    }
  };

  /// The value of a node that the caller keeps: itself, or a copy of one that may be replaced.
  [[gnu::always_inline]] static decltype(auto) value_of(const node& kept,
                                                        const shard& home) noexcept {
    if constexpr (in_place) {
      copied_value<Value> copy;
      kept.entry.second.get(copy, home.transit);
      return copy;
    } else {
      return std::as_const(kept.entry.second);
    }
  }

  /// By one who has the lock of the node's shard.
  static void set_value(node& mine, const Value& next, shard& home) noexcept
    requires(in_place)
  {
    mine.entry.second.set(next, home.transit);
  }

  // Under the lock of the slot's shard:

  static node* node_in(const words& slot) noexcept
    requires(!in_words)
  {
    return slot.at.load(sync::relaxed);  // relaxed: written under the lock
  }
  static entry copy_of(const words& slot) noexcept
    requires(in_words)
  {
    return hit{slot.key(), slot.value()}.copy();
  }
  /// Whether a slot has the key.
  template <class Matches>
  static auto key_in_slot(const Matches matches) noexcept {
    return [matches](const words& slot) {
      if constexpr (in_words) {
        return matches(word_copy<Key>::back(slot.key()));
      } else {
        return matches(node_in(slot)->entry.first);
      }
    };
  }
  static table table_of(const map_shard& home) noexcept {
    return table(home.table.load(sync::relaxed));  // relaxed: written under the lock
  }
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
