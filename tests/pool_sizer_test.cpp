// pool_sizer: where it settles on simulated machines, and what it never does.
// SPDX-License-Identifier: BSL-1.0
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"
#include "veltrix/elastic_pool.hpp"
#include "veltrix/pool_sizer.hpp"
#include "veltrix/resilience.hpp"

using namespace veltrix;
using namespace std::chrono_literals;
using veltrix_test::random_source;

namespace {

/// A machine on which workers beyond `cores` cost the others something.
struct machine {
  double cores = 16;
  double each = 100;      ///< tasks per second of a worker alone
  double contention = 0;  ///< share lost per worker too many
  double offered = 1e9;   ///< tasks per second that come
  double noise = 0.01;

  [[nodiscard]] double rate(std::size_t workers) const {
    const double many = static_cast<double>(workers);
    const double over = std::max(0.0, many - cores);
    return std::min(offered, std::min(many, cores) * each / (1 + contention * over));
  }
  /// Of a task that finds every worker busy, by Little's law.
  [[nodiscard]] duration latency(std::size_t workers) const {
    return duration(static_cast<duration::rep>(static_cast<double>(workers) / rate(workers) * 1e9));
  }
};

/// Drives a sizer through windows in virtual time.
class drive {
 public:
  drive(std::size_t size, pool_sizer_options options, std::uint64_t seed = 1)
      : sizer(size, options), random_(seed) {
    static_cast<void>(sizer.observe(seen, now));
  }
  sizing_decision window(const machine& on) {
    now = now + 1s;
    const double luck = 1 + on.noise * (static_cast<double>(random_.below(2001)) / 1000 - 1);
    seen.completed += static_cast<std::uint64_t>(on.rate(sizer.size()) * luck);
    seen.latency = on.latency(sizer.size());
    return sizer.observe(seen, now);
  }
  void windows(const machine& on, int count) {
    for (int i = 0; i < count; ++i) {
      const auto told = window(on);
      if (told) messages.push_back(told.message);
    }
  }

  pool_sizer sizer;
  pool_sample seen;
  time_point now = time_point() + 1h;
  std::vector<std::string> messages;

 private:
  random_source random_;
};

}  // namespace

TEST_CASE("pool_sizer settles where more workers do not do more, from below and from above") {
  for (const std::size_t start : {1U, 16U, 200U}) {
    CAPTURE(start);
    drive run(start, {.ceiling = 256});
    run.windows({.contention = 0.02}, 120);
    for (int i = 0; i < 40; ++i) {
      static_cast<void>(run.window({.contention = 0.02}));
      REQUIRE(run.sizer.size() >= 11);
      REQUIRE(run.sizer.size() <= 22);
    }
  }
}

TEST_CASE("pool_sizer follows the machine and the load when they change") {
  drive run(8, {.ceiling = 128});
  run.windows({.cores = 32}, 80);
  CHECK(run.sizer.size() >= 24);
  run.windows({.cores = 4, .contention = 0.05}, 80);
  CHECK(run.sizer.size() <= 8);
  run.windows({.cores = 32}, 120);
  CHECK(run.sizer.size() >= 24);
  run.windows({.cores = 32, .offered = 300}, 120);  // three workers could do that
  CHECK(run.sizer.size() <= 6);
}

TEST_CASE("pool_sizer R11: under twice the load it can take the latency budget holds") {
  // 42 ms for queue and service; a task takes 5 ms alone, on 8 cores; all workers are always busy.
  const machine overloaded{.cores = 8, .each = 200, .contention = 0.0005};
  CHECK(overloaded.latency(512) > 5 * 42ms);  // what the fixed size of 512 comes to
  drive run(512, {.ceiling = 512, .latency_budget = 42ms});
  run.windows(overloaded, 60);
  for (int i = 0; i < 60; ++i) {
    static_cast<void>(run.window(overloaded));
    REQUIRE(overloaded.latency(run.sizer.size()) <= 42ms * 5 / 4);
    REQUIRE(overloaded.rate(run.sizer.size()) >= 0.85 * overloaded.rate(8));
  }
}

namespace {

/// A service of workers that call a dependency behind a breaker, asked a thousand times a second.
struct guarded_service {
  virtual_clock clock;
  circuit_breaker breaker{{}, small_random(52)};
  pool_sizer sizer{20, {.ceiling = 200}};
  pool_sample seen{};
  std::uint64_t failed = 0;
  std::uint64_t kept_away = 0;

  /// One call, 1 ms after the one before. A failure is no demand: it is not completed work.
  void call(bool down) {
    clock.advance(1ms);
    auto entry = breaker.enter(clock);
    if (!entry) {
      ++kept_away;
    } else if (down) {
      ++failed;
      entry.pass.failure(clock.now());
    } else {
      ++seen.completed;
      entry.pass.success(clock.now());
    }
  }
  sizing_decision look() {
    if (breaker.state() == breaker_state::closed) return sizer.observe(seen, clock.now());
    sizer.hold(seen, clock.now());
    return {.size = sizer.size()};
  }
};

}  // namespace

