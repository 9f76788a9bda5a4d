// concurrent_map's tables explored, with entries in words and in nodes: whoever looks while a table
// fills, grows, shrinks, is emptied or walked over finds what is there throughout.
// SPDX-License-Identifier: BSL-1.0
#include <cstddef>

#include "model/map_kinds.hpp"

namespace {

using namespace veltrix_model;

template <class Kind>
using map_of = typename Kind::map;

}  // namespace

TEST_CASE("concurrent_map tables model: a key that stays is found while its table grows") {
  check_both("get/growth", {}, [](auto kind) {
    map_of<decltype(kind)> shared(one_shard);
    shared.emplace(1, 10);
    shared.emplace(2, 20);
    together(
        [&] {
          require(value_of(shared, 1) == 10, "it never was away");
          const bool came = shared.contains(3);
          require(value_of(shared, 2) == 20, "it never was away");
          require(!came || value_of(shared, 3) == 30, "it came to stay");
        },
        [&] { shared.emplace(3, 30); });
  });
}

TEST_CASE("concurrent_map tables model: a key that stays is found beside growth and erasure") {
  check_both("get/growth/erase", {1}, [](auto kind) {
    map_of<decltype(kind)> shared(one_shard);
    shared.emplace(1, 10);
    shared.emplace(2, 20);
    together(
        [&] {
          require(value_of(shared, 2) == 20, "it never was away");
          const bool there = shared.contains(1);
          require(there || !shared.contains(1), "it went for good");
        },
        [&] { shared.emplace(3, 30); }, [&] { require(shared.erase(1) == 1, "it was there"); });
    require(shared.approx_size() == 2 && value_of(shared, 3) == 30, "what is left");
  });
}

TEST_CASE("concurrent_map tables model: a key that had to pass a full group is found") {
  check_both("passed groups", {}, [](auto kind) {
    map_of<decltype(kind)> shared(one_shard);
    shared.rehash(4);  // two groups
    for (const int key : {1, 2, 3})
      shared.emplace(key, key);  // the third passes
    together([&] { require(value_of(shared, 3) == 3, "it never was away"); },
             [&] {
               shared.erase(1);
               shared.emplace(4, 4);    // in its slot
               shared.emplace(101, 5);  // grows, as the mark stays
             });
    require(value_of(shared, 3) == 3 && value_of(shared, 4) == 4, "found in the new table");
  });
}

TEST_CASE(
    "concurrent_map tables model: a key that moves to an earlier group is missed only between") {
  check_both("moved between groups", {}, [](auto kind) {
    map_of<decltype(kind)> shared(one_shard);
    shared.rehash(4);
    for (const int key : {1, 2, 3})
      shared.emplace(key, key);
    atomic<int> done = 0;
    together(
        [&] {
          const int before = done.load(std::memory_order_acquire);
          const int seen = value_of(shared, 3);
          const int after = done.load(std::memory_order_acquire);
          require(seen != 0 || (before < 3 && after > 0), "absent at some moment");
          require(seen != 3 || before < 2, "the old one had gone");
          require(seen != 4 || after > 1, "not before it came");
        },
        [&] {
          shared.erase(1);
          done.store(1, std::memory_order_release);
          shared.erase(3);
          done.store(2, std::memory_order_release);
          shared.emplace(3, 4);
          done.store(3, std::memory_order_release);
        });
  });
}

TEST_CASE("concurrent_map tables model: clear() takes all out, and what comes later stays") {
  check_both("get/clear", {}, [](auto kind) {
    map_of<decltype(kind)> shared(one_shard);
    shared.emplace(1, 10);
    together(
        [&] {
          const auto state = [&] {
            const int seen = value_of(shared, 1);
            return seen == 10 ? 1 : seen == 0 ? 2 : 3;
          };
          const int first = state();
          require(first <= state(), "no reader goes back");
        },
        [&] {
          shared.clear();
          shared.emplace(1, 11);
        });
    require(value_of(shared, 1) == 11 && shared.approx_size() == 1, "the later one");
  });
}

TEST_CASE("concurrent_map tables model: a rehash hides nothing") {
  check_both("get/rehash", {}, [](auto kind) {
    map_of<decltype(kind)> shared(one_shard);
    shared.emplace(1, 10);
    together(
        [&] {
          require(value_of(shared, 1) == 10, "it never was away");
          require(value_of(shared, 1) == 10, "it never was away");
        },
        [&] {
          shared.rehash(4);
          shared.rehash(0);
        });
  });
}

TEST_CASE("concurrent_map tables model: a table that shrinks keeps what is left") {
  check_both("get/shrink", {1}, [](auto kind) {
    map_of<decltype(kind)> shared(one_shard);
    const auto key_of = [](int number) { return number % 8 * 100 + number; };
    for (int number = 1; number <= 29; ++number)
      shared.emplace(key_of(number), number);
    const std::size_t slots = shared.stats().slots;
    for (int number = 29; shared.approx_size() > slots / 8; --number)
      shared.erase(key_of(number));
    require(shared.stats().slots == slots, "not yet");
    together(
        [&] {
          require(value_of(shared, 101) == 1, "it never was away");
          require(value_of(shared, 202) == 2, "it never was away");
        },
        [&] { shared.erase(303); });
    require(shared.stats().slots < slots, "it has shrunk");
    for (int number = 1; number <= 5; ++number)
      require(value_of(shared, key_of(number)) == (number == 3 ? 0 : number), "what is left");
  });
}

TEST_CASE("concurrent_map tables model: one of two insertions and one of two erasures wins") {
  check_both("insert/insert", {}, [](auto kind) {
    map_of<decltype(kind)> shared(one_shard);
    bool left = false, right = false;
    together([&] { left = shared.emplace(1, 10); }, [&] { right = shared.emplace(1, 20); });
    require(left != right && value_of(shared, 1) == (left ? 10 : 20), "one of them");
    require(shared.approx_size() == 1, "once");
  });
}

