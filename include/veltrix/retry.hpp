// Calling again what failed, within limits that keep the retries from becoming the outage.
// Use for: calls to anything that can be down: `deadline{2s} | retry{} | guard{breaker}`.
// Not for: loops without an end; a total time is part of every policy.
// Threads: a policy is an immutable value; one env serves one call at a time.
// Progress: run() blocks while it waits; run_on() and co_await block nobody. A first success
//   allocates nothing, writes nothing shared, and reads the clock only for a time limit.
// Callbacks: the retried function, judges and the completion run with no lock held.
// Exceptions: bad values throw std::invalid_argument when the policy is built; those of the
//   retried function pass through unless catching() names them.
// Lifetime: breaker, budget and limiter outlive each policy that names them and each call;
//   so do the clock of an env and the executor of run_on().
// Guide: docs/retry.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <type_traits>
#include <utility>

#include "backoff.hpp"
#include "clock.hpp"
#include "detail/retry_chain.hpp"
#include "detail/retry_events.hpp"
#include "detail/retry_outcome.hpp"
#include "detail/retry_pipeline.hpp"
#include "resilience.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

// --- the layers ----------------------------------------------------------------------------------

/// The time for the whole call, waits included; 1 ns or more.
struct deadline {
  static constexpr auto layer = detail::layer_kind::total_time;
  duration total;
};

/// No time limit: only success, a final failure or the stop token ends the call. For watchers
/// that must never give up; the env needs a token that can stop.
struct until_stopped {
  static constexpr auto layer = detail::layer_kind::total_time;
};

/// How often to try. Needs deadline or until_stopped to its left.
struct retry {
  static constexpr auto layer = detail::layer_kind::repeat;
  using delay_state = backoff_state;
  /// As often as the time limit allows.
  static constexpr std::uint32_t any_number = detail::unlimited;

  std::uint32_t attempts = 3;  ///< the first one included; 1 or more
  backoff delay =
      exponential{std::chrono::milliseconds(100)} | capped{std::chrono::seconds(1)} | full_jitter{};
  /// The longest outage the call is meant to survive. A policy whose delays, on average, or whose
  /// deadline cannot cover it is refused when it is built. Zero: nothing declared.
  duration declared_outage{};
};

/// What stands in when the call fails for want of an answer: for any reason but ignored, permanent,
/// already_sent, stopped and threw. The outcome is then true, fell_back(), and tells its age().
template <class Get>
class fallback {
 public:
  static constexpr auto layer = detail::layer_kind::fallback;

  /// @param oldest  an older value is refused; 0 or more, else std::invalid_argument
  /// @param get     get() returns std::optional<stale<R>> or its like: what is kept, with its age
  fallback(duration oldest, Get get) : oldest_(oldest), get_(std::move(get)) {
    if (oldest < duration::zero()) {
      detail::refuse_policy("fallback.oldest", detail::text_of(oldest), "0 s or more",
                            "correct the time");
    }
  }

  [[nodiscard]] duration oldest() const noexcept { return oldest_; }
  [[nodiscard]] auto get() const { return get_(); }

 private:
  duration oldest_;
  Get get_;
};

/// Tells `hook(const retry_event&)` of what happens in calls, but not of first attempts that
/// succeed. It runs with no lock held and must be noexcept.
template <class Hook>
class observing {
 public:
  static constexpr auto layer = detail::layer_kind::observing;
  static_assert(std::is_nothrow_invocable_v<const Hook&, const retry_event&>,
                "an observer is noexcept: [](const retry_event& event) noexcept { ... }");

  explicit observing(Hook hook) : hook_(std::move(hook)) {}

  void observe(const retry_event& event) const noexcept { hook_(event); }

 private:
  Hook hook_;
};

/// Tells `write(const retry_event&, std::uint64_t kept_back)` of one event per gap of the gate, and
/// how many were kept back before it. It must be noexcept.
template <class Write>
[[nodiscard]] auto logging(log_gate& gate, Write write) {
  static_assert(std::is_nothrow_invocable_v<const Write&, const retry_event&, std::uint64_t>,
                "a log's writer is noexcept");
  return observing([&gate, write = std::move(write)](const retry_event& event) noexcept {
    if (const auto kept_back = gate.admit(event.at)) write(event, *kept_back);
  });
}

/// The call must not be repeated once sent: a failure after attempt::mark_sent() is final.
struct only_if_unsent {
  static constexpr auto layer = detail::layer_kind::unsent_only;
};

/// The time for each attempt, told to it by attempt::deadline(); 1 ns or more.
struct attempt_timeout {
  static constexpr auto layer = detail::layer_kind::timeout;
  duration each;
};

/// What guard does while its breaker lets no call pass.
enum class on_open : std::uint8_t {
  reject,  ///< stops at once with stop_reason::breaker_open
  wait,    ///< waits for the breaker, as far as the deadline allows; costs no attempt
};

/// Asks a circuit breaker before each attempt and tells it the verdict.
class guard {
 public:
  static constexpr auto layer = detail::layer_kind::gate;
  static constexpr const char* waiting_option = "guard.on_open";
  using permit = circuit_breaker::permit;

