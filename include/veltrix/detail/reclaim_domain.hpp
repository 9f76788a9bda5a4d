// The records of all readers, and how a reader shows what it reads: the lower half of reclaim.hpp.
// Use for: reclaim.hpp, which includes it.
// Not for: anything else.
// Threads: a domain from any thread.
// Progress: show() is lock-free, a retry means that the pointer was replaced; claiming a record
//   looks at every record once.
// Callbacks: none.
// Exceptions: std::bad_alloc from claim_for_object() only.
// Lifetime: a domain has static storage and never ends before a thread that used it.
// Guide: docs/reclaim.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

#include "../clock.hpp"
#include "config.hpp"
#include "reader_record.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

class reclaim_domain;
template <class Node>
class hazard;
namespace detail {
class retire_core;
class momentary_slot;
}  // namespace detail

/// Base of what can be retired; the first base of its class.
class reclaimable {
 protected:
  reclaimable() = default;
  reclaimable(const reclaimable&) = delete;
  reclaimable& operator=(const reclaimable&) = delete;
  ~reclaimable() = default;

 private:
  friend class detail::retire_core;
  template <class, class>
  friend class retired_batch;

  reclaimable* next_ = nullptr;  // of the list or batch it is in, whose owner alone uses it
  time_point retired_at_{};      // likewise
  bool shown_ = false;           // likewise: a reader shows it
};

/// One look at a domain. Each number is right for a moment of its own. In the child of a fork a
/// list counts from when it is first used there.
struct reclaim_stats {
  std::uint64_t retired = 0;       ///< objects so far, of the lists that exist now
  std::uint64_t freed = 0;         ///< of these
  std::size_t pending = 0;         ///< retired, not freed yet
  duration oldest_pin{};           ///< since when the longest shown of these is retired; 0: none
  long oldest_pin_thread = 0;      ///< the kernel's number of the thread that showed it; 0: none
  std::size_t records = 0;         ///< reader records made so far
  std::size_t records_in_use = 0;  ///< of these
  bool by_membarrier = false;      ///< whether the writer pays for the readers' fences
};

namespace detail {

/// Puts `seen` into `mine`. It is shown for good if where it was read from still has it after that.
[[gnu::always_inline]] inline void put_into(reader_record::slot& mine, sync::fence_mode mode,
                                            const reclaimable* seen) noexcept {
  // (1) release-store; pairs with acquire-load (3). Publishes: what the last holder of the slot had
  // done with its pointer. The fence puts it before the load that follows, such as (2): a scan
  // after the pointer was replaced either finds it, or that load finds the pointer replaced.
  mine.store(seen, sync::release);
  sync::asymmetric_fence_light(mode);
}

/// Shows `seen` in `mine`. Result: what `current` points to after that; if it is `seen`, that is
/// shown for good.
template <class Node>
[[gnu::always_inline]] inline Node* show_once(const sync::atomic<Node*>& current,
                                              reader_record::slot& mine, sync::fence_mode mode,
                                              Node* seen) noexcept {
  put_into(mine, mode, seen);
  // (2) acquire-load; pairs with the release-store that put the pointer in force, which for a cell
  // is release-store of snapshot_store.hpp (1). Sees: the object as it was made.
  return current.load(sync::acquire);
}

/// show_once(), until what is shown is what `current` points to.
template <class Node>
[[gnu::noinline]] Node* show_again(const sync::atomic<Node*>& current, reader_record::slot& mine,
                                   sync::fence_mode mode, Node* seen) noexcept {
  for (;;) {
    Node* const now = show_once(current, mine, mode, seen);
    if (now == seen) return seen;
    seen = now;
  }
}

/// Shows in `mine` what `current` points to. Lock-free: each retry means that `current` was
/// replaced. Result: what is shown; null shows nothing.
template <class Node>
[[gnu::always_inline]] inline Node* show(const sync::atomic<Node*>& current,
                                         reader_record::slot& mine,
                                         sync::fence_mode mode) noexcept {
  Node* const seen = current.load(sync::relaxed);  // relaxed: a guess, (2) decides
  Node* const now = show_once(current, mine, mode, seen);
  if (now == seen) [[likely]]
    return seen;
  return show_again(current, mine, mode, now);
}

}  // namespace detail

