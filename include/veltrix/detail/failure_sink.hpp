// Where the exceptions of tasks go when nobody else takes them.
// Use for: a pool and the task handles it gave out. Internal.
// Not for: errors of the library itself.
// Threads: report() may be called from any thread.
// Progress: as the handler's.
// Callbacks: the handler runs in the thread that reports, no lock held, several at once.
// Exceptions: a throwing handler is told on stderr and goes no further.
// Lifetime: shared; the handler lives until the pool and its last task_handle are gone.
// Guide: docs/elastic_pool.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstdint>
#include <cstdio>
#include <exception>
#include <utility>

#include "sync.hpp"
#include "task.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

using exception_handler = unique_function<void(std::exception_ptr)>;

/// Prints one line: `said`, then what the exception says of itself.
inline void tell_exception(const char* said, const std::exception_ptr& failure) noexcept {
#if VELTRIX_HAS_EXCEPTIONS
  try {
    std::rethrow_exception(failure);
  } catch (const std::exception& told) {
    std::fprintf(stderr, "veltrix: %s: %s\n", said, told.what());
  } catch (...) {
    std::fprintf(stderr, "veltrix: %s: not a std::exception\n", said);
  }
#else
  static_cast<void>(failure);
  std::fprintf(stderr, "veltrix: %s\n", said);
#endif
}

class failure_sink {
 public:
  /// An empty handler prints one line to stderr for each exception.
  explicit failure_sink(exception_handler handler) noexcept : handler_(std::move(handler)) {}
  failure_sink(const failure_sink&) = delete;
  failure_sink& operator=(const failure_sink&) = delete;

  void report(std::exception_ptr failure) noexcept {
    reported_.fetch_add(1, sync::relaxed);
    if (!handler_) {
      tell_exception("elastic_pool: a task ended with an exception", failure);
      return;
    }
    VELTRIX_TRY {
      handler_(std::move(failure));
    }
    VELTRIX_CATCH_ALL {
      tell_exception("elastic_pool: the exception handler threw", std::current_exception());
    }
  }

  /// Calls `work`; what it throws is reported.
  template <class Work>
  void contain(Work&& work) noexcept {
    VELTRIX_TRY {
      work();
    }
    VELTRIX_CATCH_ALL {
      report(std::current_exception());
    }
  }

  [[nodiscard]] std::uint64_t reported() const noexcept { return reported_.load(sync::relaxed); }

 private:
  exception_handler handler_;                // constant after construction
  sync::atomic<std::uint64_t> reported_{0};  // relaxed: statistics only
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
