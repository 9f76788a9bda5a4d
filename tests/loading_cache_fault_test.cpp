// What loading_cache does when the user's code, the memory or the executor fails it.
// SPDX-License-Identifier: BSL-1.0
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/death.hpp"
#include "veltrix/loading_cache.hpp"

namespace {

using namespace std::chrono_literals;
using veltrix::cache_outcome;
using veltrix::read_mode;
using veltrix::removal_cause;

struct refusal : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Lets so many calls of the key's code through, and refuses the next one.
struct call_budget {
  int left = -1;                // below zero: unlimited
  void (*instead)() = nullptr;  // what a call does, too
  void spend() {
    if (left == 0) throw refusal("no more calls");
    if (left > 0) --left;
  }
};
call_budget hashes;
call_budget comparisons;
call_budget copies;

/// A key whose hash, equality and copy can each be made to throw; two keys share each hash.
struct touchy_key {
  int id = 0;
  explicit touchy_key(int number) : id(number) {}
  touchy_key(const touchy_key& other) : id(other.id) { copies.spend(); }
  touchy_key& operator=(const touchy_key&) = default;
  ~touchy_key() = default;
};
struct touchy_hash {
  std::size_t operator()(const touchy_key& key) const {
    hashes.spend();
    return static_cast<std::size_t>(key.id / 2);
  }
};
struct touchy_equal {
  bool operator()(const touchy_key& left, const touchy_key& right) const {
    comparisons.spend();
    if (comparisons.instead != nullptr) comparisons.instead();
    return left.id == right.id;
  }
};

using touchy_cache =
    veltrix::loading_cache<touchy_key, int, touchy_hash, touchy_equal, veltrix::virtual_clock>;
using int_cache =
    veltrix::loading_cache<std::string, int, veltrix::detail::default_hash<std::string>,
                           veltrix::detail::default_equal, veltrix::virtual_clock>;

static_assert(!std::is_constructible_v<int_cache, veltrix::loading_cache_options>,
              "a clock with a state is the caller's, not the cache's");

/// Keeps what it is given until the test runs it or drops it.
struct hand_driven_executor {
  veltrix::post_result try_post(veltrix::detail::task work) {
    if (refuses) return {veltrix::post_status::full, "the test refuses"};
    waiting.push_back(std::move(work));
    return {};
  }
  void run_all() {
    while (!waiting.empty()) {
      veltrix::detail::task next = std::move(waiting.front());
      waiting.pop_front();
      next();
    }
  }
  bool refuses = false;
  std::deque<veltrix::detail::task> waiting{};
};

int never(const std::string&) {
  throw std::logic_error("the loader must not be called here");
}

/// Runs `operation` with each call of `budget` refused in turn, and `check` after each.
/// Result: how many runs met the refusal.
template <class Operation, class Check>
int refuse_each(call_budget& budget, Operation operation, Check check) {
  for (int granted = 0;; ++granted) {
    REQUIRE(granted < 200);
    budget.left = granted;
    try {
      operation();
    } catch (const refusal&) {}
    const bool met = budget.left == 0;
    budget.left = -1;
    check();
    if (!met) return granted;
  }
}

}  // namespace

TEST_CASE("loading_cache leaves no load behind when the key's code throws") {
  call_budget& budget = *GENERATE(&hashes, &comparisons, &copies);
  const bool in_background = GENERATE(false, true);
  veltrix::virtual_clock clock;
  hand_driven_executor later;
  touchy_cache cache({.max_entries = 3, .shards = 1, .refresh_after = 1s}, clock, later);
  const auto load = [](const touchy_key& key) { return key.id; };
  for (int id = 0; id < 4; ++id)
    static_cast<void>(cache.get_or_load(touchy_key(id), load));
  int asked = 4;
  const int met = refuse_each(
      budget,
      [&] {
        clock.advance(2s);
        const touchy_key key(in_background ? asked - 1 : asked);
        static_cast<void>(cache.get_or_load(key, load));
        later.run_all();
      },
      [&] {
        // Nobody waits for a load that ended; nothing exceeds its bound; nothing is mixed up.
        later.waiting.clear();
        for (int id = asked - 4; id <= asked; ++id) {
          const auto got = cache.get_or_load(touchy_key(id), load);
          REQUIRE(got);
          REQUIRE(*got == id);
        }
        later.run_all();
        REQUIRE(cache.stats().entries == 3);
        ++asked;
      });
  CHECK(met >= 1);
}

