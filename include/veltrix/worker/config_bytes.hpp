// What holds for the bytes of every configuration, YAML or JSON: size, encoding, characters.
// Use for: the first look at a file, before it is parsed.
// Not for: text with a meaning; see config_text.hpp.
// Threads: pure functions.
// Progress: one pass, linear in the bytes.
// Callbacks: none.
// Exceptions: std::bad_alloc.
// Lifetime: results own their texts.
// Guide: docs/worker_config.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "../detail/config.hpp"
#include "../version.hpp"
#include "diagnostic.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// A place in a text; both from 1, columns in bytes.
struct text_position {
  std::size_t line = 0;
  std::size_t column = 0;

  friend constexpr bool operator==(const text_position&, const text_position&) = default;
  friend constexpr auto operator<=>(const text_position&, const text_position&) = default;
};

namespace detail {

inline constexpr std::size_t most_config_bytes = 1024 * 1024;
inline constexpr std::size_t most_levels = 8;
/// More faults than these are counted and not described.
inline constexpr std::size_t most_faults = 100;

[[nodiscard]] inline text_position position_of(std::string_view bytes, std::size_t offset) {
  const std::string_view before = bytes.substr(0, offset);
  const auto lines = static_cast<std::size_t>(std::ranges::count(before, '\n'));
  const std::size_t start = before.rfind('\n') + 1;  // npos + 1 is 0
  return {lines + 1, offset - start + 1};
}

/// The length of the UTF-8 sequence that `bytes` starts with, 0 if it is not one.
[[nodiscard]] inline std::size_t utf8_length(std::string_view bytes) noexcept {
  const auto byte = [&](std::size_t at) -> std::uint32_t {
    return at < bytes.size() ? static_cast<unsigned char>(bytes[at]) : 0U;
  };
  const std::uint32_t lead = byte(0);
  if (lead < 0x80) return 1;
  const std::size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4) return 0;
  std::uint32_t point = lead & (0x7FU >> length);
  for (std::size_t at = 1; at < length; ++at) {
    if ((byte(at) & 0xC0U) != 0x80U) return 0;
    point = point << 6U | (byte(at) & 0x3FU);
  }
  const bool overlong = (length == 3 && point < 0x800) || (length == 4 && point < 0x10000);
  const bool surrogate = point >= 0xD800 && point <= 0xDFFF;
  return overlong || surrogate || point > 0x10FFFF ? 0 : length;
}

/// A byte as a message shows it: "0xff".
[[nodiscard]] inline std::string hex_byte(char letter) {
  constexpr std::string_view digits = "0123456789abcdef";
  const auto byte = static_cast<unsigned char>(letter);
  return {'0', 'x', digits[byte >> 4U], digits[byte & 15U]};
}

/// What holds for the bytes of every configuration, YAML or JSON. One fault at most: what follows
/// it could not be trusted.
[[nodiscard]] inline std::optional<diagnostic> check_bytes(std::string_view bytes,
                                                           std::string_view file_name) {
  diagnostic fault{.file = std::string(file_name)};
  if (bytes.size() > most_config_bytes) {
    fault.code = diagnostic_code::file_too_large;
    fault.what = "file of";
    fault.got = std::to_string(bytes.size()) + " bytes";
    fault.allowed = "at most 1048576 are read";
    fault.next = "check that the path names a configuration";
    return fault;
  }
  const auto at = [&](std::size_t offset) {
    const text_position place = position_of(bytes, offset);
    fault.line = place.line;
    fault.column = place.column;
  };
  for (const std::string_view mark : {"\xEF\xBB\xBF", "\xFE\xFF", "\xFF\xFE"}) {
    if (!bytes.starts_with(mark)) continue;
    at(0);
    fault.code = diagnostic_code::byte_order_mark;
    fault.what = "byte order mark";
    fault.got = hex_byte(mark[0]);
    fault.allowed = "plain UTF-8 has none";
    fault.next = "save the file as UTF-8 without a mark";
    return fault;
  }
  for (std::size_t offset = 0; offset < bytes.size();) {
    const char letter = bytes[offset];
    const std::size_t length = utf8_length(bytes.substr(offset));
    const bool line_end = letter == '\n' || (letter == '\r' && bytes.substr(offset + 1, 1) == "\n");
    const bool control = static_cast<unsigned char>(letter) < 0x20 || letter == 0x7F;
    if (length != 0 && (!control || line_end || letter == '\t')) {
      offset += length;
      continue;
    }
    at(offset);
    fault.code = length == 0 ? diagnostic_code::not_utf8 : diagnostic_code::control_character;
    fault.what = length == 0 ? "byte" : "control character";
    fault.got = hex_byte(letter);
    fault.allowed = length == 0 ? "it is not part of any UTF-8 character"
                                : "only spaces and line ends are allowed";
    fault.next = length == 0 ? "save the file as UTF-8" : "remove it";
    return fault;
  }
  return std::nullopt;
}

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
