// The seam's types under the explorer: atomics, fences, mutexes, waits, threads, time, plain data.
// detail/sync.hpp includes this file where VELTRIX_MODEL names it.
// Outside of an execution every type here is a plain value with the same answers.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <atomic>
#include <bit>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <mutex>
#include <new>
#include <type_traits>
#include <utility>

#include "model/engine.hpp"
#include "model/heap.hpp"

namespace veltrix_model {

/// What every instrumented object begins with: is it alive, and since which execution.
class lifetime {
 public:
  constexpr lifetime() noexcept = default;

  /// Whether what is here is left over from an earlier execution, and must begin anew.
  [[nodiscard]] bool stale(const char* kind) {
    if (state_ != alive) [[unlikely]] {
      the.fail("use of %s that %s", kind, state_ == ended ? "has ended" : "is no object (freed?)");
    }
    if (execution_ == the.execution()) [[likely]]
      return false;
    if (heap.is_fresh(this)) the.fail("use of %s that was never made", kind);
    execution_ = the.execution();
    return true;
  }
  void begin() noexcept { execution_ = the.execution(); }
  void end() noexcept { state_ = ended; }

 private:
  static constexpr std::uint32_t alive = 0xa11fe001, ended = 0xdeadbeef;
  std::uint32_t state_ = alive;
  std::uint32_t execution_ = 0;
};

/// Which thread did what last, for the judgement of data races.
struct access {
  std::uint8_t thread;
  epoch when;

  [[nodiscard]] bool within(const clock_vector& known) const noexcept {
    return when <= known.of[thread];
  }
};

/// Plain data that threads share. Two accesses of which one writes must be ordered by
/// happens-before; else the execution fails with both sides named. No operation of the search: the
/// order of accesses that do not race cannot matter.
template <class T>
class var {
 public:
  constexpr var() noexcept(std::is_nothrow_default_constructible_v<T>) { made(); }
  template <class... From>
    requires(std::is_constructible_v<T, From...> && sizeof...(From) > 0)
  constexpr var(From&&... from) : value_(std::forward<From>(from)...) {  // NOLINT: as T itself
    made();
  }
  var(const var& other) : value_(other.read()) { made(); }
  var(var&& other) noexcept : value_(std::move(other.write())) { made(); }
  var& operator=(const var& other) {
    const T& from = other.read();
    write() = from;
    return *this;
  }
  var& operator=(var&& other) noexcept {
    T& from = other.write();
    write() = std::move(from);
    return *this;
  }
  template <class From>
    requires std::is_assignable_v<T&, From>
  var& operator=(From&& from) {
    write() = std::forward<From>(from);
    return *this;
  }
  ~var() {
    if (!the.running()) return;
    check_write("ends");
    life_.end();
  }

  /// The value, for reading only.
  [[nodiscard]] const T& read() const {
    check_read();
    return value_;
  }
  /// The value, to be changed.
  [[nodiscard]] T& write() {
    check_write("writes");
    return value_;
  }
  /// Forgets who used it: for an owner whose right to end it comes from counts that are not
  /// instrumented, such as those of std::shared_ptr.
  void forget() noexcept {
    written_ = {};
    read_ = {};
  }
  operator const T&() const { return read(); }  // NOLINT: as T itself
  const T& operator->() const
    requires std::is_pointer_v<T>
  {
    return read();
  }

 private:
  constexpr void made() noexcept {
    if (!std::is_constant_evaluated() && the.running()) {
      life_.begin();
      written_ = {static_cast<std::uint8_t>(the.current()),
                  the.self().now.happened.of[the.current()]};
    }
  }
  void renew() const {
    if (life_.stale("a var")) {
      written_ = {};
      read_ = {};
    }
  }
  void check_read() const {
    if (!the.running()) return;
    renew();
    const unsigned me = the.current();
    const clock_vector& known = the.self().now.happened;
    if (!written_.within(known)) {
      the.fail("data race: T%u reads what T%u writes", me, unsigned(written_.thread));
    }
    read_.of[me] = known.of[me];
  }
  void check_write(const char* verb) {
    if (!the.running()) return;
    renew();
    const unsigned me = the.current();
    const clock_vector& known = the.self().now.happened;
    if (!written_.within(known)) {
      the.fail("data race: T%u %s what T%u writes", me, verb, unsigned(written_.thread));
    }
    if (!read_.within(known)) {
      the.fail("data race: T%u %s what T%u reads", me, verb, read_.first_beyond(known));
    }
    written_ = {static_cast<std::uint8_t>(me), known.of[me]};
  }

