// elastic_pool beside other pools: tasks of no length and of some, trees, bursts, loops.
// SPDX-License-Identifier: BSL-1.0
#include "veltrix/elastic_pool.hpp"

#include <bit>
#include <memory>
#include <string>
#include <type_traits>

#include "harness.hpp"
#include "peers/pool_peers.hpp"
#include "pool_moments.hpp"

namespace {

using veltrix_bench::contender;
using veltrix_bench::workload;

/// Two workers, as the machine of the recorded runs has two processors.
constexpr unsigned workers = 2;

/// elastic_pool with the queue told, and post() as the others have it.
class elastic {
 public:
  explicit elastic(unsigned count, std::size_t capacity = 65536)
      : pool_(count, {.queue_capacity = capacity}) {}
  template <class Work>
  void post(Work&& work) {
    static_cast<void>(pool_.post(std::forward<Work>(work)));
  }
  veltrix::elastic_pool& inside() { return pool_; }

 private:
  veltrix::elastic_pool pool_;
};

using counter = std::atomic<std::uint64_t>;

void await(const counter& done, std::uint64_t wanted) {
  while (done.load(std::memory_order_acquire) != wanted)
    std::this_thread::yield();
}

/// Counts tasks that end, and wakes who sleeps until the last one has. One that looks on instead
/// takes a processor from the workers or not, as the scheduler places it: by that alone the same
/// pool ran twice as fast in one run as in another. On a line of its own: who reads what stands
/// beside it must not wait for those who count.
class alignas(64) finish {
 public:
  explicit finish(std::uint64_t wanted) : left_(wanted) {}
  void one() {
    if (left_.fetch_sub(1, std::memory_order_acq_rel) == 1) left_.notify_one();
  }
  void wait() {
    for (std::uint64_t seen = 0; (seen = left_.load(std::memory_order_acquire)) != 0;)
      left_.wait(seen, std::memory_order_acquire);
  }

 private:
  std::atomic<std::uint64_t> left_;
};

/// Posts `operations` tasks with at most `window` unfinished, and waits for the last.
template <class Pool>
void windowed(Pool& pool, std::uint64_t operations, std::uint64_t window) {
  counter done{0};
  for (std::uint64_t i = 0; i < operations; ++i) {
    while (i - done.load(std::memory_order_acquire) >= window)
      std::this_thread::yield();
    pool.post([&done] { done.fetch_add(1, std::memory_order_release); });
  }
  await(done, operations);
}

/// As many turns of a multiplication as take about a nanosecond each.
void spin(std::uint64_t turns) {
  std::uint64_t value = turns;
  for (std::uint64_t i = 0; i < turns; ++i)
    value = value * 6364136223846793005U + 1;
  veltrix_bench::keep(value);
}

/// Tasks of `turns`; no more than a pool's queue holds.
template <class Pool>
void working(Pool& pool, std::uint64_t operations, std::uint64_t turns) {
  finish all(operations);
  for (std::uint64_t i = 0; i < operations; ++i) {
    pool.post([&all, turns] {
      spin(turns);
      all.one();
    });
  }
  all.wait();
}

/// The same work without a pool, by as many threads: what no pool can be faster than.
void bare_work(std::uint64_t operations, std::uint64_t turns) {
  const auto part = [=](std::uint64_t count) {
    for (std::uint64_t i = 0; i < count; ++i)
      spin(turns);
  };
  std::vector<std::thread> others;
  for (unsigned i = 1; i < workers; ++i)
    others.emplace_back(part, operations / workers);
  part(operations - (workers - 1) * (operations / workers));
  for (std::thread& each : others)
    each.join();
}

/// A task that posts two, and so on: 2^(depth + 1) - 1 tasks.
template <class Pool>
struct tree {
  Pool& pool;
  finish& leaves;

