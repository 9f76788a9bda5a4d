// SPDX-License-Identifier: BSL-1.0
#include "veltrix/backoff.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "support/catch.hpp"
#include "support/random.hpp"
#include "support/scale.hpp"

using namespace std::chrono_literals;
using veltrix::backoff;
using veltrix::backoff_sequence;
using veltrix::backoff_state;
using veltrix::capped;
using veltrix::constant;
using veltrix::decorrelated_jitter;
using veltrix::duration;
using veltrix::equal_jitter;
using veltrix::exponential;
using veltrix::full_jitter;
using veltrix::linear;
using veltrix::small_random;
using veltrix::spread;

namespace {

static_assert(std::is_trivially_copyable_v<backoff>);
static_assert(std::is_trivially_copyable_v<backoff_sequence>);
static_assert(sizeof(small_random) == 8);
static_assert(veltrix::random_bits<small_random>);
static_assert(!std::is_default_constructible_v<backoff>);

/// Draws a fixed fraction for ever: 0 is the lowest, ~0 the highest.
struct fixed_bits {
  using result_type = std::uint64_t;
  static constexpr std::uint64_t min() { return 0; }
  static constexpr std::uint64_t max() { return ~std::uint64_t{0}; }
  std::uint64_t operator()() const { return bits; }
  std::uint64_t bits;
};

std::vector<duration> first_delays(const backoff& policy, std::size_t count, std::uint64_t bits) {
  backoff_sequence sequence(policy);
  fixed_bits random{bits};
  std::vector<duration> drawn;
  for (std::size_t i = 0; i < count; ++i)
    drawn.push_back(sequence.next(random));
  return drawn;
}

std::string refusal(auto build) {
  try {
    build();
  } catch (const std::invalid_argument& refused) {
    return refused.what();
  }
  return "not refused";
}

constexpr std::uint64_t half = std::uint64_t{1} << 63;
constexpr std::uint64_t most = ~std::uint64_t{0};

}  // namespace

TEST_CASE("backoff gives the exact delays of each curve") {
  using list = std::vector<duration>;
  CHECK(first_delays(constant{100ms}, 3, most) == list{100ms, 100ms, 100ms});
  CHECK(first_delays(linear{.first = 10ms, .step = 5ms}, 4, most) == list{10ms, 15ms, 20ms, 25ms});
  CHECK(first_delays(exponential{100ms}, 4, most) == list{100ms, 200ms, 400ms, 800ms});
  CHECK(first_delays(exponential{100ms, 1.5}, 3, 0) == list{100ms, 150ms, 225ms});
  CHECK(first_delays(exponential{100ms, 2.0} | capped{250ms}, 3, 0) == list{100ms, 200ms, 250ms});
}

TEST_CASE("backoff jitters draw between their documented shares of the curve") {
  using list = std::vector<duration>;
  const backoff curve = exponential{100ms} | capped{300ms};
  CHECK(first_delays(curve | full_jitter{}, 3, 0) == list{0ms, 0ms, 0ms});
  CHECK(first_delays(curve | full_jitter{}, 3, half) == list{50ms, 100ms, 150ms});
  CHECK(first_delays(curve | equal_jitter{}, 3, 0) == list{50ms, 100ms, 150ms});
  CHECK(first_delays(curve | equal_jitter{}, 3, half) == list{75ms, 150ms, 225ms});
  CHECK(first_delays(curve | spread{0.25}, 2, 0) == list{75ms, 150ms});
  CHECK(first_delays(curve | spread{0.25}, 2, half) == list{100ms, 200ms});
  CHECK(first_delays(decorrelated_jitter{100ms}, 3, 0) == list{100ms, 100ms, 100ms});
  CHECK(first_delays(decorrelated_jitter{100ms}, 3, half) == list{200ms, 350ms, 575ms});
  CHECK(first_delays(decorrelated_jitter{100ms} | capped{300ms}, 3, half) ==
        list{200ms, 300ms, 300ms});
}