TEST_CASE("pool_sizer R52: while every call is answered 503 the target stays what it was") {
  // Wherever within a window the outage begins. Ten failures open the breaker, and the next look is
  // later than that; one before it would judge a window that lacks less work than `gain`.
  for (const int begin : {0, 1, 9, 250, 500, 991, 999}) {
    CAPTURE(begin);
    guarded_service service;
    const auto run = [&service](int calls, bool down) {
      std::size_t decisions = 0;
      for (int i = 0; i < calls; ++i) {
        service.call(down);
        if (i % 100 == 99) decisions += service.look() ? 1U : 0U;
      }
      return decisions;
    };
    static_cast<void>(service.look());
    static_cast<void>(run(5'000, false));
    static_cast<void>(run(begin, false));
    const std::size_t before = service.sizer.size();
    CHECK(run(60'000, true) == 0);
    CHECK(service.sizer.size() == before);
    CHECK(service.failed < 100);  // what reached the dependency in a minute of outage
    CHECK(service.kept_away > 59'900);

    // Back again: no decision on a window that saw the outage, and sizing goes on after it.
    int waited = 0;
    while (service.breaker.state() != breaker_state::closed && ++waited < 5'000) {
      service.call(false);
      static_cast<void>(service.look());
    }
    REQUIRE(service.breaker.state() == breaker_state::closed);
    CHECK(service.sizer.size() == before);
    CHECK(run(1'900, false) == 0);
    CHECK(run(3'000, false) > 0);
  }
}

TEST_CASE("pool_sizer R52: without holding, errors that count as work raise the target") {
  // What the rule above is for: errors take a twentieth of the time of work.
  pool_sizer naive(20, {.ceiling = 200});
  pool_sample seen;
  time_point now{};
  static_cast<void>(naive.observe(seen, now));
  for (int second = 0; second < 45; ++second) {
    seen.completed += 1'000 * naive.size();  // more workers, more errors
    static_cast<void>(naive.observe(seen, now += 1s));
  }
  CHECK(naive.size() >= 100);
}

TEST_CASE("pool_sizer takes timeouts and drops for pressure, and stays calm after it") {
  for (const bool drops : {false, true}) {
    drive run(100, {.ceiling = 128, .calm = 3});
    run.windows({.cores = 128}, 1);
    (drops ? run.seen.drops : run.seen.timeouts) += 1;
    const auto told = run.window({.cores = 128});
    CHECK(told.reason == sizing_reason::pressure);
    CHECK(told.size == run.sizer.size());
    CHECK(told.size <= 96);
    const std::size_t cut = told.size;
    run.windows({.cores = 128}, 3);
    CHECK(run.sizer.size() <= cut);
    run.windows({.cores = 128}, 60);
    CHECK(run.sizer.size() > cut);
  }
}

TEST_CASE("pool_sizer does not grow before it has been calm for so many windows") {
  pool_sizer sizer(64, {.ceiling = 128, .calm = 3});
  pool_sample seen;
  time_point now{};
  const auto window = [&](std::uint64_t completed, std::uint64_t drops) {
    seen.completed += completed;
    seen.drops += drops;
    now += 1s;
    return sizer.observe(seen, now);
  };
  static_cast<void>(window(0, 0));
  CHECK(window(10'000, 1).size == 48);
  CHECK(window(10'000, 0).reason == sizing_reason::none);  // nothing to compare with
  CHECK(window(8'000, 0).reason == sizing_reason::slower);
  CHECK(sizer.size() == 48);  // up again, if it were calm
  CHECK(window(9'000, 0).reason == sizing_reason::faster);
  CHECK(sizer.size() == 54);
}

TEST_CASE("pool_sizer never leaves its bounds, whatever it is told") {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    CAPTURE(seed);
    random_source random(seed);
    const std::size_t least = 1 + random.below(4);
    const std::size_t ceiling = least + random.below(40);
    pool_sizer sizer(least + random.below(ceiling - least + 1),
                     {.least = least, .ceiling = ceiling, .latency_budget = 50ms});
    pool_sample seen;
    time_point now{};
    for (int i = 0; i < 500; ++i) {
      now = now + std::chrono::milliseconds(random.below(2'000));
      seen.completed += random.below(3) == 0 ? 0 : random.below(100'000);
      seen.timeouts += random.below(20) == 0 ? 1 : 0;
      seen.drops += random.below(20) == 0 ? 1 : 0;
      seen.latency = std::chrono::milliseconds(random.below(60));
      const std::size_t before = sizer.size();
      const auto told = sizer.observe(seen, now);
      REQUIRE(told.size == sizer.size());
      REQUIRE(told.size >= least);
      REQUIRE(told.size <= ceiling);
      REQUIRE(static_cast<bool>(told) == (told.size != before));
      if (told.reason == sizing_reason::pressure) REQUIRE(told.size <= before);
      if (random.below(50) == 0) sizer.correct(random.below(100));
    }
  }
}

TEST_CASE("pool_sizer decides once in a window, and begins anew when counters start over") {
  pool_sizer sizer(8, {.ceiling = 16});
  const time_point start{};
  CHECK_FALSE(sizer.observe({.completed = 5}, start));
  CHECK_FALSE(sizer.observe({.completed = 5, .drops = 9}, start + 999ms));
  CHECK(sizer.observe({.completed = 5, .drops = 9}, start + 1s).reason == sizing_reason::pressure);
  const std::size_t now = sizer.size();
  CHECK_FALSE(sizer.observe({.completed = 1}, start + 9s));  // another pool, or a restarted count
  CHECK(sizer.size() == now);
}

TEST_CASE(
    "pool_sizer that lacks memory to say why has decided nothing, and decides the same then") {
  const pool_sizer_options options{.ceiling = 64, .latency_budget = 1s};
  pool_sizer sizer(16, options);
  pool_sizer twin(16, options);
  pool_sample seen;
  time_point now = time_point() + 1h;
  random_source random(7);
  int failures = 0;
  for (int window = 0; window < 200; ++window, now = now + 1s) {
    seen.completed += random.below(2000);
    seen.timeouts += random.below(8) == 0 ? 1 : 0;
    const sizing_decision wanted = twin.observe(seen, now);
    sizing_decision told;
    failures += veltrix_test::fail_each_allocation([&] { told = sizer.observe(seen, now); },
                                                   [&] { CHECK(sizer.size() != wanted.size); });
    REQUIRE(told.size == wanted.size);
    REQUIRE(told.message == wanted.message);
  }
  CHECK(failures > 100);
}

TEST_CASE("pool_sizer says what it changed, why, and by which figures") {
  pool_sizer sizer(64, {.ceiling = 512});
  static_cast<void>(sizer.observe({}, time_point()));
  const auto told =
      sizer.observe({.completed = 1'000, .timeouts = 2, .latency = 80ms}, time_point() + 2s);
  CHECK(told.message ==
        "veltrix: pool_sizer: 64 -> 48 workers: pressure: 500 tasks/s, 0 before, 2 timeouts, 0 "
        "drops, latency 80 ms; bounds 1 to 512");
}

TEST_CASE("pool_sizer refuses options and sizes out of bounds by name") {
  using Catch::Contains;
  const auto built = [](std::size_t size, pool_sizer_options options) {
    return [=] { pool_sizer(size, options); };
  };
  CHECK_THROWS_WITH(built(1, {})(), Contains("ceiling") && Contains("1 to 65536"));
  CHECK_THROWS_WITH(built(1, {.least = 9, .ceiling = 8})(), Contains("least"));
  CHECK_THROWS_WITH(built(9, {.ceiling = 8})(), Contains("size") && Contains("1 to 8"));
  CHECK_THROWS_WITH(built(1, {.ceiling = 8, .window = 0ms})(), Contains("window"));
  CHECK_THROWS_WITH(built(1, {.ceiling = 8, .latency_budget = 0ms})(), Contains("latency_budget"));
  CHECK_THROWS_WITH(built(1, {.ceiling = 8, .gain = 0})(), Contains("gain"));
  CHECK_THROWS_WITH(built(1, {.ceiling = 8, .step = 1})(), Contains("step"));
  CHECK_THROWS_WITH(built(1, {.ceiling = 8, .after_pressure = 1})(), Contains("after_pressure"));
  CHECK_THROWS_WITH(built(1, {.ceiling = 8, .calm = 101})(), Contains("calm"));
}

TEST_CASE("pool_sizer and a pool go on from the size that the pool has") {
  elastic_pool pool(8, {.max_workers = 8});
  pool_sizer sizer(8, {.ceiling = 32});
  const resize_options patient{.deadline = steady_clock::now() + 10s};
  time_point now{};
  pool_sample seen;
  CHECK_FALSE(adapt(pool, sizer, seen, now, patient));
  ++seen.drops;
  CHECK(adapt(pool, sizer, seen, now += 1s, patient));
  CHECK(pool.stats().configured == 6);
  CHECK(sizer.size() == 6);
  for (int i = 0; i < 40; ++i) {  // a rate that grows with the size: more than the pool allows
    seen.completed += 1'000 * sizer.size() * sizer.size();
    static_cast<void>(adapt(pool, sizer, seen, now += 1s, patient));
    REQUIRE(sizer.size() == pool.stats().configured);
    REQUIRE(sizer.size() <= 8);
  }
}
