// How a shard's table takes entries in, loses them, grows and shrinks.
// Use for: the inside of concurrent_map. Internal.
// Not for: look-ups.
// Threads: one at a time for each shard: its lock is held.
// Progress: no waits; a rebuilding is one shard's work, and readers go on in the old table.
// Callbacks: the hash of entries that stand in words; the allocator. Under the shard's lock.
// Exceptions: those of the above; the shard is unchanged then.
// Lifetime: what is replaced is the caller's to retire.
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
  using hit = typename Types::hit;
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
  [[gnu::always_inline]] static place claim(map_shard& home, table now,
                                            std::uint64_t hash) noexcept {
    --home.room;
    const place first = now.claim_first(hash);
    return first.none() ? claim_further(home, now, hash) : first;
  }
  [[gnu::noinline]] static place claim_further(map_shard& home, table now,
                                               std::uint64_t hash) noexcept {
    return now.claim(hash, home.longest_walk);
  }

  /// Empties the slot; a node lives on.
  [[gnu::always_inline]] static void unlink(map_shard& home, table now, place at,
                                            std::uint64_t hash) noexcept {
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

  [[gnu::always_inline]] void take_out(map_shard& home, table now, place at, std::uint64_t hash,
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
  [[gnu::always_inline]] void drop(map_shard& home, node& left, leftovers& after) const noexcept {
    home.dropped.add(left);
    if (home.dropped.count >= dropped_together) {
      after.dropped.add_all(home.dropped);
    } else if (home.dropped.count == 1) {
      after.look = true;  // the first since the last look: what is old is to go
    }
  }

  /// Puts a table in force. Its entries are those of the old one, which is the result.
  [[nodiscard]] table replace(map_shard& home, table next) const noexcept {
    const table old = Types::table_of(home);
    // (2) release-store; pairs with acquire-load of map_search.hpp (1). Publishes: the table and
    // its entries.
    home.table.store(next.word(), sync::release);
    return old;
  }

  /// A table of 2^log2 groups with the shard's entries takes the place of the old one, which is the
  /// result.
  [[nodiscard]] table rebuild(map_shard& home, unsigned log2) const {
    std::uint32_t longest = 0;
    const table next = copied(Types::table_of(home), log2, longest);
    home.longest_walk = longest;
    home.room = next.capacity() - home.entries.load(sync::relaxed);
    ++home.resizes;
    return replace(home, next);
  }

  [[nodiscard]] table copied(table from, unsigned log2, std::uint32_t& longest) const {
    table next = memory_.make_table(log2);
    VELTRIX_TRY {
      from.for_each([&](place at) {
        const std::uint64_t hash = hash_at(from.slot(at));
        const place to = next.claim(hash, longest);
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
  [[nodiscard, gnu::noinline]] table copy_with(table now, place at, const hit other) const
    requires(in_words)
  {
    std::uint32_t longest = 0;
    const auto old_key = now.slot(at).key();
    const table next = copied(now, now.log2(), longest);
    next.for_each([&](place each) {
      words& slot = next.slot(each);
      if (slot.key() != old_key) return;
      slot.set_key(other.key);
      slot.set_value(other.value);
    });
    return next;
  }

  std::uint64_t hash_at(const words& slot) const {
    if constexpr (in_words) {
      return hash_of_(word_copy<typename Types::key_type>::back(slot.key()));
    } else {
      return Types::node_in(slot)->hash;
    }
  }

  /// For a key more. A table of many slots that are empty but marked is built anew as it is.
  /// Result: the old table.
  [[nodiscard, gnu::noinline]] table grow(map_shard& home) const {
    const table now = Types::table_of(home);
    unsigned log2 = home.least_log2;
    if (!now.none()) {
      const std::size_t most = now.capacity() - now.capacity() / 8;
      const bool larger = home.entries.load(sync::relaxed) + 1 > most;
      log2 = std::max(log2, now.log2() + (larger ? 1 : 0));
    }
    return rebuild(home, log2);
  }

  /// After an erasure: a table that is nearly empty gives its memory back, if it can. Result: the
  /// old table, if there is a new one.
  [[nodiscard, gnu::always_inline]] table shrink(map_shard& home) const noexcept {
    const table now = Types::table_of(home);
    const std::size_t entries = home.entries.load(sync::relaxed);
    if (now.none() || now.log2() <= home.least_log2 || entries >= now.capacity() / 8) [[likely]]
      return table();
    return shrink_now(home, std::max<unsigned>(home.least_log2, table::log2_for(2 * entries)));
  }
  [[gnu::noinline]] table shrink_now(map_shard& home, unsigned log2) const noexcept {
    VELTRIX_TRY {
      return rebuild(home, log2);
    }
    VELTRIX_CATCH_ALL {
      return table();  // the larger one stays
    }
  }

  /// Takes everything out.
  void clear(map_shard& home, leftovers& after) const noexcept {
    const table old = Types::table_of(home);
    if (old.none()) return;
    home.entries.store(0, sync::relaxed);  // first: as in unlink()
    after.old = replace(home, table());
    if constexpr (!in_words) {
      // The old table goes on showing them to who looks at it; who does finds it replaced.
      old.for_each([&](place at) { after.dropped.add(*Types::node_in(old.slot(at))); });
    }
    home.room = 0;
  }

  /// Gives the shard a table for `entries` or for those it has, whichever is more. A table that is
  /// larger than that is replaced only if `larger` says so. Result: the old table, if there is a
  /// new one, or none now.
  enum class larger_table : std::uint8_t { stays, shrinks };
  [[nodiscard]] table resize(map_shard& home, std::size_t entries, larger_table larger) const {
    const table now = Types::table_of(home);
    const bool may_shrink = larger == larger_table::shrinks;
    const std::size_t needed = std::max(entries, home.entries.load(sync::relaxed));
    if (needed == 0) {
      if (!may_shrink) return table();
      home.room = 0;
      home.least_log2 = 0;
      return replace(home, table());
    }
    const auto wanted = static_cast<std::uint8_t>(table::log2_for(needed));
    table old;
    if (now.none() || wanted > now.log2() || (may_shrink && wanted < now.log2())) {
      old = rebuild(home, wanted);
    }
    const auto asked = static_cast<std::uint8_t>(table::log2_for(entries));
    home.least_log2 = may_shrink ? asked : std::max(home.least_log2, asked);
    return old;
  }

 private:
  typename Types::memory& memory_;
  [[no_unique_address]] const HashOf hash_of_;  // of a key
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
