// A lock of two words: one read-modify-write to take it, plain stores to give it back.
// Use for: many short critical sections, such as one for each shard of a map. Internal.
// Not for: fairness: whoever comes first after a release has it.
// Threads: the lock from any thread; unlock() from the one that holds it.
// Progress: blocking: spins for some microseconds, then sleeps until a release wakes it.
// Callbacks: none.
// Exceptions: none.
// Lifetime: the lot outlives the locks that park in it.
// Guide: docs/design.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstdint>

#include "config.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// Where threads sleep that wait for one of many locks.
struct parking_lot {
  explicit parking_lot(sync::fence_mode how) noexcept : mode(how) {}

  const sync::fence_mode mode;  // how a release and a thread that goes to sleep are ordered
  sync::mutex mutex;            // guards nothing but the way into released
  sync::condition_variable released;
};

/// I1: holder_ is 0 or names the thread that holds the lock.
/// I2: who sleeps has counted itself in sleepers_, made the heavy fence, and found the lock held
///     after that: so its holder's release finds sleepers_ raised.
class park_lock {
 public:
  /// Names the calling thread, for as long as it lives.
  [[nodiscard]] static std::uintptr_t me() noexcept {
    struct place {
      char here = 0;
    };
    return reinterpret_cast<std::uintptr_t>(&sync::per_thread<place>());
  }

  [[nodiscard]] bool held_by(std::uintptr_t thread) const noexcept {
    return holder_.load(sync::relaxed) == thread;  // relaxed: a thread knows its own stores
  }

  [[nodiscard]] bool try_lock(std::uintptr_t thread) noexcept {
    std::uintptr_t nobody = 0;
    // (1) acquire-cas; pairs with release-store (2). Sees: all that former holders did.
    return holder_.compare_exchange_strong(nobody, thread, sync::acquire, sync::relaxed);
  }

  [[gnu::noinline]] void lock_slowly(std::uintptr_t thread, parking_lot& lot) noexcept {
    constexpr int spins = sync::repeatable ? 1 : 100;  // some microseconds: a change is shorter
    for (int i = 0; i < spins; ++i) {
      sync::spin_pause();
      // relaxed: a glance, (1) decides
      if (holder_.load(sync::relaxed) == 0 && try_lock(thread)) return;
    }
    sleepers_.fetch_add(1, sync::relaxed);  // relaxed: ordered by the fences, see I2
    sync::asymmetric_fence_heavy(lot.mode);
    {
      sync::unique_lock<sync::mutex> lock(lot.mutex);
      while (!try_lock(thread))
        lot.released.wait(lock);  // woken by unlock(), after holder_ = 0
    }
    sleepers_.fetch_sub(1, sync::relaxed);  // relaxed: too high a count wakes once too often
  }

  void unlock(parking_lot& lot) noexcept {
    // (2) release-store; pairs with acquire-cas (1). Publishes: all that the holder did.
    holder_.store(0, sync::release);
    sync::asymmetric_fence_light(lot.mode);
    if (sleepers_.load(sync::relaxed) != 0) [[unlikely]]  // relaxed: ordered by the fences, see I2
      wake(lot);
  }

 private:
  [[gnu::noinline]] static void wake(parking_lot& lot) noexcept {
    // Whoever found the lock held is in wait() or has not yet got the mutex.
    { const sync::lock_guard<sync::mutex> lock(lot.mutex); }
    lot.released.notify_all();
  }

  sync::atomic<std::uintptr_t> holder_{0};
  sync::atomic<std::uint32_t> sleepers_{0};
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
