// concurrent_map: every operation on one key is linearizable (I1 of the header). Four threads on
// few keys, recorded and checked round by round; see support/linearizability.hpp.
// SPDX-License-Identifier: BSL-1.0
#include "veltrix/concurrent_map.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
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

/// Two words that must agree: a mix of two values is no value.
struct sealed_number {
  std::uint64_t number = 0;
  std::uint64_t seal = ~std::uint64_t{0};
};

/// The same, but it does not copy bytewise.
struct sealed_object : sealed_number {
  sealed_object() = default;
  sealed_object(const sealed_object& other) noexcept : sealed_number(other) {}
  sealed_object& operator=(const sealed_object&) = default;
};

/// A key that does not fit into a slot.
struct long_key {
  long_key(std::uint64_t named) : name(named) {}  // as implicit as a number is
  bool operator==(const long_key&) const = default;
  std::uint64_t name;
  std::uint64_t more[2] = {};
};
struct long_hash {
  std::size_t operator()(const long_key& key) const noexcept { return key.name; }
};

// The ways to keep an entry: in the table itself, in a node that is replaced whole, and in a node
// where the value is replaced in place, by one store or by several.
using small_map = veltrix::concurrent_map<std::uint64_t, std::uint64_t>;
using large_map = veltrix::concurrent_map<std::uint64_t, sealed_object>;
using block_map = veltrix::concurrent_map<std::uint64_t, sealed_number>;
using long_map = veltrix::concurrent_map<long_key, std::uint64_t, long_hash>;
static_assert(veltrix::detail::stands_in_words<std::uint64_t, std::uint64_t>);
static_assert(!veltrix::detail::changes_in_place<std::uint64_t, sealed_object>);
static_assert(veltrix::detail::changes_in_place<std::uint64_t, sealed_number>);
static_assert(veltrix::detail::changes_in_place<long_key, std::uint64_t>);
using number = std::optional<std::uint64_t>;
using input = map_spec::input;
using answer = map_spec::answer;

constexpr std::uint64_t torn =
    0xdead'0000'0000'0000ULL;  ///< nobody writes it: no order explains it

std::uint64_t name_of(std::uint64_t key) {
  return key;
}
std::uint64_t name_of(const long_key& key) {
  return key.name;
}

std::uint64_t read(std::uint64_t value) {
  return value;
}
std::uint64_t read(const sealed_number& value) {
  return value.seal == ~value.number ? value.number : torn;
}
void write(std::uint64_t& value, std::uint64_t to) {
  value = to;
}
void write(sealed_number& value, std::uint64_t to) {
  value.number = to;
  value.seal = ~to;
}
template <class Map>
typename Map::mapped_type made_of(std::uint64_t from) {
  typename Map::mapped_type value{};
  write(value, from);
  return value;
}

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

template <class Map>
answer look_up(const Map& map, const input& asked, std::uint64_t luck) {
  number shown;
  switch (luck % 4) {
    case 0:
      if (const auto got = map.get(asked.key)) shown = read(*got);
      break;
    case 1:
      if (const auto held = map.find(asked.key)) shown = read(*held);
      break;
    case 2: map.visit(asked.key, [&](const auto& value) { shown = read(value); }); break;
    default: {
      const std::array<std::uint64_t, 1> keys{asked.key};
      map.visit(keys, [&](const auto& value) { shown = read(value); });
    }
  }
  return {map_change::unchanged, shown};
}

template <class Map>
answer insert(Map& map, const input& asked, std::uint64_t luck) {
  const auto value = made_of<Map>(asked.value);
  switch (luck % 4) {
    case 0: return changed_if(map.insert(asked.key, value), map_change::inserted);
    case 1: return changed_if(map.try_emplace(asked.key, value), map_change::inserted);
    case 2: return changed_if(map.emplace(asked.key, value), map_change::inserted);
    default: return changed_if(map.insert({{asked.key, value}}) == 1, map_change::inserted);
  }
}

template <class Map>
answer erase_below(Map& map, const input& asked, std::uint64_t luck) {
  number shown;
  const std::size_t erased = map.erase_if(asked.key, [&](const auto& value) {
    maybe_yield(luck);
    shown = read(value);
    return *shown < asked.value;
  });
  return {erased == 0 ? map_change::unchanged : map_change::erased, shown};
}

