// Invariants:
//   H1  every hedged call completes exactly once, whichever copy ends first
//   H2  second copies <= burst + extra × calls, at any time
// SPDX-License-Identifier: BSL-1.0
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <thread>
#include <vector>

#include "support/catch.hpp"
#include "support/scale.hpp"
#include "veltrix/elastic_pool.hpp"
#include "veltrix/hedge.hpp"

using namespace std::chrono_literals;

TEST_CASE("hedge H1 completes every call exactly once") {
  veltrix::elastic_pool pool(4);
  veltrix::timer_queue timers;
  veltrix::hedging shared(
      {.extra = 0.5, .burst = 1'000'000, .first_delay = 1us, .shortest = 1ns, .longest = 1us});
  const std::size_t calls = veltrix_test::scale(20'000);
  std::vector<std::atomic<int>> ended(calls);
  std::atomic<std::size_t> open{0};
  std::atomic<std::size_t> won{0};
  for (std::size_t call = 0; call < calls; ++call) {
    while (open.load() > 64)
      std::this_thread::yield();
    open.fetch_add(1);
    shared.run_on(
        pool, timers, {},
        [call](const veltrix::hedged_copy& copy) -> std::optional<std::size_t> {
          if (call % 3 == 0) std::this_thread::yield();
          if (call % 5 == 0 && copy.index == 1) return std::nullopt;
          return call;
        },
        [&, call](const veltrix::hedged_answer<std::optional<std::size_t>>& told) {
          if (told && **told.result == call) won.fetch_add(1);
          ended[call].fetch_add(1);
          open.fetch_sub(1);
        });
  }
  while (open.load() > 0)
    std::this_thread::yield();
  pool.stop();
  std::size_t not_once = 0;
  for (const std::atomic<int>& each : ended)
    not_once += each.load() == 1 ? 0 : 1;
  CHECK(not_once == 0);
  CHECK(won.load() >= calls * 4 / 5);
}

TEST_CASE("hedging H2 allows no more second copies than its share") {
  veltrix::hedging shared({.extra = 0.1, .burst = 5});
  std::atomic<std::uint64_t> calls{0};
  std::atomic<std::uint64_t> hedged{0};
  std::atomic<std::uint64_t> too_many{0};
  std::vector<std::thread> running;
  for (int thread = 0; thread < 4; ++thread) {
    running.emplace_back([&] {
      for (std::size_t i = 0; i < veltrix_test::scale(100'000); ++i) {
        calls.fetch_add(1);  // before it pays in, so that the bound is never too low
        static_cast<void>(shared.begin());
        shared.took(1ms);
        if (!shared.try_hedge()) continue;
        const auto so_far = static_cast<double>(hedged.fetch_add(1) + 1);
        // Read after it: what others hedge from here on is not in it, their calls may be.
        const auto bound = 5.0 + 0.1 * static_cast<double>(calls.load()) + 1e-6;
        if (so_far > bound) too_many.fetch_add(1);
      }
    });
  }
  for (std::thread& each : running)
    each.join();
  CHECK(too_many.load() == 0);
  CHECK(shared.stats().hedged == hedged.load());
}
