// How a shard's table takes entries in, loses them, grows and shrinks.
// Use for: the inside of concurrent_map. Internal.
// Not for: look-ups.
// Threads: one at a time for each shard: its lock is held.
// Progress: no waits; a rebuilding is one shard's work, and readers go on in the old table.
// Callbacks: the hash of entries that stand in words; the allocator. Under the shard's lock.
// Exceptions: those of the above; the shard is unchanged then.
// Lifetime: what is replaced goes to the leftovers, for the caller to retire.
// Guide: docs/concurrent_map.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "config.hpp"
#include "map_memory.hpp"
#include "map_shard.hpp"
#include "map_slots.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// What a change leaves behind, for the time after the shard's lock.
template <class Types>
struct leftovers {
  typename Types::table old;  // replaced
  dropped_nodes dropped;      // of nodes only
  bool look = false;          // whether there may be garbage that is old
};

/// The tables of a store's shards. All members but the constructor are called with the lock of the
/// shard they are given.
template <class Types, class HashOf>
class shard_tables {
 public:
  static constexpr bool in_words = Types::in_words;
  using table = typename Types::table;
  using place = typename Types::place;
  using words = typename Types::words;
  using node = typename Types::node;
  using entry = typename Types::entry;
  using leftovers = detail::leftovers<Types>;

  /// So many nodes wait in a shard before they are retired together.
  static constexpr std::size_t dropped_together = sync::repeatable ? 1 : 16;

  shard_tables(typename Types::memory& memory, const HashOf& hash_of) noexcept
      : memory_(memory), hash_of_(hash_of) {}

  static void count(map_shard& home, std::ptrdiff_t by) noexcept {
    const std::size_t before = home.entries.load(sync::relaxed);
    home.entries.store(before + static_cast<std::size_t>(by), sync::relaxed);
  }

  /// A slot for a key that is not there; room for it is there.
  static place claim(map_shard& home, table now, std::uint64_t hash) noexcept {
    place at;
    home.longest_walk = std::max(home.longest_walk, now.claim(hash, at));
    --home.room;
    return at;
  }

  /// Empties the slot; a node lives on.
  static void unlink(map_shard& home, table now, place at, std::uint64_t hash) noexcept {
    count(home, -1);  // first: who misses the key must not find it counted
    if constexpr (!in_words) {
      // (3) release-store; pairs with acquire-load of map_search.hpp (2). Publishes: what the
      // writer did before, such as the entry's place in another map or group.
      now.slot(at).at.store(nullptr, sync::release);
    }
    if (now.hide(at, hash)) ++home.room;
    if constexpr (in_words) {
      const std::uint64_t before = home.emptied.load(sync::relaxed);  // relaxed: under the lock
      // (1) release-store; pairs with acquire-load of map_search.hpp (3), acquire-load of
      // shard_store.hpp (1). Publishes: that the slot has no tag.
      home.emptied.store(before + 1, sync::release);
    }
  }

  void take_out(map_shard& home, table now, place at, std::uint64_t hash,
                leftovers& after) const noexcept {
    if constexpr (in_words) {
      unlink(home, now, at, hash);
    } else {
      node& left = *Types::node_in(now.slot(at));
      unlink(home, now, at, hash);
      drop(home, left, after);
    }
  }

  /// A node that is in no table any more.
  void drop(map_shard& home, node& left, leftovers& after) const noexcept {
    home.dropped.add(left);
    if (home.dropped.count >= dropped_together) {
      after.dropped.add_all(home.dropped);
    } else if (home.dropped.count == 1) {
      after.look = true;  // the first since the last look: what is old is to go
    }
  }

  /// Puts a table in force. Its entries are those of the old one.
  void replace(map_shard& home, table next, leftovers& after) const noexcept {
    after.old = Types::table_of(home);
    // (2) release-store; pairs with acquire-load of map_search.hpp (1). Publishes: the table and
    // its entries.
    home.table.store(next.word(), sync::release);
  }

  /// A table of 2^log2 groups with the shard's entries takes the place of the old one.
  void rebuild(map_shard& home, unsigned log2, leftovers& after) const {
    std::uint32_t longest = 0;
    const table next = copied(Types::table_of(home), log2, longest);
    home.longest_walk = longest;
    home.room = next.capacity() - home.entries.load(sync::relaxed);
    ++home.resizes;
    replace(home, next, after);
  }

