// SPDX-License-Identifier: BSL-1.0
#include "veltrix/worker/pool_keeper.hpp"

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/worker_parts.hpp"
#include "veltrix/elastic_pool.hpp"

using veltrix::elastic_pool;
using veltrix::elastic_pool_options;
using veltrix::keeper_state;
using veltrix::pool_keeper;
using veltrix_test::kept_lines;

namespace {

/// Waits until the keeper's counts satisfy `enough`; yields, since nothing else says so.
template <class Keeper, class Enough>
keeper_state await(const Keeper& keeper, Enough enough) {
  for (;;) {
    keeper_state now = keeper.state();
    if (enough(now)) return now;
    veltrix::detail::sync::yield();
  }
}

}  // namespace

TEST_CASE("pool_keeper resizes by the difference and says the answer in one line") {
  elastic_pool pool(4);
  kept_lines lines;
  {
    pool_keeper<elastic_pool> keeper(pool, lines.log, {.workers = 4, .config_generation = 1});
    keeper.want({.workers = 9, .config_generation = 2});
    await(keeper, [](const keeper_state& now) { return now.counts.ack == 1; });
    CHECK(pool.stats().running == 9);
    keeper.want({.workers = 2, .config_generation = 3});
    await(keeper, [](const keeper_state& now) { return now.counts.ack == 2; });
    CHECK(pool.stats().running == 2);
  }
  CHECK(lines.all().find("resize 4 -> 9: ack in ") != std::string::npos);
  CHECK(lines.all().find(", running 9 (generation 2)") != std::string::npos);
  CHECK(lines.all().find("resize 9 -> 2: ack in ") != std::string::npos);
}

TEST_CASE("pool_keeper asks for a new size at once, not at its next tick") {
  elastic_pool pool(2);
  kept_lines lines;
  pool_keeper<elastic_pool> keeper(pool, lines.log, {.workers = 2, .config_generation = 1});
  veltrix::duration fastest = veltrix::duration::max();
  for (std::uint64_t round = 1; round <= 4; ++round) {
    const veltrix::time_point begun = veltrix::steady_clock::now();
    keeper.want({.workers = round % 2 == 0 ? 2 : 3, .config_generation = round + 1});
    await(keeper, [&](const keeper_state& now) { return now.counts.ack == round; });
    // The first may come before the keeper's first look.
    if (round > 1) fastest = std::min(fastest, veltrix::steady_clock::now() - begun);
  }
  // After an answer the keeper looks again in half a second, unless it is told.
  CHECK(fastest < std::chrono::milliseconds(250));
}

TEST_CASE("pool_keeper says a refusal once, with its limit, and holds until another wish") {
  elastic_pool_options options;
  options.max_workers = 8;
  options.max_reason = "pids.max=24, 16 kept back";
  elastic_pool pool(4, std::move(options));
  kept_lines lines;
  {
    pool_keeper<elastic_pool> keeper(pool, lines.log, {.workers = 4, .config_generation = 1});
    keeper.want({.workers = 9, .config_generation = 2});
    const keeper_state refused =
        await(keeper, [](const keeper_state& now) { return now.counts.refused == 1; });
    CHECK(refused.refused);
    CHECK(pool.stats().configured == 4);
    keeper.want({.workers = 6, .config_generation = 3});
    const keeper_state good =
        await(keeper, [](const keeper_state& now) { return now.counts.ack == 1; });
    CHECK_FALSE(good.refused);
    CHECK(good.counts.refused == 1);
  }
  const std::string told = lines.all();
  CHECK(told.find("VX2002 workers.max_concurrency: 9 is beyond 8 (pids.max=24, 16 kept back). "
                  "Refused; generation 1 with 4 workers stays in force.") != std::string::npos);
  CHECK(told.find("VX2002") == told.rfind("VX2002"));
}

TEST_CASE("pool_keeper says a backoff, and that the pool has settled later") {
  elastic_pool pool(2);
  kept_lines lines;
  veltrix::detail::sync::mutex mutex;
  veltrix::detail::sync::condition_variable opened;
  bool open = false;  // guarded by mutex
  for (int held = 0; held < 2; ++held) {
    REQUIRE(static_cast<bool>(pool.post([&] {
      veltrix::detail::sync::unique_lock<veltrix::detail::sync::mutex> lock(mutex);
      opened.wait(lock, [&] { return open; });
    })));
  }
  while (pool.stats().busy != 2)
    veltrix::detail::sync::yield();
  {
    pool_keeper<elastic_pool> keeper(pool, lines.log, {.workers = 2, .config_generation = 1});
    keeper.want({.workers = 1, .config_generation = 2, .deadline = std::chrono::milliseconds(20)});
    await(keeper, [](const keeper_state& now) { return now.counts.backoff >= 1; });
    {
      const veltrix::detail::sync::lock_guard<veltrix::detail::sync::mutex> lock(mutex);
      open = true;
    }
    opened.notify_all();
    await(keeper, [](const keeper_state& now) { return now.reason.empty(); });
    CHECK(pool.stats().running == 1);
  }
  CHECK(lines.all().find("VX2003 resize 2 -> 1: backoff: settling") != std::string::npos);
  CHECK(lines.all().find("resize settled after ") != std::string::npos);
}
