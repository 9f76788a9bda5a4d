// Numbers, sizes and durations of the configuration: every way to write them, and back.
// SPDX-License-Identifier: BSL-1.0
#include "veltrix/worker/config_value.hpp"

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "support/catch.hpp"
#include "support/random.hpp"
#include "support/scale.hpp"

using veltrix::config_field;
using veltrix::config_value;
using veltrix::diagnostic_code;
using veltrix::field_of;
using veltrix::key;
using veltrix::detail::read_value;
using veltrix::detail::show_value;

namespace {

std::int64_t number(key id, std::string_view text) {
  const auto read = read_value(field_of(id), text, false);
  INFO(text << (read.fault ? ": " + read.fault->allowed : std::string()));
  REQUIRE(read.value.has_value());
  return std::get<std::int64_t>(*read.value);
}

diagnostic_code refusal(key id, std::string_view text, bool quoted = false) {
  const auto read = read_value(field_of(id), text, quoted);
  INFO(text);
  REQUIRE(read.fault.has_value());
  REQUIRE_FALSE(read.value.has_value());
  return read.fault->code;
}

}  // namespace

TEST_CASE("config_value sizes are bytes or have a binary unit") {
  REQUIRE(number(key::queue_max_bytes, "0") == 0);
  REQUIRE(number(key::queue_max_bytes, "67108864") == 64 << 20);
  REQUIRE(number(key::queue_max_bytes, "64 MiB") == 64 << 20);
  REQUIRE(number(key::queue_max_bytes, "64MiB") == 64 << 20);
  REQUIRE(number(key::queue_max_bytes, "64   MiB") == 64 << 20);
  REQUIRE(number(key::queue_max_bytes, "1.5 KiB") == 1536);
  REQUIRE(refusal(key::queue_max_bytes, "0.000001 TiB") == diagnostic_code::bad_unit);
  REQUIRE(number(key::queue_max_bytes, "0.015625 KiB") == 16);
  REQUIRE(number(key::queue_max_bytes, "7 TiB") == std::int64_t{7} << 40);
  REQUIRE(number(key::queue_max_bytes, "12 B") == 12);
  REQUIRE(number(key::workers_stack_kib, "256") == 256);
  REQUIRE(number(key::workers_stack_kib, "256 KiB") == 256);
  REQUIRE(number(key::workers_stack_kib, "1 MiB") == 1024);
  REQUIRE(number(key::workers_stack_kib, "0.5 MiB") == 512);
  for (const char* unit : {"KB", "kB", "K", "MB", "M", "Mib", "mib", "GB", "s", "bytes"}) {
    REQUIRE(refusal(key::queue_max_bytes, std::string("64 ") + unit) == diagnostic_code::bad_unit);
  }
}

