// Refuses options that are out of bounds, in the words that all refusals have.
// Use for: constructors that take options. Internal.
// Not for: values that change later.
// Threads: pure functions.
// Progress: allocates only to refuse.
// Callbacks: none.
// Exceptions: std::invalid_argument.
// Lifetime: none.
// Guide: docs/design.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

#include "duration_text.hpp"
#include "message.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

[[noreturn]] inline void refuse_option(std::string_view where, std::string_view what,
                                       const std::string& got, std::string_view allowed) {
  raise(std::invalid_argument(
      describe({where, what, got, allowed, "nothing was built", "correct the option"})));
}

/// Throws unless low <= value <= high. A NaN is never between.
template <class Number>
void require_between(std::string_view where, std::string_view what, Number value, Number low,
                     Number high) {
  if (value >= low && value <= high) return;
  refuse_option(where, what, text_of(value), text_of(low) + " to " + text_of(high));
}

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
