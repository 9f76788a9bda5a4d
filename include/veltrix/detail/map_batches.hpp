// Walks over a range in batches whose memory is asked for before it is used.
// Use for: the operations of concurrent_map on many keys. Internal.
// Not for: anything else.
// Threads: any.
// Progress: wait-free but for what it calls.
// Callbacks: the hash of each item, then `each`, no lock held.
// Exceptions: those of the callbacks; items before it were done, but for those of one batch where
//   hash throws.
// Lifetime: within the call.
// Guide: docs/concurrent_map.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <utility>

#include "config.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// Calls each(item, hash) for the items of a range, in their order. Where it can be walked twice,
/// the tables and nodes of a batch are asked for first, so that their misses wait together.
/// @param hash  of an item's key
template <class Store, class Range, class Hash, class Each>
void in_batches(const Store& store, Range& items, const Hash& hash, const Each& each) {
  constexpr std::size_t together = 32;  // of about twice as many lines: what a core can wait for
  auto at = std::begin(items);
  const auto end = std::end(items);
  while (at != end) {
    if constexpr (std::forward_iterator<decltype(at)>) {
      std::array<std::uint64_t, together> hashes;
      std::size_t count = 0;
      for (auto ahead = at; ahead != end && count != together; ++ahead)
        store.prefetch_table(hashes[count++] = hash(*ahead));
      if constexpr (!Store::in_words) {
        for (std::size_t i = 0; i < count; ++i)
          store.prefetch_node(hashes[i]);
      }
      for (std::size_t i = 0; i < count; ++i, ++at)
        each(*at, hashes[i]);
    } else {
      auto&& item = *at;
      const std::uint64_t hashed = hash(item);
      each(std::forward<decltype(item)>(item), hashed);
      ++at;
    }
  }
}

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
