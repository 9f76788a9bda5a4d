// concurrent_map where slots of its tables are used anew all the time, beside readers.
// Invariants, each with its test below, for entries that copy bytewise and for others:
//   a reader never sees a value that was not of its key, though slots pass from key to key;
//   a key that is there throughout is found by every look-up, however tables are built anew;
//   what counts up for writers never runs back for a reader;
//   a walk shows a key that stays once, and no key twice;
//   a guard's entry outlives its key, with any number of guards, let go in any order;
//   what readers hold does not keep alive what others erase;
//   while a map is merged into another, a key is in neither at no moment, and guards stay good;
//   threads that come and go leave nothing behind.
// SPDX-License-Identifier: BSL-1.0
#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/map_kinds.hpp"
#include "support/random.hpp"
#include "support/scale.hpp"
#include "support/threads.hpp"
#include "support/tracking_allocator.hpp"

namespace {

using namespace veltrix_test;

/// A number that names its key, in the least a value can be, and in more.
template <class Value>
struct owned {
  std::uint64_t all[sizeof(Value) / 8];

  static owned make(std::uint64_t key, std::uint64_t serial) {
    owned made{};
    std::uint64_t word = key << 40 | serial;
    for (std::uint64_t& each : made.all) {
      each = word;
      word = veltrix::detail::mix(word);
    }
    return made;
  }
  [[nodiscard]] std::uint64_t serial() const { return all[0] & ((std::uint64_t{1} << 40) - 1); }
  [[nodiscard]] bool is_of(std::uint64_t key) const {
    std::uint64_t word = all[0];
    bool same = word >> 40 == key;
    for (const std::uint64_t each : all) {
      same = same && each == word;
      word = veltrix::detail::mix(word);
    }
    return same;
  }
};
using small = owned<std::uint64_t>;
using block = owned<std::array<std::uint64_t, 4>>;  // changes in place, by several stores
using large = owned<std::array<std::uint64_t, 9>>;  // is replaced with its node

/// Two words of a key: a mix of two keys is none.
struct double_key {
  double_key(std::uint64_t n) : number(n), again(veltrix::detail::mix(n)) {}  // NOLINT: a number
  bool operator==(const double_key&) const = default;
  operator std::uint64_t() const {  // NOLINT: as above
    return again == veltrix::detail::mix(number) ? number : ~std::uint64_t{0};
  }
  std::uint64_t number;
  std::uint64_t again;
};
struct double_key_hash {
  std::size_t operator()(const double_key& key) const {
    return static_cast<std::size_t>(key.number);
  }
};

using small_map = veltrix::concurrent_map<std::uint64_t, small>;
using double_map = veltrix::concurrent_map<double_key, small, double_key_hash>;
using block_map = veltrix::concurrent_map<std::uint64_t, block>;
using large_map = veltrix::concurrent_map<std::uint64_t, large>;
static_assert(veltrix::detail::changes_in_place<std::uint64_t, block>);
static_assert(!veltrix::detail::changes_in_place<std::uint64_t, large>);

template <class Map>
auto value_of(std::uint64_t key, std::uint64_t serial) {
  return Map::mapped_type::make(key, serial);
}

/// Looks a key up in each way there is, one after the other. Result: whether it was there.
template <class Map, class Look>
bool look_up(const Map& map, std::uint64_t key, std::uint64_t way, Look look) {
  switch (way % 5) {
    case 0:
      if (const auto got = map.get(key)) return look(key, *got), true;
      return false;
    case 1:
      if (const auto held = map.find(key)) return look(held.key(), *held), true;
      return false;
    case 2: return map.visit(key, look) == 1;
    case 3: return map.visit(std::array<typename Map::key_type, 1>{key}, look) == 1;
    default: return map.contains(key);
  }
}

/// Two writers move few keys about in one table, so that its slots pass from key to key, while two
/// readers look. Result: values seen that were of another key.
template <class Map>
std::size_t strangers_seen(std::uint64_t keys, std::size_t rounds) {
  Map map({.shards = 1});
  std::atomic<int> writing{2};
  std::atomic<std::size_t> strange{0};
  std::atomic<std::size_t> seen{0};
  const auto write = [&](std::uint64_t seed) {
    random_source random(seed);
    for (std::uint64_t i = 0; i < rounds; ++i) {
      const std::uint64_t key = random.below(keys);
      const auto value = value_of<Map>(key, i);
      switch (random.below(6)) {
        case 0:
        case 1: map.erase(key); break;
        case 2: map.insert_or_assign(key, value); break;
        case 3: map.update(key, [&](auto& now) { now = value; }); break;
        default: map.insert(key, value);
      }
      if (i % 4096 == 0) map.rehash(0);
      if (i % 8192 == 1) map.clear();
    }
    --writing;
  };
  const auto read = [&](std::uint64_t seed) {
    random_source random(seed);
    std::size_t looked = 0;
    const auto look = [&](std::uint64_t key, const auto& value) {
      ++looked;
      if (!value.is_of(key)) ++strange;
    };
    while (writing.load() != 0) {
      const std::uint64_t key = random.below(keys);
      look_up(map, key, random.next() >> 32, [&](std::uint64_t shown, const auto& value) {
        look(shown, value);
        if (shown != key) ++strange;
      });
      if (looked % 1024 == 0) map.for_each(look);
    }
    seen += looked;
  };
  run_at_once({[&] { write(1); }, [&] { write(2); }, [&] { read(3); }, [&] { read(4); }});
  return seen.load() == 0 ? 1 : strange.load();
}

constexpr std::uint64_t counted = 20;

/// Keys from 0 are there throughout, and their numbers grow; keys from 1000 come and go, and tables
/// are built anew, beside readers. Result: keys missed, and numbers that ran back.
template <class Map>
std::array<std::size_t, 2> missed_and_backwards(std::size_t rounds) {
  Map map({.shards = 2});
  for (std::uint64_t key = 0; key < counted; ++key)
    map.insert(key, value_of<Map>(key, 0));
  std::atomic<int> writing{2};
  std::atomic<std::size_t> missed{0};
  std::atomic<std::size_t> backwards{0};
  const auto move_tables = [&] {
    random_source random(5);
    for (std::uint64_t i = 0; i < rounds; ++i) {
      const std::uint64_t other = 1000 + random.below(500);
      switch (random.below(8)) {
        case 0: map.rehash(0); break;
        case 1: map.rehash(random.below(3000)); break;
        case 2: map.reserve(random.below(1000)); break;
        case 3: map.erase_if([](std::uint64_t key, const auto&) { return key >= 1000; }); break;
        default:
          for (std::uint64_t key = other; key < other + 16; ++key)
            map.insert(key, value_of<Map>(key, i));
          map.erase(other + 3);
      }
    }
    --writing;
  };
  const auto count = [&] {
    for (std::uint64_t i = 1; i <= rounds; ++i) {
      const std::uint64_t key = i % counted;
      map.upsert(key, value_of<Map>(key, 0),
                 [&](auto& now) { now = value_of<Map>(key, now.serial() + 1); });
    }
    --writing;
  };
  const auto read = [&](std::uint64_t seed) {
    random_source random(seed);
    std::array<std::uint64_t, counted> newest{};
    while (writing.load() != 0) {
      const std::uint64_t key = random.below(counted);
      const auto look = [&](std::uint64_t shown, const auto& value) {
        if (!value.is_of(key) || shown != key || value.serial() < newest[key]) ++backwards;
        newest[key] = std::max(newest[key], value.serial());
      };
      if (!look_up(map, key, random.next() >> 32, look)) ++missed;
    }
  };
  run_at_once({move_tables, count, [&] { read(6); }, [&] { read(7); }});
  return {missed.load(), backwards.load()};
}

constexpr std::uint64_t staying = 100;
constexpr std::uint64_t coming = 300;

/// Walks beside one who moves keys about. Result: keys that stay and were missed, keys seen twice.
template <class Map>
std::array<std::size_t, 2> missed_and_twice(std::size_t walks) {
  Map map({.shards = 4});
  for (std::uint64_t key = 0; key < staying; ++key)
    map.insert(key, value_of<Map>(key, 0));
  std::atomic<bool> stop{false};
  std::size_t missed = 0;
  std::size_t twice = 0;
  const auto move_keys = [&] {
    random_source random(8);
    for (std::uint64_t i = 0; !stop.load(); ++i) {
      const std::uint64_t key = staying + random.below(coming);
      if (!map.insert(key, value_of<Map>(key, i))) map.erase(key);
      map.insert_or_assign(i % staying, value_of<Map>(i % staying, i));
      if (i % 512 == 0) map.rehash(i % 1024 == 0 ? 0 : 2000);
    }
  };
  const auto walk = [&] {
    for (std::size_t i = 0; i < walks; ++i) {
      std::array<int, staying + coming> seen{};
      const auto look = [&](std::uint64_t key, const auto& value) {
        ++seen[value.is_of(key) ? key : 0];
      };
      if (i % 2 == 0) {
        map.for_each(look);
      } else {
        for (const auto& [key, value] : map.snapshot())
          look(key, value);
      }
      missed += static_cast<std::size_t>(std::count(seen.begin(), seen.begin() + staying, 0));
      twice += static_cast<std::size_t>(
          std::count_if(seen.begin(), seen.end(), [](int times) { return times > 1; }));
    }
    stop = true;
  };
  run_at_once({move_keys, walk});
  return {missed, twice};
}

/// Each thread holds up to `most` guards, and lets them go in no order, while their keys are erased
/// and come again. Result: guards whose entry changed.
template <class Map>
std::size_t changed_under_guards(std::size_t most, std::size_t rounds) {
  struct held_entry {
    typename Map::guard guard;
    typename Map::mapped_type value;
    std::uint64_t key;
  };
  constexpr std::uint64_t keys = 32;
  Map map({.shards = 2});
  std::atomic<int> writing{1};
  std::atomic<std::size_t> changed{0};
  const auto write = [&] {
    for (std::uint64_t i = 0; i < rounds; ++i) {
      const std::uint64_t key = i % keys;
      map.insert_or_assign(key, value_of<Map>(key, i));
      map.erase((i * 7 + 3) % keys);
      if (i % 1000 == 0) map.clear();
    }
    --writing;
  };
  const auto hold = [&](std::uint64_t seed) {
    random_source random(seed);
    std::vector<held_entry> held;
    const auto let_go = [&](std::size_t at) {
      std::swap(held[at], held.back());
      const held_entry& last = held.back();
      const bool same = last.guard.key() == last.key && last.guard->is_of(last.key) &&
                        last.guard->serial() == last.value.serial();
      if (!same) ++changed;
      held.pop_back();
    };
    while (writing.load() != 0) {
      const std::uint64_t key = random.below(keys);
      if (held.size() == most || (held.size() > most / 2 && random.below(2) == 0)) {
        let_go(random.below(held.size()));
      } else if (random.below(8) == 0) {
        auto got = map.get_or_emplace(key, [&] { return value_of<Map>(key, 1); });
        const auto seen = *got.entry;
        held.push_back({std::move(got.entry), seen, key});
      } else if (auto guard = map.find(key)) {
        const auto seen = *guard;
        held.push_back({std::move(guard), seen, key});
      }
    }
    while (!held.empty())
      let_go(held.size() - 1);
  };
  run_at_once({write, [&] { hold(9); }, [&] { hold(10); }});
  return changed.load();
}

/// Merges one map into another, and back, beside a writer of both and a reader, who holds guards of
/// either across the move. Result: what was wrong.
template <class Map>
std::size_t wrong_while_merging(std::size_t rounds) {
  constexpr std::uint64_t keys = 200;
  Map left({.shards = 2});
  Map right({.shards = 4});
  for (std::uint64_t key = 0; key < keys; ++key)
    left.insert(key, value_of<Map>(key, 0));
  std::atomic<std::size_t> wrong{0};
  for (std::size_t round = 0; round < rounds; ++round) {
    Map& from = round % 2 == 0 ? left : right;
    Map& into = round % 2 == 0 ? right : left;
    std::atomic<bool> moved{false};
    std::size_t moves = 0;
    const auto merge = [&] {
      moves = into.merge(from);
      moved = true;
    };
    const auto read = [&] {
      std::vector<typename Map::guard> held;
      for (std::uint64_t key = 0; !moved.load() || key % keys != 0; ++key) {
        auto guard = from.find(key % keys);
        if (!guard) guard = into.find(key % keys);
        if (!guard) ++wrong;
        if (guard && !guard->is_of(key % keys)) ++wrong;
        held.push_back(std::move(guard));
        if (held.size() > 20) held.clear();
      }
      for (const auto& each : held)
        wrong += !each || each->is_of(each.key()) ? 0 : 1;
    };
    const auto write = [&] {
      for (std::uint64_t i = 0; !moved.load(); ++i) {
        const auto change = [&](auto& now) { now = value_of<Map>(i % keys, now.serial() + 1); };
        into.update(i % keys, change);
        from.update(i % keys, change);
      }
    };
    run_at_once({merge, read, write});
    if (moves != keys || !from.empty() || into.size() != keys) ++wrong;
  }
  return wrong.load();
}

}  // namespace

