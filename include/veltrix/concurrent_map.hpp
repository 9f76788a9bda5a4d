// A sharded hash map for threads: look-ups take no lock and write nothing that others read.
// Use for: state that many threads read and change by key; counters, sessions, indexes.
// Not for: ordered walks, or changes of several keys at once; each key is on its own.
// Threads: all members but the constructors and the destructor may be called from any thread.
// Progress: look-ups: lock-free. Changes: blocking; one holds its key's shard for one change or the
//   rebuilding of its table; clear, rehash, reserve, walks and erase_if(pred) hold one shard at a
//   time; size() holds writers back while it counts.
// Callbacks: visit, for_each: no lock held, any operation is allowed. upsert, update, compute,
//   erase_if, factories, constructors, allocator, Equal, and Hash where a table is built anew:
//   under the lock of the entry's shard; they must not use this map (checked builds abort, naming
//   both operations; otherwise std::system_error where it would wait for itself). Destructors of
//   entries: no lock, on a thread that changes the map or lets go last.
// Exceptions: those of callbacks, Hash, Equal, copies and the allocator. An operation on one key
//   has changed nothing then; one on many keeps what it did before. Others: see the operations.
// Lifetime: the map outlives its guards and all calls; checked builds abort where it does not. What
//   keys refer to outlives them in every look-up that may compare them: keys had better own it.
// Guide: docs/concurrent_map.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "detail/default_hash.hpp"
#include "detail/hash.hpp"
#include "detail/map_answers.hpp"
#include "detail/map_batches.hpp"
#include "detail/map_guard.hpp"
#include "detail/map_lookup.hpp"
#include "detail/seed.hpp"
#include "detail/shard_store.hpp"
#include "detail/share_work.hpp"
#include "executor.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// True if `Hash` spreads every bit of a key over all 64 bits of its result, so that the map may
/// use it unmixed and unseeded. A hash says so with a member type `is_avalanching`; specialise this
/// for one that cannot. Such a hash must bring its own defence against chosen keys.
template <class Hash>
inline constexpr bool hash_is_avalanching = requires { typename Hash::is_avalanching; };

/// I1: at any moment a key has at most one entry. Every operation on one key takes effect at one
///   moment between its call and its return (is linearizable).
/// I2: nobody sees half a change: a guard or a visitor has one entry, whole, as it was put in. An
///   entry of small trivially copyable types stands in the table and is copied out, as is a value
///   of such a type of up to 64 bytes; any other entry is built beside the old one and put in its
///   place.
template <class Key, class Value, class Hash = detail::default_hash<Key>,
          class Equal = detail::default_equal,
          class Allocator = std::allocator<std::pair<const Key, Value>>>
class concurrent_map {
  static_assert(std::is_object_v<Key> && !std::is_const_v<Key> && std::is_object_v<Value> &&
                    !std::is_const_v<Value>,
                "concurrent_map: Key and Value are object types without const");
  static_assert(std::is_invocable_r_v<std::size_t, const Hash&, const Key&>,
                "concurrent_map: Hash must be callable as std::size_t(const Key&) when const; "
                "specialise std::hash<Key> or pass a Hash");
  static_assert(
      std::is_invocable_r_v<bool, const Equal&, const Key&, const Key&>,
      "concurrent_map: Equal must be callable as bool(const Key&, const Key&) when const");

  /// What rebuilds a table of entries that stand in words.
  struct entry_hash {
    const concurrent_map* map;
    std::uint64_t operator()(const Key& key) const { return map->hash_of(key); }
  };
  using store = detail::shard_store<Key, Value, Allocator, entry_hash>;
  using change = typename store::change;
  using rules = detail::key_rules<Key, Hash, Equal>;
  template <class Other>
  using key_argument = typename rules::template argument<Other>;
  template <class Other>
  static constexpr bool one_key = rules::template one_key<Other>;
  template <class Pair>
  static constexpr bool one_pair = rules::template one_pair<Pair>;
  static constexpr bool copyable =
      std::is_copy_constructible_v<Key> && std::is_copy_constructible_v<Value>;

