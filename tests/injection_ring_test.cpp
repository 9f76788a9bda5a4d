// SPDX-License-Identifier: BSL-1.0
// A bounded queue by value. Its interleavings are explored in model/injection_ring_model_test.cpp.
#include "veltrix/detail/injection_ring.hpp"

#include <atomic>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"
#include "support/scale.hpp"
#include "veltrix/detail/task.hpp"

using veltrix::detail::injection_ring;
using veltrix::detail::ring_answer;
using veltrix::detail::stand_off;

namespace {

struct number {
  std::size_t value = 0;
};

template <class Value>
bool pop(injection_ring<Value>& ring, Value& taken) {
  stand_off away;
  return ring.pop(taken, away);
}

}  // namespace

TEST_CASE("injection_ring gives back what it took, in order, through many rounds") {
  for (const std::size_t capacity : {1U, 2U, 3U, 7U, 64U, 100U}) {
    injection_ring<number> ring(capacity);
    std::size_t pushed = 0;
    std::size_t popped = 0;
    number got;
    for (std::size_t round = 0; round < 50; ++round) {
      number next{pushed};
      while (ring.push(next) == ring_answer::taken)
        next.value = ++pushed;
      REQUIRE(ring.size() == capacity);
      REQUIRE(pushed - popped == capacity);  // a refusal is exact, whatever the capacity
      for (std::size_t i = 0; i < 1 + round % capacity; ++i) {
        REQUIRE(pop(ring, got));
        REQUIRE(got.value == popped++);
      }
    }
    CHECK(ring.pushed() == pushed);
    CHECK(ring.ready() == (popped != pushed));
    CHECK(ring.claimed() == (popped != pushed));
    while (pop(ring, got))
      REQUIRE(got.value == popped++);
    CHECK(popped == pushed);
    CHECK_FALSE(ring.ready());
    CHECK_FALSE(ring.claimed());
    CHECK(ring.size() == 0);
  }
}

TEST_CASE("injection_ring takes as many of several as there is room for") {
  injection_ring<number> ring(5);
  number many[8];
  for (std::size_t i = 0; i < 8; ++i)
    many[i].value = i;
  const auto first = ring.push_some(many, 3);
  CHECK(first.first == 3);
  CHECK(first.second == ring_answer::taken);
  const auto second = ring.push_some(many + 3, 5);
  CHECK(second.first == 2);
  CHECK(second.second == ring_answer::taken);
  const auto third = ring.push_some(many + 5, 3);
  CHECK(third.first == 0);
  CHECK(third.second == ring_answer::full);
  number got;
  for (std::size_t i = 0; i < 5; ++i) {
    REQUIRE(pop(ring, got));
    CHECK(got.value == i);
  }
  CHECK_FALSE(pop(ring, got));
}

TEST_CASE("injection_ring takes nothing once it is closed and gives what it has") {
  injection_ring<number> ring(4);
  number one{1};
  REQUIRE(ring.push(one) == ring_answer::taken);
  CHECK_FALSE(ring.closed());
  ring.close();
  ring.close();
  CHECK(ring.closed());
  CHECK(ring.push(one) == ring_answer::closed);
  CHECK(ring.push_some(&one, 1).second == ring_answer::closed);
  CHECK(ring.pushed() == 1);
  number got;
  CHECK(pop(ring, got));
  CHECK_FALSE(pop(ring, got));
}

TEST_CASE("injection_ring leaves a refused value alone and ends those it holds") {
  const auto alive = std::make_shared<int>(0);
  {
    injection_ring<veltrix::detail::task> ring(1);
    veltrix::detail::task first([alive] {});
    veltrix::detail::task second([alive] {});
    REQUIRE(ring.push(first) == ring_answer::taken);
    CHECK_FALSE(static_cast<bool>(first));
    CHECK(ring.push(second) == ring_answer::full);
    CHECK(static_cast<bool>(second));
    CHECK(alive.use_count() == 3);
  }
  CHECK(alive.use_count() == 1);
}

TEST_CASE("injection_ring pushes nothing when it lacks memory for its cells") {
  injection_ring<number> ring(1000);
  std::vector<number> many(1000);
  std::size_t taken = 0;
  const int failures = veltrix_test::fail_each_allocation(
      [&] { taken = ring.push_some(many.data(), 1000).first; }, [&] { CHECK(ring.pushed() == 0); });
  // Sanitizers bring an aligned operator new[] of their own, which does not fail.
  if (veltrix_test::slowdown == 1) CHECK(failures > 1);
  CHECK(taken == 1000);
  CHECK(ring.size() == 1000);
}

TEST_CASE("injection_ring stress: every value comes out once, those of one pusher in order") {
  constexpr std::size_t pushers = 3;
  constexpr std::size_t poppers = 2;
  const std::size_t each = veltrix_test::scale(100'000);
  for (const std::size_t capacity : {1U, 6U, 512U}) {
    injection_ring<number> ring(capacity);
    std::vector<std::atomic<std::uint8_t>> seen(pushers * each);
    std::atomic<std::size_t> popped{0};
    std::atomic<std::size_t> disorders{0};
    std::vector<std::thread> crew;
    for (std::size_t p = 0; p < pushers; ++p) {
      crew.emplace_back([&, p] {
        for (std::size_t i = 0; i < each;) {
          number block[3]{{p * each + i}, {p * each + i + 1}, {p * each + i + 2}};
          const std::size_t wanted = std::min<std::size_t>(1 + i % 3, each - i);
          const std::size_t taken = ring.push_some(block, wanted).first;
          if (taken == 0) std::this_thread::yield();
          i += taken;
        }
      });
    }
    for (std::size_t p = 0; p < poppers; ++p) {
      crew.emplace_back([&] {
        std::vector<std::size_t> last(pushers, 0);
        while (popped.load() != pushers * each) {
          number got;
          if (!pop(ring, got)) {
            std::this_thread::yield();
            continue;
          }
          popped.fetch_add(1);
          seen[got.value].fetch_add(1);
          std::size_t& before = last[got.value / each];
          disorders.fetch_add(got.value + 1 <= before ? 1 : 0);
          before = got.value + 1;
        }
      });
    }
    for (std::thread& thread : crew)
      thread.join();
    std::size_t wrong = 0;
    for (const auto& times : seen)
      wrong += times.load() == 1 ? 0 : 1;
    CHECK(wrong == 0);
    CHECK(disorders.load() == 0);
    CHECK(ring.size() == 0);
  }
}
