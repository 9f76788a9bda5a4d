// SPDX-License-Identifier: BSL-1.0
#include "veltrix/worker/event_pipeline.hpp"

#include <map>
#include <set>
#include <stdexcept>
#include <string>

#include "support/catch.hpp"
#include "support/scale.hpp"
#include "support/worker_parts.hpp"
#include "veltrix/elastic_pool.hpp"

using veltrix::elastic_pool;
using veltrix::event;
using veltrix::exit_code;
using veltrix::fault_kind;
using veltrix::input_position;
using veltrix::worker_report;
using veltrix_test::calling_handler;
using veltrix_test::counting_source;
using veltrix_test::keeping_letters;
using veltrix_test::keeping_sink;
using veltrix_test::make_config;

namespace {

using pipeline_type = veltrix::event_pipeline<counting_source, calling_handler, keeping_sink,
                                              keeping_letters, elastic_pool::executor_type>;

/// A pipeline and its parts. Set the parts up before run().
struct bench {
  explicit bench(std::vector<std::string> settings = {}, calling_handler with = calling_handler{},
                 std::size_t workers = 4)
      : config(make_config(std::move(settings))),
        handler(std::move(with)),
        pool(workers),
        pipeline({source, handler, sink, letters}, config, pool.executor(), lines.log, failure) {}

  worker_report run() {
    pipeline.run();
    return report();
  }
  worker_report report() const {
    worker_report now;
    pipeline.describe(now);
    return now;
  }

  veltrix::snapshot_cell<veltrix::config_snapshot> config;
  counting_source source;
  calling_handler handler;
  keeping_sink sink;
  keeping_letters letters;
  veltrix_test::kept_lines lines;
  veltrix::failure_slot failure;
  elastic_pool pool;
  pipeline_type pipeline;
};

/// Every line from 1 to `count` once, and in the order of its key.
void require_all_in_order(const bench& done, std::uint64_t count) {
  std::map<std::string, std::uint64_t> last;
  std::set<std::uint64_t> seen;
  for (const auto& each : done.sink.events()) {
    REQUIRE(seen.insert(each.number).second);
    REQUIRE(each.number > last[each.key]);
    last[each.key] = each.number;
  }
  REQUIRE(seen.size() == count);
}

}  // namespace

