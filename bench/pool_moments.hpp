// What a pool does at single moments: the start of a task on an idle pool, a change of its size, an
// allocation. Each is timed or counted by itself, so these rows are samples, one a round.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "allocations.hpp"
#include "harness.hpp"
#include "peers/pool_peers.hpp"
#include "veltrix/elastic_pool.hpp"

namespace veltrix_bench {

using clock = std::chrono::steady_clock;

inline double us_since(clock::time_point start) {
  return std::chrono::duration<double, std::micro>(clock::now() - start).count();
}

// --- the start of a task on an idle pool ---------------------------------------------------------

/// Microseconds from a post to the task's first instruction, each after the pool had time to sleep.
template <class Pool>
std::vector<double> idle_starts(Pool& pool, unsigned times) {
  std::vector<double> took;
  for (unsigned i = 0; i < times; ++i) {
    std::this_thread::sleep_for(std::chrono::microseconds(500));
    std::atomic<double> found{-1};
    const auto start = clock::now();
    pool.post([&found, start] { found.store(us_since(start), std::memory_order_release); });
    while (found.load(std::memory_order_acquire) < 0)
      std::this_thread::yield();
    took.push_back(found.load(std::memory_order_relaxed));
  }
  return took;
}

/// Quantiles of each round of one contender.
struct idle_times {
  std::string name;
  std::vector<double> p50, p99;

  template <class Pool>
  void measure(unsigned workers, unsigned times) {
    Pool pool(workers);
    std::vector<double> took = idle_starts(pool, times);
    std::sort(took.begin(), took.end());
    p50.push_back(took[took.size() / 2]);
    p99.push_back(took[took.size() * 99 / 100]);
  }
};

template <class Elastic>
void idle_start(bench& table, unsigned workers) {
  const std::string of = "start on an idle pool";
  if (!table.chosen().wants(of)) return;
  const unsigned times = table.chosen().quick ? 10 : 500;
  idle_times plain{"mutex + deque", {}, {}}, mine{"elastic_pool", {}, {}};
  idle_times tbb{"TBB task_arena", {}, {}}, asio{"Boost.Asio", {}, {}};
  idle_times bs{"BS::thread_pool", {}, {}}, taskflow{"Taskflow", {}, {}};
  for (unsigned round = 0; round < table.chosen().rounds; ++round) {
    table.tell("round " + std::to_string(round + 1) + ": " + of);
    plain.measure<plain_pool>(workers, times);
#if defined(VELTRIX_BENCH_TBB)
    tbb.measure<tbb_pool>(workers, times);
#endif
#if defined(VELTRIX_BENCH_ASIO)
    asio.measure<asio_pool>(workers, times);
#endif
#if defined(VELTRIX_BENCH_BS)
    bs.measure<bs_pool>(workers, times);
#endif
#if defined(VELTRIX_BENCH_TASKFLOW)
    taskflow.measure<taskflow_pool>(workers, times);
#endif
    mine.measure<Elastic>(workers, times);
  }
  table.clear();
  for (const idle_times* each : {&plain, &tbb, &asio, &bs, &taskflow, &mine}) {
    if (each->p50.empty()) continue;
    table.record(of + ", p50", 1, each->name, "us", each->p50);
    table.record(of + ", p99", 1, each->name, "us", each->p99);
  }
}

// --- a change of size ----------------------------------------------------------------------------

/// What a change of size cannot be faster than: threads started one after the other until each has
/// said that it runs, and told to end and joined.
class bare_threads {
 public:
  void grow(std::size_t count) {
    std::atomic<std::size_t> running{0};
    for (std::size_t i = 0; i < count; ++i) {
      threads_.emplace_back([this, &running] {
        running.fetch_add(1, std::memory_order_release);
        while (!over_.load(std::memory_order_acquire))
          over_.wait(false, std::memory_order_acquire);
      });
    }
    while (running.load(std::memory_order_acquire) != count)
      std::this_thread::yield();
  }
  void shrink() {
    over_.store(true, std::memory_order_release);
    over_.notify_all();
    for (std::thread& each : threads_)
      each.join();
    threads_.clear();
    over_.store(false, std::memory_order_relaxed);
  }

