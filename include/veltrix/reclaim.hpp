// Safe memory reclamation: readers follow a pointer with plain stores, writers free what none uses.
// Use for: building structures whose readers take no lock; snapshot_cell is one of them.
// Not for: keeping many objects for long: a hazard takes one of four slots of its thread.
// Threads: a domain from any thread; a hazard from one at a time, be it another than its maker;
//   a retire_list from whoever holds its owner's lock.
// Progress: protect() is lock-free, a retry means that the pointer was replaced; collect() is one
//   system call and a look at every record.
// Callbacks: the disposer of a batch, in the thread that ends the batch, no lock held.
// Exceptions: protect() throws std::bad_alloc where a thread holds more hazards than it has slots.
// Lifetime: a domain has static storage and never ends before a thread that used it; hazards and
//   batches end before the structure whose objects they hold.
// Guide: docs/reclaim.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "clock.hpp"
#include "detail/reader_record.hpp"
#include "detail/reclaim_domain.hpp"
#include "detail/sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// Keeps one object from being freed while it lives, see reclaim_domain::protect(). Move it freely,
/// also to another thread; it may wait, or cross a suspension.
template <class Node>
class [[nodiscard]] hazard {
 public:
  hazard() noexcept = default;  ///< keeps nothing
  hazard(hazard&& other) noexcept
      : node_(std::exchange(other.node_, nullptr)),
        shown_in_(std::exchange(other.shown_in_, nullptr)),
        free_(other.free_),
        borrowed_(std::exchange(other.borrowed_, nullptr)) {}
  hazard& operator=(hazard&& other) noexcept {
    hazard taken(std::move(other));
    std::swap(node_, taken.node_);
    std::swap(shown_in_, taken.shown_in_);
    std::swap(free_, taken.free_);
    std::swap(borrowed_, taken.borrowed_);
    return *this;
  }
  ~hazard() {
    if (shown_in_ != nullptr) detail::reader_record::clear(*shown_in_, free_);
    if (borrowed_ != nullptr) borrowed_->give_back();
  }

  /// Null where the pointer was null, and after a move.
  [[nodiscard]] Node* get() const noexcept { return node_; }
  [[nodiscard]] Node& operator*() const noexcept { return *node_; }
  [[nodiscard]] Node* operator->() const noexcept { return node_; }
  [[nodiscard]] explicit operator bool() const noexcept { return node_ != nullptr; }

 private:
  friend class reclaim_domain;
  hazard(Node* node, detail::reader_record::slot& shown_in, const void* free,
         detail::reader_record* borrowed) noexcept
      : node_(node),
        shown_in_(node == nullptr ? nullptr : &shown_in),
        free_(free),
        borrowed_(borrowed) {
    if (node == nullptr) detail::reader_record::clear(shown_in, free);
  }

  Node* node_ = nullptr;
  detail::reader_record::slot* shown_in_ = nullptr;  // null with node_: that slot is free
  const void* free_ = nullptr;                       // what the slot holds then
  detail::reader_record* borrowed_ = nullptr;        // whole, where the thread has no slot to spare
};

namespace detail {

/// What a structure has retired, whatever its type: a list in the order of retiring.
///
/// I1: a reader that shows an object of the list did so before the object was replaced, so none
///     comes to show it later.
/// I2: at most max(least_limit, twice what readers showed at the last look) objects are in it when
///     retire() has answered that a look is not due.
class retire_core {
 public:
  explicit retire_core(reclaim_domain& domain);
  retire_core(const retire_core&) = delete;
  retire_core& operator=(const retire_core&) = delete;
  ~retire_core();

  /// Result: whether a look is due.
  bool retire(reclaimable& replaced, time_point now) noexcept;
  /// Takes out what no reader shows. Result: these, linked.
  reclaimable* collect(time_point now) noexcept;
  /// Takes out everything. Result: as collect()'s.
  reclaimable* take_all() noexcept;

  [[nodiscard]] std::size_t pending() const noexcept { return pending_; }

