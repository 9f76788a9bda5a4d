// Invariants:
//   C1  never are more connections to a host in use than per_host, and all places come back
//   C2  no connection is with two users at once
// SPDX-License-Identifier: BSL-1.0
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/random.hpp"
#include "support/scale.hpp"
#include "veltrix/connection_pool.hpp"

namespace {

struct wire {
  std::unique_ptr<std::atomic<int>> users = std::make_unique<std::atomic<int>>(0);
};
std::optional<wire> open_wire(const int&) {
  return wire{};
}
bool wire_is_alive(wire&) {
  return true;
}

}  // namespace

TEST_CASE("connection_pool C1 C2 bounds connections in use and gives each to one user") {
  const std::uint64_t seed = 38101;
  INFO("seed " << seed);
  veltrix::connection_pool<int, wire, decltype(&open_wire), decltype(&wire_is_alive)> pool(
      {.per_host = 3, .waiters = 1000}, &open_wire, &wire_is_alive);
  std::atomic<int> in_use[2] = {};
  std::atomic<std::size_t> wrong{0};
  std::vector<std::thread> running;
  for (std::uint64_t thread = 0; thread < 6; ++thread) {
    running.emplace_back([&, thread] {
      veltrix_test::random_source choose(seed + thread);
      veltrix::steady_clock clock;
      for (std::size_t i = 0; i < veltrix_test::scale(20'000); ++i) {
        const int host = static_cast<int>(choose.below(2));
        auto got = pool.acquire(host, clock, {veltrix::no_deadline});
        if (!got) {
          wrong.fetch_add(host == 0 ? 1 : 0);  // the other may have left
          continue;
        }
        wrong.fetch_add(in_use[host].fetch_add(1) < 3 ? 0 : 1);
        wrong.fetch_add(got.held->users->fetch_add(1) == 0 ? 0 : 1);
        if (choose.below(16) == 0) std::this_thread::yield();
        got.held->users->fetch_sub(1);
        in_use[host].fetch_sub(1);
        if (choose.below(8) == 0) got.held.discard();
        if (choose.below(64) == 0) static_cast<void>(pool.sweep(clock.now()));
        if (thread == 0 && choose.below(64) == 0) {
          pool.keep_only(choose.below(2) == 0 ? std::vector<int>{0} : std::vector<int>{0, 1});
        }
      }
    });
  }
  for (std::thread& each : running)
    each.join();
  CHECK(wrong.load() == 0);
  CHECK(pool.stats(0).in_use == 0);
  CHECK(pool.stats(0).waiting == 0);
}
