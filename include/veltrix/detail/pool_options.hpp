// What a pool is told when it is built, and what it says of itself.
// Use for: elastic_pool's constructor and stats().
// Not for: changing a pool that runs; that is resize_by() and resize_to().
// Threads: plain values.
// Progress: wait-free but for the texts of errors, which allocate.
// Callbacks: those named in the options; when and where they run stands beside each.
// Exceptions: std::invalid_argument for options out of bounds.
// Lifetime: the options' callables live as long as the pool (the handler: see failure_sink.hpp).
// Guide: docs/elastic_pool.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <stdexcept>
#include <string>
#include <string_view>

#include "message.hpp"
#include "task.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// How a pool is built. Hooks and handler are called by several workers at once, no lock held.
struct elastic_pool_options {
  /// Threads are named `<thread_name>-<n>`; 1 to 9 bytes, so that a name fits the kernel's 15.
  std::string thread_name = "vx-w";
  /// Of each worker; 0: the platform's default; else 64 KiB to 1 GiB.
  std::size_t stack_bytes = 0;
  /// Tasks that wait at most, 1 to 2^30; for a worker that posts, those in its own deque count too.
  std::size_t queue_capacity = 65536;
  /// The pool refuses to be smaller; at least 1.
  std::size_t min_workers = 1;
  /// Where min_workers comes from; told in refusals.
  std::string min_reason = "elastic_pool_options::min_workers";
  /// The pool refuses to be larger; min_workers to 65536.
  std::size_t max_workers = 4096;
  /// Where max_workers comes from, such as "pids.max=300, 16 kept back"; told in refusals.
  std::string max_reason = "elastic_pool_options::max_workers";
  /// Takes the exceptions of tasks. Empty: one line on stderr each.
  detail::unique_function<void(std::exception_ptr)> on_exception = {};
  /// Runs on each worker before it counts as running; gets the number in the thread's name.
  detail::unique_function<void(std::size_t)> on_start = {};
  /// Runs on each worker after its last task; gets the number in the thread's name.
  detail::unique_function<void(std::size_t)> on_stop = {};
  /// For tests: asked before the k-th thread of a growth is started; an errno other than 0 is taken
  /// as the system's answer.
  detail::unique_function<int(std::size_t)> start_fault = {};
};

/// A pool's sizes, of one instant; and counts of tasks, summed over its workers: each is right for
/// a moment of the call, and they agree with each other.
/// I1: running <= max(configured, running when the generation began).
/// I2: posted == queued + busy + completed.
struct pool_stats {
  std::size_t configured = 0;    ///< workers wanted
  std::size_t running = 0;       ///< workers registered; each registers and leaves by itself
  std::size_t busy = 0;          ///< workers inside a task
  std::size_t blocked = 0;       ///< blocking_scopes open on workers
  std::size_t starting = 0;      ///< threads not registered yet
  std::size_t retiring = 0;      ///< threads to leave: still registered above the target, or ending
  std::size_t queued = 0;        ///< accepted tasks that no worker has begun
  std::uint64_t generation = 0;  ///< accepted changes of size; the constructor's is 1
  std::uint64_t posted = 0;      ///< accepted tasks
  std::uint64_t completed = 0;   ///< tasks that ended, by an exception too
  std::uint64_t failed = 0;      ///< exceptions that reached the handler; may lead `completed`
  std::uint64_t over_capacity = 0;  ///< tasks that workers posted to a full queue

  /// Nothing starts, nothing retires, and what runs is what was asked.
  [[nodiscard]] bool settled() const noexcept {
    return running == configured && starting == 0 && retiring == 0;
  }
};

namespace detail {

inline constexpr std::size_t most_workers = 65536;
inline constexpr std::size_t longest_thread_name = 9;  // + '-' + 5 digits = 15 bytes

[[noreturn]] inline void refuse_option(std::string_view what, std::string got,
                                       std::string allowed) {
  raise(std::invalid_argument(describe({.where = "elastic_pool::elastic_pool",
                                        .what = what,
                                        .got = got,
                                        .allowed = allowed,
                                        .stays = "no thread was started"})));
}

inline void check_bound(std::string_view what, std::size_t got, std::size_t least,
                        std::size_t most) {
  if (got >= least && got <= most) return;
  refuse_option(what, text_of(got), text_of(least) + " to " + text_of(most));
}

/// Throws std::invalid_argument for the first option out of its bounds.
inline void check_options(const elastic_pool_options& options) {
  if (options.thread_name.empty() || options.thread_name.size() > longest_thread_name) {
    refuse_option("options.thread_name", '"' + options.thread_name + '"',
                  "1 to " + text_of(longest_thread_name) + " bytes");
  }
  if (options.stack_bytes != 0) {
    check_bound("options.stack_bytes", options.stack_bytes, 64U << 10, 1U << 30);
  }
  check_bound("options.queue_capacity", options.queue_capacity, 1, 1U << 30);
  check_bound("options.max_workers", options.max_workers, 1, most_workers);
  check_bound("options.min_workers", options.min_workers, 1, options.max_workers);
}

[[nodiscard]] inline std::string bounds_text(const elastic_pool_options& options) {
  return text_of(options.min_workers) + " (" + options.min_reason + ") to " +
         text_of(options.max_workers) + " (" + options.max_reason + ")";
}

/// The options as given. Throws std::invalid_argument if they, or the size, are out of bounds.
[[nodiscard]] inline elastic_pool_options checked_options(std::size_t workers,
                                                          elastic_pool_options options) {
  check_options(options);
  if (workers < options.min_workers || workers > options.max_workers) {
    refuse_option("workers", text_of(workers), bounds_text(options));
  }
  return options;
}

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
