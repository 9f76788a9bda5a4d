// Error texts in one form: what, where, got, allowed, what stays in force, next step.
// Use for: the text of every exception the library throws. Internal.
// Not for: hot paths; it allocates.
// Threads: pure functions.
// Progress: allocates.
// Callbacks: none.
// Exceptions: std::bad_alloc.
// Lifetime: returns by value.
// Guide: docs/design.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <concepts>
#include <string>
#include <string_view>

#include "config.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// The parts of an error text; all are needed but `next`.
struct fault {
  std::string_view where;    ///< operation, as the caller wrote it: "elastic_pool::elastic_pool"
  std::string_view what;     ///< the parameter or the state at fault
  std::string_view got;      ///< the value seen
  std::string_view allowed;  ///< the values it may have, with units
  std::string_view stays;    ///< what is true now: "no pool was built"
  std::string_view next{};   ///< what to do
};

/// "where: what: got G, allowed A; stays; next"
[[nodiscard]] inline std::string describe(const fault& told) {
  std::string text;
  text.append("veltrix: ").append(told.where).append(": ").append(told.what);
  text.append(": got ").append(told.got).append(", allowed ").append(told.allowed);
  text.append("; ").append(told.stays);
  if (!told.next.empty()) text.append("; ").append(told.next);
  return text;
}

template <std::integral Number>
[[nodiscard]] std::string text_of(Number number) {
  return std::to_string(number);
}

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
