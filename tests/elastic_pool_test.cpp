// SPDX-License-Identifier: BSL-1.0
// What an elastic_pool does with work: posting, results, fork and join, stopping.
// Its size is the subject of elastic_pool_resize_test.cpp.
#include "veltrix/elastic_pool.hpp"

#include <array>
#include <atomic>
#include <coroutine>
#include <deque>
#include <latch>
#include <memory>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/death.hpp"
#include "support/pool.hpp"
#include "support/random.hpp"
#include "support/scale.hpp"
#include "veltrix/executor.hpp"

using namespace veltrix;
using veltrix_test::eventually;
using veltrix_test::failure_log;
using veltrix_test::held_workers;

static_assert(executor<elastic_pool>);
static_assert(executor<elastic_pool::executor_type>);
static_assert(executor<const elastic_pool::executor_type>);
static_assert(!std::is_copy_constructible_v<elastic_pool>);
static_assert(!std::is_move_constructible_v<elastic_pool>);
static_assert(!std::is_default_constructible_v<elastic_pool>);
static_assert(!std::is_convertible_v<std::size_t, elastic_pool>);
static_assert(!std::is_copy_constructible_v<task_handle<int>>);
static_assert(std::is_nothrow_move_constructible_v<task_handle<int>>);
static_assert(std::is_nothrow_move_assignable_v<task_handle<int>>);
static_assert(!std::is_copy_constructible_v<task_group>);
static_assert(std::is_nothrow_constructible_v<task_group, elastic_pool&>);
static_assert(noexcept(std::declval<task_group&>().take_ticket()));
static_assert(!std::is_copy_constructible_v<task_group::ticket>);
static_assert(!std::is_default_constructible_v<task_group::ticket>);
static_assert(std::is_nothrow_move_constructible_v<task_group::ticket>);
static_assert(!std::is_copy_constructible_v<blocking_scope>);
static_assert(std::is_copy_constructible_v<elastic_pool::executor_type>);

static_assert(noexcept(std::declval<elastic_pool&>().schedule()));
static_assert(noexcept(std::declval<elastic_pool&>().executor()));
static_assert(noexcept(std::declval<elastic_pool&>().on_worker()));
static_assert(noexcept(std::declval<elastic_pool::executor_type&>().pool()));
static_assert(noexcept(std::declval<task_handle<int>&>().valid()));
static_assert(noexcept(std::declval<task_handle<int>&>().ready()));
static_assert(noexcept(std::declval<task_group::ticket&>().valid()));
static_assert(noexcept(std::declval<task_group::ticket>().finish()));
static_assert(noexcept(std::declval<pool_stats&>().settled()));
static_assert(std::is_nothrow_constructible_v<blocking_scope, elastic_pool&>);

// A ticket is spent only as an rvalue: `ticket.finish()` does not compile.
template <class Ticket>
concept finishes_as_lvalue = requires(Ticket& ticket) { ticket.finish(); };
static_assert(!finishes_as_lvalue<task_group::ticket>);
template <class Ticket>
concept finishes_as_rvalue = requires(Ticket ticket) { std::move(ticket).finish(); };
static_assert(finishes_as_rvalue<task_group::ticket>);

TEST_CASE("elastic_pool runs every posted task once") {
  std::atomic<int> ran{0};
  elastic_pool pool(3);
  for (int i = 0; i < 1000; ++i)
    REQUIRE(pool.post([&] { ran.fetch_add(1); }));
  REQUIRE(pool.drain());
  CHECK(ran.load() == 1000);
  const pool_stats state = pool.stats();
  CHECK(state.posted == 1000);
  CHECK(state.completed == 1000);
  CHECK(state.failed == 0);
  CHECK(state.queued == 0);
  CHECK(state.busy == 0);
}

TEST_CASE("elastic_pool runs tasks in the order they were posted on one worker") {
  std::vector<int> order;
  elastic_pool pool(1);
  for (int i = 0; i < 300; ++i)
    REQUIRE(pool.post([&order, i] { order.push_back(i); }));
  REQUIRE(pool.drain());
  REQUIRE(order.size() == 300);
  for (int i = 0; i < 300; ++i)
    CHECK(order[static_cast<std::size_t>(i)] == i);
}

TEST_CASE("elastic_pool runs large captures and move-only callables") {
  elastic_pool pool(2);
  std::array<char, 400> large{};
  large[399] = 7;
  std::atomic<int> seen{0};
  REQUIRE(pool.post([large, &seen] { seen.fetch_add(large[399]); }));
  REQUIRE(pool.post([owned = std::make_unique<int>(5), &seen] { seen.fetch_add(*owned); }));
  const auto copied = [&seen] { seen.fetch_add(100); };
  REQUIRE(pool.post(copied));
  REQUIRE(pool.drain());
  CHECK(seen.load() == 112);
}

TEST_CASE("elastic_pool refuses with full when the queue holds its capacity") {
  elastic_pool pool(1, {.queue_capacity = 2});
  std::atomic<int> ran{0};
  {
    const held_workers held(pool, 1);
    REQUIRE(pool.try_post([&] { ran.fetch_add(1); }).status == post_status::accepted);
    REQUIRE(pool.try_post([&] { ran.fetch_add(1); }).status == post_status::accepted);
    const post_result refused = pool.try_post([&] { ran.fetch_add(100); });
    CHECK(refused.status == post_status::full);
    CHECK(std::string(refused.why) == "the pool's queue holds queue_capacity tasks");
    CHECK_FALSE(refused);
    CHECK(pool.stats().queued == 2);
  }
  REQUIRE(pool.drain());
  CHECK(ran.load() == 2);
}

TEST_CASE("elastic_pool leaves a refused task with the caller and destroys other callables") {
  elastic_pool pool(1, {.queue_capacity = 1});
  auto alive = std::make_shared<int>(0);
  detail::task kept([alive] { ++*alive; });
  detail::task also_kept([alive] { ++*alive; });
  {
    const held_workers held(pool, 1);
    REQUIRE(pool.post([] {}));
    CHECK(pool.try_post(kept).status == post_status::full);
    CHECK(static_cast<bool>(kept));
    CHECK(pool.try_post(std::move(also_kept)).status == post_status::full);
    CHECK(static_cast<bool>(also_kept));
    CHECK(pool.try_post([alive] { ++*alive; }).status == post_status::full);
    CHECK(alive.use_count() == 3);  // ours, and the two kept
  }
  REQUIRE(pool.drain());
  REQUIRE(pool.try_post(kept));
  CHECK_FALSE(static_cast<bool>(kept));
  REQUIRE(pool.drain());
  CHECK(*alive == 1);
  pool.stop();
  CHECK(pool.try_post(also_kept).status == post_status::closed);
  CHECK(pool.post(also_kept).status == post_status::closed);
  CHECK(static_cast<bool>(also_kept));
}

