// What a pool answers when it is asked to change its size, and what it may be asked with.
// Use for: resize_by() and resize_to() of elastic_pool.hpp, and controllers that pass them on.
// Not for: the wire; a controller maps these onto its own messages.
// Threads: plain values.
// Progress: wait-free but for the text, which allocates.
// Callbacks: none.
// Exceptions: building a text may throw std::bad_alloc.
// Lifetime: returned by value; holds no reference.
// Guide: docs/elastic_pool.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "../clock.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// The three answers to a request for another size.
enum class resize_status : std::uint8_t {
  ack,      ///< running == target, counted from live registrations
  backoff,  ///< not now, or not finished: `reason` says why, `retry_after` when to ask again
  refused,  ///< asking again changes nothing: `code`, `limit` and `limit_source` say why
};

/// Why a backoff.
enum class backoff_reason : std::uint8_t {
  none,
  resize_in_flight,  ///< another resize has not answered yet; nothing was changed
  generation_moved,  ///< expect_generation is not the current one; nothing was changed
  settling,          ///< workers still start or retire; `target` says whether the change was taken
  memory_pressure,   ///< for controllers above a pool; a pool never answers it itself
  rate_limited,      ///< for controllers above a pool; a pool never answers it itself
  shutting_down,     ///< stop() was called
};

/// Why a refusal.
enum class refusal_code : std::uint8_t {
  none,
  out_of_bounds,   ///< below min_workers, above max_workers, or beyond the integers
  resource_limit,  ///< the system gave no thread; `error`, `limit` and `limit_source` say which
  not_the_writer,  ///< for controllers above a pool; a pool never answers it itself
  epoch_changed,   ///< for controllers above a pool; a pool never answers it itself
  bad_request,     ///< for controllers above a pool; a pool never answers it itself
};

/// How to ask for another size.
struct resize_options {
  /// The change applies only to this generation: a repeated or late request cannot apply twice.
  std::optional<std::uint64_t> expect_generation = {};
  /// When to answer at the latest. Unset: default_resize_wait after the call.
  std::optional<time_point> deadline = {};
};

/// How long a resize without a deadline waits for workers to start or retire.
inline constexpr duration default_resize_wait = std::chrono::seconds(5);

/// The answer, with the state it was given in.
struct [[nodiscard]] resize_result {
  resize_status status = resize_status::ack;
  backoff_reason reason = backoff_reason::none;  ///< set when status is backoff
  refusal_code code = refusal_code::none;        ///< set when status is refused
  std::uint64_t generation = 0;                  ///< counts accepted changes; the first is 1
  std::size_t target = 0;                        ///< workers wanted now
  std::size_t running = 0;                       ///< workers registered now
  std::size_t starting = 0;                      ///< threads not registered yet
  std::size_t retiring = 0;                      ///< threads told to leave and not gone yet
  duration retry_after{};                        ///< set when status is backoff
  int error = 0;                                 ///< errno of a resource_limit
  std::uint64_t limit = 0;                       ///< the bound that was met; 0: not found
  std::string limit_source = {};                 ///< where the bound comes from
  /// One line for people. Empty on ack, and where there was no memory to tell of a change taken.
  std::string message = {};

  /// True on ack.
  [[nodiscard]] explicit operator bool() const noexcept { return status == resize_status::ack; }
};

/// The name of the value, as written in the code.
[[nodiscard]] constexpr const char* name_of(resize_status status) noexcept {
  switch (status) {
    case resize_status::ack: return "ack";
    case resize_status::backoff: return "backoff";
    case resize_status::refused: return "refused";
  }
  return "unknown";
}

/// The name of the value, as written in the code.
[[nodiscard]] constexpr const char* name_of(backoff_reason reason) noexcept {
  switch (reason) {
    case backoff_reason::none: return "none";
    case backoff_reason::resize_in_flight: return "resize_in_flight";
    case backoff_reason::generation_moved: return "generation_moved";
    case backoff_reason::settling: return "settling";
    case backoff_reason::memory_pressure: return "memory_pressure";
    case backoff_reason::rate_limited: return "rate_limited";
    case backoff_reason::shutting_down: return "shutting_down";
  }
  return "unknown";
}

/// The name of the value, as written in the code.
[[nodiscard]] constexpr const char* name_of(refusal_code code) noexcept {
  switch (code) {
    case refusal_code::none: return "none";
    case refusal_code::out_of_bounds: return "out_of_bounds";
    case refusal_code::resource_limit: return "resource_limit";
    case refusal_code::not_the_writer: return "not_the_writer";
    case refusal_code::epoch_changed: return "epoch_changed";
    case refusal_code::bad_request: return "bad_request";
  }
  return "unknown";
}

}  // namespace VELTRIX_ABI
}  // namespace veltrix
