// elastic_pool explored: tasks run once, parked workers are woken, resizes are acknowledged by what
// runs, and stop() ends them all.
// SPDX-License-Identifier: BSL-1.0
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <exception>
#include <stdexcept>

#include "model/meeting.hpp"
#include "model/support.hpp"
#include "veltrix/elastic_pool.hpp"

namespace {

using namespace veltrix_model;
using veltrix::elastic_pool;

exploration to(int preemptions, std::uint64_t most = 2'000'000) {
  exploration wanted{{.preemptions = preemptions}};
  wanted.most_schedules = most;
  return wanted;
}

/// A search too long for every day: see VELTRIX_MODEL_SCALE.
template <class Body>
void search(const char* name, int preemptions, Body body) {
  constexpr std::uint64_t most = 100'000;
  check_searched(name, explore(to(preemptions, most), body), most);
}

/// Runs `other` on a thread of its own while the calling one runs `own`.
template <class Other, class Own>
void beside(Other other, Own own) {
  native_thread thread;
  thread.start(other);
  own();
  thread.join();
}

}  // namespace

TEST_CASE("elastic_pool model: a parked worker is woken for each post") {
  const auto body = [] {
    atomic<int> ran = 0;
    {
      elastic_pool pool(1);
      require(bool(pool.post([&] { ran.fetch_add(1, std::memory_order_relaxed); })), "taken");
      require(bool(pool.post([&] { ran.fetch_add(1, std::memory_order_relaxed); })), "taken");
      require(bool(pool.drain()), "drained");
      require(ran.load(std::memory_order_relaxed) == 2, "both ran once before drain answered");
    }
  };
  check_exhausted("elastic_pool park/wake 1 worker, bound 2", explore(to(2), body));
}

TEST_CASE("elastic_pool model: two workers and two posters") {
  const auto body = [](std::size_t workers, auto twice) {
    atomic<int> ran = 0;
    elastic_pool pool(workers);
    const auto post = [&] {
      require(bool(pool.post([&] { ran.fetch_add(1, std::memory_order_relaxed); })), "taken");
    };
    twice(post);
    pool.stop();
    require(ran.load(std::memory_order_relaxed) == 2, "stop() ran what was accepted, once");
  };
  check_exhausted("elastic_pool 2 workers, 1 poster, bound 2", explore(to(2), [&] {
                    body(2, [](auto post) {
                      post();
                      post();
                    });
                  }));
  check_exhausted("elastic_pool 1 worker, 2 posters, bound 2",
                  explore(to(2), [&] { body(1, [](auto post) { beside(post, post); }); }));
  const auto all = [&] { body(2, [](auto post) { together(post, post); }); };
  check_exhausted("elastic_pool 2 workers, 2 posters, bound 1", explore(to(1), all));
  search("elastic_pool 2 workers, 2 posters, bound 2", 2, all);
}

TEST_CASE("elastic_pool model: two tasks that wait for each other get two workers") {
  const auto body = [] {
    meeting both(2);
    elastic_pool pool(2);
    for (int i = 0; i < 2; ++i)
      require(bool(pool.post([&] { both.arrive(); })), "taken");
    require(pool.drain(), "they met");
  };
  check_exhausted("elastic_pool two that meet, bound 1", explore(to(1), body));
}

TEST_CASE("elastic_pool model: a task that a worker posts and waits for goes to the other") {
  const auto body = [] {
    meeting both(2);
    elastic_pool pool(2);
    require(bool(pool.post([&] {
              require(bool(pool.post([&] { both.arrive(); })), "taken");
              both.arrive();
            })),
            "taken");
    require(pool.drain(), "they met");
  };
  check_exhausted("elastic_pool a worker's post is stolen, bound 1", explore(to(1), body));
}

