// Invariants:
//   T1  every asynchronous call completes exactly once, whatever token, executor and timers do
//   T2  retries of all threads together stay within the budget's bound
//   T3  through retry and its guard, never are two probes of a breaker in flight
//   T4  a policy reloaded under calls is seen whole, and no call is lost
// SPDX-License-Identifier: BSL-1.0
#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/random.hpp"
#include "support/scale.hpp"
#include "veltrix/retry.hpp"
#include "veltrix/snapshot_cell.hpp"

using namespace std::chrono_literals;
using namespace veltrix;

namespace {

constexpr std::uint64_t threads = 8;

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

/// Two workers. Refuses some tasks, and drops what is queued when it ends.
class rough_pool {
 public:
  explicit rough_pool(std::uint64_t seed) : choose_(seed) {
    for (int i = 0; i < 2; ++i)
      workers_.emplace_back([this] { serve(); });
  }
  rough_pool(const rough_pool&) = delete;
  rough_pool& operator=(const rough_pool&) = delete;
  ~rough_pool() { end(); }
  /// Takes and runs nothing more; what is queued stays queued until the pool is destroyed.
  void end() {
    {
      const std::lock_guard lock(mutex_);
      closed_ = true;
    }
    for (std::thread& each : workers_)
      each.join();
    workers_.clear();
  }
  post_result try_post(detail::task work) {
    const std::lock_guard lock(mutex_);
    if (closed_) return {post_status::closed, "it ends"};
    if (choose_.below(50) == 0) return {post_status::full, "by chance"};
    queue_.push_back(std::move(work));
    return {};
  }

 private:
  void serve() {
    for (;;) {
      detail::task next;
      {
        const std::lock_guard lock(mutex_);
        if (closed_) return;
        if (!queue_.empty()) {
          next = std::move(queue_.front());
          queue_.pop_front();
        }
      }
      if (next) {
        next();
      } else {
        std::this_thread::yield();
      }
    }
  }

  std::mutex mutex_;
  std::deque<detail::task> queue_;
  veltrix_test::random_source choose_;
  bool closed_ = false;
  std::vector<std::thread> workers_;
};

}  // namespace

