// fork_join explored: who waits for a group runs what nobody has begun, whenever it was added.
// SPDX-License-Identifier: BSL-1.0
#include <cstdint>
#include <memory>
#include <stdexcept>

#include "model/support.hpp"
#include "veltrix/detail/fork_join.hpp"

namespace {

using namespace veltrix_model;
using veltrix::detail::failure_sink;
using veltrix::detail::group_state;
using veltrix::detail::task;

std::shared_ptr<group_state> new_group() {
  return std::make_shared<group_state>(
      std::make_shared<failure_sink>([](std::exception_ptr) { require(false, "nothing throws"); }));
}

}  // namespace

TEST_CASE("fork_join model: a task added by a running one is run, though all others wait") {
  check_exhausted("fork_join add while it waits", explore({}, [] {
                    const auto group = new_group();
                    var<bool> outer = false, inner = false;
                    group->add(task([&] {
                      group->add(task([&] { inner = true; }));
                      outer = true;
                    }));
                    // The waiter may sleep, every task being begun; the worker takes one, no more.
                    together(
                        [&] {
                          group->wait();
                          require(outer && inner, "both ran before the wait returned");
                        },
                        [&] { group->run_one(); });
                  }));
}

TEST_CASE("fork_join model: the first exception is the waiter's, whoever ran the task") {
  check_exhausted("fork_join a task throws", explore({}, [] {
                    int reported = 0;
                    const auto group = std::make_shared<group_state>(
                        std::make_shared<failure_sink>([&](std::exception_ptr) { ++reported; }));
                    atomic<int> ran = 0;
                    const auto throws = [&] {
                      ran.fetch_add(1, std::memory_order_relaxed);
                      throw std::runtime_error("a task");
                    };
                    group->add(task(throws));
                    group->add(task(throws));
                    bool kept = false;
                    together(
                        [&] {
                          group->wait();
                          kept = group->take_failure() != nullptr;
                        },
                        [&] { group->run_one(); });
                    require(ran.load(std::memory_order_relaxed) == 2, "each ran once");
                    require(kept && reported == 1, "one is kept, the other told");
                  }));
}

TEST_CASE("fork_join model: a range is done when the wait returns, whoever helped") {
  check_exhausted("fork_join range", explore({{.preemptions = 3}}, [] {
                    var<int> done[3];
                    const auto body = [&](std::uint64_t at) { done[at] = 1; };
                    veltrix::detail::range_state state(
                        body, veltrix::detail::range_cut::of(3, 1, 2),
                        std::make_shared<failure_sink>(veltrix::detail::exception_handler()));
                    together(
                        [&] {
                          state.help();
                          state.wait();
                          for (const var<int>& each : done)
                            require(each == 1, "each index was done");
                        },
                        [&] { state.help(); });
                  }));
}
