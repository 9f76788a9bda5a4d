// The explorer's engine: runs the threads of one execution as fibers, one operation at a time, and
// asks the search which thread, value or waiter comes next.
// Threads: one engine, one OS thread. Everything under test runs on its fibers.
// A transition is one visible operation and the code up to the next one. Each thread stops *before*
// its next visible operation, so that the search knows what every thread is about to do.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "model/fiber.hpp"
#include "model/state_memory.hpp"
#include "model/views.hpp"

namespace veltrix_model {

/// A line of source; as a default argument it is the caller's.
struct source_line {
  const char* file = "";
  int line = 0;

  static constexpr source_line here(const char* file = __builtin_FILE(),
                                    int line = __builtin_LINE()) noexcept {
    return {file, line};
  }
};

enum class action : std::uint8_t {
  none,
  load,
  store,
  modify,  ///< read-modify-write
  fence,
  lock,
  unlock,
  wait,
  notify,
  start,
  join,
  yield,
};

/// What a thread is about to do.
struct operation {
  action what = action::none;
  std::memory_order order = std::memory_order_relaxed;
  const void* object = nullptr;
  const void* second = nullptr;  ///< the mutex of a wait
  source_line at{};
};

/// Bits of threads.
using thread_set = std::uint16_t;
constexpr thread_set only(unsigned thread) noexcept {
  return static_cast<thread_set>(1u << thread);
}

struct thread_state {
  fiber_place place;
  void (*body)(void*) = nullptr;
  void* argument = nullptr;
  void (*last)(void*) = nullptr;  // runs when the body has returned; see at_thread_end()
  void* last_argument = nullptr;
  operation pending;
  view now{};       // what the thread has behind it
  view released{};  // `now` at its last release fence
  view read{};      // what an acquire fence would add: what its relaxed loads brought
  std::int64_t deadline = 0;
  unsigned starter = 0;
  bool priming = false;  // runs to its first operation, then back to its starter
  bool timed_out = false;
  void* exceptions[2] = {};  // the C++ runtime's per-thread state
  void* locals[8] = {};      // values of per_thread<>, by tag
  alignas(16) std::byte local_bytes[8][32] = {};
  void (*exits[4])() noexcept = {};  // run when the body has returned
  bool leaving = false;

  /// Result: false once the exits run.
  bool add_exit(void (*exit)() noexcept) noexcept {
    if (leaving) return false;
    for (auto& each : exits) {
      if (each == nullptr) each = exit;
      if (each == exit) return true;
    }
    return false;
  }
  void forget_exits() noexcept {
    for (auto& each : exits)
      each = nullptr;
    leaving = false;
  }
  void run_exits() noexcept {
    leaving = true;
    for (auto* const each : exits) {
      if (each != nullptr) each();
    }
  }
};

inline constexpr unsigned most_changes = 16;

enum class search_kind : std::uint8_t { depth_first, uniform, priorities };

/// Bounds and kind of a search.
struct search_options {
  search_kind how = search_kind::depth_first;
  int preemptions = -1;           ///< most preemptions per execution; -1: no bound, sleep sets on
  unsigned stale_reads = 0;       ///< most loads per execution that read an older value
  unsigned early_timeouts = 0;    ///< most timed waits that end although others could go on
  unsigned spurious_wakeups = 0;  ///< most waits that end for no reason
  thread_set may_freeze = 0;      ///< threads of which one may stop for ever at any operation
  bool every_order = false;       ///< with a bound: goes on from equal states each time
  bool ordered_fences = false;    ///< asymmetric fences without membarrier
  unsigned change_points = 3;     ///< priorities: the depth of the bugs looked for; at most 16
  unsigned most_steps = 20'000;   ///< more in one execution is a livelock; at most 30,000
  std::uint64_t seed = 1;         ///< uniform and priorities
  std::uint64_t fail_allocation = 0;  ///< the k-th allocation throws bad_alloc; 0: none
};

/// One decision of the search.
struct decision {
  std::uint32_t rest = 0;  // options not tried yet
  std::uint32_t done = 0;  // threads explored from here: they sleep in the later branches
  std::uint8_t taken = 0;
  bool of_thread = false;
};

/// One line of a trace.
struct trace_line {
  std::uint32_t step;
  std::uint8_t thread;
  operation what;
  std::uint64_t value;
  const char* note;
};

enum class outcome : std::uint8_t { running, complete, pruned, failed };

class engine {
 public:
  /// Whether the caller is a fiber of an execution.
  [[nodiscard]] bool running() const noexcept { return running_; }
  [[nodiscard]] std::uint32_t execution() const noexcept { return execution_; }
  [[nodiscard]] unsigned current() const noexcept { return current_; }
  [[nodiscard]] thread_state& self() noexcept { return threads_[current_]; }
  [[nodiscard]] thread_state& thread(unsigned id) noexcept { return threads_[id]; }
  [[nodiscard]] std::int64_t now_ns() const noexcept { return now_ns_; }
  [[nodiscard]] bool finished(unsigned id) const noexcept { return (finished_ & only(id)) != 0; }
  [[nodiscard]] const search_options& options() const noexcept { return options_; }

