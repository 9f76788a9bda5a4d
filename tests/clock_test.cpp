// Clocks: the machine's two, and the one that moves when told.
// SPDX-License-Identifier: BSL-1.0
#include "veltrix/clock.hpp"

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/death.hpp"
#include "support/random.hpp"
#include "support/scale.hpp"

using namespace std::chrono_literals;
using veltrix::coarse_clock;
using veltrix::duration;
using veltrix::no_deadline;
using veltrix::saturating_add;
using veltrix::steady_clock;
using veltrix::stop_source;
using veltrix::stop_token;
using veltrix::time_point;
using veltrix::virtual_clock;
using veltrix::virtual_sleep;

namespace {

static_assert(veltrix::sleeper<steady_clock>);
static_assert(veltrix::sleeper<coarse_clock>);
static_assert(veltrix::sleeper<virtual_clock>);
static_assert(!veltrix::clock_source<int>);
static_assert(veltrix::clock_source<const virtual_clock>);
static_assert(!veltrix::sleeper<const virtual_clock>);
static_assert(!std::is_copy_constructible_v<virtual_clock>);
static_assert(noexcept(steady_clock::now()) && noexcept(coarse_clock::now()));
static_assert(noexcept(std::declval<const virtual_clock&>().now()));

constexpr time_point noon{12h};
static_assert(saturating_add(noon, 1h) == time_point(13h));
static_assert(saturating_add(noon, -1h) == noon);
static_assert(saturating_add(noon, 0h) == noon);
static_assert(saturating_add(noon, duration::max()) == no_deadline);
static_assert(saturating_add(no_deadline, 1ns) == no_deadline);
static_assert(saturating_add(no_deadline - 5ns, 5ns) == no_deadline);
static_assert(saturating_add(no_deadline - 5ns, 4ns) == no_deadline - 1ns);
static_assert(saturating_add(time_point::min(), duration::max()) == time_point(-1ns));

stop_token stopped_token() {
  stop_source source;
  source.request_stop();
  return source.get_token();
}

}  // namespace

TEST_CASE("steady_clock never falls and sleeps until the time has come") {
  const time_point start = steady_clock::now();
  const time_point until = start + 2ms;
  CHECK(steady_clock::sleep_until(until, stop_token()));  // sleep: it is what is tested
  CHECK(steady_clock::now() >= until);
  CHECK(steady_clock::sleep_until(start, stopped_token()));  // sleep: a time already past
}

TEST_CASE("steady_clock stops sleeping when the token stops") {
  stop_source source;
  std::thread stopper([&] { source.request_stop(); });
  CHECK_FALSE(steady_clock::sleep_until(no_deadline, source.get_token()));  // sleep: ends at once
  stopper.join();
  const time_point late = steady_clock::now() + 1h;
  CHECK_FALSE(steady_clock::sleep_until(late, stopped_token()));  // sleep: ends at once
}

TEST_CASE("coarse_clock runs on the time line of steady_clock, and not before it") {
  for (int i = 0; i < 1000; ++i) {
    const time_point coarse = coarse_clock::now();
    const time_point exact = steady_clock::now();
    REQUIRE(coarse <= exact);
  }
  const time_point exact = steady_clock::now();
  CHECK(coarse_clock::now() > exact - 1s);
}

TEST_CASE("coarse_clock sleeps until its own time has come") {
  for (int i = 0; i < 10; ++i) {
    const time_point until = coarse_clock::now() + 3ms;
    CHECK(coarse_clock::sleep_until(until, stop_token()));  // sleep: it is what is tested
    CHECK(coarse_clock::now() >= until);
  }
  const time_point late = coarse_clock::now() + 1h;
  CHECK_FALSE(coarse_clock::sleep_until(late, stopped_token()));  // sleep: ends at once
}

TEST_CASE("virtual_clock moves only when told, and never back") {
  virtual_clock clock;
  const time_point start = clock.now();
  CHECK(start == time_point(1h));
  clock.advance(90s);
  CHECK(clock.now() == start + 90s);
  clock.advance(-1h);
  clock.advance_to(start);
  CHECK(clock.now() == start + 90s);
  clock.advance(duration::max());
  CHECK(clock.now() == no_deadline);
}

TEST_CASE("virtual_clock runs timers in order, each at its own time") {
  virtual_clock clock;
  const time_point start = clock.now();
  std::vector<std::pair<int, duration>> ran;
  const auto timer = [&](int number) {
    return [&ran, &clock, start, number] { ran.emplace_back(number, clock.now() - start); };
  };
  clock.call_at(start + 3s, timer(3));
  clock.call_at(start + 1s, timer(1));
  clock.call_at(start + 3s, timer(4));
  clock.call_at(start + 9s, timer(9));
  clock.call_at(start + 2s, [&] {
    timer(2)();
    clock.call_at(start + 2500ms, timer(5));  // within the same advance
    clock.call_at(start + 1s, timer(6));      // already past
  });
  CHECK(clock.pending_timers() == 5);
  clock.advance(4s);
  CHECK(ran == std::vector<std::pair<int, duration>>{
                   {1, 1s}, {2, 2s}, {6, 2s}, {5, 2500ms}, {3, 3s}, {4, 3s}});
  CHECK(clock.now() == start + 4s);
  CHECK(clock.pending_timers() == 1);
}

