// concurrent_map: every operation on one key is linearizable (I1 of the header). Four threads on
// few keys, recorded and checked round by round; see support/linearizability.hpp.
// SPDX-License-Identifier: BSL-1.0
#include "veltrix/concurrent_map.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <thread>

#include "support/catch.hpp"
#include "support/lin_rounds.hpp"
#include "support/random.hpp"
#include "support/scale.hpp"
#include "support/sequential_specs.hpp"

namespace {

using namespace veltrix_test;
using veltrix::concurrent_map_change;
using veltrix::concurrent_map_options;

using number_map = veltrix::concurrent_map<std::uint64_t, std::uint64_t>;
using number = std::optional<std::uint64_t>;
using input = map_spec::input;
using answer = map_spec::answer;

/// In some callbacks the thread gives its core away, so that the others find the lock taken.
void maybe_yield(std::uint64_t luck) {
  if (luck % 16 == 0) std::this_thread::yield();
}

map_change change(concurrent_map_change done) {
  switch (done) {
    case concurrent_map_change::unchanged: return map_change::unchanged;
    case concurrent_map_change::inserted: return map_change::inserted;
    case concurrent_map_change::replaced: return map_change::replaced;
    case concurrent_map_change::erased: return map_change::erased;
  }
  return map_change::unchanged;
}

answer changed_if(bool done, map_change what) {
  return {done ? what : map_change::unchanged, {}};
}

answer look_up(number_map& map, const input& asked, std::uint64_t luck) {
  number shown;
  switch (luck % 3) {
    case 0: return {map_change::unchanged, map.get(asked.key)};
    case 1:
      if (const auto held = map.find(asked.key)) shown = *held;
      return {map_change::unchanged, shown};
    default:
      map.visit(asked.key, [&](const std::uint64_t& value) { shown = value; });
      return {map_change::unchanged, shown};
  }
}

answer insert(number_map& map, const input& asked, std::uint64_t luck) {
  switch (luck % 3) {
    case 0: return changed_if(map.insert(asked.key, asked.value), map_change::inserted);
    case 1: return changed_if(map.try_emplace(asked.key, asked.value), map_change::inserted);
    default: return changed_if(map.emplace(asked.key, asked.value), map_change::inserted);
  }
}

answer erase_below(number_map& map, const input& asked, std::uint64_t luck) {
  number shown;
  const std::size_t erased = map.erase_if(asked.key, [&](const std::uint64_t& value) {
    maybe_yield(luck);
    shown = value;
    return value < asked.value;
  });
  return {erased == 0 ? map_change::unchanged : map_change::erased, shown};
}

/// update and upsert: the value before, and then more of it.
answer add(number_map& map, const input& asked, std::uint64_t luck) {
  number shown;
  const auto more = [&](std::uint64_t& value) {
    maybe_yield(luck);
    shown = value;
    value += asked.value;
  };
  if (asked.call == map_call::upsert) {
    const map_change done = change(map.upsert(asked.key, asked.value, more));
    return {done, shown};
  }
  return {map.update(asked.key, more) ? map_change::replaced : map_change::unchanged, shown};
}

answer compute(number_map& map, const input& asked, std::uint64_t luck) {
  number shown;
  const map_change done = change(map.compute(asked.key, [&](number& value) {
    maybe_yield(luck);
    shown = value;
    const std::uint64_t sum = value.value_or(0) + asked.value;
    value = sum % 2 == 0 ? number(sum) : number();
  }));
  return {done, shown};
}

answer get_or_emplace(number_map& map, const input& asked, std::uint64_t luck) {
  const auto made = map.get_or_emplace(asked.key, [&] {
    maybe_yield(luck);
    return asked.value;
  });
  return {made.inserted ? map_change::inserted : map_change::unchanged, *made.entry};
}

answer ask(number_map& map, const input& asked, std::uint64_t luck) {
  switch (asked.call) {
    case map_call::get: return look_up(map, asked, luck);
    case map_call::contains:
      return {map_change::unchanged, map.contains(asked.key) ? number(1) : number()};
    case map_call::insert: return insert(map, asked, luck);
    case map_call::assign: return {change(map.insert_or_assign(asked.key, asked.value)), {}};
    case map_call::erase: return changed_if(map.erase(asked.key) != 0, map_change::erased);
    case map_call::erase_below: return erase_below(map, asked, luck);
    case map_call::update:
    case map_call::upsert: return add(map, asked, luck);
    case map_call::compute: return compute(map, asked, luck);
    case map_call::get_or_emplace: return get_or_emplace(map, asked, luck);
  }
  return {};
}

void any_call(number_map& map, recorder_of<map_spec>::log& log, random_source& random) {
  const input asked{static_cast<map_call>(random.below(10)), random.below(3), random.next() >> 40};
  const std::uint64_t luck = random.next() >> 8;
  log.record(asked, [&] { return ask(map, asked, luck); });
}

}  // namespace

