// What the schema says, as text: a listing, a page, a JSON Schema and an annotated default file.
// Use for: the schema command, the docs page, editors that check files, and a file to start from.
// Not for: the values in force; see config_snapshot::provenance_line().
// Threads: pure functions of constants; every call gives the same bytes on every machine.
// Progress: allocates.
// Callbacks: none.
// Exceptions: std::bad_alloc.
// Lifetime: returns by value.
// Guide: docs/worker_config.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "../detail/config.hpp"
#include "../version.hpp"
#include "config_names.hpp"
#include "config_schema.hpp"
#include "config_text.hpp"
#include "config_value.hpp"
#include "diagnostic.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// "L live": the letter is that of the schema's table.
[[nodiscard]] constexpr std::string_view reload_text(reload_class reload) noexcept {
  switch (reload) {
    case reload_class::live: return "L live";
    case reload_class::handshake: return "H live with a hand-shake";
    case reload_class::restart: break;
  }
  return "R restart";
}

/// "whole number", "size", "duration in ms".
[[nodiscard]] inline std::string type_text(const config_field& field) {
  switch (field.type) {
    case value_type::integer: return "whole number";
    case value_type::size: return "size in " + std::string(name_of(field.unit));
    case value_type::time_span:
      return field.unit == value_unit::written ? "duration with its unit"
                                               : "duration in " + std::string(name_of(field.unit));
    case value_type::real: return "share of one";
    case value_type::boolean: return "switch";
    case value_type::choice: return "word";
    case value_type::text: break;
  }
  return "text";
}

[[nodiscard]] inline std::string default_text(const config_field& field) {
  if (!field.default_note.empty()) return std::string(field.default_note);
  return field.default_text.empty() ? "''" : std::string(field.default_text);
}

/// "1 to 4096, and at most ...", "block, reject, drop_newest", "true or false".
[[nodiscard]] inline std::string bounds_text(const config_field& field) {
  std::string text;
  switch (field.type) {
    case value_type::boolean: return "true or false";
    case value_type::choice: return choice_list(field.choices);
    case value_type::text:
      return std::to_string(field.lowest) + " to " + std::to_string(field.highest) + " bytes";
    case value_type::real:
      return show_real(static_cast<double>(field.lowest) / 1000) + " to " +
             show_real(static_cast<double>(field.highest) / 1000);
    case value_type::integer:
    case value_type::size:
    case value_type::time_span: break;
  }
  text = field.lowest == field.highest
             ? show_integer(field, field.lowest)
             : show_integer(field, field.lowest) + " to " + show_integer(field, field.highest);
  if (field.power_of_two) text += ", a power of two";
  if (!field.bound_note.empty()) text.append(", ").append(field.bound_note);
  return text;
}

[[nodiscard]] inline std::string alias_text(const config_field& field) {
  std::string text;
  for (const std::string_view alias : field.aliases) {
    if (!alias.empty()) text.append(text.empty() ? "" : ", ").append(alias);
  }
  return text;
}

/// Appends `words` in lines of at most `width` columns, each after `indent`.
inline void append_wrapped(std::string& text, std::string_view words, std::string_view indent,
                           std::size_t width) {
  std::size_t column = 0;
  while (!words.empty()) {
    const std::size_t end = std::min(words.find(' '), words.size());
    const std::string_view word = words.substr(0, end);
    words.remove_prefix(std::min(end + 1, words.size()));
    if (column != 0 && column + 1 + word.size() > width) {
      text.push_back('\n');
      column = 0;
    }
    text.append(column == 0 ? indent : " ").append(word);
    column += (column == 0 ? indent.size() : 1) + word.size();
  }
  text.push_back('\n');
}

/// A text as a scalar of the YAML subset.
[[nodiscard]] inline std::string yaml_scalar(std::string_view text) {
  const auto plain = [](char letter) {
    return is_key_letter(letter) || letter == '/' || letter == ' ' || letter == ':';
  };
  const bool safe = !text.empty() && std::ranges::all_of(text, plain) && text.back() != ':' &&
                    text.front() != ' ' && text.back() != ' ' && text.front() != '-' &&
                    text.find(": ") == std::string_view::npos && text != "null";
  if (safe) return std::string(text);
  std::string quoted = "'";
  for (const char letter : text)
    quoted.append(letter == '\'' ? 2 : 1, letter);
  return quoted.append("'");
}

