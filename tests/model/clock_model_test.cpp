// virtual_clock and timer_queue explored: a jump wakes whoever it passes, and each timer runs once
// or is destroyed, whenever the queue ends.
// SPDX-License-Identifier: BSL-1.0
#include <chrono>
#include <utility>

#include "model/support.hpp"
#include "veltrix/clock.hpp"
#include "veltrix/detail/timer_queue.hpp"
#include "veltrix/retry.hpp"

namespace {

using namespace veltrix_model;
using namespace std::chrono_literals;
using veltrix::time_point;
using veltrix::virtual_clock;

exploration to(int preemptions) {
  return {{.preemptions = preemptions}};
}

int value_of(const atomic<int>& count) {
  return count.load(std::memory_order_relaxed);
}

/// Counts how often it was run; its end must come once.
struct counted {
  explicit counted(atomic<int>& runs, atomic<int>& ends) : runs_(&runs), ends_(&ends) {}
  counted(counted&& other) noexcept
      : runs_(other.runs_), ends_(std::exchange(other.ends_, nullptr)) {}
  ~counted() {
    if (ends_ != nullptr) ends_->fetch_add(1, std::memory_order_relaxed);
  }
  void operator()() { runs_->fetch_add(1, std::memory_order_relaxed); }

 private:
  atomic<int>* runs_;
  atomic<int>* ends_;  // null once moved from
};

}  // namespace

TEST_CASE("clock model: a jump wakes every sleeper whose time it passes") {
  check_exhausted("virtual_clock jump", explore(to(3), [] {
                    virtual_clock clock;
                    const time_point begin = clock.now();
                    const auto nap = [&](veltrix::duration span) {
                      require(clock.sleep_until(begin + span, {}), "nobody stops it");
                      require(clock.now() >= begin + span, "not before its time");
                    };
                    together([&] { nap(1s); }, [&] { nap(1h); }, [&] { clock.advance(2h); });
                  }));
}

TEST_CASE("clock model: two that advance at once move time by the larger step") {
  check_exhausted("virtual_clock two advance", explore(to(3), [] {
                    virtual_clock clock;
                    const time_point begin = clock.now();
                    atomic<int> runs = 0, ends = 0;
                    clock.call_at(begin + 1s, veltrix::detail::task(counted(runs, ends)));
                    together([&] { clock.advance_to(begin + 2s); },
                             [&] { clock.advance_to(begin + 1h); });
                    require(clock.now() == begin + 1h, "the larger one");
                    require(value_of(runs) == 1 && value_of(ends) == 1, "the timer ran once");
                  }));
}

TEST_CASE("clock model: a sleeper that a stop and a jump meet is woken") {
  check_exhausted("virtual_clock stop/jump", explore(to(3), [] {
                    virtual_clock clock;
                    veltrix::stop_source stop;
                    const time_point until = clock.now() + 1s;
                    together(
                        [&] {
                          const bool reached = clock.sleep_until(until, stop.get_token());
                          require(reached ? clock.now() >= until : stop.stop_requested(),
                                  "it says what happened");
                        },
                        [&] { stop.request_stop(); }, [&] { clock.advance(1h); });
                  }));
}

TEST_CASE("clock model: each timer of a queue runs or is destroyed, whenever the queue ends") {
  exploration hasty = to(2);
  hasty.early_timeouts = 2;
  check_exhausted("timer_queue end", explore(hasty, [] {
                    atomic<int> runs = 0, ends = 0;
                    {
                      veltrix::timer_queue timers;
                      const time_point soon = veltrix::steady_clock::now() + 1s;
                      timers.call_at(soon + 1s, veltrix::detail::task(counted(runs, ends)));
                      timers.call_at(soon, veltrix::detail::task(counted(runs, ends)));
                    }
                    require(value_of(ends) == 2 && value_of(runs) <= 2,
                            "each came to its end once");
                  }));
}

TEST_CASE("clock model: a retried call ends once, whenever its timers do") {
  exploration hasty = to(2);
  hasty.early_timeouts = 1;
  check_exhausted(
      "timer_queue ends under a call", explore(hasty, [] {
        veltrix::inline_executor here;
        atomic<int> completions = 0;
        atomic<int> attempts = 0;
        {
          veltrix::timer_queue timers;
          (veltrix::deadline{1h} | veltrix::retry{.attempts = 2, .delay = veltrix::constant{1s}})
              .run_on(
                  here, veltrix::env(timers, {}, veltrix::small_random(1)),
                  [&] { return attempts.fetch_add(1, std::memory_order_relaxed) == 1; },
                  [&](const veltrix::outcome<bool>& told) {
                    const int made = value_of(attempts);
                    require(bool(told) == (made == 2), "it says how it ended");
                    completions.fetch_add(1, std::memory_order_relaxed);
                  });
        }
        require(value_of(completions) == 1, "told, once");
      }));
}
