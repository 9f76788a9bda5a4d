// SPDX-License-Identifier: BSL-1.0
#include "veltrix/retry.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"
#include "support/scale.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#endif

using namespace std::chrono_literals;
using namespace veltrix;

namespace {

// --- static promises -----------------------------------------------------------------------------

using plain_policy = decltype(deadline{2s} | retry{});
static_assert(std::is_copy_constructible_v<plain_policy> &&
              std::is_copy_assignable_v<plain_policy>);
static_assert(!std::is_copy_constructible_v<attempt>);
static_assert(policy_layer<deadline> && policy_layer<guard> && !policy_layer<int>);
static_assert(timer_source<timer_queue> && timer_source<virtual_clock>);
static_assert(!timer_source<steady_clock>);
static_assert(!std::is_copy_constructible_v<timer_queue>);

// --- helpers -------------------------------------------------------------------------------------

/// A clock for one thread: sleeping moves it, and every reading and sleep is seen.
struct script_clock {
  time_point at{1h};
  int readings = 0;
  std::vector<time_point> sleeps{};

  time_point now() {
    ++readings;
    return at;
  }
  bool sleep_until(time_point until, const stop_token& token) {
    sleeps.push_back(until);
    if (token.stop_requested()) return false;
    at = std::max(at, until);
    return true;
  }
  [[nodiscard]] duration passed() const { return at - time_point(1h); }
};

std::string refusal(auto build) {
  try {
    static_cast<void>(build());
  } catch (const std::invalid_argument& refused) {
    return refused.what();
  }
  return "not refused";
}

/// Fails `failures` times, then succeeds; notes when each attempt was made.
struct flaky {
  script_clock& clock;
  int failures;
  std::vector<duration> made{};

  bool operator()() {
    made.push_back(clock.passed());
    return failures-- <= 0;
  }
};

constexpr retry steady_retry{.attempts = 4, .delay = constant{100ms}};

struct reply {
  int status;
  duration retry_after{};
};
verdict classify(const reply& got) {
  if (got.status < 400) return verdict::success();
  if (got.status == 503) return verdict::transient(got.retry_after);
  return got.status < 500 ? verdict::ignored() : verdict::permanent();
}

}  // namespace

// --- the successful path -------------------------------------------------------------------------

TEST_CASE("retry success reads no clock without a time limit and one with") {
  script_clock clock;
  stop_source stop;
  env where(clock, stop.get_token());
  circuit_breaker breaker;
  retry_budget tokens;
  const auto endless = until_stopped{} | retry{} | guard{breaker} | budget{tokens};
  const auto limited = deadline{2s} | retry{} | guard{breaker} | attempt_timeout{100ms};
  for (int i = 0; i < 50; ++i)
    CHECK(endless.run(where, [] { return true; }));
  CHECK(clock.readings == 0);
  const outcome<bool> told = limited.run(where, [] { return true; });
  CHECK(told);
  CHECK(clock.readings == 1);
  CHECK(told.attempts() == 1);
  CHECK(told.reason() == stop_reason::success);
  CHECK(told.message() == "veltrix: retry: success after 1 attempt");
}

TEST_CASE("retry success allocates nothing") {
  circuit_breaker breaker;
  retry_budget tokens;
  bulkhead places(4);
  const auto policy = deadline{2s} | retry{} | guard{breaker, on_open::wait} | budget{tokens} |
                      limit{places} | attempt_timeout{100ms} | catching<std::runtime_error>();
  const std::size_t before = veltrix_test::allocations_made;
  int good = 0;
  for (int i = 0; i < 100; ++i)
    good += policy.run([](attempt& each) { return each.index() == 1; }) ? 1 : 0;
  CHECK(veltrix_test::allocations_made == before);
  CHECK(good == 100);
}

#if defined(__linux__)
TEST_CASE("retry success writes nothing that calls share") {
  struct shared_state {
    circuit_breaker breaker;
    retry_budget tokens;
  };
  const std::size_t page = 4096;
  static_assert(sizeof(shared_state) <= page);
  void* const memory =
      ::mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  REQUIRE(memory != MAP_FAILED);
  auto* const shared = ::new (memory) shared_state;
  const auto policy = deadline{2s} | retry{} | guard{shared->breaker} | budget{shared->tokens};
  int good = 0;
  for (int i = 0; i < 100; ++i)  // fills the breaker's window
    good += policy.run([] { return true; }) ? 1 : 0;
  REQUIRE(::mprotect(memory, page, PROT_READ) == 0);  // from here a write is a crash
  for (int i = 0; i < 100; ++i)
    good += policy.run([] { return true; }) ? 1 : 0;
  REQUIRE(::mprotect(memory, page, PROT_READ | PROT_WRITE) == 0);
  CHECK(good == 200);
  shared->~shared_state();
  ::munmap(memory, page);
}
#endif

// --- schedules -----------------------------------------------------------------------------------

TEST_CASE("retry keeps the exact schedule of its delays") {
  script_clock clock;
  flaky service{clock, 3};
  const auto policy = deadline{10s} | retry{.attempts = 5, .delay = exponential{100ms}};
  const outcome<bool> told = policy.run(env{clock}, service);
  CHECK(told);
  CHECK(told.attempts() == 4);
  CHECK(told.elapsed() == 700ms);
  CHECK(service.made == std::vector<duration>{0ms, 100ms, 300ms, 700ms});
}

