// Which workers look for work and which sleep, and whom a new task wakes.
// Use for: elastic_pool. Internal.
// Not for: knowing what work there is; its owner looks.
// Threads: all members may be called from any thread; a seat is its worker's, but for the call.
// Progress: a glance at one word where nobody must be woken; else a short lock and a system call.
// Callbacks: none.
// Exceptions: none.
// Lifetime: seats outlive the calls to them: they end with the pool.
// Guide: docs/elastic_pool.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "config.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// A worker runs tasks, or searches, or is seated. Who makes work calls a seated one only if nobody
/// searches; who finds work and was the last to search looks once more and calls the next. So one
/// worker at a time is on its way, and no work is left beside sleepers:
///
/// - a worker sits down first and looks once more after it, with a fence between; who makes work
///   makes it first and looks for sleepers after it: one of the two sees the other;
/// - who makes work and sees a searcher leaves it to it: the searcher's next look, when it stops
///   searching, comes after that.
///
/// I1: under mutex_ the stack holds as many seats as census_ says.
/// I2: whoever is called searches from then on: the caller counts it before it wakes.
class idle_workers {
 public:
  /// Where one worker sleeps.
  class seat {
   public:
    seat() = default;
    seat(const seat&) = delete;
    seat& operator=(const seat&) = delete;

   private:
    friend class idle_workers;

    sync::parker sleeper_;
    bool taken_ = false;     // guarded by the stack's mutex; it is in the stack
    seat* below_ = nullptr;  // guarded by the stack's mutex
    seat* above_ = nullptr;  // guarded by the stack's mutex
  };

  explicit idle_workers(sync::fence_mode mode) noexcept : mode_(mode) {}
  idle_workers(const idle_workers&) = delete;
  idle_workers& operator=(const idle_workers&) = delete;

  /// The calling worker searches.
  /// @return how many do now
  std::size_t begin_search() noexcept {
    // relaxed: a pusher that does not see it calls one too many
    return searching(census_.fetch_add(one_searching, sync::relaxed)) + 1;
  }

  /// The calling worker has found work, or leaves.
  /// @return whether nobody searches now: the caller has to look for work left, and call the next
  [[nodiscard]] bool end_search() noexcept {
    // (2) seq_cst-sub; pairs with seq_cst-load (1), seq_cst-load (4), seq_cst-load (5),
    // seq_cst-cas (6). Forbids: who injects leaves it to this
    // searcher, and its look for work left misses that.
    const bool last = searching(census_.fetch_sub(one_searching, sync::seq_cst)) == 1;
    if (last) sync::full_fence();  // with the one in call_after_push()
    return last;
  }

  /// The calling worker stops searching and is seated. It has to look for work once more before it
  /// waits.
  void sit(seat& mine) noexcept {
    {
      const sync::lock_guard<sync::mutex> lock(mutex_);
      mine.below_ = top_;
      if (top_ != nullptr) top_->above_ = &mine;
      top_ = &mine;
      mine.taken_ = true;
      // (3) seq_cst-add; pairs with seq_cst-load (1), seq_cst-load (4), seq_cst-load (5),
      // seq_cst-cas (6). Forbids: as (2).
      census_.fetch_add(one_seated - one_searching, sync::seq_cst);
    }
    sync::asymmetric_fence_heavy(mode_);  // with the light ones of who makes work
  }

  /// The calling worker gets up by itself and searches.
  /// @return false: it was called meanwhile, and has to wait() for that
  [[nodiscard]] bool rise(seat& mine) noexcept {
    const sync::lock_guard<sync::mutex> lock(mutex_);
    if (!mine.taken_) return false;
    unlink(mine);
    census_.fetch_add(one_searching - one_seated, sync::relaxed);  // relaxed: as in begin_search()
    return true;
  }

  /// Sleeps until it is called; searches then.
  void wait(seat& mine) noexcept { mine.sleeper_.park(); }

  /// For whoever claimed by a seq_cst read-modify-write what it then filled: calls one worker if
  /// none searches.
  void call_after_injection() noexcept {
    sync::asymmetric_fence_light(mode_);  // with the heavy one in sit(): it sees what was filled
    // (1) seq_cst-load; pairs with seq_cst-sub (2), seq_cst-add (3), injection_ring.hpp (8).
    // Forbids: the pusher sees a searcher that, after it has stopped, misses what was claimed.
    if (quiet(census_.load(sync::seq_cst))) call_if_quiet();
  }

  /// For a worker that pushed to its own deque: as above, with a fence only if somebody is idle.
  void call_after_push() noexcept {
    sync::asymmetric_fence_light(mode_);           // with the heavy one in sit()
    if (census_.load(sync::relaxed) == 0) return;  // relaxed: ordered by the fences
    sync::full_fence();                            // with the one in end_search()
    call_if_quiet();
  }

  /// Calls the one seated last if nobody searches.
  void call_if_quiet() noexcept {
    // (4) seq_cst-load; pairs with seq_cst-sub (2), seq_cst-add (3). Forbids: as (1), for one that
    // was called between the two loads.
    if (!quiet(census_.load(sync::seq_cst))) return;
    seat* called = nullptr;
    {
      const sync::lock_guard<sync::mutex> lock(mutex_);
      // (5) seq_cst-load; pairs with seq_cst-sub (2), seq_cst-add (3). Forbids: as (4).
      std::uint64_t seen = census_.load(sync::seq_cst);
      do {
        if (!quiet(seen)) return;
        // (6) seq_cst-cas; pairs with seq_cst-sub (2), seq_cst-add (3). Forbids: as (4).
      } while (!census_.compare_exchange_weak(seen, seen - one_seated + one_searching,
                                              sync::seq_cst, sync::seq_cst));
      called = top_;
      unlink(*called);
    }
    called->sleeper_.unpark();
  }

  /// Calls up to `count` workers, whoever searches.
  void call(std::size_t count) noexcept {
    for (; count != 0; --count) {
      seat* called = nullptr;
      {
        const sync::lock_guard<sync::mutex> lock(mutex_);
        called = top_;
        if (called == nullptr) return;
        unlink(*called);
        census_.fetch_add(one_searching - one_seated, sync::relaxed);  // relaxed: as above
      }
      called->sleeper_.unpark();
    }
  }

  [[nodiscard]] std::size_t searching() const noexcept {
    return searching(census_.load(sync::relaxed));  // relaxed: a glance
  }

 private:
  static constexpr std::uint64_t one_seated = 1;
  static constexpr std::uint64_t one_searching = std::uint64_t{1} << 32;

  [[nodiscard]] static std::size_t searching(std::uint64_t state) noexcept {
    return static_cast<std::size_t>(state >> 32);
  }
  /// Somebody sleeps and nobody searches.
  [[nodiscard]] static bool quiet(std::uint64_t state) noexcept {
    return state != 0 && state < one_searching;
  }

  void unlink(seat& gone) noexcept {
    if (gone.above_ != nullptr) gone.above_->below_ = gone.below_;
    if (gone.below_ != nullptr) gone.below_->above_ = gone.above_;
    if (top_ == &gone) top_ = gone.below_;
    gone.above_ = gone.below_ = nullptr;
    gone.taken_ = false;
  }

  const sync::fence_mode mode_;  // how sit() and a push are ordered
  // seated + searching << 32; seated changes under mutex_ only
  alignas(cache_line) sync::atomic<std::uint64_t> census_{0};
  alignas(cache_line) sync::mutex mutex_;  // guards the stack
  seat* top_ = nullptr;                    // guarded by mutex_; the last to sit is the first called
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
