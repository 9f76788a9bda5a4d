// One loop over numbered pieces, done by the caller and whoever an executor lends.
// Use for: the parallel forms of containers. Internal.
// Not for: pieces that wait for each other.
// Threads: share_work() may be called from any thread, the executor's own included.
// Progress: the caller needs no helper: it does every piece nobody else took, then waits for pieces
//   that run.
// Callbacks: the job, on the caller's thread and the executor's, no lock held.
// Exceptions: the job's first one, once no piece runs; std::bad_alloc before the first piece.
// Lifetime: a helper that starts late finds the loop closed and touches nothing of the caller's.
// Guide: docs/design.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <exception>
#include <memory>
#include <utility>

#include "../executor.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// I1: job_ is called only between enter() and leave(), or by the caller.
/// I2: nobody enters once the loop is closed, so close() returning means job_ may end.
template <class Job>
class shared_loop {
 public:
  shared_loop(std::size_t pieces, Job& job) : pieces_(pieces), job_(&job) {}

  /// A helper's part; does nothing if the caller has finished.
  void help() {
    {
      const sync::lock_guard<sync::mutex> lock(mutex_);
      if (closed_) return;
      ++helpers_;
    }
    run();
    const sync::lock_guard<sync::mutex> lock(mutex_);
    --helpers_;
    left_.notify_all();
  }

  /// Takes pieces until none is left or one has failed.
  void run() {
    for (;;) {
      const std::size_t piece = next_.fetch_add(1, sync::relaxed);
      if (piece >= pieces_) return;
      VELTRIX_TRY {
        (*job_)(piece);
      }
      VELTRIX_CATCH_ALL {
        fail();
      }
    }
  }

  /// The caller's end: no helper comes in, those inside are waited for, the first failure leaves.
  void close() {
    sync::unique_lock<sync::mutex> lock(mutex_);
    closed_ = true;
    while (helpers_ != 0)
      left_.wait(lock);  // woken by help(), after --helpers_
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  }

 private:
  void fail() {
    next_.store(pieces_, sync::relaxed);
    const sync::lock_guard<sync::mutex> lock(mutex_);
    if (!failure_) failure_ = std::current_exception();
  }

  const std::size_t pieces_;
  Job* const job_;                     // the caller's; see I2
  sync::atomic<std::size_t> next_{0};  // relaxed: numbers only; mutex_ orders the results
  sync::mutex mutex_;                  // guards the rest
  sync::condition_variable left_;
  std::size_t helpers_ = 0;
  bool closed_ = false;
  std::exception_ptr failure_;
};

/// Calls `job(i)` once for each i below `pieces`, but starts no further piece once a call threw.
/// Posts at most one helper per further CPU; an answer other than accepted, or a post that throws,
/// means one helper less.
template <executor Executor, class Job>
void share_work(Executor& where, std::size_t pieces, Job& job) {
  const auto loop = std::make_shared<shared_loop<Job>>(pieces, job);
  const std::size_t cpus = sync::hardware_threads();
  VELTRIX_TRY {
    for (std::size_t i = 1; i < pieces && i < cpus; ++i) {
      if (!where.try_post(task([loop] { loop->help(); }))) break;
    }
  }
  VELTRIX_CATCH_ALL {
    // Nothing was posted by that call; the caller does the work.
  }
  loop->run();
  loop->close();
}

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
