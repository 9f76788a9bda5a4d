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

#include <concepts>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

#include "config.hpp"
#include "look_slots.hpp"
#include "map_value.hpp"
#include "reader_record.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// An entry kept alive and unchanged, blocking nobody: a node that is shown or held, with a copy of
/// a value that is replaced in place; or a copy of what stands in words.
template <class Store>
class map_pin {
 public:
  using entry = typename Store::entry;
  using node = typename Store::node;
  static constexpr bool in_words = Store::in_words;
  static constexpr bool in_place = Store::types::in_place;

  map_pin() = default;
  map_pin(const Store& store, const entry& copied) : store_(&store) {
    if constexpr (in_words) kept_.emplace(copied);
  }
  /// Takes over a hold, or what is shown in a slot.
  map_pin(const Store& store, node* held, look_slots::slot* shown_in) noexcept : store_(&store) {
    if constexpr (!in_words) {
      kept_.held = held;
      kept_.shown_in = shown_in;
      copy_value();
    }
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

  [[nodiscard]] explicit operator bool() const noexcept {
    if constexpr (in_words) {
      return kept_.has_value();
    } else {
      return kept_.held != nullptr;
    }
  }
  /// Of a pin that keeps something.
  [[nodiscard]] const typename Store::key_type& key() const noexcept {
    if constexpr (in_words) {
      return kept_->first;
    } else {
      return kept_.held->entry.first;
    }
  }
  [[nodiscard]] const typename Store::mapped_type& value() const noexcept {
    if constexpr (in_words) {
      return kept_->second;
    } else if constexpr (in_place) {
      return kept_.value;
    } else {
      return kept_.held->entry.second;
    }
  }
  [[nodiscard]] const Store* store() const noexcept { return store_; }

  /// What the slot shows, if anything: the pin clears it.
  void show(node* shown) noexcept
    requires(!in_words)
  {
    kept_.held = shown;
    copy_value();
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
      node* const held = std::exchange(kept_.held, nullptr);
      if (auto* const shown_in = std::exchange(kept_.shown_in, nullptr)) {
        reader_record::clear(*shown_in, store_->domain.free_word());
      } else if (held != nullptr) {
        store_->let_go(*held);
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
      kept_.held = std::exchange(other.kept_.held, nullptr);
      kept_.shown_in = std::exchange(other.kept_.shown_in, nullptr);
      if constexpr (in_place) {
        if (kept_.held != nullptr)
          std::construct_at(std::addressof(kept_.value.value), other.kept_.value.value);
      }
    }
  }

  void copy_value() noexcept {
    if constexpr (in_place) {
      if (kept_.held == nullptr) return;
      kept_.held->entry.second.get(kept_.value, store_->shard_of(kept_.held->hash).transit);
    }
  }

  struct no_copy {};
  struct held_node {
    node* held = nullptr;
    look_slots::slot* shown_in = nullptr;  // null: one of its holds is this
    [[no_unique_address]] std::conditional_t<in_place, copied_value<typename Store::mapped_type>,
                                             no_copy> value{};  // while something is held
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
  explicit map_guard(map_pin<Store>&& held) noexcept : pin_(std::move(held)) { count(); }
  /// Made of what make() returns, which is not moved.
  template <std::invocable Make>
  explicit map_guard(const Make& make) : pin_(make()) {
    count();
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

  [[nodiscard]] explicit operator bool() const noexcept { return static_cast<bool>(pin_); }

  /// The entry's key and value; the guard must not be empty.
  [[nodiscard]] const key_type& key() const noexcept { return held().key(); }
  [[nodiscard]] const mapped_type& value() const noexcept { return held().value(); }
  [[nodiscard]] const mapped_type& operator*() const noexcept { return value(); }
  [[nodiscard]] const mapped_type* operator->() const noexcept { return std::addressof(value()); }

  /// Lets the entry go; the guard is empty then.
  void reset() noexcept {
    if (!*this) return;
    pin_.store()->locks.use.guard_released();
    pin_.reset();
  }

 private:
  void count() const noexcept {
    if (*this) pin_.store()->locks.use.guard_taken();
  }
  const map_pin<Store>& held() const noexcept {
    VELTRIX_ASSERT(static_cast<bool>(pin_), "an empty concurrent_map::guard was read");
    return pin_;
  }

  map_pin<Store> pin_;  // own thread only
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
