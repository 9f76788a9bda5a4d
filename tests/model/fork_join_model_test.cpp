// fork_join explored: who waits for a group runs what nobody has begun, whenever it was added.
// SPDX-License-Identifier: BSL-1.0
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>

#include "model/support.hpp"
#include "veltrix/detail/fork_join.hpp"

namespace {

using namespace veltrix_model;
using veltrix::detail::failure_sink;
using veltrix::detail::group_item;
using veltrix::detail::group_state;
using veltrix::detail::task;

const auto nothing_back = [](const group_item&) { return false; };

}  // namespace

TEST_CASE("fork_join model: a task added by a running one is run, though all others wait") {
  check_exhausted("fork_join add while it waits", explore({}, [] {
                    failure_sink sink([](std::exception_ptr) { require(false, "nothing throws"); });
                    group_state group(sink);
                    var<bool> outer = false, inner = false;
                    group_item* const entry = group.add(task([&] {
                      group_item::leave(group.add(task([&] { inner = true; })));
                      outer = true;
                    }));
                    // The waiter may sleep, every task being begun; the worker takes one, no more.
                    together(
                        [&] {
                          require(!group.wait(nothing_back), "nothing was thrown");
                          require(outer && inner, "both ran before the wait returned");
                        },
                        [&] { group_state::run_entry(entry); });
                  }));
}

TEST_CASE("fork_join model: a late entry finds nothing, though its group is gone") {
  check_exhausted("fork_join late entries", explore({}, [] {
                    failure_sink sink([](std::exception_ptr) { require(false, "nothing throws"); });
                    std::optional<group_state> group(sink);
                    var<int> one = 0, two = 0;
                    group_item* const first = group->add(task([&] { one = one + 1; }));
                    group_item* const second = group->add(task([&] { two = two + 1; }));
                    together(
                        [&] {
                          require(!group->wait(nothing_back), "nothing was thrown");
                          require(one == 1 && two == 1, "each ran once");
                          group.reset();
                        },
                        [&] {
                          group_state::run_entry(second);
                          group_state::run_entry(first);
                        });
                  }));
}

TEST_CASE("fork_join model: a ticket spent elsewhere lets the group end") {
  check_exhausted("fork_join ticket", explore({}, [] {
                    failure_sink sink([](std::exception_ptr) { require(false, "nothing throws"); });
                    std::optional<group_state> group(sink);
                    group_state::ticket last = group->make_ticket();
                    var<bool> spent = false;
                    together(
                        [&] {
                          require(!group->wait(nothing_back), "nothing was thrown");
                          require(spent, "it was spent before the wait returned");
                          group.reset();
                        },
                        [&] {
                          spent = true;
                          std::move(last).finish();
                        });
                  }));
}

TEST_CASE("fork_join model: the first exception is the waiter's, whoever ran the task") {
  check_exhausted("fork_join a task throws", explore({}, [] {
                    int reported = 0;
                    failure_sink sink([&](std::exception_ptr) { ++reported; });
                    group_state group(sink);
                    atomic<int> ran = 0;
                    const auto throws = [&] {
                      ran.fetch_add(1, std::memory_order_relaxed);
                      throw std::runtime_error("a task");
                    };
                    group_item::leave(group.add(task(throws)));
                    group_item* const entry = group.add(task(throws));
                    bool kept = false;
                    together(
                        [&] {
                          kept = group.wait(nothing_back) != nullptr;
                          require(group.settled(), "nothing was added since");
                        },
                        [&] { group_state::run_entry(entry); });
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