TEST_CASE("concurrent_map tables model: an insertion and an erasure of a key come one by one") {
  check_both("erase/insert", {3}, [](auto kind) {
    map_of<decltype(kind)> shared(one_shard);
    shared.emplace(1, 10);
    bool inserted = false;
    together([&] { require(shared.erase(1) == 1, "it was there, this or that"); },
             [&] { inserted = shared.emplace(1, 20); });
    require(value_of(shared, 1) == (inserted ? 20 : 0), "as they said");
    require(shared.approx_size() == (inserted ? 1 : 0), "counted");
  });
}

TEST_CASE("concurrent_map tables model: a walk meets once what is there throughout") {
  check_both("for_each/erase/growth", {}, [](auto kind) {
    map_of<decltype(kind)> shared(one_shard);
    shared.emplace(1, 1);
    shared.emplace(2, 2);
    together(
        [&] {
          int met[4] = {};
          shared.for_each([&](int key, const auto& value) {
            require(value == key, "an entry that was put in");
            ++met[key];
          });
          require(met[1] == 1 && met[2] <= 1 && met[3] <= 1, "once");
        },
        [&] {
          shared.emplace(3, 3);  // grows
          shared.erase(2);
        });
  });
}

TEST_CASE("concurrent_map tables model: a merged key is never in neither map") {
  check_both("get/merge", {}, [](auto kind) {
    map_of<decltype(kind)> source(one_shard), target(one_shard);
    source.emplace(1, 10);
    together(
        [&] {
          const int first = value_of(source, 1);
          require(first == 10 || value_of(target, 1) == 10, "in one of them");
        },
        [&] { require(target.merge(source) == 1, "moved"); });
    require(!source.contains(1) && value_of(target, 1) == 10, "moved");
  });
}

TEST_CASE("concurrent_map tables model: what was merged and erased ends when none reads it") {
  check_both("get/merge/erase", {}, [](auto kind) {
    map_of<decltype(kind)> source(one_shard), target(one_shard);
    source.emplace(1, 10);
    together(
        [&] {
          source.visit(1, [](const auto& value) { require(value == 10, "kept while it is read"); });
          source.visit(1, [](const auto& value) { require(value == 10, "kept while it is read"); });
        },
        [&] {
          target.merge(source);
          target.erase(1);
          target.collect();
        });
  });
}

TEST_CASE("concurrent_map tables model: two maps that take from each other do not wait for ever") {
  check_both("merge/merge", {}, [](auto kind) {
    map_of<decltype(kind)> left(one_shard), right(one_shard);
    left.emplace(1, 10);
    right.emplace(2, 20);
    together([&] { left.merge(right); }, [&] { right.merge(left); });
    require(left.approx_size() + right.approx_size() == 2, "each in one of them");
  });
}

TEST_CASE("concurrent_map tables model: a look-up needs nobody, wherever a writer stops") {
  for (const bool fenced : {false, true}) {
    const auto search = [&](auto kind) {
      exploration freezing{{.preemptions = 1, .may_freeze = only(1), .ordered_fences = fenced}};
      std::printf("%s%s: ", kind.name, fenced ? ", fenced" : "");
      check_exhausted("concurrent_map writer stopped", explore(freezing, [] {
                        map_of<decltype(kind)> shared(one_shard);
                        shared.emplace(1, 10);
                        shared.emplace(2, 20);
                        together(
                            [&] {
                              shared.erase(2);
                              shared.emplace(3, 30);
                              shared.emplace(4, 40);  // grows
                              shared.insert_or_assign(1, 11);
                              shared.collect();
                            },
                            [&] {
                              const int first = value_of(shared, 1);
                              const int second = value_of(shared, 1);
                              require(first == 10 || first == 11, "answered");
                              require(first <= second, "answered");
                              static_cast<void>(shared.find(2));
                              require(shared.contains(3) || !shared.contains(9), "answered");
                            });
                      }));
    };
    search(words_kind());
    search(nodes_kind());
  }
}

TEST_CASE("concurrent_map tables model: who has found an entry that came to stay finds it again") {
  check_both("get and get/erase and emplace", {}, [](auto kind) {
    map_of<decltype(kind)> shared(one_shard);
    shared.emplace(1, 10);
    together(
        [&] {
          const int first = value_of(shared, 1);
          const int second = value_of(shared, 1);
          require(first != 11 || second == 11, "it came to stay");
        },
        [&] {
          shared.erase(1);
          shared.emplace(1, 11);
        });
  });
}

TEST_CASE("concurrent_map tables model: who misses the last key finds the map empty") {
  check_both("get and empty/erase", {}, [](auto kind) {
    map_of<decltype(kind)> shared(one_shard);
    shared.emplace(1, 10);
    together(
        [&] {
          if (!shared.contains(1)) require(shared.empty(), "nothing is left");
        },
        [&] { shared.erase(1); });
  });
}

TEST_CASE("concurrent_map tables model: a walk never meets a key twice, though it moves") {
  check_both("for_each/erase and emplace", {}, [](auto kind) {
    map_of<decltype(kind)> shared({.shards = 1, .expected_entries = 3});  // two groups
    shared.emplace(1, 1);
    together(
        [&] {
          int met = 0;
          shared.for_each([&](int key, const auto&) { met += key == 1 ? 1 : 0; });
          require(met <= 1, "at most once");
        },
        [&] {
          shared.erase(1);
          shared.emplace(2, 2);  // with 3, all slots of the group of 1
          shared.emplace(3, 3);
          shared.emplace(1, 1);
        });
  });
}
