// virtual_clock under threads. Each test names its invariant.
// SPDX-License-Identifier: BSL-1.0
#include <array>
#include <atomic>
#include <thread>

#include "support/catch.hpp"
#include "support/random.hpp"
#include "support/scale.hpp"
#include "veltrix/clock.hpp"

using namespace std::chrono_literals;
using veltrix::stop_source;
using veltrix::stop_token;
using veltrix::time_point;
using veltrix::virtual_clock;

TEST_CASE("virtual_clock wakes every sleeper, and none before its time") {
  const std::uint64_t seed = 31;
  CAPTURE(seed);
  constexpr std::size_t threads = 4;
  const std::size_t naps = veltrix_test::scale(1'000);
  virtual_clock clock;
  std::atomic<std::size_t> early{0};
  std::atomic<std::size_t> awake{threads};
  std::array<std::thread, threads> sleepers;
  for (std::size_t me = 0; me < threads; ++me) {
    sleepers[me] = std::thread([&, me] {
      veltrix_test::random_source random(seed + me);
      for (std::size_t nap = 0; nap < naps; ++nap) {
        const time_point until = clock.now() + std::chrono::seconds(random.below(20));
        const bool reached = clock.sleep_until(until, stop_token());  // sleep: virtual
        if (!reached || clock.now() < until) ++early;
      }
      --awake;
    });
  }
  while (awake > 0)
    clock.advance(1s);
  for (std::thread& each : sleepers)
    each.join();
  CHECK(early == 0);
}

TEST_CASE("virtual_clock counts only who sleeps now, so that steps are exact") {
  const std::size_t steps = veltrix_test::scale(2'000);
  virtual_clock clock;
  std::array<std::size_t, 2> wrong{};
  const auto sleeper = [&](std::size_t me) {
    return [&, me] {
      for (std::size_t step = 0; step < steps; ++step) {
        const time_point until = clock.now() + 1s;
        static_cast<void>(clock.sleep_until(until, stop_token()));  // sleep: virtual
        if (clock.now() != until) ++wrong[me];  // the driver waits for both before each step
      }
    };
  };
  std::thread first(sleeper(0));
  std::thread second(sleeper(1));
  for (std::size_t step = 0; step < steps; ++step) {
    clock.await_sleepers(2);
    clock.advance(1s);
  }
  first.join();
  second.join();
  CHECK(wrong == std::array<std::size_t, 2>{});
}

TEST_CASE("virtual_clock sleepers end on a stop or on time, and say which") {
  std::atomic<std::size_t> wrong{0};
  for (std::size_t round = 0; round < veltrix_test::scale(500); ++round) {
    virtual_clock clock;
    stop_source source;
    const time_point until = clock.now() + 1s;
    std::thread sleeper([&] {
      const bool reached = clock.sleep_until(until, source.get_token());  // sleep: virtual
      if (!reached && !source.stop_requested()) ++wrong;
      if (reached && clock.now() < until) ++wrong;
    });
    std::thread stopper([&] { source.request_stop(); });
    clock.advance(1s);
    stopper.join();
    sleeper.join();
  }
  CHECK(wrong == 0);
}
