// Hostile bytes as a configuration: never a crash, always an answer, and the answer holds together.
// The input is a file; what follows a NUL, up to the next, is one more source: "E" NAME=VALUE of
// the environment, "S" a --set, "C" a value set while running. Checks in place of a model: an
// accepted configuration, written out, reads back as the same; errors have words and places; all is
// pure.
// SPDX-License-Identifier: BSL-1.0
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "driver.hpp"
#include "veltrix/worker/config.hpp"

namespace veltrix_fuzz {
namespace {

using veltrix::config_inputs;
using veltrix::config_result;
using veltrix::config_snapshot;
using veltrix::diagnostic;

void add_source(config_inputs& inputs, std::string_view part) {
  if (part.empty()) return;
  const std::string rest(part.substr(1));
  if (part.front() == 'S') inputs.command_line.push_back(rest);
  if (part.front() == 'C') inputs.control.push_back(rest);
  const std::size_t equals = rest.find('=');
  if (part.front() != 'E' || equals == std::string::npos) return;
  inputs.environment.push_back({rest.substr(0, equals), rest.substr(equals + 1)});
}

config_inputs inputs_of(std::string_view bytes) {
  config_inputs inputs;
  inputs.file_name = "fuzz.yaml";
  inputs.stays = "nothing was in force";
  const std::size_t end = std::min(bytes.find('\0'), bytes.size());
  inputs.file = veltrix::parse_yaml(bytes.substr(0, end), inputs.file_name);
  for (std::size_t at = end; at < bytes.size();) {
    const std::size_t next = std::min(bytes.find('\0', at + 1), bytes.size());
    add_source(inputs, bytes.substr(at + 1, next - at - 1));
    at = next;
  }
  return inputs;
}

void check_errors(const config_result& result, std::string_view bytes) {
  // Either a snapshot or reasons, never both and never neither.
  require(result.ok() == result.errors.empty(), "a snapshot or errors");
  require(result.ok() || result.warnings.empty(), "warnings come with a snapshot only");
  const auto lines = static_cast<std::size_t>(std::count(bytes.begin(), bytes.end(), '\n')) +
                     static_cast<std::size_t>(std::count(bytes.begin(), bytes.end(), '\r')) + 1;
  for (const diagnostic& error : result.errors) {
    require(!veltrix::to_string(error).empty(), "an error has words");
    require(error.line <= lines, "an error's line is one of the file's");
  }
}

/// What is in force, as a file would say it, means the same.
void check_round_trip(const config_snapshot& snapshot) {
  std::string text;
  for (const veltrix::config_field& field : veltrix::config_table) {
    text.append(field.name).append(": ").append(snapshot.shown(field.id)).append("\n");
    require(!snapshot.provenance_line(field.id).empty(), "a value has a provenance");
  }
  config_inputs again;
  again.file_name = "again.yaml";
  again.file = veltrix::parse_yaml(text, again.file_name);
  const config_result read = veltrix::parse_config(again);
  if (!read.ok()) {
    std::fprintf(stderr, "%s\n%s", veltrix::to_string(read.errors.front()).c_str(), text.c_str());
  }
  require(read.ok(), "what is in force, written out, is accepted");
  require(*read.snapshot == snapshot, "what is in force, written out, reads back as the same");
  agree(read.snapshot->digest(), snapshot.digest(), "equal configurations, equal digests");
  require(veltrix::diff(snapshot, *read.snapshot).empty(), "equal configurations do not differ");
}

}  // namespace

void one_input(byte_source& from) {
  const std::string_view bytes = from.text();
  trace::add("parse");
  const config_inputs inputs = inputs_of(bytes);
  const config_result first = veltrix::parse_config(inputs);
  check_errors(first, bytes);
  // A pure function: the same bytes give the same answer.
  const config_result second = veltrix::parse_config(inputs);
  require(second.ok() == first.ok(), "a pure function: the same inputs, the same answer");
  agree(second.errors.size(), first.errors.size(), "a pure function: the same errors");
  if (!first.ok()) return;
  require(*first.snapshot == *second.snapshot, "a pure function: the same snapshot");
  trace::add("round-trip");
  check_round_trip(*first.snapshot);
  trace::add("reload");
  require(veltrix::reload_config(*first.snapshot, inputs).ok(), "a reload of the same is accepted");
}

}  // namespace veltrix_fuzz
