// A pool of worker threads whose size is explicit and changes by acknowledged deltas.
// Use for: running tasks on a number of threads that an operator changes while they run.
// Not for: per-key order (keyed_executor.hpp), or timers.
// Threads: all members may be called from any thread, tasks of the pool included.
// Progress: posting is lock-free but for waking a worker; try_post() never waits for room. Changes
//   of the size, stats() and drain() take a lock that no post and no start of a task takes;
//   parallel_for and blocking_scope take it for a moment.
// Callbacks: tasks, hooks and the exception handler run with no lock held; only a hook's post to a
//   full queue moves a task's capture of at most 48 bytes under a lock.
// Exceptions: std::invalid_argument and std::system_error from the constructor; std::bad_alloc with
//   nothing changed; a task's exception goes to its handle, its group, or the handler.
// Lifetime: the pool outlives those who post; the destructor runs what was accepted, then joins.
// Guide: docs/elastic_pool.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <concepts>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <type_traits>
#include <utility>

#include "clock.hpp"
#include "detail/fork_join.hpp"
#include "detail/parallel_calls.hpp"
#include "detail/pool_core.hpp"
#include "detail/pool_options.hpp"
#include "detail/resize_result.hpp"
#include "detail/task_handle.hpp"
#include "executor.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// What post_bulk() took: the first `accepted` tasks.
struct [[nodiscard]] bulk_result {
  std::size_t accepted = 0;
  post_status status = post_status::accepted;  ///< accepted: all; closed: the rest never will be
  const char* why = "";                        ///< a sentence in static storage

  [[nodiscard]] explicit operator bool() const noexcept { return status == post_status::accepted; }
};

/// How parallel_for() cuts its range.
struct parallel_options {
  std::uint64_t grain = 0;  ///< indexes taken at a time; 0: about eight pieces per worker
};

/// Threads that take tasks from one queue, first in, first out, and from each other. What a worker
/// posts to its own pool it takes itself, newest first, unless another has time for it sooner.
///
/// The size changes only by an accepted resize. Nothing clamps: a size that cannot be had is
/// refused and the pool stays as it is. The sizes told by stats() and by every resize_result come
/// from one state: `configured` is what was accepted, `running` what the workers registered.
class elastic_pool {
 public:
  /// A copyable reference to the pool that satisfies the executor concept. The pool outlives it.
  class executor_type {
   public:
    /// As elastic_pool::try_post().
    template <class Work>
    post_result try_post(Work&& work) const {
      return pool_->try_post(std::forward<Work>(work));
    }
    [[nodiscard]] elastic_pool& pool() const noexcept { return *pool_; }
    friend bool operator==(const executor_type&, const executor_type&) = default;

   private:
    friend class elastic_pool;
    explicit executor_type(elastic_pool& pool) noexcept : pool_(&pool) {}
    elastic_pool* pool_;
  };

  /// What `co_await pool.schedule()` awaits. Throws task_cancelled, in the awaiting thread, if the
  /// pool was stopped.
  class [[nodiscard]] schedule_operation {
   public:
    [[nodiscard]] static bool await_ready() noexcept { return false; }
    // noinline: clang 14 moves writes to this object past the push if it inlines this.
    [[gnu::noinline]] bool await_suspend(std::coroutine_handle<> waiting) {
      detail::task resume([waiting] { waiting.resume(); });
      // Once accepted, this object may be gone: nothing of it is touched after.
      const bool accepted = static_cast<bool>(pool_.core_.push(resume, detail::when_full::waits));
      if (!accepted) closed_ = true;
      return accepted;
    }
    void await_resume() const {
      if (closed_) {
        detail::raise(detail::cancelled_because("elastic_pool::schedule", "await before stop()"));
      }
    }

   private:
    friend class elastic_pool;
    explicit schedule_operation(elastic_pool& pool) noexcept : pool_(pool) {}
    elastic_pool& pool_;
    bool closed_ = false;  // written before the coroutine goes on in the same thread
  };