TEST_CASE("loading_cache calls a key's hash once per read and none when entries leave") {
  veltrix::virtual_clock clock;
  touchy_cache cache({.max_entries = 2, .shards = 1}, clock);
  const auto load = [](const touchy_key& key) { return key.id; };
  for (int id = 0; id < 6; ++id) {
    hashes.left = 1;
    const auto got = cache.get_or_load(touchy_key(id), load);
    hashes.left = -1;
    CHECK(*got == id);
  }
  hashes.left = 1;
  CHECK(*cache.get(touchy_key(5)) == 5);
  hashes.left = 0;
  cache.invalidate_all();
  CHECK(cache.purge() == 2);
  hashes.left = -1;
}

TEST_CASE("loading_cache put changes nothing when the key's code throws") {
  call_budget& budget = *GENERATE(&hashes, &comparisons, &copies);
  veltrix::virtual_clock clock;
  touchy_cache cache({.max_entries = 4, .shards = 1}, clock);
  static_cast<void>(cache.put(touchy_key(2), 20));
  static_cast<void>(cache.put(touchy_key(3), 30));
  int last = 30;
  const int met = refuse_each(
      budget,
      [&] {
        const touchy_key key(3);
        static_cast<void>(cache.put(key, last + 1));
        ++last;
      },
      [&] {
        CHECK(*cache.get(touchy_key(2)) == 20);
        CHECK(*cache.get(touchy_key(3)) == last);
        CHECK(cache.stats().entries == 2);
      });
  CHECK(met >= 1);
}

TEST_CASE("loading_cache serves a hit although its refresh finds no memory") {
  const std::string key(40, 'k');
  veltrix::virtual_clock clock;
  hand_driven_executor later;
  int_cache cache({.max_entries = 4, .refresh_after = 1s}, clock, later);
  static_cast<void>(cache.put(key, 1));
  clock.advance(1s);
  int granted = 0;
  for (; later.waiting.empty(); ++granted) {
    REQUIRE(granted < 100);
    veltrix_test::allocations_left = granted;
    cache_outcome outcome = cache_outcome::failed;
    try {
      outcome = cache.get_or_load(key, [](const std::string&) { return 2; }).outcome();
    } catch (const std::bad_alloc&) {}
    veltrix_test::allocations_left = -1;
    CHECK(outcome == cache_outcome::hit);
  }
  CHECK(granted > 2);
  later.run_all();
  CHECK(*cache.get(key) == 2);
}

TEST_CASE("loading_cache tells of what left although the operation failed") {
  veltrix::virtual_clock clock;
  std::vector<std::pair<std::string, removal_cause>> told;
  int_cache::hooks hooks;
  hooks.removed = [&](const std::string& key, const std::shared_ptr<const int>&,
                      removal_cause cause) {
    veltrix_test::allocations_left = -1;
    told.emplace_back(key, cause);
  };
  int_cache cache({.max_entries = 4, .ttl = 1s}, clock, std::move(hooks));
  static_cast<void>(cache.put("a", 1));
  clock.advance(1s);
  veltrix_test::allocations_left = 1;  // the value's, not the entry's
  CHECK_THROWS_AS(cache.put("a", 2), std::bad_alloc);
  veltrix_test::allocations_left = -1;
  REQUIRE(told.size() == 1);
  CHECK(told[0].second == removal_cause::expired);
}

