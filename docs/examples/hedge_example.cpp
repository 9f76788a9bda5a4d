// SPDX-License-Identifier: BSL-1.0
#include <veltrix/hedge.hpp>

#include <chrono>
#include <cstdio>
#include <optional>
#include <string>

#include <veltrix/elastic_pool.hpp>
#include <veltrix/retry.hpp>

using namespace std::chrono_literals;

namespace {

/// A transport would ask another host for the second copy, and give up when the token stops.
std::optional<std::string> read_from_replica(const veltrix::attempt& each) {
  while (each.copy() == 1 && !each.token().stop_requested()) {
    // the first replica hangs
  }
  return each.copy() == 1 ? std::nullopt : std::optional<std::string>("generation 41");
}

}  // namespace

int main() {
  veltrix::elastic_pool pool(2);
  veltrix::timer_queue timers;
  veltrix::hedging spare({.extra = 0.05, .first_delay = 5ms});  // one per dependency

  const auto policy =
      veltrix::deadline{2s} | veltrix::retry{} | veltrix::hedge{spare, pool, timers};
  const auto got = policy.run([](veltrix::attempt& each) { return read_from_replica(each); });
  std::printf("%llu second copies\n", static_cast<unsigned long long>(spare.stats().hedged));
  pool.stop();
  return got && **got == "generation 41" ? 0 : 1;
}