TEST_CASE("retry stops after the allowed attempts and says so") {
  script_clock clock;
  flaky service{clock, 100};
  const outcome<bool> told = (deadline{2s} | steady_retry).run(env{clock}, service);
  CHECK_FALSE(told);
  CHECK(told.reason() == stop_reason::attempts_exhausted);
  CHECK(told.attempts() == 4);
  CHECK(told.has_result());
  CHECK_FALSE(*told);
  CHECK(told.message() ==
        "veltrix: retry: attempts_exhausted after 4 attempts in 300 ms; allowed 4 attempts");
}

TEST_CASE("retry stops at once when the next delay does not fit the deadline") {
  script_clock clock;
  flaky service{clock, 100};
  const outcome<bool> told = (deadline{250ms} | steady_retry).run(env{clock}, service);
  CHECK(told.reason() == stop_reason::deadline);
  CHECK(told.attempts() == 3);
  CHECK(clock.passed() == 200ms);  // it did not sleep for the 100 ms that do not fit
  CHECK(told.message() ==
        "veltrix: retry: deadline after 3 attempts in 200 ms; allowed 250 ms in all; the next "
        "delay does not fit: 100 ms");
}

TEST_CASE("retry makes no attempt at or after the deadline") {
  script_clock clock;
  flaky exact{clock, 100};
  CHECK((deadline{200ms} | steady_retry).run(env{clock}, exact).attempts() == 2);

  env late(clock);
  late.within(clock.at - 1ns);
  flaky never{clock, 0};
  const outcome<bool> told = (deadline{1s} | steady_retry).run(late, never);
  CHECK(told.reason() == stop_reason::deadline);
  CHECK(told.attempts() == 0);
  CHECK_FALSE(told.has_result());
  CHECK(never.made.empty());
  CHECK(told.message() ==
        "veltrix: retry: deadline after 0 attempts; allowed 0 s in all; nothing is left of it");

  late.within(clock.at);  // at the deadline itself
  CHECK((deadline{1s} | steady_retry).run(late, never).attempts() == 0);
  CHECK(never.made.empty());
}

TEST_CASE("retry defaults are three attempts and full jitter from 100 ms to 1 s") {
  const retry defaults;
  CHECK(defaults.attempts == 3);
  CHECK(defaults.delay == (exponential{100ms} | capped{1s} | full_jitter{}));
  CHECK(defaults.declared_outage == 0s);
}

TEST_CASE("retry with the same seed and a virtual clock repeats exactly") {
  const auto trace = [](std::uint64_t seed) {
    virtual_clock clock(virtual_sleep::advances);
    env where(clock, stop_token(), small_random(seed));
    const auto policy = deadline{1h} | retry{.attempts = 6};
    std::vector<duration> made;
    for (int call = 0; call < 5; ++call) {
      static_cast<void>(policy.run(where, [&] {
        made.push_back(clock.now().time_since_epoch());
        return false;
      }));
    }
    return made;
  };
  CHECK(trace(1) == trace(1));
  CHECK(trace(1) != trace(2));
}

// --- told waits ----------------------------------------------------------------------------------

TEST_CASE("retry never tries before a told wait has passed") {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    script_clock clock;
    std::vector<duration> made;
    const auto policy = deadline{60s} | retry{.attempts = 3, .delay = constant{100ms}};
    env where(clock, stop_token(), small_random(seed));
    const outcome<reply> told = policy.run(where, [&] {
      made.push_back(clock.passed());
      return reply{made.size() == 3 ? 200 : 503, 2s};
    });
    CHECK(told);
    REQUIRE(made.size() == 3);
    for (int i = 0; i < 2; ++i) {
      const duration gap =
          made[static_cast<std::size_t>(i) + 1] - made[static_cast<std::size_t>(i)];
      CHECK(gap >= 2s);
      CHECK(gap <= 3s);
    }
  }
}

TEST_CASE("retry stops without sleeping when a told wait does not fit the deadline") {
  script_clock clock;
  const outcome<reply> told =
      (deadline{2s} | retry{}).run(env{clock}, [] { return reply{503, 2s}; });
  CHECK(told.reason() == stop_reason::deadline);
  CHECK(told.attempts() == 1);
  CHECK(clock.sleeps.empty());
  CHECK(told.retry_after() == 2s);
  CHECK(told->status == 503);
  CHECK(told.message() ==
        "veltrix: retry: deadline after 1 attempt; allowed 2 s in all; the dependency asked for a "
        "wait that does not fit: 2 s");
}

TEST_CASE("retry spends the spread of a told wait only inside the deadline") {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    script_clock clock;
    const auto policy = deadline{2s} | retry{.attempts = 2, .delay = constant{1ms}};
    const outcome<reply> told =
        policy.run(env(clock, stop_token(), small_random(seed)), [] { return reply{503, 1900ms}; });
    CHECK(told.attempts() == 2);
    CHECK(clock.passed() >= 1900ms);
    CHECK(clock.passed() < 2s);
  }
}

// --- verdicts ------------------------------------------------------------------------------------

