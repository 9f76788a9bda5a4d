// The names of settings: in files, in the environment, and the one that was probably meant.
// Use for: looking names up, and for saying what a misspelt one may have meant.
// Not for: values; see config_value.hpp.
// Threads: pure functions.
// Progress: linear in the table of settings; allocates.
// Callbacks: none.
// Exceptions: std::bad_alloc.
// Lifetime: string views point into the table and live for ever.
// Guide: docs/worker_config.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <string>
#include <string_view>

#include "../detail/config.hpp"
#include "../version.hpp"
#include "config_schema.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// Variables of the environment that start so are settings.
inline constexpr std::string_view environment_prefix = "VELTRIX_";
/// The variable that names the configuration file; it is not a setting.
inline constexpr std::string_view environment_config_file = "VELTRIX_CONFIG";

/// "VELTRIX_WORKERS_MIN" for "workers.min". Complexity: linear in the name.
[[nodiscard]] inline std::string environment_name(std::string_view name) {
  std::string variable(environment_prefix);
  for (const char letter : name) {
    const bool lower = letter >= 'a' && letter <= 'z';
    const bool mark = letter == '.' || letter == '-';
    variable.push_back(lower ? static_cast<char>(letter - 'a' + 'A') : mark ? '_' : letter);
  }
  return variable;
}

/// The row that the variable `name` means, or null. Complexity: linear in the table.
[[nodiscard]] inline const config_field* find_variable(std::string_view name) {
  for (const config_field& field : config_table) {
    if (environment_name(field.name) == name) return &field;
    for (const std::string_view alias : field.aliases) {
      if (!alias.empty() && environment_name(alias) == name) return &field;
    }
  }
  return nullptr;
}

namespace detail {

inline constexpr std::size_t longest_guess = 64;

/// Letters that look the same to a hurried reader.
[[nodiscard]] constexpr char folded(char letter) noexcept {
  if (letter >= 'A' && letter <= 'Z') return static_cast<char>(letter - 'A' + 'a');
  return letter == '-' || letter == '.' ? '_' : letter;
}

/// How many letters must be added, removed, changed or swapped with their neighbour to get from one
/// to the other, each place touched once (optimal string alignment, after Damerau and Levenshtein).
/// Names above 64 letters are not compared: they count as wholly different.
[[nodiscard]] inline std::size_t edit_distance(std::string_view from, std::string_view to) {
  if (from.size() > longest_guess || to.size() > longest_guess) return from.size() + to.size();
  using row = std::array<std::size_t, longest_guess + 1>;
  row before_last{};
  row last{};
  row current{};
  for (std::size_t j = 0; j <= to.size(); ++j)
    last[j] = j;
  for (std::size_t i = 1; i <= from.size(); ++i) {
    current[0] = i;
    for (std::size_t j = 1; j <= to.size(); ++j) {
      const bool same = folded(from[i - 1]) == folded(to[j - 1]);
      current[j] = std::min({last[j] + 1, current[j - 1] + 1, last[j - 1] + (same ? 0U : 1U)});
      const bool swapped = i > 1 && j > 1 && folded(from[i - 1]) == folded(to[j - 2]) &&
                           folded(from[i - 2]) == folded(to[j - 1]);
      if (swapped) current[j] = std::min(current[j], before_last[j - 2] + 1);
    }
    before_last = last;
    last = current;
  }
  return last[to.size()];
}

/// The last part of a dotted name.
[[nodiscard]] constexpr std::string_view last_part(std::string_view name) noexcept {
  return name.substr(name.rfind('.') + 1);  // npos + 1 is 0
}

/// The name or alias nearest to `wrong`, or empty if none is near.
[[nodiscard]] inline std::string_view nearest_name(std::string_view wrong) {
  std::string_view best;
  std::size_t least = std::max<std::size_t>(2, wrong.size() / 4) + 1;
  const auto offer = [&](std::string_view name) {
    // As many letters as one is longer must be added at least.
    const std::size_t longer = std::max(wrong.size(), name.size());
    if (name.empty() || longer - std::min(wrong.size(), name.size()) >= least) return;
    const std::size_t distance = edit_distance(wrong, name);
    if (distance >= least) return;
    least = distance;
    best = name;
  };
  for (const config_field& field : config_table) {
    offer(field.name);
    for (const std::string_view alias : field.aliases)
      offer(alias);
  }
  if (!best.empty()) return best;
  // The right name in the wrong group, or without its group.
  for (const config_field& field : config_table) {
    if (last_part(field.name) == last_part(wrong)) return field.name;
  }
  return {};
}

/// The variable nearest to `wrong`, or empty.
[[nodiscard]] inline std::string nearest_variable(std::string_view wrong) {
  wrong.remove_prefix(std::min(wrong.size(), environment_prefix.size()));
  const std::string_view name = nearest_name(wrong);
  return name.empty() ? std::string() : environment_name(name);
}

/// Variables that others set and that happen to start as ours do: the links that Kubernetes makes
/// for a service called veltrix (VELTRIX_SERVICE_HOST, VELTRIX_PORT_80_TCP_ADDR), and those of the
/// project's tests.
[[nodiscard]] constexpr bool is_foreign_variable(std::string_view name) noexcept {
  return name.starts_with("VELTRIX_TEST_") || name.ends_with("_SERVICE_HOST") ||
         name.find("_SERVICE_PORT") != std::string_view::npos || name.ends_with("_PORT") ||
         name.find("_TCP") != std::string_view::npos || name.find("_UDP") != std::string_view::npos;
}

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
