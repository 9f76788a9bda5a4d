// The versions of a snapshot_cell: the one in force, the kept ones, and the wait for newer ones.
// Use for: the inside of snapshot_cell, which adds all that calls user code. Internal.
// Not for: anything else.
// Threads: all members from any thread.
// Progress: reads are lock-free and write nothing that other readers read; writes take a lock for a
//   few pointers and, once in a while, a look at all records; wait_until_version() blocks.
// Callbacks: none; values are destroyed with no lock held.
// Exceptions: std::bad_alloc, and nothing has changed then.
// Lifetime: values live as long as anybody holds them, the store, a guard or a reference.
// Guide: docs/snapshot_cell.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "../reclaim.hpp"
#include "../stop_token.hpp"
#include "park_lock.hpp"
#include "proven_garbage.hpp"
#include "reader_record.hpp"
#include "snapshot_node.hpp"
#include "spare_memory.hpp"
#include "stoppable_wait.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// Versions count from 1, one by one. A write puts its node in force by one store; the version it
/// replaces is kept, or retired until no reader shows it.
///
/// I1: after begin(), current_ is never null.
/// I2: while lock_ is free, newest_ is the version of current_, and the history holds the versions
///     before it, without gaps, at most history_ of them.
template <class T>
class snapshot_store {
 public:
  using node = snapshot_node<T>;
  using ref = snapshot_ref<T>;
  using slot = reader_record::slot;

  /// Fewer that end at a look are no burst. Fewer under the explorer, so that it sees memory again.
  static constexpr std::size_t few = sync::repeatable ? 1 : 8;

  explicit snapshot_store(std::size_t history)
      : history_(history), census_(new value_census), garbage_(domain()) {}
  snapshot_store(const snapshot_store&) = delete;
  snapshot_store& operator=(const snapshot_store&) = delete;
  ~snapshot_store() {
    while (oldest_ != nullptr)
      node::release(take_oldest());
    // relaxed: nobody else uses the cell that its owner ends
    if (node* const last = current_.load(sync::relaxed)) node::release(last);
    static_cast<void>(spares_.take_all());
  }

  // --- reading -----------------------------------------------------------------------------------

  [[nodiscard]] reclaim_domain& domain() const noexcept { return *domain_; }

  /// A version and the slot that shows it, with what that holds while free; no slot: whoever has
  /// this has a hold on the version.
  struct shown {
    node* what;
    slot* in;
    const void* free;
  };

  /// The version in force, shown in `mine`, which needs no fence.
  /// @param free  what `mine` holds: the domain
  /// @param last  what `of` found before, see reader_record::note()
  [[nodiscard]] shown show(slot& mine, const void* free, reader_record& of,
                           const void*& last) const noexcept {
    node* const found = detail::show(current_, mine, sync::fence_mode::membarrier);
    of.note(*found, last);
    return {found, &mine, free};
  }
  /// The same in any slot.
  [[nodiscard, gnu::noinline]] node* show_anew(slot& mine, reader_record& of) const noexcept {
    node* const found = show_briefly(mine);
    of.note(*found, of.last);
    return found;
  }
  /// The version in force, where the thread's first slot is in use or needs a fence.
  [[nodiscard, gnu::noinline]] shown show_elsewhere() const noexcept {
    reader_record* const mine = domain().record_of_this_thread();
    slot* const free = mine == nullptr ? nullptr : mine->lasting();
    if (free == nullptr) return {hold().take(), nullptr, nullptr};
    return {show_anew(*free, *mine), free, domain().free_word()};
  }

  /// The version in force, held: for a reader that has no slot to spare.
  [[nodiscard]] ref hold() const noexcept {
    const momentary_slot mine(domain());
    return ref::to(*show_briefly(mine.slot()));
  }

  /// Only to compare it with a version that the caller shows.
  [[nodiscard]] const node* current() const noexcept {
    return current_.load(sync::relaxed);  // relaxed: who finds another version looks again
  }

  // --- writing -----------------------------------------------------------------------------------

  /// A version with the value returned by `make()`, built in place, not yet in force.
  template <class Make>
  [[nodiscard]] ref box(Make& make) const {
    return ref(node::with_value(spares_.take(), make));
  }
  /// A version with the value of `kept`, not yet in force; T is not copied.
  [[nodiscard]] static ref box_again(const ref& kept) { return ref(node::showing(*kept.get())); }