 private:
  std::atomic<bool> over_{false};
  std::vector<std::thread> threads_;
};

/// Keeps a pool busy from construction to destruction: tasks of 10 us that post themselves again.
class self_posting {
 public:
  self_posting(veltrix::elastic_pool& pool, int tasks) : pool_(pool) {
    for (int i = 0; i < tasks; ++i)
      again();
  }
  self_posting(const self_posting&) = delete;
  self_posting& operator=(const self_posting&) = delete;
  ~self_posting() {
    over_.store(true, std::memory_order_relaxed);
    static_cast<void>(pool_.drain());
  }

 private:
  void again() {
    static_cast<void>(pool_.post([this] {
      const auto start = clock::now();
      while (us_since(start) < 10) {}
      if (!over_.load(std::memory_order_relaxed)) again();
    }));
  }

  veltrix::elastic_pool& pool_;
  std::atomic<bool> over_{false};
};

/// 2 to 8 workers and back, until it is acknowledged: so many run, or the others' threads are gone.
inline void resizes(bench& table, bool loaded) {
  const std::string of = loaded ? "loaded" : "idle";
  if (!table.chosen().wants("2 to 8 workers")) return;
  const unsigned times = table.chosen().quick ? 1 : 20;
  std::vector<double> grown, shrunk, bare_grown, bare_shrunk;
  for (unsigned round = 0; round < table.chosen().rounds; ++round) {
    table.tell("round " + std::to_string(round + 1) + ": 2 to 8 workers, " + of);
    veltrix::elastic_pool pool(2);
    const auto load = loaded ? std::make_unique<self_posting>(pool, 16) : nullptr;
    std::array<std::vector<double>, 4> took;
    const auto time = [](std::vector<double>& into, auto act) {
      const auto start = clock::now();
      act();
      into.push_back(us_since(start));
    };
    for (unsigned i = 0; i < times; ++i) {
      bare_threads bare;
      time(took[0], [&] { bare.grow(6); });
      time(took[1], [&] { bare.shrink(); });
      const auto resize = [&](std::int64_t size) {
        if (!pool.resize_to(size)) std::abort();
      };
      time(took[2], [&] { resize(8); });
      time(took[3], [&] { resize(2); });
    }
    bare_grown.push_back(median(took[0]));
    bare_shrunk.push_back(median(took[1]));
    grown.push_back(median(took[2]));
    shrunk.push_back(median(took[3]));
  }
  table.clear();
  table.record("from 2 to 8 workers, " + of, 1, "bare threads", "us", bare_grown);
  table.record("from 2 to 8 workers, " + of, 1, "elastic_pool", "us", grown);
  table.record("from 8 to 2 workers, " + of, 1, "bare threads", "us", bare_shrunk);
  table.record("from 8 to 2 workers, " + of, 1, "elastic_pool", "us", shrunk);
}

// --- allocations ---------------------------------------------------------------------------------

/// Allocations by who posts a task whose capture has `Bytes`, after as many that were not counted.
template <std::size_t Bytes, class Pool>
double allocations_per_task(Pool& pool) {
  constexpr std::uint64_t tasks = 1000;
  struct capture {
    std::atomic<std::uint64_t>* ended;
    std::array<std::byte, Bytes - sizeof(void*)> rest;
    void operator()() const { ended->fetch_add(1, std::memory_order_release); }
  };
  static_assert(sizeof(capture) == Bytes);
  std::uint64_t before = 0;
  for (int warm = 0; warm < 2; ++warm) {
    std::atomic<std::uint64_t> ended{0};
    before = allocations;
    for (std::uint64_t i = 0; i < tasks; ++i)
      pool.post(capture{&ended, {}});
    while (ended.load(std::memory_order_acquire) != tasks)
      std::this_thread::yield();
  }
  return static_cast<double>(allocations - before) / tasks;
}

template <class Pool>
void allocations_of(bench& table, const std::string& name, unsigned workers) {
  Pool pool(workers);
  const std::string of = "allocations per task, capture of ";
  table.record(of + "16 bytes", 1, name, "count", {allocations_per_task<16>(pool)});
  table.record(of + "48 bytes", 1, name, "count", {allocations_per_task<48>(pool)});
  table.record(of + "56 bytes", 1, name, "count", {allocations_per_task<56>(pool)});
}

}  // namespace veltrix_bench