TEST_CASE("backoff caps the curve before a jitter and the draw after it") {
  using list = std::vector<duration>;
  CHECK(first_delays(constant{1s} | capped{500ms} | full_jitter{}, 1, half) == list{250ms});
  CHECK(first_delays(constant{1s} | full_jitter{} | capped{400ms}, 1, half) == list{400ms});
  CHECK(first_delays(constant{1s} | full_jitter{} | capped{400ms}, 1, 0) == list{0ms});
}

TEST_CASE("backoff refuses bad values when it is built, naming value and bound") {
  CHECK(refusal([] { return backoff(constant{0ms}); }) ==
        "veltrix: backoff: constant.delay: got 0 s, allowed 1 ns or more; no backoff was built; "
        "correct the value");
  CHECK(refusal([] { return backoff(exponential{-1ms}); }).find("got -1 ms") != std::string::npos);
  CHECK(refusal([] { return backoff(exponential{1ms, 0.5}); }) ==
        "veltrix: backoff: exponential.factor: got 0.5, allowed 1 to 1000; no backoff was built; "
        "correct the value");
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK(refusal([&] { return backoff(exponential{1ms, nan}); }) != "not refused");
  CHECK(refusal([] { return backoff(linear{.first = 1ms, .step = -1ms}); }) != "not refused");
  CHECK(refusal([] { return backoff(decorrelated_jitter{0ns}); }) != "not refused");
  CHECK(refusal([] { return constant{1ms} | capped{0ms}; }) != "not refused");
  CHECK(refusal([] { return constant{1ms} | spread{0.0}; }) != "not refused");
  CHECK(refusal([] { return constant{1ms} | spread{1.5}; }) != "not refused");
  CHECK(refusal([] {
          return constant{1ms} | full_jitter{} | equal_jitter{};
        }).find("one jitter per curve") != std::string::npos);
  CHECK(refusal([] { return decorrelated_jitter{1ms} | full_jitter{}; }) != "not refused");
}

