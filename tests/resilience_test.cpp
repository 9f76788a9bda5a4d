// SPDX-License-Identifier: BSL-1.0
#include "veltrix/resilience.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <deque>
#include <limits>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/random.hpp"
#include "support/scale.hpp"

using namespace std::chrono_literals;
using veltrix::breaker_state;
using veltrix::bulkhead;
using veltrix::circuit_breaker;
using veltrix::circuit_breaker_options;
using veltrix::duration;
using veltrix::rate_limiter;
using veltrix::retry_budget;
using veltrix::small_random;
using veltrix::time_point;
using veltrix::virtual_clock;

namespace {

template <class Shared>
constexpr bool stays_put =
    !std::is_copy_constructible_v<Shared> && !std::is_move_constructible_v<Shared>;
static_assert(stays_put<retry_budget> && stays_put<circuit_breaker>);
static_assert(stays_put<rate_limiter> && stays_put<bulkhead>);
static_assert(std::is_nothrow_move_constructible_v<circuit_breaker::permit>);
static_assert(!std::is_copy_constructible_v<circuit_breaker::permit>);
static_assert(!std::is_copy_constructible_v<retry_budget::token>);
static_assert(noexcept(std::declval<retry_budget&>().deposit()));
static_assert(noexcept(std::declval<retry_budget&>().try_withdraw(std::declval<time_point>())));
static_assert(
    noexcept(std::declval<circuit_breaker::permit&>().failure(std::declval<time_point>())));
static_assert(noexcept(std::declval<rate_limiter&>().try_acquire(std::declval<time_point>())));
static_assert(noexcept(std::declval<bulkhead&>().try_enter()));

std::string refusal(auto build) {
  try {
    build();
  } catch (const std::invalid_argument& refused) {
    return refused.what();
  }
  return "not refused";
}

/// A clock that counts its readings.
struct counting_clock {
  time_point at{1h};
  int readings = 0;
  time_point now() {
    ++readings;
    return at;
  }
};

bool withdrawn(retry_budget& budget, time_point now) {
  retry_budget::token token = budget.try_withdraw(now);
  const bool granted = static_cast<bool>(token);
  token.spend();
  return granted;
}

/// Opens a breaker with default options: ten failures.
void open(circuit_breaker& breaker, virtual_clock& clock) {
  for (int i = 0; i < 10; ++i)
    breaker.enter(clock).pass.failure(clock.now());
}

}  // namespace

// --- retry_budget --------------------------------------------------------------------------------

TEST_CASE("retry_budget grants its burst, then what calls and time pay in, exactly") {
  const time_point start{1h};
  retry_budget budget({.ratio = 0.1, .per_second = 0.5, .burst = 10});
  for (int i = 0; i < 10; ++i)
    CHECK(withdrawn(budget, start));
  CHECK_FALSE(withdrawn(budget, start));

  for (int i = 0; i < 9; ++i)
    budget.deposit();
  CHECK_FALSE(withdrawn(budget, start));
  budget.deposit();  // ten calls pay for one retry
  CHECK(withdrawn(budget, start));
  CHECK_FALSE(withdrawn(budget, start));

  CHECK_FALSE(withdrawn(budget, start + 2s - 1ns));
  CHECK(withdrawn(budget, start + 2s));  // two seconds pay for one retry
  CHECK_FALSE(withdrawn(budget, start + 2s));
  CHECK(budget.stats().granted == 12);
  CHECK(budget.stats().refused == 5);
}

TEST_CASE("retry_budget holds no more than its burst, however long it rests") {
  retry_budget budget({.ratio = 1.0, .per_second = 1e6, .burst = 3});
  CHECK(withdrawn(budget, time_point(1h)));
  for (int i = 0; i < 100; ++i)
    budget.deposit();
  CHECK(budget.balance(veltrix::no_deadline) == 3.0);
  int granted = 0;
  while (withdrawn(budget, veltrix::no_deadline))
    ++granted;
  CHECK(granted == 3);
}

