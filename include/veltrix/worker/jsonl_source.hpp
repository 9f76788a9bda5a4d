// Turns bytes into blocks of events: a reader brings bytes, a parser knows what a line means.
// Use for: every source of JSON Lines; the reader decides whether it is a file, a pipe or made up.
// Not for: binary formats.
// Threads: one.
// Progress: as the reader's.
// Callbacks: reader and parser, no lock held.
// Exceptions: std::bad_alloc, and those of the reader and the parser.
// Lifetime: owns reader and parser.
// Guide: docs/worker.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "../clock.hpp"
#include "commit_tracker.hpp"
#include "config.hpp"
#include "event.hpp"
#include "line_splitter.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// Makes an event of a line. `reason` explains the fault that `parse` gave last.
template <class Parser>
concept line_parser =
    requires(Parser& parser, const Parser& seen, event_block& block, const raw_line& line,
             event& into, fault_kind kind, const config_snapshot& config) {
      { parser.parse(block, line, into) } -> std::same_as<fault_kind>;
      { seen.reason(kind) } -> std::convertible_to<std::string>;
      { parser.configure(config) };
    };

template <byte_reader Reader, line_parser Parser>
class jsonl_source {
 public:
  jsonl_source(std::unique_ptr<Reader> reader, std::unique_ptr<Parser> parser)
      : reader_(std::move(reader)), parser_(std::move(parser)) {}

  /// See event_source. Lines that are no events are among the block's rejects.
  read_status poll(event_block& block, const splitter_limits& limits) {
    const read_status status = splitter_.fill(block, *reader_, limits);
    block.read_at = steady_clock::now();
    if (status != read_status::data) return status;
    block.shrink_text();
    block.reserve_events(block.lines().size());
    for (const raw_line& line : block.lines())
      read_line(block, line);
    std::ranges::sort(block.rejects(), {}, &rejected_line::number);
    return status;
  }

  /// Takes a changed schema into force, for the blocks that follow.
  void configure(const config_snapshot& config) { parser_->configure(config); }

  void wait(time_point until) { reader_->wait(until); }

  std::string start_after(const input_position& place) {
    std::string problem = reader_->start_after(place);
    if (problem.empty()) splitter_.start_after(place.lines, place.bytes);
    return problem;
  }

  [[nodiscard]] std::optional<std::uint64_t> lag() const {
    const auto size = reader_->size();
    if (!size.has_value()) return std::nullopt;
    return *size - std::min(*size, splitter_.next_offset());
  }

  [[nodiscard]] std::string failure() const { return reader_->failure(); }
  [[nodiscard]] std::string name() const { return reader_->name(); }

 private:
  void read_line(event_block& block, const raw_line& line) {
    event& next = block.next_event();
    const fault_kind fault = parser_->parse(block, line, next);
    if (fault == fault_kind::none) {
      block.take_event();
      return;
    }
    const std::string_view text = block.text().substr(line.begin, line.length);
    block.rejects().push_back({.kind = fault,
                               .number = line.number,
                               .offset = line.offset,
                               .length = line.length,
                               .text = std::string(text.substr(0, rejected_line::kept_bytes)),
                               .reason = parser_->reason(fault)});
  }

  std::unique_ptr<Reader> reader_;
  std::unique_ptr<Parser> parser_;
  line_splitter splitter_;
};

}  // namespace VELTRIX_ABI
}  // namespace veltrix