TEST_CASE("loading_cache drops the outdated entry when the new value cannot be weighed") {
  veltrix::virtual_clock clock;
  bool weighs = true;
  int_cache::hooks hooks;
  hooks.weigh = [&](const std::string&, const int&) -> std::uint64_t {
    if (!weighs) throw std::runtime_error("weigher");
    return 1;
  };
  int_cache cache({.max_entries = 4, .ttl = 1s, .stale_if_error = 1h}, clock, std::move(hooks));
  static_cast<void>(cache.put("a", 1));
  clock.advance(1s);
  weighs = false;
  CHECK(*cache.get_or_load("a", [](const std::string&) { return 2; }) == 2);
  // Who was given 2 is not given 1 afterwards.
  CHECK(cache.get_or_load("a", never).outcome() == cache_outcome::failed);
  const auto counts = cache.stats();
  CHECK(counts.loads == 2);
  CHECK(counts.load_failures == 1);
  CHECK(counts.not_stored == 1);
}

TEST_CASE("loading_cache keeps weights near the top of their type apart") {
  constexpr std::uint64_t half = std::uint64_t(1) << 63;
  veltrix::virtual_clock clock;
  int_cache::hooks hooks;
  hooks.weigh = [](const std::string&, const int&) { return half; };
  int_cache cache({.max_entries = 4, .shards = 1}, clock, std::move(hooks));
  CHECK(cache.put("a", 1));
  CHECK(cache.put("a", 2));
  CHECK(cache.put("b", 3));  // both together would be 2^64
  CHECK_FALSE(cache.get("a"));
  CHECK(cache.stats().weight == half);
  CHECK(cache.stats().entries == 1);
}

TEST_CASE("loading_cache lets a reader load what its executor has not begun to refresh") {
  veltrix::virtual_clock clock;
  hand_driven_executor later;
  int_cache cache({.max_entries = 4, .ttl = 10s, .stale_while_revalidate = 5s}, clock, later);
  int calls = 0;
  const auto load = [&calls](const std::string&) { return ++calls; };
  static_cast<void>(cache.get_or_load("a", load));
  clock.advance(12s);
  CHECK(cache.get_or_load("a", load).outcome() == cache_outcome::stale);
  clock.advance(5s);
  // A reader that waited for the executor here would wait for ever if it were its only thread.
  const veltrix::read_options soon{.deadline = std::chrono::steady_clock::now() + 50ms};
  const auto own = cache.get_or_load("a", soon, load);
  CHECK(own.outcome() == cache_outcome::loaded);
  CHECK(own.age() == 0s);
  later.run_all();
  CHECK(calls == 2);  // the refresh has nothing left to do
  CHECK(*cache.get("a") == 2);
  CHECK(cache.stats().refreshes == 0);
}

TEST_CASE("loading_cache ends without waiting for refreshes that have not begun") {
  veltrix::virtual_clock clock;
  hand_driven_executor later;
  int calls = 0;
  const auto load = [&calls](const std::string&) { return ++calls; };
  {
    int_cache cache({.max_entries = 4, .refresh_after = 1s}, clock, later);
    for (const char* const key : {"a", "b"}) {
      static_cast<void>(cache.get_or_load(key, load));
      clock.advance(1s);
      static_cast<void>(cache.get_or_load(key, load));
    }
  }
  REQUIRE(later.waiting.size() == 2);
  CHECK(calls == 2);
  later.waiting.pop_back();  // destroyed unrun
  later.run_all();           // run too late
  CHECK(calls == 2);
}

TEST_CASE("loading_cache counts nothing for a refresh that was refused") {
  veltrix::virtual_clock clock;
  hand_driven_executor later;
  later.refuses = true;
  int_cache cache({.max_entries = 4, .ttl = 10s, .stale_while_revalidate = 5s}, clock, later);
  int calls = 0;
  const auto load = [&calls](const std::string&) { return ++calls; };
  static_cast<void>(cache.get_or_load("a", load));
  clock.advance(12s);
  CHECK(cache.get_or_load("a", load).outcome() == cache_outcome::loaded);
  const auto counts = cache.stats();
  CHECK(counts.stale_served == 0);
  CHECK(counts.refreshes == 0);
  CHECK(counts.misses == 2);
  CHECK(counts.loads == 2);
}

