// The layers of a policy that stand on limiter, throttle and outlier_set.
// SPDX-License-Identifier: BSL-1.0
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/death.hpp"
#include "veltrix/executor.hpp"
#include "veltrix/retry.hpp"
#include "veltrix/snapshot_cell.hpp"

using namespace std::chrono_literals;
using namespace veltrix;

namespace {

struct setting {
  virtual_clock clock{virtual_sleep::advances};
  env<virtual_clock> where{clock, stop_token(), small_random(1)};
};

constexpr retry steady{.attempts = 4, .delay = constant{100ms}};

}  // namespace

TEST_CASE("retry under a rejecting limiter stops when all places are taken") {
  setting here;
  concurrency_limiter limiter({.first = 1});
  const auto policy = deadline{2s} | steady | limit{limiter};
  const concurrency_limiter::permit taken = limiter.try_enter(here.clock.now());
  const outcome<bool> told = policy.run(here.where, [] { return true; });
  CHECK(told.reason() == stop_reason::limited);
  CHECK(told.attempts() == 0);
  CHECK(told.message() ==
        "veltrix: retry: limited after 0 attempts; all places of the limiter are taken");
}

TEST_CASE("retry under a waiting limiter waits in line within the deadline, at no cost") {
  setting here;
  concurrency_limiter limiter({.first = 1, .most = 1}, small_random(1));
  const auto policy = deadline{2s} | retry{.attempts = 1} | limit{limiter, on_full::wait};
  std::optional<concurrency_limiter::permit> taken = limiter.try_enter(here.clock.now());
  here.clock.call_at(here.clock.now() + 50ms, [&] { taken.reset(); });
  const time_point start = here.clock.now();
  CHECK(policy.run(here.where, [] { return true; }).attempts() == 1);
  CHECK(here.clock.now() - start >= 50ms);
  CHECK(here.clock.now() - start <= 70ms);

  taken = limiter.try_enter(here.clock.now());
  const outcome<bool> late = policy.run(here.where, [] { return true; });
  CHECK(late.reason() == stop_reason::deadline);
  CHECK(late.attempts() == 0);
  CHECK(limiter.stats().waiting == 0);
  CHECK(limiter.stats().in_use == 1);
}

TEST_CASE("retry tells the limiter success, failure or nothing, and never leaks a place") {
  setting here;
  concurrency_limiter limiter({.first = 4});
  const auto policy =
      deadline{2s} | retry{.attempts = 1} | limit{limiter} | classifying([](int got) {
        return got == 0 ? verdict::success() : got == 1 ? verdict::transient() : verdict::ignored();
      });
  static_cast<void>(policy.run(here.where, [] { return 2; }));
  CHECK(limiter.stats().bound == 4.0);
  static_cast<void>(policy.run(here.where, [] { return 1; }));
  CHECK(limiter.stats().bound == 2.0);
  static_cast<void>(policy.run(here.where, [] { return 0; }));
  CHECK(limiter.stats().bound == 2.5);
  CHECK_THROWS_AS(policy.run(here.where, []() -> int { throw std::runtime_error("lost"); }),
                  std::runtime_error);
  CHECK(limiter.stats().in_use == 0);
}

TEST_CASE("retry gives its place back when another layer makes it wait") {
  setting here;
  concurrency_limiter limiter({.first = 1, .most = 1}, small_random(1));
  circuit_breaker breaker(
      {.window = 1, .min_samples = 1, .open_first = 1s, .open_longest = 1s, .open_jitter = 0.0},
      small_random(1));
  breaker.enter(here.clock).pass.failure(here.clock.now());
  std::uint32_t inside = 9;
  here.clock.call_at(here.clock.now() + 500ms, [&] { inside = limiter.stats().in_use; });
  const auto policy = deadline{5s} | steady | limit{limiter} | guard{breaker, on_open::wait};
  CHECK(policy.run(here.where, [] { return true; }));
  CHECK(inside == 0);
}