  /// Puts version 1 in force; before any other use.
  void begin(ref first) noexcept {
    first.get()->set_version(1);
    first.get()->enter(*census_);
    current_.store(first.take(), sync::relaxed);  // relaxed: the cell is not shared yet
  }

  /// Puts `fresh` in force and wakes the waiters. Result: its version, or 0 if `expected` is given
  /// and not in force; then `fresh` is as it was, else empty.
  std::uint64_t install(ref& fresh, std::optional<std::uint64_t> expected) noexcept {
    remains dead;  // ends outside the lock: ~T() is a user's
    std::uint64_t version = 0;
    bool wake = false;
    {
      const write_lock lock(*this);
      if (expected && *expected != newest_) return 0;
      newest_ = version = newest_ + 1;
      node& replaced = *in_force();
      fresh.get()->set_version(version);
      fresh.get()->set_order(garbage_.next_stamp());
      fresh.get()->enter(*census_);
      // (1) release-store; pairs with acquire-load of reclaim_domain.hpp (2). Publishes: the node,
      // and what its writer did before.
      current_.store(fresh.take(), sync::release);
      if (node* const left = keep(replaced)) retire(*left, dead);
      spares_.lay_ready();
      wake = waiters_ != 0;
    }
    if (wake) {
      // Whoever found the version too old is in its wait, or has not yet got the mutex.
      { const sync::lock_guard<sync::mutex> lock(waiting_); }
      grew_.notify_all();
    }
    keep_memory(end(dead));
    return version;
  }

  /// Ends the replaced versions that nobody reads.
  void collect() noexcept {
    remains dead;  // ends outside the lock
    {
      const write_lock lock(*this);
      dead.nodes = garbage_.collect(sync::coarse_now());
      dead.memory = spares_.take_all();
      since_look_ = 0;
    }
    static_cast<void>(end(dead));
  }

  // --- the history, and waiting ------------------------------------------------------------------

  /// The version in force, held. Under the lock: a version installed later finds what the caller
  /// did before.
  [[nodiscard]] ref newest() const noexcept {
    const write_lock lock(*this);
    return ref::to(*in_force());
  }

  /// A kept version, or none.
  [[nodiscard]] ref find(std::uint64_t version) const noexcept {
    const write_lock lock(*this);
    node* found = oldest_;
    while (found != nullptr && found->version() != version)
      found = found->newer();
    if (newest_ == version) found = in_force();
    return found == nullptr ? ref() : ref::to(*found);
  }

  /// The newest `count` of the kept versions, newest first.
  [[nodiscard]] std::vector<ref> history(std::size_t count) const {
    std::vector<ref> found;
    for (std::size_t wanted = 0;;) {
      found.reserve(wanted);  // outside the lock, for as many as there were
      const write_lock lock(*this);
      wanted = std::min(count, 1 + kept_);
      if (found.capacity() < wanted) continue;
      if (wanted == 0) return found;
      std::size_t passed = 1 + kept_ - wanted;
      for (node* each = oldest_; each != nullptr; each = each->newer()) {
        if (passed != 0) {
          --passed;
        } else {
          found.push_back(ref::to(*each));
        }
      }
      found.push_back(ref::to(*in_force()));
      std::reverse(found.begin(), found.end());
      return found;
    }
  }

  /// Waits until the version in force is at least `wanted`, looking first.
  /// Result: the version in force at the end.
  std::uint64_t wait_until_version(std::uint64_t wanted,
                                   std::chrono::steady_clock::time_point deadline,
                                   const stop_token& token) const {
    std::uint64_t found = 0;
    const one_waiter counted(*this);  // before it looks: who installs later wakes it
    sync::unique_lock<sync::mutex> lock(waiting_);
    // woken by install(), after it wrote newest_; by the token; by the deadline
    wait_until(lock, grew_, deadline, token, [&] {
      const write_lock look(*this);
      return (found = newest_) >= wanted;
    });
    return found;
  }

  /// Values not yet destroyed, whoever holds them.
  [[nodiscard]] std::size_t alive() const noexcept { return census_->alive(); }

 private:
  /// Holds lock_.
  class write_lock {
   public:
    explicit write_lock(const snapshot_store& store) noexcept : store_(store) {
      const std::uintptr_t me = park_lock::me();
      if (!store_.lock_.try_lock(me)) [[unlikely]]
        store_.lock_.lock_slowly(me, store_.lot_);
    }
    ~write_lock() { store_.lock_.unlock(store_.lot_); }
    write_lock(const write_lock&) = delete;
    write_lock& operator=(const write_lock&) = delete;

