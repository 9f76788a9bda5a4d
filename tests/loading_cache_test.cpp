// SPDX-License-Identifier: BSL-1.0
#include "veltrix/loading_cache.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

namespace {

using namespace std::chrono_literals;
using veltrix::cache_outcome;
using veltrix::read_mode;
using veltrix::read_options;
using veltrix::removal_cause;
using veltrix_test::contains;

template <class Value>
using cache_of =
    veltrix::loading_cache<std::string, Value, veltrix::detail::default_hash<std::string>,
                           veltrix::detail::default_equal, veltrix::virtual_clock>;
using int_cache = cache_of<int>;

static_assert(!std::is_copy_constructible_v<int_cache> && !std::is_move_constructible_v<int_cache>);

/// Runs nothing by itself: the test decides when, or never.
class hand_driven_executor {
 public:
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
  std::deque<veltrix::detail::task> waiting;
};

veltrix::inline_executor inline_executor;

int never(const std::string&) {
  throw std::logic_error("the loader must not be called here");
}

std::string message_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& told) {
    return told.what();
  }
}

std::string refusal_of(const veltrix::loading_cache_options& options) {
  try {
    const veltrix::loading_cache<int, int> cache(options);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("loading_cache refuses bounds it cannot keep and names them") {
  CHECK_THAT(refusal_of({}), contains("max_entries: got 0, allowed 1 and up"));
  CHECK_THAT(refusal_of({.max_entries = 1, .max_weight = 0}), contains("max_weight: got 0"));
  CHECK_THAT(refusal_of({.max_entries = 4, .shards = 5}), contains("shards: got 5"));
  CHECK_THAT(refusal_of({.max_entries = 4, .ttl = -1ns}), contains("got -1"));
  CHECK_THAT(refusal_of({.max_entries = 4, .refresh_after = 1s}), contains("without an executor"));
  CHECK_THAT(refusal_of({.max_entries = 4, .stale_while_revalidate = 1s}),
             contains("no cache was built"));
  CHECK(refusal_of({.max_entries = 1}).empty());
}

TEST_CASE("loading_cache loads a missing key once and then serves it") {
  veltrix::virtual_clock clock;
  int_cache cache({.max_entries = 4}, clock);
  CHECK(cache.get("a").outcome() == cache_outcome::miss);
  CHECK_FALSE(cache.get("a"));
  int calls = 0;
  const auto load = [&](const std::string& key) { return ++calls + static_cast<int>(key.size()); };
  const auto first = cache.get_or_load("a", load);
  CHECK(first.outcome() == cache_outcome::loaded);
  CHECK(*first == 2);
  clock.advance(3s);
  const auto second = cache.get_or_load("a", load);
  CHECK(second.outcome() == cache_outcome::hit);
  CHECK(*second == 2);
  CHECK(second.age() == 3s);
  CHECK(second.share() == first.share());
  CHECK(calls == 1);
  const auto counts = cache.stats();
  CHECK(counts.loads == 1);
  CHECK(counts.hits == 1);
  CHECK(counts.misses == 3);
  CHECK(counts.entries == 1);
}

TEST_CASE("loading_cache hands a loader's exception on and stores nothing") {
  veltrix::virtual_clock clock;
  int_cache cache({.max_entries = 4}, clock);
  const auto failed =
      cache.get_or_load("a", [](const std::string&) -> int { throw std::runtime_error("down"); });
  CHECK(failed.outcome() == cache_outcome::failed);
  CHECK_FALSE(failed);
  CHECK(message_of(failed.error()) == "down");
  CHECK_THROWS_WITH(failed.value_or_throw(), "down");
  CHECK_THROWS_WITH(cache.get("a").value_or_throw(), contains("got miss"));
  CHECK(*cache.get_or_load("a", [](const std::string&) { return 7; }) == 7);
  CHECK(cache.stats().load_failures == 1);
}

TEST_CASE("loading_cache evicts the least recently used and tells the listener") {
  veltrix::virtual_clock clock;
  std::vector<std::pair<std::string, removal_cause>> told;
  int_cache::hooks hooks;
  hooks.removed = [&](const std::string& key, const std::shared_ptr<const int>&,
                      removal_cause cause) { told.emplace_back(key, cause); };
  int_cache cache({.max_entries = 2, .shards = 1}, clock, std::move(hooks));
  cache.put("a", 1);
  cache.put("b", 2);
  CHECK(*cache.get("a") == 1);  // b is the least recently used now
  cache.put("c", 3);
  CHECK_FALSE(cache.get("b"));
  CHECK(*cache.get("a") == 1);
  CHECK(*cache.get("c") == 3);
  cache.put("c", 4);
  CHECK(cache.invalidate("c"));
  CHECK_FALSE(cache.invalidate("c"));
  using expected = std::vector<std::pair<std::string, removal_cause>>;
  CHECK(told == expected{{"b", removal_cause::evicted_count},
                         {"c", removal_cause::replaced},
                         {"c", removal_cause::invalidated}});
}

TEST_CASE("loading_cache keeps the sum of weights within its bound") {
  veltrix::virtual_clock clock;
  int_cache::hooks hooks;
  hooks.weigh = [](const std::string&, const int& value) {
    return static_cast<std::uint64_t>(value);
  };
  int_cache cache({.max_entries = 100, .max_weight = 10, .shards = 1}, clock, std::move(hooks));
  CHECK(cache.put("a", 4));
  CHECK(cache.put("b", 4));
  CHECK(cache.put("c", 4));
  CHECK_FALSE(cache.get("a"));
  CHECK(cache.stats().weight == 8);
  // Too heavy for the whole cache: not stored, and the outdated entry is gone.
  CHECK_FALSE(cache.put("b", 11));
  CHECK_FALSE(cache.get("b"));
  CHECK(cache.stats().weight == 4);
  CHECK(cache.stats().not_stored == 1);
  // Replacing changes the weight by the difference.
  CHECK(cache.put("c", 9));
  CHECK(cache.stats().weight == 9);
}

TEST_CASE("loading_cache forgets an entry exactly at its time to live") {
  veltrix::virtual_clock clock;
  int_cache cache({.max_entries = 4, .ttl = 10s}, clock);
  cache.put("a", 1);
  cache.put("b", veltrix::loaded<int>{2, 0, 3s});
  clock.advance(3s - 1ns);
  CHECK(*cache.get("b") == 2);
  clock.advance(1ns);
  CHECK_FALSE(cache.get("b"));
  clock.advance(7s - 1ns);
  CHECK(*cache.get("a") == 1);
  clock.advance(1ns);
  CHECK_FALSE(cache.get("a"));

  int_cache graceful({.max_entries = 4, .ttl = 10s, .stale_if_error = 1h}, clock);
  graceful.put("a", 1);
  clock.advance(10s);  // it is kept for failures, and is no hit
  CHECK_FALSE(graceful.get("a"));
}

TEST_CASE("loading_cache counts a time to live from the beginning of the load") {
  veltrix::virtual_clock clock;
  int_cache cache({.max_entries = 4, .ttl = 10s}, clock);
  static_cast<void>(cache.get_or_load("a", [&](const std::string&) {
    clock.advance(4s);
    return 1;
  }));
  CHECK(cache.get("a").age() == 4s);
  clock.advance(6s);
  CHECK_FALSE(cache.get("a"));
}

TEST_CASE("loading_cache drops an entry that was idle and keeps one that was hit") {
  veltrix::virtual_clock clock;
  int_cache cache({.max_entries = 4, .idle = 5s}, clock);
  cache.put("a", 1);
  cache.put("b", 2);
  clock.advance(4s);
  CHECK(*cache.get("a") == 1);
  clock.advance(1s);
  CHECK_FALSE(cache.get("b"));
  CHECK(*cache.get("a") == 1);
}

TEST_CASE("loading_cache believes that a key is absent for the negative time only") {
  veltrix::virtual_clock clock;
  int_cache cache({.max_entries = 4, .negative_ttl = 2s}, clock);
  int calls = 0;
  const auto load = [&](const std::string&) -> std::optional<int> {
    ++calls;
    return std::nullopt;
  };
  CHECK(cache.get_or_load("a", load).outcome() == cache_outcome::absent);
  CHECK(cache.get_or_load("a", load).outcome() == cache_outcome::absent);
  CHECK(cache.get("a").outcome() == cache_outcome::absent);
  CHECK(calls == 1);
  clock.advance(2s);
  CHECK(cache.get("a").outcome() == cache_outcome::miss);
  static_cast<void>(cache.get_or_load("a", load));
  CHECK(calls == 2);

  int_cache unbelieving({.max_entries = 4}, clock);
  static_cast<void>(unbelieving.get_or_load("a", load));
  static_cast<void>(unbelieving.get_or_load("a", load));
  CHECK(calls == 4);
}

TEST_CASE("loading_cache announce makes older entries stale and newer loads fresh") {
  veltrix::virtual_clock clock;
  int_cache cache({.max_entries = 4}, clock);
  cache.put("a", veltrix::loaded<int>{1, 5});
  cache.announce(5);
  CHECK(*cache.get("a") == 1);
  cache.announce(6);
  cache.announce(4);  // lower: nothing changes
  CHECK_FALSE(cache.get("a"));
  const auto loaded = cache.get_or_load("a", [](const std::string&) { return 2; });
  CHECK(loaded.version() == 6);
  CHECK(*cache.get("a") == 2);
  // An older value does not take the place of a newer one.
  CHECK_FALSE(cache.put("a", veltrix::loaded<int>{1, 5}));
  CHECK(*cache.get("a") == 2);
}

TEST_CASE("loading_cache announce during a load leaves what it brings stale") {
  veltrix::virtual_clock clock;
  int_cache cache({.max_entries = 4}, clock);
  const auto got = cache.get_or_load("a", [&](const std::string&) {
    cache.announce(9);
    return 1;
  });
  CHECK(*got == 1);  // who asked before the announcement is answered
  CHECK_FALSE(cache.get("a"));
}

TEST_CASE("loading_cache invalidate during a load is not undone by it") {
  veltrix::virtual_clock clock;
  int_cache cache({.max_entries = 4}, clock);
  const auto undoes = [&](auto invalidate) {
    const auto got = cache.get_or_load("a", [&](const std::string&) {
      invalidate();
      return 1;
    });
    CHECK(*got == 1);
    return static_cast<bool>(cache.get("a"));
  };
  CHECK_FALSE(undoes([&] { cache.invalidate("a"); }));
  CHECK_FALSE(undoes([&] { cache.invalidate_all(); }));
  CHECK_FALSE(undoes([&] { cache.invalidate_if([](const std::string&, int) { return true; }); }));
  CHECK(cache.stats().not_stored == 3);
  // A put during the load stays, too.
  static_cast<void>(cache.get_or_load("a", [&](const std::string&) {
    cache.put("a", 42);
    return 1;
  }));
  CHECK(*cache.get("a") == 42);
}

TEST_CASE("loading_cache put without a version counts as the newest") {
  veltrix::virtual_clock clock;
  int_cache cache({.max_entries = 4}, clock);
  CHECK(cache.put("a", veltrix::loaded<int>{1, 7}));
  CHECK(cache.put("a", 2));
  CHECK(*cache.get("a") == 2);
  // But it proves no version: who insists on one loads.
  const auto checked = cache.get_linearizable(
      "a", {}, [](const std::string&) { return std::uint64_t(7); },
      [](const std::string&) { return 3; });
  CHECK(checked.outcome() == cache_outcome::loaded);
  CHECK(checked.version() == 7);
  // So does a load without a version after one with it.
  cache.invalidate_all();
  CHECK(*cache.get_or_load("a", [](const std::string&) { return 4; }) == 4);
  CHECK(*cache.get("a") == 4);
}

TEST_CASE("loading_cache put that is refused lets the load under way store") {
  veltrix::virtual_clock clock;
  int_cache cache({.max_entries = 4, .refresh_after = 1s}, clock, inline_executor);
  cache.put("a", veltrix::loaded<int>{1, 5});
  clock.advance(1s);
  static_cast<void>(cache.get_or_load("a", [&](const std::string&) {
    CHECK_FALSE(cache.put("a", veltrix::loaded<int>{0, 4}));
    return veltrix::loaded<int>{2, 6};
  }));
  CHECK(*cache.get("a") == 2);
}

TEST_CASE("loading_cache gives no place to what nobody may be served") {
  veltrix::virtual_clock clock;
  int_cache cache({.max_entries = 2, .shards = 1, .ttl = 10s}, clock);
  cache.put("a", 1);
  cache.put("b", 2);
  const auto absent = [](const std::string&) -> std::optional<int> { return std::nullopt; };
  CHECK(cache.get_or_load("c", absent).outcome() == cache_outcome::absent);
  CHECK_FALSE(cache.put("c", veltrix::loaded<int>{3, 0, 0s}));
  static_cast<void>(cache.get_or_load("c", [&](const std::string&) {
    clock.advance(10s);  // the load took as long as its value is good for
    cache.put("a", 1);
    cache.put("b", 2);
    return 3;
  }));
  CHECK(cache.stats().entries == 2);
  CHECK(cache.stats().evicted == 0);
  CHECK(cache.stats().not_stored == 3);
  CHECK(*cache.get("a") == 1);
  CHECK(*cache.get("b") == 2);
  // What took its place in the world is gone, though.
  CHECK(cache.get_or_load("a", {.mode = read_mode::at_least(1)}, absent).outcome() ==
        cache_outcome::absent);
  CHECK_FALSE(cache.get("a"));
}

TEST_CASE("loading_cache counts the grace of an entry from the first announcement it missed") {
  veltrix::virtual_clock clock;
  int_cache cache({.max_entries = 4, .stale_if_error = 10s}, clock);
  cache.put("a", 1);
  for (std::uint64_t version = 1; version <= 9; ++version) {
    cache.announce(version);
    CHECK(cache.get_or_load("a", never).outcome() == cache_outcome::stale);
    clock.advance(1s);
  }
  cache.put("b", 2);  // at version 9
  clock.advance(1s - 1ns);
  cache.announce(10);
  CHECK(cache.get_or_load("a", never).outcome() == cache_outcome::stale);
  clock.advance(1ns);
  CHECK(cache.get_or_load("a", never).outcome() == cache_outcome::failed);
  CHECK(cache.get_or_load("b", never).outcome() == cache_outcome::stale);
  clock.advance(10s - 1ns);
  CHECK(cache.get_or_load("b", never).outcome() == cache_outcome::failed);
}

TEST_CASE("loading_cache tells why each entry left, invalidated ones included") {
  veltrix::virtual_clock clock;
  std::vector<removal_cause> told;
  int_cache::hooks hooks;
  hooks.removed = [&](const std::string&, const std::shared_ptr<const int>&, removal_cause cause) {
    told.push_back(cause);
  };
  int_cache cache({.max_entries = 4, .ttl = 5s}, clock, std::move(hooks));
  cache.put("a", 1);
  cache.put("b", 2);
  cache.invalidate_all();
  CHECK(cache.stats().entries == 2);  // their memory comes back later
  CHECK(cache.invalidate_if([](const std::string&, int) { return true; }) == 0);
  CHECK_FALSE(cache.invalidate("a"));  // nobody could have read it any more
  CHECK(cache.purge() == 1);
  cache.put("c", 3);
  clock.advance(5s);
  CHECK(cache.purge() == 1);
  using enum removal_cause;
  CHECK(told == std::vector{invalidated, invalidated, expired});
}

TEST_CASE("loading_cache keeps bounds that its shards cannot share evenly") {
  veltrix::virtual_clock clock;
  int_cache::hooks hooks;
  hooks.weigh = [](const std::string&, const int& value) {
    return static_cast<std::uint64_t>(value);
  };
  int_cache cache({.max_entries = 7, .max_weight = 11, .shards = 3}, clock, std::move(hooks));
  std::uint64_t most_entries = 0;
  std::uint64_t most_weight = 0;
  for (int weight = 1; weight <= 3; ++weight) {
    for (int i = 0; i < 200; ++i) {
      cache.put("k" + std::to_string(i), weight);
      const auto now = cache.stats();
      most_entries = std::max<std::uint64_t>(most_entries, now.entries);
      most_weight = std::max(most_weight, now.weight);
    }
  }
  CHECK(most_entries == 7);
  CHECK(most_weight >= 9);
  CHECK(most_weight <= 11);
  // No shard's share is more than 4.
  for (int i = 0; i < 20; ++i)
    CHECK_FALSE(cache.put("k" + std::to_string(i), 5));
}

TEST_CASE("loading_cache takes for ever and never as durations") {
  veltrix::virtual_clock clock;
  constexpr auto for_ever = veltrix::duration::max();
  int_cache cache({.max_entries = 4,
                   .ttl = 1s,
                   .idle = for_ever,
                   .negative_ttl = for_ever,
                   .stale_if_error = for_ever},
                  clock);
  static_cast<void>(cache.get_or_load(
      "none", [](const std::string&) -> std::optional<int> { return std::nullopt; }));
  cache.put("a", 1);
  clock.advance(std::chrono::hours(24 * 365 * 100));
  CHECK(cache.get("none").outcome() == cache_outcome::absent);
  CHECK(cache.get_or_load("a", never).outcome() == cache_outcome::stale);
  CHECK(cache.get_or_load("a", {.mode = read_mode::bounded(for_ever)}, never).outcome() ==
        cache_outcome::stale);
  int_cache nothing_stays({.max_entries = 4, .idle = 0s}, clock);
  CHECK_FALSE(nothing_stays.put("a", 1));
  CHECK(nothing_stays.stats().entries == 0);
}

TEST_CASE("loading_cache invalidate_if removes what the predicate names") {
  veltrix::virtual_clock clock;
  int_cache cache({.max_entries = 100, .shards = 4}, clock);
  for (int i = 0; i < 20; ++i)
    cache.put("k" + std::to_string(i), i);
  const auto odd = [](const std::string&, int value) { return value % 2 == 1; };
  CHECK(cache.invalidate_if(odd) == 10);
  for (int i = 0; i < 20; ++i) {
    CHECK(static_cast<bool>(cache.get("k" + std::to_string(i))) == (i % 2 == 0));
  }
  CHECK(cache.invalidate_if(odd) == 0);
  cache.invalidate_all();
  CHECK_FALSE(cache.get("k0"));
  CHECK(cache.purge() == 9);  // k0 was met and removed
  CHECK(cache.stats().entries == 0);
}

TEST_CASE("loading_cache takes a key that can be copied and not assigned") {
  struct fixed_key {
    const int id;
    bool operator==(const fixed_key&) const = default;
  };
  struct fixed_hash {
    std::size_t operator()(const fixed_key& key) const { return static_cast<std::size_t>(key.id); }
  };
  static_assert(!std::is_copy_assignable_v<fixed_key>);
  veltrix::loading_cache<fixed_key, int, fixed_hash> cache({.max_entries = 8});
  for (int id = 0; id < 4; ++id)
    cache.put({id}, id);
  CHECK(cache.invalidate_if([](const fixed_key& key, int) { return key.id < 3; }) == 3);
  CHECK(*cache.get({3}) == 3);
  CHECK(cache.invalidate({3}));
}

TEST_CASE("loading_cache bounded mode refuses what is older than asked") {
  veltrix::virtual_clock clock;
  int_cache cache({.max_entries = 4, .stale_if_error = 1h}, clock);
  cache.put("a", 1);
  clock.advance(5s);
  const read_options young{.mode = read_mode::bounded(4s)};
  const read_options old{.mode = read_mode::bounded(5s)};
  CHECK(*cache.get_or_load("a", old, never) == 1);
  const auto failed = cache.get_or_load("a", young, never);
  CHECK(failed.outcome() == cache_outcome::failed);  // the old value is not served instead
  CHECK(*cache.get_or_load("a", young, [](const std::string&) { return 2; }) == 2);
}

TEST_CASE("loading_cache linearizable reads never serve an older version") {
  veltrix::virtual_clock clock;
  int_cache cache({.max_entries = 4, .stale_if_error = 1h}, clock);
  cache.put("a", veltrix::loaded<int>{1, 3});
  const auto at = [](std::uint64_t version) {
    return [version](const std::string&) { return version; };
  };
  CHECK(*cache.get_linearizable("a", {}, at(3), never) == 1);
  const auto newer = cache.get_linearizable(
      "a", {}, at(4), [](const std::string&) { return veltrix::loaded<int>{2, 4}; });
  CHECK(*newer == 2);
  CHECK(newer.version() == 4);
  // A source that answers with less than it told is an error, not a value.
  const auto behind = cache.get_linearizable(
      "a", {}, at(9), [](const std::string&) { return veltrix::loaded<int>{3, 5}; });
  CHECK(behind.outcome() == cache_outcome::failed);
  CHECK_THAT(message_of(behind.error()), contains("got 5, allowed at least 9"));
  // A check that fails, and a load that fails, are errors, too.
  const auto unchecked = cache.get_linearizable(
      "a", {}, [](const std::string&) -> std::uint64_t { throw std::runtime_error("no quorum"); },
      never);
  CHECK(message_of(unchecked.error()) == "no quorum");
  CHECK(cache.get_linearizable("a", {}, at(99), never).outcome() == cache_outcome::failed);
}

TEST_CASE("loading_cache serves stale on error within its time and no longer") {
  veltrix::virtual_clock clock;
  int_cache cache({.max_entries = 4, .ttl = 10s, .stale_if_error = 5s}, clock);
  cache.put("a", 1);
  clock.advance(12s);
  CHECK_FALSE(cache.get("a"));
  const auto stale = cache.get_or_load("a", never);
  CHECK(stale.outcome() == cache_outcome::stale);
  CHECK(*stale == 1);
  CHECK(stale.age() == 12s);
  CHECK(stale.error() != nullptr);
  clock.advance(3s);
  CHECK(cache.get_or_load("a", never).outcome() == cache_outcome::failed);
  CHECK(cache.stats().stale_served == 1);
}

TEST_CASE("loading_cache serves stale on error no longer because it may revalidate longer") {
  veltrix::virtual_clock clock;
  hand_driven_executor later;
  int_cache cache(
      {.max_entries = 4, .ttl = 10s, .stale_while_revalidate = 1h, .stale_if_error = 5s}, clock,
      later);
  cache.put("a", 1);
  const auto read = [&] {  // with a loader that cannot be copied, so that it runs here and now
    return cache
        .get_or_load("a",
                     [alone = std::make_unique<int>()](const std::string&) -> int {
                       throw std::runtime_error("no source");
                     })
        .outcome();
  };
  clock.advance(15s - 1ns);
  CHECK(read() == cache_outcome::stale);
  clock.advance(1ns);
  CHECK(read() == cache_outcome::failed);
}

TEST_CASE("loading_cache refreshes an old hit in the background") {
  veltrix::virtual_clock clock;
  hand_driven_executor later;
  int_cache cache({.max_entries = 4, .refresh_after = 5s}, clock, later);
  int calls = 0;
  const auto load = [&calls](const std::string&) { return ++calls; };
  CHECK(*cache.get_or_load("a", load) == 1);
  clock.advance(5s);
  CHECK(*cache.get_or_load("a", load) == 1);  // served at once
  CHECK(*cache.get_or_load("a", load) == 1);  // and refreshed once
  REQUIRE(later.waiting.size() == 1);
  later.run_all();
  CHECK(*cache.get_or_load("a", load) == 2);
  CHECK(calls == 2);
  CHECK(cache.stats().refreshes == 1);
}

TEST_CASE("loading_cache serves stale while it revalidates") {
  veltrix::virtual_clock clock;
  hand_driven_executor later;
  int_cache cache({.max_entries = 4, .ttl = 10s, .stale_while_revalidate = 5s}, clock, later);
  int calls = 0;
  const auto load = [&calls](const std::string&) { return ++calls; };
  static_cast<void>(cache.get_or_load("a", load));
  clock.advance(12s);
  CHECK(cache.get_or_load("a", load).outcome() == cache_outcome::stale);
  later.run_all();
  const auto fresh = cache.get_or_load("a", load);
  CHECK(fresh.outcome() == cache_outcome::hit);
  CHECK(*fresh == 2);
  clock.advance(15s);
  CHECK(cache.get_or_load("a", load).outcome() == cache_outcome::loaded);  // too stale to serve
}

TEST_CASE("loading_cache loads by itself when the executor refuses or drops the refresh") {
  veltrix::virtual_clock clock;
  hand_driven_executor later;
  int_cache cache({.max_entries = 4, .ttl = 10s, .stale_while_revalidate = 5s}, clock, later);
  int calls = 0;
  const auto load = [&calls](const std::string&) { return ++calls; };
  static_cast<void>(cache.get_or_load("a", load));
  clock.advance(12s);
  later.refuses = true;
  const auto own = cache.get_or_load("a", load);
  CHECK(own.outcome() == cache_outcome::loaded);
  CHECK(*own == 2);
  later.refuses = false;
  clock.advance(12s);
  CHECK(cache.get_or_load("a", load).outcome() == cache_outcome::stale);
  later.waiting.clear();  // destroyed unrun: nobody may wait for it for ever
  const auto again = cache.get_or_load("a", load);
  CHECK(again.outcome() == cache_outcome::stale);
  later.run_all();
  CHECK(*cache.get_or_load("a", load) == 3);
}

TEST_CASE("loading_cache refuses a loader that asks for its own key") {
  veltrix::virtual_clock clock;
  int_cache cache({.max_entries = 4}, clock);
  cache_outcome inner = cache_outcome::hit;
  std::string told;
  const auto outer = cache.get_or_load("a", [&](const std::string&) {
    const auto own = cache.get_or_load("a", never);
    inner = own.outcome();
    told = message_of(own.error());
    return *cache.get_or_load("b", [](const std::string&) { return 5; });  // another key is fine
  });
  CHECK(*outer == 5);
  CHECK(inner == cache_outcome::failed);
  CHECK_THAT(told, contains("must not ask for its own key"));
}

TEST_CASE("loading_cache gives up waiting for another's load at the deadline and by token") {
  veltrix::virtual_clock clock;
  int_cache cache({.max_entries = 4}, clock);
  veltrix::stop_source stop;
  std::optional<cache_outcome> late;
  std::optional<cache_outcome> stopped;
  const auto got = cache.get_or_load("a", [&](const std::string&) {
    std::thread other([&] {
      late = cache.get_or_load("a", {.deadline = std::chrono::steady_clock::now() + 1ms}, never)
                 .outcome();
      stop.request_stop();
      stopped = cache.get_or_load("a", {.token = stop.get_token()}, never).outcome();
    });
    other.join();
    return 1;
  });
  CHECK(*got == 1);  // the load went on
  CHECK(late == cache_outcome::timed_out);
  CHECK(stopped == cache_outcome::stopped);
}

TEST_CASE("loading_cache lets nobody join a load that may bring less than was asked for") {
  veltrix::virtual_clock clock;
  int_cache cache({.max_entries = 4}, clock);
  // What a reader in another thread gets that comes after `event`, while a load goes on.
  const auto meanwhile = [&](auto event, read_mode mode) {
    cache.invalidate("a");
    std::optional<cache_outcome> seen;
    const auto own = cache.get_or_load("a", [&](const std::string&) {
      event();
      std::thread other([&] {
        const auto soon = std::chrono::steady_clock::now() + 1ms;
        const auto got = cache.get_or_load("a", {.mode = mode, .deadline = soon},
                                           [](const std::string&) { return 2; });
        seen = got.outcome();
      });
      other.join();
      return 1;
    });
    CHECK(*own == 1);
    return seen;
  };
  const auto nothing = [] {};
  const auto all = [](const std::string&, int) { return true; };
  const read_mode any = read_mode::snapshot();
  CHECK(meanwhile(nothing, any) == cache_outcome::timed_out);  // it joined
  CHECK(meanwhile([&] { cache.announce(9); }, any) == cache_outcome::loaded);
  CHECK(meanwhile([&] { cache.announce(8); }, any) == cache_outcome::timed_out);
  CHECK(meanwhile([&] { cache.invalidate("a"); }, any) == cache_outcome::loaded);
  CHECK(meanwhile([&] { cache.invalidate("b"); }, any) == cache_outcome::timed_out);
  CHECK(meanwhile([&] { cache.invalidate_all(); }, any) == cache_outcome::loaded);
  CHECK(meanwhile([&] { cache.invalidate_if(all); }, any) == cache_outcome::loaded);
  const auto five_seconds = [&] { clock.advance(5s); };
  CHECK(meanwhile(five_seconds, read_mode::bounded(5s)) == cache_outcome::timed_out);
  CHECK(meanwhile(five_seconds, read_mode::bounded(5s - 1ns)) == cache_outcome::loaded);
}

TEST_CASE("loading_cache loads for a reader whose joined load brought an older version") {
  veltrix::virtual_clock clock;
  int_cache cache({.max_entries = 4}, clock);
  std::optional<std::uint64_t> version;
  std::thread other;
  const auto old = cache.get_or_load("a", [&](const std::string&) {
    other = std::thread([&] {
      version = cache
                    .get_or_load("a", {.mode = read_mode::at_least(5)},
                                 [](const std::string&) { return veltrix::loaded<int>{2, 6}; })
                    .version();
    });
    while (cache.stats().joined == 0)
      std::this_thread::yield();
    return veltrix::loaded<int>{1, 4};
  });
  other.join();
  CHECK(old.version() == 4);
  CHECK(version == 6);
  CHECK(*cache.get("a") == 2);
}

TEST_CASE("loading_cache invalidate_if spares what was stored since it looked") {
  veltrix::virtual_clock clock;
  int_cache cache({.max_entries = 4}, clock);
  cache.put("a", 1);
  CHECK(cache.invalidate_if([&](const std::string& key, int) {
    cache.put(key, 2);
    return true;
  }) == 0);
  CHECK(*cache.get("a") == 2);
}

TEST_CASE("loading_cache does not refresh what was invalidated before it came to it") {
  veltrix::virtual_clock clock;
  hand_driven_executor later;
  int_cache cache({.max_entries = 4, .refresh_after = 1s}, clock, later);
  int calls = 0;
  const auto load = [&calls](const std::string&) { return ++calls; };
  static_cast<void>(cache.get_or_load("a", load));
  clock.advance(1s);
  static_cast<void>(cache.get_or_load("a", load));
  cache.invalidate_all();
  later.run_all();
  CHECK(calls == 1);
  CHECK(cache.stats().refreshes == 0);
}

TEST_CASE("loading_cache counts what a listener throws and goes on") {
  veltrix::virtual_clock clock;
  int_cache::hooks hooks;
  hooks.removed = [](const std::string&, const std::shared_ptr<const int>&, removal_cause) {
    throw std::runtime_error("listener");
  };
  int_cache cache({.max_entries = 1}, clock, std::move(hooks));
  cache.put("a", 1);
  cache.put("b", 2);
  CHECK(*cache.get("b") == 2);
  CHECK(cache.stats().listener_failures == 1);
}

TEST_CASE("loading_cache answers a load whose value the weigher cannot weigh") {
  veltrix::virtual_clock clock;
  int_cache::hooks hooks;
  hooks.weigh = [](const std::string&, const int&) -> std::uint64_t {
    throw std::runtime_error("weigher");
  };
  int_cache cache({.max_entries = 4}, clock, std::move(hooks));
  CHECK(*cache.get_or_load("a", [](const std::string&) { return 1; }) == 1);
  CHECK_FALSE(cache.get("a"));
  CHECK(cache.stats().not_stored == 1);
  CHECK(*cache.get_or_load("a", [](const std::string&) { return 2; }) == 2);  // no flight was left
}

TEST_CASE("loading_cache holds values that only move, and keeps them alive in results") {
  veltrix::virtual_clock clock;
  cache_of<std::unique_ptr<int>> cache({.max_entries = 1}, clock);
  auto held = cache.get_or_load("a", [](const std::string&) { return std::make_unique<int>(5); });
  cache.invalidate_all();
  cache.put("b", std::make_unique<int>(6));
  CHECK(**held == 5);
}

TEST_CASE("loading_cache survives the failure of each single allocation of a load") {
  const std::string key(40, 'k');  // too long to be held inside the string
  veltrix::virtual_clock clock;
  int attempts = 0;
  for (int granted = 0;; ++granted) {
    ++attempts;
    REQUIRE(granted < 100);
    int_cache cache({.max_entries = 4}, clock);
    static_cast<void>(cache.put("other", 7));
    veltrix_test::allocations_left = granted;
    cache_outcome outcome = cache_outcome::miss;
    try {
      outcome = cache.get_or_load(key, [](const std::string&) { return 1; }).outcome();
    } catch (const std::bad_alloc&) {
      outcome = cache_outcome::failed;
    }
    veltrix_test::allocations_left = -1;
    const bool stored = static_cast<bool>(cache.get(key));
    CHECK((outcome == cache_outcome::loaded || !stored));
    CHECK(*cache.get("other") == 7);
    // No flight was left behind: the next one loads, or finds what was stored.
    CHECK(*cache.get_or_load(key, [](const std::string&) { return 1; }) == 1);
    CHECK(static_cast<bool>(cache.get(key)));
    if (stored) break;
  }
  CHECK(attempts > 4);
}

TEST_CASE("loading_cache put keeps the old entry when an allocation fails") {
  const std::string key(40, 'k');
  veltrix::virtual_clock clock;
  int_cache cache({.max_entries = 4}, clock);
  static_cast<void>(cache.put(key, 1));
  const int failed = veltrix_test::fail_each_allocation(
      [&] { static_cast<void>(cache.put(key, 2)); }, [&] { CHECK(*cache.get(key) == 1); });
  CHECK(failed >= 2);
  CHECK(*cache.get(key) == 2);
}

// ---- against a plain model ----------------------------------------------------------------------

namespace {

/// What the cache with one shard must do, in the plainest words.
struct plain_model {
  struct kept {
    int value;
    std::chrono::nanoseconds read_at;
    std::chrono::nanoseconds used_at;
    std::uint64_t version;
  };
  std::size_t bound;
  std::chrono::nanoseconds ttl;
  std::chrono::nanoseconds idle;
  std::map<std::string, kept> entries{};
  std::list<std::string> order{};  // front: most recently used
  std::uint64_t floor = 0;

  void drop(const std::string& key) {
    entries.erase(key);
    order.remove(key);
  }
  kept* fresh(const std::string& key, std::chrono::nanoseconds now) {
    const auto found = entries.find(key);
    if (found == entries.end()) return nullptr;
    kept& held = found->second;
    if (now >= held.used_at + idle || now >= held.read_at + ttl || held.version < floor) {
      drop(key);  // without a grace, what is stale is gone when it is met
      return nullptr;
    }
    return &held;
  }
  std::optional<int> get(const std::string& key, std::chrono::nanoseconds now) {
    kept* const held = fresh(key, now);
    if (held == nullptr) return std::nullopt;
    held->used_at = now;
    order.remove(key);
    order.push_front(key);
    return held->value;
  }
  bool put(const std::string& key, int value, std::uint64_t version, std::chrono::nanoseconds now) {
    const kept* const held = fresh(key, now);
    if (version != 0 && held != nullptr && held->version > version) return false;
    if (version != 0 && version < floor) return false;  // stale before it was stored
    if (version == 0) version = floor;
    drop(key);
    entries[key] = {value, now, now, version};
    order.push_front(key);
    while (entries.size() > bound)
      drop(std::string(order.back()));
    return true;
  }
};

}  // namespace

TEST_CASE("loading_cache does what a plain model does over random operations") {
  const std::uint64_t seed = GENERATE(1u, 2u, 3u, 4u);
  CAPTURE(seed);
  veltrix_test::random_source random(seed);
  veltrix::virtual_clock clock;
  const auto start = clock.now();
  int_cache cache({.max_entries = 8, .shards = 1, .ttl = 50s, .idle = 20s}, clock);
  plain_model model{.bound = 8, .ttl = 50s, .idle = 20s};
  int next_value = 0;
  for (int step = 0; step < 20'000; ++step) {
    CAPTURE(step);
    const std::string key = "k" + std::to_string(random.below(16));
    const std::chrono::nanoseconds now = clock.now() - start;
    switch (random.below(10)) {
      case 0: clock.advance(std::chrono::seconds(random.below(8))); break;
      case 1: {
        const std::uint64_t version = random.below(4) == 0 ? model.floor + random.below(4) : 0;
        const int value = ++next_value;
        const bool stored = cache.put(key, veltrix::loaded<int>{value, version});
        REQUIRE(stored == model.put(key, value, version, now));
        break;
      }
      case 2: {
        const bool was_there = model.fresh(key, now) != nullptr;
        REQUIRE(cache.invalidate(key) == was_there);
        model.drop(key);
        break;
      }
      case 3:
        if (random.below(20) == 0) {
          cache.announce(++model.floor);
        } else if (random.below(20) == 0) {
          cache.invalidate_all();
          cache.purge();
          model.entries.clear();
          model.order.clear();
        }
        break;
      case 4:
      case 5: {
        const auto expected = model.get(key, now);
        const auto got = cache.get(key);
        REQUIRE(static_cast<bool>(got) == expected.has_value());
        if (expected) REQUIRE(*got == *expected);
        break;
      }
      default: {
        auto expected = model.get(key, now);
        const int value = ++next_value;
        const auto got = cache.get_or_load(key, [&](const std::string&) { return value; });
        REQUIRE(got.outcome() == (expected ? cache_outcome::hit : cache_outcome::loaded));
        REQUIRE(*got == expected.value_or(value));
        if (!expected) model.put(key, value, 0, now);
      }
    }
    REQUIRE(cache.stats().entries == model.entries.size());
  }
}
