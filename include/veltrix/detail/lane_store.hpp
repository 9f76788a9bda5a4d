// Items of one lane in order, in small nodes that are recycled: the storage of keyed_executor.
// Use for: queues that many threads append to and one at a time takes from. Internal.
// Not for: anything else.
// Threads: a lane's mutex guards its incoming chain; its current chain belongs to one visitor.
// Progress: a few steps per item; only make_node() allocates.
// Callbacks: Item's move constructor and destructor.
// Exceptions: none but std::bad_alloc from make_node().
// Lifetime: a node is owned by one chain or stock at a time.
// Guide: docs/keyed_executor.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <utility>
#include <vector>

#include "config.hpp"
#include "load_bound.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// About a kilobyte of items with their weights.
/// I1: items_at(begin) to items_at(end - 1) are alive; the rest is raw.
template <class Item>
struct lane_node {
  static constexpr std::size_t capacity =
      std::clamp<std::size_t>(960 / (sizeof(Item) + sizeof(std::size_t)), 4, 64);

  lane_node* next = nullptr;
  std::uint32_t begin = 0;
  std::uint32_t end = 0;
  std::size_t weights[capacity];
  alignas(Item) std::byte storage[capacity * sizeof(Item)];

  [[nodiscard]] std::size_t live() const noexcept { return end - begin; }
  [[nodiscard]] bool full() const noexcept { return end == capacity; }
  [[nodiscard]] Item* item_at(std::size_t index) noexcept {
    return std::launder(reinterpret_cast<Item*>(storage + index * sizeof(Item)));
  }
  void append(Item&& item, std::size_t weight) noexcept {
    ::new (static_cast<void*>(storage + end * sizeof(Item))) Item(std::move(item));
    weights[end++] = weight;
  }
};

/// An owning list of nodes.
template <class Item>
struct node_list {
  using node = lane_node<Item>;

  node* first = nullptr;

  node_list() = default;
  node_list(const node_list&) = delete;
  node_list& operator=(const node_list&) = delete;
  ~node_list() { clear(); }

  /// Ends the nodes; live items in them end too.
  void clear() noexcept {
    while (first != nullptr) {
      const std::unique_ptr<node> ending(pop());
      std::destroy(ending->item_at(ending->begin), ending->item_at(ending->begin) + ending->live());
    }
  }

  void push(node* added) noexcept {
    added->next = first;
    first = added;
  }
  [[nodiscard]] node* pop() noexcept {
    node* const popped = first;
    first = popped->next;
    popped->next = nullptr;
    return popped;
  }
};

/// Empty nodes, by pointer only: moving many of them from stock to stock touches none.
template <class Item>
class node_stock {
 public:
  using node = lane_node<Item>;

  node_stock() = default;
  node_stock(const node_stock&) = delete;
  node_stock& operator=(const node_stock&) = delete;
  ~node_stock() {
    for (node* each : nodes_)
      delete each;
  }

  [[nodiscard]] std::size_t size() const noexcept { return nodes_.size(); }
  /// Room for `nodes` without a later allocation.
  void reserve(std::size_t nodes) { nodes_.reserve(nodes); }
  /// Whether push() may be called: it never allocates.
  [[nodiscard]] bool has_room() const noexcept { return nodes_.size() != nodes_.capacity(); }
  void push(node* added) noexcept {
    VELTRIX_ASSERT(has_room(), "a node stock was filled above what was reserved");
    nodes_.push_back(added);
  }
  [[nodiscard]] node* pop() noexcept {
    VELTRIX_ASSERT(!nodes_.empty(), "a lane needs more nodes than were counted");
    node* const popped = nodes_.back();
    nodes_.pop_back();
    return popped;
  }
  /// Brings the stock towards `wanted` from `other`, as far as room was reserved.
  void take_from(node_stock& other, std::size_t wanted) noexcept {
    while (nodes_.size() < wanted && has_room() && !other.nodes_.empty())
      nodes_.push_back(other.pop());
  }
  /// Brings the stock to `wanted` with new nodes. Exceptions: std::bad_alloc; keeps what it has.
  void make(std::size_t wanted) {
    nodes_.reserve(wanted);
    while (nodes_.size() < wanted)
      nodes_.push_back(new node);
  }

 private:
  std::vector<node*> nodes_;  // owned, all empty
};

