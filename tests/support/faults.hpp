// Faults on demand: the n-th point that may throw does. For tests of what an exception leaves.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>

namespace veltrix_test {

/// What a fault throws, but for allocators: they throw std::bad_alloc.
struct injected_fault : std::exception {
  const char* what() const noexcept override { return "injected fault"; }
};

/// Counts the points this thread passes, and makes one of them fail. Use:
///   for (n = 1;; ++n) {
///     faults::arm(n);
///     try { act(); } catch (...) {}
///     if (!faults::disarm()) break;  // act() has fewer than n points
///   }
class faults {
 public:
  /// The nth point from now fails; n is at least 1.
  static void arm(std::uint64_t nth) { left() = nth; }

  /// No point fails any more. Result: whether one did since arm().
  static bool disarm() {
    const bool fired = left() == 0;
    left() = none;
    return fired;
  }

  /// A point: true if it must fail now.
  static bool due() { return left() != none && left() != 0 && --left() == 0; }

  /// A point that throws injected_fault.
  static void point() {
    if (due()) throw injected_fault();
  }

 private:
  static constexpr std::uint64_t none = ~std::uint64_t{0};
  static std::uint64_t& left() {
    static thread_local std::uint64_t points = none;
    return points;
  }
};

/// A number whose construction, copy, move and assignment are points. Counts what is alive.
class faulty_number {
 public:
  faulty_number() : faulty_number(0) {}
  explicit faulty_number(int number) : number_(number) {
    faults::point();
    ++alive();
  }
  faulty_number(const faulty_number& other) : number_(other.number_) {
    faults::point();
    ++alive();
  }
  faulty_number(faulty_number&& other) : number_(other.number_) {
    faults::point();
    ++alive();
    other.number_ = moved_from;
  }
  faulty_number& operator=(const faulty_number& other) {
    faults::point();
    number_ = other.number_;
    return *this;
  }
  faulty_number& operator=(faulty_number&& other) {
    faults::point();
    number_ = other.number_;
    if (this != &other) other.number_ = moved_from;
    return *this;
  }
  ~faulty_number() { --alive(); }

  int number() const { return number_; }

  /// Objects of this thread not destroyed yet.
  static std::ptrdiff_t& alive() {
    static thread_local std::ptrdiff_t count = 0;
    return count;
  }

  static constexpr int moved_from = -1;

 private:
  int number_;
};

/// The same without points and without a count: a number that copies bytewise.
class plain_number {
 public:
  plain_number() = default;
  explicit plain_number(int number) : number_(number) {}
  int number() const { return number_; }

 private:
  int number_ = 0;
};

/// The same in several words, of which the last one is not whole.
class plain_block {
 public:
  plain_block() = default;
  explicit plain_block(int number) {
    for (int& each : numbers_)
      each = number++;
  }
  /// -1: it is a mix of two.
  int number() const {
    for (int i = 0; i < 5; ++i) {
      if (numbers_[i] != numbers_[0] + i) return -1;
    }
    return numbers_[0];
  }

 private:
  int numbers_[5] = {0, 1, 2, 3, 4};
};

/// Hashes and compares numbers of these kinds; each call is a point.
struct faulty_hash {
  template <class Number>
  std::size_t operator()(const Number& hashed) const {
    faults::point();
    return static_cast<std::size_t>(hashed.number());
  }
};
struct faulty_equal {
  template <class Number>
  bool operator()(const Number& left, const Number& right) const {
    faults::point();
    return left.number() == right.number();
  }
};

}  // namespace veltrix_test
