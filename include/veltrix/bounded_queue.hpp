// A queue bounded by items and bytes that pushes back: block, reject, drop, or hand back.
// Use for: the place between two stages where memory must have a limit and overload an answer.
// Not for: per-key order over many threads (keyed_executor.hpp), or millions of pushes a second.
// Threads: all members may be called from any thread.
// Progress: one short lock per call; push (policy block) and pop wait, try_ forms never do.
// Callbacks: the weigher and on_drop in the pushing thread, no lock held; T's move constructor and
//   the end of what it moved from under the queue's lock: they must not call the queue.
// Exceptions: the weigher's, T's move's, std::bad_alloc: nothing pushed or popped then. What
//   on_drop throws is counted.
// Lifetime: outlives its callers; what is inside ends with it.
// Guide: docs/bounded_queue.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "clock.hpp"
#include "detail/load_bound.hpp"
#include "detail/message.hpp"
#include "detail/node_chain.hpp"
#include "detail/stoppable_wait.hpp"
#include "detail/sync.hpp"
#include "detail/task.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// What a push does when there is no room.
enum class full_policy : std::uint8_t {
  block,        ///< waits for room, its deadline, its token, or close(); first come, first served
  reject,       ///< answers full
  drop_newest,  ///< answers dropped: the pushed item is given up, and counted
  drop_oldest,  ///< ends the oldest items until the new one fits
  caller_runs,  ///< answers run_yourself: the pusher does the work in its own thread
};

/// The two limits have no default: they are the caller's.
struct bounded_queue_options {
  std::size_t max_items = 0;  ///< 1..2^40; settable later
  std::size_t max_bytes = 0;  ///< 1..2^48, or no_byte_limit; settable later
  full_policy policy = full_policy::block;
  std::size_t max_waiters = 1024;  ///< pushers that may wait at once; 0: none
};

enum class push_status : std::uint8_t {
  accepted,      ///< all are in the queue
  full,          ///< no room; `bound` says which bound
  too_heavy,     ///< the item alone is above the byte limit: it never fits
  dropped,       ///< no room, and the policy gives the new item up
  run_yourself,  ///< no room, and the policy hands the work back
  closed,        ///< nothing more is taken, ever
  stopped,       ///< the token stopped while waiting for room
  timed_out,     ///< the deadline passed while waiting for room
  threw,         ///< T's move threw after the first of a bulk; the next call meets the exception
};

/// The answer to a push. Whatever was not accepted is untouched and still the caller's.
struct [[nodiscard]] push_result {
  push_status status = push_status::accepted;
  bound_kind bound = bound_kind::none;  ///< what was in the way
  std::size_t accepted = 0;             ///< items now in the queue, the first ones of a bulk
  std::size_t evicted = 0;              ///< older items ended to make room (drop_oldest)
  std::size_t item_bytes = 0;           ///< weight of the first item not accepted
  load inside{};                        ///< what the queue held at the time of the refusal
  load limit{};                         ///< its limits at that time

  [[nodiscard]] explicit operator bool() const noexcept { return status == push_status::accepted; }

  /// "full: 64.0 MiB of 64 MiB (48,211 events)". `noun` names the items. Allocates.
  [[nodiscard]] std::string message(std::string_view noun = "items") const {
    const auto figures = [&] { return detail::full_text(bound, inside, limit, noun); };
    switch (status) {
      case push_status::accepted: return "accepted";
      case push_status::full: return "full: " + figures();
      case push_status::too_heavy: return "too heavy: " + detail::too_heavy_text(item_bytes, limit);
      case push_status::dropped: return "dropped, the newest: " + figures();
      case push_status::run_yourself: return "run it yourself: " + figures();
      case push_status::closed: return "closed: nothing more is taken";
      case push_status::stopped: return "stopped while waiting: " + figures();
      case push_status::timed_out: return "timed out: " + figures();
      case push_status::threw: return "an item threw while it was moved in";
    }
    return "unknown";
  }
};

enum class pop_status : std::uint8_t {
  item,       ///< here it is
  empty,      ///< nothing inside now (try_ forms)
  closed,     ///< nothing inside, and nothing will come
  stopped,    ///< the token stopped while waiting
  timed_out,  ///< the deadline passed while waiting
};

/// The answer to a pop: an item exactly when status is pop_status::item.
template <class T>
struct [[nodiscard]] pop_result {
  pop_status status = pop_status::empty;
  std::optional<T> item;

