// A value alone on its cache lines.
// Use for: words that different threads write, side by side in one object. Internal.
// Not for: read-only data.
// Threads: as the value's.
// Progress: none of its own.
// Callbacks: none.
// Exceptions: those of the value's constructor.
// Lifetime: as the value's.
// Guide: docs/design.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <utility>

#include "config.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

template <class Value>
struct alignas(cache_line) cache_padded {
  template <class... Arguments>
  explicit cache_padded(Arguments&&... arguments) : value(std::forward<Arguments>(arguments)...) {}

  Value value;
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
