// The inside of concurrent_map: shards, their locks, and entries that live while linked or held.
// Use for: concurrent_map, which adds hashing, comparing and the operations. Internal.
// Not for: anything that knows a key's hash or equality; both are passed in.
// Threads: all members but the constructor and destructor may be called from any thread.
// Progress: blocking; each lock is held for one look-up or change, or one shard's walk.
// Callbacks: `matches`, allocators and constructors run under a shard's lock; destructors do not,
//   but for a table that could not be built.
// Exceptions: those of the above and std::system_error for re-entry; the shard is unchanged then.
// Lifetime: pins end before the store.
// Guide: docs/concurrent_map.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "chain_table.hpp"
#include "count_gate.hpp"
#include "map_refusals.hpp"
#include "reentry.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// I1: a key is in at most one node, in the shard its hash names.
/// I2: an entry never changes once its node is linked; a change links another node in its place.
/// I3: a node lives while it is linked or held; holders counts both.
/// I4: while size() counts, every shard is frozen and none gains or loses a node.
///
/// Locks: a thread holds one shard's mutex of a store, and only move_from() two, of two stores,
/// lower address first. No shard's mutex is held while waiting at a gate. Nodes are freed after the
/// lock is released.
template <class Key, class Value, class Allocator>
class shard_store {
 public:
  using key_type = Key;
  using mapped_type = Value;
  using entry = std::pair<const Key, Value>;
  using node = chain_node<entry>;

  struct alignas(cache_line) shard {
    sync::mutex mutex;                                        // guards table, resizes and frozen
    chain_table<node> table;                                  // guarded by mutex
    std::size_t resizes = 0;                                  // guarded by mutex
    bool frozen = false;                                      // guarded by mutex; see I4
    sync::atomic<sync::thread_id> holder{sync::thread_id{}};  // relaxed: each looks for itself only
    sync::atomic<std::size_t> entries{0};  // relaxed: written under mutex; estimates read it
    sync::atomic<std::size_t> waits{0};    // relaxed: statistics only
  };

  shard_store(std::size_t shards, const Allocator& allocator)
      : allocator_(allocator), shard_bits_(std::countr_zero(shards)), shards_(allocate_shards()) {}

  ~shard_store() {
    use.check_unused("a concurrent_map");
    for (shard& home : all()) {
      free_nodes(home.table);
      home.table.free_buckets(allocator_);
    }
    free_shards();
  }
  shard_store(const shard_store&) = delete;
  shard_store& operator=(const shard_store&) = delete;

  [[nodiscard]] const Allocator& allocator() const noexcept { return allocator_; }
  [[nodiscard]] std::size_t shard_count() const noexcept { return std::size_t{1} << shard_bits_; }
  [[nodiscard]] shard& shard_at(std::size_t index) const noexcept { return shards_[index]; }

  /// By the top bits; the tables use the low ones.
  [[nodiscard]] shard& shard_of(std::uint64_t hash) const noexcept {
    return shards_[static_cast<std::size_t>((hash >> 1) >> (63 - shard_bits_))];
  }

  // --- locks -----------------------------------------------------------------------------------

  enum class intent : std::uint8_t { look, change };

  /// Holds one shard. A change waits until no count is going on.
  class shard_lock {
   public:
    shard_lock(const shard_store& store, shard& home, const char* operation, intent why)
        : home_(home), scope_(store.use, operation) {
      acquire(home, operation);
      if (why == intent::change && home.frozen) {
        release(home);
        const count_gate::pass pass(store.gate_);  // so that it is not frozen again
        acquire(home, operation);
      }
    }
    ~shard_lock() { release(home_); }
    shard_lock(const shard_lock&) = delete;
    shard_lock& operator=(const shard_lock&) = delete;

   private:
    shard& home_;
    const locked_scope scope_;
  };

  // --- nodes -----------------------------------------------------------------------------------