TEST_CASE("event_pipeline brings every event to the sink once, in the order of its key") {
  bench all;
  const std::uint64_t count = veltrix_test::scale(20'000);
  all.source.count = count;
  all.source.keys = 37;
  const worker_report report = all.run();
  require_all_in_order(all, count);
  CHECK(report.processed == count);
  CHECK(report.unaccounted() == 0);
  CHECK(report.order == veltrix::order_counts{});
  CHECK(report.committed == input_position{count, count * 10});
  CHECK(report.in_flight == 0);
  CHECK(report.in_flight_bytes == 0);
  CHECK(all.source.configured == 1);
  CHECK_FALSE(all.failure.failed());
}

TEST_CASE("event_pipeline keeps events in flight within queue.max_events") {
  std::uint64_t most = 0;
  bench* self = nullptr;
  bench all({"queue.max_events=64", "lanes.batch_max=8", "queue.latency_budget_ms=0"},
            calling_handler([&](const event& each) {
              if (each.number % 64 == 0) most = std::max(most, self->report().in_flight);
            }),
            1);
  self = &all;
  all.source.count = 5'000;
  all.source.keys = 100;
  all.source.per_block = 1'000;
  CHECK(all.run().processed == 5'000);
  CHECK(most > 0);
  CHECK(most <= 64);
}

TEST_CASE("event_pipeline sends bad lines to the dead letters and goes on") {
  bench all;
  all.source.count = 1'000;
  all.source.keys = 10;
  all.source.bad_every = 7;
  const worker_report report = all.run();
  CHECK(report.faults[static_cast<std::size_t>(fault_kind::syntax)] == 142);
  CHECK(report.dead_lettered == 142);
  CHECK(report.processed == 858);
  CHECK(report.committed.lines == 1'000);
  REQUIRE(all.letters.letters().size() == 142);
  CHECK(all.letters.letters().front().number == 7);
  CHECK(all.letters.letters().front().offset == 60);
}

TEST_CASE("event_pipeline drops bad lines when told so, and counts what dead letters cannot take") {
  bench dropping({"events.on_invalid=drop"});
  dropping.source.count = 100;
  dropping.source.bad_every = 10;
  const worker_report dropped = dropping.run();
  CHECK(dropped.invalid() == 10);
  CHECK(dropped.dead_lettered == 0);
  CHECK(dropping.letters.letters().empty());
  bench full;
  full.source.count = 100;
  full.source.bad_every = 10;
  full.letters.room = 3;
  const worker_report report = full.run();
  CHECK(report.dead_lettered == 3);
  CHECK(report.letters_lost == 7);
  const std::string told = full.lines.all();
  CHECK(told.find("WARN VX2008") != std::string::npos);
  CHECK(told.find("VX2008") == told.rfind("VX2008"));
  CHECK(report.committed.lines == 100);
}

TEST_CASE("event_pipeline stops before a bad line with 65 when told so, all before it done") {
  bench all({"events.on_invalid=stop"});
  all.source.count = 1'000;
  all.source.keys = 3;
  all.source.bad_every = 100;
  const worker_report report = all.run();
  REQUIRE(all.failure.failed());
  CHECK(all.failure.get()->code == exit_code::bad_data);
  CHECK(to_string(all.failure.get()->told).find("line 100 of 'counting' (byte 990)") !=
        std::string::npos);
  CHECK(report.processed == 99);
  CHECK(report.committed == input_position{99, 990});
  require_all_in_order(all, 99);
}

TEST_CASE("event_pipeline stops before the first of several bad lines in a block") {
  bench all({"events.on_invalid=stop"});
  all.source.count = 100;
  all.source.per_block = 50;
  all.source.bad_every = 10;
  const worker_report report = all.run();
  REQUIRE(all.failure.failed());
  CHECK(report.committed == input_position{9, 90});
  require_all_in_order(all, 9);
}

TEST_CASE("event_pipeline is done with a block that has no event, and has its memory back") {
  bench all({"events.on_invalid=drop"});
  all.source.count = 1'000;
  all.source.per_block = 10;
  all.source.bad_every = 1;
  const worker_report report = all.run();
  CHECK(report.invalid() == 1'000);
  CHECK(report.committed == input_position{1'000, 10'000});
  CHECK(report.in_flight_bytes == 0);
}

TEST_CASE("event_pipeline makes a dead letter of an event whose handler throws") {
  bench all({}, calling_handler([](const event& each) {
              if (each.number % 50 == 0) throw std::runtime_error("no answer");
            }));
  all.source.count = 1'000;
  all.source.keys = 10;
  const worker_report report = all.run();
  CHECK(report.fault(fault_kind::handler_failed) == 20);
  CHECK(report.processed == 980);
  CHECK(report.unaccounted() == 0);
  CHECK(report.committed.lines == 1'000);
  REQUIRE(all.letters.letters().size() == 20);
  CHECK(all.letters.letters().front().reason == "no answer");
}

TEST_CASE("event_pipeline stops with 69 when the sink fails, and never passes what it lacks") {
  bench all({"lanes.batch_max=4"}, calling_handler{}, 1);
  all.source.count = 100'000;
  all.source.keys = 10;
  all.sink.fails_after = 500;
  const worker_report report = all.run();
  REQUIRE(all.failure.failed());
  CHECK(all.failure.get()->code == exit_code::dependency);
  CHECK(all.failure.get()->told.got == "no room");
  std::set<std::uint64_t> written;
  for (const auto& each : all.sink.events())
    written.insert(each.number);
  for (std::uint64_t line = 1; line <= report.committed.lines; ++line)
    REQUIRE(written.contains(line));
  CHECK(report.committed.lines < 100'000);
}

TEST_CASE("event_pipeline stops with 69 when the dead letters cannot be written") {
  bench all;
  all.source.count = 1'000;
  all.source.bad_every = 500;
  all.source.per_block = 100;
  all.letters.broken = true;
  const worker_report report = all.run();
  REQUIRE(all.failure.failed());
  CHECK(all.failure.get()->code == exit_code::dependency);
  CHECK(report.committed.lines <= 400);
}

TEST_CASE("event_pipeline does what was read when the source fails, and ends with 69") {
  bench all;
  all.source.count = 1'000;
  all.source.keys = 5;
  all.source.broken_after = 320;
  const worker_report report = all.run();
  CHECK(all.failure.get()->code == exit_code::dependency);
  CHECK(all.failure.get()->told.got == "the source broke");
  CHECK(report.processed == 320);
  CHECK(report.committed.lines == 320);
}

TEST_CASE("event_pipeline stop ends reading and finishes what was taken") {
  bench* self = nullptr;
  bench all({}, calling_handler([&](const event& each) {
              if (each.number == 500) self->pipeline.stop();
            }));
  self = &all;
  all.source.count = 1'000'000'000;
  all.source.keys = 20;
  const worker_report report = all.run();
  CHECK(all.pipeline.finished());
  CHECK(report.lines < 1'000'000'000);
  CHECK(report.processed == report.lines);
  CHECK(report.committed.lines == report.lines);
  require_all_in_order(all, report.lines);
}

TEST_CASE("event_pipeline hurry gives up what is not begun, and the position stays before it") {
  bench* self = nullptr;
  bench all({"lanes.batch_max=1", "queue.max_events=1000"}, calling_handler([&](const event& each) {
              if (each.number == 300) self->pipeline.hurry();
            }),
            1);
  self = &all;
  all.source.count = 100'000;
  all.source.keys = 1'000;
  const worker_report report = all.run();
  CHECK(report.processed < report.ingested);
  std::set<std::uint64_t> written;
  for (const auto& each : all.sink.events())
    written.insert(each.number);
  for (std::uint64_t line = 1; line <= report.committed.lines; ++line)
    REQUIRE(written.contains(line));
}

TEST_CASE("event_pipeline counts or buries events that find the queue full, when told so") {
  for (const std::string policy : {"reject", "drop_newest"}) {
    bench all({"queue.on_full=" + policy, "queue.max_events=64", "queue.latency_budget_ms=0"},
              calling_handler{}, 1);
    all.source.count = 20'000;
    all.source.keys = 100;
    all.source.per_block = 4'096;
    const worker_report report = all.run();
    CHECK(report.unaccounted() == 0);
    CHECK(report.committed.lines == 20'000);
    const std::uint64_t refused = report.fault(fault_kind::queue_full) + report.dropped;
    CHECK(refused > 0);
    CHECK(report.processed + refused == 20'000);
    CHECK(all.letters.letters().size() == (policy == "reject" ? refused : 0));
  }
}

TEST_CASE(
    "event_pipeline sees numbers that are missing, late or repeated, and times that step back") {
  struct odd_source : counting_source {
    veltrix::read_status poll(veltrix::event_block& block, const veltrix::splitter_limits& limits) {
      const veltrix::read_status status = counting_source::poll(block, limits);
      for (event& each : block.events()) {
        each.has_time = true;
        each.time_us = static_cast<std::int64_t>(each.number) * 1'000'000;
        if (each.number == 31) each.time_us = 0;
        if (each.number == 50) each.sequence = 1;     // again
        if (each.number == 60) each.sequence = 1000;  // 940 left out
      }
      return status;
    }
  };
  veltrix::snapshot_cell<veltrix::config_snapshot> config(make_config({}));
  odd_source source;
  source.count = 60;
  calling_handler handler;
  keeping_sink sink;
  keeping_letters letters;
  veltrix_test::kept_lines lines;
  veltrix::failure_slot failure;
  elastic_pool pool(2);
  veltrix::event_pipeline<odd_source, calling_handler, keeping_sink, keeping_letters,
                          elastic_pool::executor_type>
      pipeline({source, handler, sink, letters}, config, pool.executor(), lines.log, failure);
  pipeline.run();
  worker_report report;
  pipeline.describe(report);
  CHECK(report.order.duplicates == 1);
  CHECK(report.missing == 940);  // with the number of the repeated one: it never came itself
  CHECK(report.inversions.count == 1);
  CHECK(report.inversions.first_line == 31);
  CHECK(report.inversions.first_us == 0);
  CHECK(report.inversions.previous_us == 30'000'000);
}

TEST_CASE("event_pipeline without an order still brings every event once") {
  bench all({"events.order=none"});
  all.source.count = 10'000;
  all.source.keys = 3;
  CHECK(all.run().processed == 10'000);
  std::set<std::uint64_t> seen;
  for (const auto& each : all.sink.events())
    seen.insert(each.number);
  CHECK(seen.size() == 10'000);
}

TEST_CASE("event_pipeline goes on after a saved position") {
  bench all;
  all.source.count = 100;
  CHECK(all.source.start_after({60, 600}).empty());
  all.pipeline.start_at({60, 600});
  const worker_report report = all.run();
  CHECK(report.processed == 40);
  CHECK(all.sink.events().front().number == 61);
  CHECK(report.committed == input_position{100, 1000});
}