/// The records of all readers, and the lists of what is retired. Every structure of the library
/// uses shared(); another one keeps the readers of one structure apart from those of others.
///
/// A domain is one object, but the code that uses it may be in several shared libraries, each with
/// records of its own when the linker does not merge them. So a thread asks its record which
/// domain it belongs to before it uses it.
class reclaim_domain {
 public:
  constexpr reclaim_domain() noexcept = default;
  reclaim_domain(const reclaim_domain&) = delete;
  reclaim_domain& operator=(const reclaim_domain&) = delete;

  /// The process's own; one for each shared library where the linker keeps their symbols apart.
  [[nodiscard]] static reclaim_domain& shared() noexcept;

  /// How readers and writers are fenced here; fixed at the first use.
  [[nodiscard]] detail::sync::fence_mode mode() noexcept {
    const int known = mode_.load(detail::sync::relaxed);  // relaxed: the value says it all
    return known == undecided ? decide() : static_cast<detail::sync::fence_mode>(known);
  }

  /// O(records + lists * shown); takes the domain's lock.
  [[nodiscard]] reclaim_stats stats();

  /// What `current` points to, kept from being freed until the hazard ends. Lock-free: a retry
  /// means that `current` was replaced. Throws std::bad_alloc where a thread holds more than four.
  template <class Node>
  [[nodiscard]] hazard<Node> protect(const detail::sync::atomic<Node*>& current);

  // --- for structures ----------------------------------------------------------------------------

  /// A slot of `mine`, the record that the calling thread used last, for a guard that may last: if
  /// it is of this domain, the first or second is free, and it needs no fence; else null. A few
  /// instructions, wait-free.
  [[nodiscard]] detail::reader_record::slot* quick_slot(
      detail::reader_record& mine) const noexcept {
    if (detail::reader_record::is_quick(mine.shown[0], this)) [[likely]]
      return &mine.shown[0];
    return detail::reader_record::is_quick(mine.shown[1], this) ? &mine.shown[1] : nullptr;
  }

  /// What a free slot holds that may last: this domain, if its readers need no fence; else null.
  [[nodiscard]] const void* free_word() noexcept {
    return mode() == detail::sync::fence_mode::membarrier ? this : nullptr;
  }

  /// The calling thread's record, claimed at its first use. Null where the thread is ending and
  /// would not be asked for it, or where there is no memory. O(records) at the first use.
  [[nodiscard]] detail::reader_record* record_of_this_thread() noexcept;

  /// A record that nobody has, or null where there is no memory for one. O(records).
  [[nodiscard]] detail::reader_record* claim(detail::record_owner by) noexcept;

  /// A record of its own for an object that reads. Throws std::bad_alloc.
  [[nodiscard]] detail::reader_record* claim_for_object();

  /// How far every other reader has come in the order of one structure, whose stamps are those from
  /// `first` on, below `end`: no reader shows, or comes to show, an object with a lower stamp than
  /// the result, but what for_each_shown() tells after this call. See proven_garbage.hpp.
  /// Result: all_read where nobody else has a record; no_stamp where somebody has not been seen.
  [[nodiscard]] detail::stamp reached_by_all(detail::stamp first, detail::stamp end) const noexcept;
  static constexpr detail::stamp all_read = UINT64_MAX;

  /// Stamps that nobody else of this domain has.
  struct stamp_range {
    detail::stamp next;
    detail::stamp end;
  };
  [[nodiscard]] stamp_range take_stamps() noexcept {
    // relaxed: each number is given out once
    return stamps_of(stamps_taken_.fetch_add(1, detail::sync::relaxed));
  }
  /// The range with that number. The numbers last for ever; those beyond the last have no stamps.
  [[nodiscard]] static constexpr stamp_range stamps_of(std::uint64_t number) noexcept {
    if (number > UINT64_MAX / range_width - 2) return {detail::no_stamp, detail::no_stamp};
    const detail::stamp first = (number + 1) * range_width;
    return {first, first + range_width};
  }

  /// Calls `each(const void*)` for every pointer that a reader shows, some of them repeatedly.
  template <class Each>
  void for_each_shown(Each each) const noexcept {
    for_each_record([this, &each](const detail::reader_record& record) {
      for (const auto& slot : record.shown) {
        // (3) acquire-load; pairs with release-store (1), release-store of
        // reader_record.hpp (2). Sees: that whoever showed another pointer here before has
        // done with it.
        const void* const shown = slot.load(detail::sync::acquire);
        if (shown != nullptr && shown != this) each(shown);
      }
    });
  }

