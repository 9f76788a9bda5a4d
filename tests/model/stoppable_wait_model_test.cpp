// wait_until() explored: its answer is its predicate's last value, whatever ends the wait.
// SPDX-License-Identifier: BSL-1.0
#include <chrono>

#include "model/support.hpp"
#include "veltrix/clock.hpp"
#include "veltrix/detail/stoppable_wait.hpp"

namespace {

using namespace veltrix_model;

/// A number to wait for, guarded by `guard`.
struct waiting_room {
  mutex guard;
  condition_variable changed;
  var<int> value = 0;

  void add(int by) {
    {
      const lock_guard<mutex> lock(guard);
      value = value + by;
    }
    changed.notify_all();
  }
  /// Waits for 1 and takes it away. Result: whether it was there.
  bool take(veltrix::time_point deadline, const veltrix::stop_token& token) {
    unique_lock<mutex> lock(guard);
    const bool there = veltrix::detail::wait_until(lock, changed, deadline, token,
                                                   [&] { return value.read() == 1; });
    require(there == (value.read() == 1), "the answer is the last look's");
    if (there) value = 0;
    return there;
  }
};

veltrix::time_point in_an_hour() {
  return veltrix::steady_clock::now() + std::chrono::hours(1);
}

}  // namespace

TEST_CASE("stoppable_wait model: a deadline that passes beside the change loses nothing") {
  const exploration wanted{{.early_timeouts = 1, .spurious_wakeups = 1}};
  check_exhausted("stoppable_wait deadline", explore(wanted, [] {
                    waiting_room room;
                    const veltrix::time_point deadline = in_an_hour();
                    bool taken = false;
                    together(
                        [&] {
                          taken = room.take(deadline, {});
                          require(taken || veltrix::steady_clock::now() >= deadline,
                                  "false only after the deadline");
                        },
                        [&] { room.add(1); });
                    require(room.value == (taken ? 0 : 1), "taken or there");
                  }));
}

TEST_CASE("stoppable_wait model: a stop and a change that meet lose nothing") {
  check_exhausted("stoppable_wait stop", explore({{.preemptions = 4, .spurious_wakeups = 1}}, [] {
                    waiting_room room;
                    veltrix::stop_source stop;
                    bool taken = false;
                    together(
                        [&] {
                          taken = room.take(veltrix::no_deadline, stop.get_token());
                          require(taken || stop.stop_requested(), "false only after the stop");
                        },
                        [&] { room.add(1); }, [&] { stop.request_stop(); });
                    require(room.value == (taken ? 0 : 1), "taken or there");
                  }));
}

TEST_CASE("stoppable_wait model: two waiters of one change, and one deadline that passes early") {
  const exploration wanted{{.preemptions = 3, .early_timeouts = 2}};
  check_exhausted("stoppable_wait two waiters", explore(wanted, [] {
                    waiting_room room;
                    const veltrix::time_point deadline = in_an_hour();
                    bool first = false, second = false;
                    together([&] { first = room.take(deadline, {}); },
                             [&] { second = room.take(deadline, {}); }, [&] { room.add(1); });
                    require(!(first && second), "one change, one taker");
                    require(room.value == (first || second ? 0 : 1), "taken or there");
                  }));
}
