// A stack of its own that runs until it switches to another: what the explorer makes threads of.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace veltrix_model {

/// Where a suspended fiber goes on.
struct fiber_place {
#if defined(__x86_64__)
  void* stack_pointer = nullptr;
#else
  ::ucontext_t context;
#endif
};

#if defined(__x86_64__)
/// In fiber.cpp: saves what the ABI says a callee keeps, changes stacks, and returns there.
extern "C" void veltrix_model_switch(void** from, void* to) noexcept;

inline void switch_fiber(fiber_place& from, fiber_place& to) noexcept {
  veltrix_model_switch(&from.stack_pointer, to.stack_pointer);
}
#else
inline void switch_fiber(fiber_place& from, fiber_place& to) noexcept {
  ::swapcontext(&from.context, &to.context);
}
#endif

/// Makes `place` start `entry`, which never returns, on the `bytes` from `bottom` (16-aligned).
void prepare_fiber(fiber_place& place, void (*entry)(), std::byte* bottom,
                   std::size_t bytes) noexcept;

}  // namespace veltrix_model
