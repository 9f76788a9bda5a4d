// stop_token under threads. Each test names its invariant.
// SPDX-License-Identifier: BSL-1.0
#include "veltrix/stop_token.hpp"

#include "support/catch.hpp"
#include "support/stop_token_cases.hpp"

TEST_CASE("stop_token waits with a callback's end for its run") {
  stop_token_cases::end_waits_for_the_running_callback();
}

TEST_CASE("stop_token runs a callback at most once, whoever registers and requests") {
  stop_token_cases::callbacks_run_at_most_once_under_races();
}

TEST_CASE("stop_token shows who sees the request all that came before it") {
  stop_token_cases::request_publishes_what_came_before();
}
