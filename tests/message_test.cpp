// The one form of error texts.
// SPDX-License-Identifier: BSL-1.0
#include "veltrix/detail/message.hpp"

#include <cstdint>

#include "support/catch.hpp"

using veltrix::detail::describe;
using veltrix::detail::text_of;

TEST_CASE("describe says where, what, got, allowed, what stays and what next, in this order") {
  CHECK(describe({.where = "elastic_pool::elastic_pool",
                  .what = "threads",
                  .got = "0",
                  .allowed = "1 to 4096",
                  .stays = "no pool was built",
                  .next = "pass the number of workers you want"}) ==
        "veltrix: elastic_pool::elastic_pool: threads: got 0, allowed 1 to 4096; no pool was "
        "built; pass the number of workers you want");
}

TEST_CASE("describe leaves out a next step that is not given") {
  CHECK(describe({.where = "a", .what = "b", .got = "c", .allowed = "d", .stays = "e"}) ==
        "veltrix: a: b: got c, allowed d; e");
}

TEST_CASE("text_of writes the whole range of a number") {
  CHECK(text_of(std::int64_t{-9'223'372'036'854'775'807}) == "-9223372036854775807");
  CHECK(text_of(~std::uint64_t{0}) == "18446744073709551615");
}
