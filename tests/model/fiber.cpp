// SPDX-License-Identifier: BSL-1.0
#include "model/fiber.hpp"

#if defined(__x86_64__)
// The floating point control words stay as they are: nothing under test changes them.
asm(R"(
.text
.p2align 4
.globl veltrix_model_switch
.type veltrix_model_switch, @function
veltrix_model_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size veltrix_model_switch, . - veltrix_model_switch
)");
#endif

namespace veltrix_model {

void prepare_fiber(fiber_place& place, void (*entry)(), std::byte* bottom,
                   std::size_t bytes) noexcept {
#if defined(__x86_64__)
  auto* word = reinterpret_cast<void**>(bottom + bytes);
  *--word = nullptr;                         // the return address of `entry`: here unwinding ends
  *--word = reinterpret_cast<void*>(entry);  // where the first switch returns to
  for (int saved = 0; saved < 6; ++saved)
    *--word = nullptr;
  place.stack_pointer = word;
#else
  ::getcontext(&place.context);
  place.context.uc_stack.ss_sp = bottom;
  place.context.uc_stack.ss_size = bytes;
  place.context.uc_link = nullptr;
  ::makecontext(&place.context, entry, 0);
#endif
}

}  // namespace veltrix_model