TEST_CASE("retry refuses a limiter that waits without a time limit") {
  concurrency_limiter limiter;
  std::string refused;
  try {
    const pipeline bad{limit{limiter, on_full::wait}};
    static_cast<void>(bad);
  } catch (const std::invalid_argument& told) {
    refused = told.what();
  }
  CHECK(refused ==
        "veltrix: retry: limit.on_full: got wait without a time limit, allowed wait under deadline "
        "or until_stopped; no policy was built; write deadline{...} | before it");
}

TEST_CASE("retry makes no retry while the throttle says that too many fail") {
  setting here;
  retry_throttle shared({.tokens = 10, .paid_back = 0.1});
  const auto policy = deadline{10s} | steady | throttle{shared};
  const outcome<bool> first = policy.run(here.where, [] { return false; });
  CHECK(first.attempts() == 4);  // 6 tokens are left
  const outcome<bool> second = policy.run(here.where, [] { return false; });
  CHECK(second.reason() == stop_reason::budget);
  CHECK(second.attempts() == 1);
  CHECK(second.message() ==
        "veltrix: retry: budget after 1 attempt; the throttle lets no retry through: too many "
        "fail");
  CHECK(policy.run(here.where, [] { return true; }));
  CHECK(shared.balance() == Approx(5.1));
}

TEST_CASE("retry makes no attempt at an ejected host, and tells the set how attempts end") {
  setting here;
  outlier_set hosts(4);
  const auto policy = deadline{10s} | steady | host_guard{hosts, 2};
  const outcome<bool> told = policy.run(here.where, [] { return false; });
  CHECK(told.reason() == stop_reason::ejected);
  CHECK(told.attempts() == 3);
  CHECK(told.retry_after() == 5s - 100ms);
  CHECK(told.message() ==
        "veltrix: retry: ejected after 3 attempts in 300 ms; the host is ejected; ask again in "
        "4.9 s");
  here.clock.advance(5s);
  CHECK(policy.run(here.where, [] { return true; }));

  std::vector<std::uint32_t> asked;  // who may choose asks another host in each attempt
  const auto any = deadline{10s} | steady;
  CHECK(any.run(here.where, [&](attempt& each) {
    asked.push_back(hosts.pick(each.index() + 1, here.clock));
    return asked.size() == 2;
  }));
  CHECK(asked == std::vector<std::uint32_t>{2, 3});
}

// --- fallback ------------------------------------------------------------------------------------

namespace {

std::optional<stale<int>> kept_for(duration age) {
  return stale<int>{41, age};
}
verdict judged(int status) {
  if (status < 400) return verdict::success();
  return status == 503 ? verdict::transient() : verdict::permanent();
}

}  // namespace

TEST_CASE("retry falls back to what was kept, with its age, and says what failed") {
  setting here;
  const auto policy =
      deadline{10s} | fallback{1min, [] { return kept_for(3s); }} | steady | classifying(judged);
  const outcome<int> told = policy.run(here.where, [] { return 503; });
  CHECK(told);
  CHECK(told.fell_back());
  CHECK(*told == 41);
  CHECK(told.age() == 3s);
  CHECK(told.reason() == stop_reason::attempts_exhausted);
  CHECK(told.message() ==
        "veltrix: retry: attempts_exhausted after 4 attempts in 300 ms; allowed 4 attempts; a "
        "value 3 s old stands in");
  const outcome<int> fresh = policy.run(here.where, [] { return 200; });
  CHECK(*fresh == 200);
  CHECK_FALSE(fresh.fell_back());
  CHECK(fresh.age() == 0s);
}

TEST_CASE("retry refuses a fallback that is too old, or has nothing, or is not meant") {
  setting here;
  const auto under = [&](auto get, int status) {
    const auto policy = deadline{10s} | fallback{1min, get} | steady | classifying(judged);
    return policy.run(here.where, [&] { return status; });
  };
  const auto old = under([] { return kept_for(1min + 1ns); }, 503);
  CHECK_FALSE(old);
  CHECK(*old == 503);
  CHECK(old.message().ends_with("; what was kept is 60 s old, allowed 60 s"));
  CHECK(under([] { return kept_for(1min); }, 503));
  const auto none = under([] { return std::optional<stale<int>>(); }, 503);
  CHECK_FALSE(none);
  CHECK(none.message().ends_with("; the fallback had nothing"));
  int asked = 0;
  const auto permanent = under([&] { return ++asked, kept_for(0s); }, 404);
  CHECK_FALSE(permanent);  // a service that says no is not a service that is away
  CHECK(asked == 0);
  CHECK_THROWS_AS((fallback{-1ns, [] { return kept_for(0s); }}), std::invalid_argument);
}