  explicit guard(circuit_breaker& breaker, on_open when_open = on_open::reject) noexcept
      : breaker_(&breaker), when_open_(when_open) {}

  // What the engine asks; so in the layers below.

  [[nodiscard]] bool waits() const noexcept { return when_open_ == on_open::wait; }

  template <class Time>
  [[nodiscard]] detail::gate_answer enter(permit& held, Time& time, time_point) const {
    circuit_breaker::entry answer = breaker_->enter(time);
    if (answer) {
      held = std::move(answer.pass);
      return {};
    }
    if (waits()) return detail::gate_answer::hold(answer.retry_at, "the breaker is open");
    return detail::gate_answer::refuse(stop_reason::breaker_open, "the breaker is open",
                                       answer.retry_at);
  }
  using quick_pass = circuit_breaker::closed_pass;
  [[nodiscard]] bool quick_enter(quick_pass& held) const noexcept {
    return breaker_->enter_closed(held);
  }
  void quick_leave(quick_pass held) const noexcept { breaker_->success(held); }
  [[nodiscard]] permit quick_keep(quick_pass held) const noexcept { return breaker_->keep(held); }
  void pause(permit& held) const noexcept { held.drop(); }
  template <class Time>
  void leave(permit& held, const verdict& judged, Time& time) const {
    switch (judged.kind) {
      case verdict_kind::success:
        breaker_->times() ? held.success(time.now()) : held.success();
        break;
      case verdict_kind::ignored: held.drop(); break;
      default: held.failure(time.now()); break;
    }
  }

 private:
  circuit_breaker* breaker_;
  on_open when_open_;
};

/// Pays for each retry from a budget; each call pays in.
class budget {
 public:
  static constexpr auto layer = detail::layer_kind::gate;
  using permit = retry_budget::token;

  explicit budget(retry_budget& shared) noexcept : shared_(&shared) {}

  [[nodiscard]] detail::gate_answer plan_retry(permit& held, time_point now) const noexcept {
    held = shared_->try_withdraw(now);
    if (held) return {};
    return detail::gate_answer::refuse(stop_reason::budget,
                                       "the retry budget has no token for another attempt");
  }
  void begin(permit& held, std::uint32_t index) const noexcept {
    if (index == 1) shared_->deposit();
    held.spend();
  }
  using quick_pass = detail::nothing;
  void quick_begin() const noexcept { shared_->deposit(); }
  [[nodiscard]] permit quick_keep(quick_pass) const noexcept { return permit(); }

 private:
  retry_budget* shared_;
};

/// Makes no retry while too many attempts to the dependency fail.
class throttle {
 public:
  static constexpr auto layer = detail::layer_kind::gate;
  using permit = detail::nothing;

  explicit throttle(retry_throttle& shared) noexcept : shared_(&shared) {}

  [[nodiscard]] detail::gate_answer plan_retry(permit&, time_point) const noexcept {
    if (shared_->allows()) return {};
    return detail::gate_answer::refuse(stop_reason::budget,
                                       "the throttle lets no retry through: too many fail");
  }
  template <class Time>
  void leave(permit&, const verdict& judged, Time&) const noexcept {
    if (judged.kind == verdict_kind::ignored) return;
    judged.kind == verdict_kind::success ? shared_->success() : shared_->failure();
  }
  using quick_pass = detail::nothing;
  void quick_leave(quick_pass) const noexcept { shared_->success(); }
  [[nodiscard]] permit quick_keep(quick_pass) const noexcept { return {}; }

 private:
  retry_throttle* shared_;
};

/// Asks an outlier_set whether a host is in before each attempt, and tells it the verdict. For a
/// call that is bound to one host; who may choose asks outlier_set::pick() in each attempt.
class host_guard {
 public:
  static constexpr auto layer = detail::layer_kind::gate;
  using permit = detail::nothing;

  host_guard(outlier_set& hosts, std::uint32_t host) noexcept : hosts_(&hosts), host_(host) {}

  template <class Time>
  [[nodiscard]] detail::gate_answer enter(permit&, Time& time, time_point) const {
    if (hosts_->is_in(host_, time)) return {};
    return detail::gate_answer::refuse(stop_reason::ejected, "the host is ejected",
                                       hosts_->back_at(host_));
  }
  template <class Time>
  void leave(permit&, const verdict& judged, Time& time) const {
    if (judged.kind == verdict_kind::ignored) return;
    if (judged.kind == verdict_kind::success) return hosts_->success(host_);
    hosts_->failure(host_, time.now());
  }

 private:
  outlier_set* hosts_;
  std::uint32_t host_;
};

/// Takes a place or a start time from a limiter before each attempt.
template <class Limiter>
class limit;

template <>
class limit<bulkhead> {
 public:
  static constexpr auto layer = detail::layer_kind::gate;
  using permit = bulkhead::permit;

  explicit limit(bulkhead& shared) noexcept : shared_(&shared) {}

