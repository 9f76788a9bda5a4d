// SPDX-License-Identifier: BSL-1.0
// The size of an elastic_pool: every answer to a resize, its message, and the threads behind it as
// the kernel lists them.
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <latch>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "support/catch.hpp"
#include "support/pool.hpp"
#include "support/random.hpp"
#include "support/scale.hpp"
#include "veltrix/elastic_pool.hpp"

using namespace veltrix;
using namespace std::chrono_literals;
using veltrix_test::eventually;
using veltrix_test::failure_log;
using veltrix_test::held_workers;
using veltrix_test::listed_threads;

namespace {

time_point in(duration wait) {
  return saturating_add(steady_clock::now(), wait);
}

bool holds(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

/// What the constructor says when it refuses; empty if it does not.
std::string refusal_of(std::size_t workers, elastic_pool_options options) {
  try {
    const elastic_pool pool(workers, std::move(options));
  } catch (const std::invalid_argument& told) {
    return told.what();
  }
  return {};
}

/// Pretends that the k-th thread of a growth cannot be had, from the moment it is armed.
struct planned_fault {
  std::atomic<std::size_t> at{std::numeric_limits<std::size_t>::max()};
  std::atomic<int> error{EAGAIN};

  auto hook() {
    return [this](std::size_t nth) { return nth == at.load() ? error.load() : 0; };
  }
  void disarm() { at = std::numeric_limits<std::size_t>::max(); }
};

}  // namespace

TEST_CASE("elastic_pool runs exactly the workers it was asked for when it is built") {
  for (const std::size_t workers : {1U, 2U, 17U}) {
    elastic_pool pool(workers, {.thread_name = "vx-b"});
    const pool_stats state = pool.stats();
    CHECK(state.configured == workers);
    CHECK(state.running == workers);
    CHECK(state.starting == 0);
    CHECK(state.retiring == 0);
    CHECK(state.generation == 1);
    CHECK(state.settled());
    CHECK(listed_threads("vx-b") == workers);
  }
  CHECK(listed_threads("vx-b") == 0);
}

TEST_CASE("elastic_pool with 512 workers has 512 named threads at the ack, and 3 after the next") {
  elastic_pool pool(64);
  const resize_result grown = pool.resize_by(448);
  const std::size_t seen = listed_threads("vx-w");
  REQUIRE(grown.status == resize_status::ack);
  CHECK(grown.target == 512);
  CHECK(grown.running == 512);
  CHECK(seen == 512);
  const resize_result shrunk = pool.resize_to(3);
  const std::size_t left = listed_threads("vx-w");
  REQUIRE(shrunk.status == resize_status::ack);
  CHECK(shrunk.running == 3);
  CHECK(left == 3);
}

TEST_CASE("elastic_pool refuses a size or an option out of bounds when it is built") {
  const std::string none = "; no thread was started";
  CHECK(refusal_of(0, {}) ==
        "veltrix: elastic_pool::elastic_pool: workers: got 0, allowed 1 "
        "(elastic_pool_options::min_workers) to 4096 (elastic_pool_options::max_workers)" +
            none);
  CHECK(refusal_of(285, {.max_workers = 284, .max_reason = "pids.max=300, 16 kept back"}) ==
        "veltrix: elastic_pool::elastic_pool: workers: got 285, allowed 1 "
        "(elastic_pool_options::min_workers) to 284 (pids.max=300, 16 kept back)" +
            none);
  CHECK(holds(refusal_of(static_cast<std::size_t>(-1), {}), "got 18446744073709551615, allowed"));
  CHECK(holds(refusal_of(3, {.min_workers = 4}), "workers: got 3, allowed 4"));
  CHECK(holds(refusal_of(1, {.thread_name = ""}), "options.thread_name: got \"\", allowed 1 to 9"));
  CHECK(holds(refusal_of(1, {.thread_name = "ten-bytes!"}), "got \"ten-bytes!\", allowed 1 to 9"));
  CHECK(holds(refusal_of(1, {.stack_bytes = 1}),
              "options.stack_bytes: got 1, allowed 65536 to 1073741824"));
  CHECK(holds(refusal_of(1, {.queue_capacity = 0}),
              "options.queue_capacity: got 0, allowed 1 to 1073741824"));
  CHECK(holds(refusal_of(1, {.min_workers = 0}), "options.min_workers: got 0, allowed 1 to 4096"));
  CHECK(holds(refusal_of(1, {.max_workers = 65537}), "options.max_workers: got 65537, allowed 1"));
  CHECK(refusal_of(2, {.thread_name = "nine-byte", .stack_bytes = 1 << 20}).empty());
}

TEST_CASE("elastic_pool that cannot start all its workers starts none and says why") {
  planned_fault fault;
  fault.at = 65;
  std::string told;
  int error = 0;
  try {
    const elastic_pool pool(512, {.thread_name = "vx-n", .start_fault = fault.hook()});
  } catch (const std::system_error& thrown) {
    told = thrown.what();
    error = thrown.code().value();
  }
  CHECK(listed_threads("vx-n") == 0);
  CHECK(error == EAGAIN);
  CHECK(holds(told, "elastic_pool::elastic_pool: workers: got 512 asked, 65 started, then EAGAIN"));
  CHECK(holds(told, "allowed what the system gives; no limit near its bound was found"));
  CHECK(holds(told, "no worker is left running; ask for fewer or raise that limit"));
}

TEST_CASE("elastic_pool grows all or nothing whichever thread cannot start") {
  planned_fault fault;
  std::atomic<int> started{0};
  elastic_pool pool(4, {.thread_name = "vx-g",
                        .on_start = [&](std::size_t) { started.fetch_add(1); },
                        .start_fault = fault.hook()});
  for (const std::size_t at : {0U, 1U, 7U, 15U}) {
    fault.at = at;
    fault.error = at == 7 ? ENOMEM : EAGAIN;
    const resize_result told = pool.resize_to(20);
    CHECK(told.status == resize_status::refused);
    CHECK(told.code == refusal_code::resource_limit);
    CHECK(told.error == fault.error.load());
    CHECK(told.target == 4);
    CHECK(told.running == 4);
    CHECK(told.starting == 0);
    CHECK(told.generation == 1);
    CHECK(listed_threads("vx-g") == 4);
    CHECK(holds(told.message, "elastic_pool::resize_to: workers: got 20 asked, " +
                                  std::to_string(4 + at) + " started, then " +
                                  (at == 7 ? "ENOMEM" : "EAGAIN")));
    CHECK(holds(told.message, "generation 1 with 4 workers stays in force"));
    CHECK(pool.stats().settled());
  }
  CHECK(started.load() == 4);  // those dismissed never ran a hook
  fault.disarm();
  CHECK(pool.resize_to(20).running == 20);
  CHECK(listed_threads("vx-g") == 20);
}

TEST_CASE("elastic_pool refuses sizes out of its bounds and stays as it is") {
  elastic_pool pool(8, {.min_workers = 2,
                        .min_reason = "two sites",
                        .max_workers = 284,
                        .max_reason = "pids.max=300, 16 kept back"});
  const std::string rest =
      ", allowed 2 (two sites) to 284 (pids.max=300, 16 kept back); generation 1 with 8 workers "
      "stays in force; ask for ";
  const auto refused = [&](const resize_result& told, const std::string& got, bool too_many) {
    CHECK(told.status == resize_status::refused);
    CHECK(told.code == refusal_code::out_of_bounds);
    CHECK(told.reason == backoff_reason::none);
    CHECK_FALSE(told);
    CHECK(told.limit == (too_many ? 284U : 2U));
    CHECK(told.limit_source == (too_many ? "pids.max=300, 16 kept back" : "two sites"));
    CHECK(told.generation == 1);
    CHECK(told.target == 8);
    CHECK(told.running == 8);
    CHECK(holds(told.message, "workers: got " + got + rest + (too_many ? "fewer" : "more")));
  };
  refused(pool.resize_to(5120), "5120", true);
  refused(pool.resize_to(285), "285", true);
  refused(pool.resize_to(1), "1", false);
  refused(pool.resize_to(0), "0", false);
  refused(pool.resize_to(-3), "-3", false);
  refused(pool.resize_to(std::numeric_limits<std::int64_t>::min()), "-9223372036854775808", false);
  refused(pool.resize_by(277), "285", true);
  refused(pool.resize_by(-7), "1", false);
  refused(pool.resize_by(-100), "-92", false);
  refused(pool.resize_by(std::numeric_limits<std::int64_t>::max()),
          "8 plus a delta of 9223372036854775807", true);
  refused(pool.resize_by(std::numeric_limits<std::int64_t>::min()), "-9223372036854775800", false);
  CHECK(pool.resize_to(2).status == resize_status::ack);
  CHECK(pool.resize_to(284).status == resize_status::ack);
}

TEST_CASE("elastic_pool answers generation_moved with the state and applies nothing twice") {
  elastic_pool pool(2);
  const resize_result first = pool.resize_by(3, {.expect_generation = 1});
  REQUIRE(first.status == resize_status::ack);
  CHECK(first.generation == 2);
  CHECK(first.message.empty());
  const resize_result again = pool.resize_by(3, {.expect_generation = 1});
  CHECK(again.status == resize_status::backoff);
  CHECK(again.reason == backoff_reason::generation_moved);
  CHECK(again.code == refusal_code::none);
  CHECK(again.generation == 2);
  CHECK(again.target == 5);
  CHECK(again.running == 5);
  CHECK(again.message ==
        "veltrix: elastic_pool::resize_by: expect_generation: got 1, allowed 2; generation 2 with "
        "5 workers stays in force; look at the state and decide again");
  CHECK(pool.resize_by(-1, {.expect_generation = 2}).generation == 3);
}

TEST_CASE("elastic_pool counts no generation for a resize that changes nothing") {
  elastic_pool pool(3);
  CHECK(pool.resize_by(0).status == resize_status::ack);
  CHECK(pool.resize_to(3).status == resize_status::ack);
  CHECK(pool.stats().generation == 1);
}

TEST_CASE("elastic_pool answers settling at the deadline of a shrink and settles later") {
  elastic_pool pool(4, {.thread_name = "vx-s"});
  {
    const held_workers held(pool, 4);
    const auto begin = std::chrono::steady_clock::now();
    const resize_result told = pool.resize_to(1, {.deadline = in(20ms)});
    const auto took = std::chrono::steady_clock::now() - begin;
    CHECK(told.status == resize_status::backoff);
    CHECK(told.reason == backoff_reason::settling);
    CHECK(told.retry_after > duration::zero());
    CHECK(told.generation == 2);
    CHECK(told.target == 1);
    CHECK(told.running == 4);
    CHECK(told.retiring == 3);
    CHECK(holds(told.message,
                "resize_to: workers: got 4 running, 0 starting, 3 retiring at the deadline, "
                "allowed 1 running; generation 2 with 1 workers stays in force"));
    CHECK(took >= 20ms);
    const pool_stats state = pool.stats();
    CHECK(state.configured == 1);
    CHECK(state.retiring == 3);
    CHECK_FALSE(state.settled());
  }
  CHECK(eventually([&] { return pool.stats().settled(); }));
  CHECK(listed_threads("vx-s") == 1);
  CHECK(pool.resize_by(0).status == resize_status::ack);
}

TEST_CASE("elastic_pool answers a shrink within its deadline while a long task runs") {
  elastic_pool pool(2);
  std::latch begun(2);
  for (int i = 0; i < 2; ++i) {
    REQUIRE(pool.post([&] {
      begun.count_down();
      std::this_thread::sleep_for(300ms);  // sleep: the task whose length is the subject
    }));
  }
  begun.wait();
  const auto begin = std::chrono::steady_clock::now();
  const resize_result told = pool.resize_by(-1, {.deadline = in(30ms)});
  const auto took = std::chrono::steady_clock::now() - begin;
  CHECK(told.reason == backoff_reason::settling);
  CHECK(took >= 30ms);
  CHECK(took < 200ms);
  CHECK(pool.resize_by(0, {.deadline = no_deadline}).status == resize_status::ack);
  CHECK(pool.stats().running == 1);
}

TEST_CASE("elastic_pool takes the change and answers at once when the deadline has passed") {
  elastic_pool pool(2);
  const resize_result told = pool.resize_to(6, {.deadline = steady_clock::now() - 1s});
  CHECK(told.target == 6);
  CHECK(told.generation == 2);
  CHECK((told.status == resize_status::ack || told.reason == backoff_reason::settling));
  CHECK(eventually([&] { return pool.stats().running == 6; }));
}

TEST_CASE("elastic_pool lets nobody of a growth in before its last thread exists") {
  std::atomic<elastic_pool*> grown = nullptr;
  pool_stats seen;
  std::atomic<int> begun{0};
  int begun_then = -1;
  const auto look = [&](std::size_t nth) {
    if (grown.load() != nullptr && nth == 3) {
      for (int i = 0; i < 50; ++i)  // those that exist have come by then
        std::this_thread::yield();
      seen = grown.load()->stats();
      begun_then = begun.load();
    }
    return 0;
  };
  const auto begin = [&](std::size_t) { begun.fetch_add(1); };
  elastic_pool pool(1, {.on_start = begin, .start_fault = look});
  grown.store(&pool);
  CHECK(pool.resize_to(5, {.deadline = no_deadline}).status == resize_status::ack);
  CHECK(seen.configured == 1);
  CHECK(seen.running == 1);
  CHECK(seen.starting == 4);
  CHECK(begun_then == 1);
  CHECK(begun.load() == 5);
}

TEST_CASE("elastic_pool acknowledges a resize after the hooks of those it counts") {
  std::atomic<int> begun{0}, ended{0};
  const auto late = [](std::atomic<int>& count) {
    return [&count](std::size_t) {
      for (int i = 0; i < 20; ++i)
        std::this_thread::yield();
      count.fetch_add(1);
    };
  };
  elastic_pool pool(1, {.on_start = late(begun), .on_stop = late(ended)});
  CHECK(begun.load() == 1);
  for (int round = 1; round <= 5; ++round) {
    CHECK(pool.resize_to(5, {.deadline = no_deadline}).status == resize_status::ack);
    CHECK(begun.load() == 1 + 4 * round);
    CHECK(pool.resize_to(1, {.deadline = no_deadline}).status == resize_status::ack);
    CHECK(ended.load() == 4 * round);
  }
}

TEST_CASE("elastic_pool keeps retiring workers that a growth asks back") {
  elastic_pool pool(6, {.thread_name = "vx-k"});
  {
    const held_workers held(pool, 6);
    REQUIRE(pool.resize_to(1, {.deadline = steady_clock::now()}).reason ==
            backoff_reason::settling);
    const resize_result back = pool.resize_to(4, {.deadline = steady_clock::now()});
    CHECK(back.target == 4);
    CHECK(back.running == 6);
    CHECK(back.retiring == 2);
    const resize_result more = pool.resize_to(9);
    CHECK(more.status == resize_status::ack);
    CHECK(more.running == 9);
    CHECK(listed_threads("vx-k") == 9);
  }
  CHECK(pool.stats().settled());
}

TEST_CASE("elastic_pool lets the workers go on retiring when a growth beside it fails") {
  planned_fault fault;
  elastic_pool pool(6, {.start_fault = fault.hook()});
  {
    const held_workers held(pool, 6);
    REQUIRE(pool.resize_to(2, {.deadline = steady_clock::now()}).reason ==
            backoff_reason::settling);
    fault.at = 1;
    const resize_result told = pool.resize_to(9);
    CHECK(told.code == refusal_code::resource_limit);
    CHECK(told.target == 2);
    CHECK(told.running == 6);
    CHECK(told.retiring == 4);
  }
  CHECK(eventually([&] { return pool.stats().settled(); }));
  CHECK(pool.stats().running == 2);
}

TEST_CASE("elastic_pool answers a second resize at once while the first is in flight") {
  elastic_pool pool(2);
  resize_result first;
  std::thread resizer;
  {
    const held_workers held(pool, 2);
    resizer = std::thread([&] { first = pool.resize_to(1, {.deadline = no_deadline}); });
    REQUIRE(eventually([&] { return pool.stats().configured == 1; }));
    const resize_result second = pool.resize_by(1, {.deadline = no_deadline});
    CHECK(second.status == resize_status::backoff);
    CHECK(second.reason == backoff_reason::resize_in_flight);
    CHECK(second.retry_after > duration::zero());
    CHECK(second.target == 1);
    CHECK(second.generation == 2);
    CHECK(second.message ==
          "veltrix: elastic_pool::resize_by: resize: got a second one at the same time, allowed "
          "one; generation 2 with 1 workers stays in force; ask again when the first has answered");
    CHECK(pool.resize_by(1, {.expect_generation = 1}).reason == backoff_reason::generation_moved);
  }
  resizer.join();
  CHECK(first.status == resize_status::ack);
  CHECK(first.running == 1);
}

TEST_CASE("elastic_pool answers settling to a resize while workers of the last still start") {
  std::latch go(1);
  std::atomic<bool> waits{false};
  elastic_pool pool(1, {.on_start = [&](std::size_t) {
                      if (waits) go.wait();
                    }});
  waits = true;
  const resize_result slow = pool.resize_to(3, {.deadline = in(5ms)});
  CHECK(slow.reason == backoff_reason::settling);
  CHECK(slow.target == 3);
  CHECK(slow.running == 1);
  CHECK(slow.starting == 2);
  const resize_result next = pool.resize_to(2);
  CHECK(next.reason == backoff_reason::settling);
  CHECK(next.target == 3);
  CHECK(holds(next.message, "resize: got one while workers of the last still start"));
  go.count_down();
  CHECK(eventually([&] { return pool.stats().settled(); }));
  CHECK(pool.resize_to(2).status == resize_status::ack);
}

TEST_CASE("elastic_pool answers shutting_down once it is stopped") {
  elastic_pool pool(2);
  pool.stop();
  const resize_result told = pool.resize_to(4);
  CHECK(told.status == resize_status::backoff);
  CHECK(told.reason == backoff_reason::shutting_down);
  CHECK(told.target == 0);
  CHECK(told.running == 0);
  CHECK(told.message ==
        "veltrix: elastic_pool::resize_to: pool: got a stopped one, allowed one that runs; "
        "generation 2 with 0 workers stays in force; do not ask again");
}

TEST_CASE("elastic_pool stopped under a waiting resize answers shutting_down to it") {
  elastic_pool pool(2);
  resize_result told;
  std::thread resizer;
  std::thread stopper;
  {
    const held_workers held(pool, 2);
    resizer = std::thread([&] { told = pool.resize_to(1, {.deadline = no_deadline}); });
    REQUIRE(eventually([&] { return pool.stats().configured == 1; }));
    stopper = std::thread([&] { pool.stop(); });
    resizer.join();
  }
  stopper.join();
  CHECK(told.reason == backoff_reason::shutting_down);
}

TEST_CASE("elastic_pool resizes from inside its own worker") {
  elastic_pool pool(4, {.thread_name = "vx-i"});
  const resize_result shrunk =
      pool.submit([&] { return pool.resize_to(1, {.deadline = no_deadline}); }).get();
  CHECK(shrunk.status == resize_status::ack);
  CHECK(shrunk.running == 1);
  const resize_result grown = pool.submit([&] { return pool.resize_by(7); }).get();
  CHECK(grown.status == resize_status::ack);
  CHECK(grown.running == 8);
  CHECK(listed_threads("vx-i") == 8);
}

TEST_CASE("elastic_pool whose workers all resize at once answers each of them") {
  elastic_pool pool(4);
  std::vector<task_handle<resize_result>> answers;
  std::latch together(4);
  for (int i = 0; i < 4; ++i) {
    answers.push_back(pool.submit([&, i] {
      together.arrive_and_wait();
      return pool.resize_to(1 + i, {.deadline = in(10s)});
    }));
  }
  int acknowledged = 0;
  for (auto& each : answers) {
    const resize_result told = each.get();
    acknowledged += told ? 1 : 0;
    CHECK((told || told.reason == backoff_reason::resize_in_flight));
  }
  CHECK(acknowledged >= 1);
  CHECK(eventually([&] { return pool.stats().settled(); }));
}

TEST_CASE("elastic_pool wakes an outside poster of a full queue after it has grown") {
  elastic_pool pool(1, {.queue_capacity = 1});
  std::atomic<int> ran{0};
  const held_workers held(pool, 1);
  REQUIRE(pool.post([&] { ran.fetch_add(1); }));
  std::thread poster([&] {
    for (int i = 0; i < 10; ++i)
      if (!pool.post([&] { ran.fetch_add(1); })) ran.fetch_add(1000);
  });
  CHECK(pool.resize_by(1));
  poster.join();
  CHECK(eventually([&] { return ran.load() == 11; }));
}

TEST_CASE("elastic_pool joins a retired thread even if nobody asks again") {
  elastic_pool pool(3, {.thread_name = "vx-j"});
  {
    const held_workers held(pool, 3);
    REQUIRE(pool.resize_to(1, {.deadline = steady_clock::now()}).retiring == 2);
  }
  CHECK(eventually([&] { return pool.stats().retiring == 0; }));
  CHECK(listed_threads("vx-j") == 1);
}

TEST_CASE("elastic_pool settles through grow and shrink cycles with throwing tasks") {
  failure_log log;
  std::uint64_t posted = 0;
  {
    elastic_pool pool(2, {.thread_name = "vx-t", .on_exception = log.handler()});
    for (std::size_t cycle = 0; cycle < veltrix_test::scale(300); ++cycle) {
      for (int i = 0; i < 5; ++i) {
        REQUIRE(pool.post([] { throw std::runtime_error("thrown"); }));
        ++posted;
      }
      const resize_result told = pool.resize_to(1 + static_cast<std::int64_t>(cycle % 6));
      REQUIRE(told.status == resize_status::ack);
      REQUIRE(listed_threads("vx-t") == told.running);
    }
    REQUIRE(pool.drain());
    CHECK(pool.stats().failed == posted);
    pool.stop();
    CHECK(pool.stats().running == 0);
  }
  CHECK(log.texts().size() == posted);
  CHECK(listed_threads("vx-t") == 0);
}

TEST_CASE("elastic_pool agrees with a plain model over random resizes") {
  const std::uint64_t seed = std::random_device{}();
  CAPTURE(seed);
  veltrix_test::random_source random(seed);
  constexpr std::int64_t most = 24;
  std::int64_t target = 4;
  std::uint64_t generation = 1;
  planned_fault fault;
  elastic_pool pool(4, {.thread_name = "vx-m",
                        .max_workers = static_cast<std::size_t>(most),
                        .start_fault = fault.hook()});
  for (std::size_t step = 0; step < veltrix_test::scale(1500); ++step) {
    const bool relative = random.below(2) == 0;
    const std::int64_t number = static_cast<std::int64_t>(random.below(60)) - (relative ? 30 : 15);
    const bool expects = random.below(3) == 0;
    const bool expects_wrong = expects && random.below(4) == 0;
    resize_options how;
    if (expects)
      how.expect_generation = expects_wrong ? generation + 1 + random.below(3) : generation;
    fault.at = random.below(4) == 0 ? random.below(8) : ~std::size_t{0};
    const resize_result told = relative ? pool.resize_by(number, how) : pool.resize_to(number, how);

    const std::int64_t wanted = relative ? target + number : number;
    CAPTURE(step, relative, number, wanted, told.message);
    if (expects_wrong) {
      REQUIRE(told.reason == backoff_reason::generation_moved);
    } else if (wanted < 1 || wanted > most) {
      REQUIRE(told.code == refusal_code::out_of_bounds);
    } else if (wanted > target && fault.at.load() < static_cast<std::size_t>(wanted - target)) {
      REQUIRE(told.code == refusal_code::resource_limit);
    } else {
      REQUIRE(told.status == resize_status::ack);
      generation += wanted != target ? 1 : 0;
      target = wanted;
    }
    REQUIRE(told.generation == generation);
    REQUIRE(told.target == static_cast<std::size_t>(target));
    REQUIRE(told.running == static_cast<std::size_t>(target));
    REQUIRE(listed_threads("vx-m") == static_cast<std::size_t>(target));
    REQUIRE(pool.stats().settled());
  }
}

TEST_CASE("elastic_pool names its answers as the code does") {
  CHECK(std::string(name_of(resize_status::ack)) == "ack");
  CHECK(std::string(name_of(resize_status::backoff)) == "backoff");
  CHECK(std::string(name_of(resize_status::refused)) == "refused");
  CHECK(std::string(name_of(backoff_reason::none)) == "none");
  CHECK(std::string(name_of(backoff_reason::resize_in_flight)) == "resize_in_flight");
  CHECK(std::string(name_of(backoff_reason::generation_moved)) == "generation_moved");
  CHECK(std::string(name_of(backoff_reason::settling)) == "settling");
  CHECK(std::string(name_of(backoff_reason::memory_pressure)) == "memory_pressure");
  CHECK(std::string(name_of(backoff_reason::rate_limited)) == "rate_limited");
  CHECK(std::string(name_of(backoff_reason::shutting_down)) == "shutting_down");
  CHECK(std::string(name_of(refusal_code::none)) == "none");
  CHECK(std::string(name_of(refusal_code::out_of_bounds)) == "out_of_bounds");
  CHECK(std::string(name_of(refusal_code::resource_limit)) == "resource_limit");
  CHECK(std::string(name_of(refusal_code::not_the_writer)) == "not_the_writer");
  CHECK(std::string(name_of(refusal_code::epoch_changed)) == "epoch_changed");
  CHECK(std::string(name_of(refusal_code::bad_request)) == "bad_request");
}

TEST_CASE("elastic_pool acknowledges a shrink after the hooks of those that left") {
  std::atomic<bool> ended{false};
  elastic_pool pool(2, {.on_stop = [&](std::size_t) {
                      std::this_thread::sleep_for(
                          30ms);  // sleep: an ack that does not wait comes before it is over
                      ended.store(true);
                    }});
  const auto told = pool.resize_to(1, {.deadline = steady_clock::now() + 60s});
  CHECK(told);
  CHECK(ended.load());
}

TEST_CASE("elastic_pool keeps no worker waiting for the last hook of another") {
  std::latch ends(1);
  std::atomic<bool> ran{false};
  elastic_pool pool(2, {.on_stop = [&](std::size_t) { ends.wait(); }});
  CHECK(pool.resize_to(1, {.deadline = steady_clock::now()}).target == 1);
  CHECK(eventually([&] { return pool.stats().running == 1; }));
  CHECK(pool.post([&] { ran.store(true); }));
  CHECK(eventually([&] { return ran.load(); }));
  ends.count_down();
}
