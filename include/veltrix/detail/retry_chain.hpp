// The decisions of one call under retry: attempt, wait or stop. It neither sleeps nor blocks.
// Use for: the one engine behind the synchronous and the asynchronous forms of retry. Internal.
// Not for: users; see veltrix/retry.hpp.
// Threads: one at a time.
// Progress: as the layers'; success without a deadline reads no clock and writes nothing shared.
// Callbacks: the retried function, classifying() and catching(), no lock held.
// Exceptions: those of the retried function that catching() does not name; permits are given back.
// Lifetime: source and environment outlive the chain.
// Guide: docs/retry.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <tuple>
#include <type_traits>
#include <utility>

#include "../clock.hpp"
#include "retry_events.hpp"
#include "retry_outcome.hpp"
#include "small_random.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

struct retry_access {
  static attempt make_attempt(const stop_token& token) noexcept { return attempt(token); }
  static void begin(attempt& context, std::uint32_t index, time_point deadline) noexcept {
    context.index_ = index;
    context.deadline_ = deadline;
    context.sent_ = false;
  }
  static void be_copy(attempt& context, std::uint32_t number) noexcept {
    context.copy_ = static_cast<std::uint8_t>(number);
  }
  template <class R>
  static auto& last(outcome<R>& told) noexcept {
    return told.last_;
  }
  template <class R>
  static std::exception_ptr& error(outcome<R>& told) noexcept {
    return told.error_;
  }
  template <class R>
  static stop_note& note(outcome<R>& told) noexcept {
    return told.note_;
  }
};

/// A clock that is read when asked and then remembers, until forget().
template <clock_source Clock>
class lazy_time {
 public:
  explicit lazy_time(Clock& clock) noexcept : clock_(clock) {}

  [[nodiscard]] time_point now() {
    if (!fresh_) {
      last_ = clock_.now();
      if (!started_) first_ = last_;
      started_ = true;
      fresh_ = true;
    }
    return last_;
  }
  void forget() noexcept { fresh_ = false; }
  /// The clock was read by somebody else, a while ago.
  void began_at(time_point at) noexcept {
    first_ = last_ = at;
    started_ = true;
  }
  /// The first reading. Reads the clock if nobody has.
  [[nodiscard]] time_point first() {
    if (!started_) static_cast<void>(now());
    return first_;
  }
  /// Between the first and the last reading.
  [[nodiscard]] duration elapsed() const noexcept { return last_ - first_; }

 private:
  Clock& clock_;
  time_point first_{};
  time_point last_{};
  bool started_ = false;
  bool fresh_ = false;
};

/// What a layer answers when asked whether the next attempt may start.
struct gate_answer {
  enum class kind : std::uint8_t { pass, hold, refuse };

  kind what = kind::pass;
  stop_reason reason = stop_reason::success;  ///< refuse: the reason of the stop
  time_point at{};                            ///< hold: ask again then. refuse: it may help then
  const char* why = "";                       ///< hold and refuse: for the message

  static gate_answer hold(time_point at, const char* why) noexcept {
    return {kind::hold, stop_reason::deadline, at, why};
  }
  static gate_answer refuse(stop_reason reason, const char* why, time_point at = {}) noexcept {
    return {kind::refuse, reason, at, why};
  }
};

template <class Function>
decltype(auto) call_attempt(Function& function, attempt& context) {
  if constexpr (std::is_invocable_v<Function&, attempt&>) {
    return function(context);
  } else {
    return function();
  }
}

template <class Function>
using attempt_result = decltype(call_attempt(std::declval<Function&>(), std::declval<attempt&>()));

template <class... Errors>
struct error_list {};

/// Attempts allowed when only the time limits them.
inline constexpr std::uint32_t unlimited = ~std::uint32_t{0};

/// What the driver of a chain does next.
enum class retry_step : std::uint8_t { attempt, wait, stop };

