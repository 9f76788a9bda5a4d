// SPDX-License-Identifier: BSL-1.0
#include "json_parser.hpp"

#include <charconv>
#include <cstring>
#include <string_view>

#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wshadow"
#endif
#include <simdjson.h>
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

namespace veltrix_worker {

namespace {

using veltrix::event;
using veltrix::event_block;
using veltrix::event_checker;
using veltrix::fault_kind;
using veltrix::field_value;
using veltrix::json_type;
using veltrix::raw_line;

namespace ondemand = simdjson::ondemand;

constexpr int deepest = 64;

/// simdjson looks at scalars only when asked; this looks at all of them.
std::string_view trimmed(std::string_view token) noexcept {
  while (!token.empty() && (token.back() == ' ' || token.back() == '\t' || token.back() == '\r' ||
                            token.back() == '\n')) {
    token.remove_suffix(1);
  }
  return token;
}

std::size_t digits(std::string_view text, std::size_t at) noexcept {
  std::size_t count = 0;
  while (at + count < text.size() && text[at + count] >= '0' && text[at + count] <= '9')
    ++count;
  return count;
}

/// The type of a number by the grammar of JSON, or null if it is none.
json_type number_type(std::string_view text) noexcept {
  std::size_t at = text.starts_with('-') ? 1 : 0;
  const std::size_t whole = digits(text, at);
  if (whole == 0 || (whole > 1 && text[at] == '0')) return json_type::null;
  at += whole;
  json_type type = json_type::integer;
  if (at < text.size() && text[at] == '.') {
    const std::size_t fraction = digits(text, at + 1);
    if (fraction == 0) return json_type::null;
    at += 1 + fraction;
    type = json_type::real;
  }
  if (at < text.size() && (text[at] == 'e' || text[at] == 'E')) {
    ++at;
    if (at < text.size() && (text[at] == '+' || text[at] == '-')) ++at;
    const std::size_t exponent = digits(text, at);
    if (exponent == 0) return json_type::null;
    at += exponent;
    type = json_type::real;
  }
  return at == text.size() ? type : json_type::null;
}

class line_reader {
 public:
  line_reader(ondemand::parser& parser, event_checker& checker, event_block& block) noexcept
      : parser_(parser), checker_(checker), block_(block) {}

  fault_kind read(std::string_view line, event& into) {
    ondemand::document document;
    const auto started = parser_
                             .iterate(simdjson::padded_string_view(
                                 line.data(), line.size(), line.size() + event_block::padding))
                             .get(document);
    if (started != simdjson::SUCCESS) return failed(started);
    ondemand::json_type type{};
    if (const auto error = document.type().get(type); error != 0) return failed(error);
    if (type != ondemand::json_type::object) return not_object(document, type, line);
    ondemand::object object;
    if (const auto error = document.get_object().get(object); error != 0) return failed(error);
    checker_.begin();
    fault_kind first = fault_kind::none;
    for (auto field : object) {
      // A fault of the schema is told only if the line is JSON at all, so the walk goes on.
      const fault_kind fault = read_field(field, into, first == fault_kind::none);
      if (fault == fault_kind::none) continue;
      if (fault == fault_kind::syntax || fault == fault_kind::not_utf8) return fault;
      first = fault;
    }
    if (!document.current_location().error()) return failed("bytes follow the object");
    if (first != fault_kind::none) return first;
    return checker_.finish(into);
  }

  [[nodiscard]] const std::string& error() const noexcept { return error_; }

 private:
  template <class Field>
  fault_kind read_field(Field& field, event& into, bool check) {
    if (field.error() != simdjson::SUCCESS) return failed(field.error());
    std::string_view name;
    if (const auto error = name_of(field, name); error != simdjson::SUCCESS) return failed(error);
    const std::size_t rule = check ? checker_.find(name) : event_checker::no_rule;
    ondemand::value value;
    if (const auto error = field.value().get(value); error != 0) return failed(error);
    field_value seen;
    const bool kept = rule != event_checker::no_rule;
    const fault_kind fault = read_value(value, seen, kept, deepest);
    if (fault != fault_kind::none || !kept) return fault;
    return checker_.field(rule, seen, into);
  }

