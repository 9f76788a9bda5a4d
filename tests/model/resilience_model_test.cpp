// Breaker, budget, limiter and bulkhead explored: their bounds hold whoever meets and however the
// clocks jump, and what claims to need nobody else goes on when another thread stops for ever.
// SPDX-License-Identifier: BSL-1.0
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iterator>

#include "model/support.hpp"
#include "veltrix/resilience.hpp"

namespace {

using namespace veltrix_model;
using namespace std::chrono_literals;
using veltrix::breaker_state;
using veltrix::bulkhead;
using veltrix::circuit_breaker;
using veltrix::rate_limiter;
using veltrix::retry_budget;
using veltrix::time_point;

constexpr time_point start{1h};

/// Opens at the first failure for one second, asks one probe.
constexpr veltrix::circuit_breaker_options touchy{.window = 1,
                                                  .min_samples = 1,
                                                  .open_first = 1s,
                                                  .open_longest = 1s,
                                                  .open_jitter = 0,
                                                  .probes_to_close = 1};

/// A clock of one thread's own, which may be ahead of another's.
struct own_clock {
  time_point at;
  [[nodiscard]] time_point now() const noexcept { return at; }
};

exploration freezing(int preemptions) {
  exploration wanted{{.preemptions = preemptions, .stale_reads = 1}};
  wanted.may_freeze = only(1);
  return wanted;
}

}  // namespace

TEST_CASE("resilience model: a bulkhead never has more inside than its limit") {
  check_exhausted("bulkhead 3 callers, limit 2", explore({{.stale_reads = 1}}, [] {
                    bulkhead gate(2);
                    atomic<int> inside = 0;
                    const auto call = [&] {
                      if (bulkhead::permit place = gate.try_enter()) {
                        require(inside.fetch_add(1, std::memory_order_relaxed) < 2, "the bound");
                        inside.fetch_sub(1, std::memory_order_relaxed);
                      }
                    };
                    together(call, call, call);
                    require(gate.in_use() == 0, "all have left");
                  }));
}

namespace {

/// Three callers of one limiter, each with a clock of its own.
void reserve_at(const time_point (&clocks)[3]) {
  rate_limiter limiter({.per_second = 1});
  time_point given[3];
  const auto reserve = [&](std::size_t nth) {
    const rate_limiter::slot got = limiter.reserve({.now = clocks[nth]});
    require(got.granted && got.start_at >= clocks[nth], "not before it was asked");
    given[nth] = got.start_at;
  };
  together([&] { reserve(0); }, [&] { reserve(1); }, [&] { reserve(2); });
  std::sort(std::begin(given), std::end(given));
  require(given[1] - given[0] >= 1s && given[2] - given[1] >= 1s, "apart");
}

}  // namespace

TEST_CASE("resilience model: a limiter hands out starts apart, though clocks jump both ways") {
  const exploration wanted{{.stale_reads = 2}};
  check_exhausted("rate_limiter one clock",
                  explore(wanted, [] { reserve_at({start, start, start}); }));
  check_exhausted("rate_limiter clocks apart",
                  explore(wanted, [] { reserve_at({start, start + 10s, start - 10s}); }));
}

TEST_CASE("resilience model: a half-open breaker lets one probe through at a time") {
  check_exhausted("circuit_breaker half-open", explore({{.stale_reads = 1}}, [] {
                    circuit_breaker breaker(touchy, veltrix::small_random(1));
                    own_clock early{start}, late{start + 1s};
                    circuit_breaker::entry slow = breaker.enter(early);
                    breaker.enter(early).pass.failure(start);
                    require(breaker.state() == breaker_state::open, "it opened");
                    atomic<int> probes = 0;
                    const auto call = [&](own_clock& clock) {
                      circuit_breaker::entry got = breaker.enter(clock);
                      if (!got) return require(got.retry_at > clock.at, "asking later makes sense");
                      if (got.pass.is_probe()) {
                        require(probes.fetch_add(1, std::memory_order_relaxed) == 0, "one probe");
                        probes.fetch_sub(1, std::memory_order_relaxed);
                      }
                      got.pass.drop();
                    };
                    together([&] { call(late); }, [&] { call(early); },
                             [&] {
                               call(late);
                               slow.pass.failure(start + 1s);  // of a state that is over
                             });
                    require(breaker.stats().opened == 1, "a late result changes nothing");
                  }));
}

TEST_CASE("resilience model: a budget grants what it has, though a clock jumps ahead and back") {
  check_exhausted("retry_budget 3 callers", explore({{.stale_reads = 1}}, [] {
                    retry_budget budget({.ratio = 0, .per_second = 1, .burst = 1});
                    static_cast<void>(budget.balance(start));
                    atomic<int> granted = 0;
                    const auto ask = [&](time_point now) {
                      budget.deposit();
                      retry_budget::token got = budget.try_withdraw(now);
                      if (!got) return;
                      granted.fetch_add(1, std::memory_order_relaxed);
                      got.spend();
                    };
                    together([&] { ask(start); }, [&] { ask(start + 1s); },
                             [&] { ask(start - 1h); });
                    const int sum = granted.load(std::memory_order_relaxed);
                    require(sum >= 1 && sum <= 2, "the burst, and what a second earns");
                    require(budget.stats().granted == static_cast<std::uint64_t>(sum), "counted");
                  }));
}

