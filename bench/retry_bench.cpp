// What a policy adds to a call that succeeds at once, layer by layer.
// SPDX-License-Identifier: BSL-1.0
#include "veltrix/retry.hpp"

#include <optional>

#include "harness.hpp"

namespace {

using veltrix_bench::contender;

/// A call that the optimiser cannot see through.
[[gnu::noinline]] std::optional<int> answer(std::uint64_t asked) {
  veltrix_bench::keep(asked);
  return static_cast<int>(asked);
}

template <class Policy>
contender under(const char* name, const Policy& policy) {
  return {name, [&policy](unsigned, std::uint64_t operations) {
            for (std::uint64_t i = 0; i < operations; ++i)
              veltrix_bench::keep(policy.run([i] { return answer(i); }));
          }};
}

}  // namespace

int main(int argc, char** argv) {
  using namespace std::chrono_literals;
  using namespace veltrix;
  using namespace veltrix_bench;
  bench table("retry", parse(argc, argv));
  circuit_breaker breaker;
  retry_budget tokens;
  const auto plain = deadline{2s} | retry{.attempts = 3};
  const auto guarded = plain | guard{breaker};
  const auto budgeted = plain | budget{tokens};
  const auto both = plain | guard{breaker} | budget{tokens};
  for (const unsigned threads : {1U, 2U}) {
    table.run("a call that succeeds", threads,
              {{"no policy",
                [](unsigned, std::uint64_t operations) {
                  for (std::uint64_t i = 0; i < operations; ++i)
                    keep(answer(i));
                }},
               under("deadline | retry", plain),
               under("... | guard", guarded),
               under("... | budget", budgeted),
               under("... | guard | budget", both)});
  }
  const backoff policy = exponential{100ms, 2.0} | capped{1s} | full_jitter{};
  table.run("a delay", 1,
            {{"random bits",
              [](unsigned, std::uint64_t operations) {
                small_random random(1);
                for (std::uint64_t i = 0; i < operations; ++i)
                  keep(random());
              }},
             {"backoff, full jitter", [&](unsigned, std::uint64_t operations) {
                small_random random(1);
                backoff_sequence delays(policy);
                for (std::uint64_t i = 0; i < operations; ++i)
                  keep(delays.next(random));
              }}});
  return table.finish();
}
