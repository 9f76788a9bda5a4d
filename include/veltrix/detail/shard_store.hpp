// The inside of concurrent_map: shards, their tables, and look-ups that write nothing shared.
// Use for: concurrent_map, which adds hashing, comparing and the operations. Internal.
// Not for: anything that knows a key's hash or equality; both are passed in.
// Threads: all members but the constructor and destructor may be called from any thread.
// Progress: look-ups are lock-free: a retry means that a writer got on. Writers hold one shard for
//   one change, or one table's rebuilding.
// Callbacks: `matches` in a look-up: no lock. Under a shard's lock: `matches` in a change, hashes
//   of entries that stand in words, allocators, constructors. Destructors: no lock.
// Exceptions: those of the above and std::system_error for re-entry; the shard is unchanged then.
// Lifetime: pins end before the store.
// Guide: docs/concurrent_map.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "count_gate.hpp"
#include "look_slots.hpp"
#include "map_change.hpp"
#include "map_guard.hpp"
#include "map_memory.hpp"
#include "map_refusals.hpp"
#include "map_search.hpp"
#include "map_shard.hpp"
#include "map_slots.hpp"
#include "map_tables.hpp"
#include "park_lock.hpp"
#include "shard_locks.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// I1: a key is in at most one slot with a tag, in the table of the shard its hash names.
/// I2: a node never changes once it is in a table; a change puts another in its slot. But a plain
///     value is replaced in its node, see map_value.hpp, and where entries stand in words a change
///     stores the one word of the value.
/// I3: a table that was replaced never changes again. Whoever shows it reads the shard as it was.
/// I4: while size() counts, every shard is frozen and none gains or loses an entry.
/// I5: a slot in words is filled anew only after its shard's `emptied` was raised: who finds that
///     unchanged has read a key and a value that belong together.
///
/// Locks: a thread holds one shard's lock of a store, and only move_from() two, of two stores,
/// lower address first. No shard's lock is held while waiting at a gate or while memory is retired.
template <class Key, class Value, class Allocator, class HashOf>
class shard_store {
 public:
  using types = map_types<Key, Value, Allocator>;
  using key_type = Key;
  using mapped_type = Value;
  using entry = typename types::entry;
  using node = typename types::node;
  using shard = typename types::shard;
  using pin = map_pin<shard_store>;
  using change = map_change<shard_store>;
  static constexpr bool in_words = types::in_words;

  reclaim_domain& domain = reclaim_domain::shared();
  const shard_locks locks{domain.mode()};

  shard_store(std::size_t shards, const Allocator& allocator, const HashOf& hash_of)
      : memory_(allocator, domain),
        hash_of_(hash_of),
        tables_(memory_, hash_of),
        shard_mask_(shards - 1),
        shards_(allocate_shards()) {}

  ~shard_store() {
    locks.use.check_unused("a concurrent_map");
    for (shard& home : all()) {
      free_dropped(home.dropped);
      const table last = types::table_of(home);
      if constexpr (!in_words) {
        last.for_each([&](place at) { memory_.let_go(*types::node_in(last.slot(at))); });
      }
      memory_.free_table(last);
    }
    free_shards();
  }
  shard_store(const shard_store&) = delete;
  shard_store& operator=(const shard_store&) = delete;

  [[nodiscard]] const Allocator& allocator() const noexcept { return memory_.allocator(); }
  [[nodiscard]] std::size_t shard_count() const noexcept { return shard_mask_ + 1; }
  [[nodiscard]] shard& shard_at(std::size_t index) const noexcept { return shards_[index]; }

  /// By the lowest of the top 16 bits; the tables use the low ones of all.
  [[nodiscard]] shard& shard_of(std::uint64_t hash) const noexcept {
    return shards_[static_cast<std::size_t>(hash >> 48) & shard_mask_];
  }

