// Which pool the calling thread works for.
// Use for: never letting a worker wait for itself. Internal.
// Not for: finding a pool; the address is only compared, the pool may be gone.
// Threads: each thread has its own.
// Progress: wait-free.
// Callbacks: none.
// Exceptions: none.
// Lifetime: that of the thread.
// Guide: docs/elastic_pool.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

struct worker_share;

struct worker_identity {
  const void* pool = nullptr;     ///< null on a thread that is no worker
  worker_share* share = nullptr;  ///< what it has for its work; null where pool is
  bool in_task = false;           ///< false in hooks
};

/// The calling thread's.
inline worker_identity& this_worker() noexcept {
  return sync::per_thread<worker_identity>();
}

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
