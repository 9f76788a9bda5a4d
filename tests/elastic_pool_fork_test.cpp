// SPDX-License-Identifier: BSL-1.0
// parallel_invoke of elastic_pool: who makes the calls, what a waiting worker does meanwhile, and
// what becomes of exceptions. Its interleavings are explored in model/branches_model_test.cpp.
#include <atomic>
#include <chrono>
#include <fstream>
#include <latch>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/pool.hpp"
#include "support/scale.hpp"
#include "support/thread_usage.hpp"
#include "veltrix/elastic_pool.hpp"

using namespace veltrix;
using namespace std::chrono_literals;
using veltrix_test::eventually;
using veltrix_test::failure_log;
using veltrix_test::held_workers;
using veltrix_test::thread_usage;

namespace {

const auto nothing = [] {};

struct fibonacci {
  elastic_pool& pool;
  long operator()(int n) const {
    if (n < 2) return n;
    long left = 0, right = 0;
    pool.parallel_invoke([&] { left = (*this)(n - 1); }, [&] { right = (*this)(n - 2); });
    return left + right;
  }
};

/// Whether the kernel says that the thread waits.
bool sleeps(long thread) {
  std::ifstream file("/proc/self/task/" + std::to_string(thread) + "/stat");
  std::string text;
  std::getline(file, text);
  const std::size_t name_ends = text.rfind(')');
  return name_ends != std::string::npos && text.compare(name_ends, 3, ") S") == 0;
}

/// Lets time pass in which others could do what they must not.
void give_others_time() {
  for (int i = 0; i < 2000; ++i)
    std::this_thread::yield();
}

/// Runs `first` here and `second` on another worker, certainly: each waits until both have begun.
template <class First, class Second>
void invoke_apart(elastic_pool& pool, First first, Second second) {
  std::latch begun(2);
  pool.parallel_invoke(
      [&] {
        begun.arrive_and_wait();
        first();
      },
      [&] {
        begun.arrive_and_wait();
        second();
      });
}

}  // namespace

TEST_CASE("parallel_invoke makes each call once and returns when all have ended") {
  elastic_pool pool(2);
  for (const bool inside : {false, true}) {
    int made[5] = {};
    const auto all = [&] {
      pool.parallel_invoke([&] { ++made[0]; }, [&] { ++made[1]; }, [&] { ++made[2]; },
                           [&] { ++made[3]; }, [&] { ++made[4]; });
    };
    inside ? pool.submit(all).get() : all();
    for (const int each : made)
      CHECK(each == 1);
  }
}

TEST_CASE("parallel_invoke nests to any depth on any number of workers") {
  for (const std::size_t workers : {1U, 2U, 5U}) {
    elastic_pool pool(workers);
    CHECK(fibonacci{pool}(20) == 6765);
    CHECK(pool.submit([&] { return fibonacci{pool}(20); }).get() == 6765);
    // Beyond what its deque first has room for.
    int depth = 0;
    struct descent {
      elastic_pool& pool;
      int& depth;
      void operator()(int left) const {
        ++depth;
        if (left > 0) pool.parallel_invoke(nothing, [this, left] { (*this)(left - 1); });
      }
    };
    pool.submit([&] { descent{pool, depth}(1000); }).get();
    CHECK(depth == 1001);
  }
}

TEST_CASE("parallel_invoke opens more branches than its deque has room for at first") {
  elastic_pool pool(2);
  std::atomic<int> ended{0};
  struct descent {
    elastic_pool& pool;
    std::atomic<int>& ended;
    void operator()(int left) const {
      if (left == 0) return;
      pool.parallel_invoke([this, left] { (*this)(left - 1); }, [this] { ended.fetch_add(1); });
    }
  };
  pool.submit([&] { descent{pool, ended}(1000); }).get();
  CHECK(ended.load() == 1000);
}