TEST_CASE("retry falls back in its asynchronous form, and delivers what the fallback throws") {
  virtual_clock clock;
  inline_executor here;
  std::vector<outcome<int>> ends;
  const auto run = [&](auto get) {
    const auto policy =
        deadline{10s} | fallback{1min, get} | retry{.attempts = 1} | classifying(judged);
    policy.run_on(
        here, env{clock}, [] { return 503; },
        [&](outcome<int> told) { ends.push_back(std::move(told)); });
  };
  run([] { return kept_for(2s); });
  run([]() -> std::optional<stale<int>> { throw std::runtime_error("no cache"); });
  REQUIRE(ends.size() == 2);
  CHECK(ends[0].fell_back());
  CHECK(*ends[0] == 41);
  CHECK_FALSE(ends[1]);
  CHECK(ends[1].reason() == stop_reason::threw);
  CHECK(ends[1].error() != nullptr);
}

// --- events --------------------------------------------------------------------------------------

TEST_CASE("retry tells observers what happens, but nothing of a first success") {
  setting here;
  std::vector<std::string> lines;
  int failures = 0;
  const auto policy =
      deadline{10s} |
      observing([&](const retry_event& event) noexcept { lines.push_back(event.message()); }) |
      retry{.attempts = 2, .delay = constant{100ms}};
  const auto call = [&](int fail) {
    failures = fail;
    return policy.run(here.where, [&] { return failures-- <= 0; });
  };
  CHECK(call(0));
  CHECK(lines.empty());
  CHECK(call(1));
  CHECK_FALSE(call(2));
  CHECK(lines ==
        std::vector<std::string>{"retry: failed after 1 attempt; another follows in 100 ms",
                                 "retry: recovered after 2 attempts",
                                 "retry: failed after 1 attempt; another follows in 100 ms",
                                 "retry: gave up, attempts_exhausted after 2 attempts"});
}

TEST_CASE("retry tells observers which layer makes it wait") {
  setting here;
  circuit_breaker breaker(
      {.window = 1, .min_samples = 1, .open_first = 1s, .open_longest = 1s, .open_jitter = 0.0},
      small_random(1));
  breaker.enter(here.clock).pass.failure(here.clock.now());
  std::vector<std::string> lines;
  const auto policy =
      deadline{10s} | steady | guard{breaker, on_open::wait} |
      observing([&](const retry_event& event) noexcept { lines.push_back(event.message()); });
  CHECK(policy.run(here.where, [] { return true; }));
  CHECK(lines ==
        std::vector<std::string>{"retry: waits for 1 s after 0 attempts: the breaker is open"});
}

TEST_CASE("retry logs one line per gap, and how many it kept back") {
  setting here;
  log_gate gate(30s);
  std::vector<std::uint64_t> kept_back;
  const auto policy =
      deadline{10s} |
      logging(gate,
              [&](const retry_event&, std::uint64_t kept) noexcept { kept_back.push_back(kept); }) |
      retry{.attempts = 2, .delay = constant{100ms}};
  const time_point start = here.clock.now();
  while (here.clock.now() < start + 61s) {
    static_cast<void>(policy.run(here.where, [] { return false; }));
    here.clock.advance(900ms);
  }
  REQUIRE(kept_back.size() == 3);
  CHECK(kept_back[0] == 0);
  CHECK(kept_back[1] == 59);
  CHECK(kept_back[2] == 59);
  CHECK_THROWS_AS(log_gate(0s), std::invalid_argument);
}

