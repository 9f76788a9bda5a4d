// A value in a map's node that is replaced in place while readers copy it.
// Use for: entries whose key does not fit into a slot, but whose value fits into a word. Internal.
// Not for: other values: they are replaced with their node.
// Threads: get() from any thread; set() from one at a time, with the shard's lock.
// Progress: wait-free.
// Callbacks: constructors of the value, where it is made.
// Exceptions: theirs.
// Lifetime: that of its node.
// Guide: docs/concurrent_map.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>

#include "config.hpp"
#include "default_hash.hpp"
#include "map_slots.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// Whether a value in a node is replaced in place. A merge copies the key of such an entry: so that
/// no reader of one map finds a value that was put into another.
template <class Key, class Value>
inline constexpr bool changes_in_place =
    !stands_in_words<Key, Value> && std::is_copy_constructible_v<Key> &&
    std::is_trivially_copyable_v<Value> && std::is_copy_constructible_v<Value> &&
    sizeof(Value) <= 8 && alignof(Value) <= 8;

/// Whether keys that compare equal are the same in every respect, so that one may stay for another.
template <class Key, class Equal>
inline constexpr bool equal_is_same = false;
template <class Key>
  requires(std::is_integral_v<Key> || std::is_enum_v<Key> || std::is_pointer_v<Key>)
inline constexpr bool equal_is_same<Key, default_equal> = true;
template <class Char, class Allocator>
inline constexpr bool
    equal_is_same<std::basic_string<Char, std::char_traits<Char>, Allocator>, default_equal> =
        std::is_integral_v<Char>;

/// One atomic word, so that no reader meets half a value.
template <class Value>
class value_in_place {
  using copy = word_copy<Value>;
  using words = typename copy::array;

 public:
  template <class... Arguments>
    requires std::constructible_from<Value, Arguments...>
  value_in_place(Arguments&&... arguments)  // as implicit as std::pair wants its member
      noexcept(std::is_nothrow_constructible_v<Value, Arguments...>) {
    const words made = copy::of(Value(std::forward<Arguments>(arguments)...));
    // relaxed: in no table yet
    if constexpr (copy::words != 0) words_[0].store(made[0], sync::relaxed);
  }
  value_in_place(const value_in_place&) = delete;
  value_in_place& operator=(const value_in_place&) = delete;

  [[nodiscard]] Value get() const noexcept {
    words found{};
    // (1) acquire-load; pairs with release-store (2). Sees: what the value's writer did before.
    if constexpr (copy::words != 0) found[0] = words_[0].load(sync::acquire);
    return copy::back(found);
  }
  void set(const Value& next) noexcept {
    const words made = copy::of(next);
    // (2) release-store; pairs with acquire-load (1). Publishes: what the writer did before.
    if constexpr (copy::words != 0) words_[0].store(made[0], sync::release);
  }

 private:
  [[no_unique_address]] std::array<sync::atomic<std::uint64_t>, copy::words> words_{};
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