/// A layer that a quick first attempt can pass: one that has no say before an attempt and after it,
/// or names what it then gives in place of a permit: a value without a destructor.
template <class Layer, class Permit, class Time>
concept quick_layer =
    requires { typename Layer::quick_pass; } ||
    !(
        requires(const Layer& layer, Permit& held, Time& time, time_point until) {
          layer.enter(held, time, until);
        } ||
        requires(const Layer& layer, Permit& held, Time& time) {
          layer.leave(held, verdict(), time);
        } || requires(const Layer& layer, Permit& held) { layer.begin(held, 1U); });

/// One call. Source gives the policy in force: read(f) calls f(const Policy&). The order:
///   begin → (attempt → perform | wait → resume)* → stop
/// I1: a wait ends before until_, and no attempt starts at or after it.
/// I2: permits are held from the admission of an attempt to its verdict, never across a wait,
///     except a rate limiter's reserved start, a place in a limiter's line, and a budget's token
///     for the retry that follows.
template <class Source, class Env>
class retry_chain {
  using policy = typename Source::policy_type;
  using permits = typename policy::permits;

 public:
  /// @param note  where the end of the call is told: that of the outcome, so that nothing is copied
  retry_chain(Source& source, Env& env, stop_note& note)
      : source_(source),
        env_(env),
        note_(note),
        time_(env.clock()),
        attempt_(retry_access::make_attempt(env.token())) {}
  retry_chain(const retry_chain&) = delete;
  retry_chain& operator=(const retry_chain&) = delete;

  /// Goes on where a quick first attempt has failed.
  template <class Attempt>
  [[nodiscard, gnu::noinline]] retry_step take_over(Attempt&& first, std::bool_constant<true>) {
    time_.began_at(first.at);
    return take_over(std::forward<Attempt>(first), std::bool_constant<false>());
  }
  template <class Attempt>
  [[nodiscard, gnu::noinline]] retry_step take_over(Attempt&& first, std::bool_constant<false>) {
    permits_ = std::move(first.held);
    note_.attempts = 1;
    retry_access::begin(attempt_, 1, first.deadline);
    if (first.sent) attempt_.mark_sent();
    return settle(first.judged);
  }

  [[nodiscard, gnu::noinline]] retry_step begin() {
    if constexpr (policy::until_stop) {
      VELTRIX_ASSERT(env_.token().stop_possible(),
                     "until_stopped needs an env with a stop_token that can stop");
    }
    if (policy::has_deadline || policy::has_timeout || env_.until() != no_deadline) {
      static_cast<void>(time_.now());
    }
    return admit();
  }

  /// After a wait that ran to wake_at().
  [[nodiscard, gnu::noinline]] retry_step resume() {
    time_.forget();
    return admit();
  }

  /// After a wait that the stop token cut short.
  [[nodiscard, gnu::noinline]] retry_step stopped() {
    return stop(stop_reason::stopped, "the stop token asked");
  }

  /// Ends the call from outside: an exception passed through, or nobody runs it any more.
  void abandon(stop_reason reason, const char* why) { static_cast<void>(stop(reason, why)); }

  /// Makes the attempt that begin(), resume() or perform() asked for, and judges it.
  template <class Function, class R>
  [[nodiscard]] retry_step perform(Function& function, outcome<R>& told) {
    return settle(call(typename policy::caught{}, function, told));
  }

  /// The attempt that perform() would make.
  [[nodiscard]] const attempt& making() const noexcept { return attempt_; }

  /// In place of perform(): takes the end of a race of two copies for the attempt's.
  template <class Answer, class R>
  [[nodiscard]] retry_step take(Answer answer, outcome<R>& told) {
    if (answer.copies == 0) return stop(stop_reason::not_run, answer.refused);
    const auto deliver = [&]() -> R {
#if VELTRIX_HAS_EXCEPTIONS
      if (answer.error != nullptr) std::rethrow_exception(answer.error);
#endif
      return std::move(*answer.result);
    };
    return perform(deliver, told);
  }

  /// Goes on from the verdict on an attempt.
  [[nodiscard, gnu::noinline]] retry_step settle(verdict judged) {
    return source_.read([&](const policy& rules) {
      rules.each_layer(permits_, [&](const auto& layer, auto& permit) {
        if constexpr (requires { layer.leave(permit, judged, time_); }) {
          layer.leave(permit, judged, time_);
        }
        return true;
      });
      if (judged.kind == verdict_kind::success) return stop(stop_reason::success, "");
      return failed(rules, judged);
    });
  }

