// A plain, slow check of an event's fields against a schema, to compare the worker's with.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "driver.hpp"
#include "plain_json.hpp"
#include "veltrix/worker/event_schema.hpp"

namespace veltrix_fuzz {

/// What an event must be after its check.
struct plain_event {
  veltrix::fault_kind fault = veltrix::fault_kind::none;
  std::string id{};
  std::string key{};
  std::string kind{};
  bool id_is_number = false;
  std::optional<std::uint64_t> sequence{};
  std::optional<std::int64_t> time_us{};
};

/// "2015-07-29T17:41:44.747Z" by the calendar of the standard library.
inline std::optional<std::int64_t> plain_time(std::string_view text) {
  namespace chrono = std::chrono;
  constexpr std::string_view shape = "dddd-dd-ddTdd:dd:dd";
  if (text.size() < shape.size()) return std::nullopt;
  for (std::size_t i = 0; i < shape.size(); ++i) {
    const bool digit = text[i] >= '0' && text[i] <= '9';
    const bool is_t = text[i] == 'T' || text[i] == 't' || text[i] == ' ';
    const bool fits = shape[i] == 'd' ? digit : shape[i] == 'T' ? is_t : text[i] == shape[i];
    if (!fits) return std::nullopt;
  }
  const auto number = [&](std::size_t at, std::size_t count) {
    int value = 0;
    for (std::size_t i = at; i < at + count; ++i)
      value = value * 10 + (text[i] - '0');
    return value;
  };
  const chrono::year_month_day day{chrono::year(number(0, 4)),
                                   chrono::month(static_cast<unsigned>(number(5, 2))),
                                   chrono::day(static_cast<unsigned>(number(8, 2)))};
  const int hour = number(11, 2);
  const int minute = number(14, 2);
  const int second = number(17, 2);
  if (!day.ok() || hour > 23 || minute > 59 || second > 59) return std::nullopt;

  std::string_view rest = text.substr(shape.size());
  std::string fraction;
  if (!rest.empty() && (rest.front() == '.' || rest.front() == ',')) {
    rest.remove_prefix(1);
    while (!rest.empty() && rest.front() >= '0' && rest.front() <= '9') {
      fraction.push_back(rest.front());
      rest.remove_prefix(1);
    }
    if (fraction.empty() || fraction.size() > 9) return std::nullopt;
  }
  fraction.resize(6, '0');
  int east = 0;  // minutes
  if (rest != "Z" && rest != "z") {
    if (rest.size() == 6 && rest[3] == ':') {
      fraction.push_back(':');  // noted: the zone has a colon
    } else if (rest.size() != 5) {
      return std::nullopt;
    }
    const std::string zone =
        std::string(rest.substr(0, 3)) + std::string(rest.substr(rest.size() - 2));
    if (zone[0] != '+' && zone[0] != '-') return std::nullopt;
    if (!std::all_of(zone.begin() + 1, zone.end(), [](char c) { return c >= '0' && c <= '9'; })) {
      return std::nullopt;
    }
    const int hours = (zone[1] - '0') * 10 + (zone[2] - '0');
    const int minutes = (zone[3] - '0') * 10 + (zone[4] - '0');
    if (hours > 23 || minutes > 59) return std::nullopt;
    east = (hours * 60 + minutes) * (zone[0] == '-' ? -1 : 1);
  }
  const chrono::microseconds at = chrono::sys_days(day).time_since_epoch() + chrono::hours(hour) +
                                  chrono::minutes(minute - east) + chrono::seconds(second) +
                                  chrono::microseconds(std::stol(fraction.substr(0, 6)));
  return at.count();
}

inline bool plain_word(std::string_view text) {
  constexpr std::string_view allowed =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.:-";
  return text.find_first_not_of(allowed) == text.npos;
}

/// Whether one field is what its rule wants; puts it into its place.
inline veltrix::fault_kind check_plain_field(const veltrix::field_rule& rule,
                                             const plain_field& field, plain_event& into,
                                             int& key_rank) {
  using veltrix::fault_kind;
  using veltrix::field_role;
  using veltrix::json_type;
  if ((rule.types & static_cast<unsigned>(field.type)) == 0) return fault_kind::wrong_type;
  const bool integer = field.type == json_type::integer;
  const bool string = field.type == json_type::string;
  const auto bytes = static_cast<std::int64_t>(field.text.size());
  if (integer && field.integer < rule.lowest) return fault_kind::bad_value;
  if (string && (bytes < rule.lowest || bytes > rule.highest)) return fault_kind::bad_value;
  if (string && rule.pattern == veltrix::field_pattern::word && !plain_word(field.text)) {
    return fault_kind::bad_value;
  }
  if (string && !rule.choices.empty() &&
      std::find(rule.choices.begin(), rule.choices.end(), field.text) == rule.choices.end()) {
    return fault_kind::bad_value;
  }
  switch (rule.role) {
    case field_role::none: break;
    case field_role::id:
      into.id_is_number = integer;
      if (integer || string) into.id = field.text;
      break;
    case field_role::key:
      if ((integer || string) && rule.rank < key_rank) {
        into.key = field.text;
        key_rank = rule.rank;
      }
      break;
    case field_role::kind: into.kind = field.text; break;
    case field_role::sequence:
      into.sequence.reset();
      if (integer && field.integer >= 0) into.sequence = static_cast<std::uint64_t>(field.integer);
      break;
    case field_role::time:
      if (rule.pattern == veltrix::field_pattern::iso_time) {
        into.time_us = plain_time(field.text);
      } else if (!field.text.empty() && field.text.size() <= 19 &&
                 field.text.find_first_not_of("0123456789") == std::string::npos) {
        const unsigned long long value = std::stoull(field.text);
        if (value <= 9223372036854775807ULL) into.time_us = static_cast<std::int64_t>(value);
      }
      if (!into.time_us) return fault_kind::bad_value;
      break;
  }
  return fault_kind::none;
}

/// The first fault in the order of the fields, then what is missing in the order of the rules.
inline plain_event check_plain(const veltrix::event_schema& schema, const plain_line& line) {
  plain_event event;
  event.fault = line.fault;
  std::set<std::string> seen;
  int key_rank = 1000;
  for (const plain_field& field : line.fields) {
    if (event.fault != veltrix::fault_kind::none) return event;
    for (const veltrix::field_rule& rule : schema.rules()) {
      if (rule.name != field.name) continue;
      event.fault = seen.insert(field.name).second ? check_plain_field(rule, field, event, key_rank)
                                                   : veltrix::fault_kind::duplicate_field;
    }
  }
  if (event.fault != veltrix::fault_kind::none) return event;
  for (const veltrix::field_rule& rule : schema.rules()) {
    if (rule.required && !seen.contains(rule.name))
      event.fault = veltrix::fault_kind::missing_field;
  }
  if (event.key.empty()) event.fault = veltrix::fault_kind::missing_field;
  return event;
}

/// Compares an event with what the plain check made of the same line.
inline void agree_on_event(const veltrix::event& got, const plain_event& expected) {
  require(got.id == expected.id, "the event's id");
  agree(got.id_is_number, expected.id_is_number, "whether the id is a number");
  require(got.key == expected.key, "the event's key");
  require(got.kind == expected.kind, "the event's kind");
  agree(got.has_sequence, expected.sequence.has_value(), "whether there is a sequence");
  if (expected.sequence) agree(got.sequence, *expected.sequence, "the sequence");
  agree(got.has_time, expected.time_us.has_value(), "whether there is a time");
  if (expected.time_us) agree(got.time_us, *expected.time_us, "the time");
}

/// One of the schemas that the worker knows.
inline veltrix::event_schema chosen_schema(byte_source& from) {
  switch (from.below(4)) {
    case 0: return veltrix::event_schema::built_in();
    case 1: return veltrix::event_schema::journal();
    case 2: return veltrix::event_schema::any("key", "ts");
    default: return veltrix::event_schema::any("id", "");
  }
}

}  // namespace veltrix_fuzz
