// A change of one key, made under the lock of its shard.
// Use for: the inside of concurrent_map. Internal.
// Not for: changes of several keys.
// Threads: one.
// Progress: blocking: holds the key's shard from its construction to its end.
// Callbacks: under the lock: `matches`, constructors, the allocator, hashes where a table of words
//   is rebuilt. After it: destructors.
// Exceptions: those of the above, before anything has changed.
// Lifetime: within one operation.
// Guide: docs/concurrent_map.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>

#include "config.hpp"
#include "map_guard.hpp"
#include "map_memory.hpp"
#include "map_shard.hpp"
#include "map_slots.hpp"
#include "map_tables.hpp"
#include "shard_locks.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// Puts a node into a slot that is empty, or has the node that this one replaces.
template <class Node>
void put_node(node_slot<Node>& slot, Node& fresh) noexcept {
  // (1) release-store; pairs with acquire-load of map_search.hpp (2). Publishes: the node.
  slot.at.store(&fresh, sync::release);
}

/// An entry that is in no table yet.
template <class Types>
class fresh_entry {
 public:
  using entry = typename Types::entry;
  using stored = typename Types::stored;
  using memory = typename Types::memory;
  static constexpr bool in_words = Types::in_words;

  explicit fresh_entry(memory& from) noexcept : memory_(from) {}
  [[gnu::always_inline]] ~fresh_entry() {
    if constexpr (!in_words) {
      if (made_ != nullptr) memory_.let_go(*made_);
    }
  }
  fresh_entry(const fresh_entry&) = delete;
  fresh_entry& operator=(const fresh_entry&) = delete;

  /// Once. Allocates first, so that the arguments are untouched if there is no memory.
  template <class... Arguments>
  stored& make(std::uint64_t hash, Arguments&&... arguments) {
    if constexpr (in_words) {
      static_cast<void>(hash);
      return made_.emplace(std::forward<Arguments>(arguments)...);
    } else {
      made_ = &memory_.make(hash, std::forward<Arguments>(arguments)...);
      return made_->entry;
    }
  }

  /// Fills a slot that is empty or, in a table of nodes, has the entry this one replaces.
  void fill(typename Types::words& slot) noexcept {
    if constexpr (in_words) {
      slot.set_key(word_copy<typename Types::key_type>::of(made_->first));
      slot.set_value(word_copy<typename Types::mapped_type>::of(made_->second));
    } else {
      put_node(slot, *std::exchange(made_, nullptr));
    }
  }
  void set_value(const typename Types::mapped_type& value) noexcept
    requires(Types::in_place)
  {
    made_->entry.second.init(value);
  }
  void set_hash(std::uint64_t hash) noexcept {
    if constexpr (!in_words) made_->hash = hash;
  }
  [[nodiscard]] const entry& get() const noexcept
    requires(in_words)
  {
    return *made_;
  }

 private:
  memory& memory_;
  std::conditional_t<in_words, std::optional<entry>, typename Types::node*> made_{};
};

/// A change of one key: looks it up, and holds its shard until it ends.
template <class Store>
class map_change {
  using types = typename Store::types;
  using entry = typename types::entry;
  using node = typename types::node;
  using words = typename types::words;
  using table = typename types::table;
  using pin = map_pin<Store>;
  static constexpr bool in_words = types::in_words;

 public:
  static constexpr bool in_place = types::in_place;

  template <class Matches>
  [[gnu::always_inline]] map_change(const Store& store, const char* operation, std::uint64_t hash,
                                    const Matches matches)
      : store_(store),
        hash_(hash),
        home_(store.shard_of(hash)),
        after_(store),
        fresh_(store.memory()),
        lock_(store.locks, home_, operation, shard_lock::intent::change),
        table_(types::table_of(home_)),
        at_(table_.find(hash, types::key_in_slot(matches))),
        found_(!at_.none()) {}
  [[gnu::always_inline]] ~map_change() {
    if constexpr (in_words) {
      if (!beside_.none()) [[unlikely]]
        store_.memory().free_table(beside_);
    }
  }
  map_change(const map_change&) = delete;
  map_change& operator=(const map_change&) = delete;

  [[nodiscard]] bool found() const noexcept { return found_; }
  /// The present entry: a copy of what stands in words, or of a value that is replaced in place.
  [[nodiscard]] decltype(auto) old() const noexcept {
    if constexpr (in_words) {
      return types::copy_of(slot());
    } else if constexpr (in_place) {
      struct present {
        const typename types::key_type& first;
        const typename types::mapped_type second;
      };
      const node& here = *types::node_in(slot());
      return present{here.entry.first, types::value_of(here, home_)};
    } else {
      return std::as_const(types::node_in(slot())->entry);
    }
  }
  [[nodiscard]] pin hold_old() const noexcept {
    if constexpr (in_words) {
      return pin(store_, old());
    } else {
      return store_.hold(*types::node_in(slot()));
    }
  }

