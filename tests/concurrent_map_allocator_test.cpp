// concurrent_map and its allocator: every block comes back, once, as it was given out, whatever the
// threads do; pointers may be of class type; and without memory nothing is lost.
// SPDX-License-Identifier: BSL-1.0
#include <cstddef>
#include <cstdint>
#include <memory_resource>
#include <new>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/map_agreement.hpp"
#include "support/scale.hpp"
#include "support/strict_allocator.hpp"
#include "support/threads.hpp"

namespace {

using namespace veltrix_test;

template <class Kind, template <class> class Allocator>
using map_on =
    veltrix::concurrent_map<typename Kind::key, typename Kind::value, typename Kind::hash,
                            typename Kind::equal,
                            Allocator<std::pair<const typename Kind::key, typename Kind::value>>>;

/// Threads that do all that takes memory and gives it back, on few keys.
template <class Map>
void churn(Map& map, std::uint64_t seed, std::size_t steps) {
  using kind = word_to_block<block<24>>;
  random_source random(seed);
  std::vector<typename Map::guard> held;
  for (std::size_t i = 0; i < steps; ++i) {
    const auto n = static_cast<std::uint32_t>(random.below(300));
    const auto key = static_cast<typename Map::key_type>(n);
    const auto value = [n] {
      if constexpr (std::is_same_v<typename Map::mapped_type, kind::value>) {
        return kind::make_value(n);
      } else {
        return typename Map::mapped_type{n};
      }
    };
    switch (random.below(8)) {
      case 0:
      case 1: map.insert(key, value()); break;
      case 2: map.insert_or_assign(key, value()); break;
      case 3: map.erase(key); break;
      case 4: map.update(key, [&](auto& now) { now = value(); }); break;
      case 5: held.push_back(map.find(key)); break;
      case 6:
        if (random.below(100) == 0) map.rehash(random.below(2) * 1000);
        if (random.below(200) == 0) map.clear();
        break;
      default:
        if (held.size() > 8) held.clear();
    }
  }
}

template <class Map>
void gives_every_block_back() {
  block_ledger ledger;
  {
    Map map({.shards = 4}, typename Map::allocator_type(ledger));
    const std::size_t steps = scale(20'000);
    INFO("seeds 1 to 3");
    run_at_once({[&] { churn(map, 1, steps); }, [&] { churn(map, 2, steps); },
                 [&] { churn(map, 3, steps); }});
    CHECK(ledger.given() > 4);
  }
  CHECK(ledger.wrong() == "");
  CHECK(ledger.live() == 0);
}

/// What takes memory, in one thread, with keys that are there and keys that are not.
template <class Map>
void fill_and_change(Map& map) {
  for (std::uint64_t key = 0; key < 200; ++key)
    map.insert(key, key);
  for (std::uint64_t key = 0; key < 200; key += 3)
    map.erase(key);
  for (std::uint64_t key = 0; key < 200; key += 2)
    map.upsert(key, [](std::uint64_t& value) { ++value; });
  map.rehash(0);
  map.reserve(1'000);
}

/// Each operation on a map whose memory is that of operator new.
template <class Map>
struct hungry {
  const char* name;
  bool (*act)(Map&);  ///< whether it changed key 500; see below
};

template <class Map, class K = typename Map::key_type>
const hungry<Map> hungry_operations[] = {
    {"insert", [](Map& m) { return m.insert(K(500), 1); }},
    {"insert_or_assign",
     [](Map& m) {
       return m.insert_or_assign(K(500), 1) == veltrix::concurrent_map_change::inserted;
     }},
    {"upsert", [](Map& m) { return m.upsert(K(500), [](auto& v) { v = 1; }), true; }},
    {"compute", [](Map& m) { return m.compute(K(500), [](auto& v) { v = 1; }), true; }},
    {"get_or_emplace", [](Map& m) { return m.get_or_emplace(K(500), [] { return 1; }).inserted; }},
    {"update", [](Map& m) { return m.update(K(1), [](auto& v) { v = 1; }), false; }},
    {"erase", [](Map& m) { return m.erase(K(77)), false; }},
    {"for_each", [](Map& m) { return m.for_each([](auto) {}), false; }},
    {"snapshot", [](Map& m) { return m.snapshot().empty(); }},
    {"rehash", [](Map& m) { return m.rehash(5'000), false; }},
    {"fit", [](Map& m) { return m.rehash(0), false; }},
};

/// Without the first memory it asks for, without the second, and so on: it fails and changed
/// nothing, until it gets through.
template <class Map>
void survives_without_memory() {
  using key = typename Map::key_type;
  for (const auto& tried : hungry_operations<Map>) {
    INFO(tried.name);
    Map map({.shards = 1, .seed = 3});
    for (int i = 0; i < 100; ++i)
      map.insert(key(i), i);
    std::size_t wrong = 0;
    bool changed = false;
    const auto look = [&] {
      std::size_t seen = 0;
      map.for_each([&](const auto&, int) { ++seen; });
      wrong += seen == map.size() && map.size() == 100 && !map.contains(key(500)) ? 0 : 1;
    };
    fail_each_allocation([&] { changed = tried.act(map); }, look);
    CHECK(wrong == 0);
    CHECK(map.contains(key(500)) == changed);
    CHECK(map.insert(key(501), 1));
  }
}

struct key_of_two_words {
  explicit key_of_two_words(int n) : high(n), low(-n) {}
  bool operator==(const key_of_two_words&) const = default;
  std::int64_t high;
  std::int64_t low;
};
struct key_hash {
  std::size_t operator()(const key_of_two_words& key) const {
    return static_cast<std::size_t>(key.high);
  }
};
struct key_that_allocates {
  explicit key_that_allocates(int n)
      : text("a text that does not fit in place: " + std::to_string(n)) {}
  bool operator==(const key_that_allocates&) const = default;
  std::string text;
};
struct text_hash {
  std::size_t operator()(const key_that_allocates& key) const {
    return std::hash<std::string>{}(key.text);
  }
};

}  // namespace

TEST_CASE("concurrent_map gives each block back as it was given out, beside other threads") {
  gives_every_block_back<map_on<word_to_word, strict_allocator>>();
  gives_every_block_back<map_on<word_to_block<block<24>>, strict_allocator>>();
}

TEST_CASE("concurrent_map gives over-aligned blocks back with their alignment") {
  using kind = word_to_block<block<4096, 4096>>;
  block_ledger ledger;
  {
    map_on<kind, strict_allocator> map({.shards = 1}, strict_allocator<char>(ledger));
    for (std::uint32_t i = 0; i < 40; ++i)
      map.insert(i, kind::make_value(i));
    map.clear();
    for (std::uint32_t i = 0; i < 40; ++i)
      map.insert(i, kind::make_value(i));
    CHECK(map.find(7)->number() == 7);
  }
  CHECK(ledger.wrong() == "");
  CHECK(ledger.live() == 0);
}

TEST_CASE("concurrent_map works with an allocator whose pointers are of class type") {
  block_ledger ledger;
  {
    map_on<word_to_word, fancy_allocator> small({.shards = 2}, fancy_allocator<char>(ledger));
    fill_and_change(small);
    CHECK(small.size() == 167);
    map_on<text_to_block, fancy_allocator> large({.shards = 2}, fancy_allocator<char>(ledger));
    for (std::uint32_t i = 0; i < 100; ++i)
      large.insert(text_to_block::make_key(i), text_to_block::make_value(i));
    const auto held = large.find(text_to_block::make_key(5));
    large.clear();
    CHECK(held->number() == 5);
  }
  CHECK(ledger.wrong() == "");
  CHECK(ledger.live() == 0);
}

TEST_CASE("concurrent_map takes memory resources: one that only grows, pools of one and of many") {
  using map_type = veltrix::concurrent_map<
      std::uint64_t, std::uint64_t, default_hash<std::uint64_t>, default_equal,
      std::pmr::polymorphic_allocator<std::pair<const std::uint64_t, std::uint64_t>>>;
  std::pmr::monotonic_buffer_resource growing;
  std::pmr::unsynchronized_pool_resource pool;
  std::pmr::synchronized_pool_resource shared_pool;
  for (std::pmr::memory_resource* const from : {static_cast<std::pmr::memory_resource*>(&growing),
                                                static_cast<std::pmr::memory_resource*>(&pool)}) {
    map_type map({.shards = 2}, from);
    fill_and_change(map);
    CHECK(map.size() == 167);
    map.clear();
    CHECK(map.empty());
  }
  map_type map({.shards = 4}, &shared_pool);
  const std::size_t steps = scale(20'000);
  INFO("seeds 11 and 12");
  run_at_once({[&] { churn(map, 11, steps); }, [&] { churn(map, 12, steps); }});
  std::size_t mixed = 0;
  map.for_each([&](std::uint64_t key, std::uint64_t value) { mixed += key == value ? 0 : 1; });
  CHECK(mixed == 0);
}

TEST_CASE("concurrent_map changes nothing when memory ends at any allocation of the program") {
  survives_without_memory<veltrix::concurrent_map<key_of_two_words, int, key_hash>>();
  survives_without_memory<veltrix::concurrent_map<key_that_allocates, int, text_hash>>();
}

TEST_CASE("concurrent_map look-ups of a thread that has no memory answer") {
  veltrix::concurrent_map<int, int> small({.shards = 1});
  veltrix::concurrent_map<int, block<32>> large({.shards = 1});
  small.insert(1, 10);
  large.insert(1, block<32>::make(10));
  std::size_t right = 0;
  for (int granted = 0; granted < 3; ++granted) {
    std::thread fresh([&] {
      allocations_left = granted;
      right += small.contains(1) && !small.contains(2) && small.get(1) == 10 ? 1 : 0;
      right += large.contains(1) && !large.contains(2) ? 1 : 0;
      right += small.visit(1, [&](int value) { right += value == 10 ? 1 : 0; });
      right += large.visit(1, [&](const auto& value) { right += value.number() == 10 ? 1 : 0; });
      right += *small.find(1) == 10 && large.find(1)->number() == 10 ? 1 : 0;
      allocations_left = -1;
    });
    fresh.join();
  }
  CHECK(right == 3 * 7);
}
