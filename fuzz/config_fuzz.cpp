// Hostile bytes as a config file: never a crash, always an answer, and the answer holds together.
// SPDX-License-Identifier: BSL-1.0
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "veltrix/worker/config.hpp"

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  veltrix::config_inputs inputs;
  inputs.file_name = "fuzz.yaml";
  inputs.file = veltrix::parse_yaml(bytes, inputs.file_name);
  inputs.stays = "nothing was in force";
  const veltrix::config_result first = veltrix::parse_config(inputs);
  // Either a snapshot or reasons, never both and never neither.
  require(first.ok() == first.errors.empty());
  for (const veltrix::diagnostic& error : first.errors) {
    require(!veltrix::to_string(error).empty());
  }
  // A pure function: the same bytes give the same answer.
  const veltrix::config_result second = veltrix::parse_config(inputs);
  require(second.ok() == first.ok() && second.errors.size() == first.errors.size());
  if (first.ok()) require(*first.snapshot == *second.snapshot);
  return 0;
}