TEST_CASE("concurrent_map readers never see another key's value while slots pass from key to key") {
  for (const std::uint64_t keys : {3U, 12U, 60U}) {
    CAPTURE(keys);
    CHECK(strangers_seen<small_map>(keys, scale(150'000)) == 0);
    CHECK(strangers_seen<double_map>(keys, scale(150'000)) == 0);
    CHECK(strangers_seen<block_map>(keys, scale(150'000)) == 0);
    CHECK(strangers_seen<large_map>(keys, scale(150'000)) == 0);
  }
}

TEST_CASE("concurrent_map readers miss no key and see no count run back while tables move") {
  constexpr std::array<std::size_t, 2> none{};
  CHECK(missed_and_backwards<small_map>(scale(20'000)) == none);
  CHECK(missed_and_backwards<double_map>(scale(20'000)) == none);
  CHECK(missed_and_backwards<block_map>(scale(20'000)) == none);
  CHECK(missed_and_backwards<large_map>(scale(20'000)) == none);
}

TEST_CASE("concurrent_map walks of each kind of entry miss no key that stays and see none twice") {
  constexpr std::array<std::size_t, 2> none{};
  CHECK(missed_and_twice<small_map>(scale(10'000)) == none);
  CHECK(missed_and_twice<block_map>(scale(10'000)) == none);
  CHECK(missed_and_twice<large_map>(scale(10'000)) == none);
}

TEST_CASE("concurrent_map guards keep their entries, be it one guard of a thread or a thousand") {
  for (const std::size_t most : {1U, 3U, 8U, 100U, 1000U}) {
    CAPTURE(most);
    CHECK(changed_under_guards<small_map>(most, scale(60'000)) == 0);
    CHECK(changed_under_guards<block_map>(most, scale(60'000)) == 0);
    CHECK(changed_under_guards<large_map>(most, scale(60'000)) == 0);
  }
}

TEST_CASE("concurrent_map readers see a key that is replaced by an equal one, with its value") {
  struct noted_key {
    std::uint32_t id;
    std::uint32_t note;
  };
  struct by_id {
    std::size_t operator()(const noted_key& key) const { return key.id; }
    bool operator()(const noted_key& left, const noted_key& right) const {
      return left.id == right.id;
    }
  };
  constexpr std::uint32_t keys = 12;
  veltrix::concurrent_map<noted_key, std::uint64_t, by_id, by_id> map({.shards = 1});
  for (std::uint32_t id = 0; id < keys; ++id)
    map.insert(noted_key{id, 0}, 0);
  std::atomic<int> writing{2};
  std::atomic<std::size_t> wrong{0};
  const auto write = [&](std::uint64_t seed) {
    random_source random(seed);
    for (std::size_t i = 0; i < scale(30'000); ++i) {
      const noted_key key{static_cast<std::uint32_t>(random.below(keys)),
                          static_cast<std::uint32_t>(random.below(1000))};
      map.insert_or_assign(key, key.note);
      const noted_key other{keys + key.id, key.note};
      if (!map.insert(other, key.note)) map.erase(other);
    }
    --writing;
  };
  const auto read = [&](std::uint64_t seed) {
    random_source random(seed);
    while (writing.load() != 0) {
      const noted_key wanted{static_cast<std::uint32_t>(random.below(keys)), 5000};
      const std::size_t calls = map.visit(wanted, [&](const noted_key& key, std::uint64_t value) {
        wrong += key.id == wanted.id && key.note == value ? 0 : 1;
      });
      const auto held = map.find(wanted);
      wrong += calls == 1 && held && held.key().note == *held ? 0 : 1;
    }
  };
  run_at_once({[&] { write(11); }, [&] { write(12); }, [&] { read(13); }, [&] { read(14); }});
  CHECK(wrong == 0);
  CHECK(map.snapshot().size() == map.size());
}

TEST_CASE("concurrent_map look-ups nest in visitors to any depth, beside writers") {
  large_map map({.shards = 2});
  for (std::uint64_t key = 0; key < 8; ++key)
    map.insert(key, large::make(key, 0));
  std::atomic<bool> stop{false};
  std::size_t wrong = 0;
  const std::function<void(int)> descend = [&](int depth) {
    if (depth == 0) return;
    const auto key = static_cast<std::uint64_t>(depth % 8);
    const auto held = depth % 3 == 0 ? map.find(key) : large_map::guard();
    const std::size_t calls = map.visit(key, [&](const large& value) {
      const std::uint64_t before = value.serial();
      descend(depth - 1);
      wrong += value.is_of(key) && value.serial() == before ? 0 : 1;
    });
    wrong += calls == 1 ? 0 : 1;
    if (held) wrong += held->is_of(key) ? 0 : 1;
  };
  run_at_once({[&] {
                 for (std::size_t i = 0; i < scale(20'000); ++i)
                   descend(static_cast<int>(i % 40));
                 stop = true;
               },
               [&] {
                 for (std::uint64_t i = 0; !stop.load(); ++i) {
                   map.insert_or_assign(i % 8, large::make(i % 8, i));
                   if (i % 500 == 0) map.rehash(i % 1000);
                 }
               }});
  CHECK(wrong == 0);
}

TEST_CASE("concurrent_map keeps what a guard holds, and not what others erase meanwhile") {
  using map_type =
      veltrix::concurrent_map<std::uint64_t, large, default_hash<std::uint64_t>, default_equal,
                              tracking_allocator<std::pair<const std::uint64_t, large>>>;
  allocation_book book;
  {
    map_type map({.shards = 4}, map_type::allocator_type(book));
    for (std::uint64_t key = 0; key < 100; ++key)
      map.insert(key, large::make(key, 0));
    const auto held = map.find(50);
    std::size_t most = 0;
    for (std::uint64_t i = 1; i < scale(100'000); ++i) {
      map.insert_or_assign(i % 100, large::make(i % 100, i));
      if (i % 64 == 0) map.rehash(i % 128 == 0 ? 0 : 500);
      most = std::max(most, book.live_blocks.load());
    }
    CHECK(held->serial() == 0);
    CHECK(most < 100 + 4'000);
  }
  CHECK(book.live_blocks == 0);
}

TEST_CASE("concurrent_map merges hide no key for a moment and spoil no guard") {
  CHECK(wrong_while_merging<small_map>(scale(40)) == 0);
  CHECK(wrong_while_merging<double_map>(scale(40)) == 0);
  CHECK(wrong_while_merging<block_map>(scale(40)) == 0);
  CHECK(wrong_while_merging<large_map>(scale(40)) == 0);
}

TEST_CASE("concurrent_map serves threads that come and go, and keeps nothing of them") {
  using map_type =
      veltrix::concurrent_map<std::uint64_t, std::string, default_hash<std::uint64_t>,
                              default_equal,
                              tracking_allocator<std::pair<const std::uint64_t, std::string>>>;
  allocation_book book;
  std::atomic<std::size_t> wrong{0};
  std::size_t most = 0;
  {
    map_type map({.shards = 4}, map_type::allocator_type(book));
    std::array<std::thread, 4> running;
    const std::size_t threads = scale(1'000);
    for (std::uint64_t i = 0; i < threads; ++i) {
      std::thread& place = running[i % running.size()];
      if (place.joinable()) place.join();
      place = std::thread([&map, &wrong, i] {
        const std::uint64_t key = i % 16;
        map.insert_or_assign(key, std::to_string(key));
        const auto held = map.find((i + 5) % 16);
        map.erase((i + 5) % 16);
        if (held && *held != std::to_string(held.key())) ++wrong;
        map.visit(key,
                  [&](const std::string& text) { wrong += text == std::to_string(key) ? 0 : 1; });
      });
      most = std::max(most, book.live_blocks.load());
    }
    for (std::thread& each : running) {
      if (each.joinable()) each.join();
    }
  }
  CHECK(wrong == 0);
  CHECK(most < 4'000);
  CHECK(book.live_blocks == 0);
}
