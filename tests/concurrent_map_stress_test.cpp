// concurrent_map by several threads at once.
// Invariants, each with its test below:
//   every change of a key is made once (sums are exact, one winner per key);
//   a reader sees an entry that somebody wrote, whole;
//   a walk shows each key that stays, once, and no key twice;
//   a guard's entry does not change while the guard lives;
//   size() is right at one moment of the call.
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
#include "support/random.hpp"
#include "support/scale.hpp"
#include "support/tracking_allocator.hpp"
#include "veltrix/concurrent_map.hpp"

namespace {

using veltrix::concurrent_map;
using veltrix::concurrent_map_change;
using veltrix::concurrent_map_options;
using veltrix_test::scale;

/// Runs body(i) on `count` threads, which start together, and waits for all of them.
template <class Body>
void on_threads(int count, Body body) {
  std::vector<std::thread> threads;
  std::atomic<int> missing{count};
  for (int i = 0; i < count; ++i) {
    threads.emplace_back([&, i] {
      --missing;
      while (missing.load() != 0)
        std::this_thread::yield();  // until the last of them is here
      body(i);
    });
  }
  for (std::thread& each : threads)
    each.join();
}

/// A value that shows whether it was torn or mixed: its parts agree, and name key and writer.
struct tagged {
  std::uint64_t key = 0;
  std::uint64_t writer = 0;
  std::uint64_t serial = 0;
  std::uint64_t check = 0;

  static tagged make(std::uint64_t key, std::uint64_t writer, std::uint64_t serial) {
    return {key, writer, serial, sum(key, writer, serial)};
  }
  bool whole(std::uint64_t wanted) const {
    return key == wanted && check == sum(key, writer, serial);
  }
  static std::uint64_t sum(std::uint64_t key, std::uint64_t writer, std::uint64_t serial) {
    return veltrix::detail::mix(key * 31 + writer, serial);
  }
};

}  // namespace

