// A breaker and a budget in a hand-written loop; retry.hpp does the same with less code.
// SPDX-License-Identifier: BSL-1.0
#include <veltrix/resilience.hpp>

#include <chrono>
#include <cstdio>

using namespace std::chrono_literals;

int main() {
  veltrix::virtual_clock clock;  // steady_clock in a program
  veltrix::circuit_breaker breaker({.open_first = 250ms, .open_jitter = 0.0});
  veltrix::retry_budget tokens({.ratio = 0.1, .per_second = 0.5, .burst = 10});

  int sent = 0;
  int refused = 0;
  for (int call = 0; call < 100; ++call) {  // the dependency fails for 100 calls
    tokens.deposit();
    veltrix::circuit_breaker::entry entry = breaker.enter(clock);
    if (!entry) {
      ++refused;  // entry.retry_at says when asking again makes sense
      continue;
    }
    ++sent;
    entry.pass.failure(clock.now());
  }
  std::printf("%d calls sent, %d kept away from a dependency that fails\n", sent, refused);
  if (sent != 10 || breaker.state() != veltrix::breaker_state::open) return 1;

  clock.advance(250ms);
  for (int probe = 0; probe < 3; ++probe) {  // back again: one probe at a time, three successes
    veltrix::circuit_breaker::entry entry = breaker.enter(clock);
    if (!entry.pass.is_probe() || breaker.enter(clock)) return 1;
    entry.pass.success();
  }
  if (breaker.state() != veltrix::breaker_state::closed) return 1;

  int retries = 0;
  while (veltrix::retry_budget::token token = tokens.try_withdraw(clock.now())) {
    token.spend();
    ++retries;
  }
  std::printf("%d retries allowed at once\n", retries);
  return retries == 10 ? 0 : 1;
}