TEST_CASE("retry_budget takes back a token that was not spent") {
  const time_point start{1h};
  retry_budget budget({.ratio = 0.0, .per_second = 0.0, .burst = 1});
  {
    retry_budget::token token = budget.try_withdraw(start);
    CHECK(token);
    CHECK_FALSE(budget.try_withdraw(start));
    retry_budget::token moved = std::move(token);
    CHECK(moved);
  }
  CHECK(budget.stats().granted == 0);
  CHECK(withdrawn(budget, start));
  CHECK_FALSE(withdrawn(budget, start));
}

TEST_CASE("retry_budget pays in thirds of a token without losing any to rounding") {
  retry_budget budget({.ratio = 0.0, .per_second = 1.0 / 3.0, .burst = 1});
  time_point now{1h};
  CHECK(withdrawn(budget, now));
  int granted = 0;
  for (const time_point end = now + 3000s; now < end; now += 7ms) {
    if (withdrawn(budget, now)) ++granted;
  }
  // A third of a token a second, cut at a billionth, for 3,000 s: 1,000 tokens less one rounding.
  CHECK(granted >= 999);
  CHECK(granted <= 1000);
}

namespace {

/// The budget in doubles; exact for the powers of two that the test uses.
struct plain_budget {
  double ratio;
  double rate;
  double burst;
  double balance = burst;

  void pay_in(double tokens) { balance = std::min(burst, balance + tokens); }
  bool withdraw() {
    if (balance < 1.0) return false;
    balance -= 1.0;
    return true;
  }
};

/// One random operation on both.
void step_both(veltrix_test::random_source& choose, retry_budget& budget, plain_budget& model,
               time_point& now, std::vector<retry_budget::token>& held) {
  const std::uint64_t operation = choose.below(5);
  if (operation <= 1) {
    budget.deposit();
    model.pay_in(model.ratio);
  } else if (operation == 2) {
    retry_budget::token token = budget.try_withdraw(now);
    REQUIRE(static_cast<bool>(token) == model.withdraw());
    if (token) held.push_back(std::move(token));
  } else if (operation == 3 && !held.empty()) {
    const bool spent = choose.below(2) == 0;
    if (spent) held.back().spend();
    if (!spent) model.pay_in(1.0);
    held.pop_back();
  } else {
    const auto quarters = static_cast<duration::rep>(choose.below(4));
    now += quarters * 250ms;
    model.pay_in(model.rate * static_cast<double>(quarters) / 4.0);
  }
}

}  // namespace

TEST_CASE("retry_budget agrees with a plain model for random operations") {
  const std::uint64_t seed = 31001;
  INFO("seed " << seed);
  veltrix_test::random_source choose(seed);
  for (std::size_t round = 0; round < veltrix_test::scale(500); ++round) {
    const auto burst = static_cast<std::uint32_t>(1 + choose.below(20));
    plain_budget model{.ratio = 1.0 / static_cast<double>(1 << choose.below(6)),
                       .rate = static_cast<double>(choose.below(5)) / 4.0,
                       .burst = static_cast<double>(burst)};
    retry_budget budget({.ratio = model.ratio, .per_second = model.rate, .burst = burst});
    time_point now{1h};
    std::vector<retry_budget::token> held;
    for (int step = 0; step < 300; ++step) {
      step_both(choose, budget, model, now, held);
      REQUIRE(budget.balance(now) == Approx(model.balance).margin(1e-6));
    }
  }
}

TEST_CASE("retry_budget refuses options out of bounds") {
  CHECK(refusal([] { retry_budget({.ratio = 1.5}); }) ==
        "veltrix: retry_budget: ratio: got 1.5, allowed 0 to 1; nothing was built; correct the "
        "option");
  CHECK(refusal([] { retry_budget({.ratio = -0.1}); }) != "not refused");
  CHECK(refusal([] { retry_budget({.ratio = std::numeric_limits<double>::quiet_NaN()}); }) !=
        "not refused");
  CHECK(refusal([] { retry_budget({.per_second = -1}); }) != "not refused");
  CHECK(refusal([] { retry_budget({.burst = 0}); }) != "not refused");
}

