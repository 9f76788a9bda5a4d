// SPDX-License-Identifier: BSL-1.0
#include "veltrix/worker/order_check.hpp"

#include <map>
#include <set>

#include "support/catch.hpp"
#include "support/random.hpp"
#include "veltrix/detail/hash.hpp"

using veltrix::event;
using veltrix::order_check;
using veltrix::order_counts;

namespace {

std::uint64_t hash_of(std::uint64_t key) {
  return veltrix::detail::mix(key, 7);
}

}  // namespace

TEST_CASE("order_check finds nothing wrong with keys that count up from anywhere") {
  order_check check(1000);
  for (std::uint64_t sequence = 0; sequence < 50; ++sequence) {
    for (std::uint64_t key = 0; key < 200; ++key)
      check.see(hash_of(key), key * 10 + sequence + 1);
  }
  CHECK_FALSE(check.found_any());
}

TEST_CASE("order_check counts each number that is left out, late or repeated exactly") {
  order_check check(16);
  for (const std::uint64_t sequence : {1U, 2U, 5U, 5U, 3U, 3U, 6U})
    check.see(hash_of(1), sequence);
  const order_counts counts = check.take();
  CHECK(counts.missing == 1);     // 4
  CHECK(counts.late == 1);        // 3, after 5
  CHECK(counts.duplicates == 2);  // 5 and 3
  CHECK_FALSE(check.found_any());
}

TEST_CASE("order_check does not guess about numbers more than 64 back") {
  order_check check(16);
  check.see(hash_of(1), 1);
  check.see(hash_of(1), 200);
  check.see(hash_of(1), 136);
  check.see(hash_of(1), 135);
  const order_counts counts = check.take();
  CHECK(counts.late == 1);
  CHECK(counts.too_old == 1);
  CHECK(counts.missing == 197);
}

TEST_CASE("order_check sees an event that comes after a later one of its lane") {
  order_check check(16);
  event earlier;
  earlier.number = 7;
  event later;
  later.number = 9;
  check.see(later);
  check.see(earlier);
  CHECK(check.take().overtaken == 1);
}

TEST_CASE("order_check forgets the keys used longest ago when it is full") {
  order_check check(64);
  for (std::uint64_t key = 0; key < 10'000; ++key)
    check.see(hash_of(key), 1);
  const order_counts counts = check.take();
  CHECK(counts.forgotten >= 10'000 - 64);
  CHECK(counts.forgotten < 10'000);
  check.see(hash_of(9'999), 2);
  CHECK_FALSE(check.found_any());
}

TEST_CASE("order_check agrees with a plain model on random numberings") {
  const std::uint64_t seed = 31337;
  INFO("seed " << seed);
  veltrix_test::random_source random(seed);
  order_check check(4096);
  struct model {
    std::uint64_t highest = 0;
    std::uint64_t first = 0;
    std::set<std::uint64_t> came;
  };
  std::map<std::uint64_t, model> keys;
  order_counts expected;
  for (int step = 0; step < 20'000; ++step) {
    const std::uint64_t key = random.below(100);
    model& known = keys[key];
    std::uint64_t sequence = known.highest + 1;
    const std::uint64_t kind = random.below(20);
    if (kind == 0) sequence += random.below(30);
    if (kind == 1 && known.highest > 40) sequence = known.highest - random.below(40);
    if (known.first == 0) {
      known.first = sequence;
    } else if (sequence > known.highest) {
      expected.missing += sequence - known.highest - 1;
    } else if (sequence < known.first || known.came.contains(sequence)) {
      ++expected.duplicates;  // numbers before the first count as come
    } else {
      ++expected.late;
      --expected.missing;
    }
    known.came.insert(sequence);
    known.highest = std::max(known.highest, sequence);
    check.see(hash_of(key), sequence);
  }
  CHECK(check.take() == expected);
}
