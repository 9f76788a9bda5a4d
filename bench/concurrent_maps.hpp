// The contenders of concurrent_map's measurements behind one face. A call does a thread's whole
// run, so that its cost is nothing; within it everything is inlined, as where a user calls a map.
// Each contender has a file of its own, so a change in one compiles that one anew.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "harness.hpp"
#include "latency.hpp"

namespace veltrix_bench {

using number = std::uint64_t;
using text = std::string;

/// What a text maps to: 64 bytes, as a small record.
struct payload {
  std::array<std::uint64_t, 8> words{};
};

/// A place in a ring of keys whose length is a power of two.
template <class Key>
struct key_walk {
  const Key* keys = nullptr;
  std::size_t mask = 0;
  std::size_t at = 0;

  const Key& next() { return keys[at++ & mask]; }
};

/// A contender's map. Each function may run in several threads at once, but reserve().
template <class Key, class Value>
class measured_map {
 public:
  measured_map() = default;
  measured_map(const measured_map&) = delete;
  measured_map& operator=(const measured_map&) = delete;
  virtual ~measured_map() = default;

  virtual void reserve(std::size_t entries) = 0;
  /// Inserts keys. Result: how many were absent.
  virtual std::uint64_t insert(const Key* first, std::uint64_t count) = 0;
  /// The same, timing each.
  virtual void time_inserts(const Key* first, std::uint64_t count, stall_meter& times) = 0;
  /// Upserts until `over`, timing each. Result: how many.
  virtual std::uint64_t time_upserts(key_walk<Key>& keys, const std::atomic<bool>& over,
                                     stall_meter& times) = 0;
  /// Copies all entries. Result: how many; 0: the contender has no way to.
  virtual std::size_t snapshot() = 0;
  /// Looks keys up and reads what is there. Result: how many were.
  virtual std::uint64_t find(key_walk<Key>& keys, std::uint64_t operations) = 0;
  /// The same by batches, if the contender has a call for one. Counted by keys.
  virtual std::uint64_t find_batches(key_walk<Key>& keys, std::uint64_t operations) = 0;
  /// The first of each `one_of` is an upsert, the others are finds. Result: keys found by those.
  virtual std::uint64_t mix(key_walk<Key>& keys, unsigned one_of, std::uint64_t operations) = 0;
  /// In turn inserts the ring's key `alive` places on and erases the one here. `keys.at` counts
  /// operations. Result: how many changed the map.
  virtual std::uint64_t churn(key_walk<Key>& keys, std::size_t alive, std::uint64_t operations) = 0;
};

constexpr std::size_t keys_in_a_batch = 256;

/// Where a contender takes part.
struct map_part {
  bool shared = true;     ///< by threads; false: a floor
  bool large = false;     ///< where maps have many millions of entries, too
  std::string only = "";  ///< where this is in the workload's name; empty: everywhere
};

/// How a map is made, and what it can do.
template <class Key, class Value>
struct map_contender {
  std::string name;
  std::unique_ptr<measured_map<Key, Value>> (*make)();
  bool batches;  ///< has find_batches()
  map_part part;
};

using number_map = map_contender<number, number>;
using text_map = map_contender<text, payload>;

struct map_contenders {
  std::vector<number_map> numbers;
  std::vector<text_map> texts;
};

// Each adds its contenders; in bench/peers, but the first one.
void add_concurrent_map(map_contenders& to);
void add_locked_maps(map_contenders& to);
void add_boost_maps(map_contenders& to);
void add_gtl_maps(map_contenders& to);
void add_tbb_maps(map_contenders& to);
void add_libcuckoo_maps(map_contenders& to);
void add_parlayhash_maps(map_contenders& to);

/// The contenders that are here; `absent(name, why)` for the others.
template <class Absent>
map_contenders map_contenders_here([[maybe_unused]] Absent absent) {
  map_contenders all;
  add_concurrent_map(all);
#ifdef VELTRIX_BENCH_BOOST
  add_boost_maps(all);
#else
  for (const char* each : {"boost concurrent_flat_map", "unlocked boost unordered_flat_map"})
    absent(each, "Boost 1.83 or newer was not found");
#endif
#ifdef VELTRIX_BENCH_GTL
  add_gtl_maps(all);
#else
  for (const char* each : {"gtl spin x256", "gtl rw x256", "unlocked gtl flat_hash_map"})
    absent(each, "gtl was not found");
#endif
#ifdef VELTRIX_BENCH_TBB
  add_tbb_maps(all);
#else
  absent("TBB concurrent_hash_map", "TBB was not found");
#endif
#ifdef VELTRIX_BENCH_LIBCUCKOO
  add_libcuckoo_maps(all);
#else
  absent("libcuckoo", "libcuckoo was not found");
#endif
#ifdef VELTRIX_BENCH_PARLAYHASH
  add_parlayhash_maps(all);
#else
  absent("parlayhash", "parlayhash was not found");
#endif
  add_locked_maps(all);
  return all;
}

/// Growth, memory and snapshots of maps with many millions of entries. To be called before other
/// maps are made.
void run_large_maps(bench& table, const std::vector<number_map>& all);

}  // namespace veltrix_bench
