// Kinds of entries for tests of maps: each says how a number becomes a key and a value, and back.
//
// A kind has key, value, hash, equal; make_key(n), make_value(n); number_of_key(), of any 16-bit
// number; number_of_value(), below `values`. The kinds differ in what a map may treat apart: size,
// padding, alignment, what copies and what throws.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "veltrix/concurrent_map.hpp"

namespace veltrix_test {

using veltrix::detail::default_equal;
using veltrix::detail::default_hash;

/// The hash and equality that a map takes unasked.
template <class Key>
struct plain_functions {
  using key = Key;
  using hash = default_hash<Key>;
  using equal = default_equal;
};

// --- small and trivially copyable ---------------------------------------------------------------

struct word_to_word : plain_functions<std::uint64_t> {
  using value = std::uint64_t;
  static constexpr std::uint32_t values = 1'000'000;
  static key make_key(std::uint32_t n) { return std::uint64_t{n} * 0x1'0001'0001ULL; }
  static value make_value(std::uint32_t n) { return ~std::uint64_t{n}; }
  static std::uint32_t number_of_key(key k) { return static_cast<std::uint32_t>(k & 0xffff); }
  static std::uint32_t number_of_value(value v) { return static_cast<std::uint32_t>(~v); }
};

struct number_to_byte : plain_functions<std::uint32_t> {
  using value = std::uint8_t;
  static constexpr std::uint32_t values = 256;
  static key make_key(std::uint32_t n) { return n << 16; }
  static value make_value(std::uint32_t n) { return static_cast<value>(n); }
  static std::uint32_t number_of_key(key k) { return k >> 16; }
  static std::uint32_t number_of_value(value v) { return v; }
};

enum class color : std::uint16_t {};

/// The values are NaNs, which keep what they carry and do not equal themselves.
struct enum_to_nan : plain_functions<color> {
  using value = double;
  static constexpr std::uint32_t values = 1'000'000;
  static constexpr std::uint64_t quiet = 0x7ff8'0000'0000'0000ULL;
  static key make_key(std::uint32_t n) { return static_cast<color>(n); }
  static value make_value(std::uint32_t n) {
    const std::uint64_t bits = quiet | n;
    value made;
    std::memcpy(&made, &bits, sizeof made);
    return made;
  }
  static std::uint32_t number_of_key(key k) { return static_cast<std::uint32_t>(k); }
  static std::uint32_t number_of_value(value v) {
    std::uint64_t bits = 0;
    std::memcpy(&bits, &v, sizeof bits);
    return static_cast<std::uint32_t>(bits ^ quiet);
  }
};

struct wide_key {
  std::uint64_t high;
  std::uint64_t low;
  bool operator==(const wide_key&) const = default;
};
struct wide_key_hash {
  std::size_t operator()(const wide_key& k) const {
    return static_cast<std::size_t>(k.high * 31 + k.low);
  }
};
struct nothing {};

struct wide_to_nothing {
  using key = wide_key;
  using value = nothing;
  using hash = wide_key_hash;
  using equal = default_equal;
  static constexpr std::uint32_t values = 1;
  static key make_key(std::uint32_t n) { return {n % 7, n}; }
  static value make_value(std::uint32_t) { return {}; }
  static std::uint32_t number_of_key(const key& k) { return static_cast<std::uint32_t>(k.low); }
  static std::uint32_t number_of_value(value) { return 0; }
};

/// Its padding is never the same twice; equal is who has equal members.
template <class Number>
struct padded {
  Number number;
  std::uint8_t rest;
  bool operator==(const padded&) const = default;

