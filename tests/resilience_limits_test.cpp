// What follows the dependency: concurrency_limiter, outlier_set, retry_throttle, and a breaker that
// judges by time.
// SPDX-License-Identifier: BSL-1.0
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/random.hpp"
#include "support/scale.hpp"
#include "veltrix/resilience.hpp"

using namespace std::chrono_literals;
using veltrix::breaker_state;
using veltrix::circuit_breaker;
using veltrix::circuit_breaker_options;
using veltrix::concurrency_limiter;
using veltrix::concurrency_limiter_options;
using veltrix::duration;
using veltrix::limit_by;
using veltrix::outlier_set;
using veltrix::outlier_set_options;
using veltrix::retry_throttle;
using veltrix::small_random;
using veltrix::time_point;
using veltrix::virtual_clock;

namespace {

static_assert(!std::is_move_constructible_v<concurrency_limiter>);
static_assert(!std::is_move_constructible_v<outlier_set>);
static_assert(!std::is_move_constructible_v<retry_throttle>);
static_assert(std::is_nothrow_move_constructible_v<concurrency_limiter::permit>);
static_assert(!std::is_copy_constructible_v<concurrency_limiter::permit>);
static_assert(noexcept(std::declval<concurrency_limiter&>().try_enter(std::declval<time_point>())));
static_assert(noexcept(std::declval<outlier_set&>().failure(0, std::declval<time_point>())));
static_assert(noexcept(std::declval<retry_throttle&>().failure()));

constexpr time_point start{1h};

bool refused(auto build) {
  try {
    build();
  } catch (const std::invalid_argument&) {
    return true;
  }
  return false;
}

/// Calls that take `each`, as many at once as the limiter lets in; result: how many that were.
std::size_t full_round(concurrency_limiter& limiter, time_point& now, duration each) {
  std::vector<concurrency_limiter::permit> inside;
  while (concurrency_limiter::permit got = limiter.try_enter(now))
    inside.push_back(std::move(got));
  now += each;
  for (concurrency_limiter::permit& permit : inside)
    permit.success(now);
  return inside.size();
}

}  // namespace

// --- concurrency_limiter -------------------------------------------------------------------------

TEST_CASE("concurrency_limiter grows by one for a round of successes, up to its most") {
  concurrency_limiter limiter({.first = 1, .most = 6});
  time_point now = start;
  std::vector<std::size_t> rounds;
  for (int i = 0; i < 12; ++i)
    rounds.push_back(full_round(limiter, now, 10ms));
  CHECK(rounds.front() == 1);
  CHECK(std::is_sorted(rounds.begin(), rounds.end()));
  CHECK(rounds.back() == 6);
  CHECK(limiter.stats().bound == 6.0);
  CHECK(limiter.stats().in_use == 0);
}

TEST_CASE("concurrency_limiter does not grow while it is hardly used") {
  concurrency_limiter limiter({.first = 8});
  time_point now = start;
  for (int i = 0; i < 100; ++i) {
    concurrency_limiter::permit only = limiter.try_enter(now);
    only.success(now += 10ms);
  }
  CHECK(limiter.stats().bound == 8.0);
}

TEST_CASE("concurrency_limiter halves at a failure, once in its gap, and never falls below one") {
  concurrency_limiter limiter({.first = 8, .cut_gap = 100ms});
  const auto fail_at = [&](time_point now) {
    concurrency_limiter::permit got = limiter.try_enter(now);
    REQUIRE(got);
    got.failure(now);
    return limiter.stats().bound;
  };
  CHECK(fail_at(start) == 4.0);
  CHECK(fail_at(start + 100ms - 1ns) == 4.0);
  CHECK(fail_at(start + 100ms) == 2.0);
  for (int i = 2; i < 50; ++i)
    CHECK(fail_at(start + 100ms * i) >= 1.0);
  CHECK(limiter.stats().bound == 1.0);
  CHECK(limiter.try_enter(start + 1h));  // somebody can always ask
}

