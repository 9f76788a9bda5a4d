// SPDX-License-Identifier: BSL-1.0
// elastic_pool under many threads at once. The invariants:
//   S1  running <= max(configured, running when the generation began), in every sample
//   S2  posted == queued + busy + completed, in every sample
//   S3  at an ack running == target, and once settled the kernel lists as many threads
//   S4  every accepted task runs exactly once, whatever resizes and stops run beside it
//   S5  nothing waits for ever
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

#include "support/catch.hpp"
#include "support/pool.hpp"
#include "support/random.hpp"
#include "support/scale.hpp"
#include "veltrix/elastic_pool.hpp"

using namespace veltrix;
using namespace std::chrono_literals;
using veltrix_test::eventually;
using veltrix_test::failure_log;
using veltrix_test::listed_threads;
using veltrix_test::random_source;

namespace {

/// Counts how often each of a number of tasks ran.
class run_marks {
 public:
  explicit run_marks(std::size_t tasks) : marks_(tasks) {}
  void mark(std::size_t task) { marks_[task].fetch_add(1, std::memory_order_relaxed); }
  /// Tasks below `end` that ran another number of times than once.
  [[nodiscard]] std::size_t wrong(std::size_t end) const {
    std::size_t found = 0;
    for (std::size_t i = 0; i < end; ++i)
      found += marks_[i].load(std::memory_order_relaxed) == 1 ? 0 : 1;
    return found;
  }

 private:
  std::vector<std::atomic<std::uint8_t>> marks_;
};

/// Watches S1 and S2 from sample to sample.
class state_watch {
 public:
  void look(const pool_stats& now) {
    ++samples_;
    if (now.posted != now.queued + now.busy + now.completed) ++broken_;
    if (now.generation == before_.generation) {
      // Within a generation the number may only go towards the target.
      if (now.running > std::max(now.configured, before_.running)) ++broken_;
      if (now.configured != before_.configured) ++broken_;
    }
    if (now.generation < before_.generation) ++broken_;
    if (now.running > now.configured + now.retiring) ++broken_;
    before_ = now;
  }
  [[nodiscard]] std::uint64_t samples() const { return samples_; }
  [[nodiscard]] std::uint64_t broken() const { return broken_; }

 private:
  pool_stats before_;
  std::uint64_t samples_ = 0;
  std::uint64_t broken_ = 0;
};

struct ack_tally {
  std::atomic<std::uint64_t> acks{0};
  std::atomic<std::uint64_t> wrong{0};  ///< acks that break S3, or that applied to a moved state
};

/// Resizes by -8 to 8 until told to end, half the time with the generation seen before.
void resize_at_random(elastic_pool& pool, std::uint64_t seed, const std::atomic<bool>& ends,
                      ack_tally& tally) {
  random_source random(seed);
  while (!ends.load()) {
    const std::int64_t delta = static_cast<std::int64_t>(random.below(17)) - 8;
    const pool_stats before = pool.stats();
    resize_options how;
    if (random.below(2) == 0) how.expect_generation = before.generation;
    const resize_result told = pool.resize_by(delta, how);
    if (!told) continue;
    tally.acks.fetch_add(1);
    const bool settled = told.running == told.target && told.starting + told.retiring == 0;
    const bool moved = how.expect_generation && told.generation > before.generation + 1;
    tally.wrong.fetch_add(!settled || moved ? 1 : 0);
  }
}

}  // namespace

