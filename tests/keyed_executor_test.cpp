// keyed_executor: each promise of its contract, and random sequences against a plain model.
// SPDX-License-Identifier: BSL-1.0
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/death.hpp"
#include "support/faults.hpp"
#include "support/hand_executor.hpp"
#include "support/pool.hpp"
#include "support/random.hpp"
#include "support/scale.hpp"
#include "support/small_pool.hpp"
#include "veltrix/keyed_executor.hpp"

using veltrix::bound_kind;
using veltrix::drain_status;
using veltrix::inline_executor;
using veltrix::keyed_executor;
using veltrix::keyed_item;
using veltrix::keyed_options;
using veltrix::keyed_stats;
using veltrix::load;
using veltrix::no_byte_limit;
using veltrix::submit_result;
using veltrix::submit_status;
using veltrix::time_point;
using veltrix_test::eventually;
using veltrix_test::hand_executor;
using veltrix_test::scale;
using veltrix_test::small_pool;

namespace {

/// An event of a key; owned, so that a lost or doubled one shows under a sanitizer.
struct event {
  std::uint64_t key = 0;
  int number = 0;
  std::size_t bytes = 1;
  std::unique_ptr<int> owned = std::make_unique<int>(0);
};
struct event_weight {
  std::size_t operator()(const event& weighed) const noexcept { return weighed.bytes; }
};

template <class Executor>
using event_lanes = keyed_executor<event, Executor, event_weight>;

static_assert(!std::is_copy_constructible_v<event_lanes<inline_executor>>);
static_assert(!std::is_move_constructible_v<event_lanes<inline_executor>>);
static_assert(std::is_final_v<event_lanes<inline_executor>>);  // unique_ptr and optional may end it
static_assert(noexcept(std::declval<event_lanes<inline_executor>&>().close()));
static_assert(noexcept(std::declval<event_lanes<inline_executor>&>().set_limits({})));
static_assert(noexcept(std::declval<event_lanes<inline_executor>&>().set_max_runs(1)));
static_assert(noexcept(std::declval<const event_lanes<inline_executor>&>().stats()));
static_assert(noexcept(std::declval<const event_lanes<inline_executor>&>().lane_of(1)));

constexpr time_point long_past = time_point::min();

keyed_options holding(std::size_t items) {
  return {.max_items = items, .max_bytes = no_byte_limit, .lanes = 64};
}

keyed_item<event> event_of(std::uint64_t key, int number, std::size_t bytes = 1) {
  return {key, event{key, number, bytes}};
}

std::vector<keyed_item<event>> block_of(std::size_t count, std::uint64_t keys) {
  std::vector<keyed_item<event>> block;
  for (std::size_t i = 0; i < count; ++i)
    block.push_back(event_of(i % keys, static_cast<int>(i)));
  return block;
}

/// Keeps the numbers handled, by key.
struct record {
  std::map<std::uint64_t, std::vector<int>> by_key{};
  std::vector<std::size_t> batches{};

  auto handler() {
    return [this](std::size_t, std::span<event> batch) {
      batches.push_back(batch.size());
      for (event& each : batch)
        by_key[each.key].push_back(each.number + *each.owned);
    };
  }
  std::size_t count() const {
    std::size_t sum = 0;
    for (const auto& [key, numbers] : by_key)
      sum += numbers.size();
    return sum;
  }
  bool ordered() const {
    return std::all_of(by_key.begin(), by_key.end(), [](const auto& of_key) {
      return std::is_sorted(of_key.second.begin(), of_key.second.end(), std::less_equal<>());
    });
  }
};

void check_balance(const keyed_stats& seen) {
  CHECK(seen.submitted == seen.handled + seen.failed + seen.abandoned + seen.in_flight.items);
  CHECK(seen.peak.items >= seen.in_flight.items);
}

/// Two keys of different lanes.
template <class Lanes>
std::pair<std::uint64_t, std::uint64_t> apart(const Lanes& lanes) {
  std::uint64_t other = 1;
  while (lanes.lane_of(other) == lanes.lane_of(0))
    ++other;
  return {0, other};
}

/// Opened once; whoever waits goes on.
class gate {
 public:
  void open() {
    is_open_ = true;
    is_open_.notify_all();
  }
  void wait() const { is_open_.wait(false); }

 private:
  std::atomic<bool> is_open_{false};
};

}  // namespace

