// SPDX-License-Identifier: BSL-1.0
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/coroutines.hpp"
#include "support/hand_executor.hpp"
#include "veltrix/retry.hpp"

using namespace std::chrono_literals;
using namespace veltrix;

namespace {

/// Keeps what is posted until told; can refuse, or take and drop.
struct manual_executor {
  enum class mode { keep, full, drop };

  std::deque<detail::task> kept{};
  mode answer = mode::keep;
  std::size_t posted = 0;

  post_result try_post(detail::task work) {
    ++posted;
    if (answer == mode::full) return {post_status::full, "the queue holds 8 of 8 tasks"};
    if (answer == mode::keep) kept.push_back(std::move(work));
    return {};
  }
  void run_all() {
    while (!kept.empty()) {
      detail::task next = std::move(kept.front());
      kept.pop_front();
      next();
    }
  }
};
static_assert(executor<manual_executor>);

/// Collects outcomes; a second one for the same call would show.
template <class R>
struct collector {
  std::shared_ptr<std::vector<outcome<R>>> got = std::make_shared<std::vector<outcome<R>>>();
  void operator()(outcome<R> told) const { got->push_back(std::move(told)); }
};

constexpr retry steady_retry{.attempts = 4, .delay = constant{100ms}};

}  // namespace

TEST_CASE("retry_async run_on keeps the schedule on timers and holds no worker while it waits") {
  virtual_clock clock;
  manual_executor pool;
  collector<bool> done;
  std::vector<duration> made;
  const time_point start = clock.now();
  (deadline{10s} | steady_retry)
      .run_on(
          pool, env{clock},
          [&] {
            made.push_back(clock.now() - start);
            return made.size() == 3;
          },
          done);
  CHECK(made.empty());  // nothing runs in the caller
  pool.run_all();
  CHECK(made.size() == 1);
  CHECK(pool.kept.empty());
  CHECK(clock.pending_timers() == 1);
  for (int i = 0; i < 2; ++i) {
    clock.advance(100ms);
    pool.run_all();
  }
  REQUIRE(done.got->size() == 1);
  CHECK(done.got->front());
  CHECK(done.got->front().attempts() == 3);
  CHECK(done.got->front().elapsed() == 200ms);
  CHECK(made == std::vector<duration>{0ms, 100ms, 200ms});
  CHECK(clock.pending_timers() == 0);
}

TEST_CASE("retry_async run_on carries two hundred calls through one thread") {
  virtual_clock clock;
  inline_executor here;
  circuit_breaker breaker({.open_first = 400ms, .open_longest = 400ms}, small_random(3));
  const auto policy = deadline{30s} |
                      retry{.attempts = retry::any_number, .delay = constant{50ms}} |
                      guard{breaker, on_open::wait};
  const time_point start = clock.now();
  const time_point back = start + 10s;
  std::size_t during_outage = 0;
  collector<bool> done;
  for (std::uint64_t call = 0; call < 200; ++call) {
    policy.run_on(
        here, env(clock, stop_token(), small_random(call)),
        [&] {
          if (clock.now() < back) ++during_outage;
          return clock.now() >= back;
        },
        done);
  }
  clock.advance(30s);
  REQUIRE(done.got->size() == 200);
  for (const outcome<bool>& told : *done.got)
    CHECK(told);
  // Ten open the breaker; the others wait for it. Then a probe each 200 to 400 ms or more.
  CHECK(during_outage >= 10);
  CHECK(during_outage <= 10 + 50);
}

