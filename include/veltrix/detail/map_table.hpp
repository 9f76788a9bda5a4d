// The table of one shard of a map: groups of tagged slots in one block of memory, probed in groups.
// Use for: the inside of concurrent_map. Internal.
// Not for: anything else.
// Threads: looks from any thread that keeps the block alive, changes from one at a time.
// Progress: wait-free; make() allocates.
// Callbacks: what find() is given.
// Exceptions: the callbacks', the allocator's in make(), std::invalid_argument for one that does
//   not align.
// Lifetime: a block is freed by its owner; the table is a name for it, in one word.
// Guide: docs/concurrent_map.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#include "config.hpp"
#include "map_refusals.hpp"
#include "map_slots.hpp"
#include "sync.hpp"
#include "tag_group.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// Groups of slots. With Together, a group's tags stand beside its slots, on one line where a slot
/// is a pointer: then a look touches one line of the table. Otherwise all tags stand behind all
/// slots, so that more of them stay in the cache, and a miss reads no slot. An entry stands on the
/// line of the slot that its hash wishes for, if there was room: a batch, a writer, and a look at a
/// large table ask for that line before the tags have come.
///
/// I1: a key stands in the first group of its walk that had room when it came; every group before
///     that one bears the mark of overflow for its hash.
/// I2: a slot in words is filled before it gets its tag; a slot for a pointer gets its tag first,
///     and counts as empty while it is null.
template <class Slot, bool Together>
class map_table {
 public:
  static constexpr std::size_t words = Together ? 1 : 2;
  using group_tags = tag_group<words>;
  using seen = typename group_tags::seen;
  static constexpr std::size_t group_slots = group_tags::slots;
  /// So far apart are groups of slots: one stands empty, so that groups begin on a line and are
  /// found by a shift.
  static constexpr std::size_t stride = std::bit_ceil(group_slots);
  /// Of the groups of a table whose slots are rather not in the cache: some 8 KiB, one of many.
  static constexpr unsigned large_log2 = 5;

  /// The unit of a block.
  struct alignas(cache_line) line {
    unsigned char bytes[cache_line];
  };

  /// Where an entry stands, or nowhere.
  class place {
   public:
    place() = default;
    place(std::size_t group, unsigned slot) noexcept : group_(group), slot_(slot) {}
    [[nodiscard]] bool none() const noexcept { return slot_ == nowhere; }
    [[nodiscard]] std::size_t group() const noexcept { return group_; }
    [[nodiscard]] std::size_t slot() const noexcept { return slot_; }

   private:
    static constexpr unsigned nowhere = ~0U;
    std::size_t group_ = 0;
    unsigned slot_ = nowhere;
  };

  constexpr map_table() noexcept = default;
  explicit constexpr map_table(std::uintptr_t word) noexcept : word_(word) {}
  [[nodiscard]] std::uintptr_t word() const noexcept { return word_; }
  [[nodiscard]] bool none() const noexcept { return word_ == 0; }

  // --- memory ------------------------------------------------------------------------------------

  /// An empty table of 2^log2 groups.
  template <class Lines>
  static map_table make(Lines& allocator, unsigned log2) {
    using traits = std::allocator_traits<Lines>;
    const auto got = traits::allocate(allocator, lines(log2));
    auto* const room = std::to_address(got);
    if ((reinterpret_cast<std::uintptr_t>(room) & mask) != 0) [[unlikely]] {
      traits::deallocate(allocator, got, lines(log2));
      raise_misaligned(cache_line);
    }
    const map_table made(reinterpret_cast<std::uintptr_t>(room) | log2);
    ::new (static_cast<void*>(room)) map_block(made.word_);
    for (std::size_t i = 0; i < made.groups(); ++i)
      ::new (static_cast<void*>(made.group_at(i))) group;
    if constexpr (!Together) {
      for (std::size_t i = 0; i < made.groups() * stride; ++i)
        ::new (static_cast<void*>(made.first_slot() + i)) Slot;
    }
    return made;
  }

  template <class Lines>
  static void free(Lines& allocator, map_table old) noexcept {
    using traits = std::allocator_traits<Lines>;
    const std::size_t count = lines(old.log2());
    auto* const room = reinterpret_cast<line*>(old.word_ & ~mask);
    for (std::size_t i = 0; i < old.groups(); ++i)
      old.group_at(i)->~group();
    if constexpr (!Together) std::destroy_n(old.first_slot(), old.groups() * stride);
    old.block()->~map_block();
    traits::deallocate(allocator, std::pointer_traits<typename traits::pointer>::pointer_to(*room),
                       count);
  }