  mutable lifetime life_;
  mutable access written_{};
  mutable clock_vector read_{};
  T value_{};
};

/// The stores of one atomic, newest last, as far back as a stale read may go.
class store_history {
 public:
  static constexpr unsigned depth = 8;

  constexpr explicit store_history(std::uint64_t bits) noexcept : initial_(bits), plain_(bits) {
    if (!std::is_constant_evaluated() && the.running()) {
      life_.begin();
      begin();
    }
  }
  constexpr ~store_history() {
    if (std::is_constant_evaluated() || !the.running()) return;
    renew();
    if (!used_.within(the.self().now.happened)) {
      the.fail("T%u ends an atomic that T%u still uses: nothing orders the two", the.current(),
               used_.first_beyond(the.self().now.happened));
    }
    life_.end();
  }

  std::uint64_t load(std::memory_order order, source_line at) const {
    if (!the.running()) return plain_;
    auto* const self = const_cast<store_history*>(this);
    self->before(action::load, order, at);
    return self->read(self->pick_old(order, [](std::uint64_t) { return true; }), order);
  }

  void store(std::uint64_t bits, std::memory_order order, source_line at) {
    if (!the.running()) {
      initial_ = plain_ = bits;
      return;
    }
    before(action::store, order, at);
    append(bits, order, nullptr);
    the.note(bits);
  }

  /// `next(old)` is the new value.
  template <class Next>
  std::uint64_t modify(Next next, std::memory_order order, source_line at) {
    if (!the.running()) {
      const std::uint64_t old = plain_;
      initial_ = plain_ = next(old);
      return old;
    }
    before(action::modify, order, at);
    const record old = newest();  // a copy: append() may overwrite it
    read(0, order);
    append(next(old.bits), order, &old.message);
    the.note(newest().bits, "from the newest");
    return old.bits;
  }

  /// Succeeds on the newest value only; may fail on an older one, as a load may read it.
  bool compare_exchange(std::uint64_t& expected, std::uint64_t desired, std::memory_order success,
                        std::memory_order failure, bool may_fail, source_line at) {
    if (!the.running()) {
      if (plain_ != expected) {
        expected = plain_;
        return false;
      }
      initial_ = plain_ = desired;
      return true;
    }
    before(action::modify, stronger(success, failure), at);
    const std::uint64_t wanted = expected;
    const unsigned back = pick_old(failure, [&](std::uint64_t bits) { return bits != wanted; });
    if (back == 0 && newest().bits == wanted) {
      if (!(may_fail && the.stale_allowed() && the.choose(2) == 1)) {
        const record old = newest();
        read(0, success);
        append(desired, success, &old.message);
        the.note(desired, "exchanged");
        return true;
      }
      the.count_stale();
    }
    expected = read(back, failure);
    the.note(expected, "not exchanged");
    return false;
  }

 private:
  static constexpr epoch never = std::numeric_limits<epoch>::max();
  static constexpr std::uint32_t unordered = std::numeric_limits<std::uint32_t>::max();

  struct record {
    std::uint64_t bits;
    view message;              // what an acquiring reader gets
    clock_vector first_read;   // each thread's first read of it; never: none
    std::uint32_t ordered_at;  // place in the order of seq_cst, by store or load; or unordered
    access by;
  };

  static std::memory_order stronger(std::memory_order a, std::memory_order b) noexcept {
    return a == std::memory_order_seq_cst ? a : (b == std::memory_order_seq_cst ? b : a);
  }
  static bool acquires(std::memory_order order) noexcept {
    return order == std::memory_order_acquire || order == std::memory_order_acq_rel ||
           order == std::memory_order_seq_cst;
  }
  static bool releases(std::memory_order order) noexcept {
    return order == std::memory_order_release || order == std::memory_order_acq_rel ||
           order == std::memory_order_seq_cst;
  }

  record& back(unsigned steps) noexcept { return ring_[(count_ - 1 - steps) % depth]; }
  record& newest() noexcept { return back(0); }

