// Sees what a key's numbering says: numbers left out, come late, or come twice; and overtaking.
// Use for: one table for each lane, touched only by whoever drains the lane.
// Not for: putting events in order; lanes do that.
// Threads: one at a time for each table.
// Progress: wait-free but for the growth of the table.
// Callbacks: none.
// Exceptions: std::bad_alloc while the table grows.
// Lifetime: owns its rows.
// Guide: docs/worker.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "event.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// What was seen, added up.
struct order_counts {
  std::uint64_t overtaken = 0;   ///< events that came after a later one of their lane: our fault
  std::uint64_t missing = 0;     ///< numbers that were left out and have not come since
  std::uint64_t late = 0;        ///< numbers that came after a higher one
  std::uint64_t duplicates = 0;  ///< numbers that came again
  std::uint64_t too_old = 0;     ///< numbers so far back that late and duplicate look the same
  std::uint64_t forgotten = 0;   ///< keys that had to make room for others

  order_counts& operator+=(const order_counts& other) noexcept {
    overtaken += other.overtaken;
    missing += other.missing;
    late += other.late;
    duplicates += other.duplicates;
    too_old += other.too_old;
    forgotten += other.forgotten;
    return *this;
  }
  friend bool operator==(const order_counts&, const order_counts&) = default;
};

/// The last number of each key and which of the 64 before it came. Keys are told apart by a 64-bit
/// hash; in 10^6 keys, two share one with a chance of about 3 in 10^8.
///
/// I1: a set is 4 rows that stand together; a key lives only in the set that its hash picks.
/// I2: within a set, rows are ordered by last use, the most recent first.
/// I3: bit n of `window` says that `highest - 1 - n` came; numbers before the first one seen of a
///     key count as come, so that a start in the middle is not a fault.
class order_check {
 public:
  /// `most_keys`: about how many keys are remembered; those used longest ago are forgotten.
  explicit order_check(std::size_t most_keys) {
    while (largest_ < most_keys)
      largest_ *= 2;
  }

  /// Looks at the next event of the lane.
  void see(const event& next) {
    if (next.number <= last_number_) ++counts_.overtaken;
    last_number_ = next.number;
    if (next.has_sequence) see(next.key_hash, next.sequence);
  }

  /// Looks at the next number of one key.
  void see(std::uint64_t key_hash, std::uint64_t sequence) {
    row& found = row_of(key_hash, sequence);
    if (sequence == found.highest + 1) {  // as it should be
      found.window = (found.window << 1) | 1;
      found.highest = sequence;
      return;
    }
    if (sequence > found.highest) {
      skip_to(found, sequence);
    } else {
      look_back(found, found.highest - sequence);
    }
  }

  /// Whether take() has something to give.
  [[nodiscard]] bool found_any() const noexcept { return counts_ != order_counts{}; }

  /// What was seen since the last call.
  [[nodiscard]] order_counts take() noexcept {
    const order_counts taken = counts_;
    counts_ = {};
    return taken;
  }

 private:
  struct row {
    std::uint64_t key = 0;  // 0: free
    std::uint64_t highest = 0;
    std::uint64_t window = 0;
  };
  static constexpr std::size_t set_rows = 4;

  void skip_to(row& at, std::uint64_t sequence) noexcept {
    const std::uint64_t step = sequence - at.highest;
    counts_.missing += step - 1;
    at.window = step >= 64 ? 0 : at.window << step;
    if (step <= 64) at.window |= std::uint64_t{1} << (step - 1);
    at.highest = sequence;
  }

  void look_back(row& at, std::uint64_t distance) noexcept {
    if (distance == 0) {
      ++counts_.duplicates;
      return;
    }
    if (distance > 64) {
      ++counts_.too_old;
      return;
    }
    const std::uint64_t bit = std::uint64_t{1} << (distance - 1);
    if ((at.window & bit) != 0) {
      ++counts_.duplicates;
      return;
    }
    at.window |= bit;
    ++counts_.late;
    --counts_.missing;  // may pass zero between two take(); the sum over all does not
  }

  /// The row of a key; a new key starts as if all before `sequence` had come.
  row& row_of(std::uint64_t key_hash, std::uint64_t sequence) {
    const std::uint64_t wanted = key_hash == 0 ? 1 : key_hash;
    for (;;) {
      row* const set = set_of(wanted);
      for (std::size_t at = 0; set != nullptr && at < set_rows; ++at) {
        if (set[at].key != wanted && set[at].key != 0) continue;
        if (set[at].key == 0) {
          set[at] = {wanted, sequence - 1, ~std::uint64_t{0}};
        }
        return to_front(set, at);
      }
      if (rows_.size() >= largest_) return replace_last(set, wanted, sequence);
      grow();
    }
  }

  [[nodiscard]] row* set_of(std::uint64_t key) noexcept {
    if (rows_.empty()) return nullptr;
    // The low bits picked the lane; the high ones pick the set.
    return &rows_[((key >> 32) & (rows_.size() / set_rows - 1)) * set_rows];
  }

  static row& to_front(row* set, std::size_t at) noexcept {
    const row found = set[at];
    for (; at > 0; --at)
      set[at] = set[at - 1];
    return set[0] = found;
  }

  row& replace_last(row* set, std::uint64_t key, std::uint64_t sequence) noexcept {
    ++counts_.forgotten;
    set[set_rows - 1] = {key, sequence - 1, ~std::uint64_t{0}};
    return to_front(set, set_rows - 1);
  }

  /// Doubles the table. A set splits into two, so no key loses its row.
  void grow() {
    const std::size_t wanted = rows_.empty() ? set_rows : rows_.size() * 2;
    std::vector<row> old(wanted);
    old.swap(rows_);
    for (std::size_t from = old.size(); from > 0; --from) {
      const row& kept = old[from - 1];
      if (kept.key == 0) continue;
      row* const set = set_of(kept.key);
      std::size_t free = 0;
      while (set[free].key != 0)
        ++free;
      set[free] = kept;
      to_front(set, free);
    }
  }

  std::vector<row> rows_;           // sets of set_rows; a power of two of them
  std::size_t largest_ = set_rows;  // rows that rows_ may grow to
  std::uint64_t last_number_ = 0;
  order_counts counts_;
};

}  // namespace VELTRIX_ABI
}  // namespace veltrix
