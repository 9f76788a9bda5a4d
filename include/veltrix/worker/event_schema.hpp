// Which fields an event must have, and what they may hold: a table, and a checker that reads it.
// Use for: refusing bad events where they enter, each with a reason that names the field.
// Not for: parsing; a parser hands each field to the checker.
// Threads: a schema is a constant; a checker belongs to one thread.
// Progress: linear in the rules for a field that is out of its usual place, else constant.
// Callbacks: none.
// Exceptions: std::bad_alloc while a schema is built or a reason is written.
// Lifetime: a checker refers to its schema.
// Guide: docs/worker.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "event.hpp"
#include "time_text.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// The kinds of JSON values, as bits, so that a rule may allow several.
enum class json_type : std::uint8_t {
  string = 1,
  integer = 2,
  real = 4,  ///< a number with a fraction or an exponent, or one beyond 64 bits
  boolean = 8,
  null = 16,
  object = 32,
  array = 64,
};

/// What the worker uses a field for.
enum class field_role : std::uint8_t { none, id, time, key, sequence, kind };

/// What a string must look like.
enum class field_pattern : std::uint8_t {
  any,
  iso_time,      ///< 2015-07-29T17:41:44.747Z
  microseconds,  ///< digits: microseconds since 1970
  word,          ///< letters, digits and _ . : -
};

/// One field. Bounds are lengths in bytes for strings and values for integers.
struct field_rule {
  std::string name;
  field_role role = field_role::none;
  std::uint8_t types = 0;  ///< bits of json_type
  bool required = false;
  std::int64_t lowest = 0;
  std::int64_t highest = std::numeric_limits<std::int64_t>::max();
  field_pattern pattern = field_pattern::any;
  std::vector<std::string_view> choices{};  ///< the only strings allowed; empty: any
  int rank = 0;  ///< of several fields for one role, the lowest rank that is there wins
};

namespace detail {

[[nodiscard]] constexpr std::uint8_t types(auto... allowed) noexcept {
  return static_cast<std::uint8_t>((static_cast<unsigned>(allowed) | ...));
}

inline constexpr std::int64_t longest_key = 4096;

}  // namespace detail

/// A set of rules, at most 32.
class event_schema {
 public:
  explicit event_schema(std::vector<field_rule> rules) : rules_(std::move(rules)) {
    VELTRIX_ASSERT(rules_.size() <= 32, "a schema has at most 32 rules");
  }

  /// The worker's own: id, ts and key required; seq, kind and level checked where they are.
  [[nodiscard]] static event_schema built_in() {
    using enum json_type;
    return event_schema({
        {"id", field_role::id, detail::types(integer, string), true, 0},
        {"ts", field_role::time, detail::types(string), true, 1, 64, field_pattern::iso_time},
        {"key", field_role::key, detail::types(string), true, 1, detail::longest_key},
        {"seq", field_role::sequence, detail::types(integer), false, 1},
        {"kind", field_role::kind, detail::types(string), false, 1, 64, field_pattern::word},
        {"level",
         field_role::none,
         detail::types(string),
         false,
         1,
         8,
         field_pattern::any,
         {"TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"}},
    });
  }

  /// What `journalctl -o json` prints. The unit is the key; without one, the program's name.
  [[nodiscard]] static event_schema journal() {
    using enum json_type;
    const std::uint8_t text = detail::types(string, array);
    return event_schema({
        {"__CURSOR", field_role::id, detail::types(string), true, 1, 4096},
        {"__REALTIME_TIMESTAMP", field_role::time, detail::types(string), true, 1, 20,
         field_pattern::microseconds},
        {"_SYSTEMD_UNIT",
         field_role::key,
         text,
         false,
         1,
         detail::longest_key,
         field_pattern::any,
         {},
         0},
        {"SYSLOG_IDENTIFIER",
         field_role::key,
         text,
         false,
         1,
         detail::longest_key,
         field_pattern::any,
         {},
         1},
        {"_COMM", field_role::key, text, false, 1, detail::longest_key, field_pattern::any, {}, 2},
        {"_TRANSPORT",
         field_role::key,
         text,
         false,
         1,
         detail::longest_key,
         field_pattern::any,
         {},
         3},
        {"PRIORITY", field_role::kind, detail::types(string), false, 1, 16},
    });
  }

