// Times of events as text: ISO 8601 with a zone, to and from microseconds since 1970 UTC.
// Use for: the time field of events, and for showing it.
// Not for: local time without a zone, week dates, or leap seconds; those are refused.
// Threads: pure functions.
// Progress: wait-free; format_time() allocates.
// Callbacks: none.
// Exceptions: std::bad_alloc from format_time().
// Lifetime: returns by value.
// Guide: docs/worker.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "../version.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// Days from 1970-01-01 in the Gregorian calendar (Hinnant, "chrono-compatible low-level date
/// algorithms").
[[nodiscard]] constexpr std::int64_t days_from_civil(std::int64_t year, unsigned month,
                                                     unsigned day) noexcept {
  year -= month <= 2 ? 1 : 0;
  const std::int64_t era = (year >= 0 ? year : year - 399) / 400;
  const auto year_of_era = static_cast<unsigned>(year - era * 400);
  const unsigned day_of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
  const unsigned day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
  return era * 146097 + static_cast<std::int64_t>(day_of_era) - 719468;
}

[[nodiscard]] constexpr unsigned days_in_month(std::int64_t year, unsigned month) noexcept {
  constexpr unsigned days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  const bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
  return month == 2 && leap ? 29 : days[month - 1];
}

/// Takes digits off the front of a text.
class digit_reader {
 public:
  constexpr explicit digit_reader(std::string_view text) noexcept : rest_(text) {}

  /// The number that exactly `count` digits make; clears good() if they are not there.
  constexpr unsigned number(std::size_t count) noexcept {
    unsigned value = 0;
    if (rest_.size() < count) {
      good_ = false;
      return 0;
    }
    for (std::size_t at = 0; at < count; ++at) {
      const auto digit = static_cast<unsigned>(static_cast<unsigned char>(rest_[at])) - '0';
      good_ = good_ && digit <= 9;
      value = value * 10 + digit;
    }
    rest_.remove_prefix(count);
    return value;
  }

  /// Takes `letter`, if it comes next.
  constexpr bool take(char letter) noexcept {
    if (!next_is(letter)) return false;
    rest_.remove_prefix(1);
    return true;
  }
  constexpr void expect(char letter) noexcept { good_ = take(letter) && good_; }
  [[nodiscard]] constexpr bool next_is(char letter) const noexcept {
    return !rest_.empty() && rest_.front() == letter;
  }
  [[nodiscard]] constexpr bool next_is_digit() const noexcept {
    return !rest_.empty() && rest_.front() >= '0' && rest_.front() <= '9';
  }
  constexpr void fail() noexcept { good_ = false; }
  [[nodiscard]] constexpr bool good() const noexcept { return good_; }
  [[nodiscard]] constexpr bool done() const noexcept { return good_ && rest_.empty(); }

 private:
  std::string_view rest_;
  bool good_ = true;
};

/// ".25" and the like as microseconds; digits past the sixth are read and dropped.
constexpr std::int64_t read_fraction(digit_reader& from) noexcept {
  if (!from.take('.') && !from.take(',')) return 0;
  if (!from.next_is_digit()) from.fail();
  std::int64_t micros = 0;
  int digits = 0;
  for (; from.good() && from.next_is_digit(); ++digits) {
    const unsigned digit = from.number(1);
    if (digits < 6) micros = micros * 10 + digit;
  }
  if (digits > 9) from.fail();
  for (; digits < 6; ++digits)
    micros *= 10;
  return micros;
}

/// "Z", "+02:00" or "+0200" as seconds east.
constexpr std::int64_t read_zone(digit_reader& from) noexcept {
  if (from.take('Z') || from.take('z')) return 0;
  const bool west = from.next_is('-');
  if (!from.take('+') && !from.take('-')) from.fail();
  const unsigned hours = from.number(2);
  from.take(':');
  const unsigned minutes = from.number(2);
  if (hours > 23 || minutes > 59) from.fail();
  const std::int64_t seconds = (hours * 60 + minutes) * std::int64_t{60};
  return west ? -seconds : seconds;
}

}  // namespace detail

/// "2015-07-29T17:41:44.747Z" as microseconds since 1970 UTC, or empty if it is no such time.
/// A space may stand for the T. Complexity: constant.
[[nodiscard]] constexpr std::optional<std::int64_t> parse_time(std::string_view text) noexcept {
  detail::digit_reader from(text);
  const std::int64_t year = from.number(4);
  from.expect('-');
  const unsigned month = from.number(2);
  from.expect('-');
  const unsigned day = from.number(2);
  if (!from.take('T') && !from.take('t') && !from.take(' ')) return std::nullopt;
  const std::int64_t hour = from.number(2);
  from.expect(':');
  const std::int64_t minute = from.number(2);
  from.expect(':');
  const std::int64_t second = from.number(2);
  if (!from.good() || month < 1 || month > 12 || day < 1) return std::nullopt;
  if (day > detail::days_in_month(year, month)) return std::nullopt;
  if (hour > 23 || minute > 59 || second > 59) return std::nullopt;
  const std::int64_t micros = detail::read_fraction(from);
  const std::int64_t east = detail::read_zone(from);
  if (!from.done()) return std::nullopt;
  const std::int64_t days = detail::days_from_civil(year, month, day);
  return (days * 86400 + hour * 3600 + minute * 60 + second - east) * 1'000'000 + micros;
}

/// Microseconds since 1970 UTC as "2015-07-29T17:41:44.747Z"; six digits where three do not do.
[[nodiscard]] inline std::string format_time(std::int64_t time_us) {
  constexpr std::int64_t day_us = 86'400'000'000;
  std::int64_t days = time_us / day_us;
  std::int64_t rest = time_us % day_us;
  if (rest < 0) {
    rest += day_us;
    --days;
  }
  // The inverse of days_from_civil().
  days += 719468;
  const std::int64_t era = (days >= 0 ? days : days - 146096) / 146097;
  const std::int64_t day_of_era = days - era * 146097;
  const std::int64_t year_of_era =
      (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
  const std::int64_t day_of_year =
      day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  const std::int64_t shifted = (5 * day_of_year + 2) / 153;
  const std::int64_t day = day_of_year - (153 * shifted + 2) / 5 + 1;
  const std::int64_t month = shifted < 10 ? shifted + 3 : shifted - 9;
  const std::int64_t year = year_of_era + era * 400 + (month <= 2 ? 1 : 0);

  std::string text;
  const auto put = [&](std::int64_t value, std::size_t width, char after) {
    const std::string digits = std::to_string(value);
    if (digits.size() < width) text.append(width - digits.size(), '0');
    text.append(digits);
    text.push_back(after);
  };
  const std::int64_t micros = rest % 1'000'000;
  put(year, 4, '-');
  put(month, 2, '-');
  put(day, 2, 'T');
  put(rest / 3'600'000'000, 2, ':');
  put(rest / 60'000'000 % 60, 2, ':');
  put(rest / 1'000'000 % 60, 2, micros == 0 ? 'Z' : '.');
  if (micros % 1000 != 0) {
    put(micros, 6, 'Z');
  } else if (micros != 0) {
    put(micros / 1000, 3, 'Z');
  }
  return text;
}

}  // namespace VELTRIX_ABI
}  // namespace veltrix
