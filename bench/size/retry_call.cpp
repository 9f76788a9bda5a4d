// One call under a policy, for its size alone.
// SPDX-License-Identifier: BSL-1.0
#include "veltrix/retry.hpp"

std::optional<int> ask(int what);

bool call(const veltrix::pipeline<veltrix::until_stopped, veltrix::retry, veltrix::guard,
                                  veltrix::budget>& policy,
          veltrix::env<>& where, int what);

bool call(const veltrix::pipeline<veltrix::until_stopped, veltrix::retry, veltrix::guard,
                                  veltrix::budget>& policy,
          veltrix::env<>& where, int what) {
  bool good = static_cast<bool>(policy.run(where, [what] { return ask(what); }));
#ifdef VELTRIX_BENCH_FURTHER_CALL
  good = good && policy.run(where, [what] { return ask(what + 1); });
#endif
  return good;
}