  /// For what changes a shard under its lock.
  [[nodiscard]] typename types::memory& memory() const noexcept { return memory_; }
  [[nodiscard]] const auto& tables() const noexcept { return tables_; }
  void let_go(node& held) const noexcept { memory_.let_go(held); }
  /// By one who keeps the node from ending.
  [[nodiscard]] pin hold(node& found) const noexcept {
    found.hold();
    return pin(*this, &found, nullptr);
  }

  // --- look-ups --------------------------------------------------------------------------------

  /// Calls found(key, value) with no lock held if the key is there. Result: whether it is.
  template <class Matches, class Found>
  [[gnu::always_inline]] bool read(const char* operation, std::uint64_t hash, const Matches matches,
                                   const Found found) const {
    const look_slots mine = look_slots::quick<in_words>(domain);
    if (!mine.usable()) [[unlikely]]
      return read_elsewhere(operation, hash, matches, found);
    return read_in(mine, sync::fence_mode::membarrier, hash, matches, found);
  }

  /// The entry, kept, or an empty pin.
  template <class Matches>
  [[nodiscard]] pin look_up(const char* operation, std::uint64_t hash,
                            const Matches& matches) const {
    const look_slots mine = look_slots::quick<in_words>(domain);
    if (!mine.usable()) [[unlikely]]
      return look_up_elsewhere(operation, hash, matches);
    return look_up_in(mine, sync::fence_mode::membarrier, hash, matches);
  }

  /// Asks for the lines that a look-up of the hash reads first. Inlined, as all that only prefetch:
  /// g++ drops a call of a function that does nothing else.
  [[gnu::always_inline]] void prefetch_table(std::uint64_t hash) const noexcept {
    // relaxed: only an address is made of it
    const table now(shard_of(hash).table.load(sync::relaxed));
    if (!now.none()) now.prefetch(hash);
  }
  /// Asks for the key's node; the tags are read for that.
  [[gnu::always_inline]] void prefetch_node(std::uint64_t hash) const noexcept
    requires(!in_words)
  {
    const look_slots mine = look_slots::quick<true>(domain);
    if (!mine.usable()) return;
    const shown_here at_end(*mine.table, mine.free);
    const table now = search::show_table(shard_of(hash), *mine.table, sync::fence_mode::membarrier);
    if (now.none()) return;
    const auto first = now.look_first(hash, false);
    if (first.likely.empty()) return;
    // relaxed: only an address is made of it
    const node* const there = now.slot(first.group, first.likely.first()).at.load(sync::relaxed);
    __builtin_prefetch(there);
    __builtin_prefetch(reinterpret_cast<const unsigned char*>(there) + cache_line);
  }

  // --- changes ---------------------------------------------------------------------------------

  /// What is done once the shard's lock is released: memory that was dropped is retired.
  class after_lock {
   public:
    explicit after_lock(const shard_store& store) noexcept : store_(store) {}
    [[gnu::always_inline]] ~after_lock() {
      if constexpr (!in_words) {
        if (left.dropped.first != nullptr || left.look) [[unlikely]]
          store_.retire(left.dropped, left.look);
      }
      if (!left.old.none()) [[unlikely]]
        store_.memory_.retire(left.old);
    }
    after_lock(const after_lock&) = delete;
    after_lock& operator=(const after_lock&) = delete;

    leftovers<types> left;

   private:
    const shard_store& store_;
  };

  /// Takes out every entry of a shard that drop(key, value) accepts, under its lock. Result: how
  /// many; those taken out before `drop` throws stay so.
  template <class Drop>
  std::size_t drop_if(const char* operation, shard& home, Drop&& drop) const {
    std::size_t erased = 0;
    after_lock after(*this);
    const shard_lock lock(locks, home, operation, shard_lock::intent::change);
    const table now = types::table_of(home);
    now.for_each([&](place at) {
      if constexpr (in_words) {
        const entry seen = types::copy_of(now.slot(at));
        if (!drop(seen.first, seen.second)) return;
        tables_.take_out(home, now, at, hash_of_(seen.first), after.left);
      } else {
        const node& seen = *types::node_in(now.slot(at));
        if (!drop(seen.entry.first, types::value_of(seen, home))) return;
        tables_.take_out(home, now, at, seen.hash, after.left);
      }
      ++erased;
    });
    after.left.old = tables_.shrink(home);
    return erased;
  }

