// What a keyed_executor is told and what it answers: options, results, statistics.
// Use for: keyed_executor; include veltrix/keyed_executor.hpp. Internal file, public types.
// Not for: anything else.
// Threads: plain values.
// Progress: wait-free; texts allocate.
// Callbacks: none.
// Exceptions: texts std::bad_alloc; checked_keyed_options() std::invalid_argument.
// Lifetime: values.
// Guide: docs/keyed_executor.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

#include "../clock.hpp"
#include "load_bound.hpp"
#include "message.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// Bounds and sizes of a keyed_executor. The two limits have no default: they are the caller's.
struct keyed_options {
  std::size_t max_items = 0;     ///< items in flight, 1..2^40; settable later
  std::size_t max_bytes = 0;     ///< their weight, 1..2^48 or no_byte_limit; settable later
  std::size_t lanes = 1024;      ///< a power of two, 2^6..2^16
  std::size_t batch_max = 64;    ///< items per handler call, 1..4096
  std::size_t max_runs = 0;      ///< runs at once, 1..lanes; 0: as many as the executor starts
  std::size_t max_waiters = 64;  ///< callers that may wait in submit_wait(); 0: none
  /// A run gives its thread back after the batch that passes this, as the coarse clock sees it
  /// (a tick is 1 to 10 ms); 0..1 h.
  duration run_budget = std::chrono::milliseconds(1);
  std::uint64_t seed = 0;  ///< varies which keys share a lane
};

/// An item with the hash of its key: equal keys, equal hashes; any quality will do.
template <class Item>
struct keyed_item {
  std::uint64_t key_hash;
  Item item;
};

enum class submit_status : std::uint8_t {
  accepted,   ///< every item was taken
  full,       ///< no room for the next item now; `bound` says which bound
  too_heavy,  ///< the next item alone is above the byte limit: it never fits
  closed,     ///< nothing more is taken, ever
  stopped,    ///< the token stopped while waiting for room
  timed_out,  ///< the deadline passed while waiting for room
};

/// The answer to a submit. Items 0 to accepted - 1 of the block were taken (moved from) and will be
/// handled; the rest is untouched, still the caller's.
struct [[nodiscard]] submit_result {
  submit_status status = submit_status::accepted;
  bound_kind bound = bound_kind::none;  ///< what was in the way: full, stopped, timed_out
  std::size_t accepted = 0;
  std::size_t item_bytes = 0;  ///< weight of the first item not taken
  load in_flight{};            ///< at the time of the refusal
  load limit{};                ///< at the time of the refusal

  [[nodiscard]] explicit operator bool() const noexcept {
    return status == submit_status::accepted;
  }

  /// "full: 64.0 MiB of 64 MiB (48,211 events)". `noun` names the items. Allocates.
  [[nodiscard]] std::string message(std::string_view noun = "items") const {
    switch (status) {
      case submit_status::accepted: return "accepted";
      case submit_status::full: return "full: " + full_text(noun);
      case submit_status::too_heavy:
        return "too heavy: " + detail::too_heavy_text(item_bytes, limit);
      case submit_status::closed: return "closed: nothing more is taken";
      case submit_status::stopped: return "stopped while waiting: " + full_text(noun);
      case submit_status::timed_out: return "timed out: " + full_text(noun);
    }
    return "unknown";
  }

 private:
  [[nodiscard]] std::string full_text(std::string_view noun) const {
    return detail::full_text(bound, in_flight, limit, noun);
  }
};

enum class drain_status : std::uint8_t {
  drained,         ///< nothing is in flight
  stopped,         ///< the token stopped first
  timed_out,       ///< the deadline passed first
  inside_handler,  ///< refused: a handler would wait for itself
};

/// The answer to drain(), wait_idle() and stop().
struct [[nodiscard]] drain_result {
  drain_status status = drain_status::drained;
  std::size_t in_flight = 0;    ///< items left
  std::uint64_t abandoned = 0;  ///< items that stop() ended unhandled, in all

  [[nodiscard]] explicit operator bool() const noexcept { return status == drain_status::drained; }
};

/// One consistent picture: submitted == handled + failed + abandoned + in_flight.items, always.
struct keyed_stats {
  load in_flight{};
  load limit{};
  load peak{};
  std::size_t ready_lanes = 0;       ///< lanes with items that nobody visits yet
  std::size_t runs = 0;              ///< runs at work now
  std::size_t waiting = 0;           ///< callers in submit_wait()
  std::uint64_t submitted = 0;       ///< items accepted
  std::uint64_t refused = 0;         ///< items left with the caller, each time
  std::uint64_t handled = 0;         ///< items whose handler returned
  std::uint64_t failed = 0;          ///< items whose handler threw
  std::uint64_t failed_batches = 0;  ///< handler calls that threw
  std::uint64_t lost_failures = 0;   ///< of these, no failure handler was given or it threw too
  std::uint64_t abandoned = 0;       ///< items ended unhandled by stop()
  std::uint64_t batches = 0;         ///< handler calls
  std::size_t max_batch = 0;         ///< most items in one call
  std::uint64_t posts = 0;           ///< runs the executor took
  std::uint64_t refused_posts = 0;   ///< runs it refused, dropped, or ran in the posting thread
  duration blocked{};                ///< time spent waiting in submit_wait(), ended waits
};

namespace detail {

inline constexpr std::size_t min_lanes = std::size_t{1} << 6;
inline constexpr std::size_t max_lanes = std::size_t{1} << 16;
inline constexpr std::size_t max_batch = 4096;

[[noreturn]] inline void refuse_keyed_option(std::string_view what, std::string_view got,
                                             std::string_view allowed) {
  raise(std::invalid_argument(
      describe({"keyed_executor", what, got, allowed, "nothing was built", {}})));
}

/// `options`, or std::invalid_argument naming the first value out of bounds.
inline const keyed_options& checked_keyed_options(const keyed_options& options, bool has_handler) {
  if (!has_handler) refuse_keyed_option("handle", "an empty function", "a callable");
  const load limit{options.max_items, options.max_bytes};
  if (const limits_result fine = check_limits(limit); !fine) {
    refuse_keyed_option("max_items, max_bytes", text_of(limit.items) + ", " + text_of(limit.bytes),
                        fine.why);
  }
  if (options.lanes < min_lanes || options.lanes > max_lanes || !std::has_single_bit(options.lanes))
    refuse_keyed_option("lanes", text_of(options.lanes), "a power of two, 64..65536");
  if (options.batch_max < 1 || options.batch_max > max_batch)
    refuse_keyed_option("batch_max", text_of(options.batch_max), "1..4096");
  if (options.max_runs > options.lanes)
    refuse_keyed_option("max_runs", text_of(options.max_runs), "0..lanes");
  if (options.run_budget < duration::zero() || options.run_budget > std::chrono::hours(1))
    refuse_keyed_option("run_budget", text_of(options.run_budget.count()) + " ns", "0 to 1 hour");
  return options;
}

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
