// The inside of elastic_pool: one lock, one queue, workers that register themselves.
// Use for: elastic_pool. Internal.
// Not for: users.
// Threads: all members may be called from any thread.
// Progress: short critical sections under one mutex; waits say who ends them.
// Callbacks: tasks, hooks and the handler run with no lock held; only the noexcept move of a task's
//   small capture runs under mutex_.
// Exceptions: std::bad_alloc with nothing changed; resource failures are answers, see grow().
// Lifetime: stop() from outside has joined every thread when it returns.
// Guide: docs/elastic_pool.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "../clock.hpp"
#include "../executor.hpp"
#include "failure_sink.hpp"
#include "pool_answers.hpp"
#include "pool_options.hpp"
#include "pool_workers.hpp"
#include "sync.hpp"
#include "task_handle.hpp"
#include "task_ring.hpp"
#include "worker_identity.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// What push() does when the queue is full and the caller is no worker of the pool.
enum class when_full : std::uint8_t { waits, refuses };

/// One mutex guards everything; a task costs two short critical sections, its push and the one in
/// which its worker reports it done and takes the next. Idle workers form a stack, so that the
/// warmest one is called and the others sleep on. Wake chaining: a push calls a worker only when
/// none is on its way, and each worker that takes a task calls the next if there is more.
///
/// A worker's life: started -> waits at the gate -> admitted with its whole batch -> on_start ->
/// registers -> tasks -> deregisters -> on_stop -> listed as gone -> joined by a resize, by another
/// worker or by stop(). A batch that cannot be started whole is dismissed at the gate.
///
/// I1: running_ counts registrations; each worker makes and ends its own.
/// I2: starting_ > 0 only from a growth until its last worker has registered; no other change is
///     accepted meanwhile, so a worker that starts is always wanted.
/// I3: leaving_ counts workers from their deregistration until they were joined.
/// I4: queue non-empty and idle_ non-empty imply that a called worker is on its way, or that the
///     holder of mutex_ is about to call one.
/// I5: idle_ is empty while running_ > kept_: whoever lowers kept_ below running_ calls all idle
///     workers, and none parks before the surplus has left. So who leaves has no call to pass on.
class pool_core {
 public:
  explicit pool_core(elastic_pool_options options)
      : options_(std::move(options)),
        sink_(std::make_shared<failure_sink>(std::move(options_.on_exception))),
        room_again_(options_.queue_capacity -
                    std::clamp<std::size_t>(options_.queue_capacity / 2, 1, 64)) {}
  pool_core(const pool_core&) = delete;
  pool_core& operator=(const pool_core&) = delete;

  ~pool_core() {
    if (on_worker()) {
      std::fputs("veltrix: elastic_pool: destroyed by a task of its own; it cannot join itself\n",
                 stderr);
      std::abort();  // the alternatives are a deadlock and a use after free
    }
    stop();
  }

  /// The constructor's growth. Throws std::system_error when the threads cannot be had.
  void start(std::size_t workers) {
    sync::unique_lock<sync::mutex> lock(mutex_);
    const turn mine(*this);
    const start_failure failure = grow(lock, workers);
    if (failure.error != 0) {
      raise(std::system_error(
          failure.error, std::generic_category(),
          start_text("elastic_pool::elastic_pool", workers, failure, "no worker is left running")));
    }
    await_settled(lock, no_deadline);
  }

  /// Takes `work` when it is accepted, and only then.
  post_result push(task& work, when_full policy) {
    VELTRIX_ASSERT(static_cast<bool>(work), "an empty task was posted");
    pool_worker* called = nullptr;
    {
      sync::unique_lock<sync::mutex> lock(mutex_);
      if (const post_result refusal = await_room(lock, policy); !refusal) return refusal;
      queue_.reserve(1);
      queue_.push_back(std::move(work));
      ++posted_;
      called = call_idle();
    }
    notify(called);
    return {};
  }

