// A bounded first-in first-out queue by value, for any number of pushers and poppers, lock-free.
// Use for: the tasks that other threads post to an elastic_pool. Internal.
// Not for: waiting; it answers full or empty.
// Threads: all members may be called from any thread.
// Progress: lock-free, but that a pusher waits for the pop of the value a whole round before its
//   own to end, and that a value is not seen before its pusher has moved it in.
// Callbacks: the noexcept moves of Value.
// Exceptions: push() may throw std::bad_alloc in its first round and has pushed nothing then.
// Lifetime: owns its values; those left end with it.
// Guide: docs/elastic_pool.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "block_array.hpp"
#include "config.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

enum class ring_answer : std::uint8_t { taken, full, closed };

/// Keeps one of those who move a common word away from it after it lost a race for it, so that the
/// winner goes on undisturbed: one thread moves short values several times as fast as two that send
/// the word's cache line to and fro. Who seldom loses hardly waits.
class stand_off {
 public:
  /// @param pauses  how long it waits at its first loss
  explicit stand_off(std::uint32_t pauses = 0) noexcept : pauses_(pauses) {}

  void lost() noexcept {
    constexpr std::uint32_t shortest = 4, longest = 128;
    pauses_ = std::clamp(pauses_, shortest, longest);
    for (std::uint32_t i = 0; i < pauses_ && !sync::repeatable; ++i)
      sync::spin_pause();
    pauses_ *= 2;
  }
  /// Forgets a loss after some 16 wins.
  void won() noexcept { pauses_ -= (pauses_ + 15) / 16; }

 private:
  std::uint32_t pauses_;
};

/// Positions are counted from 0 and never come again; position p uses cell p mod cells in round
/// p / cells. A pusher claims positions by moving the tail, then fills their cells; a popper claims
/// one by moving the head once its cell is filled. (D. Vyukov's bounded queue, with a bound that
/// need not be a power of two, a tail that can be closed, and cells made at their first use.)
///
/// I1: head <= tail <= head + capacity, at every instant: a refusal for want of room is exact.
/// I2: a cell's turn is 2 r while round r may fill it, 2 r + 1 while it holds that round's value.
/// I3: once the tail is closed no position is claimed.
template <class Value>
class injection_ring {
  static_assert(std::is_nothrow_move_assignable_v<Value>);

 public:
  explicit injection_ring(std::size_t capacity) noexcept
      : capacity_(static_cast<std::int64_t>(capacity)),
        mask_(std::bit_ceil(capacity) - 1),
        round_bits_(static_cast<unsigned>(std::bit_width(mask_))) {}
  injection_ring(const injection_ring&) = delete;
  injection_ring& operator=(const injection_ring&) = delete;

  /// Moves from `value` exactly when it answers taken.
  [[nodiscard]] ring_answer push(Value& value) {
    const claim mine = claim_some(1);
    if (mine.answer == ring_answer::taken) fill(mine.first, value);
    return mine.answer;
  }

  /// Moves from the first of `count` values, as many as there is room for.
  /// @return how many, and taken if that is at least one
  [[nodiscard]] std::pair<std::size_t, ring_answer> push_some(Value* values, std::size_t count) {
    const claim mine = claim_some(count);
    for (std::size_t i = 0; i < mine.count; ++i)
      fill(mine.first + i, values[i]);
    return {mine.count, mine.answer};
  }

  /// Moves the oldest value into `taken`; false: there is none, or it is still being filled.
  /// @param away  the popper's own
  [[nodiscard]] bool pop(Value& taken, stand_off& away) noexcept {
    std::uint64_t head = head_.load(sync::relaxed);  // relaxed: a guess, (5) decides
    for (;;) {
      if ((head & mask_) >= cells_.size()) return false;  // never filled
      cell& from = cells_[head & mask_];
      const std::uint64_t filled = 2 * (head >> round_bits_) + 1;
      // (1) acquire-load; pairs with release-store (2). Sees: the value.
      const std::uint64_t turn = from.turn.load(sync::acquire);
      if (turn == filled) {
        // (5) seq_cst-cas; pairs with seq_cst-load (6). Forbids: a popper misses that room is
        // waited for, and who waits for it misses the room.
        if (head_.compare_exchange_weak(head, head + 1, sync::seq_cst, sync::relaxed)) {
          taken = std::move(static_cast<Value&>(from));
          // (3) release-store; pairs with acquire-load (4). Publishes: that the value is moved out.
          from.turn.store(filled + 1, sync::release);
          away.won();
          return true;
        }
        away.lost();
        head = head_.load(sync::relaxed);  // relaxed: as above
      } else {
        const std::uint64_t now = head_.load(sync::relaxed);  // relaxed: as above
        if (now == head && turn < filled) return false;
        head = now;
      }
    }
  }

  /// Whether pop() would find a value. One that is claimed and not filled yet hides those behind
  /// it: its pusher, when it has filled it, is the one to tell of them.
  [[nodiscard]] bool ready() const noexcept {
    std::uint64_t head = head_.load(sync::relaxed);  // relaxed: an old one shows a past turn
    for (;;) {
      if ((head & mask_) >= cells_.size()) return false;  // never filled
      const std::uint64_t filled = 2 * (head >> round_bits_) + 1;
      // relaxed: who goes to sleep on it has a fence before it
      const std::uint64_t turn = cells_[head & mask_].turn.load(sync::relaxed);
      if (turn <= filled) return turn == filled;
      head = head_.load(sync::relaxed);  // relaxed: as above
    }
  }