  [[nodiscard]] explicit operator bool() const noexcept { return item.has_value(); }
  [[nodiscard]] T& operator*() noexcept { return *item; }
  [[nodiscard]] T* operator->() noexcept { return &*item; }
};

/// The answer to a bulk pop: at least one item exactly when status is pop_status::item.
template <class T>
struct [[nodiscard]] pop_bulk_result {
  pop_status status = pop_status::empty;
  std::vector<T> items;  ///< oldest first

  [[nodiscard]] explicit operator bool() const noexcept { return !items.empty(); }
};

/// One consistent picture: pushed == popped + evicted + inside.items, always.
struct bounded_queue_stats {
  load inside{};
  load limit{};
  load peak{};
  std::size_t waiting_pushers = 0;
  std::size_t waiting_poppers = 0;
  std::uint64_t pushed = 0;         ///< items accepted
  std::uint64_t popped = 0;         ///< items handed out
  std::uint64_t evicted = 0;        ///< items taken and ended unpopped (drop_oldest)
  std::uint64_t dropped = 0;        ///< items given up at the door (drop_newest)
  std::uint64_t handed_back = 0;    ///< items answered run_yourself
  std::uint64_t rejected = 0;       ///< all other items refused, each time, for whatever reason
  std::uint64_t drop_failures = 0;  ///< calls of on_drop that threw
  duration blocked{};               ///< time pushers spent waiting, ended waits
};

/// First in, first out.
///   I1 bound_.used is the sum over items_. Nothing is added above the limit, but one lowered below
///      what is inside drops nothing.
///   I2 Only policy block has waiting pushers; while one waits, none that came later overtakes it.
///   I3 A popper waits only while items_ is empty and the queue is open.
template <class T, class Weigher = object_weight>
class bounded_queue {
  static_assert(std::is_move_constructible_v<T> && std::is_nothrow_destructible_v<T>,
                "bounded_queue moves its items in and out: T needs a move constructor");
  static_assert(std::is_invocable_r_v<std::size_t, const Weigher&, const T&>,
                "bounded_queue's Weigher gives the bytes of a const T&");

 public:
  /// Gets each item that drop_oldest ended.
  using drop_handler = detail::unique_function<void(T&&)>;

  /// Throws std::invalid_argument for a limit of 0 or an absurd one.
  explicit bounded_queue(const bounded_queue_options& options, drop_handler on_drop = {})
      : bounded_queue(options, Weigher(), std::move(on_drop)) {}
  bounded_queue(const bounded_queue_options& options, Weigher weigher, drop_handler on_drop = {});
  bounded_queue(const bounded_queue&) = delete;
  bounded_queue& operator=(const bounded_queue&) = delete;
  /// Nobody may wait inside. What is left ends.
  ~bounded_queue() = default;

  /// Adds `item` by the policy; only policy block waits. A token already stopped, or a deadline
  /// already past, refuses nothing that fits. `item` is moved from only when accepted.
  push_result push(T&& item, const wait_options& wait = {}) { return offer({&item, 1}, &wait); }
  push_result push(const T& item, const wait_options& wait = {})
    requires std::is_copy_constructible_v<T>
  {
    T copy(item);
    return offer({&copy, 1}, &wait);
  }
  /// The same, but policy block answers full instead of waiting.
  push_result try_push(T&& item) { return offer({&item, 1}, nullptr); }
  push_result try_push(const T& item)
    requires std::is_copy_constructible_v<T>
  {
    T copy(item);
    return offer({&copy, 1}, nullptr);
  }
  /// Adds a prefix of `items` in order, as push() would each, and says how many in `accepted`.
  /// Poppers and other pushers may come in between while it waits.
  push_result push_bulk(std::span<T> items, const wait_options& wait = {}) {
    return offer(items, &wait);
  }
  push_result try_push_bulk(std::span<T> items) { return offer(items, nullptr); }

  /// Takes the oldest item, waiting while the queue is empty and open. After close() the rest is
  /// handed out, then the answer is closed.
  pop_result<T> pop(const wait_options& wait = {}) { return take(&wait); }
  pop_result<T> pop_until(time_point deadline) { return pop({.deadline = deadline, .token = {}}); }
  pop_result<T> try_pop() { return take(nullptr); }
  /// Takes up to `most` items, at least one, waiting as pop() does. `most` of 0 answers empty.
  pop_bulk_result<T> pop_bulk(std::size_t most, const wait_options& wait = {}) {
    return take_bulk(most, &wait);
  }
  pop_bulk_result<T> try_pop_bulk(std::size_t most) { return take_bulk(most, nullptr); }

