// Mixing and transparent hashing.
// SPDX-License-Identifier: BSL-1.0
#include "veltrix/detail/hash.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "support/catch.hpp"
#include "support/random.hpp"

using veltrix::detail::default_equal;
using veltrix::detail::default_hash;
using veltrix::detail::mix;

static_assert(mix(1) != mix(2));
static_assert(mix(1, 1) != mix(1, 2));
static_assert(noexcept(mix(1)));

TEST_CASE("mix flips each output bit for about half of the inputs when one input bit flips") {
  const std::uint64_t seed = 4711;
  CAPTURE(seed);
  veltrix_test::random_source random(seed);
  constexpr int samples = 4000;
  std::array<std::array<int, 64>, 64> flips{};
  for (int sample = 0; sample < samples; ++sample) {
    const std::uint64_t value = random.next();
    for (unsigned in = 0; in < 64; ++in) {
      const std::uint64_t changed = mix(value) ^ mix(value ^ (std::uint64_t{1} << in));
      for (unsigned out = 0; out < 64; ++out)
        flips[in][out] += static_cast<int>((changed >> out) & 1);
    }
  }
  // The standard deviation of a fair coin is 32 flips; 4096 coins stay within 6 of them.
  int worst = 0;
  for (const auto& row : flips) {
    for (const int count : row)
      worst = std::max(worst, std::abs(count - samples / 2));
  }
  CHECK(worst < 6 * 32);
}

TEST_CASE("mix spreads counters and aligned addresses over the high and the low bits") {
  for (const std::uint64_t step : {1ULL, 8ULL, 64ULL, 4096ULL, 1ULL << 32}) {
    std::array<int, 64> low{};
    std::array<int, 64> high{};
    for (std::uint64_t i = 0; i < 6400; ++i) {
      const std::uint64_t mixed = mix(i * step);
      ++low[mixed & 63];
      ++high[mixed >> 58];
    }
    for (std::size_t bucket = 0; bucket < 64; ++bucket) {  // 100 each; standard deviation 10
      CHECK(low[bucket] > 40);
      CHECK(low[bucket] < 160);
      CHECK(high[bucket] > 40);
      CHECK(high[bucket] < 160);
    }
  }
}

TEST_CASE("default_hash finds a string by any of its forms") {
  const std::string text = "a key long enough not to be small";
  const default_hash<std::string> hash;
  CHECK(hash(text) == hash(std::string_view(text)));
  CHECK(hash(text) == hash(text.c_str()));
  CHECK(hash(text) == default_hash<std::string_view>{}(text));
  CHECK(hash(text) == std::hash<std::string>{}(text));
  CHECK(default_hash<int>{}(7) == std::hash<int>{}(7));
}

TEST_CASE("default_equal compares what compares") {
  const default_equal equal;
  CHECK(equal(std::string("a"), "a"));
  CHECK(equal(std::string_view("a"), std::string("a")));
  CHECK_FALSE(equal(std::string("a"), std::string_view("b")));
  CHECK(equal(3, 3L));
}
