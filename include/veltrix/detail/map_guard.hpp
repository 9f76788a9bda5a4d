// Keeps one entry of a map alive and unchanged, whatever happens to its key.
// Use for: what concurrent_map::find and get_or_emplace return. Internal.
// Not for: keeping an entry longer than its map.
// Threads: a guard from one thread at a time, be it another than the one that took it.
// Progress: wait-free; the last holder of an entry that left the map destroys it.
// Callbacks: destructors of the key and the value, no lock held.
// Exceptions: none.
// Lifetime: the map outlives its guards. References end when the guard is moved from, reset or
//   destroyed.
// Guide: docs/concurrent_map.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

#include "config.hpp"
#include "look_slots.hpp"
#include "reader_record.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// An entry kept alive and unchanged, blocking nobody: a node that is shown or held, or a copy of
/// what stands in words.
template <class Store>
class map_pin {
 public:
  using entry = typename Store::entry;
  using node = typename Store::node;
  static constexpr bool in_words = Store::in_words;

  map_pin() = default;
  map_pin(const Store& store, const entry& copied) : store_(&store) {
    if constexpr (in_words) kept_.emplace(copied);
  }
  /// Takes over a hold, or what is shown in a slot.
  map_pin(const Store& store, node* held, look_slots::slot* shown_in) noexcept : store_(&store) {
    if constexpr (!in_words) kept_ = {held, shown_in};
  }
  map_pin(map_pin&& other) noexcept { take(other); }
  map_pin& operator=(map_pin&& other) noexcept {
    if (this != &other) {
      reset();
      take(other);
    }
    return *this;
  }
  ~map_pin() { reset(); }

  [[nodiscard]] const entry* get() const noexcept {
    if constexpr (in_words) {
      return kept_ ? std::addressof(*kept_) : nullptr;
    } else {
      return kept_.held == nullptr ? nullptr : std::addressof(kept_.held->entry);
    }
  }
  [[nodiscard]] const Store* store() const noexcept { return store_; }

  /// What the slot shows, if anything: the pin clears it.
  void show(node* shown) noexcept
    requires(!in_words)
  {
    kept_.held = shown;
    if (shown == nullptr) reset();
  }
  /// A hold instead of what is shown, where the slot is needed.
  void hold() noexcept
    requires(!in_words)
  {
    if (kept_.held == nullptr) return;
    kept_.held->hold();
    reader_record::clear(*std::exchange(kept_.shown_in, nullptr), store_->domain.free_word());
  }
  void reset() noexcept {
    if constexpr (in_words) {
      kept_.reset();
    } else {
      const held_node old = std::exchange(kept_, {});
      if (old.shown_in != nullptr) {
        reader_record::clear(*old.shown_in, store_->domain.free_word());
      } else if (old.held != nullptr) {
        store_->let_go(*old.held);
      }
    }
  }

 private:
  void take(map_pin& other) noexcept {
    store_ = other.store_;
    if constexpr (in_words) {
      if (other.kept_) kept_.emplace(*other.kept_);
      other.kept_.reset();
    } else {
      kept_ = std::exchange(other.kept_, {});
    }
  }

  struct held_node {
    node* held = nullptr;
    look_slots::slot* shown_in = nullptr;  // null: one of its holds is this
  };
  const Store* store_ = nullptr;
  std::conditional_t<in_words, std::optional<entry>, held_node> kept_{};
};

template <class Store>
class [[nodiscard]] map_guard {
 public:
  using key_type = typename Store::key_type;
  using mapped_type = typename Store::mapped_type;

  map_guard() = default;
  explicit map_guard(map_pin<Store>&& held) noexcept : pin_(std::move(held)) {
    if (*this) pin_.store()->locks.use.guard_taken();
  }
  map_guard(map_guard&& other) noexcept = default;
  map_guard& operator=(map_guard&& other) noexcept {
    if (this != &other) {
      reset();
      pin_ = std::move(other.pin_);
    }
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
    pin_.store()->locks.use.guard_released();
    pin_.reset();
  }

 private:
  const typename Store::entry& held() const noexcept {
    VELTRIX_ASSERT(pin_.get() != nullptr, "an empty concurrent_map::guard was read");
    return *pin_.get();
  }

  map_pin<Store> pin_;  // own thread only
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
