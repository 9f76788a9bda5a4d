// The least a coroutine of a test can be.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#if defined(__cpp_impl_coroutine)
#include <coroutine>
#include <exception>

namespace veltrix_test {

/// Begins at its call and ends by itself; nobody waits for it.
struct fire_and_forget {
  struct promise_type {
    fire_and_forget get_return_object() { return {}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() {}
    void unhandled_exception() { std::terminate(); }
  };
};

}  // namespace veltrix_test
#endif