  void grow(unsigned depth) {
    if (depth == 0) return leaves.one();
    for (int i = 0; i < 2; ++i)
      pool.post([this, depth] { grow(depth - 1); });
  }
};

/// A tree of about twice as many tasks.
template <class Pool>
void grow_tree(Pool& pool, std::uint64_t tasks) {
  const auto depth = static_cast<unsigned>(std::bit_width(tasks)) - 1;
  finish leaves(std::uint64_t{1} << depth);
  tree<Pool> one{pool, leaves};
  pool.post([&one, depth] { one.grow(depth); });
  leaves.wait();
}

/// One operation is a burst of `size` tasks, waited for.
template <class Pool>
void bursts(Pool& pool, std::uint64_t operations, std::uint64_t size) {
  for (std::uint64_t i = 0; i < operations; ++i) {
    counter done{0};
    for (std::uint64_t k = 0; k < size; ++k)
      pool.post([&done] { done.fetch_add(1, std::memory_order_release); });
    await(done, size);
  }
}

/// A pool that lives only while it is measured, so that the others' workers do not disturb.
template <class Pool, class Work>
contender side(std::string name, Work work) {
  const auto pool = std::make_shared<std::unique_ptr<Pool>>();
  contender made{std::move(name),
                 [pool, work](unsigned, std::uint64_t count) { work(**pool, count); }};
  made.before = [pool] { *pool = std::make_unique<Pool>(workers); };
  made.after = [pool] { pool->reset(); };
  return made;
}

template <class Work>
std::vector<contender> sides(Work work) {
  std::vector<contender> all;
  all.push_back(side<veltrix_bench::plain_pool>("mutex + deque", work));
#if defined(VELTRIX_BENCH_TBB)
  all.push_back(side<veltrix_bench::tbb_pool>("TBB task_arena", work));
#endif
#if defined(VELTRIX_BENCH_ASIO)
  all.push_back(side<veltrix_bench::asio_pool>("Boost.Asio", work));
#endif
#if defined(VELTRIX_BENCH_BS)
  all.push_back(side<veltrix_bench::bs_pool>("BS::thread_pool", work));
#endif
#if defined(VELTRIX_BENCH_TASKFLOW)
  all.push_back(side<veltrix_bench::taskflow_pool>("Taskflow", work));
#endif
  all.push_back(side<elastic>("elastic_pool", work));
  return all;
}

/// As many operations each time: what a run takes at first says little of a pool that sleeps.
template <class Work>
void compare(veltrix_bench::bench& table, std::string name, unsigned threads,
             std::uint64_t operations, Work work) {
  workload one{std::move(name), threads, sides(work)};
  one.operations = operations;
  table.run({one});
}

void work_of(veltrix_bench::bench& table, std::string name, std::uint64_t operations,
             std::uint64_t turns) {
  workload one{std::move(name), 1,
               sides([turns](auto& pool, std::uint64_t n) { working(pool, n, turns); })};
  one.sides.push_back({"no pool", [turns](unsigned, std::uint64_t n) { bare_work(n, turns); }});
  one.operations = operations;
  table.run({one});
}

#if defined(VELTRIX_BENCH_TBB)
/// The same tree, of tasks of one group.
struct group_tree {
  oneapi::tbb::task_group group{};

