// How far the input is done without a gap: the only place a restart may go on from.
// Use for: at-least-once: a position is safe when everything before it is done.
// Not for: finding out which events beyond it are done too; a restart repeats those.
// Threads: opened() from the source's thread; block_done() and position() from any thread.
// Progress: a short lock; position() looks at most at one block's events.
// Callbacks: none.
// Exceptions: std::bad_alloc from opened().
// Lifetime: keeps a block's pointer only until block_done().
// Guide: docs/worker.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>

#include "../detail/sync.hpp"
#include "event.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// A place in the input. Everything before it is done.
struct input_position {
  std::uint64_t lines = 0;
  std::uint64_t bytes = 0;

  friend bool operator==(const input_position&, const input_position&) = default;
};

/// I1: entries_ are the blocks from the first that is not wholly done, in the order of the input.
/// I2: an entry's block is null exactly when all of its events are done.
class commit_tracker {
 public:
  /// At most `most_blocks` may lie between the position and the newest block.
  explicit commit_tracker(std::size_t most_blocks = 4096) : most_blocks_(most_blocks) {}
  commit_tracker(const commit_tracker&) = delete;
  commit_tracker& operator=(const commit_tracker&) = delete;

  /// Starts at a place other than the beginning, before the first block.
  void start_at(const input_position& at) {
    const lock_guard lock(mutex_);
    done_ = read_ = at;
  }

  /// Whether another block may be opened: false when one unfinished event holds all others back.
  [[nodiscard]] bool has_room() const {
    const lock_guard lock(mutex_);
    return entries_.size() < most_blocks_;
  }

  /// Takes note of a block whose lines follow all that came before. A block without events is done
  /// at once; say so with `block_done`.
  void opened(event_block& block) {
    const lock_guard lock(mutex_);
    block.serial = next_serial_++;
    read_ = {block.first_line - 1 + block.line_count, block.end_offset};
    entries_.push_back({&block, read_});
  }

  /// All events of the block are done. Call it once, before the block's memory is used again.
  void block_done(const event_block& block) noexcept {
    const lock_guard lock(mutex_);
    const std::uint64_t first = next_serial_ - entries_.size();
    entries_[static_cast<std::size_t>(block.serial - first)].block = nullptr;
    while (!entries_.empty() && entries_.front().block == nullptr) {
      done_ = entries_.front().end;
      entries_.pop_front();
    }
  }

  /// Everything before the result is done, to the event. Never goes back.
  [[nodiscard]] input_position position() const {
    const lock_guard lock(mutex_);
    if (entries_.empty()) return done_;
    for (const event& each : entries_.front().block->events()) {
      // (2) acquire-load; pairs with release-store (3). Sees: the event's result is in the sink.
      if (!each.done.load(detail::sync::acquire)) return {each.number - 1, each.offset};
    }
    return entries_.front().end;
  }

  /// Marks one event as done; it is in the sink, or among the dead letters.
  static void event_done(const event& which) noexcept {
    // (3) release-store; pairs with acquire-load (2). Publishes: the event's result is in the sink.
    which.done.store(true, detail::sync::release);
  }

  /// The end of the newest block.
  [[nodiscard]] input_position read() const {
    const lock_guard lock(mutex_);
    return read_;
  }

 private:
  using lock_guard = detail::sync::lock_guard<detail::sync::mutex>;

  struct entry {
    event_block* block;
    input_position end;
  };

  mutable detail::sync::mutex mutex_;  // guards everything below
  std::deque<entry> entries_;          // guarded by mutex_
  std::uint64_t next_serial_ = 0;      // guarded by mutex_
  input_position done_;                // guarded by mutex_
  input_position read_;                // guarded by mutex_
  const std::size_t most_blocks_;
};

}  // namespace VELTRIX_ABI
}  // namespace veltrix