  /// A name without escapes is a view of the line.
  template <class Field>
  simdjson::error_code name_of(Field& field, std::string_view& name) {
    ondemand::raw_json_string raw;
    if (const auto error = field.key().get(raw); error != 0) return error;
    const char* begin = raw.raw();
    const char* end = begin;
    while (*end != '"' && *end != '\\')
      ++end;
    if (*end == '"') {
      name = {begin, static_cast<std::size_t>(end - begin)};
      return simdjson::SUCCESS;
    }
    return field.unescaped_key().get(name);
  }

  fault_kind read_value(ondemand::value& value, field_value& seen, bool kept, int levels) {
    const std::string_view token = trimmed(value.raw_json_token());
    if (token.empty()) return failed("a value is missing");
    switch (token.front()) {
      case '"': return read_string(value, token, seen, kept);
      case '{':
        seen.type = json_type::object;
        return levels == 0 ? failed("it is nested too deeply") : walk_object(value, levels - 1);
      case '[':
        seen.type = json_type::array;
        return levels == 0 ? failed("it is nested too deeply") : walk_array(value, levels - 1);
      case 't':
      case 'f':
        seen = {json_type::boolean, token};
        return token == "true" || token == "false" ? fault_kind::none : failed(token);
      case 'n':
        seen = {json_type::null, token};
        return token == "null" ? fault_kind::none : failed(token);
      default: return read_number(token, seen);
    }
  }

  fault_kind read_string(ondemand::value& value, std::string_view token, field_value& seen,
                         bool kept) {
    seen.type = json_type::string;
    if (token.size() < 2 || token.back() != '"') return failed(token);
    const std::string_view inside = token.substr(1, token.size() - 2);
    if (std::memchr(inside.data(), '\\', inside.size()) == nullptr) {
      seen.text = inside;
      // Taken, not passed over: simdjson would take a string it passes over for a key if a colon
      // follows, and so let `"a":"b":"c"` through.
      ondemand::raw_json_string taken;
      const auto error = value.get_raw_json_string().get(taken);
      return error == simdjson::SUCCESS ? fault_kind::none : failed(error);
    }
    std::string_view unescaped;
    if (const auto error = value.get_string().get(unescaped); error != 0) return failed(error);
    if (kept) seen.text = block_.keep(unescaped);
    return fault_kind::none;
  }

  fault_kind read_number(std::string_view token, field_value& seen) {
    seen = {number_type(token), token};
    if (seen.type == json_type::null) return failed(token);
    if (seen.type == json_type::integer) {
      const char* end = token.data() + token.size();
      const auto parsed = std::from_chars(token.data(), end, seen.integer);
      if (parsed.ec != std::errc{}) seen.type = json_type::real;
    }
    return fault_kind::none;
  }

  fault_kind walk_object(ondemand::value& value, int levels) {
    ondemand::object object;
    if (const auto error = value.get_object().get(object); error != 0) return failed(error);
    for (auto field : object) {
      if (field.error() != simdjson::SUCCESS) return failed(field.error());
      std::string_view name;
      if (const auto error = name_of(field, name); error != 0) return failed(error);
      ondemand::value inner;
      if (const auto error = field.value().get(inner); error != 0) return failed(error);
      field_value ignored;
      const fault_kind fault = read_value(inner, ignored, false, levels);
      if (fault != fault_kind::none) return fault;
    }
    return fault_kind::none;
  }

  fault_kind walk_array(ondemand::value& value, int levels) {
    ondemand::array array;
    if (const auto error = value.get_array().get(array); error != 0) return failed(error);
    for (auto element : array) {
      ondemand::value inner;
      if (const auto error = element.get(inner); error != 0) return failed(error);
      field_value ignored;
      const fault_kind fault = read_value(inner, ignored, false, levels);
      if (fault != fault_kind::none) return fault;
    }
    return fault_kind::none;
  }