TEST_CASE("elastic_pool keeps S1 to S4 while four threads resize it by random deltas") {
  const std::uint64_t seed = std::random_device{}();
  CAPTURE(seed);
  constexpr std::size_t most = 24;
  const std::size_t tasks = veltrix_test::scale(200'000);
  run_marks marks(tasks);
  elastic_pool pool(4, {.thread_name = "vx-r", .queue_capacity = 512, .max_workers = most});
  std::atomic<bool> ends{false};
  ack_tally tally;
  std::vector<std::thread> threads;
  for (std::uint64_t i = 0; i < 4; ++i)
    threads.emplace_back([&, i] { resize_at_random(pool, seed + i, ends, tally); });
  state_watch watch;
  std::thread sampler([&] {
    while (!ends.load()) {
      watch.look(pool.stats());
      std::this_thread::yield();
    }
  });
  std::thread poster([&] {
    for (std::size_t i = 0; i < tasks; ++i)
      if (!pool.post([&marks, i] { marks.mark(i); })) marks.mark(i), marks.mark(i);
  });
  poster.join();
  const bool drained = pool.drain(saturating_add(steady_clock::now(), 60s));
  ends = true;
  for (std::thread& each : threads)
    each.join();
  sampler.join();

  CHECK(drained);
  CHECK(marks.wrong(tasks) == 0);
  CHECK(tally.wrong.load() == 0);
  CHECK(watch.broken() == 0);
  CHECK(watch.samples() > 0);
  CHECK(tally.acks.load() > 0);
  REQUIRE(eventually([&] { return pool.stats().settled(); }));
  const pool_stats end = pool.stats();
  CHECK(end.running == end.configured);
  CHECK(listed_threads("vx-r") == end.running);
  CHECK(end.posted == tasks);
  CHECK(end.completed == tasks);
}

TEST_CASE("elastic_pool keeps S4 while workers steal from those that have just come") {
  const std::size_t rounds = veltrix_test::slowdown == 1 ? 60 : 20;
  for (std::size_t round = 0; round < rounds; ++round) {
    std::atomic<bool> done{false};
    std::atomic<std::int64_t> owed{0};  // accepted and not ended
    elastic_pool pool(2, {.thread_name = "vx-st"});
    // A task posts none, one or two more to its own worker, so that deques run dry and fill.
    struct spawner {
      elastic_pool& pool;
      std::atomic<bool>& done;
      std::atomic<std::int64_t>& owed;
      std::uint64_t seed;
      void operator()() const {
        random_source random(seed);
        const std::uint64_t drawn = random.below(8);
        const std::int64_t more = done ? 0 : drawn == 0 ? 0 : drawn == 1 ? 2 : 1;
        for (std::int64_t i = 0; i < more; ++i) {
          owed += pool.post(spawner{pool, done, owed, random.next()}) ? 1 : 0;
        }
        --owed;
      }
    };
    std::thread feeder([&] {
      for (std::uint64_t seed = round << 32; !done; ++seed) {
        if (owed < 64) owed += pool.post(spawner{pool, done, owed, seed}) ? 1 : 0;
      }
    });
    for (const std::int64_t size : {9, 17, 33})
      CHECK(pool.resize_to(size, {.deadline = saturating_add(steady_clock::now(), 60s)}));
    done = true;
    feeder.join();
    CHECK(pool.drain(saturating_add(steady_clock::now(), 60s)));
    CHECK(owed == 0);
  }
}

TEST_CASE("elastic_pool keeps S4 while workers resize it and throw from inside") {
  const std::uint64_t seed = std::random_device{}();
  CAPTURE(seed);
  const std::size_t tasks = veltrix_test::scale(300'000);
  run_marks marks(tasks);
  std::atomic<std::uint64_t> thrown{0};
  std::atomic<std::uint64_t> handled{0};
  elastic_pool pool(3, {.thread_name = "vx-q",
                        .queue_capacity = 64,
                        .max_workers = 12,
                        .on_exception = [&](const std::exception_ptr&) { handled.fetch_add(1); }});
  random_source random(seed);
  for (std::size_t i = 0; i < tasks; ++i) {
    const std::uint64_t kind = random.below(16);
    const std::int64_t delta = static_cast<std::int64_t>(random.below(9)) - 4;
    REQUIRE(pool.post([&, i, kind, delta] {
      marks.mark(i);
      if (kind == 0) static_cast<void>(pool.resize_by(delta, {.deadline = no_deadline}));
      if (kind == 1) {
        thrown.fetch_add(1);
        throw std::runtime_error("on purpose");
      }
    }));
  }
  CHECK(pool.drain(saturating_add(steady_clock::now(), 60s)));
  CHECK(marks.wrong(tasks) == 0);
  CHECK(handled.load() == thrown.load());
  CHECK(pool.stats().failed == thrown.load());
  REQUIRE(eventually([&] { return pool.stats().settled(); }));
  CHECK(listed_threads("vx-q") == pool.stats().running);
  CHECK(pool.stats().generation > 1);
}

TEST_CASE("elastic_pool keeps S4 and S5 when it is stopped beside posts and resizes") {
  const std::uint64_t seed = std::random_device{}();
  CAPTURE(seed);
  for (std::size_t round = 0; round < veltrix_test::scale(150); ++round) {
    constexpr std::size_t posters = 3;
    constexpr std::size_t each_posts = 2000;
    run_marks marks(posters * each_posts);
    std::array<std::size_t, posters> accepted{};
    elastic_pool pool(2, {.queue_capacity = 32, .max_workers = 8});
    std::vector<std::thread> threads;
    for (std::size_t p = 0; p < posters; ++p) {
      threads.emplace_back([&, p] {
        for (std::size_t i = 0; i < each_posts; ++i) {
          const std::size_t mine = p * each_posts + i;
          if (!pool.post([&marks, mine] { marks.mark(mine); })) return;
          ++accepted[p];
        }
      });
    }
    threads.emplace_back([&] {
      random_source random(seed + round);
      for (;;) {
        const auto delta = static_cast<std::int64_t>(random.below(7)) - 3;
        if (pool.resize_by(delta).reason == backoff_reason::shutting_down) return;
      }
    });
    if (round % 2 == 0) {
      while (pool.stats().completed < round * 7)
        std::this_thread::yield();
    }
    pool.stop();
    for (std::thread& each : threads)
      each.join();
    std::size_t total = 0;
    for (std::size_t p = 0; p < posters; ++p) {
      total += accepted[p];
      for (std::size_t i = 0; i < accepted[p]; ++i)
        marks.mark(p * each_posts + i);  // accepted and run: two marks
    }
    REQUIRE(pool.stats().posted == total);
    REQUIRE(pool.stats().completed == total);
    REQUIRE(pool.stats().running == 0);
    // Those refused have no mark, those accepted two: none is left with one.
    std::size_t lost_or_late = posters * each_posts - marks.wrong(posters * each_posts);
    REQUIRE(lost_or_late == 0);
  }
}

TEST_CASE("elastic_pool keeps S5 for nested groups, handles and loops under resizes") {
  const std::uint64_t seed = std::random_device{}();
  CAPTURE(seed);
  elastic_pool pool(2, {.queue_capacity = 16, .max_workers = 8});
  std::atomic<bool> ends{false};
  std::thread resizer([&] {
    random_source random(seed);
    while (!ends.load())
      static_cast<void>(pool.resize_to(1 + static_cast<std::int64_t>(random.below(8))));
  });
  std::atomic<std::uint64_t> leaves{0};
  const std::size_t rounds = veltrix_test::scale(6000);
  std::vector<std::thread> callers;
  for (int c = 0; c < 2; ++c) {
    callers.emplace_back([&] {
      for (std::size_t round = 0; round < rounds; ++round) {
        task_group group(pool);
        for (int i = 0; i < 4; ++i) {
          group.run([&] {
            pool.parallel_for(0, 8, [&](int) { leaves.fetch_add(1); });
            leaves.fetch_add(static_cast<std::uint64_t>(pool.submit([] { return 2; }).get()));
          });
        }
        group.wait();
      }
    });
  }
  for (std::thread& each : callers)
    each.join();
  ends = true;
  resizer.join();
  CHECK(leaves.load() == 2 * rounds * 4 * 10);
  CHECK(pool.drain(saturating_add(steady_clock::now(), 60s)));
}

TEST_CASE("elastic_pool keeps S4 and S5 for forks, joins and throws under resizes and posts") {
  const std::uint64_t seed = std::random_device{}();
  CAPTURE(seed);
  elastic_pool pool(2, {.max_workers = 6, .on_exception = [](const std::exception_ptr&) {}});
  std::atomic<bool> ends{false};
  std::thread resizer([&] {
    random_source random(seed);
    while (!ends.load())
      static_cast<void>(pool.resize_to(1 + static_cast<std::int64_t>(random.below(6))));
  });
  std::atomic<std::uint64_t> posted{0}, posted_ran{0};
  struct splitter {
    elastic_pool& pool;
    std::atomic<std::uint64_t>& posted;
    std::atomic<std::uint64_t>& ran;
    std::uint64_t sum(std::uint64_t begin, std::uint64_t end) const {
      if (end - begin == 1) {
        if (begin % 64 == 0 && pool.post([this] { ran.fetch_add(1); })) posted.fetch_add(1);
        if (begin % 1024 == 1023) throw std::runtime_error("on purpose");
        return begin;
      }
      const std::uint64_t middle = begin + (end - begin) / 2;
      std::uint64_t left = 0, right = 0;
      pool.parallel_invoke([&] { left = sum(begin, middle); }, [&] { right = sum(middle, end); });
      return left + right;
    }
  };
  const splitter split{pool, posted, posted_ran};
  const std::size_t rounds = veltrix_test::scale(1500);
  std::atomic<std::size_t> wrong{0};
  std::vector<std::thread> callers;
  for (int c = 0; c < 2; ++c) {
    callers.emplace_back([&] {
      for (std::size_t round = 0; round < rounds; ++round) {
        if (split.sum(0, 1023) != 1022 * 1023 / 2) wrong.fetch_add(1);
        try {
          static_cast<void>(split.sum(1024, 2048));
          wrong.fetch_add(1);
        } catch (const std::runtime_error&) {}
      }
    });
  }
  for (std::thread& each : callers)
    each.join();
  ends = true;
  resizer.join();
  CHECK(wrong.load() == 0);
  REQUIRE(pool.drain(saturating_add(steady_clock::now(), 60s)));
  CHECK(posted_ran.load() == posted.load());
}

TEST_CASE("elastic_pool keeps S4 when many producers meet a small queue") {
  const std::size_t each_posts = veltrix_test::scale(40'000);
  constexpr std::size_t posters = 4;
  run_marks marks(posters * each_posts);
  elastic_pool pool(2, {.queue_capacity = 7});
  std::vector<std::thread> threads;
  std::atomic<std::size_t> refused{0};
  for (std::size_t p = 0; p < posters; ++p) {
    threads.emplace_back([&, p] {
      for (std::size_t i = 0; i < each_posts; ++i) {
        const std::size_t mine = p * each_posts + i;
        const auto work = [&marks, mine] { marks.mark(mine); };
        if (p % 2 == 0) {
          if (!pool.post(work)) refused.fetch_add(1);
        } else {
          while (!pool.try_post(work))
            std::this_thread::yield();
        }
      }
    });
  }
  for (std::thread& each : threads)
    each.join();
  REQUIRE(pool.drain(saturating_add(steady_clock::now(), 60s)));
  CHECK(refused.load() == 0);
  CHECK(marks.wrong(posters * each_posts) == 0);
  CHECK(pool.stats().over_capacity == 0);
}

TEST_CASE("task_handle is answered once whoever runs, drops or waits for it") {
  std::atomic<std::uint64_t> handled{0};
  std::uint64_t dropped_throwing = 0;
  std::uint64_t collected = 0;
  elastic_pool pool(2, {.queue_capacity = 64,
                        .on_exception = [&](const std::exception_ptr&) { handled.fetch_add(1); }});
  const std::size_t rounds = veltrix_test::scale(30'000);
  for (std::size_t i = 0; i < rounds; ++i) {
    auto handle = pool.submit([i]() -> std::size_t {
      if (i % 3 == 0) throw std::runtime_error("on purpose");
      return i;
    });
    if (i % 2 == 0) {
      dropped_throwing += i % 3 == 0 ? 1 : 0;
      continue;  // dropped, perhaps before, perhaps after its task
    }
    try {
      if (handle.get() == i) ++collected;
    } catch (const std::runtime_error&) {
      ++collected;
    }
  }
  REQUIRE(pool.drain(saturating_add(steady_clock::now(), 60s)));
  CHECK(collected == rounds / 2);
  CHECK(handled.load() == dropped_throwing);
}
