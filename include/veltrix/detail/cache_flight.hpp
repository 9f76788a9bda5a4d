// One load under way: who does it, who waits for it, and what came of it.
// Use for: nothing directly; include veltrix/loading_cache.hpp. Internal.
// Not for: results that several keys share.
// Threads: one finishes, any number wait.
// Progress: wait() blocks until finish(), its deadline or its stop token.
// Callbacks: none.
// Exceptions: none of its own.
// Lifetime: shared by its loader, its waiters and, while it is current, the cache.
// Guide: docs/loading_cache.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstdint>
#include <exception>
#include <memory>

#include "../clock.hpp"
#include "stoppable_wait.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// How a flight ended.
enum class flight_end : std::uint8_t {
  under_way,
  arrived,    ///< `value` (null: known to be absent) and `version` hold
  failed,     ///< `error` holds
  abandoned,  ///< its loader never ran; whoever waits must see for itself
};

/// What is known once a flight has ended.
template <class Value>
struct flight_result {
  flight_end end = flight_end::under_way;
  std::shared_ptr<const Value> value;
  std::uint64_t version = 0;
  std::exception_ptr error;
};

/// I1: result_ changes once, from under_way to something else.
template <class Value>
class cache_flight {
 public:
  cache_flight(time_point started, std::uint64_t floor)
      : started_at(started), floor_at_start(floor) {}
  cache_flight(const cache_flight&) = delete;
  cache_flight& operator=(const cache_flight&) = delete;

  const time_point started_at;         ///< what the load says is at least this fresh
  const std::uint64_t floor_at_start;  ///< the announced version when it began

  /// The thread that runs the loader; before that, nobody.
  void claim() noexcept {
    const sync::lock_guard<sync::mutex> lock(mutex_);
    loader_ = sync::this_thread_id();
  }

  /// Whether the calling thread is the one that runs the loader: waiting would never end.
  [[nodiscard]] bool is_mine() const noexcept {
    const sync::lock_guard<sync::mutex> lock(mutex_);
    return loader_ == sync::this_thread_id();
  }

  /// Ends the flight and wakes all who wait.
  void finish(flight_result<Value> result) noexcept {
    {
      const sync::lock_guard<sync::mutex> lock(mutex_);
      if (result_.end != flight_end::under_way) return;
      result_ = std::move(result);
      loader_ = sync::thread_id();
    }
    ended_.notify_all();
  }

  /// Waits for the end. Result: `end` is under_way if the deadline passed or the token
  /// stopped first.
  [[nodiscard]] flight_result<Value> wait(std::chrono::steady_clock::time_point deadline,
                                          const stop_token& token) const {
    sync::unique_lock<sync::mutex> lock(mutex_);
    // Woken by finish(), after it wrote result_.
    wait_until(lock, ended_, deadline, token, [&] { return result_.end != flight_end::under_way; });
    return result_;
  }

 private:
  mutable sync::mutex mutex_;               // guards everything below
  mutable sync::condition_variable ended_;  // result_ was written
  flight_result<Value> result_;             // guarded by mutex_
  sync::thread_id loader_;                  // guarded by mutex_
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