TEST_CASE("retry_async run_on ends when the token stops, without waiting for the timer") {
  virtual_clock clock;
  inline_executor here;
  stop_source stop;
  collector<bool> done;
  retry_budget tokens({.ratio = 0.0, .per_second = 0.0, .burst = 10});
  (deadline{10s} | steady_retry | budget{tokens})
      .run_on(here, env(clock, stop.get_token()), [] { return false; }, done);
  CHECK(done.got->empty());
  CHECK(tokens.stats().granted == 1);
  stop.request_stop();
  REQUIRE(done.got->size() == 1);
  CHECK(tokens.stats().granted == 0);  // given back at once, though the timer keeps the call
  CHECK(clock.pending_timers() == 1);
  CHECK(done.got->front().reason() == stop_reason::stopped);
  CHECK(done.got->front().attempts() == 1);
  clock.advance(1s);  // the timer finds nothing to do
  CHECK(done.got->size() == 1);

  (deadline{10s} | steady_retry)
      .run_on(here, env(clock, stop.get_token()), [] { return true; }, done);
  REQUIRE(done.got->size() == 2);
  CHECK(done.got->back().attempts() == 0);
}

TEST_CASE("retry_async run_on ends with the executor's reason when it takes no more") {
  virtual_clock clock;
  manual_executor pool;
  collector<bool> done;
  retry_budget tokens({.ratio = 0.0, .per_second = 0.0, .burst = 10});
  const auto policy = deadline{10s} | steady_retry | budget{tokens};
  policy.run_on(pool, env{clock}, [] { return false; }, done);
  pool.run_all();
  pool.answer = manual_executor::mode::full;
  clock.advance(100ms);
  REQUIRE(done.got->size() == 1);
  const outcome<bool>& told = done.got->front();
  CHECK(told.reason() == stop_reason::not_run);
  CHECK(told.attempts() == 1);
  CHECK(told.message() == "veltrix: retry: not_run after 1 attempt; the queue holds 8 of 8 tasks");
  CHECK(tokens.stats().granted == 0);  // the retry it had paid for was not made

  policy.run_on(pool, env{clock}, [] { return true; }, done);
  REQUIRE(done.got->size() == 2);
  CHECK(done.got->back().attempts() == 0);
}

TEST_CASE("retry_async run_on completes once for every way an executor has to refuse") {
  using mood = veltrix_test::hand_executor::mood;
  for (const mood refusing : {mood::full, mood::full_and_destroys, mood::closed, mood::throws}) {
    for (const bool at_start : {true, false}) {
      virtual_clock clock;
      veltrix_test::hand_executor pool;
      collector<bool> done;
      if (at_start) pool.now = refusing;
      (deadline{10s} | steady_retry).run_on(pool, env{clock}, [] { return false; }, done);
      pool.run_all();
      pool.now = refusing;
      clock.advance(100ms);
      REQUIRE(done.got->size() == 1);
      CHECK(done.got->front().reason() == stop_reason::not_run);
      CHECK(done.got->front().attempts() == (at_start ? 0 : 1));
    }
  }
}

TEST_CASE("retry_async run_on without memory throws before the call, or completes once") {
  int failures = 0;
  int thrown = 0;
  for (int granted = 0;; ++granted) {
    virtual_clock clock;
    inline_executor here;
    int completions = 0;
    stop_reason reason = stop_reason::success;
    veltrix_test::allocations_left = granted;
    bool started = true;
    try {
      (deadline{10s} | steady_retry)
          .run_on(
              here, env{clock}, [](attempt& each) { return each.index() == 2; },
              [&](const outcome<bool>& told) {
                ++completions;
                reason = told.reason();
              });
    } catch (const std::bad_alloc&) {
      started = false;
    }
    veltrix_test::allocations_left = -1;
    clock.advance(1s);
    REQUIRE(completions == (started ? 1 : 0));
    if (started && reason == stop_reason::success) break;
    if (started) CHECK(reason == stop_reason::not_run);
    ++(started ? failures : thrown);
  }
  CHECK(thrown == 1);    // the call itself
  CHECK(failures >= 1);  // the timer
}

