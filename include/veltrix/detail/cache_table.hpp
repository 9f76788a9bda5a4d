// Nodes found by key and kept in an order; finding one calls equality, taking one calls nothing.
// Use for: nothing directly; include veltrix/loading_cache.hpp. Internal.
// Not for: sharing; the cache holds a mutex around each table.
// Threads: one at a time.
// Progress: not synchronised; O(1) expected, make_room() O(size) each time the size doubles.
// Callbacks: equality, in find(); predicates of find_if().
// Exceptions: make_room(): std::bad_alloc, nothing changed. find(): what equality throws.
// Lifetime: owns its nodes until take().
// Guide: docs/loading_cache.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "cache_list.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// A key with its hash, computed once per operation and spread over all 64 bits.
template <class Key>
struct hashed_key {
  const Key& key;
  std::uint64_t hash;
};

/// What a node of a cache_table derives from. std::unordered_map does not serve here: it may hash
/// and compare when a node leaves, and a load that ended could then not be taken out.
template <class Node, class Key>
struct cache_node : cache_links<Node> {
  explicit cache_node(const hashed_key<Key>& from) : key(from.key), hash(from.hash) {}

  const Key key;
  const std::uint64_t hash;
  Node* chained = nullptr;  // the next one with the same low bits; for the table alone
};

/// I1: each node of order_ is in the chain of its hash's low bits, once, and no other is.
/// I2: there are no chains, or 2^n.
template <class Node, class Equal>
class cache_table {
 public:
  explicit cache_table(const Equal& equal) : equal_(equal) {}

  /// The first node of this hash with `wanted(node)`, or null.
  template <class Predicate>
  Node* find_if(std::uint64_t hash, Predicate wanted) const {
    if (chains_.empty()) return nullptr;
    for (Node* at = chains_[slot(hash)]; at != nullptr; at = at->chained) {
      if (at->hash == hash && wanted(std::as_const(*at))) return at;
    }
    return nullptr;
  }

  template <class Key>
  Node* find(const hashed_key<Key>& asked) const {
    return find_if(asked.hash, [&](const Node& each) { return equal_(each.key, asked.key); });
  }

  /// Afterwards one insert() needs no memory.
  void make_room() {
    if (order_.size() < chains_.size()) return;
    std::vector<Node*> wider(chains_.empty() ? 8 : chains_.size() * 2, nullptr);
    chains_.swap(wider);
    for (Node* at = order_.front(); at != nullptr; at = at->next)
      chain(*at);
  }

  /// Puts `node` at the front; make_room() came before, and its key is not in the table.
  void insert(std::unique_ptr<Node> node) noexcept {
    chain(*node);
    order_.push_front(std::move(node));
  }

  /// Takes `node`, which is in this table, out of it.
  std::unique_ptr<Node> take(Node& node) noexcept {
    Node** link = &chains_[slot(node.hash)];
    while (*link != &node)
      link = &(*link)->chained;
    *link = node.chained;
    return order_.take(node);
  }

  void move_to_front(Node& node) noexcept { order_.move_to_front(node); }

  [[nodiscard]] const cache_list<Node>& order() const noexcept { return order_; }
  [[nodiscard]] std::size_t size() const noexcept { return order_.size(); }

 private:
  std::size_t slot(std::uint64_t hash) const noexcept {
    return static_cast<std::size_t>(hash) & (chains_.size() - 1);
  }
  void chain(Node& node) noexcept {
    Node*& first = chains_[slot(node.hash)];
    node.chained = std::exchange(first, &node);
  }

  Equal equal_;
  cache_list<Node> order_;
  std::vector<Node*> chains_;
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
