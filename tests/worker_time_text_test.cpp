// SPDX-License-Identifier: BSL-1.0
#include "veltrix/worker/time_text.hpp"

#include <cstdint>
#include <ctime>
#include <string>

#include "support/catch.hpp"
#include "support/random.hpp"

using veltrix::format_time;
using veltrix::parse_time;

TEST_CASE("parse_time reads a UTC time to the microsecond") {
  CHECK(parse_time("1970-01-01T00:00:00Z") == 0);
  CHECK(parse_time("2015-07-29T17:41:44.747Z") == 1438191704747000);
  CHECK(parse_time("2015-07-29t17:41:44,7Z") == 1438191704700000);
  CHECK(parse_time("2015-07-29 17:41:44.123456789z") == 1438191704123456);
  CHECK(parse_time("1969-12-31T23:59:59.999999Z") == -1);
}

TEST_CASE("parse_time moves a zone to UTC") {
  CHECK(parse_time("2015-07-29T19:41:44+02:00") == parse_time("2015-07-29T17:41:44Z"));
  CHECK(parse_time("2015-07-29T10:11:44-0730") == parse_time("2015-07-29T17:41:44Z"));
}

TEST_CASE("parse_time refuses what is no time of the calendar") {
  for (const char* text : {"",
                           "2015",
                           "2015-07-29",
                           "2015-07-29T17:41:44",
                           "2015-02-29T00:00:00Z",
                           "1900-02-29T00:00:00Z",
                           "2015-13-01T00:00:00Z",
                           "2015-00-01T00:00:00Z",
                           "2015-07-00T00:00:00Z",
                           "2015-07-32T00:00:00Z",
                           "2015-07-29T24:00:00Z",
                           "2015-07-29T17:60:00Z",
                           "2015-07-29T17:41:60Z",
                           "2015-07-29T17:41:44.Z",
                           "2015-07-29T17:41:44.1234567890Z",
                           "2015-07-29T17:41:44Z ",
                           "2015-07-29T17:41:44+24:00",
                           "2015-07-29T17:41:44+02:60",
                           "2015/07/29T17:41:44Z",
                           "2015-7-29T17:41:44Z",
                           "+015-07-29T17:41:44Z",
                           "2015-07-29X17:41:44Z"}) {
    INFO(text);
    CHECK_FALSE(parse_time(text).has_value());
  }
  CHECK(parse_time("2000-02-29T00:00:00Z").has_value());
  CHECK(parse_time("2016-02-29T00:00:00Z").has_value());
}

TEST_CASE("format_time writes what parse_time reads back, and what the C library says") {
  const std::uint64_t seed = 20250101;
  INFO("seed " << seed);
  veltrix_test::random_source random(seed);
  for (int round = 0; round < 20000; ++round) {
    const auto seconds = static_cast<std::int64_t>(random.below(253402300800));  // to year 9999
    const auto micros = static_cast<std::int64_t>(random.below(3) == 0 ? 0 : random.below(1000000));
    const std::string text = format_time(seconds * 1'000'000 + micros);
    REQUIRE(parse_time(text) == seconds * 1'000'000 + micros);
    const std::time_t moment = seconds;
    std::tm broken{};
    ::gmtime_r(&moment, &broken);
    char expected[32];
    std::strftime(expected, sizeof expected, "%Y-%m-%dT%H:%M:%S", &broken);
    REQUIRE(text.substr(0, 19) == expected);
  }
  CHECK(format_time(-1) == "1969-12-31T23:59:59.999999Z");
  CHECK(format_time(1438191704747000) == "2015-07-29T17:41:44.747Z");
}