  /// Takes tasks from the front of the array as long as there is room; waits for the room if told.
  /// @return how many were taken, and why it stopped there if not all were
  std::pair<std::size_t, post_result> push_all(task* works, std::size_t count, when_full policy) {
    std::size_t taken = 0;
    while (taken < count) {
      pool_worker* called = nullptr;
      {
        sync::unique_lock<sync::mutex> lock(mutex_);
        if (const post_result refusal = await_room(lock, policy); !refusal) {
          return {taken, refusal};
        }
        const std::size_t room =
            queue_.size() < options_.queue_capacity ? options_.queue_capacity - queue_.size() : 1;
        const std::size_t now = std::min(room, count - taken);
        queue_.reserve(now);
        for (std::size_t i = 0; i < now; ++i)
          queue_.push_back(std::move(works[taken + i]));
        posted_ += now;
        taken += now;
        called = call_idle();
      }
      notify(called);
    }
    return {taken, post_result{}};
  }

  [[nodiscard]] resize_result resize_by(std::int64_t delta, const resize_options& how) {
    const char* const where = "elastic_pool::resize_by";
    sync::unique_lock<sync::mutex> lock(mutex_);
    if (std::optional<resize_result> early = answer_early(where, how)) return *std::move(early);
    std::int64_t wanted = 0;
    if (__builtin_add_overflow(static_cast<std::int64_t>(target_), delta, &wanted)) {
      return out_of_bounds(answer_from(where), options_,
                           text_of(target_) + " plus a delta of " + text_of(delta), delta);
    }
    return change_to(lock, where, wanted, how);
  }

  [[nodiscard]] resize_result resize_to(std::int64_t wanted, const resize_options& how) {
    const char* const where = "elastic_pool::resize_to";
    sync::unique_lock<sync::mutex> lock(mutex_);
    if (std::optional<resize_result> early = answer_early(where, how)) return *std::move(early);
    return change_to(lock, where, wanted, how);
  }

  [[nodiscard]] pool_stats stats() const {
    const sync::lock_guard<sync::mutex> lock(mutex_);
    return {.configured = target_,
            .running = running_,
            .busy = busy_,
            .blocked = blocked_,
            .starting = starting_,
            .retiring = retiring(),
            .queued = queue_.size(),
            .generation = generation_,
            .posted = posted_,
            .completed = completed_,
            .failed = sink_->reported(),
            .over_capacity = over_capacity_};
  }

  /// Result: whether nothing accepted was unfinished at some moment of the call.
  [[nodiscard]] bool drain(time_point deadline) {
    sync::unique_lock<sync::mutex> lock(mutex_);
    if (on_worker()) return queue_.empty() && busy_ == (this_worker().in_task ? 1U : 0U);
    ++drain_waiters_;
    // Woken by run_one(), after it wrote busy_.
    while (!drained()) {
      if (deadline == no_deadline) {
        drained_.wait(lock);
      } else if (drained_.wait_until(lock, deadline) == std::cv_status::timeout) {
        break;
      }
    }
    --drain_waiters_;
    return drained();
  }

  void stop() {
    sync::unique_lock<sync::mutex> lock(mutex_);
    close();
    if (on_worker()) return;
    ++settle_waiters_;
    // Woken by workers that register, leave or were joined, and by a resize that ends.
    while (running_ != 0 || starting_ != 0 || leaving_ != 0 || resizing_) {
      if (!join_one(lock, no_deadline)) changed_.wait(lock);
    }
    --settle_waiters_;
  }

  /// Whether the calling thread is a worker of this pool.
  [[nodiscard]] bool on_worker() const noexcept { return this_worker().pool == this; }

  void enter_blocking() noexcept {
    const sync::lock_guard<sync::mutex> lock(mutex_);
    ++blocked_;
  }
  void leave_blocking() noexcept {
    const sync::lock_guard<sync::mutex> lock(mutex_);
    --blocked_;
  }

  [[nodiscard]] std::size_t workers() const noexcept {
    const sync::lock_guard<sync::mutex> lock(mutex_);
    return running_;
  }

  [[nodiscard]] const std::shared_ptr<failure_sink>& sink() const noexcept { return sink_; }

 private:
  using pool_lock = sync::unique_lock<sync::mutex>;

  // --- the queue ---------------------------------------------------------------------------------

  post_result await_room(pool_lock& lock, when_full policy) {
    if (!closed_ && queue_.size() < options_.queue_capacity) return {};
    if (!closed_ && policy == when_full::refuses) {
      return {post_status::full, "the pool's queue holds queue_capacity tasks"};
    }
    if (!closed_ && on_worker()) {
      ++over_capacity_;  // a worker that waited for room might wait for itself
      return {};
    }
    ++room_waiters_;
    // Woken by run_one(), after it shortened the queue, and by close().
    while (!closed_ && queue_.size() >= options_.queue_capacity)
      room_.wait(lock);
    --room_waiters_;
    if (closed_) return {post_status::closed, "the pool was stopped"};
    return {};
  }

