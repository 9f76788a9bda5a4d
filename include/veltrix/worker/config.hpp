// The configuration of the worker: a pure function from texts and host limits to a snapshot.
// Use for: start, check, and every reload; a snapshot knows where each of its values came from.
// Not for: reading files or watching them; the caller brings the bytes.
// Threads: snapshots are values; all functions are pure and may run at once.
// Progress: linear in the input; allocates.
// Callbacks: none.
// Exceptions: std::bad_alloc. Faults in the input are diagnostics, never exceptions.
// Lifetime: results own everything they say.
// Guide: docs/worker_config.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "config_schema.hpp"
#include "config_text.hpp"
#include "diagnostic.hpp"
#include "host_limits.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

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
[[nodiscard]] std::string to_string(const config_origin& origin);

/// Integers hold sizes in the field's unit and durations too.
using config_value = std::variant<std::int64_t, double, bool, std::string>;

/// All settings in force, by value. Two snapshots are equal if their values are, whatever the
/// origins.
class config_snapshot {
 public:
  /// The value of an integer, size or duration, in the field's unit.
  [[nodiscard]] std::int64_t integer(key id) const noexcept;
  [[nodiscard]] double real(key id) const noexcept;
  [[nodiscard]] bool boolean(key id) const noexcept;
  /// The value of a text or a choice.
  [[nodiscard]] const std::string& text(key id) const noexcept;

  [[nodiscard]] const config_value& value(key id) const noexcept;
  [[nodiscard]] const config_origin& origin(key id) const noexcept;
  /// The value as a file would say it: "64 MiB".
  [[nodiscard]] std::string shown(key id) const;
  /// "workers 512 (veltrix.yaml:3; default was 4)", or "workers 4 (default)".
  [[nodiscard]] std::string provenance_line(key id) const;
  /// A stable 64-bit hash of all values in force.
  [[nodiscard]] std::uint64_t digest() const;
};

/// `NAME=value` of the environment, taken apart.
struct environment_setting {
  std::string name;
  std::string value;
};

/// Everything a configuration is made of.
struct config_inputs {
  std::string file_name{};                         ///< as messages name it; empty: no file
  config_text file{};                              ///< parse_yaml() or parse_json() of its bytes
  std::vector<std::string> other_sources{};        ///< further files that were asked for: refused
  std::vector<environment_setting> environment{};  ///< those that start with VELTRIX_
  std::vector<std::string> command_line{};         ///< "key=value", one for each --set
  std::vector<std::string> control{};              ///< "key=value" set while running
  host_facts host{};
  std::string stays{};  ///< what is in force if this is refused: "no worker was started"
};

/// A snapshot, or at least one error.
struct config_result {
  std::optional<config_snapshot> snapshot{};
  std::vector<diagnostic> errors{};  ///< in the order of the file; empty with a snapshot
  std::vector<diagnostic> warnings{};

  [[nodiscard]] bool ok() const noexcept { return snapshot.has_value(); }
};

/// Checks everything and reports every fault. Complexity: linear in the input.
[[nodiscard]] config_result parse_config(const config_inputs& inputs);

/// As parse_config(), for a running worker: a changed restart setting is an error as well.
[[nodiscard]] config_result reload_config(const config_snapshot& old, const config_inputs& inputs);

/// One changed setting.
struct config_change {
  key id;
  reload_class reload;
  std::string before;
  std::string after;
};

/// What differs, in the order of the table; origins do not count.
[[nodiscard]] std::vector<config_change> diff(const config_snapshot& before,
                                              const config_snapshot& after);

}  // namespace VELTRIX_ABI
}  // namespace veltrix