TEST_CASE("retry judges a result by its own classify function") {
  script_clock clock;
  const auto policy = deadline{2s} | steady_retry;
  const auto answer = [&](int status) {
    return policy.run(env{clock}, [status] { return reply{status}; });
  };
  CHECK(answer(200).reason() == stop_reason::success);
  CHECK(answer(503).reason() == stop_reason::attempts_exhausted);
  CHECK(answer(500).reason() == stop_reason::permanent);
  CHECK(answer(500).attempts() == 1);
  CHECK(answer(404).reason() == stop_reason::ignored);
  CHECK_FALSE(answer(404));
  CHECK(answer(404)->status == 404);
}

TEST_CASE("retry judges optional and bool by themselves, and anything by classifying") {
  script_clock clock;
  const auto policy = deadline{2s} | steady_retry;
  int calls = 0;
  const auto found = policy.run(env{clock}, [&]() -> std::optional<int> {
    return ++calls < 3 ? std::nullopt : std::optional(7);
  });
  CHECK(found);
  CHECK(found.attempts() == 3);
  CHECK(**found == 7);

  const auto even = policy | classifying([](int got) {
                      return got % 2 == 0 ? verdict::success() : verdict::transient();
                    });
  int next = 1;
  const outcome<int> number = even.run(env{clock}, [&] { return next++; });
  CHECK(*number == 2);
  CHECK(number.attempts() == 2);
}

TEST_CASE("retry lets exceptions through unless catching names them") {
  script_clock clock;
  const auto policy = deadline{2s} | steady_retry | catching<std::runtime_error>();
  int calls = 0;
  const auto failing = [&](auto error) {
    calls = 0;
    return [&calls, error]() -> int {
      ++calls;
      throw error;
    };
  };
  CHECK_THROWS_AS(policy.run(env{clock}, failing(std::logic_error("not named"))), std::logic_error);
  CHECK(calls == 1);

  const outcome<int> told = policy.run(env{clock}, failing(std::range_error("named by its base")));
  CHECK(calls == 4);
  CHECK(told.reason() == stop_reason::attempts_exhausted);
  CHECK_FALSE(told.has_result());
  CHECK(told.error() != nullptr);
  CHECK_THROWS_AS(told.value(), std::range_error);
}

TEST_CASE("retry judges caught exceptions, the last type that fits first") {
  script_clock clock;
  const auto by_code = [](const auto& error) {
    if constexpr (std::is_same_v<decltype(error), const std::system_error&>) {
      return error.code() == std::errc::permission_denied ? verdict::permanent()
                                                          : verdict::transient();
    } else {
      return verdict::ignored();
    }
  };
  const auto policy =
      deadline{2s} | steady_retry | catching<std::exception, std::system_error>(by_code);
  const auto reason_of = [&](auto error) {
    return policy.run(env{clock}, [&]() -> int { throw error; }).reason();
  };
  const auto code = [](std::errc why) { return std::system_error(std::make_error_code(why)); };
  CHECK(reason_of(code(std::errc::permission_denied)) == stop_reason::permanent);
  CHECK(reason_of(code(std::errc::timed_out)) == stop_reason::attempts_exhausted);
  CHECK(reason_of(std::runtime_error("other")) == stop_reason::ignored);
}

TEST_CASE("retry runs functions that return nothing") {
  script_clock clock;
  const auto policy = deadline{2s} | steady_retry | catching<std::runtime_error>();
  int calls = 0;
  const outcome<void> told = policy.run(env{clock}, [&] {
    if (++calls < 3) throw std::runtime_error("again");
  });
  CHECK(told);
  CHECK(told.attempts() == 3);
  CHECK(told.error() == nullptr);
  told.value();
}

TEST_CASE("outcome value moves the result out, or throws with the message") {
  script_clock clock;
  const auto policy = deadline{2s} | retry{.attempts = 1};
  auto told = policy.run(env{clock}, [] { return std::optional(std::make_unique<int>(5)); });
  CHECK(**told.value() == 5);
  const auto moved = std::move(told).value();
  CHECK(**moved == 5);

  circuit_breaker breaker;
  for (int i = 0; i < 10; ++i)
    breaker.enter(clock).pass.failure(clock.at);
  const outcome<bool> none = (pipeline{guard{breaker}}).run(env{clock}, [] { return true; });
  CHECK_THROWS_WITH(none.value(), none.message());
}

// --- idempotency ---------------------------------------------------------------------------------

TEST_CASE("retry repeats a call that must not be repeated only while nothing was sent") {
  script_clock clock;
  const auto policy = deadline{2s} | steady_retry | only_if_unsent{};
  const outcome<bool> told = policy.run(env{clock}, [](attempt& each) {
    if (each.index() == 2) each.mark_sent();
    return false;
  });
  CHECK(told.reason() == stop_reason::already_sent);
  CHECK(told.attempts() == 2);
  CHECK(told.message() ==
        "veltrix: retry: already_sent after 2 attempts in 100 ms; the request was sent and may not "
        "be repeated");
  const auto at_once = policy.run(env{clock}, [](attempt& each) {
    each.mark_sent();
    return false;
  });
  CHECK(at_once.reason() == stop_reason::already_sent);
  CHECK(at_once.attempts() == 1);
  const auto unsent = policy.run(env{clock}, [](attempt&) { return false; });
  CHECK(unsent.reason() == stop_reason::attempts_exhausted);
  const auto repeatable = (deadline{2s} | steady_retry).run(env{clock}, [](attempt& each) {
    each.mark_sent();
    return false;
  });
  CHECK(repeatable.attempts() == 4);
}