TEST_CASE("elastic_pool model: a stop leaves a worker for what was posted before it") {
  const auto body = [] {
    meeting posted(2);
    meeting both(2);
    elastic_pool pool(2);
    require(bool(pool.post([&] {
              require(bool(pool.post([&] { both.arrive(); })), "taken");
              posted.arrive();
              both.arrive();
            })),
            "taken");
    posted.arrive();
    pool.stop();
  };
  check_exhausted("elastic_pool a stop after a worker's post, bound 1",
                  explore(to(1, 1'000'000), body));
}

TEST_CASE("elastic_pool model: a post is seen though a group's wait looks under it") {
  const auto body = [] {
    meeting both(2);
    elastic_pool pool(2);
    require(bool(pool.post([&] {
              veltrix::task_group group(pool);
              group.run([] {});
              require(bool(pool.post([&] { both.arrive(); })), "taken");
              group.wait();
              both.arrive();
            })),
            "taken");
    require(pool.drain(), "they met");
  };
  check_exhausted("elastic_pool group beside a post, bound 2", explore(to(2), body));
}

TEST_CASE("elastic_pool model: calls of a parallel_invoke that meet get two workers") {
  const auto body = [] {
    meeting both(2);
    elastic_pool pool(2);
    pool.parallel_invoke([&] { both.arrive(); }, [&] { both.arrive(); });
  };
  check_exhausted("elastic_pool two calls that meet, bound 1", explore(to(1), body));
}

TEST_CASE("elastic_pool model: a parallel_invoke beside a shrink or a stop ends") {
  const auto body = [](auto change) {
    var<int> first = 0, second = 0;
    elastic_pool pool(2);
    together(
        [&] {
          pool.parallel_invoke([&] { first = first + 1; }, [&] { second = second + 1; });
          require(first == 1 && second == 1, "each call was made once");
        },
        [&] { change(pool); });
    pool.stop();
    require(pool.stats().running == 0, "nobody is left");
  };
  check_exhausted("elastic_pool parallel_invoke beside a shrink, bound 1", explore(to(1), [&] {
                    body([](elastic_pool& pool) { static_cast<void>(pool.resize_to(1)); });
                  }));
  check_exhausted("elastic_pool parallel_invoke beside a stop, bound 1",
                  explore(to(1), [&] { body([](elastic_pool& pool) { pool.stop(); }); }));
}