  /// Starts `workers` threads; all of them run when it returns.
  /// @param workers  min_workers to max_workers of `options`
  /// Throws std::invalid_argument for a bad size or option; std::system_error when a thread cannot
  /// be had, naming asked, started, errno and the limit found. Nothing is left running then.
  /// O(workers).
  explicit elastic_pool(std::size_t workers, elastic_pool_options options = {})
      : core_(detail::checked_options(workers, std::move(options))) {
    core_.start(workers);
  }
  elastic_pool(const elastic_pool&) = delete;
  elastic_pool& operator=(const elastic_pool&) = delete;

  /// As stop(). Called by a task of this very pool, it reports so and aborts, in every build: it
  /// could only deadlock.
  ~elastic_pool() = default;

  /// Queues `work`, waiting while the queue is full. On a worker of this pool it never waits: a
  /// full queue takes the task over its capacity, counted in stats().over_capacity.
  /// @param work  called once, on a worker. A detail::task is moved from only when it was accepted;
  ///              any other callable is moved or copied first, and destroyed unrun when refused
  /// @return accepted or closed. O(1) amortised; blocks while full.
  /// Throws std::invalid_argument for an empty task; std::bad_alloc. Nothing is posted then.
  template <class Work>
  post_result post(Work&& work) {
    return give(std::forward<Work>(work), detail::when_full::waits);
  }

  /// Queues `work` if there is room, on every thread.
  /// @param work  as for post(): a refused detail::task stays with the caller, untouched
  /// @return accepted, full or closed. O(1) amortised; never waits for room.
  template <class Work>
  post_result try_post(Work&& work) {
    return give(std::forward<Work>(work), detail::when_full::refuses);
  }

  /// Queues the `count` callables that start at `first`, in order, as post() would each, but with
  /// at most one wake-up for up to 64 of them.
  /// @param first  a detail::task is moved from only when it was accepted; other callables are
  ///               copied, or moved when the iterator yields rvalues
  /// @return how many were accepted: `count`, or fewer when the pool is stopped meanwhile
  /// If copying a callable throws, or there is no memory for a task, those before it stay accepted.
  template <std::input_iterator Iterator>
  bulk_result post_bulk(Iterator first, std::size_t count);

  /// The same for everything from begin to end of a range with a known size.
  template <class Range>
    requires requires(Range& range) { std::begin(range), std::size(range); }
  bulk_result post_bulk(Range&& range) {
    return post_bulk(std::begin(range), std::size(range));
  }

  /// Queues `work` as post() does and gives a handle to its result or exception.
  /// @return a handle; if the pool was stopped, one whose get() throws task_cancelled
  /// One allocation.
  template <class Work>
  [[nodiscard]] auto submit(Work&& work) -> task_handle<std::invoke_result_t<std::decay_t<Work>>>;

  /// Calls `body(i)` once for each i from `begin` to before `end`, on workers and this thread.
  /// Returns when all calls have ended, then rethrows the first exception; the others go to the
  /// handler. An exception stops no other call. May be called by a task of this pool, and nested:
  /// the caller does whatever no worker has begun. A pool that is stopped, full or without memory
  /// leaves it all to the caller, who also begins alone where no grain is chosen and there are many
  /// indices to each thread: what takes no longer than to call a worker calls none.
  /// @param begin,end  of any integer types; `body` gets the type that holds both
  /// Throws std::invalid_argument, with no call made, if that type cannot hold a negative `begin`.
  template <std::integral First, std::integral Last, class Body>
  void parallel_for(First begin, Last end, Body&& body) {
    parallel_for(begin, end, parallel_options{}, std::forward<Body>(body));
  }

  /// The same with a chosen grain.
  template <std::integral First, std::integral Last, class Body>
  void parallel_for(First begin, Last end, parallel_options how, Body&& body) {
    using index = std::common_type_t<First, Last>;
    if (!std::cmp_less(begin, end)) return;
    if (!std::in_range<index>(begin)) detail::refuse_begin(static_cast<std::int64_t>(begin));
    const auto offset = static_cast<std::uint64_t>(begin);
    const std::uint64_t count = static_cast<std::uint64_t>(end) - offset;
    auto shifted = [&](std::uint64_t at) { body(static_cast<index>(offset + at)); };
    detail::share_range(core_, count, how.grain, shifted);
  }