TEST_CASE("concurrency_limiter lowers its bound when successes take long, unless told not to") {
  for (const limit_by follows : {limit_by::delay, limit_by::failures}) {
    concurrency_limiter limiter({.follows = follows, .first = 10, .most = 10});
    time_point now = start;
    for (int i = 0; i < 5; ++i)
      full_round(limiter, now, 10ms);
    CHECK(limiter.stats().usual == 10ms);
    full_round(limiter, now, 40ms);
    CHECK(limiter.stats().bound == 10.0);
    full_round(limiter, now, 200ms);
    CHECK(limiter.stats().bound == (follows == limit_by::delay ? 8.0 : 10.0));
  }
  concurrency_limiter fixed({.first = 10, .most = 10, .slow_after = 30ms});
  time_point now = start;
  full_round(fixed, now, 30ms);
  CHECK(fixed.stats().bound == 10.0);
  full_round(fixed, now, 30ms + 1ns);
  CHECK(fixed.stats().bound == 8.0);
}

TEST_CASE("concurrency_limiter learns what is usual, shorter fast and longer slowly") {
  concurrency_limiter limiter({.first = 1, .most = 1});
  time_point now = start;
  full_round(limiter, now, 100ms);
  for (int i = 0; i < 100; ++i)
    full_round(limiter, now, 10ms);
  CHECK(limiter.stats().usual < 11ms);
  for (int i = 0; i < 20; ++i)
    full_round(limiter, now, 1s);  // a queue that stays for twenty calls is not usual
  CHECK(limiter.stats().usual < 40ms);
}

TEST_CASE("concurrency_limiter lets those in line in before those who come, in their order") {
  concurrency_limiter limiter({.first = 1, .most = 1}, small_random(1));
  time_point now = start;
  concurrency_limiter::permit inside = limiter.try_enter(now);
  concurrency_limiter::permit first, second;
  CHECK(limiter.enter_or_wait(first, now) > now);
  CHECK(limiter.enter_or_wait(second, now) > now);
  CHECK_FALSE(first);
  CHECK(limiter.stats().waiting == 2);
  inside.success(now += 10ms);
  CHECK_FALSE(limiter.try_enter(now));
  CHECK(limiter.enter_or_wait(second, now) > now);
  CHECK(limiter.enter_or_wait(first, now) == now);
  CHECK(first);
  CHECK(limiter.enter_or_wait(first, now) == now);  // inside already
  CHECK(limiter.stats().waiting == 1);
  first.success(now += 10ms);
  CHECK(limiter.enter_or_wait(second, now) == now);
}

TEST_CASE("concurrency_limiter is not held up by one in line who sleeps, or has left") {
  concurrency_limiter limiter({.first = 1, .most = 1}, small_random(1));
  time_point now = start;
  concurrency_limiter::permit inside = limiter.try_enter(now);
  concurrency_limiter::permit sleeper, awake;
  static_cast<void>(limiter.enter_or_wait(sleeper, now));
  static_cast<void>(limiter.enter_or_wait(awake, now));
  inside.success(now += 10ms);
  CHECK(limiter.enter_or_wait(awake, now) > now);
  CHECK(limiter.enter_or_wait(awake, now + 10ms) == now + 10ms);
  awake.success(now += 20ms);
  {
    const concurrency_limiter::permit gone = std::move(sleeper);
    CHECK_FALSE(sleeper);
  }
  CHECK(limiter.stats().waiting == 0);
  CHECK(limiter.try_enter(now));
  CHECK(limiter.stats().in_use == 0);
}

TEST_CASE("concurrency_limiter keeps a dropped call's place for those in line") {
  concurrency_limiter limiter({.first = 1, .most = 1}, small_random(1));
  concurrency_limiter::permit inside = limiter.try_enter(start);
  concurrency_limiter::permit waiter;
  static_cast<void>(limiter.enter_or_wait(waiter, start));
  inside.drop();  // tells no time: the place is free from the next look on
  CHECK_FALSE(limiter.try_enter(start + 1s));
  CHECK_FALSE(limiter.try_enter(start + 1s + 2ms));
  CHECK(limiter.enter_or_wait(waiter, start + 1s + 2ms) == start + 1s + 2ms);
  waiter.drop();

  inside = limiter.try_enter(start + 2s);
  static_cast<void>(limiter.enter_or_wait(waiter, start + 2s));
  inside.drop();
  CHECK_FALSE(limiter.try_enter(start + 3s));
  CHECK(limiter.try_enter(start + 3s + 3ms));  // nobody in line came
}

