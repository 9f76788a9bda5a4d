// An instance that lost its leader must hold for 30 s before it takes traffic again.
// SPDX-License-Identifier: BSL-1.0
#include <veltrix/readiness.hpp>

#include <chrono>
#include <cstdio>

using namespace std::chrono_literals;

int main() {
  veltrix::virtual_clock clock;  // steady_clock in a program
  veltrix::readiness ready({"config caught up", "leader is known"});
  using veltrix::condition_state;

  ready.set(0, {condition_state::unmet, "generation 41 of 44"}, clock.now());
  ready.set(1, {condition_state::met}, clock.now());
  std::fputs(ready.ask(clock.now()).body.c_str(), stdout);
  ready.set(0, {condition_state::met}, clock.now());
  if (!ready.ask(clock.now()).ready) return 1;  // a first start has nothing to prove

  ready.set(1, {condition_state::unmet, "election"}, clock.now());
  clock.advance(1s);
  ready.set(1, {condition_state::met}, clock.now());
  clock.advance(29s);
  std::fputs(ready.ask(clock.now()).body.c_str(), stdout);
  if (ready.ask(clock.now()).ready || ready.flaps() != 1) return 1;
  clock.advance(1s);
  return ready.ask(clock.now()).ready ? 0 : 1;
}
