// Look-ups in a shard that take no lock and write nothing that others read.
// Use for: the inside of concurrent_map. Internal.
// Not for: changes.
// Threads: any.
// Progress: lock-free: a look is repeated only if a writer has got on meanwhile.
// Callbacks: `matches`, no lock held.
// Exceptions: those of `matches`.
// Lifetime: what a slot shows lives until the slot is cleared.
// Guide: docs/concurrent_map.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "../reclaim.hpp"
#include "config.hpp"
#include "look_slots.hpp"
#include "map_shard.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// How a look-up gets at an entry without a lock: it shows what it reads before it reads it, and
/// looks again whether that is still in force.
template <class Types>
struct map_search {
  static constexpr bool in_words = Types::in_words;
  using table = typename Types::table;
  using place = typename Types::place;
  using words = typename Types::words;
  using node = typename Types::node;
  using hit = typename Types::hit;

  /// Shows the shard's table until it is the one in force.
  [[gnu::always_inline]] static table show_table(const map_shard& home, look_slots::slot& in,
                                                 sync::fence_mode mode) noexcept {
    std::uintptr_t word = home.table.load(sync::relaxed);  // relaxed: a guess, (1) decides
    for (;;) {
      put_into(in, mode, table(word).block());
      // (1) acquire-load; pairs with release-store of map_tables.hpp (2). Sees: the table as it was
      // made. The fence puts it after the slot: a look of the writer's either finds the slot, or
      // this the new table.
      const std::uintptr_t now = home.table.load(sync::acquire);
      if (now == word) [[likely]]
        return table(word);
      word = now;
    }
  }

  /// Entries in words: copies, and then asks whether a slot was emptied meanwhile. Lock-free: again
  /// only if one was.
  template <class Matches>
  [[gnu::always_inline]] static bool find(const map_shard& home, const look_slots& slots,
                                          sync::fence_mode mode, std::uint64_t hash,
                                          const Matches& matches, hit& seen)
    requires(in_words)
  {
    const shown_here at_end(*slots.table);
    for (;;) {
      // (3) acquire-load; pairs with release-store of map_tables.hpp (1). Sees: that those slots
      // have no tag.
      const std::uint64_t emptied = home.emptied.load(sync::acquire);
      const table now = show_table(home, *slots.table, mode);
      if (now.none()) return false;
      bool again = false;
      place at;
      const bool found = now.find(hash, at, [&](const words& slot) {
        seen = {slot.key(), slot.value()};
        // relaxed: after the acquire-loads of the words, see I5 of shard_store
        again = home.emptied.load(sync::relaxed) != emptied;
        return again || matches(word_copy<typename Types::key_type>(seen.key).get());
      });
      if (!again) [[likely]]
        return found;
    }
  }

  /// Entries in nodes: shows a node and looks again at its slot and its table. Lock-free: again
  /// only if one of them was replaced.
  template <class Matches>
  [[gnu::always_inline]] static node* find(const map_shard& home, const look_slots& slots,
                                           sync::fence_mode mode, std::uint64_t hash,
                                           const Matches& matches)
    requires(!in_words)
  {
    const shown_here at_end(*slots.table);
    for (;;) {
      const table now = show_table(home, *slots.table, mode);
      if (now.none()) return nullptr;
      bool again = false;
      node* seen = nullptr;
      place at;
      const bool found = now.find(hash, at, [&](const words& slot) {
        seen = show_node(slot, *slots.node, mode);
        // relaxed: ordered after (2). A table that was replaced has nodes that may have ended.
        again = home.table.load(sync::relaxed) != now.word();
        return again || (seen != nullptr && matches(seen->entry.first));
      });
      if (!again) [[likely]]
        return found ? seen : nullptr;
    }
  }

  /// Shows the slot's node until it is the one in the slot. Null: the entry was taken out.
  [[gnu::always_inline]] static node* show_node(const words& slot, look_slots::slot& in,
                                                sync::fence_mode mode) noexcept
    requires(!in_words)
  {
    node* seen = slot.at.load(sync::relaxed);  // relaxed: a guess, (2) decides
    for (;;) {
      put_into(in, mode, seen);
      // (2) acquire-load; pairs with release-store of map_change.hpp (1), release-store of
      // map_tables.hpp (3). Sees: the node as it was made, or why it is gone. The fence as in (1).
      node* const now = slot.at.load(sync::acquire);
      if (now == seen) [[likely]]
        return seen;
      seen = now;
    }
  }
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
