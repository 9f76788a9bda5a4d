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
/// looks again whether that is still in force. Most find their key, or that it is not there, with
/// one look at one group: that is inlined, the rest is not.
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

  /// Entries in words: copies, and then asks whether a slot was emptied meanwhile.
  template <class Matches>
  [[gnu::always_inline]] static bool find(const map_shard& home, const look_slots& slots,
                                          sync::fence_mode mode, std::uint64_t hash,
                                          const Matches matches, hit& seen)
    requires(in_words)
  {
    const shown_here at_end(*slots.table, slots.free);
    const std::uint64_t emptied = emptied_so_far(home);
    const table now = show_table(home, *slots.table, mode);
    if (now.none()) return false;
    const auto first = now.look_first(hash, slots.habit->expects_to_find());
    if (first.likely.empty()) {
      if (!first.further.tells(hash)) [[likely]] {
        slots.habit->missed();
        return false;
      }
    } else {
      const words& slot = now.slot(first.group, first.likely.first());
      if (copy(home, slot, emptied, seen) && is_key(seen, matches)) [[likely]] {
        slots.habit->found();
        return true;
      }
    }
    // Its result comes by value, so that nothing of the above is kept in memory for it.
    const found_words further = find_further<Matches>(home, *slots.table, mode, hash, matches);
    seen = further.what;
    return further.found;
  }

  /// Entries in nodes: shows a node and looks again at its slot and its table.
  template <class Matches>
  [[gnu::always_inline]] static node* find(const map_shard& home, const look_slots& slots,
                                           sync::fence_mode mode, std::uint64_t hash,
                                           const Matches matches)
    requires(!in_words)
  {
    const shown_here at_end(*slots.table, slots.free);
    const table now = show_table(home, *slots.table, mode);
    if (now.none()) return nullptr;
    const auto first = now.look_first(hash, false);
    if (first.likely.empty()) {
      if (!first.further.tells(hash)) [[likely]]
        return nullptr;
    } else {
      node* seen = nullptr;
      const words& slot = now.slot(first.group, first.likely.first());
      if (show_node(home, now, slot, *slots.node, mode, seen) && is_key(seen, matches)) [[likely]]
        return seen;
    }
    return find_further<Matches>(home, slots, mode, hash, matches);
  }

 private:
  /// A copy of an entry, if there is one.
  struct found_words {
    bool found = false;
    hit what;
  };

  /// find() through every group where the key may stand. Lock-free: again only if a slot was
  /// emptied meanwhile.
  template <class Matches>
  [[gnu::noinline]] static found_words find_further(const map_shard& home, look_slots::slot& in,
                                                    sync::fence_mode mode, std::uint64_t hash,
                                                    const Matches matches)
    requires(in_words)
  {
    for (;;) {
      const std::uint64_t emptied = emptied_so_far(home);
      const table now = show_table(home, in, mode);
      if (now.none()) return {};
      bool again = false;
      found_words told;
      const place at = now.find_anywhere(hash, [&](const words& slot) {
        again = !copy(home, slot, emptied, told.what);
        return again || is_key(told.what, matches);
      });
      told.found = !at.none();
      if (!again) return told;
    }
  }

  /// The same for nodes: again only if a slot or the table was replaced.
  template <class Matches>
  [[gnu::noinline]] static node* find_further(const map_shard& home, const look_slots& slots,
                                              sync::fence_mode mode, std::uint64_t hash,
                                              const Matches matches)
    requires(!in_words)
  {
    for (;;) {
      const table now = show_table(home, *slots.table, mode);
      if (now.none()) return nullptr;
      bool again = false;
      node* seen = nullptr;
      const place at = now.find_anywhere(hash, [&](const words& slot) {
        again = !show_node(home, now, slot, *slots.node, mode, seen);
        return again || is_key(seen, matches);
      });
      if (!again) return at.none() ? nullptr : seen;
    }
  }

  [[gnu::always_inline]] static std::uint64_t emptied_so_far(const map_shard& home) noexcept {
    // (3) acquire-load; pairs with release-store of map_tables.hpp (1). Sees: that those slots
    // have no tag.
    return home.emptied.load(sync::acquire);
  }

  /// Copies a slot. Result: whether none was emptied since: then its key and value belong together.
  [[gnu::always_inline]] static bool copy(const map_shard& home, const words& slot,
                                          std::uint64_t emptied, hit& seen) noexcept
    requires(in_words)
  {
    seen = {slot.key(), slot.value()};
    // relaxed: after the acquire-loads of the words, see I5 of shard_store
    return home.emptied.load(sync::relaxed) == emptied;
  }

  /// Shows the slot's node. Result: whether it is shown for good: a table that was replaced has
  /// nodes that may have ended.
  [[gnu::always_inline]] static bool show_node(const map_shard& home, table now, const words& slot,
                                               look_slots::slot& in, sync::fence_mode mode,
                                               node*& seen) noexcept
    requires(!in_words)
  {
    seen = show_in_slot(slot, in, mode);
    return home.table.load(sync::relaxed) == now.word();  // relaxed: ordered after (2)
  }

  /// Shows the slot's node until it is the one in the slot. Null: the entry was taken out.
  [[gnu::always_inline]] static node* show_in_slot(const words& slot, look_slots::slot& in,
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

  template <class Matches>
  [[gnu::always_inline]] static bool is_key(const hit& seen, const Matches& matches)
    requires(in_words)
  {
    return matches(word_copy<typename Types::key_type>::back(seen.key));
  }
  template <class Matches>
  [[gnu::always_inline]] static bool is_key(const node* seen, const Matches& matches)
    requires(!in_words)
  {
    return seen != nullptr && matches(seen->entry.first);
  }
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
