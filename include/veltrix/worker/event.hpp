// An event, and the block of bytes that a few thousand events share.
// Use for: carrying events from a source to a sink without copying them.
// Not for: keeping an event; copy the parts you need.
// Threads: one thread fills a block; then many read its events, each by one at a time.
// Progress: finish() is wait-free; block_budget takes a short lock.
// Callbacks: none.
// Exceptions: std::bad_alloc while a block is filled.
// Lifetime: views point into the block, which lives until its last event is finished.
// Guide: docs/worker.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <forward_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../clock.hpp"
#include "../detail/cache_padded.hpp"
#include "../detail/config.hpp"
#include "../detail/stoppable_wait.hpp"
#include "../detail/sync.hpp"
#include "../stop_token.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

class event_block;

/// What is known of one event. All views point into the block.
struct event {
  std::string_view text;         ///< the whole line, without its line feed
  std::string_view id;           ///< unescaped
  std::string_view key;          ///< unescaped; events of one key stay in order
  std::string_view kind;         ///< unescaped; empty if the event has none
  std::uint64_t number = 0;      ///< the line it stood on, from 1
  std::uint64_t offset = 0;      ///< bytes of the source before its line
  std::uint64_t key_hash = 0;    ///< picks the lane
  std::uint64_t sequence = 0;    ///< counts within the key; valid if has_sequence
  std::int64_t time_us = 0;      ///< microseconds since 1970 UTC; valid if has_time
  event_block* block = nullptr;  ///< the owner of all views
  bool has_sequence = false;
  bool has_time = false;
  bool id_is_number = false;
  /// Set once, when the event is through its sink or among the dead letters.
  mutable detail::sync::atomic<bool> done{false};
};

/// Why an event was refused; the label of its metric.
enum class fault_kind : std::uint8_t {
  none,
  too_long,
  not_utf8,
  syntax,
  not_an_object,
  missing_field,
  duplicate_field,
  wrong_type,
  bad_value,
  handler_failed,
  queue_full,
};

/// "too_long", ...: stable, for labels and dead letters.
[[nodiscard]] constexpr std::string_view to_string(fault_kind kind) noexcept {
  constexpr std::string_view names[] = {
      "none",          "too_long",       "not_utf8",        "syntax",
      "not_an_object", "missing_field",  "duplicate_field", "wrong_type",
      "bad_value",     "handler_failed", "queue_full"};
  return names[static_cast<std::size_t>(kind)];
}

/// Kinds of faults, none included.
inline constexpr std::size_t fault_kinds = 11;

/// A line that is not an event.
struct rejected_line {
  fault_kind kind = fault_kind::none;
  std::uint64_t number = 0;  ///< the line, from 1
  std::uint64_t offset = 0;  ///< bytes of the source before the line
  std::uint64_t length = 0;  ///< bytes of the line; `text` may be less
  std::string text{};        ///< at most kept_bytes of the line
  std::string reason{};      ///< a sentence without a full stop

  static constexpr std::size_t kept_bytes = 4096;
};

/// One line of the text, before it is read as an event.
struct raw_line {
  std::uint32_t begin = 0;   ///< in the block's text
  std::uint32_t length = 0;  ///< without the line feed
  std::uint64_t number = 0;
  std::uint64_t offset = 0;
};

/// Text, the events found in it, and the lines that are none.
///
/// I1: views into the text are made only after the last grow_text() of a filling.
/// I2: live_ counts the events that are not finished; whoever takes it to zero owns the block.
class event_block {
 public:
  static constexpr std::size_t max_events = 4096;
  /// Readable bytes that follow every text, so that a parser may read in wide steps.
  static constexpr std::size_t padding = 64;

  event_block() = default;
  event_block(const event_block&) = delete;
  event_block& operator=(const event_block&) = delete;

  // --- filling, by one thread ---

  /// Empties the block; its memory stays.
  void clear() noexcept {
    text_size_ = 0;
    event_count_ = 0;
    lines_.clear();
    rejects_.clear();
    unescaped_.clear();
    empty_lines = 0;
  }

