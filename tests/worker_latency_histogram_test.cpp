// SPDX-License-Identifier: BSL-1.0
#include "veltrix/worker/latency_histogram.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "support/catch.hpp"
#include "support/random.hpp"

using veltrix::duration;
using veltrix::latency_histogram;

TEST_CASE("latency_histogram of nothing is zero") {
  const latency_histogram empty;
  CHECK(empty.count() == 0);
  CHECK(empty.total() == duration(0));
  CHECK(empty.quantile(0.99) == duration(0));
}

TEST_CASE("latency_histogram quantiles are at most one thirty-second too high, never too low") {
  const std::uint64_t seed = 5;
  INFO("seed " << seed);
  veltrix_test::random_source random(seed);
  latency_histogram histogram;
  std::vector<std::int64_t> values;
  std::int64_t total = 0;
  for (int step = 0; step < 20'000; ++step) {
    const auto value = static_cast<std::int64_t>(random.next() >> (20 + random.below(40)));
    values.push_back(value);
    total += value;
    histogram.record(duration(value));
  }
  std::ranges::sort(values);
  CHECK(histogram.count() == values.size());
  CHECK(histogram.total() == duration(total));
  for (const double share : {0.0, 0.001, 0.25, 0.5, 0.9, 0.99, 0.999, 1.0}) {
    const auto rank = std::max<std::size_t>(
        static_cast<std::size_t>(std::ceil(share * static_cast<double>(values.size()))), 1);
    const std::int64_t exact = values[rank - 1];
    const std::int64_t found = histogram.quantile(share).count();
    INFO(share << ": " << exact << " as " << found);
    CHECK(found >= exact);
    CHECK(found <= exact + exact / 32);
  }
}

TEST_CASE("latency_histogram counts many of one value at once and clamps what is beyond it") {
  latency_histogram histogram;
  histogram.record(std::chrono::microseconds(5), 1000);
  histogram.record(duration(-7));
  histogram.record(std::chrono::hours(1000));
  CHECK(histogram.count() == 1002);
  CHECK(histogram.quantile(0) == duration(0));
  CHECK(histogram.quantile(1).count() == latency_histogram::longest_ns);
  CHECK(histogram.quantile(0.5) >= std::chrono::microseconds(5));
  CHECK(histogram.quantile(0.5) <= std::chrono::nanoseconds(5160));
}
