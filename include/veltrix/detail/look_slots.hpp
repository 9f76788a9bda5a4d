// The two slots in which a look-up shows what it reads: the table, and an entry of it.
// Use for: the inside of concurrent_map. Internal.
// Not for: guards; what outlives the look-up keeps its slot or a hold.
// Threads: one.
// Progress: wait-free where the thread has two slots free; else a record is looked for.
// Callbacks: none.
// Exceptions: none; where there is no slot at all, usable() says so.
// Lifetime: within one function.
// Guide: docs/reclaim.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "../reclaim.hpp"
#include "config.hpp"
#include "reader_record.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// Two free slots of one record, and what they hold while free.
struct look_slots {
  using slot = reader_record::slot;

  /// The last two that may last: guards of cells take the first ones.
  static constexpr std::size_t table_at = reader_record::lasting_slots - 2;
  static constexpr std::size_t node_at = reader_record::lasting_slots - 1;

  /// The calling thread's own, if they are free and need no fence; else none. A table whose entries
  /// are copied asks for no second slot.
  template <bool TableAlone>
  [[nodiscard, gnu::always_inline]] static look_slots quick(reclaim_domain& domain) noexcept {
    reader_place& place = reader_place::mine();
    reader_record& mine = *place.recent;
    const bool quick = reader_record::is_quick(mine.shown[table_at], &domain) &&
                       (TableAlone || reader_record::is_quick(mine.shown[node_at], &domain));
    return quick ? look_slots{&mine.shown[table_at], &mine.shown[node_at], &domain, &place.habit}
                 : look_slots{};
  }

  [[nodiscard]] bool usable() const noexcept { return table != nullptr; }

  slot* table = nullptr;
  slot* node = nullptr;
  const void* free = nullptr;
  look_habit* habit = nullptr;
};

/// Any two slots: of the thread, or of a record that is borrowed for as long as this lives.
class other_look_slots {
 public:
  explicit other_look_slots(reclaim_domain& domain) noexcept {
    found_.free = domain.free_word();
    found_.habit = &reader_place::mine().habit;
    if (reader_record* const mine = domain.record_of_this_thread()) {
      // The last one for the node, as above: a guard that keeps it leaves the table's slot free.
      for (std::size_t i = reader_record::lasting_slots; i-- != 0 && !found_.usable();) {
        if (!reader_record::is_free(mine->shown[i], &domain)) continue;
        (found_.node == nullptr ? found_.node : found_.table) = &mine->shown[i];
      }
      if (found_.usable()) return;
    }
    borrowed_ = domain.claim(record_owner::an_object);
    if (borrowed_ == nullptr) return;
    found_.table = &borrowed_->shown[look_slots::table_at];
    found_.node = &borrowed_->shown[look_slots::node_at];
  }
  other_look_slots(const other_look_slots&) = delete;
  other_look_slots& operator=(const other_look_slots&) = delete;
  ~other_look_slots() {
    if (borrowed_ != nullptr) borrowed_->give_back();
  }

  [[nodiscard]] const look_slots& found() const noexcept { return found_; }
  /// Whether they end with this object.
  [[nodiscard]] bool borrowed() const noexcept { return borrowed_ != nullptr; }

 private:
  look_slots found_;
  reader_record* borrowed_ = nullptr;  // whole, where the thread has not two slots to spare
};

/// While it lives, a slot may show something; its end clears it.
class shown_here {
 public:
  shown_here(look_slots::slot& in, const void* free) noexcept : in_(in), free_(free) {}
  shown_here(const shown_here&) = delete;
  shown_here& operator=(const shown_here&) = delete;
  [[gnu::always_inline]] ~shown_here() { reader_record::clear(in_, free_); }

 private:
  look_slots::slot& in_;
  const void* const free_;
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