TEST_CASE("elastic_pool makes an outside poster wait for room") {
  elastic_pool pool(1, {.queue_capacity = 1});
  std::atomic<int> ran{0};
  std::atomic<int> accepted{0};
  std::thread poster;
  {
    const held_workers held(pool, 1);
    REQUIRE(pool.post([&] { ran.fetch_add(1); }));
    poster = std::thread([&] {
      for (int i = 0; i < 100; ++i) {
        if (pool.post([&] { ran.fetch_add(1); })) accepted.fetch_add(1);
      }
    });
    CHECK(pool.stats().queued == 1);
    CHECK(accepted.load() == 0);  // nothing can leave the queue before the worker is let go
  }
  poster.join();
  REQUIRE(pool.drain());
  CHECK(accepted.load() == 100);
  CHECK(ran.load() == 101);
}

TEST_CASE("elastic_pool runs what a worker that retires has posted and not begun") {
  elastic_pool pool(2);
  std::atomic<int> ran{0};
  {
    const held_workers held(pool, 1);
    std::atomic<std::size_t> target{0};
    // Posted, not submitted: who waits for a handle may run the task itself, and be no worker.
    REQUIRE(pool.post([&] {
      for (int i = 0; i < 3; ++i) {
        if (pool.post([&] { ran.fetch_add(1); })) ran.fetch_add(10);
      }
      target = pool.resize_to(1, {.deadline = steady_clock::now()}).target;
    }));
    REQUIRE(eventually([&] { return target == 1; }));
    REQUIRE(eventually([&] { return pool.stats().running == 1; }));  // the other one is held
    CHECK(ran.load() == 30);
  }
  REQUIRE(pool.drain());
  CHECK(ran.load() == 33);
}

namespace {

/// Many tasks of an outside poster, and how many of them had run when another task began.
class crowd {
 public:
  static constexpr int size = 10'000;

  bool post_to(elastic_pool& pool) {
    for (int i = 0; i < size; ++i) {
      if (!pool.post([this] { ran_.fetch_add(1); })) return false;
    }
    return true;
  }
  /// The other task.
  auto watched() {
    return [this] { before_ = ran_.load(); };
  }
  bool watched_ran() const { return before_ >= 0; }
  int before() const { return before_; }

 private:
  std::atomic<int> ran_{0};
  std::atomic<int> before_{-1};
};

}  // namespace

TEST_CASE(
    "elastic_pool lets a worker's oldest task have its turn beside a queue that is never empty") {
  crowd others;
  std::latch posted(1);
  elastic_pool pool(1);
  struct reposts {
    elastic_pool& pool;
    const crowd& until;
    void operator()() const {
      if (!until.watched_ran()) static_cast<void>(pool.post(*this));
    }
  };
  REQUIRE(pool.post([&] {
    posted.wait();
    static_cast<void>(pool.post(others.watched()));
    static_cast<void>(pool.post(reposts{pool, others}));
  }));
  REQUIRE(others.post_to(pool));
  posted.count_down();
  REQUIRE(pool.drain());
  CHECK(others.before() < crowd::size / 20);
}

TEST_CASE("elastic_pool runs what a retired worker left beside a queue that is never empty") {
  crowd others;
  std::latch posted(1);
  std::latch stays(1);
  std::latch leaves(1);
  elastic_pool pool(2);
  REQUIRE(pool.post([&] { stays.wait(); }));
  REQUIRE(pool.post([&] {
    static_cast<void>(pool.post(others.watched()));
    posted.count_down();
    leaves.wait();
  }));
  posted.wait();
  REQUIRE(others.post_to(pool));
  CHECK(pool.resize_to(1, {.deadline = steady_clock::now()}).target == 1);
  leaves.count_down();
  CHECK(eventually([&] { return pool.stats().running == 1; }));
  stays.count_down();
  REQUIRE(pool.drain());
  CHECK(others.before() < crowd::size / 20);
}

TEST_CASE("elastic_pool runs what a blocked worker has posted beside a queue that is never empty") {
  crowd others;
  std::latch posted(1);
  std::latch stays(1);
  elastic_pool pool(2);
  REQUIRE(pool.post([&] { stays.wait(); }));
  REQUIRE(pool.post([&] {
    static_cast<void>(pool.post(others.watched()));
    posted.count_down();
    while (!others.watched_ran())
      std::this_thread::yield();
  }));
  posted.wait();
  REQUIRE(others.post_to(pool));
  stays.count_down();
  REQUIRE(pool.drain());
  CHECK(others.before() < crowd::size / 20);
}

TEST_CASE("elastic_pool takes a worker's post over the capacity instead of waiting") {
  elastic_pool pool(1, {.queue_capacity = 1});
  std::atomic<int> ran{0};
  REQUIRE(pool.post([&] {
    for (int i = 0; i < 10; ++i) {
      if (pool.post([&] { ran.fetch_add(1); })) ran.fetch_add(100);
    }
    if (pool.try_post([] {}).status == post_status::full) ran.fetch_add(10000);
  }));
  REQUIRE(pool.drain());
  CHECK(ran.load() == 10 + 1000 + 10000);
  CHECK(pool.stats().over_capacity == 9);
}

TEST_CASE("elastic_pool posts in bulk, in order, through a queue smaller than the bulk") {
  elastic_pool pool(1, {.queue_capacity = 8});
  std::vector<int> order;
  std::vector<detail::task> tasks;
  for (int i = 0; i < 500; ++i)
    tasks.emplace_back([&order, i] { order.push_back(i); });
  const bulk_result told = pool.post_bulk(tasks);
  CHECK(told);
  CHECK(told.accepted == 500);
  for (const detail::task& each : tasks)
    CHECK_FALSE(static_cast<bool>(each));
  REQUIRE(pool.drain());
  REQUIRE(order.size() == 500);
  CHECK(std::is_sorted(order.begin(), order.end()));
}

TEST_CASE("elastic_pool calls a worker for each task of a post_bulk, one after the other") {
  elastic_pool pool(4);
  for (std::size_t round = 0; round < veltrix_test::scale(50); ++round) {
    std::latch together(4);  // ends only when all four run at once
    const auto meet = [&together] { together.arrive_and_wait(); };
    const std::array<decltype(meet), 4> tasks{meet, meet, meet, meet};
    CHECK(pool.post_bulk(tasks).accepted == 4);
    CHECK(pool.drain());
  }
}