  void grow(unsigned depth) {
    for (int i = 0; depth != 0 && i < 2; ++i)
      group.run([this, depth] { grow(depth - 1); });
  }
};
#endif

/// The same tree, of calls that fork two each and join them.
void fork_tree(veltrix::elastic_pool& pool, unsigned depth) {
  veltrix_bench::keep(depth);
  if (depth == 0) return;
  const auto half = [&] { fork_tree(pool, depth - 1); };
  pool.parallel_invoke(half, half);
}

void spawn_tree(veltrix_bench::bench& table) {
  const auto depth_of = [](std::uint64_t tasks) {
    return static_cast<unsigned>(std::bit_width(tasks)) - 1;
  };
  std::vector<contender> all = sides([](auto& pool, std::uint64_t n) { grow_tree(pool, n); });
#if defined(VELTRIX_BENCH_TBB)
  all.push_back(side<veltrix_bench::tbb_crew>("TBB task_group",
                                              [=](veltrix_bench::tbb_crew& crew, std::uint64_t n) {
                                                crew.run([&] {
                                                  group_tree one;
                                                  one.grow(depth_of(n));
                                                  one.group.wait();
                                                });
                                              }));
#endif
  all.push_back(side<elastic>("elastic_pool parallel_invoke", [=](elastic& pool, std::uint64_t n) {
    fork_tree(pool.inside(), depth_of(n));
  }));
  workload one{"spawn tree of 2^18", 1, all};
  one.operations = std::uint64_t{1} << 17;
  table.run({one});
}

/// fib(n) by what forks two calls and joins them. Each call is made: compilers know this function.
template <class ForkJoin>
std::uint64_t fibonacci(unsigned n, const ForkJoin& both) {
  veltrix_bench::keep(n);
  if (n < 2) return n;
  std::uint64_t left = 0;
  std::uint64_t right = 0;
  both([&] { left = fibonacci(n - 1, both); }, [&] { right = fibonacci(n - 2, both); });
  return left + right;
}

/// A group that is made for two calls, and waited for.
template <class Group>
void run_both(Group&& group, auto first, auto second) {
  group.run(second);
  first();
  group.wait();
}

#if defined(VELTRIX_BENCH_LIBFORK)
/// Its calls are coroutines, whose frames are the tasks.
inline constexpr auto libfork_fibonacci = [](auto self, unsigned n) -> lf::task<std::uint64_t> {
  veltrix_bench::keep(n);
  if (n < 2) co_return n;
  std::uint64_t left = 0;
  std::uint64_t right = 0;
  co_await lf::fork(&left, self)(n - 1);
  co_await lf::call(&right, self)(n - 2);
  co_await lf::join;
  co_return left + right;
};
#endif

void fork_join(veltrix_bench::bench& table) {
  constexpr unsigned n = 27;
  const auto times = [](std::uint64_t count, const auto& both) {
    for (std::uint64_t k = 0; k < count; ++k)
      veltrix_bench::keep(fibonacci(n, both));
  };
  std::vector<contender> all;
  all.push_back({"one thread", [=](unsigned, std::uint64_t count) {
                   times(count, [](auto first, auto second) {
                     first();
                     second();
                   });
                 }});
#if defined(VELTRIX_BENCH_TBB)
  all.push_back(side<veltrix_bench::tbb_crew>(
      "TBB parallel_invoke", [=](veltrix_bench::tbb_crew& crew, std::uint64_t count) {
        crew.run([&] {
          times(count,
                [](auto first, auto second) { oneapi::tbb::parallel_invoke(first, second); });
        });
      }));
  all.push_back(side<veltrix_bench::tbb_crew>(
      "TBB task_group", [=](veltrix_bench::tbb_crew& crew, std::uint64_t count) {
        crew.run([&] {
          times(count, [](auto first, auto second) {
            run_both(oneapi::tbb::task_group(), first, second);
          });
        });
      }));
#endif
#if defined(VELTRIX_BENCH_TASKFLOW)
  all.push_back(side<veltrix_bench::taskflow_pool>(
      "Taskflow", [=](veltrix_bench::taskflow_pool& pool, std::uint64_t count) {
        pool.run(
            [&] { times(count, [&](auto first, auto second) { pool.fork_join(first, second); }); });
      }));
#endif
#if defined(VELTRIX_BENCH_LIBFORK)
  all.push_back(side<lf::lazy_pool>("libfork", [=](lf::lazy_pool& pool, std::uint64_t count) {
    for (std::uint64_t k = 0; k < count; ++k)
      veltrix_bench::keep(lf::sync_wait(pool, libfork_fibonacci, n));
  }));
#endif
  all.push_back(side<elastic>("elastic_pool", [=](elastic& pool, std::uint64_t count) {
    times(count, [&](auto first, auto second) { pool.inside().parallel_invoke(first, second); });
  }));
  all.push_back(side<elastic>("elastic_pool task_group", [=](elastic& pool, std::uint64_t count) {
    auto work = [&] {
      times(count, [&](auto first, auto second) {
        run_both(veltrix::task_group(pool.inside()), first, second);
      });
    };
    pool.inside().submit(work).get();
  }));
  workload one{"fork and join: fib(27)", 1, all};
  one.operations = 3;
  table.run({one});
}

void loops(veltrix_bench::bench& table) {
  constexpr std::uint64_t items = 10'000;
  const auto body = [](std::uint64_t i) { veltrix_bench::keep(i); };
  std::vector<contender> all;
  all.push_back({"one thread", [&](unsigned, std::uint64_t n) {
                   for (std::uint64_t k = 0; k < n; ++k)
                     for (std::uint64_t i = 0; i < items; ++i)
                       body(i);
                 }});
#if defined(VELTRIX_BENCH_TBB)
  all.push_back({"TBB parallel_for", [&](unsigned, std::uint64_t n) {
                   for (std::uint64_t k = 0; k < n; ++k) {
                     oneapi::tbb::parallel_for(std::uint64_t{0}, items, body);
                   }
                 }});
#endif
  auto mine = side<elastic>("elastic_pool", [body](elastic& pool, std::uint64_t n) {
    for (std::uint64_t k = 0; k < n; ++k)
      pool.inside().parallel_for(std::uint64_t{0}, items, body);
  });
  all.push_back(std::move(mine));
  workload one{"parallel_for over 10,000 items", 1, all};
  one.operations = 500;
  table.run({one});
}

/// Many workers share little work: waking one for each task costs more than the task.
void crowd(veltrix_bench::bench& table) {
  std::vector<contender> all;
  const auto work = [](auto& pool, std::uint64_t n) { working(pool, n, 200); };
  all.push_back(side<elastic>("elastic_pool, 2 workers", work));
  auto many = std::make_shared<std::unique_ptr<elastic>>();
  contender crowded{"elastic_pool, 512 workers",
                    [many, work](unsigned, std::uint64_t n) { work(**many, n); }};
  crowded.before = [many] { *many = std::make_unique<elastic>(512U); };
  crowded.after = [many] { many->reset(); };
  all.push_back(std::move(crowded));
  auto plain = std::make_shared<std::unique_ptr<veltrix_bench::plain_pool>>();
  contender plainly{"mutex + deque, 512 workers",
                    [plain, work](unsigned, std::uint64_t n) { work(**plain, n); }};
  plainly.before = [plain] { *plain = std::make_unique<veltrix_bench::plain_pool>(512U); };
  plainly.after = [plain] { plain->reset(); };
  all.push_back(std::move(plainly));
  workload one{"0.2 us of work, 512 workers", 1, all};
  one.operations = 50'000;
  table.run({one});
}

}  // namespace