TEST_CASE("concurrency_limiter tells those far back in line to ask later") {
  concurrency_limiter limiter({.first = 1, .most = 1}, small_random(1));
  time_point now = start;
  full_round(limiter, now, 100ms);
  const concurrency_limiter::permit inside = limiter.try_enter(now);
  std::vector<concurrency_limiter::permit> line(50);
  std::vector<duration> told;
  for (concurrency_limiter::permit& each : line)
    told.push_back(limiter.enter_or_wait(each, now) - now);
  CHECK(told[0] == 10ms);
  CHECK(told[49] >= 48 * 50ms);
  CHECK(told[49] <= 48 * 100ms);
}

TEST_CASE("concurrency_limiter refuses options out of bounds") {
  const auto bad = [](const concurrency_limiter_options& options) {
    return refused([&] { concurrency_limiter limiter(options); });
  };
  CHECK(bad({.first = 0}));
  CHECK(bad({.first = 5, .most = 4}));
  CHECK(bad({.first = 0, .most = 0}));
  CHECK(bad({.slow_factor = 0.9}));
  CHECK(bad({.slow_after = -1ns}));
  CHECK(bad({.after_slow = 0.0}));
  CHECK(bad({.after_failure = 1.1}));
  CHECK(bad({.cut_gap = 2min}));
  CHECK_FALSE(bad({}));
}

