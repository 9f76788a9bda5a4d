// Asking a wait or a task to stop: the standard's stop_token, or its like where it is missing.
// Use for: every cancellable wait of the library; where std::stop_token exists, this is it.
// Not for: killing threads; a request is seen only where somebody looks.
// Threads: all members of a source and its tokens may be called from any thread.
// Progress: stop_requested() is wait-free; the rest takes a short lock where ours is used.
// Callbacks: stop_callback runs in the thread that requests the stop, no lock held.
// Exceptions: a throwing callback terminates, as the standard says.
// Lifetime: the shared state lives as long as the last source, token or callback.
// Guide: docs/stop_token.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <version>

#include "detail/sync.hpp"

// The standard's waits could not be seen by tests that explore interleavings.
#if defined(__cpp_lib_jthread) && !defined(VELTRIX_MODEL)
#include <stop_token>

namespace veltrix {
inline namespace VELTRIX_ABI {

using std::stop_callback;
using std::stop_source;
using std::stop_token;

}  // namespace VELTRIX_ABI
}  // namespace veltrix
#else
#include "detail/stop_state.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

using detail::own_stop::stop_callback;
using detail::own_stop::stop_source;
using detail::own_stop::stop_token;

}  // namespace VELTRIX_ABI
}  // namespace veltrix
#endif