 public:
  using key_type = Key;
  using mapped_type = Value;
  using value_type = std::pair<const Key, Value>;
  using size_type = std::size_t;
  using hasher = Hash;
  using key_equal = Equal;
  using allocator_type = Allocator;

  /// Keeps one entry alive and unchanged, whatever happens to its key; empty when there was none:
  /// explicit bool, *, ->, key(), value(), reset(). Moves, never copies. Blocks nobody.
  using guard = detail::map_guard<store>;

  /// What get_or_emplace() answers.
  struct [[nodiscard]] guarded_result {
    guard entry;    ///< never empty
    bool inserted;  ///< whether this call made it
  };

  concurrent_map() : concurrent_map(concurrent_map_options{}) {}
  explicit concurrent_map(const Allocator& allocator)
      : concurrent_map(concurrent_map_options{}, allocator) {}
  concurrent_map(const concurrent_map_options& options, const Allocator& allocator)
      : concurrent_map(options, Hash(), Equal(), allocator) {}
  /// Errors: std::invalid_argument for a number of shards that is not allowed, std::length_error as
  /// reserve(), and what the allocator throws.
  explicit concurrent_map(const concurrent_map_options& options, Hash hash = Hash(),
                          Equal equal = Equal(), const Allocator& allocator = Allocator())
      : hash_(options.seed ? detail::seeded(std::move(hash), *options.seed) : std::move(hash)),
        equal_(std::move(equal)),
        spread_(options.seed ? *options.seed : detail::fresh_seed()),
        store_(detail::allowed_shards(options.shards), allocator, entry_hash{this}) {
    if (options.expected_entries != 0) reserve(options.expected_entries);
  }
  ~concurrent_map() = default;
  concurrent_map(const concurrent_map&) = delete;
  concurrent_map& operator=(const concurrent_map&) = delete;

  // --- look-ups: expected O(1); a key is any type that transparent Hash and Equal take ---------

  /// A copy of the value, or nothing.
  template <class Other = Key>
  [[nodiscard, gnu::always_inline]] std::optional<Value> get(const key_argument<Other>& key) const {
    static_assert(std::is_copy_constructible_v<Value>,
                  "concurrent_map::get copies: use find or visit where Value cannot be copied");
    const detail::operation_scope scope(store_.locks.use, "concurrent_map::get");
    detail::value_copy<Value> copy;
    const bool found = read("concurrent_map::get", key, copy.taker());
    return std::move(copy).if_taken(found);
  }

  /// The entry itself, kept alive and unchanged; empty if the key is absent.
  template <class Other = Key>
  guard find(const key_argument<Other>& key) const {
    const detail::operation_scope scope(store_.locks.use, "concurrent_map::find");
    return guard([&] { return look_up("concurrent_map::find", key); });
  }

  template <class Other = Key>
  [[nodiscard]] bool contains(const key_argument<Other>& key) const {
    const detail::operation_scope scope(store_.locks.use, "concurrent_map::contains");
    return read("concurrent_map::contains", key, [](const Key&, const Value&) {});
  }

  /// Calls f(value) or f(key, value) if the key is present. Result: calls made, 0 or 1. The
  /// references end with the call.
  template <class Other = Key, detail::entry_visitor<Key, Value> Visitor>
    requires(one_key<Other>)
  std::size_t visit(const key_argument<Other>& key, Visitor&& f) const {
    const detail::operation_scope scope(store_.locks.use, "concurrent_map::visit");
    return visit_one(hash_of(key), key, f);
  }