  [[nodiscard]] reclaim_domain& domain() const noexcept { return domain_; }

 protected:
  /// Marks what readers show.
  void mark_shown() noexcept;
  /// Takes out what is not marked and `may_end(const reclaimable&)`, which holds for all in the
  /// list if it holds for the last one. Result: these, linked.
  template <class MayEnd>
  reclaimable* take_out(time_point now, MayEnd may_end) noexcept;

  /// What take_out() left for the time being is no more than may wait until the next look.
  /// @param in_time  the look was due as time has passed: none may wait that readers do not show
  [[nodiscard]] bool left_few(bool in_time) const noexcept {
    return pending_ <= (in_time ? held_ : limit_ / 2);
  }
  [[nodiscard]] bool in_time(time_point now) const noexcept {
    return now - looked_at_ >= look_again;
  }

 private:
  friend class veltrix::reclaim_domain;

  /// Fewer under the explorer, so that it sees looks.
  static constexpr std::size_t least_limit = sync::repeatable ? 1 : 64;
  static constexpr duration look_again = std::chrono::milliseconds(1);

  void enter_list() noexcept;
  /// In the child of a fork the domain begins a new list: one that is not used there may be gone.
  void stay_listed() noexcept {
    if (listed_after_ != domain_.forks_) [[unlikely]]
      enter_list();
  }
  void mark(const void** shown, std::size_t count) noexcept;

  reclaim_domain& domain_;
  retire_core* before_ = nullptr;    // guarded by the domain's lists_mutex_
  retire_core* after_ = nullptr;     // likewise
  unsigned listed_after_ = 0;        // so many forks; written with the lists_mutex_, by the owner
  sync::var<reclaimable*> first_{};  // this and the next 5: guarded by the owner's lock
  reclaimable* last_ = nullptr;
  std::size_t pending_ = 0;
  std::size_t held_ = 0;  // so many of these are marked, or were at the last look
  std::size_t limit_ = least_limit;
  time_point looked_at_{};
  // Written under the owner's lock, read by stats() with none.
  sync::atomic<std::uint64_t> retired_{0};      // relaxed: statistics only, as the next three
  sync::atomic<std::uint64_t> freed_{0};        // relaxed: as retired_
  sync::atomic<const void*> pinned_{nullptr};   // relaxed: as retired_; the oldest shown at a look
  sync::atomic<std::int64_t> pinned_since_{0};  // relaxed: as retired_
};

}  // namespace detail

/// Objects that nobody can reach any more; its end disposes of them. Let it end with no lock held:
/// their destructors may be a user's.
template <class Node, class Dispose>
class [[nodiscard]] retired_batch {
 public:
  retired_batch() = default;
  explicit retired_batch(reclaimable* first) noexcept : first_(first) {}
  retired_batch(retired_batch&& other) noexcept : first_(std::exchange(other.first_, nullptr)) {}
  retired_batch& operator=(retired_batch&& other) noexcept {
    std::swap(first_, other.first_);
    return *this;
  }
  ~retired_batch() {
    while (Node* const each = pop())
      Dispose()(each);
  }

  [[nodiscard]] bool empty() const noexcept { return first_ == nullptr; }

  /// Takes out the first one, which the caller disposes of; null where there is none.
  [[nodiscard]] Node* pop() noexcept {
    reclaimable* const taken = first_;
    if (taken != nullptr) first_ = taken->next_;
    return static_cast<Node*>(taken);
  }
  /// O(objects here).
  void append(retired_batch&& more) noexcept {
    reclaimable** end = &first_;
    while (*end != nullptr)
      end = &(*end)->next_;
    *end = std::exchange(more.first_, nullptr);
  }

 private:
  reclaimable* first_ = nullptr;
};