  void begin() noexcept {
    count_ = 1;
    record& first = ring_[0];
    first.bits = initial_;
    first.message = view{};
    for (epoch& each : first.first_read.of)
      each = never;
    first.ordered_at = unordered;
    const auto me = static_cast<std::uint8_t>(the.current());
    made_ = {me, the.self().now.happened.of[me]};
    first.by = made_;
    used_ = clock_vector{};
  }
  void renew() {
    if (!life_.stale("an atomic")) return;
    begin();
    made_ = ring_[0].by = access{};  // from before the execution: known to all
  }
  void before(action what, std::memory_order order, source_line at) {
    the.point({.what = what, .order = order, .object = this, .at = at});
    renew();
    const unsigned me = the.current();
    const clock_vector& known = the.self().now.happened;
    if (!made_.within(known)) {
      the.fail("data race: T%u uses an atomic whose construction by T%u it need not see", me,
               unsigned(made_.thread));
    }
    used_.of[me] = known.of[me];
  }

  /// Whether the calling thread may read nothing older than `stored`.
  bool is_last(const record& stored, std::memory_order order) noexcept {
    const view& mine = the.self().now;
    if (stored.by.within(mine.visible) || stored.ordered_at <= mine.fence) return true;
    if (order == std::memory_order_seq_cst && stored.ordered_at != unordered) return true;
    unsigned seen = 0;
    for (unsigned i = 0; i < max_threads; ++i)
      seen |= unsigned(stored.first_read.of[i] <= mine.visible.of[i]);
    return seen != 0;
  }

  /// How many stores back the load reads.
  template <class Allowed>
  unsigned pick_old(std::memory_order order, Allowed allowed) {
    if (!the.stale_allowed() || count_ == 1) return 0;
    unsigned found[depth] = {0};
    unsigned choices = 1;
    const unsigned kept = count_ < depth ? count_ : depth;
    for (unsigned steps = 0; steps + 1 < kept && !is_last(back(steps), order); ++steps) {
      if (allowed(back(steps + 1).bits)) found[choices++] = steps + 1;
    }
    const unsigned chosen = found[the.choose(choices)];
    if (chosen != 0) the.count_stale();
    return chosen;
  }

  std::uint64_t read(unsigned steps, std::memory_order order) {
    record& from = back(steps);
    thread_state& me = the.self();
    epoch& first = from.first_read.of[the.current()];
    const epoch now = me.now.happened.of[the.current()];
    if (first == never) first = now;
    (acquires(order) ? me.now : me.read).join(from.message);
    if (order == std::memory_order_seq_cst) {
      const std::uint32_t place = the.next_ordered();
      if (from.ordered_at == unordered) from.ordered_at = place;
    }
    the.note(from.bits, steps == 0 ? "" : "stale");
    return from.bits;
  }

  void append(std::uint64_t bits, std::memory_order order, const view* continued) {
    thread_state& me = the.self();
    ++count_;
    record& fresh = newest();
    fresh.bits = bits;
    fresh.message = releases(order) ? me.now : me.released;
    if (continued != nullptr) fresh.message.join(*continued);  // goes on with a release sequence
    for (epoch& each : fresh.first_read.of)
      each = never;
    fresh.ordered_at = order == std::memory_order_seq_cst ? the.next_ordered() : unordered;
    fresh.by = {static_cast<std::uint8_t>(the.current()), me.now.happened.of[the.current()]};
    the.begin_epoch();
  }

  lifetime life_;
  unsigned count_ = 0;
  std::uint64_t initial_;
  std::uint64_t plain_;  // outside of executions
  access made_{};
  clock_vector used_{};  // each thread's last operation on it
  record ring_[depth];   // the last of them at (count_ - 1) % depth
};

template <class T>
class atomic {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8,
                "the explorer models atomics of up to 8 bytes");

 public:
  using value_type = T;
  static constexpr bool is_always_lock_free = true;

  constexpr atomic() noexcept : stores_(bits_of(T())) {}
  constexpr atomic(T value) noexcept : stores_(bits_of(value)) {}  // NOLINT: as std::atomic
  atomic(const atomic&) = delete;
  atomic& operator=(const atomic&) = delete;