  /// One hold on a node: keeps its entry alive, blocks nobody.
  class pin {
   public:
    pin() = default;
    pin(const shard_store& store, node& held) noexcept : store_(&store), node_(&held) {}
    pin(pin&& other) noexcept : store_(other.store_), node_(std::exchange(other.node_, nullptr)) {}
    pin& operator=(pin&& other) noexcept {
      pin taken(std::move(other));
      std::swap(store_, taken.store_);
      std::swap(node_, taken.node_);
      return *this;
    }
    ~pin() { reset(); }

    [[nodiscard]] const entry* get() const noexcept {
      return node_ == nullptr ? nullptr : std::addressof(node_->entry);
    }
    [[nodiscard]] const shard_store* store() const noexcept { return store_; }
    void reset() noexcept {
      if (node_ != nullptr) store_->let_go(*std::exchange(node_, nullptr));
    }

   private:
    const shard_store* store_ = nullptr;
    node* node_ = nullptr;  // one of its holders is this
  };

  /// A node not linked yet.
  class fresh_node {
   public:
    explicit fresh_node(const shard_store& store) noexcept : store_(store) {}
    ~fresh_node() {
      if (node_ != nullptr) store_.let_go(*node_);
    }
    fresh_node(const fresh_node&) = delete;
    fresh_node& operator=(const fresh_node&) = delete;

    /// Allocates first, so that the arguments are untouched if there is no memory.
    template <class... Arguments>
    entry& make(std::uint64_t hash, Arguments&&... arguments) {
      node_allocator nodes(store_.allocator_);
      allocation room{nodes, node_traits::allocate(nodes, 1)};
      node* const made = ::new (static_cast<void*>(std::to_address(room.at))) node(hash);
      entry_allocator entries(store_.allocator_);
      entry_traits::construct(entries, std::addressof(made->entry),
                              std::forward<Arguments>(arguments)...);
      room.kept = true;
      node_ = made;
      return made->entry;
    }

    [[nodiscard]] node& get() const noexcept { return *node_; }
    node& take() noexcept { return *std::exchange(node_, nullptr); }

   private:
    const shard_store& store_;
    node* node_ = nullptr;
  };

  /// Nodes taken out under a lock and let go after it.
  class dropped_nodes {
   public:
    explicit dropped_nodes(const shard_store& store) noexcept : store_(store) {}
    ~dropped_nodes() {
      while (first_ != nullptr) {
        node& dropped = *first_;
        first_ = dropped.next;
        store_.let_go(dropped);
      }
    }
    dropped_nodes(const dropped_nodes&) = delete;
    dropped_nodes& operator=(const dropped_nodes&) = delete;

    void add(node& dropped) noexcept {
      dropped.next = first_;
      first_ = &dropped;
    }

   private:
    const shard_store& store_;
    node* first_ = nullptr;
  };

  // --- operations ------------------------------------------------------------------------------

  /// A held entry, or an empty pin.
  template <class Matches>
  [[nodiscard]] pin look_up(const char* operation, std::uint64_t hash,
                            const Matches& matches) const {
    shard& home = shard_of(hash);
    const shard_lock lock(*this, home, operation, intent::look);
    node** const link = home.table.find(hash, matches);
    return link == nullptr ? pin() : hold(**link);
  }

  /// A change of one key: looks it up, and holds its shard until it ends.
  class change {
   public:
    template <class Matches>
    change(const shard_store& store, const char* operation, std::uint64_t hash,
           const Matches& matches)
        : store_(store),
          hash_(hash),
          home_(store.shard_of(hash)),
          dropped_(store),
          fresh_(store),
          lock_(store, home_, operation, intent::change),
          link_(home_.table.find(hash, matches)) {}

    [[nodiscard]] bool found() const noexcept { return link_ != nullptr; }
    [[nodiscard]] const entry& old() const noexcept { return (*link_)->entry; }
    [[nodiscard]] pin hold_old() const noexcept { return store_.hold(**link_); }