/// What one structure has replaced and readers may still use. Not synchronised: the lock of the
/// structure's writers guards it.
///
///     retire_list<node>::batch dead;  // ends after the lock
///     const std::lock_guard lock(mutex_);
///     node* const old = current_.exchange(fresh, std::memory_order_acq_rel);
///     if (garbage_.retire(*old, now)) dead = garbage_.collect(now);
///
/// At most max(64, 2 x shown) objects wait in it, where `shown` counts those that readers held at
/// the last look; a writer that comes later than a tick of its clock (1 to 10 ms of coarse_clock)
/// after the last look looks at once.
template <class Node, class Dispose = std::default_delete<Node>>
class retire_list : private detail::retire_core {
 public:
  using batch = retired_batch<Node, Dispose>;

  explicit retire_list(reclaim_domain& domain = reclaim_domain::shared()) : retire_core(domain) {}
  /// Nobody reads any more.
  ~retire_list() { const batch unread(retire_core::take_all()); }

  /// Takes over `replaced`, which no reader can come to show from here on. O(1).
  /// @param now  of coarse_clock, or of any other that a test likes better
  /// @return whether to call collect() now
  [[nodiscard]] bool retire(Node& replaced, time_point now) noexcept {
    return retire_core::retire(replaced, now);
  }

  /// Those that no reader shows. One heavy fence, O(records + waiting * (1 + shown / 128)).
  [[nodiscard]] batch collect(time_point now) noexcept { return batch(retire_core::collect(now)); }

  /// All of them, when nobody reads any more.
  [[nodiscard]] batch take_all() noexcept { return batch(retire_core::take_all()); }

  using detail::retire_core::pending;
};

// --- details -------------------------------------------------------------------------------------

template <class Node>
hazard<Node> reclaim_domain::protect(const detail::sync::atomic<Node*>& current) {
  detail::reader_record* mine = record_of_this_thread();
  detail::reader_record::slot* in = mine == nullptr ? nullptr : mine->lasting();
  if (in != nullptr) return {detail::show(current, *in, mode()), *in, free_word(), nullptr};
  mine = claim_for_object();
  in = &mine->shown[0];
  return {detail::show(current, *in, mode()), *in, free_word(), mine};
}

/// Since when what `shown` points to is retired, if it was the oldest of its list at the last look;
/// else never.
inline std::int64_t reclaim_domain::pinned_since(const void* shown) const noexcept {
  for (const detail::retire_core* each = lists_; each != nullptr; each = each->after_) {
    if (shown != nullptr && each->pinned_.load(detail::sync::relaxed) == shown)
      return each->pinned_since_.load(detail::sync::relaxed);
  }
  return never;
}

inline reclaim_stats reclaim_domain::stats() {
  reclaim_stats now;
  const lock_guard lock(lists_mutex_);
  for (const detail::retire_core* each = lists_; each != nullptr; each = each->after_) {
    const std::uint64_t freed = each->freed_.load(detail::sync::relaxed);
    now.freed += freed;
    now.retired += std::max(each->retired_.load(detail::sync::relaxed), freed);
  }
  now.pending = static_cast<std::size_t>(now.retired - now.freed);
  now.by_membarrier = mode() == detail::sync::fence_mode::membarrier;
  std::int64_t oldest = never;
  for_each_record([&](const detail::reader_record& record) {
    ++now.records;
    // relaxed: statistics only
    const auto owner = record.owner.load(detail::sync::relaxed);
    now.records_in_use += owner == detail::record_owner::nobody ? 0 : 1;
    for (const auto& slot : record.shown) {
      // relaxed: statistics only
      const std::int64_t since = pinned_since(slot.load(detail::sync::relaxed));
      if (since >= oldest) continue;
      oldest = since;
      now.oldest_pin = detail::sync::coarse_now().time_since_epoch() - duration(since);
      now.oldest_pin_thread = record.thread.load(detail::sync::relaxed);
    }
  });
  --now.records;  // the spare one
  return now;
}

