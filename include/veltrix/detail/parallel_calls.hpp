// Calls made at the same time by workers of a pool, and waited for.
// Use for: parallel_invoke() of elastic_pool. Internal.
// Not for: ranges and groups: see fork_join.hpp.
// Threads: all may be called from any thread.
// Progress: on a worker as open_branches; any other thread waits for a worker to do it all.
// Callbacks: the calls, no lock held.
// Exceptions: that of the first call, in the order of the calls; the others are reported.
// Lifetime: nothing outlives the call.
// Guide: docs/elastic_pool.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <exception>
#include <memory>
#include <utility>

#include "branches.hpp"
#include "pool_core.hpp"
#include "sync.hpp"
#include "task.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

template <class Work>
class branch_of : public branch {
 public:
  explicit branch_of(Work& work) noexcept : branch(&call_work), work_(work) {}

 private:
  static void call_work(branch& self) { static_cast<branch_of&>(self).work_(); }

  Work& work_;
};

/// One after the other, in this thread.
template <class First, class Second>
void call_in_turn(failure_sink& sink, First& first, Second& second) {
  VELTRIX_TRY {
    first();
  }
  VELTRIX_CATCH_ALL {
    sink.contain(second);
    VELTRIX_RETHROW;
  }
  second();
}

/// On a worker inside a task: calls `first`, and `second` too unless another worker takes it.
template <class First, class Second>
void fork_and_join(pool_core& core, worker_share& mine, First& first, Second& second) {
  branch_of<Second> forked(second);
  if (!core.fork(mine, forked)) [[unlikely]]
    return call_in_turn(*core.sink(), first, second);
  VELTRIX_TRY {
    first();
  }
  VELTRIX_CATCH_ALL {
    if (mine.branches.take_back()) {
      core.sink()->contain(second);
    } else {
      mine.branches.await(forked);
      if (std::exception_ptr failure = forked.take_failure()) {
        core.sink()->report(std::move(failure));
      }
    }
    VELTRIX_RETHROW;
  }
  if (mine.branches.take_back()) [[likely]]
    return second();
  mine.branches.await(forked);
  if (std::exception_ptr failure = forked.take_failure()) [[unlikely]]
    std::rethrow_exception(std::move(failure));
}

/// What a thread that is no worker waits for: `work`, done by a worker.
template <class Work>
class delegated_call {
 public:
  explicit delegated_call(Work& work) noexcept : work_(work) {}
  delegated_call(const delegated_call&) = delete;
  delegated_call& operator=(const delegated_call&) = delete;

  /// By a worker, once.
  void run() noexcept {
    std::exception_ptr failure;
    VELTRIX_TRY {
      work_();
    }
    VELTRIX_CATCH_ALL {
      failure = std::current_exception();
    }
    const sync::lock_guard<sync::mutex> lock(mutex_);
    failure_ = std::move(failure);
    ended_ = true;
    changed_.notify_one();  // under the lock: the waiter ends this object when it has the lock
  }

  void await() {
    std::exception_ptr failure;
    {
      sync::unique_lock<sync::mutex> lock(mutex_);
      while (!ended_)
        changed_.wait(lock);  // woken by run(), after it wrote ended_
      failure = std::move(failure_);
    }
    if (failure) std::rethrow_exception(std::move(failure));
  }

 private:
  Work& work_;
  sync::mutex mutex_;                 // guards everything below
  sync::condition_variable changed_;  // ended_ was written
  bool ended_ = false;                // guarded by mutex_
  std::exception_ptr failure_;        // guarded by mutex_
};

/// Calls both, at the same time if a worker is free.
template <class First, class Second>
void call_both(pool_core& core, First& first, Second& second) {
  const poster caller = core.own_share();
  if (caller.share != nullptr) [[likely]]
    return fork_and_join(core, *caller.share, first, second);
  if (!caller.worker) {  // one in a hook would wait for itself
    auto both = [&] { call_both(core, first, second); };
    delegated_call<decltype(both)> call(both);
    task entry([&call] { call.run(); });
    if (core.push(entry, when_full::refuses)) return call.await();
  }
  call_in_turn(*core.sink(), first, second);
}

template <class First, class Second, class... Others>
void call_all(pool_core& core, First& first, Second& second, Others&... others) {
  if constexpr (sizeof...(Others) == 0) {
    call_both(core, first, second);
  } else {
    auto rest = [&] { call_all(core, second, others...); };
    call_both(core, first, rest);
  }
}

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
