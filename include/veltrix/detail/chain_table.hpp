// A hash table of counted nodes for one thread at a time: chains, cached hashes, no user code held.
// Use for: one shard of concurrent_map. Internal.
// Not for: threads; its owner's lock guards it.
// Threads: one at a time, except a node's holders count.
// Progress: no waits; resize() allocates.
// Callbacks: find() calls the predicate it is given.
// Exceptions: the predicate's, and the allocator's in resize(); the table is unchanged then.
// Lifetime: nodes belong to the table's owner; the bucket array is freed by free_buckets().
// Guide: docs/concurrent_map.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// An entry, how many hold it, and its place in a chain. Whoever makes it constructs and destroys
/// `entry`, which never changes while the node is linked or held.
template <class Entry>
struct chain_node {
  explicit chain_node(std::uint64_t hashed) noexcept : hash(hashed) {}
  chain_node(const chain_node&) = delete;
  chain_node& operator=(const chain_node&) = delete;
  ~chain_node() {}  // leaves entry to its owner

  chain_node* next = nullptr;            // guarded by the lock of the table it is in
  std::uint64_t hash;                    // guarded as next
  sync::atomic<std::size_t> holders{1};  // relaxed: the table's lock orders a new holder
  union {
    Entry entry;
  };
};

/// I1: a node is in the chain its hash names: buckets_[hash & (bucket_count_ - 1)].
/// I2: bucket_count_ is zero (and buckets_ null) or a power of two.
template <class Node>
class chain_table {
 public:
  chain_table() = default;
  chain_table(const chain_table&) = delete;
  chain_table& operator=(const chain_table&) = delete;

  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] std::size_t bucket_count() const noexcept { return bucket_count_; }
  [[nodiscard]] bool full() const noexcept { return size_ >= bucket_count_; }

  /// The link to the node whose hash is `hash` and whose key `matches` accepts, or null.
  template <class Matches>
  [[nodiscard]] Node** find(std::uint64_t hash, const Matches& matches) const {
    if (bucket_count_ == 0) return nullptr;
    for (Node** link = chain(hash); *link != nullptr; link = &(*link)->next) {
      if ((*link)->hash == hash && matches((*link)->entry.first)) return link;
    }
    return nullptr;
  }

  /// Adds a node; there must be at least one bucket.
  void link(Node& added) noexcept {
    Node** const first = chain(added.hash);
    added.next = *first;
    *first = &added;
    ++size_;
  }

  /// Takes out the node at `link`.
  Node& unlink(Node** link) noexcept {
    Node& removed = **link;
    *link = removed.next;
    removed.next = nullptr;
    --size_;
    return removed;
  }

  /// Puts `added`, of the same hash, in the place of the node at `link`.
  Node& replace(Node** link, Node& added) noexcept {
    Node& removed = **link;
    added.next = removed.next;
    *link = &added;
    removed.next = nullptr;
    return removed;
  }

  /// Calls f(link) for each link to a node; f may unlink that node, and says so by returning true.
  template <class Function>
  void for_each_link(Function&& f) {
    for (std::size_t i = 0; i < bucket_count_; ++i) {
      for (Node** link = &buckets_[i]; *link != nullptr;) {
        if (!f(link)) link = &(*link)->next;
      }
    }
  }

  /// Nodes in the longest chain: what a look-up may have to examine.
  [[nodiscard]] std::size_t longest_chain() const noexcept {
    std::size_t longest = 0;
    for (std::size_t i = 0; i < bucket_count_; ++i) {
      std::size_t length = 0;
      for (const Node* at = buckets_[i]; at != nullptr; at = at->next)
        ++length;
      longest = std::max(longest, length);
    }
    return longest;
  }

  /// Spreads the nodes over `count` buckets, a power of two; 0 is allowed when the table is empty.
  template <class Allocator>
  void resize(std::size_t count, const Allocator& allocator) {
    chain_table spread;
    if (count != 0) spread.allocate_buckets(count, allocator);
    for_each_link([&](Node** link) {
      spread.link(unlink(link));
      return true;
    });
    swap(spread);
    spread.free_buckets(allocator);
  }

  /// Exchanges nodes and buckets.
  void swap(chain_table& other) noexcept {
    std::swap(buckets_, other.buckets_);
    std::swap(bucket_count_, other.bucket_count_);
    std::swap(size_, other.size_);
  }

  /// Frees the bucket array; the nodes must have been unlinked.
  template <class Allocator>
  void free_buckets(const Allocator& allocator) noexcept {
    if (bucket_count_ == 0) return;
    using traits = bucket_traits<Allocator>;
    typename traits::allocator_type bucket_allocator(allocator);
    traits::deallocate(bucket_allocator,
                       std::pointer_traits<typename traits::pointer>::pointer_to(*buckets_),
                       bucket_count_);
    buckets_ = nullptr;
    bucket_count_ = 0;
  }

 private:
  template <class Allocator>
  using bucket_traits = typename std::allocator_traits<Allocator>::template rebind_traits<Node*>;

  template <class Allocator>
  void allocate_buckets(std::size_t count, const Allocator& allocator) {
    using traits = bucket_traits<Allocator>;
    typename traits::allocator_type bucket_allocator(allocator);
    buckets_ = std::to_address(traits::allocate(bucket_allocator, count));
    std::uninitialized_fill_n(buckets_, count, nullptr);
    bucket_count_ = count;
  }

  Node** chain(std::uint64_t hash) const noexcept {
    return &buckets_[static_cast<std::size_t>(hash) & (bucket_count_ - 1)];
  }

  Node** buckets_ = nullptr;      // bucket_count_ chains
  std::size_t bucket_count_ = 0;  // see I2
  std::size_t size_ = 0;          // nodes linked
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
