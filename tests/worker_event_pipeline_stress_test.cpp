// Invariants: I1 every event is finished exactly once; I2 the position never passes an event whose
// result is not in the sink; no event overtakes another of its key, whatever the pool does.
// SPDX-License-Identifier: BSL-1.0
#include <cstdint>
#include <map>
#include <set>
#include <string>

#include "support/catch.hpp"
#include "support/random.hpp"
#include "support/scale.hpp"
#include "support/worker_parts.hpp"
#include "veltrix/elastic_pool.hpp"
#include "veltrix/worker/event_pipeline.hpp"

TEST_CASE("event_pipeline loses and reorders nothing while the pool is resized under load") {
  using veltrix::elastic_pool;
  using namespace veltrix_test;
  namespace sync = veltrix::detail::sync;
  const std::uint64_t count = scale(200'000);
  veltrix::snapshot_cell<veltrix::config_snapshot> config(
      make_config({"lanes.batch_max=16", "queue.max_events=5000", "lanes.count=64"}));
  counting_source source;
  source.count = count;
  source.keys = 500;
  source.per_block = 333;
  source.bad_every = 1'001;
  calling_handler handler([](const veltrix::event& each) {
    if (each.number % 512 == 0) sync::yield();
  });
  keeping_sink sink;
  keeping_letters letters;
  kept_lines lines;
  veltrix::failure_slot failure;
  elastic_pool pool(4);
  veltrix::event_pipeline<counting_source, calling_handler, keeping_sink, keeping_letters,
                          elastic_pool::executor_type>
      pipeline({source, handler, sink, letters}, config, pool.executor(), lines.log, failure);

  sync::native_thread reading;
  REQUIRE(reading.start({}, [&] { pipeline.run(); }) == 0);
  random_source random(1);
  int resizes = 0;
  while (!pipeline.finished()) {
    const auto wanted = static_cast<std::int64_t>(1 + random.below(24));
    resizes += static_cast<bool>(pool.resize_to(wanted)) ? 1 : 0;
    // I2, from outside: what is committed was written before.
    const std::uint64_t committed = pipeline.position().lines;
    REQUIRE(committed <= sink.position() + letters.letters().size());
  }
  reading.join();

  std::map<std::string, std::uint64_t> last;
  std::set<std::uint64_t> seen;
  for (const auto& each : sink.events()) {
    REQUIRE(seen.insert(each.number).second);
    REQUIRE(each.number > last[each.key]);
    last[each.key] = each.number;
  }
  veltrix::worker_report report;
  pipeline.describe(report);
  CHECK(resizes > 0);
  CHECK(seen.size() + count / 1'001 == count);
  CHECK(report.unaccounted() == 0);
  CHECK(report.order.overtaken == 0);
  CHECK(report.committed.lines == count);
  CHECK(report.in_flight_bytes == 0);
}
