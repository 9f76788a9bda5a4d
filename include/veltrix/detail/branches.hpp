// Calls that a worker forks and joins: they stand in its frames, and other workers steal them.
// Use for: parallel_invoke() of elastic_pool. Internal.
// Not for: work that outlives the frame of who forks it.
// Threads: open_branches: its worker's, but for what says otherwise.
// Progress: fork() and take_back() are wait-free but for growth; await() runs what it waits for,
//   and sleeps when all of that is begun.
// Callbacks: the calls, no lock held.
// Exceptions: a stolen call's is kept in its branch; fork() answers false without memory.
// Lifetime: a branch until it is taken back or awaited; open_branches as long as the pool.
// Guide: docs/elastic_pool.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <utility>

#include "config.hpp"
#include "patience.hpp"
#include "steal_deque.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

class open_branches;

/// A call that others may run while its forker does something else.
///
/// I1: progress_ is the thief's address, 0 until there is one, and two bits: that its forker
///     sleeps, and that the call has ended. Who sets `ended` touches the branch no more.
class branch {
 public:
  using call = void (*)(branch&);

  explicit branch(call made) noexcept : call_(made) {}
  branch(const branch&) = delete;
  branch& operator=(const branch&) = delete;

  /// What ended the call, if it threw; null else. Once it has been awaited.
  [[nodiscard]] std::exception_ptr take_failure() noexcept {
    return std::exchange(failure_, nullptr);
  }

 private:
  friend class open_branches;

  static constexpr std::uintptr_t ended = 1;   // the call has ended
  static constexpr std::uintptr_t asleep = 2;  // its forker may sleep
  static constexpr std::uintptr_t bits = ended | asleep;

  void run() noexcept {
    VELTRIX_TRY {
      call_(*this);
    }
    VELTRIX_CATCH_ALL {
      failure_ = std::current_exception();
    }
  }

  const call call_;
  sync::atomic<std::uintptr_t> progress_{0};  // see I1
  // The thief's position when it began this: what it forks from there on is part of this call.
  sync::var<std::int64_t> level_ = 0;  // written by the thief before it shows itself in progress_
  std::exception_ptr failure_;         // written by the thief before `ended`
};

/// A worker's branches that are forked and not joined, the newest first. They nest: who forks joins
/// before it returns, and everything that runs meanwhile on this stack does the same.
///
/// Who joins a stolen branch runs nothing but what that branch waits for: what its thief has forked
/// since it began it (leapfrogging: D. B. Wagner and B. G. Calder, 1993). So a join never runs a
/// stranger's call, which might want a lock that the joiner holds, and the stack is no deeper than
/// the calls nest. Why joins always end: a call waits for calls that it forked, directly or not,
/// and there is a last one.
///
/// I1: the newest branch of the deque is the newest that was forked and not joined; if it was
///     stolen, so were all older ones, and the deque is empty.
/// I2: what stands in a thief's deque at its stolen branch's level or above was forked by it.
/// I3: whoever is in watchers_ sleeps, or is about to look once more.
class open_branches {
 public:
  open_branches() noexcept = default;
  open_branches(const open_branches&) = delete;
  open_branches& operator=(const open_branches&) = delete;

  // --- by the worker whose they are --------------------------------------------------------------

  /// Lets others have `added`. It has to be joined: take_back() and, if that says no, await().
  /// @return false: there is no memory, and nothing is forked
  [[nodiscard]] bool fork(branch& added) noexcept {
    VELTRIX_TRY {
      deque_.reserve();
    }
    VELTRIX_CATCH_ALL {
      return false;
    }
    deque_.push(&added);
    return true;
  }

  /// After fork(), and a light fence that follows it: tells a joiner that sleeps for want of work.
  void tell_watcher() noexcept {
    // relaxed: ordered by the fences, with the heavy one in sleep()
    if (watched_.load(sync::relaxed)) [[unlikely]]
      call_watcher();
  }

  /// Joins the newest branch unless it was stolen.
  /// @return whether nobody has it: the caller does what it stands for
  [[nodiscard]] bool take_back() noexcept { return deque_.pop() != nullptr; }

  /// Returns when the call of `stolen`, which take_back() has not given back, has ended.
  [[gnu::noinline]] void await(branch& stolen) noexcept {
    patience looks_on;
    // (1) acquire-load; pairs with acq_rel-or (2). Sees: what the call did.
    while ((stolen.progress_.load(sync::acquire) & branch::ended) == 0) {
      if (help(stolen)) {
        looks_on.renew();
      } else if (!looks_on.turn()) {
        sleep(stolen);
        looks_on.renew();
      }
    }
  }

