// A bound on items and bytes together, the line of those who wait for room, and texts with figures.
// Use for: admission in bounded_queue and keyed_executor. Internal but for the public structs.
// Not for: rates; nothing here knows of time but how long a caller may wait.
// Threads: plain values; the owner's mutex guards them.
// Progress: a few steps; texts allocate.
// Callbacks: none.
// Exceptions: texts may throw std::bad_alloc.
// Lifetime: a place in a line leaves it before it ends.
// Guide: docs/bounded_queue.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "../clock.hpp"
#include "../stop_token.hpp"
#include "config.hpp"
#include "message.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// How long a call may wait.
struct wait_options {
  time_point deadline = no_deadline;  ///< on the steady clock; one already past makes it a try
  stop_token token{};                 ///< ends the wait when it stops
};

/// An amount of work: how many, and how heavy together.
struct load {
  std::size_t items = 0;
  std::size_t bytes = 0;

  friend bool operator==(const load&, const load&) = default;
};

/// The byte limit that says "count only", said on purpose.
inline constexpr std::size_t no_byte_limit = std::size_t{1} << 62;
/// The largest limits taken; above them a value is a mistake (a negative number, say).
inline constexpr load max_load{std::size_t{1} << 40, std::size_t{1} << 48};

/// The default weigher: every item weighs its own object, what it owns elsewhere not counted.
struct object_weight {
  template <class T>
  [[nodiscard]] constexpr std::size_t operator()(const T&) const noexcept {
    return sizeof(T);
  }
};

/// What refused an item.
enum class bound_kind : std::uint8_t {
  none,     ///< nothing: it was taken, or the reason is not a bound
  items,    ///< the count of items
  bytes,    ///< the sum of bytes
  waiters,  ///< as many callers wait already as may, or one that came before still waits
  handler,  ///< the caller is a handler: it would wait for room that handlers make
  memory,   ///< the allocator had no memory for it
};

/// The answer to a change of limits.
struct [[nodiscard]] limits_result {
  bool accepted = false;
  const char* why = "";  ///< a sentence in static storage; empty when accepted

  [[nodiscard]] explicit operator bool() const noexcept { return accepted; }
};

namespace detail {

/// Whether `limit` may be set.
[[nodiscard]] constexpr limits_result check_limits(const load& limit) noexcept {
  if (limit.items == 0) return {false, "a limit of 0 items would refuse everything; allowed 1.."};
  if (limit.bytes == 0) return {false, "a limit of 0 bytes would refuse everything; allowed 1.."};
  if (limit.items > max_load.items) return {false, "a limit above 2^40 items is a mistake"};
  if (limit.bytes > max_load.bytes && limit.bytes != no_byte_limit) {
    return {false, "a limit above 2^48 bytes is a mistake; for none, say no_byte_limit"};
  }
  return {true, ""};
}

/// What is used of a limit. Lowering the limit below the use is allowed: there is no room then.
struct load_bound {
  load limit;
  load used;
  load peak;  ///< highest use of each since the start

  [[nodiscard]] load room() const noexcept {
    return {limit.items - std::min(limit.items, used.items),
            limit.bytes - std::min(limit.bytes, used.bytes)};
  }
  [[nodiscard]] bool fits(const load& more) const noexcept {
    const load free = room();
    return more.items <= free.items && more.bytes <= free.bytes;
  }
  /// Which bound is in the way of `more`; none when it fits.
  [[nodiscard]] bound_kind in_the_way(const load& more) const noexcept {
    const load free = room();
    if (more.items > free.items) return bound_kind::items;
    return more.bytes > free.bytes ? bound_kind::bytes : bound_kind::none;
  }
  void add(const load& more) noexcept {
    used.items += more.items;
    used.bytes += more.bytes;
    peak.items = std::max(peak.items, used.items);
    peak.bytes = std::max(peak.bytes, used.bytes);
  }
  void subtract(const load& less) noexcept {
    VELTRIX_ASSERT(less.items <= used.items && less.bytes <= used.bytes,
                   "more was taken out of a bound than was put in");
    used.items -= less.items;
    used.bytes -= less.bytes;
  }
};

/// Waiting callers, first come first served. Each has its own condition, so that one is woken.
class wait_line {
 public:
  /// A caller's place, on its stack.
  struct place {
    sync::condition_variable called;
    load need;                             // what must fit before it is worth waking
    sync::var<place*> next = nullptr;      // guarded by the owner's mutex
    sync::var<place*> previous = nullptr;  // guarded by the owner's mutex
  };

