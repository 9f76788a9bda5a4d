// SPDX-License-Identifier: BSL-1.0
#include "veltrix/readiness.hpp"

#include <chrono>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "support/catch.hpp"
#include "support/random.hpp"

using namespace std::chrono_literals;
using veltrix::condition_state;
using veltrix::readiness;
using veltrix::time_point;

namespace {

constexpr time_point start{1h};
constexpr auto met = condition_state::met;
constexpr auto unmet = condition_state::unmet;

}  // namespace

TEST_CASE("readiness R57 a leader that flaps every 29 s is never ready, and the answer says why") {
  readiness ready({"leader is known"});
  CHECK_FALSE(ready.ask(start).ready);
  ready.set(0, {met}, start);
  CHECK(ready.ask(start).ready);  // a first start has nothing to prove
  time_point now = start;
  for (int flap = 1; flap <= 100; ++flap) {
    ready.set(0, {unmet, "election"}, now);
    CHECK_FALSE(ready.ask(now).ready);
    ready.set(0, {met}, now += 1s);
    now += 29s;
    const readiness::answer told = ready.ask(now - 1ns);
    REQUIRE_FALSE(told.ready);
    REQUIRE(ready.flaps() == static_cast<std::uint64_t>(flap));
  }
  CHECK(ready.ask(now).body == "not ready: leader is known: holds for 29 s of 30 s\n");
  CHECK(ready.ask(now).retry_after == 1s);
  CHECK(ready.ask(now).http_status == 503);
  CHECK(ready.ask(now + 1s).ready);
  CHECK(ready.ask(now + 1s).http_status == 200);
}

TEST_CASE("readiness R58 names each condition that is missing, and since when") {
  readiness ready({"config caught up", "pool settled", "source attached"});
  ready.set(0, {unmet, "generation 41 of 44"}, start);
  ready.set(2, {met}, start);
  CHECK(ready.ask(start + 5s).body ==
        "not ready: config caught up: generation 41 of 44, for 5 s\n"
        "not ready: pool settled\n");
  ready.set(0, {met}, start + 6s);
  ready.set(1, {met}, start + 6s);
  CHECK(ready.ask(start + 6s).ready);  // none of them was met before, so none was lost
  CHECK(ready.flaps() == 0);
  CHECK(ready.ask(start + 6s).body == "ready\n");
}

TEST_CASE("readiness takes the same news twice for no change") {
  readiness ready({"source attached"}, {.stable_for = 10s});
  ready.set(0, {met}, start);
  ready.set(0, {unmet}, start);
  ready.set(0, {met}, start + 1s);
  ready.set(0, {met}, start + 8s);  // it held all the time
  CHECK_FALSE(ready.ask(start + 11s - 1ns).ready);
  CHECK(ready.ask(start + 11s).ready);
  CHECK(ready.flaps() == 1);
}

TEST_CASE("readiness agrees with a plain model for random news") {
  const std::uint64_t seed = 35001;
  INFO("seed " << seed);
  veltrix_test::random_source choose(seed);
  for (int round = 0; round < 200; ++round) {
    readiness ready({"one", "two"}, {.stable_for = 10s});
    struct plain {
      bool known = false, good = false, lost = false;
      time_point since{};
    } model[2];
    std::uint64_t flaps = 0;
    time_point now = start;
    for (int step = 0; step < 100; ++step) {
      now += std::chrono::seconds(choose.below(8));
      const std::uint64_t which = choose.below(2);
      const bool good = choose.below(4) != 0;
      plain& one = model[which];
      if (!one.known || one.good != good) {
        flaps += one.good && !good ? 1 : 0;
        one.lost = one.lost || (one.good && !good);
        one = {true, good, one.lost, now};
      }
      ready.set(which, {good ? met : unmet}, now);
      const auto holds = [&](const plain& each) {
        return each.good && (!each.lost || now - each.since >= 10s);
      };
      REQUIRE(ready.ask(now).ready == (holds(model[0]) && holds(model[1])));
      REQUIRE(ready.flaps() == flaps);
    }
  }
}

TEST_CASE("readiness refuses an empty list and a bad time") {
  CHECK_THROWS_AS(readiness({}), std::invalid_argument);
  CHECK_THROWS_AS(readiness({"one"}, {.stable_for = 2h}), std::invalid_argument);
}
