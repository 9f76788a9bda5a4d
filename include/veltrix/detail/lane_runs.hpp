// The runs that drain the ready lanes of a keyed_executor, on whatever executor it has.
// Use for: keyed_core. Internal.
// Not for: anything else.
// Threads: every function says what it holds; the data is guarded by mutex_.
// Progress: blocking in short locks.
// Callbacks: handler and failure handler, no lock held; Item's move, the lane held or no lock.
// Exceptions: the constructor's std::bad_alloc.
// Lifetime: at_rest() before the end.
// Guide: docs/keyed_executor.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <span>
#include <utility>

#include "../clock.hpp"
#include "../executor.hpp"
#include "hash.hpp"
#include "keyed_run.hpp"
#include "keyed_types.hpp"
#include "lane_store.hpp"
#include "load_bound.hpp"
#include "sync.hpp"
#include "task.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// What a submitter offers in one round.
struct keyed_offer {
  std::span<const std::size_t> weights;  // of the round's items
  std::size_t bytes = 0;                 // their sum, held at the largest number
  std::size_t nodes = 0;                 // that placing them may need
  std::size_t remaining = 0;             // items of the block not taken so far

  [[nodiscard]] load first() const noexcept { return {1, weights.front()}; }
  [[nodiscard]] load whole() const noexcept { return {weights.size(), bytes}; }
};

/// Lanes keep the order; the executor brings the threads.
///
/// A key's hash picks its lane for ever. A lane that becomes ready enters the ready list once. A
/// *run* is a task on the executor that takes ready lanes one after another, handles at most
/// batch_max items of each, and puts a lane that has more at the list's end.
///   I1 A lane is in the ready list, on its way there, or visited by one run exactly while its
///      `scheduled` is true. So its handler never runs twice at once, and `current` has one owner.
///   I2 At most one run is being posted, or posted and not begun (pending_), and none is posted
///      while one looks for lanes (searching_). A run that takes a lane and leaves others ready
///      posts the next: wakes chain, and never outrun the threads.
///   I3 While a lane is ready, a run is at work or pending, or the thread that learns of the
///      executor's refusal serves in its place before it returns. One exception: an executor that
///      destroys an accepted run; the next submit, drain or destructor serves then (orphaned()).
///   I4 bound_.used is what was admitted and has not ended. Nothing is admitted above the limit.
/// Lock order: mutex_ and a lane's mutex are never held together.
template <class Item>
class lane_runs {
 public:
  using handler_type = unique_function<void(std::size_t lane, std::span<Item> batch)>;
  using failure_type =
      unique_function<void(std::size_t lane, std::span<Item> batch, std::exception_ptr)>;

  lane_runs(const lane_runs&) = delete;
  lane_runs& operator=(const lane_runs&) = delete;

  [[nodiscard]] std::size_t lane_of(std::uint64_t key_hash) const noexcept {
    return static_cast<std::size_t>(mix(key_hash, seed_) >> lane_shift_);
  }
  [[nodiscard]] std::size_t lane_count() const noexcept { return lane_count_; }
  [[nodiscard]] bool inside_handler() const noexcept {
    return keyed_frame::find(this, keyed_frame::role::serving) != nullptr;
  }

 protected:
  using lane_type = lane<Item>;
  using room_type = batch_room<Item>;
  using unique_lock = sync::unique_lock<sync::mutex>;
  using lock_guard = sync::lock_guard<sync::mutex>;

  /// Ready lanes, oldest first; guarded by mutex_, or a submitter's own.
  struct ready_list {
    lane_type* first = nullptr;
    lane_type* last = nullptr;
    std::size_t count = 0;

    void push(lane_type& ready) noexcept {
      ready.next_ready = nullptr;
      append({&ready, &ready, 1});
    }
    void append(const ready_list& more) noexcept {
      if (more.count == 0) return;
      (first == nullptr ? first : last->next_ready) = more.first;
      last = more.last;
      count += more.count;
    }
    [[nodiscard]] lane_type* pop() noexcept {
      lane_type* const popped = first;
      first = popped->next_ready;
      --count;
      return popped;
    }
  };

  /// A caller waiting for room.
  struct waiter : wait_line::place {
    const keyed_offer& offer;
  };

