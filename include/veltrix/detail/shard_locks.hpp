// The locks of a map's shards: who waits for one, who is refused, and who waits for a count.
// Use for: the inside of concurrent_map. Internal.
// Not for: look-ups, which take none.
// Threads: any; a lock is held by one.
// Progress: blocking.
// Callbacks: none; what its holder calls runs under it.
// Exceptions: std::system_error for a thread that would wait for itself; it holds nothing new then.
// Lifetime: locks end before their shards.
// Guide: docs/design.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstdint>

#include "config.hpp"
#include "count_gate.hpp"
#include "map_refusals.hpp"
#include "map_shard.hpp"
#include "park_lock.hpp"
#include "reentry.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// What the locks of one map's shards share.
struct shard_locks {
  explicit shard_locks(sync::fence_mode mode) noexcept : lot(mode) {}

  static void refuse_own(const map_shard& home, const char* operation) {
    if (home.lock.held_by(park_lock::me())) raise_self_wait(operation);
  }

  void acquire(map_shard& home, const char* operation) const {
    const std::uintptr_t me = park_lock::me();
    if (!home.lock.try_lock(me)) [[unlikely]]
      acquire_slowly(home, operation, me);
  }
  void release(map_shard& home) const noexcept { home.lock.unlock(lot); }

  /// Gives the shard back until no count is going on.
  [[gnu::noinline]] void wait_for_count(map_shard& home, const char* operation) const {
    release(home);
    const count_gate::pass pass(gate);  // so that it is not frozen again
    acquire(home, operation);
  }

  mutable parking_lot lot;
  mutable count_gate gate;  // between size() and writers; see I4 of shard_store
  mutable usage use;        // own synchronisation; checked builds only

 private:
  [[gnu::noinline]] void acquire_slowly(map_shard& home, const char* operation,
                                        std::uintptr_t me) const {
    refuse_own(home, operation);
    home.waits.fetch_add(1, sync::relaxed);
    home.lock.lock_slowly(me, lot);  // woken by release()
  }
};

/// Holds one shard. A change waits until no count is going on.
class shard_lock {
 public:
  enum class intent : std::uint8_t { look, change };

  // Inlined, also where an exception leaves: a call would take the address of the change it is in.
  [[gnu::always_inline]] shard_lock(const shard_locks& locks, map_shard& home,
                                    const char* operation, intent why)
      : locks_(locks), home_(home), scope_(locks.use, operation) {
    locks.acquire(home, operation);
    if (why == intent::change && home.frozen) [[unlikely]]
      locks.wait_for_count(home, operation);
  }
  [[gnu::always_inline]] ~shard_lock() { locks_.release(home_); }
  shard_lock(const shard_lock&) = delete;
  shard_lock& operator=(const shard_lock&) = delete;

 private:
  const shard_locks& locks_;
  map_shard& home_;
  const locked_scope scope_;
};

/// Holds a shard of each of two maps, lower address first, neither frozen.
class two_shard_locks {
 public:
  two_shard_locks(const shard_locks& left_locks, map_shard& left, const shard_locks& right_locks,
                  map_shard& right, const char* operation)
      : left_locks_(left_locks),
        left_(left),
        right_locks_(right_locks),
        right_(right),
        left_scope_(left_locks.use, operation),
        right_scope_(right_locks.use, operation) {
    shard_locks::refuse_own(left, operation);  // before one of them is held
    shard_locks::refuse_own(right, operation);
    take(operation);
    if (left.frozen || right.frozen) {
      give_back();
      const count_gate::pass left_pass(left_locks.gate);
      const count_gate::pass right_pass(right_locks.gate);
      take(operation);
    }
  }
  ~two_shard_locks() { give_back(); }
  two_shard_locks(const two_shard_locks&) = delete;
  two_shard_locks& operator=(const two_shard_locks&) = delete;

 private:
  void take(const char* operation) {
    const bool left_first =
        reinterpret_cast<std::uintptr_t>(&left_) < reinterpret_cast<std::uintptr_t>(&right_);
    if (left_first) left_locks_.acquire(left_, operation);
    right_locks_.acquire(right_, operation);
    if (!left_first) left_locks_.acquire(left_, operation);
  }
  void give_back() noexcept {
    left_locks_.release(left_);
    right_locks_.release(right_);
  }

  const shard_locks& left_locks_;
  map_shard& left_;
  const shard_locks& right_locks_;
  map_shard& right_;
  const locked_scope left_scope_;
  const locked_scope right_scope_;
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