  /// The same for each key of a range, in its order; each is looked up at a moment of its own. An
  /// argument that can be one key is one key. Result: calls made.
  template <class Keys, detail::entry_visitor<Key, Value> Visitor>
    requires(!one_key<Keys> && detail::iterable<Keys>)
  std::size_t visit(Keys&& keys, Visitor&& f) const {
    const detail::operation_scope scope(store_.locks.use, "concurrent_map::visit");
    std::size_t found = 0;
    detail::in_batches(
        store_, keys, [this](const auto& key) { return this->hash_of(rules::as_key(key)); },
        [&](const auto& key, std::uint64_t hash) {
          found += visit_one(hash, rules::as_key(key), f);
        });
    return found;
  }

  // --- insertions: expected O(1), and one shard's rehash now and then --------------------------

  /// Adds the entry if the key is absent. Result: whether it did; if not, the arguments are as they
  /// were, not moved from.
  template <class Other = Key, class... Arguments>
  bool try_emplace(Other&& key, Arguments&&... arguments) {
    return insert_absent("concurrent_map::try_emplace", hash_of(rules::as_key(key)),
                         rules::as_key(std::forward<Other>(key)),
                         std::forward<Arguments>(arguments)...);
  }
  template <class Other = Key, class Given = Value>
  bool insert(Other&& key, Given&& value) {
    return insert_absent("concurrent_map::insert", hash_of(rules::as_key(key)),
                         rules::as_key(std::forward<Other>(key)), std::forward<Given>(value));
  }
  template <class Pair = std::pair<Key, Value>>
    requires(one_pair<Pair>)
  bool insert(Pair&& pair) {
    return insert_pair(hash_of_pair(pair), std::forward<Pair>(pair));
  }

  /// Adds each pair of a range whose key is absent, at a moment of its own. Result: how many.
  template <detail::iterable Pairs>
    requires(!one_pair<Pairs>)
  std::size_t insert(Pairs&& pairs) {
    std::size_t inserted = 0;
    detail::in_batches(
        store_, pairs, [this](const auto& pair) { return this->hash_of_pair(pair); },
        [&](auto&& pair, std::uint64_t hash) {
          inserted += insert_pair(hash, std::forward<decltype(pair)>(pair)) ? 1 : 0;
        });
    return inserted;
  }
  std::size_t insert(std::initializer_list<value_type> pairs) {
    return insert<const std::initializer_list<value_type>&>(pairs);
  }

  /// Builds a std::pair<const Key, Value> of the arguments, then adds it if its key is absent.
  /// Result: whether it did; if not, the pair is destroyed.
  template <class... Arguments>
  bool emplace(Arguments&&... arguments) {
    const detail::operation_scope scope(store_.locks.use, "concurrent_map::emplace");
    detail::fresh_entry<typename store::types> made(store_.memory());
    const Key& key = made.make(0, std::forward<Arguments>(arguments)...).first;
    change at(store_, "concurrent_map::emplace", hash_of(key), equal_to(key));
    if (at.found()) return false;
    at.commit(made);
    return true;
  }

  /// The entry of the key, made of factory() if it is absent; only the call that inserts runs it.
  template <class Other = Key, detail::value_factory<Value> Factory>
  guarded_result get_or_emplace(Other&& key, Factory&& factory) {
    constexpr const char* operation = "concurrent_map::get_or_emplace";
    const detail::operation_scope scope(store_.locks.use, operation);
    decltype(auto) wanted = rules::as_key(std::forward<Other>(key));
    const std::uint64_t hash = hash_of(wanted);
    if (auto held = store_.look_up(operation, hash, equal_to(wanted))) {
      return {guard(std::move(held)), false};
    }
    change at(store_, operation, hash, equal_to(wanted));
    if (at.found()) return {guard(at.hold_old()), false};
    make(at, std::forward<decltype(wanted)>(wanted), factory());
    return {guard(at.commit_and_hold()), true};
  }

  // --- changes: one entry replaced whole -------------------------------------------------------