  /// Makes room for `bytes` of text in all, keeping what is there.
  void grow_text(std::size_t bytes) {
    if (bytes <= text_capacity_) return;
    auto larger = std::make_unique_for_overwrite<char[]>(bytes + padding);
    std::memset(larger.get() + bytes, 0, padding);
    if (text_size_ != 0) std::memcpy(larger.get(), text_.get(), text_size_);
    text_ = std::move(larger);
    text_capacity_ = bytes;
  }

  /// Gives memory back that the text does not need, when most of it is unused.
  void shrink_text() {
    if (text_size_ >= text_capacity_ / 4 || text_capacity_ <= 4096) return;
    auto smaller = std::make_unique_for_overwrite<char[]>(text_size_ + padding);
    std::memcpy(smaller.get(), text_.get(), text_size_);
    std::memset(smaller.get() + text_size_, 0, padding);
    text_ = std::move(smaller);
    text_capacity_ = text_size_;
  }

  [[nodiscard]] std::span<char> free_text() noexcept {
    return {text_.get() + text_size_, text_capacity_ - text_size_};
  }
  void set_text_size(std::size_t bytes) noexcept { text_size_ = bytes; }
  [[nodiscard]] std::string_view text() const noexcept { return {text_.get(), text_size_}; }
  [[nodiscard]] std::size_t text_capacity() const noexcept { return text_capacity_; }

  [[nodiscard]] std::vector<raw_line>& lines() noexcept { return lines_; }
  [[nodiscard]] std::vector<rejected_line>& rejects() noexcept { return rejects_; }

  /// Makes room for `count` events, in a block that has none.
  void reserve_events(std::size_t count) {
    VELTRIX_ASSERT(event_count_ == 0, "events would move while they are referred to");
    const bool wasteful = event_capacity_ > 256 && count < event_capacity_ / 4;
    if (count <= event_capacity_ && !wasteful) return;
    events_ = std::make_unique<event[]>(count);
    event_capacity_ = count;
  }

  /// The next free event, emptied; take_event() keeps it. At most as many as reserved.
  [[nodiscard]] event& next_event() noexcept {
    VELTRIX_ASSERT(event_count_ < event_capacity_, "more events than were reserved");
    event& next = events_[event_count_];
    next.id = next.key = next.kind = {};
    next.has_sequence = next.has_time = next.id_is_number = false;
    next.block = this;
    // relaxed: whoever hands the block over orders this before other threads.
    next.done.store(false, detail::sync::relaxed);
    return next;
  }
  void take_event() noexcept { ++event_count_; }

  /// Keeps text that stands nowhere in the block as it is meant: an unescaped string.
  [[nodiscard]] std::string_view keep(std::string_view unescaped) {
    return unescaped_.emplace_front(unescaped);
  }

  /// Gives up the line `number`, which begins at `offset`, and all that follow it.
  void cut_before(std::uint64_t number, std::uint64_t offset) noexcept {
    while (event_count_ != 0 && events_[event_count_ - 1].number >= number)
      --event_count_;
    line_count = number - first_line;
    end_offset = offset;
  }

  /// Ends the filling: from here on finish() may be called, once for each event.
  void seal() noexcept {
    // relaxed: as above.
    live_.value.store(event_count_, detail::sync::relaxed);
  }

  // --- reading ---

  [[nodiscard]] std::span<event> events() noexcept { return {events_.get(), event_count_}; }
  [[nodiscard]] std::span<const event> events() const noexcept {
    return {events_.get(), event_count_};
  }

  /// Counts `count` events as done. True for the call that finished the last one.
  [[nodiscard]] bool finish(std::size_t count) noexcept {
    // (1) acq_rel-rmw; pairs with itself. Publishes: all use of the block before its last finish().
    return live_.value.fetch_sub(count, detail::sync::acq_rel) == count;
  }

  /// Bytes of memory held.
  [[nodiscard]] std::size_t footprint() const noexcept {
    return text_capacity_ + padding + event_capacity_ * sizeof(event) +
           lines_.capacity() * sizeof(raw_line);
  }

  std::uint64_t first_line = 1;    ///< the number of its first line
  std::uint64_t line_count = 0;    ///< lines it took from the source, of any kind
  std::uint64_t begin_offset = 0;  ///< bytes of the source before it
  std::uint64_t end_offset = 0;    ///< bytes of the source up to its end
  std::uint64_t empty_lines = 0;
  time_point read_at{};  ///< when its bytes were there