/// update and upsert: the value before, and then more of it.
template <class Map>
answer add(Map& map, const input& asked, std::uint64_t luck) {
  number shown;
  const auto more = [&](auto& value) {
    maybe_yield(luck);
    shown = read(value);
    write(value, *shown + asked.value);
  };
  if (asked.call == map_call::upsert) {
    const map_change done = change(map.upsert(asked.key, made_of<Map>(asked.value), more));
    return {done, shown};
  }
  return {map.update(asked.key, more) ? map_change::replaced : map_change::unchanged, shown};
}

template <class Map>
answer compute(Map& map, const input& asked, std::uint64_t luck) {
  number shown;
  const map_change done =
      change(map.compute(asked.key, [&](std::optional<typename Map::mapped_type>& value) {
        maybe_yield(luck);
        if (value) shown = read(*value);
        const std::uint64_t sum = shown.value_or(0) + asked.value;
        value.reset();
        if (sum % 2 == 0) value = made_of<Map>(sum);
      }));
  return {done, shown};
}

template <class Map>
answer get_or_emplace(Map& map, const input& asked, std::uint64_t luck) {
  const auto made = map.get_or_emplace(asked.key, [&] {
    maybe_yield(luck);
    return made_of<Map>(asked.value);
  });
  return {made.inserted ? map_change::inserted : map_change::unchanged, read(*made.entry)};
}

template <class Map>
answer ask(Map& map, const input& asked, std::uint64_t luck) {
  switch (asked.call) {
    case map_call::get: return look_up(map, asked, luck);
    case map_call::contains:
      return {map_change::unchanged, map.contains(asked.key) ? number(1) : number()};
    case map_call::insert: return insert(map, asked, luck);
    case map_call::assign:
      return {change(map.insert_or_assign(asked.key, made_of<Map>(asked.value))), {}};
    case map_call::erase: return changed_if(map.erase(asked.key) != 0, map_change::erased);
    case map_call::erase_below: return erase_below(map, asked, luck);
    case map_call::update:
    case map_call::upsert: return add(map, asked, luck);
    case map_call::compute: return compute(map, asked, luck);
    case map_call::get_or_emplace: return get_or_emplace(map, asked, luck);
  }
  return {};
}

template <class Map>
void any_call(Map& map, recorder_of<map_spec>::log& log, random_source& random) {
  const input asked{static_cast<map_call>(random.below(10)), random.below(3), random.next() >> 40};
  const std::uint64_t luck = random.next() >> 8;
  log.record(asked, [&] { return ask(map, asked, luck); });
}

/// Other keys come and go, and tables are built anew, larger and smaller: what a call on a key must
/// not notice. Keys from 1000 on are not recorded.
template <class Map>
void move_tables(Map& map, random_source& random) {
  const std::uint64_t other = 1000 + random.below(24);
  switch (random.below(8)) {
    case 0: return map.rehash(0);
    case 1: return map.rehash(random.below(200));
    case 2: return map.reserve(random.below(100));
    case 3: map.erase_if([](const auto& key, const auto&) { return name_of(key) >= 1000; }); return;
    case 4: map.erase(other); return;
    default:
      for (std::uint64_t i = 0; i < 8; ++i)
        map.insert(other + i, typename Map::mapped_type{});
  }
}

}  // namespace