// --- circuit_breaker -----------------------------------------------------------------------------

TEST_CASE("circuit_breaker opens at the failure ratio, not before the minimum of samples") {
  virtual_clock clock;
  circuit_breaker breaker;
  for (int i = 0; i < 9; ++i)
    breaker.enter(clock).pass.failure(clock.now());
  CHECK(breaker.state() == breaker_state::closed);
  breaker.enter(clock).pass.failure(clock.now());
  CHECK(breaker.state() == breaker_state::open);
  CHECK(breaker.stats().opened == 1);
}

TEST_CASE("circuit_breaker judges only the latest results of its window") {
  virtual_clock clock;
  circuit_breaker breaker({.window = 20, .min_samples = 10});
  for (int i = 0; i < 1000; ++i)
    breaker.enter(clock).pass.success();
  for (int i = 0; i < 9; ++i)
    breaker.enter(clock).pass.failure(clock.now());
  CHECK(breaker.state() == breaker_state::closed);  // 9 of 20
  breaker.enter(clock).pass.failure(clock.now());
  CHECK(breaker.state() == breaker_state::open);  // 10 of 20
}

TEST_CASE("circuit_breaker lets one probe at a time pass and closes after three successes") {
  virtual_clock clock;
  circuit_breaker breaker({.open_jitter = 0.0});
  open(breaker, clock);
  CHECK(breaker.enter(clock).retry_at == clock.now() + 250ms);
  clock.advance(250ms - 1ns);
  CHECK_FALSE(breaker.enter(clock));
  clock.advance(1ns);
  for (int probe = 0; probe < 3; ++probe) {
    CHECK(breaker.state() == (probe == 0 ? breaker_state::open : breaker_state::half_open));
    circuit_breaker::entry first = breaker.enter(clock);
    REQUIRE(first);
    CHECK(first.pass.is_probe());
    const circuit_breaker::entry second = breaker.enter(clock);
    CHECK_FALSE(second);
    CHECK(second.retry_at > clock.now());
    first.pass.success();
  }
  CHECK(breaker.state() == breaker_state::closed);
  circuit_breaker::entry normal = breaker.enter(clock);
  CHECK(normal);
  CHECK_FALSE(normal.pass.is_probe());
}

TEST_CASE("circuit_breaker open times double to the longest and start over after closing") {
  virtual_clock clock;
  circuit_breaker breaker({.open_jitter = 0.0, .probes_to_close = 1});
  open(breaker, clock);
  for (const duration expected : {250ms, 500ms, 1000ms, 2000ms, 2000ms}) {
    CHECK(breaker.stats().open_until == clock.now() + expected);
    clock.advance(expected);
    breaker.enter(clock).pass.failure(clock.now());
  }
  clock.advance(2s);
  breaker.enter(clock).pass.success();
  CHECK(breaker.state() == breaker_state::closed);
  open(breaker, clock);
  CHECK(breaker.stats().open_until == clock.now() + 250ms);
}

TEST_CASE("circuit_breaker cuts open times by up to the jitter, and a seed repeats them") {
  const auto times = [](std::uint64_t seed) {
    virtual_clock clock;
    circuit_breaker breaker({.open_first = 1s, .open_longest = 1s, .open_jitter = 0.5},
                            small_random(seed));
    open(breaker, clock);
    std::vector<duration> drawn;
    for (int i = 0; i < 50; ++i) {
      drawn.push_back(breaker.stats().open_until - clock.now());
      clock.advance_to(breaker.stats().open_until);
      breaker.enter(clock).pass.failure(clock.now());
    }
    return drawn;
  };
  const std::vector<duration> drawn = times(5);
  CHECK(*std::min_element(drawn.begin(), drawn.end()) >= 500ms);
  CHECK(*std::max_element(drawn.begin(), drawn.end()) <= 1s);
  CHECK(*std::max_element(drawn.begin(), drawn.end()) -
            *std::min_element(drawn.begin(), drawn.end()) >
        300ms);
  CHECK(drawn == times(5));
  CHECK(drawn != times(6));
}