TEST_CASE("parallel_invoke makes its calls at the same time when workers are free") {
  elastic_pool pool(2);
  for (std::size_t round = 0; round < veltrix_test::scale(200); ++round) {
    std::thread::id first, second;
    pool.submit([&] {
          invoke_apart(
              pool, [&] { first = std::this_thread::get_id(); },
              [&] { second = std::this_thread::get_id(); });
        })
        .get();
    CHECK(first != second);
  }
}

TEST_CASE("parallel_invoke from a thread that is no worker makes all calls on workers") {
  elastic_pool pool(2);
  std::atomic<int> on_workers{0};
  const auto count = [&] { on_workers.fetch_add(pool.on_worker() ? 1 : 0); };
  pool.parallel_invoke(count, count, [&] { pool.parallel_invoke(count, count); });
  CHECK(on_workers.load() == 4);
  CHECK(pool.drain());
  CHECK(pool.stats().posted == 1);  // one task: what it forks is none
  elastic_pool other(1);
  CHECK(other.submit([&] { return fibonacci{pool}(10); }).get() == 55);
}

TEST_CASE("parallel_invoke makes the calls in turn when the pool is stopped or full") {
  const auto check_turn = [](elastic_pool& pool) {
    const std::thread::id caller = std::this_thread::get_id();
    std::string order;
    pool.parallel_invoke([&] { order += caller == std::this_thread::get_id() ? "a" : "?"; },
                         [&] { order += caller == std::this_thread::get_id() ? "b" : "?"; },
                         [&] { order += caller == std::this_thread::get_id() ? "c" : "?"; });
    CHECK(order == "abc");
  };
  elastic_pool pool(1, {.queue_capacity = 1});
  {
    const held_workers held(pool, 1);
    REQUIRE(pool.post(nothing));
    check_turn(pool);
  }
  pool.stop();
  check_turn(pool);
}

TEST_CASE("parallel_invoke in a hook or an exception handler deadlocks nobody") {
  std::atomic<int> ran{0};
  elastic_pool* inside = nullptr;
  const auto both = [&] {
    const auto count = [&] { ran.fetch_add(1); };
    inside->parallel_invoke(count, count);
  };
  {
    elastic_pool pool(1, {.on_exception = [&](const std::exception_ptr&) { both(); },
                          .on_start =
                              [&](std::size_t index) {
                                if (index != 0) both();
                              },
                          .on_stop =
                              [&](std::size_t index) {
                                if (index != 0) both();
                              }});
    inside = &pool;
    {
      const held_workers held(pool, 1);  // nobody is free to do what the hook asks for
      REQUIRE(pool.resize_to(2));
    }
    CHECK(ran.load() == 2);
    pool.submit([&] { pool.parallel_invoke(nothing, nothing); }).get();
    REQUIRE(pool.post([] { throw std::runtime_error("to the handler"); }));
    REQUIRE(pool.drain());
    CHECK(ran.load() == 4);
  }
  CHECK(ran.load() == 6);
}

TEST_CASE("parallel_invoke rethrows the exception of the first call in order that threw") {
  failure_log log;
  elastic_pool pool(2, {.on_exception = log.handler()});
  const auto throws = [](const char* what) { return [what] { throw std::runtime_error(what); }; };
  const auto check_both = [&](auto invoke) {
    CHECK_THROWS_WITH(invoke(throws("first"), nothing), "first");
    CHECK_THROWS_WITH(invoke(nothing, throws("second")), "second");
    CHECK(log.texts().empty());
    CHECK_THROWS_WITH(invoke(throws("first"), throws("second")), "first");
    CHECK(log.texts() == std::multiset<std::string>{"second"});
    CHECK_NOTHROW(invoke(nothing, nothing));
  };
  SECTION("on one worker") {
    const held_workers held(pool, 1);
    check_both([&](auto first, auto second) {
      pool.submit([&] { pool.parallel_invoke(first, second); }).get();
    });
  }
  SECTION("on two workers") {
    check_both([&](auto first, auto second) {
      pool.submit([&] { invoke_apart(pool, first, second); }).get();
    });
  }
  SECTION("called from outside") {
    check_both([&](auto first, auto second) { pool.parallel_invoke(first, second); });
  }
  SECTION("in turn") {
    pool.stop();
    check_both([&](auto first, auto second) { pool.parallel_invoke(first, second); });
  }
  SECTION("of many") {
    CHECK_THROWS_WITH(pool.parallel_invoke(nothing, throws("b"), throws("c"), throws("d")), "b");
    CHECK(log.texts() == std::multiset<std::string>{"c", "d"});
  }
}