TEST_CASE("backoff never overflows, whatever the attempt and the values") {
  const duration longest = duration::max();
  const std::vector<backoff> policies{
      constant{longest},
      linear{.first = longest, .step = longest},
      linear{.first = 1ns, .step = 1ns},
      exponential{longest, 1000.0},
      exponential{1ns, 1.0},
      exponential{1ns, 1.0000001},
      exponential{longest} | spread{1.0},
      constant{longest} | full_jitter{},
      constant{longest} | equal_jitter{},
      decorrelated_jitter{longest},
      decorrelated_jitter{1ns} | capped{longest},
  };
  for (const backoff& policy : policies) {
    for (const std::uint64_t drawn : {std::uint64_t{0}, std::uint64_t{1'000'000'000}, most}) {
      for (const std::uint64_t bits : {std::uint64_t{0}, most}) {
        fixed_bits random{bits};
        const duration previous = drawn == 0 ? duration::zero() : policy.longest(drawn - 1);
        backoff_state state{drawn, previous};
        const duration delay = policy.next(state, random);
        CHECK(delay >= duration::zero());
        CHECK(delay >= policy.shortest());
        CHECK(delay <= policy.longest(drawn));
        CHECK(state.drawn >= drawn);
      }
      CHECK(policy.mean_total(drawn) >= duration::zero());
    }
  }
  const backoff million = exponential{1ms} | capped{1s};
  CHECK(million.longest(1'000'000'000) == 1s);
  CHECK(exponential{1ms}.first == 1ms);
  CHECK(backoff(exponential{1ms}).longest(1'000'000'000) == longest);
}

TEST_CASE("backoff delays stay between shortest and longest for random policies") {
  const std::uint64_t seed = 20261;
  INFO("seed " << seed);
  veltrix_test::random_source choose(seed);
  const auto span = [&] {
    return duration(1 + static_cast<duration::rep>(choose.next() >> (1 + choose.below(62))));
  };
  for (std::size_t round = 0; round < veltrix_test::scale(20'000); ++round) {
    backoff policy = constant{span()};
    const std::uint64_t jitter = choose.below(4);
    switch (choose.below(4)) {
      case 0: policy = linear{.first = span(), .step = span()}; break;
      case 1:
        policy = exponential{span(), 1.0 + static_cast<double>(choose.below(1000)) / 100.0};
        break;
      default: break;
    }
    if (jitter == 0) policy = decorrelated_jitter{span()};
    if (choose.below(2) == 0) policy = policy | capped{span()};
    if (jitter == 1) policy = policy | full_jitter{} | capped{span()};
    if (jitter == 2) policy = policy | spread{0.1 + 0.9 / static_cast<double>(1 + round)};
    small_random random(choose.next());
    backoff_state state{jitter == 0 ? 0 : choose.below(50), {}};
    for (int step = 0; step < 8; ++step) {
      const std::uint64_t index = state.drawn;
      const duration delay = policy.next(state, random);
      REQUIRE(delay >= policy.shortest());
      REQUIRE(delay <= policy.longest(index));
      REQUIRE(state.previous == delay);
    }
  }
}

TEST_CASE("backoff mean_total agrees with adding up the curve") {
  const std::uint64_t seed = 20262;
  INFO("seed " << seed);
  veltrix_test::random_source choose(seed);
  for (int round = 0; round < 2000; ++round) {
    const duration first(1 + static_cast<duration::rep>(choose.below(1'000'000'000)));
    const duration cap(1 + static_cast<duration::rep>(choose.below(10'000'000'000)));
    const auto count = choose.below(60);
    backoff curve = constant{first};
    if (round % 3 == 1) curve = linear{.first = first, .step = first / 3};
    if (round % 3 == 2) {
      curve = exponential{first, 1.0 + static_cast<double>(choose.below(200)) / 100.0};
    }
    curve = curve | capped{cap};
    double sum = 0;
    for (std::uint64_t i = 0; i < count; ++i)
      sum += static_cast<double>(curve.longest(i).count());
    const auto counted = [&](const backoff& policy) {
      return static_cast<double>(policy.mean_total(count).count());
    };
    const double tolerance = 1e-9 * sum + 100.0;
    REQUIRE(std::abs(counted(curve) - sum) <= tolerance);
    REQUIRE(std::abs(counted(curve | full_jitter{}) - sum / 2) <= tolerance);
    REQUIRE(std::abs(counted(curve | equal_jitter{}) - sum * 0.75) <= tolerance);
  }
}

TEST_CASE(
    "backoff mean_total is near what drawing gives, and not below it when it is an estimate") {
  const auto drawn_mean = [](const backoff& policy, int count) {
    double sum = 0;
    small_random random(7);
    const int chains = 20'000;
    for (int chain = 0; chain < chains; ++chain) {
      backoff_state state;
      for (int i = 0; i < count; ++i)
        sum += static_cast<double>(policy.next(state, random).count());
    }
    return sum / chains;
  };
  const auto stated_mean = [](const backoff& policy, std::uint64_t count) {
    return static_cast<double>(policy.mean_total(count).count());
  };
  const backoff full = exponential{100ms} | capped{1s} | full_jitter{};
  CHECK(std::abs(drawn_mean(full, 5) / stated_mean(full, 5) - 1.0) < 0.02);
  const backoff decorrelated = decorrelated_jitter{100ms} | capped{1s};
  const double ratio = drawn_mean(decorrelated, 10) / stated_mean(decorrelated, 10);
  CHECK(ratio <= 1.01);
  CHECK(ratio > 0.5);
}

TEST_CASE("backoff repeats with the same seed and differs with another") {
  const backoff policy = exponential{100ms} | capped{1s} | full_jitter{};
  const auto trace = [&](small_random random) {
    backoff_sequence sequence(policy);
    std::vector<duration> drawn;
    for (int i = 0; i < 20; ++i)
      drawn.push_back(sequence.next(random));
    CHECK(sequence.drawn() == 20);
    return drawn;
  };
  CHECK(trace(small_random(1)) == trace(small_random(1)));
  CHECK(trace(small_random(1)) != trace(small_random(2)));
  CHECK(trace(small_random::seeded()) != trace(small_random::seeded()));
}

TEST_CASE("backoff values compare, so that a reload can tell whether anything changed") {
  CHECK(backoff(constant{1ms}) == backoff(constant{1ms}));
  CHECK(backoff(constant{1ms}) != backoff(constant{2ms}));
  CHECK((exponential{1ms} | full_jitter{}) != (exponential{1ms} | equal_jitter{}));
}
