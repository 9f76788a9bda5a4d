// retry, resilience and backoff in a build without exceptions: they compile and give the same
// answers. No test framework here: it needs exceptions.
// SPDX-License-Identifier: BSL-1.0
#include "veltrix/retry.hpp"

#include <chrono>
#include <cstdio>
#include <optional>

#if defined(__cpp_exceptions)
#error "this file is built with -fno-exceptions"
#endif

using namespace std::chrono_literals;
using namespace veltrix;

namespace {

int wrong = 0;

void check(bool holds, const char* sentence) {
  if (holds) return;
  std::fprintf(stderr, "wrong: %s\n", sentence);
  ++wrong;
}

void runs_synchronously() {
  virtual_clock clock(virtual_sleep::advances);
  circuit_breaker breaker;
  retry_budget tokens;
  const auto policy = deadline{2s} | retry{.attempts = 3, .delay = constant{100ms}} |
                      guard{breaker, on_open::wait} | budget{tokens};
  int calls = 0;
  const auto told = policy.run(env{clock}, [&]() -> std::optional<int> {
    return ++calls == 3 ? std::optional(7) : std::nullopt;
  });
  check(told && **told == 7, "the third attempt's result is returned");
  check(told.attempts() == 3 && told.elapsed() == 200ms, "attempts and time are counted");
  const auto failed = policy.run(env{clock}, [] { return false; });
  check(failed.reason() == stop_reason::attempts_exhausted, "it stops after its attempts");
}

void runs_asynchronously() {
  virtual_clock clock;
  inline_executor here;
  int completions = 0;
  const auto policy = deadline{2s} | retry{.attempts = 3, .delay = constant{100ms}};
  policy.run_on(
      here, env{clock}, [](attempt& each) { return each.index() == 3; },
      [&](const outcome<bool>& told) {
        ++completions;
        check(static_cast<bool>(told), "the asynchronous call succeeds");
      });
  check(completions == 0, "it waits on the timer");
  clock.advance(1s);
  check(completions == 1, "it completes once");
}

}  // namespace

int main() {
  runs_synchronously();
  runs_asynchronously();
  return wrong == 0 ? 0 : 1;
}