TEST_CASE("config_value durations are in the field's unit or have their own") {
  REQUIRE(number(key::config_poll_ms, "500") == 500);
  REQUIRE(number(key::config_poll_ms, "500 ms") == 500);
  REQUIRE(number(key::config_poll_ms, "5s") == 5000);
  REQUIRE(number(key::config_poll_ms, "1.5 s") == 1500);
  REQUIRE(number(key::config_poll_ms, "2000 us") == 2);
  REQUIRE(number(key::config_poll_ms, "2 min") == 120'000);
  REQUIRE(number(key::config_poll_ms, "1 h") == 3'600'000);
  REQUIRE(number(key::config_poll_ms, "1d") == 86'400'000);
  REQUIRE(number(key::handler_work_us, "25") == 25);
  REQUIRE(number(key::handler_work_us, "25 us") == 25);
  REQUIRE(number(key::handler_work_us, "0.025 ms") == 25);
  REQUIRE(number(key::sidecar_promote_after, "12h") == 43'200'000);
  REQUIRE(refusal(key::sidecar_promote_after, "12") == diagnostic_code::bad_unit);
  REQUIRE(refusal(key::config_poll_ms, "1 us") == diagnostic_code::bad_unit);
  REQUIRE(refusal(key::handler_work_us, "0.5") == diagnostic_code::bad_unit);
  for (const char* unit : {"m", "sec", "S", "MS", "ns", "KiB", "hours"}) {
    REQUIRE(refusal(key::config_poll_ms, std::string("5 ") + unit) == diagnostic_code::bad_unit);
  }
}

TEST_CASE("config_value whole numbers are decimal digits and nothing else") {
  REQUIRE(number(key::events_rate, "0") == 0);
  REQUIRE(number(key::events_rate, "-1") == -1);
  REQUIRE(number(key::events_rate, "-0") == 0);
  REQUIRE(number(key::events_rate, "9223372036854775807") ==
          std::numeric_limits<std::int64_t>::max());
  REQUIRE(refusal(key::events_rate, "9223372036854775808") == diagnostic_code::number_too_large);
  REQUIRE(refusal(key::events_rate, "99999999999999999999999") ==
          diagnostic_code::number_too_large);
  REQUIRE(refusal(key::queue_max_bytes, "8388608 TiB") == diagnostic_code::number_too_large);
  REQUIRE(number(key::queue_max_bytes, "8388607 TiB") == std::int64_t{8388607} << 40);
  for (const char* text :
       {"",    "-",   "+1",  "1_000", "1,000", "1e3", "0x10",     "0b1", "1.",  ".5",
        "1.5", "--1", "- 1", "one",   "true",  "1 2", "\xD9\xA3", "NaN", "007", "00"}) {
    REQUIRE(refusal(key::events_rate, text) == diagnostic_code::wrong_type);
  }
  REQUIRE(refusal(key::events_rate, "5 s") == diagnostic_code::bad_unit);
  REQUIRE(refusal(key::events_rate, "5", true) == diagnostic_code::wrong_type);
}

TEST_CASE("config_value shares are decimal numbers without an exponent") {
  const auto share = [](std::string_view text) {
    const auto read = read_value(field_of(key::retry_budget), text, false);
    REQUIRE(read.value.has_value());
    return std::get<double>(*read.value);
  };
  REQUIRE(share("0.10") == 0.1);
  REQUIRE(share("0") == 0.0);
  REQUIRE(share("1") == 1.0);
  REQUIRE(share("0.000001") == 1e-6);
  REQUIRE(share("-0.5") == -0.5);
  for (const char* text : {"", "10%", "1e-1", ".1", "0,1", "0.1234567", "nan", "inf", "00.1"}) {
    REQUIRE(refusal(key::retry_budget, text) == diagnostic_code::wrong_type);
  }
  REQUIRE(refusal(key::retry_budget, "9999999999999") == diagnostic_code::number_too_large);
  REQUIRE(show_value(field_of(key::retry_budget), config_value(1e-6)) == "0.000001");
}

TEST_CASE("config_value switches and words are taken to the letter") {
  const auto& flag = field_of(key::config_cache_enabled);
  REQUIRE(std::get<bool>(*read_value(flag, "true", false).value));
  REQUIRE_FALSE(std::get<bool>(*read_value(flag, "false", false).value));
  for (const char* text : {"yes", "no", "on", "off", "1", "0", "True", "FALSE", ""}) {
    REQUIRE(refusal(key::config_cache_enabled, text) == diagnostic_code::wrong_type);
  }
  REQUIRE(refusal(key::config_cache_enabled, "true", true) == diagnostic_code::wrong_type);
  REQUIRE(std::get<std::string>(*read_value(field_of(key::queue_on_full), "block", true).value) ==
          "block");
  REQUIRE(refusal(key::queue_on_full, "Block") == diagnostic_code::not_a_choice);
  REQUIRE(refusal(key::queue_on_full, "") == diagnostic_code::not_a_choice);
  REQUIRE(refusal(key::queue_on_full, "block|reject") == diagnostic_code::not_a_choice);
  REQUIRE(refusal(key::sink_kind, "kafka") == diagnostic_code::choice_not_built);
  REQUIRE(std::get<std::string>(*read_value(field_of(key::pod), "123", false).value) == "123");
  REQUIRE(refusal(key::pod, "a\x7F") == diagnostic_code::bad_text);
}

TEST_CASE("config_value bounds are those of the table and both ends belong to them") {
  for (const config_field& field : veltrix::config_table) {
    INFO(field.name);
    const auto outside = [&](std::int64_t count) {
      return veltrix::detail::check_bounds(field, config_value(count));
    };
    if (field.type == veltrix::value_type::real) {
      const double most = static_cast<double>(field.highest) / 1000;
      REQUIRE_FALSE(veltrix::detail::check_bounds(field, config_value(most)));
      REQUIRE(veltrix::detail::check_bounds(field, config_value(most + 0.001)));
      REQUIRE(veltrix::detail::check_bounds(field, config_value(-0.001)));
      continue;
    }
    if (veltrix::detail::name_of(field.unit).empty() &&
        field.type != veltrix::value_type::integer) {
      REQUIRE(field.unit == veltrix::value_unit::none);
      continue;
    }
    REQUIRE_FALSE(outside(field.lowest));
    REQUIRE_FALSE(outside(field.highest));
    REQUIRE(outside(field.lowest - 1)->code == diagnostic_code::out_of_bounds);
    REQUIRE(outside(field.highest + 1)->code == diagnostic_code::out_of_bounds);
  }
}

TEST_CASE("config_value every default is a value within its own bounds and shows as itself") {
  for (const config_field& field : veltrix::config_table) {
    INFO(field.name);
    if (field.default_text.empty() && !field.default_note.empty()) continue;
    const auto read = read_value(field, field.default_text, false);
    REQUIRE(read.value.has_value());
    REQUIRE_FALSE(veltrix::detail::check_bounds(field, *read.value));
    const std::string shown = show_value(field, *read.value);
    if (field.type == veltrix::value_type::text || field.type == veltrix::value_type::real)
      continue;
    REQUIRE(shown == field.default_text);
  }
}

namespace {

/// A duration in microseconds by repeated addition of parts: the model of the unit arithmetic.
struct model_unit {
  const char* name;
  std::int64_t microseconds;
};

constexpr model_unit model_units[] = {{"us", 1},           {"ms", 1000},
                                      {"s", 1000 * 1000},  {"min", 60 * 1000 * 1000},
                                      {"h", 3600'000'000}, {"d", 86'400'000'000}};

}  // namespace

TEST_CASE("config_value random durations agree with a plain model") {
  const std::uint64_t seed = 5;
  veltrix_test::random_source random(seed);
  std::size_t exact = 0;
  for (std::size_t round = 0; round < veltrix_test::scale(50'000); ++round) {
    const model_unit& unit = model_units[random.below(6)];
    const auto whole = static_cast<std::int64_t>(random.below(1000));
    const auto thousandths = static_cast<std::int64_t>(random.below(4) * 125);
    std::string text = std::to_string(whole);
    if (thousandths != 0) text += "." + std::to_string(1000 + thousandths).substr(1);
    text += random.below(2) == 0 ? " " : "";
    text += unit.name;
    const std::int64_t fine = whole * unit.microseconds * 1000 + thousandths * unit.microseconds;
    INFO("seed " << seed << ", round " << round << ": " << text);
    const auto read = read_value(field_of(key::config_poll_ms), text, false);
    if (fine % 1'000'000 != 0) {
      REQUIRE(read.fault->code == diagnostic_code::bad_unit);
      continue;
    }
    ++exact;
    REQUIRE(std::get<std::int64_t>(*read.value) == fine / 1'000'000);
  }
  REQUIRE(exact > 100);
}

TEST_CASE("config_value whatever is shown is read as the same value") {
  const std::uint64_t seed = 6;
  veltrix_test::random_source random(seed);
  for (std::size_t round = 0; round < veltrix_test::scale(2000); ++round) {
    for (const config_field& field : veltrix::config_table) {
      std::optional<config_value> value;
      if (field.type == veltrix::value_type::real) {
        value = static_cast<double>(random.below(1'000'001)) / 1e6;
      } else if (veltrix::detail::units_of(field.type).size() != 0 ||
                 field.type == veltrix::value_type::integer) {
        const auto shift = random.below(62);
        value = static_cast<std::int64_t>((random.next() >> 2U) >> shift);
      } else {
        continue;
      }
      const std::string shown = show_value(field, *value);
      INFO("seed " << seed << ": " << field.name << " " << shown);
      const auto read = read_value(field, shown, false);
      // A count of KiB or ms so large that its base units do not fit cannot be written with a unit.
      const bool fits = read.value.has_value();
      if (!fits) {
        REQUIRE(read.fault->code == diagnostic_code::number_too_large);
        continue;
      }
      REQUIRE(*read.value == *value);
    }
  }
}