  /// What readers show, and what is retired; null for no table.
  [[nodiscard]] map_block* block() const noexcept {
    return reinterpret_cast<map_block*>(word_ & ~mask);
  }
  /// The table of a retired block.
  [[nodiscard]] static map_table of(map_garbage& retired) noexcept {
    return map_table(static_cast<map_block&>(retired).word);
  }

  // --- shape -------------------------------------------------------------------------------------

  [[nodiscard]] unsigned log2() const noexcept { return static_cast<unsigned>(word_ & mask); }
  [[nodiscard]] std::size_t groups() const noexcept { return std::size_t{1} << log2(); }
  [[nodiscard]] std::size_t bytes() const noexcept {
    return none() ? 0 : lines(log2()) * sizeof(line);
  }

  /// Entries that a table of 2^log2 groups is made for.
  [[nodiscard]] static constexpr std::size_t capacity(unsigned log2) noexcept {
    const std::size_t slots = group_slots << log2;
    if (log2 == 0) return slots;
    return Together ? slots - slots / 5 : slots - slots / 8;
  }
  [[nodiscard]] std::size_t capacity() const noexcept { return none() ? 0 : capacity(log2()); }
  /// The least log2 whose table is made for so many.
  [[nodiscard]] static unsigned log2_for(std::size_t entries) noexcept {
    unsigned log2 = static_cast<unsigned>(std::bit_width(entries / group_slots));
    while (log2 != 0 && capacity(log2 - 1) >= entries)
      --log2;
    while (capacity(log2) < entries)
      ++log2;
    return log2;
  }

  // --- parts -------------------------------------------------------------------------------------

  [[nodiscard]] group_tags& tags(std::size_t index) const noexcept { return group_at(index)->tags; }
  [[nodiscard]] Slot& slot(std::size_t group_index, std::size_t index) const noexcept {
    if constexpr (Together) {
      return group_at(group_index)->slots[index];
    } else {
      return first_slot()[group_index * stride + index];
    }
  }
  [[nodiscard]] Slot& slot(place at) const noexcept { return slot(at.group(), at.slot()); }

  [[nodiscard]] std::size_t first_group(std::uint64_t hash) const noexcept {
    return static_cast<std::size_t>(hash) & (groups() - 1);
  }

  /// Asks for the lines that a look-up of the hash reads first.
  [[gnu::always_inline]] void prefetch(std::uint64_t hash) const noexcept {
    const std::size_t first = first_group(hash);
    __builtin_prefetch(group_at(first));
    prefetch_wish(first, hash);
  }

  /// The groups in which a key may stand, in order: each once.
  class walk {
   public:
    walk(map_table table, std::uint64_t hash) noexcept
        : last_(table.groups() - 1), at_(static_cast<std::size_t>(hash) & last_) {}
    [[nodiscard]] std::size_t group() const noexcept { return at_; }
    [[nodiscard]] std::size_t passed() const noexcept { return step_; }
    /// Result: whether there is another.
    bool next() noexcept {
      if (step_ == last_) return false;
      at_ = (at_ + ++step_) & last_;
      return true;
    }

   private:
    std::size_t last_;
    std::size_t at_;
    std::size_t step_ = 0;
  };

  /// What one look at the first of them found.
  struct first_look {
    std::size_t group;
    slot_set likely;         ///< slots that may have the key
    overflow_marks further;  ///< of the keys that may stand in a later group
  };
  /// @param wanted  whether the entry is likely to be read then
  [[nodiscard, gnu::always_inline]] first_look look_first(std::uint64_t hash,
                                                          bool wanted) const noexcept {
    const std::size_t first = first_group(hash);
    if (wanted && log2() >= large_log2) prefetch_wish(first, hash);
    return look_at(first, hash);
  }

  // --- for the writer ----------------------------------------------------------------------------

  /// Calls match(slot) for slots that may have the key, until it answers true. Result: that slot's
  /// place, or none. Most keys are found, or not, in their first group: that is inlined.
  template <class Match>
  [[gnu::always_inline]] place find(std::uint64_t hash, const Match match) const {
    if (none()) return {};
    prefetch_wish(first_group(hash), hash);
    const first_look first = look_at(first_group(hash), hash);
    if (first.likely.empty()) {
      if (!first.further.tells(hash)) [[likely]]
        return {};
    } else {
      const place likely(first.group, first.likely.first());
      if (match(slot(likely))) [[likely]]
        return likely;
    }
    return find_further<Match>(*this, hash, match);
  }
  template <class Match>
  [[gnu::noinline]] static place find_further(const map_table in, std::uint64_t hash,
                                              const Match match) {
    return in.find_anywhere(hash, match);
  }
  /// The same for all groups, from the first. Of a table.
  template <class Match>
  [[gnu::always_inline]] place find_anywhere(std::uint64_t hash, const Match& match) const {
    walk at(*this, hash);
    do {
      const seen now = tags(at.group()).look();
      for (slot_set likely = now.matching(hash_parts::tag(hash)); !likely.empty();
           likely.drop_first()) {
        const place here(at.group(), likely.first());
        if (match(slot(here))) return here;
      }
      if (!now.overflow().tells(hash)) return {};
    } while (at.next());
    return {};
  }