  [[nodiscard]] table copied(table from, unsigned log2, std::uint32_t& longest) const {
    table next = memory_.make_table(log2);
    VELTRIX_TRY {
      from.for_each([&](place at) {
        const std::uint64_t hash = hash_at(from.slot(at));
        place to;
        longest = std::max(longest, next.claim(hash, to));
        if constexpr (in_words) {
          next.slot(to).set_key(from.slot(at).key());
          next.slot(to).set_value(from.slot(at).value());
        } else {
          // relaxed: the table is not in force yet
          next.slot(to).at.store(Types::node_in(from.slot(at)), sync::relaxed);
        }
        next.show(to, hash);
      });
    }
    VELTRIX_CATCH_ALL {
      memory_.free_table(next);
      VELTRIX_RETHROW;
    }
    return next;
  }

  /// The table with another entry in place of the one at `at`, whose key is equal.
  [[nodiscard]] table copy_with(table now, place at, const entry& other) const
    requires(in_words)
  {
    std::uint32_t longest = 0;
    const auto old_key = now.slot(at).key();
    const table next = copied(now, now.log2(), longest);
    next.for_each([&](place each) {
      words& slot = next.slot(each);
      if (slot.key() != old_key) return;
      slot.set_key(word_copy<typename Types::key_type>::of(other.first));
      slot.set_value(word_copy<typename Types::mapped_type>::of(other.second));
    });
    return next;
  }

  std::uint64_t hash_at(const words& slot) const {
    if constexpr (in_words) {
      return hash_of_(word_copy<typename Types::key_type>(slot.key()).get());
    } else {
      return Types::node_in(slot)->hash;
    }
  }

  /// For a key more. A table of many slots that are empty but marked is built anew as it is.
  [[gnu::noinline]] void grow(map_shard& home, leftovers& after) const {
    const table now = Types::table_of(home);
    unsigned log2 = home.least_log2;
    if (!now.none()) {
      const std::size_t most = now.capacity() - now.capacity() / 8;
      const bool larger = home.entries.load(sync::relaxed) + 1 > most;
      log2 = std::max(log2, now.log2() + (larger ? 1 : 0));
    }
    rebuild(home, log2, after);
  }

  /// After an erasure: a table that is nearly empty gives its memory back, if it can.
  void shrink(map_shard& home, leftovers& after) const noexcept {
    const table now = Types::table_of(home);
    const std::size_t entries = home.entries.load(sync::relaxed);
    if (now.none() || now.log2() <= home.least_log2 || entries >= now.capacity() / 8) return;
    shrink_now(home, after, std::max<unsigned>(home.least_log2, table::log2_for(2 * entries)));
  }
  [[gnu::noinline]] void shrink_now(map_shard& home, leftovers& after,
                                    unsigned log2) const noexcept {
    VELTRIX_TRY {
      rebuild(home, log2, after);
    }
    VELTRIX_CATCH_ALL {
      // The larger table stays.
    }
  }

  /// Takes everything out.
  void clear(map_shard& home, leftovers& after) const noexcept {
    const table old = Types::table_of(home);
    if (old.none()) return;
    home.entries.store(0, sync::relaxed);  // first: as in unlink()
    replace(home, table(), after);
    if constexpr (!in_words) {
      // The old table goes on showing them to who looks at it; who does finds it replaced.
      old.for_each([&](place at) { after.dropped.add(*Types::node_in(old.slot(at))); });
    }
    home.room = 0;
  }

  /// Gives the shard a table for `entries` or for those it has, whichever is more. A table that is
  /// larger than that is replaced only if `may_shrink`.
  enum class larger_table : std::uint8_t { stays, shrinks };
  void resize(map_shard& home, std::size_t entries, larger_table larger, leftovers& after) const {
    const table now = Types::table_of(home);
    const bool may_shrink = larger == larger_table::shrinks;
    const std::size_t needed = std::max(entries, home.entries.load(sync::relaxed));
    if (needed == 0) {
      if (may_shrink) {
        replace(home, table(), after);
        home.room = 0;
        home.least_log2 = 0;
      }
      return;
    }
    const auto wanted = static_cast<std::uint8_t>(table::log2_for(needed));
    if (now.none() || wanted > now.log2() || (may_shrink && wanted < now.log2())) {
      rebuild(home, wanted, after);
    }
    const auto asked = static_cast<std::uint8_t>(table::log2_for(entries));
    home.least_log2 = may_shrink ? asked : std::max(home.least_log2, asked);
  }

 private:
  typename Types::memory& memory_;
  [[no_unique_address]] const HashOf hash_of_;  // of a key
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