TEST_CASE("elastic_pool copies or moves what post_bulk is given as an iterator") {
  elastic_pool pool(2);
  std::atomic<int> sum{0};
  const auto add = [&sum] { sum.fetch_add(1); };
  const std::vector copied(70, add);
  CHECK(pool.post_bulk(copied.begin(), 66).accepted == 66);
  std::deque<detail::task> moved;
  for (int i = 0; i < 130; ++i)
    moved.emplace_back([&sum] { sum.fetch_add(1000); });
  CHECK(pool.post_bulk(std::make_move_iterator(moved.begin()), moved.size()).accepted == 130);
  CHECK(pool.post_bulk(copied.begin(), 0).accepted == 0);
  REQUIRE(pool.drain());
  CHECK(sum.load() == 66 + 130000);
}

TEST_CASE("elastic_pool keeps the tasks before one whose copy throws in post_bulk") {
  struct fragile {
    std::atomic<int>* ran;
    bool breaks;
    fragile(std::atomic<int>* counter, bool throws) : ran(counter), breaks(throws) {}
    fragile(const fragile& other) : ran(other.ran), breaks(other.breaks) {
      if (breaks) throw std::runtime_error("no copy");
    }
    fragile(fragile&&) noexcept = default;
    void operator()() const { ran->fetch_add(1); }
  };
  std::atomic<int> ran{0};
  elastic_pool pool(1);
  std::vector<fragile> works;
  works.reserve(10);
  for (int i = 0; i < 10; ++i)
    works.emplace_back(&ran, i == 6);
  CHECK_THROWS_WITH(pool.post_bulk(works), "no copy");
  REQUIRE(pool.drain());
  CHECK(ran.load() == 6);
}

TEST_CASE("elastic_pool tells how much of a bulk it took when it is stopped meanwhile") {
  elastic_pool pool(1, {.queue_capacity = 4});
  std::atomic<int> ran{0};
  std::vector<detail::task> tasks;
  for (int i = 0; i < 100; ++i)
    tasks.emplace_back([&] { ran.fetch_add(1); });
  bulk_result told;
  std::thread poster;
  std::thread stopper;
  {
    const held_workers held(pool, 1);
    poster = std::thread([&] { told = pool.post_bulk(tasks); });
    REQUIRE(eventually([&] { return pool.stats().queued == 4; }));
    stopper = std::thread([&] { pool.stop(); });
    poster.join();  // woken by stop(), though the worker is still held
  }
  stopper.join();
  CHECK(told.status == post_status::closed);
  CHECK(told.accepted == 4);
  CHECK(ran.load() == 4);
  for (std::size_t i = 0; i < tasks.size(); ++i)
    CHECK(static_cast<bool>(tasks[i]) == (i >= 4));
}

TEST_CASE("elastic_pool hands task exceptions to its handler") {
  failure_log log;
  elastic_pool pool(2, {.on_exception = log.handler()});
  REQUIRE(pool.post([] { throw std::runtime_error("first"); }));
  REQUIRE(pool.post([] { throw 5; }));
  REQUIRE(pool.post([] {}));
  REQUIRE(pool.drain());
  CHECK(log.texts() == std::multiset<std::string>{"first", "not a std::exception"});
  CHECK(pool.stats().failed == 2);
  CHECK(pool.stats().completed == 3);
}

TEST_CASE("elastic_pool survives an exception handler that throws") {
  elastic_pool pool(1, {.on_exception = [](const std::exception_ptr&) { throw 1; }});
  REQUIRE(pool.post([] { throw 2; }));
  std::atomic<bool> ran{false};
  REQUIRE(pool.post([&] { ran = true; }));
  REQUIRE(pool.drain());
  CHECK(ran.load());
  CHECK(pool.stats().failed == 1);
}

TEST_CASE("elastic_pool gives the results of submitted tasks") {
  elastic_pool pool(2);
  CHECK(pool.submit([] { return 42; }).get() == 42);
  CHECK(*pool.submit([] { return std::make_unique<int>(9); }).get() == 9);
  int target = 1;
  int& reference = pool.submit([&target]() -> int& { return target; }).get();
  CHECK(&reference == &target);
  std::atomic<bool> ran{false};
  auto nothing = pool.submit([&] { ran = true; });
  nothing.get();
  CHECK(ran.load());
  CHECK_FALSE(nothing.valid());
}

TEST_CASE("task_handle rethrows the exception of its task") {
  failure_log log;
  elastic_pool pool(2, {.on_exception = log.handler()});
  auto handle = pool.submit([]() -> int { throw std::runtime_error("from the task"); });
  CHECK_THROWS_WITH(handle.get(), "from the task");
  REQUIRE(pool.drain());
  CHECK(log.texts().empty());
}

TEST_CASE("task_handle tells whether it is ready and waits for no longer than told") {
  elastic_pool pool(1);
  std::latch go(1);
  auto handle = pool.submit([&] {
    go.wait();
    return 3;
  });
  CHECK(handle.valid());
  CHECK_FALSE(handle.ready());
  CHECK_FALSE(handle.wait_for(std::chrono::milliseconds(1)));
  CHECK_FALSE(handle.wait_until(steady_clock::now()));
  go.count_down();
  handle.wait();
  CHECK(handle.ready());
  CHECK(handle.wait_for(duration::zero()));
  CHECK(handle.get() == 3);
  CHECK_FALSE(handle.valid());
}

TEST_CASE("task_handle of a stopped pool is cancelled") {
  elastic_pool pool(1);
  pool.stop();
  bool ran = false;
  auto handle = pool.submit([&ran] { ran = true; });
  REQUIRE(handle.valid());
  CHECK(handle.ready());
  CHECK_THROWS_AS(handle.get(), task_cancelled);
  CHECK_FALSE(ran);
}

TEST_CASE("task_handle outlives its pool, its result waiting") {
  task_handle<int> handle;
  CHECK_FALSE(handle.valid());
  {
    elastic_pool pool(1);
    handle = pool.submit([] { return 11; });
  }
  CHECK(handle.get() == 11);
}

TEST_CASE("task_handle dropped before or after its task leaves the exception to the handler") {
  failure_log log;
  elastic_pool pool(1, {.on_exception = log.handler()});
  {
    const held_workers held(pool, 1);
    static_cast<void>(pool.submit([] { throw std::runtime_error("dropped before"); }));
  }
  REQUIRE(pool.drain());
  auto late = pool.submit([] { throw std::runtime_error("dropped after"); });
  late.wait();
  late = {};
  CHECK(log.texts() == std::multiset<std::string>{"dropped before", "dropped after"});
  CHECK(pool.stats().failed == 2);
}