TEST_CASE("elastic_pool model: a worker that retires hands its tasks over") {
  const auto body = [](bool stops) {
    atomic<int> ran = 0;
    elastic_pool pool(2);
    require(bool(pool.post([&] {
              for (int i = 0; i < 2; ++i) {
                if (pool.post([&] { ran.fetch_add(1, std::memory_order_relaxed); }))
                  ran.fetch_add(10, std::memory_order_relaxed);
              }
              // One of them retires, perhaps this one.
              static_cast<void>(pool.resize_to(1, {.deadline = veltrix::steady_clock::now()}));
            })),
            "taken");
    stops ? pool.stop() : require(pool.drain(), "drained");
    const int seen = ran.load(std::memory_order_relaxed);
    require(seen % 10 == seen / 10, "each that was taken ran");
  };
  check_exhausted("elastic_pool retires with tasks, drained, bound 2",
                  explore(to(2), [&] { body(false); }));
  check_exhausted("elastic_pool retires with tasks, stopped, bound 1",
                  explore(to(1), [&] { body(true); }));
  exploration sample = to(-1, 60'000);
  sample.how = search_kind::priorities;
  check_sampled("elastic_pool retires with tasks, stopped, by priorities",
                explore(sample, [&] { body(true); }), 60'000);
}

TEST_CASE("elastic_pool model: a drain hears of it when the last task's worker retires") {
  const auto body = [] {
    elastic_pool pool(2);
    require(bool(pool.post([] {})), "taken");
    // The other worker may sleep meanwhile, and be called only to find that nobody is too many and
    // that who resizes has joined the one that left.
    together([&] { static_cast<void>(pool.resize_to(1)); },
             [&] { require(pool.drain(), "drained"); });
  };
  check_exhausted("elastic_pool retires after the last task, bound 1", explore(to(1), body));
}

TEST_CASE("elastic_pool model: growing and shrinking beside a post loses nothing") {
  const auto body = [](auto both) {
    atomic<int> ran = 0;
    elastic_pool pool(1, {.max_workers = 3});
    both(
        [&] {
          require(bool(pool.post([&] { ran.fetch_add(1, std::memory_order_relaxed); })), "taken");
        },
        [&] {
          const auto grown = pool.resize_to(2);
          require(bool(grown) && grown.running == 2, "two run when it is acknowledged");
          const auto shrunk = pool.resize_to(1);
          require(bool(shrunk) && shrunk.running == 1, "one runs when it is acknowledged");
        });
    pool.stop();
    require(ran.load(std::memory_order_relaxed) == 1, "the task ran once");
    require(pool.stats().running == 0, "nobody is left");
  };
  check_exhausted("elastic_pool resize 1-2-1 of a pool at work, bound 2", explore(to(2), [&] {
                    body([](auto post, auto resize) {
                      post();
                      resize();
                    });
                  }));
  const auto all = [&] { body([](auto post, auto resize) { together(resize, post); }); };
  check_exhausted("elastic_pool resize 1-2-1 beside a post, bound 1", explore(to(1), all));
  search("elastic_pool resize 1-2-1 beside a post, bound 2", 2, all);
}

TEST_CASE("elastic_pool model: a resize and a stop meet") {
  const auto body = [] {
    elastic_pool pool(1, {.max_workers = 3});
    beside([&] { static_cast<void>(pool.resize_to(2)); }, [&] { pool.stop(); });
    require(pool.stats().running == 0, "nobody is left");
    require(!pool.post([] {}), "closed");
  };
  check_exhausted("elastic_pool resize/stop, bound 2", explore(to(2), body));
}

TEST_CASE("elastic_pool model: a shrink beside a post leaves no task with sleepers") {
  const auto body = [](auto both) {
    atomic<int> ran = 0;
    elastic_pool pool(2);
    both([&] { static_cast<void>(pool.resize_to(1)); },
         [&] {
           require(bool(pool.post([&] { ran.fetch_add(1, std::memory_order_relaxed); })), "taken");
           require(pool.drain() && ran.load(std::memory_order_relaxed) == 1, "it ran");
         });
    pool.stop();
  };
  // The shrink does not wait for who leaves, so that they meet the post.
  check_exhausted("elastic_pool shrink before a post, bound 2", explore(to(2), [&] {
                    atomic<int> ran = 0;
                    elastic_pool pool(2);
                    const auto now = veltrix::steady_clock::now();
                    static_cast<void>(pool.resize_to(1, {.deadline = now}));
                    require(bool(pool.post([&] { ran.fetch_add(1, std::memory_order_relaxed); })),
                            "taken");
                    require(pool.drain() && ran.load(std::memory_order_relaxed) == 1, "it ran");
                    pool.stop();
                    require(ran.load(std::memory_order_relaxed) == 1, "it ran once");
                  }));
  const auto all = [&] { body([](auto shrink, auto post) { together(shrink, post); }); };
  check_exhausted("elastic_pool shrink beside a post, bound 1", explore(to(1), all));
  search("elastic_pool shrink beside a post, bound 2", 2, all);
}

TEST_CASE("elastic_pool model: a thread that is slow to end holds no task back") {
  const auto body = [] {
    mutex guard;
    condition_variable changed;
    var<bool> ran = false;
    auto await_task = [&] {  // as a thread_local whose end needs the pool
      unique_lock<mutex> lock(guard);
      while (!ran)
        changed.wait(lock);
    };
    elastic_pool pool(3, {.on_start = [&](std::size_t) { at_thread_end(await_task); }});
    const auto soon = veltrix::steady_clock::now();
    static_cast<void>(pool.resize_to(2, {.deadline = soon}));  // answers before the thread is gone
    require(bool(pool.post([&] {
              const lock_guard<mutex> lock(guard);
              ran = true;
              changed.notify_all();
            })),
            "taken");
    require(pool.drain(), "though a worker waits for the slow thread, another runs it");
    pool.stop();
  };
  check_exhausted("elastic_pool slow end of a thread, bound 1", explore(to(1), body));
}

TEST_CASE("elastic_pool model: a task's result reaches its handle") {
  const auto body = [] {
    elastic_pool pool(1);
    var<int> given = 0;
    auto handle = pool.submit([&] {
      given = 41;
      return 1;
    });
    require(handle.get() + given == 42, "what the task wrote is seen");
  };
  check_exhausted("elastic_pool submit/get, bound 2", explore(to(2), body));
}

TEST_CASE("elastic_pool model: tasks and hooks that throw beside a resize are told and counted") {
  const auto body = [] {
    atomic<int> told = 0, hooks = 0;
    const auto throws = [&](std::size_t) {
      hooks.fetch_add(1, std::memory_order_relaxed);
      throw std::runtime_error("a hook");
    };
    const auto count = [&](std::exception_ptr) { told.fetch_add(1, std::memory_order_relaxed); };
    elastic_pool pool(
        1, {.max_workers = 2, .on_exception = count, .on_start = throws, .on_stop = throws});
    together(
        [&] {
          const auto grown = pool.resize_to(2);
          require(bool(grown) && grown.running == 2, "two run when it is acknowledged");
        },
        [&] {
          require(bool(pool.post([] { throw std::runtime_error("a task"); })), "taken");
          auto handle = pool.submit([]() -> int { throw std::runtime_error("a submitted task"); });
          bool thrown = false;
          try {
            handle.get();
          } catch (const std::runtime_error&) {
            thrown = true;
          }
          require(thrown, "the handle has its own");
        });
    pool.stop();
    require(hooks.load(std::memory_order_relaxed) == 4, "each worker began and ended once");
    require(told.load(std::memory_order_relaxed) == 5, "the task's and the hooks'");
    const veltrix::pool_stats seen = pool.stats();
    require(seen.running == 0 && seen.completed == 2 && seen.failed == 5, "the account");
  };
  check_exhausted("elastic_pool throws beside a resize, bound 1", explore(to(1), body));
}

TEST_CASE("elastic_pool model: a growth that fails beside a post changes nothing") {
  const auto body = [] {
    atomic<int> ran = 0;
    elastic_pool pool(1, {.max_workers = 4, .start_fault = [&](std::size_t nth) {
                            return nth == 1 ? ENOMEM : 0;  // the first thread starts, in vain
                          }});
    together([&] { require(!pool.resize_to(3), "all or nothing"); },
             [&] {
               require(bool(pool.post([&] { ran.fetch_add(1, std::memory_order_relaxed); })),
                       "taken");
               require(pool.drain(), "drained");
             });
    require(pool.stats().running == 1 && pool.stats().starting == 0, "as it was");
    require(ran.load(std::memory_order_relaxed) == 1, "the task ran once");
  };
  check_exhausted("elastic_pool growth fails, bound 1", explore(to(1), body));
}

TEST_CASE("elastic_pool model: a resize and a drain whose time is short answer as it is") {
  exploration hasty = to(1);
  hasty.early_timeouts = 2;
  const auto body = [](auto both) {
    atomic<int> ran = 0;
    elastic_pool pool(2);
    const auto soon = veltrix::steady_clock::now() + std::chrono::seconds(1);
    both(
        [&] {
          const auto shrunk = pool.resize_to(1, {.deadline = soon});
          require(shrunk.target == 1, "the target stays");
          require(!shrunk || shrunk.running == 1, "an ack means that one runs");
        },
        [&] {
          require(bool(pool.post([&] { ran.fetch_add(1, std::memory_order_relaxed); })), "taken");
          if (pool.drain(soon)) {
            require(ran.load(std::memory_order_relaxed) == 1, "true only when nothing was left");
          } else {
            require(veltrix::steady_clock::now() >= soon, "late only after the deadline");
          }
        });
    pool.stop();
    require(ran.load(std::memory_order_relaxed) == 1, "the task ran once");
  };
  check_exhausted("elastic_pool short of time one after the other, bound 1", explore(hasty, [&] {
                    body([](auto shrink, auto drain) {
                      shrink();
                      drain();
                    });
                  }));
  hasty.most_schedules = 100'000;
  check_searched(
      "elastic_pool short of time, bound 1",
      explore(hasty, [&] { body([](auto shrink, auto drain) { together(shrink, drain); }); }),
      100'000);
}

TEST_CASE("elastic_pool model: a growth under load runs each task once") {
  check_exhausted("elastic_pool growth under load, bound 2", explore(to(2), [] {
                    atomic<int> ran = 0;
                    elastic_pool pool(1, {.max_workers = 3});
                    const auto post = [&] {
                      require(bool(pool.post([&] { ran.fetch_add(1, std::memory_order_relaxed); })),
                              "taken");
                    };
                    post();
                    post();
                    const auto grown = pool.resize_by(1);
                    require(bool(grown) && grown.running == 2, "two run when it is acknowledged");
                    post();
                    pool.stop();
                    require(ran.load(std::memory_order_relaxed) == 3, "each task ran once");
                  }));
}

TEST_CASE("elastic_pool model: a growth out of time takes place with a thread that comes late") {
  exploration hasty = to(1, 400'000);
  hasty.early_timeouts = 1;
  const auto body = [] {
    atomic<int> ran = 0;
    elastic_pool pool(1, {.max_workers = 3});
    const auto soon = veltrix::steady_clock::now() + std::chrono::seconds(1);
    const auto told = pool.resize_to(2, {.deadline = soon});
    require(told.target == 2 && told.running + told.starting == 2, "both exist");
    require(bool(told) == (told.running == 2), "an ack means that they run");
    require(bool(pool.post([&] { ran.fetch_add(1, std::memory_order_relaxed); })), "taken");
    pool.stop();
    require(ran.load(std::memory_order_relaxed) == 1, "the task ran once");
    require(pool.stats().running == 0 && pool.stats().starting == 0, "nobody is left");
  };
  check_exhausted("elastic_pool growth out of time, bound 1", explore(hasty, body));
}

TEST_CASE("elastic_pool model: an ack comes after the hooks of those it counts") {
  const auto body = [] {
    atomic<int> begun = 0, ended = 0;
    elastic_pool pool(
        1, {.max_workers = 2,
            .on_start = [&](std::size_t) { begun.fetch_add(1, std::memory_order_relaxed); },
            .on_stop = [&](std::size_t) { ended.fetch_add(1, std::memory_order_relaxed); }});
    require(bool(pool.resize_to(2)) && begun.load(std::memory_order_relaxed) == 2, "both began");
    require(bool(pool.resize_to(1)) && ended.load(std::memory_order_relaxed) == 1, "one ended");
    pool.stop();
    require(ended.load(std::memory_order_relaxed) == 2, "both ended");
  };
  check_exhausted("elastic_pool hooks before acks, bound 1", explore(to(1, 400'000), body));
}

TEST_CASE("elastic_pool model: sampled deep, with a growth under load") {
  exploration sample = to(-1, 30'000);
  sample.how = search_kind::priorities;
  const findings seen = explore(sample, [] {
    atomic<int> ran = 0;
    elastic_pool pool(1, {.max_workers = 3});
    const auto post = [&] {
      for (int i = 0; i < 2; ++i)
        require(bool(pool.post([&] { ran.fetch_add(1, std::memory_order_relaxed); })), "taken");
    };
    together(post, post, [&] { require(bool(pool.resize_by(1)), "grown"); });
    pool.stop();
    require(ran.load(std::memory_order_relaxed) == 4, "each task ran once");
  });
  check_sampled("elastic_pool growth under load, by priorities", seen, 30'000);
}