  lane_runs(const keyed_options& options, handler_type&& handle, failure_type&& on_failure)
      : lane_count_(options.lanes),
        lane_shift_(64U - static_cast<unsigned>(std::countr_zero(options.lanes))),
        seed_(options.seed),
        batch_max_(options.batch_max),
        max_waiters_(options.max_waiters),
        run_budget_(options.run_budget),
        handle_(std::move(handle)),
        on_failure_(std::move(on_failure)),
        lanes_(new lane_type[options.lanes]),
        max_runs_(options.max_runs == 0 ? options.lanes : options.max_runs) {
    bound_.limit = {options.max_items, options.max_bytes};
    constexpr std::size_t kept_bytes = std::size_t{16} << 20;
    spare_.reserve(std::min(4 * lane_count_, kept_bytes / sizeof(lane_node<Item>)));
  }
  ~lane_runs() {
    while (rooms_ != nullptr)
      delete std::exchange(rooms_, rooms_->next);
  }

  /// The executor's try_post(): once per run, not per item.
  virtual post_result post_to_executor(task run) = 0;

  [[nodiscard]] bool refuses(const keyed_offer& offer) const noexcept {
    return closed_ || executor_closed_ || offer.weights.front() > bound_.limit.bytes;
  }
  [[nodiscard]] bool worth_waking(const keyed_offer& offer) const noexcept;
  void tell_waiters() noexcept;
  [[nodiscard]] bool wants_run() const noexcept {
    return ready_.count != 0 && !pending_ && !searching_ && runs_ < max_runs_;
  }
  [[nodiscard]] bool orphaned() const noexcept {
    return ready_.count != 0 && runs_ == 0 && leaving_ == 0 && !pending_;
  }
  [[nodiscard]] bool at_rest() const noexcept { return runs_ == 0 && leaving_ == 0 && !pending_; }
  void start_run(unique_lock& lock) noexcept;
  void serve_orphans(unique_lock& lock) noexcept;

  const std::size_t lane_count_;
  const unsigned lane_shift_;
  const std::uint64_t seed_;
  const std::size_t batch_max_;
  const std::size_t max_waiters_;
  const duration run_budget_;
  handler_type handle_;      // called from any thread
  failure_type on_failure_;  // called from any thread
  const std::unique_ptr<lane_type[]> lanes_;

  alignas(cache_line) mutable sync::mutex mutex_;  // guards everything below
  load_bound bound_;                               // I4
  ready_list ready_;                               // I1
  std::size_t runs_ = 0;                           // runs at work
  std::size_t leaving_ = 0;                        // runs that post their successor and end
  std::size_t max_runs_;                           // 1..lane_count_
  bool searching_ = false;                         // I2: a run at work that has found no lane yet
  bool pending_ = false;                           // I2
  bool closed_ = false;                            // by close() and abandon()
  bool executor_closed_ = false;                   // the executor said so
  bool abandoning_ = false;                        // by abandon()
  wait_line waiters_;                              // callers waiting for room, each a `waiter`
  std::size_t empty_waiters_ = 0;                  // callers waiting for empty_
  sync::condition_variable empty_;                 // nothing in flight, or no run left
  node_stock<Item> spare_;                         // nodes, as many as were reserved for
  room_type* rooms_ = nullptr;                     // not in use
  keyed_stats count_;                              // the counters; stats() fills in the rest

 private:
  friend class run_ticket<lane_runs>;

  enum class run_kind : std::uint8_t {
    posted,    // on a thread of the executor
    in_place,  // in a thread that learnt of the executor's refusal
  };

  /// What a visit to a lane ended.
  struct visited {
    load ended{};
    bool more = false;          // the lane has items left
    bool failed = false;        // the handler threw
    bool failure_lost = false;  // and nobody could be told
    node_list<Item> emptied;
  };

