// What the worker counts while it runs, and one picture of all of it.
// Use for: progress lines, the last summary, metrics and tests.
// Not for: decisions that need exact figures at one instant; counters are read one by one.
// Threads: counters may be written and read from any thread.
// Progress: wait-free.
// Callbacks: none.
// Exceptions: std::bad_alloc when a report is made.
// Lifetime: inside the worker; a report is a value.
// Guide: docs/worker.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "../clock.hpp"
#include "../detail/sync.hpp"
#include "commit_tracker.hpp"
#include "event.hpp"
#include "latency_histogram.hpp"
#include "order_check.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// A number that many threads add to.
class event_counter {
 public:
  void add(std::uint64_t count) noexcept { value_.fetch_add(count, detail::sync::relaxed); }
  [[nodiscard]] std::uint64_t get() const noexcept { return value_.load(detail::sync::relaxed); }

 private:
  // relaxed: statistics only.
  detail::sync::atomic<std::uint64_t> value_{0};
};

/// Times of the input that stepped back, in the order of the input.
struct time_inversions {
  std::uint64_t count = 0;
  std::uint64_t first_line = 0;
  std::int64_t first_us = 0;     ///< the time on that line
  std::int64_t previous_us = 0;  ///< the time on the line before
};

/// The counters of a run. Every line read is in exactly one of ingested, empty and `faults`;
/// every event ingested ends in exactly one of processed, dropped, and the faults handler_failed
/// and queue_full.
struct worker_counters {
  event_counter lines;      ///< read from the source
  event_counter empty;      ///< lines of white space
  event_counter bytes;      ///< read from the source
  event_counter ingested;   ///< events read
  event_counter submitted;  ///< events given to the lanes
  event_counter processed;  ///< events through handler and sink
  event_counter dropped;    ///< events that found the queue full, and were not wanted then
  std::array<event_counter, fault_kinds> faults;  ///< by fault_kind
  event_counter dead_lettered;                    ///< written to the dead letters
  event_counter letters_lost;                     ///< the dead letters were full
  event_counter overtaken;
  event_counter late;
  event_counter duplicates;
  event_counter too_old;
  event_counter keys_forgotten;
  detail::sync::atomic<std::int64_t> missing{0};  // relaxed: statistics only
  latency_histogram wait;                         ///< from the read to the handler
  latency_histogram service;                      ///< of a batch: handler and sink
  latency_histogram latency;                      ///< from the read to the sink
  latency_histogram sink_write;
  event_counter pauses_ns;  ///< time the source was held back
};

/// The pool, as the worker sees it.
struct pool_picture {
  std::uint64_t configured = 0;
  std::uint64_t running = 0;
  std::uint64_t busy = 0;
  std::uint64_t starting = 0;
  std::uint64_t retiring = 0;
  std::uint64_t generation = 0;
};

/// Results of attempts to resize.
struct resize_counts {
  std::uint64_t ack = 0;
  std::uint64_t backoff = 0;
  std::uint64_t refused = 0;
};

/// Everything, at about one instant.
struct worker_report {
  // input
  std::uint64_t lines = 0;
  std::uint64_t bytes = 0;
  std::uint64_t empty = 0;
  std::uint64_t ingested = 0;
  std::uint64_t processed = 0;
  std::uint64_t dropped = 0;
  std::array<std::uint64_t, fault_kinds> faults{};
  std::uint64_t dead_lettered = 0;
  std::uint64_t letters_lost = 0;
  std::uint64_t lag_bytes = 0;
  bool lag_known = false;
  // order
  order_counts order;
  std::int64_t missing = 0;
  time_inversions inversions;
  // in flight
  std::uint64_t in_flight = 0;
  std::uint64_t in_flight_limit = 0;
  std::uint64_t in_flight_bytes = 0;
  std::uint64_t in_flight_bytes_limit = 0;
  bool paused = false;
  double paused_seconds = 0;
  // commit
  input_position committed;
  input_position read;
  std::uint64_t sink_bytes = 0;
  // pool
  pool_picture pool;
  std::uint64_t desired_workers = 0;
  double mismatch_seconds = 0;
  resize_counts resizes;
  // configuration
  std::uint64_t config_generation = 0;
  std::uint64_t config_digest = 0;
  bool last_reload_good = true;
  double last_reload_at = 0;  ///< seconds since 1970
  std::uint64_t reloads_accepted = 0;
  std::uint64_t reloads_refused = 0;
  std::uint64_t reloads_missing = 0;
  // time
  double seconds = 0;                         ///< since the start of the run
  double rate = 0;                            ///< processed per second, of late
  const worker_counters* counters = nullptr;  ///< for the histograms
  const latency_histogram* resize_seconds = nullptr;
  std::string pod{};

  /// Takes what the counters say now.
  void count(const worker_counters& from) {
    lines = from.lines.get();
    bytes = from.bytes.get();
    empty = from.empty.get();
    processed = from.processed.get();  // before `ingested`, so that it is not more
    ingested = from.ingested.get();
    dropped = from.dropped.get();
    for (std::size_t kind = 0; kind < fault_kinds; ++kind)
      faults[kind] = from.faults[kind].get();
    dead_lettered = from.dead_lettered.get();
    letters_lost = from.letters_lost.get();
    order = {.overtaken = from.overtaken.get(),
             .late = from.late.get(),
             .duplicates = from.duplicates.get(),
             .too_old = from.too_old.get(),
             .forgotten = from.keys_forgotten.get()};
    missing = from.missing.load(detail::sync::relaxed);
    counters = &from;
  }

  [[nodiscard]] std::uint64_t invalid() const noexcept {
    std::uint64_t sum = 0;
    for (std::size_t kind = 1; kind < static_cast<std::size_t>(fault_kind::handler_failed); ++kind)
      sum += faults[kind];
    return sum;
  }

  [[nodiscard]] std::uint64_t fault(fault_kind kind) const noexcept {
    return faults[static_cast<std::size_t>(kind)];
  }

  /// Events that came in and went nowhere; 0 unless the run was cut short or is still going.
  [[nodiscard]] std::int64_t unaccounted() const noexcept {
    const std::uint64_t ended =
        processed + dropped + fault(fault_kind::handler_failed) + fault(fault_kind::queue_full);
    return static_cast<std::int64_t>(ingested) - static_cast<std::int64_t>(ended);
  }
};

}  // namespace VELTRIX_ABI
}  // namespace veltrix
