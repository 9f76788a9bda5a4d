// What a map is built with, and what it answers.
// Use for: concurrent_map, which includes it.
// Not for: anything else.
// Threads: plain values.
// Progress: wait-free.
// Callbacks: none.
// Exceptions: none.
// Lifetime: plain values.
// Guide: docs/concurrent_map.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "config.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// What a map is built with.
struct concurrent_map_options {
  std::size_t shards = 256;             ///< a power of two, 1 to 65,536; fixed for life
  std::size_t expected_entries = 0;     ///< reserved at construction; as reserve()
  std::optional<std::uint64_t> seed{};  ///< of the hash; empty: a random one, for this map alone
};

/// What a change did to its key.
enum class concurrent_map_change : std::uint8_t {
  unchanged,  ///< absent before and after
  inserted,   ///< absent before
  replaced,   ///< present before and after
  erased,     ///< absent after
};

/// What stats() found; read shard by shard, not at one moment.
struct concurrent_map_stats {
  std::size_t entries = 0;
  std::size_t shards = 0;
  std::size_t slots = 0;          ///< entries the tables are made for
  double load = 0;                ///< entries / slots; 0 without slots
  std::size_t longest_probe = 0;  ///< the most entries a look-up may examine
  std::size_t resizes = 0;        ///< tables built anew since construction
  std::size_t contended = 0;      ///< times an operation had to wait for a shard
  std::size_t memory_bytes = 0;   ///< estimate: map, tables, entries; not what entries point to
};

}  // namespace VELTRIX_ABI
}  // namespace veltrix
