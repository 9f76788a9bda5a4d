// What the worker says when something is wrong: one line with a stable code.
// Use for: every refusal and warning of the worker, at start, at a reload and while it runs.
// Not for: exceptions of the library; see detail/message.hpp.
// Threads: values and pure functions.
// Progress: to_string allocates.
// Callbacks: none.
// Exceptions: std::bad_alloc.
// Lifetime: a diagnostic owns its texts.
// Guide: docs/worker_config.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "../detail/config.hpp"
#include "../version.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// Every code the worker can print. A number is never given a second meaning.
/// 10xx: what the configuration says; 11xx: how it is written; 19xx: warnings; 20xx: while running.
enum class diagnostic_code : std::uint16_t {
  unknown_key = 1001,
  key_is_a_group = 1002,
  two_names = 1003,
  wrong_type = 1004,
  bad_unit = 1005,
  number_too_large = 1006,
  not_a_choice = 1007,
  bad_text = 1008,
  key_not_built = 1009,
  choice_not_built = 1010,
  not_a_power_of_two = 1011,
  out_of_bounds = 1012,
  restart_needed = 1013,
  contradiction = 1014,
  missing_partner = 1015,
  second_source = 1016,
  malformed_setting = 1017,
  file_unreadable = 1018,
  too_many_faults = 1019,
  not_utf8 = 1101,
  byte_order_mark = 1102,
  control_character = 1103,
  file_too_large = 1104,
  tab = 1105,
  bad_indentation = 1106,
  too_deep = 1107,
  list = 1108,
  flow_collection = 1109,
  anchor_or_tag = 1110,
  block_scalar = 1111,
  second_document = 1112,
  not_key_and_value = 1113,
  bad_key = 1114,
  open_quote = 1115,
  bad_escape = 1116,
  text_after_quote = 1117,
  duplicate_key = 1118,
  quotes_needed = 1119,
  no_value = 1120,
  json_syntax = 1121,
  overridden = 1901,
  no_effect = 1902,
  default_lowered = 1903,
  pool_mismatch = 2001,
  resize_refused = 2002,
  resize_backoff = 2003,
  source_failed = 2004,
  sink_failed = 2005,
  event_invalid = 2006,
  queue_full = 2007,
  dead_letter_failed = 2008,
  commit_failed = 2009,
  commit_mismatch = 2010,
  order_broken = 2011,
  metrics_failed = 2012,
  handler_failed = 2013,
};

/// How the parts of a diagnostic become a line.
enum class diagnostic_form : std::uint8_t {
  refusal,  ///< `what: got allowed. Refused; stays. Next.`
  remark,   ///< `what got; allowed. Refused; stays. Next.`
  warning,  ///< `what: got allowed. Stays. Next.`
  report,   ///< `what: got; allowed; stays; next.`
};

/// One row of the table of codes.
struct diagnostic_row {
  diagnostic_code code;
  diagnostic_form form;
  std::string_view meaning;
};