 private:
  friend class detail::retire_core;
  friend class detail::momentary_slot;

  static constexpr int undecided = -1;
  static constexpr std::int64_t never = INT64_MAX;
  static constexpr std::size_t own_records = 16;
  /// Stamps in a range: few under the explorer, so that it sees ranges end.
  static constexpr std::uint64_t range_width = detail::sync::repeatable ? 2 : 1 << 16;
  using lock_guard = detail::sync::lock_guard<detail::sync::mutex>;

  template <class Each>
  void for_each_record(Each each) const noexcept {
    // relaxed: records in use are counted before their slots show anything, and the fence between
    // the replaced pointer and this line is the one that (1) counts on
    const std::size_t begun = begun_.load(detail::sync::relaxed);
    for (std::size_t i = 0; i < begun; ++i)
      each(first_[i]);
    each(spare_);
    // (4) acquire-load; pairs with release-cas (5). Sees: the record as it was made.
    const detail::reader_record* more = more_.load(detail::sync::acquire);
    for (; more != nullptr; more = more->next)
      each(*more);
  }

  detail::sync::fence_mode decide() noexcept;
  void count_begun(std::size_t at_least) noexcept;
  detail::reader_record* ready(detail::reader_record& claimed) noexcept;
  std::int64_t pinned_since(const void* shown) const noexcept;
  detail::reader_record* claimed_by_this_thread() const noexcept;
  void enlist() noexcept;
  void keep_records_of(long forked) noexcept;
  static reclaim_domain* domains() noexcept;
  static void before_fork() noexcept;
  static void after_fork_in_parent() noexcept;
  static void after_fork_in_child() noexcept;

  detail::sync::atomic<int> mode_{undecided};
  detail::sync::atomic<std::size_t> begun_{0};  // of first_: those that were ever claimed
  std::array<detail::reader_record, own_records> first_ =  // enough for most, without memory
      detail::free_records(this, std::make_index_sequence<own_records>());
  detail::reader_record spare_{};  // for a moment each, when there is no other
  detail::sync::atomic<bool> spare_taken_{false};
  detail::sync::atomic<detail::reader_record*> more_{nullptr};  // newest first, by next
  detail::sync::atomic<std::uint64_t> stamps_taken_{0};         // so many ranges
  detail::sync::atomic<bool> enlisted_{false};
  reclaim_domain* next_ = nullptr;   // constant once enlisted
  detail::sync::mutex lists_mutex_;  // guards lists_ and the links of the lists
  detail::retire_core* lists_ = nullptr;
  unsigned forks_ = 0;  // that led to this process; written while it has one thread
};

namespace detail {

inline reclaim_domain shared_domain{};
/// Every domain that has records; for fork(2).
inline sync::atomic<reclaim_domain*> all_domains{nullptr};

/// What a thread that forks notes for the time after.
struct fork_notes {
  reclaim_domain* locked = nullptr;  // the first one: a domain may be added meanwhile
  long thread = 0;                   // its number before
};

/// A slot for a moment within a function, whatever the state of the thread.
class momentary_slot {
 public:
  explicit momentary_slot(reclaim_domain& domain) noexcept;
  momentary_slot(const momentary_slot&) = delete;
  momentary_slot& operator=(const momentary_slot&) = delete;
  ~momentary_slot();

  [[nodiscard]] reader_record::slot& slot() const noexcept { return record_->momentary(); }

 private:
  reclaim_domain& domain_;
  reader_record* record_;
  bool borrowed_ = false;  // not the thread's own
};

}  // namespace detail

// --- the domain ----------------------------------------------------------------------------------

inline reclaim_domain& reclaim_domain::shared() noexcept {
  return detail::shared_domain;
}

[[gnu::noinline]] inline detail::sync::fence_mode reclaim_domain::decide() noexcept {
  int decided = undecided;
  const int mine = static_cast<int>(detail::sync::asymmetric_fence_mode());
  // relaxed: the value says it all. A shared library may think otherwise: the first one decides.
  const bool first =
      mode_.compare_exchange_strong(decided, mine, detail::sync::relaxed, detail::sync::relaxed);
  return static_cast<detail::sync::fence_mode>(first ? mine : decided);
}