  /// Calls each of `first`, `second` and `others` once, at the same time if workers are free, and
  /// returns when all have ended. Fork and join: a task splits its work so, to any depth.
  /// On a worker `first` is called here, and the others too unless idle workers take them; nothing
  /// is allocated and no lock taken. While it waits for a call that was taken, the worker runs what
  /// that call has split off, and nothing else. Any other thread has it all done as one task of the
  /// pool and waits; with a full or stopped pool, and in a hook, it makes the calls one by one.
  /// @param first,second,others  callables without arguments, called as lvalues
  /// Throws what the first of them, in this order, threw; other exceptions go to the handler. An
  /// exception stops no other call. O(1) beside the calls.
  template <class First, class Second, class... Others>
    requires(std::invocable<First&> && std::invocable<Second&> && (std::invocable<Others&> && ...))
  void parallel_invoke(First&& first, Second&& second, Others&&... others) {
    detail::call_all(core_, first, second, others...);
  }

  /// `co_await pool.schedule()` continues the coroutine as a task of the pool. Waits as post().
  [[nodiscard]] schedule_operation schedule() noexcept { return schedule_operation(*this); }

  /// A view for those who take an executor.
  [[nodiscard]] executor_type executor() noexcept { return executor_type(*this); }

  /// Changes the size by `delta` workers, relative to `configured`. 0 changes nothing and answers
  /// whether the pool has settled.
  /// @return ack once running == target and every retired thread is gone; backoff or refused
  ///   otherwise, see resize_result. A growth is all or nothing. A shrink retires workers between
  ///   tasks; at the deadline it answers settling, the target stays and the rest retire as they
  ///   finish. While another resize runs it answers resize_in_flight at once.
  /// May be called by a task of this pool. Throws std::bad_alloc with nothing changed.
  /// O(|delta|) thread starts or ends; blocks until then or the deadline.
  [[nodiscard]] resize_result resize_by(std::int64_t delta, const resize_options& how = {}) {
    return core_.resize_by(delta, how);
  }

  /// Changes the size to `workers`; otherwise as resize_by().
  [[nodiscard]] resize_result resize_to(std::int64_t workers, const resize_options& how = {}) {
    return core_.resize_to(workers, how);
  }

  /// Sizes of one instant; counts of tasks summed over the workers, see pool_stats. O(workers).
  [[nodiscard]] pool_stats stats() const { return core_.stats(); }

  /// Waits until no accepted task is queued or runs. Posting goes on meanwhile, and counts.
  /// @return false when the deadline passed first. Called by a task of this pool it does not wait:
  ///   it answers whether everything but that task is done
  [[nodiscard]] bool drain(time_point deadline = no_deadline) { return core_.drain(deadline); }

  /// Takes no more tasks, runs all accepted ones, joins every worker. Again: waits for the same.
  /// Called by a task of this pool it only closes: the rest is the destructor's, or another stop().
  void stop() { core_.stop(); }

  /// Whether the calling thread is a worker of this pool.
  [[nodiscard]] bool on_worker() const noexcept { return core_.on_worker(); }

 private:
  friend class task_group;
  friend class blocking_scope;

  template <class Work>
  post_result give(Work&& work, detail::when_full policy) {
    if constexpr (std::same_as<std::remove_reference_t<Work>, detail::task>) {
      return core_.push(work, policy);
    } else {
      static_assert(std::invocable<std::decay_t<Work>&>, "a task is a callable without arguments");
      detail::task made(std::forward<Work>(work));
      return core_.push(made, policy);
    }
  }

  static constexpr std::size_t bulk_block = 64;

  /// Makes tasks of `count` callables, at most bulk_block, and queues them; `first` moves on.
  template <std::input_iterator Iterator>
  bulk_result post_block(Iterator& first, std::size_t count);

  static bulk_result told_as(const std::pair<std::size_t, post_result>& pushed) noexcept {
    return {pushed.first, pushed.second.status, pushed.second.why};
  }

  detail::pool_core core_;
};