TEST_CASE("concurrent_map operations on one key are linearizable, all of them together") {
  const rounds_options options{.calls = 200, .rounds = scale(2'000), .seed = 71};
  const auto result = run_rounds(
      map_spec{}, options,
      [] { return std::make_unique<small_map>(concurrent_map_options{.shards = 2}); },
      any_call<small_map>);
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
      [] { return std::make_unique<small_map>(concurrent_map_options{.shards = 1}); },
      any_call<small_map>);
  result.print("concurrent_map, all operations, counter");
  INFO("seed " << options.seed);
  REQUIRE(result.last.answer == verdict::linearizable);
  REQUIRE(result.overlapping > result.operations / 4);
}

namespace {

template <class Map>
void linearizable_while_tables_move(const char* what, std::uint64_t seed) {
  const rounds_options options{.threads = 3, .calls = 200, .rounds = scale(800), .seed = seed};
  const auto result = run_rounds(
      map_spec{}, options,
      [] { return std::make_unique<Map>(concurrent_map_options{.shards = 1}); }, any_call<Map>,
      move_tables<Map>);
  result.print(what);
  INFO("seed " << options.seed);
  REQUIRE(result.last.answer == verdict::linearizable);
  REQUIRE(result.overlapping > result.operations / 4);
}

}  // namespace

TEST_CASE("concurrent_map operations on one key are linearizable while tables grow and shrink") {
  linearizable_while_tables_move<small_map>("concurrent_map, small entries, with rehashes", 73);
  linearizable_while_tables_move<large_map>("concurrent_map, large entries, with rehashes", 75);
  linearizable_while_tables_move<long_map>("concurrent_map, long keys, with rehashes", 76);
  linearizable_while_tables_move<block_map>("concurrent_map, blocks in place, with rehashes", 77);
}

TEST_CASE("concurrent_map erase_if over all keys is linearizable for each of them") {
  // A walk is one erasure per key, each at a moment of its own inside the call.
  const rounds_options options{
      .calls = 100, .rounds = scale(1'000), .calls_per_step = 3, .seed = 74};
  const auto result = run_rounds(
      map_spec{}, options,
      [] { return std::make_unique<small_map>(concurrent_map_options{.shards = 2}); },
      [](small_map& map, recorder_of<map_spec>::log& log, random_source& random) {
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

// --- very many short histories ------------------------------------------------------------------

namespace {

/// What all histories so far came to.
struct histories {
  std::size_t wanted = 0;
  std::size_t checked = 0;
  std::size_t operations = 0;
  std::size_t overlapping = 0;
  std::size_t violations = 0;
};

/// Some histories of `threads` threads with about 24 calls in all, on a map with as many shards as
/// the seed says.
template <class Map>
void record_some(histories& all, std::size_t threads, std::size_t rounds, std::uint64_t seed) {
  const rounds_options options{.threads = threads,
                               .calls = std::max<std::size_t>(3, 24 / threads),
                               .rounds = rounds,
                               .seed = seed,
                               .yield_one_in = 8,
                               .longest = std::chrono::hours(1)};
  const auto result = run_rounds(
      map_spec{}, options,
      [seed] {
        const concurrent_map_options shape{.shards = 1 + seed % 2, .seed = seed};
        return std::make_unique<Map>(shape);
      },
      any_call<Map>, move_tables<Map>);
  all.checked += result.rounds;
  all.operations += result.operations;
  all.overlapping += result.overlapping;
  if (result.last.answer == verdict::linearizable) return;
  ++all.violations;
  std::printf("concurrent_map, %zu threads, seed %llu:\n%s\n", threads,
              static_cast<unsigned long long>(seed), result.last.report.c_str());
}

void tell(const histories& all, const char* how) {
  std::printf(
      "concurrent_map %s: %zu histories, %zu operations checked, %zu overlapping, "
      "%zu violations\n",
      how, all.checked, all.operations, all.overlapping, all.violations);
  std::fflush(stdout);
}

}  // namespace

// VELTRIX_LIN_HISTORIES=1000000 asks for so many; unasked it ends after some seconds.
TEST_CASE("concurrent_map histories of 2 to 8 threads are linearizable, each of very many") {
  using clock = std::chrono::steady_clock;
  histories all;
  const char* const asked = std::getenv("VELTRIX_LIN_HISTORIES");
  all.wanted = asked == nullptr ? scale(4'000) : std::strtoull(asked, nullptr, 10);
  const std::size_t part = asked == nullptr ? 50 : 2'000;
  const auto last_start = clock::now() + std::chrono::seconds(2);
  const auto goes_on = [&] {
    return all.violations == 0 && (asked != nullptr || clock::now() < last_start);
  };
  std::uint64_t seed = 100;
  std::size_t told = 0;
  while (all.checked < all.wanted && goes_on()) {
    for (std::size_t threads = 2; threads <= 8 && goes_on(); ++threads) {
      record_some<small_map>(all, threads, part, ++seed);
      record_some<large_map>(all, threads, part, ++seed);
      record_some<long_map>(all, threads, part, ++seed);
      record_some<block_map>(all, threads, part, ++seed);
    }
    if (all.checked - told >= 50'000) {
      tell(all, "goes on");
      told = all.checked;
    }
  }
  tell(all, "in short histories");
  if (asked != nullptr) REQUIRE(all.checked >= all.wanted);
  REQUIRE(all.violations == 0);
  REQUIRE(all.overlapping > all.operations / 8);
}
