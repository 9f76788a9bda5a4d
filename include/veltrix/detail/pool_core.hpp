// The inside of elastic_pool: its size under one lock, and workers that register themselves.
// Use for: elastic_pool. Internal.
// Not for: users.
// Threads: all members may be called from any thread.
// Progress: a task takes no lock; the size has short critical sections; waits say who ends them.
// Callbacks: tasks, hooks and the handler run with no lock held.
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
#include "drain_watch.hpp"
#include "failure_sink.hpp"
#include "idle_workers.hpp"
#include "pool_answers.hpp"
#include "pool_options.hpp"
#include "pool_workers.hpp"
#include "sync.hpp"
#include "task_handle.hpp"
#include "task_intake.hpp"
#include "work_supply.hpp"
#include "worker_identity.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// Work and size are apart. Work is in work_supply, idle_workers says who sleeps, and a task costs
/// no lock. Size is under mutex_: who is wanted, who runs, who leaves. Between two tasks a worker
/// looks at orders_, which says that its size or its end has something to do with this worker.
///
/// A worker's life: started -> waits at the gate -> admitted with its whole batch -> on_start ->
/// registers -> tasks -> deregisters -> on_stop -> listed as gone -> joined by a resize, by another
/// worker or by stop(). A batch that cannot be started whole is dismissed at the gate.
///
/// I1: running_ counts registrations; each worker makes and ends its own.
/// I2: starting_ > 0 only from a growth until its last worker has registered; no other change is
///     accepted meanwhile, so a worker that starts is always wanted.
/// I3: leaving_ counts workers from their deregistration until they were joined.
/// I4: orders_ says what the state under mutex_ says: whoever changes that calls tell_orders(),
///     and then calls as many seated workers as the change concerns. Nobody sits while there are
///     orders for it.
/// I5: who leaves has no task: it hands them over. While a pool is not closed, min_workers stay.
class pool_core {
 public:
  explicit pool_core(elastic_pool_options options)
      : options_(std::move(options)),
        sink_(std::make_shared<failure_sink>(std::move(options_.on_exception))),
        supply_(options_.queue_capacity),
        idle_(sync::asymmetric_fence_mode()),
        intake_(options_.queue_capacity, supply_, idle_),
        drained_(supply_) {}
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

  /// Takes `work` when it is accepted, and only then. See work_supply::push() for `where`.
  post_result push(task& work, when_full policy, node_place* where = nullptr) {
    VELTRIX_ASSERT(static_cast<bool>(work), "an empty task was posted");
    return intake_.push(own_share(), work, policy, where);
  }

  /// Takes back what push() put there, if it is the newest in the calling worker's deque.
  bool withdraw(const task_node* where) noexcept { return intake_.withdraw(own_share(), where); }

  /// Takes tasks from the front of the array as long as there is room; waits for the room if told.
  /// @return how many were taken, and why it stopped there if not all were
  std::pair<std::size_t, post_result> push_all(task* works, std::size_t count, when_full policy) {
    return intake_.push_all(own_share(), works, count, policy);
  }

  /// Who the calling thread is.
  [[nodiscard]] poster own_share() const noexcept {
    const worker_identity& me = this_worker();
    if (me.pool != this) return {};
    return {.worker = true, .share = me.in_task ? me.share : nullptr};
  }

  /// Lets other workers have a branch of what the calling worker runs; it joins it by its share.
  /// @return as open_branches::fork()
  [[nodiscard]] bool fork(worker_share& mine, branch& added) noexcept {
    if (!supply_.fork(mine, added)) return false;
    idle_.call_after_push();
    mine.branches.tell_watcher();  // after the light fence of the call
    return true;
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
    const work_supply::counts work = supply_.count();
    return {.configured = target_,
            .running = running_,
            .busy = work.inside,
            .blocked = blocked_,
            .starting = starting_,
            .retiring = retiring(),
            .queued = work.posted - work.ended - work.inside,
            .generation = generation_,
            .posted = work.posted,
            .completed = work.ended,
            .failed = sink_->reported(),
            .over_capacity = work.over_capacity};
  }