#if !VELTRIX_CHECKED
TEST_CASE("task_handle that is empty answers get with logic_error in release builds") {
  task_handle<int> empty;
  CHECK_THROWS_AS(empty.get(), std::logic_error);
  CHECK_FALSE(empty.ready());
  CHECK_FALSE(empty.wait_for(duration::zero()));
}
#endif

TEST_CASE("task_handle of a task that nobody began is run by the worker that waits for it") {
  elastic_pool pool(1);
  auto outer = pool.submit([&pool] {
    auto inner = pool.submit([&pool] { return pool.submit([] { return 1; }).get() + 1; });
    return inner.get() + 1;
  });
  CHECK(outer.get() == 3);
  REQUIRE(pool.drain());
  CHECK(pool.stats().completed == 3);
}

TEST_CASE("elastic_pool destroys a submitted capture when its task has ended") {
  elastic_pool pool(1);
  auto held = std::make_shared<int>(0);
  auto handle = pool.submit([held] { return *held; });
  handle.wait();
  CHECK(held.use_count() == 1);
  CHECK(handle.get() == 0);
}

TEST_CASE("elastic_pool visits every index of a parallel_for once") {
  elastic_pool pool(3);
  for (const int count : {0, 1, 2, 7, 1000, 4096}) {
    std::vector<std::atomic<int>> visits(static_cast<std::size_t>(count));
    pool.parallel_for(0, count, [&](int i) { visits[static_cast<std::size_t>(i)].fetch_add(1); });
    CHECK(std::all_of(visits.begin(), visits.end(),
                      [](const std::atomic<int>& each) { return each.load() == 1; }));
  }
}

TEST_CASE("elastic_pool cuts a parallel_for range of any integer type") {
  elastic_pool pool(2);
  std::atomic<long> sum{0};
  pool.parallel_for(-50, 51, [&](int i) { sum.fetch_add(i); });
  CHECK(sum.load() == 0);
  pool.parallel_for(std::int8_t{-128}, std::int8_t{127}, [&](std::int8_t i) { sum.fetch_add(i); });
  CHECK(sum.load() == -255);
  std::atomic<int> calls{0};
  const std::uint64_t last = ~std::uint64_t{0};
  pool.parallel_for(last - 10, last, [&](std::uint64_t i) { calls.fetch_add(i >= last - 10); });
  CHECK(calls.load() == 10);
  pool.parallel_for(5, 2, [&](int) { calls.fetch_add(1000); });
  CHECK(calls.load() == 10);
  pool.parallel_for(0, 100, {.grain = 7}, [&](int) { calls.fetch_add(1); });
  CHECK(calls.load() == 110);
}

TEST_CASE("elastic_pool finishes a parallel_for before it rethrows the first exception") {
  failure_log log;
  elastic_pool pool(2, {.on_exception = log.handler()});
  std::atomic<int> visited{0};
  const auto body = [&](int i) {
    visited.fetch_add(1);
    if (i % 100 == 3) throw std::runtime_error("at an index");
  };
  CHECK_THROWS_WITH(pool.parallel_for(0, 1000, body), "at an index");
  CHECK(visited.load() == 1000);
  CHECK(log.texts().size() == 9);  // the other nine
}

namespace {

/// Longer than it takes to call a worker.
void take_a_while() {
  const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(200);
  while (std::chrono::steady_clock::now() < until) {}
}

}  // namespace

TEST_CASE("elastic_pool keeps the first exception of a parallel_for that asked others later") {
  failure_log log;
  elastic_pool pool(2, {.on_exception = log.handler()});
  constexpr int count = 2'000;
  std::vector<std::atomic<int>> visits(count);
  const auto body = [&](int i) {
    visits[static_cast<std::size_t>(i)].fetch_add(1);
    if (i == 0) take_a_while();  // so that it asks others
    if (i == 0) throw std::runtime_error("alone");
    if (i % 1'000 == 999) throw std::runtime_error("together");
  };
  CHECK_THROWS_WITH(pool.parallel_for(0, count, body), "alone");
  CHECK(std::all_of(visits.begin(), visits.end(),
                    [](const std::atomic<int>& each) { return each.load() == 1; }));
  CHECK(log.texts() == std::multiset<std::string>{"together", "together"});
}

TEST_CASE("elastic_pool asks its workers for a parallel_for of many indices that takes a while") {
  elastic_pool pool(1);
  std::atomic<bool> helped{false};
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  pool.parallel_for(0, 2'000, [&](int i) {
    if (pool.on_worker()) helped = true;
    if (i == 0) take_a_while();
    while (i >= 100 && !helped && std::chrono::steady_clock::now() < deadline)
      std::this_thread::yield();
  });
  CHECK(helped);
}

