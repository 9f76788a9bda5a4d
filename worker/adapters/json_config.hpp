// Reads a JSON configuration into the same list of settings that the YAML subset gives.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <string_view>

#include "veltrix/worker/config_text.hpp"

namespace veltrix_worker {

/// Reads `bytes` as one JSON object of settings and nested objects. Numbers keep the text they were
/// written with; null, arrays, repeated keys and more than 8 levels are refused with their place.
[[nodiscard]] veltrix::config_text parse_json(std::string_view bytes, std::string_view file_name);

/// parse_json() if the first character that is not blank is `{`, else veltrix::parse_yaml().
[[nodiscard]] veltrix::config_text parse_config_text(std::string_view bytes,
                                                     std::string_view file_name);

}  // namespace veltrix_worker
