// What the models of the headers share: one line per search, and the demand that it was complete.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstdio>

#include "model/explore.hpp"
#include "support/catch.hpp"

namespace veltrix_model {

/// The search came to its end within its bounds, and nothing failed.
inline void check_exhausted(const char* name, const findings& seen) {
  std::printf("model: %s: %s\n", name, seen.report().c_str());
  INFO(seen);
  REQUIRE(seen.passed());
  CHECK(seen.exhausted);
}

/// Nothing failed in as many schedules as were asked for.
inline void check_sampled(const char* name, const findings& seen, std::uint64_t schedules) {
  std::printf("model: %s: %s\n", name, seen.report().c_str());
  INFO(seen);
  REQUIRE(seen.passed());
  CHECK(seen.schedules + seen.pruned >= schedules);
}

/// A search that gives up after `schedules`, told from one that is complete by its findings.
inline void check_searched(const char* name, const findings& seen, std::uint64_t schedules) {
  if (seen.exhausted) {
    check_exhausted(name, seen);
  } else {
    check_sampled(name, seen, schedules);
  }
}

}  // namespace veltrix_model
