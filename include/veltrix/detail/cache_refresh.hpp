// Loads in the background that may outlive the cache's wish for them, and never the cache.
// Use for: nothing directly; include veltrix/loading_cache.hpp. Internal.
// Not for: work that must be done.
// Threads: a task runs or ends in any one thread; a gate is shared.
// Progress: close() waits for those inside; the rest take a short lock.
// Callbacks: the loader, in the executor's thread, no lock held.
// Exceptions: none leave a task.
// Lifetime: the gate is shared by the cache and its tasks; a task may outlive the cache.
// Guide: docs/loading_cache.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <memory>
#include <utility>

#include "cache_flight.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// Lets tasks at an object while it stands.
class refresh_gate {
 public:
  /// Nobody enters any more; waits until all who did have left.
  void close() noexcept {
    sync::unique_lock<sync::mutex> lock(mutex_);
    closed_ = true;
    while (inside_ != 0)
      left_.wait(lock);  // woken by leave(), after --inside_
  }

  /// Whether the object stands; it does until leave() then.
  [[nodiscard]] bool enter() noexcept {
    const sync::lock_guard<sync::mutex> lock(mutex_);
    if (!closed_) ++inside_;
    return !closed_;
  }

  void leave() noexcept {
    const sync::lock_guard<sync::mutex> lock(mutex_);
    --inside_;
    left_.notify_all();
  }

 private:
  sync::mutex mutex_;              // guards everything below
  sync::condition_variable left_;  // inside_ fell
  bool closed_ = false;
  std::size_t inside_ = 0;
};

/// A refresh that was asked for. Run or destroyed, it ends its flight, unless the cache is gone.
template <class Cache, class Loader>
class cache_refresh {
 public:
  using key_type = typename Cache::key_type;
  using flight = cache_flight<typename Cache::value_type>;

  cache_refresh(std::shared_ptr<refresh_gate> gate, Cache& cache, const hashed_key<key_type>& asked,
                std::shared_ptr<flight> mine, const Loader& loader)
      : work_(std::make_unique<work>(
            work{std::move(gate), cache, asked.key, asked.hash, std::move(mine), loader})) {}
  cache_refresh(cache_refresh&&) noexcept = default;
  cache_refresh& operator=(cache_refresh&&) = delete;
  ~cache_refresh() {
    end([](work& left) { left.cache.abandon(left.hash, left.mine); });
  }

  void operator()() {
    end([](work& due) {
      due.cache.run_refresh(hashed_key<key_type>{due.key, due.hash}, due.mine, due.loader);
    });
  }

 private:
  struct work {
    std::shared_ptr<refresh_gate> gate;
    Cache& cache;  // stands while the gate was entered
    const key_type key;
    const std::uint64_t hash;
    const std::shared_ptr<flight> mine;
    Loader loader;
  };

  /// The loader ends before the gate is left: what it refers to may end with the cache.
  template <class Last>
  void end(Last last) noexcept {
    std::unique_ptr<work> ending = std::move(work_);
    if (!ending) return;
    const std::shared_ptr<refresh_gate> gate = ending->gate;
    if (!gate->enter()) return;
    last(*ending);
    ending.reset();
    gate->leave();
  }

  std::unique_ptr<work> work_;  // null once run
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