  /// An empty slot of the first group for a key that is not there, or none.
  [[nodiscard, gnu::always_inline]] place claim_first(std::uint64_t hash) const noexcept {
    const std::size_t first = first_group(hash);
    const slot_set free = tags(first).look().empty();
    return free.empty() ? place() : place(first, free.prefer(wished(hash)).first());
  }
  /// An empty slot for a key that is not there; there must be one. Marks the groups it passes, and
  /// raises `longest_walk` to their number.
  [[nodiscard]] place claim(std::uint64_t hash, std::uint32_t& longest_walk) const noexcept {
    walk at(*this, hash);
    for (;;) {
      const slot_set free = tags(at.group()).look().empty();
      if (!free.empty()) {
        longest_walk = std::max(longest_walk, static_cast<std::uint32_t>(at.passed()));
        return place(at.group(), free.prefer(wished(hash)).first());
      }
      tags(at.group()).mark_overflow(hash);
      at.next();
    }
  }

  /// Gives the slot its tag, see I2.
  void show(place at, std::uint64_t hash) const noexcept {
    tags(at.group()).set(at.slot(), hash_parts::tag(hash));
  }
  /// Result: whether the slot is as good as new: no key had to pass its group for want of room.
  bool hide(place at, std::uint64_t hash) const noexcept {
    tags(at.group()).set(at.slot(), 0);
    return !tags(at.group()).look().overflow().tells(hash);
  }

  /// Calls each(place) for every slot in use.
  template <class Each>
  void for_each(const Each& each) const {
    if (none()) return;
    for (std::size_t i = 0; i < groups(); ++i) {
      for (slot_set used = tags(i).look().used(); !used.empty(); used.drop_first())
        each(place(i, used.first()));
    }
  }

 private:
  struct tags_alone {
    group_tags tags;
  };
  struct alignas(sync::repeatable ? alignof(Slot) : cache_line) tags_and_slots {
    group_tags tags;
    std::array<Slot, group_slots> slots{};
  };
  using group = std::conditional_t<Together, tags_and_slots, tags_alone>;

  [[nodiscard, gnu::always_inline]] first_look look_at(std::size_t index,
                                                       std::uint64_t hash) const noexcept {
    const seen now = tags(index).look();
    return {index, now.matching(hash_parts::tag(hash)), now.overflow()};
  }

  static constexpr std::uintptr_t mask = cache_line - 1;

  static constexpr std::size_t whole_lines(std::size_t size) noexcept {
    return (size + sizeof(line) - 1) / sizeof(line);
  }
  static constexpr std::size_t head_lines = whole_lines(sizeof(map_block));

  [[nodiscard]] static std::size_t lines(unsigned log2) noexcept {
    const std::size_t count = std::size_t{1} << log2;
    const std::size_t of_slots = Together ? 0 : sizeof(Slot) * stride * count;
    return head_lines + whole_lines(of_slots + sizeof(group) * count);
  }

  [[nodiscard]] unsigned char* behind_head() const noexcept {
    return reinterpret_cast<unsigned char*>(word_ & ~mask) + head_lines * sizeof(line);
  }
  [[nodiscard]] group* group_at(std::size_t index) const noexcept {
    const std::size_t of_slots = Together ? 0 : (sizeof(Slot) * stride) << log2();
    return reinterpret_cast<group*>(behind_head() + of_slots) + index;
  }
  /// The slots on the line of the one that the hash wishes for.
  [[nodiscard]] static slot_set wished(std::uint64_t hash) noexcept {
    if constexpr (Together || group_slots < 8) {
      return slot_set(~0U);
    } else {
      constexpr unsigned on_line = std::max<unsigned>(std::bit_floor(64 / sizeof(Slot)), 1);
      return slot_set(((1U << on_line) - 1) << (hash_parts::wish(hash) & ~(on_line - 1)));
    }
  }
  [[gnu::always_inline]] void prefetch_wish(std::size_t group_index,
                                            std::uint64_t hash) const noexcept {
    if constexpr (!Together) __builtin_prefetch(&slot(group_index, hash_parts::wish(hash)));
  }

  [[nodiscard]] Slot* first_slot() const noexcept { return reinterpret_cast<Slot*>(behind_head()); }

  std::uintptr_t word_ = 0;  // the block's address, which is a line's, and log2 of its groups
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