  template <class Time>
  [[nodiscard]] detail::gate_answer enter(permit& held, Time&, time_point) const noexcept {
    held = shared_->try_enter();
    if (held) return {};
    return detail::gate_answer::refuse(stop_reason::limited,
                                       "all places of the bulkhead are taken");
  }
  void pause(permit& held) const noexcept { held.leave(); }
  template <class Time>
  void leave(permit& held, const verdict&, Time&) const noexcept {
    held.leave();
  }

 private:
  bulkhead* shared_;
};

template <>
class limit<rate_limiter> {
 public:
  static constexpr auto layer = detail::layer_kind::gate;
  /// A start that was reserved and not used.
  using permit = std::optional<time_point>;

  explicit limit(rate_limiter& shared) noexcept : shared_(&shared) {}

  template <class Time>
  [[nodiscard]] detail::gate_answer enter(permit& held, Time& time, time_point until) const {
    if (!held) {
      const rate_limiter::slot answer = shared_->reserve({.now = time.now(), .latest = until});
      if (!answer.granted) {
        return detail::gate_answer::refuse(stop_reason::limited, "the rate limit leaves no start",
                                           answer.start_at);
      }
      held = answer.start_at;
    }
    if (*held <= time.now()) return {};
    return detail::gate_answer::hold(*held, "the rate limit's next start does not fit");
  }
  void begin(permit& held, std::uint32_t) const noexcept { held.reset(); }

 private:
  rate_limiter* shared_;
};

/// What limit does while its concurrency_limiter has no place.
enum class on_full : std::uint8_t {
  reject,  ///< stops at once with stop_reason::limited
  wait,    ///< waits in line, as far as the deadline allows; costs no attempt
};

template <>
class limit<concurrency_limiter> {
 public:
  static constexpr auto layer = detail::layer_kind::gate;
  static constexpr const char* waiting_option = "limit.on_full";
  using permit = concurrency_limiter::permit;

  explicit limit(concurrency_limiter& shared, on_full when_full = on_full::reject) noexcept
      : shared_(&shared), when_full_(when_full) {}

  [[nodiscard]] bool waits() const noexcept { return when_full_ == on_full::wait; }

  template <class Time>
  [[nodiscard]] detail::gate_answer enter(permit& held, Time& time, time_point) const {
    if (waits()) {
      const time_point again = shared_->enter_or_wait(held, time.now());
      if (held) return {};
      return detail::gate_answer::hold(again, "the limiter has no place");
    }
    held = shared_->try_enter(time.now());
    if (held) return {};
    return detail::gate_answer::refuse(stop_reason::limited, "all places of the limiter are taken");
  }
  /// A place in line is kept, a place inside is not.
  void pause(permit& held) const noexcept {
    if (held) held.drop();
  }
  template <class Time>
  void leave(permit& held, const verdict& judged, Time& time) const {
    switch (judged.kind) {
      case verdict_kind::success: held.success(time.now()); break;
      case verdict_kind::ignored: held.drop(); break;
      default: held.failure(time.now()); break;
    }
  }

 private:
  concurrency_limiter* shared_;
  on_full when_full_;
};

limit(bulkhead&) -> limit<bulkhead>;
limit(concurrency_limiter&) -> limit<concurrency_limiter>;
limit(concurrency_limiter&, on_full) -> limit<concurrency_limiter>;
limit(rate_limiter&) -> limit<rate_limiter>;

/// Judges results: `judge(const R&)` returns a verdict. Without it a result is judged by a function
/// `classify(const R&)` found by argument, else by bool or has_value() (false: transient).
template <class Judge>
class classifying {
 public:
  static constexpr auto layer = detail::layer_kind::classifying;

  explicit constexpr classifying(Judge how) : judge_(std::move(how)) {}

  template <class R>
  [[nodiscard]] verdict judge(const R& result) const {
    return judge_(result);
  }

 private:
  Judge judge_;
};

namespace detail {

struct always_transient {
  template <class Error>
  constexpr verdict operator()(const Error&) const noexcept {
    return verdict::transient();
  }
};

template <class Judge, class... Errors>
class catching_layer {
 public:
  static constexpr auto layer = detail::layer_kind::catching;
  using caught = error_list<Errors...>;

  explicit constexpr catching_layer(Judge judge) : judge_(std::move(judge)) {}

  template <class Error>
  [[nodiscard]] verdict judge_error(const Error& error) const {
    return judge_(error);
  }

 private:
  Judge judge_;
};

}  // namespace detail

#if VELTRIX_HAS_EXCEPTIONS
/// Exceptions of these types are failures to judge; all others pass through to the caller. Name
/// general types first: the last one that fits is taken.
/// @param judge  judge(const Error&) returns a verdict; without it each is transient
template <class... Errors, class Judge>
[[nodiscard]] constexpr auto catching(Judge judge) {
  static_assert(sizeof...(Errors) > 0, "name the exceptions: catching<std::system_error>(...)");
  return detail::catching_layer<Judge, Errors...>(std::move(judge));
}
template <class... Errors>
[[nodiscard]] constexpr auto catching() {
  return catching<Errors...>(detail::always_transient{});
}
#endif

}  // namespace VELTRIX_ABI
}  // namespace veltrix
