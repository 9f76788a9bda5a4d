// What the models of concurrent_map share: maps of one shard whose entries stand in words or in
// nodes, with a hash that says where a key stands, and searches over both and both kinds of fences.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "model/support.hpp"
#include "veltrix/concurrent_map.hpp"

namespace veltrix_model {

inline constexpr veltrix::concurrent_map_options one_shard{.shards = 1};

/// The key's hundreds say its group; its last two digits are its tag.
struct placing_hash {
  using is_avalanching = void;
  std::size_t operator()(int key) const noexcept {
    const auto number = static_cast<std::uint64_t>(key);
    return static_cast<std::size_t>(number / 100 | (number % 100) << 32);
  }
};
/// All keys of one group share a tag, so that keys are compared.
struct one_tag_hash {
  using is_avalanching = void;
  std::size_t operator()(int key) const noexcept {
    return static_cast<std::size_t>(static_cast<std::uint64_t>(key) / 100 | std::uint64_t{7} << 32);
  }
};

/// A group has two slots here.
struct words_kind {
  static constexpr const char* name = "words";
  using value = int;
  using map = veltrix::concurrent_map<int, int, placing_hash>;
};
struct nodes_kind {
  static constexpr const char* name = "nodes";
  using value = var<int>;  // a look that nothing orders before its end is a race
  using map = veltrix::concurrent_map<int, var<int>, placing_hash>;
};

/// The value of the key, or 0.
template <class Map>
int value_of(const Map& shared, int key) {
  int seen = 0;
  shared.visit(key, [&](const auto& value) { seen = value; });
  return seen;
}

struct map_bounds {
  int preemptions = 2;
  unsigned stale_reads = 1;
};

/// Explores body(kind), a kind of `Kinds` at a time, with each kind of fences. A search is replayed
/// by its line where the test case is the only one that runs.
template <class... Kinds, class Body>
void check_kinds(const char* name, map_bounds bounds, Body body) {
  const auto search = [&](auto kind) {
    const std::string title = std::string("concurrent_map ") + name + ", " + kind.name;
    exploration within{{.preemptions = bounds.preemptions, .stale_reads = bounds.stale_reads}};
    check_exhausted(title.c_str(), explore(within, [&] { body(kind); }));
    within.ordered_fences = true;
    check_exhausted((title + ", fenced").c_str(), explore(within, [&] { body(kind); }));
  };
  (search(Kinds()), ...);
}
template <class Body>
void check_both(const char* name, map_bounds bounds, Body body) {
  check_kinds<words_kind, nodes_kind>(name, bounds, body);
}

}  // namespace veltrix_model
