// JSON configurations: the same entries as the YAML subset gives, with places, and its refusals.
// SPDX-License-Identifier: BSL-1.0
#include "support/catch.hpp"

#if __has_include(<nlohmann/json.hpp>)

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "../worker/adapters/json_config.cpp"
#include "support/random.hpp"
#include "support/scale.hpp"
#include "veltrix/worker/config.hpp"
#include "veltrix/worker/config_doc.hpp"

using veltrix::config_text;
using veltrix::key;
using veltrix::text_entry;
using veltrix_worker::parse_config_text;
using veltrix_worker::parse_json;

namespace {

std::vector<std::string> faults_of(std::string_view json) {
  std::vector<std::string> lines;
  for (veltrix::diagnostic fault : parse_json(json, "f.json").faults) {
    fault.stays = "no worker was started";
    lines.push_back(to_string(fault));
  }
  return lines;
}

using lines = std::vector<std::string>;

}  // namespace

TEST_CASE("json_config nested objects become paths with the places of keys and values") {
  const config_text text = parse_json(
      "{\n"
      "  \"workers\": {\"min\": 2,\n"
      "    \"max_concurrency\":\n"
      "      512},\n"
      "  \"queue.max_bytes\" : \"64 MiB\", \"config\": {\"cache\": {\"enabled\": false}},\n"
      "  \"retry\": {\"budget\": 0.10, \"x\": -5e2}, \"pod\": \"a\\\"\\u00e9\\n:{\", \"e\": {}\n"
      "}\n",
      "f.json");
  REQUIRE(text.faults.empty());
  const std::vector<text_entry> expected{{"workers.min", "2", {2, 15}, {2, 22}, false},
                                         {"workers.max_concurrency", "512", {3, 5}, {4, 7}, false},
                                         {"queue.max_bytes", "64 MiB", {5, 3}, {5, 23}, true},
                                         {"config.cache.enabled", "false", {5, 54}, {5, 65}, false},
                                         {"retry.budget", "0.10", {6, 13}, {6, 23}, false},
                                         {"retry.x", "-5e2", {6, 29}, {6, 34}, false},
                                         {"pod", "a\"\xC3\xA9\n:{", {6, 41}, {6, 48}, true}};
  REQUIRE(text.entries == expected);
}

TEST_CASE("json_config what is no setting is refused at its place") {
  const std::string stays = " Refused; no worker was started. ";
  REQUIRE(faults_of("{\"a\": 1,\n \"b\": {\"c\": null}}") ==
          lines{"VX1120 f.json:2:13 null value null; every key has a value." + stays +
                "Give one or remove the key."});
  REQUIRE(faults_of("{\"a\": [1, {\"b\": null}, []], \"c\": 1}") ==
          lines{"VX1108 f.json:1:7 list a; no setting takes one." + stays + "Give one value."});
  REQUIRE(faults_of("{\"a\": 1, \"b\": {\"c\": 1, \"c\": 2},\n\"a\": 3, \"b.c\": 4}") ==
          lines{"VX1118 f.json:1:24 second b.c; the first is in line 1." + stays + "Remove one.",
                "VX1118 f.json:2:1 second a; the first is in line 1." + stays + "Remove one.",
                "VX1118 f.json:2:9 second b.c; the first is in line 1." + stays + "Remove one."});
  REQUIRE(faults_of("{\"a b\": {\"c\": null, \"d\": [1]}, \"\": 2}") ==
          lines{"VX1114 f.json:1:2 key 'a b'; keys are letters, digits, _ - and dots." + stays +
                    "Correct the key.",
                "VX1114 f.json:1:32 key ''; keys are letters, digits, _ - and dots." + stays +
                    "Correct the key."});
  REQUIRE(faults_of("{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":1}}}}}}}}}") ==
          lines{"VX1107 f.json:1:41 group a.a.a.a.a.a.a.a; at most 8 levels are read." + stays +
                "Write the name with dots."});
}

TEST_CASE("json_config a fault does not hide what follows it") {
  const config_text text = parse_json(
      "{\"a\": [[1], {\"x\": {}}], \"b c\": {\"y\": 1}, \"d\": {\"e\": 2}, \"f\": 3}", "f.json");
  REQUIRE(text.faults.size() == 2);
  REQUIRE(text.entries == std::vector<text_entry>{{"d.e", "2", {1, 48}, {1, 53}, false},
                                                  {"f", "3", {1, 57}, {1, 62}, false}});
}