TEST_CASE("concurrency_limiter agrees with a plain model for random calls") {
  const std::uint64_t seed = 33001;
  INFO("seed " << seed);
  veltrix_test::random_source choose(seed);
  for (std::size_t round = 0; round < veltrix_test::scale(2'000); ++round) {
    const auto most = static_cast<std::uint32_t>(1 + choose.below(20));
    const concurrency_limiter_options options{
        .follows = choose.below(2) == 0 ? limit_by::delay : limit_by::failures,
        .first = static_cast<std::uint32_t>(1 + choose.below(most)),
        .most = most,
        .slow_after = 50ms,
        .cut_gap = duration(10ms) * static_cast<int>(choose.below(10))};
    concurrency_limiter limiter(options, small_random(choose.next()));
    double bound = options.first;
    time_point lowered = start - 1h;
    time_point now = start;
    std::vector<std::pair<concurrency_limiter::permit, time_point>> held;
    for (int step = 0; step < 200; ++step) {
      now += std::chrono::milliseconds(choose.below(30));
      if (held.empty() || choose.below(2) == 0) {
        concurrency_limiter::permit got = limiter.try_enter(now);
        REQUIRE(static_cast<bool>(got) == (held.size() < static_cast<std::size_t>(bound)));
        if (got) held.emplace_back(std::move(got), now);
        continue;
      }
      std::swap(held[choose.below(held.size())], held.back());
      const auto used = static_cast<double>(held.size());
      const bool slow = options.follows == limit_by::delay && now - held.back().second > 50ms;
      const std::uint64_t kind = choose.below(8);
      if (kind == 0) {
        held.back().first.drop();
      } else if (kind == 1 || (kind > 1 && slow)) {
        const bool cuts = now - lowered >= options.cut_gap;
        if (cuts) bound = std::max(1.0, bound * (kind == 1 ? 0.5 : 0.8));
        lowered = cuts ? now : lowered;
        kind == 1 ? held.back().first.failure(now) : held.back().first.success(now);
      } else {
        if (used * 2 >= bound) bound = std::min<double>(most, bound + 1 / bound);
        held.back().first.success(now);
      }
      held.pop_back();
      REQUIRE(limiter.stats().bound == Approx(bound));
      REQUIRE(limiter.stats().in_use == held.size());
      REQUIRE(limiter.stats().bound >= 1.0);
    }
  }
}

// --- outlier_set ---------------------------------------------------------------------------------

namespace {

/// Fails `times` calls of a host at once.
void fail(outlier_set& hosts, std::uint32_t which, virtual_clock& clock, int times = 3) {
  for (int i = 0; i < times; ++i)
    hosts.failure(which, clock.now());
}

}  // namespace

TEST_CASE("outlier_set R55 exactly the third failure in a row ejects, for 5 s, then for longer") {
  virtual_clock clock;
  outlier_set hosts(4);
  CHECK_FALSE(hosts.failure(1, clock.now()));
  CHECK_FALSE(hosts.failure(1, clock.now()));
  hosts.success(1);
  CHECK_FALSE(hosts.failure(1, clock.now()));
  CHECK_FALSE(hosts.failure(1, clock.now()));
  CHECK(hosts.is_in(1, clock));
  CHECK(hosts.failure(1, clock.now()));
  CHECK_FALSE(hosts.is_in(1, clock));
  CHECK(hosts.back_at(1) == clock.now() + 5s);
  clock.advance(5s - 1ns);
  CHECK_FALSE(hosts.is_in(1, clock));
  clock.advance(1ns);
  CHECK(hosts.is_in(1, clock));
  fail(hosts, 1, clock, 2);
  CHECK(hosts.is_in(1, clock));  // it starts anew: again the third
  fail(hosts, 1, clock, 1);
  CHECK(hosts.back_at(1) == clock.now() + 10s);
  CHECK(hosts.stats().ejections == 2);
}

TEST_CASE("outlier_set R55 never ejects more than half, nor the last host, whoever fails") {
  for (std::uint32_t size = 1; size <= 9; ++size) {
    for (const double most : {0.5, 1.0, 0.0}) {
      virtual_clock clock;
      outlier_set hosts(size, {.max_ejected = most});
      const std::uint32_t room = most == 0.5 ? size / 2 : most == 1.0 ? size - 1 : 0;
      std::uint32_t worst = 0;
      for (std::uint32_t i = 0; i < 20 * size; ++i) {
        hosts.failure(i % size, clock.now());
        worst = std::max(worst, hosts.ejected(clock.now()));
        clock.advance(10ms);
      }
      CHECK(worst == room);
      CHECK(hosts.is_in(hosts.pick(0, clock), clock));
      CHECK(hosts.stats().spared > 0);
    }
  }
}

TEST_CASE("outlier_set ejects who was spared, at its next failure, when there is room") {
  virtual_clock clock;
  outlier_set hosts(2);
  fail(hosts, 0, clock);
  fail(hosts, 1, clock, 5);
  CHECK(hosts.is_in(1, clock));
  clock.advance(5s);
  CHECK(hosts.failure(1, clock.now()));
  CHECK_FALSE(hosts.is_in(1, clock));
}

TEST_CASE("outlier_set forgives an ejection for each stretch that a host was in again") {
  virtual_clock clock;
  outlier_set hosts(4, {.eject_longest = 12s});
  const auto ejected_for = [&] {
    fail(hosts, 0, clock);
    const duration out = hosts.back_at(0) - clock.now();
    clock.advance(out);
    return out;
  };
  CHECK(ejected_for() == 5s);
  CHECK(ejected_for() == 10s);
  CHECK(ejected_for() == 12s);  // the longest
  clock.advance(10s);           // forgives two of three
  CHECK(ejected_for() == 10s);
  clock.advance(1h);
  CHECK(ejected_for() == 5s);
}

TEST_CASE("outlier_set picks the next host that is in, round about") {
  virtual_clock clock;
  outlier_set hosts(4);
  CHECK(hosts.pick(6, clock) == 2);
  fail(hosts, 3, clock);
  CHECK(hosts.pick(3, clock) == 0);
  fail(hosts, 0, clock);
  CHECK(hosts.pick(3, clock) == 1);
}

TEST_CASE("outlier_set agrees with a plain model for random results") {
  const std::uint64_t seed = 33002;
  INFO("seed " << seed);
  veltrix_test::random_source choose(seed);
  for (std::size_t round = 0; round < veltrix_test::scale(1'000); ++round) {
    const auto size = static_cast<std::uint32_t>(1 + choose.below(8));
    const outlier_set_options options{.failures = static_cast<std::uint32_t>(1 + choose.below(4)),
                                      .eject_first = 5s,
                                      .eject_longest = 17s,
                                      .max_ejected = static_cast<double>(choose.below(5)) / 4};
    struct plain_host {
      std::uint32_t row = 0;
      std::uint64_t times = 0;
      time_point until = start - 100h;

      void eject(time_point now) {
        const auto well = static_cast<std::uint64_t>((now - until) / 5s);
        times = times > well ? times - well + 1 : 1;
        until = now + std::min<duration>(5s * static_cast<int>(times), 17s);
        row = 0;
      }
    };
    outlier_set hosts(size, options);
    std::vector<plain_host> model(size);
    const std::uint32_t room =
        std::min(size - 1, static_cast<std::uint32_t>(options.max_ejected * size));
    virtual_clock clock;
    for (int step = 0; step < 300; ++step) {
      if (choose.below(3) == 0) clock.advance(std::chrono::milliseconds(choose.below(4'000)));
      const time_point now = clock.now();
      const auto which = static_cast<std::uint32_t>(choose.below(size));
      plain_host& told = model[which];
      const auto out = std::count_if(model.begin(), model.end(),
                                     [&](const plain_host& each) { return now < each.until; });
      if (choose.below(4) == 0) {
        hosts.success(which);
        told.row = 0;
      } else if (now < told.until) {
        REQUIRE_FALSE(hosts.failure(which, now));
      } else {
        told.row = std::min(told.row + 1, options.failures);
        const bool ejects = told.row == options.failures && out < room;
        REQUIRE(hosts.failure(which, now) == ejects);
        if (ejects) told.eject(now);
      }
      for (std::uint32_t each = 0; each < size; ++each)
        REQUIRE(hosts.is_in(each, clock) == (now >= model[each].until));
    }
  }
}

TEST_CASE("outlier_set reads no clock for a host that never was ejected, and refuses bad options") {
  struct no_clock {
    time_point now() const { throw std::logic_error("read"); }
  } clock;
  outlier_set hosts(3);
  CHECK(hosts.is_in(2, clock));
  hosts.success(2);
  CHECK(hosts.pick(2, clock) == 2);
  CHECK(refused([] { outlier_set none(0); }));
  CHECK(refused([] { outlier_set bad(2, {.failures = 0}); }));
  CHECK(refused([] { outlier_set bad(2, {.eject_first = 0s}); }));
  CHECK(refused([] { outlier_set bad(2, {.eject_first = 10s, .eject_longest = 5s}); }));
  CHECK(refused([] { outlier_set bad(2, {.max_ejected = 1.5}); }));
}

// --- retry_throttle ------------------------------------------------------------------------------

TEST_CASE("retry_throttle allows retries while more than half of its tokens are there") {
  retry_throttle shared({.tokens = 10, .paid_back = 0.1});
  for (int i = 0; i < 4; ++i)
    shared.failure();
  CHECK(shared.allows());  // 6 of 10
  shared.failure();
  CHECK_FALSE(shared.allows());  // 5 of 10
  shared.success();
  CHECK(shared.allows());
  for (int i = 0; i < 100; ++i)
    shared.failure();
  CHECK(shared.balance() == 0.0);
  for (int i = 0; i < 50; ++i)
    shared.success();
  CHECK_FALSE(shared.allows());
  for (int i = 0; i < 1000; ++i)
    shared.success();
  CHECK(shared.balance() == 10.0);
  CHECK(refused([] { retry_throttle none({.tokens = 0}); }));
  CHECK(refused([] { retry_throttle none({.paid_back = 0.0}); }));
}

// --- circuit_breaker by time ---------------------------------------------------------------------

TEST_CASE("circuit_breaker by time judges the results of its window and no older ones") {
  virtual_clock clock;
  circuit_breaker breaker({.min_samples = 4, .window_time = 10s});
  const auto call = [&](bool good) {
    circuit_breaker::entry entry = breaker.enter(clock);
    good ? entry.pass.success(clock.now()) : entry.pass.failure(clock.now());
  };
  for (int i = 0; i < 100; ++i)
    call(true);
  for (int i = 0; i < 99; ++i)
    call(false);
  CHECK(breaker.state() == breaker_state::closed);  // 99 of 199
  clock.advance(9s);
  call(false);
  CHECK(breaker.state() == breaker_state::open);  // 100 of 200

  clock.advance(10s);
  for (int i = 0; i < 3; ++i)
    call(true);
  REQUIRE(breaker.state() == breaker_state::closed);
  call(false);
  call(true);
  call(true);
  clock.advance(10s);  // all of them are over
  for (int i = 0; i < 3; ++i)
    call(false);
  CHECK(breaker.state() == breaker_state::closed);  // too few
  call(false);
  CHECK(breaker.state() == breaker_state::open);
}

TEST_CASE("circuit_breaker opens when too many successes are slow, or a probe is") {
  virtual_clock clock;
  circuit_breaker breaker(
      {.window = 4, .min_samples = 4, .slow_after = 100ms, .slow_ratio = 0.5, .open_jitter = 0.0});
  CHECK(breaker.times());
  const auto call = [&](duration takes) {
    circuit_breaker::entry entry = breaker.enter(clock);
    REQUIRE(entry);
    clock.advance(takes);
    entry.pass.success(clock.now());
  };
  for (int i = 0; i < 10; ++i)
    call(100ms);
  call(101ms);
  CHECK(breaker.state() == breaker_state::closed);
  call(1ms);
  call(101ms);
  CHECK(breaker.state() == breaker_state::open);  // 2 of 4
  clock.advance(250ms);
  call(101ms);
  CHECK(breaker.state() == breaker_state::open);
  CHECK(breaker.stats().opened == 2);
  clock.advance(500ms);
  for (int i = 0; i < 3; ++i)
    call(1ms);
  CHECK(breaker.state() == breaker_state::closed);
}

TEST_CASE("circuit_breaker by time agrees with a plain list of results") {
  const std::uint64_t seed = 33003;
  INFO("seed " << seed);
  veltrix_test::random_source choose(seed);
  for (std::size_t round = 0; round < veltrix_test::scale(1'000); ++round) {
    const circuit_breaker_options options{
        .min_samples = static_cast<std::uint32_t>(1 + choose.below(30)),
        .failure_ratio = static_cast<double>(1 + choose.below(8)) / 8.0,
        .window_time = 10s,
        .slow_after = 10ms,
        .slow_ratio = static_cast<double>(1 + choose.below(8)) / 8.0};
    circuit_breaker breaker(options, small_random(1));
    struct seen {
      std::int64_t tenth;
      bool failure;
      bool slow;
    };
    std::vector<seen> results;
    virtual_clock clock;
    const std::uint64_t failure_share = choose.below(101);
    for (int step = 0; step < 200 && breaker.state() == breaker_state::closed; ++step) {
      clock.advance(std::chrono::milliseconds(choose.below(choose.below(10) == 0 ? 20'000 : 300)));
      const bool failure = choose.below(100) < failure_share;
      circuit_breaker::entry timed = breaker.enter(clock);
      const duration takes = std::chrono::milliseconds(choose.below(20));
      clock.advance(takes);
      const std::int64_t ends = clock.now().time_since_epoch() / 1s;
      results.push_back({ends, failure, !failure && takes > 10ms});
      failure ? timed.pass.failure(clock.now()) : timed.pass.success(clock.now());
      double count = 0, failures = 0, slows = 0;
      for (const seen& each : results) {
        if (each.tenth <= ends - 10) continue;
        ++count;
        failures += each.failure ? 1 : 0;
        slows += each.slow ? 1 : 0;
      }
      const bool bad =
          failures / count >= options.failure_ratio || slows / count >= options.slow_ratio;
      const bool opens = (failure || takes > 10ms) && count >= options.min_samples && bad;
      REQUIRE((breaker.state() == breaker_state::open) == opens);
    }
  }
}

TEST_CASE("circuit_breaker refuses windows of time out of bounds") {
  const auto bad = [](const circuit_breaker_options& options) {
    return refused([&] { circuit_breaker breaker(options); });
  };
  CHECK(bad({.window_time = 999ns}));
  CHECK(bad({.window_time = 2h}));
  CHECK(bad({.window_time = -1s}));
  CHECK(bad({.slow_after = -1ns}));
  CHECK(bad({.slow_ratio = 0.0}));
  CHECK(bad({.min_samples = 21}));
  CHECK_FALSE(bad({.min_samples = 21, .window_time = 1s}));
}
