// SPDX-License-Identifier: BSL-1.0
// A deque to steal from. Its interleavings are explored in model/steal_deque_model_test.cpp.
#include "veltrix/detail/steal_deque.hpp"

#include <atomic>
#include <cstdint>
#include <random>
#include <thread>
#include <vector>

#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"
#include "support/scale.hpp"

using veltrix::detail::steal_deque;

TEST_CASE("steal_deque gives its owner the newest and thieves the oldest") {
  steal_deque<int> deque;
  int values[200];
  CHECK(deque.pop() == nullptr);
  CHECK(deque.steal() == nullptr);
  CHECK(deque.empty());
  for (int& each : values) {
    deque.reserve();
    deque.push(&each);
  }
  CHECK(deque.size() == 200);
  CHECK(deque.pop() == &values[199]);
  CHECK(deque.steal() == &values[0]);
  CHECK(deque.steal() == &values[1]);
  CHECK(deque.pop() == &values[198]);
  CHECK(deque.size() == 196);
  for (int i = 197; i >= 2; --i)
    REQUIRE(deque.pop() == &values[i]);
  CHECK(deque.pop() == nullptr);
  CHECK(deque.empty());
  deque.reserve();
  deque.push(&values[7]);
  CHECK(deque.steal() == &values[7]);
  CHECK(deque.pop() == nullptr);
}

TEST_CASE("steal_deque gives a thief only what it is permitted, by its position") {
  steal_deque<int> deque;
  int values[3] = {};
  for (int& each : values) {
    deque.reserve();
    deque.push(&each);
  }
  CHECK(deque.position() == 3);
  CHECK(deque.begins_at_or_above(0));
  CHECK_FALSE(deque.begins_at_or_above(1));
  const auto from = [](std::int64_t least) {
    return [least](std::int64_t position) { return position >= least; };
  };
  CHECK(deque.steal_if(from(1)) == nullptr);
  CHECK(deque.size() == 3);
  CHECK(deque.steal_if(from(0)) == &values[0]);
  CHECK(deque.begins_at_or_above(1));
  CHECK(deque.pop() == &values[2]);
  CHECK(deque.position() == 2);
  CHECK(deque.steal_if(from(1)) == &values[1]);
  CHECK(deque.steal_if(from(0)) == nullptr);
  CHECK_FALSE(deque.begins_at_or_above(0));
}

TEST_CASE("steal_deque is unchanged when it lacks memory to grow") {
  steal_deque<int> deque;
  int values[100];
  std::size_t held = 0;
  for (int& each : values) {
    veltrix_test::fail_each_allocation([&] { deque.reserve(); },
                                       [&] { REQUIRE(deque.size() == held); });
    deque.push(&each);
    ++held;
  }
  for (std::size_t i = 0; i < 100; ++i)
    REQUIRE(deque.steal() == &values[i]);
}

TEST_CASE("steal_deque stress: every element is taken once, by its owner or a thief") {
  const std::uint64_t seed = std::random_device{}();
  CAPTURE(seed);
  const std::size_t count = veltrix_test::scale(300'000);
  std::vector<std::atomic<std::uint8_t>> taken(count);
  steal_deque<std::atomic<std::uint8_t>> deque;
  std::atomic<bool> ends{false};
  std::vector<std::thread> thieves;
  for (int i = 0; i < 2; ++i) {
    thieves.emplace_back([&] {
      while (!ends.load()) {
        if (auto* const stolen = deque.steal()) stolen->fetch_add(1);
      }
    });
  }
  veltrix_test::random_source random(seed);
  for (std::size_t i = 0; i < count;) {
    for (std::uint64_t pushes = 1 + random.below(100); pushes > 0 && i < count; --pushes, ++i) {
      deque.reserve();
      deque.push(&taken[i]);
    }
    for (std::uint64_t pops = random.below(120); pops > 0; --pops) {
      if (auto* const own = deque.pop()) own->fetch_add(1);
    }
  }
  while (auto* const own = deque.pop())
    own->fetch_add(1);
  ends = true;
  for (std::thread& each : thieves)
    each.join();
  std::size_t wrong = 0;
  for (const auto& times : taken)
    wrong += times.load() == 1 ? 0 : 1;
  CHECK(wrong == 0);
  CHECK(deque.empty());
}
