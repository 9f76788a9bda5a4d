// The three policies that docs/retry.md tells operators to choose from, through an outage of 10 s.
// SPDX-License-Identifier: BSL-1.0
#include <veltrix/retry.hpp>

#include <chrono>
#include <cstdio>

using namespace std::chrono_literals;
using namespace veltrix;

namespace {

/// What all callers of one dependency share.
struct dependency {
  circuit_breaker breaker{{}, small_random(1)};
  retry_budget tokens;
  concurrency_limiter places{{}, small_random(2)};
};

/// A person waits: an answer within two seconds, or none.
auto interactive(dependency& of) {
  return deadline{2s} | retry{} | guard{of.breaker, on_open::wait} |
         limit{of.places, on_full::wait} | budget{of.tokens} | attempt_timeout{300ms};
}

/// The work must be done; seconds do not matter.
auto background(dependency& of) {
  return deadline{30s} | retry{.attempts = retry::any_number} | guard{of.breaker, on_open::wait} |
         limit{of.places, on_full::wait} | attempt_timeout{300ms};
}

/// Everything waits for this one dependency, which is known to be away for 10 s at times.
auto gated() {
  return deadline{30s} | retry{.attempts = retry::any_number,
                               .delay = constant{400ms} | spread{0.125},
                               .declared_outage = 10s};
}

/// Calls through an outage of 10 s in virtual time. Result: the outcome's own words.
template <class Policy>
bool through_outage(const char* name, const Policy& policy) {
  virtual_clock clock(virtual_sleep::advances);
  const time_point back = clock.now() + 10s;
  env where(clock, stop_token(), small_random(3));
  const outcome<bool> told = policy.run(where, [&] { return clock.now() >= back; });
  std::printf("%-12s %s\n", name, told.message().c_str());
  return static_cast<bool>(told);
}

}  // namespace

int main() {
  dependency one, two;
  const bool first = through_outage("interactive", interactive(one));
  const bool second = through_outage("background", background(two));
  const bool third = through_outage("gated", gated());
  return !first && second && third ? 0 : 1;
}