TEST_CASE("concurrent_map operations on one key are linearizable, all of them together") {
  const rounds_options options{.calls = 200, .rounds = scale(2'000), .seed = 71};
  const auto result = run_rounds(
      map_spec{}, options,
      [] { return std::make_unique<number_map>(concurrent_map_options{.shards = 2}); }, any_call);
  result.print("concurrent_map, all operations, clock");
  INFO("seed " << options.seed);
  REQUIRE(result.last.answer == verdict::linearizable);
  REQUIRE(result.overlapping > result.operations / 4);
  REQUIRE(result.operations == result.rounds * options.threads * options.calls);
}

TEST_CASE("concurrent_map operations on one key are linearizable by a counter's stamps") {
  const rounds_options options{
      .calls = 200, .rounds = scale(1'000), .seed = 72, .source = stamp_source::counter};
  const auto result = run_rounds(
      map_spec{}, options,
      [] { return std::make_unique<number_map>(concurrent_map_options{.shards = 1}); }, any_call);
  result.print("concurrent_map, all operations, counter");
  INFO("seed " << options.seed);
  REQUIRE(result.last.answer == verdict::linearizable);
  REQUIRE(result.overlapping > result.operations / 4);
}

TEST_CASE("concurrent_map operations on one key are linearizable while tables grow and shrink") {
  // Other keys come and go in the same shard, so that its table is built anew again and again.
  const rounds_options options{.threads = 3, .calls = 200, .rounds = scale(1'000), .seed = 73};
  const auto result = run_rounds(
      map_spec{}, options,
      [] { return std::make_unique<number_map>(concurrent_map_options{.shards = 1}); },
      [](number_map& map, recorder_of<map_spec>::log& log, random_source& random) {
        any_call(map, log, random);
        const std::uint64_t other = 1000 + random.below(200);
        if (random.below(3) != 0) {
          map.insert(other, 1);
        } else if (random.below(20) == 0) {
          map.erase_if([](const std::uint64_t& key, const std::uint64_t&) { return key >= 1000; });
          map.rehash(0);
        }
      });
  result.print("concurrent_map, with rehashes");
  INFO("seed " << options.seed);
  REQUIRE(result.last.answer == verdict::linearizable);
  REQUIRE(result.overlapping > result.operations / 4);
}

TEST_CASE("concurrent_map erase_if over all keys is linearizable for each of them") {
  // A walk is one erasure per key, each at a moment of its own inside the call.
  const rounds_options options{
      .calls = 100, .rounds = scale(1'000), .calls_per_step = 3, .seed = 74};
  const auto result = run_rounds(
      map_spec{}, options,
      [] { return std::make_unique<number_map>(concurrent_map_options{.shards = 2}); },
      [](number_map& map, recorder_of<map_spec>::log& log, random_source& random) {
        if (random.below(8) != 0) return any_call(map, log, random);
        std::array<number, 3> erased{};
        std::array<recorder_of<map_spec>::event*, 3> calls{};
        for (std::uint64_t key = 0; key < calls.size(); ++key)
          calls[key] = &log.call({map_call::erase_below, key, ~std::uint64_t{0}});
        map.erase_if([&](const std::uint64_t& key, const std::uint64_t& value) {
          erased[key] = value;
          return true;
        });
        for (std::size_t key = 0; key < calls.size(); ++key) {
          const auto done = erased[key] ? map_change::erased : map_change::unchanged;
          log.answered(*calls[key], {done, erased[key]});
        }
      });
  result.print("concurrent_map, with erase_if over all");
  INFO("seed " << options.seed);
  REQUIRE(result.last.answer == verdict::linearizable);
  REQUIRE(result.overlapping > result.operations / 4);
}
