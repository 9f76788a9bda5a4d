// The same call without a policy.
// SPDX-License-Identifier: BSL-1.0
#include <optional>

std::optional<int> ask(int what);

bool call(int what);

bool call(int what) {
  return ask(what).has_value();
}
