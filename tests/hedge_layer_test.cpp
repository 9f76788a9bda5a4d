// hedge as a layer of a policy, in all its forms, and the awaitable form of hedging itself.
// SPDX-License-Identifier: BSL-1.0
#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/coroutines.hpp"
#include "support/hand_executor.hpp"
#include "veltrix/detail/task.hpp"
#include "veltrix/elastic_pool.hpp"
#include "veltrix/hedge.hpp"
#include "veltrix/retry.hpp"
#include "veltrix/snapshot_cell.hpp"

using namespace std::chrono_literals;
using namespace veltrix;
using veltrix_test::hand_executor;

namespace {

constexpr hedging_options quick_hedge{.extra = 0.0001, .burst = 3, .first_delay = 50ms};
constexpr retry two_attempts{.attempts = 2, .delay = constant{100ms}};

/// A second copy runs where the clock passes the delay: inside the first, which moves it.
struct setting {
  explicit setting(const hedging_options& options = quick_hedge) : spare(options) {}

  auto layer() { return hedge(spare, here, clock); }

  virtual_clock clock{virtual_sleep::advances};
  hedging spare;
  inline_executor here{};
  env<virtual_clock> where{clock, stop_token(), small_random(1)};
};

verdict even_is_good(int number) {
  return number % 2 == 0 ? verdict::success() : verdict::transient();
}

}  // namespace

TEST_CASE("hedge layer sends one copy of what answers before the delay") {
  setting on;
  const auto policy = deadline{2s} | retry{} | on.layer();
  const outcome<bool> told = policy.run(on.where, [&](attempt& each) {
    CHECK(each.copy() == 1);
    on.clock.advance(50ms - 1ns);
    return true;
  });
  CHECK(told);
  CHECK(told.attempts() == 1);
  on.clock.advance(1s);
  CHECK(on.spare.stats().calls == 1);
  CHECK(on.spare.stats().hedged == 0);
}

TEST_CASE("hedge layer takes the copy that succeeds, and stops the other") {
  setting on;
  const auto policy = deadline{2s} | two_attempts | on.layer() | attempt_timeout{300ms};
  std::vector<time_point> deadlines;
  bool stopped = false;
  const outcome<std::optional<int>> told =
      policy.run(on.where, [&](attempt& each) -> std::optional<int> {
        deadlines.push_back(each.deadline());
        CHECK(each.index() == 1);
        if (each.copy() == 2) return 7;
        CHECK_FALSE(each.token().stop_requested());
        on.clock.advance(50ms);
        stopped = each.token().stop_requested();
        return std::nullopt;
      });
  REQUIRE(told);
  CHECK(**told == 7);
  CHECK(told.attempts() == 1);
  CHECK(stopped);
  REQUIRE(deadlines.size() == 2);
  CHECK(deadlines[0] == deadlines[1]);
}

TEST_CASE("hedge layer judges its copies as the policy does, also one that comes from a cell") {
  setting on;
  const auto policy = deadline{2s} | two_attempts | on.layer() | classifying(even_is_good);
  const auto odd_first = [&](attempt& each) {
    if (each.copy() == 2) return 3;
    on.clock.advance(50ms);
    return 4;
  };
  CHECK(*policy.run(on.where, odd_first) == 4);
  snapshot_cell cell(policy);
  CHECK(*from(cell).run(on.where, odd_first) == 4);
  CHECK(on.spare.stats().hedged == 2);
}

TEST_CASE("hedge layer fails an attempt when both copies failed, and spares what it cannot pay") {
  setting on({.extra = 0.0001, .burst = 1, .first_delay = 50ms});
  circuit_breaker breaker;
  const auto policy = deadline{2s} | two_attempts | on.layer() | guard{breaker};
  std::vector<std::uint32_t> copies;
  const outcome<bool> told = policy.run(on.where, [&](attempt& each) {
    copies.push_back(each.index() * 10 + each.copy());
    if (each.copy() == 1) on.clock.advance(50ms);
    return false;
  });
  CHECK(told.reason() == stop_reason::attempts_exhausted);
  CHECK(copies == std::vector<std::uint32_t>{11, 12, 21});
  CHECK(on.spare.stats().calls == 2);
  CHECK(on.spare.stats().hedged == 1);
}

TEST_CASE("hedge layer is one attempt to the layers inside it") {
  setting on;
  bulkhead places(1);
  retry_budget tokens;
  const auto policy = deadline{2s} | two_attempts | on.layer() | limit{places} | budget{tokens};
  const outcome<bool> told = policy.run(on.where, [&](attempt& each) {
    CHECK(places.in_use() == 1);
    if (each.copy() == 2) return true;
    on.clock.advance(50ms);
    return false;
  });
  CHECK(told);
  CHECK(places.in_use() == 0);
}