  /// An array or a scalar is a fault of its own, but only if it is JSON. Numbers are judged here:
  /// the DOM refuses those that do not fit its types.
  fault_kind not_object(ondemand::document& document, ondemand::json_type type,
                        std::string_view line) {
    fault_kind fault = fault_kind::none;
    if (type == ondemand::json_type::array) {
      fault = read_array(document);
    } else if (type == ondemand::json_type::number) {
      field_value ignored;
      fault = read_number(trimmed(line.substr(line.find_first_not_of(" \t\r"))), ignored);
    } else {
      simdjson::dom::parser whole;
      const auto error = whole.parse(line.data(), line.size()).error();
      if (error != simdjson::SUCCESS) fault = failed(error);
    }
    if (fault != fault_kind::none) return fault;
    error_ = "the line is not a JSON object";
    return fault_kind::not_an_object;
  }

  fault_kind read_array(ondemand::document& document) {
    ondemand::value whole;
    if (const auto error = document.get_value().get(whole); error != 0) return failed(error);
    const fault_kind fault = walk_array(whole, deepest);
    if (fault != fault_kind::none) return fault;
    const bool ended = document.current_location().error() != simdjson::SUCCESS;
    return ended ? fault_kind::none : failed("bytes follow the array");
  }

  fault_kind failed(simdjson::error_code error) {
    error_ = error == simdjson::EMPTY ? "nothing but white space" : simdjson::error_message(error);
    while (!error_.empty() && (error_.back() == '.' || error_.back() == ' '))
      error_.pop_back();
    return error == simdjson::UTF8_ERROR ? fault_kind::not_utf8 : fault_kind::syntax;
  }
  fault_kind failed(std::string_view token) {
    error_ = token.find(' ') != std::string_view::npos && token.front() != '"'
                 ? std::string(token)
                 : "not a JSON value: " + std::string(token.substr(0, 60));
    return fault_kind::syntax;
  }

  ondemand::parser& parser_;
  event_checker& checker_;
  event_block& block_;
  std::string error_;
};

}  // namespace

struct json_parser::state {
  explicit state(veltrix::event_schema rules) : schema(std::move(rules)), checker(schema) {}

  ondemand::parser parser;
  veltrix::event_schema schema;
  event_checker checker;  // refers to schema
  std::string error;
  std::string chosen;  // events.schema, as configure() saw it last
};

veltrix::event_schema schema_of(const veltrix::config_snapshot& config) {
  const std::string_view chosen = config.text(veltrix::key::events_schema);
  if (chosen == "journal") return veltrix::event_schema::journal();
  if (chosen == "any") {
    return veltrix::event_schema::any(std::string(config.text(veltrix::key::events_key_field)),
                                      std::string(config.text(veltrix::key::events_ts_field)));
  }
  return veltrix::event_schema::built_in();
}

void json_parser::configure(const veltrix::config_snapshot& config) {
  const std::string_view chosen = config.text(veltrix::key::events_schema);
  if (chosen == state_->chosen) return;  // the names of the fields change only with a restart
  state_ = std::make_unique<state>(schema_of(config));
  state_->chosen = chosen;
}

json_parser::json_parser(const veltrix::event_schema& schema)
    : state_(std::make_unique<state>(schema)) {}
json_parser::~json_parser() = default;

fault_kind json_parser::parse(event_block& block, const raw_line& line, event& into) {
  line_reader reader(state_->parser, state_->checker, block);
  const std::string_view text = block.text().substr(line.begin, line.length);
  const fault_kind fault = reader.read(text, into);
  if (fault == fault_kind::none) {
    into.text = text;
    into.number = line.number;
    into.offset = line.offset;
  } else {
    state_->error = reader.error();
  }
  return fault;
}

std::string json_parser::reason(fault_kind kind) const {
  switch (kind) {
    case fault_kind::syntax:
    case fault_kind::not_an_object: return state_->error;
    case fault_kind::not_utf8: return "the line is not valid UTF-8";
    default: return state_->checker.reason(kind);
  }
}

}  // namespace veltrix_worker