  wait_line() = default;
  wait_line(const wait_line&) = delete;
  wait_line& operator=(const wait_line&) = delete;
  ~wait_line() {
    VELTRIX_ASSERT(first_ == nullptr, "an object ended under a caller waiting in it");
  }

  [[nodiscard]] bool empty() const noexcept { return first_ == nullptr; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] const place* front() const noexcept { return first_; }

  void join(place& joining) noexcept {
    joining.previous = last_;
    (last_ == nullptr ? first_ : last_->next) = &joining;
    last_ = &joining;
    ++size_;
  }
  void leave(place& leaving) noexcept {
    (leaving.previous == nullptr ? first_ : leaving.previous->next) = leaving.next;
    (leaving.next == nullptr ? last_ : leaving.next->previous) = leaving.previous;
    --size_;
  }
  void call_front() noexcept {
    if (first_ != nullptr) first_->called.notify_one();
  }
  void call_all() noexcept {
    for (place* each = first_; each != nullptr; each = each->next)
      each->called.notify_one();
  }

 private:
  sync::var<place*> first_ = nullptr;
  sync::var<place*> last_ = nullptr;
  std::size_t size_ = 0;
};

/// 48211 as "48,211".
[[nodiscard]] inline std::string grouped_text(std::size_t number) {
  std::string text = std::to_string(number);
  for (std::size_t at = text.size(); at > 3; at -= 3)
    text.insert(at - 3, 1, ',');
  return text;
}

struct byte_unit {
  std::string_view name;
  std::size_t bytes;
};

/// The largest unit of which `bytes` holds at least one.
[[nodiscard]] constexpr byte_unit unit_for(std::size_t bytes) noexcept {
  constexpr byte_unit units[] = {{"TiB", std::size_t{1} << 40},
                                 {"GiB", std::size_t{1} << 30},
                                 {"MiB", std::size_t{1} << 20},
                                 {"KiB", std::size_t{1} << 10}};
  for (const byte_unit& unit : units) {
    if (bytes >= unit.bytes) return unit;
  }
  return {"B", 1};
}

enum class decimals : std::uint8_t { one, as_needed };

/// "64.0 MiB", or "64 MiB" as needed.
[[nodiscard]] inline std::string byte_text(std::size_t bytes, const byte_unit& unit,
                                           decimals shown) {
  std::string text;
  if (unit.bytes == 1) {
    text = grouped_text(bytes);
  } else {
    const std::size_t part = bytes % unit.bytes / (unit.bytes / 1024);  // in 1,024ths
    const std::size_t tenths = bytes / unit.bytes * 10 + (part * 10 + 512) / 1024;
    text = grouped_text(tenths / 10);
    if (shown == decimals::one || tenths % 10 != 0) {
      text.append(".").append(std::to_string(tenths % 10));
    }
  }
  return text.append(" ").append(unit.name);
}

/// "64.0 MiB of 64 MiB (48,211 events)" or "50,000 of 50,000 events (12.5 MiB)".
[[nodiscard]] inline std::string load_text(bound_kind full, const load& used, const load& limit,
                                           std::string_view noun) {
  if (full == bound_kind::bytes) {
    const byte_unit unit = unit_for(limit.bytes);
    return byte_text(used.bytes, unit, decimals::one)
        .append(" of ")
        .append(byte_text(limit.bytes, unit, decimals::as_needed))
        .append(" (")
        .append(grouped_text(used.items))
        .append(" ")
        .append(noun)
        .append(")");
  }
  return grouped_text(used.items)
      .append(" of ")
      .append(grouped_text(limit.items))
      .append(" ")
      .append(noun)
      .append(" (")
      .append(byte_text(used.bytes, unit_for(used.bytes), decimals::one))
      .append(")");
}

/// What a full answer says after "full: ".
[[nodiscard]] inline std::string full_text(bound_kind full, const load& used, const load& limit,
                                           std::string_view noun) {
  std::string text = load_text(full, used, limit, noun);
  if (full == bound_kind::waiters) text.append("; no more callers may wait for room");
  if (full == bound_kind::handler) text.append("; a handler never waits for room");
  if (full == bound_kind::memory) text.append("; the allocator has no memory");
  return text;
}

/// "one item weighs 80.0 MiB, allowed 64 MiB; ..."
[[nodiscard]] inline std::string too_heavy_text(std::size_t bytes, const load& limit) {
  return std::string("one item weighs ")
      .append(byte_text(bytes, unit_for(bytes), decimals::one))
      .append(", allowed ")
      .append(byte_text(limit.bytes, unit_for(limit.bytes), decimals::as_needed))
      .append("; it was not taken and never fits; raise the byte limit or split the item");
}

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