  /// Adds the entry, or puts it in the place of the present one (its key too). The value is built,
  /// never assigned. Result: inserted or replaced.
  template <class Other = Key, class Given = Value>
  concurrent_map_change insert_or_assign(Other&& key, Given&& value) {
    constexpr const char* operation = "concurrent_map::insert_or_assign";
    const detail::operation_scope scope(store_.locks.use, operation);
    decltype(auto) wanted = rules::as_key(std::forward<Other>(key));
    change at(store_, operation, hash_of(wanted), equal_to(wanted));
    if constexpr (change::in_place && detail::equal_is_same<Key, Equal>) {
      if (at.found()) {
        at.assign(std::forward<Given>(value));
        return concurrent_map_change::replaced;
      }
    }
    make(at, std::forward<decltype(wanted)>(wanted), std::forward<Given>(value));
    return commit(at);
  }

  /// Present: f(Value&) on a copy, which then takes the entry's place. Result: whether it was.
  template <class Other = Key, detail::value_update<Value> Update>
  bool update(const key_argument<Other>& key, Update&& f) {
    static_assert(copyable,
                  "concurrent_map::update copies the entry and changes the copy: Key and "
                  "Value must be copyable; use insert_or_assign where they are not");
    const detail::operation_scope scope(store_.locks.use, "concurrent_map::update");
    change at(store_, "concurrent_map::update", hash_of(key), equal_to(key));
    if (!at.found()) return false;
    at.update(f);
    return true;
  }

  /// As update(), but an absent key gets `initial`, a value or a factory of one, which f does not
  /// see. Result: inserted or replaced.
  template <class Other = Key, class Initial, detail::value_update<Value> Update>
  concurrent_map_change upsert(Other&& key, Initial&& initial, Update&& f) {
    static_assert(copyable,
                  "concurrent_map::upsert copies the entry and changes the copy: Key and "
                  "Value must be copyable; use insert_or_assign where they are not");
    constexpr const char* operation = "concurrent_map::upsert";
    const detail::operation_scope scope(store_.locks.use, operation);
    decltype(auto) wanted = rules::as_key(std::forward<Other>(key));
    change at(store_, operation, hash_of(wanted), equal_to(wanted));
    if (at.found()) {
      at.update(f);
      return concurrent_map_change::replaced;
    }
    if constexpr (detail::value_factory<Initial, Value>) {
      make(at, std::forward<decltype(wanted)>(wanted), initial());
    } else {
      make(at, std::forward<decltype(wanted)>(wanted), std::forward<Initial>(initial));
    }
    return commit(at);
  }

  /// As update(), but an absent key gets Value() changed by f. Result: inserted or replaced.
  template <class Other = Key, detail::value_update<Value> Update>
  concurrent_map_change upsert(Other&& key, Update&& f) {
    static_assert(std::is_default_constructible_v<Value>,
                  "concurrent_map::upsert(key, f) starts from Value(): pass an initial value");
    const auto first = [&f] {
      Value made{};
      f(made);
      return made;
    };
    return upsert(std::forward<Other>(key), first, f);
  }

  /// Decides a key's fate: f(std::optional<Value>&) gets a copy of the value, or nothing; what it
  /// leaves there takes the entry's place. Result: all four are possible.
  template <class Other = Key, std::invocable<std::optional<Value>&> Compute>
  concurrent_map_change compute(Other&& key, Compute&& f) {
    static_assert(copyable,
                  "concurrent_map::compute hands out a copy: Key and Value must be copyable");
    constexpr const char* operation = "concurrent_map::compute";
    const detail::operation_scope scope(store_.locks.use, operation);
    decltype(auto) wanted = rules::as_key(std::forward<Other>(key));
    std::optional<Value> value;  // outlives the lock: its destructor runs without it
    change at(store_, operation, hash_of(wanted), equal_to(wanted));
    if (at.found()) value.emplace(at.old().second);
    f(value);
    if (!value) {
      if (!at.found()) return concurrent_map_change::unchanged;
      at.erase();
      return concurrent_map_change::erased;
    }
    if (at.found()) {
      at.assign(std::move(*value));
      return concurrent_map_change::replaced;
    }
    make(at, std::forward<decltype(wanted)>(wanted), std::move(*value));
    return commit(at);
  }