TEST_CASE("parallel_invoke makes every call though one has thrown") {
  elastic_pool pool(2, {.on_exception = [](const std::exception_ptr&) {}});
  for (std::size_t round = 0; round < veltrix_test::scale(500); ++round) {
    std::atomic<int> made{0};
    const auto throws = [&] {
      made.fetch_add(1);
      throw std::runtime_error("on purpose");
    };
    const auto two = [&] { pool.parallel_invoke(throws, throws); };
    CHECK_THROWS(pool.parallel_invoke(throws, throws, two));
    CHECK(made.load() == 4);
  }
}

TEST_CASE("parallel_invoke lets a worker that waits run what it waits for") {
  elastic_pool pool(2);
  for (std::size_t round = 0; round < veltrix_test::scale(200); ++round) {
    std::thread::id waiter, helper;
    pool.submit([&] {
          waiter = std::this_thread::get_id();
          invoke_apart(pool, nothing, [&] {
            // Both workers are taken: only the one that waits for this call can make the other.
            invoke_apart(pool, nothing, [&] { helper = std::this_thread::get_id(); });
          });
        })
        .get();
    CHECK(waiter == helper);
  }
}

TEST_CASE("parallel_invoke lets a worker that sleeps in it be called for what it waits for") {
  elastic_pool pool(2);
  for (std::size_t round = 0; round < veltrix_test::scale(50); ++round) {
    std::thread::id waiter, helper;
    pool.submit([&] {
          waiter = std::this_thread::get_id();
          const long number = detail::sync::this_thread_number();
          invoke_apart(pool, nothing, [&] {
            CHECK(eventually([&] { return sleeps(number); }));
            invoke_apart(pool, nothing, [&] { helper = std::this_thread::get_id(); });
          });
        })
        .get();
    CHECK(waiter == helper);
  }
}

TEST_CASE("parallel_invoke lets a worker that waits run no stranger's task or call") {
  elastic_pool pool(3);
  std::latch waits(1), strange_begun(1);
  std::atomic<bool> over{false};
  std::atomic<int> too_soon{0};
  const auto strange = [&] { too_soon.fetch_add(over ? 0 : 1); };
  auto waiter = pool.submit([&] {
    invoke_apart(
        pool, [&] { waits.count_down(); },
        [&] {
          strange_begun.wait();
          give_others_time();
          over = true;
        });
  });
  waits.wait();
  auto stranger = pool.submit([&] {
    pool.parallel_invoke(
        [&] {
          // Three workers: one waits, one runs what that waits for, one is here.
          REQUIRE(pool.post(strange));
          strange_begun.count_down();
          while (!over)
            std::this_thread::yield();
        },
        strange);
  });
  waiter.get();
  stranger.get();
  REQUIRE(pool.drain());
  CHECK(too_soon.load() == 0);
}

TEST_CASE("parallel_invoke burns no time in a worker that waits for long") {
  elastic_pool pool(2);
  thread_usage before{}, after{};
  pool.submit([&] {
        long number = 0;
        std::atomic<bool> asleep{false};
        pool.parallel_invoke(
            [&] {
              number = detail::sync::this_thread_number();
              while (!asleep)
                std::this_thread::yield();
              before = thread_usage::now();
            },
            [&] {
              asleep = true;
              std::this_thread::sleep_for(200ms);  // sleep: time that the waiter must not burn
            });
        after = thread_usage::now();
      })
      .get();
  CHECK(after.cpu - before.cpu < 20ms);
}

