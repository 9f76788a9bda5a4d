// What a policy tells an observer, and how such news becomes a quiet log.
// Use for: the `observing` and `logging` of retry. Internal but for its types.
// Not for: counting calls; the outcome of each tells more.
// Threads: an event is a value; a log_gate may be used from any thread.
// Progress: log_gate is lock-free; message() allocates.
// Callbacks: none.
// Exceptions: message() may throw std::bad_alloc; log_gate throws on a bad gap.
// Lifetime: a gate outlives every policy that names it; `why` is static text.
// Guide: docs/retry.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "../clock.hpp"
#include "option_check.hpp"
#include "retry_outcome.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// What happened in a call.
enum class retry_event_kind : std::uint8_t {
  retries,    ///< an attempt failed; another follows after `wait`
  waits,      ///< a layer lets no attempt start for `wait`; `why` says which
  recovered,  ///< an attempt succeeded after others had failed
  gave_up,    ///< no further attempt; `reason` and `why` say why
};

/// News of a call. A call whose first attempt succeeds has none.
struct retry_event {
  retry_event_kind kind;
  std::uint32_t attempts;                     ///< begun so far
  stop_reason reason = stop_reason::success;  ///< of the end: recovered, gave_up
  duration wait{};                            ///< retries, waits; of gave_up: as retry_after()
  time_point at{};                            ///< on the call's clock
  const char* why = "";

  /// One line, without a newline.
  [[nodiscard]] std::string message() const {
    const std::string after = std::to_string(attempts) + (attempts == 1 ? " attempt" : " attempts");
    switch (kind) {
      case retry_event_kind::retries:
        return "retry: failed after " + after + "; another follows in " + detail::text_of(wait);
      case retry_event_kind::waits:
        return "retry: waits for " + detail::text_of(wait) + " after " + after + ": " + why;
      case retry_event_kind::recovered: return "retry: recovered after " + after;
      case retry_event_kind::gave_up: break;
    }
    return "retry: gave up, " + std::string(to_text(reason)) + " after " + after +
           (*why == '\0' ? "" : ": ") + why;
  }
};

/// Lets one line through per `gap` and counts those that it kept back.
class log_gate {
 public:
  /// @param gap  1 ns to 24 h, else std::invalid_argument
  explicit log_gate(duration gap = std::chrono::seconds(30)) : gap_(gap) {
    detail::require_between("log_gate", "gap", gap, duration(1), duration(std::chrono::hours(24)));
  }
  log_gate(const log_gate&) = delete;
  log_gate& operator=(const log_gate&) = delete;

  /// Result: nothing while a line was let through less than a gap before `now`; else how many were
  /// kept back since. Lock-free.
  [[nodiscard]] std::optional<std::uint64_t> admit(time_point now) noexcept {
    std::int64_t next = next_.load(detail::sync::relaxed);
    const std::int64_t at = now.time_since_epoch().count();
    const std::int64_t then = saturating_add(now, gap_).time_since_epoch().count();
    while (at >= next) {
      if (!next_.compare_exchange_weak(next, then, detail::sync::relaxed)) continue;
      return kept_back_.exchange(0, detail::sync::relaxed);
    }
    kept_back_.fetch_add(1, detail::sync::relaxed);
    return std::nullopt;
  }

 private:
  const duration gap_;
  // relaxed: each word is all there is; the count goes to whichever line comes next
  detail::sync::atomic<std::int64_t> next_{duration::min().count()};
  // relaxed: as next_
  detail::sync::atomic<std::uint64_t> kept_back_{0};
};

}  // namespace VELTRIX_ABI
}  // namespace veltrix
