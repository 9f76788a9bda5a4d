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

#include <cstdint>
#include <ostream>
#include <string>
#include <utility>

#include "model/engine.hpp"
#include "model/instruments.hpp"

namespace veltrix_model {

/// What to explore, how far, and when to stop.
struct exploration : search_options {
  std::uint64_t most_schedules = 20'000'000;  ///< executions; a search that ends here says so
  double most_seconds = 60;
  std::string replay{};  ///< a string of a report: that execution alone
};

struct findings {
  bool failed = false;
  bool exhausted = false;       ///< every execution within the bounds was run
  std::uint64_t schedules = 0;  ///< complete executions
  std::uint64_t pruned = 0;     ///< executions cut short because an equal one was run
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
findings explore(const exploration& wanted, void (*body)(void*), void* argument);
}  // namespace detail

template <class Body>
findings explore(const exploration& wanted, Body body) {
  return detail::explore(wanted, [](void* argument) { (*static_cast<Body*>(argument))(); }, &body);
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

/// Fails the execution, with `text`, unless `holds`.
inline void require(bool holds, const char* text) {
  if (!holds) the.fail("%s", text);
}

/// One of `count` values, all of them explored.
inline unsigned any_of(unsigned count) {
  return the.choose(count);
}

}  // namespace veltrix_model
