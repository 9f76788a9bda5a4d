// Who is inside an object: operations, guards, and callbacks that run under its locks.
// Use for: naming both sides when a callback re-enters, or an object dies in use. Internal.
// Not for: release builds, where every member does nothing.
// Threads: all members may be called from any thread; a scope stays in its thread.
// Progress: wait-free.
// Callbacks: none.
// Exceptions: none; misuse aborts in checked builds.
// Lifetime: a usage lives in the object it watches; scopes nest.
// Guide: docs/design.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdio>

#include "config.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

inline constexpr bool checked_mode = VELTRIX_CHECKED != 0;

/// What is going on inside one object. The members are there in every build, so that the layout
/// never depends on the mode; only checked builds write them.
class usage {
 public:
  usage() = default;
  usage(const usage&) = delete;
  usage& operator=(const usage&) = delete;

  /// A guard was handed out; it names memory of the object.
  void guard_taken() noexcept {
    if constexpr (checked_mode) guards_.fetch_add(1, sync::relaxed);
  }
  void guard_released() noexcept {
    if constexpr (checked_mode) guards_.fetch_sub(1, sync::relaxed);
  }

  /// Called by the destructor of the object, which `type` names.
  void check_unused(const char* type) const noexcept {
    if constexpr (checked_mode) {
      char text[256];
      if (const std::size_t held = guards_.load(sync::relaxed); held != 0) {
        std::snprintf(text, sizeof text, "%s destroyed while %zu of its guards are alive", type,
                      held);
        misuse("no guard outlives its object", text, __FILE__, __LINE__);
      }
      if (running_.load(sync::relaxed) != 0) {
        std::snprintf(text, sizeof text, "%s destroyed while %s runs on it", type,
                      latest_.load(sync::relaxed));
        misuse("no operation outlives its object", text, __FILE__, __LINE__);
      }
    }
  }

 private:
  friend class operation_scope;
  friend class locked_scope;
  sync::atomic<std::size_t> guards_{0};       // relaxed: diagnosis only
  sync::atomic<std::size_t> running_{0};      // relaxed: diagnosis only
  sync::atomic<const char*> latest_{"none"};  // relaxed: diagnosis only; static text
};

/// While it lives, this thread runs code of the user under a lock of an object.
class locked_scope {
 public:
  locked_scope(const usage& object, const char* operation) noexcept {
    if constexpr (checked_mode) {
      object_ = &object;
      operation_ = operation;
      outer_ = innermost();
      innermost() = this;
    }
  }
  ~locked_scope() {
    if constexpr (checked_mode) innermost() = outer_;
  }
  locked_scope(const locked_scope&) = delete;
  locked_scope& operator=(const locked_scope&) = delete;

 private:
  friend class operation_scope;
  struct chain {
    locked_scope* innermost = nullptr;
  };
  static locked_scope*& innermost() noexcept { return sync::per_thread<chain>().innermost; }

  const usage* object_ = nullptr;    // own thread only, as the two below
  const char* operation_ = nullptr;  // static text
  locked_scope* outer_ = nullptr;
};

/// While it lives, this thread is inside `operation` of an object. Checked builds abort when a
/// callback that runs under a lock of the same object gets here.
class operation_scope {
 public:
  operation_scope(usage& object, const char* operation) noexcept : object_(object) {
    if constexpr (checked_mode) {
      refuse_reentry(object, operation);
      object.running_.fetch_add(1, sync::relaxed);
      object.latest_.store(operation, sync::relaxed);
    }
  }
  ~operation_scope() {
    if constexpr (checked_mode) object_.running_.fetch_sub(1, sync::relaxed);
  }
  operation_scope(const operation_scope&) = delete;
  operation_scope& operator=(const operation_scope&) = delete;

 private:
  static void refuse_reentry(const usage& object, const char* operation) noexcept {
    for (const locked_scope* at = locked_scope::innermost(); at != nullptr; at = at->outer_) {
      if (at->object_ != &object) continue;
      char text[256];
      std::snprintf(text, sizeof text, "%s called by a callback of %s, which holds a lock of it",
                    operation, at->operation_);
      misuse("callbacks under a lock stay outside the object", text, __FILE__, __LINE__);
    }
  }

  usage& object_;  // outlives the scope
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