/// Ordered by code.
inline constexpr std::array diagnostic_table{
    diagnostic_row{diagnostic_code::unknown_key, diagnostic_form::remark,
                   "the key is in no part of the schema"},
    diagnostic_row{diagnostic_code::key_is_a_group, diagnostic_form::remark,
                   "the key names a group of settings and was given a value"},
    diagnostic_row{diagnostic_code::two_names, diagnostic_form::refusal,
                   "one setting is given twice in one place, under its name or an older one"},
    diagnostic_row{diagnostic_code::wrong_type, diagnostic_form::refusal,
                   "the value is not of the setting's type"},
    diagnostic_row{diagnostic_code::bad_unit, diagnostic_form::refusal,
                   "the unit is unknown, missing, or too fine for the setting"},
    diagnostic_row{diagnostic_code::number_too_large, diagnostic_form::refusal,
                   "the number does not fit in 64 bits"},
    diagnostic_row{diagnostic_code::not_a_choice, diagnostic_form::refusal,
                   "the word is not one of the setting's choices"},
    diagnostic_row{diagnostic_code::bad_text, diagnostic_form::refusal,
                   "the text is too short, too long, or has a control character"},
    diagnostic_row{diagnostic_code::key_not_built, diagnostic_form::refusal,
                   "the part that the setting belongs to is not built in this version"},
    diagnostic_row{diagnostic_code::choice_not_built, diagnostic_form::refusal,
                   "the choice is known but not built in this version"},
    diagnostic_row{diagnostic_code::not_a_power_of_two, diagnostic_form::refusal,
                   "the number must be a power of two"},
    diagnostic_row{diagnostic_code::out_of_bounds, diagnostic_form::refusal,
                   "the number is outside the bounds of the schema or of this host"},
    diagnostic_row{diagnostic_code::restart_needed, diagnostic_form::refusal,
                   "a reload changes a setting that only a restart can change"},
    diagnostic_row{diagnostic_code::contradiction, diagnostic_form::refusal,
                   "two settings cannot both hold"},
    diagnostic_row{diagnostic_code::missing_partner, diagnostic_form::refusal,
                   "a setting needs another one that was not given"},
    diagnostic_row{diagnostic_code::second_source, diagnostic_form::refusal,
                   "the configuration has two sources; exactly one may be active"},
    diagnostic_row{diagnostic_code::malformed_setting, diagnostic_form::remark,
                   "a setting on the command line is not of the form key=value"},
    diagnostic_row{diagnostic_code::file_unreadable, diagnostic_form::refusal,
                   "the configuration file cannot be opened or read"},
    diagnostic_row{diagnostic_code::too_many_faults, diagnostic_form::remark,
                   "more faults were found than are printed"},
    diagnostic_row{diagnostic_code::not_utf8, diagnostic_form::remark, "the bytes are not UTF-8"},
    diagnostic_row{diagnostic_code::byte_order_mark, diagnostic_form::remark,
                   "the file starts with a byte order mark"},
    diagnostic_row{diagnostic_code::control_character, diagnostic_form::remark,
                   "the file has a control character"},
    diagnostic_row{diagnostic_code::file_too_large, diagnostic_form::remark,
                   "the file is larger than 1 MiB"},
    diagnostic_row{diagnostic_code::tab, diagnostic_form::remark,
                   "a tab stands where only spaces may"},
    diagnostic_row{diagnostic_code::bad_indentation, diagnostic_form::remark,
                   "the line's indentation fits no open group"},
    diagnostic_row{diagnostic_code::too_deep, diagnostic_form::remark,
                   "groups are nested deeper than 8 levels"},
    diagnostic_row{diagnostic_code::list, diagnostic_form::remark, "a list; no setting takes one"},
    diagnostic_row{diagnostic_code::flow_collection, diagnostic_form::remark,
                   "a flow collection in braces or brackets"},
    diagnostic_row{diagnostic_code::anchor_or_tag, diagnostic_form::remark,
                   "a YAML anchor, alias or tag"},
    diagnostic_row{diagnostic_code::block_scalar, diagnostic_form::remark, "a YAML block scalar"},
    diagnostic_row{diagnostic_code::second_document, diagnostic_form::remark,
                   "a YAML document marker or directive"},
    diagnostic_row{diagnostic_code::not_key_and_value, diagnostic_form::remark,
                   "the line is not `key: value`"},
    diagnostic_row{diagnostic_code::bad_key, diagnostic_form::remark,
                   "the key has a character that no key has"},
    diagnostic_row{diagnostic_code::open_quote, diagnostic_form::remark,
                   "a quoted text does not end on its line"},
    diagnostic_row{diagnostic_code::bad_escape, diagnostic_form::remark,
                   "an unknown escape in a double-quoted text"},
    diagnostic_row{diagnostic_code::text_after_quote, diagnostic_form::remark,
                   "text follows a closing quote"},
    diagnostic_row{diagnostic_code::duplicate_key, diagnostic_form::remark,
                   "the same key stands twice in the file"},
    diagnostic_row{diagnostic_code::quotes_needed, diagnostic_form::remark,
                   "a plain value that YAML would read as something else"},
    diagnostic_row{diagnostic_code::no_value, diagnostic_form::remark, "the key has no value"},
    diagnostic_row{diagnostic_code::json_syntax, diagnostic_form::remark, "the text is not JSON"},
    diagnostic_row{diagnostic_code::overridden, diagnostic_form::warning,
                   "a value in the file is not the one in force"},
    diagnostic_row{diagnostic_code::no_effect, diagnostic_form::warning,
                   "a setting that the others make irrelevant"},
    diagnostic_row{diagnostic_code::default_lowered, diagnostic_form::warning,
                   "this host does not allow the usual default"},
    diagnostic_row{diagnostic_code::pool_mismatch, diagnostic_form::report,
                   "the workers running are not as many as asked for"},
    diagnostic_row{diagnostic_code::resize_refused, diagnostic_form::refusal,
                   "the pool cannot have the size asked for"},
    diagnostic_row{diagnostic_code::resize_backoff, diagnostic_form::report,
                   "the pool cannot change its size now; it is asked again later"},
    diagnostic_row{diagnostic_code::source_failed, diagnostic_form::report,
                   "the event source cannot be opened or read"},
    diagnostic_row{diagnostic_code::sink_failed, diagnostic_form::report,
                   "the sink cannot be opened or written"},
    diagnostic_row{diagnostic_code::event_invalid, diagnostic_form::report,
                   "an event does not fit the schema"},
    diagnostic_row{diagnostic_code::queue_full, diagnostic_form::report,
                   "the queue is full and the source is held back"},
    diagnostic_row{diagnostic_code::dead_letter_failed, diagnostic_form::report,
                   "the dead-letter file cannot take an event"},
    diagnostic_row{diagnostic_code::commit_failed, diagnostic_form::report,
                   "the position cannot be saved"},
    diagnostic_row{diagnostic_code::commit_mismatch, diagnostic_form::report,
                   "the saved position belongs to another input"},
    diagnostic_row{diagnostic_code::order_broken, diagnostic_form::report,
                   "an event overtook another of its key"},
    diagnostic_row{diagnostic_code::metrics_failed, diagnostic_form::report,
                   "the metrics file cannot be written"},
    diagnostic_row{diagnostic_code::handler_failed, diagnostic_form::report,
                   "the handler failed on an event"},
};

