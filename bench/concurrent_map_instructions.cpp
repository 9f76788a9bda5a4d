// Looks up keys that are there, and nothing else, for bench/compare.py --instructions to count.
//   concurrent_map_instructions                     prints the contenders' names
//   concurrent_map_instructions CONTENDER LOOKUPS   looks up so often
// SPDX-License-Identifier: BSL-1.0
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "concurrent_maps.hpp"
#include "map_keys.hpp"

namespace {

using namespace veltrix_bench;

constexpr std::size_t ring = 4'096;  // keys, all in the map; a power of two

bool look_up(const number_map& contender, std::uint64_t lookups) {
  std::vector<number> keys(ring);
  for (std::size_t i = 0; i < ring; ++i)
    keys[i] = key_of<number>(i);
  const auto map = contender.make();
  key_walk<number> walk{keys.data(), ring - 1, 0};
  return map->insert(keys.data(), ring) == ring && map->find(walk, lookups) == lookups;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 1 && argc != 3) {
    std::fprintf(stderr, "%s: wanted nothing, or CONTENDER LOOKUPS\n", argv[0]);
    return 2;
  }
  const map_contenders all = map_contenders_here([](const char*, const char*) {});
  for (const number_map& each : all.numbers) {
    if (argc == 1) {
      std::printf("%s\n", each.name.c_str());
    } else if (each.name == argv[1]) {
      return look_up(each, std::strtoull(argv[2], nullptr, 10)) ? 0 : 1;
    }
  }
  if (argc == 1) return 0;
  std::fprintf(stderr, "%s: no contender '%s' here\n", argv[0], argv[1]);
  return 2;
}