TEST_CASE("elastic_pool leaves a parallel_for to the caller that lacks memory to ask others") {
  elastic_pool pool(1);
  for (const int count : {50, 2'000}) {
    for (int granted = 0; granted < 4; ++granted) {
      std::vector<std::atomic<int>> visits(static_cast<std::size_t>(count));
      veltrix_test::allocations_left = granted;
      pool.parallel_for(0, count, [&](int i) {
        if (i == 0) take_a_while();
        visits[static_cast<std::size_t>(i)].fetch_add(1);
      });
      veltrix_test::allocations_left = -1;
      CHECK(std::all_of(visits.begin(), visits.end(),
                        [](const std::atomic<int>& each) { return each.load() == 1; }));
    }
  }
}

TEST_CASE("elastic_pool tells of each exception of a parallel_for that its caller does alone") {
  std::atomic<int> told{0};
  elastic_pool pool(1, {.on_exception = [&](const std::exception_ptr&) { told.fetch_add(1); }});
  veltrix_test::allocations_left = 0;
  int first = -1;
  try {
    pool.parallel_for(0, 50, [](int i) {
      if (i % 10 == 3) throw i;  // needs no operator new
    });
  } catch (int thrown) {
    first = thrown;
  }
  veltrix_test::allocations_left = -1;
  CHECK(first == 3);
  CHECK(told.load() == 4);
}

TEST_CASE("elastic_pool nests parallel_for inside its own workers") {
  elastic_pool pool(2);
  std::atomic<int> leaves{0};
  pool.parallel_for(0, 8, [&](int) {
    pool.parallel_for(0, 8,
                      [&](int) { pool.parallel_for(0, 8, [&](int) { leaves.fetch_add(1); }); });
  });
  CHECK(leaves.load() == 512);
}

TEST_CASE("elastic_pool leaves a parallel_for to the caller when it is stopped or full") {
  std::atomic<int> visited{0};
  elastic_pool full(1, {.queue_capacity = 1});
  {
    const held_workers held(full, 1);
    REQUIRE(full.post([] {}));
    full.parallel_for(0, 100, [&](int) { visited.fetch_add(1); });
    CHECK(visited.load() == 100);
  }
  elastic_pool stopped(1);
  stopped.stop();
  stopped.parallel_for(0, 100, [&](int) { visited.fetch_add(1); });
  CHECK(visited.load() == 200);
}

TEST_CASE("elastic_pool ends a parallel_for when the last call on a worker has ended") {
  elastic_pool pool(1);
  for (std::size_t round = 0; round < veltrix_test::scale(50); ++round) {
    std::atomic<bool> begun{false};
    std::atomic<int> ended{0};
    pool.parallel_for(0, 2, {.grain = 1}, [&](int) {
      if (pool.on_worker()) {
        begun = true;
        for (int i = 0; i < 100; ++i)
          std::this_thread::yield();
      } else {
        for (int i = 0; i < 10'000 && !begun; ++i)
          std::this_thread::yield();
      }
      ++ended;
    });
    CHECK(ended == 2);
  }
}

TEST_CASE("task_group waits for everything run in it and can be used again") {
  elastic_pool pool(2);
  task_group group(pool);
  std::atomic<int> ran{0};
  for (int round = 1; round <= 3; ++round) {
    for (int i = 0; i < 100; ++i)
      group.run([&] { ran.fetch_add(1); });
    group.wait();
    CHECK(ran.load() == 100 * round);
  }
}

TEST_CASE("task_group nests to any depth on one worker") {
  elastic_pool pool(1);
  struct fibonacci {
    elastic_pool& pool;
    int operator()(int n) const {
      if (n < 2) return n;
      int left = 0;
      task_group group(pool);
      group.run([&] { left = (*this)(n - 1); });
      const int right = (*this)(n - 2);
      group.wait();
      return left + right;
    }
  };
  CHECK(pool.submit([&] { return fibonacci{pool}(15); }).get() == 610);
  CHECK(fibonacci{pool}(15) == 610);
}

TEST_CASE("task_group leaves nothing in the queue of a worker that runs its tasks itself") {
  elastic_pool pool(1);
  std::atomic<int> ran{0};
  pool.submit([&] {
        for (int round = 0; round < 10; ++round) {
          task_group group(pool);
          for (int i = 0; i < 10; ++i)
            group.run([&] { ran.fetch_add(1); });
          group.wait();
          const pool_stats seen = pool.stats();
          CHECK((seen.queued == 0 && seen.busy == 1));
          CHECK(seen.posted == seen.completed + 1);
        }
        // What is posted meanwhile stays where it is, and runs after this task.
        task_group group(pool);
        group.run([&] { ran.fetch_add(1); });
        REQUIRE(pool.post([&] { ran.fetch_add(1000); }));
        group.wait();
        CHECK(ran.load() == 101);
      })
      .get();
  REQUIRE(pool.drain());
  CHECK(ran.load() == 1101);
  CHECK(pool.stats().queued == 0);
}

TEST_CASE("task_group takes tasks from its own tasks") {
  elastic_pool pool(2);
  task_group group(pool);
  std::atomic<int> ran{0};
  for (int i = 0; i < 10; ++i) {
    group.run([&] {
      ran.fetch_add(1);
      for (int j = 0; j < 10; ++j)
        group.run([&] { ran.fetch_add(1); });
    });
  }
  group.wait();
  CHECK(ran.load() == 110);
}

TEST_CASE("task_group rethrows the first exception and hands on the others") {
  failure_log log;
  elastic_pool pool(2, {.on_exception = log.handler()});
  task_group group(pool);
  std::atomic<int> ran{0};
  for (int i = 0; i < 20; ++i) {
    group.run([&, i] {
      ran.fetch_add(1);
      if (i < 3) throw std::runtime_error("in the group");
    });
  }
  CHECK_THROWS_WITH(group.wait(), "in the group");
  CHECK(ran.load() == 20);
  CHECK(log.texts().size() == 2);
  CHECK_NOTHROW(group.wait());
}

TEST_CASE("task_group that ends without wait leaves its exception to the handler") {
  failure_log log;
  elastic_pool pool(2, {.on_exception = log.handler()});
  {
    task_group group(pool);
    group.run([] { throw std::runtime_error("nobody waited"); });
  }
  CHECK(log.texts() == std::multiset<std::string>{"nobody waited"});
  std::atomic<int> ran{0};
  {
    task_group group(pool);
    group.run([&] { ran.fetch_add(1); });
    group.wait();
    for (int i = 0; i < 20; ++i)
      group.run([&] { ran.fetch_add(1); });
  }
  CHECK(ran.load() == 21);
}

TEST_CASE("task_group runs its tasks in the caller when the pool is stopped or full") {
  elastic_pool pool(1);
  pool.stop();
  task_group group(pool);
  const std::thread::id caller = std::this_thread::get_id();
  int ran = 0;
  for (int i = 0; i < 5; ++i) {
    group.run([&] { ran += std::this_thread::get_id() == caller ? 1 : 100; });
    CHECK(ran == i + 1);
  }
  group.wait();
}

TEST_CASE("task_group waits for its tickets, however they are spent") {
  elastic_pool pool(1);
  task_group group(pool);
  auto finished = group.take_ticket();
  auto moved = group.take_ticket();
  CHECK(finished.valid());
  task_group::ticket kept = std::move(moved);
  CHECK_FALSE(moved.valid());
  CHECK(kept.valid());
  std::atomic<bool> waited{false};
  std::thread waiter([&] {
    group.wait();
    waited = true;
  });
  CHECK_FALSE(waited.load());
  std::move(finished).finish();
  CHECK_FALSE(finished.valid());
  CHECK_FALSE(waited.load());
  {
    const task_group::ticket ends = std::move(kept);
    CHECK_FALSE(waited.load());
  }
  waiter.join();
  CHECK(waited.load());
}

TEST_CASE("task_group wakes its waiter when the last ticket is spent elsewhere") {
  elastic_pool pool(1);
  for (std::size_t round = 0; round < veltrix_test::scale(200); ++round) {
    task_group group(pool);
    std::atomic<bool> spent{false};
    std::thread spender([&spent, last = group.take_ticket()]() mutable {
      for (int i = 0; i < 50; ++i)  // time for the waiter to fall asleep
        std::this_thread::yield();
      spent = true;
      std::move(last).finish();
    });
    group.wait();
    CHECK(spent.load());
    spender.join();
  }
}

TEST_CASE("task_group waits until a task's capture is gone") {
  struct slow_end {
    std::shared_ptr<std::atomic<bool>> gone;
    ~slow_end() {
      if (!gone) return;
      for (int i = 0; i < 100; ++i)
        std::this_thread::yield();
      *gone = true;
    }
    explicit slow_end(std::shared_ptr<std::atomic<bool>> flag) : gone(std::move(flag)) {}
    slow_end(slow_end&& other) noexcept = default;
  };
  elastic_pool pool(1);
  for (std::size_t round = 0; round < veltrix_test::scale(50); ++round) {
    const auto gone = std::make_shared<std::atomic<bool>>(false);
    std::atomic<bool> begun{false};
    task_group group(pool);
    group.run([&begun, held = slow_end(gone)] { begun = true; });
    while (!begun)  // by the worker: this thread does not wait yet
      std::this_thread::yield();
    group.wait();
    CHECK(gone->load());
  }
}

#if !VELTRIX_CHECKED
TEST_CASE("task_group ignores a ticket that is spent again in release builds") {
  elastic_pool pool(1);
  task_group group(pool);
  auto first = group.take_ticket();
  auto second = group.take_ticket();
  std::move(first).finish();
  std::move(first).finish();
  std::atomic<bool> waited{false};
  std::thread waiter([&] {
    group.wait();
    waited = true;
  });
  CHECK_FALSE(waited.load());
  std::move(second).finish();
  waiter.join();
  CHECK(waited.load());
}
#endif

namespace {

/// A coroutine that starts at once, keeps its own frame, and tells nobody.
struct detached {
  struct promise_type {
    static detached get_return_object() noexcept { return {}; }
    static std::suspend_never initial_suspend() noexcept { return {}; }
    static std::suspend_never final_suspend() noexcept { return {}; }
    static void return_void() noexcept {}
    static void unhandled_exception() { throw; }
  };
};

detached hop(elastic_pool& pool, int times, std::atomic<int>& on_worker, std::latch& ended) {
  for (int i = 0; i < times; ++i) {
    co_await pool.schedule();
    on_worker.fetch_add(pool.on_worker() ? 1 : 0);
  }
  ended.count_down();
}

detached hop_once(elastic_pool& pool, bool& cancelled) {
  try {
    co_await pool.schedule();
  } catch (const task_cancelled&) {
    cancelled = true;
  }
}

}  // namespace

TEST_CASE("elastic_pool continues a coroutine on a worker") {
  elastic_pool pool(2);
  std::atomic<int> on_worker{0};
  std::latch ended(10);
  for (int i = 0; i < 10; ++i)
    hop(pool, 50, on_worker, ended);
  ended.wait();
  CHECK(on_worker.load() == 500);
}

TEST_CASE("elastic_pool throws into a coroutine that awaits a stopped pool") {
  elastic_pool pool(1);
  pool.stop();
  bool cancelled = false;
  hop_once(pool, cancelled);
  CHECK(cancelled);
}

TEST_CASE("elastic_pool gives an executor that posts to it") {
  elastic_pool pool(1);
  const elastic_pool::executor_type where = pool.executor();
  std::atomic<int> ran{0};
  REQUIRE(where.try_post([&] { ran.fetch_add(1); }));
  detail::task work([&] { ran.fetch_add(1); });
  REQUIRE(where.try_post(std::move(work)));
  REQUIRE(pool.drain());
  CHECK(ran.load() == 2);
  CHECK(where == pool.executor());
  CHECK(&where.pool() == &pool);
}

TEST_CASE("elastic_pool knows its own workers") {
  elastic_pool pool(1);
  elastic_pool other(1);
  CHECK_FALSE(pool.on_worker());
  CHECK(pool.submit([&] { return pool.on_worker() && !other.on_worker(); }).get());
}

TEST_CASE("elastic_pool drains by its deadline or says that it did not") {
  elastic_pool pool(1);
  CHECK(pool.drain());
  {
    const held_workers held(pool, 1);
    CHECK_FALSE(pool.drain(steady_clock::now()));
    CHECK_FALSE(pool.drain(saturating_add(steady_clock::now(), std::chrono::milliseconds(2))));
  }
  CHECK(pool.drain());
}

TEST_CASE("elastic_pool answers drain from a task without waiting") {
  elastic_pool pool(1);
  CHECK(pool.submit([&] { return pool.drain(); }).get());
  std::atomic<bool> drained{true};
  REQUIRE(pool.post([&] {
    if (pool.post([] {})) drained = pool.drain();
  }));
  REQUIRE(pool.drain());
  CHECK_FALSE(drained.load());
}

TEST_CASE("elastic_pool runs what it accepted before stop and refuses the rest") {
  std::atomic<int> ran{0};
  elastic_pool pool(2);
  for (int i = 0; i < 500; ++i)
    REQUIRE(pool.post([&] { ran.fetch_add(1); }));
  pool.stop();
  CHECK(ran.load() == 500);
  const post_result refused = pool.post([&] { ran.fetch_add(1); });
  CHECK(refused.status == post_status::closed);
  CHECK(std::string(refused.why) == "the pool was stopped");
  pool.stop();
  const pool_stats state = pool.stats();
  CHECK(state.configured == 0);
  CHECK(state.running == 0);
  CHECK(state.retiring == 0);
  CHECK(state.settled());
  CHECK(ran.load() == 500);
}

TEST_CASE("elastic_pool destroyed with queued work runs it first") {
  std::atomic<int> ran{0};
  {
    elastic_pool pool(2);
    for (int i = 0; i < 500; ++i)
      REQUIRE(pool.post([&] { ran.fetch_add(1); }));
  }
  CHECK(ran.load() == 500);
}

TEST_CASE("elastic_pool stopped by its own task closes at once and is joined from outside") {
  std::atomic<int> ran{0};
  elastic_pool pool(2);
  auto stopped = pool.submit([&] {
    for (int i = 0; i < 10; ++i) {
      if (pool.post([&] { ran.fetch_add(1); })) ran.fetch_add(100);
    }
    pool.stop();
    return pool.post([] {}).status;
  });
  CHECK(stopped.get() == post_status::closed);
  pool.stop();
  CHECK(ran.load() == 1010);
  CHECK(pool.stats().running == 0);
}

TEST_CASE("elastic_pool stopped by several threads stops for each of them") {
  elastic_pool pool(3);
  std::atomic<int> ran{0};
  for (int i = 0; i < 100; ++i)
    REQUIRE(pool.post([&] { ran.fetch_add(1); }));
  std::vector<std::thread> stoppers;
  std::atomic<int> late{0};
  for (int i = 0; i < 4; ++i) {
    stoppers.emplace_back([&] {
      pool.stop();
      if (ran.load() != 100 || pool.stats().running != 0) late.fetch_add(1);
    });
  }
  for (std::thread& each : stoppers)
    each.join();
  CHECK(late.load() == 0);
}

TEST_CASE("elastic_pool runs its hooks on each worker, around its tasks") {
  std::atomic<int> started{0};
  std::atomic<int> stopped{0};
  std::atomic<std::size_t> numbers{0};
  {
    elastic_pool pool(4, {.on_start =
                              [&](std::size_t number) {
                                started.fetch_add(1);
                                numbers.fetch_add(number);
                              },
                          .on_stop = [&](std::size_t) { stopped.fetch_add(1); }});
    CHECK(started.load() == 4);
    CHECK(numbers.load() == 0 + 1 + 2 + 3);
    REQUIRE(pool.resize_by(2));
    CHECK(started.load() == 6);
    REQUIRE(pool.resize_to(1));
    CHECK(stopped.load() == 5);
  }
  CHECK(stopped.load() == 6);
}

TEST_CASE("elastic_pool hands the exception of a hook to its handler and works on") {
  failure_log log;
  {
    elastic_pool pool(2, {.on_exception = log.handler(),
                          .on_start = [](std::size_t) { throw std::runtime_error("at start"); },
                          .on_stop = [](std::size_t) { throw std::runtime_error("at stop"); }});
    CHECK(pool.submit([] { return 1; }).get() == 1);
  }
  CHECK(log.texts() == std::multiset<std::string>{"at start", "at start", "at stop", "at stop"});
}

TEST_CASE("elastic_pool lets hooks use the pool without deadlock") {
  std::atomic<int> ran{0};
  std::atomic<int> answers{0};
  elastic_pool* self = nullptr;
  const auto ask = [&](std::size_t) {
    if (self == nullptr) return;
    if (self->post([&] { ran.fetch_add(1); })) answers.fetch_add(1);
    const resize_result told = self->resize_by(1, {.deadline = no_deadline});
    if (told.status == resize_status::backoff) answers.fetch_add(100);
  };
  elastic_pool pool(1, {.on_start = ask, .on_stop = ask});
  self = &pool;
  REQUIRE(pool.resize_to(3));
  REQUIRE(pool.resize_to(1));
  REQUIRE(pool.drain());
  CHECK(answers.load() == 404);
  CHECK(ran.load() == 4);
  self = nullptr;
}

TEST_CASE("blocking_scope counts only on a worker of its pool") {
  elastic_pool pool(1);
  elastic_pool other(1);
  const blocking_scope outside(pool);
  CHECK(pool.stats().blocked == 0);
  const std::size_t inside = pool.submit([&] {
                                   const blocking_scope scope(pool);
                                   const blocking_scope elsewhere(other);
                                   return pool.stats().blocked * 10 + other.stats().blocked;
                                 })
                                 .get();
  CHECK(inside == 10);
  CHECK(pool.stats().blocked == 0);
}

TEST_CASE("elastic_pool stands beside another one that is stuck") {
  elastic_pool stuck(2, {.thread_name = "stuck", .queue_capacity = 1});
  elastic_pool free(2, {.thread_name = "free"});
  const held_workers held(stuck, 2);
  REQUIRE(stuck.post([] {}));
  CHECK(stuck.try_post([] {}).status == post_status::full);
  std::atomic<int> ran{0};
  for (int i = 0; i < 1000; ++i)
    REQUIRE(free.post([&] { ran.fetch_add(1); }));
  CHECK(free.drain(saturating_add(steady_clock::now(), std::chrono::seconds(30))));
  CHECK(free.resize_by(1));
  CHECK(free.resize_by(-2));
  CHECK(ran.load() == 1000);
}

TEST_CASE("elastic_pool agrees with a plain model over random posts on one worker") {
  const std::uint64_t seed = std::random_device{}();
  CAPTURE(seed);
  veltrix_test::random_source random(seed);
  std::vector<int> wanted;
  std::vector<int> order;
  std::uint64_t posted = 0;
  elastic_pool pool(1, {.queue_capacity = 16});
  for (std::size_t step = 0; step < veltrix_test::scale(3000); ++step) {
    const int value = static_cast<int>(step);
    switch (random.below(4)) {
      case 0: {
        REQUIRE(pool.post([&order, value] { order.push_back(value); }));
        wanted.push_back(value);
        ++posted;
        break;
      }
      case 1: {
        const post_result told = pool.try_post([&order, value] { order.push_back(value); });
        REQUIRE(told.status != post_status::closed);
        if (told) wanted.push_back(value);
        posted += told ? 1 : 0;
        break;
      }
      case 2: {
        std::vector<detail::task> some;
        for (std::uint64_t i = random.below(40); i > 0; --i)
          some.emplace_back([&order, value] { order.push_back(value); });
        wanted.insert(wanted.end(), some.size(), value);
        posted += some.size();
        REQUIRE(pool.post_bulk(some).accepted == some.size());
        break;
      }
      default: {
        REQUIRE(pool.drain());
        REQUIRE(order == wanted);
        REQUIRE(pool.stats().completed == posted);
      }
    }
  }
  REQUIRE(pool.drain());
  CHECK(order == wanted);
  CHECK(pool.stats().posted == posted);
}

TEST_CASE("elastic_pool that cannot be built for lack of memory leaves nothing behind") {
  const int failures = veltrix_test::fail_each_allocation(
      [] { const elastic_pool pool(3, {.thread_name = "vx-a"}); },
      [] { CHECK(veltrix_test::listed_threads("vx-a") == 0); });
  CHECK(failures > 3);
}

TEST_CASE("elastic_pool is unchanged when a growth lacks memory") {
  elastic_pool pool(2, {.thread_name = "vx-a"});
  resize_result grown;
  const int failures =
      veltrix_test::fail_each_allocation([&] { grown = pool.resize_to(6); },
                                         [&] {
                                           const pool_stats state = pool.stats();
                                           CHECK(state.settled());
                                           CHECK(state.running == 2);
                                           CHECK(state.generation == 1);
                                           CHECK(veltrix_test::listed_threads("vx-a") == 2);
                                         });
  CHECK(failures > 3);
  CHECK(grown.status == resize_status::ack);
  CHECK(pool.stats().running == 6);
}

TEST_CASE("elastic_pool answers a change that it took though it lacks memory to tell of it") {
  elastic_pool pool(3);
  const held_workers held(pool, 3);
  resize_result told;
  CHECK(veltrix_test::fail_each_allocation(
            [&] { told = pool.resize_to(1, {.deadline = steady_clock::now()}); }, [] {}) == 0);
  CHECK(told.status == resize_status::backoff);
  CHECK(told.reason == backoff_reason::settling);
  CHECK(told.target == 1);
  CHECK(told.running == 3);
  CHECK(told.retiring == 2);
  CHECK(told.retry_after > duration::zero());
  CHECK(told.message.empty());
}

TEST_CASE("elastic_pool accepts nothing when posting lacks memory") {
  elastic_pool pool(1);
  std::atomic<int> ran{0};
  const std::array<char, 200> large{};
  const auto work = [large, &ran] { ran.fetch_add(1 + large[0]); };
  post_result told;
  const auto nothing_taken = [&] { CHECK(pool.stats().posted == 0); };
  CHECK(veltrix_test::fail_each_allocation([&] { told = pool.post(work); }, nothing_taken) > 0);
  CHECK(told);
  REQUIRE(pool.drain());
  CHECK(ran.load() == 1);
  CHECK(pool.stats().posted == 1);
}

TEST_CASE("elastic_pool refuses an empty task, alone and in a bulk") {
  elastic_pool pool(1);
  veltrix::task empty;
  CHECK_THROWS_AS(pool.post(empty), std::invalid_argument);
  CHECK_THROWS_AS(pool.try_post(veltrix::task()), std::invalid_argument);
  veltrix::task tasks[3] = {veltrix::task([] {}), veltrix::task(), veltrix::task([] {})};
  CHECK_THROWS_AS(pool.post_bulk(tasks), std::invalid_argument);
  CHECK(static_cast<bool>(tasks[0]));
  CHECK(pool.stats().posted == 0);
}

TEST_CASE("elastic_pool parallel_for counts in the type that holds both ends") {
  elastic_pool pool(2);
  const std::uint64_t far = (std::uint64_t{1} << 32) + 10;
  std::atomic<std::uint64_t> sum{0};
  pool.parallel_for(far - 10, far, [&](std::uint64_t i) { sum.fetch_add(i); });
  CHECK(sum.load() == 10 * far - 55);
  std::atomic<int> calls{0};
  pool.parallel_for(0, std::uint64_t{5}, [&](auto i) {
    static_assert(std::same_as<decltype(i), std::uint64_t>);
    calls.fetch_add(1);
  });
  pool.parallel_for(-3, std::int64_t{2}, [&](std::int64_t i) { calls.fetch_add(i < 0 ? 10 : 1); });
  CHECK(calls.load() == 37);
  pool.parallel_for(5, 0U, [&](auto) { calls.fetch_add(1); });
  CHECK(calls.load() == 37);
  CHECK_THROWS_AS(pool.parallel_for(-1, 2U, [&](auto) { calls.fetch_add(1); }),
                  std::invalid_argument);
  CHECK(calls.load() == 37);
}

TEST_CASE("elastic_pool calls a worker for the part of a bulk that memory sufficed for") {
  elastic_pool pool(2, {.thread_name = "vx-b"});
  std::atomic<bool> others_ran{true};
  auto attempts = pool.submit([&] {
    return veltrix_test::fail_each_allocation(
        [&] {
          const long granted = std::exchange(veltrix_test::allocations_left, -1);
          static_cast<void>(eventually([] { return veltrix_test::sleeping_threads("vx-b") == 1; }));
          detail::task tasks[40];
          for (detail::task& each : tasks)
            each = detail::task([] {});
          veltrix_test::allocations_left = granted;
          static_cast<void>(pool.post_bulk(tasks));
        },
        [&] {
          if (!eventually([&] { return pool.stats().queued == 0; })) others_ran = false;
        });
  });
  CHECK(attempts.get() > 1);
  CHECK(others_ran);
}

TEST_CASE("elastic_pool runs nothing of a submit that lacks memory to begin") {
  elastic_pool pool(1);
  std::atomic<int> ran{0};
  const auto nothing_ran = [&] { CHECK(ran.load() == 0); };
  task_handle<void> handle;
  CHECK(veltrix_test::fail_each_allocation([&] { handle = pool.submit([&] { ran.fetch_add(1); }); },
                                           nothing_ran) > 0);
  handle.get();
  CHECK(ran.load() == 1);
}

TEST_CASE("task_group adds nothing when run lacks memory") {
  elastic_pool pool(1);
  std::atomic<int> ran{0};
  task_group group(pool);
  CHECK(veltrix_test::fail_each_allocation([&] { group.run([&] { ran.fetch_add(1); }); },
                                           [&] {
                                             group.wait();
                                             CHECK(ran.load() == 0);
                                           }) > 0);
  group.wait();
  CHECK(ran.load() == 1);
}

TEST_CASE("elastic_pool allocates nothing for a small capture once its queue has grown") {
  elastic_pool pool(1);
  std::atomic<int> ran{0};
  REQUIRE(pool.post([&ran] { ran.fetch_add(1); }));
  REQUIRE(pool.drain());
  const std::size_t before = veltrix_test::allocations_made;
  for (int i = 0; i < 30; ++i)
    REQUIRE(pool.post([&ran] { ran.fetch_add(1); }));
  const std::size_t made = veltrix_test::allocations_made - before;
  CHECK(made == 0);
}

TEST_CASE("elastic_pool destroyed by its own task says so and aborts") {
  const veltrix_test::ending seen = veltrix_test::run_to_its_end([] {
    auto* const pool = new elastic_pool(1);
    pool->submit([pool] { delete pool; }).wait();
  });
  CHECK(seen.aborted);
  CHECK(seen.told.find("destroyed by a task of its own") != std::string::npos);
}

#if VELTRIX_CHECKED
TEST_CASE("task_group names both places of a ticket that is spent twice in checked builds") {
  const veltrix_test::ending seen = veltrix_test::run_to_its_end([] {
    elastic_pool pool(1);
    task_group group(pool);
    auto ticket = group.take_ticket();
    std::move(ticket).finish("first.cpp", 11);
    std::move(ticket).finish("second.cpp", 22);
  });
  CHECK(seen.aborted);
  CHECK(seen.told.find("first by first.cpp:11, now by second.cpp:22") != std::string::npos);
}

TEST_CASE("task_handle that is empty is misuse in checked builds") {
  const veltrix_test::ending seen = veltrix_test::run_to_its_end([] {
    task_handle<int> empty;
    static_cast<void>(empty.get());
  });
  CHECK(seen.aborted);
  CHECK(seen.told.find("task_handle::get() on an empty handle") != std::string::npos);
}
#endif