  [[nodiscard]] T load(std::memory_order order, source_line at = source_line::here()) const {
    return value_of(stores_.load(order, at));
  }
  void store(T value, std::memory_order order, source_line at = source_line::here()) {
    stores_.store(bits_of(value), order, at);
  }
  T exchange(T value, std::memory_order order, source_line at = source_line::here()) {
    return modify([&](T) { return value; }, order, at);
  }
  bool compare_exchange_strong(T& expected, T desired, std::memory_order success,
                               std::memory_order failure, source_line at = source_line::here()) {
    return exchange_if(expected, desired, success, failure, false, at);
  }
  bool compare_exchange_weak(T& expected, T desired, std::memory_order success,
                             std::memory_order failure, source_line at = source_line::here()) {
    return exchange_if(expected, desired, success, failure, true, at);
  }
  bool compare_exchange_strong(T& expected, T desired, std::memory_order order,
                               source_line at = source_line::here()) {
    return exchange_if(expected, desired, order, for_failure(order), false, at);
  }
  bool compare_exchange_weak(T& expected, T desired, std::memory_order order,
                             source_line at = source_line::here()) {
    return exchange_if(expected, desired, order, for_failure(order), true, at);
  }
  using difference = std::conditional_t<std::is_pointer_v<T>, std::ptrdiff_t, T>;
  T fetch_add(difference by, std::memory_order order, source_line at = source_line::here()) {
    return modify([&](T old) { return static_cast<T>(old + by); }, order, at);
  }
  T fetch_sub(difference by, std::memory_order order, source_line at = source_line::here()) {
    return modify([&](T old) { return static_cast<T>(old - by); }, order, at);
  }
  T fetch_and(T by, std::memory_order order, source_line at = source_line::here()) {
    return modify([&](T old) { return static_cast<T>(old & by); }, order, at);
  }
  T fetch_or(T by, std::memory_order order, source_line at = source_line::here()) {
    return modify([&](T old) { return static_cast<T>(old | by); }, order, at);
  }
  T fetch_xor(T by, std::memory_order order, source_line at = source_line::here()) {
    return modify([&](T old) { return static_cast<T>(old ^ by); }, order, at);
  }

 private:
  static constexpr std::uint64_t bits_of(T value) noexcept {
    if (std::is_constant_evaluated()) {
      if constexpr (std::is_integral_v<T> || std::is_enum_v<T>) {
        return static_cast<std::uint64_t>(value);
      } else if constexpr (std::is_pointer_v<T>) {
        if (value == nullptr) return 0;
      }
    }
    std::uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    return bits;
  }
  static T value_of(std::uint64_t bits) noexcept {
    alignas(T) std::byte value[sizeof(T)];
    std::memcpy(value, &bits, sizeof value);
    return std::bit_cast<T>(value);
  }
  static std::memory_order for_failure(std::memory_order order) noexcept {
    if (order == std::memory_order_acq_rel) return std::memory_order_acquire;
    return order == std::memory_order_release ? std::memory_order_relaxed : order;
  }
  template <class Next>
  T modify(Next next, std::memory_order order, source_line at) {
    return value_of(
        stores_.modify([&](std::uint64_t old) { return bits_of(next(value_of(old))); }, order, at));
  }
  bool exchange_if(T& expected, T desired, std::memory_order success, std::memory_order failure,
                   bool may_fail, source_line at) {
    std::uint64_t bits = bits_of(expected);
    const bool done =
        stores_.compare_exchange(bits, bits_of(desired), success, failure, may_fail, at);
    if (!done) expected = value_of(bits);
    return done;
  }

  store_history stores_;
};

inline void thread_fence(std::memory_order order, source_line at = source_line::here()) {
  if (!the.running()) return;
  the.point({.what = action::fence, .order = order, .at = at});
  thread_state& me = the.self();
  if (order != std::memory_order_release) me.now.join(me.read);
  if (order == std::memory_order_seq_cst) the.seq_cst_fence();
  if (order != std::memory_order_acquire) me.released = me.now;
  the.begin_epoch();
}

inline void full_fence(source_line at = source_line::here()) {
  thread_fence(std::memory_order_seq_cst, at);
}

/// What membarrier(2) does: a seq_cst fence in every thread at once.
inline void fence_everywhere(source_line at = source_line::here()) {
  if (!the.running()) return;
  the.point({.what = action::fence, .order = std::memory_order_seq_cst, .at = at});
  the.fence_all_threads();
}

