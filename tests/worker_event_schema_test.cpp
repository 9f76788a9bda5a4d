// SPDX-License-Identifier: BSL-1.0
#include "veltrix/worker/event_schema.hpp"

#include <string>
#include <utility>
#include <vector>

#include "support/catch.hpp"

using veltrix::event;
using veltrix::event_checker;
using veltrix::event_schema;
using veltrix::fault_kind;
using veltrix::field_value;
using veltrix::json_type;

namespace {

using named = std::pair<std::string, field_value>;

field_value text(std::string_view value) {
  return {json_type::string, value};
}
field_value number(std::int64_t value) {
  return {json_type::integer, "17", value};
}

struct result {
  fault_kind kind = fault_kind::none;
  std::string reason;
};

result check(const event_schema& schema, const std::vector<named>& fields, event& into) {
  event_checker checker(schema);
  checker.begin();
  for (const auto& [name, value] : fields) {
    const std::size_t rule = checker.find(name);
    if (rule == event_checker::no_rule) continue;
    const fault_kind fault = checker.field(rule, value, into);
    if (fault != fault_kind::none) return {fault, checker.reason(fault)};
  }
  const fault_kind fault = checker.finish(into);
  return {fault, fault == fault_kind::none ? "" : checker.reason(fault)};
}

std::vector<named> good() {
  return {{"id", number(17)},   {"ts", text("2015-07-29T17:41:44.747Z")},
          {"key", text("a")},   {"seq", number(3)},
          {"kind", text("E1")}, {"level", text("INFO")}};
}

result check_changed(const std::string& name, const field_value& value) {
  std::vector<named> fields = good();
  for (named& field : fields) {
    if (field.first == name) field.second = value;
  }
  event into;
  return check(event_schema::built_in(), fields, into);
}

}  // namespace

TEST_CASE("event_schema built in puts the fields of an event into their places") {
  event into;
  CHECK(check(event_schema::built_in(), good(), into).kind == fault_kind::none);
  CHECK(into.id == "17");
  CHECK(into.id_is_number);
  CHECK(into.key == "a");
  CHECK(into.kind == "E1");
  CHECK(into.has_sequence);
  CHECK(into.sequence == 3);
  CHECK(into.has_time);
  CHECK(into.time_us == 1438191704747000);
}

TEST_CASE("event_schema built in names the field that is missing, twice there or wrong") {
  for (const char* required : {"id", "ts", "key"}) {
    std::vector<named> fields = good();
    std::erase_if(fields, [&](const named& field) { return field.first == required; });
    event into;
    const result found = check(event_schema::built_in(), fields, into);
    CHECK(found.kind == fault_kind::missing_field);
    CHECK(found.reason == "field " + std::string(required) + " is missing");
  }
  std::vector<named> twice = good();
  twice.push_back({"key", text("b")});
  event into;
  CHECK(check(event_schema::built_in(), twice, into).kind == fault_kind::duplicate_field);
  CHECK(check_changed("key", number(5)).kind == fault_kind::wrong_type);
  CHECK(check_changed("key", number(5)).reason == "field key is an integer, wanted a string");
  CHECK(check_changed("id", {json_type::null, "null"}).kind == fault_kind::wrong_type);
  CHECK(check_changed("seq", text("3")).kind == fault_kind::wrong_type);
}

TEST_CASE("event_schema built in holds ranges, lengths, patterns and choices") {
  for (const auto& [name, value] : std::vector<named>{
           {"id", number(-1)},
           {"seq", number(0)},
           {"key", text("")},
           {"ts", text("2015-02-30T00:00:00Z")},
           {"ts", text("yesterday")},
           {"kind", text("two words")},
           {"level", text("LOUD")},
       }) {
    INFO(name << " " << value.text);
    CHECK(check_changed(name, value).kind == fault_kind::bad_value);
  }
  const std::string longest(4096, 'k');
  CHECK(check_changed("key", text(longest)).kind == fault_kind::none);
  const std::string longer(4097, 'k');
  CHECK(check_changed("key", text(longer)).reason == "field key must have 1 to 4096 bytes");
  CHECK(check_changed("seq", number(0)).reason == "field seq must be at least 1");
}

TEST_CASE("event_schema journal takes the unit as the key, else the program") {
  const named cursor{"__CURSOR", text("s=1")};
  const named time{"__REALTIME_TIMESTAMP", text("1438191704747000")};
  const named program{"SYSLOG_IDENTIFIER", text("cron")};
  const named unit{"_SYSTEMD_UNIT", text("cron.service")};
  event both;
  CHECK(check(event_schema::journal(), {program, time, cursor, unit}, both).kind ==
        fault_kind::none);
  CHECK(both.key == "cron.service");
  CHECK(both.time_us == 1438191704747000);
  CHECK_FALSE(both.has_sequence);
  event one;
  CHECK(check(event_schema::journal(), {cursor, time, program}, one).kind == fault_kind::none);
  CHECK(one.key == "cron");
  event none;
  CHECK(check(event_schema::journal(), {cursor, time}, none).kind == fault_kind::missing_field);
  event odd;
  CHECK(
      check(event_schema::journal(), {cursor, {"__REALTIME_TIMESTAMP", text("12x")}, program}, odd)
          .kind == fault_kind::bad_value);
}

TEST_CASE("event_schema any asks for the key alone") {
  const event_schema schema = event_schema::any("user", "when");
  event bare;
  CHECK(check(schema, {{"user", text("u1")}}, bare).kind == fault_kind::none);
  CHECK(bare.key == "u1");
  CHECK_FALSE(bare.has_time);
  event full;
  CHECK(check(schema,
              {{"user", number(17)},
               {"when", text("2015-07-29T17:41:44Z")},
               {"seq", number(4)},
               {"id", {json_type::object, "{}"}}},
              full)
            .kind == fault_kind::none);
  CHECK(full.key == "17");
  CHECK(full.has_time);
  CHECK(full.sequence == 4);
  CHECK(full.id.empty());
  event odd;
  CHECK(check(schema, {{"user", text("u1")}, {"when", text("later")}}, odd).kind ==
        fault_kind::bad_value);
  CHECK(check(schema, {{"when", text("2015-07-29T17:41:44Z")}}, odd).kind ==
        fault_kind::missing_field);
}

TEST_CASE("event_checker finds rules by name in any order") {
  const event_schema schema = event_schema::built_in();
  event_checker checker(schema);
  checker.begin();
  for (const char* name : {"level", "key", "ts", "id", "kind", "seq", "key"}) {
    const std::size_t rule = checker.find(name);
    REQUIRE(rule != event_checker::no_rule);
    CHECK(schema.rules()[rule].name == name);
  }
  CHECK(checker.find("message") == event_checker::no_rule);
  CHECK(checker.find("") == event_checker::no_rule);
}