// --- what an attempt is told ---------------------------------------------------------------------

TEST_CASE("retry tells each attempt its index and the sooner of its two deadlines") {
  script_clock clock;
  const auto policy = deadline{350ms} | steady_retry | attempt_timeout{100ms};
  std::vector<std::uint32_t> indices;
  std::vector<duration> left;
  static_cast<void>(policy.run(env{clock}, [&](attempt& each) {
    indices.push_back(each.index());
    left.push_back(each.deadline() - clock.at);
    CHECK_FALSE(each.sent());
    each.mark_sent();
    return false;
  }));
  CHECK(indices == std::vector<std::uint32_t>{1, 2, 3, 4});
  CHECK(left == std::vector<duration>{100ms, 100ms, 100ms, 50ms});
}

TEST_CASE("retry keeps a nested call inside the deadline of the outer attempt") {
  script_clock clock;
  const auto outer = deadline{10s} | retry{.attempts = 1} | attempt_timeout{250ms};
  const auto inner = deadline{10s} | retry{.attempts = 100, .delay = constant{100ms}};
  const outcome<bool> told = outer.run(env{clock}, [&](attempt& each) {
    return static_cast<bool>(inner.run(env{clock}.within(each.deadline()), [] { return false; }));
  });
  CHECK_FALSE(told);
  CHECK(clock.passed() == 200ms);
}

// --- shared state --------------------------------------------------------------------------------

namespace {

void open(circuit_breaker& breaker, script_clock& clock) {
  while (breaker.state() != breaker_state::open)
    breaker.enter(clock).pass.failure(clock.at);
}

}  // namespace

TEST_CASE("retry under a rejecting guard stops at once and says when to ask again") {
  script_clock clock;
  circuit_breaker breaker({.open_jitter = 0.0});
  open(breaker, clock);
  flaky service{clock, 0};
  const auto policy = deadline{2s} | steady_retry | guard{breaker};
  const outcome<bool> told = policy.run(env{clock}, service);
  CHECK(told.reason() == stop_reason::breaker_open);
  CHECK(told.attempts() == 0);
  CHECK(service.made.empty());
  CHECK(told.retry_after() == 250ms);
  CHECK(told.message() ==
        "veltrix: retry: breaker_open after 0 attempts; the breaker is open; ask again in 250 ms");
}

TEST_CASE("retry under a waiting guard waits for the breaker, which costs no attempt") {
  script_clock clock;
  circuit_breaker breaker({.open_jitter = 0.0});
  open(breaker, clock);
  flaky service{clock, 0};
  const auto policy = deadline{2s} | retry{.attempts = 1} | guard{breaker, on_open::wait};
  const outcome<bool> told = policy.run(env{clock}, service);
  CHECK(told);
  CHECK(told.attempts() == 1);
  CHECK(service.made == std::vector<duration>{250ms});
}

TEST_CASE("retry under a waiting guard does not wait past the deadline") {
  script_clock clock;
  circuit_breaker breaker({.open_jitter = 0.0});
  open(breaker, clock);
  const auto policy = deadline{250ms} | retry{} | guard{breaker, on_open::wait};
  const outcome<bool> told = policy.run(env{clock}, [] { return true; });
  CHECK(told.reason() == stop_reason::deadline);
  CHECK(clock.sleeps.empty());
  CHECK(told.message() ==
        "veltrix: retry: deadline after 0 attempts; allowed 250 ms in all; the breaker is open: "
        "250 ms");
}

TEST_CASE("retry tells the breaker success, failure, or nothing, and never leaks its probe") {
  script_clock clock;
  circuit_breaker breaker(
      {.window = 4, .min_samples = 4, .open_jitter = 0.0, .probes_to_close = 1});
  const auto policy = deadline{2s} | retry{.attempts = 1} | guard{breaker} |
                      catching<std::runtime_error>([](const auto&) { return verdict::ignored(); });
  const auto answer = [&](int status) {
    return policy.run(env{clock}, [=]() -> reply {
      if (status == 0) throw std::runtime_error("ignored");
      if (status == 1) throw 1;
      return {status};
    });
  };
  for (int i = 0; i < 20; ++i) {
    static_cast<void>(answer(404));
    static_cast<void>(answer(0));
    CHECK_THROWS_AS(answer(1), int);
  }
  CHECK(breaker.state() == breaker_state::closed);
  for (int i = 0; i < 2; ++i) {
    CHECK(answer(500).reason() == stop_reason::permanent);
    CHECK_FALSE(answer(503));
  }
  CHECK(breaker.state() == breaker_state::open);
  clock.at += 250ms;
  // Three probes that say nothing, one of them by an exception that passes through.
  CHECK(answer(404).reason() == stop_reason::ignored);
  CHECK(answer(0).reason() == stop_reason::ignored);
  CHECK_THROWS_AS(answer(1), int);
  CHECK(breaker.state() == breaker_state::half_open);
  CHECK(answer(200));
  CHECK(breaker.state() == breaker_state::closed);
}