TEST_CASE("retry_async run_on ends when executor or timers drop what they took") {
  manual_executor pool;
  collector<bool> done;
  {
    virtual_clock clock;
    pool.answer = manual_executor::mode::drop;  // accepted, and destroyed at once
    (deadline{10s} | steady_retry).run_on(pool, env{clock}, [] { return true; }, done);
    REQUIRE(done.got->size() == 1);
    CHECK(done.got->back().reason() == stop_reason::not_run);

    pool.answer = manual_executor::mode::keep;
    (deadline{10s} | steady_retry).run_on(pool, env{clock}, [] { return true; }, done);
    pool.kept.clear();  // accepted, and destroyed later
    REQUIRE(done.got->size() == 2);
    CHECK(done.got->back().message() ==
          "veltrix: retry: not_run after 0 attempts; the executor dropped the task");

    (deadline{10s} | steady_retry).run_on(pool, env{clock}, [] { return false; }, done);
    pool.run_all();
    CHECK(done.got->size() == 2);
  }
  REQUIRE(done.got->size() == 3);  // the clock ended with its timer
  CHECK(done.got->back().message() ==
        "veltrix: retry: not_run after 1 attempt; the timer was dropped");
}

TEST_CASE("retry_async run_on delivers an exception that nothing caught, and frees the probe") {
  virtual_clock clock;
  inline_executor here;
  collector<bool> done;
  circuit_breaker breaker({.window = 1, .min_samples = 1});
  breaker.enter(clock).pass.failure(clock.now());
  clock.advance(1s);
  const auto policy = deadline{10s} | steady_retry | guard{breaker};
  policy.run_on(here, env{clock}, []() -> bool { throw std::runtime_error("boom"); }, done);
  REQUIRE(done.got->size() == 1);
  outcome<bool>& told = done.got->front();
  CHECK(told.reason() == stop_reason::threw);
  CHECK_FALSE(told.has_result());
  CHECK_THROWS_WITH(told.value(), "boom");
  CHECK(breaker.enter(clock));
}

TEST_CASE("retry_async run_on lets an exception of the completion reach the executor, once") {
  virtual_clock clock;
  inline_executor here;
  int completions = 0;
  const auto start = [&] {
    (deadline{10s} | steady_retry)
        .run_on(
            here, env{clock}, [] { return true; },
            [&](const outcome<bool>&) {
              ++completions;
              throw std::logic_error("completion");
            });
  };
  CHECK_THROWS_AS(start(), std::logic_error);
  CHECK(completions == 1);
}

namespace {

/// Timers that do their worst while they are being armed.
struct hasty_timers {
  enum class mode { fire, drop, stop, fail };

  mode what;
  stop_source stop{};
  time_point at{1h};
  bool arming = false;
  detail::task kept{};

  [[nodiscard]] time_point now() const { return at; }
  void call_at(time_point due, detail::task callback) {
    arming = true;
    at = due;
    if (what == mode::fire) callback();
    if (what == mode::stop) stop.request_stop();
    if (what == mode::fail) throw std::bad_alloc();
    if (what == mode::stop) kept = std::move(callback);
    callback.reset();
    arming = false;
  }
};

}  // namespace

TEST_CASE("retry_async run_on ends no call while its timer is being armed") {
  const auto reason_with = [](hasty_timers::mode what) {
    hasty_timers timers{what};
    inline_executor here;
    std::vector<stop_reason> ended;
    (deadline{10s} | steady_retry)
        .run_on(
            here, env(timers, timers.stop.get_token()),
            [](attempt& each) { return each.index() == 3; },
            [&](const outcome<bool>& told) {
              CHECK((what == hasty_timers::mode::fail || !timers.arming));
              ended.push_back(told.reason());
            });
    REQUIRE(ended.size() == 1);
    return ended.front();
  };
  CHECK(reason_with(hasty_timers::mode::fire) == stop_reason::success);
  CHECK(reason_with(hasty_timers::mode::drop) == stop_reason::not_run);
  CHECK(reason_with(hasty_timers::mode::stop) == stop_reason::stopped);
  CHECK(reason_with(hasty_timers::mode::fail) == stop_reason::not_run);
}

TEST_CASE("retry_async run_on obeys a reload in the middle of a call") {
  virtual_clock clock;
  inline_executor here;
  collector<bool> done;
  std::uint32_t allowed = 100;
  from([&] {
    return deadline{10s} | retry{.attempts = allowed, .delay = constant{100ms}};
  }).run_on(here, env{clock}, [] { return false; }, done);
  clock.advance(200ms);
  allowed = 4;
  clock.advance(10s);
  REQUIRE(done.got->size() == 1);
  CHECK(done.got->front().attempts() == 4);
}