  /// Calls f(key, value), no lock held, for each entry that the shard has throughout, and at most
  /// once for a key that comes or goes meanwhile.
  template <class Function>
  void visit_shard(const char* operation, shard& home, Function&& f) const {
    held_list held{typename held_list::allocator_type(allocator())};
    const holds_end end{*this, held};
    hold_all(operation, home, held);
    for (const auto& each : held) {
      if constexpr (in_words) {
        f(each.first, each.second);
      } else {
        f(each->entry.first, types::value_of(*each, home));
      }
    }
  }

  /// Moves the entry of `key`, if `from` has it and this store has not. Both shards are held; the
  /// key is here before it is gone there. Result: whether it was moved.
  template <class Store, class Matches, class MatchesFrom>
  bool move_from(const Store& from, const Key& key, std::uint64_t from_hash,
                 const MatchesFrom& matches_from, std::uint64_t hash,
                 const Matches& matches) const {
    fresh_entry<types> copied(memory_);  // ends after the locks
    if constexpr (types::in_place) {
      const auto moving = from.look_up("concurrent_map::merge", from_hash, matches_from);
      if (!moving || look_up("concurrent_map::merge", hash, matches)) return false;
      copied.make(hash, key, moving.value());
    }
    typename Store::shard& source = from.shard_of(from_hash);
    shard& target = shard_of(hash);
    after_lock after(*this);
    typename Store::after_lock source_after(from);
    const two_shard_locks held(from.locks, source, locks, target, "concurrent_map::merge");
    const table left = types::table_of(source);
    const place at = left.find(from_hash, types::key_in_slot(matches_from));
    if (at.none() || !types::table_of(target).find(hash, types::key_in_slot(matches)).none())
      return false;
    if (target.room == 0) after.left.old = tables_.grow(target);
    const table right = types::table_of(target);
    const place there = tables_.claim(target, right, hash);
    if constexpr (in_words) {
      right.slot(there).set_key(left.slot(at).key());
      right.slot(there).set_value(left.slot(at).value());
      right.show(there, hash);
    } else {
      node& moved = *types::node_in(left.slot(at));
      right.show(there, hash);  // first, see map_change
      if constexpr (types::in_place) {
        copied.set_value(types::value_of(moved, source));
        copied.fill(right.slot(there));
      } else {
        moved.hash = hash;
        put_node(right.slot(there), moved);
      }
    }
    tables_.count(target, 1);
    if constexpr (types::in_place) {
      from.tables_.take_out(source, left, at, from_hash, source_after.left);
    } else {
      from.tables_.unlink(source, left, at, from_hash);
    }
    return true;
  }

  // --- all shards ------------------------------------------------------------------------------

  /// Entries at one moment, see I4.
  [[nodiscard]] std::size_t size(const char* operation) const {
    for (shard& home : all())
      shard_locks::refuse_own(home, operation);
    const count_gate::count counting(locks.gate);
    std::size_t total = 0;
    for (shard& home : all())
      total += set_frozen(home, operation, true);
    for (shard& home : all())
      set_frozen(home, operation, false);
    return total;
  }

  /// Entries as counted shard by shard, no lock.
  [[nodiscard]] std::size_t estimate() const noexcept {
    std::size_t total = 0;
    for (const shard& home : all())
      total += home.entries.load(sync::relaxed);
    return total;
  }

  /// Takes everything out, shard by shard, and frees it.
  void clear(const char* operation) const {
    for (shard& home : all()) {
      after_lock after(*this);
      const shard_lock lock(locks, home, operation, shard_lock::intent::change);
      tables_.clear(home, after.left);
    }
    memory_.look();
  }

