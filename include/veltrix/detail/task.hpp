// A move-only callable with room for small captures: no allocation up to 48 bytes.
// Use for: every stored callback or task of the library. Internal; users pass any callable.
// Not for: copying, or comparing.
// Threads: one at a time; move it to hand it over.
// Progress: wait-free but for the allocation of a large capture.
// Callbacks: the call itself, no lock held.
// Exceptions: storing a large capture may throw std::bad_alloc; a call throws as it does.
// Lifetime: owns its capture; a call must not end or replace the function it runs in.
// Guide: docs/design.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <concepts>
#include <cstddef>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

#include "config.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

template <class Signature>
class unique_function;

/// I1: object_ holds a live capture exactly when operations_ is not null.
template <class Result, class... Arguments>
class unique_function<Result(Arguments...)> {
 public:
  static constexpr std::size_t small_bytes = 48;

  unique_function() noexcept = default;
  unique_function(std::nullptr_t) noexcept {}

  template <class Callable>
    requires(!std::same_as<std::remove_cvref_t<Callable>, unique_function> &&
             std::is_invocable_r_v<Result, std::decay_t<Callable>&, Arguments...>)
  unique_function(Callable&& callable) {
    using stored = std::decay_t<Callable>;
    if constexpr (fits<stored>) {
      ::new (static_cast<void*>(&storage_)) stored(std::forward<Callable>(callable));
    } else {
      ::new (static_cast<void*>(&storage_)) stored*(new stored(std::forward<Callable>(callable)));
    }
    operations_ = &table<stored>;
  }

  unique_function(unique_function&& other) noexcept { take(other); }
  unique_function& operator=(unique_function&& other) noexcept {
    if (operations_ == nullptr) {
      take(other);
      return *this;
    }
    // The old capture goes last: its end may reach `other`, or this object.
    unique_function taken(std::move(other));
    unique_function old(std::move(*this));
    take(taken);
    return *this;
  }
  ~unique_function() { reset(); }

  [[nodiscard]] explicit operator bool() const noexcept { return operations_ != nullptr; }

  /// Calls the capture. An empty function must not be called.
  Result operator()(Arguments... arguments) {
    VELTRIX_ASSERT(operations_ != nullptr, "an empty function was called");
    return operations_->call(&storage_, std::forward<Arguments>(arguments)...);
  }

  void reset() noexcept {
    if (operations_ == nullptr) return;
    const operation_table* const last = std::exchange(operations_, nullptr);
    if (last->destroy != nullptr) last->destroy(&storage_);
  }

 private:
  struct operation_table {
    Result (*call)(void*, Arguments&&...);
    void (*relocate)(void* from, void* to) noexcept;  // null: the bytes are copied
    void (*destroy)(void*) noexcept;                  // null: nothing to do
  };

  template <class Stored>
  static constexpr bool fits =
      sizeof(Stored) <= small_bytes && alignof(Stored) <= alignof(std::max_align_t) &&
      std::is_nothrow_move_constructible_v<Stored>;

  template <class Stored>
  static Stored& object(void* storage) noexcept {
    if constexpr (fits<Stored>) {
      return *std::launder(static_cast<Stored*>(storage));
    } else {
      return **std::launder(static_cast<Stored**>(storage));
    }
  }

  template <class Stored>
  static Result call(void* storage, Arguments&&... arguments) {
    return static_cast<Result>(object<Stored>(storage)(std::forward<Arguments>(arguments)...));
  }

  template <class Stored>
  static void relocate(void* from, void* to) noexcept {
    if constexpr (fits<Stored>) {
      ::new (to) Stored(std::move(object<Stored>(from)));
      object<Stored>(from).~Stored();
    } else {
      ::new (to) Stored*(&object<Stored>(from));
    }
  }

  template <class Stored>
  static void destroy(void* storage) noexcept {
    if constexpr (fits<Stored>) {
      object<Stored>(storage).~Stored();
    } else {
      delete &object<Stored>(storage);
    }
  }

  template <class Stored>
  static constexpr bool trivial = fits<Stored> && std::is_trivially_copyable_v<Stored>;

  template <class Stored>
  static constexpr operation_table table{&call<Stored>,
                                         trivial<Stored> ? nullptr : &relocate<Stored>,
                                         trivial<Stored> ? nullptr : &destroy<Stored>};

  // g++ warns of the bytes that a small capture leaves as they were: they are copied, never used.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
  static void copy_bytes(void* to, const void* from) noexcept {
    std::memcpy(to, from, small_bytes);
  }
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

  void take(unique_function& other) noexcept {
    if (other.operations_ == nullptr) return;
    if (other.operations_->relocate != nullptr) {
      other.operations_->relocate(&other.storage_, &storage_);
    } else {
      copy_bytes(&storage_, &other.storage_);
    }
    operations_ = std::exchange(other.operations_, nullptr);
  }

  alignas(std::max_align_t) std::byte storage_[small_bytes];  // a capture, or a pointer to it
  const operation_table* operations_ = nullptr;               // null when empty
};

using task = unique_function<void()>;

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