  /// Announces `op` and returns once the search chose this thread; then its clock has ticked.
  void point(const operation& op) {
    thread_state& me = self();
    me.pending = op;
    if (me.priming) [[unlikely]] {
      end_priming();
    } else {
      reschedule();
    }
    tick();
  }

  /// What the thread does from here on is not part of the message it has just given away.
  void begin_epoch() noexcept {
    thread_state& me = self();
    me.now.visible.of[current_] = ++me.now.happened.of[current_];
  }

  /// One of `count` values (0 is the plain one); counts against nothing.
  unsigned choose(unsigned count) {
    if (count < 2) return 0;
    const unsigned chosen = choose_value(count);
    observe(chosen);
    return chosen;
  }
  /// The running thread has learnt something that is no value of an object: whether a thread ended.
  void observe(std::uint64_t what) noexcept {
    if (states_.on()) states_.observe(current_, what);
  }

  /// Whether this execution may still read an old value.
  [[nodiscard]] bool stale_allowed() const noexcept { return stale_left_ != 0; }
  void count_stale() noexcept { --stale_left_; }
  std::uint32_t next_ordered() noexcept { return ++ordered_; }
  [[nodiscard]] std::uint32_t last_ordered() const noexcept { return ordered_; }
  void seq_cst_fence() noexcept;
  void fence_all_threads() noexcept;

  // Blocking: a thread in `blocked` is no option.
  void block(thread_set who) noexcept { blocked_ |= who; }
  void unblock(thread_set who) noexcept { blocked_ &= static_cast<thread_set>(~who); }
  /// The running transition lets go of `object`: whoever is about to touch it depends on that.
  void touch(const void* object) noexcept {
    if (sleep_ != 0) wake_sleepers(object);
  }
  void await_time(std::int64_t deadline) noexcept;
  void forget_time(unsigned id) noexcept { timed_ &= static_cast<thread_set>(~only(id)); }
  void yielded() noexcept { yielded_ |= only(current_); }

  /// What ends a wait early: the condition tells the engine who waits in it.
  void enter_wait(unsigned id, void (*end)(void*, unsigned), void* condition) noexcept;
  void leave_wait(unsigned id) noexcept { waiting_ &= static_cast<thread_set>(~only(id)); }

  /// A new thread, run up to its first operation. Result: its number.
  unsigned start(void (*body)(void*), void* argument);
  void join(unsigned id, source_line at);

  [[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 2, 3)));
  void note(std::uint64_t value, const char* text = "") noexcept {
    if (tracing_) [[unlikely]]
      note_now(value, text);
  }

