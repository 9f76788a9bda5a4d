// The layers of a policy that stand on limiter, throttle and outlier_set.
// SPDX-License-Identifier: BSL-1.0
#include <chrono>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "veltrix/retry.hpp"

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
  const auto policy = deadline{2s} | retry{.attempts = 1} | limit{limiter} |
                      classifying([](int got) {
                        return got == 0   ? verdict::success()
                               : got == 1 ? verdict::transient()
                                          : verdict::ignored();
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
