// How layers become a policy: `|`, what a policy refuses when built, and the forms of a call.
// Use for: nothing directly; include veltrix/retry.hpp. Internal but for its types.
// Not for: use without retry.hpp.
// Threads: a policy is an immutable value; one env serves one call at a time.
// Progress: run() blocks while it waits; run_on() and co_await block nobody.
// Callbacks: the retried function, judges, getters and the completion, no lock held.
// Exceptions: bad values throw std::invalid_argument when the policy is built.
// Lifetime: the clock of an env and the executor outlive the call; a policy is copied into it.
// Guide: docs/retry.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>

#include "../clock.hpp"
#include "../executor.hpp"
#include "../stop_token.hpp"
#include "message.hpp"
#include "retry_async.hpp"
#include "retry_chain.hpp"
#include "retry_env.hpp"
#include "retry_hedged.hpp"
#include "retry_outcome.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// What a layer of a policy is for.
enum class layer_kind : std::uint8_t {
  total_time,  ///< member `total`, or none: no limit
  repeat,      ///< members attempts, delay, declared_outage; type delay_state
  unsent_only,
  timeout,      ///< member `each`
  gate,         ///< type permit; any of enter, begin, pause, plan_retry, leave; see retry_chain
  classifying,  ///< judge(result)
  catching,     ///< type caught; judge_error(error)
  fallback,     ///< member `oldest`; get() gives an optional stale value
  hedge,        ///< run() and prepare() make an attempt of two copies; see veltrix/hedge.hpp
  observing,    ///< observe(event)
};

struct nothing {};

template <class Layer>
struct permit_of {
  using type = nothing;
};
template <class Layer>
  requires requires { typename Layer::permit; }
struct permit_of<Layer> {
  using type = typename Layer::permit;
};

template <class Layer>
struct quick_pass_of {
  using type = nothing;
};
template <class Layer>
  requires requires { typename Layer::quick_pass; }
struct quick_pass_of<Layer> {
  using type = typename Layer::quick_pass;
};

template <class R>
concept classified_by_argument = requires(const R& result) {
  { classify(result) } -> std::convertible_to<verdict>;
};
template <class R>
concept classified_by_presence = requires(const R& result) {
  { result.has_value() } -> std::convertible_to<bool>;
};
/// Results that tell a failure without help.
template <class R>
concept tells_failure =
    classified_by_argument<R> || classified_by_presence<R> || std::same_as<R, bool>;

template <class R>
[[nodiscard]] verdict judge_by_itself(const R& result) {
  if constexpr (classified_by_argument<R>) {
    return classify(result);
  } else if constexpr (classified_by_presence<R>) {
    return result.has_value() ? verdict::success() : verdict::transient();
  } else if constexpr (std::same_as<R, bool>) {
    return result ? verdict::success() : verdict::transient();
  } else {
    return verdict::success();
  }
}

[[noreturn]] inline void refuse_policy(std::string_view what, const std::string& got,
                                       const std::string& allowed, std::string_view next) {
  raise(
      std::invalid_argument(describe({"retry", what, got, allowed, "no policy was built", next})));
}

inline void require_positive_time(std::string_view what, duration span) {
  if (span > duration::zero()) return;
  refuse_policy(what, text_of(span), "1 ns or more", "correct the time");
}

}  // namespace detail

/// A piece of a policy: deadline, until_stopped, fallback, observing, retry, hedge, only_if_unsent,
/// attempt_timeout, guard, host_guard, budget, throttle, limit, classifying, catching.
template <class Layer>
concept policy_layer = requires {
  { Layer::layer } -> std::convertible_to<detail::layer_kind>;
};

/// The ways to call a function under a policy. Function: `f()` or `f(attempt&)`.
template <class Policy>
class policy_forms {
 public:
  /// Calls `function` in this thread until the policy is satisfied; sleeps between attempts.
  /// Result: the outcome. Exceptions that catching() does not name pass through.
  template <class Function>
  auto run(Function&& function) const {
    env<> here;
    return run(here, function);
  }
  template <class Clock, class Random, class Function>
  auto run(env<Clock, Random>&& where, Function&& function) const {
    return run(where, function);
  }
  template <class Clock, class Random, class Function>
  auto run(env<Clock, Random>& where, Function&& function) const {
    static_assert(sleeper<Clock>, "run() sleeps: give env a clock with sleep_until()");
    using result = checked_result<std::remove_reference_t<Function>>;
    outcome<result> told;
    if constexpr (Policy::template quick<Clock> && !std::is_void_v<result>) {
      first_quickly(where, function, told);
    } else {
      slowly(where, function, told, nullptr);
    }
    return told;
  }

