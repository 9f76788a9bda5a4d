// Reads a strict subset of YAML into a flat list of settings, each with its place in the file.
// Use for: the bytes of a configuration file, before any of them is given a meaning.
// Not for: YAML in general: lists, braces, anchors, tags, block scalars and documents are refused.
// Threads: a pure function.
// Progress: one pass, linear in the bytes; allocates.
// Callbacks: none.
// Exceptions: std::bad_alloc.
// Lifetime: the result owns its texts.
// Guide: docs/worker_config.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../detail/config.hpp"
#include "../version.hpp"
#include "config_bytes.hpp"
#include "diagnostic.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// One `key: value`, wherever it was nested.
struct text_entry {
  std::string path;   ///< "workers.min"
  std::string value;  ///< without quotes and escapes
  text_position key_at{};
  text_position value_at{};
  bool quoted = false;  ///< the value stood in quotes, so it is a text and not a number

  friend bool operator==(const text_entry&, const text_entry&) = default;
};

/// What a text says, and every fault in it. With faults, the entries that could be read are there
/// too, so that they can be checked in the same run.
struct config_text {
  std::vector<text_entry> entries{};
  std::vector<diagnostic> faults{};
};

namespace detail {

/// True for the characters of a key; dots join the names of groups.
[[nodiscard]] constexpr bool is_key_letter(char letter) noexcept {
  return (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z') ||
         (letter >= '0' && letter <= '9') || letter == '_' || letter == '-' || letter == '.';
}

/// True for `a`, `a.b`, `a-b_9`: no empty part, no leading digit or hyphen.
[[nodiscard]] constexpr bool is_key(std::string_view name) noexcept {
  bool part_starts = true;
  for (const char letter : name) {
    if (!is_key_letter(letter)) return false;
    if (part_starts && (letter == '.' || letter == '-' || (letter >= '0' && letter <= '9'))) {
      return false;
    }
    part_starts = letter == '.';
  }
  return !part_starts;
}

/// One place where a path was written, as a setting or as a group.
struct path_use {
  std::string path;
  text_position at{};
};

/// Adds a fault for each path that stands twice.
inline void find_duplicates(std::vector<path_use> uses, std::string_view file_name,
                            std::vector<diagnostic>& faults) {
  std::ranges::stable_sort(uses, [](const path_use& left, const path_use& right) {
    return left.path != right.path ? left.path < right.path : left.at < right.at;
  });
  const path_use* first = nullptr;
  for (const path_use& use : uses) {
    if (first == nullptr || first->path != use.path) {
      first = &use;
      continue;
    }
    faults.push_back({.code = diagnostic_code::duplicate_key,
                      .file = std::string(file_name),
                      .line = use.at.line,
                      .column = use.at.column,
                      .what = "second",
                      .got = quote_value(use.path),
                      .allowed = "the first is in line " + std::to_string(first->at.line),
                      .next = "remove one"});
  }
}

/// A piece of the file in a message.
[[nodiscard]] inline std::string snippet(std::string_view text) {
  return "'" + quote_value(text) + "'";
}

/// A scalar and what follows it on its line.
struct scalar {
  std::string value{};
  bool quoted = false;
};

/// A fault of one line, before it has a line number.
struct line_fault {
  diagnostic_code code;
  std::size_t column;  ///< from 0
  std::string what;
  std::string got;
  std::string allowed;
  std::string next;
};

/// Reads the value of one line. I1: at_ is never past the end of line_.
class scalar_reader {
 public:
  /// `line` has no line end; the value starts at `start`.
  scalar_reader(std::string_view line, std::size_t start) : line_(line), at_(start) {}

  [[nodiscard]] std::optional<line_fault> read(scalar& result) {
    const char first = line_[at_];
    if (first == '\'') return read_single(result);
    if (first == '"') return read_double(result);
    return read_plain(result);
  }

 private:
  [[nodiscard]] line_fault unclosed(std::size_t start) const {
    return {diagnostic_code::open_quote,
            start,
            "quoted text",
            snippet(line_.substr(start)),
            "it does not end on its line",
            "close the quote"};
  }

  [[nodiscard]] std::optional<line_fault> read_single(scalar& result) {
    const std::size_t start = at_++;
    result.quoted = true;
    for (; at_ < line_.size(); ++at_) {
      if (line_[at_] != '\'') {
        result.value.push_back(line_[at_]);
      } else if (line_.substr(at_ + 1, 1) == "'") {
        result.value.push_back(line_[++at_]);
      } else {
        ++at_;
        return read_rest();
      }
    }
    return unclosed(start);
  }

  [[nodiscard]] std::optional<line_fault> read_double(scalar& result) {
    const std::size_t start = at_++;
    result.quoted = true;
    while (at_ < line_.size()) {
      const char letter = line_[at_];
      if (letter == '"') {
        ++at_;
        return read_rest();
      }
      if (letter != '\\') {
        result.value.push_back(letter);
        ++at_;
      } else if (auto fault = read_escape(result.value)) {
        return fault;
      }
    }
    return unclosed(start);
  }

  [[nodiscard]] std::optional<line_fault> read_escape(std::string& value) {
    constexpr std::string_view names = "\"\\/tnr";
    constexpr std::string_view means = "\"\\/\t\n\r";
    const std::string_view name = line_.substr(at_ + 1, 1);
    const std::size_t found = name.empty() ? std::string_view::npos : names.find(name);
    if (found == std::string_view::npos) {
      return line_fault{diagnostic_code::bad_escape,
                        at_,
                        "escape",
                        snippet(line_.substr(at_, 2)),
                        R"(known are \" \\ \/ \t \n \r)",
                        R"(write \\ for a backslash, or use single quotes)"};
    }
    value.push_back(means[found]);
    at_ += 2;
    return std::nullopt;
  }

  /// After a closing quote: nothing, or a comment with a space before it.
  [[nodiscard]] std::optional<line_fault> read_rest() const {
    const std::size_t text = line_.find_first_not_of(' ', at_);
    if (text == std::string_view::npos || (line_[text] == '#' && text > at_)) return std::nullopt;
    return line_fault{diagnostic_code::text_after_quote, text,
                      "text after the closing quote",    snippet(line_.substr(text)),
                      "only a comment may follow",       "move it inside the quotes or remove it"};
  }

  [[nodiscard]] std::optional<line_fault> read_plain(scalar& result) {
    const std::size_t comment = line_.find(" #", at_);
    std::string_view text = line_.substr(
        at_, comment == std::string_view::npos ? std::string_view::npos : comment - at_);
    text = text.substr(0, text.find_last_not_of(' ') + 1);
    if (const std::size_t tab = text.find('\t'); tab != std::string_view::npos) {
      return line_fault{diagnostic_code::tab,
                        at_ + tab,
                        "tab in",
                        snippet(text),
                        "a plain value has none",
                        R"(use spaces, or "\t" in double quotes)"};
    }
    if (auto fault = check_first(text)) return fault;
    if (text == "~" || text == "null" || text == "Null" || text == "NULL") {
      return line_fault{diagnostic_code::no_value,
                        at_,
                        "null value",
                        std::string(text),
                        "every key has a value",
                        "give one or remove the key"};
    }
    const std::size_t colon = text.ends_with(':') ? text.size() - 1 : text.find(": ");
    if (colon != std::string_view::npos) {
      return line_fault{diagnostic_code::quotes_needed,
                        at_ + colon,
                        "colon in",
                        snippet(text),
                        "YAML would read a key there",
                        "put the value in quotes"};
    }
    result.value = std::string(text);
    return std::nullopt;
  }

  /// What YAML would read by its first character as something else than a plain value.
  [[nodiscard]] std::optional<line_fault> check_first(std::string_view text) const {
    const auto refuse = [&](diagnostic_code code, const char* what, const char* allowed,
                            const char* next) {
      return line_fault{code, at_, what, snippet(text), allowed, next};
    };
    switch (text.front()) {
      case '[':
      case '{':
        return refuse(diagnostic_code::flow_collection, "flow collection",
                      "only nested lines are read", "write one `key: value` a line");
      case '&':
      case '*':
      case '!':
        return refuse(diagnostic_code::anchor_or_tag, "anchor, alias or tag",
                      "values are written out", "write the value, in quotes if it starts so");
      case '|':
      case '>':
        return refuse(diagnostic_code::block_scalar, "block scalar", "a value ends on its line",
                      "write it on one line, in quotes if needed");
      case '@':
      case '`':
      case '%':
      case ',':
      case ']':
      case '}':
        return refuse(diagnostic_code::quotes_needed, "value", "YAML reserves its first character",
                      "put the value in quotes");
      case '-':
      case '?':
        if (text.size() > 1 && text[1] != ' ') return std::nullopt;
        return refuse(diagnostic_code::list, "list", "no setting takes one",
                      "give one value, in quotes if it starts so");
      default: return std::nullopt;
    }
  }

  std::string_view line_;
  std::size_t at_;
};

/// Reads the lines of a file. I1: levels_ is never empty and its indents grow strictly.
/// I2: pending_ is the group, if any, whose first line has not come yet; it is the newest key.
class yaml_reader {
 public:
  yaml_reader(std::string_view bytes, std::string_view file_name)
      : rest_(bytes), file_name_(file_name) {}

  [[nodiscard]] config_text read() {
    while (!rest_.empty()) {
      const std::size_t end = rest_.find('\n');
      std::string_view line = rest_.substr(0, end);
      rest_.remove_prefix(end == std::string_view::npos ? rest_.size() : end + 1);
      if (line.ends_with('\r')) line.remove_suffix(1);
      ++number_;
      read_line(line);
    }
    close_pending();
    find_duplicates(std::move(uses_), file_name_, result_.faults);
    return std::move(result_);
  }

 private:
  struct level {
    std::size_t indent;
    std::string prefix;  ///< "workers.", or empty at the top
  };

  struct open_group {
    std::size_t indent;
    std::string path;
    text_position at;
  };

  void report(std::size_t indent, line_fault fault) {
    // The lines below a faulty one belong to it: their faults would be its echoes.
    skip_below_ = indent;
    const bool echo = fault.code == diagnostic_code::list && last_list_ == indent;
    if (fault.code == diagnostic_code::list) last_list_ = indent;
    if (echo) return;
    result_.faults.push_back({.code = fault.code,
                              .file = std::string(file_name_),
                              .line = number_,
                              .column = fault.column + 1,
                              .what = std::move(fault.what),
                              .got = std::move(fault.got),
                              .allowed = std::move(fault.allowed),
                              .next = std::move(fault.next)});
  }

  void close_pending() {
    if (!pending_) return;
    result_.faults.push_back({.code = diagnostic_code::no_value,
                              .file = std::string(file_name_),
                              .line = pending_->at.line,
                              .column = pending_->at.column,
                              .what = "nothing after",
                              .got = quote_value(pending_->path),
                              .allowed = "every key has a value or nested lines",
                              .next = "give it a value or remove it"});
    pending_.reset();
  }

  void read_line(std::string_view line) {
    const std::size_t indent = std::min(line.find_first_not_of(' '), line.size());
    const std::string_view content = line.substr(indent);
    const std::size_t visible = content.find_first_not_of(" \t");
    if (visible == std::string_view::npos || content.front() == '#') return;
    if (skip_below_ && indent > *skip_below_) return;
    skip_below_.reset();
    if (content.front() == '\t') {
      pending_.reset();
      return report(indent, {diagnostic_code::tab, indent, "indented with", "a tab",
                             "only spaces indent", "replace it by spaces"});
    }
    if (indent == 0 && is_marker(content)) {
      return report(0, {diagnostic_code::second_document, 0, "document marker", snippet(content),
                        "a file is one document without directives", "remove the line"});
    }
    if (!enter(indent)) return;
    read_entry(line, indent);
  }

  [[nodiscard]] static bool is_marker(std::string_view content) {
    const bool dots = content.starts_with("---") || content.starts_with("...");
    return (dots && (content.size() == 3 || content[3] == ' ')) || content.starts_with('%');
  }

  /// Finds the level of a line. False: the line fits none and was reported.
  [[nodiscard]] bool enter(std::size_t indent) {
    if (pending_ && indent > pending_->indent) {
      if (levels_.size() >= most_levels) {
        report(pending_->indent,
               {diagnostic_code::too_deep, indent, "group", quote_value(pending_->path),
                "at most 8 levels are read", "write the name with dots"});
        pending_.reset();
        return false;
      }
      levels_.push_back({indent, pending_->path + "."});
      pending_.reset();
      return true;
    }
    close_pending();
    if (indent > levels_.back().indent) {
      report(levels_.back().indent,
             {diagnostic_code::bad_indentation, indent, "indentation of", count_spaces(indent),
              "no group is open above it, and a value ends on its line",
              "indent it by " + count_spaces(levels_.back().indent)});
      return false;
    }
    std::size_t inner = indent;
    while (indent < levels_.back().indent && levels_.size() > 1) {
      inner = levels_.back().indent;
      levels_.pop_back();
    }
    const std::size_t outer = levels_.back().indent;
    if (indent == outer) return true;
    report(outer, {diagnostic_code::bad_indentation, indent, "indentation of", count_spaces(indent),
                   "no open group has it",
                   "indent it by " + std::to_string(outer) + " or " + count_spaces(inner)});
    return false;
  }

  [[nodiscard]] static std::string count_spaces(std::size_t count) {
    return std::to_string(count) + (count == 1 ? " space" : " spaces");
  }

  void read_entry(std::string_view line, std::size_t indent) {
    std::size_t end = indent;
    while (end < line.size() && is_key_letter(line[end]))
      ++end;
    const std::string_view name = line.substr(indent, end - indent);
    if (auto fault = check_key(line, indent, name)) return report(indent, std::move(*fault));
    std::size_t value = std::min(line.find_first_not_of(' ', end + 1), line.size());
    const bool comment = value < line.size() && line[value] == '#' && value > end + 1;
    std::string path = levels_.back().prefix + std::string(name);
    const text_position key_at{number_, indent + 1};
    uses_.push_back({path, key_at});
    if (value == line.size() || comment) {
      pending_ = open_group{indent, std::move(path), key_at};
      return;
    }
    scalar read;
    if (auto fault = scalar_reader(line, value).read(read)) {
      return report(indent, std::move(*fault));
    }
    result_.entries.push_back({.path = std::move(path),
                               .value = std::move(read.value),
                               .key_at = key_at,
                               .value_at = {number_, value + 1},
                               .quoted = read.quoted});
  }

  /// `name` is the run of key letters at `indent`.
  [[nodiscard]] static std::optional<line_fault> check_key(std::string_view line,
                                                           std::size_t indent,
                                                           std::string_view name) {
    const std::string_view content = line.substr(indent);
    const std::string_view after = content.substr(name.size());
    const auto refuse = [&](diagnostic_code code, const char* what, const char* allowed,
                            const char* next) {
      return line_fault{code, indent, what, snippet(content), allowed, next};
    };
    if (content == "-" || content.starts_with("- ")) {
      return refuse(diagnostic_code::list, "list", "no setting takes one", "write `key: value`");
    }
    if (content.front() == '{' || content.front() == '[') {
      return refuse(diagnostic_code::flow_collection, "flow collection",
                    "only nested lines are read", "write one `key: value` a line");
    }
    if (content.front() == '&' || content.front() == '*' || content.front() == '!') {
      return refuse(diagnostic_code::anchor_or_tag, "anchor, alias or tag",
                    "values are written out", "write the key and its value");
    }
    if (after.starts_with(':') && is_key(name)) {
      if (after.size() == 1 || after[1] == ' ') return std::nullopt;
      if (after[1] == '\t') {
        return line_fault{
            diagnostic_code::tab, indent + name.size() + 1,      "tab after",
            quote_value(name),    "one space follows the colon", "replace it by a space"};
      }
      return refuse(diagnostic_code::not_key_and_value, "line", "a space follows the colon",
                    "write `key: value`");
    }
    if (content.find(':') == std::string_view::npos) {
      return refuse(diagnostic_code::not_key_and_value, "line", "it has no colon",
                    "write `key: value`");
    }
    return refuse(diagnostic_code::bad_key, "key in",
                  "keys are letters, digits, _ - and dots, without quotes and spaces",
                  "correct the key");
  }

  std::string_view rest_;
  std::string_view file_name_;
  std::size_t number_ = 0;
  std::vector<level> levels_{{0, {}}};
  std::optional<open_group> pending_{};
  std::optional<std::size_t> skip_below_{};
  std::optional<std::size_t> last_list_{};
  std::vector<path_use> uses_{};
  config_text result_{};
};

/// Keeps the first faults and says how many more there are.
inline void limit_faults(std::vector<diagnostic>& faults, std::string_view file_name) {
  if (faults.size() <= most_faults) return;
  const std::size_t more = faults.size() - most_faults;
  faults.resize(most_faults);
  faults.push_back({.code = diagnostic_code::too_many_faults,
                    .file = std::string(file_name),
                    .what = "and",
                    .got = std::to_string(more) + (more == 1 ? " more fault" : " more faults"),
                    .allowed = std::to_string(most_faults) + " are printed",
                    .next = "correct these first"});
}

}  // namespace detail

/// Reads `bytes` as the YAML subset. `file_name` is what messages call it. Every fault is reported,
/// but for those that only follow from another.
[[nodiscard]] inline config_text parse_yaml(std::string_view bytes, std::string_view file_name) {
  if (auto fault = detail::check_bytes(bytes, file_name)) return {.faults = {std::move(*fault)}};
  return detail::yaml_reader(bytes, file_name).read();
}

}  // namespace VELTRIX_ABI
}  // namespace veltrix