inline void reclaim_domain::count_begun(std::size_t at_least) noexcept {
  std::size_t begun = begun_.load(detail::sync::relaxed);  // relaxed: as in for_each_record()
  while (begun < at_least) {
    // relaxed: as in for_each_record()
    if (begun_.compare_exchange_weak(begun, at_least, detail::sync::relaxed, detail::sync::relaxed))
      return;
  }
}

/// What a new owner needs to know. Its slots are as they are made where readers need no fence.
inline detail::reader_record* reclaim_domain::ready(detail::reader_record& claimed) noexcept {
  // Puts the claim before what the owner loads: reached_by_all() counts on it.
  detail::sync::full_fence();
  claimed.registry = this;
  if (free_word() == nullptr) {
    for (auto& slot : claimed.shown)
      detail::reader_record::clear(slot);
  }
  claimed.of_thread = nullptr;
  claimed.last = nullptr;
  return &claimed;
}

inline detail::reader_record* reclaim_domain::claim(detail::record_owner by) noexcept {
  enlist();
  for (std::size_t i = 0; i < own_records; ++i) {
    if (!first_[i].claim(by, this)) continue;
    count_begun(i + 1);
    return ready(first_[i]);
  }
  // (6) acquire-load; pairs with release-cas (5). Sees: the record as it was made.
  auto* more = more_.load(detail::sync::acquire);
  for (auto* each = more; each != nullptr; each = each->next) {
    if (each->claim(by, this)) return ready(*each);
  }
  auto* const made = new (std::nothrow) detail::reader_record(this);
  if (made == nullptr || !made->claim(by, this)) return nullptr;
  made->next = more;
  // (5) release-cas; pairs with acquire-load (4), acquire-load (6). Publishes: the record.
  while (!more_.compare_exchange_weak(made->next, made, detail::sync::release,
                                      detail::sync::relaxed)) {}
  return ready(*made);
}

[[gnu::noinline]] inline detail::reader_record* reclaim_domain::claim_for_object() {
  detail::reader_record* const claimed = claim(detail::record_owner::an_object);
  if (claimed == nullptr) detail::raise(std::bad_alloc());
  return claimed;
}

inline detail::reader_record* reclaim_domain::record_of_this_thread() noexcept {
  detail::reader_place& place = detail::reader_place::mine();
  detail::reader_record* mine = claimed_by_this_thread();
  if (mine == nullptr) {
    if (!detail::sync::at_thread_exit<&detail::reader_place::leave>()) return nullptr;
    mine = claim(detail::record_owner::a_thread);
    if (mine == nullptr) return nullptr;
    mine->of_thread = std::exchange(place.owned, mine);
  }
  place.recent = mine;
  return mine;
}

inline detail::reader_record* reclaim_domain::claimed_by_this_thread() const noexcept {
  detail::reader_record* mine = detail::reader_place::mine().owned;
  while (mine != nullptr && mine->registry != this)
    mine = mine->of_thread;
  return mine;
}

inline detail::stamp reclaim_domain::reached_by_all(detail::stamp first,
                                                    detail::stamp end) const noexcept {
  // Puts the pointer that was replaced before the owners that are read now. Who claims a record
  // runs one as well: it is either seen here, or finds the pointer replaced.
  detail::sync::full_fence();
  const detail::reader_record* const mine = claimed_by_this_thread();
  detail::stamp least = all_read;
  for_each_record([&](const detail::reader_record& record) {
    // (11) acquire-load; pairs with release-store of reader_record.hpp (5). Sees: what its owners
    // showed before they gave it back.
    if (record.owner.load(detail::sync::acquire) == detail::record_owner::nobody) return;
    if (&record == mine) return;  // its owner does nothing else just now
    // (12) acquire-load; pairs with release-store of reader_record.hpp (6). Sees: what the record
    // showed before that, and still does.
    const detail::stamp reached = record.reached.load(detail::sync::acquire);
    least = std::min(least, reached >= first && reached < end ? reached : detail::no_stamp);
  });
  // (13) acquire-load; pairs with release-store (10). Sees: as (11), for the spare record.
  return spare_taken_.load(detail::sync::acquire) ? detail::no_stamp : least;
}

// --- fork ----------------------------------------------------------------------------------------
// The child has one thread, which keeps its records. Those of others are free there once their
// slots are; what a slot shows stays protected, as the guard may have moved to the thread
// that lives on. The number of a record's thread says whose it is: a thread's own list of records
// does not, where several shared libraries have a list each.

