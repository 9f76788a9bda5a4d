// concurrent_map under hashes that spread badly: keys that share a hash, or any part of it, are
// told apart by equality alone, whatever becomes of the tables. And under steady change tables of
// any hash stay as large as their entries need.
// SPDX-License-Identifier: BSL-1.0
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "support/catch.hpp"
#include "support/map_agreement.hpp"
#include "support/scale.hpp"

namespace {

using namespace veltrix_test;
using small = hashed_badly<word_to_word>;
using large = hashed_badly<text_to_block>;

template <class Kind>
void agrees_with_the_model(int shift, std::uint32_t keys) {
  Kind::hash::shift = shift;
  const std::size_t steps = scale(4'000);
  for (const std::size_t shards : {1U, 4U}) {
    const std::uint64_t seed = 700 + shards;
    CAPTURE(seed, shards, keys, shift);
    map_of<Kind> map({.shards = shards, .seed = seed});
    map_agreement<Kind> both(map, seed, keys);
    REQUIRE_NOTHROW(both.run(steps, keys / 2));
    REQUIRE_NOTHROW(both.run(steps, keys / 10));
    REQUIRE_NOTHROW(both.run(steps, keys));
  }
}

/// Entries come and go, as many as there are all the time: the first in, the first out.
template <class Kind>
void stays_as_large(std::uint32_t entries) {
  map_of<Kind> map({.shards = 1, .seed = 9});
  const auto key = [](std::size_t i) {
    return Kind::make_key(static_cast<std::uint32_t>(i % 60'000));
  };
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < entries; ++i)
    wrong += map.insert(key(i), Kind::make_value(1)) ? 0 : 1;
  const std::size_t slots = map.stats().slots;
  const std::size_t memory = map.stats().memory_bytes;
  const std::size_t resizes = map.stats().resizes;
  // Each entry goes many times, or no group runs full.
  const std::size_t changes = std::max<std::size_t>(scale(200'000), std::size_t{40} * entries);
  for (std::size_t i = 0; i < changes; ++i) {
    wrong += map.erase(key(i)) == 1 ? 0 : 1;
    wrong += map.insert(key(i + entries), Kind::make_value(1)) ? 0 : 1;
  }
  CHECK(wrong == 0);
  CHECK(map.size() == entries);
  CHECK(map.stats().slots <= 4 * slots);
  // A table whose groups were full at some time sends misses through all of them, until it is
  // built anew.
  if (entries >= 200) CHECK(map.stats().resizes > resizes);
  CHECK(map.stats().memory_bytes <= 4 * memory + 100'000);  // with what waits to be freed
  std::size_t lost = 0;
  for (std::size_t i = changes; i < changes + entries; ++i)
    lost += map.contains(key(i)) ? 0 : 1;
  CHECK(lost == 0);
}

}  // namespace

TEST_CASE("concurrent_map agrees with a model where every hash is the same") {
  agrees_with_the_model<small>(small::hash::one_for_all, 120);
  agrees_with_the_model<large>(large::hash::one_for_all, 120);
}

TEST_CASE("concurrent_map agrees with a model where an avalanching hash has few bits") {
  for (const int shift : {0, 7, 24, 48})
    agrees_with_the_model<small>(shift, 400);
  for (const int shift : {0, 48})
    agrees_with_the_model<large>(shift, 400);
}

TEST_CASE("concurrent_map agrees with a model where an avalanching hash spreads") {
  agrees_with_the_model<small>(small::hash::spread, 2'000);
  agrees_with_the_model<large>(large::hash::spread, 2'000);
}

TEST_CASE("concurrent_map tables do not grow while as many entries come as go") {
  small::hash::shift = small::hash::spread;
  large::hash::shift = large::hash::spread;
  for (const std::uint32_t entries : {13U, 200U, 3'000U}) {
    CAPTURE(entries);
    stays_as_large<small>(entries);
    stays_as_large<large>(entries);
  }
}
