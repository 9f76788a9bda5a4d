// keyed_executor explored: a lane that became ready is drained, one handler at a time, and a wait
// for the end ends when nothing is in flight.
// SPDX-License-Identifier: BSL-1.0
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <optional>
#include <span>
#include <stdexcept>
#include <utility>

#include "model/support.hpp"
#include "veltrix/keyed_executor.hpp"

namespace {

using namespace veltrix_model;

/// Keeps what is posted until a thread runs it.
struct shelf {
  mutex guard;
  std::deque<veltrix::task> kept;

  veltrix::post_result try_post(veltrix::task work) {
    const lock_guard<mutex> lock(guard);
    kept.push_back(std::move(work));
    return {};
  }
  /// Runs the oldest. Result: whether there was one.
  bool run_one() {
    veltrix::task work;
    {
      const lock_guard<mutex> lock(guard);
      if (kept.empty()) return false;
      work = std::move(kept.front());
      kept.pop_front();
    }
    work();
    return true;
  }
};
using lanes = veltrix::keyed_executor<int, shelf&>;

/// A run goes on as long as it finds work: the coarse clock is not the execution's.
constexpr veltrix::keyed_options options{.max_items = 8,
                                         .max_bytes = veltrix::no_byte_limit,
                                         .lanes = 64,
                                         .run_budget = std::chrono::hours(1)};

/// What the handler of one lane saw. Two handlers at once would race for it.
struct lane_log {
  var<int> last = 0;
  var<int> count = 0;

  void handle(std::span<int> batch) {
    for (const int item : batch) {
      require(item > last, "in order");
      last = item;
      count = count + 1;
    }
  }
};

exploration to(int preemptions) {
  return {{.preemptions = preemptions}};
}

}  // namespace

TEST_CASE("keyed_executor model: no item is left behind in its lane") {
  const auto body = [] {
    shelf executor;
    lane_log log;
    lanes shared(executor, options, [&](std::size_t, std::span<int> batch) { log.handle(batch); });
    require(bool(shared.submit(7, 1)), "taken");
    together([&] { require(bool(shared.submit(7, 2)), "taken"); }, [&] { executor.run_one(); });
    while (executor.run_one()) {}
    require(log.count == 2, "both were handled");
  };
  check_exhausted("keyed_executor submit beside a run, bound 4", explore(to(4), body));
}

TEST_CASE("keyed_executor model: what comes in beside a batch waits for what was there before") {
  const auto body = [] {
    shelf executor;
    lane_log log;
    veltrix::keyed_options one_by_one = options;
    one_by_one.batch_max = 1;
    lanes shared(executor, one_by_one,
                 [&](std::size_t, std::span<int> batch) { log.handle(batch); });
    require(bool(shared.submit(7, 1)) && bool(shared.submit(7, 2)), "taken");
    together([&] { require(bool(shared.submit(7, 3)), "taken"); }, [&] { executor.run_one(); });
    while (executor.run_one()) {}
    require(log.count == 3, "all were handled");
  };
  check_exhausted("keyed_executor batch by batch, bound 3", explore(to(3), body));
}

TEST_CASE("keyed_executor model: two runs never handle one lane at once") {
  const auto body = [] {
    shelf executor;
    lane_log one, other;
    lanes shared(executor, options, [&](std::size_t lane, std::span<int> batch) {
      (lane == shared.lane_of(1) ? one : other).handle(batch);
    });
    std::uint64_t apart = 2;
    while (shared.lane_of(apart) == shared.lane_of(1))
      ++apart;
    require(bool(shared.submit(1, 1)) && bool(shared.submit(apart, 1)), "taken");
    together(
        [&] {
          executor.run_one();
          require(bool(shared.submit(1, 2)), "taken");
        },
        [&] { executor.run_one(); });
    while (executor.run_one()) {}
    require(one.count == 2 && other.count == 1, "all were handled");
  };
  check_exhausted("keyed_executor two runs, bound 3", explore(to(3), body));
}

TEST_CASE("keyed_executor model: a wait for the end outlasts the handler at work") {
  const auto body = [] {
    shelf executor;
    var<int> handled = 0;
    lanes shared(executor, options, [&](std::size_t, std::span<int>) { handled = 1; });
    require(bool(shared.submit(7, 1)), "taken");
    together([&] { executor.run_one(); },
             [&] {
               const veltrix::drain_result idle = shared.wait_idle();
               require(bool(idle) && idle.in_flight == 0, "nothing is in flight");
               require(handled == 1, "the handler has returned");
             });
  };
  check_exhausted("keyed_executor wait_idle, bound 4", explore(to(4), body));
}

TEST_CASE("keyed_executor model: its end waits for the run at work") {
  const auto body = [] {
    shelf executor;
    std::optional<lanes> shared;
    auto* const handled = new var<int>(0);
    shared.emplace(executor, options, [handled](std::size_t, std::span<int>) { *handled = 1; });
    require(bool(shared->submit(7, 1)), "taken");
    together([&] { executor.run_one(); },
             [&] {
               shared.reset();
               require(*handled == 1, "what was accepted was handled");
               delete handled;
             });
  };
  check_exhausted("keyed_executor end beside a run, bound 4", explore(to(4), body));
}

TEST_CASE("keyed_executor model: a handler that throws ends its batch and no more") {
  const auto body = [] {
    shelf executor;
    lane_log log;
    var<int> failed = 0;
    lanes shared(
        executor, options,
        [&](std::size_t, std::span<int> batch) {
          log.handle(batch);
          if (batch.front() == 1) throw std::runtime_error("a handler");
        },
        [&](std::size_t, std::span<int> batch, std::exception_ptr) {
          failed = failed + static_cast<int>(batch.size());
        });
    require(bool(shared.submit(7, 1)), "taken");
    together([&] { require(bool(shared.submit(7, 2)), "taken"); }, [&] { executor.run_one(); });
    while (executor.run_one()) {}
    const veltrix::keyed_stats told = shared.stats();
    require(log.count == 2 && told.in_flight.items == 0, "each was handled once, its room is back");
    require(failed == static_cast<int>(told.failed) && told.failed + told.handled == 2,
            "the batch that failed is told and counted");
  };
  check_exhausted("keyed_executor handler throws, bound 4", explore(to(4), body));
}

TEST_CASE("keyed_executor model: whoever waits for room gets it or nothing, though time is short") {
  const auto body = [] {
    shelf executor;
    var<int> handled = 0;
    veltrix::keyed_options narrow = options;
    narrow.max_items = 1;
    lanes shared(executor, narrow, [&](std::size_t, std::span<int> batch) {
      handled = handled + static_cast<int>(batch.size());
    });
    require(bool(shared.submit(7, 1)), "taken");
    const veltrix::wait_options soon{.deadline =
                                         veltrix::steady_clock::now() + std::chrono::seconds(1)};
    bool taken = false;
    together([&] { taken = bool(shared.submit_wait(7, 2, soon)); }, [&] { executor.run_one(); });
    while (executor.run_one()) {}
    require(handled == (taken ? 2 : 1), "handled if it was taken");
    require(shared.stats().waiting == 0 && shared.stats().in_flight.items == 0, "nobody is left");
  };
  check_exhausted("keyed_executor submit_wait deadline, bound 3",
                  explore({{.preemptions = 3, .early_timeouts = 1}}, body));
}
