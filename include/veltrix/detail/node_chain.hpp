// Nodes in a row, each owned by the one chain that it is in.
// Use for: the items of bounded_queue. Internal.
// Not for: looking anywhere but at the first.
// Threads: one at a time; the owner of a chain guards it.
// Progress: O(1) but for the end of a chain.
// Callbacks: T's destructor, where nodes end.
// Exceptions: append_new() may throw std::bad_alloc and changes nothing then.
// Lifetime: owns its nodes and what is in them.
// Guide: docs/bounded_queue.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <optional>

#include "config.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// I1: first_ and last_ are null exactly when size_ is 0; the last node's `next` is null.
template <class T>
class node_chain {
 public:
  struct node {
    node* next = nullptr;
    std::size_t bytes = 0;
    std::optional<T> item;
  };

  node_chain() = default;
  node_chain(const node_chain&) = delete;
  node_chain& operator=(const node_chain&) = delete;
  ~node_chain() {
    while (!empty())
      delete pop();
  }

  [[nodiscard]] bool empty() const noexcept { return first_ == nullptr; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  /// There must be one, as for move_front().
  [[nodiscard]] node& front() noexcept { return *first_; }
  [[nodiscard]] const node& front() const noexcept { return *first_; }

  void append_new() { append(new node); }

  /// Moves the first node to the end of another chain.
  void move_front(node_chain& into) noexcept { into.append(pop()); }

 private:
  void append(node* added) noexcept {
    added->next = nullptr;
    (first_ == nullptr ? first_ : last_->next) = added;
    last_ = added;
    ++size_;
  }
  [[nodiscard]] node* pop() noexcept {
    node* const popped = first_;
    first_ = popped->next;
    if (first_ == nullptr) last_ = nullptr;
    --size_;
    return popped;
  }

  node* first_ = nullptr;
  node* last_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