/// `text` as a JSON string.
[[nodiscard]] inline std::string json_string(std::string_view text) {
  std::string quoted = "\"";
  for (const char letter : text) {
    if (letter == '"' || letter == '\\') quoted.push_back('\\');
    quoted.push_back(letter);
  }
  return quoted.append("\"");
}

/// How many groups `name` shares with `other`: 1 for a.b and a.c, 0 for a.b and c.d.
[[nodiscard]] constexpr std::size_t shared_groups(std::string_view name,
                                                  std::string_view other) noexcept {
  std::size_t shared = 0;
  std::size_t start = 0;
  while (true) {
    const std::size_t dot = name.find('.', start);
    if (dot == std::string_view::npos || other.substr(0, dot + 1) != name.substr(0, dot + 1)) {
      return shared;
    }
    ++shared;
    start = dot + 1;
  }
}

/// The group at `depth` (0 outermost) of a dotted name.
[[nodiscard]] constexpr std::string_view part_of(std::string_view name,
                                                 std::size_t depth) noexcept {
  for (; depth > 0; --depth)
    name.remove_prefix(name.find('.') + 1);
  return name.substr(0, name.find('.'));
}

[[nodiscard]] constexpr std::size_t depth_of(std::string_view name) noexcept {
  return static_cast<std::size_t>(std::ranges::count(name, '.'));
}

/// True if the default file sets the field: it is built, and its default does not need the host.
[[nodiscard]] constexpr bool stands_in_default_file(const config_field& field) noexcept {
  return field.available && field.default_note.empty();
}

/// The JSON Schema of one value, without braces.
[[nodiscard]] inline std::string json_type(const config_field& field) {
  const bool bare =
      field.type == value_type::boolean || std::ranges::all_of(field.default_text, is_digit);
  const std::string default_part =
      ", \"default\": " + (bare && !field.default_text.empty() ? std::string(field.default_text)
                                                               : json_string(field.default_text));
  const std::string usual =
      field.default_note.empty() && field.type != value_type::real ? default_part : std::string();
  const std::string range = "\"minimum\": " + std::to_string(field.lowest) +
                            ", \"maximum\": " + std::to_string(field.highest);
  switch (field.type) {
    case value_type::boolean: return "\"type\": \"boolean\"" + usual;
    case value_type::integer: return "\"type\": \"integer\", " + range + usual;
    case value_type::real:
      return "\"type\": \"number\", \"minimum\": " +
             show_real(static_cast<double>(field.lowest) / 1000) +
             ", \"maximum\": " + show_real(static_cast<double>(field.highest) / 1000) +
             ", \"default\": " + std::string(field.default_text);
    case value_type::text:
      return "\"type\": \"string\", \"minLength\": " + std::to_string(field.lowest) +
             ", \"maxLength\": " + std::to_string(field.highest) + usual;
    case value_type::choice: {
      std::string words;
      for_each_choice(field.choices, [&](std::string_view word) {
        words.append(words.empty() ? "" : ", ").append(json_string(word));
      });
      return "\"enum\": [" + words + "]" + usual;
    }
    case value_type::size:
    case value_type::time_span: break;
  }
  std::string units;
  for (const unit_name& unit : units_of(field.type)) {
    units.append(units.empty() ? "" : "|").append(unit.name);
  }
  const char* const optional = field.unit == value_unit::written ? "" : "?";
  const std::string number =
      field.unit == value_unit::written ? "" : "{\"type\": \"integer\", " + range + "}, ";
  return "\"anyOf\": [" + number + "{\"type\": \"string\", \"pattern\": \"^[0-9]+([.][0-9]+)? *(" +
         units + ")" + optional + "$\"}]" + usual;
}

/// One property of the JSON Schema.
[[nodiscard]] inline std::string json_property(std::string_view name, const config_field& field) {
  std::string text(field.consequence);
  text.append(" Default: ").append(default_text(field));
  text.append(". Reload: ").append(reload_text(field.reload)).append(".");
  if (!field.available) text.append(" Not built in this version.");
  return json_string(name) + ": {" + json_type(field) + ", \"description\": " + json_string(text) +
         "}";
}

}  // namespace detail