int main(int argc, char** argv) {
  using namespace veltrix_bench;
  bench table("elastic_pool", parse(argc, argv));
  const auto flood = [](auto& pool, std::uint64_t n) { windowed(pool, n, n); };
  compare(table, "empty tasks", 1, 200'000, flood);
  compare(table, "empty tasks", 2, 100'000, flood);
  compare(table, "empty tasks, 8192 in flight", 1, 200'000,
          [](auto& pool, std::uint64_t n) { windowed(pool, n, 8192); });
  // Long enough that it matters little how soon the scheduler gives two new threads a core each.
  work_of(table, "1 us of work", 60'000, 1000);
  work_of(table, "10 us of work", 10'000, 10000);
  spawn_tree(table);
  compare(table, "burst of 1,000", 1, 100,
          [](auto& pool, std::uint64_t n) { bursts(pool, n, 1000); });
  compare(table, "burst of 16", 1, 1'000, [](auto& pool, std::uint64_t n) { bursts(pool, n, 16); });
  fork_join(table);
  loops(table);
  crowd(table);
  idle_start<elastic>(table, workers);
  resizes(table, false);
  resizes(table, true);
  if (table.chosen().wants("allocations per task")) {
    allocations_of<plain_pool>(table, "mutex + deque", workers);
#if defined(VELTRIX_BENCH_ASIO)
    allocations_of<asio_pool>(table, "Boost.Asio", workers);
#endif
#if defined(VELTRIX_BENCH_BS)
    allocations_of<bs_pool>(table, "BS::thread_pool", workers);
#endif
#if defined(VELTRIX_BENCH_TASKFLOW)
    allocations_of<taskflow_pool>(table, "Taskflow", workers);
#endif
    allocations_of<elastic>(table, "elastic_pool", workers);
  }
  return table.finish();
}
