// One call under retry on an executor: attempts are tasks, waits are timers, no worker blocks.
// Use for: the asynchronous and the awaitable form of retry. Internal.
// Not for: users; see veltrix/retry.hpp.
// Threads: executor, timers and the stop source may each act from threads of their own.
// Progress: a short lock around a wait; the rest as the attempts'.
// Callbacks: the retried function on the executor; the completion where the call ended: on the
//   executor, else in the thread that destroyed the task unrun. No lock held.
// Exceptions: those of the retried function end in the outcome as stop_reason::threw; those of
//   the completion go to the executor.
// Lifetime: the call owns itself; executor and the clock of the environment outlive it.
// Guide: docs/retry.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <utility>

#include "../executor.hpp"
#include "../stop_token.hpp"
#include "retry_chain.hpp"
#include "retry_hedged.hpp"
#include "sync.hpp"
#include "timer_queue.hpp"

#if defined(__cpp_impl_coroutine)
#include <coroutine>
#endif

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// A call in flight. At any time exactly one of these drives it: a task with the executor, a timer
/// that waits, or a thread inside drive().
/// I1: waiting_ is the number of the timer that may still wake the call, 0 while none may. Whoever
///     takes it back to 0 (timer, stop request, timer dropped unrun) drives the call on.
/// I2: finish() runs once: only the one that drives the call may call it.
template <class Source, executor Executor, class Env, class Function, class Done>
class retry_call
    : public std::enable_shared_from_this<retry_call<Source, Executor, Env, Function, Done>> {
  using result = attempt_result<Function>;

 public:
  retry_call(Source source, Executor& where, Env env, Function function, Done done)
      : source_(std::move(source)),
        where_(where),
        env_(std::move(env)),
        function_(std::move(function)),
        done_(std::move(done)),
        chain_(source_, env_, retry_access::note(told_)) {}
  retry_call(const retry_call&) = delete;
  retry_call& operator=(const retry_call&) = delete;

  void start() {
    if (env_.token().stop_possible()) on_stop_.emplace(env_.token(), wake{this->weak_from_this()});
    post();
  }

 private:
  using lock_guard = sync::lock_guard<sync::mutex>;
  enum class wake_kind : std::uint8_t { none, ran, dropped };
  static constexpr bool hedged = Source::policy_type::hedged;
  static constexpr const char* timer_dropped = "the timer was dropped";

  /// The task with the executor. Destroyed unrun, it ends the call.
  class turn {
   public:
    turn(std::shared_ptr<retry_call> call, std::uint64_t number) noexcept
        : call_(std::move(call)), number_(number) {}
    turn(turn&&) noexcept = default;
    ~turn() {
      if (call_) call_->dropped(number_);
    }
    void operator()() { std::exchange(call_, nullptr)->drive(); }

   private:
    std::shared_ptr<retry_call> call_;  // null once run
    std::uint64_t number_;
  };

  /// The timer of a wait. Destroyed unrun, it ends the call.
  class alarm {
   public:
    alarm(std::shared_ptr<retry_call> call, std::uint64_t number) noexcept
        : call_(std::move(call)), number_(number) {}
    alarm(alarm&&) noexcept = default;
    ~alarm() {
      if (call_ && call_->claim(number_, wake_kind::dropped)) call_->not_run(timer_dropped);
    }
    void operator()() {
      const std::shared_ptr<retry_call> call = std::exchange(call_, nullptr);
      if (call->claim(number_, wake_kind::ran)) call->post();
    }

   private:
    std::shared_ptr<retry_call> call_;  // null once run
    std::uint64_t number_;
  };

  /// What a stop request runs.
  struct wake {
    std::weak_ptr<retry_call> call;

    void operator()() const noexcept {
      const std::shared_ptr<retry_call> kept = call.lock();
      if (kept && kept->claim_any()) kept->post();
    }
  };

  /// Hands the call to the executor. A refusal ends it, with the executor's reason.
  void post() {
    const std::shared_ptr<retry_call> kept = this->shared_from_this();
    const std::uint64_t number = ++posts_;
    {
      const lock_guard lock(mutex_);
      posting_ = number;
      dropped_ = false;
    }
    post_result answer{post_status::full, "there is no memory for the task"};
    VELTRIX_TRY {
      answer = where_.try_post(task(turn(kept, number)));
    }
    VELTRIX_CATCH_ALL {
      // Where the task ran inside try_post(), the exception is the completion's.
      if (!end_posting(number)) VELTRIX_RETHROW;
      not_run(answer.why);
      return;
    }
    const bool unrun = end_posting(number);
    if (!answer) {
      not_run(answer.why);
    } else if (unrun) {
      not_run("the executor dropped the task");
    }
  }

  /// Result: true when the turn was destroyed unrun while it was being handed over.
  [[nodiscard]] bool end_posting(std::uint64_t number) noexcept {
    const lock_guard lock(mutex_);
    if (posting_ != number) return false;  // it ran, and the call has posted again
    posting_ = 0;
    return dropped_;
  }

  /// A turn was destroyed unrun: post() tells why if it is still inside the executor.
  void dropped(std::uint64_t number) {
    {
      const lock_guard lock(mutex_);
      if (posting_ == number) {
        dropped_ = true;
        return;
      }
    }
    not_run("the executor dropped the task");
  }

  void drive() {
    if constexpr (hedged) {
      if (const auto race = next_race()) race->start_here(env_.token());
    } else {
      go_on(guarded([this] {
        retry_step step = next();
        while (step == retry_step::attempt)
          step = chain_.perform(function_, told_);
        return step;
      }));
    }
  }

  [[nodiscard]] retry_step next() {
    return std::exchange(begun_, true) ? chain_.resume() : chain_.begin();
  }

  /// Runs a part of the chain, and ends the call where that throws.
  template <class Part>
  [[nodiscard]] retry_step guarded(Part part) {
    VELTRIX_TRY {
      return part();
    }
    VELTRIX_CATCH_ALL {
      retry_access::last(told_).reset();
      retry_access::error(told_) = std::current_exception();
      chain_.abandon(stop_reason::threw, "an exception that catching() does not name");
    }
    return retry_step::stop;
  }

  void go_on(retry_step step) {
    if (step == retry_step::wait) {
      wait();
    } else {
      finish();
    }
  }

  /// The race of the next attempt's copies, both of which keep the call. Null: there is none, and
  /// the call has gone on.
  [[nodiscard]] auto next_race() {
    const std::shared_ptr<retry_call> kept = this->shared_from_this();
    const auto prepare = [&] {
      const auto layer = source_.read([](const auto& rules) { return rules.hedge_layer(); });
      return layer.prepare([kept](const result& got) { return judged_by(kept->source_, got); },
                           [kept, whole = copied_attempt(chain_.making())](const auto& copy) {
                             return whole.call(kept->function_, copy);
                           },
                           [kept](auto answer) {
                             kept->go_on(kept->guarded([&] {
                               return kept->chain_.take(std::move(answer), kept->told_);
                             }));
                           });
    };
    decltype(prepare()) race;
    const retry_step step = guarded([&] {
      const retry_step asked = next();
      if (asked == retry_step::attempt) race = prepare();
      return asked;
    });
    if (!race) go_on(step);
    return race;
  }

  /// Arms the timer, and only then lets others drive the call: until wait() has let go of clock
  /// and state, neither timer nor stop request may bring the call to its end.
  void wait() {
    const std::shared_ptr<retry_call> kept = this->shared_from_this();
    const std::uint64_t number = ++waits_;
    {
      const lock_guard lock(mutex_);
      arming_ = number;
      woken_ = wake_kind::none;
    }
    VELTRIX_TRY {
      env_.clock().call_at(chain_.wake_at(), task(alarm(kept, number)));
    }
    VELTRIX_CATCH_ALL {
      // The alarm, destroyed on the way here, left its mark in woken_.
    }
    wake_kind woken = wake_kind::none;
    {
      const lock_guard lock(mutex_);
      arming_ = 0;
      woken = woken_;
      // A stop request either set the flag before this line, or finds waiting_.
      if (woken == wake_kind::none && !env_.token().stop_requested()) {
        waiting_ = number;
        return;
      }
    }
    if (woken == wake_kind::dropped) {
      not_run(timer_dropped);
    } else {
      post();
    }
  }

  /// The timer ran or was dropped. Result: true when the caller now drives the call.
  [[nodiscard]] bool claim(std::uint64_t number, wake_kind how) noexcept {
    const lock_guard lock(mutex_);
    if (arming_ == number) woken_ = how;
    if (waiting_ != number) return false;
    waiting_ = 0;
    return true;
  }
  /// A stop request came. Result: as claim().
  [[nodiscard]] bool claim_any() noexcept {
    const lock_guard lock(mutex_);
    return std::exchange(waiting_, 0) != 0;
  }

  void not_run(const char* why) {
    chain_.abandon(stop_reason::not_run, why);
    finish();
  }

  void finish() {
    VELTRIX_TRY {
      chain_.fall_back(told_);
    }
    VELTRIX_CATCH_ALL {
      retry_access::error(told_) = std::current_exception();
      chain_.abandon(stop_reason::threw, "an exception of the fallback");
    }
    Done done = std::move(done_);
    done(std::move(told_));
  }

  Source source_;
  Executor& where_;
  Env env_;
  Function function_;
  Done done_;
  outcome<result> told_;
  retry_chain<Source, Env> chain_;
  bool begun_ = false;
  std::uint64_t posts_ = 0;            // number of the last turn; written by whoever drives
  std::uint64_t waits_ = 0;            // number of the last wait; the same
  sync::mutex mutex_;                  // guards the five below
  std::uint64_t arming_ = 0;           // the wait whose timer is being armed; 0: none
  wake_kind woken_ = wake_kind::none;  // what became of that timer meanwhile
  std::uint64_t waiting_ = 0;          // the wait that may be ended by others; 0: none
  std::uint64_t posting_ = 0;          // the turn that a thread is handing to the executor; 0: none
  bool dropped_ = false;               // that turn was destroyed inside the executor
  std::optional<stop_callback<wake>> on_stop_;
};

