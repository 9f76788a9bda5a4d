// Reads one JSON line into an event, with simdjson; strict to the last byte.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <memory>
#include <string>

#include "veltrix/worker/config.hpp"
#include "veltrix/worker/event.hpp"
#include "veltrix/worker/event_schema.hpp"

namespace veltrix_worker {

/// The rules that events.schema and the names of the fields ask for.
[[nodiscard]] veltrix::event_schema schema_of(const veltrix::config_snapshot& config);

/// Views of an event point into its block: the line itself where a string has no escapes, else a
/// copy that the block keeps. Every byte of the line is checked, also in fields that nobody reads.
class json_parser {
 public:
  explicit json_parser(const veltrix::event_schema& schema);
  json_parser(const json_parser&) = delete;
  json_parser& operator=(const json_parser&) = delete;
  ~json_parser();

  /// Takes the schema that `config` names, if it is another one.
  void configure(const veltrix::config_snapshot& config);

  /// Fills `into` from a line of `block`. Result: none, or why it is no event.
  [[nodiscard]] veltrix::fault_kind parse(veltrix::event_block& block,
                                          const veltrix::raw_line& line, veltrix::event& into);

  /// A sentence about the last fault.
  [[nodiscard]] std::string reason(veltrix::fault_kind kind) const;

 private:
  struct state;
  std::unique_ptr<state> state_;
};

}  // namespace veltrix_worker