  /// Runs each attempt as a task of `executor`; waits on timers, so that no worker is held.
  /// @param where  its clock is a timer_source: timer_queue, or a virtual_clock in a test
  /// @param done   done(outcome) runs exactly once, whatever becomes of executor, timers and token
  template <executor Executor, timer_source Clock, class Random, class Function, class Done>
  void run_on(Executor& executor, env<Clock, Random> where, Function function, Done done) const {
    static_assert(std::is_invocable_v<Done&, outcome<checked_result<Function>>>,
                  "the completion takes the outcome: [](outcome<R> told) { ... }");
    detail::start_call(static_cast<const Policy>(self()), executor, std::move(where),
                       std::move(function), std::move(done));
  }

#if defined(__cpp_impl_coroutine)
  /// `co_await policy.awaited(executor, env{timers}, function)` gives the outcome; resumes on the
  /// executor. An exception that catching() does not name is thrown at the co_await.
  template <executor Executor, timer_source Clock, class Random, class Function>
  [[nodiscard]] auto awaited(Executor& executor, env<Clock, Random> where,
                             Function function) const {
    using result = checked_result<Function>;
    static_assert(!std::is_reference_v<result>);
    return detail::retry_awaiter<const Policy, Executor, env<Clock, Random>, Function>(
        self(), executor, std::move(where), std::move(function));
  }
#endif

 private:
  [[nodiscard]] const Policy& self() const noexcept { return static_cast<const Policy&>(*this); }

  /// A first attempt that failed, for the chain to go on from.
  struct first_attempt {
    typename Policy::policy_type::permits held;
    time_point at;  // when it began, if the clock was read
    time_point deadline;
    bool sent;
    verdict judged;
  };

  /// The first attempt, with nothing on the way that only a failure needs. What does not go that
  /// way goes the slow one, from wherever it stands.
  template <class Clock, class Random, class Function, class R>
  void first_quickly(env<Clock, Random>& where, Function& function, outcome<R>& told) const {
    const Policy& rules = self();
    if constexpr (Policy::until_stop) {
      VELTRIX_ASSERT(where.token().stop_possible(),
                     "until_stopped needs an env with a stop_token that can stop");
    }
    typename Policy::quick_passes held;
    attempt made = detail::retry_access::make_attempt(where.token());
    time_point first{};
    time_point until = where.until();
    if constexpr (Policy::has_deadline || Policy::has_timeout) {
      first = where.clock().now();
      if constexpr (Policy::has_deadline) {
        until = std::min(until, saturating_add(first, rules.total_time()));
      }
      if (first >= until) return slowly(where, function, told, nullptr);
    } else if (until != no_deadline) {
      return slowly(where, function, told, nullptr);
    }
    if (where.token().stop_requested() || !rules.quick_enter(held)) {
      return slowly(where, function, told, nullptr);
    }
    if constexpr (Policy::has_timeout) {
      until = std::min(until, saturating_add(first, rules.timeout()));
    }
    detail::retry_access::begin(made, 1, until);
    auto& last = detail::retry_access::last(told);
    last.emplace(detail::call_attempt(function, made));
    const verdict judged = rules.judge(*last);
    detail::retry_access::note(told).attempts = 1;
    if (judged.kind == verdict_kind::success) [[likely]] {
      return rules.quick_leave(held);
    }
    first_attempt failed{{}, first, made.deadline(), made.sent(), judged};
    rules.quick_keep(held, failed.held);
    slowly(where, function, told, &failed);
  }

  /// Attempts and waits until the chain stops.
  /// @param first  what has been done already; null: nothing
  template <class Clock, class Random, class Function, class R>
  [[gnu::noinline]] void slowly(env<Clock, Random>& where, Function& function, outcome<R>& told,
                                first_attempt* first) const {
    detail::retry_chain<const Policy, env<Clock, Random>> chain(self(), where,
                                                                detail::retry_access::note(told));
    using asked = typename Policy::policy_type;
    constexpr std::bool_constant<asked::has_deadline || asked::has_timeout> timed;
    detail::retry_step step =
        first == nullptr ? chain.begin() : chain.take_over(std::move(*first), timed);
    while (step != detail::retry_step::stop) {
      if (step == detail::retry_step::attempt) {
        if constexpr (asked::hedged) {
          step = detail::perform_hedged(self(), where.token(), function, chain, told);
        } else {
          step = chain.perform(function, told);
        }
      } else {
        // Woken by the clock, or by the token's stop request.
        const bool slept = where.clock().sleep_until(chain.wake_at(), where.token());
        step = slept ? chain.resume() : chain.stopped();
      }
    }
    chain.fall_back(told);
  }