TEST_CASE("circuit_breaker frees the slot of a probe that is dropped, by any road") {
  virtual_clock clock;
  circuit_breaker breaker({.open_jitter = 0.0});
  open(breaker, clock);
  clock.advance(1s);
  { const circuit_breaker::entry dropped = breaker.enter(clock); }
  {
    circuit_breaker::entry overwritten = breaker.enter(clock);
    REQUIRE(overwritten);
    overwritten.pass = circuit_breaker::permit();
  }
  circuit_breaker::entry told = breaker.enter(clock);
  REQUIRE(told);
  told.pass.drop();
  CHECK_FALSE(told.pass);
  CHECK(breaker.enter(clock));
  CHECK(breaker.state() == breaker_state::half_open);  // none of them was judged
}

TEST_CASE("circuit_breaker ignores what a permit of an older state reports") {
  virtual_clock clock;
  circuit_breaker breaker({.open_jitter = 0.0, .probes_to_close = 1});
  circuit_breaker::entry late_failure = breaker.enter(clock);
  circuit_breaker::entry late_success = breaker.enter(clock);
  open(breaker, clock);
  clock.advance(1s);
  circuit_breaker::entry probe = breaker.enter(clock);
  REQUIRE(probe);
  late_failure.pass.failure(clock.now());
  late_success.pass.success();
  CHECK(breaker.state() == breaker_state::half_open);
  CHECK_FALSE(breaker.enter(clock));  // the slot is still the probe's

  // A probe of a half-open state that has ended must not free the slot of the next one.
  breaker.enter(clock).pass.drop();
  circuit_breaker::permit stale = std::move(probe.pass);
  stale.failure(clock.now());
  clock.advance(1s);
  circuit_breaker::entry next = breaker.enter(clock);
  REQUIRE(next.pass.is_probe());
  stale.drop();
  CHECK_FALSE(breaker.enter(clock));
  next.pass.success();
  CHECK(breaker.state() == breaker_state::closed);
}

TEST_CASE("circuit_breaker reads no clock while it is closed") {
  counting_clock clock;
  circuit_breaker breaker;
  for (int i = 0; i < 100; ++i)
    breaker.enter(clock).pass.success();
  CHECK(clock.readings == 0);
}

TEST_CASE("circuit_breaker refuses options out of bounds") {
  const auto refused = [](const circuit_breaker_options& options) {
    return refusal([&] { circuit_breaker breaker(options); }) != "not refused";
  };
  CHECK(refusal([] { circuit_breaker breaker({.window = 65}); }) ==
        "veltrix: circuit_breaker: window: got 65, allowed 1 to 64; nothing was built; correct the "
        "option");
  CHECK(refused({.window = 0, .min_samples = 0}));
  CHECK(refused({.window = 5, .min_samples = 6}));
  CHECK(refused({.min_samples = 0}));
  CHECK(refused({.failure_ratio = 0.0}));
  CHECK(refused({.failure_ratio = 1.1}));
  CHECK(refused({.open_first = 0ms}));
  CHECK(refused({.open_first = 3s, .open_longest = 2s}));
  CHECK(refused({.open_longest = 2h}));
  CHECK(refused({.open_jitter = -0.1}));
  CHECK(refused({.probes_to_close = 0}));
}

namespace {

/// The breaker as a table of states, with none of its short cuts.
struct plain_breaker {
  struct permit {
    std::uint64_t generation;
    bool probe;
  };

