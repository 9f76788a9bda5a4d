// What retry tells and is told: verdict on a result, context of an attempt, outcome of a call.
// Use for: nothing directly; include veltrix/retry.hpp. Internal but for its types.
// Not for: use without retry.hpp.
// Threads: values; one thread at a time.
// Progress: wait-free; message() allocates.
// Callbacks: none.
// Exceptions: value() throws when there is none; message() may throw std::bad_alloc.
// Lifetime: an outcome owns its result; an attempt ends with the attempt.
// Guide: docs/retry.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <concepts>
#include <cstdint>
#include <exception>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>

#include "../clock.hpp"
#include "../stop_token.hpp"
#include "duration_text.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// What the result of one attempt means.
enum class verdict_kind : std::uint8_t {
  success,
  transient,  ///< may be different next time
  permanent,  ///< a failure that another attempt will not change
  ignored,    ///< final, and says nothing about the dependency (say, the caller's own mistake)
};

/// A judgement, and for a transient failure how long the dependency asked to be left alone.
struct verdict {
  verdict_kind kind = verdict_kind::success;
  duration wait{};  ///< no attempt before this has passed; zero or less: nothing was told

  static constexpr verdict success() noexcept { return {}; }
  static constexpr verdict transient(duration told_wait = {}) noexcept {
    return {verdict_kind::transient, told_wait};
  }
  static constexpr verdict permanent() noexcept { return {verdict_kind::permanent, {}}; }
  static constexpr verdict ignored() noexcept { return {verdict_kind::ignored, {}}; }
};

/// A value kept from before, and its age: what a fallback gives.
template <class Value>
struct stale {
  Value value;
  duration age{};
};

/// Why a call made no further attempt.
enum class stop_reason : std::uint8_t {
  success,
  ignored,             ///< the result is final and counts for nothing
  permanent,           ///< the failure is one that retrying does not change
  attempts_exhausted,  ///< all allowed attempts failed
  deadline,            ///< the next attempt could not start before the deadline
  budget,              ///< the retry budget had no token, or the throttle lets no retry through
  breaker_open,        ///< a circuit breaker let no call pass
  limited,             ///< a rate limiter, a bulkhead or a concurrency limiter let no call pass
  already_sent,        ///< it failed after mark_sent() under only_if_unsent
  stopped,             ///< the stop_token asked
  not_run,             ///< asynchronous and hedged only: the executor or the timer dropped it
  threw,               ///< asynchronous only: an exception that nothing caught
  ejected,             ///< the host is out of its outlier_set
};

/// The reason as it stands in messages and metrics: its enumerator's name.
[[nodiscard]] constexpr const char* to_text(stop_reason reason) noexcept {
  switch (reason) {
    case stop_reason::success: return "success";
    case stop_reason::ignored: return "ignored";
    case stop_reason::permanent: return "permanent";
    case stop_reason::attempts_exhausted: return "attempts_exhausted";
    case stop_reason::deadline: return "deadline";
    case stop_reason::budget: return "budget";
    case stop_reason::breaker_open: return "breaker_open";
    case stop_reason::limited: return "limited";
    case stop_reason::already_sent: return "already_sent";
    case stop_reason::stopped: return "stopped";
    case stop_reason::not_run: return "not_run";
    case stop_reason::threw: return "threw";
    case stop_reason::ejected: return "ejected";
  }
  return "unknown";
}

namespace detail {
struct retry_access;  // the pipeline's way into attempt and outcome
}  // namespace detail

/// What a function under retry may know of the attempt it makes. Take it as `attempt&`.
class attempt {
 public:
  attempt(const attempt&) = delete;
  attempt& operator=(const attempt&) = delete;

  /// 1 for the first.
  [[nodiscard]] std::uint32_t index() const noexcept { return index_; }
  /// Under hedge: 1, or 2 for the second copy of this attempt, which should choose another host.
  [[nodiscard]] std::uint32_t copy() const noexcept { return copy_; }
  /// By when the attempt must be over, on the call's clock: the sooner of attempt_timeout and the
  /// deadline of the whole call. Hand it to the transport, or to a nested call by env::within().
  [[nodiscard]] time_point deadline() const noexcept { return deadline_; }
  /// Asks the whole call to stop; under hedge also this copy, when the other has won.
  [[nodiscard]] const stop_token& token() const noexcept { return *token_; }
  /// Call it right before the request can have an effect outside: from then on a failure under
  /// only_if_unsent is final.
  void mark_sent() noexcept { sent_ = true; }
  [[nodiscard]] bool sent() const noexcept { return sent_; }

 private:
  friend struct detail::retry_access;
  explicit attempt(const stop_token& token) noexcept : token_(&token) {}

  const stop_token* token_;
  time_point deadline_ = no_deadline;
  std::uint32_t index_ = 0;
  std::uint8_t copy_ = 1;
  bool sent_ = false;
};

