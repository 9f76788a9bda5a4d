// What concurrent_map accepts as a key, a visitor or a range, decided at compile time.
// Use for: the overloads of concurrent_map and of what is built on it. Internal.
// Not for: run time; only call_entry() and key_match do anything then.
// Threads: pure functions.
// Progress: wait-free.
// Callbacks: call_entry() calls the visitor it is given, key_match Equal.
// Exceptions: theirs.
// Lifetime: stateless; a key_match within one operation.
// Guide: docs/concurrent_map.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <concepts>
#include <iterator>
#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>

#include "config.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

template <class Function>
concept transparent = requires { typename Function::is_transparent; };

/// `Other` can stand for a `Key` in look-ups, unconverted: equal ones hash and compare equal.
template <class Other, class Key, class Hash, class Equal>
concept stands_for = transparent<Hash> && transparent<Equal> &&
                     std::invocable<const Hash&, const std::remove_cvref_t<Other>&> &&
                     std::predicate<const Equal&, const Key&, const std::remove_cvref_t<Other>&>;

/// The type a look-up takes its key by: any type where the functions are transparent (and deducible
/// then), else Key.
template <bool AnyType, class Key>
struct lookup_argument {
  template <class Other>
  using type = Other;
};
template <class Key>
struct lookup_argument<false, Key> {
  template <class Other>
  using type = Key;
};

/// Tells the entry of a key: one word where Equal has no state, so that it travels in a register.
template <class Equal, class Other>
class key_match {
 public:
  key_match(const Equal& equal, const Other& key) noexcept
      : equal_(keep(equal)), key_(std::addressof(key)) {}
  template <class Key>
  [[nodiscard]] bool operator()(const Key& present) const {
    if constexpr (stateless) {
      return static_cast<bool>(equal_(present, *key_));
    } else {
      return static_cast<bool>((*equal_)(present, *key_));
    }
  }

 private:
  static constexpr bool stateless = std::is_empty_v<Equal> && std::is_trivially_copyable_v<Equal>;
  using kept = std::conditional_t<stateless, Equal, const Equal*>;
  static kept keep(const Equal& equal) noexcept {
    if constexpr (stateless) {
      return equal;
    } else {
      return std::addressof(equal);
    }
  }

  [[no_unique_address]] const kept equal_;
  const Other* const key_;
};

/// Reads an entry: f(value), or f(key, value).
template <class Function, class Key, class Value>
concept entry_visitor =
    std::invocable<Function&, const Key&, const Value&> || std::invocable<Function&, const Value&>;

/// Judges an entry: true from f(value), or from f(key, value).
template <class Function, class Key, class Value>
concept entry_predicate =
    std::predicate<Function&, const Key&, const Value&> || std::predicate<Function&, const Value&>;

/// Changes a value in place.
template <class Function, class Value>
concept value_update = std::invocable<Function&, Value&>;

/// Makes a value: a function without arguments that is not itself a Value.
template <class Function, class Value>
concept value_factory =
    !std::same_as<std::remove_cvref_t<Function>, Value> && std::invocable<Function&> &&
    std::is_constructible_v<Value, std::invoke_result_t<Function&>>;

/// Calls `f` as an entry_visitor or entry_predicate; the form with the key is preferred.
template <class Function, class Key, class Value>
decltype(auto) call_entry(Function& f, const Key& key, const Value& value) {
  if constexpr (std::invocable<Function&, const Key&, const Value&>) {
    return f(key, value);
  } else {
    return f(value);
  }
}

/// Has a first and a second, as std::pair does.
template <class Pair>
concept pair_like = requires(Pair&& pair) {
  std::get<0>(std::forward<Pair>(pair));
  std::get<1>(std::forward<Pair>(pair));
  requires std::tuple_size<std::remove_cvref_t<Pair>>::value == 2;
};

/// Can be walked from begin to end.
template <class Range>
concept iterable = requires(Range& range) {
  *std::begin(range);
  std::end(range);
};

/// What a map of `Key` takes as a key.
template <class Key, class Hash, class Equal>
struct key_rules {
  template <class Other>
  using argument =
      typename lookup_argument<transparent<Hash> && transparent<Equal>, Key>::template type<Other>;

  /// Looked up as it is.
  template <class Other>
  static constexpr bool unconverted =
      std::same_as<std::remove_cvref_t<Other>, Key> || stands_for<Other, Key, Hash, Equal>;

  /// Can be one key, rather than a range of them.
  template <class Other>
  static constexpr bool one_key = unconverted<Other> || std::is_convertible_v<Other, Key>;

  /// Can be one pair of a key and a value, rather than a range of them.
  template <class Pair>
  static constexpr bool one_pair = [] {
    if constexpr (pair_like<Pair>) {
      return one_key<decltype(std::get<0>(std::declval<Pair>()))>;
    } else {
      return false;
    }
  }();

  /// The argument as look-ups take it: itself, or a Key made of it.
  template <class Other>
  static decltype(auto) as_key(Other&& key) {
    if constexpr (unconverted<Other>) {
      return static_cast<Other&&>(key);
    } else {
      static_assert(
          !std::is_floating_point_v<std::remove_cvref_t<Other>> || !std::is_integral_v<Key>,
          "concurrent_map: a floating-point number would be cut to make a key");
      static_assert(
          std::is_convertible_v<Other, Key>,
          "concurrent_map: this is neither a Key, nor converts to one, nor is it taken by "
          "a Hash and an Equal that both have is_transparent");
      return static_cast<Key>(std::forward<Other>(key));
    }
  }
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
