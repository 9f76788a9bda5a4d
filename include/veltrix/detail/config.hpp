// What the compiler and the build tell the library: checked mode, sanitizers, exceptions.
// Use for: the few macros that cannot be anything else. Internal.
// Not for: options of users; there is none that changes a layout or a signature.
// Threads: none.
// Progress: compile time.
// Callbacks: none.
// Exceptions: raise() throws, or reports and aborts where exceptions are off.
// Lifetime: static.
// Guide: docs/design.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "../version.hpp"
#include "assumptions.hpp"

#if defined(__cpp_exceptions)
#define VELTRIX_HAS_EXCEPTIONS 1
#define VELTRIX_TRY try
#define VELTRIX_CATCH_ALL catch (...)
#define VELTRIX_RETHROW throw
#else
#define VELTRIX_HAS_EXCEPTIONS 0
#define VELTRIX_TRY if constexpr (true)
#define VELTRIX_CATCH_ALL else
#define VELTRIX_RETHROW static_cast<void>(0)
#endif

#if defined(__SANITIZE_THREAD__)
#define VELTRIX_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define VELTRIX_TSAN 1
#endif
#endif
#if !defined(VELTRIX_TSAN)
#define VELTRIX_TSAN 0
#endif

#if defined(__SANITIZE_ADDRESS__)
#define VELTRIX_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define VELTRIX_ASAN 1
#endif
#endif
#if !defined(VELTRIX_ASAN)
#define VELTRIX_ASAN 0
#endif

// -DVELTRIX_NO_MEMBARRIER=1 makes no membarrier(2) call, for sandboxes that kill who does. Fences
// are then ordered ones on both sides. No layout and no signature depends on it.
#if !defined(VELTRIX_NO_MEMBARRIER)
#define VELTRIX_NO_MEMBARRIER 0
#endif

// Whether a join can be given up at a deadline: the sanitizers do not know that call of glibc's.
#if defined(__GLIBC_PREREQ) && !VELTRIX_TSAN && !VELTRIX_ASAN
#define VELTRIX_JOINS_UNTIL __GLIBC_PREREQ(2, 31)
#else
#define VELTRIX_JOINS_UNTIL 0
#endif

// Whether a pool keeps the stacks of its threads: the sanitizers enlarge only the platform's.
#if defined(__linux__) && !VELTRIX_TSAN && !VELTRIX_ASAN
#define VELTRIX_KEEPS_STACKS 1
#else
#define VELTRIX_KEEPS_STACKS 0
#endif

// Misuse by the caller: reported with both the condition and the sentence, in checked mode only.
// Release builds do nothing and tell the optimiser nothing.
#if VELTRIX_CHECKED
#define VELTRIX_ASSERT(condition, sentence) \
  ((condition) ? static_cast<void>(0)       \
               : ::veltrix::detail::misuse(#condition, sentence, __FILE__, __LINE__))
#else
#define VELTRIX_ASSERT(condition, sentence) static_cast<void>(0)
#endif

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// Bytes between two objects that must not share a cache line. Fixed, so that a layout never
/// depends on the machine that built it (the standard's constant may, and g++ 12 warns of it).
inline constexpr std::size_t cache_line = 64;

[[noreturn]] inline void misuse(const char* condition, const char* sentence, const char* file,
                                int line) noexcept {
  std::fprintf(stderr, "veltrix: misuse: %s\n  broken: %s\n  at %s:%d\n", sentence, condition, file,
               line);
  std::fflush(stderr);
  std::abort();
}

/// Throws `error`; without exceptions, prints its text and aborts.
template <class Error>
[[noreturn]] void raise(Error&& error) {
#if VELTRIX_HAS_EXCEPTIONS
  throw std::forward<Error>(error);
#else
  std::fprintf(stderr, "%s\nveltrix: built without exceptions, so the program ends here\n",
               error.what());
  std::fflush(stderr);
  std::abort();
#endif
}

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
