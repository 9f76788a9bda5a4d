// Lets one thread stop the writers of a container for a count, and lets them all through after it.
// Use for: shard_store, whose size() freezes its shards one by one. Internal.
// Not for: readers; they never look at it.
// Threads: all members may be called from any thread.
// Progress: blocking. Counts take turns with the writers they kept waiting, so neither starves.
// Callbacks: none.
// Exceptions: none.
// Lifetime: counts and passes end before the gate.
// Guide: docs/concurrent_map.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>

#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// I1: no pass that has got through exists while a count does.
class count_gate {
 public:
  count_gate() = default;
  count_gate(const count_gate&) = delete;
  count_gate& operator=(const count_gate&) = delete;

  /// A count. Starts when no other is going on and every writer the last one stopped has passed.
  class count {
   public:
    explicit count(count_gate& gate) : gate_(gate) {
      sync::unique_lock<sync::mutex> lock(gate_.mutex_);
      while (gate_.counting_ || gate_.passing_ != 0)
        gate_.changed_.wait(lock);  // woken by ~count() and ~pass(), after their writes
      gate_.counting_ = true;
    }
    ~count() {
      const sync::lock_guard<sync::mutex> lock(gate_.mutex_);
      gate_.counting_ = false;
      gate_.changed_.notify_all();
    }
    count(const count&) = delete;
    count& operator=(const count&) = delete;

   private:
    count_gate& gate_;
  };

  /// A writer that met a count: waits until it is over, and keeps the next away while it lives.
  class pass {
   public:
    explicit pass(count_gate& gate) : gate_(gate) {
      sync::unique_lock<sync::mutex> lock(gate_.mutex_);
      ++gate_.passing_;
      while (gate_.counting_)
        gate_.changed_.wait(lock);  // woken by ~count(), after counting_ = false
    }
    ~pass() {
      const sync::lock_guard<sync::mutex> lock(gate_.mutex_);
      --gate_.passing_;
      if (gate_.passing_ == 0) gate_.changed_.notify_all();
    }
    pass(const pass&) = delete;
    pass& operator=(const pass&) = delete;

   private:
    count_gate& gate_;
  };

 private:
  sync::mutex mutex_;  // guards the rest
  sync::condition_variable changed_;
  bool counting_ = false;
  std::size_t passing_ = 0;  // writers waiting, or on their way to their shard
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