inline void reclaim_domain::enlist() noexcept {
  // relaxed: only whether somebody has begun
  if (enlisted_.load(detail::sync::relaxed) || enlisted_.exchange(true, detail::sync::relaxed)) {
    return;
  }
  static const bool around_fork = [] {
    detail::sync::at_fork([] { before_fork(); }, [] { after_fork_in_parent(); },
                          [] { after_fork_in_child(); });
    return true;
  }();
  static_cast<void>(around_fork);
  next_ = detail::all_domains.load(detail::sync::relaxed);  // relaxed: (7) decides
  // (7) release-cas; pairs with acquire-load (8). Publishes: next_.
  while (!detail::all_domains.compare_exchange_weak(next_, this, detail::sync::release,
                                                    detail::sync::relaxed)) {}
}

inline reclaim_domain* reclaim_domain::domains() noexcept {
  // (8) acquire-load; pairs with release-cas (7). Sees: next_ of each.
  return detail::all_domains.load(detail::sync::acquire);
}

inline void reclaim_domain::before_fork() noexcept {
  auto& notes = detail::sync::per_thread<detail::fork_notes>();
  notes = {domains(), detail::sync::this_thread_number()};
  for (reclaim_domain* each = notes.locked; each != nullptr; each = each->next_)
    each->lists_mutex_.lock();
}

inline void reclaim_domain::after_fork_in_parent() noexcept {
  reclaim_domain* each = detail::sync::per_thread<detail::fork_notes>().locked;
  for (; each != nullptr; each = each->next_)
    each->lists_mutex_.unlock();
}

inline void reclaim_domain::after_fork_in_child() noexcept {
  after_fork_in_parent();
  const long forked = detail::sync::per_thread<detail::fork_notes>().thread;
  for (reclaim_domain* each = domains(); each != nullptr; each = each->next_) {
    each->keep_records_of(forked);
    each->lists_ = nullptr;  // some may be on stacks that new threads get; see retire_core
    ++each->forks_;
  }
}

inline void reclaim_domain::keep_records_of(long forked) noexcept {
  const long now = detail::sync::this_thread_number();  // in the child it has another
  const auto sort = [forked, now](detail::reader_record& each) {
    // relaxed: no other thread is left that could write them
    const auto owner = each.owner.load(detail::sync::relaxed);
    if (each.thread.load(detail::sync::relaxed) == forked) {
      each.thread.store(now, detail::sync::relaxed);
    } else if (owner == detail::record_owner::a_thread) {
      detail::reader_record::clear(each.momentary());  // it was within a function
      each.give_back();
    }
    // What a thread that is gone had reached need not be what memory shows here.
    each.reached.store(detail::no_stamp, detail::sync::relaxed);  // relaxed: as above
  };
  for (detail::reader_record& each : first_)
    sort(each);
  for (auto* each = more_.load(detail::sync::relaxed); each != nullptr; each = each->next)
    sort(*each);  // relaxed: made before the fork, by whoever did it
  detail::reader_record::clear(spare_.momentary());
  spare_taken_.store(false, detail::sync::relaxed);  // relaxed: the child has one thread
}

// --- a moment's slot -----------------------------------------------------------------------------

namespace detail {

inline momentary_slot::momentary_slot(reclaim_domain& domain) noexcept
    : domain_(domain), record_(domain.record_of_this_thread()) {
  if (record_ != nullptr) return;
  borrowed_ = true;
  record_ = domain.claim(record_owner::an_object);
  if (record_ != nullptr) return;
  record_ = &domain.spare_;
  // (9) acquire-exchange; pairs with release-store (10). Sees: the slot as the last user left it.
  while (domain.spare_taken_.exchange(true, sync::acquire))
    sync::yield();     // for as long as another thread's look at one pointer takes
  sync::full_fence();  // as one that claims a record
}

inline momentary_slot::~momentary_slot() {
  reader_record::clear(slot());
  if (!borrowed_) return;
  if (record_ != &domain_.spare_) {
    record_->give_back();
  } else {
    // (10) release-store; pairs with acquire-exchange (9), acquire-load (13). Publishes: the empty
    // slot.
    domain_.spare_taken_.store(false, sync::release);
  }
}

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