TEST_CASE("resilience model: limiter and bulkhead need nobody else, whoever stops for ever") {
  check_exhausted("rate_limiter, a caller stopped", explore(freezing(3), [] {
                    rate_limiter limiter({.per_second = 1});
                    const auto acquire = [&] { static_cast<void>(limiter.try_acquire(start)); };
                    together(acquire, acquire, acquire);
                  }));
  check_exhausted("bulkhead, a caller stopped", explore(freezing(3), [] {
                    bulkhead gate(1);
                    const auto call = [&] {
                      const bulkhead::permit place = gate.try_enter();
                      static_cast<void>(place);
                    };
                    together(call, call, call);
                  }));
}

TEST_CASE("resilience model: healthy calls need nobody else, whoever stops for ever") {
  check_exhausted("circuit_breaker healthy, a caller stopped", explore(freezing(3), [] {
                    circuit_breaker breaker(touchy, veltrix::small_random(1));
                    own_clock clock{start};
                    breaker.enter(clock).pass.success();  // fills the window
                    const auto call = [&] { breaker.enter(clock).pass.success(); };
                    together(
                        [&] {
                          static_cast<void>(breaker.stats());  // takes the lock
                          call();
                        },
                        call, call);
                  }));
  check_exhausted("retry_budget full, a caller stopped", explore(freezing(3), [] {
                    retry_budget budget({.ratio = 0.5, .per_second = 1, .burst = 1});
                    static_cast<void>(budget.balance(start));
                    together([&] { static_cast<void>(budget.balance(start + 1s)); },
                             [&] { budget.deposit(); }, [&] { budget.deposit(); });
                  }));
}

TEST_CASE("resilience model: a limiter never has more inside than its bound, in line or not") {
  check_exhausted("concurrency_limiter 3 callers, bound 1", explore({{.preemptions = 3}}, [] {
                    veltrix::concurrency_limiter limiter({.first = 1, .most = 1},
                                                         veltrix::small_random(1));
                    atomic<int> inside = 0;
                    const auto use = [&](veltrix::concurrency_limiter::permit& place) {
                      require(inside.fetch_add(1, std::memory_order_relaxed) == 0, "the bound");
                      inside.fetch_sub(1, std::memory_order_relaxed);
                      place.success(start);
                    };
                    const auto try_once = [&] {
                      if (auto place = limiter.try_enter(start)) use(place);
                    };
                    const auto wait_in_line = [&] {
                      veltrix::concurrency_limiter::permit place;
                      for (int asked = 0; asked < 2 && !place; ++asked) {
                        const time_point now = start + asked * 1s;
                        const time_point again = limiter.enter_or_wait(place, now);
                        require(place ? again == now : again > now, "asking later makes sense");
                      }
                      if (place) use(place);
                    };
                    together(try_once, wait_in_line, wait_in_line);
                    require(limiter.stats().in_use == 0, "all have left");
                    require(limiter.stats().waiting == 0, "nobody is in line");
                  }));
}

TEST_CASE("resilience model: an outlier set never ejects all, whoever fails at once") {
  check_exhausted("outlier_set 2 hosts", explore({{.preemptions = 3}}, [] {
                    veltrix::outlier_set hosts(2, {.failures = 1});
                    atomic<int> ejected = 0;
                    const auto fail = [&](std::uint32_t which) {
                      if (hosts.failure(which, start)) {
                        ejected.fetch_add(1, std::memory_order_relaxed);
                      }
                    };
                    together([&] { fail(0); }, [&] { fail(1); },
                             [&] {
                               hosts.success(1);
                               fail(0);
                             });
                    require(ejected.load(std::memory_order_relaxed) == 1, "one of two");
                    require(hosts.ejected(start) == 1, "and the other is in");
                  }));
}

TEST_CASE("resilience model: a throttle counts every result, whoever stops for ever") {
  check_exhausted("retry_throttle 3 callers", explore({{.stale_reads = 1}}, [] {
                    veltrix::retry_throttle shared({.tokens = 4, .paid_back = 1});
                    together([&] { shared.failure(); }, [&] { shared.failure(); },
                             [&] { shared.failure(); });
                    require(shared.balance() == 1.0, "three of four are gone");
                  }));
  check_exhausted("retry_throttle, a caller stopped", explore(freezing(3), [] {
                    veltrix::retry_throttle shared({.tokens = 4, .paid_back = 1});
                    together([&] { shared.failure(); }, [&] { shared.success(); },
                             [&] { static_cast<void>(shared.allows()); });
                  }));
}

TEST_CASE("resilience model: the slot of a probe comes back, whatever becomes of the probe") {
  const auto options = [] {
    veltrix::circuit_breaker_options two = touchy;
    two.probes_to_close = 2;
    return two;
  };
  check_exhausted("circuit_breaker probes of 3 callers", explore({{.preemptions = 3}}, [&] {
                    circuit_breaker breaker(options(), veltrix::small_random(1));
                    own_clock early{start}, late{start + 1s};
                    breaker.enter(early).pass.failure(start);
                    const auto probe = [&](int end) {
                      circuit_breaker::entry got = breaker.enter(late);
                      if (end == 0) got.pass.success();
                      if (end == 1) got.pass.failure(late.at);
                      // else its end frees the slot
                    };
                    together([&] { probe(0); }, [&] { probe(1); }, [&] { probe(2); });
                    own_clock later{start + 10s};
                    require(static_cast<bool>(breaker.enter(later)), "somebody may ask again");
                    for (int i = 0; i < 2; ++i)
                      breaker.enter(later).pass.success();
                    require(breaker.state() == breaker_state::closed, "and it closes");
                  }));
}
