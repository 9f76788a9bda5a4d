// What a thread, or a reader object, shows of what it reads: hazard slots on a line of its own.
// Use for: the inside of reclaim.hpp. Internal.
// Not for: anything else.
// Threads: a record belongs to one thread at a time; any thread may clear a slot, and scan all.
// Progress: claiming looks at every record once; all else is wait-free.
// Callbacks: none.
// Exceptions: none.
// Lifetime: records are never freed while their registry lives; one is used again after its owner.
// Guide: docs/reclaim.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

#include "config.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// Who uses a record.
enum class record_owner : std::uint32_t { nobody, a_thread, an_object };

/// A place in the order in which the objects of one structure came into force. A structure's stamps
/// grow, and no two structures of a domain have one in common.
using stamp = std::uint64_t;
/// Of what has no place in such an order; below all others.
inline constexpr stamp no_stamp = 0;

/// `Lasting` slots that hold `free`, and then others that hold null.
template <std::size_t Lasting, std::size_t... Index>
constexpr std::array<sync::atomic<const void*>, sizeof...(Index)> free_slots(
    const void* free, std::index_sequence<Index...>) noexcept {
  return {sync::atomic<const void*>(Index < Lasting ? free : nullptr)...};
}

/// A free slot holds null or, where a compiler barrier is fence enough for a reader, the address of
/// its domain: one comparison says that a slot is free, needs no fence, and is of that domain.
///
/// I1: only the owner writes a pointer into a slot, and only into a free one; whoever holds what is
///     shown there clears it, be it another thread.
/// I2: a record is claimed only while all its slots are free. A guard that outlives the thread it
///     was made in keeps that thread's record out of use, and what it shows stays protected.
/// I3: `reached` is the stamp of an object that an owner of the record found in force; all that the
///     record shows from then on was found in force no earlier. See proven_garbage.hpp.
struct alignas(cache_line) reader_record {
  using slot = sync::atomic<const void*>;

  /// The last one is for moments within a function, so it is always free; fewer under the explorer.
  static constexpr std::size_t slots = sync::repeatable ? 3 : 5;
  static constexpr std::size_t lasting_slots = slots - 1;

  constexpr reader_record() noexcept = default;
  /// @param free  what its lasting slots hold
  constexpr explicit reader_record(const void* free) noexcept
      : shown(free_slots<lasting_slots>(free, std::make_index_sequence<slots>())) {}

  sync::atomic<stamp> reached{no_stamp};  // owner writes, see I3
  std::array<slot, slots> shown{};
  const void* last = nullptr;  // owner only, for note()

  alignas(cache_line) sync::atomic<record_owner> owner{record_owner::nobody};
  sync::atomic<long> thread{0};        // relaxed: for statistics and forks; the kernel's number
  const void* registry = nullptr;      // owner only
  reader_record* of_thread = nullptr;  // owner only: the thread's next record, of another registry
  reader_record* next = nullptr;       // constant once listed

  /// A slot that a guard may keep for long; null when all are in use.
  [[nodiscard]] slot* lasting() noexcept {
    for (std::size_t i = 0; i < lasting_slots; ++i) {
      if (is_free(shown[i], registry)) return &shown[i];
    }
    return nullptr;
  }
  [[nodiscard]] slot& momentary() noexcept { return shown[lasting_slots]; }

  /// The owner shows `found` for good. `before` is what it found the last time, so that finding the
  /// same again costs a comparison; another object at that address costs no more than a late stamp.
  template <class Node>
  [[gnu::always_inline]] void note(const Node& found, const void*& before) noexcept {
    if (before == &found) [[likely]]
      return;
    before = &found;
    // (6) release-store; pairs with acquire-load of reclaim_domain.hpp (12). Publishes: what the
    // record showed before.
    reached.store(found.order(), sync::release);
  }

