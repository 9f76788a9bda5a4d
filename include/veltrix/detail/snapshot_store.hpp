// The versions of a snapshot_cell: the one in force, the kept ones, and the wait for newer ones.
// Use for: the inside of snapshot_cell, which adds all that calls user code. Internal.
// Not for: anything else.
// Threads: all members from any thread.
// Progress: a lock held for a few pointer copies; wait_until_version() blocks.
// Callbacks: none; values are destroyed with no lock held.
// Exceptions: std::bad_alloc, and nothing has changed then.
// Lifetime: values live as long as anybody holds them, the store or a caller.
// Guide: docs/snapshot_cell.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "../stop_token.hpp"
#include "count_mark.hpp"
#include "notifier.hpp"
#include "stoppable_wait.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// Versions count from 1, one by one. The list of them and the version number change together,
/// under mutex_; nothing else happens there, so a reader waits for pointer copies only.
///
/// I1: after begin(), versions_ is not empty, sorted by version without gaps, the newest last, and
///     holds at most 1 + history_ of them.
/// I2: version_ is versions_.back().version whenever mutex_ is free.
template <class T>
class snapshot_store {
 public:
  explicit snapshot_store(std::size_t history) : history_(history) {}
  snapshot_store(const snapshot_store&) = delete;
  snapshot_store& operator=(const snapshot_store&) = delete;

  /// The value returned by `make()`, built in place, not yet in force.
  template <class Make>
  std::shared_ptr<const T> box(Make& make) const {
    auto made = std::make_shared<boxed>(alive_, make);
    const T* const value = std::addressof(made->value);
    return std::shared_ptr<const T>(std::move(made), value);
  }

  /// Puts version 1 in force; before any other use.
  void begin(std::shared_ptr<const T> first) { versions_.push_back({std::move(first), 1}); }

  [[nodiscard]] versioned<T> newest() const {
    const lock_guard lock(mutex_);
    return versions_.back();
  }

  [[nodiscard]] std::uint64_t version() const noexcept {
    // (1) acquire-load; pairs with release-store (2). Who sees a version sees all that its
    // publisher did before.
    return version_.load(sync::acquire);
  }

  /// Puts `value` in force and wakes the waiters. Result: its version, or 0 if `expected` is given
  /// and not in force.
  std::uint64_t install(const std::shared_ptr<const T>& value,
                        std::optional<std::uint64_t> expected) {
    std::list<versioned<T>> fresh;    // a node made outside the lock; nothing below throws
    std::list<versioned<T>> dropped;  // ends outside the lock: ~T() is a user's
    fresh.push_back({value, 0});
    std::uint64_t version = 0;
    {
      const lock_guard lock(mutex_);
      version = versions_.back().version;
      if (expected && *expected != version) return 0;
      fresh.front().version = ++version;
      versions_.splice(versions_.end(), fresh);
      if (versions_.size() - 1 > history_) {
        dropped.splice(dropped.end(), versions_, versions_.begin());
      }
      // (2) release-store; pairs with acquire-load (1). Publishes: what the publisher did before.
      version_.store(version, sync::release);
    }
    grew_.notify_all();
    return version;
  }

  /// The value of a kept version, or null.
  [[nodiscard]] std::shared_ptr<const T> find(std::uint64_t version) const {
    const lock_guard lock(mutex_);
    const auto found = std::find_if(versions_.begin(), versions_.end(),
                                    [&](const auto& kept) { return kept.version == version; });
    return found == versions_.end() ? nullptr : found->value;
  }

  /// The newest `count` of the kept versions, newest first.
  [[nodiscard]] std::vector<versioned<T>> history(std::size_t count) const {
    std::vector<versioned<T>> kept;
    for (std::size_t wanted = 0;;) {
      kept.reserve(wanted);  // outside the lock, for as many as there were
      const lock_guard lock(mutex_);
      wanted = std::min(count, versions_.size());
      if (kept.capacity() < wanted) continue;
      for (auto each = versions_.rbegin(); kept.size() < wanted; ++each)
        kept.push_back(*each);
      return kept;
    }
  }

  /// Waits until version() >= `wanted`, looking first. Result: the version in force at the end.
  std::uint64_t wait_until_version(std::uint64_t wanted,
                                   std::chrono::steady_clock::time_point deadline,
                                   const stop_token& token) const {
    sync::unique_lock<sync::mutex> lock(mutex_);
    // woken by install(), after it stored the version; by the token; by the deadline
    wait_until(lock, grew_, deadline, token, [&] { return versions_.back().version >= wanted; });
    return versions_.back().version;
  }

  /// Values not yet destroyed, whoever holds them.
  [[nodiscard]] std::size_t alive() const noexcept {
    return alive_->load(sync::relaxed);  // relaxed: statistics only
  }

 private:
  using lock_guard = sync::lock_guard<sync::mutex>;
  using counter = sync::atomic<std::size_t>;

  struct boxed {
    template <class Make>
    boxed(std::shared_ptr<counter> alive, Make& make) : mark(std::move(alive)), value(make()) {}

    count_mark<std::shared_ptr<counter>> mark;  // ends after value
    T value;
  };

  const std::size_t history_;
  const std::shared_ptr<counter> alive_ = std::make_shared<counter>(0);  // outlives the values
  mutable sync::mutex mutex_;              // guards versions_ and writes of version_
  mutable sync::condition_variable grew_;  // version_ grew
  std::list<versioned<T>> versions_;       // guarded by mutex_
  sync::atomic<std::uint64_t> version_{1};
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
