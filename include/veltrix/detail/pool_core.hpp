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
#include "pool_size.hpp"
#include "pool_workers.hpp"
#include "settle_watch.hpp"
#include "start_gate.hpp"
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
/// A worker's life: started -> comes to the gate -> admitted with its whole batch -> on_start ->
/// registers -> tasks -> deregisters -> on_stop -> listed as gone -> joined by a resize, by another
/// worker or by stop(). The last of a batch to come admits it. A batch that cannot be started whole
/// is dismissed at the gate.
///
/// I1: orders_ says what the state under mutex_ says: whoever changes that calls tell_orders(),
///     and then calls as many seated workers as the change concerns. Nobody sits while there are
///     orders for it.
/// I2: who leaves has no task: it hands them over. While a pool is not closed, min_workers stay.
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
    const start_failure failure = grow(lock, workers, no_deadline);
    if (failure.error != 0) {
      raise(std::system_error(
          failure.error, std::generic_category(),
          start_text("elastic_pool::elastic_pool", workers, failure, "no worker is left running")));
    }
    await_settled(lock, no_deadline);
  }

  /// Takes `work` when it is accepted, and only then. See work_supply::push() for `where`.
  post_result push(task& work, when_full policy, node_place* where = nullptr) {
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
    if (std::optional<resize_result> early = size_.answer_early(where, how))
      return *std::move(early);
    std::int64_t wanted = 0;
    if (__builtin_add_overflow(static_cast<std::int64_t>(size_.target), delta, &wanted)) {
      return out_of_bounds(size_.answer_from(where), options_,
                           text_of(size_.target) + " plus a delta of " + text_of(delta), delta);
    }
    return change_to(lock, where, wanted, how);
  }

  [[nodiscard]] resize_result resize_to(std::int64_t wanted, const resize_options& how) {
    const char* const where = "elastic_pool::resize_to";
    sync::unique_lock<sync::mutex> lock(mutex_);
    if (std::optional<resize_result> early = size_.answer_early(where, how))
      return *std::move(early);
    return change_to(lock, where, wanted, how);
  }

  [[nodiscard]] pool_stats stats() const {
    const sync::lock_guard<sync::mutex> lock(mutex_);
    const work_supply::counts work = supply_.count();
    return {.configured = size_.target,
            .running = size_.running,
            .busy = work.inside,
            .blocked = blocked_,
            .starting = size_.starting,
            .retiring = size_.retiring(),
            .queued = work.posted - work.ended - work.inside,
            .generation = size_.generation,
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
    while (size_.running != 0 || size_.starting != 0 || size_.leaving != 0 || size_.changes) {
      if (!join_one(lock, no_deadline)) static_cast<void>(settled_.wait(lock, no_deadline));
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
    return size_.running;
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
  void work(pool_worker& self, worker_identity& me) noexcept {
    worker_share& mine = *me.share;
    for (;;) {
      // relaxed: who sits down looks again under I1's lock and fence; else it may be late
      if (const unsigned orders = orders_.load(sync::relaxed); orders != 0) [[unlikely]] {
        if ((orders & newcomers) != 0 && !mine.searching && !sync::repeatable) sync::yield();
        if ((orders & (too_many | threads_gone)) != 0 && !obey(self)) return;
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
      } else if (!(mine.searching && take_branch(me)) && !rest(self)) {
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
  bool rest(pool_worker& self) noexcept {
    worker_share& mine = *self.share;
    if (!mine.searching) {
      mine.searching = true;
      mine.looks_on.renew(idle_.begin_search());
      supply_.unmark(mine);
      sync::full_fence();  // with the one in drain_watch::wait()
      drained_.look();
      return true;
    }
    // relaxed: as in work()
    if ((orders_.load(sync::relaxed) & shut) != 0 && leave_closed(self)) return false;
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
    const unsigned orders = orders_.load(sync::relaxed);  // relaxed: see I1
    if ((orders & (too_many | threads_gone)) != 0 || supply_.ready()) return true;
    return (orders & shut) != 0 && !supply_.holds_shared();
  }

  /// @return false: the worker has deregistered and leaves
  [[gnu::noinline]] bool obey(pool_worker& self) noexcept {
    worker_share& mine = *self.share;
    stop_searching(mine);  // whatever follows may last
    pool_lock lock(mutex_);
    if (!settled_.any() && join_one(lock, no_deadline)) return true;
    if (size_.closed || size_.too_many() == 0) return true;
    const bool any = supply_.hand_over(mine);
    deregister(self);
    tell_settlers(lock);
    sync::full_fence();  // with those of who sits down, stops searching, or waits for the drain
    if (any) idle_.call_if_quiet();
    drained_.look();
    return false;
  }

  /// A task posted before the close may be waited for by its poster, so none is left, wherever it
  /// is. What is on its way into the ring wakes somebody then.
  [[nodiscard]] bool leave_closed(pool_worker& self) noexcept {
    pool_lock lock(mutex_);
    if (supply_.holds_any()) return false;
    deregister(self);
    tell_settlers(lock);
    self.share->searching = false;
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
    if (options_.on_start) {
      sink_->contain([&] { options_.on_start(self.index); });
      register_late();
    }
    work(self, me);
    if (options_.on_stop) {
      sink_->contain([&] { options_.on_stop(self.index); });
      pool_lock lock(mutex_);
      --size_.hooked;
      list_gone(self);
      tell_settlers(lock);
    }
    me = {};
  }

  [[nodiscard]] bool passes_gate(pool_worker& self) noexcept {
    const start_gate::turn came = gate_.arrive();
    if (came == start_gate::turn::late) {
      if (!options_.on_start) register_late();
      return true;
    }
    if (came == start_gate::turn::last) let_in(self.batch);
    return gate_.wait(self.batch);
  }

  /// All threads of a growth have come: it takes place, unless it was given up meanwhile.
  void let_in(std::uint64_t batch) noexcept {
    pool_lock lock(mutex_);
    if (!size_.grows || size_.closed) return;
    admit();
    lock.unlock();
    settled_.tell();
    gate_.open(batch);
  }

  /// After the hook, or when the growth has answered already.
  void register_late() noexcept {
    pool_lock lock(mutex_);
    size_.count_in(1);
    tell_orders();
    tell_settlers(lock);
  }

  /// mutex_ is held. With no hook to come, the thread is as good as gone.
  void deregister(pool_worker& self) noexcept {
    size_.count_out();
    if (options_.on_stop) {
      ++size_.hooked;
      tell_orders();
    } else {
      list_gone(self);
    }
  }

  /// mutex_ is held. Somebody joins the thread: it must run nothing of the user's any more.
  void list_gone(pool_worker& self) noexcept {
    VELTRIX_ASSERT(self.share->own.empty() && self.share->branches.empty(),
                   "a worker has left with work in its deques");
    slots_.list_gone(self);
    tell_orders();
    if (!settled_.any()) idle_.call(1);
  }

  /// For a worker that has come or gone: whoever waits for the size is told by the last one. Gives
  /// the lock away.
  void tell_settlers(pool_lock& lock) noexcept {
    const bool tell = settled_.any() && size_.at_rest();
    lock.unlock();
    if (tell) settled_.tell();
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
    --size_.leaving;
    slots_.give_back(gone);
    if (settled_.any()) settled_.tell();
    return true;
  }

  // --- the size ----------------------------------------------------------------------------------

  /// Keeps other resizes out for as long as it lives; mutex_ is held when it begins and ends.
  class turn {
   public:
    explicit turn(pool_core& core) noexcept : core_(core) { core_.size_.changes = true; }
    turn(const turn&) = delete;
    turn& operator=(const turn&) = delete;
    ~turn() {
      core_.size_.changes = false;
      if (core_.settled_.any()) {
        core_.settled_.tell();
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
      return out_of_bounds(size_.answer_from(where), options_, text_of(asked), -1);
    }
    if (asked > static_cast<std::int64_t>(options_.max_workers)) {
      return out_of_bounds(size_.answer_from(where), options_, text_of(asked), 1);
    }
    const auto wanted = static_cast<std::size_t>(asked);
    const turn mine(*this);
    if (wanted > size_.running) {
      const start_failure failure = grow(lock, wanted, deadline);
      if (failure.error != 0) return no_thread(size_.answer_from(where), wanted, failure);
    } else {
      size_.take(wanted);
      tell_orders();
    }
    await_settled(lock, deadline);
    if (size_.settled() && !size_.closed) return size_.answer_from(where).state;
    return unfinished(size_.answer_from(where), size_.closed);
  }

  /// Waits until what runs is what was asked, the deadline passes or the pool is closed.
  void await_settled(pool_lock& lock, time_point deadline) noexcept {
    begin_settling();
    if (const std::size_t many = size_.too_many(); many != 0) {
      settled_.begin_look_out(!size_.at_rest());
      lock.unlock();  // each of them needs it
      idle_.call(many);
      settled_.look_out(deadline);
      lock.lock();
    }
    while (!size_.settled() && !size_.closed) {
      if (size_.at_rest() && join_one(lock, deadline)) continue;
      if (!settled_.wait(lock, deadline)) break;  // woken by settled_.tell(), after size_ moved
    }
    while (!size_.closed && join_one(lock, deadline)) {}  // who has ended, though others have not
    end_settling();
  }

  /// While somebody waits for the pool to settle, it joins who is gone, and no worker does.
  void begin_settling() noexcept {
    settled_.begin();
    tell_orders();
  }
  void end_settling() noexcept {
    settled_.end();
    tell_orders();
  }

  /// Starts as many threads as are missing, all or none. They are let in when all have come, or all
  /// exist and the deadline has passed. The lock is released meanwhile; pool_size::changes keeps
  /// every other resize out, pool_size::kept keeps workers from retiring under the count.
  start_failure grow(pool_lock& lock, std::size_t wanted, time_point deadline) {
    const std::size_t missing = wanted - size_.running;
    const std::uint64_t number = gate_.expect(missing);
    const std::vector<pool_worker*> batch =
        slots_.take_free(missing, options_.thread_name, supply_, number);
    size_.grows = true;
    size_.kept = wanted;
    tell_orders();
    size_.starting = missing;
    begin_settling();
    lock.unlock();
    start_failure failure =  // nothing throws until the batch is admitted or dismissed
        start_batch(batch, options_, [this](pool_worker& self) noexcept { live(self); });
    bool whole = false;
    if (failure.error != 0) {
      failure.limit = likely_cause(options_.stack_bytes);
    } else {
      whole = gate_.arrive() == start_gate::turn::last;
      // Beside tasks the processors are not to be given away.
      if (!whole && supply_.count().inside == 0) gate_.look_out(deadline);
    }
    lock.lock();
    while (failure.error == 0 && !whole && size_.grows && !size_.closed) {
      if (!settled_.wait(lock, deadline)) break;  // woken by let_in() and close()
    }
    end_settling();
    failure.reached = size_.running + failure.started;
    if (!size_.grows) return failure;
    if (failure.error == 0 && !size_.closed) {
      admit();
      lock.unlock();
      gate_.open(number);
      lock.lock();
    } else {
      dismiss(lock, batch, failure.started);
    }
    return failure;
  }

  /// All threads of the growth exist: it takes place, at once. mutex_ is held.
  void admit() noexcept {
    size_.grows = false;
    size_.take(size_.kept);
    const std::size_t late = gate_.let_in();
    if (!options_.on_start) size_.count_in(size_.starting - late);
    tell_orders();
  }

  /// Joins the threads of a batch that was not admitted; they never ran a task or a hook.
  void dismiss(pool_lock& lock, const std::vector<pool_worker*>& batch, std::size_t started) {
    size_.grows = false;
    lock.unlock();
    gate_.dismiss(batch.front()->batch);
    for (std::size_t i = 0; i < started; ++i)
      join_by(*batch[i], no_deadline);
    lock.lock();
    size_.starting = 0;
    for (pool_worker* const each : batch)
      slots_.give_back_bare(*each);
    size_.kept = size_.target;
    tell_orders();
    idle_.call(size_.too_many());
  }

  void close() noexcept {
    if (size_.closed) return;
    size_.closed = true;
    intake_.close();
    if (size_.target != 0) ++size_.generation;
    size_.target = 0;
    tell_orders();
    idle_.call(options_.max_workers);
    settled_.tell();
  }

  // What workers are told between tasks.
  static constexpr unsigned too_many = 1;      // more run than are kept
  static constexpr unsigned threads_gone = 2;  // one is to be joined, and nobody waits to do it
  static constexpr unsigned shut = 4;          // closed: leave when nothing is left
  static constexpr unsigned newcomers = 8;     // let them have the processor: they have had none

  /// mutex_ is held. See I1.
  void tell_orders() noexcept {
    const unsigned now = (!size_.closed && size_.too_many() != 0 ? too_many : 0U) |
                         (slots_.any_gone() && !settled_.any() ? threads_gone : 0U) |
                         (size_.closed ? shut : 0U) | (size_.grows ? newcomers : 0U);
    // relaxed: as it is written under mutex_
    if (orders_.load(sync::relaxed) != now) orders_.store(now, sync::relaxed);
  }

  elastic_pool_options options_;              // constant after construction; hooks are shared
  const std::shared_ptr<failure_sink> sink_;  // thread-safe by itself

  work_supply supply_;   // thread-safe, shares are their workers'
  idle_workers idle_;    // thread-safe by itself
  task_intake intake_;   // thread-safe by itself
  drain_watch drained_;  // thread-safe by itself
  // relaxed: see I1; written under mutex_
  alignas(cache_line) sync::atomic<unsigned> orders_{0};

  alignas(cache_line) mutable sync::mutex mutex_;  // guards everything below
  std::size_t blocked_ = 0;                        // guarded by mutex_
  pool_size size_;                                 // guarded by mutex_
  worker_slots slots_;                             // guarded by mutex_
  settle_watch settled_;                           // guarded by mutex_, but as it says
  start_gate gate_;                                // thread-safe by itself, as it says
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