  // The controller's side, see explore.cpp.
  void begin_search(const search_options& options);
  outcome execute(void (*body)(void*), void* argument);
  [[nodiscard]] bool next_path() noexcept;
  void set_tracing(bool on) noexcept { tracing_ = on; }
  void set_replaying(bool on) noexcept { replaying_ = on; }
  [[nodiscard]] const char* failure() const noexcept { return failure_; }
  [[nodiscard]] std::uint64_t steps() const noexcept { return all_steps_; }
  [[nodiscard]] unsigned path_length() const noexcept { return length_; }
  [[nodiscard]] decision* path() noexcept { return path_; }
  void set_path_length(unsigned length) noexcept { length_ = replay_ = length; }
  [[nodiscard]] const trace_line* trace() const noexcept { return trace_; }
  [[nodiscard]] unsigned trace_length() const noexcept { return trace_length_; }
  [[nodiscard]] bool in_warm_up() const noexcept { return execution_ <= 1; }

 private:
  static constexpr unsigned most_decisions = 120'000;
  static constexpr unsigned most_trace = 60'000;

  void tick() noexcept {
    begin_epoch();
    if (states_.on()) remember_step();
    if (tracing_) [[unlikely]]
      trace_step();
  }
  void remember_step() noexcept;
  [[nodiscard]] bool was_here(bool can_stay) noexcept;
  void reschedule() {
    const unsigned next = pick();
    if (next != current_) switch_to(next);
  }
  void switch_to(unsigned next) noexcept;
  void end_priming() noexcept;
  unsigned pick();
  unsigned decide_thread(thread_set ready, std::uint32_t options);
  unsigned choose_value(unsigned count);
  std::uint32_t early_wakes() const noexcept;
  void wake_early(unsigned id) noexcept;
  bool advance_time();
  [[noreturn]] void nobody_can_go_on();
  [[noreturn]] void leave(outcome how) noexcept;
  void push(std::uint32_t rest, unsigned taken, bool of_thread);
  std::uint64_t random() noexcept;
  unsigned uniform_of(std::uint32_t options) noexcept;
  unsigned highest_of(std::uint32_t options) noexcept;
  void fall_asleep(unsigned taken) noexcept;
  void wake_sleepers(const void* object) noexcept;
  void run_thread() noexcept;
  static void enter() noexcept;
  void trace_step() noexcept;
  void note_now(std::uint64_t value, const char* text) noexcept;

  bool running_ = false;
  bool tracing_ = false;
  bool replaying_ = false;
  unsigned current_ = 0;
  unsigned thread_count_ = 0;
  std::uint32_t execution_ = 0;
  thread_set live_ = 0, blocked_ = 0, yielded_ = 0, timed_ = 0, waiting_ = 0, finished_ = 0;
  thread_set frozen_ = 0, sleep_ = 0;
  unsigned steps_ = 0, preemptions_ = 0, stale_left_ = 0, early_left_ = 0, spurious_left_ = 0;
  std::uint32_t ordered_ = 0;  // operations in the one order of seq_cst
  clock_vector fenced_{};      // what seq_cst fences so far have behind them
  std::int64_t now_ns_ = 0;
  unsigned position_ = 0, length_ = 0, replay_ = 0;
  outcome outcome_ = outcome::running;
  bool sleeping_ = false;  // sleep sets are in use
  state_memory states_;
  bool repeats_ =
      false;  // from here on the execution is one that was run: its choices do not count
  std::uint64_t all_steps_ = 0;
  std::uint64_t random_ = 1;
  std::uint8_t priority_[max_threads] = {};
  std::uint32_t change_at_[most_changes] = {};
  unsigned longest_ = 64;  // steps of the longest execution so far
  search_options options_;
  fiber_place controller_;
  void* controller_exceptions_[2] = {};
  struct wait_entry {
    void (*end)(void*, unsigned) = nullptr;
    void* condition = nullptr;
  } wait_[max_threads];
  struct joiner {
    thread_set of = 0;
  } joining_[max_threads];
  char failure_[1024] = {};
  thread_state threads_[max_threads];
  std::byte* stacks_ = nullptr;
  decision* path_ = nullptr;
  trace_line* trace_ = nullptr;
  unsigned trace_length_ = 0;
};

extern engine the;

}  // namespace veltrix_model
