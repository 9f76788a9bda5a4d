// Invariants:
//   S1  never are two probes of a circuit breaker in flight at once, whatever becomes of a probe
//   S2  retries granted <= burst + ratio × first attempts + per_second × elapsed, at any time
//   S3  never are more calls inside a bulkhead than its limit, and all places come back
//   S4  a rate limiter gives no start twice and no more starts than its rate allows
//   S5  a concurrency limiter never has more inside than its most, and all places come back
//   S6  never are more hosts ejected than may be, and always one is in
// SPDX-License-Identifier: BSL-1.0
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

#include "support/catch.hpp"
#include "support/random.hpp"
#include "support/scale.hpp"
#include "veltrix/resilience.hpp"

using namespace std::chrono_literals;
using veltrix::breaker_state;
using veltrix::bulkhead;
using veltrix::circuit_breaker;
using veltrix::duration;
using veltrix::rate_limiter;
using veltrix::retry_budget;
using veltrix::time_point;
using veltrix::virtual_clock;

namespace {

constexpr std::uint64_t threads = 8;

/// Runs `body(random)` on eight threads.
void on_all_threads(std::uint64_t seed, auto body) {
  std::vector<std::thread> running;
  for (std::uint64_t i = 0; i < threads; ++i) {
    running.emplace_back([&body, seed, i] {
      veltrix_test::random_source choose(seed + i);
      body(choose);
    });
  }
  for (std::thread& each : running)
    each.join();
}

}  // namespace