  /// Any object with a key. The time is checked if the object has it; empty: events have none.
  [[nodiscard]] static event_schema any(std::string key_field, std::string time_field) {
    using enum json_type;
    std::vector<field_rule> rules{{std::move(key_field), field_role::key,
                                   detail::types(string, integer), true,
                                   std::numeric_limits<std::int64_t>::min(), detail::longest_key}};
    if (!time_field.empty() && time_field != rules.front().name) {
      rules.push_back({std::move(time_field), field_role::time, detail::types(string), false, 1, 64,
                       field_pattern::iso_time});
    }
    add_free_rule(rules, "id", field_role::id);
    add_free_rule(rules, "seq", field_role::sequence);
    return event_schema(std::move(rules));
  }

  [[nodiscard]] const std::vector<field_rule>& rules() const noexcept { return rules_; }

 private:
  /// A field that may hold anything, unless another rule has its name.
  static void add_free_rule(std::vector<field_rule>& rules, std::string_view name,
                            field_role role) {
    constexpr std::uint8_t all = 127;
    if (std::ranges::find(rules, name, &field_rule::name) != rules.end()) return;
    rules.push_back(
        {std::string(name), role, all, false, std::numeric_limits<std::int64_t>::min()});
  }

  std::vector<field_rule> rules_;
};

/// One field of an event, as a parser saw it.
struct field_value {
  json_type type = json_type::null;
  std::string_view text{};   ///< a string unescaped; anything else as it is written
  std::int64_t integer = 0;  ///< valid for integers
};

/// Checks one event after another against a schema.
class event_checker {
 public:
  explicit event_checker(const event_schema& schema) : rules_(&schema.rules()) {
    for (std::size_t at = 0; at < rules_->size(); ++at) {
      if ((*rules_)[at].required) required_ |= bit(at);
    }
  }

  /// Where find() says that a field has no rule.
  static constexpr std::size_t no_rule = static_cast<std::size_t>(-1);

  void begin() noexcept {
    seen_ = 0;
    expected_ = 0;
    key_rank_ = std::numeric_limits<int>::max();
  }

  /// The rule for a field name, or no_rule. Fields mostly come in the order of the rules.
  [[nodiscard]] std::size_t find(std::string_view name) noexcept {
    const std::size_t count = rules_->size();
    for (std::size_t tried = 0, at = expected_; tried < count; ++tried, ++at) {
      if (at >= count) at = 0;
      if ((*rules_)[at].name == name) {
        expected_ = at + 1;
        return at;
      }
    }
    return no_rule;
  }

  /// Checks a field that has a rule, and puts it into its place in `into`.
  [[nodiscard]] fault_kind field(std::size_t at, const field_value& value, event& into) {
    const field_rule& rule = (*rules_)[at];
    culprit_ = &rule;
    if ((seen_ & bit(at)) != 0) return fault_kind::duplicate_field;
    seen_ |= bit(at);
    got_ = value.type;
    if ((rule.types & static_cast<unsigned>(value.type)) == 0) return fault_kind::wrong_type;
    if (!in_bounds(rule, value)) return fault_kind::bad_value;
    return place(rule, value, into) ? fault_kind::none : fault_kind::bad_value;
  }

  /// After the last field: whether all that must be there was. `into.key` is set then.
  [[nodiscard]] fault_kind finish(const event& into) {
    const std::uint32_t missing = required_ & ~seen_;
    if (missing != 0) {
      std::size_t at = 0;
      while ((missing & bit(at)) == 0)
        ++at;
      culprit_ = &(*rules_)[at];
      return fault_kind::missing_field;
    }
    if (!into.key.empty()) return fault_kind::none;
    culprit_ = &*std::ranges::find(*rules_, field_role::key, &field_rule::role);
    return fault_kind::missing_field;
  }

  /// Says what the last fault was about, for a rejected line.
  [[nodiscard]] std::string reason(fault_kind kind) const {
    const std::string field = culprit_ == nullptr ? "field" : "field " + culprit_->name;
    switch (kind) {
      case fault_kind::missing_field: return field + " is missing";
      case fault_kind::duplicate_field: return field + " is there twice";
      case fault_kind::wrong_type:
        return field + " is " + name_of(got_) + ", wanted " + wanted(culprit_->types);
      case fault_kind::bad_value: return field + " " + bounds_of(*culprit_, got_);
      default: return std::string(to_string(kind));
    }
  }

