// keyed_executor under threads. Each test names its invariant.
// SPDX-License-Identifier: BSL-1.0
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/random.hpp"
#include "support/scale.hpp"
#include "support/small_pool.hpp"
#include "veltrix/elastic_pool.hpp"
#include "veltrix/keyed_executor.hpp"

using veltrix::elastic_pool;
using veltrix::keyed_executor;
using veltrix::keyed_item;
using veltrix::keyed_options;
using veltrix::load;
using veltrix_test::random_source;
using veltrix_test::scale;
using veltrix_test::small_pool;

namespace {

/// One event of a key. Holds a count, so that a lost or doubled one shows when all have ended.
struct event {
  std::uint64_t key;
  std::uint64_t sequence;
  std::shared_ptr<int> held;
};
struct event_weight {
  std::size_t operator()(const event& weighed) const noexcept { return 1 + weighed.key % 50; }
};
template <class Executor>
using event_lanes = keyed_executor<event, Executor, event_weight>;

/// Sends and receives events of keys that one producer owns each, and counts what must not be.
class ledger {
 public:
  explicit ledger(std::size_t keys, std::size_t lanes)
      : sent_(keys), next_(keys), busy_(lanes), held_(std::make_shared<int>(0)) {}

  event make(std::uint64_t key) { return {key, sent_[key]++, held_}; }
  void take_back(std::uint64_t key, std::uint64_t count) { sent_[key] -= count; }

  /// What every handler does: one at a time for a lane, in order for a key.
  void handle(std::size_t lane, std::span<const event> batch) {
    // acquire and release by default: a second visitor of the lane would see it busy.
    if (busy_[lane].exchange(true)) ++overlaps;
    for (const event& each : batch) {
      if (next_[each.key]++ != each.sequence) ++inversions;
    }
    handled += batch.size();
    busy_[lane] = false;
  }

  std::uint64_t lost() const {
    std::uint64_t missing = 0;
    for (std::size_t key = 0; key < sent_.size(); ++key)
      missing += sent_[key] - next_[key];
    return missing;
  }
  long still_held() const { return held_.use_count() - 1; }

  std::atomic<std::uint64_t> handled{0};
  std::atomic<std::uint64_t> inversions{0};
  std::atomic<std::uint64_t> overlaps{0};

 private:
  std::vector<std::uint64_t> sent_;  // a key's by its producer only
  std::vector<std::uint64_t> next_;  // a key's by its lane's handler only
  std::vector<std::atomic<bool>> busy_;
  std::shared_ptr<int> held_;
};

/// Submits `count` events of the keys first, first + step, ... in blocks and one by one.
template <class Lanes>
void produce(Lanes& lanes, ledger& book, std::size_t first, std::size_t step, std::size_t keys,
             std::size_t count) {
  random_source random(first + 1);
  const std::size_t own = (keys - first + step - 1) / step;
  const auto draw = [&] { return first + step * random.below(own); };
  std::vector<keyed_item<event>> block;
  while (count != 0) {
    if (random.below(8) == 0) {
      const std::uint64_t key = draw();
      event one = book.make(key);
      if (lanes.submit(key, std::move(one))) {
        --count;
      } else {
        book.take_back(key, 1);
      }
      continue;
    }
    block.clear();
    for (std::size_t size = std::min<std::size_t>(count, 1 + random.below(300)); size != 0;
         --size) {
      const std::uint64_t key = draw();
      block.push_back({key, book.make(key)});
    }
    if (lanes.submit_wait(block)) count -= block.size();
  }
}

template <class Lanes>
void produce_from_threads(Lanes& lanes, ledger& book, std::size_t producers, std::size_t keys,
                          std::size_t count) {
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < producers; ++i) {
    threads.emplace_back([&, i] { produce(lanes, book, i, producers, keys, count / producers); });
  }
  for (std::thread& each : threads)
    each.join();
}

