// The result of a submitted task: wait for it, take it, or take its exception.
// Use for: what elastic_pool::submit() returns.
// Not for: many readers of one result; the handle moves and its result is taken once.
// Threads: a handle is used by one thread at a time; the task runs on another.
// Progress: ready() takes a short lock; wait() and get() block, or on a worker run the task.
// Callbacks: the task runs with no lock held.
// Exceptions: get() rethrows the task's, or throws task_cancelled.
// Lifetime: a handle may outlive its pool; dropping it neither waits nor cancels.
// Guide: docs/elastic_pool.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include "../clock.hpp"
#include "failure_sink.hpp"
#include "message.hpp"
#include "sync.hpp"
#include "worker_identity.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// The task will never run: its pool was stopped before it was accepted.
class task_cancelled : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

namespace detail {

[[nodiscard]] inline task_cancelled cancelled_because(const char* where, const char* next) {
  return task_cancelled(describe({.where = where,
                                  .what = "pool",
                                  .got = "a pool that was stopped",
                                  .allowed = "a pool that takes tasks",
                                  .stays = "the task was not run and never will be",
                                  .next = next}));
}

/// What a handle and the queued task share.
/// I1: phase_ moves queued -> running -> done, or queued -> cancelled, and never back.
class handle_state {
 public:
  handle_state(const void* pool, std::shared_ptr<failure_sink> sink) noexcept
      : pool_(pool), sink_(std::move(sink)) {}
  handle_state(const handle_state&) = delete;
  handle_state& operator=(const handle_state&) = delete;
  virtual ~handle_state() = default;

  /// Runs the task unless somebody has begun it, or it was cancelled.
  void run_if_queued() {
    {
      const sync::lock_guard<sync::mutex> lock(mutex_);
      if (phase_ != phase::queued) return;
      phase_ = phase::running;
    }
    std::exception_ptr failure;
    VELTRIX_TRY {
      invoke();
    }
    VELTRIX_CATCH_ALL {
      failure = std::current_exception();
    }
    finish(std::move(failure));
  }

  void cancel() noexcept {
    const sync::lock_guard<sync::mutex> lock(mutex_);
    if (phase_ != phase::queued) return;
    phase_ = phase::cancelled;
    changed_.notify_all();
  }

  /// The handle is gone: an exception nobody took goes to the sink.
  void drop() noexcept {
    std::exception_ptr left;
    {
      const sync::lock_guard<sync::mutex> lock(mutex_);
      dropped_ = true;
      left = std::exchange(failure_, nullptr);
    }
    if (left) sink_->report(std::move(left));
  }

  [[nodiscard]] bool ready() const noexcept {
    const sync::lock_guard<sync::mutex> lock(mutex_);
    return over();
  }

  /// Result: false when the deadline passed first.
  bool wait_until(time_point deadline) {
    sync::unique_lock<sync::mutex> lock(mutex_);
    // Woken by finish() and cancel(), after they wrote phase_.
    while (!over()) {
      if (deadline == no_deadline) {
        changed_.wait(lock);
      } else if (changed_.wait_until(lock, deadline) == std::cv_status::timeout) {
        return over();
      }
    }
    return true;
  }

  /// A worker that waits for a task nobody has begun would wait for itself: it runs the task.
  void wait_or_run() {
    if (this_worker().pool == pool_) run_if_queued();
    wait_until(no_deadline);
  }

  /// Throws what ended the task, if anything did. After wait_or_run() only.
  void raise_failure() {
    std::exception_ptr failure;
    bool was_cancelled = false;
    {
      const sync::lock_guard<sync::mutex> lock(mutex_);
      failure = std::exchange(failure_, nullptr);
      was_cancelled = phase_ == phase::cancelled;
    }
    if (failure) std::rethrow_exception(std::move(failure));
    if (was_cancelled) {
      raise(cancelled_because("task_handle::get", "submit() before stop()"));
    }
  }

 protected:
  virtual void invoke() = 0;

 private:
  enum class phase : std::uint8_t { queued, running, done, cancelled };

  [[nodiscard]] bool over() const noexcept {
    return phase_ == phase::done || phase_ == phase::cancelled;
  }

  void finish(std::exception_ptr failure) noexcept {
    {
      const sync::lock_guard<sync::mutex> lock(mutex_);
      phase_ = phase::done;
      changed_.notify_all();
      if (!dropped_) failure_ = std::exchange(failure, nullptr);
    }
    if (failure) sink_->report(std::move(failure));
  }

  const void* const pool_;                    // compared only
  const std::shared_ptr<failure_sink> sink_;  // outlives the pool with us
  mutable sync::mutex mutex_;                 // guards everything below
  sync::condition_variable changed_;          // phase_ reached done or cancelled
  phase phase_ = phase::queued;               // guarded by mutex_
  bool dropped_ = false;                      // guarded by mutex_; no handle is left
  std::exception_ptr failure_;                // guarded by mutex_; not taken yet
};

/// References are kept as pointers, void as nothing.
template <class Result>
class result_state : public handle_state {
 public:
  using handle_state::handle_state;

