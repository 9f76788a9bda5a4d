// The items of a block, grouped by lane without moving them, and the nodes they will need.
// Use for: keyed_executor's submit, so that a lane is locked once per block. Internal.
// Not for: anything else.
// Threads: one submitter at a time.
// Progress: O(items); reserve() may allocate.
// Callbacks: none.
// Exceptions: std::bad_alloc from the constructor.
// Lifetime: reused by later blocks.
// Guide: docs/keyed_executor.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "lane_store.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// I1: between rounds every chain is empty.
template <class Item>
struct block_group {
  using index = std::uint32_t;
  static constexpr index none = std::numeric_limits<index>::max();
  /// Items grouped at once; a larger block takes several rounds.
  static constexpr std::size_t round_max = 4096;

  struct chain {
    index first = none;
    index last = none;
  };

  explicit block_group(std::size_t lanes) : chains(lanes) {
    touched.reserve(lanes < round_max ? lanes : round_max);
    next.resize(round_max);
    stock.reserve(lanes + round_max / lane_node<Item>::capacity + 1);
  }

  /// Room for the weights of a block. False: no memory.
  [[nodiscard]] bool reserve(std::size_t items) noexcept {
    VELTRIX_TRY {
      if (weights.size() < items) weights.resize(items);
      return true;
    }
    VELTRIX_CATCH_ALL {}
    return false;
  }
  void add(index item, std::size_t lane) noexcept {
    chain& grown = chains[lane];
    if (grown.first == none) {
      grown.first = item;
      touched.push_back(static_cast<index>(lane));  // within what was reserved
    } else {
      next[grown.last] = item;
    }
    grown.last = item;
    next[item] = none;
  }
  void clear() noexcept {
    for (const index lane : touched)
      chains[lane] = chain();
    touched.clear();
  }
  /// The most nodes that `items` items of the grouped lanes can need.
  [[nodiscard]] std::size_t nodes_needed(std::size_t items) const noexcept {
    return touched.size() + items / lane_node<Item>::capacity;
  }

  std::vector<std::size_t> weights;  // of the whole block
  std::vector<chain> chains;         // per lane: this round's items, in order
  std::vector<index> next;           // per item of the round: the next of its lane
  std::vector<index> touched;        // lanes with items in this round
  node_stock<Item> stock;            // empty nodes kept for the next items
  block_group* link = nullptr;       // guarded by the owner's mutex
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