  [[nodiscard]] bool post(unique_lock& lock) noexcept;
  void begin_run() noexcept;
  void run_dropped() noexcept;
  void serve(unique_lock& lock, run_kind kind) noexcept;
  [[nodiscard]] bool find_more(unique_lock& lock) noexcept;
  [[nodiscard]] bool hand_over(unique_lock& lock) noexcept;
  void visit(lane_type& at, room_type* room, bool abandoning, visited& outcome) noexcept;
  void call_handler(std::size_t lane, std::span<Item> batch, visited& outcome) noexcept;
  void credit(visited& outcome, lane_type& at, bool abandoned) noexcept;
  [[nodiscard]] room_type* take_room(unique_lock& lock) noexcept;
  void give_room(room_type* room) noexcept;
};

/// Room enough that waking the first waiter pays: its rest, or a sixteenth of the limit; any room
/// at all once no lane is ready, since then the runs are about to idle.
template <class Item>
bool lane_runs<Item>::worth_waking(const keyed_offer& offer) const noexcept {
  const load first = offer.first();
  if (ready_.count == 0) return bound_.fits(first);
  const load whole = offer.whole();
  return bound_.fits({std::min(whole.items, std::max(first.items, bound_.limit.items / 16)),
                      std::min(whole.bytes, std::max(first.bytes, bound_.limit.bytes / 16))});
}

/// Posts a run; pending_ is true meanwhile. False: the executor has none of it, and pending_ is
/// false again. The lock is held on entry and on return.
template <class Item>
bool lane_runs<Item>::post(unique_lock& lock) noexcept {
  pending_ = true;
  lock.unlock();
  post_result answer{post_status::full, "the task could not be made"};
  bool came_back = false;
  {
    keyed_frame frame(this, keyed_frame::role::posting);
    VELTRIX_TRY {
      answer = post_to_executor(task(run_ticket<lane_runs>(this)));
    }
    VELTRIX_CATCH_ALL {}  // no memory, say: as good as full
    came_back = frame.came_back;
  }
  lock.lock();
  if (answer && !came_back) {
    ++count_.posts;
    return true;
  }
  ++count_.refused_posts;
  pending_ = false;
  if (answer.status == post_status::closed) executor_closed_ = true;
  return false;
}

/// Called when wants_run(). Where the executor refuses and no run is at work, this thread is one.
template <class Item>
void lane_runs<Item>::start_run(unique_lock& lock) noexcept {
  if (post(lock) || runs_ != 0 || ready_.count == 0) return;
  ++runs_;
  serve(lock, run_kind::in_place);
}

template <class Item>
void lane_runs<Item>::serve_orphans(unique_lock& lock) noexcept {
  while (orphaned())
    start_run(lock);
}

/// The posted run, on a thread of the executor.
template <class Item>
void lane_runs<Item>::begin_run() noexcept {
  unique_lock lock(mutex_);
  pending_ = false;
  ++runs_;
  serve(lock, run_kind::posted);
}

/// The executor took the run and destroyed it. Nothing is lost: see orphaned().
template <class Item>
void lane_runs<Item>::run_dropped() noexcept {
  const lock_guard lock(mutex_);
  pending_ = false;
  ++count_.refused_posts;
  tell_waiters();
}

/// One run: visits ready lanes until there are none, its time is over, or it is one too many.
/// The lock is held on entry and on return; runs_ counts this run on entry.
template <class Item>
void lane_runs<Item>::serve(unique_lock& lock, run_kind kind) noexcept {
  constexpr std::size_t visits_until_retry = 16;
  const keyed_frame frame(this, keyed_frame::role::serving);
  room_type* const room = take_room(lock);
  visited outcome;
  time_point until = saturating_add(coarse_clock::now(), run_budget_);
  std::size_t quiet = 0;  // visits before the next post, after the executor refused one
  while (runs_ <= max_runs_) {
    if (ready_.count == 0 && (kind == run_kind::in_place || !find_more(lock))) break;
    lane_type& at = *ready_.pop();
    if (quiet != 0) {
      --quiet;
    } else if (wants_run() && !post(lock)) {
      quiet = visits_until_retry;
    }
    const bool abandoning = abandoning_;
    lock.unlock();
    visit(at, room, abandoning, outcome);
    const time_point now = coarse_clock::now();
    lock.lock();
    credit(outcome, at, abandoning);
    if (now < until || ready_.count == 0) continue;
    if (hand_over(lock)) break;
    until = saturating_add(now, run_budget_);
  }
  --runs_;
  give_room(room);
  tell_waiters();
}