  /// @param free  what the slot holds from here on: reclaim_domain::free_word(), or null, after
  ///   which a reader takes the long way to that slot
  static void clear(slot& used, const void* free = nullptr) noexcept {
    // (2) release-store; pairs with acquire-load (1), acquire-load of reclaim_domain.hpp (3).
    // Publishes: that the holder has done with what the slot showed.
    used.store(free, sync::release);
  }

  /// What `asked` shows; null or its domain if it is free.
  [[nodiscard]] static const void* look(const slot& asked) noexcept {
    // (1) acquire-load; pairs with release-store (2). Orders: what the last holder did with the
    // pointer, before the slot is seen to be free and shows another one.
    return asked.load(sync::acquire);
  }
  [[nodiscard]] static bool is_free(const slot& asked, const void* domain) noexcept {
    const void* const seen = look(asked);
    return seen == nullptr || seen == domain;
  }
  /// Whether a guard may use `asked` and needs no fence, if it is a lasting slot of `domain`; no
  /// slot of another is.
  [[nodiscard]] static bool is_quick(const slot& asked, const void* domain) noexcept {
    return look(asked) == domain;
  }
  [[nodiscard]] bool unused(const void* domain) const noexcept {
    for (const slot& each : shown) {
      if (!is_free(each, domain)) return false;
    }
    return true;
  }

  /// @param domain  whose record it is
  [[nodiscard]] bool claim(record_owner by, const void* domain) noexcept {
    // relaxed: a glance; (4) decides
    if (owner.load(sync::relaxed) != record_owner::nobody || !unused(domain)) return false;
    record_owner free = record_owner::nobody;
    // (4) acquire-cas; pairs with release-store (5). Sees: what the last owner left behind.
    if (!owner.compare_exchange_strong(free, by, sync::acquire, sync::relaxed)) return false;
    if (!unused(domain)) {  // meanwhile it had another owner, who left a guard behind
      give_back();
      return false;
    }
    thread.store(sync::this_thread_number(), sync::relaxed);
    return true;
  }

  void give_back() noexcept {
    // (5) release-store; pairs with acquire-cas (4), acquire-load of reclaim_domain.hpp (11).
    // Publishes: the record as its owner leaves it.
    owner.store(record_owner::nobody, sync::release);
  }
};

/// So many records whose slots are free, see above.
template <std::size_t... Index>
constexpr std::array<reader_record, sizeof...(Index)> free_records(
    const void* free, std::index_sequence<Index...>) noexcept {
  return {(static_cast<void>(Index), reader_record(free))...};
}

/// Stands for the record of a thread that has none.
inline reader_record no_record{};

/// What a thread's last look-ups in maps came to, so that the next one asks for the entry ahead of
/// the tags only if it is likely to want it: for one that finds nothing that would be a line read
/// for nothing. A guess, of which nothing but time depends.
class look_habit {
 public:
  [[nodiscard]] bool expects_to_find() const noexcept { return in_vain_ < few; }
  void found() noexcept {
    if (in_vain_ != 0) [[unlikely]]
      in_vain_ = 0;
  }
  void missed() noexcept {
    if (in_vain_ < few) ++in_vain_;
  }

 private:
  static constexpr std::uint32_t few = 4;
  std::uint32_t in_vain_ = 0;  // in a row
};

/// Where the calling thread finds its records. Without a destructor, so that it can be asked until
/// the thread is gone.
struct reader_place {
  reader_record* recent = &no_record;  // the one used last
  reader_record* owned = nullptr;      // all of them, by of_thread
  look_habit habit{};

  [[nodiscard]] static reader_place& mine() noexcept { return sync::per_thread<reader_place>(); }

  /// At the end of the thread: its records are for others.
  static void leave() noexcept {
    reader_place& place = mine();
    place.recent = &no_record;
    while (place.owned != nullptr) {
      reader_record& each = *place.owned;
      place.owned = each.of_thread;
      each.give_back();
    }
  }
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