  // --- erasures --------------------------------------------------------------------------------

  /// Result: entries erased, 0 or 1. Guards of the entry keep it alive.
  template <class Other = Key>
  std::size_t erase(const key_argument<Other>& key) {
    return erase_one("concurrent_map::erase", key, [](const Key&, const Value&) { return true; });
  }

  /// Erases the key's entry if pred(value) or pred(key, value). Result: entries erased, 0 or 1.
  template <class Other = Key, detail::entry_predicate<Key, Value> Predicate>
    requires(one_key<Other>)
  std::size_t erase_if(const key_argument<Other>& key, Predicate&& pred) {
    return erase_one("concurrent_map::erase_if", key, pred);
  }

  /// Erases every entry with pred(key, value) or pred(value), shard by shard. Result: how many; if
  /// pred throws, those already erased stay so. O(entries + slots).
  template <detail::entry_predicate<Key, Value> Predicate>
  std::size_t erase_if(Predicate&& pred) {
    const detail::operation_scope scope(store_.locks.use, "concurrent_map::erase_if");
    std::size_t erased = 0;
    for (std::size_t i = 0; i < shard_count(); ++i)
      erased += erase_in_shard(i, pred);
    return erased;
  }

  /// The same, with shards shared out over the executor; pred is called by several threads at once.
  /// The caller works too and needs no helper: a refused post is no error. The first exception
  /// leaves once every thread has stopped.
  template <class Executor, detail::entry_predicate<Key, Value> Predicate>
    requires executor<std::remove_reference_t<Executor>>
  std::size_t erase_if(Executor&& where, Predicate&& pred) {
    const detail::operation_scope scope(store_.locks.use, "concurrent_map::erase_if");
    detail::sync::atomic<std::size_t> erased{0};  // relaxed: a sum; share_work orders its end
    auto job = [&](std::size_t i) {
      erased.fetch_add(erase_in_shard(i, pred), detail::sync::relaxed);
    };
    detail::share_work(where, shard_count(), job);
    return erased.load(detail::sync::relaxed);
  }

  /// Erases everything, shard by shard, and frees what nobody reads: entries added meanwhile may
  /// stay. O(entries + slots).
  void clear() {
    const detail::operation_scope scope(store_.locks.use, "concurrent_map::clear");
    store_.clear("concurrent_map::clear");
  }

  /// Frees what was erased or replaced and nobody reads. Later changes do so too, in batches: call
  /// this where destructors matter sooner. O(shards).
  void collect() const {
    const detail::operation_scope scope(store_.locks.use, "concurrent_map::collect");
    store_.collect("concurrent_map::collect");
  }

  // --- the whole map ---------------------------------------------------------------------------

  /// Calls f(key, value) or f(value) for entries: once for each that is present throughout, at most
  /// once for one that comes or goes meanwhile. O(entries + slots); memory: a shard's pointers.
  template <detail::entry_visitor<Key, Value> Visitor>
  void for_each(Visitor&& f) const {
    const detail::operation_scope scope(store_.locks.use, "concurrent_map::for_each");
    for (std::size_t i = 0; i < shard_count(); ++i)
      visit_shard("concurrent_map::for_each", i, f);
  }

  /// The same, with shards shared out over the executor; f is called by several threads at once. As
  /// erase_if(executor, pred) otherwise.
  template <class Executor, detail::entry_visitor<Key, Value> Visitor>
    requires executor<std::remove_reference_t<Executor>>
  void for_each(Executor&& where, Visitor&& f) const {
    const detail::operation_scope scope(store_.locks.use, "concurrent_map::for_each");
    auto job = [&](std::size_t i) { visit_shard("concurrent_map::for_each", i, f); };
    detail::share_work(where, shard_count(), job);
  }