/// The row of `code`. Complexity: linear in the table.
[[nodiscard]] constexpr const diagnostic_row& row_of(diagnostic_code code) noexcept {
  const auto found = std::ranges::find(diagnostic_table, code, &diagnostic_row::code);
  return found == diagnostic_table.end() ? diagnostic_table.front() : *found;
}

/// One fault, or one warning, in parts. to_string() joins them in the form of the code's row.
struct diagnostic {
  diagnostic_code code{};
  std::string file{};      ///< "veltrix.yaml", "env VELTRIX_POD", "--set", or empty
  std::size_t line = 0;    ///< from 1; 0: no line
  std::size_t column = 0;  ///< in bytes, from 1; 0: no column
  std::string what{};      ///< the key, or the kind of fault: "unknown key"
  std::string got{};       ///< the value seen, shortened by quote_value()
  std::string allowed{};   ///< a clause that follows it: "is above 284 (pids.max=300, ...)"
  std::string stays{};     ///< what is in force now; the caller fills it, empty if unknown
  std::string next{};      ///< what to do: "Lower it or raise pids.max"

  friend bool operator==(const diagnostic&, const diagnostic&) = default;
};

/// Orders by file, line and column, then by code; keeps the order found otherwise.
inline void sort_by_place(std::vector<diagnostic>& found) {
  std::ranges::stable_sort(found, [](const diagnostic& left, const diagnostic& right) {
    // What has a line comes from the file, and goes first.
    const auto place = [](const diagnostic& one) {
      return std::tuple(one.line == 0, one.line, one.column, one.code);
    };
    return place(left) < place(right);
  });
}