  /// Makes the entry that is to be put in; the table has room for it then.
  template <class... Arguments>
  [[gnu::always_inline]] typename types::stored& make(Arguments&&... arguments) {
    if (!found_) make_room();
    auto& made = fresh_.make(hash_, std::forward<Arguments>(arguments)...);
    if constexpr (in_words) {
      // An equal key with other bytes: a copy of the table takes it in, for a store at a time
      // would show something in between.
      if (found_ && word_copy<typename types::key_type>::of(made.first) != slot().key())
          [[unlikely]]
        beside_ = store_.tables().copy_with(table_, at_, words_of(made));
    }
    return made;
  }

  /// Puts in what make() made: in place of the old entry, or as a new one.
  [[gnu::always_inline]] void commit() noexcept {
    if (!found_) return put_in(fresh_);
    words& mine = slot();
    if constexpr (in_words) {
      if (beside_.none()) {
        mine.set_value(word_copy<typename types::mapped_type>::of(fresh_.get().second));
      } else {
        after_.left.old = store_.tables().replace(home_, std::exchange(beside_, table()));
      }
    } else {
      node& replaced = *types::node_in(mine);
      fresh_.fill(mine);
      store_.tables().drop(home_, replaced, after_.left);
    }
  }

  /// The present entry with another value, which `next` is made into before anything changes.
  template <class Given>
  [[gnu::always_inline]] void assign(Given&& next) {
    if constexpr (in_place) {
      types::set_value(*types::node_in(slot()),
                       typename types::mapped_type(std::forward<Given>(next)), home_);
    } else {
      make(std::piecewise_construct, std::forward_as_tuple(old().first),
           std::forward_as_tuple(std::forward<Given>(next)));
      commit();
    }
  }
  /// The present entry changed by f(value), on a copy that takes its place.
  template <class Update>
  [[gnu::always_inline]] void update(Update& f) {
    if constexpr (in_place) {
      node& mine = *types::node_in(slot());
      auto next = types::value_of(mine, home_);
      f(next.value);
      types::set_value(mine, next, home_);
    } else {
      f(make(old()).second);
      commit();
    }
  }

  /// As commit(), and keeps what it put in.
  [[nodiscard]] pin commit_and_hold() noexcept {
    commit();
    if constexpr (in_words) {
      return pin(store_, fresh_.get());
    } else {
      return store_.hold(*types::node_in(slot()));
    }
  }

  /// Puts in an absent key's entry that was made before.
  void commit(fresh_entry<types>& made) {
    make_room();
    made.set_hash(hash_);
    put_in(made);
  }

  [[gnu::always_inline]] void erase() noexcept {
    store_.tables().take_out(home_, table_, at_, hash_, after_.left);
    after_.left.old = store_.tables().shrink(home_);
  }

 private:
  [[nodiscard]] static auto words_of(const entry& made) noexcept
    requires(in_words)
  {
    return typename types::hit{word_copy<typename types::key_type>::of(made.first),
                               word_copy<typename types::mapped_type>::of(made.second)};
  }
  [[nodiscard]] words& slot() const noexcept { return table_.slot(at_); }

  [[gnu::always_inline]] void make_room() {
    if (home_.room != 0) [[likely]]
      return;
    after_.left.old = store_.tables().grow(home_);
    table_ = types::table_of(home_);
  }
  [[gnu::always_inline]] void put_in(fresh_entry<types>& made) noexcept {
    at_ = store_.tables().claim(home_, table_, hash_);
    // A node's tag comes first: who finds the node finds the tag from then on. Until the node is
    // there the slot counts as empty. Words are complete before they are shown.
    if constexpr (!in_words) table_.show(at_, hash_);
    made.fill(slot());
    if constexpr (in_words) table_.show(at_, hash_);
    store_.tables().count(home_, 1);
  }

  const Store& store_;
  const std::uint64_t hash_;
  typename types::shard& home_;
  typename Store::after_lock after_;  // ends after lock_, as does fresh_
  fresh_entry<types> fresh_;
  const shard_lock lock_;
  table table_;
  table beside_;              // not in force; only where entries stand in words
  typename table::place at_;  // where the key is, if it is
  const bool found_;
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
