// SPDX-License-Identifier: BSL-1.0
#include "veltrix/hedge.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/hand_executor.hpp"
#include "support/random.hpp"
#include "veltrix/elastic_pool.hpp"
#include "veltrix/retry.hpp"

using namespace std::chrono_literals;
using namespace veltrix;
using veltrix_test::hand_executor;
using veltrix_test::random_source;

namespace {

static_assert(!std::is_move_constructible_v<hedging>);

/// A call of which the test says when each copy ends, and how.
struct race {
  explicit race(hedging& shared, stop_token token = {}) {
    shared.run_on(
        where, clock, token,
        [this](const hedged_copy& copy) -> std::optional<int> {
          seen.push_back(copy.index);
          tokens.push_back(copy.token);
          if (throws) throw std::runtime_error("lost");
          return answer;
        },
        [this](hedged_answer<std::optional<int>> told) { ends.push_back(std::move(told)); });
  }

  virtual_clock clock{};
  hand_executor where{};
  std::optional<int> answer = 7;
  bool throws = false;
  std::vector<std::uint32_t> seen{};
  std::vector<stop_token> tokens{};
  std::vector<hedged_answer<std::optional<int>>> ends{};
};

double share(random_source& choose) {
  return static_cast<double>(choose.next() >> 11) * 0x1p-53;
}

}  // namespace

TEST_CASE("hedge sends no second copy when the first answers before the delay") {
  hedging shared({.first_delay = 50ms});
  race call(shared);
  CHECK(call.where.run_all() == 1);
  REQUIRE(call.ends.size() == 1);
  CHECK(call.ends[0]);
  CHECK(*call.ends[0].result == 7);
  CHECK(call.ends[0].won == 1);
  call.clock.advance(1s);
  CHECK(call.where.run_all() == 0);
  CHECK(shared.stats().hedged == 0);
}

TEST_CASE("hedge takes whichever copy succeeds first, and stops the other") {
  hedging shared({.first_delay = 50ms});
  race call(shared);
  call.clock.advance(50ms - 1ns);
  CHECK(call.where.waiting() == 1);
  call.clock.advance(1ns);
  CHECK(call.where.waiting() == 2);  // both wait for a thread
  CHECK(call.where.run_all() == 2);
  CHECK(call.seen == std::vector<std::uint32_t>{1});  // the second came too late to begin
  REQUIRE(call.ends.size() == 1);
  CHECK(call.ends[0].copies == 1);
  CHECK(call.tokens[0].stop_requested());
  CHECK(shared.stats().hedged == 1);
}

TEST_CASE("hedge ends with the failure when both copies failed, the last one's") {
  hedging shared({.first_delay = 50ms});
  race call(shared);
  call.answer.reset();
  call.clock.advance(50ms);
  CHECK(call.where.run_one());
  CHECK(call.ends.empty());  // the other may still succeed
  call.throws = true;
  CHECK(call.where.run_one());
  REQUIRE(call.ends.size() == 1);
  CHECK_FALSE(call.ends[0]);
  CHECK_FALSE(call.ends[0].result.has_value());
  CHECK(call.ends[0].error != nullptr);
  CHECK(call.ends[0].copies == 2);
}

TEST_CASE("hedge ends at once when its only copy fails") {
  hedging shared({.first_delay = 50ms});
  race call(shared);
  call.answer.reset();
  CHECK(call.where.run_one());
  REQUIRE(call.ends.size() == 1);
  CHECK_FALSE(call.ends[0]);
  CHECK(call.ends[0].result.has_value());
  call.clock.advance(1s);
  CHECK(call.where.waiting() == 0);
}

TEST_CASE("hedge tells why the executor ran no copy") {
  struct full_executor {
    post_result try_post(task) const { return {post_status::full, "256 of 256 wait"}; }
  } full;
  virtual_clock clock;
  hedging shared;
  std::vector<std::string> whys;
  shared.run_on(
      full, clock, {}, [](const hedged_copy&) { return true; },
      [&](const hedged_answer<bool>& told) { whys.emplace_back(told.refused); });
  clock.advance(1s);
  CHECK(whys == std::vector<std::string>{"256 of 256 wait"});

  {
    hand_executor dropping;
    shared.run_on(
        dropping, clock, {}, [](const hedged_copy&) { return true; },
        [&](const hedged_answer<bool>& told) { whys.emplace_back(told.refused); });
  }
  REQUIRE(whys.size() == 2);
  CHECK(whys[1] == "the executor dropped the task");
}

TEST_CASE("hedge passes the caller's stop to its copies") {
  stop_source stop;
  hedging shared;
  race call(shared, stop.get_token());
  stop.request_stop();
  call.where.run_all();
  REQUIRE(call.tokens.size() == 1);
  CHECK(call.tokens[0].stop_requested());
}