TEST_CASE("concurrent_map counts by upsert, update and compute lose no increment") {
  constexpr int threads = 4;
  constexpr int keys = 16;
  const std::size_t rounds = scale(400'000);
  concurrent_map<int, std::uint64_t> map(concurrent_map_options{.shards = 4});
  std::array<std::array<std::uint64_t, keys>, threads> added{};
  std::atomic<int> inserted{0};
  on_threads(threads, [&](int self) {
    const std::uint64_t seed = 100 + static_cast<std::uint64_t>(self);
    veltrix_test::random_source random(seed);
    for (std::size_t i = 0; i < rounds; ++i) {
      const int key = static_cast<int>(random.below(keys));
      const auto increment = [](std::uint64_t& value) { ++value; };
      auto done = concurrent_map_change::replaced;
      switch (random.below(4)) {
        case 0: done = map.upsert(key, increment); break;
        case 1: done = map.upsert(key, 1, increment); break;
        case 2:
          done = map.compute(
              key, [](std::optional<std::uint64_t>& value) { value = value.value_or(0) + 1; });
          break;
        default:
          if (!map.update(key, increment)) continue;
      }
      if (done == concurrent_map_change::inserted) ++inserted;
      ++added[static_cast<std::size_t>(self)][static_cast<std::size_t>(key)];
    }
  });
  INFO("seeds 100 to 103");
  REQUIRE(inserted == keys);
  for (int key = 0; key < keys; ++key) {
    std::uint64_t sum = 0;
    for (const auto& each : added)
      sum += each[static_cast<std::size_t>(key)];
    REQUIRE(map.get(key) == sum);
  }
}

TEST_CASE("concurrent_map insertions and erasures of one key have one winner each") {
  constexpr int threads = 4;
  constexpr int keys = 8;
  const std::size_t rounds = scale(400'000);
  concurrent_map<int, int> map(concurrent_map_options{.shards = 2});
  std::array<std::atomic<int>, keys> balance{};  // insertions won, less erasures won
  std::atomic<bool> broken{false};
  on_threads(threads, [&](int self) {
    const std::uint64_t seed = 200 + static_cast<std::uint64_t>(self);
    veltrix_test::random_source random(seed);
    for (std::size_t i = 0; i < rounds; ++i) {
      const auto key = static_cast<std::size_t>(random.below(keys));
      const int k = static_cast<int>(key);
      bool came = false;
      bool went = false;
      switch (random.below(8)) {
        case 0: came = map.insert(k, self); break;
        case 1: came = map.emplace(k, self); break;
        case 2: came = map.try_emplace(k, self); break;
        case 3: came = map.get_or_emplace(k, [self] { return self; }).inserted; break;
        case 4: went = map.erase(k) == 1; break;
        case 5: went = map.erase_if(k, [](int) { return true; }) == 1; break;
        case 6:
          went = map.compute(k, [](std::optional<int>& value) { value.reset(); }) ==
                 concurrent_map_change::erased;
          break;
        default: came = map.insert_or_assign(k, self) == concurrent_map_change::inserted; break;
      }
      if (came) ++balance[key];
      if (went) --balance[key];
    }
  });
  INFO("seeds 200 to 203");
  for (int key = 0; key < keys; ++key) {
    const int left = balance[static_cast<std::size_t>(key)];
    if (left != (map.contains(key) ? 1 : 0)) broken = true;
  }
  REQUIRE_FALSE(broken);
}

TEST_CASE("concurrent_map readers see whole entries that somebody wrote, in order per writer") {
  constexpr std::uint64_t keys = 8;
  const std::size_t rounds = scale(300'000);
  concurrent_map<std::uint64_t, tagged> map(concurrent_map_options{.shards = 2});
  std::atomic<int> writing{2};
  std::atomic<std::size_t> torn{0};
  std::atomic<std::size_t> backwards{0};
  std::atomic<std::size_t> seen{0};
  const auto write = [&](std::uint64_t self) {
    for (std::uint64_t i = 1; i <= rounds; ++i) {
      const std::uint64_t key = i % keys;
      const tagged value = tagged::make(key, self, i);
      switch (i % 5) {
        case 0: map.upsert(key, value, [&](tagged& old) { old = value; }); break;
        case 1: map.insert_or_assign(key, value); break;
        case 2: map.update(key, [&](tagged& old) { old = value; }); break;
        case 3: map.erase(key); break;
        default: map.insert(key, value);
      }
      if (i % 512 == 0) map.rehash(i % 1024 == 0 ? 0 : 1000);
    }
    --writing;
  };
  const auto read = [&](std::uint64_t self) {
    std::array<std::array<std::uint64_t, 2>, keys> newest{};
    const auto look = [&](std::uint64_t key, const tagged& value) {
      ++seen;
      if (!value.whole(key) || value.writer > 1) {
        ++torn;
        return;
      }
      std::uint64_t& last = newest[key][value.writer];
      if (value.serial < last) ++backwards;
      last = value.serial;
    };
    for (std::uint64_t i = self; writing.load() != 0; ++i) {
      const std::uint64_t key = i % keys;
      if (i % 4 == 0) {
        map.visit(key, look);
      } else if (i % 4 == 1) {
        if (const auto held = map.find(key)) look(key, *held);
      } else if (i % 4 == 2) {
        if (const auto copy = map.get(key)) look(key, *copy);
      } else {
        map.for_each(look);
      }
    }
  };
  on_threads(4, [&](int self) {
    self < 2 ? write(static_cast<std::uint64_t>(self)) : read(static_cast<std::uint64_t>(self));
  });
  REQUIRE(torn == 0);
  REQUIRE(backwards == 0);
  REQUIRE(seen > 0);
}

TEST_CASE("concurrent_map walks show every key that stays once and no key twice") {
  constexpr int staying = 500;
  constexpr int coming = 500;
  const std::size_t walks = scale(4000);
  concurrent_map<int, int> map(concurrent_map_options{.shards = 8});
  for (int key = 0; key < staying; ++key)
    map.insert(key, key);
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    for (int i = 0; !stop.load(); ++i) {
      const int key = staying + i % coming;
      if (!map.insert(key, key)) map.erase(key);
      map.update(i % staying, [](int& value) { ++value; });
      if (i % 2000 == 0) map.rehash(0);
      if (i % 2000 == 1000) map.reserve(5000);
    }
  });
  std::size_t missing = 0;
  std::size_t twice = 0;
  for (std::size_t walk = 0; walk < walks; ++walk) {
    std::vector<int> seen(staying + coming);
    if (walk % 2 == 0) {
      map.for_each([&](int key, int) { ++seen[static_cast<std::size_t>(key)]; });
    } else {
      for (const auto& [key, value] : map.snapshot())
        ++seen[static_cast<std::size_t>(key)];
    }
    missing += static_cast<std::size_t>(std::count(seen.begin(), seen.begin() + staying, 0));
    twice += static_cast<std::size_t>(
        std::count_if(seen.begin(), seen.end(), [](int times) { return times > 1; }));
  }
  stop = true;
  writer.join();
  REQUIRE(missing == 0);
  REQUIRE(twice == 0);
}

TEST_CASE("concurrent_map guards keep their entries while others erase, replace and clear") {
  constexpr std::uint64_t keys = 64;
  const std::size_t rounds = scale(200'000);
  using entry = std::pair<const std::uint64_t, std::string>;
  using map_type =
      concurrent_map<std::uint64_t, std::string, veltrix::detail::default_hash<std::uint64_t>,
                     veltrix::detail::default_equal, veltrix_test::tracking_allocator<entry>>;
  const auto text = [](std::uint64_t key) { return std::string(20 + key, static_cast<char>(key)); };
  veltrix_test::allocation_book book;
  std::atomic<std::size_t> changed{0};
  std::atomic<std::size_t> held_count{0};
  {
    map_type map({.shards = 4}, map_type::allocator_type(book));
    std::atomic<int> writing{2};
    const auto write = [&] {
      for (std::uint64_t i = 0; i < rounds; ++i) {
        map.insert_or_assign(i % keys, text(i % keys));
        if (i % 3 == 0) map.erase((i + 7) % keys);
        if (i % 97 == 0) map.clear();
        if (i % 101 == 0) map.erase_if([](std::uint64_t key, const auto&) { return key % 2 == 0; });
      }
      --writing;
    };
    const auto read = [&] {
      std::array<map_type::guard, 16> held;
      for (std::uint64_t i = 0; writing.load() != 0; ++i) {
        auto& slot = held[i % held.size()];
        if (slot) {
          ++held_count;
          if (*slot != text(slot.key())) ++changed;
        }
        slot = map.find(i % keys);
      }
    };
    on_threads(4, [&](int self) { self < 2 ? write() : read(); });
  }
  REQUIRE(changed == 0);
  REQUIRE(held_count > 0);
  REQUIRE(book.live_blocks == 0);
}

TEST_CASE("concurrent_map size is exact at one moment while entries move about") {
  constexpr int threads = 3;
  constexpr int tokens = 100;  // each thread's; it takes one out and puts another in
  concurrent_map<int, int> map(concurrent_map_options{.shards = 64});
  for (int key = 0; key < threads * tokens; ++key)
    map.insert(key * 1000, 0);
  std::atomic<bool> stop{false};
  std::vector<std::thread> movers;
  for (int self = 0; self < threads; ++self) {
    movers.emplace_back([&, self] {
      for (int i = 0; !stop.load(); ++i) {
        const int token = (self * tokens + i % tokens) * 1000;
        const int place = (i / tokens) % 1000;
        map.erase(token + place);
        map.insert(token + (place + 1) % 1000, 0);
      }
    });
  }
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < scale(20'000); ++i) {
    const std::size_t size = map.size();
    if (size > threads * tokens || size < threads * tokens - threads) ++wrong;
    if (map.empty()) ++wrong;
  }
  stop = true;
  for (std::thread& each : movers)
    each.join();
  REQUIRE(wrong == 0);
  REQUIRE(map.size() == threads * tokens);
  REQUIRE(map.approx_size() == threads * tokens);
}

TEST_CASE("concurrent_map get_or_emplace runs one factory per key") {
  constexpr int keys = 200;
  const std::size_t rounds = scale(1000);
  std::size_t wrong = 0;
  for (std::size_t round = 0; round < rounds; ++round) {
    concurrent_map<int, int> map(concurrent_map_options{.shards = 4});
    std::array<std::atomic<int>, keys> runs{};
    std::atomic<int> winners{0};
    on_threads(3, [&](int self) {
      for (int key = 0; key < keys; ++key) {
        const auto got = map.get_or_emplace(key, [&] {
          ++runs[static_cast<std::size_t>(key)];
          return self;
        });
        if (got.inserted) ++winners;
      }
    });
    wrong += winners == keys ? 0 : 1;
    for (const auto& each : runs)
      wrong += each == 1 ? 0 : 1;
  }
  REQUIRE(wrong == 0);
}

TEST_CASE("concurrent_map merges in both directions at once lose and double nothing") {
  static constexpr int keys = 400;
  const std::size_t wanted = scale(10'000);
  concurrent_map<int, int> left(concurrent_map_options{.shards = 4});
  concurrent_map<int, int> right(concurrent_map_options{.shards = 8});
  for (int key = 0; key < keys; ++key)
    (key % 2 == 0 ? left : right).insert(key, key);
  std::atomic<std::size_t> too_many{0};
  std::atomic<std::size_t> moved{0};
  std::atomic<int> merging{2};
  std::array<std::atomic<int>, keys> added{};
  on_threads(4, [&](int self) {
    if (self < 2) {
      while (moved.load() < wanted)
        moved += self == 0 ? left.merge(right) : right.merge(left);
      --merging;
    } else if (self == 2) {
      while (merging.load() != 0) {
        if (left.size() > keys || right.size() > keys) ++too_many;
      }
    } else {
      for (int key = 0; merging.load() != 0; key = (key + 1) % keys) {
        const auto add = [](int& value) { value += keys; };
        added[static_cast<std::size_t>(key)] += left.update(key, add) ? 1 : 0;
        added[static_cast<std::size_t>(key)] += right.update(key, add) ? 1 : 0;
      }
    }
  });
  REQUIRE(too_many == 0);
  std::size_t wrong = 0;
  for (int key = 0; key < keys; ++key) {
    const auto in_left = left.get(key);
    const auto in_right = right.get(key);
    if (in_left.has_value() == in_right.has_value()) ++wrong;
    const int value = in_left.value_or(0) + in_right.value_or(0);
    if (value != key + keys * added[static_cast<std::size_t>(key)]) ++wrong;
  }
  REQUIRE(wrong == 0);
  REQUIRE(left.size() + right.size() == keys);
}

TEST_CASE("concurrent_map merge leaves no moment at which a key is in neither map") {
  constexpr int keys = 500;
  const std::size_t rounds = scale(40);
  std::size_t lost = 0;
  std::size_t moved = 0;
  for (std::size_t round = 0; round < rounds; ++round) {
    concurrent_map<int, int> from(concurrent_map_options{.shards = 4});
    concurrent_map<int, int> into(concurrent_map_options{.shards = 4});
    for (int key = 0; key < keys; ++key)
      from.insert(key, key);
    std::atomic<bool> done{false};
    on_threads(2, [&](int self) {
      if (self == 0) {
        moved += into.merge(from);
        done = true;
        return;
      }
      do {
        for (int key = 0; key < keys; ++key) {
          if (!from.contains(key) && !into.contains(key)) ++lost;
        }
      } while (!done.load());
    });
  }
  REQUIRE(lost == 0);
  REQUIRE(moved == rounds * keys);
}

TEST_CASE("concurrent_map parallel erase_if beside writers erases what it says") {
  constexpr int keys = 2000;
  const std::size_t rounds = scale(1000);
  struct thread_each {
    veltrix::post_result try_post(veltrix::detail::task work) {
      threads.emplace_back(std::move(work));
      return {};
    }
    ~thread_each() {
      for (std::thread& each : threads)
        each.join();
    }
    std::vector<std::thread> threads;
  };
  concurrent_map<int, int> map(concurrent_map_options{.shards = 16});
  std::atomic<std::int64_t> inserted{0};
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    for (int i = 0; !stop.load(); ++i)
      inserted += map.insert(i % keys, i) ? 1 : 0;
  });
  std::int64_t erased = 0;
  for (std::size_t i = 0; i < rounds; ++i) {
    thread_each executor;
    erased += static_cast<std::int64_t>(
        map.erase_if(executor, [](int key, int) { return key % 3 != 0; }));
  }
  stop = true;
  writer.join();
  REQUIRE(inserted - erased == static_cast<std::int64_t>(map.size()));
}
