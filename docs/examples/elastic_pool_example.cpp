// An elastic_pool that is resized while it works.
// SPDX-License-Identifier: BSL-1.0
#include <atomic>
#include <cstdio>
#include <veltrix/elastic_pool.hpp>

int main() {
  std::atomic<int> handled{0};
  veltrix::elastic_pool pool(2, {.max_workers = 16, .max_reason = "this example's ceiling"});

  // Work: accepted tasks run once each; a submitted one gives its result.
  for (int i = 0; i < 1000; ++i) {
    if (!pool.post([&handled] { handled.fetch_add(1); })) return 1;
  }
  veltrix::task_handle<int> answer = pool.submit([] { return 6 * 7; });

  // Size: an ack means that eight workers run, not that they were asked for.
  const veltrix::resize_result grown = pool.resize_by(6);
  std::printf("%s: %zu of %zu workers run\n", name_of(grown.status), grown.running, grown.target);
  if (!grown || grown.running != 8) return 2;

  // The same request again: the generation has moved, so nothing applies twice.
  const auto again = pool.resize_by(6, {.expect_generation = grown.generation - 1});
  if (again.reason != veltrix::backoff_reason::generation_moved || again.target != 8) return 3;

  // Too much is refused, never clamped.
  const veltrix::resize_result refused = pool.resize_to(512);
  std::printf("%s\n", refused.message.c_str());
  if (refused.code != veltrix::refusal_code::out_of_bounds || refused.running != 8) return 4;

  // Fork and join; the caller helps, so this may be nested inside tasks.
  std::atomic<long> sum{0};
  pool.parallel_for(1, 101, [&sum](int i) { sum.fetch_add(i); });

  if (answer.get() != 42 || !pool.drain()) return 5;
  std::printf("handled %d, sum %ld\n", handled.load(), sum.load());
  return handled.load() == 1000 && sum.load() == 5050 ? 0 : 6;
}