 private:
  [[nodiscard]] static constexpr std::uint32_t bit(std::size_t at) noexcept {
    return std::uint32_t{1} << at;
  }

  [[nodiscard]] static std::string name_of(json_type type) {
    switch (type) {
      case json_type::string: return "a string";
      case json_type::integer: return "an integer";
      case json_type::real: return "a decimal or very large number";
      case json_type::boolean: return "a boolean";
      case json_type::null: return "null";
      case json_type::object: return "an object";
      case json_type::array: return "an array";
    }
    return "unknown";
  }

  [[nodiscard]] static std::string wanted(std::uint8_t types) {
    std::string text;
    for (unsigned one = 1; one <= 64; one *= 2) {
      if ((types & one) == 0) continue;
      if (!text.empty()) text += " or ";
      text += name_of(static_cast<json_type>(one));
    }
    return text;
  }

  [[nodiscard]] static std::string bounds_of(const field_rule& rule, json_type got) {
    if (got == json_type::integer) return "must be at least " + std::to_string(rule.lowest);
    if (!rule.choices.empty()) {
      std::string text = "must be one of";
      for (const std::string_view choice : rule.choices)
        text.append(" ").append(choice);
      return text;
    }
    switch (rule.pattern) {
      case field_pattern::iso_time: return "must be a time such as 2015-07-29T17:41:44.747Z";
      case field_pattern::microseconds: return "must be microseconds since 1970, in digits";
      case field_pattern::word: return "must be 1 to 64 letters, digits or _ . : -";
      case field_pattern::any: break;
    }
    return "must have " + std::to_string(rule.lowest) + " to " + std::to_string(rule.highest) +
           " bytes";
  }

  [[nodiscard]] static bool in_bounds(const field_rule& rule, const field_value& value) {
    if (value.type == json_type::integer) {
      return value.integer >= rule.lowest;
    }
    if (value.type != json_type::string) return true;
    const auto length = static_cast<std::int64_t>(value.text.size());
    if (length < rule.lowest || length > rule.highest) return false;
    if (rule.pattern == field_pattern::word && !std::ranges::all_of(value.text, is_word)) {
      return false;
    }
    return rule.choices.empty() ||
           std::ranges::find(rule.choices, value.text) != rule.choices.end();
  }

  [[nodiscard]] static bool is_word(char letter) noexcept {
    return (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z') ||
           (letter >= '0' && letter <= '9') || letter == '_' || letter == '.' || letter == ':' ||
           letter == '-';
  }

  [[nodiscard]] bool place(const field_rule& rule, const field_value& value, event& into) {
    switch (rule.role) {
      case field_role::none: return true;
      case field_role::id:
        into.id_is_number = value.type == json_type::integer;
        if (into.id_is_number || value.type == json_type::string) into.id = value.text;
        return true;
      case field_role::time: return place_time(rule, value, into);
      case field_role::key:
        if (rule.rank < key_rank_ &&
            (value.type == json_type::string || value.type == json_type::integer)) {
          into.key = value.text;
          key_rank_ = rule.rank;
        }
        return true;
      case field_role::sequence:
        into.has_sequence = value.type == json_type::integer && value.integer >= 0;
        into.sequence = static_cast<std::uint64_t>(value.integer);
        return true;
      case field_role::kind: into.kind = value.text; return true;
    }
    return true;
  }

  [[nodiscard]] static bool place_time(const field_rule& rule, const field_value& value,
                                       event& into) {
    into.has_time = true;
    if (rule.pattern == field_pattern::iso_time) {
      const auto parsed = parse_time(value.text);
      into.time_us = parsed.value_or(0);
      return parsed.has_value();
    }
    const char* end = value.text.data() + value.text.size();
    const auto [stopped, error] = std::from_chars(value.text.data(), end, into.time_us);
    return error == std::errc{} && stopped == end && into.time_us >= 0;
  }

  const std::vector<field_rule>* rules_;
  std::uint32_t required_ = 0;  // bits of the rules that must be met
  std::uint32_t seen_ = 0;      // bits of the rules whose fields were there
  std::size_t expected_ = 0;    // the rule that the next field probably has
  int key_rank_ = 0;            // of the field that gave the key
  const field_rule* culprit_ = nullptr;
  json_type got_ = json_type::null;
};

}  // namespace VELTRIX_ABI
}  // namespace veltrix