TEST_CASE("json_config broken JSON is refused with the place where reading stopped") {
  for (const char* broken : {"{",
                             "{\"a\": 1",
                             "{\"a\" 1}",
                             "{\"a\": 1,}",
                             "{a: 1}",
                             "{\"a\": 01}",
                             "{\"a\": tru}",
                             "{\"a\": 'x'}",
                             "{\"a\": 1} x",
                             "{\"a\": 1}{}",
                             "{\"a\": \"\\x\"}",
                             "{\"a\": \"\n\"}",
                             "{/* c */\"a\": 1}",
                             "{\"a\": NaN}",
                             "{\"a\": \"x}",
                             "[1]",
                             "5",
                             "null",
                             "",
                             " \n\t"}) {
    INFO(broken);
    const auto found = faults_of(broken);
    REQUIRE(found.size() == 1);
    REQUIRE(found.front().starts_with("VX1121 f.json:"));
    REQUIRE(found.front().ends_with("."));
    REQUIRE(found.front().size() < 400);
  }
  REQUIRE(faults_of("{\n  \"a\": 1,\n  oops\n}").front().starts_with("VX1121 f.json:3:3 not JSON"));
  REQUIRE(faults_of("{\"a\": \"\xFF\"}").front().starts_with("VX1101 f.json:1:8 "));
  REQUIRE(faults_of("\xEF\xBB\xBF{}").front().starts_with("VX1102 f.json:1:1 "));
  REQUIRE(faults_of(std::string(1024 * 1024 + 1, ' ')).front().starts_with("VX1104 f.json "));
}