TEST_CASE("retry pays for retries from the budget and stops when it is empty") {
  script_clock clock;
  retry_budget tokens({.ratio = 0.0, .per_second = 0.0, .burst = 4});
  const auto policy = deadline{10s} | steady_retry | budget{tokens};
  CHECK(policy.run(env{clock}, [] { return false; }).attempts() == 4);
  const outcome<bool> told = policy.run(env{clock}, [] { return false; });
  CHECK(told.attempts() == 2);
  CHECK(told.reason() == stop_reason::budget);
  CHECK(told.message() ==
        "veltrix: retry: budget after 2 attempts in 100 ms; the retry budget has no token for "
        "another attempt");
  CHECK(tokens.stats().granted == 4);
}

TEST_CASE("retry gives a token back when the attempt it paid for is not made") {
  script_clock clock;
  retry_budget tokens({.ratio = 0.0, .per_second = 0.0, .burst = 1});
  circuit_breaker breaker({.window = 1, .min_samples = 1});
  const auto policy = deadline{10s} | steady_retry | guard{breaker} | budget{tokens};
  const outcome<bool> told = policy.run(env{clock}, [] { return false; });
  CHECK(told.reason() == stop_reason::breaker_open);  // opened by the first failure
  CHECK(told.attempts() == 1);
  CHECK(tokens.balance(clock.at) == 1.0);
  CHECK(tokens.stats().granted == 0);
}

TEST_CASE("retry pays into the budget once a call") {
  script_clock clock;
  retry_budget tokens({.ratio = 0.25, .per_second = 0.0, .burst = 2});
  const auto policy = deadline{10s} | retry{.attempts = 2, .delay = constant{1ms}} | budget{tokens};
  std::uint32_t attempts = 0;
  for (int call = 0; call < 100; ++call)
    attempts += policy.run(env{clock}, [] { return false; }).attempts();
  // The first call finds the budget full. Each of the other 99 pays in a quarter.
  CHECK(attempts == 100 + 2 + 24);
}

TEST_CASE("retry takes a place in a bulkhead for the attempt only") {
  script_clock clock;
  bulkhead places(1);
  const auto policy = deadline{10s} | steady_retry | limit{places};
  const outcome<bool> told = policy.run(env{clock}, [&] {
    CHECK(places.in_use() == 1);
    const outcome<bool> second = policy.run(env{clock}, [] { return true; });
    CHECK(second.reason() == stop_reason::limited);
    CHECK(second.message() ==
          "veltrix: retry: limited after 0 attempts; all places of the bulkhead are taken");
    return true;
  });
  CHECK(told);
  CHECK(places.in_use() == 0);

  struct watching_clock : script_clock {
    bulkhead* places = nullptr;
    bool sleep_until(time_point until, const stop_token& token) {
      CHECK(places->in_use() == 0);
      return script_clock::sleep_until(until, token);
    }
  } watching;
  watching.places = &places;
  CHECK_FALSE(policy.run(env{watching}, [] { return false; }));
  CHECK(watching.sleeps.size() == 3);
}

TEST_CASE("retry waits for its turn at a rate limiter, inside the deadline") {
  script_clock clock;
  rate_limiter limiter({.per_second = 10});
  const auto policy = deadline{250ms} | retry{.attempts = 1} | limit{limiter};
  std::vector<duration> made;
  for (int i = 0; i < 3; ++i) {
    CHECK(policy.run(env{clock}, [&] {
      made.push_back(clock.passed());
      return true;
    }));
  }
  CHECK(made == std::vector<duration>{0ms, 100ms, 200ms});
  for (int i = 0; i < 3; ++i)
    CHECK(limiter.reserve({.now = clock.at}).granted);
  const outcome<bool> told = policy.run(env{clock}, [] { return true; });
  CHECK(told.reason() == stop_reason::limited);
  CHECK(told.retry_after() == 400ms);
  CHECK(clock.passed() == 200ms);
}

// --- stop tokens ---------------------------------------------------------------------------------

TEST_CASE("retry makes no attempt once its token stopped") {
  script_clock clock;
  stop_source stop;
  stop.request_stop();
  const outcome<bool> told =
      (deadline{2s} | steady_retry).run(env(clock, stop.get_token()), [] { return true; });
  CHECK(told.reason() == stop_reason::stopped);
  CHECK(told.attempts() == 0);
}

TEST_CASE("retry stops after an attempt during which the token stopped, and tells the attempt") {
  script_clock clock;
  stop_source stop;
  retry_budget tokens;
  const auto policy = until_stopped{} | retry{.attempts = retry::any_number} | budget{tokens};
  const outcome<bool> told = policy.run(env(clock, stop.get_token()), [&](attempt& each) {
    CHECK_FALSE(each.token().stop_requested());
    stop.request_stop();
    CHECK(each.token().stop_requested());
    return false;
  });
  CHECK(told.reason() == stop_reason::stopped);
  CHECK(told.attempts() == 1);
  CHECK(clock.sleeps.empty());
  CHECK(told.message() == "veltrix: retry: stopped after 1 attempt; the stop token asked");
}

