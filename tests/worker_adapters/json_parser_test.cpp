// SPDX-License-Identifier: BSL-1.0
#include "adapters/json_parser.hpp"

#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "support/catch.hpp"
#include "support/random.hpp"
#include "support/worker_parts.hpp"

using veltrix::event;
using veltrix::event_block;
using veltrix::event_schema;
using veltrix::fault_kind;
using veltrix_worker::json_parser;

namespace {

/// Parses one line after another, each in a block of its own.
class bench {
 public:
  explicit bench(const event_schema& schema = event_schema::built_in()) : parser(schema) {}

  fault_kind parse(std::string_view line) {
    block.clear();
    block.grow_text(line.size());
    std::memcpy(block.free_text().data(), line.data(), line.size());
    block.set_text_size(line.size());
    block.reserve_events(1);
    last = &block.next_event();
    return parser.parse(block, {0, static_cast<std::uint32_t>(line.size()), 3, 17}, *last);
  }

  json_parser parser;
  event_block block;
  event* last = nullptr;
};

constexpr std::string_view good =
    R"({"id":1,"ts":"2015-07-29T17:41:44.747Z","key":"a","seq":1,"more":[1,{"x":null}]})";

}  // namespace

TEST_CASE("json_parser reads an event without copying what needs no unescaping") {
  bench one;
  REQUIRE(one.parse(good) == fault_kind::none);
  CHECK(one.last->id == "1");
  CHECK(one.last->key == "a");
  CHECK(one.last->sequence == 1);
  CHECK(one.last->number == 3);
  CHECK(one.last->offset == 17);
  CHECK(one.last->text == good);
  CHECK(one.last->key.data() >= one.block.text().data());
  CHECK(one.last->key.data() < one.block.text().data() + one.block.text().size());
}

TEST_CASE("json_parser unescapes keys and values into the block") {
  bench one;
  REQUIRE(one.parse(R"({"id":"\u00e9\n","\u0074s":"2015-07-29T17:41:44Z","key":"\ud83d\ude00\"",)"
                    R"("x\\y":"\t"})") == fault_kind::none);
  CHECK(one.last->id == "\xc3\xa9\n");
  CHECK(one.last->key == "\xf0\x9f\x98\x80\"");
  CHECK(one.last->has_time);
}

TEST_CASE("json_parser refuses what is not JSON to the last byte, also where nobody looks") {
  bench one;
  const std::string head = R"({"id":1,"ts":"2015-07-29T17:41:44Z","key":"a",)";
  for (const std::string& line : std::vector<std::string>{
           std::string(good) + " x",
           std::string(good) + "}",
           std::string(good) + ",",
           std::string(good) + std::string(good),
           std::string(good.substr(0, good.size() - 1)),
           "{",
           "x",
           "nul",
           "[1,2",
           "17 x",
           "{id:1}",
           R"({"id"})",
           R"({"id":})",
           R"({"id":1,,"a":2})",
           head + R"("x":1,})",
           head + R"("x":tru})",
           head + R"("x":[1,nul]})",
           head + R"("x":[1 2]})",
           head + R"("x":{"a":1 "b":2}})",
           head + R"("x":01})",
           head + R"("x":1.})",
           head + R"("x":.5})",
           head + R"("x":+1})",
           head + R"("x":1e})",
           head + R"("x":-})",
           head + R"("x":0x10})",
           head + R"("x":"\q"})",
           head + R"("x":"\ud800"})",
           head + R"("x\q":1})",
           head + R"("x":"unclosed})",
           head + R"("x":"a"b})",
           head + R"("x":"a":"b"})",
           head + R"("x":"a":"b"} })",
           head + R"("x":["a":1]})",
           head + R"("x":["a":1]]})",
           R"(["a":1])",
           "[1] ]",
           "[01]",
           "1e",
           head + "\"x\":\"\x01\"}",
           head + R"("x":')" + "a'}",
       }) {
    INFO(line);
    CHECK(one.parse(line) == fault_kind::syntax);
    CHECK_FALSE(one.parser.reason(fault_kind::syntax).empty());
  }
  CHECK(one.parse(std::string(300, '[')) != fault_kind::none);
  CHECK(one.parse(head + "\"x\":" + std::string(200, '[') + std::string(200, ']') + "}") ==
        fault_kind::syntax);
}