enum class fence_mode : std::uint8_t { membarrier, ordered };

inline fence_mode asymmetric_fence_mode() noexcept {
  return the.options().ordered_fences ? fence_mode::ordered : fence_mode::membarrier;
}
inline void asymmetric_fence_light(fence_mode mode, source_line at = source_line::here()) {
  if (mode == fence_mode::ordered) thread_fence(std::memory_order_seq_cst, at);
}
inline void asymmetric_fence_heavy(fence_mode mode, source_line at = source_line::here()) {
  mode == fence_mode::ordered ? thread_fence(std::memory_order_seq_cst, at) : fence_everywhere(at);
}

/// No operation at unlock: that it is held a little longer, no other thread can tell, because
/// try_lock() may fail without a reason.
class mutex {
 public:
  constexpr mutex() noexcept {
    if (!std::is_constant_evaluated() && the.running()) life_.begin();
  }
  mutex(const mutex&) = delete;
  mutex& operator=(const mutex&) = delete;
  constexpr ~mutex() {
    if (std::is_constant_evaluated() || !the.running()) return;
    renew();
    if (held_) the.fail("T%u ends a mutex that T%u holds", the.current(), owner_);
    if (!used_.within(the.self().now.happened)) {
      the.fail("T%u ends a mutex that T%u still uses: nothing orders the two", the.current(),
               used_.first_beyond(the.self().now.happened));
    }
    life_.end();
  }

  void lock(source_line at = source_line::here()) {
    if (!the.running()) return;
    renew();
    if (held_ && owner_ == the.current()) the.fail("T%u locks a mutex it holds", owner_);
    want(the.current());
    the.point({.what = action::lock, .object = this, .at = at});
    take();
  }
  bool try_lock(source_line at = source_line::here()) {
    if (!the.running()) return true;
    the.point({.what = action::lock, .object = this, .at = at});
    renew();
    if (held_ || the.choose(2) == 1) return false;
    take();
    return true;
  }
  void unlock() {
    if (!the.running()) return;
    if (!held_ || owner_ != the.current()) {
      the.fail("T%u unlocks a mutex it does not hold", the.current());
    }
    held_ = false;
    message_ = the.self().now;
    the.begin_epoch();
    the.touch(this);
    the.unblock(wanting_);
  }

 private:
  friend class condition_variable;

  void renew() {
    if (life_.stale("a mutex")) reset();
  }
  void reset() noexcept {
    held_ = false;
    wanting_ = 0;
    message_ = view{};
    used_ = clock_vector{};
  }
  void want(unsigned id) noexcept {
    wanting_ |= only(id);
    if (held_) the.block(only(id));
  }
  void take() {
    renew();
    const unsigned me = the.current();
    wanting_ &= static_cast<thread_set>(~only(me));
    held_ = true;
    owner_ = me;
    used_.of[me] = the.self().now.happened.of[me];
    the.self().now.join(message_);
    the.block(wanting_);
  }

  lifetime life_;
  bool held_ = false;
  unsigned owner_ = 0;
  thread_set wanting_ = 0;
  view message_{};       // what the last holder had behind it
  clock_vector used_{};  // each thread's last time in it
};

template <class Mutex>
class lock_guard {
 public:
  explicit lock_guard(Mutex& held, source_line at = source_line::here()) : held_(held) {
    held_.lock(at);
  }
  lock_guard(const lock_guard&) = delete;
  lock_guard& operator=(const lock_guard&) = delete;
  ~lock_guard() { held_.unlock(); }

 private:
  Mutex& held_;
};

template <class Mutex>
class unique_lock {
 public:
  unique_lock() noexcept = default;
  explicit unique_lock(Mutex& held, source_line at = source_line::here()) : held_(&held) {
    lock(at);
  }
  unique_lock(Mutex& held, std::defer_lock_t) noexcept : held_(&held) {}
  unique_lock(Mutex& held, std::try_to_lock_t, source_line at = source_line::here())
      : held_(&held), owns_(held.try_lock(at)) {}
  unique_lock(unique_lock&& other) noexcept
      : held_(std::exchange(other.held_, nullptr)), owns_(std::exchange(other.owns_, false)) {}
  unique_lock& operator=(unique_lock&& other) noexcept {
    unique_lock(std::move(other)).swap(*this);
    return *this;
  }
  ~unique_lock() {
    if (owns_) held_->unlock();
  }
  void swap(unique_lock& other) noexcept {
    std::swap(held_, other.held_);
    std::swap(owns_, other.owns_);
  }