TEST_CASE("hedge layer leaves exceptions to catching, or to the caller") {
  setting on;
  const auto failing = [&](attempt& each) -> bool {
    if (each.copy() == 1) on.clock.advance(50ms);
    if (each.index() == 2) return true;
    throw std::runtime_error(each.copy() == 1 ? "first" : "second");
  };
  const auto named = deadline{2s} | two_attempts | on.layer() | catching<std::runtime_error>();
  const outcome<bool> told = named.run(on.where, failing);
  CHECK(told);
  CHECK(told.attempts() == 2);
  CHECK_THROWS_WITH((deadline{2s} | two_attempts | on.layer()).run(on.where, failing), "first");
}

TEST_CASE("hedge layer tells why no copy ran, and a fallback may stand in") {
  setting on;
  hand_executor full;
  full.now = hand_executor::mood::full;
  const auto kept = [] { return std::optional(stale<std::optional<int>>{5, 1s}); };
  const auto policy =
      deadline{2s} | fallback(1min, kept) | two_attempts | hedge(on.spare, full, on.clock);
  const outcome<std::optional<int>> told =
      policy.run(on.where, []() -> std::optional<int> { return 1; });
  CHECK(told.reason() == stop_reason::not_run);
  CHECK(told.fell_back());
  CHECK(**told == 5);
  CHECK(told.message() ==
        "veltrix: retry: not_run after 1 attempt; no room; a value 1 s old stands in");
}

TEST_CASE("hedge layer passes the caller's stop to both copies") {
  setting on;
  stop_source stop;
  env<virtual_clock> where(on.clock, stop.get_token(), small_random(1));
  int stopped = 0;
  const outcome<bool> told =
      (deadline{2s} | two_attempts | on.layer()).run(where, [&](attempt& each) {
        if (each.copy() == 1) on.clock.advance(50ms);
        if (each.copy() == 2) stop.request_stop();
        stopped += each.token().stop_requested() ? 1 : 0;
        return false;
      });
  CHECK(told.reason() == stop_reason::stopped);
  CHECK(stopped == 2);
}

TEST_CASE("hedge layer waits for copies on a pool") {
  elastic_pool pool(2);
  timer_queue timers;
  hedging spare({.first_delay = 1ms});
  const auto policy = deadline{1min} | retry{} | hedge(spare, pool, timers);
  const outcome<std::optional<int>> told = policy.run([](attempt& each) -> std::optional<int> {
    while (each.copy() == 1 && !each.token().stop_requested()) {
      // the first replica hangs
    }
    return each.copy() == 1 ? std::nullopt : std::optional<int>(2);
  });
  pool.stop();
  REQUIRE(told);
  CHECK(**told == 2);
  CHECK(told.attempts() == 1);
}

// --- on an executor ------------------------------------------------------------------------------

namespace {

/// A call on an executor whose tasks the test runs.
struct remote_call {
  template <class Policy>
  explicit remote_call(const Policy& policy, setting& on, stop_token token = {}) {
    policy.run_on(
        pool, env(on.clock, std::move(token), small_random(1)),
        [this](attempt& each) -> std::optional<int> {
          copies.push_back(each.index() * 10 + each.copy());
          if (during) during(each);
          return answer;
        },
        [this](outcome<std::optional<int>> told) { ends.push_back(std::move(told)); });
  }

  hand_executor pool{};
  std::vector<std::uint32_t> copies{};
  std::optional<int> answer{};
  detail::unique_function<void(attempt&)> during{};
  std::vector<outcome<std::optional<int>>> ends{};
};

}  // namespace

TEST_CASE("hedge layer begins in the task that makes the attempt, and posts the second copy") {
  setting on;
  hand_executor second;
  const auto policy = deadline{2s} | two_attempts | hedge(on.spare, second, on.clock);
  remote_call call(policy, on);
  call.during = [&](attempt& each) {
    if (each.copy() == 1) on.clock.advance(50ms);
  };
  CHECK(call.pool.run_all() == 1);
  CHECK(call.copies == std::vector<std::uint32_t>{11});
  CHECK(call.ends.empty());  // it failed, and the second copy may succeed
  call.answer = 7;
  CHECK(second.run_all() == 1);
  REQUIRE(call.ends.size() == 1);
  CHECK(**call.ends[0] == 7);
  CHECK(call.ends[0].attempts() == 1);
  on.clock.advance(1s);
  CHECK(call.pool.waiting() == 0);
}

TEST_CASE("hedge layer retries on an executor when both copies failed") {
  setting on;
  hand_executor second;
  const auto policy = deadline{2s} | two_attempts | hedge(on.spare, second, on.clock);
  remote_call call(policy, on);
  call.during = [&](attempt& each) {
    if (each.index() == 1 && each.copy() == 1) on.clock.advance(50ms);
  };
  CHECK(call.pool.run_one());
  CHECK(second.run_one());
  CHECK(call.ends.empty());
  on.clock.advance(100ms);  // the retry's delay
  call.answer = 1;
  CHECK(call.pool.run_one());
  REQUIRE(call.ends.size() == 1);
  CHECK(call.copies == std::vector<std::uint32_t>{11, 12, 21});
  CHECK(call.ends[0].attempts() == 2);
}

