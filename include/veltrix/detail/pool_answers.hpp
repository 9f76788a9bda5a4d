// The texts and values of a pool's answers to a resize.
// Use for: pool_core. Internal.
// Not for: deciding; every function here dresses a decision already taken.
// Threads: pure functions.
// Progress: allocate.
// Callbacks: none.
// Exceptions: std::bad_alloc, but for unfinished().
// Lifetime: return by value.
// Guide: docs/elastic_pool.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "message.hpp"
#include "pool_options.hpp"
#include "resize_result.hpp"
#include "thread_limits.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// Why a batch of threads did not start.
struct start_failure {
  int error = 0;            ///< errno; 0: nothing failed
  std::size_t started = 0;  ///< threads of the batch that had started
  std::size_t reached = 0;  ///< workers there were with those
  thread_limit limit;       ///< the bound found; no source: none found
};

/// The bound that stopped a start; no source when no bound is near, or no memory is left to look.
[[nodiscard]] inline thread_limit likely_cause(std::size_t stack_bytes) noexcept {
  constexpr std::uint64_t near = 8;  // threads of others come and go while we look
  VELTRIX_TRY {
    thread_limit least = find_thread_limit(stack_bytes);
    if (least.room() < near) return least;
  }
  VELTRIX_CATCH_ALL {
    // The cause stays unnamed; the errno is told all the same.
  }
  return {};
}

[[nodiscard]] inline std::string errno_text(int error) {
  switch (error) {
    case EAGAIN: return "EAGAIN";
    case ENOMEM: return "ENOMEM";
    case EPERM: return "EPERM";
    case EINVAL: return "EINVAL";
    default: return "errno " + text_of(error);
  }
}

[[nodiscard]] inline std::string cause_text(const start_failure& failure) {
  if (failure.limit.source.empty())
    return "what the system gives; no limit near its bound was found";
  return "what " + failure.limit.source + " = " + text_of(failure.limit.limit) + " leaves, " +
         text_of(failure.limit.used) + " used";
}

[[nodiscard]] inline std::string in_force(const resize_result& state) {
  return "generation " + text_of(state.generation) + " with " + text_of(state.target) +
         " workers stays in force";
}

/// "512 asked, 65 started, then EAGAIN": what a failed start says.
[[nodiscard]] inline std::string start_text(std::string_view where, std::size_t asked,
                                            const start_failure& failure, std::string_view stays) {
  const std::string got = text_of(asked) + " asked, " + text_of(failure.reached) +
                          " started, then " + errno_text(failure.error);
  const std::string allowed = cause_text(failure);
  return describe({.where = where,
                   .what = "workers",
                   .got = got,
                   .allowed = allowed,
                   .stays = stays,
                   .next = "ask for fewer or raise that limit"});
}

/// What each answer is dressed from: the state when it was decided, and the operation's name.
struct answer_source {
  resize_result state;
  const char* where;
};

[[nodiscard]] inline resize_result back_off(answer_source from, backoff_reason why,
                                            duration retry_after, fault told) {
  resize_result answer = std::move(from.state);
  const std::string stays = in_force(answer);
  told.where = from.where;
  told.stays = stays;
  answer.status = resize_status::backoff;
  answer.reason = why;
  answer.retry_after = retry_after;
  answer.message = describe(told);
  return answer;
}

/// The generation expected is not the one in force.
[[nodiscard]] inline resize_result generation_moved(answer_source from, std::uint64_t expected) {
  const std::string got = text_of(expected);
  const std::string allowed = text_of(from.state.generation);
  return back_off(std::move(from), backoff_reason::generation_moved, duration::zero(),
                  {.where = {},
                   .what = "expect_generation",
                   .got = got,
                   .allowed = allowed,
                   .stays = {},
                   .next = "look at the state and decide again"});
}

/// Another resize has not answered.
[[nodiscard]] inline resize_result resize_in_flight(answer_source from) {
  return back_off(std::move(from), backoff_reason::resize_in_flight, std::chrono::milliseconds(10),
                  {.where = {},
                   .what = "resize",
                   .got = "a second one at the same time",
                   .allowed = "one",
                   .stays = {},
                   .next = "ask again when the first has answered"});
}

/// The last resize was answered at its deadline, and its threads still start.
[[nodiscard]] inline resize_result still_starting(answer_source from) {
  return back_off(std::move(from), backoff_reason::settling, std::chrono::milliseconds(10),
                  {.where = {},
                   .what = "resize",
                   .got = "one while workers of the last still start",
                   .allowed = "one once they run",
                   .stays = {},
                   .next = "ask again later"});
}

/// stop() was called.
[[nodiscard]] inline resize_result shut_down(answer_source from) {
  return back_off(std::move(from), backoff_reason::shutting_down, duration::zero(),
                  {.where = {},
                   .what = "pool",
                   .got = "a stopped one",
                   .allowed = "one that runs",
                   .stays = {},
                   .next = "do not ask again"});
}

inline constexpr duration settling_retry = std::chrono::milliseconds(50);

/// The change was taken, and the deadline came before the last worker.
[[nodiscard]] inline resize_result settling(answer_source from) {
  const resize_result& state = from.state;
  const std::string got = text_of(state.running) + " running, " + text_of(state.starting) +
                          " starting, " + text_of(state.retiring) + " retiring at the deadline";
  const std::string allowed = text_of(state.target) + " running";
  return back_off(std::move(from), backoff_reason::settling, settling_retry,
                  {.where = {},
                   .what = "workers",
                   .got = got,
                   .allowed = allowed,
                   .stays = {},
                   .next = "they go on settling; look at the state"});
}

/// What is answered once a change was taken and is not done: never throws, but without memory the
/// answer lacks its text.
/// @param closed  the pool was stopped meanwhile; else the deadline came
[[nodiscard]] inline resize_result unfinished(answer_source from, bool closed) noexcept {
  resize_result untold = from.state;
  untold.status = resize_status::backoff;
  untold.reason = closed ? backoff_reason::shutting_down : backoff_reason::settling;
  untold.retry_after = closed ? duration::zero() : settling_retry;
  VELTRIX_TRY {
    return closed ? shut_down(std::move(from)) : settling(std::move(from));
  }
  VELTRIX_CATCH_ALL {
    return untold;
  }
}

/// Below the least (`direction` < 0) or above the most.
[[nodiscard]] inline resize_result out_of_bounds(answer_source from,
                                                 const elastic_pool_options& options,
                                                 std::string_view got, std::int64_t direction) {
  resize_result answer = std::move(from.state);
  answer.status = resize_status::refused;
  answer.code = refusal_code::out_of_bounds;
  answer.limit = direction < 0 ? options.min_workers : options.max_workers;
  answer.limit_source = direction < 0 ? options.min_reason : options.max_reason;
  const std::string stays = in_force(answer);
  const std::string allowed = bounds_text(options);
  answer.message = describe({.where = from.where,
                             .what = "workers",
                             .got = got,
                             .allowed = allowed,
                             .stays = stays,
                             .next = direction < 0 ? "ask for more" : "ask for fewer"});
  return answer;
}

/// A thread could not be had; those started for this growth are gone again.
[[nodiscard]] inline resize_result no_thread(answer_source from, std::size_t asked,
                                             const start_failure& failure) {
  resize_result answer = std::move(from.state);
  answer.status = resize_status::refused;
  answer.code = refusal_code::resource_limit;
  answer.error = failure.error;
  answer.limit = failure.limit.limit;
  answer.limit_source = failure.limit.source;
  answer.message = start_text(from.where, asked, failure, in_force(answer));
  return answer;
}

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