TEST_CASE("json_config very deep nesting is answered, not recursed into") {
  std::string deep = "{\"a\": ";
  for (int level = 0; level < 200'000; ++level)
    deep += "[";
  REQUIRE(faults_of(deep).back().starts_with("VX1121"));
  deep = "{\"a\": ";
  for (int level = 0; level < 100'000; ++level)
    deep += "{\"a\":";
  const auto found = faults_of(deep);
  REQUIRE(found.size() == 2);
  REQUIRE(found.front().starts_with("VX1107"));
}

TEST_CASE("json_config the first character decides between JSON and YAML") {
  REQUIRE(parse_config_text("{\"pod\": \"a\"}", "f").entries.size() == 1);
  REQUIRE(parse_config_text(" \r\n\t{\"pod\": \"a\"}", "f").entries.size() == 1);
  REQUIRE(parse_config_text("pod: a\n", "f").entries.size() == 1);
  REQUIRE(parse_config_text("", "f").faults.empty());
  REQUIRE(parse_config_text("# {\npod: a\n", "f").entries.size() == 1);
}

TEST_CASE("json_config the engine gives both forms the same meaning") {
  const auto read = [](std::string_view text) {
    return veltrix::parse_config({.file_name = "f", .file = parse_config_text(text, "f")});
  };
  const auto json = read(
      "{\"workers\": {\"max_concurrency\": 12}, \"queue\": {\"max_bytes\": \"32 MiB\",\n"
      "\"on_full\": \"block\"}, \"config\": {\"poll_ms\": 100}, \"pod\": \"7\"}");
  const auto yaml = read(
      "workers:\n  max_concurrency: 12\nqueue:\n  max_bytes: 32 MiB\n  on_full: block\nconfig:\n"
      "  poll_ms: 100\npod: '7'\n");
  REQUIRE(json.ok());
  REQUIRE(yaml.ok());
  REQUIRE(*json.snapshot == *yaml.snapshot);
  REQUIRE(json.snapshot->provenance_line(key::queue_max_bytes) ==
          "queue.max_bytes 32 MiB (f:1; default was 64 MiB)");

  const auto wrong = read("{\"workers\": {\n  \"max_concurrency\": \"12\", \"min\": 0}}");
  REQUIRE(wrong.errors.size() == 2);
  REQUIRE(to_string(wrong.errors[0])
              .starts_with("VX1004 f:2:22 workers.max_concurrency: \"12\" is a text, because it "
                           "stands in quotes."));
  REQUIRE(to_string(wrong.errors[1]).starts_with("VX1012 f:2:35 workers.min: 0 is below 1"));
}

TEST_CASE("json_config the JSON Schema is JSON and describes every setting in its group") {
  const auto schema = nlohmann::json::parse(veltrix::schema_json());
  REQUIRE(schema["$schema"] == "https://json-schema.org/draft/2020-12/schema");
  for (const veltrix::config_field& field : veltrix::config_table) {
    INFO(field.name);
    const nlohmann::json* node = &schema;
    std::string_view rest = field.name;
    while (!rest.empty()) {
      const std::size_t dot = std::min(rest.find('.'), rest.size());
      REQUIRE(node->at("additionalProperties") == false);
      node = &node->at("properties").at(std::string(rest.substr(0, dot)));
      rest.remove_prefix(std::min(dot + 1, rest.size()));
    }
    REQUIRE(node->contains("description"));
    if (field.type == veltrix::value_type::integer) {
      REQUIRE(node->at("minimum") == field.lowest);
      REQUIRE(node->at("maximum") == field.highest);
    }
    if (field.type == veltrix::value_type::choice) {
      REQUIRE(node->at("enum").at(0).is_string());
      REQUIRE(node->at("default") == std::string(field.default_text));
    }
    for (const std::string_view alias : field.aliases) {
      if (!alias.empty()) REQUIRE(schema["properties"].contains(std::string(alias)));
    }
  }
}

namespace {

/// A random object of settings, and the entries that it must give.
class random_object {
 public:
  explicit random_object(veltrix_test::random_source& random) : random_(random) {
    add_object("", 0);
  }

  std::string json{};
  std::vector<text_entry> entries{};

 private:
  static constexpr std::size_t deepest = 8;

  void blanks() {
    const auto count = random_.below(3);
    for (std::uint64_t at = 0; at < count; ++at)
      put(random_.below(4) == 0 ? "\n" : " ");
  }

  void put(std::string_view text) {
    for (const char letter : text) {
      json += letter;
      column_ = letter == '\n' ? 1 : column_ + 1;
      line_ += letter == '\n' ? 1 : 0;
    }
  }

  [[nodiscard]] veltrix::text_position here() const { return {line_, column_}; }

  void add_object(const std::string& prefix, std::size_t level) {
    put("{");
    const auto members = random_.below(5);
    for (std::uint64_t member = 0; member < members; ++member) {
      if (member != 0) put(",");
      blanks();
      text_entry entry{prefix + "k" + std::to_string(next_name_++), {}, here(), {}, false};
      put("\"" + entry.path.substr(prefix.size()) + "\"");
      blanks();
      put(":");
      blanks();
      entry.value_at = here();
      if (level + 1 < deepest && random_.below(3) == 0) {
        add_object(entry.path + ".", level + 1);
      } else {
        add_scalar(entry);
        entries.push_back(entry);
      }
      blanks();
    }
    put("}");
  }

  void add_scalar(text_entry& entry) {
    constexpr std::string_view plain[] = {"0", "-1", "3.50", "1e9", "true", "false", "123456"};
    if (random_.below(2) == 0) {
      entry.value = plain[random_.below(7)];
      put(entry.value);
      return;
    }
    entry.quoted = true;
    const auto size = random_.below(8);
    for (std::uint64_t at = 0; at < size; ++at) {
      entry.value += static_cast<char>(' ' + random_.below(95));
    }
    put(veltrix::detail::json_string(entry.value));
  }

  veltrix_test::random_source& random_;
  std::size_t line_ = 1;
  std::size_t column_ = 1;
  std::size_t next_name_ = 0;
};

}  // namespace

TEST_CASE("json_config random objects give the entries that they were written from") {
  const std::uint64_t seed = 80;
  veltrix_test::random_source random(seed);
  for (std::size_t round = 0; round < veltrix_test::scale(4000); ++round) {
    const random_object object(random);
    const config_text text = parse_json(object.json, "f.json");
    INFO("seed " << seed << ", round " << round << "\n" << object.json);
    if (!text.faults.empty()) UNSCOPED_INFO(to_string(text.faults.front()));
    REQUIRE(text.faults.empty());
    REQUIRE(text.entries == object.entries);
  }
}

TEST_CASE("json_config damaged objects each get an answer inside the file") {
  const std::uint64_t seed = 81;
  veltrix_test::random_source random(seed);
  using namespace std::string_view_literals;
  constexpr std::string_view odd = "\0\t\n{}[],:\"\\ 0-e.tn\x80\xC3"sv;  // with its NUL
  for (std::size_t round = 0; round < veltrix_test::scale(20'000); ++round) {
    std::string bytes = random_object(random).json;
    const auto changes = 1 + random.below(3);
    for (std::uint64_t change = 0; change < changes; ++change) {
      const std::size_t at = random.below(bytes.size() + 1);
      if (random.below(2) == 0) {
        bytes.insert(at, 1, odd[random.below(odd.size())]);
      } else {
        bytes.erase(at, 1 + random.below(3));
      }
    }
    const config_text text = parse_json(bytes, "f.json");
    const auto last = static_cast<std::size_t>(std::count(bytes.begin(), bytes.end(), '\n')) + 1;
    INFO("seed " << seed << ", round " << round << "\n" << bytes);
    for (const text_entry& entry : text.entries) {
      REQUIRE((entry.value_at.line >= 1 && entry.value_at.line <= last));
    }
    for (const veltrix::diagnostic& fault : text.faults) {
      REQUIRE((fault.line >= 1 && fault.line <= last));
      REQUIRE(to_string(fault).size() <= 400);
    }
    const bool unreadable = std::ranges::any_of(text.faults, [](const veltrix::diagnostic& fault) {
      using enum veltrix::diagnostic_code;
      return fault.code == json_syntax || fault.code == not_utf8 || fault.code == control_character;
    });
    // The JSON library takes a NUL for the end of the text; the bytes are checked before.
    const bool object = !veltrix::detail::check_bytes(bytes, "f.json") &&
                        nlohmann::json::accept(bytes) && nlohmann::json::parse(bytes).is_object();
    REQUIRE(unreadable != object);
  }
}

#else

#include <iostream>

#include "veltrix/worker/config_text.hpp"

TEST_CASE("json_config without nlohmann-json leaves JSON to the YAML reader, which refuses it") {
  std::cout << "VELTRIX SKIPPED: nlohmann-json was not found\n";
  const auto text = veltrix::parse_yaml("{\"pod\": \"a\"}", "f.json");
  REQUIRE(text.faults.at(0).code == veltrix::diagnostic_code::flow_collection);
}

#endif
