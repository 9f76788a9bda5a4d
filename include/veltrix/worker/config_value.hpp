// Turns the text of one setting into a value of its field, and a value back into text.
// Use for: the config engine; every way to write a number, a size or a duration is decided here.
// Not for: bounds that depend on the host or on other settings; see config.hpp.
// Threads: pure functions.
// Progress: linear in the text; allocates.
// Callbacks: none.
// Exceptions: std::bad_alloc.
// Lifetime: results own their texts.
// Guide: docs/worker_config.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "../detail/config.hpp"
#include "../version.hpp"
#include "config_schema.hpp"
#include "diagnostic.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// A value of a setting. Sizes and durations are integers in the field's unit.
using config_value = std::variant<std::int64_t, double, bool, std::string>;

namespace detail {

/// Why a text is not a value of its field: the parts of a diagnostic that the text decides.
struct value_fault {
  diagnostic_code code;
  std::string allowed;
  std::string next;
};

/// A value, or why there is none.
struct value_reading {
  std::optional<config_value> value{};
  std::optional<value_fault> fault{};

  value_reading(config_value read) : value(std::move(read)) {}
  value_reading(value_fault why) : fault(std::move(why)) {}
};

/// A unit and how many base units it counts: bytes or microseconds.
struct unit_name {
  std::string_view name;
  std::int64_t base;
};

inline constexpr std::array size_units{unit_name{"B", 1}, unit_name{"KiB", kib},
                                       unit_name{"MiB", mib}, unit_name{"GiB", kib* mib},
                                       unit_name{"TiB", tib}};
inline constexpr std::array duration_units{
    unit_name{"us", 1},           unit_name{"ms", 1000},        unit_name{"s", 1'000'000},
    unit_name{"min", 60'000'000}, unit_name{"h", 3600'000'000}, unit_name{"d", day_ms * 1000}};

[[nodiscard]] constexpr std::span<const unit_name> units_of(value_type type) noexcept {
  if (type == value_type::size) return size_units;
  if (type == value_type::time_span) return duration_units;
  return {};
}

/// The base units that one unit of the field counts.
[[nodiscard]] constexpr std::int64_t base_of(value_unit unit) noexcept {
  switch (unit) {
    case value_unit::kibibytes: return kib;
    case value_unit::milliseconds:
    case value_unit::written: return 1000;
    case value_unit::none:
    case value_unit::bytes:
    case value_unit::microseconds: break;
  }
  return 1;
}

/// "MiB" for the numbers of a field, or empty.
[[nodiscard]] constexpr std::string_view name_of(value_unit unit) noexcept {
  switch (unit) {
    case value_unit::bytes: return "bytes";
    case value_unit::kibibytes: return "KiB";
    case value_unit::microseconds: return "us";
    case value_unit::milliseconds:
    case value_unit::written: return "ms";
    case value_unit::none: break;
  }
  return {};
}

inline constexpr std::size_t most_decimals = 6;
inline constexpr std::int64_t million = 1'000'000;
inline constexpr std::int64_t most_integer = std::numeric_limits<std::int64_t>::max();

/// A decimal number as it was written. I1: fraction < one million, it counts millionths.
struct decimal {
  bool negative = false;
  bool fits = true;           ///< whole did not overflow
  bool leading_zero = false;  ///< "007"
  bool too_fine = false;      ///< more than six decimals
  std::int64_t whole = 0;
  std::int64_t fraction = 0;
  std::size_t decimals = 0;
  std::string_view rest{};  ///< what follows, without spaces before it
};

[[nodiscard]] constexpr bool is_digit(char letter) noexcept {
  return letter >= '0' && letter <= '9';
}

/// a × factor + more, or nothing if it does not fit; nothing is negative.
[[nodiscard]] constexpr std::optional<std::int64_t> scaled(std::int64_t a, std::int64_t factor,
                                                           std::int64_t more) noexcept {
  if (factor != 0 && a > (most_integer - more) / factor) return std::nullopt;
  return a * factor + more;
}

/// The number that `text` starts with; empty if it starts with none.
[[nodiscard]] constexpr std::optional<decimal> read_decimal(std::string_view text) noexcept {
  decimal read;
  std::size_t at = 0;
  if (text.starts_with('-')) {
    read.negative = true;
    at = 1;
  }
  const std::size_t start = at;
  for (; at < text.size() && is_digit(text[at]); ++at) {
    const auto next = scaled(read.whole, 10, text[at] - '0');
    read.fits = read.fits && next.has_value();
    read.whole = next.value_or(read.whole);
  }
  if (at == start) return std::nullopt;
  read.leading_zero = at - start > 1 && text[start] == '0';
  if (at + 1 < text.size() && text[at] == '.' && is_digit(text[at + 1])) {
    std::int64_t weight = million / 10;
    for (++at; at < text.size() && is_digit(text[at]); ++at) {
      read.too_fine = read.too_fine || weight == 0;
      read.fraction += weight * (text[at] - '0');
      weight /= 10;
      ++read.decimals;
    }
  }
  const std::size_t rest = text.find_first_not_of(' ', at);
  read.rest = rest == std::string_view::npos ? std::string_view{} : text.substr(rest);
  return read;
}

/// "a, b and c".
template <class Names>
[[nodiscard]] std::string join_names(const Names& names) {
  std::string joined;
  for (std::size_t at = 0; at < names.size(); ++at) {
    if (at != 0) joined.append(at + 1 == names.size() ? " and " : ", ");
    joined.append(names[at]);
  }
  return joined;
}

[[nodiscard]] inline std::string unit_list(value_type type) {
  std::string list;
  for (const unit_name& unit : units_of(type)) {
    list.append(list.empty() ? "" : ", ").append(unit.name);
  }
  return list;
}

/// An example of how to write the field, for the last sentence of a message.
[[nodiscard]] inline std::string example_of(const config_field& field) {
  switch (field.type) {
    case value_type::integer: return "Write a whole number, such as 16, without quotes";
    case value_type::size: return "Write a size, such as 64 MiB";
    case value_type::time_span: return "Write a duration, such as 500 ms";
    case value_type::real: return "Write a decimal number, such as 0.25, without quotes";
    case value_type::boolean: return "Write true or false, without quotes";
    case value_type::choice:
    case value_type::text: break;
  }
  return "Write a text";
}

[[nodiscard]] inline value_fault not_of_type(const config_field& field, std::string allowed) {
  return {diagnostic_code::wrong_type, std::move(allowed), example_of(field)};
}

/// The faults of a number that do not depend on its unit.
[[nodiscard]] inline std::optional<value_fault> check_decimal(const config_field& field,
                                                              const decimal& read) {
  if (read.leading_zero) {
    return not_of_type(field, "has a leading zero, which some readers take for octal");
  }
  if (!read.fits) {
    return value_fault{diagnostic_code::number_too_large, "does not fit in 64 bits",
                       "Write a smaller number"};
  }
  if (read.too_fine) return not_of_type(field, "has more than 6 decimals");
  return std::nullopt;
}

[[nodiscard]] constexpr bool is_word(std::string_view text) noexcept {
  for (const char letter : text) {
    const bool ascii = (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z');
    if (!ascii) return false;
  }
  return !text.empty();
}

/// The base units that `unit` counts for `field`; the field's own unit if `unit` is empty.
[[nodiscard]] inline std::optional<std::int64_t> find_unit(const config_field& field,
                                                           std::string_view unit) noexcept {
  if (unit.empty() && field.unit != value_unit::written) return base_of(field.unit);
  for (const unit_name& known : units_of(field.type)) {
    if (known.name == unit) return known.base;
  }
  return std::nullopt;
}

/// An integer, a size or a duration, in the field's unit.
[[nodiscard]] inline value_reading read_number(const config_field& field, std::string_view text) {
  const bool plain = field.type == value_type::integer;
  const char* const kind = plain                            ? "is not a whole number"
                           : field.type == value_type::size ? "is not a size"
                                                            : "is not a duration";
  const auto read = read_decimal(text);
  if (!read || (!read->rest.empty() && !is_word(read->rest))) return not_of_type(field, kind);
  if (auto fault = check_decimal(field, *read)) return *fault;
  if (plain && !read->rest.empty()) {
    return value_fault{diagnostic_code::bad_unit, "has a unit, and this is a plain number",
                       "Remove " + quote_value(read->rest)};
  }
  if (plain && read->decimals != 0) return not_of_type(field, kind);
  const auto unit = find_unit(field, read->rest);
  if (!unit) {
    return value_fault{diagnostic_code::bad_unit,
                       read->rest.empty() ? std::string("has no unit, and this needs one")
                                          : "has the unknown unit " + quote_value(read->rest),
                       "Write one of " + unit_list(field.type)};
  }
  // fraction < 10^6 and *unit < 2^41, so the product fits.
  const std::int64_t fine = read->fraction * *unit;
  const auto base = scaled(read->whole, *unit, fine / million);
  if (!base) {
    return value_fault{diagnostic_code::number_too_large, "does not fit in 64 bits",
                       "Write a smaller number"};
  }
  if (fine % million != 0 || *base % base_of(field.unit) != 0) {
    return value_fault{diagnostic_code::bad_unit,
                       "is not a whole number of " + std::string(name_of(field.unit)),
                       "Round it to whole " + std::string(name_of(field.unit))};
  }
  const std::int64_t value = *base / base_of(field.unit);
  return config_value(read->negative ? -value : value);
}

[[nodiscard]] inline value_reading read_real(const config_field& field, std::string_view text) {
  const auto read = read_decimal(text);
  if (!read || !read->rest.empty()) return not_of_type(field, "is not a decimal number");
  if (auto fault = check_decimal(field, *read)) return *fault;
  const auto millionths = scaled(read->whole, million, read->fraction);
  if (!millionths) {
    return value_fault{diagnostic_code::number_too_large, "does not fit in 64 bits",
                       "Write a smaller number"};
  }
  const double value = static_cast<double>(*millionths) / static_cast<double>(million);
  return config_value(read->negative ? -value : value);
}

[[nodiscard]] inline std::string choice_list(std::string_view choices) {
  std::string list;
  for_each_choice(
      choices, [&](std::string_view word) { list.append(list.empty() ? "" : ", ").append(word); });
  return list;
}

[[nodiscard]] inline value_reading read_choice(const config_field& field, std::string_view text) {
  if (has_choice(field.choices, text)) return config_value(std::string(text));
  const std::string built = choice_list(field.choices);
  if (has_choice(field.later_choices, text)) {
    return value_fault{diagnostic_code::choice_not_built, "is not built in this version",
                       "Choose one that is built: " + built};
  }
  return value_fault{diagnostic_code::not_a_choice, "is not one of " + built, "Write one of them"};
}

[[nodiscard]] inline value_reading read_text(const config_field& field, std::string_view text) {
  const auto refuse = [](std::string allowed, std::string next) {
    return value_fault{diagnostic_code::bad_text, std::move(allowed), std::move(next)};
  };
  const auto size = static_cast<std::int64_t>(text.size());
  for (const char letter : text) {
    if (static_cast<unsigned char>(letter) < 0x20 || letter == 0x7F) {
      return refuse("has a control character", "Remove it");
    }
  }
  // The least length of a text is 0 or 1; rows_stand_in_order() in config_schema.hpp sees to it.
  if (size < field.lowest) return refuse("is empty", "Write a text or remove the key");
  if (size > field.highest) {
    return refuse("has more than " + std::to_string(field.highest) + " bytes",
                  "Write a shorter text");
  }
  return config_value(std::string(text));
}

/// The value of `text` for `field`, without bounds. `quoted`: it stood in quotes.
[[nodiscard]] inline value_reading read_value(const config_field& field, std::string_view text,
                                              bool quoted) {
  switch (field.type) {
    case value_type::choice: return read_choice(field, text);
    case value_type::text: return read_text(field, text);
    case value_type::size:
    case value_type::time_span: return read_number(field, text);
    case value_type::integer:
    case value_type::real:
    case value_type::boolean: break;
  }
  if (quoted) return not_of_type(field, "is a text, because it stands in quotes");
  if (field.type == value_type::integer) return read_number(field, text);
  if (field.type == value_type::real) return read_real(field, text);
  if (text == "true" || text == "false") return config_value(text == "true");
  return not_of_type(field, "is not true or false");
}

/// `count` of the field's units with the largest unit that divides it: "64 MiB", "12h".
[[nodiscard]] inline std::string show_with_unit(const config_field& field, std::int64_t count) {
  const auto units = units_of(field.type);
  std::int64_t scale = 1;
  std::string_view name = units.front().name;
  for (const unit_name& unit : units) {
    const std::int64_t in_field = unit.base / base_of(field.unit);
    if (in_field > 0 && count % in_field == 0 && (count != 0 || in_field == 1)) {
      scale = in_field;
      name = unit.name;
    }
  }
  const char* const gap = field.type == value_type::size ? " " : "";
  return std::to_string(count / scale) + gap + std::string(name);
}

[[nodiscard]] inline std::string show_integer(const config_field& field, std::int64_t count) {
  if (field.type == value_type::size && field.unit == value_unit::bytes && count >= kib) {
    return show_with_unit(field, count);
  }
  // A name that ends in the unit says enough.
  if (field.unit == value_unit::written) return show_with_unit(field, count);
  return std::to_string(count);
}

[[nodiscard]] inline std::string show_real(double value) {
  std::array<char, 64> digits{};
  const auto end =
      std::to_chars(digits.data(), digits.data() + digits.size(), value, std::chars_format::fixed);
  return {digits.data(), end.ptr};
}

/// The value as a file would say it; an empty text as ''.
[[nodiscard]] inline std::string show_value(const config_field& field, const config_value& value) {
  if (const auto* count = std::get_if<std::int64_t>(&value)) return show_integer(field, *count);
  if (const auto* share = std::get_if<double>(&value)) return show_real(*share);
  if (const auto* flag = std::get_if<bool>(&value)) return *flag ? "true" : "false";
  const auto& text = std::get<std::string>(value);
  return text.empty() ? "''" : text;
}

inline constexpr const char* lower_note = ", the smallest in the schema";
inline constexpr const char* upper_note = ", the largest in the schema";

/// The fault of a value outside the field's fixed bounds, if it is.
[[nodiscard]] inline std::optional<value_fault> check_bounds(const config_field& field,
                                                             const config_value& value) {
  if (const auto* share = std::get_if<double>(&value)) {
    const double lowest = static_cast<double>(field.lowest) / 1000;
    const double highest = static_cast<double>(field.highest) / 1000;
    if (*share < lowest) {
      return value_fault{diagnostic_code::out_of_bounds,
                         "is below " + show_real(lowest) + lower_note, "Raise it"};
    }
    if (*share <= highest) return std::nullopt;
    return value_fault{diagnostic_code::out_of_bounds,
                       "is above " + show_real(highest) + upper_note, "Lower it"};
  }
  const auto* count = std::get_if<std::int64_t>(&value);
  if (count == nullptr) return std::nullopt;
  if (field.lowest == field.highest && *count != field.lowest) {
    const std::string only = show_integer(field, field.lowest);
    return value_fault{diagnostic_code::out_of_bounds, "is not " + only + ", the only one allowed",
                       "Write " + only};
  }
  if (*count < field.lowest) {
    return value_fault{diagnostic_code::out_of_bounds,
                       "is below " + show_integer(field, field.lowest) + lower_note, "Raise it"};
  }
  if (*count > field.highest) {
    return value_fault{diagnostic_code::out_of_bounds,
                       "is above " + show_integer(field, field.highest) + upper_note, "Lower it"};
  }
  if (!field.power_of_two || (*count & (*count - 1)) == 0) return std::nullopt;
  std::int64_t below = field.lowest;
  while (below * 2 < *count)
    below *= 2;
  return value_fault{diagnostic_code::not_a_power_of_two, "is not a power of two",
                     "Write " + std::to_string(below) + " or " + std::to_string(below * 2)};
}

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