// --- timer_queue ---------------------------------------------------------------------------------

namespace {

/// Lets a test wait for another thread.
struct latch_of_one {
  void set() {
    const std::lock_guard lock(mutex);
    is_set = true;
    changed.notify_all();
  }
  bool wait() {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, 30s, [&] { return is_set; });
  }
  std::mutex mutex{};
  std::condition_variable changed{};
  bool is_set = false;
};

}  // namespace

TEST_CASE("timer_queue runs callbacks in the order of their times and not before them") {
  std::vector<int> order;
  latch_of_one all;
  timer_queue timers;
  const time_point start = timer_queue::now();
  time_point last{};
  timers.call_at(start + 20ms, [&] {
    order.push_back(3);
    last = timer_queue::now();
    all.set();
  });
  timers.call_at(start + 5ms, [&] { order.push_back(1); });
  timers.call_at(start + 5ms, [&] { order.push_back(2); });
  timers.call_at(start - 1s, [&] { order.push_back(0); });
  REQUIRE(all.wait());
  CHECK(last - start >= 20ms);
  CHECK(order == std::vector<int>{0, 1, 2, 3});
  CHECK(timers.pending_timers() == 0);
}

TEST_CASE("timer_queue destroys pending callbacks unrun") {
  auto counted = std::make_shared<int>(0);
  {
    timer_queue timers;
    timers.call_at(timer_queue::now() + 1h, [counted] { ++*counted; });
    timers.call_at(no_deadline, [counted] { ++*counted; });
    CHECK(timers.pending_timers() == 2);
    CHECK(counted.use_count() == 3);
  }
  CHECK(*counted == 0);
  CHECK(counted.use_count() == 1);
}

TEST_CASE("retry_async run_on works with real timers, and its queue may end under a waiting call") {
  inline_executor here;
  latch_of_one ended;
  collector<bool> done;
  int calls = 0;
  {
    timer_queue timers;
    (deadline{10s} | retry{.attempts = 3, .delay = constant{1ms}})
        .run_on(
            here, env{timers}, [&] { return ++calls == 3; },
            [&](outcome<bool> told) {
              done(std::move(told));
              ended.set();
            });
    REQUIRE(ended.wait());
    CHECK(done.got->front());
    (deadline{10h} | retry{.delay = constant{1h}})
        .run_on(here, env{timers}, [] { return false; }, done);
    CHECK(done.got->size() == 1);
  }
  REQUIRE(done.got->size() == 2);
  CHECK(done.got->back().reason() == stop_reason::not_run);
}

// --- co_await ------------------------------------------------------------------------------------

#if defined(__cpp_impl_coroutine)
namespace {

using veltrix_test::fire_and_forget;

struct waiting_call {
  virtual_clock& clock;
  manual_executor& pool;
  std::vector<std::string>& log;

  fire_and_forget run() const {
    const auto policy = deadline{10s} | steady_retry;
    int calls = 0;
    const outcome<bool> told =
        co_await policy.awaited(pool, env{clock}, [&] { return ++calls == 2; });
    log.push_back(told.message());
    try {
      const outcome<bool> thrown = co_await policy.awaited(
          pool, env{clock}, []() -> bool { throw std::runtime_error("through"); });
      log.push_back(thrown.message());
    } catch (const std::runtime_error& error) {
      log.emplace_back(error.what());
    }
  }
};

}  // namespace

TEST_CASE(
    "retry_async is awaitable: the coroutine resumes with the outcome, or with the exception") {
  virtual_clock clock;
  manual_executor pool;
  std::vector<std::string> log;
  const waiting_call call{clock, pool, log};
  call.run();
  pool.run_all();
  CHECK(log.empty());
  clock.advance(100ms);
  pool.run_all();
  CHECK(log ==
        std::vector<std::string>{"veltrix: retry: success after 2 attempts in 100 ms", "through"});
}
#endif