/// Starts a call; `done(outcome)` runs exactly once.
template <class Source, executor Executor, class Env, class Function, class Done>
void start_call(Source source, Executor& where, Env env, Function function, Done done) {
  using call = retry_call<Source, Executor, Env, Function, Done>;
  std::make_shared<call>(std::move(source), where, std::move(env), std::move(function),
                         std::move(done))
      ->start();
}

#if defined(__cpp_impl_coroutine)
/// What co_await works on: starts the call and resumes where it ended, with the outcome. An
/// exception that catching() does not name is thrown there.
template <class Source, executor Executor, class Env, class Function>
class [[nodiscard]] retry_awaiter {
  using result = attempt_result<Function>;

 public:
  retry_awaiter(Source source, Executor& where, Env env, Function function)
      : source_(std::move(source)),
        where_(where),
        env_(std::move(env)),
        function_(std::move(function)) {}

  [[nodiscard]] bool await_ready() const noexcept { return false; }
  // noinline: clang 14 moves writes to the frame past the start if it inlines this.
  [[gnu::noinline]] void await_suspend(std::coroutine_handle<> waiter) {
    start_call(std::move(source_), where_, std::move(env_), std::move(function_),
               [this, waiter](outcome<result> told) {
                 told_.emplace(std::move(told));
                 waiter.resume();
               });
  }
  [[nodiscard]] outcome<result> await_resume() {
#if VELTRIX_HAS_EXCEPTIONS
    if (told_->reason() == stop_reason::threw) std::rethrow_exception(told_->error());
#endif
    return std::move(*told_);
  }

 private:
  Source source_;
  Executor& where_;
  Env env_;
  Function function_;
  std::optional<outcome<result>> told_;  // written by the completion, before it resumes
};
#endif

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