TEST_CASE("retry T1 every asynchronous call completes exactly once") {
  const std::uint64_t seed = 61001;
  INFO("seed " << seed);
  const std::size_t calls = veltrix_test::scale(4'000);
  std::vector<std::atomic<int>> completions(calls * threads);
  std::atomic<std::size_t> next{0};
  std::atomic<std::size_t> successes{0};
  std::atomic<std::size_t> stops{0};
  {
    auto timers = std::make_unique<timer_queue>();
    rough_pool pool(seed);
    const auto policy =
        deadline{20ms} | retry{.attempts = 4, .delay = constant{200us} | full_jitter{}};
    on_all_threads(seed, [&](veltrix_test::random_source& choose) {
      for (std::size_t i = 0; i < calls; ++i) {
        const std::size_t id = next.fetch_add(1);
        const std::uint64_t good_at = 1 + choose.below(6);
        stop_source stop;
        const bool stopping = choose.below(4) == 0;
        policy.run_on(
            pool,
            env(*timers, stopping ? stop.get_token() : stop_token(), small_random(choose.next())),
            [good_at](attempt& each) { return each.index() >= good_at; },
            [&, id](const outcome<bool>& told) {
              completions[id].fetch_add(1);
              if (told) successes.fetch_add(1);
              if (told.reason() == stop_reason::stopped) stops.fetch_add(1);
            });
        if (choose.below(3) == 0) std::this_thread::yield();
        if (stopping) stop.request_stop();
      }
    });
    pool.end();      // a task that runs may still arm a timer, so the pool stops first
    timers.reset();  // with calls still waiting on it; the pool follows with calls still queued
  }
  std::size_t wrong = 0;
  for (const std::atomic<int>& each : completions)
    wrong += each.load() == 1 ? 0 : 1;
  CHECK(wrong == 0);
  CHECK(successes.load() > 0);
  CHECK(stops.load() > 0);
}

TEST_CASE("retry T2 retries of all threads stay within the budget") {
  const std::uint64_t seed = 61002;
  INFO("seed " << seed);
  virtual_clock clock(virtual_sleep::advances);
  retry_budget tokens({.ratio = 0.1, .per_second = 0.0, .burst = 10});
  std::atomic<std::uint64_t> calls{0};
  std::atomic<std::uint64_t> attempts{0};
  const auto policy = deadline{1h} | retry{.attempts = 5, .delay = constant{1us}} | budget{tokens};
  on_all_threads(seed, [&](veltrix_test::random_source& choose) {
    for (std::size_t i = 0; i < veltrix_test::scale(20'000); ++i) {
      calls.fetch_add(1);
      const bool good = choose.below(2) == 0;
      attempts.fetch_add(policy.run(env{clock}, [good] { return good; }).attempts());
    }
  });
  const std::uint64_t retries = attempts.load() - calls.load();
  CHECK(retries <= 10 + calls.load() / 10);
  CHECK(retries >= calls.load() / 11);
  CHECK(tokens.stats().granted == retries);
}

TEST_CASE("retry T3 never has two probes of a breaker in flight") {
  const std::uint64_t seed = 61003;
  INFO("seed " << seed);
  virtual_clock clock(virtual_sleep::advances);
  // It never closes, so every call that it lets pass is a probe.
  circuit_breaker breaker({.window = 1,
                           .min_samples = 1,
                           .open_first = 1us,
                           .open_longest = 2us,
                           .probes_to_close = 1000});
  breaker.enter(clock).pass.failure(clock.now());
  std::atomic<int> inside{0};
  std::atomic<int> most{0};
  std::atomic<std::uint64_t> made{0};
  const auto policy =
      deadline{1h} | retry{.attempts = 2, .delay = constant{1us}} | guard{breaker, on_open::wait};
  on_all_threads(seed, [&](veltrix_test::random_source& choose) {
    for (std::size_t i = 0; i < veltrix_test::scale(400); ++i) {
      static_cast<void>(policy.run(env{clock}, [&] {
        const int now = inside.fetch_add(1) + 1;
        if (now > most.load()) most.store(now);
        if (choose.below(64) == 0) std::this_thread::yield();
        made.fetch_add(1);
        inside.fetch_sub(1);
        return choose.below(3) != 0;
      }));
    }
  });
  CHECK(most.load() == 1);
  CHECK(made.load() >= threads * veltrix_test::scale(400));
  CHECK(breaker.stats().opened > 10);
}

TEST_CASE("retry T4 a policy may be replaced under calls") {
  const std::uint64_t seed = 61004;
  INFO("seed " << seed);
  const auto with = [](std::uint32_t attempts) {
    return deadline{1h} | retry{.attempts = attempts, .delay = constant{duration(attempts)}} |
           attempt_timeout{duration(attempts)};
  };
  snapshot_cell<decltype(with(1))> cell(with(4));
  const auto policy = from(cell);
  std::atomic<std::size_t> wrong{0};
  std::atomic<std::size_t> repeated{0};
  on_all_threads(seed, [&](veltrix_test::random_source& choose) {
    virtual_clock clock(virtual_sleep::advances);
    for (std::size_t i = 0; i < veltrix_test::scale(10'000); ++i) {
      const outcome<bool> told = policy.run(env{clock}, [&](attempt& each) {
        const duration left = each.deadline() - clock.now();
        if (left < duration(1) || left > duration(4)) wrong.fetch_add(1);
        if (choose.below(20) == 0) {
          cell.publish(with(static_cast<std::uint32_t>(1 + choose.below(4))));
        }
        return false;
      });
      if (told.reason() != stop_reason::attempts_exhausted) wrong.fetch_add(1);
      if (told.attempts() < 1 || told.attempts() > 4) wrong.fetch_add(1);
      if (told.attempts() > 1) repeated.fetch_add(1);
    }
  });
  CHECK(wrong.load() == 0);
  CHECK(repeated.load() > 0);
  CHECK(cell.version() > 100);
}
