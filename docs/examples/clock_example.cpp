// A poller that takes its clock as a parameter: one day of it in a moment.
// SPDX-License-Identifier: BSL-1.0
#include <veltrix/clock.hpp>

#include <chrono>
#include <cstdio>

using namespace std::chrono_literals;

/// Polls each `period` until `end` or until it is asked to stop. Result: the polls made.
template <veltrix::sleeper Clock>
int poll(Clock& clock, veltrix::duration period, veltrix::time_point end,
         const veltrix::stop_token& token) {
  int polls = 0;
  for (auto next = clock.now(); next < end; next = veltrix::saturating_add(next, period)) {
    if (!clock.sleep_until(next, token)) break;
    ++polls;
  }
  return polls;
}

int main() {
  veltrix::virtual_clock clock(veltrix::virtual_sleep::advances);
  veltrix::stop_source source;

  const int day = poll(clock, 500ms, clock.now() + 24h, source.get_token());

  clock.call_at(clock.now() + 10min, [&source] { source.request_stop(); });
  const int cut = poll(clock, 1min, clock.now() + 24h, source.get_token());

  veltrix::steady_clock real;
  const int none = poll(real, 1h, real.now() + 24h, source.get_token());

  std::printf("polls in a day: %d, until the stop: %d, after it: %d\n", day, cut, none);
  return day == 172'800 && cut == 11 && none <= 1 ? 0 : 1;
}
