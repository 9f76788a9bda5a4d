// Invariants:
//   L1  once a gate has admitted a fence, it admits none older
//   L2  a fence that is read beside a renewal is the one that its time belongs to, or newer
// SPDX-License-Identifier: BSL-1.0
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <thread>
#include <vector>

#include "support/catch.hpp"
#include "support/random.hpp"
#include "support/scale.hpp"
#include "veltrix/lease.hpp"

using namespace std::chrono_literals;

TEST_CASE("fence_gate L1 admits no fence older than one it admitted") {
  const std::uint64_t seed = 36101;
  INFO("seed " << seed);
  veltrix::fence_gate gate;
  std::atomic<std::size_t> wrong{0};
  std::vector<std::thread> running;
  for (std::uint64_t thread = 0; thread < 4; ++thread) {
    running.emplace_back([&, thread] {
      veltrix_test::random_source choose(seed + thread);
      for (std::size_t i = 1; i < veltrix_test::scale(200'000); ++i) {
        const std::uint64_t before = gate.newest();
        const std::uint64_t fence = i + choose.below(8);
        if (gate.admit(fence) && fence < before) wrong.fetch_add(1);
      }
    });
  }
  for (std::thread& each : running)
    each.join();
  CHECK(wrong.load() == 0);
}

TEST_CASE("lease_holder L2 shows a fence at least as new as its time") {
  struct growing_store {
    std::uint64_t fence = 0;
    veltrix::lease_answer acquire(std::string_view, std::string_view, veltrix::duration) {
      return {++fence, {}};
    }
  } store;
  veltrix::virtual_clock clock;
  veltrix::lease_holder holder(store, {"leader", "a"}, {.term = 3s, .margin = 0s});
  std::atomic<bool> over{false};
  std::atomic<std::size_t> wrong{0};
  const veltrix::time_point start = clock.now();
  std::thread reader([&] {
    while (!over.load()) {
      const veltrix::time_point now = clock.now();
      const auto fence = holder.fence(now);  // step number n is at start + n s
      const auto steps = static_cast<std::uint64_t>((now - start) / 1s);
      if (fence && *fence + 3 < steps) wrong.fetch_add(1);
    }
  });
  for (std::size_t i = 0; i < veltrix_test::scale(100'000); ++i) {
    static_cast<void>(holder.step(clock));
    clock.advance(1s);
  }
  over.store(true);
  reader.join();
  CHECK(wrong.load() == 0);
}
