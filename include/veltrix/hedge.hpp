// A second copy of a slow call, sent when the first takes longer than nearly all others do.
// Use for: reads whose slowest answers decide: `deadline{1s} | retry{} | hedge{spare, pool, clock}`
// Not for: calls with effects, and services that are overloaded: see retry_budget, outlier_set.
// Threads: a hedging may be used from any thread.
// Progress: a short lock around the race of two copies; run() blocks, co_await does not.
// Callbacks: the function on the executor; the completion where the race ended. No lock held.
// Exceptions: bad options throw std::invalid_argument; the function's end in hedged_answer::error.
// Lifetime: executor, timers and hedging outlive the calls; a loser may end after the completion.
// Guide: docs/hedge.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <string_view>
#include <type_traits>
#include <utility>

#include "clock.hpp"
#include "detail/option_check.hpp"
#include "detail/retry_pipeline.hpp"
#include "detail/sync.hpp"
#include "detail/timer_queue.hpp"
#include "executor.hpp"
#include "stop_token.hpp"

#if defined(__cpp_impl_coroutine)
#include <coroutine>
#endif

namespace veltrix {
inline namespace VELTRIX_ABI {

struct hedging_options {
  double extra = 0.05;       ///< second copies per call, in the long run; 0.0001 to 0.5
  std::uint32_t burst = 10;  ///< second copies at once beyond that; 1 to 1,000,000
  duration first_delay = std::chrono::milliseconds(100);  ///< until 100 calls were seen
  duration shortest = std::chrono::milliseconds(1);       ///< no delay is shorter; to longest
  duration longest = std::chrono::seconds(10);            ///< nor longer; to 1 h
};

/// When a second copy is sent, and how many may be: state that the calls to one dependency share.
/// The delay is the (1 - extra) quantile of how long first copies took lately, so that about
/// `extra` of the calls reach it; a token bucket bounds them whatever happens:
/// second copies until any time <= burst + extra × calls.
///
/// Times are counted in a histogram of eight steps per power of two, so that a delay is at most an
/// eighth above the quantile; counts are halved each 4096 calls. Source: J. Dean and L. A. Barroso,
/// "The Tail at Scale", CACM 2013.
class hedging {
 public:
  /// Throws std::invalid_argument when an option is out of its bounds.
  explicit hedging(hedging_options options = {}) : options_(checked(options)) {}
  hedging(const hedging&) = delete;
  hedging& operator=(const hedging&) = delete;

  /// Calls `function(const hedged_copy&)` on the executor, and once more when the delay is over;
  /// `done(hedged_answer<R>)` runs exactly once, with the first success or the last failure. What
  /// success is, the result tells: as a policy of retry judges it. The loser's token stops; what it
  /// returns is dropped. `function` must bear two calls at once.
  /// Throws std::bad_alloc before anything started.
  /// @param timers  a timer_queue, or a virtual_clock in a test
  template <executor Executor, timer_source Timers, class Function, class Handler>
  void run_on(Executor& where, Timers& timers, const stop_token& token, Function function,
              Handler done);

  /// The same, and waits for the answer: for an attempt of a synchronous retry. Not from a task of
  /// an executor whose threads all wait so.
  template <executor Executor, timer_source Timers, class Function>
  [[nodiscard]] auto run(Executor& where, Timers& timers, const stop_token& token,
                         Function function);

#if defined(__cpp_impl_coroutine)
  /// `co_await spare.awaited(pool, timers, token, function)` gives the hedged_answer; resumes where
  /// the race ended.
  template <executor Executor, timer_source Timers, class Function>
  [[nodiscard]] auto awaited(Executor& where, Timers& timers, stop_token token, Function function);
#endif

  /// How long a call waits before its second copy. A call begins: pays in. A short lock.
  [[nodiscard]] duration begin() noexcept {
    const lock_guard lock(mutex_);
    tokens_ = std::min<double>(options_.burst, tokens_ + options_.extra);
    ++calls_;
    return delay_;
  }
  /// Asks for a second copy. Result: true when it may be sent. A short lock.
  [[nodiscard]] bool try_hedge() noexcept {
    const lock_guard lock(mutex_);
    if (tokens_ < 1.0 - 1e-9) return false;
    tokens_ -= 1.0;
    ++hedged_;
    return true;
  }
  /// A first copy took `took`, or was given up for its second after that long. A short lock.
  void took(duration took) noexcept {
    const lock_guard lock(mutex_);
    ++counts_[place_of(took)];
    if (++seen_ % 64 == 0 || seen_ == warm) learn();
  }

  struct counts {
    std::uint64_t calls;
    std::uint64_t hedged;  ///< second copies allowed
    duration delay;        ///< of the next call
  };
  [[nodiscard]] counts stats() const noexcept {
    const lock_guard lock(mutex_);
    return {calls_, hedged_, delay_};
  }
  [[nodiscard]] const hedging_options& options() const noexcept { return options_; }

 private:
  using lock_guard = detail::sync::lock_guard<detail::sync::mutex>;
  static constexpr std::uint64_t warm = 100;
  static constexpr std::size_t places = 64 * 8;

  static const hedging_options& checked(const hedging_options& options) {
    constexpr std::string_view where = "hedging";
    detail::require_between(where, "extra", options.extra, 0.0001, 0.5);
    detail::require_between(where, "burst", options.burst, 1U, 1'000'000U);
    const duration hour = std::chrono::hours(1);
    detail::require_between(where, "longest", options.longest, duration(1), hour);
    detail::require_between(where, "shortest", options.shortest, duration(1), options.longest);
    detail::require_between(where, "first_delay", options.first_delay, duration(1), hour);
    return options;
  }

  /// The step of a time: its power of two, and the three bits below.
  static std::size_t place_of(duration took) noexcept {
    const auto size = static_cast<std::uint64_t>(std::max(took, duration(8)).count());
    const int power = static_cast<int>(std::bit_width(size)) - 1;
    return static_cast<std::size_t>(power) * 8 + (size >> (power - 3) & 7);
  }
  /// The longest time of a step.
  static duration top_of(std::size_t place) noexcept {
    const std::size_t power = place / 8;
    const std::uint64_t next = (place % 8 + 9) << (power - 3);
    return duration(static_cast<duration::rep>(next - 1));
  }

  void learn() noexcept {
    if (seen_ < warm) return;
    std::uint64_t sum = 0;
    for (const std::uint32_t each : counts_)
      sum += each;
    const auto longer = static_cast<std::uint64_t>(static_cast<double>(sum) * options_.extra);
    std::uint64_t above = 0;
    std::size_t place = places;
    while (place > 24 && above + counts_[place - 1] <= longer)
      above += counts_[--place];
    delay_ = std::clamp(top_of(std::max<std::size_t>(place, 25) - 1), options_.shortest,
                        options_.longest);
    if (seen_ % 4096 != 0) return;
    for (std::uint32_t& each : counts_)
      each /= 2;
  }

  const hedging_options options_;
  mutable detail::sync::mutex mutex_;  // guards everything below
  std::array<std::uint32_t, places> counts_{};
  std::uint64_t seen_ = 0;
  duration delay_ = options_.first_delay;
  double tokens_ = options_.burst;
  std::uint64_t calls_ = 0;
  std::uint64_t hedged_ = 0;
};

/// What a copy of a call is told.
struct hedged_copy {
  std::uint32_t index;  ///< 1 for the first, 2 for the second: choose another host
  stop_token token;     ///< stops when the other copy has won, or the caller asked
};

/// The end of a hedged call.
template <class R>
struct [[nodiscard]] hedged_answer {
  std::optional<R> result;   ///< of the copy that won, or failed last; empty: none returned
  std::uint32_t won = 0;     ///< the copy that succeeded; 0: none did
  std::uint32_t copies = 0;  ///< copies begun
  std::exception_ptr error;  ///< of the copy that failed last, if it threw
  const char* refused = "";  ///< why the executor ran no copy at all

  /// True when a copy succeeded.
  [[nodiscard]] explicit operator bool() const noexcept { return won != 0; }
};

namespace detail {

/// The race of two copies. I1: done_ runs once, by whoever sets decided_, after the lock.
/// I2: running_ counts copies that are with the executor or under way, and hand-overs to it.
template <executor Executor, timer_source Timers, class Function, class Judge, class Done>
class hedged_race
    : public std::enable_shared_from_this<hedged_race<Executor, Timers, Function, Judge, Done>> {
 public:
  using result = std::invoke_result_t<Function&, const hedged_copy&>;
  static_assert(!std::is_reference_v<result> && !std::is_void_v<result>,
                "a hedged function returns a value");

  hedged_race(Executor& where, Timers& timers, hedging& shared, Function function, Judge judge,
              Done done)
      : where_(where),
        timers_(timers),
        shared_(shared),
        function_(std::move(function)),
        judge_(std::move(judge)),
        done_(std::move(done)) {}
  hedged_race(const hedged_race&) = delete;
  hedged_race& operator=(const hedged_race&) = delete;

  void start(const stop_token& token) {
    const duration delay = begin(token, 2);
    arm(delay);
    hand_over(1);
  }
  /// The same from a task of an executor, in which the first copy runs.
  void start_here(const stop_token& token) {
    const duration delay = begin(token, 1);
    arm(delay);
    perform(1);
  }

 private:
  using lock_guard = sync::lock_guard<sync::mutex>;

  struct ending {
    std::optional<result> got{};
    std::exception_ptr error{};
    std::uint32_t won = 0;     // the copy that succeeded
    const char* refused = "";  // why a copy did not run
  };

  struct stop_both {
    std::weak_ptr<hedged_race> race;
    void operator()() const noexcept {
      if (const auto kept = race.lock()) {
        kept->stops_[0].request_stop();
        kept->stops_[1].request_stop();
      }
    }
  };
  struct alarm {
    std::weak_ptr<hedged_race> race;
    void operator()() const {
      if (const auto kept = race.lock()) kept->hedge();
    }
  };
  /// A copy with the executor. Destroyed unrun, it counts as a copy that failed.
  class turn {
   public:
    turn(std::shared_ptr<hedged_race> race, std::uint32_t index) noexcept
        : race_(std::move(race)), index_(index) {}
    turn(turn&&) noexcept = default;
    ~turn() {
      if (race_ && !ran_) race_->dropped();
    }
    void operator()() {
      ran_ = true;
      race_->perform(index_);
    }

   private:
    std::shared_ptr<hedged_race> race_;  // null once moved from
    std::uint32_t index_;
    bool ran_ = false;
  };

  /// The first copy, of `parts`, counts before a second one can. Result: how long to wait for it.
  duration begin(const stop_token& token, std::uint32_t parts) {
    static_cast<void>(count_in(parts));
    if (token.stop_possible()) on_stop_.emplace(token, stop_both{this->weak_from_this()});
    started_ = timers_.now();
    return shared_.begin();
  }
  void arm(duration delay) {
    VELTRIX_TRY {
      timers_.call_at(saturating_add(started_, delay), alarm{this->weak_from_this()});
    }
    VELTRIX_CATCH_ALL {
      // Without memory for a timer the call goes on with one copy.
    }
  }
  void hedge() {
    {
      const lock_guard lock(mutex_);
      if (decided_) return;
    }
    if (shared_.try_hedge() && count_in(2)) hand_over(2);
  }
  /// Result: false when it is decided already.
  [[nodiscard]] bool count_in(std::uint32_t parts) noexcept {
    const lock_guard lock(mutex_);
    running_ += parts;
    return !decided_;
  }

  /// Two parts: the turn counts as running, and so does the hand-over. A refusal ends nothing
  /// before it is known why.
  void hand_over(std::uint32_t index) {
    post_result taken{post_status::full, "there is no memory for the task"};
    VELTRIX_TRY {
      taken = where_.try_post(task(turn(this->shared_from_this(), index)));
    }
    VELTRIX_CATCH_ALL {
      // The turn, destroyed on the way here, has been counted out.
    }
    ended({.refused = taken.why});
  }
  void dropped() { ended({.refused = "the executor dropped the task"}); }

  void perform(std::uint32_t index) {
    {
      const lock_guard lock(mutex_);
      if (decided_) return;
      ++answer_.copies;
    }
    ending told;
    VELTRIX_TRY {
      told.got.emplace(function_(hedged_copy{index, stops_[index - 1].get_token()}));
      if (judge_(*told.got).kind == verdict_kind::success) told.won = index;
    }
    VELTRIX_CATCH_ALL {
      told.error = std::current_exception();
    }
    ended(std::move(told));
  }

  /// One of those that running_ counts is over.
  void ended(ending told) {
    {
      const lock_guard lock(mutex_);
      --running_;
      if (decided_) return;
      if (told.got || told.error != nullptr) {
        answer_.result = std::move(told.got);
        answer_.error = std::move(told.error);
      }
      if (*told.refused != '\0') answer_.refused = told.refused;
      if (told.won == 0 && running_ > 0) return;
      decided_ = true;
      answer_.won = told.won;
      if (answer_.copies > 0) answer_.refused = "";
    }
    for (stop_source& each : stops_)
      each.request_stop();
    if (told.won != 0) shared_.took(timers_.now() - started_);
    Done done = std::move(done_);
    done(std::move(answer_));
  }

  Executor& where_;
  Timers& timers_;
  hedging& shared_;
  Function function_;  // both copies may be in it at once
  Judge judge_;        // the same
  Done done_;
  time_point started_{};
  stop_source stops_[2];
  sync::mutex mutex_;  // guards the four below, until decided_
  bool decided_ = false;
  std::uint32_t running_ = 0;
  hedged_answer<result> answer_;
  std::optional<stop_callback<stop_both>> on_stop_;  // written by start() only
};

/// A completion that another thread waits for.
template <class R>
struct awaited_answer {
  sync::mutex mutex;  // guards told
  sync::condition_variable came;
  std::optional<hedged_answer<R>> told{};

  void come(hedged_answer<R> answer) {
    const sync::lock_guard<sync::mutex> lock(mutex);
    told.emplace(std::move(answer));
    came.notify_all();
  }
  [[nodiscard]] hedged_answer<R> wait() {
    sync::unique_lock<sync::mutex> lock(mutex);
    while (!told)
      came.wait(lock);  // woken by come(), after it wrote told
    return std::move(*told);
  }
};

/// Success as the result tells it by itself.
struct told_by_result {
  template <class R>
  [[nodiscard]] verdict operator()(const R& result) const {
    return judge_by_itself(result);
  }
};

#if defined(__cpp_impl_coroutine)
/// What co_await works on: starts the race and resumes where it ended.
template <executor Executor, timer_source Timers, class Function>
class [[nodiscard]] hedge_awaiter {
  using result = std::invoke_result_t<Function&, const hedged_copy&>;

 public:
  hedge_awaiter(hedging& shared, Executor& where, Timers& timers, stop_token token,
                Function function)
      : shared_(shared),
        where_(where),
        timers_(timers),
        token_(std::move(token)),
        function_(std::move(function)) {}

  [[nodiscard]] bool await_ready() const noexcept { return false; }
  // noinline: clang 14 moves writes to the frame past the start if it inlines this.
  [[gnu::noinline]] void await_suspend(std::coroutine_handle<> waiter) {
    const stop_token token = std::move(token_);  // the frame may be gone when the race has begun
    shared_.run_on(where_, timers_, token, std::move(function_),
                   [this, waiter](hedged_answer<result> told) {
                     told_.emplace(std::move(told));
                     waiter.resume();
                   });
  }
  [[nodiscard]] hedged_answer<result> await_resume() { return std::move(*told_); }

 private:
  hedging& shared_;
  Executor& where_;
  Timers& timers_;
  stop_token token_;
  Function function_;
  std::optional<hedged_answer<result>> told_;  // written by the completion, before it resumes
};
#endif

}  // namespace detail

/// Layer of a policy: an attempt is sent a second time when it takes long, and the first success is
/// its result, as the policy judges it. What stands in the policy after it, a guard, a limit, sees
/// one attempt, whichever copies it has. attempt::copy() tells the copies apart; attempt::token()
/// stops for the one that lost. The function must bear two calls at once, and is copied by run().
/// run() sends both copies to `where` and waits; run_on() and awaited() begin with the first in the
/// task that makes the attempt. `shared`, `where` and `timers` outlive the calls and their losers.
template <executor Executor, timer_source Timers>
class hedge {
 public:
  static constexpr auto layer = detail::layer_kind::hedge;

  hedge(hedging& shared, Executor& where, Timers& timers) noexcept
      : shared_(&shared), where_(&where), timers_(&timers) {}

  // What the engine asks.

  template <class Judge, class Function>
  [[nodiscard]] auto run(const stop_token& token, Judge judge, Function function) const {
    using result = std::invoke_result_t<Function&, const hedged_copy&>;
    const auto answer = std::make_shared<detail::awaited_answer<result>>();
    const auto come = [answer](hedged_answer<result> told) { answer->come(std::move(told)); };
    prepare(std::move(judge), std::move(function), come)->start(token);
    return answer->wait();
  }
  template <class Judge, class Function, class Handler>
  [[nodiscard]] auto prepare(Judge judge, Function function, Handler done) const {
    return std::make_shared<detail::hedged_race<Executor, Timers, Function, Judge, Handler>>(
        *where_, *timers_, *shared_, std::move(function), std::move(judge), std::move(done));
  }

 private:
  hedging* shared_;
  Executor* where_;
  Timers* timers_;
};

template <executor Executor, timer_source Timers, class Function, class Handler>
void hedging::run_on(Executor& where, Timers& timers, const stop_token& token, Function function,
                     Handler done) {
  hedge(*this, where, timers)
      .prepare(detail::told_by_result(), std::move(function), std::move(done))
      ->start(token);
}

template <executor Executor, timer_source Timers, class Function>
auto hedging::run(Executor& where, Timers& timers, const stop_token& token, Function function) {
  return hedge(*this, where, timers).run(token, detail::told_by_result(), std::move(function));
}

#if defined(__cpp_impl_coroutine)
template <executor Executor, timer_source Timers, class Function>
auto hedging::awaited(Executor& where, Timers& timers, stop_token token, Function function) {
  return detail::hedge_awaiter<Executor, Timers, Function>(*this, where, timers, std::move(token),
                                                           std::move(function));
}
#endif

}  // namespace VELTRIX_ABI
}  // namespace veltrix
