// loading_cache: for each key, what is served, stored, joined and invalidated follows one order in
// time: one load at a time; after an invalidation or a put nothing older is served, stored or
// joined. Three or four threads, recorded and checked round by round.
//
// A get_or_load becomes two calls of the history where its own thread loads: begin_load, from its
// call until its loader runs, and land, from its loader's end until its return. A loader returns
// the number of its load, so that each value says which load it is of.
// SPDX-License-Identifier: BSL-1.0
#include "veltrix/loading_cache.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "support/catch.hpp"
#include "support/lin_rounds.hpp"
#include "support/random.hpp"
#include "support/scale.hpp"
#include "support/sequential_specs.hpp"

namespace {

using namespace veltrix_test;
using veltrix::cache_outcome;

using number_cache = veltrix::loading_cache<std::uint64_t, std::uint64_t>;
using log_of_cache = recorder_of<cache_spec>::log;
using event = recorder_of<cache_spec>::event;
using number = std::optional<std::uint64_t>;

constexpr std::uint64_t keys = 3;

/// A cache, and what its loaders threw: kept until the round is over, since the count of references
/// of an exception lies in the standard library, where a sanitizer does not see it order anything.
struct subject {
  explicit subject(std::size_t max_entries) : cache({.max_entries = max_entries, .shards = 1}) {}

  void keep(const std::exception_ptr& failure) {
    const std::lock_guard lock(mutex);
    kept.push_back(failure);
  }

  number_cache cache;
  std::mutex mutex;  // guards kept
  std::vector<std::exception_ptr> kept;
};

/// What a failing loader throws: the number of its load.
struct load_failed {
  std::uint64_t load;
};

/// The load that a result came from, where it was loaded or failed; 0 otherwise.
std::uint64_t load_of(const number_cache::result& got) {
  if (got) return *got;
  if (got.outcome() != cache_outcome::failed) return 0;
  try {
    std::rethrow_exception(got.error());
  } catch (const load_failed& failure) {
    return failure.load;
  }
}

/// One get_or_load. A put value is above 2^32, a load's number below.
class recorded_load {
 public:
  recorded_load(log_of_cache& log, std::uint64_t key, random_source& random)
      : log_(log), key_(key), number_(1 + (random.next() >> 33)), luck_(random.below(8)) {}

  void run(subject& object) {
    looking_ = &log_.call({cache_call::begin_load, key_, number_, {}});
    const auto got =
        object.cache.get_or_load(key_, [&](const std::uint64_t&) { return load(object); });
    if (landing_ != nullptr) {
      log_.answered(*landing_, {});
      return;
    }
    if (got.outcome() == cache_outcome::hit) {
      looking_->input = {cache_call::get, key_, 0, {}};
      log_.answered(*looking_, {false, *got});
      return;
    }
    looking_->input = {cache_call::join, key_, load_of(got), {}};
    log_.answered(*looking_, {true, {}});
  }

 private:
  /// In this thread, inside get_or_load().
  std::uint64_t load(subject& object) {
    log_.answered(*looking_, {true, {}});
    for (std::uint64_t i = 0; i < luck_ % 4; ++i)
      std::this_thread::yield();  // others come to join, or to overtake
    const bool fails = luck_ == 7;
    landing_ = &log_.call({cache_call::land, key_, number_, fails ? number() : number(number_)});
    if (!fails) return number_;
    const auto failure = std::make_exception_ptr(load_failed{number_});
    object.keep(failure);
    std::rethrow_exception(failure);
  }

  log_of_cache& log_;
  const std::uint64_t key_;
  const std::uint64_t number_;
  const std::uint64_t luck_;
  event* looking_ = nullptr;
  event* landing_ = nullptr;
};

void invalidate_all(number_cache& cache, log_of_cache& log) {
  std::array<event*, keys> calls{};  // one call for each key, each at a moment of its own
  for (std::uint64_t key = 0; key < keys; ++key)
    calls[key] = &log.call({cache_call::drop, key, 0, {}});
  cache.invalidate_all();
  for (event* const each : calls)
    log.answered(*each, {});
}

void any_call(subject& object, log_of_cache& log, random_source& random) {
  number_cache& cache = object.cache;
  const std::uint64_t key = random.below(keys);
  const std::uint64_t kind = random.below(32);
  if (kind < 12) {
    recorded_load(log, key, random).run(object);
  } else if (kind < 20) {
    log.record({cache_call::get, key, 0, {}}, [&] {
      const auto got = cache.get(key);
      return cache_spec::answer{false, got ? number(*got) : number()};
    });
  } else if (kind < 27) {
    log.record({cache_call::invalidate, key, 0, {}},
               [&] { return cache_spec::answer{cache.invalidate(key), {}}; });
  } else if (kind < 31) {
    const std::uint64_t value = (std::uint64_t{1} << 32) + (random.next() >> 33);
    log.record({cache_call::put, key, value, {}},
               [&] { return cache_spec::answer{cache.put(key, value), {}}; });
  } else {
    invalidate_all(cache, log);
  }
}

void require_linearizable(const char* name, std::size_t max_entries, cache_bound bound,
                          const rounds_options& options) {
  const auto result = run_rounds(
      cache_spec{.bound = bound}, options,
      [max_entries] { return std::make_unique<subject>(max_entries); }, any_call);
  result.print(name);
  INFO("seed " << options.seed);
  REQUIRE(result.last.answer == verdict::linearizable);
  REQUIRE(result.overlapping > result.operations / 4);
  REQUIRE(result.operations >= result.rounds * options.threads * options.calls);
}

}  // namespace

TEST_CASE("loading_cache is linearizable for each key, loads, joins and invalidations included") {
  require_linearizable("loading_cache, roomy", 100, cache_bound::never_evicts,
                       {.calls = 100, .rounds = scale(1'500), .calls_per_step = keys, .seed = 61});
}

TEST_CASE("loading_cache is linearizable for each key while entries are evicted") {
  require_linearizable("loading_cache, evicting", 2, cache_bound::may_evict,
                       {.calls = 100, .rounds = scale(1'500), .calls_per_step = keys, .seed = 62});
}

TEST_CASE("loading_cache is linearizable by a counter's stamps") {
  require_linearizable("loading_cache, counter", 100, cache_bound::never_evicts,
                       {.threads = 3,
                        .calls = 100,
                        .rounds = scale(1'000),
                        .calls_per_step = keys,
                        .seed = 63,
                        .source = stamp_source::counter});
}