TEST_CASE("hedging delay is the quantile that its extra load leaves, an eighth apart at most") {
  for (const double extra : {0.01, 0.05, 0.2}) {
    hedging shared({.extra = extra, .longest = 1h});
    const std::uint64_t seed = 1;
    CAPTURE(seed);
    random_source choose(seed);
    std::vector<double> taken;
    for (int i = 0; i < 4'000; ++i) {
      const double ms = 10.0 * std::exp(share(choose) * 3.0);
      taken.push_back(ms * 1e6);
      shared.took(duration(static_cast<std::int64_t>(ms * 1e6)));
    }
    std::sort(taken.begin(), taken.end());
    const double exact = taken[static_cast<std::size_t>((1.0 - extra) * 4'000)];
    const auto got = static_cast<double>(shared.stats().delay.count());
    CHECK(got >= exact * 0.98);
    CHECK(got <= exact * 1.14);
  }
}

TEST_CASE("hedging keeps to its delay before it has seen enough, and inside its bounds after") {
  hedging shared({.first_delay = 40ms, .shortest = 5ms, .longest = 20ms});
  for (int i = 0; i < 99; ++i)
    shared.took(1ms);
  CHECK(shared.begin() == 40ms);
  for (int i = 0; i < 200; ++i)
    shared.took(1ms);
  CHECK(shared.begin() == 5ms);
  for (int i = 0; i < 20'000; ++i)
    shared.took(10h);
  CHECK(shared.begin() == 20ms);
}

TEST_CASE("hedging allows second copies up to its burst and share, exactly") {
  hedging shared({.extra = 0.25, .burst = 3});
  const auto allowed = [&] {
    int got = 0;
    while (shared.try_hedge())
      ++got;
    return got;
  };
  CHECK(allowed() == 3);
  for (int i = 0; i < 3; ++i)
    static_cast<void>(shared.begin());
  CHECK(allowed() == 0);
  static_cast<void>(shared.begin());
  CHECK(allowed() == 1);
  for (int i = 0; i < 1000; ++i)
    static_cast<void>(shared.begin());
  CHECK(allowed() == 3);
}

TEST_CASE("hedging refuses options out of bounds") {
  const auto refused = [](const hedging_options& options) {
    try {
      const hedging bad(options);
    } catch (const std::invalid_argument&) {
      return true;
    }
    return false;
  };
  CHECK(refused({.extra = 0.0}));
  CHECK(refused({.extra = 0.6}));
  CHECK(refused({.burst = 0}));
  CHECK(refused({.first_delay = 0ms}));
  CHECK(refused({.shortest = 2s, .longest = 1s}));
  CHECK_FALSE(refused({}));
}

TEST_CASE("hedging cuts the slowest thousandth for a twentieth more calls") {
  hedging shared({.extra = 0.05});
  const std::uint64_t seed = 2;
  CAPTURE(seed);
  random_source choose(seed);
  std::vector<duration> alone, hedged;
  const auto one = [&] {
    const double slow = share(choose) < 0.01 ? 1000.0 : 0.0;
    return duration(static_cast<std::int64_t>((10.0 * std::exp(share(choose)) + slow) * 1e6));
  };
  for (int i = 0; i < 50'000; ++i) {
    const duration first = one();
    const duration delay = shared.begin();
    duration ends = first;
    if (first > delay && shared.try_hedge()) ends = std::min(first, delay + one());
    shared.took(ends);
    alone.push_back(first);
    hedged.push_back(ends);
  }
  const auto slowest_thousandth = [](std::vector<duration>& all) {
    std::sort(all.begin(), all.end());
    return all[all.size() - all.size() / 1000];
  };
  CHECK(slowest_thousandth(alone) > 1s);
  CHECK(slowest_thousandth(hedged) < 70ms);
  const hedging::counts counted = shared.stats();
  CHECK(counted.hedged <= 10 + counted.calls / 20);
}

TEST_CASE("hedging R64 with one of three zones gone the slowest hundredth stays below 280 ms") {
  virtual_clock clock;
  outlier_set zones(3);
  hedging shared({.extra = 0.05});
  const std::uint64_t seed = 3;
  CAPTURE(seed);
  random_source choose(seed);
  std::vector<duration> all;
  const auto ask = [&](std::uint32_t zone) {
    if (zone == 1) return duration(1s);  // nothing comes back: the attempt times out
    return duration(static_cast<std::int64_t>(10e6 * std::exp(share(choose))));
  };
  for (std::uint32_t i = 0; i < 50'000; ++i) {
    const std::uint32_t first = zones.pick(i, clock);
    const duration alone = ask(first);
    const duration delay = shared.begin();
    duration ends = alone;
    if (alone > delay && shared.try_hedge()) {
      const std::uint32_t second = zones.pick(first + 1, clock);
      ends = std::min(alone, delay + ask(second));
    }
    first == 1 ? static_cast<void>(zones.failure(first, clock.now())) : zones.success(first);
    shared.took(ends);
    all.push_back(ends);
    clock.advance(1ms);
  }
  std::sort(all.begin(), all.end());
  CHECK(all[all.size() - all.size() / 100] <= 280ms);
  CHECK(shared.stats().hedged <= 10 + all.size() / 20);
}

TEST_CASE("hedge waits for its answer inside an attempt of retry") {
  elastic_pool pool(2);
  timer_queue timers;
  hedging shared({.first_delay = 1ms});
  const auto policy = deadline{10s} | retry{.delay = constant{1ms}};
  int calls = 0;
  const auto got = policy.run([&](attempt& each) {
    ++calls;
    const hedged_answer<int> answer =
        shared.run(pool, timers, each.token(),
                   [](const hedged_copy& copy) { return static_cast<int>(copy.index); });
    return calls == 2 ? answer.result : std::nullopt;
  });
  CHECK(got);
  CHECK(calls == 2);
  pool.stop();
}
