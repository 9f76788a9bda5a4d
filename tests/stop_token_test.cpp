// stop_token, the library's or the standard's, as users get it.
// SPDX-License-Identifier: BSL-1.0
#include "veltrix/stop_token.hpp"

#include "support/catch.hpp"
#include "support/stop_token_cases.hpp"

TEST_CASE("stop_token makes one request that all its tokens see") {
  stop_token_cases::one_request_is_seen_by_all();
}

TEST_CASE("stop_token can stop until the last source is gone") {
  stop_token_cases::possible_ends_with_the_last_source();
}

TEST_CASE("stop_token runs each callback once, in the requesting thread") {
  stop_token_cases::callbacks_run_once_in_the_requesting_thread();
}

TEST_CASE("stop_token runs a late callback in its constructor") {
  stop_token_cases::late_callback_runs_in_its_constructor();
}

TEST_CASE("stop_token does not run an ended callback") {
  stop_token_cases::ended_callback_does_not_run();
}

TEST_CASE("stop_token runs no callback that ended beside an ended one") {
  stop_token_cases::neighbours_of_an_ended_callback_end_as_well();
}

TEST_CASE("stop_token lets a callback end itself and others") {
  stop_token_cases::callback_may_end_itself_and_others();
}

TEST_CASE("stop_token outlives a callback that ends all sources and callbacks") {
  stop_token_cases::callback_may_end_all_that_shares_the_state();
}

TEST_CASE("stop_token lets a callback register another") {
  stop_token_cases::callback_may_register_another();
}