  static padded make(std::uint32_t n) {
    static thread_local unsigned char filling = 1;
    padded made;
    std::memset(static_cast<void*>(&made), filling += 3, sizeof made);
    made.number = static_cast<Number>(n);
    made.rest = static_cast<std::uint8_t>(n % 5);
    return made;
  }
};
struct padded_hash {
  std::size_t operator()(const padded<std::uint64_t>& k) const {
    return static_cast<std::size_t>(k.number);
  }
};

struct padded_to_padded {
  using key = padded<std::uint64_t>;
  using value = padded<std::uint32_t>;
  using hash = padded_hash;
  using equal = default_equal;
  static constexpr std::uint32_t values = 1'000'000;
  static key make_key(std::uint32_t n) { return key::make(n); }
  static value make_value(std::uint32_t n) { return value::make(n); }
  static std::uint32_t number_of_key(const key& k) { return static_cast<std::uint32_t>(k.number); }
  static std::uint32_t number_of_value(const value& v) { return v.number; }
};

/// Views of the same text at two places: equal, not the same bytes.
struct view_to_number : plain_functions<std::string_view> {
  using value = std::int32_t;
  static constexpr std::uint32_t values = 1'000'000;
  static const std::vector<std::string>& texts(bool second) {
    static const auto make = [] {
      std::vector<std::string> all;
      for (int n = 0; n < 0x10000; ++n)
        all.push_back("key " + std::to_string(n));
      return all;
    };
    static const std::vector<std::string> one = make();
    static const std::vector<std::string> other = make();
    return second ? other : one;
  }
  static key make_key(std::uint32_t n) {
    static thread_local bool second = false;
    second = !second;
    return texts(second)[n];
  }
  static value make_value(std::uint32_t n) { return -static_cast<value>(n); }
  static std::uint32_t number_of_key(key k) {
    std::uint32_t n = 0;
    for (const char digit : k.substr(4))
      n = n * 10 + static_cast<std::uint32_t>(digit - '0');
    return n;
  }
  static std::uint32_t number_of_value(value v) { return static_cast<std::uint32_t>(-v); }
};

/// Trivially copyable, yet neither assignable nor default constructible, and hides its address.
template <class Number>
struct fixed {
  explicit fixed(std::uint32_t n) : number(static_cast<Number>(n)) {}
  fixed* operator&() = delete;              // NOLINT: on purpose
  const fixed* operator&() const = delete;  // NOLINT: on purpose
  bool operator==(const fixed&) const = default;
  const Number number;
};
struct fixed_hash {
  std::size_t operator()(const fixed<std::uint16_t>& k) const { return k.number; }
};

struct fixed_to_fixed {
  using key = fixed<std::uint16_t>;
  using value = fixed<std::uint32_t>;
  using hash = fixed_hash;
  using equal = default_equal;
  static constexpr std::uint32_t values = 1'000'000;
  static key make_key(std::uint32_t n) { return key(n); }
  static value make_value(std::uint32_t n) { return value(n); }
  static std::uint32_t number_of_key(const key& k) { return k.number; }
  static std::uint32_t number_of_value(const value& v) { return v.number; }
};

/// A key with bytes that have no meaning; its zeros are equal and differ in a bit.
struct long_double_to_pointer : plain_functions<long double> {
  using value = const char*;
  static constexpr std::uint32_t values = 4096;
  static inline const char place[values] = {};
  static key make_key(std::uint32_t n) {
    static thread_local bool negative = false;
    negative = !negative;
    return n == 0 && negative ? -0.0L : static_cast<key>(n) / 8;
  }
  static value make_value(std::uint32_t n) { return n == 0 ? nullptr : place + n; }
  static std::uint32_t number_of_key(key k) { return static_cast<std::uint32_t>(k * 8); }
  static std::uint32_t number_of_value(value v) {
    return v == nullptr ? 0 : static_cast<std::uint32_t>(v - place);
  }
};

// --- larger, or not trivial ---------------------------------------------------------------------

/// `Bytes` bytes that all follow from the number, so that a mix of two shows.
template <std::size_t Bytes, std::size_t Alignment = 1>
struct alignas(Alignment) block {
  unsigned char bytes[Bytes] = {};

  static block make(std::uint32_t n) {
    block made;
    if (n == 0) return made;  // as Value() is
    std::memcpy(made.bytes, &n, sizeof n);
    for (std::size_t i = sizeof n; i < Bytes; ++i)
      made.bytes[i] = filling(n, i);
    return made;
  }
  /// Its number, or one that nobody has if it is mixed or stands where it must not.
  [[nodiscard]] std::uint32_t number() const {
    std::uint32_t n = 0;
    std::memcpy(&n, bytes, sizeof n);
    if (reinterpret_cast<std::uintptr_t>(this) % Alignment != 0) return ~std::uint32_t{0};
    for (std::size_t i = sizeof n; i < Bytes; ++i) {
      if (bytes[i] != (n == 0 ? 0 : filling(n, i))) return ~std::uint32_t{0};
    }
    return n;
  }

