// Takes the tasks that are posted to a pool, and makes posters wait where they must.
// Use for: elastic_pool. Internal.
// Not for: running them.
// Threads: all members may be called from any thread.
// Progress: lock-free but for waking a worker; waits for room only when told so.
// Callbacks: the noexcept moves of small captures.
// Exceptions: std::invalid_argument for an empty task, std::bad_alloc; nothing is taken then.
// Lifetime: supply and idle workers outlive it.
// Guide: docs/elastic_pool.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <utility>

#include "../executor.hpp"
#include "idle_workers.hpp"
#include "message.hpp"
#include "sync.hpp"
#include "work_supply.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// What push() does when the queue is full and the caller is no worker of the pool.
enum class when_full : std::uint8_t { waits, refuses };

/// Who posts, as the pool sees it.
struct poster {
  bool worker = false;            ///< a worker of this pool: it never waits for room
  worker_share* share = nullptr;  ///< null in hooks, too
};

/// I1: what is accepted is in the supply before the poster is told, and wakes a worker if none is
///     on its way.
/// I2: nothing is accepted after close().
class task_intake {
 public:
  task_intake(std::size_t capacity, work_supply& supply, idle_workers& idle) noexcept
      : room_again_(capacity - std::clamp<std::size_t>(capacity / 2, 1, 64)),
        supply_(supply),
        idle_(idle) {}
  task_intake(const task_intake&) = delete;
  task_intake& operator=(const task_intake&) = delete;

  /// Takes `work` when it is accepted, and only then. See work_supply::push() for `where`.
  post_result push(poster from, task& work, when_full policy, node_place* where = nullptr) {
    if (!work) [[unlikely]]
      refuse_empty();
    if (from.worker) {
      const post_result told = push_on_worker(from, work, policy, where);
      if (told) idle_.call_after_push();
      return told;
    }
    const ring_answer told = supply_.ring().push(work);
    if (told == ring_answer::taken) [[likely]] {
      idle_.call_after_injection();
      return {};
    }
    if (told == ring_answer::full && policy == when_full::waits) return push_with_room(work);
    return refusal(told);
  }

  /// As push() for each, in order, with at most one call for several. What was taken before memory
  /// ran out stays taken.
  /// @return how many were taken, and why it stopped there if not all were
  std::pair<std::size_t, post_result> push_all(poster from, task* works, std::size_t count,
                                               when_full policy) {
    for (std::size_t i = 0; i < count; ++i) {
      if (!works[i]) [[unlikely]]
        refuse_empty();
    }
    return from.worker ? push_all_on_worker(from, works, count, policy)
                       : push_all_injected(works, count, policy);
  }

  /// Takes a task back that is the newest in the poster's own deque. It ends unrun, and counts.
  /// @param where  told by push()
  /// @return whether it was there
  bool withdraw(poster from, const task_node* where) noexcept {
    if (from.share == nullptr) return false;
    const taken_back found = supply_.take_back(*from.share, where);
    if (found == taken_back::another) idle_.call_after_push();  // it was away for a moment
    return found == taken_back::it;
  }

  /// After a pop from the ring: wakes who waits for room, once there is a good deal of it.
  void tell_room() noexcept {
    // (2) seq_cst-load; pairs with seq_cst-store (1). Forbids: see there.
    if (!room_wanted_.load(sync::seq_cst)) [[likely]]
      return;
    if (supply_.ring().size() > room_again_) return;  // a later pop tells
    const sync::lock_guard<sync::mutex> lock(mutex_);
    if (!room_wanted_.load(sync::relaxed)) return;  // relaxed: written under mutex_
    room_wanted_.store(false, sync::relaxed);       // relaxed: as above
    room_.notify_all();
  }

  void close() noexcept {
    const sync::lock_guard<sync::mutex> lock(mutex_);
    supply_.ring().close();
    room_.notify_all();
  }

 private:
  /// A worker would take it for no task at all.
  [[noreturn, gnu::noinline]] static void refuse_empty() {
    raise(std::invalid_argument(describe(
        {"elastic_pool::post", "work", "an empty task", "a callable", "nothing was posted"})));
  }

  static post_result refusal(ring_answer why) noexcept {
    if (why == ring_answer::closed) return {post_status::closed, "the pool was stopped"};
    return {post_status::full, "the pool's queue holds queue_capacity tasks"};
  }

  std::pair<std::size_t, post_result> push_all_on_worker(poster from, task* works,
                                                         std::size_t count, when_full policy) {
    post_result told;
    std::size_t taken = 0;
    VELTRIX_TRY {
      while (taken < count && (told = push_on_worker(from, works[taken], policy)))
        ++taken;
    }
    VELTRIX_CATCH_ALL {
      if (taken != 0) idle_.call_after_push();
      VELTRIX_RETHROW;
    }
    if (taken != 0) idle_.call_after_push();
    return {taken, told};
  }

  std::pair<std::size_t, post_result> push_all_injected(task* works, std::size_t count,
                                                        when_full policy) {
    std::size_t taken = 0;
    while (taken < count) {
      const auto [more, told] = supply_.ring().push_some(works + taken, count - taken);
      taken += more;
      if (told == ring_answer::taken) {
        idle_.call_after_injection();
      } else if (told == ring_answer::full && policy == when_full::waits) {
        const post_result waited = push_with_room(works[taken]);
        if (!waited) return {taken, waited};
        ++taken;
      } else {
        return {taken, refusal(told)};
      }
    }
    return {taken, post_result{}};
  }

  /// A worker never waits for room: it might wait for itself.
  post_result push_on_worker(poster from, task& work, when_full policy,
                             node_place* where = nullptr) {
    if (from.share == nullptr) return push_in_hook(work, policy);
    if (supply_.ring().closed()) return refusal(ring_answer::closed);
    const bool full = supply_.full_for(*from.share);
    if (full && policy == when_full::refuses) return refusal(ring_answer::full);
    supply_.push(*from.share, work, full ? past_capacity::yes : past_capacity::no, where);
    return {};
  }

  /// A worker that does not take tasks yet, or no more.
  post_result push_in_hook(task& work, when_full policy) {
    const ring_answer told = supply_.ring().push(work);
    if (told == ring_answer::taken) return {};
    if (told == ring_answer::closed || policy == when_full::refuses) return refusal(told);
    const sync::lock_guard<sync::mutex> lock(mutex_);  // so that it is not closed meanwhile
    if (supply_.ring().closed()) return refusal(ring_answer::closed);
    supply_.spill(work);
    return {};
  }

  [[gnu::noinline]] post_result push_with_room(task& work) {
    {
      sync::unique_lock<sync::mutex> lock(mutex_);
      for (;;) {
        // (1) seq_cst-store; pairs with seq_cst-load (2). Forbids: the push below misses a pop, and
        // its popper misses that room is wanted.
        room_wanted_.store(true, sync::seq_cst);
        const ring_answer told = supply_.ring().push(work);
        if (told == ring_answer::taken) break;
        if (told == ring_answer::closed) return refusal(told);
        room_.wait(lock);  // woken by tell_room(), after a pop, and by close()
      }
    }
    idle_.call_after_injection();
    return {};
  }

  const std::size_t room_again_;  // length of the ring at which waiting posters are woken
  work_supply& supply_;
  idle_workers& idle_;
  sync::atomic<bool> room_wanted_{false};  // written under mutex_
  sync::mutex mutex_;              // guards the waits for room, and what is spilled against close()
  sync::condition_variable room_;  // there is room, or the ring was closed
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
