// Keeps a pool at the size that is wanted, on a thread of its own, and says what came of it.
// Use for: direct mode, where the worker itself is the one writer of its pool's size.
// Not for: pools that somebody else resizes.
// Threads: all members may be called from any thread.
// Progress: want() and state() take a short lock; the destructor waits for a resize under way.
// Callbacks: none; lines go to the log, no lock held.
// Exceptions: std::system_error if the thread cannot be started.
// Lifetime: pool and log outlive it.
// Guide: docs/worker.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <system_error>
#include <utility>

#include "../clock.hpp"
#include "../detail/stoppable_wait.hpp"
#include "../detail/sync.hpp"
#include "../elastic_pool.hpp"
#include "../stop_token.hpp"
#include "controller.hpp"
#include "latency_histogram.hpp"
#include "worker_log.hpp"
#include "worker_stats.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// What is wanted of a pool.
struct pool_wish {
  std::int64_t workers = 0;
  std::uint64_t config_generation = 0;
  duration deadline = std::chrono::seconds(5);  ///< for one resize
};

/// What came of it.
struct keeper_state {
  pool_wish wish;
  resize_counts counts;
  bool refused = false;  ///< the wish in force was refused
  std::string reason{};  ///< why the pool is not as wished, as far as it is known
};

template <class Pool>
class pool_keeper {
 public:
  pool_keeper(Pool& pool, worker_log& log, pool_wish first) : pool_(pool), log_(log), wish_(first) {
    const int error = thread_.start({.name = "vx-control"}, [this] { run(); });
    if (error != 0) {
      detail::raise(std::system_error(error, std::generic_category(),
                                      "pool_keeper: the control thread cannot be started"));
    }
  }
  pool_keeper(const pool_keeper&) = delete;
  pool_keeper& operator=(const pool_keeper&) = delete;
  ~pool_keeper() {
    stop_.request_stop();
    thread_.join();
  }

  /// Sets another size; the thread asks the pool for it at once.
  void want(const pool_wish& wish) {
    {
      const detail::sync::lock_guard<detail::sync::mutex> lock(mutex_);
      wish_ = wish;
      renewed_ = true;
    }
    changed_.notify_all();
  }

  [[nodiscard]] keeper_state state() const {
    const detail::sync::lock_guard<detail::sync::mutex> lock(mutex_);
    return {.wish = wish_, .counts = counts_, .refused = refused_, .reason = reason_};
  }

  [[nodiscard]] const latency_histogram& resize_times() const noexcept { return times_; }

 private:
  static constexpr duration tick = std::chrono::milliseconds(500);

  void run() {
    duration pause = duration::zero();
    while (wait(pause)) {
      const pool_wish wish = next_wish();
      const pool_stats now = pool_.stats();
      const controller_view view{.desired = wish.workers,
                                 .config_generation = wish.config_generation,
                                 .target = static_cast<std::int64_t>(now.configured),
                                 .now = steady_clock::now()};
      const controller_step step = controller_.step(view);
      pause = tick;
      if (step.verdict == controller_verdict::resize) pause = resize(wish, view, now, step.delta);
      if (step.verdict == controller_verdict::settled && now.settled()) note_settled(now);
    }
  }

  /// False when the keeper ends.
  bool wait(duration pause) {
    detail::sync::unique_lock<detail::sync::mutex> lock(mutex_);
    // Woken by want(), after it wrote renewed_, or by the token.
    detail::wait_until(lock, changed_, steady_clock::now() + pause, stop_.get_token(),
                       [&] { return renewed_; });
    return !stop_.stop_requested();
  }

  pool_wish next_wish() {
    const detail::sync::lock_guard<detail::sync::mutex> lock(mutex_);
    if (renewed_) refused_ = false;
    renewed_ = false;
    return wish_;
  }