  [[nodiscard]] time_point wake_at() const noexcept { return wake_at_; }

  /// After the stop: asks the policy's fallback, where one may stand in.
  template <class R>
  void fall_back(outcome<R>& told) {
    if constexpr (policy::has_fallback) {
      if (!may_fall_back(note_.reason)) return;
      source_.read([&](const policy& rules) {
        auto kept = rules.fallback_value();
        note_.fallback = kept ? fallback_use::stands_in : fallback_use::had_none;
        if (!kept) return;
        note_.age = kept->age;
        note_.age_allowed = rules.oldest_fallback();
        if (note_.age > note_.age_allowed) {
          note_.fallback = fallback_use::too_old;
          return;
        }
        retry_access::last(told).emplace(std::move(kept->value));
      });
    }
  }

 private:
  [[nodiscard, gnu::noinline]] retry_step admit() {
    if (env_.token().stop_requested()) return stopped();
    return source_.read([&](const policy& rules) { return admit_by(rules); });
  }

  [[nodiscard]] retry_step admit_by(const policy& rules) {
    look_at_deadline(rules);
    if (until_ != no_deadline && time_.now() >= until_) {
      return stop(stop_reason::deadline, "nothing is left of it");
    }
    gate_answer answer;
    rules.each_layer(permits_, [&](const auto& layer, auto& permit) {
      if constexpr (requires { layer.enter(permit, time_, until_); }) {
        answer = layer.enter(permit, time_, until_);
      }
      return answer.what == gate_answer::kind::pass;
    });
    if (answer.what == gate_answer::kind::hold) return hold(rules, answer);
    if (answer.what == gate_answer::kind::refuse) {
      if (answer.at != time_point{}) note_.wait = answer.at - time_.now();
      return stop(answer.reason, answer.why);
    }
    start_attempt(rules);
    return retry_step::attempt;
  }

  void start_attempt(const policy& rules) {
    if (note_.attempts != unlimited) ++note_.attempts;
    note_.wait = duration::zero();
    rules.each_layer(permits_, [&](const auto& layer, auto& permit) {
      if constexpr (requires { layer.begin(permit, note_.attempts); }) {
        layer.begin(permit, note_.attempts);
      }
      return true;
    });
    time_point end = until_;
    if constexpr (policy::has_timeout) {
      end = std::min(end, saturating_add(time_.now(), rules.timeout()));
    }
    retry_access::begin(attempt_, note_.attempts, end);
    time_.forget();
  }

  /// A layer said when to ask again.
  [[nodiscard]] retry_step hold(const policy& rules, const gate_answer& answer) {
    if (answer.at >= until_) {
      note_.wait = answer.at - time_.now();
      return stop(stop_reason::deadline, answer.why);
    }
    rules.each_layer(permits_, [](const auto& layer, auto& permit) {
      if constexpr (requires { layer.pause(permit); }) layer.pause(permit);
      return true;
    });
    wake_at_ = answer.at;
    tell(rules, {.kind = retry_event_kind::waits,
                 .attempts = note_.attempts,
                 .wait = answer.at - time_.now(),
                 .why = answer.why});
    return retry_step::wait;
  }

  [[nodiscard]] retry_step failed(const policy& rules, const verdict& judged) {
    if (judged.kind == verdict_kind::ignored) return stop(stop_reason::ignored, "");
    note_.wait = std::max(judged.wait, duration::zero());
    if (judged.kind == verdict_kind::permanent) {
      return stop(stop_reason::permanent, "the failure was judged permanent");
    }
    note_.attempts_allowed = rules.attempts_allowed();
    if (note_.attempts_allowed != unlimited && note_.attempts >= note_.attempts_allowed)
      return stop(stop_reason::attempts_exhausted, "");
    if (policy::only_unsent && attempt_.sent()) {
      return stop(stop_reason::already_sent, "the request was sent and may not be repeated");
    }
    if (env_.token().stop_requested()) return stopped();
    return plan_retry(rules, note_.wait);
  }