  static void notify(pool_worker* called) noexcept {
    if (called != nullptr) called->wake.notify_one();
  }

  /// Marks one idle worker as called, if work waits and nobody is on the way yet.
  /// @return the worker, to be notified; null: nobody
  [[nodiscard]] pool_worker* call_idle() noexcept {
    if (queue_.empty() || on_the_way_ != 0) return nullptr;
    return call_any();
  }

  [[nodiscard]] pool_worker* call_any() noexcept {
    pool_worker* const called = idle_;
    if (called == nullptr) return nullptr;
    idle_ = called->next_idle;
    called->called = true;
    ++on_the_way_;
    return called;
  }

  void call_all_idle() noexcept {
    while (pool_worker* const called = call_any())
      called->wake.notify_one();
  }

  void park(pool_lock& lock, pool_worker& self) noexcept {
    self.next_idle = idle_;
    idle_ = &self;
    while (!self.called)
      self.wake.wait(lock);  // woken by whoever wrote `called`: call_any()
    self.called = false;
    --on_the_way_;
  }

  void run_one(pool_lock& lock) noexcept {
    task work = queue_.pop_front();
    ++busy_;
    pool_worker* const called = call_idle();
    if (room_waiters_ != 0 && queue_.size() == room_again_) room_.notify_all();
    lock.unlock();
    notify(called);
    this_worker().in_task = true;
    VELTRIX_TRY {
      work();
    }
    VELTRIX_CATCH_ALL {
      sink_->report(std::current_exception());
    }
    work.reset();
    this_worker().in_task = false;
    lock.lock();
    --busy_;
    ++completed_;
    if (drain_waiters_ != 0 && drained()) drained_.notify_all();
  }

  [[nodiscard]] bool drained() const noexcept { return queue_.empty() && busy_ == 0; }

  // --- a worker's life ---------------------------------------------------------------------------

  void live(pool_worker& self) noexcept {
    self.number = sync::this_thread_number();
    if (!passes_gate(self)) return;  // its batch failed; grow() joins it
    this_worker().pool = this;
    call_hook(options_.on_start, self);
    {
      pool_lock lock(mutex_);
      const registration counted(*this);
      while (!has_to_leave()) {
        if (settle_waiters_ == 0 && join_one(lock, no_deadline)) continue;
        if (queue_.empty()) {
          park(lock, self);
        } else {
          run_one(lock);
        }
      }
    }
    call_hook(options_.on_stop, self);
    this_worker().pool = nullptr;
    lists_gone(self);
  }

  [[nodiscard]] bool passes_gate(pool_worker& self) noexcept {
    pool_lock lock(mutex_);
    while (self.passed == pool_worker::phase::gate)
      gate_.wait(lock);  // woken by grow(), after it wrote `passed`
    return self.passed == pool_worker::phase::admitted;
  }

  /// A worker counts as running exactly while it holds one; mutex_ is held at both ends.
  class registration {
   public:
    explicit registration(pool_core& core) noexcept : core_(core) {
      --core_.starting_;
      ++core_.running_;
      if (core_.settle_waiters_ != 0 && core_.starting_ == 0) core_.changed_.notify_all();
    }
    registration(const registration&) = delete;
    registration& operator=(const registration&) = delete;
    ~registration() {
      --core_.running_;
      ++core_.leaving_;
    }

   private:
    pool_core& core_;
  };

  /// The worker's own decision, between two tasks.
  [[nodiscard]] bool has_to_leave() const noexcept {
    return closed_ ? queue_.empty() : running_ > kept_;
  }

  /// After it the thread only returns; somebody else joins it.
  void lists_gone(pool_worker& self) noexcept {
    const sync::lock_guard<sync::mutex> lock(mutex_);
    slots_.list_gone(self);
    if (settle_waiters_ != 0) {
      changed_.notify_all();
    } else {
      notify(call_any());
    }
  }

