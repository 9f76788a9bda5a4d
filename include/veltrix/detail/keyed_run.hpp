// How a keyed_executor meets its executor: the posted run, and what a thread is doing meanwhile.
// Use for: keyed_executor. Internal.
// Not for: anything else.
// Threads: a frame belongs to its thread; a ticket is moved from thread to thread.
// Progress: wait-free.
// Callbacks: none of its own.
// Exceptions: none.
// Lifetime: frames nest on the stack; a ticket reports to its owner once, run or unrun.
// Guide: docs/keyed_executor.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstdint>
#include <utility>

#include "config.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// What the calling thread does for a keyed_executor, innermost last.
class keyed_frame {
 public:
  enum class role : std::uint8_t {
    posting,  ///< inside the executor's try_post()
    serving,  ///< inside a run: the handler is on the stack, or about to be
  };

  keyed_frame(const void* owner, role doing) noexcept
      : owner_(owner), doing_(doing), outer_(std::exchange(innermost(), this)) {}
  keyed_frame(const keyed_frame&) = delete;
  keyed_frame& operator=(const keyed_frame&) = delete;
  ~keyed_frame() { innermost() = outer_; }

  /// The calling thread's frame of `owner` with that role, or null.
  [[nodiscard]] static keyed_frame* find(const void* owner, role doing) noexcept {
    keyed_frame* frame = innermost();
    while (frame != nullptr && (frame->owner_ != owner || frame->doing_ != doing))
      frame = frame->outer_;
    return frame;
  }

  bool came_back = false;  ///< posting: the run was called or dropped before try_post() returned

 private:
  struct chain {
    keyed_frame* innermost = nullptr;
  };
  static keyed_frame*& innermost() noexcept { return sync::per_thread<chain>().innermost; }

  const void* const owner_;
  const role doing_;
  keyed_frame* const outer_;
};

/// The task given to the executor. Tells `Owner` that it was called, or that it ended uncalled;
/// inside try_post() it only marks the frame, and the thread that posts goes on by itself.
template <class Owner>
class run_ticket {
 public:
  explicit run_ticket(Owner* owner) noexcept : owner_(owner) {}
  run_ticket(run_ticket&& other) noexcept : owner_(std::exchange(other.owner_, nullptr)) {}
  run_ticket& operator=(run_ticket&&) = delete;
  ~run_ticket() {
    if (owner_ != nullptr && !back_in_post()) owner_->run_dropped();
  }

  void operator()() {
    if (!back_in_post()) std::exchange(owner_, nullptr)->begin_run();
    owner_ = nullptr;
  }

 private:
  bool back_in_post() const noexcept {
    keyed_frame* const frame = keyed_frame::find(owner_, keyed_frame::role::posting);
    if (frame != nullptr) frame->came_back = true;
    return frame != nullptr;
  }

  Owner* owner_;  // null once it was told
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