/// "VX1012". Complexity: constant.
[[nodiscard]] inline std::string to_string(diagnostic_code code) {
  return "VX" + std::to_string(static_cast<unsigned>(code));
}

namespace detail {

inline constexpr std::size_t quoted_limit = 60;

/// `text` as a message shows it: printable, at most 60 bytes, never broken inside a character.
[[nodiscard]] inline std::string quote_value(std::string_view text) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string shown;
  for (const char letter : text) {
    const auto byte = static_cast<unsigned char>(letter);
    if (shown.size() >= quoted_limit && (byte & 0xC0U) != 0x80U) return shown + "...";
    if (byte < 0x20 || byte == 0x7F) {
      shown.append("\\x").append(1, digits[byte >> 4U]).append(1, digits[byte & 15U]);
    } else {
      shown.push_back(letter);
    }
  }
  return shown;
}

/// `text` with its first letter large, if it is a lower-case ASCII letter.
[[nodiscard]] inline std::string sentence_case(std::string text) {
  if (!text.empty() && text.front() >= 'a' && text.front() <= 'z') {
    text.front() = static_cast<char>(text.front() - 'a' + 'A');
  }
  return text;
}

/// The inverse, for a sentence that goes on after a semicolon.
[[nodiscard]] inline std::string clause_case(std::string text) {
  const bool word = text.size() > 1 && (text[1] < 'A' || text[1] > 'Z');
  if (word && text.front() >= 'A' && text.front() <= 'Z') {
    text.front() = static_cast<char>(text.front() - 'A' + 'a');
  }
  return text;
}

inline void end_sentence(std::string& line) {
  if (!line.ends_with('.') && !line.ends_with('?')) line.push_back('.');
}

/// Appends `separator` and `part`, if there is a part.
inline void append_part(std::string& line, std::string_view separator, std::string_view part) {
  if (!part.empty()) line.append(separator).append(part);
}

}  // namespace detail

/// The diagnostic as one line without a line feed, ended by a full stop.
/// Complexity: linear in the parts.
[[nodiscard]] inline std::string to_string(const diagnostic& told) {
  std::string line = to_string(told.code);
  detail::append_part(line, " ", told.file);
  if (told.line != 0) line.append(":").append(std::to_string(told.line));
  if (told.line != 0 && told.column != 0) line.append(":").append(std::to_string(told.column));
  line.append(" ").append(told.what);
  const diagnostic_form form = row_of(told.code).form;
  if (form == diagnostic_form::report) {
    detail::append_part(line, ": ", told.got);
    for (const std::string* part : {&told.allowed, &told.stays, &told.next}) {
      detail::append_part(line, "; ", detail::clause_case(*part));
    }
    detail::end_sentence(line);
    return line;
  }
  const bool remark = form == diagnostic_form::remark;
  detail::append_part(line, remark ? " " : ": ", told.got);
  detail::append_part(line, remark ? "; " : " ", told.allowed);
  detail::end_sentence(line);
  if (form == diagnostic_form::warning) {
    detail::append_part(line, " ", detail::sentence_case(told.stays));
    detail::end_sentence(line);
    detail::append_part(line, " ", detail::sentence_case(told.next));
    detail::end_sentence(line);
    return line;
  }
  line.append(" Refused");
  detail::append_part(line, "; ", told.stays);
  detail::append_part(
      line, told.stays.empty() ? "; " : ". ",
      told.stays.empty() ? detail::clause_case(told.next) : detail::sentence_case(told.next));
  detail::end_sentence(line);
  return line;
}

/// The diagnostic for a configuration file that could not be read. `reason` is the system's text.
[[nodiscard]] inline diagnostic file_unreadable(std::string_view file, std::string_view reason) {
  return {.code = diagnostic_code::file_unreadable,
          .file = std::string(file),
          .what = "configuration file",
          .got = std::string(reason),
          .allowed = "is what the system says",
          .stays = {},
          .next = "Check the path and its permissions"};
}

}  // namespace VELTRIX_ABI
}  // namespace veltrix