  /// From now on every push answers closed, those waiting too. May be called again.
  void close() noexcept {
    const lock_guard lock(mutex_);
    closed_ = true;
    pushers_.call_all();
    poppers_.call_all();
  }

  /// Effective at once. Nothing inside is dropped, and nothing is added above it. Refused with a
  /// reason when 0 or absurd; the old limits stay in force then.
  limits_result set_limits(const load& limit) noexcept {
    const limits_result checked = detail::check_limits(limit);
    if (!checked) return checked;
    const lock_guard lock(mutex_);
    bound_.limit = limit;
    pushers_.call_all();  // any of them may be too heavy now
    return checked;
  }

  [[nodiscard]] bool closed() const noexcept {
    const lock_guard lock(mutex_);
    return closed_;
  }
  [[nodiscard]] std::size_t size() const noexcept {
    const lock_guard lock(mutex_);
    return bound_.used.items;
  }
  [[nodiscard]] bounded_queue_stats stats() const noexcept {
    const lock_guard lock(mutex_);
    bounded_queue_stats now = count_;
    now.inside = bound_.used;
    now.limit = bound_.limit;
    now.peak = bound_.peak;
    now.waiting_pushers = pushers_.size();
    now.waiting_poppers = poppers_.size();
    return now;
  }

 private:
  using lock_guard = detail::sync::lock_guard<detail::sync::mutex>;
  using unique_lock = detail::sync::unique_lock<detail::sync::mutex>;

  /// A node is made outside the lock, filled when there is room, and used again and again.
  using nodes = detail::node_chain<T>;

  /// Calls whoever can go on, when a call leaves the lock by return or exception.
  struct calls_next {
    bounded_queue& queue;
    ~calls_next() { queue.call_next(); }
  };

  push_result offer(std::span<T> items, const wait_options* wait);
  void keep_spare(nodes& unused) noexcept;
  void weigh(std::span<T> items, nodes& weighed);
  void make_node(unique_lock& lock, nodes& fresh, std::size_t bytes);
  push_result add_prefix(unique_lock& lock, std::span<T> items, const wait_options* wait,
                         nodes& fresh, nodes& evicted);
  push_status find_room(unique_lock& lock, std::size_t bytes, const wait_options* wait,
                        bound_kind& in_the_way);
  push_status await_room(unique_lock& lock, const load& need, const wait_options& wait,
                         bound_kind& in_the_way);
  void count_refused(push_status status, std::size_t items) noexcept;
  void report_evicted(nodes& evicted) noexcept;
  pop_result<T> take(const wait_options* wait);
  pop_bulk_result<T> take_bulk(std::size_t most, const wait_options* wait);
  pop_status await_item(unique_lock& lock, const wait_options* wait);
  void take_oldest_to(nodes& elsewhere) noexcept {
    bound_.subtract({1, items_.front().bytes});
    items_.move_front(elsewhere);
  }
  void call_next() noexcept {
    if (!items_.empty()) poppers_.call_front();
    if (!pushers_.empty() && bound_.fits(pushers_.front()->need)) pushers_.call_front();
  }

  static constexpr std::size_t most_spare = 1024;

  const full_policy policy_;
  const std::size_t max_waiters_;
  const Weigher weigher_;  // called from any thread
  drop_handler on_drop_;   // called from any pushing thread

  mutable detail::sync::mutex mutex_;  // guards everything below
  detail::load_bound bound_;           // I1
  detail::sync::var<bool> closed_ = false;
  nodes items_;                // oldest first; each holds an item
  nodes spare_;                // hold none; most_spare at most
  detail::wait_line pushers_;  // I2
  detail::wait_line poppers_;  // I3
  bounded_queue_stats count_;  // the counters; stats() fills in the rest
};

// --- implementation ---------------------------------------------------------------------------

template <class T, class Weigher>
bounded_queue<T, Weigher>::bounded_queue(const bounded_queue_options& options, Weigher weigher,
                                         drop_handler on_drop)
    : policy_(options.policy),
      max_waiters_(options.max_waiters),
      weigher_(std::move(weigher)),
      on_drop_(std::move(on_drop)) {
  bound_.limit = {options.max_items, options.max_bytes};
  if (const limits_result fine = detail::check_limits(bound_.limit); !fine) {
    const std::string got =
        detail::text_of(options.max_items) + ", " + detail::text_of(options.max_bytes);
    detail::raise(std::invalid_argument(detail::describe(
        {"bounded_queue", "max_items, max_bytes", got, fine.why, "no queue was built", {}})));
  }
}