namespace detail {

/// What became of a policy's fallback.
enum class fallback_use : std::uint8_t { unused, stands_in, too_old, had_none };

/// True where an older value may stand in: what failed says nothing about the value itself.
constexpr bool may_fall_back(stop_reason reason) noexcept {
  switch (reason) {
    case stop_reason::success:
    case stop_reason::ignored:
    case stop_reason::permanent:
    case stop_reason::already_sent:
    case stop_reason::stopped:
    case stop_reason::threw: return false;
    default: return true;
  }
}

/// What a stop leaves for its message. `why` is static text.
struct stop_note {
  stop_reason reason = stop_reason::success;
  std::uint32_t attempts = 0;
  std::uint32_t attempts_allowed = 0;
  duration elapsed{};
  duration total{};  ///< from start to deadline; zero: no deadline
  duration wait{};   ///< the wait that did not fit, or after which asking again makes sense
  const char* why = "";
  fallback_use fallback = fallback_use::unused;
  duration age{};          ///< of what the fallback gave
  duration age_allowed{};  ///< by the policy
};

template <class R>
using outcome_value = std::conditional_t<std::is_void_v<R>, std::monostate, R>;

inline void tell_cause(std::string& text, const stop_note& note) {
  switch (note.reason) {
    case stop_reason::attempts_exhausted:
      text.append("allowed ").append(std::to_string(note.attempts_allowed)).append(" attempts");
      break;
    case stop_reason::deadline:
      text.append("allowed ").append(text_of(note.total)).append(" in all; ").append(note.why);
      if (note.wait > duration::zero()) text.append(": ").append(text_of(note.wait));
      break;
    default:
      text.append(note.why);
      if (note.wait > duration::zero()) text.append("; ask again in ").append(text_of(note.wait));
      break;
  }
}

inline void tell_fallback(std::string& text, const stop_note& note) {
  switch (note.fallback) {
    case fallback_use::unused: break;
    case fallback_use::stands_in:
      text.append("; a value ").append(text_of(note.age)).append(" old stands in");
      break;
    case fallback_use::too_old:
      text.append("; what was kept is ").append(text_of(note.age)).append(" old, allowed ");
      text.append(text_of(note.age_allowed));
      break;
    case fallback_use::had_none: text.append("; the fallback had nothing"); break;
  }
}

}  // namespace detail

/// The end of a call: the last result, if an attempt gave one, and why there was no further one.
/// `R` is what the function returns, by value, or void.
template <class R>
class [[nodiscard]] outcome {
  static_assert(!std::is_reference_v<R>, "return a value or a pointer from a retried function");

 public:
  using value_type = R;

  /// True when an attempt succeeded, or the policy's fallback stands in for it.
  [[nodiscard]] explicit operator bool() const noexcept {
    return note_.reason == stop_reason::success || fell_back();
  }
  /// True when the result is the fallback's, of age(). reason() says why it was needed.
  [[nodiscard]] bool fell_back() const noexcept {
    return note_.fallback == detail::fallback_use::stands_in;
  }
  /// How old the fallback's value is; zero for an attempt's own result.
  [[nodiscard]] duration age() const noexcept { return fell_back() ? note_.age : duration{}; }
  [[nodiscard]] stop_reason reason() const noexcept { return note_.reason; }
  /// Attempts begun: calls of the function.
  [[nodiscard]] std::uint32_t attempts() const noexcept { return note_.attempts; }
  /// From the start to the last look at the clock. A success of the first attempt takes none: zero.
  /// Without deadline and attempt_timeout the start is the end of the first failed attempt.
  [[nodiscard]] duration elapsed() const noexcept { return note_.elapsed; }
  /// How long the dependency, or its breaker, asked to be left alone; zero when nobody said.
  /// What a server should answer as its own Retry-After.
  [[nodiscard]] duration retry_after() const noexcept { return note_.wait; }

  /// True when some attempt returned; the last one's result is then there, success or not.
  [[nodiscard]] bool has_result() const noexcept { return last_.has_value(); }

  /// The last result. Rethrows the last caught exception, or throws std::runtime_error with
  /// message(), when the last attempt gave none.
  decltype(auto) value() & { return got(*this); }
  decltype(auto) value() const& { return got(*this); }
  R value() && {
    require_result();
    if constexpr (!std::is_void_v<R>) return std::move(*last_);
  }

  /// The last result; there must be one.
  [[nodiscard]] auto& operator*() & noexcept { return *checked().last_; }
  [[nodiscard]] const auto& operator*() const& noexcept { return *checked().last_; }
  [[nodiscard]] auto operator*() && { return std::move(*checked().last_); }
  [[nodiscard]] auto* operator->() noexcept { return &*checked().last_; }
  [[nodiscard]] const auto* operator->() const noexcept { return &*checked().last_; }

  /// The exception of the last attempt, when catching() took one; else null.
  [[nodiscard]] std::exception_ptr error() const noexcept { return error_; }

  /// One line: the cause, what was made and what was allowed.
  [[nodiscard]] std::string message() const {
    std::string text("veltrix: retry: ");
    text.append(to_text(note_.reason)).append(" after ").append(std::to_string(note_.attempts));
    text.append(note_.attempts == 1 ? " attempt" : " attempts");
    if (note_.elapsed > duration::zero()) {
      text.append(" in ").append(detail::text_of(note_.elapsed));
    }
    if (note_.reason == stop_reason::success) return text;
    text.append("; ");
    detail::tell_cause(text, note_);
    detail::tell_fallback(text, note_);
    return text;
  }

 private:
  friend struct detail::retry_access;

  outcome& checked() noexcept {
    VELTRIX_ASSERT(last_.has_value(), "an outcome without a result was dereferenced");
    return *this;
  }
  const outcome& checked() const noexcept {
    VELTRIX_ASSERT(last_.has_value(), "an outcome without a result was dereferenced");
    return *this;
  }

  void require_result() const {
    if (last_.has_value()) return;
#if VELTRIX_HAS_EXCEPTIONS
    if (error_ != nullptr) std::rethrow_exception(error_);
#endif
    detail::raise(std::runtime_error(message()));
  }

  template <class Self>
  static decltype(auto) got(Self& self) {
    self.require_result();
    if constexpr (!std::is_void_v<R>) return (*self.last_);
  }

  std::optional<detail::outcome_value<R>> last_;
  std::exception_ptr error_;
  detail::stop_note note_;
};

}  // namespace VELTRIX_ABI
}  // namespace veltrix
