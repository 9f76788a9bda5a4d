// What the library asks of something that runs tasks: one operation, three answers.
// Use for: handing a pool to concurrent_map's parallel forms, loading_cache, retry.
// Not for: priorities, affinity or timers.
// Threads: try_post() may be called from any thread.
// Progress: as the executor's.
// Callbacks: a posted task runs on a thread of the executor's choice, none of our locks held.
// Exceptions: try_post() may throw std::bad_alloc; the task was not accepted then.
// Lifetime: the executor outlives what was posted to it.
// Guide: docs/executor.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <concepts>
#include <cstdint>
#include <utility>

#include "detail/task.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// What executors take: any callable without arguments, move-only ones included.
using task = detail::task;

/// The three answers to an offer of work.
enum class post_status : std::uint8_t {
  accepted,  ///< it runs exactly once
  full,      ///< not taken now; `why` names the bound
  closed,    ///< not taken, and never will be
};

/// An answer with its reason.
struct [[nodiscard]] post_result {
  post_status status = post_status::accepted;
  const char* why = "";  ///< a sentence in static storage; empty when accepted

  [[nodiscard]] explicit operator bool() const noexcept { return status == post_status::accepted; }
};

/// Takes tasks: `try_post` never waits; a refused task is destroyed unrun or left with the caller.
template <class Executor>
concept executor = requires(Executor& where, task work) {
  { where.try_post(std::move(work)) } -> std::same_as<post_result>;
};

/// Runs each task at once, in the thread that posts it. What the task throws leaves try_post(): it
/// was accepted and has run.
struct inline_executor {
  template <class Work>
  post_result try_post(Work&& work) const {
    std::forward<Work>(work)();
    return {};
  }
};

}  // namespace VELTRIX_ABI
}  // namespace veltrix