  void lock(source_line at = source_line::here()) {
    held_->lock(at);
    owns_ = true;
  }
  void unlock() {
    held_->unlock();
    owns_ = false;
  }
  [[nodiscard]] bool owns_lock() const noexcept { return owns_; }
  explicit operator bool() const noexcept { return owns_; }
  [[nodiscard]] Mutex* mutex() const noexcept { return held_; }
  Mutex* release() noexcept {
    owns_ = false;
    return std::exchange(held_, nullptr);
  }

 private:
  Mutex* held_ = nullptr;
  bool owns_ = false;
};

class condition_variable {
 public:
  condition_variable() noexcept {
    if (the.running()) life_.begin();
  }
  condition_variable(const condition_variable&) = delete;
  condition_variable& operator=(const condition_variable&) = delete;
  ~condition_variable() {
    if (!the.running()) return;
    renew();
    if (waiting_ != 0) the.fail("T%u ends a condition with a waiter", the.current());
    life_.end();
  }

  void wait(unique_lock<mutex>& lock, source_line at = source_line::here()) {
    wait_here(lock, nullptr, at);
  }
  template <class Clock, class Duration>
  std::cv_status wait_until(unique_lock<mutex>& lock,
                            const std::chrono::time_point<Clock, Duration>& until,
                            source_line at = source_line::here()) {
    const std::int64_t deadline = std::chrono::nanoseconds(until.time_since_epoch()).count();
    return wait_here(lock, &deadline, at) ? std::cv_status::timeout : std::cv_status::no_timeout;
  }
  void notify_one(source_line at = source_line::here()) {
    if (!the.running()) return;
    the.point({.what = action::notify, .object = this, .at = at});
    renew();
    if (waiting_ == 0) return;
    unsigned nth = the.choose(static_cast<unsigned>(std::popcount(waiting_)));
    thread_set chosen = waiting_;
    for (; nth > 0; --nth)
      chosen &= static_cast<thread_set>(chosen - 1);
    wake(static_cast<unsigned>(std::countr_zero(chosen)));
  }
  void notify_all(source_line at = source_line::here()) {
    if (!the.running()) return;
    the.point({.what = action::notify, .object = this, .at = at});
    renew();
    while (waiting_ != 0)
      wake(static_cast<unsigned>(std::countr_zero(waiting_)));
  }

 private:
  void renew() {
    if (life_.stale("a condition_variable")) waiting_ = 0;
  }
  void wake(unsigned id) noexcept {
    the.leave_wait(id);
    the.forget_time(id);
    leave(id);
  }
  /// The waiter wants its mutex back from here on.
  void leave(unsigned id) noexcept {
    waiting_ &= static_cast<thread_set>(~only(id));
    the.unblock(only(id));
    mutex_of_[id]->want(id);
  }
  bool wait_here(unique_lock<mutex>& lock, const std::int64_t* deadline, source_line at) {
    if (!the.running()) std::abort();  // nobody could wake it
    const unsigned me = the.current();
    mutex& held = *lock.mutex();
    the.point({.what = action::wait, .object = this, .second = &held, .at = at});
    renew();
    held.unlock();
    waiting_ |= only(me);
    mutex_of_[me] = &held;
    the.block(only(me));
    the.self().timed_out = false;
    if (deadline != nullptr) the.await_time(*deadline);
    the.enter_wait(
        me, [](void* self, unsigned id) { static_cast<condition_variable*>(self)->leave(id); },
        this);
    the.point({.what = action::lock, .object = &held, .at = at});
    held.take();
    return the.self().timed_out;
  }

  lifetime life_;
  thread_set waiting_ = 0;
  mutex* mutex_of_[max_threads] = {};
};

/// A binary semaphore for one sleeper, made of the two above.
class parker {
 public:
  void park(source_line at = source_line::here()) {
    unique_lock<mutex> lock(mutex_, at);
    while (!called_)
      changed_.wait(lock, at);
    called_ = false;
  }
  void unpark(source_line at = source_line::here()) {
    {
      const lock_guard<mutex> lock(mutex_, at);
      called_ = true;
    }
    changed_.notify_one(at);
  }