  duration resize(const pool_wish& wish, const controller_view& view, const pool_stats& before,
                  std::int64_t delta) {
    const time_point begun = steady_clock::now();
    const resize_result answer = pool_.resize_by(
        delta, {.expect_generation = before.generation, .deadline = begun + wish.deadline});
    const duration took = steady_clock::now() - begun;
    const std::string change = "resize " + std::to_string(before.configured) + " -> " +
                               std::to_string(wish.workers) + ": ";
    switch (answer.status) {
      case resize_status::ack:
        times_.record(took);
        controller_.acked(view);
        log_.say(change + "ack in " + milliseconds(took) + ", running " +
                 std::to_string(answer.running) + " (generation " +
                 std::to_string(answer.generation) + ")");
        note([](resize_counts& counts) { ++counts.ack; }, false, {});
        return tick;
      case resize_status::backoff: return back_off(answer, change, begun);
      case resize_status::refused: return refuse(answer, view, before);
    }
    return tick;
  }

  duration back_off(const resize_result& answer, const std::string& change, time_point begun) {
    const duration again =
        answer.retry_after > duration::zero() ? answer.retry_after : std::chrono::milliseconds(10);
    controller_.backed_off(steady_clock::now() + again);
    const std::string why = std::string(name_of(answer.reason)) + ", running " +
                            std::to_string(answer.running) + ", starting " +
                            std::to_string(answer.starting) + ", retiring " +
                            std::to_string(answer.retiring);
    log_.say({.code = diagnostic_code::resize_backoff,
              .what = change + "backoff",
              .got = why,
              .allowed = {},
              .stays = "the target is " + std::to_string(answer.target) + " (generation " +
                       std::to_string(answer.generation) + ")",
              .next = "asked again in " + milliseconds(again)});
    settling_since_ = begun;
    note([](resize_counts& counts) { ++counts.backoff; }, false, why);
    return again;
  }

  duration refuse(const resize_result& answer, const controller_view& view,
                  const pool_stats& before) {
    controller_.refused(view);
    const bool resource = answer.code == refusal_code::resource_limit;
    const std::string limit =
        answer.limit_source.empty()
            ? "is more than the system gives"
            : "is beyond " + std::to_string(answer.limit) + " (" + answer.limit_source + ")";
    log_.say({.code = diagnostic_code::resize_refused,
              .what = "workers.max_concurrency",
              .got = std::to_string(*view.desired),
              .allowed = limit + (resource ? ", errno " + std::to_string(answer.error) : ""),
              .stays = "generation " + std::to_string(answer.generation) + " with " +
                       std::to_string(before.configured) + " workers stays in force",
              .next = "lower it or raise the limit"});
    note([](resize_counts& counts) { ++counts.refused; }, true, limit);
    return tick;
  }

  void note_settled(const pool_stats& now) {
    {
      const detail::sync::lock_guard<detail::sync::mutex> lock(mutex_);
      reason_.clear();
    }
    if (settling_since_ == time_point{}) return;
    const duration took = steady_clock::now() - settling_since_;
    settling_since_ = {};
    times_.record(took);
    log_.say("resize settled after " + milliseconds(took) + ", running " +
             std::to_string(now.running) + " (generation " + std::to_string(now.generation) + ")");
  }

  template <class Count>
  void note(Count count, bool refused, std::string reason) {
    const detail::sync::lock_guard<detail::sync::mutex> lock(mutex_);
    count(counts_);
    refused_ = refused && !renewed_;
    reason_ = std::move(reason);
  }

  static std::string milliseconds(duration length) {
    char text[32];
    std::snprintf(text, sizeof text, "%.*f ms", length < std::chrono::milliseconds(10) ? 1 : 0,
                  static_cast<double>(length.count()) / 1e6);
    return text;
  }

  Pool& pool_;
  worker_log& log_;
  latency_histogram times_;
  pool_controller controller_;   // the thread's own
  time_point settling_since_{};  // the thread's own

  mutable detail::sync::mutex mutex_;  // guards everything below
  detail::sync::condition_variable changed_;
  pool_wish wish_;        // guarded by mutex_
  bool renewed_ = false;  // guarded by mutex_
  resize_counts counts_;  // guarded by mutex_
  bool refused_ = false;  // guarded by mutex_
  std::string reason_;    // guarded by mutex_

  stop_source stop_;
  detail::sync::native_thread thread_;
};

}  // namespace VELTRIX_ABI
}  // namespace veltrix
