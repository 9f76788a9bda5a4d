// What it costs to ask for the time.
// SPDX-License-Identifier: BSL-1.0
#include "veltrix/clock.hpp"

#include "harness.hpp"

namespace {

template <class Clock>
veltrix_bench::contender asks(const char* name, Clock& clock) {
  return {name, [&clock](unsigned, std::uint64_t operations) {
            for (std::uint64_t i = 0; i < operations; ++i)
              veltrix_bench::keep(clock.now());
          }};
}

}  // namespace

int main(int argc, char** argv) {
  using namespace veltrix_bench;
  bench table("clock", parse(argc, argv));
  std::chrono::steady_clock of_std;
  veltrix::steady_clock steady;
  veltrix::coarse_clock coarse;
  veltrix::virtual_clock pretended;
  for (const unsigned threads : {1U, 2U}) {
    table.run("now()", threads,
              {asks("std::chrono::steady_clock", of_std), asks("steady_clock", steady),
               asks("coarse_clock", coarse), asks("virtual_clock", pretended)});
  }
  return table.finish();
}