/// One lane. `scheduled` is true from the first item until a visitor leaves it empty.
template <class Item>
struct alignas(cache_line) lane {
  using node = lane_node<Item>;

  sync::mutex mutex;           // guards first, last, scheduled
  node* first = nullptr;       // incoming, oldest first
  node* last = nullptr;        // null exactly when first is
  bool scheduled = false;      // in the ready list, or being visited
  node* current = nullptr;     // the visitor's own: older than anything incoming
  lane* next_ready = nullptr;  // guarded by the mutex of the ready list

  lane() = default;
  lane(const lane&) = delete;
  lane& operator=(const lane&) = delete;
  ~lane() {
    node_list<Item> ending;
    ending.first = current;
    ending.clear();
    ending.first = first;
  }

  /// Appends under mutex. `spare` holds a node whenever the last one is full.
  void append(Item&& item, std::size_t weight, node_stock<Item>& spare) noexcept {
    if (last == nullptr || last->full()) {
      node* const fresh = spare.pop();
      fresh->begin = fresh->end = 0;
      (last == nullptr ? first : last->next) = fresh;
      last = fresh;
    }
    last->append(std::move(item), weight);
  }

  /// The visitor's first step: takes what came in when nothing older is left.
  void take_incoming() noexcept {
    if (current != nullptr) return;
    const sync::lock_guard<sync::mutex> lock(mutex);
    current = std::exchange(first, nullptr);
    last = nullptr;
  }

  /// The visitor's last step. Result: true if items are left, and the visitor must schedule the
  /// lane again; after false the lane may already be another's.
  [[nodiscard]] bool leave() noexcept {
    if (current != nullptr) return true;
    const sync::lock_guard<sync::mutex> lock(mutex);
    if (first != nullptr) return true;
    scheduled = false;
    return false;
  }
};

/// Raw room for one batch; a run brings it to join items that lie in several nodes.
template <class Item>
class batch_room {
 public:
  explicit batch_room(std::size_t capacity)
      : items_(std::allocator<Item>().allocate(capacity)), capacity_(capacity) {}
  batch_room(const batch_room&) = delete;
  batch_room& operator=(const batch_room&) = delete;
  ~batch_room() { std::allocator<Item>().deallocate(items_, capacity_); }

  [[nodiscard]] Item* data() noexcept { return items_; }
  [[nodiscard]] std::size_t capacity() const noexcept { return capacity_; }

  batch_room* next = nullptr;  // guarded by the mutex of the list of rooms

 private:
  Item* const items_;
  const std::size_t capacity_;
};

/// The oldest items of a lane's current chain, contiguous, with the weight of all of them.
template <class Item>
struct lane_batch {
  std::span<Item> items;
  std::size_t bytes = 0;
};

/// Takes up to `most` items off `from.current`. They stay alive, in their node or in `room`;
/// finish_batch() ends them. Emptied nodes go to `emptied`. Without `room` a batch ends where its
/// node does.
template <class Item>
[[nodiscard]] lane_batch<Item> take_batch(lane<Item>& from, std::size_t most,
                                          batch_room<Item>* room,
                                          node_list<Item>& emptied) noexcept {
  lane_batch<Item> batch;
  lane_node<Item>* node = from.current;
  if (node->live() >= most || node->next == nullptr || room == nullptr) {
    const std::size_t count = std::min(node->live(), most);
    batch.items = {node->item_at(node->begin), count};
    for (std::size_t i = 0; i < count; ++i)
      batch.bytes += node->weights[node->begin++];
    if (node->live() != 0) return batch;
    from.current = node->next;
    emptied.push(node);  // its items end in finish_batch()
    return batch;
  }
  Item* const target = room->data();
  std::size_t count = 0;
  while (node != nullptr && count < most) {
    for (; node->live() != 0 && count < most; ++count) {
      Item* const source = node->item_at(node->begin);
      std::construct_at(target + count, std::move(*source));
      std::destroy_at(source);
      batch.bytes += node->weights[node->begin++];
    }
    if (node->live() != 0) break;
    from.current = node->next;
    emptied.push(node);
    node = from.current;
  }
  batch.items = {target, count};
  return batch;
}

/// Ends the items of a batch.
template <class Item>
void finish_batch(const lane_batch<Item>& batch) noexcept {
  std::destroy(batch.items.begin(), batch.items.end());
}

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