 private:
  mutex mutex_;
  condition_variable changed_;
  bool called_ = false;
};

inline void yield(source_line at = source_line::here()) {
  if (!the.running()) return;
  the.yielded();
  the.point({.what = action::yield, .at = at});
}

/// The time of the execution: it passes only when every thread waits for it.
inline std::chrono::steady_clock::time_point steady_now() noexcept {
  return std::chrono::steady_clock::time_point(std::chrono::nanoseconds(the.now_ns()));
}

/// As std::thread::id: a default one is no thread's.
class thread_id {
 public:
  constexpr thread_id() noexcept = default;
  constexpr explicit thread_id(unsigned id) noexcept : id_(static_cast<int>(id)) {}
  [[nodiscard]] constexpr int number() const noexcept { return id_; }
  friend constexpr bool operator==(thread_id, thread_id) noexcept = default;
  friend constexpr auto operator<=>(thread_id, thread_id) noexcept = default;

 private:
  int id_ = -1;
};

inline thread_id this_thread_id() noexcept {
  return thread_id(the.current());
}

/// The explorer's number of the calling thread, and whether that thread still runs.
inline long this_thread_number() noexcept {
  return static_cast<long>(the.current());
}
inline bool thread_is_listed(long number) noexcept {
  if (!the.running()) return false;
  const bool ended = the.finished(static_cast<unsigned>(number));
  the.observe(ended);
  return !ended;
}

/// Places of per_thread<>() given so far: one for each tag.
inline unsigned places_taken = 0;

/// A value of each thread, one per `Tag`, made by Tag() at the thread's first use.
template <class Tag>
Tag& per_thread() noexcept {
  static_assert(sizeof(Tag) <= 32 && std::is_trivially_destructible_v<Tag>);
  static const unsigned place = places_taken++;
  static Tag outside;
  if (!the.running()) return outside;
  thread_state& me = the.self();
  if (me.locals[place] == nullptr) me.locals[place] = new (me.local_bytes[place]) Tag();
  return *static_cast<Tag*>(me.locals[place]);
}

using exit_call = void (*)() noexcept;

/// Has `Leave()` run once when the calling thread of an execution ends; the first one never ends.
template <exit_call Leave>
bool at_thread_exit() noexcept {
  return !the.running() || the.self().add_exit(Leave);
}

/// A thread of the execution.
class native_thread {
 public:
  native_thread() = default;
  native_thread(native_thread&& other) noexcept
      : id_(other.id_), joinable_(std::exchange(other.joinable_.write(), false)) {}
  native_thread& operator=(native_thread&& other) noexcept {
    id_ = other.id_;
    joinable_ = std::exchange(other.joinable_.write(), false);
    return *this;
  }
  ~native_thread() {
    if (the.running() && joinable_) the.fail("a thread ended without join()");
  }

  /// Stands for the seam's thread_options, which a caller gives in braces.
  struct options {
    const char* name = nullptr;
    std::size_t stack_bytes = 0;
    void* stack = nullptr;
  };
  template <class Body>
  [[nodiscard]] int start(const options&, Body body, source_line at = source_line::here()) {
    start(std::move(body), at);
    return 0;
  }
  template <class Body>
  void start(Body body, source_line at = source_line::here()) {
    the.point({.what = action::start, .at = at});
    const execution_heap::sparing whole(heap);
    auto* const carried = new Body(std::move(body));
    id_ = the.start(
        [](void* argument) {
          {
            const std::unique_ptr<Body> owned(static_cast<Body*>(argument));
            (*owned)();
          }
          the.self().run_exits();
        },
        carried);
    joinable_ = true;
  }
  [[nodiscard]] bool joinable() const noexcept { return joinable_; }
  [[nodiscard]] unsigned id() const noexcept { return id_; }
  void join(source_line at = source_line::here()) {
    if (!joinable_) the.fail("join() without a running thread");
    the.join(id_, at);
    joinable_ = false;
  }

 private:
  unsigned id_ = 0;
  var<bool> joinable_ = false;  // a join is ordered after the return of the start
};

}  // namespace veltrix_model
