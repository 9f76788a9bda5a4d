// Explores the interleavings of a small test: every one within bounds, or a sample of them.
//
//   const auto seen = veltrix_model::explore({.preemptions = 2}, [] {
//     queue under_test(...);
//     veltrix_model::together([&] { under_test.push(1); }, [&] { under_test.pop(); });
//     veltrix_model::require(under_test.empty(), "what went in came out");
//   });
//   REQUIRE(seen.passed());   // prints seen.report(), a trace and a string that replays it
//
// The body runs once per execution, from the same start each time: it must not depend on anything
// else. It must not use the macros of the test framework, which keep memory: require() stands in.
// What is modelled and what is not stands in docs/testing.md.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <ostream>
#include <string>
#include <utility>

#include "model/engine.hpp"
#include "model/instruments.hpp"

namespace veltrix_model {

/// What to explore, how far, and when to stop. Where the environment has VELTRIX_MODEL_SCALE=n,
/// every search goes n times as far before it gives up.
struct exploration : search_options {
  std::uint64_t most_schedules = 20'000'000;  ///< executions; a search that ends here says so
  double most_seconds = 60;  ///< of the processor: a busy machine ends no search early
  std::string replay{};      ///< a string of a report: that execution alone
};

struct findings {
  bool failed = false;
  bool exhausted = false;       ///< every execution within the bounds was run
  std::uint64_t schedules = 0;  ///< complete executions
  std::uint64_t pruned = 0;     ///< executions that, from some step on, repeat another
  std::uint64_t steps = 0;
  double seconds = 0;
  std::string what;  ///< of the failure
  std::string trace;
  std::string replay;

  [[nodiscard]] bool passed() const noexcept { return !failed; }
  /// "exhausted: 1,234 schedules, 0.01 s, 512 k/s", or the failure with its trace and replay.
  [[nodiscard]] std::string report() const;
};

std::ostream& operator<<(std::ostream& to, const findings& found);

namespace detail {
findings explore(const exploration& wanted, void (*body)(void*), void* argument, source_line at);
}  // namespace detail

/// Runs `body` in every execution that `wanted` asks for, until one fails. Where the environment
/// has VELTRIX_REPLAY=<a report's replay string>, the call at its line runs that execution alone.
template <class Body>
findings explore(const exploration& wanted, Body body, source_line at = source_line::here()) {
  return detail::explore(
      wanted, [](void* argument) { (*static_cast<Body*>(argument))(); }, &body, at);
}

/// Explores `body` once for each k, with its k-th allocation failing, until none is left to fail.
/// The body catches std::bad_alloc where it may come. Result: of the first failure, or sums.
template <class Body>
findings explore_failing_allocations(exploration wanted, Body body,
                                     source_line at = source_line::here()) {
  findings sum;
  sum.exhausted = true;
  for (wanted.fail_allocation = 1;; ++wanted.fail_allocation) {
    std::uint64_t most = 0;
    const auto counted = [&] {
      body();
      most = std::max(most, heap.allocations());
    };
    const findings found = explore(wanted, counted, at);
    if (found.failed) return found;
    sum.schedules += found.schedules;
    sum.pruned += found.pruned;
    sum.steps += found.steps;
    sum.seconds += found.seconds;
    sum.exhausted = sum.exhausted && found.exhausted;
    if (wanted.fail_allocation > most) return sum;
  }
}

/// Runs each body on a thread of its own, all at once, and waits for them.
template <class... Bodies>
void together(Bodies&&... bodies) {
  native_thread threads[sizeof...(bodies)];
  std::size_t next = 0;
  (threads[next++].start(std::forward<Bodies>(bodies)), ...);
  for (native_thread& each : threads)
    each.join();
}

/// Calls `last()` when the calling thread's function has returned, before the thread ends: what the
/// destructor of a thread_local does. `last` outlives the thread; one for each.
template <class Last>
void at_thread_end(Last& last) {
  the.self().last = [](void* argument) { (*static_cast<Last*>(argument))(); };
  the.self().last_argument = &last;
}

/// Fails the execution, with `text`, unless `holds`.
inline void require(bool holds, const char* text) {
  if (!holds) the.fail("%s", text);
}

/// One of `count` values, all of them explored.
inline unsigned any_of(unsigned count) {
  return the.choose(count);
}

}  // namespace veltrix_model