  /// Result: whether nothing accepted was unfinished at some moment of the call.
  [[nodiscard]] bool drain(time_point deadline) {
    if (on_worker()) return drained_.now(this_worker().in_task ? 1 : 0);
    return drained_.wait(deadline);
  }

  void stop() {
    sync::unique_lock<sync::mutex> lock(mutex_);
    close();
    if (on_worker()) return;
    begin_settling();
    // Woken by workers that register, leave or were joined, and by a resize that ends.
    while (running_ != 0 || starting_ != 0 || leaving_ != 0 || resizing_) {
      if (!join_one(lock, no_deadline)) changed_.wait(lock);
    }
    end_settling();
  }

  /// Whether the calling thread is a worker of this pool.
  [[nodiscard]] bool on_worker() const noexcept { return this_worker().pool == this; }

  void count_blocked(int more) noexcept {
    const sync::lock_guard<sync::mutex> lock(mutex_);
    blocked_ += static_cast<std::size_t>(more);
  }

  [[nodiscard]] std::size_t workers() const noexcept {
    const sync::lock_guard<sync::mutex> lock(mutex_);
    return running_;
  }

  [[nodiscard]] const std::shared_ptr<failure_sink>& sink() const noexcept { return sink_; }

 private:
  using pool_lock = sync::unique_lock<sync::mutex>;

  // --- between tasks -----------------------------------------------------------------------------

  void run(worker_identity& me, task& work) noexcept {
    work_supply::step(*me.share);
    me.in_task = true;
    sink_->contain(work);
    work.reset();
    me.in_task = false;
    work_supply::step(*me.share);
  }

  /// Runs tasks until the worker has to leave, and has deregistered.
  void work(worker_identity& me) noexcept {
    worker_share& mine = *me.share;
    for (;;) {
      // relaxed: who sits down looks again under I4's lock and fence; else it may be late
      if ((orders_.load(sync::relaxed) & (too_many | threads_gone)) != 0) [[unlikely]] {
        if (!obey(mine)) return;
      }
      task injected;
      if (task_node* const node = supply_.take(mine, injected)) {
        stop_searching(mine);
        run(me, node->work());
        supply_.give_back(mine, *node);
      } else if (injected) {
        stop_searching(mine);
        intake_.tell_room();
        run(me, injected);
      } else if (!(mine.searching && take_branch(me)) && !rest(mine)) {
        return;
      }
    }
  }

  /// Runs a branch of what another worker runs, if there is one. It is no task of its own.
  [[nodiscard]] bool take_branch(worker_identity& me) noexcept {
    const auto [stolen, forker] = supply_.steal_branch(*me.share);
    if (stolen == nullptr) return false;
    stop_searching(*me.share);
    me.in_task = true;
    me.share->branches.run_stolen(*stolen, *forker);
    me.in_task = false;
    return true;
  }

  /// Before a worker that has searched does something else.
  void stop_searching(worker_share& mine) noexcept {
    if (!mine.searching) return;
    mine.searching = false;
    if (idle_.end_search() && supply_.holds_any()) idle_.call_if_quiet();
  }

  /// The worker has found nothing: it searches, then looks on for a while, then sleeps.
  /// @return false: the pool is closed and the worker has left
  bool rest(worker_share& mine) noexcept {
    if (!mine.searching) {
      mine.searching = true;
      mine.looks_on.renew(idle_.begin_search());
      supply_.unmark(mine);
      sync::full_fence();  // with the one in drain_watch::wait()
      drained_.look();
      return true;
    }
    // relaxed: as in work()
    if ((orders_.load(sync::relaxed) & shut) != 0 && leave_closed(mine)) return false;
    if (mine.looks_on.turn()) return true;
    if (has_reason_to_stay_up()) return true;
    idle_.sit(mine.seat);
    if (has_reason_to_stay_up() && idle_.rise(mine.seat)) return true;
    idle_.wait(mine.seat);
    mine.looks_on.renew(idle_.searching());
    return true;
  }

