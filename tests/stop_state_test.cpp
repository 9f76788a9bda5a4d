// The library's own stop_token, also where the standard has one.
// SPDX-License-Identifier: BSL-1.0
#include "veltrix/detail/stop_state.hpp"

#include "support/catch.hpp"

// What stop_token.hpp does where the standard has no stop_token; it is not included here.
namespace veltrix {
using detail::own_stop::stop_callback;
using detail::own_stop::stop_source;
using detail::own_stop::stop_token;
}  // namespace veltrix

#include "support/stop_token_cases.hpp"

TEST_CASE("stop_state makes one request that all its tokens see") {
  stop_token_cases::one_request_is_seen_by_all();
}

TEST_CASE("stop_state can stop until the last source is gone") {
  stop_token_cases::possible_ends_with_the_last_source();
}

TEST_CASE("stop_state ends the source that an assignment overwrites") {
  stop_token_cases::assignment_ends_the_source_overwritten();
}

TEST_CASE("stop_state runs each callback once, in the requesting thread") {
  stop_token_cases::callbacks_run_once_in_the_requesting_thread();
}

TEST_CASE("stop_state runs a late callback in its constructor") {
  stop_token_cases::late_callback_runs_in_its_constructor();
}

TEST_CASE("stop_state does not run an ended callback") {
  stop_token_cases::ended_callback_does_not_run();
}

TEST_CASE("stop_state runs no callback that ended beside an ended one") {
  stop_token_cases::neighbours_of_an_ended_callback_end_as_well();
}

TEST_CASE("stop_state lets a callback end itself and others") {
  stop_token_cases::callback_may_end_itself_and_others();
}

TEST_CASE("stop_state outlives a callback that ends all sources and callbacks") {
  stop_token_cases::callback_may_end_all_that_shares_the_state();
}

TEST_CASE("stop_state lets a callback register another") {
  stop_token_cases::callback_may_register_another();
}

TEST_CASE("stop_state waits with a callback's end for its run") {
  stop_token_cases::end_waits_for_the_running_callback();
}

TEST_CASE("stop_state runs a callback at most once, whoever registers and requests") {
  stop_token_cases::callbacks_run_at_most_once_under_races();
}

TEST_CASE("stop_state shows who sees the request all that came before it") {
  stop_token_cases::request_publishes_what_came_before();
}
