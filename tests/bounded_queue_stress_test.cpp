// bounded_queue under threads. Each test names its invariant.
// SPDX-License-Identifier: BSL-1.0
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <vector>

#include "support/catch.hpp"
#include "support/random.hpp"
#include "support/scale.hpp"
#include "veltrix/bounded_queue.hpp"

using veltrix::bounded_queue;
using veltrix::full_policy;
using veltrix::load;
using veltrix::push_status;
using veltrix_test::random_source;
using veltrix_test::scale;

namespace {

struct numbered {
  std::size_t producer;
  std::size_t number;
  std::size_t bytes;
};
struct numbered_weight {
  std::size_t operator()(const numbered& weighed) const noexcept { return weighed.bytes; }
};
using numbered_queue = bounded_queue<numbered, numbered_weight>;

constexpr std::size_t producers = 3;
constexpr std::size_t consumers = 3;

/// What one consumer saw, and whether each producer's numbers rose.
struct seen_by_one {
  std::vector<std::vector<std::size_t>> numbers = std::vector<std::vector<std::size_t>>(producers);
  std::uint64_t disorder = 0;

  void take(const numbered& item) {
    auto& of_producer = numbers[item.producer];
    if (!of_producer.empty() && of_producer.back() >= item.number) ++disorder;
    of_producer.push_back(item.number);
  }
};

void produce(numbered_queue& queue, std::size_t producer, std::size_t count) {
  random_source random(producer + 1);
  for (std::size_t i = 0; i < count;) {
    if (random.below(3) != 0) {
      if (queue.push(numbered{producer, i, 1 + random.below(20)})) ++i;
      continue;
    }
    std::vector<numbered> bulk;
    for (std::size_t k = 0; k < 5 && i + k < count; ++k)
      bulk.push_back({producer, i + k, 1 + random.below(20)});
    i += queue.push_bulk(bulk).accepted;
  }
}

void consume(numbered_queue& queue, std::uint64_t seed, seen_by_one& seen) {
  random_source random(seed);
  for (;;) {
    if (random.below(2) == 0) {
      auto one = queue.pop();
      if (!one) return;
      seen.take(*one);
    } else {
      const auto some = queue.pop_bulk(1 + random.below(7));
      if (!some) return;
      for (const numbered& each : some.items)
        seen.take(each);
    }
  }
}

/// Each number of each producer exactly once over all consumers.
void check_complete(const std::vector<seen_by_one>& seen, std::size_t per_producer) {
  for (std::size_t producer = 0; producer < producers; ++producer) {
    std::vector<int> times(per_producer);
    for (const seen_by_one& one : seen) {
      for (const std::size_t number : one.numbers[producer])
        ++times[number];
    }
    CHECK(times == std::vector<int>(per_producer, 1));
  }
}

}  // namespace

// Invariant: every item accepted is popped once, in its producer's order, and the bounds hold at
// every moment, whatever limits are set meanwhile (those inside when a limit falls may stay).
TEST_CASE("bounded_queue stress: nothing is lost, doubled or reordered within its bounds") {
  const std::size_t per_producer = scale(30'000);
  numbered_queue queue({.max_items = 64, .max_bytes = 512});
  std::vector<seen_by_one> seen(consumers);
  std::vector<std::thread> makers;
  std::vector<std::thread> takers;
  for (std::size_t i = 0; i < producers; ++i)
    makers.emplace_back([&, i] { produce(queue, i, per_producer); });
  for (std::size_t i = 0; i < consumers; ++i)
    takers.emplace_back([&, i] { consume(queue, 100 + i, seen[i]); });
  std::atomic<bool> done{false};
  std::uint64_t unbalanced = 0;
  std::thread tuner([&] {
    random_source random(7);
    while (!done) {
      static_cast<void>(queue.set_limits({1 + random.below(64), 20 + random.below(492)}));
      const auto now = queue.stats();
      if (now.pushed != now.popped + now.inside.items) ++unbalanced;
      std::this_thread::yield();
    }
  });
  for (std::thread& each : makers)
    each.join();
  done = true;
  tuner.join();
  queue.close();
  for (std::thread& each : takers)
    each.join();
  check_complete(seen, per_producer);
  for (const seen_by_one& one : seen)
    CHECK(one.disorder == 0);
  CHECK(unbalanced == 0);
  const auto end = queue.stats();
  CHECK(end.inside == load{});
  CHECK(end.pushed == producers * per_producer);
  CHECK(end.peak.items <= 64);
  CHECK(end.peak.bytes <= 512);
}

// Invariant: a wait ended by a token or a deadline loses no wake-up of the others: all who can go
// on do, and the counts balance.
TEST_CASE("bounded_queue stress: callers that give up leave no one stranded") {
  const std::size_t rounds = scale(300);
  bounded_queue<std::size_t> queue({.max_items = 2, .max_bytes = veltrix::no_byte_limit});
  std::atomic<std::size_t> pushed{0};
  std::atomic<std::size_t> popped{0};
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < 2; ++t) {
    threads.emplace_back([&, t] {
      random_source random(t);
      for (std::size_t i = 0; i < rounds; ++i) {
        const auto limit =
            veltrix::steady_clock::now() + std::chrono::microseconds(random.below(80));
        if (queue.push(i, {.deadline = limit})) ++pushed;
      }
    });
    threads.emplace_back([&, t] {
      random_source random(t + 10);
      for (std::size_t i = 0; i < rounds; ++i) {
        veltrix::stop_source stop;
        std::thread stopper([&] { stop.request_stop(); });
        if (queue.pop({.token = stop.get_token()})) ++popped;
        stopper.join();
      }
    });
    threads.emplace_back([&] {
      for (std::size_t i = 0; i < rounds; ++i) {
        if (queue.push(i)) ++pushed;
      }
    });
    threads.emplace_back([&] {
      while (queue.pop())
        ++popped;
    });
  }
  for (std::size_t i = 0; i < threads.size(); ++i) {
    if (i % 4 != 3) threads[i].join();
  }
  queue.close();
  threads[3].join();
  threads[7].join();
  CHECK(pushed == popped);
  CHECK(queue.stats().pushed == pushed);
  CHECK(queue.stats().inside == load{});
}

// Invariant: drop_oldest keeps the bound and accounts for every item: popped, or given to on_drop.
TEST_CASE("bounded_queue stress: every item is popped or reported as dropped") {
  const std::size_t per_producer = scale(40'000);
  std::atomic<std::uint64_t> dropped_sum{0};
  std::atomic<std::uint64_t> popped_sum{0};
  bounded_queue<std::uint64_t> queue(
      {.max_items = 16, .max_bytes = veltrix::no_byte_limit, .policy = full_policy::drop_oldest},
      [&](std::uint64_t&& item) { dropped_sum += item; });
  std::vector<std::thread> makers;
  for (std::size_t t = 0; t < 2; ++t) {
    makers.emplace_back([&] {
      for (std::uint64_t i = 1; i <= per_producer; ++i) {
        if (queue.push(i).status != push_status::accepted) popped_sum += 1'000'000'000;
      }
    });
  }
  std::thread taker([&] {
    while (auto next = queue.pop())
      popped_sum += *next;
  });
  for (std::thread& each : makers)
    each.join();
  queue.close();
  taker.join();
  const std::uint64_t total = per_producer * (per_producer + 1);  // two producers
  CHECK(dropped_sum + popped_sum == total);
  CHECK(queue.stats().peak.items <= 16);
}