TEST_CASE("retry wakes from a long sleep when its token stops") {
  stop_source stop;
  std::atomic<bool> failed{false};
  time_point asked{};
  std::thread stopper([&] {
    while (!failed.load())
      std::this_thread::yield();
    asked = steady_clock::now();
    stop.request_stop();
  });
  const outcome<bool> told =
      (deadline{10h} | retry{.delay = constant{1h}}).run(env(stop.get_token()), [&] {
        failed.store(true);
        return false;
      });
  const time_point woke = steady_clock::now();
  stopper.join();
  CHECK(told.reason() == stop_reason::stopped);
  CHECK(told.attempts() == 1);
  CHECK(woke - asked < 1s);  // far below the hour, far above what a loaded machine needs
}

// --- reload --------------------------------------------------------------------------------------

TEST_CASE("retry from a getter obeys a reload in the middle of a call and keeps its state") {
  script_clock clock;
  retry_budget tokens({.ratio = 0.0, .per_second = 0.0, .burst = 10});
  const auto with = [&](std::uint32_t attempts, duration delay) {
    return deadline{10s} | retry{.attempts = attempts, .delay = constant{delay}} | budget{tokens};
  };
  auto in_force = with(100, 100ms);
  std::vector<duration> made;
  const outcome<bool> told = from([&] { return in_force; }).run(env{clock}, [&] {
    made.push_back(clock.passed());
    if (made.size() == 2) in_force = with(4, 1s);
    return false;
  });
  CHECK(told.reason() == stop_reason::attempts_exhausted);
  CHECK(told.attempts() == 4);
  CHECK(made == std::vector<duration>{0ms, 100ms, 1100ms, 2100ms});
  CHECK(tokens.stats().granted == 3);
}

TEST_CASE("retry from a cell dereferences what load gives") {
  struct cell_like {
    std::shared_ptr<const plain_policy> now;
    [[nodiscard]] std::shared_ptr<const plain_policy> load() const { return now; }
  };
  cell_like cell{std::make_shared<const plain_policy>(deadline{10s} | retry{.attempts = 5})};
  script_clock clock;
  const outcome<bool> told = from(cell).run(env{clock}, [&] {
    cell.now = std::make_shared<const plain_policy>(deadline{10s} | retry{.attempts = 2});
    return false;
  });
  CHECK(told.attempts() == 2);
}

TEST_CASE("retry measures a reloaded deadline from the start of the call") {
  script_clock clock;
  duration total = 10s;
  const auto policy =
      from([&] { return deadline{total} | retry{.attempts = 100, .delay = constant{100ms}}; });
  const outcome<bool> told = policy.run(env{clock}, [&] {
    if (clock.passed() == 300ms) total = 500ms;
    return false;
  });
  CHECK(told.reason() == stop_reason::deadline);
  CHECK(clock.passed() == 400ms);
}

// --- construction --------------------------------------------------------------------------------

TEST_CASE("retry refuses the incident's policy when the declared outage is longer than it lasts") {
  const auto incident = [] {
    return deadline{60s} | retry{.attempts = 6, .delay = constant{100ms}, .declared_outage = 10s};
  };
  CHECK(refusal(incident) ==
        "veltrix: retry: retry.declared_outage: got 10 s, allowed at most 500 ms, the average sum "
        "of the 5 delays between 6 attempts; no policy was built; use attempts = retry::any_number "
        "under the deadline, or longer delays");
  CHECK(refusal([] {
          return deadline{5s} | retry{.attempts = retry::any_number, .declared_outage = 10s};
        }) ==
        "veltrix: retry: retry.declared_outage: got 10 s, allowed at most the deadline, 5 s; no "
        "policy was built; raise the deadline or declare less");
  CHECK(refusal([] {
          return deadline{60s} | retry{.attempts = retry::any_number, .declared_outage = 10s};
        }) == "not refused");
  CHECK(refusal([] {
          return deadline{60s} |
                 retry{.attempts = 101, .delay = constant{100ms}, .declared_outage = 10s};
        }) == "not refused");
  CHECK(refusal([] {
          return deadline{60s} | retry{.attempts = 101,
                                       .delay = constant{100ms} | full_jitter{},
                                       .declared_outage = 10s};
        }) != "not refused");  // its delays are 50 ms on average
}

TEST_CASE("retry refuses bad values when a policy is built") {
  circuit_breaker breaker;
  CHECK(refusal([] { return deadline{0s} | retry{}; }) ==
        "veltrix: retry: deadline.total: got 0 s, allowed 1 ns or more; no policy was built; "
        "correct the time");
  CHECK(refusal([] { return deadline{1s} | attempt_timeout{-1ms}; }).find("got -1 ms") !=
        std::string::npos);
  CHECK(refusal([] { return deadline{1s} | retry{.attempts = 0}; }) ==
        "veltrix: retry: retry.attempts: got 0, allowed 1 or more, or retry::any_number; no policy "
        "was built; count the first attempt too");
  CHECK(refusal([] { return deadline{1s} | retry{.declared_outage = -1s}; }) != "not refused");
  CHECK(refusal([&] { return pipeline{guard{breaker, on_open::wait}}; }) ==
        "veltrix: retry: guard.on_open: got wait without a time limit, allowed wait under deadline "
        "or until_stopped; no policy was built; write deadline{...} | before it");
  CHECK(refusal([&] { return pipeline{guard{breaker}}; }) == "not refused");
}