  /// After sit(), what changed before it is seen here, and who changes it later sees the seat.
  [[nodiscard]] bool has_reason_to_stay_up() const noexcept {
    const unsigned orders = orders_.load(sync::relaxed);  // relaxed: see I4
    if ((orders & (too_many | threads_gone)) != 0 || supply_.ready()) return true;
    return (orders & shut) != 0 && !supply_.holds_shared();
  }

  /// @return false: the worker has deregistered and leaves
  [[gnu::noinline]] bool obey(worker_share& mine) noexcept {
    stop_searching(mine);  // whatever follows may last
    pool_lock lock(mutex_);
    if (settle_waiters_ == 0 && join_one(lock, no_deadline)) return true;
    if (closed_ || running_ <= kept_) return true;
    deregister();
    const bool any = supply_.hand_over(mine);
    lock.unlock();
    sync::full_fence();  // with those of who sits down, stops searching, or waits for the drain
    if (any) idle_.call_if_quiet();
    drained_.look();
    return false;
  }

  /// Others run what is in their deques. What is on its way into the ring wakes somebody then.
  [[nodiscard]] bool leave_closed(worker_share& mine) noexcept {
    const sync::lock_guard<sync::mutex> lock(mutex_);
    if (supply_.holds_shared()) return false;
    deregister();
    mine.searching = false;
    static_cast<void>(idle_.end_search());
    sync::full_fence();  // as in rest()
    drained_.look();
    idle_.call(options_.max_workers);  // they waited for the last task to come
    return true;
  }

  // --- a worker's life ---------------------------------------------------------------------------

  void live(pool_worker& self) noexcept {
    self.number = sync::this_thread_number();
    if (!passes_gate(self)) return;  // its batch failed; grow() joins it
    worker_identity& me = this_worker();
    me = {.pool = this, .share = self.share};
    if (options_.on_start) sink_->contain([&] { options_.on_start(self.index); });
    enlist();
    work(me);
    if (options_.on_stop) sink_->contain([&] { options_.on_stop(self.index); });
    me = {};
    lists_gone(self);
  }

  [[nodiscard]] bool passes_gate(pool_worker& self) noexcept {
    pool_lock lock(mutex_);
    while (self.passed == pool_worker::phase::gate)
      gate_.wait(lock);  // woken by grow(), after it wrote `passed`
    return self.passed == pool_worker::phase::admitted;
  }

  /// A worker counts as running from here to its deregister().
  void enlist() noexcept {
    const sync::lock_guard<sync::mutex> lock(mutex_);
    --starting_;
    ++running_;
    tell_orders();
    if (settle_waiters_ != 0 && starting_ == 0) changed_.notify_all();
  }

  /// mutex_ is held.
  void deregister() noexcept {
    --running_;
    ++leaving_;
    tell_orders();
  }

  /// After it the thread only returns; somebody else joins it.
  void lists_gone(pool_worker& self) noexcept {
    VELTRIX_ASSERT(self.share->own.empty() && self.share->branches.empty(),
                   "a worker has left with work in its deques");
    const sync::lock_guard<sync::mutex> lock(mutex_);
    slots_.list_gone(self);
    tell_orders();
    if (settle_waiters_ != 0) {
      changed_.notify_all();
    } else {
      idle_.call(1);
    }
  }

  /// Joins one thread listed as gone, if there is one and it ends by the deadline.
  /// @return whether it did; the lock was released meanwhile
  bool join_one(pool_lock& lock, time_point deadline) noexcept {
    if (!slots_.any_gone()) return false;
    pool_worker& gone = slots_.take_gone();
    tell_orders();
    lock.unlock();
    const bool ended = join_by(gone, deadline);
    lock.lock();
    if (!ended) {
      slots_.list_gone(gone);
      tell_orders();
      return false;
    }
    --leaving_;
    slots_.give_back(gone);
    if (settle_waiters_ != 0) changed_.notify_all();
    return true;
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
        core_.idle_.call(1);
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
    keep(wanted);
  }

