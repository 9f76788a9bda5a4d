// The threads of a pool: their slots, which are free, and which wait to be joined.
// Use for: pool_core. Internal.
// Not for: deciding how many there are.
// Threads: under the pool's mutex, but for join_by().
// Progress: O(1) per worker; join_by() blocks.
// Callbacks: none.
// Exceptions: take_free() may throw std::bad_alloc and changes nothing then; the rest never throws.
// Lifetime: a slot lives as long as the pool and is used by one thread after another.
// Guide: docs/elastic_pool.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "message.hpp"
#include "pool_answers.hpp"
#include "pool_options.hpp"
#include "sync.hpp"
#include "thread_exit.hpp"
#include "work_supply.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// One thread of a pool. Its slot is reused after the thread was joined and freed with the pool, so
/// that a wake-up sent a moment too late still finds it. The stack is reused with it.
struct pool_worker {
  sync::thread_stack stack;       // as thread; kept for the next one
  sync::native_thread thread;     // used by whoever starts or joins it
  thread_number number = 0;       // written by the thread before it passes the gate
  std::size_t index = 0;          // constant; the n of its name
  worker_share* share = nullptr;  // constant; what it has for its work
  char name[16] = {};             // constant
  std::uint64_t batch = 0;        // written before its thread starts; that thread's growth
};

/// Starts the `nth` thread of a batch, which calls live(worker).
/// @return 0 or an errno
template <class Live>
[[nodiscard]] int start_worker(pool_worker& worker, elastic_pool_options& options, std::size_t nth,
                               Live live) noexcept {
  const int pretended = options.start_fault ? options.start_fault(nth) : 0;
  if (pretended != 0) return pretended;
  return worker.thread.start(
      {.name = worker.name, .stack_bytes = options.stack_bytes, .stack = &worker.stack},
      [live, &worker]() noexcept { live(worker); });
}

/// Starts the threads of a batch one after the other, up to the first that fails.
template <class Live>
[[nodiscard]] start_failure start_batch(const std::vector<pool_worker*>& batch,
                                        elastic_pool_options& options, Live live) noexcept {
  start_failure failure;
  while (failure.started < batch.size() && failure.error == 0) {
    failure.error = start_worker(*batch[failure.started], options, failure.started, live);
    failure.started += failure.error == 0 ? 1 : 0;
  }
  return failure;
}

/// Joins a thread that is about to end. Where a join cannot be given up, a caller with a deadline
/// first looks whether the thread has ended.
/// @return false when the deadline passed first; the thread is not joined then
inline bool join_by(pool_worker& gone, time_point deadline) noexcept {
  if (!join_or_give_up(gone.thread, gone.number, deadline)) return false;
  gone.stack.trim();
  // The kernel wakes the joiner a little before it takes the thread off its list. Bounded, as a
  // number may be given to another thread at once.
  constexpr auto long_enough = std::chrono::milliseconds(50);
  await_thread_exit(gone.number, saturating_add(steady_clock::now(), long_enough));
  return true;
}

/// I1: each slot is free, listed as gone, or its thread lives; free_ and gone_ have room for all.
class worker_slots {
 public:
  /// Slots for `count` new threads, all at the gate.
  /// @param prefix  their names are `<prefix>-<index>`
  /// @param supply  has a share for each slot
  /// @param number  of the batch that the threads are
  [[nodiscard]] std::vector<pool_worker*> take_free(std::size_t count, const std::string& prefix,
                                                    work_supply& supply, std::uint64_t number) {
    const std::size_t fresh = count > free_.size() ? count - free_.size() : 0;
    const std::size_t slots = slots_.size() + fresh;
    supply.reserve(slots);
    slots_.reserve(slots);
    gone_.reserve(slots);
    free_.reserve(slots);
    while (slots_.size() < slots) {
      auto slot = std::make_unique<pool_worker>();
      slot->index = slots_.size();
      slot->share = &supply.share(slot->index);
      const std::string name = prefix + '-' + text_of(slot->index);
      name.copy(slot->name, sizeof slot->name - 1);
      slots_.push_back(std::move(slot));
      free_.push_back(slots_.back().get());
    }
    const auto first = free_.end() - static_cast<std::ptrdiff_t>(count);
    std::vector<pool_worker*> batch(first, free_.end());
    free_.erase(first, free_.end());
    for (pool_worker* const each : batch)
      each->batch = number;
    return batch;
  }

  /// A slot without a thread.
  void give_back(pool_worker& slot) noexcept { free_.push_back(&slot); }

  /// The same, of a growth that failed: the memory of its stack may be what was short.
  void give_back_bare(pool_worker& slot) noexcept {
    slot.stack.release();
    give_back(slot);
  }

  /// A thread that only returns now.
  void list_gone(pool_worker& slot) noexcept { gone_.push_back(&slot); }

  [[nodiscard]] bool any_gone() const noexcept { return !gone_.empty(); }

  /// One of those listed as gone, now the caller's to join; there must be one.
  [[nodiscard]] pool_worker& take_gone() noexcept {
    pool_worker* const gone = gone_.back();
    gone_.pop_back();
    return *gone;
  }

 private:
  std::vector<std::unique_ptr<pool_worker>> slots_;  // never shrinks
  std::vector<pool_worker*> free_;                   // without a thread
  std::vector<pool_worker*> gone_;                   // to be joined
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