  /// What the function returns, after the checks that only a call can make.
  template <class Function>
  struct result_of {
    static_assert(std::is_invocable_v<Function&, attempt&> || std::is_invocable_v<Function&>,
                  "a retried function is called as f() or f(attempt&)");
    using type = detail::attempt_result<Function>;
    using rules = typename Policy::policy_type;
    static_assert(!rules::only_unsent || std::is_invocable_v<Function&, attempt&>,
                  "under only_if_unsent the function takes attempt& and calls mark_sent()");
    static_assert(!rules::hedged || !std::is_void_v<type>, "a hedged function returns a value");
    static_assert(!rules::has_retry || rules::judges || rules::catches ||
                      detail::tells_failure<type>,
                  "nothing here tells a failure, so nothing would be retried: return bool or an "
                  "optional, write classify(const R&), or add classifying(...) or catching<...>()");
  };
  template <class Function>
  using checked_result = typename result_of<Function>::type;
};

/// A policy: layers joined by `|`, outermost first. An immutable value; copy it freely.
template <policy_layer... Layers>
class pipeline : public policy_forms<pipeline<Layers...>> {
  using kind = detail::layer_kind;

  static constexpr std::size_t count_of(kind wanted) {
    return (std::size_t{0} + ... + (Layers::layer == wanted ? 1 : 0));
  }
  static constexpr std::size_t place_of(kind wanted) {
    std::size_t place = 0;
    static_cast<void>(((Layers::layer != wanted && ++place != 0) && ...));
    return place;
  }
  static constexpr bool has(kind wanted) { return count_of(wanted) != 0; }
  /// Nothing stands before retry but what holds for the whole call.
  static constexpr bool whole_call_before_retry() {
    bool before = true;
    bool good = true;
    static_cast<void>(((Layers::layer == kind::repeat ? before = false
                        : before ? good = good && (Layers::layer == kind::total_time ||
                                                   Layers::layer == kind::fallback ||
                                                   Layers::layer == kind::observing)
                                 : false),
                       ...));
    return good;
  }
  template <kind Kind>
  using layer_of = std::tuple_element_t<place_of(Kind), std::tuple<Layers..., detail::nothing>>;

  template <class Repeat>
  struct delay_state_of {
    using type = typename Repeat::delay_state;
  };
  template <class Catch>
  struct caught_of {
    using type = typename Catch::caught;
  };

 public:
  using policy_type = pipeline;
  using permits = std::tuple<typename detail::permit_of<Layers>::type...>;
  using quick_passes = std::tuple<typename detail::quick_pass_of<Layers>::type...>;

  static constexpr bool has_deadline =
      requires(const layer_of<kind::total_time>& layer) { layer.total; };
  static constexpr bool until_stop = has(kind::total_time) && !has_deadline;
  static constexpr bool has_retry = has(kind::repeat);
  static constexpr bool has_timeout = has(kind::timeout);
  static constexpr bool only_unsent = has(kind::unsent_only);
  static constexpr bool judges = has(kind::classifying);
  static constexpr bool catches = has(kind::catching);
  static constexpr bool has_fallback = has(kind::fallback);
  static constexpr bool observed = has(kind::observing);
  static constexpr bool hedged = has(kind::hedge);

  using delay_state = typename std::conditional_t<has_retry, delay_state_of<layer_of<kind::repeat>>,
                                                  std::type_identity<detail::nothing>>::type;
  using caught = typename std::conditional_t<catches, caught_of<layer_of<kind::catching>>,
                                             std::type_identity<detail::error_list<>>>::type;

  static_assert(count_of(kind::total_time) <= 1 && count_of(kind::repeat) <= 1 &&
                    count_of(kind::timeout) <= 1 && count_of(kind::classifying) <= 1 &&
                    count_of(kind::catching) <= 1 && count_of(kind::fallback) <= 1 &&
                    count_of(kind::hedge) <= 1,
                "only guard, budget, limit and observing may stand in a policy more than once");
  static_assert(!has(kind::total_time) || place_of(kind::total_time) == 0,
                "deadline or until_stopped comes first: it holds for the whole call");
  static_assert(!has_retry || (has(kind::total_time) && whole_call_before_retry()),
                "retry follows a time limit: deadline{2s} | retry{...}, or until_stopped{} | "
                "retry{...}; what follows it holds for each attempt");