/// Looks a little longer before the run ends: a wake-up costs more, and work comes in bursts.
template <class Item>
bool lane_runs<Item>::find_more(unique_lock& lock) noexcept {
  constexpr int looks = 8;
  if (searching_ || empty_waiters_ != 0) return false;
  searching_ = true;
  for (int i = 0; i < looks && ready_.count == 0 && empty_waiters_ == 0; ++i) {
    lock.unlock();
    sync::yield();
    lock.lock();
  }
  searching_ = false;
  return ready_.count != 0;
}

/// The end of a run's time. True: another run goes on with the ready lanes.
template <class Item>
bool lane_runs<Item>::hand_over(unique_lock& lock) noexcept {
  if (pending_) return true;
  --runs_;  // it handles nothing meanwhile, so its successor may begin
  ++leaving_;
  const bool posted = post(lock);
  --leaving_;
  ++runs_;
  return posted;
}

template <class Item>
void lane_runs<Item>::visit(lane_type& at, room_type* room, bool abandoning,
                            visited& outcome) noexcept {
  outcome.emptied.clear();  // what was left over from the visit before
  outcome.failed = false;
  outcome.failure_lost = false;
  at.take_incoming();
  const lane_batch<Item> batch = take_batch(at, batch_max_, room, outcome.emptied);
  if (!abandoning) {
    call_handler(static_cast<std::size_t>(&at - lanes_.get()), batch.items, outcome);
  }
  finish_batch(batch);
  outcome.ended = {batch.items.size(), batch.bytes};
  outcome.more = at.leave();
}

template <class Item>
void lane_runs<Item>::call_handler(std::size_t lane, std::span<Item> batch,
                                   visited& outcome) noexcept {
  VELTRIX_TRY {
    handle_(lane, batch);
  }
  VELTRIX_CATCH_ALL {
    outcome.failed = true;
    outcome.failure_lost = true;
    VELTRIX_TRY {
      if (on_failure_) {
        on_failure_(lane, batch, std::current_exception());
        outcome.failure_lost = false;
      }
    }
    VELTRIX_CATCH_ALL {}
  }
}

/// Books what a visit ended and schedules the lane again if it has more.
template <class Item>
void lane_runs<Item>::credit(visited& outcome, lane_type& at, bool abandoned) noexcept {
  const std::size_t items = outcome.ended.items;
  bound_.subtract(outcome.ended);
  if (abandoned) {
    count_.abandoned += items;
  } else {
    (outcome.failed ? count_.failed : count_.handled) += items;
    count_.failed_batches += outcome.failed ? 1U : 0U;
    count_.lost_failures += outcome.failure_lost ? 1U : 0U;
    ++count_.batches;
    count_.max_batch = std::max(count_.max_batch, items);
  }
  while (outcome.emptied.first != nullptr && spare_.has_room())
    spare_.push(outcome.emptied.pop());
  if (outcome.more) ready_.push(at);
  tell_waiters();
}

/// Wakes whoever waits for what is now true.
template <class Item>
void lane_runs<Item>::tell_waiters() noexcept {
  if (!waiters_.empty()) {
    const keyed_offer& offer = static_cast<const waiter*>(waiters_.front())->offer;
    if (refuses(offer) || orphaned() || worth_waking(offer)) waiters_.call_front();
  }
  if (empty_waiters_ != 0 && (bound_.used.items == 0 || orphaned())) empty_.notify_all();
}

/// Room to join batches in; null when there is no memory: then batches end with their nodes.
template <class Item>
typename lane_runs<Item>::room_type* lane_runs<Item>::take_room(unique_lock& lock) noexcept {
  if (rooms_ != nullptr) return std::exchange(rooms_, rooms_->next);
  lock.unlock();
  room_type* made = nullptr;
  VELTRIX_TRY {
    made = new room_type(batch_max_);
  }
  VELTRIX_CATCH_ALL {}
  lock.lock();
  return made;
}

template <class Item>
void lane_runs<Item>::give_room(room_type* room) noexcept {
  if (room != nullptr) room->next = std::exchange(rooms_, room);
}

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