TEST_CASE("loading_cache loads in the reader when the loader cannot be copied") {
  veltrix::virtual_clock clock;
  hand_driven_executor later;
  int_cache cache({.max_entries = 4, .ttl = 10s, .refresh_after = 1s, .stale_while_revalidate = 5s},
                  clock, later);
  const auto load = [&cache](int value) {
    return cache.get_or_load(
        "a", [held = std::make_unique<int>(value)](const std::string&) { return *held; });
  };
  CHECK(*load(1) == 1);
  clock.advance(2s);
  CHECK(load(2).outcome() == cache_outcome::hit);
  clock.advance(10s);
  CHECK(*load(3) == 3);
  CHECK(later.waiting.empty());
  CHECK(cache.stats().stale_served == 0);
}

TEST_CASE("loading_cache may be called by its listener, loader, check, weigher and predicate") {
  veltrix::virtual_clock clock;
  int_cache* reached = nullptr;
  int calls = 0;
  const auto call = [&] {
    ++calls;
    static_cast<void>(reached->get("other"));
    reached->invalidate("other");
    reached->announce(0);
    static_cast<void>(reached->purge());
  };
  int_cache::hooks hooks;
  hooks.weigh = [&](const std::string&, const int&) {
    call();
    return std::uint64_t(1);
  };
  hooks.removed = [&](const std::string&, const std::shared_ptr<const int>&, removal_cause) {
    call();
  };
  int_cache cache({.max_entries = 1}, clock, std::move(hooks));
  reached = &cache;
  const auto load = [&](const std::string&) {
    call();
    return 1;
  };
  const auto check = [&](const std::string&) {
    call();
    return std::uint64_t(1);
  };
  static_cast<void>(cache.get_or_load("a", load));                  // loader, weigher
  static_cast<void>(cache.get_linearizable("b", {}, check, load));  // check, the same, listener
  CHECK(cache.invalidate_if([&](const std::string&, int) {
    call();
    return true;
  }) == 1);  // predicate, listener
  CHECK(calls == 8);
  CHECK(cache.put("a", 1));  // weigher
  CHECK(cache.put("a", 2));  // the same, listener
  CHECK(cache.invalidate("a"));
  CHECK(calls == 12);
}

#if VELTRIX_CHECKED
namespace {

touchy_cache* within = nullptr;

bool told_of(const veltrix_test::ending& seen, const char* text) {
  return seen.aborted && seen.told.find(text) != std::string::npos;
}

}  // namespace

TEST_CASE("loading_cache names both sides when a key's equality calls it in checked builds") {
  const auto seen = veltrix_test::run_to_its_end([] {
    veltrix::virtual_clock clock;
    touchy_cache cache({.max_entries = 4}, clock);
    cache.put(touchy_key(1), 1);
    within = &cache;
    comparisons.instead = [] { static_cast<void>(within->stats()); };
    static_cast<void>(cache.get(touchy_key(1)));
  });
  CHECK(told_of(seen, "loading_cache::stats called by a callback of loading_cache::get"));
}

TEST_CASE("loading_cache names the call that it ended under in checked builds") {
  const auto seen = veltrix_test::run_to_its_end([] {
    veltrix::virtual_clock clock;
    auto* const cache = new int_cache({.max_entries = 4}, clock);
    static_cast<void>(cache->get_or_load("a", [&](const std::string&) {
      delete cache;
      return 1;
    }));
  });
  CHECK(told_of(seen, "loading_cache destroyed while loading_cache::get_or_load runs on it"));
}

TEST_CASE("loading_cache reports the value of a miss and a negative age in checked builds") {
  CHECK(told_of(veltrix_test::run_to_its_end([] {
                  const veltrix::cache_result<int> miss;
                  std::printf("%d", *miss);
                }),
                "the value of a cache_result without one was used"));
  CHECK(told_of(veltrix_test::run_to_its_end([] { static_cast<void>(read_mode::bounded(-1ns)); }),
                "read_mode::bounded with a negative age"));
}
#endif