  bool enter(time_point now, permit& given) {
    if (state == breaker_state::open && now >= until) become(breaker_state::half_open);
    if (state == breaker_state::open || (state == breaker_state::half_open && probe_out)) {
      return false;
    }
    probe_out = state == breaker_state::half_open;
    given = {generation, probe_out};
    return true;
  }
  void report(const permit& held, bool failure, time_point now) {
    if (held.generation != generation) return;
    if (state == breaker_state::closed) {
      results.push_back(failure);
      if (results.size() > options.window) results.pop_front();
      const auto failures = std::count(results.begin(), results.end(), true);
      if (failure && results.size() >= options.min_samples &&
          static_cast<double>(failures) >=
              options.failure_ratio * static_cast<double>(results.size())) {
        trip(now);
      }
    } else if (failure) {
      trip(now);
    } else {
      probe_out = false;
      if (++good < options.probes_to_close) return;
      next_open = options.open_first;
      become(breaker_state::closed);
    }
  }
  void drop(const permit& held) {
    if (held.generation == generation && held.probe) probe_out = false;
  }
  void trip(time_point now) {
    until = now + next_open;
    next_open = std::min(next_open * 2, options.open_longest);
    become(breaker_state::open);
  }
  void become(breaker_state next) {
    state = next;
    ++generation;
    probe_out = false;
    good = 0;
    results.clear();
  }

  circuit_breaker_options options;
  breaker_state state = breaker_state::closed;
  std::uint64_t generation = 0;
  std::deque<bool> results{};
  bool probe_out = false;
  std::uint32_t good = 0;
  time_point until{};
  duration next_open = options.open_first;
};

/// A breaker and its model, with the permits that both gave out.
struct breaker_pair {
  explicit breaker_pair(const circuit_breaker_options& options)
      : breaker(options), model{options} {}

  void enter() {
    plain_breaker::permit expected{};
    const bool passes = model.enter(clock.now(), expected);
    circuit_breaker::entry got = breaker.enter(clock);
    REQUIRE(static_cast<bool>(got) == passes);
    REQUIRE(got.pass.is_probe() == (passes && expected.probe));
    if (passes) {
      held.emplace_back(std::move(got.pass), expected);
      return;
    }
    REQUIRE(got.retry_at > clock.now());
    if (model.state == breaker_state::open) REQUIRE(got.retry_at == model.until);
  }
  void drop_last() {
    model.drop(held.back().second);
    held.back().first.drop();
    held.pop_back();
  }
  void report_last(bool failure) {
    model.report(held.back().second, failure, clock.now());
    if (failure) held.back().first.failure(clock.now());
    if (!failure) held.back().first.success();
    held.pop_back();
  }

  virtual_clock clock{};
  circuit_breaker breaker;
  plain_breaker model;
  std::vector<std::pair<circuit_breaker::permit, plain_breaker::permit>> held{};
};

}  // namespace

