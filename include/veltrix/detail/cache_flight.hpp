// One load of one key: who does it, who waits for it, and what came of it.
// Use for: nothing directly; include veltrix/loading_cache.hpp. Internal.
// Not for: results that several keys share.
// Threads: one lands, any number wait.
// Progress: wait() blocks until land(), its deadline or its stop token.
// Callbacks: none.
// Exceptions: those of a stop token's registration.
// Lifetime: shared by its loader, its waiters and the cache.
// Guide: docs/loading_cache.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstdint>
#include <exception>
#include <memory>
#include <utility>

#include "../clock.hpp"
#include "cache_table.hpp"
#include "stoppable_wait.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// What a load brought: an error, or a value (null: known to be absent) of a version.
template <class Value>
struct cache_landing {
  bool under_way = false;  ///< nothing yet; the rest holds nothing
  std::exception_ptr error{};
  std::shared_ptr<const Value> value{};
  std::uint64_t version = 0;
};

/// I1: landing_ changes once. I2: nobody waits for a flight that has not begun.
template <class Value>
class cache_flight {
 public:
  cache_flight() = default;
  cache_flight(const cache_flight&) = delete;
  cache_flight& operator=(const cache_flight&) = delete;

  /// The calling thread will load. `version` is what the source has announced by now.
  void begin(time_point now, std::uint64_t version) noexcept {
    loader = sync::this_thread_id();
    began_at = now;
    floor = version;
  }

  [[nodiscard]] bool has_begun() const noexcept { return loader != sync::thread_id(); }
  /// Whether the calling thread is the one that loads: waiting would never end.
  [[nodiscard]] bool is_mine() const noexcept { return loader == sync::this_thread_id(); }

  /// Ends the flight and wakes all who wait.
  void land(cache_landing<Value> landing) noexcept {
    {
      const sync::lock_guard<sync::mutex> lock(mutex_);
      landing_ = std::move(landing);
    }
    landed_.notify_all();
  }

  /// Waits for the end. Result: under_way if the deadline passed or the token stopped first.
  [[nodiscard]] cache_landing<Value> wait(std::chrono::steady_clock::time_point deadline,
                                          const stop_token& token) const {
    sync::unique_lock<sync::mutex> lock(mutex_);
    // Woken by land(), after it wrote landing_.
    wait_until(lock, landed_, deadline, token, [&] { return !landing_.under_way; });
    return landing_;
  }

  // Written by begin() under the mutex of the key's shard; fixed from then on.
  sync::thread_id loader{};  ///< nobody: it has not begun
  time_point began_at{};     ///< what the load says is at least this fresh
  std::uint64_t floor = 0;   ///< what was announced when it began

 private:
  mutable sync::mutex mutex_;                // guards landing_
  mutable sync::condition_variable landed_;  // landing_ was written
  cache_landing<Value> landing_{.under_way = true};
};

/// A flight as its shard knows it.
template <class Key, class Value>
struct flight_record : cache_node<flight_record<Key, Value>, Key> {
  using cache_node<flight_record, Key>::cache_node;

  std::shared_ptr<cache_flight<Value>> flight{};
  std::uint64_t epoch = 0;  ///< what was invalidated after it began outdates it
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