  /// Joins one thread listed as gone, if there is one and it ends by the deadline.
  /// @return whether it did; the lock was released meanwhile
  bool join_one(pool_lock& lock, time_point deadline) noexcept {
    if (!slots_.any_gone()) return false;
    pool_worker& gone = slots_.take_gone();
    notify(call_idle());  // this worker may have been called for a task
    lock.unlock();
    const bool ended = join_by(gone, deadline);
    lock.lock();
    if (!ended) {
      slots_.list_gone(gone);
      return false;
    }
    --leaving_;
    slots_.give_back(gone);
    if (settle_waiters_ != 0) changed_.notify_all();
    return true;
  }

  void call_hook(unique_function<void(std::size_t)>& hook, const pool_worker& self) noexcept {
    if (!hook) return;
    VELTRIX_TRY {
      hook(self.index);
    }
    VELTRIX_CATCH_ALL {
      sink_->report(std::current_exception());
    }
  }

  // --- the size ----------------------------------------------------------------------------------

  [[nodiscard]] std::size_t retiring() const noexcept {
    return leaving_ + (running_ > target_ ? running_ - target_ : 0);
  }

  [[nodiscard]] bool settled() const noexcept {
    return running_ == target_ && starting_ == 0 && leaving_ == 0;
  }

  [[nodiscard]] answer_source answer_from(const char* where) const {
    answer_source from{{}, where};
    from.state.generation = generation_;
    from.state.target = target_;
    from.state.running = running_;
    from.state.starting = starting_;
    from.state.retiring = retiring();
    return from;
  }

  /// The answers that need no look at the size asked for; none: go on.
  [[nodiscard]] std::optional<resize_result> answer_early(const char* where,
                                                          const resize_options& how) const {
    if (closed_) return shut_down(answer_from(where));
    if (how.expect_generation && *how.expect_generation != generation_) {
      return generation_moved(answer_from(where), *how.expect_generation);
    }
    if (resizing_) return resize_in_flight(answer_from(where));
    if (starting_ != 0) return still_starting(answer_from(where));
    return std::nullopt;
  }

  /// Keeps other resizes out for as long as it lives; mutex_ is held when it begins and ends.
  class turn {
   public:
    explicit turn(pool_core& core) noexcept : core_(core) { core_.resizing_ = true; }
    turn(const turn&) = delete;
    turn& operator=(const turn&) = delete;
    ~turn() {
      core_.resizing_ = false;
      if (core_.settle_waiters_ != 0) {
        core_.changed_.notify_all();
      } else if (core_.slots_.any_gone()) {
        notify(core_.call_any());
      }
    }

   private:
    pool_core& core_;
  };

  resize_result change_to(pool_lock& lock, const char* where, std::int64_t asked,
                          const resize_options& how) {
    // A hook belongs to a worker that has not started or not left yet: it would wait for itself.
    const bool in_hook = on_worker() && !this_worker().in_task;
    const time_point deadline =
        in_hook ? steady_clock::now()
                : how.deadline.value_or(saturating_add(steady_clock::now(), default_resize_wait));
    if (asked < static_cast<std::int64_t>(options_.min_workers)) {
      return out_of_bounds(answer_from(where), options_, text_of(asked), -1);
    }
    if (asked > static_cast<std::int64_t>(options_.max_workers)) {
      return out_of_bounds(answer_from(where), options_, text_of(asked), 1);
    }
    const auto wanted = static_cast<std::size_t>(asked);
    const turn mine(*this);
    if (wanted > running_) {
      const start_failure failure = grow(lock, wanted);
      if (failure.error != 0) return no_thread(answer_from(where), wanted, failure);
    } else {
      take_target(wanted);
    }
    await_settled(lock, deadline);
    if (closed_) return shut_down(answer_from(where));
    return settled() ? answer_from(where).state : settling(answer_from(where));
  }

  /// Writes the accepted size; those too many find out by themselves.
  void take_target(std::size_t wanted) noexcept {
    if (wanted != target_) ++generation_;
    target_ = wanted;
    kept_ = wanted;
    if (running_ > kept_) call_all_idle();
  }

  /// Waits until what runs is what was asked, the deadline passes or the pool is closed.
  void await_settled(pool_lock& lock, time_point deadline) noexcept {
    ++settle_waiters_;
    // Woken by workers that register, leave or were joined, and by close().
    while (!settled() && !closed_) {
      if (join_one(lock, deadline)) continue;
      if (deadline == no_deadline) {
        changed_.wait(lock);
      } else if (changed_.wait_until(lock, deadline) == std::cv_status::timeout) {
        break;
      }
    }
    --settle_waiters_;
  }

