// Mixing, hashes of text, and transparent hashing.
// SPDX-License-Identifier: BSL-1.0
#include "veltrix/detail/hash.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "support/catch.hpp"
#include "support/random.hpp"
#include "veltrix/detail/default_hash.hpp"

using veltrix::detail::default_equal;
using veltrix::detail::default_hash;
using veltrix::detail::mix;
using veltrix::detail::secret_mix;
using veltrix::detail::text_hash;

static_assert(mix(1) != mix(2));
static_assert(mix(1, 1) != mix(1, 2));
static_assert(noexcept(mix(1)));

namespace {

/// How often each bit of changed(sample, in) is set, over random samples and each of `inputs` bits.
/// Result: the count that is farthest from half of the samples.
template <class Changed>
int worst_flip(unsigned inputs, int samples, Changed changed) {
  std::vector<std::array<int, 64>> flips(inputs);
  for (int sample = 0; sample < samples; ++sample) {
    for (unsigned in = 0; in < inputs; ++in) {
      const std::uint64_t bits = changed(sample, in);
      for (unsigned out = 0; out < 64; ++out)
        flips[in][out] += static_cast<int>((bits >> out) & 1);
    }
  }
  int worst = 0;
  for (const auto& row : flips) {
    for (const int count : row)
      worst = std::max(worst, std::abs(count - samples / 2));
  }
  return worst;
}

/// What a map uses of a hash: its lowest six bits, its highest six, and six that a tag is made of.
template <class Spread>
void check_spread(const Spread& spread) {
  for (const std::uint64_t step : {1ULL, 8ULL, 64ULL, 4096ULL, 1ULL << 32, 1ULL << 50}) {
    CAPTURE(step);
    for (const unsigned shift : {0U, 32U, 48U, 58U}) {
      std::array<int, 64> buckets{};
      for (std::uint64_t i = 0; i < 6400; ++i)
        ++buckets[(spread(i * step) >> shift) & 63];
      const auto [least, most] = std::minmax_element(buckets.begin(), buckets.end());
      CHECK(*least > 40);  // 100 each; standard deviation 10
      CHECK(*most < 160);
    }
  }
}

}  // namespace

TEST_CASE("mix flips each output bit for about half of the inputs when one input bit flips") {
  veltrix_test::random_source random(4711);
  std::vector<std::uint64_t> values(4000);
  for (auto& each : values)
    each = random.next();
  // The standard deviation of a fair coin is 32 flips; 4096 coins stay within 6 of them.
  CHECK(worst_flip(64, 4000, [&](int sample, unsigned in) {
          const std::uint64_t value = values[static_cast<std::size_t>(sample)];
          return mix(value) ^ mix(value ^ (std::uint64_t{1} << in));
        }) < 6 * 32);
}

TEST_CASE("mix spreads counters and aligned addresses over the high and the low bits") {
  check_spread([](std::uint64_t value) { return mix(value); });
}

TEST_CASE("secret_mix flips each output bit for half of the secrets when one input bit flips") {
  veltrix_test::random_source random(4712);
  std::vector<secret_mix> secrets;
  for (int i = 0; i < 4000; ++i)
    secrets.emplace_back(random.next());
  for (const std::uint64_t value : {std::uint64_t{0}, std::uint64_t{12'345}, ~std::uint64_t{0}}) {
    CHECK(worst_flip(64, 4000, [&](int sample, unsigned in) {
            const secret_mix& spread = secrets[static_cast<std::size_t>(sample)];
            return spread(value) ^ spread(value ^ (std::uint64_t{1} << in));
          }) < 7 * 32);
  }
}

TEST_CASE("secret_mix spreads counters and aligned addresses, whatever its secret") {
  // One product does not: with some secrets counters of some step go to few buckets.
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    CAPTURE(seed);
    check_spread(secret_mix(seed));
  }
}

TEST_CASE(
    "text_hash, mixed, flips each bit for about half of the texts when one of their bits flips") {
  veltrix_test::random_source random(4713);
  const text_hash hash(99);
  for (const std::size_t size : {2U, 3U, 4U, 7U, 8U, 15U, 16U, 17U, 31U, 32U, 33U, 48U}) {
    CAPTURE(size);
    std::vector<std::string> texts(2000, std::string(size, ' '));
    for (auto& text : texts) {
      for (char& each : text)
        each = static_cast<char>(random.next());
    }
    CHECK(worst_flip(static_cast<unsigned>(8 * size), 2000, [&](int sample, unsigned in) {
            std::string text = texts[static_cast<std::size_t>(sample)];
            const std::uint64_t before = mix(hash(text));
            text[in / 8] = static_cast<char>(text[in / 8] ^ (1 << (in % 8)));
            return before ^ mix(hash(text));
          }) < 9 * 23);  // the standard deviation is 22 flips; short texts come again and again
  }
}

TEST_CASE("text_hash tells texts of like bytes apart by their length and their order") {
  const text_hash hash(7);
  std::set<std::uint64_t> seen;
  std::size_t texts = 0;
  for (const char byte : {'\0', 'a', '\xff'}) {
    for (std::size_t size = byte == '\0' ? 0 : 1; size < 200; ++size, ++texts)
      seen.insert(hash(std::string(size, byte)));
  }
  for (std::size_t at = 0; at < 100; ++at, ++texts) {
    std::string text(100, 'a');
    text[at] = 'b';
    seen.insert(hash(text));
  }
  CHECK(seen.size() == texts);
}

TEST_CASE("text_hash depends on its seed alone") {
  CHECK(text_hash(1)("a key") == text_hash(1)("a key"));
  CHECK(text_hash(1)("a key") != text_hash(2)("a key"));
  CHECK(default_hash<std::string>(5)("a key") == text_hash(5)("a key"));
}

TEST_CASE("default_hash finds a string by any of its forms") {
  const std::string text = "a key long enough not to be small";
  const default_hash<std::string> hash;
  CHECK(hash(text) == hash(std::string_view(text)));
  CHECK(hash(text) == hash(text.c_str()));
  CHECK(hash(text) == default_hash<std::string_view>{}(text));
  CHECK(hash(text) == default_hash<std::string>{}(text));
  CHECK(default_hash<int>{}(7) == std::hash<int>{}(7));
}

TEST_CASE("default_equal compares what compares") {
  const default_equal equal;
  CHECK(equal(std::string("a"), "a"));
  CHECK(equal(std::string_view("a"), std::string("a")));
  CHECK_FALSE(equal(std::string("a"), std::string_view("b")));
  CHECK(equal(3, 3L));
}