  /// Lets as many workers leave as are above `count`.
  void keep(std::size_t count) noexcept {
    kept_ = count;
    tell_orders();
    if (running_ > kept_) idle_.call(running_ - kept_);
  }

  /// Waits until what runs is what was asked, the deadline passes or the pool is closed.
  void await_settled(pool_lock& lock, time_point deadline) noexcept {
    begin_settling();
    // Woken by workers that register, leave or were joined, and by close().
    while (!settled() && !closed_) {
      if (join_one(lock, deadline)) continue;
      if (deadline == no_deadline) {
        changed_.wait(lock);
      } else if (changed_.wait_until(lock, deadline) == std::cv_status::timeout) {
        break;
      }
    }
    end_settling();
  }

  /// While somebody waits for the pool to settle, it joins who is gone.
  void begin_settling() noexcept {
    ++settle_waiters_;
    tell_orders();
  }
  void end_settling() noexcept {
    --settle_waiters_;
    tell_orders();
  }

  /// Starts as many threads as are missing, all or none. The lock is released meanwhile; resizing_
  /// keeps every other resize out, kept_ keeps workers from retiring under the count.
  start_failure grow(pool_lock& lock, std::size_t wanted) {
    const std::size_t missing = wanted - running_;
    const std::vector<pool_worker*> batch =
        slots_.take_free(missing, options_.thread_name, supply_);
    kept_ = std::max(wanted, kept_);
    tell_orders();
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
    keep(target_);
  }

  void close() noexcept {
    if (closed_) return;
    closed_ = true;
    intake_.close();
    if (target_ != 0) ++generation_;
    target_ = 0;
    tell_orders();
    idle_.call(options_.max_workers);
    changed_.notify_all();
  }

  // What workers are told between tasks.
  static constexpr unsigned too_many = 1;      // more run than are kept
  static constexpr unsigned threads_gone = 2;  // one is to be joined, and nobody waits to do it
  static constexpr unsigned shut = 4;          // closed: leave when nothing is left

  /// mutex_ is held. See I4.
  void tell_orders() noexcept {
    const unsigned now = (!closed_ && running_ > kept_ ? too_many : 0U) |
                         (slots_.any_gone() && settle_waiters_ == 0 ? threads_gone : 0U) |
                         (closed_ ? shut : 0U);
    // relaxed: as it is written under mutex_
    if (orders_.load(sync::relaxed) != now) orders_.store(now, sync::relaxed);
  }

  elastic_pool_options options_;              // constant after construction; hooks are shared
  const std::shared_ptr<failure_sink> sink_;  // thread-safe by itself

  work_supply supply_;   // thread-safe, shares are their workers'
  idle_workers idle_;    // thread-safe by itself
  task_intake intake_;   // thread-safe by itself
  drain_watch drained_;  // thread-safe by itself
  // relaxed: see I4; written under mutex_
  alignas(cache_line) sync::atomic<unsigned> orders_{0};

  alignas(cache_line) mutable sync::mutex mutex_;  // guards everything below
  sync::condition_variable gate_;                  // `passed` of new workers was written
  sync::condition_variable changed_;  // workers came or went, a resize ended, or closed_

  std::size_t blocked_ = 0;         // guarded by mutex_
  std::size_t target_ = 0;          // guarded by mutex_
  std::size_t kept_ = 0;            // guarded by mutex_; workers above it retire
  std::size_t running_ = 0;         // guarded by mutex_
  std::size_t starting_ = 0;        // guarded by mutex_
  std::size_t leaving_ = 0;         // guarded by mutex_
  std::uint64_t generation_ = 0;    // guarded by mutex_
  std::size_t settle_waiters_ = 0;  // guarded by mutex_; they join who is gone
  bool resizing_ = false;           // guarded by mutex_; a resize has not answered
  bool closed_ = false;             // guarded by mutex_
  worker_slots slots_;              // guarded by mutex_
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
