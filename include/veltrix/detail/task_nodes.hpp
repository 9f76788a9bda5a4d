// Nodes of one cache line for the tasks in deques, made in slabs and used again and again.
// Use for: elastic_pool. Internal.
// Not for: freeing memory while the pool lives: what was once needed is kept.
// Threads: a cache is its worker's; the store from any thread.
// Progress: wait-free from the cache; a short lock for each 32 nodes beyond it.
// Callbacks: none.
// Exceptions: take() may throw std::bad_alloc and changes nothing then.
// Lifetime: nodes end with the store, which outlives the caches.
// Guide: docs/elastic_pool.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "config.hpp"
#include "sync.hpp"
#include "task.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// The link stands in the padding behind the task.
struct alignas(cache_line) task_node : task {
  task_node* next = nullptr;  // in the one list the node is in

  [[nodiscard]] task& work() noexcept { return *this; }
};

/// Empty nodes, last in, first out.
class free_nodes {
 public:
  [[nodiscard]] bool empty() const noexcept { return first_ == nullptr; }
  void push(task_node& added) noexcept {
    added.next = first_;
    first_ = &added;
  }
  /// There must be one.
  [[nodiscard]] task_node& pop() noexcept {
    task_node& taken = *first_;
    first_ = taken.next;
    return taken;
  }

 private:
  task_node* first_ = nullptr;
};

/// The nodes that no worker keeps.
class node_store {
 public:
  // Small where interleavings are explored, so that caches run dry and over.
  static constexpr std::size_t batch = sync::repeatable ? 2 : 32;

  /// Moves free nodes to the list: one at least, `batch` at most.
  /// @return how many
  std::size_t fetch(free_nodes& into) {
    const sync::lock_guard<sync::mutex> lock(mutex_);
    if (free_.empty()) make_slab();
    std::size_t moved = 0;
    for (; moved < batch && !free_.empty(); ++moved)
      into.push(free_.pop());
    return moved;
  }

  /// Takes `batch` nodes of the list, which holds as many.
  void give_back(free_nodes& from) noexcept {
    const sync::lock_guard<sync::mutex> lock(mutex_);
    for (std::size_t i = 0; i < batch; ++i)
      free_.push(from.pop());
  }

  /// One node for a thread without a cache.
  [[nodiscard]] task_node& take() {
    const sync::lock_guard<sync::mutex> lock(mutex_);
    if (free_.empty()) make_slab();
    return free_.pop();
  }

 private:
  void make_slab() {
    auto made = std::make_unique<task_node[]>(batch);
    slabs_.push_back(std::move(made));
    for (std::size_t i = 0; i < batch; ++i)
      free_.push(slabs_.back()[i]);
  }

  sync::mutex mutex_;                                // guards everything below
  free_nodes free_;                                  // guarded by mutex_
  std::vector<std::unique_ptr<task_node[]>> slabs_;  // guarded by mutex_
};

/// The free nodes of one worker.
class node_cache {
 public:
  [[nodiscard]] task_node& take(node_store& store) {
    if (free_.empty()) held_ = store.fetch(free_);
    --held_;
    return free_.pop();
  }

  /// An empty node, whichever worker took it.
  void give_back(task_node& spent, node_store& store) noexcept {
    free_.push(spent);
    if (++held_ < 2 * node_store::batch) return;
    store.give_back(free_);
    held_ -= node_store::batch;
  }

 private:
  free_nodes free_;
  std::size_t held_ = 0;  // nodes in free_
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
