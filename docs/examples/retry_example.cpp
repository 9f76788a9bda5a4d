// A call to a service that fails twice, and the policy of an incident refused when it is built.
// SPDX-License-Identifier: BSL-1.0
#include <veltrix/retry.hpp>

#include <chrono>
#include <cstdio>
#include <optional>
#include <stdexcept>
#include <string>

using namespace std::chrono_literals;
using namespace veltrix;

namespace {

std::optional<std::string> fetch(const attempt& each) {  // a transport would use each.deadline()
  if (each.index() < 3) return std::nullopt;
  return "generation 41";
}

}  // namespace

int main() {
  circuit_breaker breaker;  // one per dependency, shared by all its callers
  retry_budget tokens;

  const auto policy = deadline{2s} | retry{.attempts = 3} | guard{breaker, on_open::wait} |
                      budget{tokens} | attempt_timeout{300ms};
  const auto got = policy.run([](attempt& each) { return fetch(each); });

  std::puts(got.message().c_str());
  if (!got || **got != "generation 41" || got.attempts() != 3) return 1;

  // Five retries at 100 ms against an election of 10 s: refused, not discovered at night.
  try {
    static_cast<void>(deadline{60s} |
                      retry{.attempts = 6, .delay = constant{100ms}, .declared_outage = 10s});
  } catch (const std::invalid_argument& refused) {
    std::puts(refused.what());
    return 0;
  }
  return 1;
}
