// A value in a map's node that is replaced in place while readers copy it.
// Use for: entries too large for a slot whose value is plain and at most a line. Internal.
// Not for: other values: they are replaced with their node.
// Threads: get() from any thread; set() from one at a time, with the shard's lock.
// Progress: set() wait-free, get() lock-free: a value of several words is read again if a writer
//   has got on meanwhile.
// Callbacks: constructors of the value, where it is made.
// Exceptions: theirs.
// Lifetime: that of its node.
// Guide: docs/concurrent_map.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
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
    sizeof(Value) <= cache_line && alignof(Value) <= cache_line;

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

/// A copy of a value, in memory that is written word by word as the words come: copied whole after
/// that, it would have to wait for all of them.
template <class Value>
union copied_value {
  copied_value() noexcept {}  // nothing yet
  operator const Value&() const noexcept { return value; }
  Value value;
};

/// A copy of the value that found(key, value) shows, if it shows one. A plain value is joined with
/// the flag of its optional at the end, in registers: joined in memory, it would be waited for.
template <class Value>
class value_copy {
 public:
  [[nodiscard]] auto taker() noexcept {
    if constexpr (plain) {
      return [this](const auto&, const Value& shown) {
        std::construct_at(std::addressof(kept_.value), shown);
      };
    } else {
      return [this](const auto&, const Value& shown) { kept_.emplace(shown); };
    }
  }
  [[nodiscard, gnu::always_inline]] std::optional<Value> if_taken(bool taken) && {
    if constexpr (plain) {
      return taken ? std::optional<Value>(kept_.value) : std::nullopt;
    } else {
      return static_cast<void>(taken), std::move(kept_);
    }
  }

 private:
  static constexpr bool plain = std::is_trivially_copyable_v<Value>;
  std::conditional_t<plain, copied_value<Value>, std::optional<Value>> kept_;
};

/// A value in words that one thread writes while others read them, each by itself. Who reads one
/// sees what its writer did before. Each word is a call of its own: g++ 12 would leave a loop one.
template <class Value>
class shared_words {
 public:
  template <std::size_t At = 0>
  [[gnu::always_inline]] void read(copied_value<Value>& into) const noexcept {
    if constexpr (At != count) {
      // (1) acquire-load; pairs with release-store (2). Sees: what the writer did before: the value
      // of a word; of several, a stage that says that they are being written.
      const std::uint64_t found = words_[At].load(sync::acquire);
      std::memcpy(byte(into.value, At), &found, bytes(At));
      read<At + 1>(into);
    }
  }
  template <std::size_t At = 0>
  [[gnu::always_inline]] void write(const Value& next) noexcept {
    if constexpr (At != count) {
      // (2) release-store; pairs with acquire-load (1). Publishes: what the writer did before.
      words_[At].store(word(next, At), sync::release);
      write<At + 1>(next);
    }
  }
  /// Before anybody else knows of it.
  template <std::size_t At = 0>
  [[gnu::always_inline]] void init(const Value& first) noexcept {
    if constexpr (At != count) {
      words_[At].store(word(first, At), sync::relaxed);  // relaxed: in no table yet
      init<At + 1>(first);
    }
  }

 private:
  static constexpr std::size_t count = word_copy<Value>::words;

  static constexpr std::size_t bytes(std::size_t at) noexcept {
    return std::min(sizeof(std::uint64_t), sizeof(Value) - at * sizeof(std::uint64_t));
  }
  static unsigned char* byte(Value& of, std::size_t at) noexcept {
    return reinterpret_cast<unsigned char*>(std::addressof(of)) + at * sizeof(std::uint64_t);
  }
  [[gnu::always_inline]] static std::uint64_t word(const Value& of, std::size_t at) noexcept {
    std::uint64_t made = 0;
    std::memcpy(&made,
                reinterpret_cast<const unsigned char*>(std::addressof(of)) + at * sizeof made,
                bytes(at));
    return made;
  }

  [[no_unique_address]] std::array<sync::atomic<std::uint64_t>, count> words_{};
};

/// A value in a node. Up to a word, one store replaces it. One of several words its writer leaves
/// in its shard's transit first, so that whoever meets it half written reads it there, and nobody
/// waits for a writer that lost its processor.
///
/// I1: stage_ is even while the words are whole, odd while they are being written: then the value
///     is the one in transit. It only grows.
/// I2: what is in transit is written only while no stage of its shard is odd. So a stage that is
///     unchanged after the words were read, in either place, says that they belong together.
template <class Value>
class value_in_place {
  static constexpr bool in_one_store = sizeof(Value) <= sizeof(std::uint64_t);
  struct nothing {};
  struct alignas(sync::repeatable ? alignof(shared_words<Value>) : cache_line) room {
    shared_words<Value> words;
  };

 public:
  using transit = std::conditional_t<in_one_store, nothing, room>;

  template <class... Arguments>
    requires std::constructible_from<Value, Arguments...>
  value_in_place(Arguments&&... arguments)  // as implicit as std::pair wants its member
      noexcept(std::is_nothrow_constructible_v<Value, Arguments...>) {
    init(Value(std::forward<Arguments>(arguments)...));
  }
  value_in_place(const value_in_place&) = delete;
  value_in_place& operator=(const value_in_place&) = delete;

  /// Before it is in a table.
  void init(const Value& first) noexcept { words_.init(first); }

  /// Lock-free: again only if a value of several words was replaced meanwhile.
  [[gnu::always_inline]] void get(copied_value<Value>& into,
                                  [[maybe_unused]] const transit& beside) const noexcept {
    if constexpr (in_one_store) {
      words_.read(into);
    } else {
      for (;;) {
        // (3) acquire-load; pairs with release-store (4), release-store (5). Sees: the value in
        // transit, or the words.
        const std::uint64_t stage = stage_.load(sync::acquire);
        const shared_words<Value>& whole = stage % 2 == 0 ? words_ : beside.words;
        whole.read(into);
        // relaxed: after the acquire-loads of the words, see I2
        if (stage_.load(sync::relaxed) == stage) [[likely]]
          return;
      }
    }
  }
  /// By one at a time, with the shard's lock. Wait-free.
  void set(const Value& next, [[maybe_unused]] transit& beside) noexcept {
    if constexpr (in_one_store) {
      words_.write(next);
    } else {
      const std::uint64_t stage = stage_.load(sync::relaxed);  // relaxed: the writer's own
      beside.words.write(next);
      // (4) release-store; pairs with acquire-load (3). Publishes: the value in transit. From here
      // on it is the entry's.
      stage_.store(stage + 1, sync::release);
      words_.write(next);
      // (5) release-store; pairs with acquire-load (3). Publishes: the words.
      stage_.store(stage + 2, sync::release);
    }
  }

 private:
  [[no_unique_address]] std::conditional_t<in_one_store, nothing, sync::atomic<std::uint64_t>>
      stage_{};
  shared_words<Value> words_;
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
