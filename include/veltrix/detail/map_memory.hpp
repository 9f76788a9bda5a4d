// The memory of a map: its nodes and tables, and those that wait until no reader shows them.
// Use for: the inside of concurrent_map. Internal.
// Not for: anything else.
// Threads: any thread; the allocator must bear that.
// Progress: a lock for the length of a few links; a look at all readers once in many retirements.
// Callbacks: allocators, constructors; destructors of entries, with no lock held.
// Exceptions: those of allocators and constructors, before anything has changed.
// Lifetime: ends after all readers of its map.
// Guide: docs/concurrent_map.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "../reclaim.hpp"
#include "config.hpp"
#include "map_slots.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// Nodes taken out of their tables, linked by `next`.
struct dropped_nodes {
  map_garbage* first = nullptr;
  std::size_t count = 0;

  void add(map_garbage& each) noexcept {
    each.next = std::exchange(first, &each);
    ++count;
  }
  [[nodiscard]] map_garbage* take() noexcept {
    map_garbage* const taken = first;
    if (taken != nullptr) {
      first = taken->next;
      --count;
    }
    return taken;
  }
  void add_all(dropped_nodes& others) noexcept {
    while (map_garbage* const each = others.take())
      add(*each);
  }
};

/// I1: what is retired was taken out of its table before, so no reader comes to show it.
/// I2: at most max(limit, 2 x shown) objects wait here when retire() returns, where `shown` counts
///     those that readers showed at the last look, and tables of less than most_bytes beside those;
///     and none of them for longer than a tick of the coarse clock, if something is retired after
///     it.
template <class Entry, class Table, class Allocator>
class map_memory {
 public:
  using node = map_node<Entry>;

  map_memory(const Allocator& allocator, reclaim_domain& domain)
      : allocator_(allocator), waiting_(domain) {}
  map_memory(const map_memory&) = delete;
  map_memory& operator=(const map_memory&) = delete;
  /// Nobody reads any more.
  ~map_memory() { dispose(waiting_.take_all()); }

  [[nodiscard]] const Allocator& allocator() const noexcept { return allocator_; }

  // --- nodes -------------------------------------------------------------------------------------

  /// Allocates first, so that the arguments are untouched if there is no memory.
  template <class... Arguments>
  node& make(std::uint64_t hash, Arguments&&... arguments) {
    node_allocator nodes(allocator_);
    allocation room{nodes, node_traits::allocate(nodes, 1)};
    node* const made = ::new (static_cast<void*>(std::to_address(room.at))) node(hash);
    entry_allocator entries(allocator_);
    entry_traits::construct(entries, std::addressof(made->entry),
                            std::forward<Arguments>(arguments)...);
    room.kept = true;
    return *made;
  }

  /// Ends a hold, and the node with the last one.
  void let_go(node& held) noexcept {
    // (1) acq_rel-sub; pairs with itself. Orders: all uses, before the end.
    if (held.holds.fetch_sub(1, sync::acq_rel) != 1) return;
    entry_allocator entries(allocator_);
    entry_traits::destroy(entries, std::addressof(held.entry));
    held.~node();
    node_allocator nodes(allocator_);
    node_traits::deallocate(
        nodes, std::pointer_traits<typename node_traits::pointer>::pointer_to(held), 1);
  }

  [[nodiscard]] std::size_t most_nodes() const noexcept {
    const node_allocator nodes(allocator_);
    return static_cast<std::size_t>(node_traits::max_size(nodes));
  }

  // --- tables ------------------------------------------------------------------------------------

  [[nodiscard]] Table make_table(unsigned log2) {
    line_allocator lines(allocator_);
    return Table::make(lines, log2);
  }
  void free_table(Table old) noexcept {
    if (old.none()) return;
    line_allocator lines(allocator_);
    Table::free(lines, old);
  }

  // --- retiring ----------------------------------------------------------------------------------