  static_assert(!hedged || !only_unsent,
                "hedge sends a call twice, and only_if_unsent says that it must not be");

  /// Throws std::invalid_argument, naming value and bound, when a layer's value is out of its
  /// bounds or the declared outage is not covered.
  explicit pipeline(Layers... layers) : layers_(std::move(layers)...) { check(); }

  /// The policy with one more layer inside.
  template <policy_layer Inner>
  [[nodiscard]] friend pipeline<Layers..., Inner> operator|(const pipeline& outer, Inner inner) {
    return std::apply(
        [&](const Layers&... each) {
          return pipeline<Layers..., Inner>(each..., std::move(inner));
        },
        outer.layers_);
  }

  /// Whether a first attempt may go the quick way: every layer can, it has one copy, and no
  /// exception is judged.
  template <class Clock>
  static constexpr bool quick =
      !catches && !hedged &&
      (detail::quick_layer<Layers, typename detail::permit_of<Layers>::type,
                           detail::lazy_time<Clock>> &&
       ...);

  // What the engine asks.

  template <class Use>
  decltype(auto) read(Use&& use) const {
    return use(*this);
  }
  /// Admits a first attempt if every layer does so quickly. Result: false when one does not, and
  /// then nothing has happened.
  [[nodiscard]] bool quick_enter(quick_passes& held) const {
    bool in = true;
    each_pass(held, [&](const auto& layer, auto& pass) {
      if constexpr (requires { layer.quick_enter(pass); }) in = in && layer.quick_enter(pass);
    });
    if (!in) return false;
    each_pass(held, [](const auto& layer, auto&) {
      if constexpr (requires { layer.quick_begin(); }) layer.quick_begin();
    });
    return true;
  }
  /// It succeeded.
  void quick_leave(quick_passes held) const {
    each_pass(held, [](const auto& layer, auto& pass) {
      if constexpr (requires { layer.quick_leave(pass); }) layer.quick_leave(pass);
    });
  }
  /// It failed: what it held, for the engine.
  void quick_keep(quick_passes held, permits& kept) const {
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      const auto keep = [](const auto& layer, auto& pass, auto& permit) {
        if constexpr (requires { layer.quick_keep(pass); }) permit = layer.quick_keep(pass);
      };
      (keep(std::get<I>(layers_), std::get<I>(held), std::get<I>(kept)), ...);
    }(std::index_sequence_for<Layers...>{});
  }
  [[nodiscard]] duration total_time() const { return get<kind::total_time>().total; }
  [[nodiscard]] duration timeout() const { return get<kind::timeout>().each; }
  [[nodiscard]] std::uint32_t attempts_allowed() const {
    if constexpr (has_retry) return get<kind::repeat>().attempts;
    return 1;
  }
  template <random_bits Random>
  [[nodiscard]] duration next_delay(delay_state& state, Random& random) const {
    if constexpr (has_retry) return get<kind::repeat>().delay.next(state, random);
    return {};
  }
  [[nodiscard]] duration oldest_fallback() const { return get<kind::fallback>().oldest(); }
  [[nodiscard]] auto fallback_value() const { return get<kind::fallback>().get(); }
  [[nodiscard]] auto hedge_layer() const { return get<kind::hedge>(); }
  void observe(const retry_event& event) const {
    const auto each = [&](const auto& layer) {
      if constexpr (requires { layer.observe(event); }) layer.observe(event);
    };
    std::apply([&](const Layers&... all) { (each(all), ...); }, layers_);
  }
  template <class R>
  [[nodiscard]] verdict judge(const R& result) const {
    if constexpr (judges && !std::same_as<R, std::monostate>) {
      return get<kind::classifying>().judge(result);
    } else {
      return detail::judge_by_itself(result);
    }
  }
  template <class Error>
  [[nodiscard]] verdict judge_error(const Error& error) const {
    return get<kind::catching>().judge_error(error);
  }
  /// Calls visit(layer, permit) from the outermost layer in, until one answers false.
  template <class Visit>
  void each_layer(permits& held, Visit&& visit) const {
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      static_cast<void>((visit(std::get<I>(layers_), std::get<I>(held)) && ...));
    }(std::index_sequence_for<Layers...>{});
  }

 private:
  template <class Visit>
  void each_pass(quick_passes& held, Visit&& visit) const {
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      (visit(std::get<I>(layers_), std::get<I>(held)), ...);
    }(std::index_sequence_for<Layers...>{});
  }
  template <kind Kind>
  [[nodiscard]] const layer_of<Kind>& get() const {
    return std::get<place_of(Kind)>(layers_);
  }

  void check() const {
    if constexpr (has_deadline) detail::require_positive_time("deadline.total", total_time());
    if constexpr (has_timeout) detail::require_positive_time("attempt_timeout.each", timeout());
    if constexpr (has_retry) check_retry(get<kind::repeat>());
    if constexpr (!has(kind::total_time)) {
      std::apply([](const Layers&... each) { (check_waits(each), ...); }, layers_);
    }
  }

  template <class Layer>
  static void check_waits(const Layer& layer) {
    if constexpr (requires { layer.waits(); }) {
      if (!layer.waits()) return;
      detail::refuse_policy(Layer::waiting_option, "wait without a time limit",
                            "wait under deadline or until_stopped",
                            "write deadline{...} | before it");
    }
  }

  template <class Repeat>
  void check_retry(const Repeat& rules) const {
    if (rules.attempts == 0) {
      detail::refuse_policy("retry.attempts", "0", "1 or more, or retry::any_number",
                            "count the first attempt too");
    }
    if (rules.declared_outage < duration::zero()) {
      detail::refuse_policy("retry.declared_outage", detail::text_of(rules.declared_outage),
                            "0 s or more", "correct the time");
    }
    check_outage(rules);
  }

  template <class Repeat>
  void check_outage(const Repeat& rules) const {
    const duration outage = rules.declared_outage;
    if constexpr (has_deadline) {
      if (total_time() < outage) {
        detail::refuse_policy("retry.declared_outage", detail::text_of(outage),
                              "at most the deadline, " + detail::text_of(total_time()),
                              "raise the deadline or declare less");
      }
    }
    if (rules.attempts == Repeat::any_number) return;
    const duration waits = rules.delay.mean_total(rules.attempts - 1);
    if (waits >= outage) return;
    detail::refuse_policy("retry.declared_outage", detail::text_of(outage),
                          "at most " + detail::text_of(waits) + ", the average sum of the " +
                              std::to_string(rules.attempts - 1) + " delays between " +
                              std::to_string(rules.attempts) + " attempts",
                          "use attempts = retry::any_number under the deadline, or longer delays");
  }

  [[no_unique_address]] std::tuple<Layers...> layers_;
};