TEST_CASE("circuit_breaker S1 never has two probes in flight") {
  const std::uint64_t seed = 41001;
  INFO("seed " << seed);
  virtual_clock clock;
  circuit_breaker breaker({.window = 8, .min_samples = 4, .open_first = 1us, .open_longest = 4us});
  std::atomic<int> probes{0};
  std::atomic<int> most{0};
  std::atomic<std::uint64_t> probed{0};
  on_all_threads(seed, [&](veltrix_test::random_source& choose) {
    for (std::size_t i = 0; i < veltrix_test::scale(300'000); ++i) {
      if (choose.below(4) == 0) clock.advance(1us);
      circuit_breaker::entry entry = breaker.enter(clock);
      if (!entry) continue;
      const bool probe = entry.pass.is_probe();
      if (probe) {
        const int now = probes.fetch_add(1) + 1;
        if (now > most.load()) most.store(now);
        probed.fetch_add(1);
      }
      if (choose.below(64) == 0) std::this_thread::yield();
      // Counted out before the report: the slot may be taken again the moment it is free.
      if (probe) probes.fetch_sub(1);
      switch (choose.below(4)) {
        case 0: entry.pass.failure(clock.now()); break;
        case 1: entry.pass.drop(); break;
        default: entry.pass.success(); break;
      }
    }
  });
  CHECK(most.load() == 1);
  CHECK(probed.load() > 100);
  CHECK(breaker.stats().opened > 10);
  // The slot did not leak: after enough successes the breaker is closed again.
  for (int i = 0; i < 10; ++i) {
    clock.advance(1s);
    breaker.enter(clock).pass.success();
  }
  CHECK(breaker.state() == breaker_state::closed);
}

TEST_CASE("retry_budget S2 never grants more than its bound") {
  const std::uint64_t seed = 41002;
  INFO("seed " << seed);
  const time_point start{1h};
  retry_budget budget({.ratio = 0.1, .per_second = 50.0, .burst = 10});
  std::atomic<std::int64_t> elapsed_us{0};
  std::atomic<std::uint64_t> calls{0};
  std::atomic<std::uint64_t> spent{0};
  std::atomic<std::uint64_t> too_many{0};
  on_all_threads(seed, [&](veltrix_test::random_source& choose) {
    for (std::size_t i = 0; i < veltrix_test::scale(200'000); ++i) {
      if (choose.below(50) == 0) elapsed_us.fetch_add(100);
      calls.fetch_add(1);  // before the deposit, so that the bound below is never too low
      budget.deposit();
      if (choose.below(2) != 0) continue;
      retry_budget::token token =
          budget.try_withdraw(start + std::chrono::microseconds(elapsed_us.load()));
      if (!token || choose.below(4) == 0) continue;  // a fourth is given back unspent
      token.spend();
      const std::uint64_t used = spent.fetch_add(1) + 1;
      const double seconds = static_cast<double>(elapsed_us.load()) * 1e-6;
      const double bound = 10.0 + 0.1 * static_cast<double>(calls.load()) + 50.0 * seconds;
      if (static_cast<double>(used) > bound + 1e-6) too_many.fetch_add(1);
    }
  });
  CHECK(too_many.load() == 0);
  CHECK(budget.stats().granted == spent.load());
  CHECK(spent.load() > calls.load() / 20);  // and it does grant what was paid in
}

TEST_CASE("bulkhead S3 never has more inside than its limit") {
  bulkhead places(3);
  std::atomic<int> inside{0};
  std::atomic<int> most{0};
  on_all_threads(41003, [&](veltrix_test::random_source& choose) {
    for (std::size_t i = 0; i < veltrix_test::scale(300'000); ++i) {
      const bulkhead::permit permit = places.try_enter();
      if (!permit) continue;
      const int now = inside.fetch_add(1) + 1;
      if (now > most.load()) most.store(now);
      if (choose.below(32) == 0) std::this_thread::yield();
      inside.fetch_sub(1);
    }
  });
  CHECK(most.load() <= 3);
  CHECK(places.in_use() == 0);
}

TEST_CASE("rate_limiter S4 gives each start once") {
  rate_limiter limiter({.per_second = 1e6, .burst = 1});
  const time_point start{1h};
  const std::size_t each = veltrix_test::scale(100'000);
  std::vector<std::vector<time_point>> got(threads);
  std::atomic<std::size_t> next{0};
  on_all_threads(41004, [&](veltrix_test::random_source&) {
    std::vector<time_point>& mine = got[next.fetch_add(1)];
    for (std::size_t i = 0; i < each; ++i)
      mine.push_back(limiter.reserve({.now = start}).start_at);
  });
  std::vector<time_point> all;
  for (const auto& part : got) {
    CHECK(std::is_sorted(part.begin(), part.end()));
    all.insert(all.end(), part.begin(), part.end());
  }
  std::sort(all.begin(), all.end());
  REQUIRE(all.size() == threads * each);
  for (std::size_t i = 0; i < all.size(); ++i)
    REQUIRE(all[i] == start + duration(1000) * static_cast<duration::rep>(i));
}

TEST_CASE("concurrency_limiter S5 never has more inside than its most") {
  const std::uint64_t seed = 41005;
  INFO("seed " << seed);
  virtual_clock clock;
  veltrix::concurrency_limiter limiter({.first = 2, .most = 4, .cut_gap = 0ns});
  std::atomic<int> inside{0};
  std::atomic<int> most{0};
  on_all_threads(seed, [&](veltrix_test::random_source& choose) {
    veltrix::concurrency_limiter::permit place;
    for (std::size_t i = 0; i < veltrix_test::scale(100'000); ++i) {
      if (choose.below(8) == 0) clock.advance(1ms);
      const time_point now = clock.now();
      if (choose.below(2) == 0) {
        static_cast<void>(limiter.enter_or_wait(place, now));
      } else {
        place = limiter.try_enter(now);  // gives up a place in line
      }
      if (!place) continue;
      const int together = inside.fetch_add(1) + 1;
      if (together > most.load()) most.store(together);
      if (choose.below(32) == 0) std::this_thread::yield();
      inside.fetch_sub(1);
      choose.below(4) == 0 ? place.failure(clock.now()) : place.success(clock.now());
    }
  });
  CHECK(most.load() <= 4);
  CHECK(limiter.stats().in_use == 0);
  CHECK(limiter.stats().waiting == 0);
  CHECK(limiter.stats().bound >= 1.0);
}

TEST_CASE("outlier_set S6 never ejects more hosts than may be") {
  const std::uint64_t seed = 41006;
  INFO("seed " << seed);
  virtual_clock clock;
  veltrix::outlier_set hosts(5, {.eject_first = 1us, .eject_longest = 5us});
  std::atomic<std::uint64_t> too_many{0};
  on_all_threads(seed, [&](veltrix_test::random_source& choose) {
    for (std::size_t i = 0; i < veltrix_test::scale(100'000); ++i) {
      if (choose.below(8) == 0) clock.advance(1us);
      const auto which = static_cast<std::uint32_t>(choose.below(5));
      choose.below(3) == 0 ? hosts.success(which)
                           : static_cast<void>(hosts.failure(which, clock.now()));
      if (hosts.ejected(clock.now()) > 2) too_many.fetch_add(1);
      static_cast<void>(hosts.pick(which, clock));
    }
  });
  CHECK(too_many.load() == 0);
  CHECK(hosts.stats().ejections > 100);
}
