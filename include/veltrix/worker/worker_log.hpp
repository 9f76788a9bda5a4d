// Where the worker's lines go, and the first failure that ends a run.
// Use for: passing one place for messages to every part of a worker.
// Not for: the event path; a line takes a lock.
// Threads: all members may be called from any thread.
// Progress: blocking while another thread writes a line.
// Callbacks: the writer runs under the log's lock: it must not log.
// Exceptions: those of the writer, and std::bad_alloc.
// Lifetime: outlives the parts that log.
// Guide: docs/worker.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "../detail/sync.hpp"
#include "../detail/task.hpp"
#include "diagnostic.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// Writes whole lines, one at a time.
class worker_log {
 public:
  explicit worker_log(detail::unique_function<void(std::string_view)> writer)
      : writer_(std::move(writer)) {}
  worker_log(const worker_log&) = delete;
  worker_log& operator=(const worker_log&) = delete;

  /// `line` without a line feed.
  void say(std::string_view line) {
    const detail::sync::lock_guard<detail::sync::mutex> lock(mutex_);
    writer_(line);
  }
  void say(const diagnostic& told) { say(to_string(told)); }
  void warn(const diagnostic& told) { say("WARN " + to_string(told)); }

 private:
  detail::sync::mutex mutex_;  // guards writer_
  detail::unique_function<void(std::string_view)> writer_;
};

/// What the process ends with.
enum class exit_code : int {
  ok = 0,
  usage = 2,
  bad_data = 65,
  dependency = 69,
  resource_limit = 71,
  config = 78,
};

/// The reason why a run ends early.
struct run_failure {
  exit_code code = exit_code::ok;
  diagnostic told{};
};

/// Keeps the first failure; the others follow from it more often than not.
class failure_slot {
 public:
  failure_slot() = default;
  failure_slot(const failure_slot&) = delete;
  failure_slot& operator=(const failure_slot&) = delete;

  /// True for the first.
  bool set(exit_code code, diagnostic told) {
    const detail::sync::lock_guard<detail::sync::mutex> lock(mutex_);
    if (failure_.has_value()) return false;
    failure_ = run_failure{code, std::move(told)};
    // (1) release-store; pairs with acquire-load (2). Publishes: that a failure is there.
    failed_.store(true, detail::sync::release);
    return true;
  }

  [[nodiscard]] bool failed() const noexcept {
    // (2) acquire-load; pairs with release-store (1). Sees: that a failure is there.
    return failed_.load(detail::sync::acquire);
  }

  [[nodiscard]] std::optional<run_failure> get() const {
    const detail::sync::lock_guard<detail::sync::mutex> lock(mutex_);
    return failure_;
  }

 private:
  mutable detail::sync::mutex mutex_;   // guards failure_
  std::optional<run_failure> failure_;  // guarded by mutex_
  detail::sync::atomic<bool> failed_{false};
};

}  // namespace VELTRIX_ABI
}  // namespace veltrix