  /// Starts as many threads as are missing, all or none. The lock is released meanwhile; resizing_
  /// keeps every other resize out, kept_ keeps workers from retiring under the count.
  start_failure grow(pool_lock& lock, std::size_t wanted) {
    const std::size_t missing = wanted - running_;
    const std::vector<pool_worker*> batch = slots_.take_free(missing, options_.thread_name);
    kept_ = std::max(wanted, kept_);
    starting_ = missing;
    lock.unlock();
    start_failure failure;  // nothing throws until the batch is admitted or dismissed
    while (failure.started < missing && failure.error == 0) {
      failure.error = start_thread(*batch[failure.started], failure.started);
      failure.started += failure.error == 0 ? 1 : 0;
    }
    if (failure.error != 0) failure.limit = likely_cause(options_.stack_bytes);
    lock.lock();
    failure.reached = running_ + failure.started;
    const bool admits = failure.error == 0 && !closed_;
    for (pool_worker* const each : batch)
      each->passed = admits ? pool_worker::phase::admitted : pool_worker::phase::dismissed;
    gate_.notify_all();
    if (admits) {
      take_target(wanted);
    } else {
      dismiss(lock, batch, failure.started);
    }
    return failure;
  }

  [[nodiscard]] int start_thread(pool_worker& worker, std::size_t nth) noexcept {
    const int pretended = options_.start_fault ? options_.start_fault(nth) : 0;
    if (pretended != 0) return pretended;
    return worker.thread.start({.name = worker.name, .stack_bytes = options_.stack_bytes},
                               [this, &worker]() noexcept { live(worker); });
  }

  /// Joins the threads of a batch that was not admitted; they never ran a task or a hook.
  void dismiss(pool_lock& lock, const std::vector<pool_worker*>& batch, std::size_t started) {
    lock.unlock();
    for (std::size_t i = 0; i < started; ++i)
      join_by(*batch[i], no_deadline);
    lock.lock();
    starting_ = 0;
    for (pool_worker* const each : batch)
      slots_.give_back(*each);
    kept_ = target_;
    if (running_ > kept_) call_all_idle();
  }

  void close() noexcept {
    if (closed_) return;
    closed_ = true;
    if (target_ != 0) ++generation_;
    target_ = 0;
    call_all_idle();
    room_.notify_all();
    changed_.notify_all();
  }

  elastic_pool_options options_;              // constant after construction; hooks are shared
  const std::shared_ptr<failure_sink> sink_;  // thread-safe by itself
  const std::size_t room_again_;              // queue length at which waiting posters are woken

  mutable sync::mutex mutex_;         // guards everything below
  sync::condition_variable gate_;     // `passed` of new workers was written
  sync::condition_variable room_;     // the queue became shorter, or closed_
  sync::condition_variable changed_;  // workers came or went, a resize ended, or closed_
  sync::condition_variable drained_;  // the queue is empty and nobody is busy

  task_ring queue_;                  // guarded by mutex_
  pool_worker* idle_ = nullptr;      // guarded by mutex_; the last to park is the first called
  std::size_t on_the_way_ = 0;       // guarded by mutex_; called and not awake yet
  std::size_t busy_ = 0;             // guarded by mutex_
  std::size_t blocked_ = 0;          // guarded by mutex_
  std::size_t target_ = 0;           // guarded by mutex_
  std::size_t kept_ = 0;             // guarded by mutex_; workers above it retire
  std::size_t running_ = 0;          // guarded by mutex_
  std::size_t starting_ = 0;         // guarded by mutex_
  std::size_t leaving_ = 0;          // guarded by mutex_
  std::uint64_t generation_ = 0;     // guarded by mutex_
  std::uint64_t posted_ = 0;         // guarded by mutex_
  std::uint64_t completed_ = 0;      // guarded by mutex_
  std::uint64_t over_capacity_ = 0;  // guarded by mutex_
  std::size_t room_waiters_ = 0;     // guarded by mutex_
  std::size_t drain_waiters_ = 0;    // guarded by mutex_
  std::size_t settle_waiters_ = 0;   // guarded by mutex_; they join who is gone
  bool resizing_ = false;            // guarded by mutex_; a resize has not answered
  bool closed_ = false;              // guarded by mutex_
  worker_slots slots_;               // guarded by mutex_
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