template <class T, class Weigher>
push_result bounded_queue<T, Weigher>::offer(std::span<T> items, const wait_options* wait) {
  nodes fresh;
  const bool single = items.size() == 1;
  const std::size_t bytes = single ? weigher_(items.front()) : 0;
  if (!single) weigh(items, fresh);
  nodes evicted;
  push_result answer;
  {
    unique_lock lock(mutex_);
    if (single) make_node(lock, fresh, bytes);
    const calls_next after{*this};
    answer = add_prefix(lock, items, wait, fresh, evicted);
    if (!answer) {
      answer.item_bytes = fresh.empty() ? 0 : fresh.front().bytes;
      answer.inside = bound_.used;
      answer.limit = bound_.limit;
      count_refused(answer.status, items.size() - answer.accepted);
      keep_spare(fresh);
    }
  }
  answer.evicted = evicted.size();
  report_evicted(evicted);
  return answer;
}

/// A node for each item, with its weight.
template <class T, class Weigher>
void bounded_queue<T, Weigher>::weigh(std::span<T> items, nodes& weighed) {
  nodes fresh;
  {
    const lock_guard lock(mutex_);
    while (!spare_.empty() && fresh.size() < items.size())
      spare_.move_front(fresh);
  }
  for (const T& item : items) {
    if (fresh.empty()) fresh.append_new();
    fresh.front().bytes = weigher_(item);
    fresh.move_front(weighed);
  }
}

/// The same for one item that was weighed.
template <class T, class Weigher>
void bounded_queue<T, Weigher>::make_node(unique_lock& lock, nodes& fresh, std::size_t bytes) {
  if (spare_.empty()) [[unlikely]] {
    lock.unlock();
    fresh.append_new();
    lock.lock();
  } else {
    spare_.move_front(fresh);
  }
  fresh.front().bytes = bytes;
}

/// What is above the bound is left to the caller, to be freed after the lock.
template <class T, class Weigher>
void bounded_queue<T, Weigher>::keep_spare(nodes& unused) noexcept {
  while (!unused.empty() && spare_.size() < most_spare)
    unused.move_front(spare_);
}

template <class T, class Weigher>
push_result bounded_queue<T, Weigher>::add_prefix(unique_lock& lock, std::span<T> items,
                                                  const wait_options* wait, nodes& fresh,
                                                  nodes& evicted) {
  push_result answer;
  if (items.empty() && closed_) answer.status = push_status::closed;
  while (answer.accepted < items.size()) {
    const std::size_t bytes = fresh.front().bytes;
    answer.status = find_room(lock, bytes, wait, answer.bound);
    if (!answer) return answer;
    VELTRIX_TRY {
      fresh.front().item.emplace(std::move(items[answer.accepted]));
    }
    VELTRIX_CATCH_ALL {
      if (answer.accepted == 0) VELTRIX_RETHROW;
      answer.status = push_status::threw;
      return answer;
    }
    while (!bound_.fits({1, bytes})) {  // policy drop_oldest alone comes here without room
      take_oldest_to(evicted);
      ++count_.evicted;
    }
    fresh.move_front(items_);
    bound_.add({1, bytes});
    ++count_.pushed;
    ++answer.accepted;
  }
  return answer;
}

/// Whether one item of `bytes` may be added now, by the policy; waits where that waits.
template <class T, class Weigher>
push_status bounded_queue<T, Weigher>::find_room(unique_lock& lock, std::size_t bytes,
                                                 const wait_options* wait, bound_kind& in_the_way) {
  const load need{1, bytes};
  in_the_way = bound_kind::none;
  if (closed_) return push_status::closed;
  if (bytes > bound_.limit.bytes) return push_status::too_heavy;
  in_the_way = pushers_.empty() ? bound_.in_the_way(need) : bound_kind::waiters;
  if (in_the_way == bound_kind::none) return push_status::accepted;
  switch (policy_) {
    case full_policy::block:
      return wait == nullptr ? push_status::full : await_room(lock, need, *wait, in_the_way);
    case full_policy::reject: return push_status::full;
    case full_policy::drop_newest: return push_status::dropped;
    case full_policy::drop_oldest: return push_status::accepted;
    case full_policy::caller_runs: return push_status::run_yourself;
  }
  return push_status::full;
}