   private:
    const snapshot_store& store_;
  };
  /// Where the store itself ends; else it takes the nodes out of a batch one by one.
  struct release_hold {
    void operator()(node* each) const noexcept { node::release(each); }
  };
  using garbage = proven_garbage<node, release_hold>;
  using batch = typename garbage::batch;

  /// What a look found to end once the lock is free.
  struct remains {
    batch nodes;
    memory_chain<node> memory;
  };
  struct one_waiter {
    explicit one_waiter(const snapshot_store& waited_for) noexcept : store(waited_for) {
      const write_lock lock(store);
      ++store.waiters_;
    }
    ~one_waiter() {
      const write_lock lock(store);
      --store.waiters_;
    }
    one_waiter(const one_waiter&) = delete;
    one_waiter& operator=(const one_waiter&) = delete;

    const snapshot_store& store;
  };
  struct close_census {
    void operator()(value_census* census) const noexcept { census->close(); }
  };

  node* show_briefly(slot& mine) const noexcept {
    return detail::show(current_, mine, domain().mode());
  }

  /// Under lock_.
  node* in_force() const noexcept {
    return current_.load(sync::relaxed);  // relaxed: written under lock_
  }

  /// Puts `replaced` into the history. Result: what has no place there, or null. Under lock_.
  node* keep(node& replaced) noexcept {
    if (history_ == 0) return &replaced;
    if (oldest_ == nullptr) {
      oldest_ = &replaced;
    } else {
      latest_->set_newer(&replaced);
    }
    latest_ = &replaced;
    return ++kept_ > history_ ? take_oldest() : nullptr;
  }

  node* take_oldest() noexcept {
    --kept_;
    node* const taken = oldest_;
    oldest_ = taken->newer();
    return taken;
  }

  /// Finds what no reader shows, if it is time to look. Under lock_.
  void retire(node& left, remains& dead) noexcept {
    // The time is not asked for in the midst of a burst: a writer that is slow after one looks with
    // its eighth store at the latest, and then with each.
    if (since_look_++ % few == 0) now_ = sync::coarse_now();
    if (!garbage_.retire(left, now_)) return;
    since_look_ = 0;
    const std::size_t before = garbage_.pending();
    dead.nodes = garbage_.look(now_);
    // Not many ended since the last look: this is no burst, and nothing is kept for one.
    if (before - garbage_.pending() < few) dead.memory = spares_.take_all();
  }

  /// Ends what a look has found, with no lock held. Result: its memory.
  memory_chain<node> end(remains& dead) noexcept {
    memory_chain<node> memory;
    std::int64_t ended = 0;
    while (node* const each = dead.nodes.pop()) {
      if (void* const left = node::let_go(each)) {
        memory.push(left);
        ++ended;
      }
    }
    if (ended != 0) census_->leave(ended);
    return memory;
  }

  /// Keeps the memory of what were many, for the next ones. With no lock held.
  void keep_memory(memory_chain<node> left) noexcept {
    if (left.length() < few || spares_.most() == 0) return;
    const write_lock lock(*this);
    spares_.keep(left);
    spares_.lay_ready();
  }

  // What readers look at, on a line of its own: it changes with a version only.
  alignas(cache_line) sync::atomic<node*> current_{nullptr};  // written under lock_
  reclaim_domain* const domain_ = &reclaim_domain::shared();

  alignas(cache_line) const std::size_t history_;
  const std::unique_ptr<value_census, close_census> census_;
  mutable park_lock lock_;                    // guards all below but the next three; and current_
  mutable parking_lot lot_{domain_->mode()};  // where writers sleep that wait for lock_
  mutable sync::mutex waiting_;  // guards nothing but the way into grew_; taken before lock_
  mutable sync::condition_variable grew_;  // newest_ grew
  mutable std::size_t waiters_ = 0;        // in grew_, or about to be
  sync::var<std::uint64_t> newest_{std::uint64_t{1}};
  mutable spare_memory<node> spares_;
  node* oldest_ = nullptr;  // the history, by newer()
  node* latest_ = nullptr;  // its other end, where there is one
  std::size_t kept_ = 0;    // its length
  garbage garbage_;
  std::size_t since_look_ = 0;                   // so many were retired
  std::chrono::steady_clock::time_point now_{};  // when the time was last asked for
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