TEST_CASE("hedge layer ends a call once, whoever stops, throws or drops on an executor") {
  setting on;
  hand_executor second;
  const auto policy = deadline{2s} | two_attempts | hedge(on.spare, second, on.clock);
  SECTION("a stop before it begins") {
    stop_source stop;
    remote_call call(policy, on, stop.get_token());
    stop.request_stop();
    call.pool.run_all();
    REQUIRE(call.ends.size() == 1);
    CHECK(call.ends[0].reason() == stop_reason::stopped);
    CHECK(call.copies.empty());
  }
  SECTION("both copies throw") {
    remote_call call(policy, on);
    call.during = [&](attempt& each) {
      if (each.copy() == 1) on.clock.advance(50ms);
      throw std::runtime_error("lost");
    };
    call.pool.run_all();
    second.run_all();
    REQUIRE(call.ends.size() == 1);
    CHECK(call.ends[0].reason() == stop_reason::threw);
    CHECK(call.ends[0].error() != nullptr);
  }
  SECTION("the second copy is dropped") {
    remote_call call(policy, on);
    call.during = [&](attempt&) { on.clock.advance(50ms); };
    call.pool.run_all();
    CHECK(call.ends.empty());
    second.drop_all();
    CHECK(call.ends.empty());  // the attempt failed: there is another
    on.clock.advance(100ms);
    call.answer = 1;
    call.pool.run_all();
    REQUIRE(call.ends.size() == 1);
    CHECK(call.ends[0]);
  }
}

TEST_CASE("hedge layer lets an exception of the completion reach the executor, once") {
  setting on;
  hand_executor pool;
  int ends = 0;
  (deadline{2s} | two_attempts | on.layer())
      .run_on(
          pool, env(on.clock, {}, small_random(1)), [] { return true; },
          [&](const outcome<bool>&) {
            ++ends;
            throw std::runtime_error("the completion's own");
          });
  CHECK_THROWS_WITH(pool.run_one(), "the completion's own");
  CHECK(ends == 1);
  CHECK(pool.waiting() == 0);
}

// --- co_await ------------------------------------------------------------------------------------

#if defined(__cpp_impl_coroutine)
namespace {

using veltrix_test::fire_and_forget;

struct awaiting {
  setting& on;
  hand_executor& pool;
  std::vector<std::uint32_t>& won;

  fire_and_forget directly() const {
    const hedged_answer<std::optional<int>> told =
        co_await on.spare.awaited(pool, on.clock, {}, [](const hedged_copy& copy) {
          return copy.index == 2 ? std::optional<int>(1) : std::nullopt;
        });
    won.push_back(told.won);
  }
  fire_and_forget under_a_policy() const {
    const auto policy = deadline{2s} | retry{} | hedge(on.spare, pool, on.clock);
    const outcome<std::optional<int>> told =
        co_await policy.awaited(pool, env(on.clock), [this](attempt& each) -> std::optional<int> {
          if (each.copy() == 2) return 2;
          on.clock.advance(50ms);
          return std::nullopt;
        });
    won.push_back(static_cast<std::uint32_t>(**told));
  }
};

}  // namespace

TEST_CASE("hedge is awaitable, by itself and in a policy") {
  setting on;
  hand_executor pool;
  std::vector<std::uint32_t> won;
  const awaiting caller{on, pool, won};
  caller.directly();
  on.clock.advance(50ms);
  CHECK(won.empty());
  pool.run_all();
  CHECK(won == std::vector<std::uint32_t>{2});
  caller.under_a_policy();
  pool.run_all();
  CHECK(won == std::vector<std::uint32_t>{2, 2});
}

TEST_CASE("hedge awaited beside losers on a pool resumes once for each call") {
  elastic_pool pool(2);
  timer_queue timers;
  hedging spare(
      {.extra = 0.5, .burst = 1'000, .first_delay = 1us, .shortest = 1ns, .longest = 1us});
  struct caller {
    static fire_and_forget call(hedging& spare, elastic_pool& pool, timer_queue& timers,
                                std::atomic<int>& ended) {
      const auto told = co_await spare.awaited(pool, timers, stop_token(),
                                               [](const hedged_copy&) { return true; });
      ended.fetch_add(told ? 1 : 1'000);
    }
  };
  std::atomic<int> ended{0};
  for (int i = 0; i < 500; ++i)
    caller::call(spare, pool, timers, ended);
  while (ended.load() < 500)
    std::this_thread::yield();
  pool.stop();
  CHECK(ended.load() == 500);
}
#endif
