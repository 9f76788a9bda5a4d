// Invariants:
//   E1  a view is one resolution, whole, and its generation tells views apart
// SPDX-License-Identifier: BSL-1.0
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "support/catch.hpp"
#include "support/scale.hpp"
#include "veltrix/endpoint_set.hpp"

TEST_CASE("endpoint_set E1 shows each reader one whole resolution") {
  using veltrix::endpoint;
  veltrix::endpoint_set set;
  const veltrix::time_point start{std::chrono::hours(1)};
  std::atomic<bool> over{false};
  std::atomic<std::size_t> mixed{0};
  std::vector<std::thread> readers;
  for (int i = 0; i < 3; ++i) {
    readers.emplace_back([&] {
      std::uint64_t newest = 0;
      while (!over.load()) {
        const auto view = set.current();
        for (const endpoint& each : view->endpoints)
          mixed.fetch_add(each.port == view->endpoints.front().port ? 0 : 1);
        mixed.fetch_add(view->generation < newest ? 1 : 0);
        newest = view->generation;
      }
    });
  }
  const std::size_t rounds = veltrix_test::scale(5'000);
  for (std::size_t round = 0; round < rounds; ++round) {
    std::vector<endpoint> found;
    for (std::size_t i = 0; i < 8; ++i)
      found.push_back({"host-" + std::to_string(i), static_cast<std::uint16_t>(1 + round % 999)});
    set.resolved(found, start);
    static_cast<void>(set.failed({"name", "server", "why"}, start));
  }
  over.store(true);
  for (std::thread& each : readers)
    each.join();
  CHECK(mixed.load() == 0);
  CHECK(set.current()->generation == rounds);
}