void check(const ledger& book, std::size_t count) {
  CHECK(book.handled == count);
  CHECK(book.lost() == 0);
  CHECK(book.inversions == 0);
  CHECK(book.overlaps == 0);
  CHECK(book.still_held() == 0);
}

/// Spins a little, differently each time.
void dawdle(random_source& random) {
  const auto until =
      std::chrono::steady_clock::now() + std::chrono::nanoseconds(random.below(2'000));
  while (std::chrono::steady_clock::now() < until) {}
}

}  // namespace

// Invariant: per key nothing is lost, doubled or reordered and a lane has one handler at a time,
// whatever the executor refuses: its queue is so short that it is often full.
TEST_CASE("keyed_executor stress: a full executor loses and reorders nothing") {
  constexpr std::size_t keys = 500;
  const std::size_t count = scale(240'000);
  ledger book(keys, 64);
  small_pool pool(3, 1);
  std::atomic<bool> done{false};
  std::thread rival([&] {  // keeps the executor's queue full
    while (!done) {
      static_cast<void>(pool.try_post([] {}));
      std::this_thread::yield();
    }
  });
  {
    keyed_options options{.max_items = 1'000, .max_bytes = 20'000, .lanes = 64, .batch_max = 16};
    options.run_budget = veltrix::duration::zero();
    event_lanes<small_pool&> lanes(
        pool, options, [&](std::size_t lane, std::span<event> batch) { book.handle(lane, batch); });
    produce_from_threads(lanes, book, 3, keys, count);
    CHECK(lanes.drain());
    CHECK(lanes.stats().peak.items <= 1'000);
    CHECK(lanes.stats().peak.bytes <= 20'000);
    CHECK(lanes.stats().in_flight == load{});
  }
  done = true;
  rival.join();
  check(book, count);
}

// Invariant: the same while the pool beneath grows and shrinks all the time.
TEST_CASE("keyed_executor stress: resizes of the pool beside it never reorder a key") {
  constexpr std::size_t keys = 2'000;
  const std::size_t count = scale(3'000'000);
  ledger book(keys, 1024);
  elastic_pool pool(2);
  std::atomic<bool> done{false};
  std::uint64_t resizes = 0;
  std::thread operator_thread([&] {
    random_source random(5);
    while (!done) {
      const auto target = static_cast<std::int64_t>(1 + random.below(12));
      const auto answer = pool.resize_to(target);
      if (answer) ++resizes;
    }
  });
  {
    event_lanes<elastic_pool&> lanes(pool,
                                     {.max_items = 20'000, .max_bytes = veltrix::no_byte_limit},
                                     [&](std::size_t lane, std::span<event> batch) {
                                       thread_local random_source random(lane);
                                       if (random.below(64) == 0) dawdle(random);
                                       book.handle(lane, batch);
                                     });
    produce_from_threads(lanes, book, 2, keys, count);
    CHECK(lanes.drain());
  }
  done = true;
  operator_thread.join();
  check(book, count);
  CHECK(resizes > 0);
}

// Invariant: handlers that throw lose and reorder nothing: every batch goes to one of the two.
TEST_CASE("keyed_executor stress: throwing handlers keep the order of the rest") {
  constexpr std::size_t keys = 300;
  const std::size_t count = scale(200'000);
  ledger book(keys, 64);
  elastic_pool pool(3);
  std::atomic<std::uint64_t> failed{0};
  event_lanes<elastic_pool&> lanes(
      pool, {.max_items = 5'000, .max_bytes = veltrix::no_byte_limit, .lanes = 64},
      [&](std::size_t lane, std::span<event> batch) {
        if (batch[0].sequence % 7 == 3) throw std::runtime_error("every seventh");
        book.handle(lane, batch);
      },
      [&](std::size_t lane, std::span<event> batch, const std::exception_ptr&) {
        failed += batch.size();
        book.handle(lane, batch);
      });
  produce_from_threads(lanes, book, 2, keys, count);
  CHECK(lanes.drain());
  const auto seen = lanes.stats();
  CHECK(seen.failed == failed);
  CHECK(seen.handled + seen.failed == count);
  CHECK(failed > 0);
  check(book, count);
}

// Invariant: when the executor closes and destroys its queue in the middle, what was accepted is
// still handled once and in order, by the callers.
TEST_CASE("keyed_executor stress: an executor that ends early takes nothing with it") {
  constexpr std::size_t keys = 100;
  for (std::size_t round = 0; round < scale(200); ++round) {
    ledger book(keys, 64);
    std::atomic<std::uint64_t> accepted{0};
    {
      small_pool pool(2);
      event_lanes<small_pool&> lanes(
          pool, {.max_items = 200, .max_bytes = veltrix::no_byte_limit, .lanes = 64},
          [&](std::size_t lane, std::span<event> batch) { book.handle(lane, batch); });
      std::thread producer([&] {
        random_source random(round);
        for (;;) {
          std::vector<keyed_item<event>> block;
          for (int i = 0; i < 50; ++i) {
            const std::uint64_t key = random.below(keys);
            block.push_back({key, book.make(key)});
          }
          const auto answer = lanes.submit_wait(block);
          accepted += answer.accepted;
          for (std::size_t i = answer.accepted; i < block.size(); ++i)
            book.take_back(block[i].key_hash, 1);
          if (!answer) return;
        }
      });
      while (book.handled < round * 10)
        std::this_thread::yield();
      static_cast<void>(pool.drop_waiting());
      pool.close();
      static_cast<void>(pool.drop_waiting());
      producer.join();
    }
    REQUIRE(book.handled == accepted);
    REQUIRE(book.lost() == 0);
    REQUIRE(book.inversions == 0);
    REQUIRE(book.overlaps == 0);
    REQUIRE(book.still_held() == 0);
  }
}

// Invariant: callers that give up waiting strand nobody, limits may move meanwhile, and stop()
// leaves nothing in flight.
TEST_CASE(
    "keyed_executor stress: waiting, giving up, new limits and stop leave a balance of zero") {
  for (std::size_t round = 0; round < scale(40); ++round) {
    elastic_pool pool(2);
    std::atomic<std::uint64_t> handled{0};
    keyed_executor<std::uint64_t, elastic_pool&> lanes(
        pool, {.max_items = 40, .max_bytes = 400, .lanes = 64},
        [&](std::size_t, std::span<std::uint64_t> batch) { handled += batch.size(); });
    std::atomic<std::uint64_t> accepted{0};
    std::vector<std::thread> threads;
    for (std::uint64_t t = 0; t < 3; ++t) {
      threads.emplace_back([&, t] {
        random_source random(round * 3 + t);
        for (int i = 0; i < 200; ++i) {
          std::vector<keyed_item<std::uint64_t>> block(1 + random.below(60));
          for (auto& each : block)
            each = {random.next(), 0};
          const auto limit =
              veltrix::steady_clock::now() + std::chrono::microseconds(random.below(200));
          accepted += lanes.submit_wait(block, {.deadline = limit}).accepted;
        }
      });
    }
    threads.emplace_back([&] {
      random_source random(round);
      for (int i = 0; i < 100; ++i) {
        static_cast<void>(lanes.set_limits({1 + random.below(50), 8 + random.below(400)}));
        static_cast<void>(lanes.set_max_runs(1 + random.below(3)));
      }
    });
    if (round % 2 == 0) {
      for (std::thread& each : threads)
        each.join();
    }
    const auto answer = lanes.stop();
    REQUIRE(answer);
    if (round % 2 != 0) {
      for (std::thread& each : threads)
        each.join();
    }
    const auto seen = lanes.stats();
    REQUIRE(seen.in_flight == load{});
    REQUIRE(seen.submitted == accepted);
    REQUIRE(handled + seen.abandoned == accepted);
  }
}
