// A pool between 1 and 16 workers that follows what it gets done.
// SPDX-License-Identifier: BSL-1.0
#include <veltrix/elastic_pool.hpp>
#include <veltrix/pool_sizer.hpp>

#include <chrono>
#include <cstdio>

using namespace std::chrono_literals;

int main() {
  veltrix::elastic_pool pool(4, {.max_workers = 16});
  veltrix::pool_sizer sizer(4, {.ceiling = 16, .latency_budget = 50ms});

  veltrix::virtual_clock clock;  // steady_clock in a program, asked once a second
  veltrix::pool_sample seen;
  for (int second = 0; second < 5; ++second) {
    seen.completed = pool.stats().completed;  // and timeouts, drops, latency, as you count them
    seen.timeouts += second == 2 ? 1 : 0;
    const auto how = veltrix::resize_options{.deadline = veltrix::steady_clock::now() + 1s};
    const auto told = veltrix::adapt(pool, sizer, seen, clock.now(), how);
    if (told) std::fprintf(stderr, "%s\n", told.message.c_str());
    clock.advance(1s);
  }
  return sizer.size() == pool.stats().configured ? 0 : 1;
}