  /// After the task is done without an exception.
  [[nodiscard]] Result take() {
    if constexpr (std::is_reference_v<Result>) {
      return static_cast<Result>(**value_);
    } else if constexpr (!std::is_void_v<Result>) {
      return std::move(*value_);
    }
  }

 protected:
  struct nothing {};
  using stored =
      std::conditional_t<std::is_void_v<Result>, nothing,
                         std::conditional_t<std::is_reference_v<Result>,
                                            std::add_pointer_t<std::remove_reference_t<Result>>,
                                            std::remove_cv_t<Result>>>;

  // Written by the thread that runs the task before phase_ is done; read after.
  std::optional<stored> value_;
};

template <class Result, class Work>
class work_state final : public result_state<Result> {
 public:
  template <class Given>
  work_state(Given&& work, const void* pool, std::shared_ptr<failure_sink> sink)
      : result_state<Result>(pool, std::move(sink)), work_(std::forward<Given>(work)) {}

 private:
  void invoke() override {
    // The capture ends with its task, not with the handle.
    Work once = std::move(*work_);
    work_.reset();
    if constexpr (std::is_void_v<Result>) {
      std::move(once)();
    } else if constexpr (std::is_reference_v<Result>) {
      Result found = std::move(once)();
      this->value_.emplace(&found);
    } else {
      this->value_.emplace(std::move(once)());
    }
  }

  std::optional<Work> work_;  // used by whoever moved phase_ to running
};

/// The queued side: runs the task, or cancels it when destroyed unrun.
class submitted_task {
 public:
  explicit submitted_task(std::shared_ptr<handle_state> state) noexcept
      : state_(std::move(state)) {}
  submitted_task(submitted_task&&) noexcept = default;
  submitted_task& operator=(submitted_task&&) = delete;
  ~submitted_task() {
    if (state_) state_->cancel();
  }

  void operator()() { std::exchange(state_, nullptr)->run_if_queued(); }

 private:
  std::shared_ptr<handle_state> state_;  // null once run or moved from
};

}  // namespace detail

/// One result, taken once. Moves; a moved-from or emptied handle is not valid().
template <class Result>
class [[nodiscard]] task_handle {
 public:
  task_handle() noexcept = default;
  task_handle(task_handle&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
  task_handle& operator=(task_handle&& other) noexcept {
    if (this != &other) {
      drop();
      state_ = std::exchange(other.state_, nullptr);
    }
    return *this;
  }
  /// Neither waits nor cancels. An exception that nobody took goes to the pool's handler.
  ~task_handle() { drop(); }

  /// Whether there is a result to wait for.
  [[nodiscard]] bool valid() const noexcept { return state_ != nullptr; }

  /// Whether get() would answer at once. Misuse on a handle that is not valid().
  [[nodiscard]] bool ready() const noexcept {
    VELTRIX_ASSERT(valid(), "task_handle::ready() on an empty handle");
    return state_ && state_->ready();
  }

  /// Blocks until the task is over. On a worker of the same pool, a task nobody has begun is run
  /// here instead, so that waiting for one's own pool cannot deadlock.
  void wait() const {
    VELTRIX_ASSERT(valid(), "task_handle::wait() on an empty handle");
    if (state_) state_->wait_or_run();
  }

  /// Blocks at most until `deadline`; never runs the task itself.
  /// @return whether the task is over
  [[nodiscard]] bool wait_until(time_point deadline) const {
    VELTRIX_ASSERT(valid(), "task_handle::wait_until() on an empty handle");
    return state_ && state_->wait_until(deadline);
  }

  /// Blocks at most `limit`; never runs the task itself.
  /// @return whether the task is over
  [[nodiscard]] bool wait_for(duration limit) const {
    return wait_until(saturating_add(steady_clock::now(), limit));
  }

  /// Waits as wait() does, then moves the result out; the handle is empty after it.
  /// @return the task's result
  /// Throws the task's exception; task_cancelled if it never ran; std::logic_error without a task.
  Result get() {
    VELTRIX_ASSERT(valid(), "task_handle::get() on an empty handle");
    if (!state_) {
      detail::raise(std::logic_error(detail::describe({.where = "task_handle::get",
                                                       .what = "handle",
                                                       .got = "an empty one",
                                                       .allowed = "one with a result, once",
                                                       .stays = "nothing was waited for"})));
    }
    const auto state = std::exchange(state_, nullptr);
    state->wait_or_run();
    state->raise_failure();
    return state->take();
  }

 private:
  friend class elastic_pool;
  explicit task_handle(std::shared_ptr<detail::result_state<Result>> state) noexcept
      : state_(std::move(state)) {}

  void drop() noexcept {
    if (state_) std::exchange(state_, nullptr)->drop();
  }

  std::shared_ptr<detail::result_state<Result>> state_;  // null when empty
};

}  // namespace VELTRIX_ABI
}  // namespace veltrix
