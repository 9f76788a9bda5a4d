// retry on an executor explored: its completion runs once, whatever timer, stop and executor do.
// SPDX-License-Identifier: BSL-1.0
#include <chrono>
#include <stdexcept>
#include <utility>

#include "model/support.hpp"
#include "veltrix/retry.hpp"

namespace {

using namespace veltrix_model;
using veltrix::stop_reason;
using veltrix::time_point;

/// One timer at a time, which any thread may bring to its end: the time is always right.
struct loose_timer {
  mutex guard;
  veltrix::task kept;

  [[nodiscard]] time_point now() const { return veltrix::steady_clock::now(); }
  void call_at(time_point, veltrix::task callback) {
    const lock_guard<mutex> lock(guard);
    kept = std::move(callback);
  }
  [[nodiscard]] veltrix::task take() {
    const lock_guard<mutex> lock(guard);
    return std::move(kept);
  }
  /// Runs it, if there is one.
  void fire() {
    if (veltrix::task due = take()) due();
  }
};

/// What became of a call. A second completion would be seen.
struct ending {
  var<int> completions = 0;
  var<stop_reason> reason = stop_reason::success;

  auto keeps() {
    return [this](const veltrix::outcome<bool>& told) {
      completions = completions + 1;
      reason = told.reason();
    };
  }
};

/// Two attempts, a second apart, in the thread that has the turn.
template <class Function>
void call(loose_timer& timer, const veltrix::stop_token& token, Function function, ending& end) {
  static veltrix::inline_executor here;
  (veltrix::deadline{std::chrono::hours(1)} |
   veltrix::retry{.attempts = 2, .delay = veltrix::constant{std::chrono::seconds(1)}})
      .run_on(here, veltrix::env(timer, token, veltrix::small_random(1)), std::move(function),
              end.keeps());
}

}  // namespace

TEST_CASE("retry_async model: a timer that fires while it is armed brings the call on") {
  check_exhausted("retry_async timer", explore({}, [] {
                    loose_timer timer;
                    ending end;
                    int attempts = 0;
                    together([&] { call(timer, {}, [&] { return ++attempts == 2; }, end); },
                             [&] { timer.fire(); });
                    timer.fire();
                    require(end.completions == 1, "the call ended, once");
                    require(attempts == 2 && end.reason == stop_reason::success, "as it should");
                  }));
}

TEST_CASE("retry_async model: a timer and a stop that meet end the call once") {
  check_exhausted(
      "retry_async timer/stop", explore({{.preemptions = 3}}, [] {
        loose_timer timer;
        veltrix::stop_source stop;
        ending end;
        int attempts = 0;
        together([&] { call(timer, stop.get_token(), [&] { return ++attempts == 2; }, end); },
                 [&] { timer.fire(); }, [&] { stop.request_stop(); });
        timer.fire();
        require(end.completions == 1, "the call ended, once");
        require((end.reason == stop_reason::success) == (attempts == 2),
                "it succeeded or was stopped");
      }));
}

TEST_CASE("retry_async model: a timer destroyed unrun ends the call, whenever that is") {
  check_exhausted("retry_async timer dropped", explore({}, [] {
                    loose_timer timer;
                    ending end;
                    together([&] { call(timer, {}, [] { return false; }, end); },
                             [&] { static_cast<void>(timer.take()); });
                    static_cast<void>(timer.take());
                    require(end.completions == 1 && end.reason == stop_reason::not_run, "told");
                  }));
}

TEST_CASE("retry_async model: a second attempt that throws beside a stop ends the call once") {
  check_exhausted("retry_async throws beside a stop", explore({{.preemptions = 3}}, [] {
                    loose_timer timer;
                    veltrix::stop_source stop;
                    ending end;
                    int attempts = 0;
                    const auto attempt = [&] {
                      if (++attempts == 2) throw std::runtime_error("an attempt");
                      return false;
                    };
                    together([&] { call(timer, stop.get_token(), attempt, end); },
                             [&] { timer.fire(); }, [&] { stop.request_stop(); });
                    timer.fire();
                    require(end.completions == 1, "the call ended, once");
                    require((end.reason == stop_reason::threw) == (attempts == 2),
                            "by the exception or by the stop");
                  }));
}
