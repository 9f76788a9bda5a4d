// One body for libFuzzer, for the replay of a corpus, and for a comparison with a plain model.
// A target includes this, defines veltrix_fuzz::one_input(), and nothing else: libFuzzer brings its
// own main, replay.cpp is the other. Bytes decide everything: operations, schedule, faults, time.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>

#include "support/allocations.hpp"
#include "support/faults.hpp"

namespace veltrix_fuzz {

// --- a disagreement ------------------------------------------------------------------------------

/// The last operations, for the message of a disagreement.
class trace {
 public:
  static void add(const char* operation) noexcept { names()[count()++ % kept] = operation; }
  static void clear() noexcept { count() = 0; }
  static void print() noexcept {
    const std::size_t shown = std::min(count(), kept);
    std::fprintf(stderr, "fuzz: operation %zu; the last ones:", count());
    for (std::size_t i = count() - shown; i < count(); ++i)
      std::fprintf(stderr, " %s", names()[i % kept]);
    std::fputc('\n', stderr);
  }

 private:
  static constexpr std::size_t kept = 24;
  static const char** names() noexcept {
    static const char* ring[kept] = {};
    return ring;
  }
  static std::size_t& count() noexcept {
    static std::size_t added = 0;
    return added;
  }
};

/// Ends the process: what was found out of order, and where. Sanitizers, libFuzzer and replay.cpp
/// take the abort for what it is, and keep the input.
[[noreturn]] inline void disagree(std::string_view what, const char* file, int line) {
  veltrix_test::allocations_left = -1;
  std::fprintf(stderr, "fuzz: %s:%d: %.*s\n", file, line, static_cast<int>(what.size()),
               what.data());
  trace::print();
  std::fflush(stderr);
  std::abort();
}

/// Goes on only if `holds`.
inline void require(bool holds, std::string_view what, const char* file = __builtin_FILE(),
                    int line = __builtin_LINE()) {
  if (!holds) disagree(what, file, line);
}

template <class Type>
inline constexpr bool number = std::is_integral_v<Type> && !std::is_same_v<Type, bool>;

/// Goes on only if the answer is the model's.
template <class Got, class Expected>
void agree(const Got& got, const Expected& expected, std::string_view what,
           const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  if constexpr (number<Got> && number<Expected>) {
    if (std::cmp_equal(got, expected)) return;
    std::fprintf(stderr, "fuzz: got %lld, the model says %lld\n", static_cast<long long>(got),
                 static_cast<long long>(expected));
  } else {
    if (got == expected) return;
  }
  disagree(what, file, line);
}

// --- what the bytes say --------------------------------------------------------------------------

/// Hands the input out piece by piece. After its end everything is zero, so every input is a
/// program, and a longer one with the same beginning does the same first.
class byte_source {
 public:
  explicit byte_source(std::span<const std::uint8_t> input) : rest_(input) {}

  [[nodiscard]] bool empty() const noexcept { return rest_.empty(); }

  std::uint8_t byte() noexcept {
    if (rest_.empty()) return 0;
    const std::uint8_t first = rest_.front();
    rest_ = rest_.subspan(1);
    return first;
  }
  /// 0 to bound - 1, of one byte; bound is 1 to 256.
  std::size_t below(std::size_t bound) noexcept { return byte() % bound; }
  bool flag() noexcept { return (byte() & 1) != 0; }
  /// True for one byte value in `many`; false after the end.
  bool one_in(std::size_t many) noexcept { return !rest_.empty() && below(many) == many - 1; }
  /// `count` bytes, the lowest first.
  std::uint64_t number(std::size_t count) noexcept {
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < count; ++i)
      value |= std::uint64_t{byte()} << (8 * i);
    return value;
  }
  /// A number of any size: small ones often, extremes sometimes.
  std::uint64_t any_size() noexcept {
    const std::size_t shape = below(8);
    if (shape < 5) return below(16);
    if (shape == 5) return number(2);
    if (shape == 6) return number(8);
    return ~std::uint64_t{0} - below(4);
  }
  /// Everything that is left, as text.
  std::string_view text() noexcept {
    const std::string_view all(reinterpret_cast<const char*>(rest_.data()), rest_.size());
    rest_ = {};
    return all;
  }

 private:
  std::span<const std::uint8_t> rest_;
};

// --- faults --------------------------------------------------------------------------------------

/// The k-th allocation, or the k-th point of user code (hash, copy, loader...), fails while this
/// lives. Most often nothing does.
class armed_fault {
 public:
  explicit armed_fault(byte_source& from) {
    const std::size_t kind = from.below(8);
    if (kind == 6) veltrix_test::allocations_left = static_cast<long>(from.below(8));
    if (kind == 7) veltrix_test::faults::arm(1 + from.below(16));
    armed_ = kind >= 6;
  }
  armed_fault(const armed_fault&) = delete;
  armed_fault& operator=(const armed_fault&) = delete;
  ~armed_fault() { disarm(); }

  [[nodiscard]] bool armed() const noexcept { return armed_; }
  static void disarm() noexcept {
    veltrix_test::allocations_left = -1;
    static_cast<void>(veltrix_test::faults::disarm());
  }

 private:
  bool armed_ = false;
};

/// Allocations succeed while this lives: for what callbacks of a target do on their own behalf.
class unfailing_memory {
 public:
  unfailing_memory() : left_(veltrix_test::allocations_left) {
    veltrix_test::allocations_left = -1;
  }
  unfailing_memory(const unfailing_memory&) = delete;
  unfailing_memory& operator=(const unfailing_memory&) = delete;
  ~unfailing_memory() { veltrix_test::allocations_left = left_; }

 private:
  const long left_;
};

/// Runs `operation` under a fault that the bytes choose. Result: whether it got through; if not, it
/// threw what a fault throws. Anything else passes.
template <class Operation>
[[nodiscard]] bool got_through(byte_source& from, Operation operation) {
  const armed_fault fault(from);
  try {
    operation();
    return true;
  } catch (const veltrix_test::injected_fault&) {
  } catch (const std::bad_alloc&) {}
  armed_fault::disarm();
  require(fault.armed(), "it threw what only a fault throws, without one");
  return false;
}

// --- the target ----------------------------------------------------------------------------------

/// What a target defines: one input, from construction to destruction.
void one_input(byte_source& from);

}  // namespace veltrix_fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  veltrix_fuzz::trace::clear();
  veltrix_fuzz::byte_source from({data, size});
  veltrix_fuzz::one_input(from);
  return 0;
}