  std::uint64_t serial = 0;     ///< the commit tracker's
  std::size_t owner_index = 0;  ///< the budget's
  std::size_t charged = 0;      ///< the budget's

 private:
  std::unique_ptr<char[]> text_;
  std::size_t text_capacity_ = 0;
  std::size_t text_size_ = 0;
  std::unique_ptr<event[]> events_;
  std::size_t event_capacity_ = 0;
  std::size_t event_count_ = 0;
  std::vector<raw_line> lines_;
  std::vector<rejected_line> rejects_;
  std::forward_list<std::string> unescaped_;
  detail::cache_padded<detail::sync::atomic<std::size_t>> live_{std::size_t{0}};
};

/// Hands blocks out and takes them back, within a bound of bytes. It owns every block, so that none
/// is lost when the work on it is abandoned.
///
/// I1: held_ is the sum of the charges of the blocks that are out.
class block_budget {
 public:
  /// `limit` in bytes, at least one; a single block may exceed it, or nothing could ever move.
  explicit block_budget(std::size_t limit) : limit_(limit) {}
  block_budget(const block_budget&) = delete;
  block_budget& operator=(const block_budget&) = delete;

  /// A block to fill. Progress: a short lock. Exceptions: std::bad_alloc.
  [[nodiscard]] event_block& take() {
    const lock_guard lock(mutex_);
    if (idle_.empty()) {
      idle_.reserve(most_idle);
      auto fresh = std::make_unique<event_block>();
      fresh->owner_index = all_.size();
      all_.push_back(std::move(fresh));
      return *all_.back();
    }
    event_block& block = *idle_.back();
    idle_.pop_back();
    return block;
  }

  /// Counts a filled block against the bound, until it is given back.
  void charge(event_block& block) {
    const lock_guard lock(mutex_);
    block.charged = block.footprint();
    held_ += block.charged;
  }

  /// Takes a block back.
  void give_back(event_block& block) noexcept {
    block.clear();
    bool wake = false;
    {
      const lock_guard lock(mutex_);
      held_ -= block.charged;
      block.charged = 0;
      wake = waiting_ && held_ < limit_;
      if (idle_.size() < most_idle) {
        idle_.push_back(&block);
      } else {
        forget(block);
      }
    }
    if (wake) freed_.notify_all();
  }

  [[nodiscard]] bool has_room() const {
    const lock_guard lock(mutex_);
    return held_ < limit_;
  }

  /// Waits until there is room or until `until`. Blocking. Result: whether there is room.
  bool wait_for_room(time_point until) {
    unique_lock lock(mutex_);
    waiting_ = true;
    // Woken by give_back() and set_limit(), after they wrote held_ and limit_.
    const bool room =
        detail::wait_until(lock, freed_, until, stop_token(), [&] { return held_ < limit_; });
    waiting_ = false;
    return room;
  }

  /// Changes the bound; blocks that are out stay out.
  void set_limit(std::size_t bytes) {
    {
      const lock_guard lock(mutex_);
      limit_ = bytes;
    }
    freed_.notify_all();
  }

  [[nodiscard]] std::size_t bytes() const {
    const lock_guard lock(mutex_);
    return held_;
  }
  [[nodiscard]] std::size_t limit() const {
    const lock_guard lock(mutex_);
    return limit_;
  }

 private:
  using lock_guard = detail::sync::lock_guard<detail::sync::mutex>;
  using unique_lock = detail::sync::unique_lock<detail::sync::mutex>;

  static constexpr std::size_t most_idle = 16;

  /// Ends a block; the last of all_ takes its place.
  void forget(event_block& block) noexcept {
    const std::size_t at = block.owner_index;
    all_.back()->owner_index = at;
    all_[at].swap(all_.back());
    all_.pop_back();
  }

  mutable detail::sync::mutex mutex_;  // guards everything below
  detail::sync::condition_variable freed_;
  std::size_t limit_;                              // guarded by mutex_
  std::size_t held_ = 0;                           // guarded by mutex_
  bool waiting_ = false;                           // guarded by mutex_; a reader waits for room
  std::vector<std::unique_ptr<event_block>> all_;  // guarded by mutex_; in and out
  std::vector<event_block*> idle_;                 // guarded by mutex_; at most most_idle
};

}  // namespace VELTRIX_ABI
}  // namespace veltrix