// --- random policies -----------------------------------------------------------------------------

namespace {

struct scripted_attempt {
  duration takes;
  verdict judged;
};

/// What retry is meant to do, written down step by step.
struct plain_model {
  std::vector<time_point> made{};
  stop_reason reason = stop_reason::success;

  void run(const std::vector<scripted_attempt>& script, duration total, const retry& rules,
           double& tokens, double burst, time_point now, small_random random) {
    const time_point end = now + total;
    backoff_state delays;
    tokens = std::min(burst, tokens + 0.25);
    for (std::size_t i = 0;; ++i) {
      made.push_back(now);
      now += script[i].takes;
      const verdict& judged = script[i].judged;
      if (judged.kind == verdict_kind::success) return stop(stop_reason::success);
      if (judged.kind == verdict_kind::ignored) return stop(stop_reason::ignored);
      if (judged.kind == verdict_kind::permanent) return stop(stop_reason::permanent);
      if (i + 1 >= rules.attempts) return stop(stop_reason::attempts_exhausted);
      const duration delay = rules.delay.next(delays, random);
      const duration wait = std::max(delay, judged.wait);
      if (now + wait >= end) return stop(stop_reason::deadline);
      duration extra{};
      if (judged.wait > delay) {
        const duration room = std::min(judged.wait / 2, end - now - judged.wait - 1ns);
        const double share = static_cast<double>(random() >> 11) * 0x1p-53;
        extra = duration(static_cast<duration::rep>(static_cast<double>(room.count()) * share));
      }
      if (tokens < 1.0) return stop(stop_reason::budget);
      tokens -= 1.0;
      now += wait + extra;
    }
  }
  void stop(stop_reason why) { reason = why; }
};

/// A random policy with a script of what its attempts meet.
struct random_call {
  explicit random_call(veltrix_test::random_source& choose) {
    const auto span = [&](std::uint64_t most_us) {
      return duration(std::chrono::microseconds(1 + choose.below(most_us)));
    };
    backoff delay = constant{span(300'000)};
    if (choose.below(3) == 0) delay = exponential{span(100'000)} | capped{span(1'000'000)};
    if (choose.below(3) == 0) delay = delay | full_jitter{};
    if (choose.below(5) == 0) delay = decorrelated_jitter{span(100'000)} | capped{span(1'000'000)};
    rules = {.attempts = static_cast<std::uint32_t>(1 + choose.below(8)), .delay = delay};
    total = span(3'000'000);
    burst = static_cast<std::uint32_t>(1 + choose.below(6));
    seed = choose.next();
    script.resize(rules.attempts);
    for (scripted_attempt& each : script) {
      each.takes = choose.below(2) == 0 ? duration::zero() : span(200'000);
      const std::uint64_t kind = choose.below(10);
      each.judged = verdict::transient(choose.below(3) == 0 ? span(500'000) : 0s);
      if (kind == 7) each.judged = verdict::permanent();
      if (kind == 8) each.judged = verdict::ignored();
      if (kind == 9) each.judged = verdict::success();
    }
  }

  retry rules;
  duration total{};
  std::uint32_t burst = 1;
  std::uint64_t seed = 0;
  std::vector<scripted_attempt> script{};
};

/// The promises that hold whatever the model says.
void check_promises(const random_call& call, const script_clock& clock,
                    const std::vector<time_point>& made) {
  REQUIRE(made.size() <= call.rules.attempts);
  REQUIRE(clock.sleeps.size() == made.size() - 1);
  for (std::size_t i = 0; i < clock.sleeps.size(); ++i) {
    const duration told = call.script[i].judged.wait;
    const duration gap = made[i + 1] - made[i] - call.script[i].takes;
    REQUIRE(clock.sleeps[i] < made[0] + call.total);  // never sleeps to or past the deadline
    REQUIRE(gap >= told);                             // never before the told wait
    REQUIRE(gap <= std::max(call.rules.delay.longest(i), told * 3 / 2));
    REQUIRE(gap >= call.rules.delay.shortest());
  }
}

}  // namespace

// VELTRIX_RETRY_POLICIES=100000000 asks for so many.
TEST_CASE("retry agrees with a plain model for random policies and keeps its promises") {
  const std::uint64_t seed = 51001;
  INFO("seed " << seed);
  veltrix_test::random_source choose(seed);
  std::size_t reasons[12] = {};
  const char* const asked = std::getenv("VELTRIX_RETRY_POLICIES");
  const std::size_t rounds =
      asked == nullptr ? veltrix_test::scale(1'000'000) : std::strtoull(asked, nullptr, 10);
  for (std::size_t round = 0; round < rounds; ++round) {
    const random_call given(choose);
    script_clock clock;
    retry_budget tokens({.ratio = 0.25, .per_second = 0.0, .burst = given.burst});
    double model_tokens = given.burst;
    const auto policy = deadline{given.total} | given.rules | budget{tokens} |
                        classifying([&](std::size_t i) { return given.script[i].judged; });
    for (int call = 0; call < 2; ++call) {
      plain_model model;
      model.run(given.script, given.total, given.rules, model_tokens, given.burst, clock.at,
                small_random(given.seed));
      clock.sleeps.clear();
      std::vector<time_point> made;
      const outcome<std::size_t> told =
          policy.run(env(clock, stop_token(), small_random(given.seed)), [&] {
            const std::size_t i = made.size();
            made.push_back(clock.at);
            clock.at += given.script[i].takes;
            return i;
          });
      REQUIRE(made == model.made);
      REQUIRE(told.reason() == model.reason);
      REQUIRE(told.attempts() == made.size());
      REQUIRE(tokens.balance(clock.at) == Approx(model_tokens));
      check_promises(given, clock, made);
      ++reasons[static_cast<std::size_t>(told.reason())];
    }
  }
  for (const stop_reason met :
       {stop_reason::success, stop_reason::ignored, stop_reason::permanent,
        stop_reason::attempts_exhausted, stop_reason::deadline, stop_reason::budget}) {
    CHECK(reasons[static_cast<std::size_t>(met)] > 0);
  }
}

// --- the requirements, in small ------------------------------------------------------------------

TEST_CASE(
    "retry R46 an outage of 10 s defeats 5 x 100 ms and not the policy for a gated dependency") {
  const auto through_outage = [](const auto& policy, std::uint64_t seed) {
    virtual_clock clock(virtual_sleep::advances);
    const time_point back = clock.now() + 10s;
    std::vector<time_point> made;
    const bool good =
        static_cast<bool>(policy.run(env(clock, stop_token(), small_random(seed)), [&] {
          made.push_back(clock.now());
          return clock.now() >= back;
        }));
    std::ptrdiff_t peak = 0;
    for (auto first = made.begin(); first != made.end(); ++first) {
      peak = std::max(peak, std::upper_bound(first, made.end(), *first + 1s - 1ns) - first);
    }
    return std::tuple(good, made.back() - back, peak);
  };
  const auto incident = deadline{60s} | retry{.attempts = 6, .delay = constant{100ms}};
  CHECK_FALSE(std::get<0>(through_outage(incident, 1)));

  const auto gated = deadline{30s} | retry{.attempts = retry::any_number,
                                           .delay = constant{400ms} | spread{0.125},
                                           .declared_outage = 10s};
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const auto [good, late, peak] = through_outage(gated, seed);
    CHECK(good);
    CHECK(late <= 450ms);
    CHECK(peak < 5);
  }
}

TEST_CASE("retry R47 the first call to succeed after 10 minutes does so within 500 ms") {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    virtual_clock clock(virtual_sleep::advances);
    circuit_breaker breaker({.open_first = 400ms, .open_longest = 400ms, .open_jitter = 0.125},
                            small_random(seed));
    const time_point back = clock.now() + 600s + std::chrono::milliseconds(seed * 7);
    const auto policy = deadline{1h} |
                        retry{.attempts = retry::any_number, .delay = constant{50ms}} |
                        guard{breaker, on_open::wait};
    CHECK(policy.run(env(clock, stop_token(), small_random(seed)),
                     [&] { return clock.now() >= back; }));
    CHECK(clock.now() - back <= 500ms);
  }
}

TEST_CASE("retry R20 under 1800 failures a minute the attempts fall by nine tenths within 10 s") {
  virtual_clock clock(virtual_sleep::advances);
  circuit_breaker breaker({.open_first = 400ms, .open_longest = 400ms, .open_jitter = 0.125},
                          small_random(1));
  retry_budget tokens;
  const auto policy = deadline{2s} | retry{} | guard{breaker} | budget{tokens};
  env where(clock, stop_token(), small_random(2));
  const time_point start = clock.now();
  int late_calls = 0;
  int late_attempts = 0;
  for (int call = 0; call < 1800; ++call) {
    const time_point due = start + std::chrono::milliseconds(call * 1000 / 30);
    clock.advance_to(due);
    const std::uint32_t made = policy.run(where, [] { return false; }).attempts();
    if (due - start < 10s) continue;
    ++late_calls;
    late_attempts += static_cast<int>(made);
  }
  CHECK(late_calls == 1500);
  CHECK(late_attempts * 10 <= late_calls);
  CHECK(late_attempts > 0);  // it still asks
}

TEST_CASE("retry R20 a source that drops every 47 s for a day costs a tenth and fails nobody") {
  virtual_clock clock(virtual_sleep::advances);
  retry_budget tokens;
  circuit_breaker breaker({}, small_random(4));
  const auto policy = deadline{5s} |
                      retry{.attempts = 5, .delay = decorrelated_jitter{50ms} | capped{400ms}} |
                      guard{breaker, on_open::wait} | budget{tokens};
  env where(clock, stop_token(), small_random(5));
  const time_point start = clock.now();
  std::uint64_t useful = 0;
  std::uint64_t requests = 0;
  std::uint64_t failures = 0;
  while (clock.now() - start < 24h) {
    const outcome<bool> told = policy.run(where, [&] {
      return (clock.now() - start) % 47s >= 200ms;  // away for 200 ms after each drop
    });
    requests += told.attempts();
    told ? ++useful : ++failures;
    clock.advance(1s);
  }
  CHECK(failures == 0);
  CHECK(useful > 80'000);
  CHECK(requests > useful);  // drops were met
  CHECK(static_cast<double>(requests) <= 1.1 * static_cast<double>(useful));
}