TEST_CASE("parallel_invoke allocates nothing on a worker whose deque has grown") {
  elastic_pool pool(1);
  pool.submit([&] {
        CHECK(fibonacci{pool}(10) == 55);
        const std::size_t before = veltrix_test::allocations_made;
        CHECK(fibonacci{pool}(10) == 55);
        CHECK(veltrix_test::allocations_made - before == 0);
      })
      .get();
}

TEST_CASE("parallel_invoke makes the calls in turn when its deque lacks memory") {
  elastic_pool pool(2);
  pool.submit([&] {
        std::string order;
        veltrix_test::allocations_left = 0;
        pool.parallel_invoke([&] { order += 'a'; }, [&] { order += 'b'; });
        veltrix_test::allocations_left = -1;
        CHECK(order == "ab");
      })
      .get();
}

TEST_CASE("elastic_pool retires a worker after its join, and the one that took the branch") {
  for (const bool shrinks_inside : {false, true}) {
    elastic_pool pool(3);
    std::latch apart(1), shrunk(1);
    const auto shrink = [&] {
      const resize_result told = pool.resize_to(1, {.deadline = steady_clock::now()});
      CHECK(told.target == 1);
      shrunk.count_down();
    };
    auto joined = pool.submit([&] {
      int second = 0;
      invoke_apart(
          pool, [&] { apart.count_down(); },
          [&] {
            if (shrinks_inside) shrink();
            shrunk.wait();
            give_others_time();
            CHECK(fibonacci{pool}(12) == 144);
            second = 1;
          });
      return second;
    });
    apart.wait();
    if (!shrinks_inside) shrink();
    CHECK(joined.get() == 1);
    CHECK(eventually([&] { return pool.stats().settled(); }));
    CHECK(pool.stats().running == 1);
    CHECK(fibonacci{pool}(12) == 144);
  }
}

TEST_CASE("elastic_pool drains and stops after the joins in flight") {
  for (const bool stops : {false, true}) {
    elastic_pool pool(2);
    std::latch apart(1);
    std::atomic<bool> ended{false};
    REQUIRE(pool.post([&] {
      invoke_apart(
          pool, [&] { apart.count_down(); },
          [&] {
            give_others_time();
            CHECK(fibonacci{pool}(15) == 610);
          });
      ended = true;
    }));
    apart.wait();
    if (stops) {
      pool.stop();
    } else {
      REQUIRE(pool.drain());
    }
    CHECK(ended.load());
    const pool_stats seen = pool.stats();
    CHECK((seen.posted == 1 && seen.completed == 1 && seen.busy == 0));
  }
}

TEST_CASE("elastic_pool answers a call of a branch as it answers the task") {
  elastic_pool pool(2);
  pool.submit([&] {
        invoke_apart(pool, nothing, [&] {
          CHECK(pool.on_worker());
          CHECK(pool.drain());  // nothing but the task that this is a part of
          CHECK(pool.resize_to(2));
          CHECK(pool.submit([] { return 3; }).get() == 3);
          pool.stop();  // closes only
          CHECK_FALSE(pool.post(nothing));
          CHECK(fibonacci{pool}(10) == 55);
        });
      })
      .get();
  pool.stop();
  CHECK(pool.stats().running == 0);
}

TEST_CASE("parallel_invoke goes with groups, loops and handles inside each other") {
  elastic_pool pool(3);
  std::atomic<int> ran{0};
  const auto count = [&] { ran.fetch_add(1); };
  const auto mixed = [&] {
    task_group group(pool);
    group.run([&] { pool.parallel_invoke(count, count); });
    pool.parallel_invoke([&] { group.run(count); },
                         [&] { pool.parallel_for(0, 3, [&](int) { count(); }); },
                         [&] { pool.submit(count).get(); });
    group.wait();
  };
  for (std::size_t round = 0; round < veltrix_test::scale(500); ++round)
    pool.parallel_invoke(mixed, mixed, mixed);
  CHECK(ran.load() == static_cast<int>(veltrix_test::scale(500)) * 3 * 7);
}