  /// Whether there is a value, filled or not, that no popper has claimed.
  [[nodiscard]] bool claimed() const noexcept {
    // (7) seq_cst-load; pairs with seq_cst-cas (8). Forbids: who stops searching misses a push, and
    // its pusher misses that nobody searches.
    const std::uint64_t tail = tail_.load(sync::seq_cst) >> 1;
    return head_.load(sync::relaxed) < tail;  // relaxed: an old head makes it look once too often
  }

  /// Values held or still moved in. Exact when nobody pushes or pops.
  [[nodiscard]] std::size_t size() const noexcept {
    const std::uint64_t head = head_.load(sync::relaxed);       // relaxed: an estimate
    const std::uint64_t tail = tail_.load(sync::relaxed) >> 1;  // relaxed: an estimate
    return tail > head ? static_cast<std::size_t>(tail - head) : 0;
  }

  /// Values ever taken.
  [[nodiscard]] std::uint64_t pushed() const noexcept {
    return tail_.load(sync::relaxed) >> 1;  // relaxed: a count; see its readers for what orders it
  }

  /// No push is taken after it.
  void close() noexcept {
    // (9) seq_cst-or; pairs with seq_cst-cas (8). Forbids: a push is taken after the close and not
    // seen by who looks whether anything is left.
    tail_.fetch_or(closed_bit, sync::seq_cst);
  }

  [[nodiscard]] bool closed() const noexcept {
    return (tail_.load(sync::relaxed) & closed_bit) != 0;  // relaxed: a glance
  }

 private:
  /// The turn stands in the padding behind Value, so that a task and its turn share a line.
  struct alignas(cache_line) cell : Value {
    sync::atomic<std::uint64_t> turn{0};  // see I2
  };

  struct claim {
    std::uint64_t first = 0;
    std::size_t count = 0;
    ring_answer answer = ring_answer::taken;
  };

  static constexpr std::uint64_t closed_bit = 1;

  claim claim_some(std::size_t wanted) {
    stand_off away(64);
    std::uint64_t tail = tail_.load(sync::relaxed);  // relaxed: a guess, (8) decides
    for (;;) {
      if ((tail & closed_bit) != 0) return {.answer = ring_answer::closed};
      const std::uint64_t first = tail >> 1;
      const std::size_t count = std::min(wanted, room_at(first));
      if (count == 0) return {.answer = ring_answer::full};
      if (cells_.size() <= mask_ && first + count > cells_.size()) make_cells(first + count);
      // (8) seq_cst-cas; pairs with seq_cst-load (7), seq_cst-or (9), idle_workers.hpp (1).
      // Forbids: who stops searching misses the push and its pusher that; a push after the close.
      if (tail_.compare_exchange_weak(tail, tail + 2 * count, sync::seq_cst, sync::relaxed))
        return {first, count, ring_answer::taken};
      away.lost();
      tail = tail_.load(sync::relaxed);  // relaxed: as above
    }
  }

  /// Positions from `first` on that are within the capacity.
  [[nodiscard]] std::size_t room_at(std::uint64_t first) noexcept {
    auto used = static_cast<std::int64_t>(first - head_seen_.load(sync::relaxed));
    if (used >= capacity_) [[unlikely]] {
      // (6) seq_cst-load; pairs with seq_cst-cas (5). Forbids: who waits for room misses a pop
      // whose popper misses that room is waited for.
      const std::uint64_t head = head_.load(sync::seq_cst);
      head_seen_.store(head, sync::relaxed);
      used = static_cast<std::int64_t>(first - head);
    }
    return static_cast<std::size_t>(std::clamp<std::int64_t>(capacity_ - used, 0, capacity_));
  }

  [[gnu::noinline]] void make_cells(std::uint64_t end) {
    const sync::lock_guard<sync::mutex> lock(growing_);
    while (cells_.size() <= mask_ && cells_.size() < end)
      cells_.grow();
  }

  void fill(std::uint64_t position, Value& value) noexcept {
    cell& into = cells_[position & mask_];
    const std::uint64_t free = 2 * (position >> round_bits_);
    // (4) acquire-load; pairs with release-store (3). Sees: the last round's value moved out.
    while (into.turn.load(sync::acquire) != free) [[unlikely]]
      sync::yield();
    static_cast<Value&>(into) = std::move(value);
    // (2) release-store; pairs with acquire-load (1). Publishes: the value.
    into.turn.store(free + 1, sync::release);
  }

  const std::int64_t capacity_;
  const std::uint64_t mask_;                                 // cells - 1
  const unsigned round_bits_;                                // log2 of cells
  sync::mutex growing_;                                      // guards the growth of cells_
  block_array<cell, sync::repeatable ? 2 : 64> cells_;       // at most bit_ceil(capacity)
  alignas(cache_line) sync::atomic<std::uint64_t> tail_{0};  // 2 * position | closed_bit
  // relaxed: a lower bound of the head; if it is old, the head itself is read
  sync::atomic<std::uint64_t> head_seen_{0};
  alignas(cache_line) sync::atomic<std::uint64_t> head_{0};
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