TEST_CASE("virtual_clock runs a timer already past at the next advance") {
  virtual_clock clock;
  int runs = 0;
  clock.call_at(clock.now() - 1s, [&] { ++runs; });
  clock.call_at(clock.now(), [&] { ++runs; });
  CHECK(runs == 0);
  clock.advance(0s);
  CHECK(runs == 2);
}

TEST_CASE("virtual_clock keeps the later timers when one throws") {
  virtual_clock clock;
  const time_point start = clock.now();
  int runs = 0;
  clock.call_at(start + 1s, [] { throw std::runtime_error("timer"); });
  clock.call_at(start + 2s, [&] { ++runs; });
  CHECK_THROWS_AS(clock.advance(5s), std::runtime_error);
  CHECK(clock.now() == start + 1s);
  CHECK(clock.pending_timers() == 1);
  clock.advance(5s);
  CHECK(runs == 1);
}

TEST_CASE("virtual_clock runs timers without its lock") {
  virtual_clock clock;
  int runs = 0;
  clock.call_at(clock.now() + 1s, [&] {
    clock.advance(10s);  // from inside
    ++runs;
  });
  clock.call_at(clock.now() + 5s, [&] { runs += 10; });
  clock.advance(2s);
  CHECK(runs == 11);
  CHECK(clock.now() == time_point(1h) + 11s);
}

TEST_CASE("virtual_clock that advances itself sleeps without another thread") {
  virtual_clock clock(virtual_sleep::advances);
  const time_point start = clock.now();
  int runs = 0;
  clock.call_at(start + 1h, [&] { ++runs; });
  CHECK(clock.sleep_until(start + 24h, stop_token()));  // sleep: virtual
  CHECK(clock.now() == start + 24h);
  CHECK(runs == 1);
  CHECK_FALSE(clock.sleep_until(start + 25h, stopped_token()));  // sleep: virtual
  CHECK(clock.now() == start + 24h);
}

TEST_CASE("virtual_clock wakes a sleeper at its time, not before") {
  virtual_clock clock;
  const time_point start = clock.now();
  std::vector<duration> woke;
  std::thread sleeper([&] {
    for (const duration each : {10s, 20s, 30s}) {
      static_cast<void>(clock.sleep_until(start + each, stop_token()));  // sleep: virtual
      woke.push_back(clock.now() - start);
    }
  });
  clock.await_sleepers(1);
  clock.advance(9s);
  clock.await_sleepers(1);  // still the first sleep
  clock.advance(1s);
  clock.await_sleepers(1);  // the second: who was woken no longer counts
  clock.advance(10s);
  clock.await_sleepers(1);
  clock.advance(10s);
  sleeper.join();
  CHECK(woke == std::vector<duration>{10s, 20s, 30s});
}

TEST_CASE("virtual_clock sleeper ends when its token stops") {
  virtual_clock clock;
  stop_source source;
  bool reached = true;
  std::thread sleeper([&] {
    reached = clock.sleep_until(no_deadline, source.get_token());  // sleep: virtual
  });
  clock.await_sleepers(1);
  source.request_stop();
  sleeper.join();
  CHECK_FALSE(reached);
  CHECK(clock.sleep_until(clock.now(), stopped_token()));  // sleep: a time already come
}

TEST_CASE("virtual_clock runs random timers as a sorted list would") {
  const std::uint64_t seed = 99;
  CAPTURE(seed);
  veltrix_test::random_source random(seed);
  for (std::size_t round = 0; round < veltrix_test::scale(100); ++round) {
    virtual_clock clock;
    const time_point start = clock.now();
    std::vector<std::pair<time_point, int>> expected;
    std::vector<std::pair<time_point, int>> ran;
    for (int i = 0; i < 40; ++i) {
      const time_point at = start + std::chrono::seconds(random.below(30) + 1);
      expected.emplace_back(at, i);
      clock.call_at(at, [&, i] { ran.emplace_back(clock.now(), i); });
    }
    std::stable_sort(expected.begin(), expected.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    while (clock.pending_timers() > 0)
      clock.advance(std::chrono::seconds(random.below(5)));
    REQUIRE(ran == expected);
  }
}

#if VELTRIX_CHECKED
TEST_CASE("virtual_clock in checked mode names the end under a sleeper") {
  const auto ending = veltrix_test::run_to_its_end([] {
    auto clock = std::make_unique<virtual_clock>();
    virtual_clock* const slept_on = clock.get();
    std::thread sleeper([slept_on] {
      static_cast<void>(slept_on->sleep_until(no_deadline, stop_token()));  // sleep: virtual
    });
    clock->await_sleepers(1);
    clock.reset();
    sleeper.join();
  });
  CHECK(ending.aborted);
  CHECK(ending.told.find("a virtual_clock ended under a sleeper") != std::string::npos);
}
#endif