  /// Gives each shard a table for `per_shard` entries or for those it has, whichever is more.
  using larger_table = typename shard_tables<types, HashOf>::larger_table;
  void resize_all(const char* operation, std::size_t per_shard, larger_table larger) const {
    for (shard& home : all()) {
      after_lock after(*this);
      const shard_lock lock(locks, home, operation, shard_lock::intent::change);
      after.left.old = tables_.resize(home, per_shard, larger);
    }
  }

  /// Frees all that was taken out and that no reader shows.
  void collect(const char* operation) const {
    for (shard& home : all())
      shard_locks::refuse_own(home, operation);  // before anything is taken out
    dropped_nodes dropped;
    for (shard& home : all()) {
      const shard_lock lock(locks, home, operation, shard_lock::intent::look);
      dropped.add_all(home.dropped);
    }
    memory_.retire(dropped);
    memory_.look();
  }

  /// Read shard by shard, each under its lock.
  template <class Stats>
  [[nodiscard]] Stats stats(const char* operation) const {
    Stats told;
    told.shards = shard_count();
    told.memory_bytes = memory_.waiting() * sizeof(node);  // what waits is nodes, mostly
    for (shard& home : all()) {
      const shard_lock lock(locks, home, operation, shard_lock::intent::look);
      const table now = types::table_of(home);
      const std::size_t entries = home.entries.load(sync::relaxed);
      told.entries += entries;
      told.slots += now.capacity();
      told.longest_probe = std::max(
          told.longest_probe, std::min(entries, (1 + home.longest_walk) * table::group_slots));
      told.resizes += home.resizes;
      told.contended += home.waits.load(sync::relaxed);
      told.memory_bytes += sizeof(shard) + now.bytes();
      if constexpr (!in_words) {
        told.memory_bytes += (entries + home.dropped.count) * sizeof(node);
      }
    }
    if (told.slots != 0) {
      told.load = static_cast<double>(told.entries) / static_cast<double>(told.slots);
    }
    return told;
  }

  /// One shard's part of `entries`, with room for what chance adds (four standard deviations).
  /// Errors: std::length_error above what the allocator can give.
  [[nodiscard]] std::size_t share(const char* operation, std::size_t entries) const {
    const std::size_t most = memory_.most_nodes();
    if (entries > most) raise_too_many(operation, entries, most);
    const std::size_t even = entries / shard_count() + (entries % shard_count() != 0 ? 1 : 0);
    if (shard_count() == 1) return even;
    const double spread = 4 * std::sqrt(static_cast<double>(even));
    return even + static_cast<std::size_t>(spread);
  }

  /// Errors: std::invalid_argument if the allocators compare unequal: nodes could not change owner.
  template <class Store>
  void require_equal_allocator(const Store& other) const {
    if constexpr (!std::allocator_traits<Allocator>::is_always_equal::value) {
      if (!(allocator() == other.allocator())) raise_unequal_allocators();
    }
  }

 private:
  template <class, class, class, class>
  friend class shard_store;

  using words = typename types::words;
  using table = typename types::table;
  using place = typename types::place;
  using hit = typename types::hit;
  using search = map_search<types>;
  using shard_traits = typename std::allocator_traits<Allocator>::template rebind_traits<shard>;
  using shard_allocator = typename shard_traits::allocator_type;
  using held_item = std::conditional_t<in_words, entry, node*>;
  using held_list =
      std::vector<held_item,
                  typename std::allocator_traits<Allocator>::template rebind_alloc<held_item>>;

  // --- reading a shard -------------------------------------------------------------------------

