// What people see of a run: log lines, one live line on a terminal, and the last summary.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "veltrix/clock.hpp"
#include "veltrix/detail/sync.hpp"
#include "veltrix/worker/worker_stats.hpp"

namespace veltrix_worker {

/// "1,234,567".
[[nodiscard]] std::string grouped(std::uint64_t number);
/// "1.25 ms", "310 us", "2.1 s".
[[nodiscard]] std::string shown(veltrix::duration length);

/// One line about a run: events, rate, in flight, p99, dead letters, and for files the time left.
[[nodiscard]] std::string progress_line(const veltrix::worker_report& now);

/// The last words about a run. `cut_short`: it was given up, so that events are unfinished.
enum class run_end : std::uint8_t { whole, cut_short };
[[nodiscard]] std::string summary_text(const veltrix::worker_report& last, run_end how,
                                       std::string_view commit_path);

/// Writes to stderr. On a terminal the progress is one line that is written over again, and log
/// lines go above it; else progress is a log line like any other.
class terminal_view {
 public:
  terminal_view();

  void line(std::string_view text);
  void progress(std::string_view text);
  /// Removes the live line.
  void clear();

  [[nodiscard]] bool live() const noexcept { return live_; }

 private:
  using lock_guard = veltrix::detail::sync::lock_guard<veltrix::detail::sync::mutex>;
  void put(std::string_view text) const;

  const bool live_;
  veltrix::detail::sync::mutex mutex_;  // guards shown_ and the order of what is written
  std::string shown_;                   // guarded by mutex_; the live line, empty if there is none
};

}  // namespace veltrix_worker