TEST_CASE("keyed_executor handles the items of a key in the order of submission") {
  record seen;
  hand_executor executor;
  event_lanes<hand_executor&> lanes(executor, holding(10'000), seen.handler());
  for (int round = 0; round < 4; ++round) {
    auto block = block_of(500, 37);
    for (auto& each : block)
      each.item.number += round * 1000;
    const submit_result answer = lanes.submit(block);
    CHECK(answer);
    CHECK(answer.accepted == 500);
    CHECK(lanes.submit(5, event{5, round * 1000 + 900}));
    if (round == 1) executor.run_one();
  }
  executor.run_all();
  CHECK(seen.count() == 2004);
  CHECK(seen.ordered());
  CHECK(lanes.stats().in_flight == load{});
  check_balance(lanes.stats());
}

TEST_CASE("keyed_executor runs in the submitting thread on an executor that runs at once") {
  record seen;
  event_lanes<inline_executor> lanes({}, holding(100), seen.handler());
  auto block = block_of(5'000, 11);
  const submit_result answer = lanes.submit(block);  // more than fits at once: served in between
  CHECK(answer);
  CHECK(answer.accepted == 5'000);
  CHECK(seen.count() == 5'000);
  CHECK(seen.ordered());
  CHECK(lanes.submit(1, event{1, 9'999}));
  CHECK(seen.count() == 5'001);
}

TEST_CASE("keyed_executor keeps a key in its lane and uses all lanes") {
  event_lanes<inline_executor> lanes({}, holding(10), [](std::size_t, std::span<event>) {});
  keyed_options other = holding(10);
  other.seed = 99;
  const event_lanes<inline_executor> seeded({}, other, [](std::size_t, std::span<event>) {});
  std::set<std::size_t> used;
  std::size_t same = 0;
  for (std::uint64_t key = 0; key < 2'000; ++key) {
    REQUIRE(lanes.lane_of(key) < lanes.lane_count());
    REQUIRE(lanes.lane_of(key) == lanes.lane_of(key));
    used.insert(lanes.lane_of(key));
    same += lanes.lane_of(key) == seeded.lane_of(key) ? 1 : 0;
  }
  CHECK(lanes.lane_count() == 64);
  CHECK(used.size() == 64);
  CHECK(same < 200);  // one in 64 by chance
}

TEST_CASE("keyed_executor tells the handler the lane of the batch") {
  std::size_t lane_seen = 0;
  event_lanes<inline_executor> lanes({}, holding(10),
                                     [&](std::size_t lane, std::span<event>) { lane_seen = lane; });
  for (std::uint64_t key = 0; key < 50; ++key) {
    CHECK(lanes.submit(key, event{key}));
    CHECK(lane_seen == lanes.lane_of(key));
  }
}

TEST_CASE("keyed_executor joins waiting items of a lane into batches of batch_max") {
  for (const std::size_t batch_max : {1U, 3U, 16U, 64U, 4096U}) {
    record seen;
    hand_executor executor;
    keyed_options options = holding(10'000);
    options.batch_max = batch_max;
    event_lanes<hand_executor&> lanes(executor, options, seen.handler());
    for (int i = 0; i < 1'000; ++i)
      CHECK(lanes.submit(7, event{7, i}));
    executor.run_all();
    CHECK(seen.ordered());
    CHECK(seen.count() == 1'000);
    const std::size_t full_batches = 1'000 / batch_max;
    CHECK(seen.batches.size() == full_batches + (1'000 % batch_max == 0 ? 0 : 1));
    CHECK(std::all_of(seen.batches.begin(), seen.batches.end() - 1,
                      [&](std::size_t size) { return size == batch_max; }));
    CHECK(lanes.stats().max_batch == std::min<std::size_t>(batch_max, 1'000));
    CHECK(lanes.stats().batches == seen.batches.size());
  }
}

TEST_CASE("keyed_executor takes turns between lanes") {
  hand_executor executor;
  keyed_options options = holding(100);
  options.batch_max = 2;
  std::vector<std::uint64_t> turns;
  event_lanes<hand_executor&> lanes(executor, options, [&](std::size_t, std::span<event> batch) {
    turns.push_back(batch[0].key);
  });
  const auto [one, other] = apart(lanes);
  for (int i = 0; i < 6; ++i)
    CHECK(lanes.submit(one, event{one, i}));
  for (int i = 0; i < 4; ++i)
    CHECK(lanes.submit(other, event{other, i}));
  executor.run_all();
  CHECK(turns == std::vector{one, other, one, other, one});
}

TEST_CASE("keyed_executor has at most one run waiting in the executor") {
  hand_executor executor;
  std::size_t most_waiting = 0;
  std::size_t handled = 0;
  event_lanes<hand_executor&> lanes(executor, holding(10'000),
                                    [&](std::size_t, std::span<event> batch) {
                                      most_waiting = std::max(most_waiting, executor.waiting());
                                      handled += batch.size();
                                    });
  for (int i = 0; i < 5; ++i) {
    auto block = block_of(300, 60);
    CHECK(lanes.submit(block));
    CHECK(executor.waiting() == 1);
  }
  CHECK(executor.run_one());
  CHECK(most_waiting == 1);        // the run left lanes ready, so it posted the next
  CHECK(executor.waiting() <= 1);  // and that one, late, finds nothing to do
  executor.run_all();
  CHECK(handled == 1'500);
  CHECK(lanes.stats().posts <= 5);
}

TEST_CASE("keyed_executor gives the thread back when the budget of a run is over") {
  record seen;
  hand_executor executor;
  keyed_options options = holding(1'000);
  options.run_budget = veltrix::duration::zero();
  event_lanes<hand_executor&> lanes(executor, options, seen.handler());
  auto block = block_of(640, 640);
  CHECK(lanes.submit(block));
  std::size_t runs = 0;
  while (executor.run_one()) {
    ++runs;
    CHECK(seen.batches.size() == runs);  // one batch each
    CHECK(executor.waiting() <= 1);
  }
  CHECK(runs == 64);
  CHECK(seen.count() == 640);
  CHECK(seen.ordered());
}

TEST_CASE("keyed_executor takes the prefix that fits and leaves the rest alone") {
  record seen;
  hand_executor executor;
  event_lanes<hand_executor&> lanes(executor, holding(10), seen.handler());
  auto block = block_of(25, 7);
  const submit_result answer = lanes.submit(block);
  CHECK(answer.status == submit_status::full);
  CHECK(answer.bound == bound_kind::items);
  CHECK(answer.accepted == 10);
  CHECK(answer.in_flight == load{10, 10});
  CHECK(answer.message("events") == "full: 10 of 10 events (10 B)");
  CHECK(block[9].item.owned == nullptr);
  CHECK(std::all_of(block.begin() + 10, block.end(),
                    [](const auto& each) { return each.item.owned != nullptr; }));
  executor.run_all();
  const submit_result next = lanes.submit(std::span(block).subspan(10));
  CHECK(next.accepted == 10);
  executor.run_all();
  CHECK(lanes.submit(std::span(block).subspan(20)));
  executor.run_all();
  CHECK(seen.count() == 25);
  CHECK(seen.ordered());
  CHECK(lanes.stats().refused == 20);
  CHECK(lanes.stats().peak.items == 10);
}

TEST_CASE("keyed_executor bounds the bytes in flight") {
  hand_executor executor;
  event_lanes<hand_executor&> lanes(
      executor, {.max_items = 100'000, .max_bytes = std::size_t{64} << 20, .lanes = 64},
      [](std::size_t, std::span<event>) {});
  std::vector<keyed_item<event>> block;
  for (int i = 0; i < 70; ++i)
    block.push_back(event_of(1, i, std::size_t{1} << 20));
  const submit_result answer = lanes.submit(block);
  CHECK(answer.accepted == 64);
  CHECK(answer.bound == bound_kind::bytes);
  CHECK(answer.message("events") == "full: 64.0 MiB of 64 MiB (64 events)");
  executor.run_all();
  CHECK(lanes.stats().in_flight == load{});
}

TEST_CASE("keyed_executor names an item that is too heavy and takes those before it") {
  hand_executor executor;
  event_lanes<hand_executor&> lanes(executor, {.max_items = 9, .max_bytes = 100, .lanes = 64},
                                    [](std::size_t, std::span<event>) {});
  std::vector<keyed_item<event>> block;
  block.push_back(event_of(1, 0, 10));
  block.push_back(event_of(1, 1, 101));
  block.push_back(event_of(1, 2, 10));
  const submit_result answer = lanes.submit_wait(block);  // no deadline
  CHECK(answer.status == submit_status::too_heavy);
  CHECK(answer.accepted == 1);
  CHECK(answer.item_bytes == 101);
  CHECK(answer.message() ==
        "too heavy: one item weighs 101 B, allowed 100 B; it was not taken and never fits; raise "
        "the byte limit or split the item");
  CHECK(block[1].item.owned != nullptr);
  CHECK(lanes.submit(std::span(block).subspan(2)));
  executor.run_all();
}

TEST_CASE("keyed_executor leaves a single item alone when it is refused") {
  hand_executor executor;
  event_lanes<hand_executor&> lanes(executor, holding(1), [](std::size_t, std::span<event>) {});
  CHECK(lanes.submit(1, event{1}));
  event kept{2, 7};
  CHECK(lanes.submit(2, std::move(kept)).status == submit_status::full);
  CHECK(lanes.submit_wait(2, std::move(kept), {.deadline = long_past}).status ==
        submit_status::timed_out);
  REQUIRE(kept.owned != nullptr);
  CHECK(kept.number == 7);
  executor.run_all();
}

TEST_CASE("keyed_executor answers an empty block by whether it is open") {
  event_lanes<inline_executor> lanes({}, holding(1), [](std::size_t, std::span<event>) {});
  CHECK(lanes.submit({}));
  lanes.close();
  CHECK(lanes.submit({}).status == submit_status::closed);
}

TEST_CASE("keyed_executor submit_wait waits for handlers to make room") {
  small_pool pool(2);
  gate first;
  std::atomic<std::size_t> handled{0};
  event_lanes<small_pool&> lanes(pool, holding(10), [&](std::size_t, std::span<event> batch) {
    first.wait();
    handled += batch.size();
  });
  auto block = block_of(500, 5);
  submit_result answer;
  std::thread submitter([&] { answer = lanes.submit_wait(block); });
  REQUIRE(eventually([&] { return lanes.stats().waiting == 1; }));
  CHECK(lanes.stats().in_flight.items == 10);
  event late{1};
  const submit_result overtaking = lanes.submit(1, std::move(late));
  CHECK(overtaking.status == submit_status::full);
  first.open();
  submitter.join();
  CHECK(answer);
  CHECK(answer.accepted == 500);
  CHECK(lanes.drain());
  CHECK(handled == 500);
  CHECK(lanes.stats().peak.items == 10);
  CHECK(lanes.stats().blocked > veltrix::duration::zero());
}

TEST_CASE("keyed_executor submit_wait ends at its deadline and when its token stops") {
  hand_executor executor;
  event_lanes<hand_executor&> lanes(executor, holding(4), [](std::size_t, std::span<event>) {});
  auto block = block_of(6, 1);
  const time_point soon = veltrix::steady_clock::now() + std::chrono::milliseconds(5);
  const submit_result late = lanes.submit_wait(block, {.deadline = soon});
  CHECK(veltrix::steady_clock::now() >= soon);
  CHECK(late.status == submit_status::timed_out);
  CHECK(late.accepted == 4);
  CHECK(late.message() == "timed out: 4 of 4 items (4 B)");
  CHECK(block[4].item.owned != nullptr);

  veltrix::stop_source stop;
  submit_result stopped;
  std::thread waiting([&] {
    stopped = lanes.submit_wait(std::span(block).subspan(4), {.token = stop.get_token()});
  });
  REQUIRE(eventually([&] { return lanes.stats().waiting == 1; }));
  stop.request_stop();
  waiting.join();
  CHECK(stopped.status == submit_status::stopped);
  CHECK(stopped.accepted == 0);
  executor.run_all();
}

TEST_CASE("keyed_executor refuses callers above max_waiters at once") {
  hand_executor executor;
  keyed_options options = holding(1);
  options.max_waiters = 1;
  event_lanes<hand_executor&> lanes(executor, options, [](std::size_t, std::span<event>) {});
  CHECK(lanes.submit(1, event{1}));
  submit_result first;
  std::thread waiting([&] { first = lanes.submit_wait(1, event{1, 1}); });
  REQUIRE(eventually([&] { return lanes.stats().waiting == 1; }));
  const submit_result refused = lanes.submit_wait(1, event{1, 2});  // no deadline
  CHECK(refused.status == submit_status::full);
  CHECK(refused.bound == bound_kind::waiters);
  lanes.close();
  waiting.join();
  CHECK(first.status == submit_status::closed);
  CHECK(first.message() == "closed: nothing more is taken");
  executor.run_all();
}

TEST_CASE("keyed_executor never makes a handler wait for room") {
  hand_executor executor;
  std::optional<submit_result> inside;
  event_lanes<hand_executor&>* reached = nullptr;
  event_lanes<hand_executor&> lanes(executor, holding(1), [&](std::size_t, std::span<event>) {
    if (!inside) inside = reached->submit_wait(2, event{2});
  });
  reached = &lanes;
  CHECK(lanes.submit(1, event{1}));
  executor.run_all();
  REQUIRE(inside);
  CHECK(inside->status == submit_status::full);
  CHECK(inside->bound == bound_kind::handler);
  CHECK(inside->message() == "full: 1 of 1 items (1 B); a handler never waits for room");
}

TEST_CASE("keyed_executor takes what a handler submits, in order and without recursion") {
  for (const auto mood :
       {hand_executor::mood::takes, hand_executor::mood::runs_at_once, hand_executor::mood::full}) {
    hand_executor executor;
    executor.now = mood;
    std::vector<int> order;
    int depth = 0;
    int deepest = 0;
    event_lanes<hand_executor&>* reached = nullptr;
    event_lanes<hand_executor&> lanes(
        executor, holding(9), [&](std::size_t, std::span<event> batch) {
          deepest = std::max(deepest, ++depth);
          order.push_back(batch[0].number);
          if (batch[0].number < 200) {
            const auto key = static_cast<std::uint64_t>(batch[0].number);
            CHECK(reached->submit(key, event{key, batch[0].number + 1}));
          }
          --depth;
        });
    reached = &lanes;
    CHECK(lanes.submit(0, event{0, 0}));
    executor.run_all();
    CHECK(order.size() == 201);
    CHECK(std::is_sorted(order.begin(), order.end()));
    CHECK(deepest == 1);
  }
}

TEST_CASE("keyed_executor loses and reorders nothing when the executor refuses") {
  using mood = hand_executor::mood;
  for (const mood now : {mood::full, mood::full_and_destroys, mood::throws, mood::runs_at_once}) {
    record seen;
    hand_executor executor;
    event_lanes<hand_executor&> lanes(executor, holding(1'000), seen.handler());
    auto taken = block_of(50, 9);
    CHECK(lanes.submit(taken));
    CHECK(executor.waiting() == 1);
    executor.now = now;  // the next run is posted by the one that waits, and refused
    CHECK(executor.run_one());
    CHECK(seen.count() == 50);
    auto block = block_of(500, 23);
    for (auto& each : block)
      each.item.number += 1'000;
    CHECK(lanes.submit(block));  // served by this thread
    CHECK(seen.count() == 550);
    CHECK(seen.ordered());
    CHECK(lanes.stats().refused_posts > 0);
    CHECK_FALSE(lanes.closed());
    executor.now = mood::takes;
    CHECK(lanes.submit(1, event{1, 5'000}));
    CHECK(executor.waiting() == 1);
    CHECK(executor.run_all() == 1);
    CHECK(seen.count() == 551);
  }
}

TEST_CASE("keyed_executor closes when its executor says closed, after handling what it took") {
  record seen;
  hand_executor executor;
  executor.now = hand_executor::mood::closed;
  event_lanes<hand_executor&> lanes(executor, holding(100), seen.handler());
  auto block = block_of(80, 9);
  CHECK(lanes.submit(block));
  CHECK(seen.count() == 80);
  CHECK(lanes.closed());
  CHECK(lanes.submit(1, event{1}).status == submit_status::closed);
}

TEST_CASE("keyed_executor goes on when the executor destroys an accepted run") {
  record seen;
  hand_executor executor;
  SECTION("with the next submit") {
    event_lanes<hand_executor&> lanes(executor, holding(100), seen.handler());
    CHECK(lanes.submit(1, event{1, 0}));
    executor.drop_all();
    CHECK(lanes.submit(1, event{1, 1}));
    executor.run_all();
    CHECK(seen.by_key[1] == std::vector{0, 1});
  }
  SECTION("with a drain, in its thread where the executor refuses") {
    event_lanes<hand_executor&> lanes(executor, holding(100), seen.handler());
    CHECK(lanes.submit(1, event{1, 0}));
    executor.drop_all();
    executor.now = hand_executor::mood::full;
    CHECK(lanes.drain());
    CHECK(seen.count() == 1);
  }
  SECTION("with the end of the object") {
    {
      event_lanes<hand_executor&> lanes(executor, holding(100), seen.handler());
      CHECK(lanes.submit(1, event{1, 0}));
      executor.drop_all();
      executor.now = hand_executor::mood::closed;
    }
    CHECK(seen.count() == 1);
  }
  SECTION("with a caller that waits for room") {
    small_pool pool(1);
    gate busy;
    std::atomic<std::size_t> handled{0};
    CHECK(pool.try_post([&] { busy.wait(); }));
    REQUIRE(eventually([&] { return pool.waiting() == 0; }));  // its thread has begun
    event_lanes<small_pool&> lanes(
        pool, holding(1), [&](std::size_t, std::span<event> batch) { handled += batch.size(); });
    CHECK(lanes.submit(1, event{1, 0}));
    std::thread waiting([&] { static_cast<void>(lanes.submit_wait(1, event{1, 1})); });
    REQUIRE(eventually([&] { return lanes.stats().waiting == 1; }));
    pool.close();
    CHECK(pool.drop_waiting() == 1);
    waiting.join();
    CHECK(handled >= 1);
    busy.open();
  }
}

TEST_CASE("keyed_executor gives a failed batch to the failure handler and goes on") {
  record seen;
  std::vector<int> failed;
  std::string told;
  std::size_t failed_lane = 99;
  hand_executor executor;
  keyed_options options = holding(100);
  options.batch_max = 2;
  event_lanes<hand_executor&> lanes(
      executor, options,
      [&, note = seen.handler()](std::size_t lane, std::span<event> batch) mutable {
        if (batch[0].number == 2) throw std::runtime_error("no");
        note(lane, batch);
      },
      [&](std::size_t lane, std::span<event> batch, const std::exception_ptr& failure) {
        failed_lane = lane;
        for (const event& each : batch)
          failed.push_back(each.number);
        try {
          std::rethrow_exception(failure);
        } catch (const std::runtime_error& error) {
          told = error.what();
        }
      });
  for (int i = 0; i < 6; ++i)
    CHECK(lanes.submit(7, event{7, i}));
  executor.run_all();
  CHECK(seen.by_key[7] == std::vector{0, 1, 4, 5});
  CHECK(failed == std::vector{2, 3});
  CHECK(told == "no");
  CHECK(failed_lane == lanes.lane_of(7));
  const keyed_stats after = lanes.stats();
  CHECK(after.handled == 4);
  CHECK(after.failed == 2);
  CHECK(after.failed_batches == 1);
  CHECK(after.lost_failures == 0);
  check_balance(after);
}

TEST_CASE("keyed_executor counts failures that nobody could be told of") {
  const auto fails = [](std::size_t, std::span<event>) { throw 1; };
  event_lanes<inline_executor> silent({}, holding(9), fails);
  CHECK(silent.submit(1, event{1}));
  CHECK(silent.stats().lost_failures == 1);
  event_lanes<inline_executor> failing(
      {}, holding(9), fails,
      [](std::size_t, std::span<event>, const std::exception_ptr&) { throw 2; });
  CHECK(failing.submit(1, event{1}));
  CHECK(failing.submit(1, event{1}));
  CHECK(failing.stats().lost_failures == 2);
  CHECK(failing.stats().failed == 2);
  CHECK(failing.stats().in_flight == load{});
}

TEST_CASE("keyed_executor ends items when their batch is done, however it ended") {
  const auto counted = std::make_shared<int>(0);
  hand_executor executor;
  std::vector<long> holders;
  keyed_options options = holding(100);
  options.batch_max = 3;
  keyed_executor<std::shared_ptr<int>, hand_executor&> lanes(
      executor, options, [&](std::size_t, std::span<std::shared_ptr<int>> batch) {
        holders.push_back(counted.use_count());
        if (batch.size() == 2) throw std::runtime_error("the last one");
      });
  for (int i = 0; i < 8; ++i)
    CHECK(lanes.submit(1, std::shared_ptr<int>(counted)));
  executor.run_all();
  CHECK(holders == std::vector<long>{9, 6, 3});
  CHECK(counted.use_count() == 1);
}

TEST_CASE("keyed_executor close refuses submits and handles what it took") {
  record seen;
  hand_executor executor;
  event_lanes<hand_executor&> lanes(executor, holding(10), seen.handler());
  CHECK(lanes.submit(1, event{1, 1}));
  lanes.close();
  lanes.close();
  CHECK(lanes.closed());
  event kept{1, 2};
  CHECK(lanes.submit(1, std::move(kept)).status == submit_status::closed);
  CHECK(kept.owned != nullptr);
  CHECK(lanes.submit_wait(1, std::move(kept)).status == submit_status::closed);
  const auto waiting = lanes.drain({.deadline = long_past});
  CHECK(waiting.status == drain_status::timed_out);
  CHECK(waiting.in_flight == 1);
  veltrix::stop_source stop;
  stop.request_stop();
  CHECK(lanes.drain({.token = stop.get_token()}).status == drain_status::stopped);
  executor.run_all();
  CHECK(lanes.drain());
  CHECK(seen.count() == 1);
}

TEST_CASE("keyed_executor wait_idle leaves submits open") {
  small_pool pool(2);
  std::atomic<std::size_t> handled{0};
  event_lanes<small_pool&> lanes(
      pool, holding(1'000), [&](std::size_t, std::span<event> batch) { handled += batch.size(); });
  for (std::size_t round = 1; round <= 20; ++round) {
    auto block = block_of(500, 17);
    CHECK(lanes.submit(block));
    CHECK(lanes.wait_idle());
    CHECK(handled == round * 500);
  }
}

TEST_CASE("keyed_executor stop abandons what no handler was given and counts it") {
  const auto counted = std::make_shared<int>(0);
  small_pool pool(1);
  gate hold;
  std::atomic<bool> began{false};
  std::atomic<std::size_t> handled{0};
  keyed_options options = holding(100);
  options.batch_max = 4;
  keyed_executor<std::shared_ptr<int>, small_pool&> lanes(
      pool, options, [&](std::size_t, std::span<std::shared_ptr<int>> batch) {
        began = true;
        hold.wait();
        handled += batch.size();
      });
  std::vector<keyed_item<std::shared_ptr<int>>> block;
  for (std::uint64_t i = 0; i < 50; ++i)
    block.push_back({i % 5, counted});
  CHECK(lanes.submit(block));
  REQUIRE(eventually([&] { return began.load(); }));
  const auto early = lanes.stop({.deadline = long_past});
  CHECK(early.status == drain_status::timed_out);
  CHECK(early.in_flight == 50);
  CHECK(lanes.submit(1, std::shared_ptr<int>(counted)).status == submit_status::closed);
  hold.open();
  const auto stopped = lanes.stop();
  CHECK(stopped);
  CHECK(stopped.abandoned == 50 - handled);
  CHECK(handled == 4);
  CHECK(counted.use_count() == 1);
  check_balance(lanes.stats());
}

TEST_CASE("keyed_executor refuses to wait for itself inside a handler") {
  drain_status seen = drain_status::drained;
  event_lanes<inline_executor>* reached = nullptr;
  event_lanes<inline_executor> lanes(
      {}, holding(9), [&](std::size_t, std::span<event>) { seen = reached->wait_idle().status; });
  reached = &lanes;
  CHECK(lanes.submit(1, event{1}));
  CHECK(seen == drain_status::inside_handler);
}

TEST_CASE("keyed_executor handles everything before it ends") {
  std::atomic<std::size_t> handled{0};
  small_pool pool(2);
  for (int round = 0; round < 50; ++round) {
    event_lanes<small_pool&> lanes(pool, holding(1'000), [&](std::size_t, std::span<event> batch) {
      handled += batch.size();
    });
    auto block = block_of(200, 150);
    CHECK(lanes.submit(block));
  }
  CHECK(handled == 50 * 200);
}

TEST_CASE("keyed_executor set_limits acts at once and drops nothing") {
  hand_executor executor;
  record seen;
  event_lanes<hand_executor&> lanes(executor, holding(20), seen.handler());
  auto block = block_of(60, 3);
  CHECK(lanes.submit(block).accepted == 20);
  CHECK(lanes.set_limits({30, no_byte_limit}));
  CHECK(lanes.submit(std::span(block).subspan(20)).accepted == 10);
  CHECK(lanes.set_limits({5, no_byte_limit}));
  CHECK(lanes.stats().in_flight.items == 30);
  CHECK(lanes.stats().limit == load{5, no_byte_limit});
  CHECK(lanes.submit(std::span(block).subspan(30)).message() == "full: 30 of 5 items (30 B)");
  executor.run_all();
  CHECK(lanes.submit(std::span(block).subspan(30)).accepted == 5);
  executor.run_all();
  CHECK(seen.count() == 35);
  CHECK(seen.ordered());
}

TEST_CASE("keyed_executor set_limits wakes those who wait") {
  hand_executor executor;
  event_lanes<hand_executor&> lanes(executor, {.max_items = 9, .max_bytes = 10, .lanes = 64},
                                    [](std::size_t, std::span<event>) {});
  CHECK(lanes.submit(1, event{1, 0, 10}));
  submit_result light;
  submit_result heavy;
  std::thread first([&] { light = lanes.submit_wait(1, event{1, 1, 4}); });
  REQUIRE(eventually([&] { return lanes.stats().waiting == 1; }));
  std::thread second([&] { heavy = lanes.submit_wait(1, event{1, 2, 9}); });
  REQUIRE(eventually([&] { return lanes.stats().waiting == 2; }));
  CHECK(lanes.set_limits({9, 8}));
  second.join();
  CHECK(heavy.status == submit_status::too_heavy);
  CHECK(lanes.set_limits({9, 14}));
  first.join();
  CHECK(light);
  executor.run_all();
}

TEST_CASE("keyed_executor lets nobody overtake a waiter, though there is room") {
  hand_executor executor;
  event_lanes<hand_executor&> lanes(executor, {.max_items = 9, .max_bytes = 10, .lanes = 64},
                                    [](std::size_t, std::span<event>) {});
  CHECK(lanes.submit(1, event{1, 0, 6}));
  submit_result heavy;
  std::thread waiting([&] { heavy = lanes.submit_wait(1, event{1, 1, 8}); });
  REQUIRE(eventually([&] { return lanes.stats().waiting == 1; }));
  const submit_result light = lanes.submit(2, event{2, 0, 1});
  CHECK(light.status == submit_status::full);
  CHECK(light.bound == bound_kind::waiters);
  executor.run_all();
  waiting.join();
  CHECK(heavy);
  executor.run_all();
}

TEST_CASE("keyed_executor refuses bad limits and bad options by name") {
  const auto build = [](const keyed_options& options) {
    event_lanes<inline_executor>({}, options, [](std::size_t, std::span<event>) {});
  };
  const auto reason = [&](keyed_options options) -> std::string {
    try {
      build(options);
    } catch (const std::invalid_argument& told) {
      return told.what();
    }
    return "accepted";
  };
  CHECK(reason(holding(1)) == "accepted");
  const auto changed = [](auto change) {
    keyed_options options = holding(10);
    change(options);
    return options;
  };
  using Catch::Matchers::Contains;
  CHECK_THAT(reason({}), Contains("max_items, max_bytes: got 0, 0"));
  CHECK_THAT(reason(changed([](auto& o) { o.max_bytes = static_cast<std::size_t>(-1); })),
             Contains("no_byte_limit"));
  CHECK_THAT(reason(changed([](auto& o) { o.lanes = 32; })), Contains("lanes: got 32"));
  CHECK_THAT(reason(changed([](auto& o) { o.lanes = 100; })), Contains("a power of two"));
  CHECK_THAT(reason(changed([](auto& o) { o.lanes = 131'072; })), Contains("64..65536"));
  CHECK_THAT(reason(changed([](auto& o) { o.batch_max = 0; })), Contains("batch_max: got 0"));
  CHECK_THAT(reason(changed([](auto& o) { o.batch_max = 4097; })), Contains("1..4096"));
  CHECK_THAT(reason(changed([](auto& o) { o.max_runs = 65; })), Contains("max_runs: got 65"));
  CHECK_THAT(reason(changed([](auto& o) { o.run_budget = std::chrono::hours(2); })),
             Contains("run_budget"));
  CHECK_THROWS_AS(event_lanes<inline_executor>({}, holding(1), nullptr), std::invalid_argument);

  event_lanes<inline_executor> lanes({}, holding(7), [](std::size_t, std::span<event>) {});
  CHECK_FALSE(lanes.set_limits({0, 1}));
  CHECK_FALSE(lanes.set_limits({1, 0}));
  CHECK_FALSE(lanes.set_limits({static_cast<std::size_t>(-1), 1}));
  CHECK(lanes.stats().limit == load{7, no_byte_limit});
  CHECK_FALSE(lanes.set_max_runs(0));
  CHECK_FALSE(lanes.set_max_runs(65));
  CHECK(std::string(lanes.set_max_runs(65).why).find("allowed 1..lanes") != std::string::npos);
  CHECK(lanes.set_max_runs(64));
}

TEST_CASE("keyed_executor has no more runs at work than max_runs") {
  small_pool pool(4);
  std::atomic<int> at_work{0};
  std::atomic<int> most{0};
  std::atomic<bool> meet{false};
  keyed_options options = holding(100'000);
  options.max_runs = 2;
  options.run_budget = veltrix::duration::zero();  // hand over as often as can be
  event_lanes<small_pool&> lanes(pool, options, [&](std::size_t, std::span<event>) {
    const int now = ++at_work;
    int seen = most;
    while (now > seen && !most.compare_exchange_weak(seen, now)) {}
    for (int i = 0; i < 20 && !meet; ++i)  // others would come in meanwhile, if they could
      std::this_thread::yield();
    while (meet && most < 4)
      std::this_thread::yield();
    --at_work;
  });
  auto block = block_of(4'000, 4'000);
  CHECK(lanes.submit(block));
  CHECK(lanes.wait_idle());
  CHECK(most <= 2);
  meet = true;  // handlers wait for each other: four must be at work
  CHECK(lanes.set_max_runs(4));
  auto again = block_of(4'000, 4'000);
  CHECK(lanes.submit(again));
  CHECK(lanes.wait_idle());
  CHECK(most == 4);
}

TEST_CASE("keyed_executor works on as many threads as the executor has") {
  small_pool pool(3);
  std::mutex mutex;
  std::set<std::thread::id> threads;
  std::atomic<bool> all_came{true};
  event_lanes<small_pool&> lanes(pool, holding(1'000), [&](std::size_t, std::span<event>) {
    const auto enough = [&] {
      const std::lock_guard lock(mutex);
      threads.insert(std::this_thread::get_id());
      return threads.size() == 3;
    };
    if (!eventually(enough)) all_came = false;  // by the chain: each run starts the next
  });
  auto block = block_of(600, 600);
  CHECK(lanes.submit(block));
  CHECK(lanes.drain());
  CHECK(all_came);
  CHECK(threads.size() == 3);
}

TEST_CASE("keyed_executor takes nothing when the weigher throws") {
  struct faulty_weight {
    std::size_t operator()(const event&) const {
      veltrix_test::faults::point();
      return 1;
    }
  };
  record seen;
  keyed_executor<event, inline_executor, faulty_weight> lanes({}, holding(100), seen.handler());
  auto block = block_of(5, 2);
  for (std::uint64_t nth = 1; nth <= 5; ++nth) {
    veltrix_test::faults::arm(nth);
    CHECK_THROWS_AS(lanes.submit(block), veltrix_test::injected_fault);
    CHECK(veltrix_test::faults::disarm());
    CHECK(seen.count() == 0);
    CHECK(block[0].item.owned != nullptr);
  }
  CHECK(lanes.stats().submitted == 0);
  CHECK(lanes.submit(block));
  CHECK(seen.count() == 5);
}

TEST_CASE("keyed_executor answers full for want of memory and loses nothing") {
  std::vector<int> numbers;
  numbers.reserve(1'000);
  for (long granted = 0;; ++granted) {
    numbers.clear();
    hand_executor executor;
    executor.now = hand_executor::mood::full;  // this thread serves, also without memory
    event_lanes<hand_executor&> lanes(executor, holding(1'000),
                                      [&](std::size_t, std::span<event> batch) {
                                        for (const event& each : batch)
                                          numbers.push_back(each.number);
                                      });
    auto block = block_of(300, 1);
    veltrix_test::allocations_left = granted;
    const submit_result answer = lanes.submit(block);
    veltrix_test::allocations_left = -1;
    REQUIRE(numbers.size() == answer.accepted);
    REQUIRE(std::is_sorted(numbers.begin(), numbers.end()));
    REQUIRE(lanes.stats().in_flight == load{});
    if (answer) break;
    CHECK(answer.bound == bound_kind::memory);
    CHECK(answer.message() == "full: 0 of 1,000 items (0 B); the allocator has no memory");
    CHECK(block[answer.accepted].item.owned != nullptr);
    const submit_result rest = lanes.submit(std::span(block).subspan(answer.accepted));
    CHECK(rest);
    CHECK(numbers.size() == 300);
  }
  CHECK(numbers.size() == 300);
}

TEST_CASE("keyed_executor allocates nothing once its memory is warm") {
  keyed_executor<std::uint64_t, inline_executor> lanes(
      {}, holding(10'000), [](std::size_t, std::span<std::uint64_t>) {});
  std::vector<keyed_item<std::uint64_t>> block;
  for (std::uint64_t i = 0; i < 2'000; ++i)
    block.push_back({i, i});
  for (int i = 0; i < 3; ++i)
    CHECK(lanes.submit(block));
  const std::size_t before = veltrix_test::allocations_made;
  bool all_taken = true;
  for (int i = 0; i < 20; ++i)
    all_taken = all_taken && lanes.submit(block);
  CHECK(veltrix_test::allocations_made == before);
  CHECK(all_taken);
}

TEST_CASE("keyed_executor reports its end inside its own handler") {
  const auto seen = veltrix_test::run_to_its_end([] {
    std::unique_ptr<event_lanes<inline_executor>> lanes;
    lanes = std::make_unique<event_lanes<inline_executor>>(
        inline_executor(), holding(1), [&](std::size_t, std::span<event>) { lanes.reset(); });
    static_cast<void>(lanes->submit(1, event{1}));
  });
  CHECK(seen.aborted);
  CHECK(seen.told.find("destroyed by its own handler") != std::string::npos);
}

namespace {

/// Random calls beside a plain model: what is in flight, by key and in order.
class comparison {
 public:
  explicit comparison(std::uint64_t seed)
      : random_(seed), lanes_(executor_, options(), [this](std::size_t lane, auto batch) {
          handle(lane, batch);
        }) {}

  void step() {
    switch (random_.below(10)) {
      case 0:
      case 1:
      case 2:
      case 3: submit_block(); break;
      case 4: submit_one(); break;
      case 5:
      case 6:
      case 7: executor_.run_one(); break;
      case 8: change_limits(); break;
      default: change_mood();
    }
    check();
  }

  void finish() {
    executor_.now = hand_executor::mood::full;
    executor_.run_all();
    REQUIRE(lanes_.drain());
    check();
    REQUIRE(in_flight_ == load{});
  }

 private:
  static keyed_options options() {
    return {.max_items = 40, .max_bytes = 100, .lanes = 64, .batch_max = 5};
  }

  void handle(std::size_t lane, std::span<event> batch) {
    REQUIRE(batch.size() <= 5);
    for (event& each : batch) {
      REQUIRE(lanes_.lane_of(each.key) == lane);
      auto& expected = sent_[each.key];
      REQUIRE_FALSE(expected.empty());
      REQUIRE(expected.front() == each.number);  // the oldest of its key, and each once
      expected.erase(expected.begin());
      --in_flight_.items;
      in_flight_.bytes -= each.bytes;
    }
  }

  keyed_item<event> draw() { return event_of(random_.below(30), ++made_, 1 + random_.below(20)); }

  /// Before the call: handlers may run inside it. Takes back what was not accepted.
  void expect(std::span<const keyed_item<event>> block) {
    for (const auto& each : block) {
      sent_[each.key_hash].push_back(each.item.number);
      ++in_flight_.items;
      in_flight_.bytes += each.item.bytes;
    }
  }
  void unexpect(std::span<const keyed_item<event>> rest) {
    for (const auto& each : rest) {
      auto& expected = sent_[each.key_hash];
      REQUIRE(std::erase(expected, each.item.number) == 1);
      --in_flight_.items;
      in_flight_.bytes -= each.item.bytes;
      REQUIRE(each.item.owned != nullptr);
    }
  }

  void submit_block() {
    std::vector<keyed_item<event>> block;
    for (std::uint64_t i = random_.below(30); i-- > 0;)
      block.push_back(draw());
    const load before = in_flight_;
    std::size_t fits = 0;
    for (load sum = before; fits < block.size(); ++fits) {
      sum.bytes += block[fits].item.bytes;
      if (++sum.items > limit_.items || sum.bytes > limit_.bytes) break;
    }
    expect(block);
    const submit_result answer = lanes_.submit(block);
    unexpect(std::span(block).subspan(answer.accepted));
    if (executor_.now == hand_executor::mood::takes) {
      REQUIRE(answer.accepted == fits);
    } else {
      REQUIRE(answer.accepted >= fits);  // served in between
    }
    REQUIRE(static_cast<bool>(answer) == (answer.accepted == block.size()));
    if (!answer) {
      const std::size_t bytes = block[answer.accepted].item.bytes;
      REQUIRE((answer.status == submit_status::too_heavy) == (bytes > limit_.bytes));
    }
  }
  void submit_one() {
    auto one = draw();
    expect({&one, 1});
    const std::uint64_t key = one.key_hash;
    const submit_result answer =
        lanes_.submit_wait(key, std::move(one.item), {.deadline = long_past});
    if (!answer) unexpect({&one, 1});
  }
  void change_limits() {
    limit_ = {1 + random_.below(60), 1 + random_.below(150)};
    REQUIRE(lanes_.set_limits(limit_));
    REQUIRE(lanes_.set_max_runs(1 + random_.below(64)));
  }
  void change_mood() {
    using mood = hand_executor::mood;
    constexpr mood moods[] = {mood::takes,       mood::takes,  mood::takes,
                              mood::full,        mood::throws, mood::full_and_destroys,
                              mood::runs_at_once};
    executor_.now = moods[random_.below(std::size(moods))];
    if (random_.below(8) == 0) executor_.drop_all();
  }
  void check() {
    const keyed_stats now = lanes_.stats();
    REQUIRE(now.in_flight == in_flight_);
    REQUIRE(executor_.waiting() <= 1);
    REQUIRE(now.submitted == now.handled + in_flight_.items);
  }

  veltrix_test::random_source random_;
  hand_executor executor_;
  load limit_{40, 100};
  load in_flight_{};
  int made_ = 0;
  std::map<std::uint64_t, std::vector<int>> sent_;  // by key: accepted and not handled
  event_lanes<hand_executor&> lanes_;
};

}  // namespace

TEST_CASE("keyed_executor agrees with a plain model over random sequences") {
  for (std::uint64_t seed = 1; seed <= scale(200); ++seed) {
    CAPTURE(seed);
    comparison pair(seed);
    for (int i = 0; i < 300; ++i)
      pair.step();
    pair.finish();
  }
}
