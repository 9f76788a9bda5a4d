// SPDX-License-Identifier: BSL-1.0
#include "veltrix/lease.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

#include "support/catch.hpp"
#include "support/random.hpp"

using namespace std::chrono_literals;
using veltrix::duration;
using veltrix::fence_gate;
using veltrix::lease_answer;
using veltrix::lease_holder;
using veltrix::time_point;
using veltrix::virtual_clock;

namespace {

/// A store of one lease, on the same clock.
struct plain_store {
  virtual_clock& clock;
  std::string holder{};
  time_point until{};
  std::uint64_t fence = 0;
  int asked = 0;

  lease_answer acquire(std::string_view, std::string_view who, duration term) {
    ++asked;
    const time_point now = clock.now();
    const bool over = now >= until;
    if (!over && who != holder) return {0, until - now};
    if (over || holder != who) ++fence;
    holder = who;
    until = now + term;
    return {fence, {}};
  }
};

}  // namespace

TEST_CASE("lease_holder R62 takes over within 150 ms after a term, and renews at a third of it") {
  virtual_clock clock;
  plain_store store{clock};
  lease_holder first(store, {"leader", "a"});
  lease_holder second(store, {"leader", "b"});
  CHECK(first.step(clock) == clock.now() + duration(10s) / 3);
  CHECK(first.fence(clock.now()) == 1);
  time_point ask = second.step(clock);
  CHECK_FALSE(second.fence(clock.now()).has_value());
  const time_point over = store.until;
  while (!second.fence(clock.now())) {  // the first has died
    clock.advance_to(ask);
    ask = second.step(clock);
  }
  CHECK(clock.now() >= over);
  CHECK(clock.now() - over <= 150ms);
  CHECK(second.fence(clock.now()) == 2);

  const int asked = store.asked;
  for (int i = 0; i < 300; ++i) {
    clock.advance_to(ask);
    ask = second.step(clock);
    REQUIRE(second.fence(clock.now()) == 2);  // the same term, prolonged
  }
  CHECK(store.asked - asked == 300);
}

TEST_CASE("lease_holder gives no fence in the margin before its term ends, nor after") {
  virtual_clock clock;
  plain_store store{clock};
  lease_holder holder(store, {"leader", "a"}, {.term = 3s, .margin = 200ms});
  static_cast<void>(holder.step(clock));
  CHECK(holder.fence(clock.now() + 2800ms - 1ns) == 1);
  CHECK_FALSE(holder.fence(clock.now() + 2800ms).has_value());
}

TEST_CASE("lease_holder counts its term from before it asked") {
  virtual_clock clock;
  struct slow_store {
    virtual_clock& clock;
    lease_answer acquire(std::string_view, std::string_view, duration) {
      clock.advance(2s);
      return {7, {}};
    }
  } store{clock};
  lease_holder holder(store, {"leader", "a"}, {.term = 3s, .margin = 0s});
  const time_point asked = clock.now();
  static_cast<void>(holder.step(clock));
  CHECK(holder.fence(asked + 3s - 1ns) == 7);
  CHECK_FALSE(holder.fence(asked + 3s).has_value());
}

TEST_CASE("lease_holder gives no fence once the store says that the lease is another's") {
  virtual_clock clock;
  plain_store store{clock};
  lease_holder holder(store, {"leader", "a"});
  static_cast<void>(holder.step(clock));
  CHECK(holder.fence(clock.now()) == 1);
  store.holder = "b";  // an operator gave it away in mid-term
  static_cast<void>(holder.step(clock));
  CHECK_FALSE(holder.fence(clock.now()).has_value());
}

TEST_CASE("fence_gate R63 refuses the write of a leader that slept through its term") {
  virtual_clock clock;
  plain_store store{clock};
  fence_gate gate;
  lease_holder first(store, {"leader", "a"});
  lease_holder second(store, {"leader", "b"});
  static_cast<void>(first.step(clock));
  const std::uint64_t old = *first.fence(clock.now());
  CHECK(gate.admit(old));
  CHECK(gate.admit(old));
  clock.advance(11s);  // the first sleeps, with its fence in hand
  static_cast<void>(second.step(clock));
  CHECK(gate.admit(*second.fence(clock.now())));
  CHECK_FALSE(gate.admit(old));
  CHECK_FALSE(gate.admit(0));
  CHECK(gate.newest() == 2);
}

TEST_CASE("lease_holder never holds a fence beside another holder, whoever sleeps how long") {
  const std::uint64_t seed = 36001;
  INFO("seed " << seed);
  veltrix_test::random_source choose(seed);
  virtual_clock clock;
  plain_store store{clock};
  lease_holder one(store, {"leader", "a"}, {.term = 3s});
  lease_holder two(store, {"leader", "b"}, {.term = 3s});
  std::uint64_t held = 0;
  for (int step = 0; step < 20'000; ++step) {
    clock.advance(std::chrono::milliseconds(choose.below(1500)));
    static_cast<void>(choose.below(2) == 0 ? one.step(clock) : two.step(clock));
    const auto first = one.fence(clock.now());
    const auto second = two.fence(clock.now());
    REQUIRE_FALSE((first.has_value() && second.has_value()));
    const std::uint64_t now = std::max(first.value_or(0), second.value_or(0));
    REQUIRE((now == 0 || now >= held));
    held = std::max(held, now);
  }
  CHECK(held > 100);
}

TEST_CASE("lease_holder refuses options out of bounds") {
  virtual_clock clock;
  plain_store store{clock};
  CHECK_THROWS_AS(lease_holder(store, {"l", "a"}, {.term = 1ms}), std::invalid_argument);
  CHECK_THROWS_AS(lease_holder(store, {"l", "a"}, {.term = 3s, .margin = 2s}),
                  std::invalid_argument);
}
