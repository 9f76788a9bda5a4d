// Looking for something that other threads are about to do, before sleeping for it.
// Use for: waits that usually end within microseconds. Internal.
// Not for: waits that must end so; whoever looked sleeps then.
// Threads: any.
// Progress: ends after a moment.
// Callbacks: what was given, in the calling thread.
// Exceptions: none.
// Lifetime: nothing is kept.
// Guide: docs/design.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>

#include "../clock.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// Until `seen()`, for at most `moment` and up to the deadline; calls `pause()` between two looks.
/// Explored executions have no use for it.
template <class Seen, class Pause>
void look_out(duration moment, time_point deadline, Seen seen, Pause pause) noexcept {
  if (sync::repeatable) return;
  const time_point until = std::min(deadline, saturating_add(sync::steady_now(), moment));
  while (!seen() && sync::steady_now() < until)
    pause();
}

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
