// What a snapshot_cell is told and answers: options, results, statistics.
// Use for: snapshot_cell, which includes it.
// Not for: anything else.
// Threads: values.
// Progress: none of their own.
// Callbacks: none.
// Exceptions: std::bad_alloc where a refusal is made.
// Lifetime: values; a snapshot_version may outlive its cell.
// Guide: docs/snapshot_cell.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "config.hpp"
#include "message.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

struct snapshot_cell_options {
  std::size_t history = 0;  ///< versions kept behind the one in force, for history and rollback()
};

/// How a write ended.
enum class publish_status : std::uint8_t {
  accepted,   ///< it is in force
  unchanged,  ///< update()'s function had nothing to change
  conflict,   ///< another version than the expected one is in force
  refused,    ///< the validator objects; see `reasons`
  not_kept,   ///< rollback() to a version that is not in the history
};

struct [[nodiscard]] publish_result {
  publish_status status = publish_status::accepted;
  std::uint64_t version = 0;         ///< the accepted one; else the one that stays in force
  std::vector<std::string> reasons;  ///< the validator's, when refused

  [[nodiscard]] explicit operator bool() const noexcept {
    return status == publish_status::accepted;
  }
};

/// Thrown by the writes that return a bare version, when the validator objects.
class snapshot_refused : public std::runtime_error {
 public:
  snapshot_refused(const std::string& text, publish_result result)
      : std::runtime_error(text), result_(std::make_shared<publish_result>(std::move(result))) {}
  [[nodiscard]] const publish_result& result() const noexcept { return *result_; }

 private:
  std::shared_ptr<const publish_result> result_;  // shared, so that copying does not throw
};

/// How a wait_for() ended.
enum class snapshot_wait_status : std::uint8_t { reached, timed_out, stopped };

struct [[nodiscard]] snapshot_wait_result {
  snapshot_wait_status status = snapshot_wait_status::reached;
  std::uint64_t version = 0;  ///< in force at the return; at least the asked one if reached

  [[nodiscard]] explicit operator bool() const noexcept {
    return status == snapshot_wait_status::reached;
  }
};

/// One look at a cell. The numbers are each exact; together they may straddle a write.
struct snapshot_cell_stats {
  std::uint64_t version = 0;              ///< in force
  std::uint64_t published = 0;            ///< versions accepted after the first
  std::uint64_t refused = 0;              ///< writes that the validator turned down
  std::uint64_t conflicts = 0;            ///< publish_if() refusals, and retries of other writes
  std::uint64_t subscriber_failures = 0;  ///< subscribers, and comparisons for them, that threw
  std::size_t subscribers = 0;            ///< registered now
  std::size_t versions_alive = 0;         ///< values once in force and not destroyed
};

/// A kept version.
template <class T>
struct snapshot_version {
  std::shared_ptr<const T> value;  ///< may outlive the cell
  std::uint64_t version = 0;
};

namespace detail {

/// Throws snapshot_refused for a result of snapshot_cell::`operation`.
[[noreturn, gnu::noinline]] inline void raise_refused(publish_result result,
                                                      const char* operation) {
  std::string got;
  for (const std::string& reason : result.reasons)
    got.append(got.empty() ? "" : ", ").append(reason);
  const std::string where = std::string("snapshot_cell::").append(operation);
  const std::string stays = "version " + text_of(result.version) + " stays in force";
  raise(snapshot_refused(describe({.where = where,
                                   .what = "the validator's objections",
                                   .got = got,
                                   .allowed = "none",
                                   .stays = stays,
                                   .next = "mend the value, or use try_publish()"}),
                         std::move(result)));
}

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