  template <class Matches, class Found>
  [[gnu::always_inline]] bool read_in(const look_slots& slots, sync::fence_mode mode,
                                      std::uint64_t hash, const Matches matches,
                                      const Found found) const {
    if constexpr (in_words) {
      hit seen;
      if (!search::find(shard_of(hash), slots, mode, hash, matches, seen)) return false;
      found(word_copy<Key>::back(seen.key), word_copy<Value>::back(seen.value));
    } else {
      const shown_here at_end(*slots.node, slots.free);
      const node* const seen = search::find(shard_of(hash), slots, mode, hash, matches);
      if (seen == nullptr) return false;
      found(seen->entry.first, types::value_of(*seen, shard_of(hash)));
    }
    return true;
  }

  template <class Matches, class Found>
  [[gnu::noinline]] bool read_elsewhere(const char* operation, std::uint64_t hash,
                                        const Matches matches, const Found found) const {
    const other_look_slots other(domain);
    if (other.found().usable()) {
      return read_in(other.found(), domain.mode(), hash, matches, found);
    }
    const pin held = look_up_locked(operation, hash, matches);
    if (!held) return false;
    found(held.key(), held.value());
    return true;
  }

  template <class Matches>
  [[gnu::always_inline]] pin look_up_in(const look_slots& slots, sync::fence_mode mode,
                                        std::uint64_t hash, const Matches& matches) const {
    if constexpr (in_words) {
      hit seen;
      return search::find(shard_of(hash), slots, mode, hash, matches, seen)
                 ? pin(*this, seen.copy())
                 : pin();
    } else {
      // The pin clears the slot, also of an exception's path.
      pin kept(*this, nullptr, slots.node);
      kept.show(search::find(shard_of(hash), slots, mode, hash, matches));
      return kept;
    }
  }

  template <class Matches>
  [[gnu::noinline]] pin look_up_elsewhere(const char* operation, std::uint64_t hash,
                                          const Matches matches) const {
    const other_look_slots other(domain);
    if (!other.found().usable()) return look_up_locked(operation, hash, matches);
    pin kept = look_up_in(other.found(), domain.mode(), hash, matches);
    if constexpr (!in_words) {
      if (other.borrowed()) kept.hold();
    }
    return kept;
  }

  /// Where there is no memory for a slot to show anything in.
  template <class Matches>
  [[gnu::noinline]] pin look_up_locked(const char* operation, std::uint64_t hash,
                                       const Matches& matches) const {
    shard& home = shard_of(hash);
    const shard_lock lock(locks, home, operation, shard_lock::intent::look);
    const table now = types::table_of(home);
    const place at = now.find(hash, types::key_in_slot(matches));
    if (at.none()) return pin();
    if constexpr (in_words) {
      return pin(*this, types::copy_of(now.slot(at)));
    } else {
      return hold(*types::node_in(now.slot(at)));
    }
  }

  // --- after it --------------------------------------------------------------------------------

  [[gnu::noinline]] void retire(dropped_nodes dropped, bool look) const noexcept {
    if (look && memory_.is_old_look()) {
      // So many shards at a time: a tick of the clock is not to cost more than a walk over them.
      const std::size_t count = std::min<std::size_t>(shard_count(), 256);
      const std::size_t first = swept_.fetch_add(count, sync::relaxed);
      for (std::size_t i = first; i != first + count; ++i)
        take_dropped(shards_[i & (shard_count() - 1)], dropped);
    } else if (dropped.first == nullptr) {
      return;
    }
    memory_.retire(dropped);
  }

  /// What a shard has dropped, if nobody holds it now.
  void take_dropped(shard& home, dropped_nodes& into) const noexcept {
    const std::uintptr_t me = park_lock::me();
    if (home.lock.held_by(me) || !home.lock.try_lock(me)) return;
    into.add_all(home.dropped);
    home.lock.unlock(locks.lot);
  }

  void free_dropped(dropped_nodes& dropped) const noexcept {
    if constexpr (!in_words) {
      while (map_garbage* const each = dropped.take())
        memory_.let_go(static_cast<node&>(*each));
    }
  }

  // --- the rest --------------------------------------------------------------------------------

