// bounded_queue: each promise of its contract, and random sequences against a plain model.
// SPDX-License-Identifier: BSL-1.0
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
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
#include "support/pool.hpp"
#include "support/random.hpp"
#include "support/scale.hpp"
#include "veltrix/bounded_queue.hpp"

using veltrix::bound_kind;
using veltrix::bounded_queue;
using veltrix::bounded_queue_options;
using veltrix::full_policy;
using veltrix::load;
using veltrix::no_byte_limit;
using veltrix::pop_status;
using veltrix::push_result;
using veltrix::push_status;
using veltrix::time_point;
using veltrix_test::eventually;
using veltrix_test::faults;
using veltrix_test::faulty_number;
using veltrix_test::scale;

namespace {

static_assert(!std::is_copy_constructible_v<bounded_queue<int>>);
static_assert(!std::is_move_constructible_v<bounded_queue<int>>);
static_assert(!std::is_copy_assignable_v<bounded_queue<int>>);
static_assert(noexcept(std::declval<bounded_queue<int>&>().close()));
static_assert(noexcept(std::declval<bounded_queue<int>&>().set_limits({})));
static_assert(noexcept(std::declval<const bounded_queue<int>&>().stats()));

/// A number that weighs what it says.
struct parcel {
  int number = 0;
  std::size_t bytes = 1;

  friend bool operator==(const parcel&, const parcel&) = default;
};
struct parcel_weight {
  std::size_t operator()(const parcel& weighed) const noexcept { return weighed.bytes; }
};
using parcel_queue = bounded_queue<parcel, parcel_weight>;

constexpr time_point long_past = time_point::min();

bounded_queue_options holding(std::size_t items, full_policy policy = full_policy::block) {
  return {.max_items = items, .max_bytes = no_byte_limit, .policy = policy};
}

template <class Queue>
std::vector<int> drained(Queue& queue) {
  std::vector<int> numbers;
  while (auto next = queue.try_pop()) {
    if constexpr (requires { next->number; }) {
      numbers.push_back(next->number);
    } else {
      numbers.push_back(*next);
    }
  }
  return numbers;
}

template <class Queue>
void check_balance(const Queue& queue) {
  const auto seen = queue.stats();
  CHECK(seen.pushed == seen.popped + seen.evicted + seen.inside.items);
  CHECK(seen.peak.items >= seen.inside.items);
}

}  // namespace

TEST_CASE("bounded_queue hands items out in the order they came") {
  bounded_queue<int> queue(holding(8));
  for (int i = 0; i < 8; ++i)
    CHECK(queue.push(i));
  CHECK(queue.size() == 8);
  CHECK(drained(queue) == std::vector{0, 1, 2, 3, 4, 5, 6, 7});
  CHECK(queue.try_pop().status == pop_status::empty);
  check_balance(queue);
}

TEST_CASE("bounded_queue carries items that only move") {
  bounded_queue<std::unique_ptr<int>> queue(holding(1, full_policy::reject));
  CHECK(queue.push(std::make_unique<int>(1)));
  auto kept = std::make_unique<int>(2);
  CHECK(queue.push(std::move(kept)).status == push_status::full);
  REQUIRE(kept != nullptr);
  CHECK(*kept == 2);
  const auto got = queue.pop();
  REQUIRE(got.status == pop_status::item);
  CHECK(**got.item == 1);
}

TEST_CASE("bounded_queue counts the object's size when no weigher is given") {
  bounded_queue<std::uint64_t> queue(
      {.max_items = 100, .max_bytes = 20, .policy = full_policy::reject});
  CHECK(queue.push(1));
  CHECK(queue.push(2));
  const push_result refused = queue.push(3);
  CHECK(refused.status == push_status::full);
  CHECK(refused.bound == bound_kind::bytes);
  CHECK(queue.stats().inside == load{2, 16});
}

