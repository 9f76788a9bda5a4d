// What the worker asks of its parts: source, handler, sink, dead letters, commits, configuration.
// Use for: writing a part of your own; the compiler says what it lacks.
// Not for: choosing parts at run time; the executable does that.
// Threads: said at each concept.
// Progress: as the part's.
// Callbacks: none.
// Exceptions: said at each concept.
// Lifetime: parts outlive the worker.
// Guide: docs/worker.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "../clock.hpp"
#include "commit_tracker.hpp"
#include "config.hpp"
#include "event.hpp"
#include "line_splitter.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// Gives blocks of events in the order of the input; called by one thread. `poll` fills an empty
/// block and never waits; `wait` returns when more may be there, at the latest at `until`.
/// `lag` is what is left in bytes, where that is known. To pause a source is not to poll it.
template <class Source>
concept event_source =
    requires(Source& source, const Source& seen, event_block& block, const splitter_limits& limits,
             time_point until, const input_position& place, const config_snapshot& config) {
      { source.poll(block, limits) } -> std::same_as<read_status>;
      { source.wait(until) };
      { source.configure(config) };  // before the first poll, and between polls after a change
      { source.start_after(place) } -> std::same_as<std::string>;  // why it cannot; empty: it can
      { seen.lag() } -> std::same_as<std::optional<std::uint64_t>>;
      { seen.failure() } -> std::convertible_to<std::string>;
      { seen.name() } -> std::convertible_to<std::string>;
    };

/// Works on one event. Called by many threads at once, never twice at once for one key.
/// What it throws sends the event to the dead letters.
template <class Handler>
concept event_handler =
    requires(Handler& handler, const event& each, const config_snapshot& config) {
      { handler.handle(each) };
      { handler.configure(config) };  // at the start and after a change, beside handle()
    };

/// Takes results. `write` is called by many threads at once; the events of a key come in their
/// order. `flush` makes all that was written before durable; `position` is where it ends then.
/// Each gives an error text, empty for success; after an error nothing more is written.
template <class Sink>
concept event_sink = requires(Sink& sink, const Sink& seen, std::span<event* const> batch) {
  { sink.write(batch) } -> std::same_as<std::string>;
  { sink.flush() } -> std::same_as<std::string>;
  { seen.position() } -> std::same_as<std::uint64_t>;
  { seen.name() } -> std::convertible_to<std::string>;
};

/// How a dead letter was received.
enum class letter_status : std::uint8_t {
  kept,    ///< it is written
  full,    ///< the bound of bytes is reached; it is counted only
  failed,  ///< it cannot be written; failure() says why
};

/// Keeps what was refused. Called by many threads at once.
template <class Letters>
concept dead_letter_store = requires(Letters& letters, const Letters& seen,
                                     const rejected_line& line, const config_snapshot& config) {
  { letters.configure(config) };  // at the start and after a change, beside write()
  { letters.write(line) } -> std::same_as<letter_status>;
  { letters.flush() } -> std::same_as<std::string>;
  { seen.failure() } -> std::convertible_to<std::string>;
};

/// What a restart needs.
struct commit_record {
  input_position input;
  std::uint64_t sink_bytes = 0;  ///< where the results of all input before it end

  friend bool operator==(const commit_record&, const commit_record&) = default;
};

/// Remembers a record durably. `save` gives an error text, empty for success.
template <class Store>
concept commit_store = requires(Store& store, const commit_record& record) {
  { store.save(record) } -> std::same_as<std::string>;
};

/// What a look at the configuration's source found.
enum class config_news : std::uint8_t { unchanged, changed, missing };

struct config_update {
  config_news news = config_news::unchanged;
  config_inputs inputs{};  ///< with `changed`
  diagnostic fault{};      ///< with `missing`
};

/// Brings configurations. `poll` is called by one thread and does not wait.
template <class Source>
concept config_source = requires(Source& source) {
  { source.poll() } -> std::same_as<config_update>;
};

/// Takes the metrics as Prometheus text. `publish` gives an error text, empty for success.
template <class Exporter>
concept metrics_exporter = requires(Exporter& exporter, std::string_view text) {
  { exporter.publish(text) } -> std::same_as<std::string>;
};

}  // namespace VELTRIX_ABI
}  // namespace veltrix
