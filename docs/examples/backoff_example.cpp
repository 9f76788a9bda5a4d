// Delays of one call chain, drawn from a policy that is a plain value.
// SPDX-License-Identifier: BSL-1.0
#include <veltrix/backoff.hpp>

#include <chrono>
#include <cstdio>
#include <stdexcept>

using namespace std::chrono_literals;

int main() {
  const veltrix::backoff policy =
      veltrix::exponential{100ms, 2.0} | veltrix::capped{1s} | veltrix::full_jitter{};

  veltrix::small_random random(42);  // or small_random::seeded()
  veltrix::backoff_sequence delays(policy);
  for (int retry = 0; retry < 6; ++retry) {
    const veltrix::duration wait = delays.next(random);
    std::printf("retry %d after %lld ms\n", retry + 1,
                static_cast<long long>(wait / std::chrono::milliseconds(1)));
    if (wait < 0s || wait > 1s) return 1;
  }
  // What a policy can bridge is known before anything fails.
  if (policy.mean_total(5) != 1250ms) return 1;  // half of 100 + 200 + 400 + 800 + 1000

  try {
    static_cast<void>(veltrix::backoff(veltrix::exponential{100ms, 0.5}));
  } catch (const std::invalid_argument& refused) {
    std::puts(refused.what());
    return 0;
  }
  return 1;
}
