// Keeps one entry of a map alive and unchanged, whatever happens to its key.
// Use for: what concurrent_map::find and get_or_emplace return. Internal.
// Not for: keeping an entry longer than its map.
// Threads: a guard stays in the thread that took it; guards of one entry are independent.
// Progress: wait-free; the last holder of an entry that left the map destroys it.
// Callbacks: destructors of the key and the value, no lock held.
// Exceptions: none.
// Lifetime: the map outlives its guards. References end when the guard is moved from, reset or
//   destroyed.
// Guide: docs/concurrent_map.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <memory>
#include <utility>

#include "config.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

template <class Store>
class [[nodiscard]] map_guard {
 public:
  using key_type = typename Store::key_type;
  using mapped_type = typename Store::mapped_type;

  map_guard() = default;
  explicit map_guard(typename Store::pin&& held) noexcept : pin_(std::move(held)) {
    if (*this) pin_.store()->use.guard_taken();
  }
  map_guard(map_guard&& other) noexcept = default;
  map_guard& operator=(map_guard&& other) noexcept {
    map_guard taken(std::move(other));
    std::swap(pin_, taken.pin_);
    return *this;
  }
  ~map_guard() { reset(); }

  [[nodiscard]] explicit operator bool() const noexcept { return pin_.get() != nullptr; }

  /// The entry's key and value; the guard must not be empty.
  [[nodiscard]] const key_type& key() const noexcept { return held().first; }
  [[nodiscard]] const mapped_type& value() const noexcept { return held().second; }
  [[nodiscard]] const mapped_type& operator*() const noexcept { return held().second; }
  [[nodiscard]] const mapped_type* operator->() const noexcept {
    return std::addressof(held().second);
  }

  /// Lets the entry go; the guard is empty then.
  void reset() noexcept {
    if (!*this) return;
    pin_.store()->use.guard_released();
    pin_.reset();
  }

 private:
  const typename Store::entry& held() const noexcept {
    VELTRIX_ASSERT(pin_.get() != nullptr, "an empty concurrent_map::guard was read");
    return *pin_.get();
  }

  typename Store::pin pin_;  // own thread only
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
