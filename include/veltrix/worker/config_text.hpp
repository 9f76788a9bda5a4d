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
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

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

/// Reads `bytes` as the YAML subset. `file_name` is what messages call it.
[[nodiscard]] config_text parse_yaml(std::string_view bytes, std::string_view file_name);

}  // namespace VELTRIX_ABI
}  // namespace veltrix
