// A worker that ends when it is asked to, wherever it waits.
// SPDX-License-Identifier: BSL-1.0
#include <veltrix/clock.hpp>
#include <veltrix/stop_token.hpp>

#include <cstdio>
#include <thread>

int main() {
  veltrix::stop_source source;
  bool woken = false;

  std::thread worker([&woken, token = source.get_token()] {
    // Every blocking call of the library takes a token; this one would sleep for ever.
    woken = !veltrix::steady_clock::sleep_until(veltrix::no_deadline, token);
  });

  // Runs once, in the thread that makes the request.
  int told = 0;
  const veltrix::stop_callback on_stop(source.get_token(), [&told] { ++told; });

  const bool first = source.request_stop();
  const bool second = source.request_stop();
  worker.join();

  std::printf("woken: %d, told: %d, first request: %d, second: %d\n", woken, told, first, second);
  return woken && told == 1 && first && !second ? 0 : 1;
}