  [[nodiscard]] retry_step plan_retry(const policy& rules, duration told) {
    look_at_deadline(rules);
    const time_point now = time_.now();
    const duration delay = rules.next_delay(delays_, env_.random());
    duration wait = std::max(delay, told);
    if (until_ != no_deadline && wait >= until_ - now) {
      note_.wait = wait;
      return stop(stop_reason::deadline, told > delay
                                             ? "the dependency asked for a wait that does not fit"
                                             : "the next delay does not fit");
    }
    if (told > delay) wait += beyond_told(told, now);
    gate_answer answer;
    rules.each_layer(permits_, [&](const auto& layer, auto& permit) {
      if constexpr (requires { layer.plan_retry(permit, now); }) {
        answer = layer.plan_retry(permit, now);
      }
      return answer.what == gate_answer::kind::pass;
    });
    if (answer.what != gate_answer::kind::pass) return stop(answer.reason, answer.why);
    wake_at_ = saturating_add(now, wait);
    tell(rules, {.kind = retry_event_kind::retries, .attempts = note_.attempts, .wait = wait});
    return retry_step::wait;
  }

  /// Clients told the same wait must not return together: up to half as long again, at random,
  /// as far as the deadline leaves room.
  [[nodiscard]] duration beyond_told(duration told, time_point now) {
    duration room = told / 2;
    if (until_ != no_deadline) room = std::min(room, until_ - now - told - duration(1));
    const double share = random_fraction(env_.random());
    return saturated_nanoseconds(static_cast<double>(room.count()) * share);
  }

  void look_at_deadline(const policy& rules) {
    until_ = env_.until();
    if constexpr (policy::has_deadline) {
      until_ = std::min(until_, saturating_add(time_.first(), rules.total_time()));
    }
  }

  [[nodiscard, gnu::noinline]] retry_step stop(stop_reason reason, const char* why) {
    permits_ = permits();  // gives back what no attempt will use
    note_.reason = reason;
    note_.why = why;
    note_.elapsed = time_.elapsed();
    if (until_ != no_deadline) note_.total = std::max(until_ - time_.first(), duration::zero());
    if constexpr (policy::observed) tell_end();
    return retry_step::stop;
  }

  void tell([[maybe_unused]] const policy& rules, [[maybe_unused]] retry_event event) {
    if constexpr (policy::observed) {
      event.at = time_.now();
      rules.observe(event);
    }
  }

  void tell_end() {
    const bool good = note_.reason == stop_reason::success;
    if (good && note_.attempts == 1) return;
    source_.read([&](const policy& rules) {
      tell(rules, {.kind = good ? retry_event_kind::recovered : retry_event_kind::gave_up,
                   .attempts = note_.attempts,
                   .reason = note_.reason,
                   .wait = note_.wait,
                   .why = note_.why});
    });
  }

  template <class Function, class R>
  [[nodiscard]] verdict call(error_list<>, Function& function, outcome<R>& told) {
    auto& last = retry_access::last(told);
    if constexpr (std::is_void_v<R>) {
      call_attempt(function, attempt_);
      last.emplace();
    } else {
      last.emplace(call_attempt(function, attempt_));
    }
    if constexpr (policy::catches) retry_access::error(told) = nullptr;
    return source_.read([&](const policy& rules) { return rules.judge(*last); });
  }

#if VELTRIX_HAS_EXCEPTIONS
  /// The last error type is tried first.
  template <class First, class... Others, class Function, class R>
  [[nodiscard]] verdict call(error_list<First, Others...>, Function& function, outcome<R>& told) {
    try {
      return call(error_list<Others...>{}, function, told);
    } catch (const First& error) {
      retry_access::last(told).reset();
      retry_access::error(told) = std::current_exception();
      return source_.read([&](const policy& rules) { return rules.judge_error(error); });
    }
  }
#endif

  Source& source_;
  Env& env_;
  stop_note& note_;
  lazy_time<typename Env::clock_type> time_;
  attempt attempt_;
  [[no_unique_address]] permits permits_;
  typename policy::delay_state delays_;
  time_point until_ = no_deadline;  // the end of the whole call
  time_point wake_at_{};            // valid after a step::wait
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