template <class T, class Weigher>
push_status bounded_queue<T, Weigher>::await_room(unique_lock& lock, const load& need,
                                                  const wait_options& wait,
                                                  bound_kind& in_the_way) {
  if (pushers_.size() >= max_waiters_) {
    in_the_way = bound_kind::waiters;
    return push_status::full;
  }
  call_next();  // poppers may take what this call has added so far
  detail::wait_line::place self;
  self.need = need;
  pushers_.join(self);
  const auto over = [&] { return closed_ || need.bytes > bound_.limit.bytes; };
  const auto my_turn = [&] { return pushers_.front() == &self && bound_.fits(need); };
  const time_point began = steady_clock::now();
  // Woken by call_next(), after room was made or the pusher before left; by set_limits() and
  // close(), after they wrote; by the token and the deadline.
  const bool ready = detail::wait_until(lock, self.called, wait.deadline, wait.token,
                                        [&] { return over() || my_turn(); });
  pushers_.leave(self);
  count_.blocked += steady_clock::now() - began;
  if (closed_) return push_status::closed;
  if (over()) return push_status::too_heavy;
  if (ready) return push_status::accepted;
  in_the_way = bound_.in_the_way(need);
  if (in_the_way == bound_kind::none) in_the_way = bound_kind::waiters;
  return wait.token.stop_requested() ? push_status::stopped : push_status::timed_out;
}

template <class T, class Weigher>
void bounded_queue<T, Weigher>::count_refused(push_status status, std::size_t items) noexcept {
  if (status == push_status::dropped) {
    count_.dropped += items;
  } else if (status == push_status::run_yourself) {
    count_.handed_back += items;
  } else {
    count_.rejected += items;
  }
}

template <class T, class Weigher>
void bounded_queue<T, Weigher>::report_evicted(nodes& evicted) noexcept {
  if (!on_drop_) return;
  for (nodes told; !evicted.empty(); evicted.move_front(told)) {
    VELTRIX_TRY {
      on_drop_(std::move(*evicted.front().item));
    }
    VELTRIX_CATCH_ALL {
      const lock_guard lock(mutex_);
      ++count_.drop_failures;
    }
  }
}

/// Waits until there is an item; null `wait` does not wait.
template <class T, class Weigher>
pop_status bounded_queue<T, Weigher>::await_item(unique_lock& lock, const wait_options* wait) {
  if (!items_.empty()) return pop_status::item;
  if (closed_) return pop_status::closed;
  if (wait == nullptr) return pop_status::empty;
  detail::wait_line::place self;
  poppers_.join(self);
  // Woken by call_next(), after an item was added; by close(), after closed_; by the token and the
  // deadline.
  static_cast<void>(detail::wait_until(lock, self.called, wait->deadline, wait->token,
                                       [&] { return closed_ || !items_.empty(); }));
  poppers_.leave(self);
  if (!items_.empty()) return pop_status::item;
  if (closed_) return pop_status::closed;
  return wait->token.stop_requested() ? pop_status::stopped : pop_status::timed_out;
}

template <class T, class Weigher>
pop_result<T> bounded_queue<T, Weigher>::take(const wait_options* wait) {
  nodes spent;  // ends after the lock
  pop_result<T> answer;
  {
    unique_lock lock(mutex_);
    const calls_next after{*this};
    answer.status = await_item(lock, wait);
    if (answer.status == pop_status::item) {
      answer.item.emplace(std::move(*items_.front().item));  // may throw: it stays the oldest then
      items_.front().item.reset();
      take_oldest_to(spent);
      ++count_.popped;
      keep_spare(spent);
    }
  }
  return answer;
}

template <class T, class Weigher>
pop_bulk_result<T> bounded_queue<T, Weigher>::take_bulk(std::size_t most,
                                                        const wait_options* wait) {
  nodes spent;  // ends after the lock
  pop_bulk_result<T> answer;
  if (most == 0) return answer;
  {
    unique_lock lock(mutex_);
    const calls_next after{*this};
    answer.status = await_item(lock, wait);
    const std::size_t count = std::min(most, items_.size());
    VELTRIX_TRY {
      answer.items.reserve(count);
      while (answer.items.size() < count) {
        answer.items.push_back(std::move(*items_.front().item));
        items_.front().item.reset();
        take_oldest_to(spent);
        ++count_.popped;
      }
    }
    VELTRIX_CATCH_ALL {
      if (answer.items.empty()) VELTRIX_RETHROW;  // else: the next call meets the exception
    }
    keep_spare(spent);
  }
  return answer;
}

}  // namespace VELTRIX_ABI
}  // namespace veltrix