  /// Takes over nodes that are in no table any more, and frees what no reader shows, if it is time
  /// to look. No lock of the map is held.
  void retire(dropped_nodes& dropped) noexcept {
    batch dead;
    {
      const sync::lock_guard<sync::mutex> lock(mutex_);
      const time_point now = sync::coarse_now();
      while (map_garbage* const each = dropped.take())
        static_cast<void>(waiting_.retire(*each, now));
      if (waiting_.pending() >= limit_ || now != looked_at_) dead = collect(now);
    }
    dispose(std::move(dead));
  }

  /// The same for a table.
  [[gnu::noinline]] void retire(Table old) noexcept {
    if (old.none()) return;
    batch dead;
    {
      const sync::lock_guard<sync::mutex> lock(mutex_);
      const time_point now = sync::coarse_now();
      const std::size_t bytes = waiting_bytes_.fetch_add(old.bytes(), sync::relaxed) + old.bytes();
      static_cast<void>(waiting_.retire(*old.block(), now));
      if (bytes >= most_bytes || waiting_.pending() >= limit_ || now != looked_at_)
        dead = collect(now);
    }
    dispose(std::move(dead));
  }

  /// Frees all that no reader shows, now.
  void look() noexcept {
    batch dead;
    {
      const sync::lock_guard<sync::mutex> lock(mutex_);
      dead = collect(sync::coarse_now());
    }
    dispose(std::move(dead));
  }

  /// Whether the coarse clock has moved since the last look. Wait-free.
  [[nodiscard]] bool is_old_look() const noexcept {
    return looked_.load(sync::relaxed) != sync::coarse_now().time_since_epoch().count();
  }

  [[nodiscard]] std::size_t waiting() const noexcept {
    const sync::lock_guard<sync::mutex> lock(mutex_);
    return waiting_.pending();
  }

 private:
  struct by_map {
    void operator()(map_garbage*) const noexcept {}  // dispose() takes all out before
  };
  using list = retire_list<map_garbage, by_map>;
  using batch = typename list::batch;

  using entry_traits = typename std::allocator_traits<Allocator>::template rebind_traits<Entry>;
  using entry_allocator = typename entry_traits::allocator_type;
  using node_traits = typename std::allocator_traits<Allocator>::template rebind_traits<node>;
  using node_allocator = typename node_traits::allocator_type;
  using line_allocator =
      typename std::allocator_traits<Allocator>::template rebind_alloc<typename Table::line>;

  /// So much waits: a look costs microseconds, which many shall share.
  static constexpr std::size_t most_bytes = std::size_t{256} << 10;
  static constexpr std::size_t least_limit =
      sync::repeatable ? 1 : std::clamp<std::size_t>(most_bytes / sizeof(node), 64, 1024);

  /// Gives memory back unless a node came to live in it.
  struct allocation {
    node_allocator& from;
    typename node_traits::pointer at;
    bool kept = false;
    ~allocation() {
      if (!kept) node_traits::deallocate(from, at, 1);
    }
  };

  /// Under mutex_.
  batch collect(time_point now) noexcept {
    batch dead = waiting_.collect(now);
    looked_at_ = now;
    looked_.store(now.time_since_epoch().count(), sync::relaxed);
    limit_ = std::max(least_limit, 2 * waiting_.pending());
    return dead;
  }

  void dispose(batch dead) noexcept {
    while (map_garbage* const each = dead.pop()) {
      // relaxed: only its table's or its own end is left to it, or holds that keep it from being 0
      if (each->holds.load(sync::relaxed) == 0) {
        const Table old = Table::of(*each);
        waiting_bytes_.fetch_sub(old.bytes(), sync::relaxed);
        free_table(old);
      } else {
        let_go(static_cast<node&>(*each));
      }
    }
  }

  [[no_unique_address]] const Allocator allocator_;
  mutable sync::mutex mutex_;  // guards the rest
  list waiting_;
  std::size_t limit_ = least_limit;
  time_point looked_at_{};
  sync::atomic<std::int64_t> looked_{0};        // relaxed: a hint; looked_at_, for who has no lock
  sync::atomic<std::size_t> waiting_bytes_{0};  // relaxed: a sum; of tables
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