 private:
  static unsigned char filling(std::uint32_t n, std::size_t i) {
    return static_cast<unsigned char>(n * 7 + i);
  }
};

template <class Value>
struct word_to_block : plain_functions<std::uint64_t> {
  using value = Value;
  static constexpr std::uint32_t values = 1'000'000;
  static key make_key(std::uint32_t n) { return n; }
  static value make_value(std::uint32_t n) { return value::make(n); }
  static std::uint32_t number_of_key(key k) { return static_cast<std::uint32_t>(k); }
  static std::uint32_t number_of_value(const value& v) { return v.number(); }
};

struct text_key : plain_functions<std::string> {
  static key make_key(std::uint32_t n) {
    return (n % 2 == 0 ? "short " : "a key that does not fit in place ") + std::to_string(n);
  }
  static std::uint32_t number_of_key(const key& k) {
    return static_cast<std::uint32_t>(std::stoul(k.substr(k.rfind(' '))));
  }
};

struct text_to_block : text_key {
  using value = block<24>;
  static constexpr std::uint32_t values = 1'000'000;
  static value make_value(std::uint32_t n) { return value::make(n); }
  static std::uint32_t number_of_value(const value& v) { return v.number(); }
};

/// Trivially copyable, of several words, yet neither assignable nor default constructible.
struct fixed_block {
  explicit fixed_block(std::uint32_t n) : bytes(block<20>::make(n)), number(n) {}
  const block<20> bytes;
  const std::uint32_t number;
};

struct text_to_fixed : text_key {
  using value = fixed_block;
  static constexpr std::uint32_t values = 1'000'000;
  static value make_value(std::uint32_t n) { return value(n); }
  static std::uint32_t number_of_value(const value& v) {
    return v.bytes.number() == v.number ? v.number : ~std::uint32_t{0};
  }
};

struct text_to_text : text_key {
  using value = std::string;
  static constexpr std::uint32_t values = 1'000'000;
  static value make_value(std::uint32_t n) {
    return n == 0 ? "" : std::string(n % 50, '0') + std::to_string(n);
  }
  static std::uint32_t number_of_value(const value& v) {
    return v.empty() ? 0 : static_cast<std::uint32_t>(std::stoul(v));
  }
};

/// Moves, and does not copy.
struct word_to_owner : plain_functions<std::uint64_t> {
  using value = std::unique_ptr<std::uint32_t>;
  static constexpr std::uint32_t values = 1'000'000;
  static key make_key(std::uint32_t n) { return n; }
  static value make_value(std::uint32_t n) { return std::make_unique<std::uint32_t>(n); }
  static std::uint32_t number_of_key(key k) { return static_cast<std::uint32_t>(k); }
  static std::uint32_t number_of_value(const value& v) { return *v; }
};

/// As long as a word, but with a copy of its own making: it must not be copied byte by byte.
class self_pointing {
 public:
  explicit self_pointing(std::uint32_t n) : number_(n) {}
  self_pointing(const self_pointing& other) : number_(other.number()) {}
  self_pointing& operator=(const self_pointing& other) {
    number_ = other.number();
    return *this;
  }
  ~self_pointing() { number_ = ~std::uint32_t{0}; }
  [[nodiscard]] std::uint32_t number() const {
    return here_ == low_bits(this) ? number_ : ~std::uint32_t{0};
  }

 private:
  static std::uint32_t low_bits(const self_pointing* at) {
    return static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(at));
  }
  std::uint32_t number_;
  std::uint32_t here_ = low_bits(this);
};

struct word_to_self_pointing : plain_functions<std::uint64_t> {
  using value = self_pointing;
  static constexpr std::uint32_t values = 1'000'000;
  static key make_key(std::uint32_t n) { return n; }
  static value make_value(std::uint32_t n) { return value(n); }
  static std::uint32_t number_of_key(key k) { return static_cast<std::uint32_t>(k); }
  static std::uint32_t number_of_value(const value& v) { return v.number(); }
};

/// A key one byte too long for two words.
struct long_key_hash {
  std::size_t operator()(const block<17>& k) const { return k.number(); }
};
struct long_key_equal {
  bool operator()(const block<17>& left, const block<17>& right) const {
    return std::memcmp(left.bytes, right.bytes, sizeof left.bytes) == 0;
  }
};
struct long_key_to_byte {
  using key = block<17>;
  using value = std::uint8_t;
  using hash = long_key_hash;
  using equal = long_key_equal;
  static constexpr std::uint32_t values = 256;
  static key make_key(std::uint32_t n) { return key::make(n); }
  static value make_value(std::uint32_t n) { return static_cast<value>(n); }
  static std::uint32_t number_of_key(const key& k) { return k.number(); }
  static std::uint32_t number_of_value(value v) { return v; }
};

// --- the same with other hashes -----------------------------------------------------------------

/// A kind whose hash says that it avalanches, so that a map takes it as it is, without a seed.
template <class Kind>
struct hashed_badly : Kind {
  struct hash {
    using is_avalanching = void;
    static constexpr int one_for_all = -1;
    static constexpr int spread = 64;
    static inline int shift = 0;  ///< the number stands so high; or one of the two above

    std::size_t operator()(const typename Kind::key& k) const {
      const std::uint32_t n = Kind::number_of_key(k);
      if (shift == one_for_all) return 7;
      if (shift == spread) return static_cast<std::size_t>(veltrix::detail::mix(n, 99));
      return std::size_t{n} << shift;
    }
  };
};

}  // namespace veltrix_test
