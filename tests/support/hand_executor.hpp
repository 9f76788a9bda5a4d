// An executor whose tasks run when the test says so, and that refuses in every way there is.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <atomic>
#include <cstddef>
#include <deque>
#include <mutex>
#include <new>
#include <utility>

#include "veltrix/detail/task.hpp"
#include "veltrix/executor.hpp"

namespace veltrix_test {

/// Tasks may be posted from any thread; the rest is for one.
class hand_executor {
 public:
  enum class mood {
    takes,         ///< keeps the task until run_one()
    runs_at_once,  ///< inside try_post()
    full,          ///< leaves the task with the caller
    full_and_destroys,
    closed,
    throws,  ///< std::bad_alloc
  };

  veltrix::post_result try_post(veltrix::detail::task&& work) {
    ++offered;
    switch (now) {
      case mood::takes: {
        const std::lock_guard lock(mutex_);
        tasks_.push_back(std::move(work));
        return {};
      }
      case mood::runs_at_once: {
        veltrix::detail::task running(std::move(work));
        running();
        return {};
      }
      case mood::full_and_destroys: {
        const veltrix::detail::task ending(std::move(work));
        return {veltrix::post_status::full, "no room, and the task is gone"};
      }
      case mood::full: return {veltrix::post_status::full, "no room"};
      case mood::closed: return {veltrix::post_status::closed, "closed"};
      case mood::throws: throw std::bad_alloc();
    }
    return {};
  }

  /// Runs the oldest task. False if there is none.
  bool run_one() {
    veltrix::detail::task running = take();
    if (!running) return false;
    running();
    return true;
  }
  /// Runs tasks until there is none. Result: how many.
  std::size_t run_all() {
    std::size_t count = 0;
    while (run_one())
      ++count;
    return count;
  }
  /// Destroys what waits unrun.
  void drop_all() {
    while (take()) {}
  }
  [[nodiscard]] std::size_t waiting() const {
    const std::lock_guard lock(mutex_);
    return tasks_.size();
  }

  mood now = mood::takes;
  std::atomic<std::size_t> offered{0};

 private:
  veltrix::detail::task take() {
    const std::lock_guard lock(mutex_);
    if (tasks_.empty()) return {};
    veltrix::detail::task first(std::move(tasks_.front()));
    tasks_.pop_front();
    return first;
  }

  mutable std::mutex mutex_;  // guards tasks_
  std::deque<veltrix::detail::task> tasks_;
};

}  // namespace veltrix_test
