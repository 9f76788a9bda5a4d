// The seam: every atomic, fence, lock, wait and thread the library uses, under one name.
// Use for: all synchronisation inside Veltrix; a model checker can take its place. Internal.
// Not for: users; they have the standard library.
// Threads: as the standard's.
// Progress: as the standard's; the heavy fence is a system call.
// Callbacks: native_thread::start() runs its function on the new thread, no lock held.
// Exceptions: none of its own; start() answers an errno instead.
// Lifetime: a native_thread is joined by its owner before it ends.
// Guide: docs/design.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <new>
#include <shared_mutex>
#include <system_error>
#include <thread>
#include <utility>

#include "config.hpp"

#if defined(__linux__)
#include <linux/futex.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#endif

// Tests that explore interleavings give a header of their own here (-DVELTRIX_MODEL=<name>), with
// instrumented types of the same names. Only version.hpp, whose inline namespace keeps the modes
// apart, and stop_token.hpp, which then takes the library's own, know of it besides.
#if defined(VELTRIX_MODEL)
#include VELTRIX_MODEL
#endif

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail::sync {

using memory_order = std::memory_order;
inline constexpr memory_order relaxed = std::memory_order_relaxed;
inline constexpr memory_order acquire = std::memory_order_acquire;
inline constexpr memory_order release = std::memory_order_release;
inline constexpr memory_order acq_rel = std::memory_order_acq_rel;
inline constexpr memory_order seq_cst = std::memory_order_seq_cst;

inline constexpr std::defer_lock_t defer_lock{};
inline constexpr std::try_to_lock_t try_to_lock{};

#if defined(VELTRIX_MODEL)
using veltrix_model::asymmetric_fence_heavy;
using veltrix_model::asymmetric_fence_light;
using veltrix_model::asymmetric_fence_mode;
using veltrix_model::at_thread_exit;
using veltrix_model::atomic;
using veltrix_model::condition_variable;
using veltrix_model::fence_mode;
using veltrix_model::full_fence;
using veltrix_model::lock_guard;
using veltrix_model::mutex;
using veltrix_model::native_thread;
using veltrix_model::parker;
using veltrix_model::per_thread;
using veltrix_model::steady_now;
using veltrix_model::this_thread_id;
using veltrix_model::this_thread_number;
using veltrix_model::thread_id;
using veltrix_model::thread_is_listed;
using veltrix_model::unique_lock;
using veltrix_model::var;
using veltrix_model::yield;
inline void spin_pause() noexcept {
  veltrix_model::yield();
}
inline unsigned hardware_threads() noexcept {
  return 2;
}
inline std::chrono::steady_clock::time_point coarse_now() noexcept {
  return steady_now();
}
/// Has `call` run in the child of each fork(2): executions have none.
inline void at_fork(void (*)(), void (*)(), void (*)()) noexcept {}
/// What an execution draws must be the same each time.
inline constexpr bool repeatable = true;
#else
template <class T>
using atomic = std::atomic<T>;
/// Plain data that threads share under a lock or an order: a place for a race detector to look.
template <class T>
using var = T;
using mutex = std::mutex;
using shared_mutex = std::shared_mutex;
using condition_variable = std::condition_variable;
template <class Mutex>
using lock_guard = std::lock_guard<Mutex>;
template <class Mutex>
using unique_lock = std::unique_lock<Mutex>;
template <class Mutex>
using shared_lock = std::shared_lock<Mutex>;
inline constexpr bool repeatable = false;

using thread_id = std::thread::id;

/// The machine's monotonic time.
inline std::chrono::steady_clock::time_point steady_now() noexcept {
  return std::chrono::steady_clock::now();
}

/// The kernel's cached monotonic time: cheaper, and up to a timer tick (1 to 10 ms) behind.
inline std::chrono::steady_clock::time_point coarse_now() noexcept {
#if defined(__linux__)
  ::timespec at{};
  ::clock_gettime(CLOCK_MONOTONIC_COARSE, &at);
  return std::chrono::steady_clock::time_point(std::chrono::seconds(at.tv_sec) +
                                               std::chrono::nanoseconds(at.tv_nsec));
#else
  return steady_now();
#endif
}

/// The calling thread's own value for `Tag`, made by Tag() at its first use.
template <class Tag>
Tag& per_thread() noexcept {
  static thread_local Tag mine;
  return mine;
}

using exit_call = void (*)() noexcept;

/// Has `Leave()` run once when the calling thread ends. Result: false if the thread is so far in
/// ending that it would not run. `Leave` may be asked for again and again: it still runs once.
template <exit_call Leave>
bool at_thread_exit() noexcept {
  struct on_exit {
    bool& left;
    ~on_exit() {
      left = true;
      Leave();
    }
  };
  static thread_local bool left = false;  // read until the thread is gone: it has no destructor
  if (left) return false;
  static thread_local const on_exit hook{left};
  return true;
}

/// Has the three run around each fork(2): before it, and after it in the parent and in the child.
inline void at_fork(void (*before)(), void (*parent)(), void (*child)()) noexcept {
#if defined(__linux__)
  ::pthread_atfork(before, parent, child);  // without memory for it a child must not fork on
#else
  static_cast<void>(before), static_cast<void>(parent), static_cast<void>(child);
#endif
}

/// The calling thread's id.
inline thread_id this_thread_id() noexcept {
  return std::this_thread::get_id();
}

/// Gives the rest of the time slice away.
inline void yield() noexcept {
  std::this_thread::yield();
}

/// Tells the core that this is a spin loop.
inline void spin_pause() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// Where one thread sleeps until it is called: a binary semaphore. A call that comes first is kept,
/// and several are one. Outlives its callers. On Linux the thread that is woken takes no lock.
#if defined(__linux__)
class parker {
 public:
  void park() noexcept {
    // (4) acquire-exchange; pairs with release-exchange (5). Sees: what stands before the call.
    while (called_.exchange(0, std::memory_order_acquire) == 0)
      ::syscall(SYS_futex, word(), FUTEX_WAIT_PRIVATE, 0, nullptr, nullptr, 0);
  }
  void unpark() noexcept {
    // (5) release-exchange; pairs with acquire-exchange (4). Publishes: what stands before the
    // call.
    if (called_.exchange(1, std::memory_order_release) == 0)
      ::syscall(SYS_futex, word(), FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
  }

 private:
  [[nodiscard]] std::uint32_t* word() noexcept {
    return reinterpret_cast<std::uint32_t*>(&called_);
  }

  std::atomic<std::uint32_t> called_{0};
  static_assert(sizeof called_ == sizeof(std::uint32_t) && decltype(called_)::is_always_lock_free);
};
#else
class parker {
 public:
  void park() noexcept {
    std::unique_lock<std::mutex> lock(mutex_);
    while (!called_)
      changed_.wait(lock);  // woken by unpark(), after it wrote called_
    called_ = false;
  }
  void unpark() noexcept {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      called_ = true;
    }
    changed_.notify_one();
  }

 private:
  std::mutex mutex_;  // guards called_
  std::condition_variable changed_;
  bool called_ = false;
};
#endif

/// CPUs this process may use, at least 1.
inline unsigned hardware_threads() noexcept {
  const unsigned found = std::thread::hardware_concurrency();
  return found == 0 ? 1 : found;
}

// Asymmetric fence. A reader calls light(), a writer heavy(); together they order the reader's
// store before its later load against the writer's store before its later load, as two seq_cst
// fences would. The writer pays: membarrier(2) makes every running thread of the process execute a
// full barrier. Where the kernel refuses it, both sides are seq_cst fences.
enum class fence_mode : std::uint8_t { membarrier, ordered };

namespace fence_detail {

#if defined(__linux__) && defined(SYS_membarrier)
// From linux/membarrier.h, which is not on every machine that has the call.
inline constexpr int command_private_expedited = 1 << 3;
inline constexpr int command_register_private_expedited = 1 << 4;

/// Idempotent. Registering takes microseconds while the process has one thread, milliseconds later.
inline fence_mode choose_mode() noexcept {
  // TSan knows nothing of membarrier, so it must see ordered operations.
  if (VELTRIX_TSAN || VELTRIX_NO_MEMBARRIER) return fence_mode::ordered;
  const auto answer = ::syscall(SYS_membarrier, command_register_private_expedited, 0, 0);
  return answer == 0 ? fence_mode::membarrier : fence_mode::ordered;
}

inline bool membarrier_now() noexcept {
  return ::syscall(SYS_membarrier, command_private_expedited, 0, 0) == 0;
}
#else
inline fence_mode choose_mode() noexcept {
  return fence_mode::ordered;
}
inline bool membarrier_now() noexcept {
  return false;
}
#endif

// What the two sides of an ordered fence share under TSan, which knows no stand-alone fences: two
// read-modify-writes of one word are ordered, and the later one sees all before the earlier one.
inline std::atomic<unsigned> meeting{0};

/// Orders what stands before it against what stands after it, stores before loads included.
inline void full_fence() noexcept {
#if VELTRIX_TSAN
  // (1) seq_cst-add; pairs with seq_cst-add (1) of the other side. Forbids: both sides' loads miss
  // the other's store before the add.
  meeting.fetch_add(1, std::memory_order_seq_cst);
#else
  // (2) seq_cst-fence; pairs with seq_cst-fence (2) of the other side. Forbids: both sides' loads
  // miss the other's store before the fence.
  std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
}

}  // namespace fence_detail

/// A seq_cst fence for both sides, where neither is in a hurry.
inline void full_fence() noexcept {
  fence_detail::full_fence();
}

/// How the two fences are made in this process; fixed at the first call, before any fence is used.
inline fence_mode asymmetric_fence_mode() noexcept {
  static const fence_mode mode = fence_detail::choose_mode();
  return mode;
}

/// Asks for membarrier before main(), while the process has one thread.
inline const fence_mode mode_at_start = asymmetric_fence_mode();

/// The reader's side: a compiler barrier where membarrier works, else a seq_cst fence.
inline void asymmetric_fence_light(fence_mode mode) noexcept {
  if (mode == fence_mode::membarrier) {
    // (3) seq_cst-fence of the compiler alone; pairs with seq_cst-fence (3) that membarrier runs in
    // this thread for the writer. Forbids: both sides' loads miss the other's store.
    std::atomic_signal_fence(std::memory_order_seq_cst);
  } else {
    fence_detail::full_fence();
  }
}

/// The writer's side: a system call where membarrier works, else a seq_cst fence.
/// Aborts if a membarrier that worked at the start is refused later: readers rely on it.
inline void asymmetric_fence_heavy(fence_mode mode) noexcept {
  if (mode == fence_mode::membarrier) {
    // The kernel runs a full fence in every running thread of the process: what (3) counts on.
    if (!fence_detail::membarrier_now()) {
      misuse("membarrier(2) accepted", "the kernel withdrew membarrier while it was in use",
             __FILE__, __LINE__);
    }
  } else {
    fence_detail::full_fence();
  }
}

#endif

#if defined(__linux__)
inline std::size_t page_bytes() noexcept {
  return static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}
#endif

/// Memory for the stacks of threads that follow one another. The platform's own is mapped or
/// cleared for each thread, and others' processors are interrupted for it; this one is kept, with
/// the pages at its top. A page below it is guarded.
class thread_stack {
 public:
  thread_stack() = default;
  thread_stack(const thread_stack&) = delete;
  thread_stack& operator=(const thread_stack&) = delete;
  ~thread_stack() { release(); }

#if VELTRIX_KEEPS_STACKS && !defined(VELTRIX_MODEL)
  /// Has so many bytes from here on, whole pages; nothing happens if it has them already.
  /// @return 0, or EAGAIN as of a thread that cannot have a stack
  [[nodiscard]] int reserve(std::size_t bytes) noexcept {
    if (bytes == bytes_) return 0;
    release();
    const std::size_t page = page_bytes();
    if (bytes > ~std::size_t{0} - page) return EAGAIN;
    constexpr int kind = MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK;
    void* const mapped = ::mmap(nullptr, bytes + page, PROT_NONE, kind, -1, 0);
    if (mapped == MAP_FAILED) return EAGAIN;
    base_ = static_cast<char*>(mapped) + page;
    bytes_ = bytes;
    if (::mprotect(base_, bytes_, PROT_READ | PROT_WRITE) == 0) return 0;
    release();
    return EAGAIN;
  }

  [[nodiscard]] void* base() const noexcept { return base_; }
  [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }

  /// Gives pages back that only a deep call has used; no thread runs on it.
  void trim() noexcept {
    constexpr std::size_t kept = 32768;
    if (bytes_ > kept)
      ::madvise(base_, (bytes_ - kept) / page_bytes() * page_bytes(), MADV_DONTNEED);
  }

  /// Gives all of it back; no thread runs on it.
  void release() noexcept {
    if (bytes_ != 0) ::munmap(base_ - page_bytes(), bytes_ + page_bytes());
    bytes_ = 0;
  }

 private:
  char* base_ = nullptr;   // the lowest byte
  std::size_t bytes_ = 0;  // 0: none is mapped
#else
  void trim() noexcept {}
  void release() noexcept {}
#endif
};

/// What start() gives the new thread.
struct thread_options {
  const char* name = nullptr;     ///< copied, at most 15 bytes; null keeps the parent's name
  std::size_t stack_bytes = 0;    ///< 0 keeps the platform's default; else rounded up to a page
  thread_stack* stack = nullptr;  ///< where; null: memory of the platform. Outlives the join
};

/// A thread's name as the kernel keeps it: at most 15 bytes; empty for none.
class thread_name {
 public:
  explicit thread_name(const char* name) noexcept {
    for (std::size_t i = 0; name != nullptr && i + 1 < sizeof kept_ && name[i] != '\0'; ++i)
      kept_[i] = name[i];
  }
  [[nodiscard]] const char* text() const noexcept { return kept_; }

 private:
  char kept_[16] = {};
};

/// Names the calling thread for debuggers and /proc; longer names are cut to 15 bytes.
inline void name_this_thread(const char* name) noexcept {
#if defined(__linux__)
  ::pthread_setname_np(::pthread_self(), thread_name(name).text());
#else
  static_cast<void>(name);
#endif
}

#if !defined(VELTRIX_MODEL)
#if defined(__linux__)
/// The kernel's number of the calling thread.
inline long this_thread_number() noexcept {
  return ::syscall(SYS_gettid);
}

/// Whether the kernel still lists the thread in this process.
inline bool thread_is_listed(long number) noexcept {
  return ::syscall(SYS_tgkill, static_cast<long>(::getpid()), number, 0L) == 0 || errno != ESRCH;
}
#else
inline long this_thread_number() noexcept {
  return 0;
}
inline bool thread_is_listed(long) noexcept {
  return false;  // nothing to ask: the join that follows is the answer
}
#endif

/// A thread whose start can fail with a number instead of an exception. Join it before it ends.
class native_thread {
 public:
  native_thread() = default;
  native_thread(native_thread&& other) noexcept
      : handle_(std::move(other.handle_)), joinable_(std::exchange(other.joinable_, false)) {}
  native_thread& operator=(native_thread&& other) noexcept {
    VELTRIX_ASSERT(!joinable_, "a running native_thread was overwritten");
    handle_ = std::move(other.handle_);
    joinable_ = std::exchange(other.joinable_, false);
    return *this;
  }
  ~native_thread() { VELTRIX_ASSERT(!joinable_, "a native_thread ended without join()"); }

  /// Starts `body` on a new thread; `body` is called once and must not throw.
  /// Result: 0, or the errno of the refusal (EAGAIN: no thread, or no memory for its stack;
  /// ENOMEM: no memory; EINVAL: a stack size the platform does not take).
  template <class Body>
  [[nodiscard]] int start(const thread_options& options, Body body) {
    VELTRIX_ASSERT(!joinable_, "start() on a running native_thread");
    auto carried = std::unique_ptr<packet<Body>>(
        new (std::nothrow) packet<Body>{std::move(body), thread_name(options.name)});
    if (!carried) return ENOMEM;
#if defined(__linux__)
    ::pthread_attr_t attributes;
    if (const int error = ::pthread_attr_init(&attributes); error != 0) return error;
    int error = size_stack(attributes, options);
    if (error == 0) {
      error = ::pthread_create(&handle_, &attributes, &packet<Body>::run, carried.get());
    }
    ::pthread_attr_destroy(&attributes);
    if (error != 0) return error;
#else
    VELTRIX_TRY {
      handle_ = std::thread(&packet<Body>::run, carried.get());
    }
    VELTRIX_CATCH_ALL {
      return EAGAIN;
    }
#endif
    static_cast<void>(carried.release());  // the new thread owns it now
    joinable_ = true;
    return 0;
  }

  [[nodiscard]] bool joinable() const noexcept { return joinable_; }

  /// Waits until the thread's body has returned.
  void join() noexcept {
    VELTRIX_ASSERT(joinable_, "join() without a running thread");
#if defined(__linux__)
    ::pthread_join(handle_, nullptr);
#else
    handle_.join();
#endif
    joinable_ = false;
  }

#if VELTRIX_JOINS_UNTIL
  /// As join(), unless the deadline passes first. Not on every platform: see join_by().
  [[nodiscard]] bool join_until(std::chrono::steady_clock::time_point deadline) noexcept {
    VELTRIX_ASSERT(joinable_, "join_until() without a running thread");
    using std::chrono::nanoseconds;
    const auto left = std::chrono::duration_cast<nanoseconds>(deadline.time_since_epoch());
    const auto seconds = std::chrono::floor<std::chrono::seconds>(left);
    ::timespec at{};
    at.tv_sec = seconds.count();
    at.tv_nsec = (left - seconds).count();
    if (::pthread_clockjoin_np(handle_, nullptr, CLOCK_MONOTONIC, &at) != 0) return false;
    joinable_ = false;
    return true;
  }
#endif

 private:
  template <class Body>
  struct packet {
    Body body;
    thread_name name;

    static void* run(void* self) {
      const std::unique_ptr<packet> owned(static_cast<packet*>(self));
      if (owned->name.text()[0] != '\0') name_this_thread(owned->name.text());
      owned->body();
      return nullptr;
    }
  };

#if defined(__linux__)
  static int size_stack(::pthread_attr_t& attributes, const thread_options& options) noexcept {
    int error = 0;
    if (options.stack_bytes != 0) {
      const std::size_t page = page_bytes();
      const std::size_t pages = (options.stack_bytes - 1) / page + 1;
      error = ::pthread_attr_setstacksize(&attributes, pages * page);  // wraps to 0: EINVAL
    }
#if VELTRIX_KEEPS_STACKS && !defined(VELTRIX_MODEL)
    if (options.stack == nullptr || error != 0) return error;
    std::size_t bytes = 0;  // the default where none was set
    error = ::pthread_attr_getstacksize(&attributes, &bytes);
    if (error == 0) error = options.stack->reserve(bytes);
    if (error != 0) return error;
    error = ::pthread_attr_setstack(&attributes, options.stack->base(), options.stack->bytes());
#endif
    return error;
  }

  ::pthread_t handle_{};  // valid while joinable_
#else
  std::thread handle_;  // valid while joinable_
#endif
  bool joinable_ = false;  // owner's thread only
};
#endif

}  // namespace detail::sync
}  // namespace VELTRIX_ABI
}  // namespace veltrix
