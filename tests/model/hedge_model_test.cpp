// The race of two copies explored: it completes once, whoever ends first, whatever is refused, and
// wherever a stop comes.
// SPDX-License-Identifier: BSL-1.0
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include "model/support.hpp"
#include "veltrix/hedge.hpp"
#include "veltrix/retry.hpp"

namespace {

using namespace veltrix_model;
using namespace std::chrono_literals;

/// Keeps what was posted, for the threads of the model to run.
struct two_slots {
  veltrix::post_result try_post(veltrix::task work) {
    if (taken == room) return {veltrix::post_status::full, "no room"};
    slots[taken++] = std::move(work);
    return {};
  }
  int room = 2;
  int taken = 0;
  veltrix::task slots[2];
};

void race(bool first_succeeds, bool second_succeeds, bool with_stop) {
  veltrix::virtual_clock clock;
  veltrix::hedging shared({.first_delay = 1ms});
  two_slots where;
  veltrix::stop_source stop;
  atomic<int> ended = 0;
  atomic<std::uint32_t> won = 0;
  shared.run_on(
      where, clock, stop.get_token(),
      [&](const veltrix::hedged_copy& copy) {
        return copy.index == 1 ? first_succeeds : second_succeeds;
      },
      [&](const veltrix::hedged_answer<bool>& told) {
        ended.fetch_add(1, std::memory_order_relaxed);
        won.store(told.won, std::memory_order_relaxed);
      });
  clock.advance(1ms);
  require(where.taken == 2, "the second copy is with the executor");
  const auto end_first = [&] { where.slots[0](); };
  const auto end_second = [&] { where.slots[1](); };
  if (with_stop) {
    together(end_first, end_second, [&] { stop.request_stop(); });
  } else {
    together(end_first, end_second);
  }
  require(ended.load(std::memory_order_relaxed) == 1, "it completes once");
  const bool any = first_succeeds || second_succeeds;
  require((won.load(std::memory_order_relaxed) != 0) == any, "a success wins");
}

}  // namespace

TEST_CASE("hedge model: a race of two copies completes once, with a success if there is one") {
  check_exhausted("hedge both succeed",
                  explore({{.preemptions = 4}}, [] { race(true, true, false); }));
  check_exhausted("hedge first fails",
                  explore({{.preemptions = 4}}, [] { race(false, true, false); }));
  check_exhausted("hedge both fail",
                  explore({{.preemptions = 4}}, [] { race(false, false, false); }));
  check_exhausted("hedge beside a stop",
                  explore({{.preemptions = 2}}, [] { race(true, true, true); }));
}

TEST_CASE("hedge model: the alarm may come while the first copy ends") {
  check_exhausted("hedge alarm beside the end", explore({{.preemptions = 3}}, [] {
                    veltrix::virtual_clock clock;
                    veltrix::hedging shared({.first_delay = 1ms});
                    two_slots where;
                    where.room = 1;  // the second copy is refused
                    atomic<int> ended = 0;
                    shared.run_on(
                        where, clock, {}, [](const veltrix::hedged_copy&) { return false; },
                        [&](const veltrix::hedged_answer<bool>&) {
                          ended.fetch_add(1, std::memory_order_relaxed);
                        });
                    together([&] { clock.advance(1ms); }, [&] { where.slots[0](); });
                    require(ended.load(std::memory_order_relaxed) == 1, "it completes once");
                  }));
}

TEST_CASE("hedge model: a first copy counts before a second can end") {
  check_exhausted("hedge alarm beside the start", explore({}, [] {
                    veltrix::virtual_clock clock;
                    veltrix::hedging shared({.first_delay = 1ms});
                    veltrix::inline_executor here;
                    int ended = 0;
                    std::uint32_t won = 0;
                    together(
                        [&] {
                          shared.run_on(
                              here, clock, {},
                              [&](const veltrix::hedged_copy& copy) { return copy.index == 1; },
                              [&](const veltrix::hedged_answer<bool>& told) {
                                ++ended;
                                won = told.won;
                              });
                        },
                        [&] { clock.advance(1ms); });
                    require(ended == 1, "it completes once");
                    require(won == 1, "the first copy was made, and succeeded");
                  }));
}

namespace {

/// The layer, with its race kept to the end: the explorer does not see what a shared_ptr orders.
struct keeping_hedge {
  static constexpr auto layer = veltrix::detail::layer_kind::hedge;
  template <class Judge, class Function, class Handler>
  auto prepare(Judge judge, Function function, Handler done) const {
    auto race = own.prepare(std::move(judge), std::move(function), std::move(done));
    *kept = race;
    return race;
  }
  veltrix::hedge<two_slots, veltrix::virtual_clock> own;
  std::shared_ptr<void>* kept;
};

/// A call under a policy with hedge: its attempt beside the alarm, the second copy and a stop.
void call_under_a_policy(bool first_succeeds, bool with_stop) {
  veltrix::virtual_clock clock;
  veltrix::hedging shared({.first_delay = 1ms});
  two_slots calls;
  two_slots copies;
  veltrix::stop_source stop;
  atomic<int> ended = 0;
  atomic<int> good = 0;
  std::shared_ptr<void> kept;
  const auto policy = veltrix::deadline{1h} | veltrix::retry{.attempts = 1} |
                      keeping_hedge{veltrix::hedge(shared, copies, clock), &kept};
  policy.run_on(
      calls, veltrix::env(clock, stop.get_token(), veltrix::small_random(1)),
      [&](veltrix::attempt& each) { return each.copy() == 2 || first_succeeds; },
      [&](const veltrix::outcome<bool>& told) {
        ended.fetch_add(1, std::memory_order_relaxed);
        if (told) good.fetch_add(1, std::memory_order_relaxed);
      });
  const auto attempt = [&] { calls.slots[0](); };
  const auto alarm = [&] {
    clock.advance(1ms);
    if (copies.taken == 1) copies.slots[0]();
  };
  if (with_stop) {
    together(attempt, alarm, [&] { stop.request_stop(); });
  } else {
    together(attempt, alarm);
  }
  require(ended.load(std::memory_order_relaxed) == 1, "it completes once");
  if (first_succeeds && !with_stop) require(good.load(std::memory_order_relaxed) == 1, "and well");
}

}  // namespace

TEST_CASE("hedge model: a call under a policy completes once, whichever copy ends last") {
  check_exhausted("hedge layer both succeed",
                  explore({{.preemptions = 3}}, [] { call_under_a_policy(true, false); }));
  check_exhausted("hedge layer first fails",
                  explore({{.preemptions = 3}}, [] { call_under_a_policy(false, false); }));
  check_exhausted("hedge layer beside a stop",
                  explore({{.preemptions = 2}}, [] { call_under_a_policy(true, true); }));
}