    /// Makes the entry that is to be linked; the table has room for it already.
    template <class... Arguments>
    entry& make(Arguments&&... arguments) {
      if (!found()) store_.make_room(home_);
      return fresh_.make(hash_, std::forward<Arguments>(arguments)...);
    }

    /// Links what make() made: in place of the old entry, or as a new one.
    node& commit() noexcept {
      node& linked = fresh_.take();
      if (found()) {
        dropped_.add(home_.table.replace(link_, linked));
      } else {
        home_.table.link(linked);
        count(home_);
      }
      return linked;
    }

    /// As commit(), and holds what it linked.
    [[nodiscard]] pin commit_and_hold() noexcept { return store_.hold(commit()); }

    /// Links an absent key's node that was made before.
    void commit(fresh_node& made) {
      store_.make_room(home_);
      made.get().hash = hash_;
      home_.table.link(made.take());
      count(home_);
    }

    void erase() noexcept {
      dropped_.add(home_.table.unlink(link_));
      count(home_);
    }

   private:
    const shard_store& store_;
    const std::uint64_t hash_;
    shard& home_;
    dropped_nodes dropped_;  // let go after lock_ is released, as is fresh_
    fresh_node fresh_;
    const shard_lock lock_;
    node** const link_;  // null when the key is absent
  };

  /// Unlinks every entry of a shard that `drop` accepts, under its lock. Result: how many; those
  /// unlinked before `drop` throws stay so.
  template <class Drop>
  std::size_t drop_if(const char* operation, shard& home, Drop&& drop) const {
    std::size_t erased = 0;
    dropped_nodes dropped(*this);
    const shard_lock lock(*this, home, operation, intent::change);
    home.table.for_each_link([&](node** link) {
      const entry& seen = (*link)->entry;
      if (!drop(seen)) return false;
      dropped.add(home.table.unlink(link));
      count(home);
      ++erased;
      return true;
    });
    return erased;
  }

  /// Calls f(entry) for each entry the shard held at one moment, no lock held.
  template <class Function>
  void visit_shard(const char* operation, shard& home, Function&& f) const {
    std::vector<node*, pointer_allocator> held{pointer_allocator(allocator_)};
    const pins_end end{*this, held};
    hold_all(operation, home, held);
    for (const node* const each : held)
      f(std::as_const(each->entry));
  }

  /// Moves the entry of `key`, if `from` has it and this store has not. Both shards are held.
  /// Result: whether it was moved.
  template <class Matches, class MatchesFrom>
  bool move_from(const shard_store& from, std::uint64_t from_hash, const MatchesFrom& matches_from,
                 std::uint64_t hash, const Matches& matches) const {
    shard& source = from.shard_of(from_hash);
    shard& target = shard_of(hash);
    const two_locks locks(from, source, *this, target, "concurrent_map::merge");
    node** const link = source.table.find(from_hash, matches_from);
    if (link == nullptr || target.table.find(hash, matches) != nullptr) return false;
    make_room(target);
    node& moved = source.table.unlink(link);
    moved.hash = hash;
    target.table.link(moved);
    count(source);
    count(target);
    return true;
  }

