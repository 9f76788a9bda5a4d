// SPDX-License-Identifier: BSL-1.0
#include "json_config.hpp"

#include <algorithm>
#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

namespace veltrix_worker {
namespace {

using veltrix::config_text;
using veltrix::diagnostic;
using veltrix::diagnostic_code;
using veltrix::text_position;
namespace detail = veltrix::detail;

/// Finds the places of tokens, which the JSON library does not tell. It walks the same bytes in
/// step with the library's events, so each token it meets has been found to be valid.
class token_cursor {
 public:
  explicit token_cursor(std::string_view bytes) : bytes_(bytes) {}

  struct token {
    text_position at;
    std::string_view text;
  };

  token next() {
    while (at_ < bytes_.size() && blank(bytes_[at_]))
      step();
    const text_position place{line_, at_ - line_start_ + 1};
    const std::size_t start = at_;
    if (at_ < bytes_.size()) skip_token();
    return {place, bytes_.substr(start, at_ - start)};
  }

 private:
  [[nodiscard]] static bool blank(char letter) {
    return letter == ' ' || letter == '\t' || letter == '\r' || letter == '\n' || letter == ',' ||
           letter == ':';
  }

  void step() {
    if (bytes_[at_++] != '\n') return;
    ++line_;
    line_start_ = at_;
  }

  void skip_token() {
    constexpr std::string_view marks = "{}[]";
    constexpr std::string_view ends = "{}[],: \t\r\n\"";
    const char first = bytes_[at_++];
    if (marks.find(first) != std::string_view::npos) return;
    if (first != '"') {
      at_ = std::min(bytes_.find_first_of(ends, at_), bytes_.size());
      return;
    }
    while (at_ < bytes_.size() && bytes_[at_] != '"')
      at_ += bytes_[at_] == '\\' ? 2 : 1;
    at_ = std::min(at_ + 1, bytes_.size());
  }

  std::string_view bytes_;
  std::size_t at_ = 0;
  std::size_t line_ = 1;
  std::size_t line_start_ = 0;
};

/// Takes the events of the JSON library. Every event consumes exactly one token.
class setting_collector final : public nlohmann::json_sax<nlohmann::json> {
 public:
  setting_collector(std::string_view bytes, std::string_view file_name)
      : bytes_(bytes), file_name_(file_name), cursor_(bytes) {}

  config_text take() {
    detail::find_duplicates(std::move(uses_), file_name_, result_.faults);
    veltrix::sort_by_place(result_.faults);
    return std::move(result_);
  }

  bool null() override {
    const auto token = cursor_.next();
    if (!ignored()) {
      report(token.at, {diagnostic_code::no_value, 0, "null value", "null", "every key has a value",
                        "give one or remove the key"});
    }
    return true;
  }

  bool boolean(bool) override { return plain(); }
  bool number_integer(number_integer_t) override { return plain(); }
  bool number_unsigned(number_unsigned_t) override { return plain(); }
  bool number_float(number_float_t, const string_t&) override { return plain(); }

  bool string(string_t& text) override {
    const auto token = cursor_.next();
    add(std::move(text), token.at, true);
    return true;
  }

  bool binary(binary_t&) override { return true; }  // JSON text has none

  bool key(string_t& name) override {
    const auto token = cursor_.next();
    if (skipped_ != 0) return true;
    named_ = detail::is_key(name);
    if (!named_) {
      report(token.at, {diagnostic_code::bad_key, 0, "key", detail::snippet(name),
                        "keys are letters, digits, _ - and dots", "correct the key"});
      return true;
    }
    path_ = prefixes_.back() + name;
    key_at_ = token.at;
    uses_.push_back({path_, key_at_});
    return true;
  }

  bool start_object(std::size_t) override {
    const auto token = cursor_.next();
    if (skipped_ != 0 || !named_) {
      ++skipped_;
    } else if (prefixes_.empty()) {
      prefixes_.emplace_back();
    } else if (prefixes_.size() >= detail::most_levels) {
      report(token.at, {diagnostic_code::too_deep, 0, "group", detail::quote_value(path_),
                        "at most 8 levels are read", "write the name with dots"});
      ++skipped_;
    } else {
      prefixes_.push_back(path_ + ".");
    }
    return true;
  }

