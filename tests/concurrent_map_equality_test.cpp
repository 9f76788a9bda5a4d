// concurrent_map where equal keys are not the same: which of them stays, and that arguments may
// refer to the very entry they change. For keys that stand anywhere.
// SPDX-License-Identifier: BSL-1.0
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "veltrix/concurrent_map.hpp"

namespace {

using veltrix::concurrent_map;
using veltrix::concurrent_map_change;

/// Equal by `id`; `note` tells equal ones apart.
template <class Id>
struct noted {
  Id id{};
  std::uint32_t note = 0;
};
struct by_id {
  using is_transparent = void;
  static std::uint32_t id_of(std::uint32_t id) { return id; }
  static std::uint32_t id_of(const noted<std::uint32_t>& key) { return key.id; }
  static std::uint32_t id_of(const noted<std::string>& key) {
    return static_cast<std::uint32_t>(std::stoul(key.id));
  }
  template <class Key>
  std::size_t operator()(const Key& key) const {
    return id_of(key) * 77;
  }
  template <class Left, class Right>
  bool operator()(const Left& left, const Right& right) const {
    return id_of(left) == id_of(right);
  }
};
using small_map = concurrent_map<noted<std::uint32_t>, std::uint32_t, by_id, by_id>;
using large_map = concurrent_map<noted<std::string>, std::uint32_t, by_id, by_id>;

template <class Map>
typename Map::key_type key(std::uint32_t id, std::uint32_t note) {
  if constexpr (std::is_same_v<Map, small_map>) {
    return {id, note};
  } else {
    return {std::to_string(id), note};
  }
}

/// The note of the key that is there, by each way to see it; 0 if they differ.
template <class Map>
std::uint32_t note_of(const Map& map, std::uint32_t id) {
  const auto held = map.find(id);
  std::uint32_t seen = held ? held.key().note : 0;
  map.visit(id, [&](const auto& k, std::uint32_t) { seen = k.note == seen ? seen : 0; });
  map.for_each([&](const auto& k, std::uint32_t) {
    if (by_id::id_of(k) == id) seen = k.note == seen ? seen : 0;
  });
  for (const auto& [k, value] : map.snapshot()) {
    if (by_id::id_of(k) == id) seen = k.note == seen ? seen : 0;
  }
  return seen;
}

template <class Map>
void keeps_and_takes_keys(std::uint32_t others) {
  Map map({.shards = 1, .seed = 4});
  for (std::uint32_t id = 100; id < 100 + others; ++id)
    map.insert(key<Map>(id, 1), id);
  REQUIRE(map.insert(key<Map>(7, 1), 10));
  // Those that keep the key that is there.
  CHECK_FALSE(map.insert(key<Map>(7, 2), 20));
  CHECK_FALSE(map.try_emplace(key<Map>(7, 2), 20));
  CHECK_FALSE(map.emplace(key<Map>(7, 2), 20));
  CHECK(map.get_or_emplace(key<Map>(7, 2), [] { return 20; }).entry.key().note == 1);
  CHECK(map.update(key<Map>(7, 2), [](std::uint32_t& value) { ++value; }));
  CHECK(map.upsert(key<Map>(7, 2), [](std::uint32_t& value) { ++value; }) ==
        concurrent_map_change::replaced);
  CHECK(map.compute(key<Map>(7, 2), [](std::optional<std::uint32_t>& value) { ++*value; }) ==
        concurrent_map_change::replaced);
  CHECK(note_of(map, 7) == 1);
  CHECK(map.get(7U) == 13U);
  // The one that takes the new one, again and again; guards keep what they saw.
  const auto first = map.find(7U);
  for (std::uint32_t note = 3; note < 50; ++note) {
    CHECK(map.insert_or_assign(key<Map>(7, note), note) == concurrent_map_change::replaced);
    CHECK(note_of(map, 7) == note);
    CHECK(map.get(7U) == note);
  }
  CHECK(first.key().note == 1);
  CHECK(*first == 13);
  CHECK(map.size() == others + 1);
  // A new entry has the new key; what is judged is the key that is there.
  CHECK(map.erase_if(key<Map>(7, 1), [](const auto& k, std::uint32_t) { return k.note == 49; }) ==
        1);
  CHECK(map.insert(key<Map>(7, 5), 1));
  map.rehash(4'000);
  map.rehash(0);
  CHECK(note_of(map, 7) == 5);
  // A merge leaves both keys where they are.
  Map source({.shards = 2});
  source.insert(key<Map>(7, 6), 60);
  source.insert(key<Map>(8, 6), 60);
  CHECK(map.merge(source) == 1);
  CHECK(note_of(map, 7) == 5);
  CHECK(note_of(map, 8) == 6);
  CHECK(note_of(source, 7) == 6);
  for (std::uint32_t id = 100; id < 100 + others; ++id)
    CHECK(map.get(id) == id);
}

/// Each change, with arguments that are references to an entry of the map, given by a guard or by a
/// visitor. `Map` maps what converts to itself.
template <class Map>
void takes_its_own_entries(const typename Map::key_type& one, const typename Map::key_type& other) {
  Map map({.shards = 1});
  map.insert(one, other);
  map.insert(other, one);
  {
    const auto held = map.find(one);
    CHECK_FALSE(map.insert(held.key(), *held));
    CHECK(map.insert_or_assign(held.key(), held.key()) == concurrent_map_change::replaced);
    CHECK(map.get(one) == one);
    CHECK(map.upsert(held.key(), *held, [&](auto& value) { value = *held; }) ==
          concurrent_map_change::replaced);
    CHECK(map.update(held.key(), [&](auto& value) { value = held.key(); }));
    CHECK(map.erase(held.key()) == 1);
    CHECK(map.emplace(held.key(), *held));
    CHECK(map.get(one) == other);
    CHECK(map.compute(held.key(), [&](auto& value) { value = held.key(); }) ==
          concurrent_map_change::replaced);
    CHECK(map.erase_if(held.key(), [&](const auto& value) { return value == held.key(); }) == 1);
    CHECK(map.try_emplace(held.key(), *held));
  }
  CHECK(map.visit(one, [&](const auto& k, const auto& v) {
    CHECK(map.erase(k) == 1);
    CHECK(map.insert(k, v));
    CHECK(map.insert_or_assign(k, k) == concurrent_map_change::replaced);
    CHECK(map.insert_or_assign(v, k) == concurrent_map_change::replaced);
    map.rehash(1'000);
    CHECK(k == one);
    CHECK(v == other);
  }) == 1);
  CHECK(map.get(one) == one);
  CHECK(map.get(other) == one);
  std::size_t calls = 0;
  map.for_each([&](const auto& k, const auto&) {
    calls += map.erase(k);
    calls += map.insert(k, k) ? 1 : 0;
    calls += map.erase(k);
  });
  CHECK(calls == 6);
  CHECK(map.empty());
}

}  // namespace

TEST_CASE("concurrent_map keeps the present key or takes the new one, as the guide says") {
  for (const std::uint32_t others : {0U, 13U, 14U, 15U, 200U}) {
    CAPTURE(others);
    keeps_and_takes_keys<small_map>(others);
    keeps_and_takes_keys<large_map>(others);
  }
}

TEST_CASE("concurrent_map tells apart only what Equal tells apart: zeros of both signs are one") {
  concurrent_map<double, int> map;
  map.insert(0.0, 1);
  CHECK(map.get(-0.0) == 1);
  CHECK_FALSE(map.insert(-0.0, 2));
  CHECK_FALSE(std::signbit(map.find(0.0).key()));
  CHECK(map.insert_or_assign(-0.0, 3) == concurrent_map_change::replaced);
  CHECK(std::signbit(map.find(0.0).key()));
  CHECK(map.size() == 1);
  map.insert(std::nan(""), 4);  // equals nothing, so nobody finds it; it goes with the rest
  CHECK_FALSE(map.contains(std::nan("")));
  CHECK(map.size() == 2);
  CHECK(map.erase_if([](double key, int) { return std::isnan(key); }) == 1);
}

TEST_CASE("concurrent_map takes references to its own entries as arguments of each change") {
  takes_its_own_entries<concurrent_map<std::uint64_t, std::uint64_t>>(1, 2);
  takes_its_own_entries<concurrent_map<std::string, std::string>>(std::string(60, 'a'),
                                                                  std::string(60, 'b'));
}