  /// Entries at one moment, see I4.
  [[nodiscard]] std::size_t size(const char* operation) const {
    for (shard& home : all())
      refuse_own(home, operation);
    const count_gate::count counting(gate_);
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

  /// Unlinks everything, shard by shard.
  void clear(const char* operation) const {
    for (shard& home : all()) {
      chain_table<node> emptied;
      {
        const shard_lock lock(*this, home, operation, intent::change);
        home.table.swap(emptied);
        count(home);
      }
      free_nodes(emptied);
      emptied.free_buckets(allocator_);
    }
  }

  /// Gives each shard buckets for `per_shard` entries or for those it has, whichever is more;
  /// `shrink` says whether a table that is larger than that stays.
  enum class larger_tables : std::uint8_t { stay, shrink };
  void resize_all(const char* operation, std::size_t per_shard, larger_tables larger) const {
    for (shard& home : all()) {
      const shard_lock lock(*this, home, operation, intent::change);
      const std::size_t entries = std::max(per_shard, home.table.size());
      const std::size_t wanted = entries == 0 ? 0 : std::bit_ceil(entries);
      const std::size_t have = home.table.bucket_count();
      if (wanted > have || (wanted < have && larger == larger_tables::shrink)) {
        resize(home, wanted);
      }
    }
  }

  /// What one shard looks like.
  struct shard_shape {
    std::size_t entries;
    std::size_t buckets;
    std::size_t longest_chain;
    std::size_t resizes;
    std::size_t waits;
  };
  [[nodiscard]] shard_shape shape(const char* operation, shard& home) const {
    const shard_lock lock(*this, home, operation, intent::look);
    return {home.table.size(), home.table.bucket_count(), home.table.longest_chain(), home.resizes,
            home.waits.load(sync::relaxed)};
  }

  /// One shard's part of `entries`, with room for what chance adds (four standard deviations).
  /// Errors: std::length_error above what the allocator can give.
  [[nodiscard]] std::size_t share(const char* operation, std::size_t entries) const {
    const node_allocator nodes(allocator_);
    const auto most = static_cast<std::size_t>(node_traits::max_size(nodes));
    if (entries > most) raise_too_many(operation, entries, most);
    const std::size_t even = (entries >> shard_bits_) + (entries % shard_count() != 0 ? 1 : 0);
    if (shard_count() == 1) return even;
    const double spread = 4 * std::sqrt(static_cast<double>(even));
    return even + static_cast<std::size_t>(spread);
  }

  /// Errors: std::invalid_argument if the allocators compare unequal: nodes could not change owner.
  void require_equal_allocator(const shard_store& other) const {
    if constexpr (!std::allocator_traits<Allocator>::is_always_equal::value) {
      if (!(allocator_ == other.allocator_)) raise_unequal_allocators();
    }
  }

  mutable usage use;  // own synchronisation; checked builds only

 private:
  static constexpr std::size_t first_buckets = 8;

  using entry_traits = typename std::allocator_traits<Allocator>::template rebind_traits<entry>;
  using entry_allocator = typename entry_traits::allocator_type;
  using node_traits = typename std::allocator_traits<Allocator>::template rebind_traits<node>;
  using node_allocator = typename node_traits::allocator_type;
  using shard_traits = typename std::allocator_traits<Allocator>::template rebind_traits<shard>;
  using shard_allocator = typename shard_traits::allocator_type;
  using pointer_allocator = typename std::allocator_traits<Allocator>::template rebind_alloc<node*>;

  /// Gives memory back unless a node came to live in it.
  struct allocation {
    node_allocator& from;
    typename node_traits::pointer at;
    bool kept = false;
    ~allocation() {
      if (!kept) node_traits::deallocate(from, at, 1);
    }
  };

  /// Ends the holds of visit_shard().
  struct pins_end {
    const shard_store& store;
    const std::vector<node*, pointer_allocator>& held;
    ~pins_end() {
      for (node* const each : held)
        store.let_go(*each);
    }
  };

  struct shard_span {
    shard* first;
    shard* last;
    shard* begin() const noexcept { return first; }
    shard* end() const noexcept { return last; }
  };
  shard_span all() const noexcept { return {shards_, shards_ + shard_count()}; }

  /// Holds a shard of each of two stores, lower address first, neither frozen.
  class two_locks {
   public:
    two_locks(const shard_store& left_store, shard& left, const shard_store& right_store,
              shard& right, const char* operation)
        : first_(address(left) < address(right) ? left : right),
          second_(&first_ == &left ? right : left),
          left_scope_(left_store.use, operation),
          right_scope_(right_store.use, operation) {
      acquire(first_, operation);
      acquire(second_, operation);
      if (first_.frozen || second_.frozen) {
        release(second_);
        release(first_);
        const count_gate::pass left_pass(left_store.gate_);
        const count_gate::pass right_pass(right_store.gate_);
        acquire(first_, operation);
        acquire(second_, operation);
      }
    }
    ~two_locks() {
      release(second_);
      release(first_);
    }
    two_locks(const two_locks&) = delete;
    two_locks& operator=(const two_locks&) = delete;

   private:
    static std::uintptr_t address(const shard& home) noexcept {
      return reinterpret_cast<std::uintptr_t>(&home);
    }

    shard& first_;
    shard& second_;
    const locked_scope left_scope_;
    const locked_scope right_scope_;
  };

  static void refuse_own(const shard& home, const char* operation) {
    if (home.holder.load(sync::relaxed) != sync::this_thread_id()) return;
    raise_self_wait(operation);
  }

  static void acquire(shard& home, const char* operation) {
    refuse_own(home, operation);
    if (!home.mutex.try_lock()) {
      home.waits.fetch_add(1, sync::relaxed);
      home.mutex.lock();  // woken by release()
    }
    home.holder.store(sync::this_thread_id(), sync::relaxed);
  }

  static void release(shard& home) noexcept {
    home.holder.store(sync::thread_id{}, sync::relaxed);
    home.mutex.unlock();
  }

  std::size_t set_frozen(shard& home, const char* operation, bool frozen) const {
    const shard_lock lock(*this, home, operation, intent::look);
    home.frozen = frozen;
    return home.table.size();
  }

  static void count(shard& home) noexcept { home.entries.store(home.table.size(), sync::relaxed); }

  pin hold(node& found) const noexcept {
    found.holders.fetch_add(1, sync::relaxed);
    return pin(*this, found);
  }

  void let_go(node& held) const noexcept {
    // (1) acq_rel-sub; pairs with acq_rel-sub (1). Publishes: that each holder is done reading,
    // before the last one destroys the entry.
    if (held.holders.fetch_sub(1, sync::acq_rel) != 1) return;
    entry_allocator entries(allocator_);
    entry_traits::destroy(entries, std::addressof(held.entry));
    held.~node();
    node_allocator nodes(allocator_);
    node_traits::deallocate(
        nodes, std::pointer_traits<typename node_traits::pointer>::pointer_to(held), 1);
  }

  void free_nodes(chain_table<node>& table) const noexcept {
    table.for_each_link([&](node** link) {
      let_go(table.unlink(link));
      return true;
    });
  }

  /// Holds every node of the shard; memory for the list is got while the shard is not held.
  void hold_all(const char* operation, shard& home,
                std::vector<node*, pointer_allocator>& held) const {
    for (std::size_t room = home.entries.load(sync::relaxed);;) {
      held.reserve(room);
      const shard_lock lock(*this, home, operation, intent::look);
      if (home.table.size() > held.capacity()) {
        room = home.table.size() + home.table.size() / 8;
        continue;
      }
      home.table.for_each_link([&](node** link) {
        (*link)->holders.fetch_add(1, sync::relaxed);
        held.push_back(*link);
        return false;
      });
      return;
    }
  }

  void make_room(shard& home) const {
    if (home.table.full()) resize(home, std::max(first_buckets, home.table.bucket_count() * 2));
  }

  void resize(shard& home, std::size_t buckets) const {
    home.table.resize(buckets, allocator_);
    ++home.resizes;
  }

  shard* allocate_shards() const {
    shard_allocator shards(allocator_);
    shard* const made = std::to_address(shard_traits::allocate(shards, shard_count()));
    for (std::size_t i = 0; i < shard_count(); ++i)
      ::new (static_cast<void*>(made + i)) shard();  // throws nothing
    return made;
  }

  void free_shards() noexcept {
    for (shard& home : all())
      home.~shard();
    shard_allocator shards(allocator_);
    shard_traits::deallocate(
        shards, std::pointer_traits<typename shard_traits::pointer>::pointer_to(*shards_),
        shard_count());
  }

  [[no_unique_address]] const Allocator allocator_;
  const int shard_bits_;     // log2 of the number of shards
  mutable count_gate gate_;  // between size() and writers; see I4
  shard* const shards_;      // fixed; each guards itself
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
