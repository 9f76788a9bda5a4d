// An allocator that holds the map to account: what comes back must have been given out, with the
// same size, and be given out by an equal allocator. For one thread or many.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <new>
#include <string>

#include "support/faults.hpp"

namespace veltrix_test {

/// Blocks given out and not come back. What is wrong with one that comes back is kept for the test.
class block_ledger {
 public:
  block_ledger() = default;
  block_ledger(const block_ledger&) = delete;
  block_ledger& operator=(const block_ledger&) = delete;

  void* give(std::size_t bytes, std::size_t alignment) {
    const std::lock_guard hold(mutex_);
    void* const memory = ::operator new(bytes, std::align_val_t(alignment));
    live_.emplace(memory, block{bytes, alignment});
    ++given_;
    return memory;
  }
  void take(void* memory, std::size_t bytes, std::size_t alignment) {
    const std::lock_guard hold(mutex_);
    const auto at = live_.find(memory);
    if (at == live_.end()) {
      wrong_ = "a block came back that was not given out";
      return;
    }
    if (at->second.bytes != bytes || at->second.alignment != alignment) {
      wrong_ = "a block of " + std::to_string(at->second.bytes) + " bytes aligned to " +
               std::to_string(at->second.alignment) + " came back as " + std::to_string(bytes) +
               " aligned to " + std::to_string(alignment);
    }
    ::operator delete(memory, std::align_val_t(at->second.alignment));
    live_.erase(at);
  }
  /// The last complaint; empty if there is none.
  [[nodiscard]] std::string wrong() const {
    const std::lock_guard hold(mutex_);
    return wrong_;
  }
  [[nodiscard]] std::size_t live() const {
    const std::lock_guard hold(mutex_);
    return live_.size();
  }
  [[nodiscard]] std::size_t given() const {
    const std::lock_guard hold(mutex_);
    return given_;
  }

 private:
  struct block {
    std::size_t bytes;
    std::size_t alignment;
  };
  mutable std::mutex mutex_;  // guards all below
  std::map<void*, block> live_;
  std::string wrong_;
  std::size_t given_ = 0;
};

/// A pointer of class type, as allocators of shared memory have.
template <class T>
class fancy_pointer {
 public:
  using element_type = T;
  using value_type = std::remove_cv_t<T>;
  using difference_type = std::ptrdiff_t;
  using pointer = fancy_pointer;
  using reference = std::add_lvalue_reference_t<T>;
  using iterator_category = std::random_access_iterator_tag;

  fancy_pointer() = default;
  fancy_pointer(std::nullptr_t) {}  // NOLINT: as a pointer's
  explicit fancy_pointer(T* at) : at_(at) {}
  template <class U>
    requires std::is_convertible_v<U*, T*>
  fancy_pointer(const fancy_pointer<U>& other) : at_(other.get()) {}  // NOLINT: as a pointer's
  template <class U>
  explicit fancy_pointer(const fancy_pointer<U>& other)
    requires(!std::is_convertible_v<U*, T*> && std::is_void_v<U>)
      : at_(static_cast<T*>(other.get())) {}

  template <class U = T>
    requires(!std::is_void_v<U>)
  static fancy_pointer pointer_to(U& object) {
    return fancy_pointer(std::addressof(object));
  }

  [[nodiscard]] T* get() const { return at_; }
  T* operator->() const { return at_; }
  template <class U = T>
    requires(!std::is_void_v<U>)
  U& operator*() const {
    return *at_;
  }
  template <class U = T>
    requires(!std::is_void_v<U>)
  U& operator[](std::ptrdiff_t i) const {
    return at_[i];
  }
  explicit operator bool() const { return at_ != nullptr; }
  fancy_pointer& operator++() { return ++at_, *this; }
  fancy_pointer& operator--() { return --at_, *this; }
  fancy_pointer operator++(int) { return fancy_pointer(at_++); }
  fancy_pointer operator--(int) { return fancy_pointer(at_--); }
  fancy_pointer& operator+=(std::ptrdiff_t by) { return at_ += by, *this; }
  fancy_pointer& operator-=(std::ptrdiff_t by) { return at_ -= by, *this; }
  friend fancy_pointer operator+(fancy_pointer at, std::ptrdiff_t by) { return at += by; }
  friend fancy_pointer operator-(fancy_pointer at, std::ptrdiff_t by) { return at -= by; }
  friend std::ptrdiff_t operator-(fancy_pointer left, fancy_pointer right) {
    return left.at_ - right.at_;
  }
  friend auto operator<=>(fancy_pointer left, fancy_pointer right) = default;

 private:
  T* at_ = nullptr;
};

/// Gives out of a ledger, at a point of faults. `Pointer` is what it gives.
template <class T, template <class> class Pointer>
class ledger_allocator {
 public:
  using value_type = T;
  using pointer = Pointer<T>;
  template <class U>
  struct rebind {
    using other = ledger_allocator<U, Pointer>;
  };

  explicit ledger_allocator(block_ledger& ledger) noexcept : ledger_(&ledger) {}
  template <class U>
  ledger_allocator(const ledger_allocator<U, Pointer>& other) noexcept : ledger_(&other.ledger()) {}

  pointer allocate(std::size_t count) {
    if (faults::due()) throw std::bad_alloc();
    if (count > static_cast<std::size_t>(-1) / 2 / sizeof(T)) throw std::bad_array_new_length();
    return pointer(static_cast<T*>(ledger_->give(count * sizeof(T), alignof(T))));
  }
  void deallocate(pointer memory, std::size_t count) noexcept {
    ledger_->take(static_cast<void*>(std::to_address(memory)), count * sizeof(T), alignof(T));
  }
  block_ledger& ledger() const noexcept { return *ledger_; }

  template <class U>
  friend bool operator==(const ledger_allocator& left, const ledger_allocator<U, Pointer>& right) {
    return &left.ledger() == &right.ledger();
  }

 private:
  block_ledger* ledger_;
};

template <class T>
using raw_pointer = T*;
template <class T>
using strict_allocator = ledger_allocator<T, raw_pointer>;
template <class T>
using fancy_allocator = ledger_allocator<T, fancy_pointer>;

}  // namespace veltrix_test