/// The schema for a terminal: one paragraph for each setting.
[[nodiscard]] inline std::string schema_text() {
  std::string text;
  for (const config_field& field : config_table) {
    text.append(field.name).append(" (").append(detail::type_text(field)).append(")\n");
    detail::append_wrapped(text, field.consequence, "    ", 80);
    text.append("    default ").append(detail::default_text(field)).append("\n");
    detail::append_wrapped(text, "allowed " + detail::bounds_text(field), "    ", 80);
    text.append("    reload  ").append(detail::reload_text(field.reload)).append("\n");
    const std::string aliases = detail::alias_text(field);
    if (!aliases.empty()) text.append("    also    ").append(aliases).append("\n");
    if (!field.later_choices.empty()) {
      text.append("    not built in this version: ");
      text.append(detail::choice_list(field.later_choices)).append("\n");
    }
    if (!field.available) text.append("    not built in this version\n");
    text.append("\n");
  }
  return text;
}

/// The schema as JSON Schema, draft 2020-12. It describes nested groups; names with dots are read
/// as well and are not described.
[[nodiscard]] inline std::string schema_json() {
  std::string text =
      "{\n  \"$schema\": \"https://json-schema.org/draft/2020-12/schema\",\n"
      "  \"title\": \"Configuration of veltrix-worker\",\n  \"type\": \"object\",\n"
      "  \"additionalProperties\": false,\n  \"properties\": {\n";
  std::string_view last;
  std::size_t open = 0;
  const auto indent = [](std::size_t depth) { return std::string(4 + 2 * depth, ' '); };
  const auto close_to = [&](std::size_t depth) {
    for (; open > depth; --open)
      text.append("\n").append(indent(open - 1)).append("}}");
  };
  for (const config_field& field : config_table) {
    const std::size_t depth = detail::depth_of(field.name);
    const std::size_t shared = detail::shared_groups(field.name, last);
    close_to(shared);
    if (!last.empty()) text.append(",\n");
    for (; open < depth; ++open) {
      text.append(indent(open)).append(detail::json_string(detail::part_of(field.name, open)));
      text.append(": {\"type\": \"object\", \"additionalProperties\": false, \"properties\": {\n");
    }
    text.append(indent(depth));
    text.append(detail::json_property(detail::part_of(field.name, depth), field));
    last = field.name;
  }
  close_to(0);
  for (const config_field& field : config_table) {
    for (const std::string_view alias : field.aliases) {
      if (!alias.empty()) text.append(",\n    ").append(detail::json_property(alias, field));
    }
  }
  return text.append("\n  }\n}\n");
}

/// A file of the YAML subset with every setting, annotated, that reads back as the defaults.
/// Settings whose default depends on the host, and those that are not built, are comments.
[[nodiscard]] inline std::string default_file() {
  std::string text =
      "# Every setting of veltrix-worker with its default. Remove what you do not change.\n"
      "# L: a reload changes it at once. H: after a hand-shake. R: only a restart.\n";
  std::string_view last;
  for (const config_field& field : config_table) {
    const std::size_t depth = detail::depth_of(field.name);
    for (std::size_t open = detail::shared_groups(field.name, last); open < depth; ++open) {
      // The group of a setting: real if any of its settings is.
      const std::size_t end = [&] {
        std::size_t dots = open + 1;
        return static_cast<std::size_t>(
            std::ranges::find_if(field.name, [&](char c) { return c == '.' && --dots == 0; }) -
            field.name.begin());
      }();
      const std::string_view prefix = field.name.substr(0, end + 1);
      const bool real = std::ranges::any_of(config_table, [&](const config_field& other) {
        return other.name.starts_with(prefix) && detail::stands_in_default_file(other);
      });
      text.append("\n").append(2 * open, ' ').append(real ? "" : "# ");
      text.append(detail::part_of(field.name, open)).append(":\n");
    }
    if (depth == 0) text.append("\n");
    const std::string indent(2 * depth, ' ');
    const std::string note = indent + "# ";
    detail::append_wrapped(text, field.consequence, note, 96);
    detail::append_wrapped(text,
                           std::string(detail::reload_text(field.reload).substr(0, 1)) + ", " +
                               detail::type_text(field) + ": " + detail::bounds_text(field) +
                               (field.available ? "" : "; not built in this version"),
                           note, 96);
    if (!field.default_note.empty()) {
      detail::append_wrapped(text, "Default: " + detail::default_text(field), note, 96);
    }
    text.append(indent).append(detail::stands_in_default_file(field) ? "" : "# ");
    text.append(detail::part_of(field.name, depth)).append(":");
    const std::string value = field.default_text.empty() && !field.default_note.empty()
                                  ? std::string("...")
                                  : detail::yaml_scalar(field.default_text);
    text.append(" ").append(value).append("\n");
    last = field.name;
  }
  return text;
}

}  // namespace VELTRIX_ABI
}  // namespace veltrix
