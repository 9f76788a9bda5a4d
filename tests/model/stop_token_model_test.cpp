// The library's own stop_token explored: a callback runs once or not at all, and never after its
// removal returned. Models always use it; elsewhere the standard's is used where there is one.
// SPDX-License-Identifier: BSL-1.0
#include "model/support.hpp"
#include "veltrix/clock.hpp"
#include "veltrix/stop_token.hpp"

namespace {

using namespace veltrix_model;

}  // namespace

TEST_CASE("stop_token model: a callback runs once or not at all, and never after its end") {
  check_exhausted("stop_token callback/request", explore({}, [] {
                    veltrix::stop_source source;
                    auto* const calls = new var<int>(0);
                    together([&] { source.request_stop(); },
                             [&] {
                               {
                                 const auto count = [calls] { *calls = *calls + 1; };
                                 const veltrix::stop_callback<decltype(count)> callback(
                                     source.get_token(), count);
                               }
                               require(*calls <= 1, "at most once");
                               delete calls;
                             });
                  }));
}

TEST_CASE("stop_token model: one of two requests is the first, and publishes") {
  check_exhausted("stop_token two requests", explore({{.stale_reads = 2}}, [] {
                    veltrix::stop_source source;
                    bool left = false, right = false;
                    together([&] { left = source.request_stop(); },
                             [&] { right = source.request_stop(); });
                    require(left != right, "one of them is the first");
                  }));
  check_exhausted("stop_token publishes", explore({{.stale_reads = 2}}, [] {
                    veltrix::stop_source source;
                    var<int> before = 0;
                    const auto token = source.get_token();
                    together(
                        [&] {
                          before = 1;
                          source.request_stop();
                        },
                        [&] {
                          if (token.stop_requested())
                            require(before == 1, "what came before the request is seen");
                        });
                  }));
}

TEST_CASE("stop_token model: a sleeper on the steady clock is woken by a stop, or by the time") {
  check_exhausted(
      "steady_clock sleep", explore({{.preemptions = 3, .early_timeouts = 1}}, [] {
        veltrix::stop_source source;
        const auto until = veltrix::steady_clock::now() + std::chrono::hours(1);
        together(
            [&] {
              const bool reached = veltrix::steady_clock::sleep_until(until, source.get_token());
              require(reached == (veltrix::steady_clock::now() >= until), "it says what happened");
            },
            [&] { source.request_stop(); });
      }));
}

TEST_CASE("stop_token model: stop_requested() needs nobody else, whoever stops for ever") {
  exploration freezing{{.stale_reads = 1}};
  freezing.may_freeze = only(1);
  check_exhausted("stop_token asked, requester stopped", explore(freezing, [] {
                    veltrix::stop_source source;
                    const auto token = source.get_token();
                    together([&] { source.request_stop(); },
                             [&] { static_cast<void>(token.stop_requested()); });
                  }));
}
