// A deque of pointers: its owner pushes and pops at one end, thieves take from the other.
// Use for: the tasks a worker posts to its own pool. Internal.
// Not for: several owners at once.
// Threads: push(), reserve(), pop() and position() by the owner; all else from any thread.
// Progress: owner: wait-free but for growth; a thief may lose to another, who has an element then.
// Callbacks: the question of steal_if(), which must not throw.
// Exceptions: reserve() may throw std::bad_alloc and changes nothing then.
// Lifetime: does not own what it points to; arrays outgrown are kept, for thieves that read them.
// Guide: docs/elastic_pool.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "config.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// D. Chase and Y. Lev's deque with the orders of N. M. Le, A. Pop, A. Cohen, F. Zappa Nardelli,
/// "Correct and efficient work-stealing for weak memory models" (2013). An empty pop has no fence.
///
/// I1: the elements are those at [top, bottom); top never falls; the owner alone writes bottom.
/// I2: the last element goes to whoever moves top past it, the owner too.
template <class Element>
class steal_deque {
 public:
  steal_deque() noexcept = default;
  steal_deque(const steal_deque&) = delete;
  steal_deque& operator=(const steal_deque&) = delete;
  ~steal_deque() {
    for (array* each = array_.load(sync::relaxed); each != nullptr;)  // relaxed: nobody is left
      delete std::exchange(each, each->older);
  }

  /// Makes room for one push().
  void reserve() {
    const std::int64_t bottom = bottom_.load(sync::relaxed);  // relaxed: the owner's own
    const std::int64_t top = top_.load(sync::relaxed);  // relaxed: an old top asks for more room
    array* const held = array_.load(sync::relaxed);     // relaxed: the owner's own
    if (held == nullptr || bottom - top > held->mask) grow(held, top, bottom);
  }

  /// Needs room: see reserve().
  void push(Element* added) noexcept {
    const std::int64_t bottom = bottom_.load(sync::relaxed);             // relaxed: the owner's own
    array_.load(sync::relaxed)->at(bottom).store(added, sync::relaxed);  // relaxed: the owner's own
    // (1) release-store; pairs with acquire-load (2). Publishes: the element and what it points to.
    bottom_.store(bottom + 1, sync::release);
  }

  /// The element pushed last; null: none.
  [[nodiscard]] Element* pop() noexcept {
    const std::int64_t last = bottom_.load(sync::relaxed) - 1;  // relaxed: the owner's own
    if (last < top_.load(sync::relaxed)) return nullptr;  // relaxed: it only grows, so it is empty
    array* const held = array_.load(sync::relaxed);       // relaxed: the owner's own
    // (3) release-store; pairs with acquire-load (2). Publishes: what (1) did, in its place.
    bottom_.store(last, sync::release);
    sync::full_fence();  // with that of steal(): both cannot miss that they want the same element
    std::int64_t top = top_.load(sync::relaxed);                // relaxed: ordered by the fence
    if (top < last) return held->at(last).load(sync::relaxed);  // relaxed: the owner's own
    Element* taken = nullptr;
    if (top == last) {
      taken = held->at(last).load(sync::relaxed);  // relaxed: the owner's own
      // (4) seq_cst-cas; pairs with seq_cst-cas (5). Forbids: the last element goes to both.
      if (!top_.compare_exchange_strong(top, top + 1, sync::seq_cst, sync::relaxed))
        taken = nullptr;
    }
    // (6) release-store; pairs with acquire-load (2). Publishes: what (1) did, in its place.
    bottom_.store(last + 1, sync::release);
    return taken;
  }

  /// The oldest element; null: none, or another took it at this moment. The owner may call it too.
  [[nodiscard]] Element* steal() noexcept {
    return steal_if([](std::int64_t) { return true; });
  }

  /// The same if `permitted(its position)`, asked after its push was seen. If the element of that
  /// position changes after that, nothing is taken.
  template <class Permitted>
  [[nodiscard]] Element* steal_if(Permitted permitted) noexcept {
    // (7) acquire-load; pairs with seq_cst-cas (5). Sees: the array in which that thief took.
    std::int64_t top = top_.load(sync::acquire);
    sync::full_fence();  // see pop()
    // (2) acquire-load; pairs with release-store (1), release-store (3), release-store (6). Sees:
    // the elements below it.
    if (top >= bottom_.load(sync::acquire)) return nullptr;
    // (8) acquire-load; pairs with release-store (9). Sees: the array's contents.
    Element* const taken = array_.load(sync::acquire)->at(top).load(sync::relaxed);  // relaxed: (5)
    if (!permitted(top)) return nullptr;
    // (5) seq_cst-cas; pairs with seq_cst-cas (4), acquire-load (7). Forbids: an element goes to
    // two.
    if (!top_.compare_exchange_strong(top, top + 1, sync::seq_cst, sync::relaxed)) return nullptr;
    return taken;
  }

  /// Where the next push() puts its element. For the owner.
  [[nodiscard]] std::int64_t position() const noexcept {
    return bottom_.load(sync::relaxed);  // relaxed: the owner's own
  }

  /// Whether the oldest element stands at `position` or above it. A glance.
  [[nodiscard]] bool begins_at_or_above(std::int64_t position) const noexcept {
    const std::int64_t top = top_.load(sync::relaxed);            // relaxed: a glance
    return top >= position && bottom_.load(sync::relaxed) > top;  // relaxed: a glance
  }

  /// What the owner knows of itself; a glance for others.
  [[nodiscard]] std::size_t size() const noexcept {
    const std::int64_t top = top_.load(sync::relaxed);        // relaxed: a glance
    const std::int64_t bottom = bottom_.load(sync::relaxed);  // relaxed: a glance
    return bottom > top ? static_cast<std::size_t>(bottom - top) : 0;
  }
  [[nodiscard]] bool empty() const noexcept { return size() == 0; }

 private:
  // Small where interleavings are explored, so that arrays are outgrown.
  static constexpr std::int64_t first_cells = sync::repeatable ? 2 : 64;

  struct array {
    array(std::int64_t cells, array* before)
        : mask(cells - 1),
          slots(new sync::atomic<Element*>[static_cast<std::size_t>(cells)]()),
          older(before) {}
    [[nodiscard]] sync::atomic<Element*>& at(std::int64_t position) const noexcept {
      return slots[static_cast<std::size_t>(position & mask)];
    }

    const std::int64_t mask;
    // relaxed: what is read before top is moved past it is used only if that succeeds
    const std::unique_ptr<sync::atomic<Element*>[]> slots;
    array* const older;  // outgrown; a thief may still read it
  };

  [[gnu::noinline]] void grow(array* held, std::int64_t top, std::int64_t bottom) {
    auto* const larger = new array(held == nullptr ? first_cells : 2 * (held->mask + 1), held);
    for (std::int64_t i = top; i < bottom; ++i)
      larger->at(i).store(held->at(i).load(sync::relaxed), sync::relaxed);  // relaxed: see (9)
    // (9) release-store; pairs with acquire-load (8). Publishes: the contents.
    array_.store(larger, sync::release);
  }

  alignas(cache_line) sync::atomic<std::int64_t> top_{0};
  alignas(cache_line) sync::atomic<std::int64_t> bottom_{0};
  sync::atomic<array*> array_{nullptr};  // the newest
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
