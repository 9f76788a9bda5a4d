// SPDX-License-Identifier: BSL-1.0
#include "model/engine.hpp"

#include <cxxabi.h>
#include <sys/mman.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "model/heap.hpp"

#if defined(_LIBCPP_VERSION)  // it has the function, and does not declare it
namespace __cxxabiv1 {
struct __cxa_eh_globals;
extern "C" __cxa_eh_globals* __cxa_get_globals() noexcept;
}  // namespace __cxxabiv1
#endif

namespace veltrix_model {

constinit engine the;

namespace {

constexpr std::size_t stack_bytes = 256 * 1024;
constexpr unsigned step_limit = 30'000;                    // two epochs each must fit in 16 bits
constexpr std::int64_t start_of_time = 3'600'000'000'000;  // one hour, so that code may look back

template <class T>
T* reserve(std::size_t count) {
  void* const memory = ::mmap(nullptr, count * sizeof(T), PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    std::fprintf(stderr, "model: no memory for %zu bytes\n", count * sizeof(T));
    std::abort();
  }
  return static_cast<T*>(memory);
}

/// The runtime keeps caught exceptions per OS thread; each fiber needs its own.
void swap_exceptions(void** kept_by_from, void** kept_by_to) noexcept {
  static void* const runtime = static_cast<void*>(abi::__cxa_get_globals());
  std::memcpy(kept_by_from, runtime, 2 * sizeof(void*));
  std::memcpy(runtime, kept_by_to, 2 * sizeof(void*));
}

bool reads_only(const operation& op) noexcept {
  return op.what == action::load || op.what == action::join;
}

bool ordered(const operation& op) noexcept {
  return op.order == std::memory_order_seq_cst;
}

bool touches(const operation& op, const void* object) noexcept {
  return object != nullptr && (op.object == object || op.second == object);
}

/// Whether the two may change places without anybody seeing it.
bool independent(const operation& left, const operation& right) noexcept {
  // All operations in the one order of seq_cst count as dependent, and fences reach everything.
  if (ordered(left) && ordered(right)) return false;
  if (left.what == action::fence || right.what == action::fence) {
    return !(ordered(left) || ordered(right)) && left.what != right.what;
  }
  if (!touches(left, right.object) && !touches(left, right.second)) return true;
  return reads_only(left) && reads_only(right);
}

}  // namespace

// --- one execution ---

void engine::begin_search(const search_options& options) {
  if (stacks_ == nullptr) {
    stacks_ = reserve<std::byte>(max_threads * stack_bytes);
    path_ = reserve<decision>(most_decisions);
    trace_ = reserve<trace_line>(most_trace);
  }
  if (options.most_steps > step_limit || options.change_points > most_changes) {
    std::fprintf(stderr, "model: most_steps is 1 to %u, change_points 0 to %u; got %u and %u\n",
                 step_limit, most_changes, options.most_steps, options.change_points);
    std::abort();
  }
  options_ = options;
  sleeping_ = options.how == search_kind::depth_first && options.preemptions < 0 &&
              options.early_timeouts == 0 && options.spurious_wakeups == 0 &&
              options.may_freeze == 0;
  // Which allocation fails depends on the order of all of them.
  states_.begin_search(options.how == search_kind::depth_first && options.preemptions >= 0 &&
                           options.fail_allocation == 0 && !options.every_order,
                       options.stale_reads != 0);
  length_ = replay_ = 0;
  execution_ = 0;
  all_steps_ = 0;
  longest_ = 64;
  random_ = options.seed * 0x9e3779b97f4a7c15ull + 1;
}

outcome engine::execute(void (*body)(void*), void* argument) {
  ++execution_;
  live_ = blocked_ = yielded_ = timed_ = waiting_ = finished_ = frozen_ = sleep_ = 0;
  thread_count_ = 0;
  steps_ = preemptions_ = 0;
  stale_left_ = options_.stale_reads;
  early_left_ = options_.early_timeouts;
  spurious_left_ = options_.spurious_wakeups;
  ordered_ = 0;
  fenced_ = {};
  now_ns_ = start_of_time;
  position_ = 0;
  trace_length_ = 0;
  outcome_ = outcome::running;
  repeats_ = false;
  if (options_.how != search_kind::depth_first && !replaying_) {
    length_ = 0;
    for (unsigned i = 0; i < options_.change_points; ++i)
      change_at_[i] = static_cast<std::uint32_t>(random() % longest_);
  }
  heap.begin(in_warm_up(), options_.fail_allocation);
  states_.begin_execution();
  thread_count_ = 1;
  thread_state& main = threads_[0];
  main.now = main.released = main.read = view{};
  main.now.happened.of[0] = main.now.visible.of[0] = 1;
  main.body = body;
  main.argument = argument;
  main.last = nullptr;
  main.priming = false;
  std::memset(main.locals, 0, sizeof main.locals);
  main.forget_exits();
  std::memset(main.exceptions, 0, sizeof main.exceptions);
  main.pending = {};
  live_ = only(0);
  current_ = 0;
  priority_[0] = static_cast<std::uint8_t>(16 + random() % 64);
  prepare_fiber(main.place, &engine::enter, stacks_, stack_bytes);
  running_ = true;
  swap_exceptions(controller_exceptions_, main.exceptions);
  switch_fiber(controller_, main.place);
  running_ = false;
  all_steps_ += steps_;
  if (steps_ > longest_) longest_ = steps_;
  if (outcome_ == outcome::complete && !in_warm_up() && frozen_ == 0) {
    if (const char* leak = heap.describe_leak(); leak != nullptr) {
      std::snprintf(failure_, sizeof failure_, "%s", leak);
      outcome_ = outcome::failed;
    }
  }
  heap.end();
  return repeats_ && outcome_ == outcome::complete ? outcome::pruned : outcome_;
}

void engine::enter() noexcept {
  the.run_thread();
}

void engine::run_thread() noexcept {
  thread_state& me = self();
  try {
    me.body(me.argument);
    if (me.last != nullptr) me.last(me.last_argument);
  } catch (const std::exception& thrown) {
    fail("an exception left T%u: %s", current_, thrown.what());
  } catch (...) {
    fail("an exception left T%u", current_);
  }
  const thread_set bit = only(current_);
  live_ &= static_cast<thread_set>(~bit);
  finished_ |= bit;
  unblock(joining_[current_].of);
  joining_[current_].of = 0;
  if (current_ == 0) {
    const auto others = static_cast<thread_set>(live_ & ~frozen_);
    if (others != 0) fail("the body returned while T%d still runs", std::countr_zero(others));
    leave(outcome::complete);
  }
  const unsigned next = me.priming ? me.starter : pick();
  me.priming = false;
  switch_to(next);
  std::abort();  // a finished thread is never chosen
}

void engine::leave(outcome how) noexcept {
  outcome_ = how;
  swap_exceptions(self().exceptions, controller_exceptions_);
  switch_fiber(self().place, controller_);
  std::abort();  // the controller never comes back
}

void engine::fail(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(failure_, sizeof failure_, format, arguments);
  va_end(arguments);
  if (!running_) {
    std::fprintf(stderr, "model: outside of an execution: %s\n", failure_);
    std::abort();
  }
  leave(outcome::failed);
}

void engine::switch_to(unsigned next) noexcept {
  thread_state& from = self();
  thread_state& to = threads_[next];
  current_ = next;
  swap_exceptions(from.exceptions, to.exceptions);
  switch_fiber(from.place, to.place);
}

unsigned engine::start(void (*body)(void*), void* argument) {
  if (thread_count_ == max_threads) fail("more than %u threads in one execution", max_threads);
  const unsigned id = thread_count_++;
  thread_state& child = threads_[id];
  thread_state& parent = self();
  child.now = parent.now;
  child.released = child.read = view{};
  child.now.happened.of[id] = child.now.visible.of[id] = 1;
  child.body = body;
  child.argument = argument;
  child.last = nullptr;
  child.starter = current_;
  child.priming = true;
  std::memset(child.locals, 0, sizeof child.locals);
  child.forget_exits();
  std::memset(child.exceptions, 0, sizeof child.exceptions);
  child.pending = {};
  joining_[id].of = 0;
  priority_[id] = static_cast<std::uint8_t>(16 + random() % 64);
  begin_epoch();
  states_.begin_thread(id, current_);
  live_ |= only(id);
  prepare_fiber(child.place, &engine::enter, stacks_ + id * stack_bytes, stack_bytes);
  switch_to(id);  // comes back when the child has its first operation before it
  return id;
}

void engine::end_priming() noexcept {
  self().priming = false;
  switch_to(self().starter);  // chosen when it comes back
}

void engine::join(unsigned id, source_line at) {
  if (!finished(id)) {
    block(only(current_));
    joining_[id].of |= only(current_);
  }
  point({.what = action::join, .object = &threads_[id], .at = at});
  self().now.join(threads_[id].now);
}

// --- fences ---

void engine::seq_cst_fence() noexcept {
  view& mine = self().now;
  fenced_.join(mine.happened);
  mine.visible.join(fenced_);
  mine.fence = ++ordered_;
}

void engine::fence_all_threads() noexcept {
  for (unsigned i = 0; i < thread_count_; ++i)
    fenced_.join(threads_[i].now.happened);
  ++ordered_;
  if (options_.stale_reads != 0) states_.everywhere(2 * max_threads);  // else nobody can tell
  for (unsigned i = 0; i < thread_count_; ++i) {
    threads_[i].now.visible.join(fenced_);
    threads_[i].now.fence = ordered_;
  }
}

// --- waits and time ---

void engine::await_time(std::int64_t deadline) noexcept {
  self().deadline = deadline;
  self().timed_out = false;
  timed_ |= only(current_);
}

void engine::enter_wait(unsigned id, void (*end)(void*, unsigned), void* condition) noexcept {
  wait_[id] = {end, condition};
  waiting_ |= only(id);
}

void engine::wake_early(unsigned id) noexcept {
  states_.everywhere(2 * id + unsigned{threads_[id].timed_out});
  waiting_ &= static_cast<thread_set>(~only(id));
  timed_ &= static_cast<thread_set>(~only(id));
  wait_[id].end(wait_[id].condition, id);
}

/// Ends the timed wait with the nearest deadline. Result: false when there is none.
bool engine::advance_time() {
  if (timed_ == 0) return false;
  thread_set nearest = 0;
  std::int64_t at = 0;
  for (unsigned i = 0; i < thread_count_; ++i) {
    if ((timed_ & only(i)) == 0) continue;
    if (nearest == 0 || threads_[i].deadline < at) {
      at = threads_[i].deadline;
      nearest = only(i);
    } else if (threads_[i].deadline == at) {
      nearest |= only(i);
    }
  }
  unsigned nth = choose(static_cast<unsigned>(std::popcount(nearest)));
  for (; nth > 0; --nth)
    nearest &= static_cast<thread_set>(nearest - 1);
  const auto id = static_cast<unsigned>(std::countr_zero(nearest));
  if (at > now_ns_) now_ns_ = at;
  threads_[id].timed_out = true;
  wake_early(id);
  return true;
}

void engine::nobody_can_go_on() {
  if (frozen_ != 0) {
    const auto stuck = static_cast<thread_set>(live_ & ~frozen_);
    if ((stuck & ~only(0)) == 0) leave(outcome::complete);  // only the body waits: for the frozen
    fail("T%d cannot go on once T%d has stopped for ever",
         std::countr_zero(static_cast<thread_set>(stuck & ~only(0))), std::countr_zero(frozen_));
  }
  char text[700];
  std::size_t used = 0;
  bool asleep = false;
  for (unsigned i = 0; i < thread_count_; ++i) {
    if ((live_ & only(i)) == 0) continue;
    const operation& op = threads_[i].pending;
    const bool waits = (waiting_ & only(i)) != 0;
    asleep = asleep || waits;
    const char* what = waits ? "waits for a notification"
                             : (op.what == action::join ? "joins" : "waits for a mutex");
    const char* file = std::strrchr(op.at.file, '/');
    used += static_cast<std::size_t>(
        std::snprintf(text + used, sizeof text - used, "; T%u %s at %s:%d", i, what,
                      file != nullptr ? file + 1 : op.at.file, op.at.line));
    if (used >= sizeof text) break;
  }
  fail("%s%s", asleep ? "deadlock (lost wake-up)" : "deadlock", text);
}

// --- states ---

void engine::remember_step() noexcept {
  const operation& op = self().pending;
  states_.local(current_,
                static_cast<std::uint64_t>(op.at.line) * 16 + static_cast<unsigned>(op.what));
  if (op.what == action::join) {
    states_.join(current_,
                 static_cast<unsigned>(static_cast<const thread_state*>(op.object) - threads_));
  } else if (op.what == action::load) {
    states_.read(current_, op.object);
  } else if (op.object != nullptr) {
    states_.write(current_, op.object);
  }
  if (ordered(op)) states_.seq_cst(current_);
}

/// Whether the search has had this choice of threads before, with the same to follow.
bool engine::was_here(bool can_stay) noexcept {
  if (in_warm_up() || replaying_) return false;
  std::uint64_t state = states_.state();
  for (unsigned i = 0; i < thread_count_; ++i) {
    const operation& next = threads_[i].pending;
    state = state_memory::mix(
        state, static_cast<std::uint64_t>(next.at.line) * 16 + static_cast<unsigned>(next.what));
  }
  // Who may go on without a preemption, at once or when its wait ends early.
  const bool stays = can_stay || (waiting_ & only(current_)) != 0;
  state = state_memory::mix(state, stays ? current_ : max_threads);
  state = state_memory::mix(state, std::uint64_t{yielded_} << 32 | std::uint64_t{frozen_} << 16);
  state = state_memory::mix(
      state, std::uint64_t{stale_left_} << 40 | std::uint64_t{early_left_} << 20 | spurious_left_);
  return states_.was_in(state, preemptions_);
}

// --- the search ---

std::uint64_t engine::random() noexcept {
  random_ ^= random_ << 13;
  random_ ^= random_ >> 7;
  random_ ^= random_ << 17;
  return random_;
}

unsigned engine::uniform_of(std::uint32_t options) noexcept {
  auto nth =
      static_cast<unsigned>((random() >> 33) % static_cast<unsigned>(std::popcount(options)));
  for (; nth > 0; --nth)
    options &= options - 1;
  return static_cast<unsigned>(std::countr_zero(options));
}

unsigned engine::highest_of(std::uint32_t options) noexcept {
  for (unsigned i = 0; i < options_.change_points; ++i) {
    if (change_at_[i] == steps_) priority_[current_] = static_cast<std::uint8_t>(i);
  }
  unsigned best = static_cast<unsigned>(std::countr_zero(options));
  if (best >= max_threads) return best;
  for (unsigned i = best + 1; i < max_threads; ++i) {
    if ((options & (1u << i)) != 0 && priority_[i] > priority_[best]) best = i;
  }
  const std::uint32_t early = options >> max_threads;
  if (early != 0 && random() % 8 == 0) return uniform_of(early) + max_threads;
  return best;
}

void engine::push(std::uint32_t rest, unsigned taken, bool of_thread) {
  if (length_ == most_decisions) fail("more than %u decisions in one execution", most_decisions);
  path_[length_++] = {rest, 0, static_cast<std::uint8_t>(taken), of_thread};
  position_ = length_;
}

void engine::fall_asleep(unsigned taken) noexcept {
  const operation& op = threads_[taken].pending;
  sleep_ &= static_cast<thread_set>(~only(taken));
  for (unsigned i = 0; i < thread_count_; ++i) {
    if ((sleep_ & only(i)) != 0 && !independent(threads_[i].pending, op)) {
      sleep_ &= static_cast<thread_set>(~only(i));
    }
  }
}

void engine::wake_sleepers(const void* object) noexcept {
  for (unsigned i = 0; i < thread_count_; ++i) {
    if (touches(threads_[i].pending, object)) sleep_ &= static_cast<thread_set>(~only(i));
  }
}

std::uint32_t engine::early_wakes() const noexcept {
  std::uint32_t wakes = 0;
  if (early_left_ != 0) wakes |= timed_;
  if (spurious_left_ != 0) wakes |= waiting_;
  return wakes << max_threads;
}

/// Threads are options 0..7, ends of waits 8..15. A switch away from a thread that could go on is a
/// preemption; so is an early end.
unsigned engine::decide_thread(thread_set ready, std::uint32_t options) {
  const bool can_stay = (ready & only(current_)) != 0;
  const bool bounded =
      options_.preemptions >= 0 && preemptions_ >= static_cast<unsigned>(options_.preemptions);
  if (can_stay && bounded) options &= only(current_);
  unsigned taken = 0;
  if (position_ < replay_) {
    if (std::has_single_bit(options) && !sleeping_) {
      taken = static_cast<unsigned>(std::countr_zero(options));
    } else if (sleeping_ && std::has_single_bit(options & ~std::uint32_t{sleep_})) {
      taken = static_cast<unsigned>(std::countr_zero(options & ~std::uint32_t{sleep_}));
    } else {
      const decision& at = path_[position_++];
      sleep_ |= static_cast<thread_set>(at.done);
      taken = at.taken;
    }
  } else {
    if (sleeping_) options &= ~std::uint32_t{sleep_};
    if (options == 0) leave(outcome::pruned);
    const unsigned plain = (options & (1u << current_)) != 0 && can_stay
                               ? current_
                               : static_cast<unsigned>(std::countr_zero(options));
    taken = plain;
    const bool several = !std::has_single_bit(options);
    // What repeats is run to its end: it may have to put back what is kept between executions.
    if (several && states_.on() && !repeats_) repeats_ = was_here(can_stay);
    if (several && !repeats_) {
      if (options_.how == search_kind::uniform) taken = uniform_of(options);
      if (options_.how == search_kind::priorities) taken = highest_of(options);
      push(options_.how == search_kind::depth_first ? options & ~(1u << taken) : 0, taken, true);
    }
  }
  if (can_stay && taken != current_) ++preemptions_;
  return taken;
}

unsigned engine::choose_value(unsigned count) {
  if (position_ < replay_) return path_[position_++].taken;
  if (repeats_) return 0;
  if (options_.how == search_kind::depth_first) {
    push(((1u << count) - 1) & ~1u, 0, false);
    return 0;
  }
  // Half of the time the plain value: rare events stay rare, and can happen together.
  const std::uint64_t drawn = random() >> 33;
  const auto taken = (drawn & 1) != 0 ? 0u : static_cast<unsigned>((drawn >> 1) % count);
  push(0, taken, false);
  return taken;
}

unsigned engine::pick() {
  for (;;) {
    if (++steps_ > options_.most_steps) {
      fail("livelock: %u steps and no end; T%u is at %s:%d", options_.most_steps, current_,
           self().pending.at.file, self().pending.at.line);
    }
    const auto able = static_cast<thread_set>(live_ & ~blocked_ & ~frozen_);
    if (able == 0) {
      if (!advance_time()) nobody_can_go_on();
      continue;
    }
    auto ready = static_cast<thread_set>(able & ~yielded_);
    if (ready == 0) {
      yielded_ = 0;
      ready = able;
    }
    std::uint32_t options = ready | early_wakes();
    unsigned taken = 0;
    if (std::has_single_bit(options) && (sleep_ & options) == 0) {
      taken = static_cast<unsigned>(std::countr_zero(options));
    } else {
      taken = decide_thread(ready, options);
    }
    if (taken >= max_threads) {
      const unsigned id = taken - max_threads;
      const bool times_out = early_left_ != 0 && (timed_ & only(id)) != 0;
      --(times_out ? early_left_ : spurious_left_);
      threads_[id].timed_out = times_out;
      if (times_out && threads_[id].deadline > now_ns_) now_ns_ = threads_[id].deadline;
      wake_early(id);
      continue;
    }
    if ((options_.may_freeze & only(taken)) != 0 && frozen_ == 0 && choose(2) == 1) {
      frozen_ = only(taken);
      continue;
    }
    if (sleeping_) fall_asleep(taken);
    if (threads_[taken].pending.what != action::yield) yielded_ = 0;
    return taken;
  }
}

bool engine::next_path() noexcept {
  while (length_ != 0) {
    decision& last = path_[length_ - 1];
    if (last.rest != 0) {
      if (last.of_thread) last.done |= 1u << last.taken;
      last.taken = static_cast<std::uint8_t>(std::countr_zero(last.rest));
      last.rest &= last.rest - 1;
      replay_ = length_;
      return true;
    }
    --length_;
  }
  return false;
}

// --- traces ---

void engine::trace_step() noexcept {
  if (trace_length_ == most_trace) return;
  trace_[trace_length_++] = {steps_, static_cast<std::uint8_t>(current_), self().pending, 0, ""};
}

void engine::note_now(std::uint64_t value, const char* text) noexcept {
  if (trace_length_ == 0) return;
  trace_[trace_length_ - 1].value = value;
  trace_[trace_length_ - 1].note = text;
}

}  // namespace veltrix_model
