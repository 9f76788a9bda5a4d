// All settings in force, as one value; each knows where it came from and what its default was.
// Use for: passing the configuration around; a reload makes a new one.
// Not for: making one; see parse_config() in config.hpp.
// Threads: a value; const members may be called from many threads at once.
// Progress: reading a setting is a constant-time look-up; texts are made on demand.
// Callbacks: none.
// Exceptions: std::bad_alloc where text is made; observers of values throw nothing.
// Lifetime: owns its values.
// Guide: docs/worker_config.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "../detail/config.hpp"
#include "../version.hpp"
#include "config_schema.hpp"
#include "config_text.hpp"
#include "config_value.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

namespace detail {
class config_builder;
}  // namespace detail

/// Where a value came from, weakest first: a later one overrides an earlier one.
enum class origin_kind : std::uint8_t { built_in, file, environment, command_line, control };

/// The place of one value.
struct config_origin {
  origin_kind kind = origin_kind::built_in;
  std::string name{};  ///< the file, or "env VELTRIX_POD", "--set", "control"; empty for built_in
  text_position at{};  ///< of the value, in a file

  friend bool operator==(const config_origin&, const config_origin&) = default;
};

/// "default", "veltrix.yaml:3", "env VELTRIX_POD", "--set", "control".
[[nodiscard]] inline std::string to_string(const config_origin& origin) {
  if (origin.kind == origin_kind::built_in) return "default";
  return origin.at.line == 0 ? origin.name : origin.name + ":" + std::to_string(origin.at.line);
}

/// All settings in force. Two snapshots are equal if their values are, whatever the origins.
///
/// I1: every value has the type of its field, so that no observer can fail.
class config_snapshot {
 public:
  /// The value of an integer, size or duration, in the field's unit. Any other key is misuse and
  /// gives 0. Complexity: constant.
  [[nodiscard]] std::int64_t integer(key id) const noexcept { return get<std::int64_t>(id); }

  /// The value of a share. Any other key is misuse and gives 0.
  [[nodiscard]] double real(key id) const noexcept { return get<double>(id); }

  /// The value of a switch. Any other key is misuse and gives false.
  [[nodiscard]] bool boolean(key id) const noexcept { return get<bool>(id); }

  /// The value of a text or a choice. Any other key is misuse and gives an empty text.
  [[nodiscard]] std::string_view text(key id) const noexcept {
    const auto* const found = std::get_if<std::string>(&value(id));
    VELTRIX_ASSERT(found != nullptr, "config_snapshot::text takes the key of a text or a choice");
    return found == nullptr ? std::string_view{} : std::string_view(*found);
  }

  [[nodiscard]] const config_value& value(key id) const noexcept { return at(id).value; }
  [[nodiscard]] const config_origin& origin(key id) const noexcept { return at(id).origin; }

  /// The value as a file would say it: "64 MiB"; an empty text as ''.
  [[nodiscard]] std::string shown(key id) const {
    return detail::show_value(field_of(id), value(id));
  }

  /// "workers 512 (veltrix.yaml:3; default was 4)", or "workers 4 (default)".
  [[nodiscard]] std::string provenance_line(key id) const {
    const config_field& field = field_of(id);
    const std::string_view name = field.label.empty() ? field.name : field.label;
    std::string line(name);
    line.append(" ").append(shown(id)).append(" (").append(to_string(origin(id)));
    if (origin(id).kind != origin_kind::built_in) {
      line.append("; default was ").append(detail::show_value(field, at(id).usual));
    }
    return line.append(")");
  }

  /// A 64-bit hash (FNV-1a) of all names and values in force, the same on every machine and in
  /// every run. Complexity: linear in the texts.
  [[nodiscard]] std::uint64_t digest() const {
    std::uint64_t hash = 0xcbf29ce484222325ULL;
    const auto add = [&](std::string_view bytes) {
      for (const char letter : bytes) {
        hash = (hash ^ static_cast<unsigned char>(letter)) * 0x100000001b3ULL;
      }
    };
    for (const config_field& field : config_table) {
      add(field.name);
      add("=");
      add(shown(field.id));
      add("\n");
    }
    return hash;
  }

  friend bool operator==(const config_snapshot& left, const config_snapshot& right) {
    for (std::size_t at = 0; at < key_count; ++at) {
      if (left.entries_[at].value != right.entries_[at].value) return false;
    }
    return true;
  }

 private:
  friend class detail::config_builder;

  struct entry {
    config_value value{};
    config_value usual{};
    config_origin origin{};
  };

  config_snapshot() = default;

  void set_default(key id, config_value usual) {
    entry& changed = entries_[static_cast<std::size_t>(id)];
    changed.value = usual;
    changed.usual = std::move(usual);
  }

  void set(key id, config_value value, config_origin origin) {
    entry& changed = entries_[static_cast<std::size_t>(id)];
    changed.value = std::move(value);
    changed.origin = std::move(origin);
  }

  [[nodiscard]] const entry& at(key id) const noexcept {
    return entries_[static_cast<std::size_t>(id)];
  }

  template <class Value>
  [[nodiscard]] Value get(key id) const noexcept {
    const auto* const found = std::get_if<Value>(&value(id));
    VELTRIX_ASSERT(found != nullptr, "the key has another type; see config_schema.hpp");
    return found == nullptr ? Value{} : *found;
  }

  std::array<entry, key_count> entries_{};
};

}  // namespace VELTRIX_ABI
}  // namespace veltrix