  /// Copies of entries, as for_each() sees them, in no order.
  [[nodiscard]] std::vector<std::pair<Key, Value>> snapshot() const {
    static_assert(copyable,
                  "concurrent_map::snapshot copies: use for_each where entries cannot be");
    const detail::operation_scope scope(store_.locks.use, "concurrent_map::snapshot");
    std::vector<std::pair<Key, Value>> copies;
    copies.reserve(store_.estimate());
    auto copy = [&](const Key& key, const Value& value) { copies.emplace_back(key, value); };
    for (std::size_t i = 0; i < shard_count(); ++i)
      visit_shard("concurrent_map::snapshot", i, copy);
    return copies;
  }

  /// Moves each entry of `source` whose key is absent here, one by one; guards stay valid. A key is
  /// never in neither map. Both hash and compare under their own functions. Keys whose values are
  /// replaced in place are copied. Result: how many moved.
  /// Errors: std::invalid_argument if the allocators differ; nothing was moved then.
  template <class OtherHash, class OtherEqual>
  std::size_t merge(concurrent_map<Key, Value, OtherHash, OtherEqual, Allocator>& source) {
    if (static_cast<const void*>(&source) == static_cast<const void*>(this)) return 0;
    const detail::operation_scope scope(store_.locks.use, "concurrent_map::merge");
    const detail::operation_scope source_scope(source.store_.locks.use, "concurrent_map::merge");
    store_.require_equal_allocator(source.store_);
    std::size_t moved = 0;
    auto move = [&](const Key& key, const Value&) {
      const bool taken = store_.move_from(source.store_, key, source.hash_of(key),
                                          source.equal_to(key), hash_of(key), equal_to(key));
      moved += taken ? 1 : 0;
    };
    for (std::size_t i = 0; i < source.shard_count(); ++i)
      source.visit_shard("concurrent_map::merge", i, move);
    return moved;
  }

  /// Makes room for `entries` in all, so that usually no shard grows before; never shrinks.
  /// Errors: std::length_error above what the allocator can give, before anything changes; what the
  /// allocator throws, with some shards grown and no entry touched.
  void reserve(std::size_t entries) {
    const detail::operation_scope scope(store_.locks.use, "concurrent_map::reserve");
    store_.resize_all("concurrent_map::reserve", store_.share("concurrent_map::reserve", entries),
                      store::larger_table::stays);
  }

  /// Builds each shard's table for `entries` in all or for those it has, whichever is more;
  /// rehash(0) fits them. Errors: as reserve().
  void rehash(std::size_t entries) {
    const detail::operation_scope scope(store_.locks.use, "concurrent_map::rehash");
    store_.resize_all("concurrent_map::rehash", store_.share("concurrent_map::rehash", entries),
                      store::larger_table::shrinks);
  }

  // --- observers -------------------------------------------------------------------------------

  /// Entries at one moment of the call. Writers wait until it is over, look-ups do not. O(shards).
  [[nodiscard]] std::size_t size() const {
    const detail::operation_scope scope(store_.locks.use, "concurrent_map::size");
    return store_.size("concurrent_map::size");
  }

  /// Sum of the shards' entries, each read at another moment, without waiting. O(shards).
  [[nodiscard]] std::size_t approx_size() const noexcept { return store_.estimate(); }

  /// Whether the map had no entry at one moment of the call. O(shards); as size() if it looks so.
  [[nodiscard]] bool empty() const { return store_.estimate() == 0 && size() == 0; }

  [[nodiscard]] std::size_t shard_count() const noexcept { return store_.shard_count(); }
  [[nodiscard]] allocator_type get_allocator() const noexcept { return store_.allocator(); }
  [[nodiscard]] hasher hash_function() const { return hash_; }
  [[nodiscard]] key_equal key_eq() const { return equal_; }

  /// Takes one shard's lock at a time. O(shards).
  [[nodiscard]] concurrent_map_stats stats() const {
    const detail::operation_scope scope(store_.locks.use, "concurrent_map::stats");
    auto told = store_.template stats<concurrent_map_stats>("concurrent_map::stats");
    told.memory_bytes += sizeof(*this);
    return told;
  }