/// Announces that the calling task is about to block, until the scope ends. Counted in
/// stats().blocked. A pool is permitted to compensate with other workers; this version does not.
/// Outside a worker of the pool it does nothing.
class [[nodiscard]] blocking_scope {
 public:
  explicit blocking_scope(elastic_pool& pool) noexcept
      : core_(pool.on_worker() ? &pool.core_ : nullptr) {
    if (core_ != nullptr) core_->count_blocked(1);
  }
  blocking_scope(const blocking_scope&) = delete;
  blocking_scope& operator=(const blocking_scope&) = delete;
  ~blocking_scope() {
    if (core_ != nullptr) core_->count_blocked(-1);
  }

 private:
  detail::pool_core* const core_;  // null: not a worker of the pool
};

/// Tasks that are waited for together. The pool outlives the group.
///
/// wait() runs what nobody has begun, so groups may be made, filled and waited for inside tasks, to
/// any depth, on one worker. The count is the number of tickets alive: it cannot go below zero.
class task_group {
 public:
  /// Counts as unfinished until it is spent by `std::move(ticket).finish()` or destroyed.
  using ticket = detail::group_state::ticket;

  explicit task_group(elastic_pool& pool) noexcept : core_(pool.core_), state_(*core_.sink()) {}
  task_group(const task_group&) = delete;
  task_group& operator=(const task_group&) = delete;

  /// Waits as wait() does; an exception that nobody took goes to the pool's handler.
  ~task_group() {
    if (state_.settled()) return;
    if (std::exception_ptr left = detail::wait_for_group(core_, state_)) {
      core_.sink()->report(std::move(left));
    }
  }

  /// Adds `work` to the group. If the pool's queue is full or the pool was stopped, a task of the
  /// group is run here instead. Never waits for room. Throws std::bad_alloc with nothing added.
  template <class Work>
  void run(Work&& work) {
    detail::run_in_group(core_, state_, detail::task(std::forward<Work>(work)));
  }

  /// A unit the group waits for that is not one of its tasks: an answer awaited, a hand-over.
  [[nodiscard]] ticket take_ticket() noexcept { return state_.make_ticket(); }

  /// Runs what nobody has begun, then blocks until every task has ended and every ticket is spent.
  /// Rethrows the first exception; the others went to the handler. The group may be used again.
  void wait() {
    if (std::exception_ptr failure = detail::wait_for_group(core_, state_)) {
      std::rethrow_exception(std::move(failure));
    }
  }

 private:
  detail::pool_core& core_;
  detail::group_state state_;
};

template <std::input_iterator Iterator>
bulk_result elastic_pool::post_bulk(Iterator first, std::size_t count) {
  if constexpr (std::same_as<std::iter_reference_t<Iterator>, detail::task&>) {
    static_assert(std::contiguous_iterator<Iterator>,
                  "detail::tasks are posted from contiguous memory, or as rvalues");
    return told_as(core_.push_all(std::to_address(first), count, detail::when_full::waits));
  } else {
    bulk_result told;
    while (told.accepted < count && told.status == post_status::accepted) {
      const std::size_t before = told.accepted;
      told = post_block(first, std::min(count - before, bulk_block));
      told.accepted += before;
    }
    return told;
  }
}

template <std::input_iterator Iterator>
bulk_result elastic_pool::post_block(Iterator& first, std::size_t count) {
  detail::task made[bulk_block];
  std::size_t ready = 0;
  VELTRIX_TRY {
    for (; ready < count; ++ready, ++first)
      made[ready] = detail::task(*first);
  }
  VELTRIX_CATCH_ALL {
    static_cast<void>(core_.push_all(made, ready, detail::when_full::waits));
    VELTRIX_RETHROW;
  }
  return told_as(core_.push_all(made, ready, detail::when_full::waits));
}

template <class Work>
auto elastic_pool::submit(Work&& work) -> task_handle<std::invoke_result_t<std::decay_t<Work>>> {
  using result = std::invoke_result_t<std::decay_t<Work>>;
  auto state = std::make_shared<detail::work_state<result, std::decay_t<Work>>>(
      std::forward<Work>(work), &core_, core_.sink());
  task_handle<result> handle(state);
  detail::task entry{detail::submitted_task(std::move(state))};
  static_cast<void>(core_.push(entry, detail::when_full::waits));  // refused: entry cancels it
  return handle;
}

}  // namespace VELTRIX_ABI
}  // namespace veltrix