TEST_CASE("circuit_breaker agrees with a plain state machine for random operations") {
  const std::uint64_t seed = 31002;
  INFO("seed " << seed);
  veltrix_test::random_source choose(seed);
  for (std::size_t round = 0; round < veltrix_test::scale(2'000); ++round) {
    circuit_breaker_options options;
    options.window = static_cast<std::uint32_t>(1 + choose.below(64));
    options.min_samples = static_cast<std::uint32_t>(1 + choose.below(options.window));
    options.failure_ratio = static_cast<double>(1 + choose.below(8)) / 8.0;
    options.open_jitter = 0.0;
    options.probes_to_close = static_cast<std::uint32_t>(1 + choose.below(3));
    const std::uint64_t failure_share = choose.below(101);
    breaker_pair both(options);
    for (int step = 0; step < 300; ++step) {
      if (!both.held.empty())
        std::swap(both.held[choose.below(both.held.size())], both.held.back());
      if (both.held.empty() || choose.below(3) == 0) {
        both.enter();
      } else if (choose.below(10) == 0) {
        both.clock.advance(duration(static_cast<duration::rep>(choose.below(800'000'000))));
      } else if (choose.below(8) == 0) {
        both.drop_last();
      } else {
        both.report_last(choose.below(100) < failure_share);
      }
      REQUIRE(both.breaker.state() == both.model.state);
      REQUIRE(both.breaker.stats().generation == both.model.generation);
    }
  }
}

// --- rate_limiter --------------------------------------------------------------------------------

TEST_CASE("rate_limiter hands out its burst at once and then evenly spaced starts") {
  rate_limiter limiter({.per_second = 10, .burst = 3});
  const time_point start{1h};
  for (const duration expected : {0ms, 0ms, 0ms, 100ms, 200ms, 300ms}) {
    const rate_limiter::slot slot = limiter.reserve({.now = start});
    CHECK(slot.granted);
    CHECK(slot.start_at == start + expected);
  }
}

TEST_CASE("rate_limiter reserves nothing when the first start is too late") {
  rate_limiter limiter({.per_second = 10});
  const time_point start{1h};
  CHECK(limiter.try_acquire(start));
  CHECK_FALSE(limiter.try_acquire(start));
  for (int i = 0; i < 5; ++i) {
    const rate_limiter::slot slot = limiter.reserve({.now = start, .latest = start + 99ms});
    CHECK_FALSE(slot.granted);
    CHECK(slot.start_at == start + 100ms);
  }
  CHECK(limiter.reserve({.now = start, .latest = start + 100ms}).granted);
}

TEST_CASE("rate_limiter saves no more than its burst over a quiet time") {
  rate_limiter limiter({.per_second = 1000, .burst = 5});
  time_point now{1h};
  int started = 0;
  for (int i = 0; i < 100; ++i)
    started += limiter.try_acquire(now) ? 1 : 0;
  CHECK(started == 5);
  now += 24h;
  for (int i = 0; i < 100; ++i)
    started += limiter.try_acquire(now) ? 1 : 0;
  CHECK(started == 10);
  now += 1ms;
  CHECK(limiter.try_acquire(now));
  CHECK_FALSE(limiter.try_acquire(now));
}

TEST_CASE("rate_limiter rounds its spacing up, never faster than asked") {
  rate_limiter limiter({.per_second = 3});
  const time_point start{1h};
  time_point last = start;
  for (int i = 0; i < 4; ++i)
    last = limiter.reserve({.now = start}).start_at;
  CHECK(last >= start + 1s);
  CHECK(last <= start + 1s + 3ns);
}

TEST_CASE("rate_limiter keeps its bound at the end of time, and refuses bad options") {
  rate_limiter limiter({.per_second = 0.001, .burst = 1});
  CHECK_FALSE(limiter.reserve({.now = veltrix::no_deadline}).granted);
  CHECK(refusal([] { rate_limiter bad({.per_second = 0}); }) ==
        "veltrix: rate_limiter: per_second: got 0, allowed 0.001 to 1e+09; nothing was built; "
        "correct the option");
  CHECK(refusal([] { rate_limiter bad({.per_second = 1, .burst = 0}); }) != "not refused");
}

// --- bulkhead ------------------------------------------------------------------------------------

TEST_CASE("bulkhead gives out its places once each and takes them back") {
  bulkhead places(2);
  bulkhead::permit first = places.try_enter();
  bulkhead::permit second = places.try_enter();
  CHECK(first);
  CHECK(second);
  CHECK_FALSE(places.try_enter());
  CHECK(places.in_use() == 2);
  first.leave();
  first.leave();
  CHECK(places.in_use() == 1);
  second = bulkhead::permit();
  CHECK(places.in_use() == 0);
  first = places.try_enter();
  {
    bulkhead::permit moved(std::move(first));
    CHECK(moved);
    CHECK(places.in_use() == 1);
  }
  CHECK(places.in_use() == 0);
  first.leave();  // it was moved from
  CHECK(places.in_use() == 0);
  CHECK(refusal([] { bulkhead none(0); }) ==
        "veltrix: bulkhead: limit: got 0, allowed 1 to 1000000; nothing was built; correct the "
        "option");
}