// --- reload --------------------------------------------------------------------------------------

TEST_CASE("retry from a snapshot_cell keeps budget, breaker and attempts through a reload") {
  setting here;
  retry_budget tokens({.ratio = 0.0, .per_second = 0.0, .burst = 3});
  circuit_breaker breaker({}, small_random(1));
  const auto policy_with = [&](std::uint32_t attempts) {
    return deadline{1min} | retry{.attempts = attempts, .delay = constant{100ms}} | guard{breaker} |
           budget{tokens};
  };
  snapshot_cell<decltype(policy_with(1))> cell(policy_with(2));
  int made = 0;
  const auto told = from(cell).run(here.where, [&] {
    if (++made == 2) cell.publish(policy_with(10));  // in the middle of the call
    return false;
  });
  CHECK(made == 4);  // the first, and what three tokens pay for
  CHECK(told.reason() == stop_reason::budget);
  CHECK(told.elapsed() == 300ms);
  for (int i = 0; i < 6; ++i)
    breaker.enter(here.clock).pass.failure(here.clock.now());
  CHECK(breaker.state() == breaker_state::open);  // with the four of the call
}

// --- the requirements, in small ------------------------------------------------------------------

TEST_CASE("retry R49 lookups through an outage of 10 s end within 300 ms, with a value") {
  setting here;
  circuit_breaker breaker({}, small_random(1));
  const time_point start = here.clock.now();
  const auto away = [&] {
    const duration since = here.clock.now() - start;
    return since >= 5s && since < 15s;
  };
  stale<int> kept{0, 0s};
  time_point kept_at = start;
  const auto policy =
      deadline{300ms} |
      fallback{1min,
               [&] { return std::optional(stale<int>{kept.value, here.clock.now() - kept_at}); }} |
      retry{.attempts = 3, .delay = constant{20ms}} | guard{breaker} |
      classifying([](int got) { return got == 0 ? verdict::transient() : verdict::success(); });
  duration slowest{};
  int without = 0;
  int version = 1;
  for (int lookup = 0; lookup < 2'000; ++lookup) {
    if (lookup == 500) version = 2;  // a reload, in the middle of the outage
    const time_point asked = here.clock.now();
    const outcome<int> got = policy.run(here.where, [&] {
      here.clock.advance(away() ? 50ms : 2ms);
      return away() ? 0 : version;
    });
    slowest = std::max(slowest, here.clock.now() - asked);
    without += got && *got > 0 ? 0 : 1;
    if (got && !got.fell_back()) {
      kept.value = *got;
      kept_at = here.clock.now();
    }
    here.clock.advance(10ms);
  }
  CHECK(slowest <= 300ms);
  CHECK(without == 0);
  CHECK(kept.value == 2);
}

TEST_CASE("retry R65 deadlines stand on a clock that no jump of the time of day moves") {
  CHECK(time_point::clock::is_steady);
  CHECK(std::is_same_v<time_point::clock, std::chrono::steady_clock>);
  setting here;  // a reading that an older thread took an hour before is late, not early
  outlier_set hosts(2);
  const time_point now = here.clock.now();
  for (int i = 0; i < 3; ++i)
    hosts.failure(0, now);
  CHECK_FALSE(hosts.failure(0, now - 1h));
  CHECK(hosts.back_at(0) == now + 5s);
  rate_limiter limiter({.per_second = 1.0});
  CHECK(limiter.try_acquire(now));
  CHECK_FALSE(limiter.try_acquire(now - 1h));
  CHECK(limiter.try_acquire(now + 1s));
}

#if VELTRIX_CHECKED && !VELTRIX_TSAN
TEST_CASE("retry without an end needs a token that can stop, on its quick way too") {
  const veltrix_test::ending seen = veltrix_test::run_to_its_end([] {
    const auto policy = until_stopped{} | retry{};
    static_cast<void>(policy.run([] { return true; }));
  });
  CHECK(seen.aborted);
  CHECK_THAT(seen.told, veltrix_test::contains("until_stopped needs an env with a stop_token"));
}
#endif