namespace detail {

inline retire_core::retire_core(reclaim_domain& domain) : domain_(domain) {
  domain_.enlist();  // by the library that has the domain: one that only reads may be unloaded
  enter_list();
}

inline void retire_core::enter_list() noexcept {
  const sync::lock_guard<sync::mutex> lock(domain_.lists_mutex_);
  listed_after_ = domain_.forks_;
  before_ = nullptr;
  after_ = domain_.lists_;
  if (after_ != nullptr) after_->before_ = this;
  domain_.lists_ = this;
}

inline retire_core::~retire_core() {
  const sync::lock_guard<sync::mutex> lock(domain_.lists_mutex_);
  if (listed_after_ != domain_.forks_) return;
  (before_ == nullptr ? domain_.lists_ : before_->after_) = after_;
  if (after_ != nullptr) after_->before_ = before_;
}

inline bool retire_core::retire(reclaimable& replaced, time_point now) noexcept {
  stay_listed();
  replaced.next_ = nullptr;
  replaced.retired_at_ = now;
  if (pending_ == 0) {
    first_ = &replaced;
  } else {
    last_->next_ = &replaced;
  }
  last_ = &replaced;
  ++pending_;
  retired_.store(retired_.load(sync::relaxed) + 1, sync::relaxed);
  return pending_ >= limit_ || now - looked_at_ >= look_again;
}

/// Marks those of `shown` that are in the list, and forgets `shown`.
inline void retire_core::mark(const void** shown, std::size_t count) noexcept {
  std::sort(shown, shown + count, std::less<>());
  for (reclaimable* each = first_; each != nullptr; each = each->next_) {
    const void* const wanted = each;
    if (!std::binary_search(shown, shown + count, wanted, std::less<>())) continue;
    if (!std::exchange(each->shown_, true)) ++held_;
  }
}

inline void retire_core::mark_shown() noexcept {
  held_ = 0;
  constexpr std::size_t most = 128;
  const void* shown[most];
  std::size_t count = 0;
  domain_.for_each_shown([&](const void* pointer) {
    if (count != 0 && shown[count - 1] == pointer) return;  // many readers of one version
    shown[count++] = pointer;
    if (count == most) mark(shown, std::exchange(count, 0));
  });
  if (count != 0) mark(shown, count);
}

inline reclaimable* retire_core::collect(time_point now) noexcept {
  // Puts the pointers that were replaced before the records that are read now, see show_once() (1).
  sync::asymmetric_fence_heavy(domain_.mode());
  mark_shown();
  return take_out(now, [](const reclaimable&) { return true; });
}

template <class MayEnd>
reclaimable* retire_core::take_out(time_point now, MayEnd may_end) noexcept {
  stay_listed();
  looked_at_ = now;
  limit_ = std::max(least_limit, 2 * held_);
  if (held_ == 0 && pending_ != 0 && may_end(*last_)) {
    pinned_.store(nullptr, sync::relaxed);
    return take_all();
  }
  reclaimable* dead = nullptr;
  reclaimable** dead_end = &dead;
  reclaimable* kept = nullptr;
  reclaimable** kept_end = &kept;
  last_ = nullptr;
  const reclaimable* pinned = nullptr;
  std::size_t left = 0;
  for (reclaimable* each = first_; each != nullptr; each = each->next_) {
    const bool shown = std::exchange(each->shown_, false);
    if (!shown && may_end(*each)) {
      *std::exchange(dead_end, &each->next_) = each;
      continue;
    }
    *std::exchange(kept_end, &each->next_) = each;
    last_ = each;
    ++left;
    if (shown && pinned == nullptr) pinned = each;
  }
  *dead_end = *kept_end = nullptr;
  first_ = kept;
  freed_.store(freed_.load(sync::relaxed) + (pending_ - left), sync::relaxed);
  pending_ = left;
  if (pinned != nullptr) {
    pinned_since_.store(pinned->retired_at_.time_since_epoch().count(), sync::relaxed);
  }
  pinned_.store(pinned, sync::relaxed);
  return dead;
}

inline reclaimable* retire_core::take_all() noexcept {
  freed_.store(freed_.load(sync::relaxed) + pending_, sync::relaxed);
  pending_ = 0;
  last_ = nullptr;
  reclaimable* const all = first_;
  first_ = nullptr;
  return all;
}

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