 private:
  template <class, class, class, class, class>
  friend class concurrent_map;

  template <class Other>
  std::uint64_t hash_of(const Other& key) const {
    const auto hashed = static_cast<std::uint64_t>(hash_(key));
    if constexpr (hash_is_avalanching<Hash>) {
      return hashed;
    } else {
      return spread_(hashed);
    }
  }

  template <class Pair>
  std::uint64_t hash_of_pair(const Pair& pair) const {
    return hash_of(rules::as_key(std::get<0>(pair)));
  }

  template <class Other>
  auto equal_to(const Other& key) const {
    return detail::key_match<Equal, Other>(equal_, key);
  }

  template <class Other>
  typename store::pin look_up(const char* operation, const Other& key) const {
    return store_.look_up(operation, hash_of(key), equal_to(key));
  }

  template <class Other, class Found>
  [[gnu::always_inline]] bool read(const char* operation, const Other& key, Found&& found) const {
    return store_.read(operation, hash_of(key), equal_to(key), found);
  }

  template <class Other, class Visitor>
  [[gnu::always_inline]] std::size_t visit_one(std::uint64_t hash, const Other& key,
                                               Visitor& f) const {
    const auto call = [&f](const Key& present, const Value& value) {
      detail::call_entry(f, present, value);
    };
    return store_.read("concurrent_map::visit", hash, equal_to(key), call) ? 1 : 0;
  }

  template <class Visitor>
  void visit_shard(const char* operation, std::size_t index, Visitor& f) const {
    store_.visit_shard(operation, store_.shard_at(index), [&](const Key& key, const Value& value) {
      detail::call_entry(f, key, value);
    });
  }

  template <class Wanted, class... Arguments>
  static void make(change& at, Wanted&& key, Arguments&&... arguments) {
    at.make(std::piecewise_construct, std::forward_as_tuple(std::forward<Wanted>(key)),
            std::forward_as_tuple(std::forward<Arguments>(arguments)...));
  }

  static concurrent_map_change commit(change& at) noexcept {
    const auto done =
        at.found() ? concurrent_map_change::replaced : concurrent_map_change::inserted;
    at.commit();
    return done;
  }

  template <class Pair>
  bool insert_pair(std::uint64_t hash, Pair&& pair) {
    return insert_absent("concurrent_map::insert", hash,
                         rules::as_key(std::get<0>(std::forward<Pair>(pair))),
                         std::get<1>(std::forward<Pair>(pair)));
  }
  template <class Wanted, class... Arguments>
  [[gnu::always_inline]] bool insert_absent(const char* operation, std::uint64_t hash, Wanted&& key,
                                            Arguments&&... arguments) {
    const detail::operation_scope scope(store_.locks.use, operation);
    change at(store_, operation, hash, equal_to(key));
    if (at.found()) return false;
    make(at, std::forward<Wanted>(key), std::forward<Arguments>(arguments)...);
    at.commit();
    return true;
  }

  template <class Other, class Predicate>
  std::size_t erase_one(const char* operation, const Other& key, Predicate&& pred) {
    const detail::operation_scope scope(store_.locks.use, operation);
    change at(store_, operation, hash_of(key), equal_to(key));
    if (!at.found() || !detail::call_entry(pred, at.old().first, at.old().second)) return 0;
    at.erase();
    return 1;
  }

  template <class Predicate>
  std::size_t erase_in_shard(std::size_t index, Predicate& pred) {
    return store_.drop_if("concurrent_map::erase_if", store_.shard_at(index),
                          [&](const Key& key, const Value& value) {
                            return static_cast<bool>(detail::call_entry(pred, key, value));
                          });
  }

  [[no_unique_address]] const Hash hash_;
  [[no_unique_address]] const Equal equal_;
  const detail::secret_mix spread_;  // of hash_of()
  store store_;                      // guards itself
};

}  // namespace VELTRIX_ABI
}  // namespace veltrix