  /// Runs a branch that this worker has stolen from `forker`.
  void run_stolen(branch& stolen, open_branches& forker) noexcept {
    stolen.level_ = deque_.position();
    // (3) acq_rel-add; pairs with acquire-load (4), acq_rel-or (5). Publishes: the level.
    const std::uintptr_t before =
        stolen.progress_.fetch_add(reinterpret_cast<std::uintptr_t>(this), sync::acq_rel);
    if ((before & branch::asleep) != 0) forker.sleeper_.unpark();  // it may watch this worker now
    stolen.run();
    // (2) acq_rel-or; pairs with acquire-load (1), acquire-load (4), acq_rel-or (5), acquire-load
    // (6). Publishes: what the call did. After it the branch is its forker's to end.
    const std::uintptr_t last = stolen.progress_.fetch_or(branch::ended, sync::acq_rel);
    if ((last & branch::asleep) != 0) forker.sleeper_.unpark();
  }

  // --- from any thread ---------------------------------------------------------------------------

  /// The oldest branch, to be run by run_stolen(); null: none, or another took it at this moment.
  [[nodiscard]] branch* steal() noexcept { return deque_.steal(); }

  [[nodiscard]] bool empty() const noexcept { return deque_.empty(); }

 private:
  [[nodiscard]] static open_branches* thief_of(std::uintptr_t state) noexcept {
    return reinterpret_cast<open_branches*>(state & ~branch::bits);
  }

  /// Runs the oldest call that the thief of `stolen` has forked for it.
  /// @return whether there was one
  bool help(const branch& stolen) noexcept {
    // (4) acquire-load; pairs with acq_rel-add (3), acq_rel-or (2). Sees: the thief's level.
    open_branches* const thief = thief_of(stolen.progress_.load(sync::acquire));
    if (thief == nullptr) return false;  // it has not begun
    const std::int64_t level = stolen.level_;
    branch* const part = thief->deque_.steal_if([&](std::int64_t position) {
      // (6) acquire-load; pairs with acq_rel-or (2). Sees: the end, if what it is asked about was
      // pushed after it, as that push was seen before this.
      return position >= level && (stolen.progress_.load(sync::acquire) & branch::ended) == 0;
    });
    if (part == nullptr) return false;
    run_stolen(*part, *thief);
    return true;
  }

  /// Sleeps until the call of `stolen` has ended, or its thief has begun it or forked for it. May
  /// return for no reason.
  void sleep(branch& stolen) noexcept {
    // (5) acq_rel-or; pairs with acq_rel-add (3), acq_rel-or (2). Publishes: that this worker is to
    // be woken. Sees: the thief's level.
    const std::uintptr_t before = stolen.progress_.fetch_or(branch::asleep, sync::acq_rel);
    if ((before & branch::ended) != 0) return;
    open_branches* const thief = thief_of(before);
    if (thief == nullptr) return sleeper_.park();
    const std::int64_t level = stolen.level_;
    thief->add_watcher(*this, level);
    sync::asymmetric_fence_heavy(sync::asymmetric_fence_mode());  // with the light one of who forks
    if (!thief->deque_.begins_at_or_above(level)) sleeper_.park();
    thief->remove_watcher(*this);
  }

  // --- who sleeps for want of work ---------------------------------------------------------------

  void add_watcher(open_branches& joiner, std::int64_t level) noexcept {
    const sync::lock_guard<sync::mutex> lock(watching_);
    joiner.watched_level_ = level;
    joiner.next_watcher_ = std::exchange(watchers_, &joiner);
    watched_.store(true, sync::relaxed);  // relaxed: ordered by the fences
  }

  /// Unless call_watcher() has done so.
  void remove_watcher(open_branches& joiner) noexcept {
    const sync::lock_guard<sync::mutex> lock(watching_);
    for (open_branches** at = &watchers_; *at != nullptr; at = &(*at)->next_watcher_) {
      if (*at == &joiner) return unlink(*at);
    }
  }

  /// Wakes one that may take the oldest branch.
  [[gnu::noinline]] void call_watcher() noexcept {
    open_branches* called = nullptr;
    {
      const sync::lock_guard<sync::mutex> lock(watching_);
      open_branches** at = &watchers_;
      while (*at != nullptr && !deque_.begins_at_or_above((*at)->watched_level_))
        at = &(*at)->next_watcher_;
      if (*at == nullptr) return;
      called = *at;
      unlink(*at);
    }
    called->sleeper_.unpark();
  }

  void unlink(open_branches*& link) noexcept {
    link = std::exchange(link->next_watcher_, nullptr);
    if (watchers_ == nullptr) watched_.store(false, sync::relaxed);  // relaxed: as above
  }

  steal_deque<branch> deque_;
  alignas(cache_line) sync::atomic<bool> watched_{false};  // watchers_ is not empty
  sync::mutex watching_;                   // guards watchers_ and, of those in it, the next two
  open_branches* watchers_ = nullptr;      // joiners of branches that this worker has stolen
  open_branches* next_watcher_ = nullptr;  // guarded by the thief's watching_
  std::int64_t watched_level_ = 0;         // guarded by the thief's watching_
  sync::parker sleeper_;                   // a call left over from an earlier sleep costs a look
};

static_assert(alignof(open_branches) > 3, "progress_ of a branch has two bits beside the address");

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
