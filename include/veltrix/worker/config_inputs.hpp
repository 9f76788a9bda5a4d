// What a configuration is made of, and what comes out: the two ends of the config engine.
// Use for: handing over texts, variables and host limits; taking a snapshot, or the faults.
// Not for: the rules; see config.hpp.
// Threads: values.
// Progress: none waits; copies allocate.
// Callbacks: none.
// Exceptions: std::bad_alloc.
// Lifetime: own everything they say.
// Guide: docs/worker_config.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "../detail/config.hpp"
#include "../version.hpp"
#include "config_names.hpp"
#include "config_snapshot.hpp"
#include "config_text.hpp"
#include "diagnostic.hpp"
#include "host_limits.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// `NAME=value` of the environment, taken apart.
struct environment_setting {
  std::string name;
  std::string value;
};

/// Everything a configuration is made of. A later group overrides an earlier one.
struct config_inputs {
  std::string file_name{};                         ///< as messages name it; empty: no file
  config_text file{};                              ///< parse_yaml() or parse_json() of its bytes
  std::vector<std::string> other_sources{};        ///< further files asked for: each is refused
  std::vector<environment_setting> environment{};  ///< others than VELTRIX_ are passed over
  std::vector<std::string> command_line{};         ///< "key=value", one for each --set
  std::vector<std::string> control{};              ///< "key=value", set while running
  host_facts host{};
  std::string stays{};  ///< what is in force if this is refused: "no worker was started"
};

/// A snapshot, or at least one error.
struct [[nodiscard]] config_result {
  std::optional<config_snapshot> snapshot{};
  std::vector<diagnostic> errors{};    ///< the file's first, by line; empty if there is a snapshot
  std::vector<diagnostic> warnings{};  ///< only with a snapshot

  [[nodiscard]] bool ok() const noexcept { return snapshot.has_value(); }
};

/// The variables of `environment` (an array that ends in null, as environ) that are settings.
[[nodiscard]] inline std::vector<environment_setting> environment_settings(
    const char* const* environment) {
  std::vector<environment_setting> settings;
  for (; environment != nullptr && *environment != nullptr; ++environment) {
    const std::string_view variable(*environment);
    const std::size_t equals = variable.find('=');
    if (!variable.starts_with(environment_prefix) || equals == std::string_view::npos) continue;
    settings.push_back(
        {std::string(variable.substr(0, equals)), std::string(variable.substr(equals + 1))});
  }
  return settings;
}

}  // namespace VELTRIX_ABI
}  // namespace veltrix