  bool end_object() override {
    close();
    return true;
  }

  bool start_array(std::size_t) override {
    const auto token = cursor_.next();
    if (!ignored()) {
      report(token.at, {diagnostic_code::list, 0, "list", detail::quote_value(path_),
                        "no setting takes one", "give one value"});
    }
    ++skipped_;
    return true;
  }

  bool end_array() override {
    close();
    return true;
  }

  bool parse_error(std::size_t position, const std::string& last,
                   const nlohmann::json::exception& error) override {
    const std::size_t offset = std::min(position == 0 ? 0 : position - 1, bytes_.size());
    const std::string_view reason(error.what());
    const std::size_t dash = reason.rfind(" - ");
    constexpr std::size_t longest = 120;
    std::string why(dash == std::string_view::npos ? reason : reason.substr(dash + 3));
    why.resize(std::min(why.size(), longest));
    std::replace_if(
        why.begin(), why.end(),
        [](char letter) { return static_cast<unsigned char>(letter) < 0x20 || letter == 0x7F; },
        ' ');
    report(detail::position_of(bytes_, offset),
           {diagnostic_code::json_syntax, 0, "not JSON at", detail::snippet(last), std::move(why),
            "correct the text"});
    return false;
  }

 private:
  /// A value inside an array, or under a key that was refused.
  [[nodiscard]] bool ignored() const { return skipped_ != 0 || !named_; }

  void close() {
    static_cast<void>(cursor_.next());
    if (skipped_ != 0) {
      --skipped_;
    } else {
      prefixes_.pop_back();
    }
    named_ = true;
  }

  bool plain() {
    const auto token = cursor_.next();
    add(std::string(token.text), token.at, false);
    return true;
  }

  void add(std::string value, text_position at, bool quoted) {
    if (ignored()) return;
    result_.entries.push_back({.path = path_,
                               .value = std::move(value),
                               .key_at = key_at_,
                               .value_at = at,
                               .quoted = quoted});
  }

  void report(text_position at, detail::line_fault fault) {
    result_.faults.push_back({.code = fault.code,
                              .file = std::string(file_name_),
                              .line = at.line,
                              .column = at.column,
                              .what = std::move(fault.what),
                              .got = std::move(fault.got),
                              .allowed = std::move(fault.allowed),
                              .next = std::move(fault.next)});
  }

  std::string_view bytes_;
  std::string_view file_name_;
  token_cursor cursor_;
  std::vector<std::string> prefixes_{};  // of the open groups; the first is empty
  std::size_t skipped_ = 0;              // open brackets that are read over
  bool named_ = true;                    // the newest key can be one
  std::string path_{};
  text_position key_at_{};
  std::vector<detail::path_use> uses_{};
  config_text result_{};
};

}  // namespace

config_text parse_json(std::string_view bytes, std::string_view file_name) {
  if (auto fault = detail::check_bytes(bytes, file_name)) return {.faults = {std::move(*fault)}};
  const std::size_t first = std::min(bytes.find_first_not_of(" \t\r\n"), bytes.size());
  if (bytes.substr(first, 1) != "{") {
    const text_position at = detail::position_of(bytes, first);
    return {.faults = {{.code = diagnostic_code::json_syntax,
                        .file = std::string(file_name),
                        .line = at.line,
                        .column = at.column,
                        .what = "not a JSON object:",
                        .got = detail::snippet(bytes.substr(first)),
                        .allowed = "a configuration is one object",
                        .next = "start it with {"}}};
  }
  setting_collector collector(bytes, file_name);
  static_cast<void>(nlohmann::json::sax_parse(bytes.begin(), bytes.end(), &collector));
  return collector.take();
}

config_text parse_config_text(std::string_view bytes, std::string_view file_name) {
  const std::size_t first = bytes.find_first_not_of(" \t\r\n");
  const bool json = first != std::string_view::npos && bytes[first] == '{';
  return json ? parse_json(bytes, file_name) : veltrix::parse_yaml(bytes, file_name);
}

}  // namespace veltrix_worker