  struct shard_span {
    shard* first;
    shard* last;
    shard* begin() const noexcept { return first; }
    shard* end() const noexcept { return last; }
  };
  shard_span all() const noexcept { return {shards_, shards_ + shard_count()}; }

  std::size_t set_frozen(shard& home, const char* operation, bool frozen) const {
    const shard_lock lock(locks, home, operation, shard_lock::intent::look);
    home.frozen = frozen;
    return home.entries.load(sync::relaxed);
  }

  /// Ends the holds of visit_shard().
  struct holds_end {
    const shard_store& store;
    const held_list& held;
    ~holds_end() {
      if constexpr (!in_words) {
        for (node* const each : held)
          store.memory_.let_go(*each);
      }
    }
  };

  /// Copies or holds every entry of the shard; memory for them is got while it is not held.
  void hold_all(const char* operation, shard& home, held_list& held) const {
    if constexpr (in_words) {
      shard_locks::refuse_own(home, operation);  // at once, not only where it would wait
      constexpr int tries = 2;  // who erases all the time is to wait for a copy once
      for (int i = 0; i < tries; ++i) {
        if (copy_beside_writers(home, held)) return;
        held.clear();
      }
    }
    for (std::size_t room = home.entries.load(sync::relaxed);;) {
      held.reserve(room);
      const shard_lock lock(locks, home, operation, shard_lock::intent::look);
      if (const std::size_t entries = home.entries.load(sync::relaxed); entries > held.capacity()) {
        room = entries + entries / 8;
        continue;
      }
      const table now = types::table_of(home);
      now.for_each([&](place at) {
        if constexpr (in_words) {
          held.push_back(types::copy_of(now.slot(at)));
        } else {
          node* const each = types::node_in(now.slot(at));
          each->hold();
          held.push_back(each);
        }
      });
      return;
    }
  }

  /// Copies every entry of the shard, keeping no writer waiting. Result: whether it has each key
  /// that was there throughout, and no key twice: as keys do not move within a table, that is so
  /// if none was erased, and perhaps put in again, meanwhile.
  bool copy_beside_writers(const shard& home, held_list& held) const
    requires(in_words)
  {
    const other_look_slots slots(domain);
    if (!slots.found().usable()) return false;
    const shown_here at_end(*slots.found().table, slots.found().free);
    // (1) acquire-load; pairs with release-store of map_tables.hpp (1). Sees: that the slots
    // emptied so far have no tag.
    const std::uint64_t emptied = home.emptied.load(sync::acquire);
    const table now = search::show_table(home, *slots.found().table, domain.mode());
    held.reserve(home.entries.load(sync::relaxed));
    now.for_each([&](place at) {
      const words& slot = now.slot(at);
      held.push_back(hit{slot.key(), slot.value()}.copy());
    });
    // relaxed: after the acquire-loads of the words, see I5
    return home.emptied.load(sync::relaxed) == emptied;
  }

  shard* allocate_shards() const {
    shard_allocator shards(allocator());
    shard* const made = std::to_address(shard_traits::allocate(shards, shard_count()));
    for (std::size_t i = 0; i < shard_count(); ++i)
      ::new (static_cast<void*>(made + i)) shard();  // throws nothing
    return made;
  }

  void free_shards() noexcept {
    for (shard& home : all())
      home.~shard();
    shard_allocator shards(allocator());
    shard_traits::deallocate(
        shards, std::pointer_traits<typename shard_traits::pointer>::pointer_to(*shards_),
        shard_count());
  }

  mutable typename types::memory memory_;  // guards itself
  [[no_unique_address]] const HashOf hash_of_;
  const shard_tables<types, HashOf> tables_;    // of no state but the two above
  const std::size_t shard_mask_;                // their number, a power of two, less one
  mutable sync::atomic<std::size_t> swept_{0};  // relaxed: where the next sweep begins; wraps
  shard* const shards_;                         // fixed; each guards itself
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