/// Two layers make a policy; see pipeline for more of them.
template <policy_layer Outer, policy_layer Inner>
[[nodiscard]] pipeline<Outer, Inner> operator|(Outer outer, Inner inner) {
  return pipeline<Outer, Inner>(std::move(outer), std::move(inner));
}

/// A policy that is asked for anew before and after every attempt, so that a reload takes effect
/// in the middle of a call. Attempts, start time, breaker and budget state carry over.
template <class Getter>
class live_policy : public policy_forms<live_policy<Getter>> {
  using got = std::remove_cvref_t<decltype(std::declval<const Getter&>()())>;
  static constexpr bool direct = requires { typename got::policy_type; };
  template <class Got>
  static decltype(auto) policy_in(const Got& answer) {
    if constexpr (direct) {
      return (answer);
    } else {
      return (*answer);
    }
  }

 public:
  using policy_type = std::remove_cvref_t<decltype(policy_in(std::declval<const got&>()))>;
  /// Never: the policy is asked for anew around each attempt.
  template <class Clock>
  static constexpr bool quick = false;

  explicit live_policy(Getter get) : get_(std::move(get)) {}

  template <class Use>
  decltype(auto) read(Use&& use) const {
    decltype(auto) answer = get_();
    return use(policy_in(answer));
  }

 private:
  Getter get_;
};

/// @param get  get() returns the policy in force, or something that dereferences to it, such as
///             the guard of a snapshot_cell; it runs with no lock held
template <class Getter>
  requires std::invocable<const Getter&>
[[nodiscard]] live_policy<Getter> from(Getter get) {
  return live_policy<Getter>(std::move(get));
}

/// @param cell  a snapshot_cell of a policy, or anything with such a load(); outlives the calls
template <class Cell>
  requires requires(Cell& cell) { *cell.load(); }
[[nodiscard]] auto from(Cell& cell) {
  return from([&cell] { return cell.load(); });
}

}  // namespace VELTRIX_ABI
}  // namespace veltrix