TEST_CASE("json_parser takes every form of number, and space between tokens") {
  bench one;
  CHECK(one.parse(R"( { "id" : 1 , "ts" : "2015-07-29T17:41:44Z" , "key" : "a" , "x" : )"
                  R"([ 0 , -0 , 1.5 , 1e9 , 1E+9 , -1.25e-3 , 123456789012345678901234567890 ] } )"
                  "\t\r") == fault_kind::none);
}

TEST_CASE("json_parser tells bad UTF-8, other JSON and broken rules apart") {
  bench one;
  const std::string time = R"("ts":"2015-07-29T17:41:44Z")";
  CHECK(one.parse("{\"id\":1," + time + ",\"key\":\"\xff\"}") == fault_kind::not_utf8);
  CHECK(one.parse("\xc3\x28") == fault_kind::not_utf8);
  for (const char* line : {"[1,2]", "17", "\"x\"", "null", "true", " [ ] ", "99999999999999999999",
                           " -1e999\r", "[18446744073709551616, 1e400]"}) {
    INFO(line);
    CHECK(one.parse(line) == fault_kind::not_an_object);
  }
  CHECK(one.parse("{}") == fault_kind::missing_field);
  CHECK(one.parse("{\"id\":1," + time + "}") == fault_kind::missing_field);
  CHECK(one.parse("{\"id\":1," + time + ",\"key\":7}") == fault_kind::wrong_type);
  CHECK(one.parse("{\"id\":1.5," + time + ",\"key\":\"a\"}") == fault_kind::wrong_type);
  CHECK(one.parse("{\"id\":99999999999999999999," + time + ",\"key\":\"a\"}") ==
        fault_kind::wrong_type);
  CHECK(one.parse("{\"id\":1," + time + ",\"key\":\"\"}") == fault_kind::bad_value);
  CHECK(one.parse("{\"id\":1," + time + ",\"key\":\"a\",\"key\":\"b\"}") ==
        fault_kind::duplicate_field);
}

TEST_CASE("json_parser tells a broken rule only of a line that is JSON") {
  bench one;
  CHECK(one.parse(R"({"key":7,"x":tru})") == fault_kind::syntax);
  CHECK(one.parse(R"({"key":7,"x":true})") == fault_kind::wrong_type);
}

TEST_CASE("json_parser refuses or reads each corrupted line, and reads a good one after it") {
  const std::uint64_t seed = 1234;
  INFO("seed " << seed);
  veltrix_test::random_source random(seed);
  bench one;
  for (int round = 0; round < 20'000; ++round) {
    std::string line(good);
    for (std::uint64_t change = 1 + random.below(3); change > 0; --change) {
      const auto at = static_cast<std::size_t>(random.below(line.size()));
      if (random.below(3) == 0) {
        line.erase(at, 1);
      } else {
        line[at] = static_cast<char>(random.below(256));
      }
    }
    const fault_kind kind = one.parse(line);
    if (kind == fault_kind::none) REQUIRE_FALSE(one.last->key.empty());
    REQUIRE(one.parse(good) == fault_kind::none);
    REQUIRE(one.last->key == "a");
  }
}

TEST_CASE("json_parser reads the journal's objects and any object with a key") {
  bench journal(event_schema::journal());
  REQUIRE(journal.parse(
              R"({"__CURSOR":"s=1","__REALTIME_TIMESTAMP":"1438191704747000","MESSAGE":[104,105],)"
              R"("_SYSTEMD_UNIT":"cron.service","PRIORITY":"6","_PID":"1"})") == fault_kind::none);
  CHECK(journal.last->key == "cron.service");
  bench any(event_schema::any("user", ""));
  REQUIRE(any.parse(R"({"user":42,"nested":{"deep":[true,false,null]}})") == fault_kind::none);
  CHECK(any.last->key == "42");
}

TEST_CASE("json_parser takes another schema when the configuration names one") {
  bench one;
  const std::string_view bare = R"({"user":"u"})";
  CHECK(one.parse(bare) == fault_kind::missing_field);
  one.parser.configure(veltrix_test::make_config({"events.schema=any", "events.key_field=user"}));
  CHECK(one.parse(bare) == fault_kind::none);
  one.parser.configure(veltrix_test::make_config({"events.schema=builtin"}));
  CHECK(one.parse(bare) == fault_kind::missing_field);
}
