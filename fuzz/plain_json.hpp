// A plain, slow reader of one line of JSON, to compare the worker's fast one with. It keeps what a
// schema may ask for: the fields of the outermost object, in order, unescaped.
// Source: RFC 8259; of UTF-8, RFC 3629.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "veltrix/worker/event_schema.hpp"

namespace veltrix_fuzz {

struct plain_field {
  std::string name;
  veltrix::json_type type = veltrix::json_type::null;
  std::string text;  // a string unescaped; anything else as it is written
  std::int64_t integer = 0;
};

struct plain_line {
  veltrix::fault_kind fault = veltrix::fault_kind::none;  // of JSON, not of a schema
  std::vector<plain_field> fields{};
};

/// Bytes of the UTF-8 character at the front of `text`, 0 if there is none.
inline std::size_t utf8_length(std::string_view text) {
  const auto at = [&](std::size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U;
  };
  const auto follows = [&](std::size_t i) { return (at(i) & 0xC0U) == 0x80U; };
  const unsigned first = at(0);
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return follows(1) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    if (!follows(1) || !follows(2)) return 0;
    if (first == 0xE0 && at(1) < 0xA0) return 0;  // could be shorter
    if (first == 0xED && at(1) > 0x9F) return 0;  // a surrogate
    return 3;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    if (!follows(1) || !follows(2) || !follows(3)) return 0;
    if (first == 0xF0 && at(1) < 0x90) return 0;  // could be shorter
    if (first == 0xF4 && at(1) > 0x8F) return 0;  // beyond the last character
    return 4;
  }
  return 0;
}

inline bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

inline void append_utf8(std::string& to, std::uint32_t code) {
  const auto put = [&](std::uint32_t byte) { to.push_back(static_cast<char>(byte)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | code >> 6);
    put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | code >> 12);
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | code >> 18);
    put(0x80 | (code >> 12 & 0x3F));
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  }
}

/// Recursive descent over one line. Each reader returns false when the text is no JSON.
class plain_json {
 public:
  /// `deepest` containers may stand in each other inside the outermost object.
  plain_json(std::string_view text, int deepest) : rest_(text), deepest_(deepest) {}

  plain_line read() {
    plain_line line;
    skip_space();
    const bool object = !rest_.empty() && rest_.front() == '{';
    const bool good = object ? read_object(&line.fields, deepest_) : read_other();
    skip_space();
    if (!good || !rest_.empty()) {
      line.fault = veltrix::fault_kind::syntax;
    } else if (!object) {
      line.fault = veltrix::fault_kind::not_an_object;
    }
    return line;
  }

 private:
  bool read_other() {
    plain_field ignored;
    return read_value(ignored, deepest_ + 1);
  }

  void skip_space() {
    while (!rest_.empty() && std::string_view(" \t\r\n").find(rest_.front()) != rest_.npos)
      rest_.remove_prefix(1);
  }
  bool take(char letter) {
    skip_space();
    if (rest_.empty() || rest_.front() != letter) return false;
    rest_.remove_prefix(1);
    return true;
  }
  bool take_word(std::string_view word) {
    if (!rest_.starts_with(word)) return false;
    rest_.remove_prefix(word.size());
    return true;
  }

  bool read_object(std::vector<plain_field>* fields, int levels) {
    if (!take('{')) return false;
    if (take('}')) return true;
    do {
      plain_field field;
      skip_space();
      if (!read_string(field.name) || !take(':') || !read_value(field, levels)) return false;
      if (fields != nullptr) fields->push_back(field);
    } while (take(','));
    return take('}');
  }
  bool read_array(int levels) {
    if (!take('[')) return false;
    if (take(']')) return true;
    do {
      plain_field ignored;
      if (!read_value(ignored, levels)) return false;
    } while (take(','));
    return take(']');
  }

  bool read_value(plain_field& field, int levels) {
    using enum veltrix::json_type;
    skip_space();
    if (rest_.empty()) return false;
    switch (rest_.front()) {
      case '"': field.type = string; return read_string(field.text);
      case '{': field.type = object; return levels > 0 && read_object(nullptr, levels - 1);
      case '[': field.type = array; return levels > 0 && read_array(levels - 1);
      case 't': field.type = boolean; return take_word("true");
      case 'f': field.type = boolean; return take_word("false");
      case 'n': field.type = null; return take_word("null");
      default: return read_number(field);
    }
  }

  std::size_t read_digits() {
    std::size_t count = 0;
    for (; !rest_.empty() && rest_.front() >= '0' && rest_.front() <= '9'; ++count)
      rest_.remove_prefix(1);
    return count;
  }
  bool read_number(plain_field& field) {
    const std::string_view start = rest_;
    field.type = veltrix::json_type::integer;
    static_cast<void>(take_word("-"));
    const bool zero = rest_.starts_with('0');
    const std::size_t whole = read_digits();
    if (whole == 0 || (zero && whole > 1)) return false;
    if (take_word(".")) {
      field.type = veltrix::json_type::real;
      if (read_digits() == 0) return false;
    }
    if (take_word("e") || take_word("E")) {
      field.type = veltrix::json_type::real;
      if (!take_word("+")) static_cast<void>(take_word("-"));
      if (read_digits() == 0) return false;
    }
    field.text = start.substr(0, start.size() - rest_.size());
    if (field.type != veltrix::json_type::integer) return true;
    const char* const end = field.text.data() + field.text.size();
    // An integer that 64 bits cannot hold counts as a real.
    if (std::from_chars(field.text.data(), end, field.integer).ec != std::errc{}) {
      field.type = veltrix::json_type::real;
    }
    return true;
  }

  bool read_string(std::string& text) {
    if (rest_.empty() || rest_.front() != '"') return false;
    rest_.remove_prefix(1);
    while (!rest_.empty()) {
      const auto letter = static_cast<unsigned char>(rest_.front());
      if (letter == '"') {
        rest_.remove_prefix(1);
        return true;
      }
      if (letter < 0x20) return false;
      if (letter == '\\') {
        if (!read_escape(text)) return false;
      } else {
        text.push_back(rest_.front());
        rest_.remove_prefix(1);
      }
    }
    return false;
  }

  bool read_escape(std::string& text) {
    constexpr std::string_view letters = "\"\\/bfnrt";
    constexpr std::string_view meanings = "\"\\/\b\f\n\r\t";
    rest_.remove_prefix(1);
    if (rest_.empty()) return false;
    const char letter = rest_.front();
    rest_.remove_prefix(1);
    if (letter == 'u') return read_code(text);
    const std::size_t at = letters.find(letter);
    if (at == letters.npos) return false;
    text.push_back(meanings[at]);
    return true;
  }

  bool read_hex(std::uint32_t& code) {
    if (rest_.size() < 4) return false;
    const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + 4, code, 16);
    if (error != std::errc{} || end != rest_.data() + 4) return false;
    rest_.remove_prefix(4);
    return true;
  }
  /// A surrogate that stands alone is no character.
  bool read_code(std::string& text) {
    std::uint32_t code = 0;
    if (!read_hex(code)) return false;
    if (code >= 0xDC00 && code <= 0xDFFF) return false;
    if (code >= 0xD800 && code <= 0xDBFF) {
      std::uint32_t low = 0;
      if (!take_word("\\u") || !read_hex(low) || low < 0xDC00 || low > 0xDFFF) return false;
      code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    }
    append_utf8(text, code);
    return true;
  }

  std::string_view rest_;
  const int deepest_;
};

}  // namespace veltrix_fuzz