TEST_CASE("bounded_queue names the bound and the figures of a refusal") {
  SECTION("bytes") {
    parcel_queue queue(
        {.max_items = 100'000, .max_bytes = std::size_t{64} << 20, .policy = full_policy::reject});
    const std::size_t weight = 1391;
    while (queue.push(parcel{0, weight})) {}
    const push_result refused = queue.push(parcel{0, weight});
    CHECK(refused.bound == bound_kind::bytes);
    CHECK(refused.item_bytes == weight);
    CHECK(refused.inside == load{48'245, 48'245 * weight});
    CHECK(refused.limit == load{100'000, std::size_t{64} << 20});
    CHECK(refused.message("events") == "full: 64.0 MiB of 64 MiB (48,245 events)");
  }
  SECTION("items") {
    parcel_queue queue(holding(1'000, full_policy::reject));
    while (queue.push(parcel{0, 1536})) {}
    CHECK(queue.push(parcel{}).message() == "full: 1,000 of 1,000 items (1.5 MiB)");
  }
  SECTION("too heavy") {
    parcel_queue queue({.max_items = 9, .max_bytes = 1536});
    const push_result refused = queue.push(parcel{0, 1537});
    CHECK(refused.status == push_status::too_heavy);
    CHECK(refused.message() ==
          "too heavy: one item weighs 1.5 KiB, allowed 1.5 KiB; it was not taken and never fits; "
          "raise the byte limit or split the item");
  }
}

TEST_CASE("bounded_queue never waits with an item heavier than its byte limit") {
  for (const auto policy : {full_policy::block, full_policy::reject, full_policy::drop_newest,
                            full_policy::drop_oldest, full_policy::caller_runs}) {
    parcel_queue queue({.max_items = 4, .max_bytes = 10, .policy = policy});
    CHECK(queue.push(parcel{1, 3}));
    CHECK(queue.push(parcel{2, 11}).status == push_status::too_heavy);  // no deadline
    CHECK(drained(queue) == std::vector{1});
  }
}

TEST_CASE("bounded_queue answers a full queue by its policy and leaves the item alone") {
  const auto refusal = [](full_policy policy) {
    bounded_queue<std::unique_ptr<int>> queue(holding(1, policy));
    CHECK(queue.push(std::make_unique<int>(1)));
    auto item = std::make_unique<int>(2);
    const push_result answer = queue.push(std::move(item), {.deadline = long_past});
    CHECK((item != nullptr) == !answer);
    check_balance(queue);
    return std::pair(answer.status, queue.stats());
  };
  SECTION("block") {
    const auto [status, seen] = refusal(full_policy::block);
    CHECK(status == push_status::timed_out);
    CHECK(seen.rejected == 1);
  }
  SECTION("reject") {
    const auto [status, seen] = refusal(full_policy::reject);
    CHECK(status == push_status::full);
    CHECK(seen.rejected == 1);
  }
  SECTION("drop_newest") {
    const auto [status, seen] = refusal(full_policy::drop_newest);
    CHECK(status == push_status::dropped);
    CHECK(seen.dropped == 1);
    CHECK(seen.rejected == 0);
  }
  SECTION("drop_oldest") {
    const auto [status, seen] = refusal(full_policy::drop_oldest);
    CHECK(status == push_status::accepted);
    CHECK(seen.evicted == 1);
  }
  SECTION("caller_runs") {
    const auto [status, seen] = refusal(full_policy::caller_runs);
    CHECK(status == push_status::run_yourself);
    CHECK(seen.handed_back == 1);
  }
}

TEST_CASE("bounded_queue try_push never waits under policy block") {
  bounded_queue<int> queue(holding(1));
  CHECK(queue.try_push(1));
  CHECK(queue.try_push(2).status == push_status::full);
  std::vector<int> more{3, 4};
  CHECK(queue.try_push_bulk(more).status == push_status::full);
  CHECK(queue.stats().rejected == 3);
}

TEST_CASE("bounded_queue drops only as many of the oldest as the new item needs") {
  std::vector<int> given_up;
  parcel_queue queue({.max_items = 10, .max_bytes = 10, .policy = full_policy::drop_oldest},
                     [&](parcel&& dropped) { given_up.push_back(dropped.number); });
  CHECK(queue.push(parcel{1, 4}));
  CHECK(queue.push(parcel{2, 4}));
  CHECK(queue.push(parcel{3, 2}));
  const push_result answer = queue.push(parcel{4, 5});
  CHECK(answer);
  CHECK(answer.evicted == 2);
  CHECK(given_up == std::vector{1, 2});
  CHECK(queue.stats().inside == load{2, 7});
  CHECK(drained(queue) == std::vector{3, 4});
  check_balance(queue);
}

TEST_CASE("bounded_queue counts what its drop handler throws") {
  bounded_queue<int> queue(holding(1, full_policy::drop_oldest),
                           [](int&&) { throw std::runtime_error("no place for it"); });
  CHECK(queue.push(1));
  CHECK(queue.push(2));
  CHECK(queue.stats().drop_failures == 1);
  CHECK(drained(queue) == std::vector{2});
}

TEST_CASE("bounded_queue lets its drop handler use the queue") {
  bounded_queue<int>* reached = nullptr;
  std::size_t size_seen = 0;
  bounded_queue<int> queue(holding(1, full_policy::drop_oldest),
                           [&](int&&) { size_seen = reached->size(); });
  reached = &queue;
  CHECK(queue.push(1));
  CHECK(queue.push(2));
  CHECK(size_seen == 1);
}

TEST_CASE("bounded_queue push waits until a pop makes room") {
  parcel_queue queue({.max_items = 9, .max_bytes = 10});
  CHECK(queue.push(parcel{1, 6}));
  push_result answer{push_status::closed};
  std::thread pusher([&] { answer = queue.push(parcel{2, 8}); });
  REQUIRE(eventually([&] { return queue.stats().waiting_pushers == 1; }));
  CHECK(queue.pop()->number == 1);
  pusher.join();
  CHECK(answer);
  CHECK(queue.stats().blocked > veltrix::duration::zero());
  CHECK(drained(queue) == std::vector{2});
}

TEST_CASE("bounded_queue calls a waiting pusher as soon as its item fits") {
  bounded_queue<int> queue(holding(3));
  for (int i = 0; i < 3; ++i)
    CHECK(queue.push(i));
  push_result answer{push_status::timed_out};
  std::thread pusher([&] { answer = queue.push(3); });
  REQUIRE(eventually([&] { return queue.stats().waiting_pushers == 1; }));
  CHECK(*queue.pop() == 0);
  CHECK(eventually([&] { return queue.size() == 3; }));  // two were inside all the time
  queue.close();
  pusher.join();
  CHECK(answer);
  CHECK(drained(queue) == std::vector{1, 2, 3});
}

TEST_CASE("bounded_queue serves waiting pushers in the order they came") {
  bounded_queue<int> queue(holding(1));
  CHECK(queue.push(0));
  std::vector<std::thread> pushers;
  for (int i = 1; i <= 6; ++i) {
    pushers.emplace_back([&queue, i] { static_cast<void>(queue.push(i)); });
    const auto waiting = static_cast<std::size_t>(i);
    REQUIRE(eventually([&] { return queue.stats().waiting_pushers == waiting; }));
  }
  std::vector<int> order;
  for (int i = 0; i <= 6; ++i)
    order.push_back(*queue.pop());
  for (std::thread& each : pushers)
    each.join();
  CHECK(order == std::vector{0, 1, 2, 3, 4, 5, 6});
}

TEST_CASE("bounded_queue lets nobody overtake a waiting pusher") {
  parcel_queue queue({.max_items = 9, .max_bytes = 10});
  CHECK(queue.push(parcel{1, 6}));
  std::thread pusher([&] { static_cast<void>(queue.push(parcel{2, 8})); });
  REQUIRE(eventually([&] { return queue.stats().waiting_pushers == 1; }));
  const push_result refused = queue.try_push(parcel{3, 1});  // there is room for it
  CHECK(refused.status == push_status::full);
  CHECK(refused.bound == bound_kind::waiters);
  CHECK(refused.message() == "full: 1 of 9 items (6 B); no more callers may wait for room");
  CHECK(queue.push(parcel{3, 1}, {.deadline = long_past}).status == push_status::timed_out);
  CHECK(queue.pop()->number == 1);
  pusher.join();
  CHECK(drained(queue) == std::vector{2});
}

TEST_CASE("bounded_queue refuses a pusher above max_waiters at once") {
  bounded_queue<int> queue({.max_items = 1, .max_bytes = no_byte_limit, .max_waiters = 1});
  CHECK(queue.push(1));
  std::thread pusher([&] { static_cast<void>(queue.push(2)); });
  REQUIRE(eventually([&] { return queue.stats().waiting_pushers == 1; }));
  const push_result refused = queue.push(3);  // no deadline
  CHECK(refused.status == push_status::full);
  CHECK(refused.bound == bound_kind::waiters);
  CHECK(*queue.pop() == 1);
  pusher.join();
  CHECK(drained(queue) == std::vector{2});
}

TEST_CASE("bounded_queue ends waits at their deadline") {
  bounded_queue<std::unique_ptr<int>> queue(holding(1));
  const auto soon = [] { return veltrix::steady_clock::now() + std::chrono::milliseconds(5); };
  const time_point pop_limit = soon();
  CHECK(queue.pop_until(pop_limit).status == pop_status::timed_out);
  CHECK(veltrix::steady_clock::now() >= pop_limit);
  CHECK(queue.pop_bulk(3, {.deadline = soon()}).status == pop_status::timed_out);
  CHECK(queue.push(std::make_unique<int>(1)));
  auto kept = std::make_unique<int>(2);
  const time_point push_limit = soon();
  const push_result refused = queue.push(std::move(kept), {.deadline = push_limit});
  CHECK(veltrix::steady_clock::now() >= push_limit);
  CHECK(refused.status == push_status::timed_out);
  CHECK(refused.message() == "timed out: 1 of 1 items (8 B)");
  CHECK(*kept == 2);
}

TEST_CASE("bounded_queue ends waits when the token stops") {
  bounded_queue<int> queue(holding(1));
  veltrix::stop_source stop;
  pop_status popped = pop_status::item;
  std::thread popper([&] { popped = queue.pop({.token = stop.get_token()}).status; });
  REQUIRE(eventually([&] { return queue.stats().waiting_poppers == 1; }));
  stop.request_stop();
  popper.join();
  CHECK(popped == pop_status::stopped);

  CHECK(queue.push(1, {.token = stop.get_token()}));  // there is room: a stopped token is no reason
  veltrix::stop_source other;
  push_result refused;
  std::thread pusher([&] { refused = queue.push(2, {.token = other.get_token()}); });
  REQUIRE(eventually([&] { return queue.stats().waiting_pushers == 1; }));
  other.request_stop();
  pusher.join();
  CHECK(refused.status == push_status::stopped);
  CHECK(refused.message() == "stopped while waiting: 1 of 1 items (4 B)");
  CHECK(*queue.pop({.token = stop.get_token()}) == 1);  // there is an item
}

TEST_CASE("bounded_queue close refuses pushers and lets poppers drain the rest") {
  bounded_queue<int> queue(holding(2));
  CHECK(queue.push(1));
  CHECK(queue.push(2));
  push_result waited;
  std::thread pusher([&] { waited = queue.push(3); });
  REQUIRE(eventually([&] { return queue.stats().waiting_pushers == 1; }));
  queue.close();
  pusher.join();
  CHECK(waited.status == push_status::closed);
  CHECK(queue.closed());
  CHECK(queue.push(4).status == push_status::closed);
  CHECK(queue.push(4).message() == "closed: nothing more is taken");
  CHECK(*queue.pop() == 1);
  CHECK(*queue.try_pop() == 2);
  CHECK(queue.pop().status == pop_status::closed);
  CHECK(queue.try_pop().status == pop_status::closed);
  CHECK(queue.pop_bulk(3).status == pop_status::closed);
  queue.close();
  CHECK(queue.closed());
}

TEST_CASE("bounded_queue close wakes every waiting popper") {
  bounded_queue<int> queue(holding(2));
  std::vector<pop_status> answers(3, pop_status::item);
  std::vector<std::thread> poppers;
  for (pop_status& answer : answers)
    poppers.emplace_back([&] { answer = queue.pop().status; });
  REQUIRE(eventually([&] { return queue.stats().waiting_poppers == 3; }));
  queue.close();
  for (std::thread& each : poppers)
    each.join();
  CHECK(answers == std::vector(3, pop_status::closed));
}

TEST_CASE("bounded_queue push_bulk takes a prefix and says how long it is") {
  for (const auto& [policy, expected] :
       {std::pair(full_policy::reject, push_status::full),
        std::pair(full_policy::drop_newest, push_status::dropped),
        std::pair(full_policy::caller_runs, push_status::run_yourself)}) {
    bounded_queue<std::unique_ptr<int>> queue(holding(3, policy));
    std::vector<std::unique_ptr<int>> items;
    for (int i = 0; i < 5; ++i)
      items.push_back(std::make_unique<int>(i));
    const push_result answer = queue.push_bulk(items);
    CHECK(answer.status == expected);
    CHECK(answer.accepted == 3);
    CHECK(items[2] == nullptr);
    REQUIRE(items[3] != nullptr);
    CHECK(*items[4] == 4);
    const auto taken = queue.pop_bulk(100);
    REQUIRE(taken.items.size() == 3);
    CHECK(*taken.items[0] == 0);
    CHECK(*taken.items[2] == 2);
    const auto seen = queue.stats();
    CHECK(seen.rejected + seen.dropped + seen.handed_back == 2);
  }
}

TEST_CASE("bounded_queue push_bulk of nothing is accepted while the queue is open") {
  bounded_queue<int> queue(holding(1));
  CHECK(queue.push_bulk({}));
  queue.close();
  CHECK(queue.push_bulk({}).status == push_status::closed);
}

TEST_CASE("bounded_queue push_bulk waits for poppers until all is in") {
  bounded_queue<int> queue(holding(2));
  std::vector<int> items{0, 1, 2, 3, 4, 5, 6};
  push_result answer{push_status::closed};
  std::thread pusher([&] { answer = queue.push_bulk(items); });
  std::vector<int> got;
  while (got.size() < items.size())
    got.push_back(*queue.pop());
  pusher.join();
  CHECK(answer);
  CHECK(answer.accepted == 7);
  CHECK(got == items);
}

TEST_CASE("bounded_queue push_bulk stops at an item that is too heavy") {
  parcel_queue queue({.max_items = 9, .max_bytes = 10});
  std::vector<parcel> items{{1, 2}, {2, 11}, {3, 2}};
  const push_result answer = queue.push_bulk(items);
  CHECK(answer.status == push_status::too_heavy);
  CHECK(answer.accepted == 1);
  CHECK(answer.item_bytes == 11);
}

TEST_CASE("bounded_queue pop_bulk takes at most what was asked for") {
  bounded_queue<int> queue(holding(9));
  std::vector<int> items{0, 1, 2, 3, 4};
  CHECK(queue.push_bulk(items));
  CHECK(queue.pop_bulk(0).status == pop_status::empty);
  CHECK(queue.pop_bulk(2).items == std::vector{0, 1});
  CHECK(queue.try_pop_bulk(99).items == std::vector{2, 3, 4});
  CHECK(queue.try_pop_bulk(99).status == pop_status::empty);
}

TEST_CASE("bounded_queue set_limits acts at once and drops nothing") {
  bounded_queue<int> queue(holding(4, full_policy::reject));
  for (int i = 0; i < 4; ++i)
    CHECK(queue.push(i));
  CHECK(queue.set_limits({2, no_byte_limit}));
  CHECK(queue.size() == 4);
  CHECK(queue.push(9).message() == "full: 4 of 2 items (16 B)");
  CHECK(*queue.pop() == 0);
  CHECK(*queue.pop() == 1);
  CHECK(queue.push(9).status == push_status::full);
  CHECK(*queue.pop() == 2);
  CHECK(queue.push(4));
  CHECK(queue.set_limits({3, no_byte_limit}));
  CHECK(queue.push(5));
  CHECK(queue.stats().limit == load{3, no_byte_limit});
  CHECK(queue.stats().peak.items == 4);
  CHECK(drained(queue) == std::vector{3, 4, 5});
}

TEST_CASE("bounded_queue set_limits refuses 0 and the absurd and keeps the old limits") {
  bounded_queue<int> queue(holding(4));
  for (const load wrong : {load{0, 1}, load{1, 0}, load{static_cast<std::size_t>(-1), 1},
                           load{1, static_cast<std::size_t>(-1)}}) {
    const veltrix::limits_result answer = queue.set_limits(wrong);
    CHECK_FALSE(answer);
    CHECK(std::string(answer.why).size() > 20);
    CHECK(queue.stats().limit == load{4, no_byte_limit});
    CHECK_THROWS_AS(bounded_queue<int>({.max_items = wrong.items, .max_bytes = wrong.bytes}),
                    std::invalid_argument);
  }
}

TEST_CASE("bounded_queue set_limits wakes waiting pushers") {
  parcel_queue queue({.max_items = 9, .max_bytes = 10});
  CHECK(queue.push(parcel{1, 10}));
  push_result heavy;
  push_result light{push_status::closed};
  std::thread first([&] { light = queue.push(parcel{2, 4}); });
  REQUIRE(eventually([&] { return queue.stats().waiting_pushers == 1; }));
  std::thread second([&] { heavy = queue.push(parcel{3, 9}); });
  REQUIRE(eventually([&] { return queue.stats().waiting_pushers == 2; }));
  CHECK(queue.set_limits({9, 8}));
  second.join();  // it would wait for ever: it is too heavy now, though not the first in line
  CHECK(heavy.status == push_status::too_heavy);
  CHECK(queue.set_limits({9, 14}));
  first.join();
  CHECK(light);
  CHECK(drained(queue) == std::vector{1, 2});
}

TEST_CASE("bounded_queue keeps everything when a weigher, a move or an allocation throws") {
  struct faulty_weight {
    std::size_t operator()(const faulty_number&) const {
      faults::point();
      return 1;
    }
  };
  using faulty_queue = bounded_queue<faulty_number, faulty_weight>;
  const auto numbers = [](faulty_queue& queue) {
    std::vector<int> all;
    while (auto next = queue.try_pop())
      all.push_back(next->number());
    return all;
  };
  const std::ptrdiff_t alive_before = faulty_number::alive();
  for (const auto policy : {full_policy::reject, full_policy::drop_oldest}) {
    for (std::uint64_t nth = 1;; ++nth) {
      faulty_queue queue({.max_items = 2, .max_bytes = 2, .policy = policy});
      CHECK(queue.push(faulty_number(1)));
      CHECK(queue.push(faulty_number(2)));
      faulty_number third(3);
      faults::arm(nth);
      bool threw = false;
      try {
        static_cast<void>(queue.push(std::move(third)));
      } catch (const veltrix_test::injected_fault&) {
        threw = true;
      }
      const bool fired = faults::disarm();
      CHECK(threw == fired);
      const bool replaced = !fired && policy == full_policy::drop_oldest;
      if (!replaced) CHECK(third.number() == 3);
      check_balance(queue);
      CHECK(numbers(queue) == (replaced ? std::vector{2, 3} : std::vector{1, 2}));
      if (!fired) break;
    }
  }
  CHECK(faulty_number::alive() == alive_before);
}

TEST_CASE("bounded_queue pop leaves an item whose move throws where it is") {
  bounded_queue<faulty_number> queue(holding(4));
  CHECK(queue.push(faulty_number(1)));
  CHECK(queue.push(faulty_number(2)));
  faults::arm(1);
  CHECK_THROWS_AS(queue.pop(), veltrix_test::injected_fault);
  CHECK(faults::disarm());
  CHECK(queue.size() == 2);
  faults::arm(1);
  CHECK_THROWS_AS(queue.pop_bulk(2), veltrix_test::injected_fault);
  CHECK(faults::disarm());
  faults::arm(2);
  const auto part = queue.pop_bulk(2);
  CHECK(faults::disarm());
  REQUIRE(part.items.size() == 1);
  CHECK(part.items[0].number() == 1);
  CHECK(queue.pop()->number() == 2);
  check_balance(queue);
}

TEST_CASE("bounded_queue push_bulk ends before the item whose move throws") {
  bounded_queue<faulty_number> queue(holding(4));
  std::vector<faulty_number> items;
  items.reserve(3);
  for (int i = 1; i <= 3; ++i)
    items.emplace_back(i);
  faults::arm(2);
  const push_result part = queue.push_bulk(items);
  CHECK(faults::disarm());
  CHECK(part.status == push_status::threw);
  CHECK(part.message() == "an item threw while it was moved in");
  CHECK(part.accepted == 1);
  CHECK(items[1].number() == 2);
  faults::arm(1);
  CHECK_THROWS_AS(queue.push_bulk(std::span(items).subspan(1)), veltrix_test::injected_fault);
  CHECK(faults::disarm());
  CHECK(queue.push_bulk(std::span(items).subspan(1)));
  CHECK(queue.pop_bulk(9).items.size() == 3);
}

TEST_CASE("bounded_queue calls the next waiting pusher when one leaves by an exception") {
  /// Its move throws where it is armed.
  struct bomb {
    explicit bomb(bool is_armed) : armed(is_armed) {}
    bomb(bomb&& other) : armed(other.armed) {
      if (armed) throw std::runtime_error("moved");
    }
    bool armed;
  };
  bounded_queue<bomb> queue(holding(1));
  CHECK(queue.push(bomb(false)));
  std::string thrown;
  std::thread first([&] {
    try {
      static_cast<void>(queue.push(bomb(true)));
    } catch (const std::runtime_error& told) {
      thrown = told.what();
    }
  });
  REQUIRE(eventually([&] { return queue.stats().waiting_pushers == 1; }));
  push_result second{push_status::closed};
  std::thread waiting([&] { second = queue.push(bomb(false)); });
  REQUIRE(eventually([&] { return queue.stats().waiting_pushers == 2; }));
  CHECK(queue.pop().status == pop_status::item);
  first.join();
  waiting.join();  // hangs when the call is lost
  CHECK(thrown == "moved");
  CHECK(second);
}

TEST_CASE("bounded_queue survives each failed allocation") {
  for (const auto policy : {full_policy::reject, full_policy::drop_oldest}) {
    parcel_queue queue({.max_items = 3, .max_bytes = 100, .policy = policy});
    CHECK(queue.push(parcel{1, 1}));
    std::vector<parcel> items{{2, 2}, {3, 3}};
    push_result pushed;
    std::vector<std::size_t> sizes;
    const auto note_size = [&] { sizes.push_back(queue.size()); };
    const int pushes =
        veltrix_test::fail_each_allocation([&] { pushed = queue.push_bulk(items); }, note_size);
    CHECK(pushed);
    CHECK(pushes >= 2);
    CHECK(sizes == std::vector<std::size_t>(static_cast<std::size_t>(pushes), 1));
    sizes.clear();
    std::vector<parcel> popped;
    const int pops =
        veltrix_test::fail_each_allocation([&] { popped = queue.pop_bulk(3).items; }, note_size);
    CHECK(popped == std::vector<parcel>{{1, 1}, {2, 2}, {3, 3}});
    CHECK(pops >= 1);
    CHECK(sizes == std::vector<std::size_t>(static_cast<std::size_t>(pops), 3));
    check_balance(queue);
  }
}

TEST_CASE("bounded_queue ends what is inside with itself") {
  const auto counted = std::make_shared<int>(0);
  {
    bounded_queue<std::shared_ptr<int>> queue(holding(4));
    CHECK(queue.push(counted));
    CHECK(queue.push(counted));
    CHECK(counted.use_count() == 3);
  }
  CHECK(counted.use_count() == 1);
}

#if VELTRIX_CHECKED && !VELTRIX_TSAN
TEST_CASE("bounded_queue reports its end under a waiting caller") {
  const auto seen = veltrix_test::run_to_its_end([] {
    auto queue = std::make_unique<bounded_queue<int>>(holding(1));
    std::thread popper([reached = queue.get()] { static_cast<void>(reached->pop()); });
    while (queue->stats().waiting_poppers == 0)
      std::this_thread::yield();
    queue.reset();
    popper.join();
  });
  CHECK(seen.aborted);
  CHECK(seen.told.find("an object ended under a caller waiting in it") != std::string::npos);
}
#endif

namespace {

/// What a bounded_queue should do, said plainly.
struct model_queue {
  load limit;
  full_policy policy;
  bool closed = false;
  std::deque<parcel> inside{};

  std::size_t bytes() const {
    std::size_t sum = 0;
    for (const parcel& each : inside)
      sum += each.bytes;
    return sum;
  }
  bool fits(const parcel& item) const {
    return inside.size() + 1 <= limit.items && bytes() + item.bytes <= limit.bytes;
  }
  push_status push(const parcel& item, push_status when_blocked) {
    if (closed) return push_status::closed;
    if (item.bytes > limit.bytes) return push_status::too_heavy;
    if (!fits(item)) {
      switch (policy) {
        case full_policy::block: return when_blocked;
        case full_policy::reject: return push_status::full;
        case full_policy::drop_newest: return push_status::dropped;
        case full_policy::caller_runs: return push_status::run_yourself;
        case full_policy::drop_oldest:
          while (!fits(item))
            inside.pop_front();
      }
    }
    inside.push_back(item);
    return push_status::accepted;
  }
  std::vector<parcel> pop(std::size_t most) {
    const auto end = inside.begin() + static_cast<std::ptrdiff_t>(std::min(most, inside.size()));
    std::vector<parcel> taken(inside.begin(), end);
    inside.erase(inside.begin(), end);
    return taken;
  }
};

class comparison {
 public:
  comparison(full_policy policy, std::uint64_t seed)
      : random_(seed),
        queue_({.max_items = 6, .max_bytes = 30, .policy = policy}),
        model_{{6, 30}, policy} {}

  void step() {
    switch (random_.below(12)) {
      case 0:
      case 1:
      case 2: push_one(); break;
      case 3:
      case 4: try_push_one(); break;
      case 5:
      case 6: push_many(); break;
      case 7:
      case 8: pop_some(1); break;
      case 9:
      case 10: pop_some(1 + random_.below(8)); break;
      default: change();
    }
    REQUIRE(queue_.stats().inside == load{model_.inside.size(), model_.bytes()});
    check_balance(queue_);
  }

 private:
  parcel draw() { return {++made_, 1 + random_.below(12)}; }

  void push_one() {
    const parcel item = draw();
    REQUIRE(queue_.push(item, {.deadline = long_past}).status ==
            model_.push(item, push_status::timed_out));
  }
  void try_push_one() {
    const parcel item = draw();
    REQUIRE(queue_.try_push(item).status == model_.push(item, push_status::full));
  }
  void push_many() {
    std::vector<parcel> items;
    for (std::uint64_t i = random_.below(6); i-- > 0;)
      items.push_back(draw());
    std::size_t accepted = 0;
    push_status expected = model_.closed ? push_status::closed : push_status::accepted;
    while (accepted < items.size()) {
      expected = model_.push(items[accepted], push_status::full);
      if (expected != push_status::accepted) break;
      ++accepted;
    }
    const push_result answer = queue_.try_push_bulk(items);
    REQUIRE(answer.status == expected);
    REQUIRE(answer.accepted == accepted);
  }
  void pop_some(std::size_t most) {
    const std::vector<parcel> expected = model_.pop(most);
    const auto got = queue_.pop_bulk(most, {.deadline = long_past});
    REQUIRE(got.items == expected);
    const pop_status nothing = model_.closed ? pop_status::closed : pop_status::timed_out;
    REQUIRE(got.status == (expected.empty() ? nothing : pop_status::item));
  }
  void change() {
    if (random_.below(40) == 0) {
      queue_.close();
      model_.closed = true;
      return;
    }
    const load limit{1 + random_.below(9), 1 + random_.below(40)};
    REQUIRE(queue_.set_limits(limit));
    model_.limit = limit;
  }

  veltrix_test::random_source random_;
  parcel_queue queue_;
  model_queue model_;
  int made_ = 0;
};

}  // namespace

TEST_CASE("bounded_queue agrees with a plain model over random sequences") {
  for (std::uint64_t seed = 1; seed <= scale(60); ++seed) {
    CAPTURE(seed);
    for (const auto policy : {full_policy::block, full_policy::reject, full_policy::drop_newest,
                              full_policy::drop_oldest, full_policy::caller_runs}) {
      comparison pair(policy, seed);
      for (int i = 0; i < 300; ++i)
        pair.step();
    }
  }
}

TEST_CASE("bounded_queue uses its nodes again, and keeps a bounded number of them") {
  bounded_queue<int> queue({.max_items = 5000, .max_bytes = no_byte_limit});
  const long before = veltrix_test::allocations_alive();
  for (int i = 0; i < 5000; ++i)
    REQUIRE(queue.push(i));
  while (queue.try_pop()) {}
  const long kept = veltrix_test::allocations_alive() - before;
  CHECK(kept == 1024);
  std::vector<int> bulk(64, 7);
  bool all = true;
  std::size_t made = veltrix_test::allocations_made;
  for (int i = 0; i < 1000; ++i) {
    all = all && queue.push(i) && queue.push_bulk(bulk).accepted == bulk.size();
    while (queue.try_pop()) {}
  }
  made = veltrix_test::allocations_made - made;  // CHECK makes some
  CHECK(made == 0);
  CHECK(all);
}

TEST_CASE("bounded_queue uses the node of a refused item again") {
  bounded_queue<int> queue(
      {.max_items = 1, .max_bytes = no_byte_limit, .policy = full_policy::reject});
  REQUIRE(queue.push(1));
  REQUIRE_FALSE(queue.push(2));
  bool any = false;
  std::size_t made = veltrix_test::allocations_made;
  for (int i = 0; i < 100; ++i)
    any = any || queue.push(i);
  made = veltrix_test::allocations_made - made;  // CHECK makes some
  CHECK(made == 0);
  CHECK_FALSE(any);
}

TEST_CASE("bounded_queue ends what a popped item was moved from") {
  struct copied {
    std::shared_ptr<const int> held;
    explicit copied(std::shared_ptr<const int> of) : held(std::move(of)) {}
    copied(const copied&) = default;  // moving copies: what is left holds as much
    copied& operator=(const copied&) = default;
    ~copied() = default;
  };
  bounded_queue<copied> copies({.max_items = 4, .max_bytes = no_byte_limit});
  const auto one = std::make_shared<const int>(1);
  REQUIRE(copies.push(copied(one)));
  REQUIRE(copies.push(copied(one)));
  CHECK(one.use_count() == 3);
  REQUIRE(copies.pop());
  CHECK(one.use_count() == 2);
  REQUIRE(copies.pop_bulk(4).items.size() == 1);
  CHECK(one.use_count() == 1);
}
