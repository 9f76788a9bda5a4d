// A list that owns its nodes and links them through themselves: moving a node cannot fail.
// Use for: nothing directly; include veltrix/loading_cache.hpp. Internal.
// Not for: nodes that stand in two lists.
// Threads: one at a time.
// Progress: not synchronised; every operation is O(1) but the destructor.
// Callbacks: the destructor of a node.
// Exceptions: none.
// Lifetime: owns its nodes until take().
// Guide: docs/loading_cache.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <memory>

#include "config.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// What a node of a cache_list derives from.
template <class Node>
struct cache_links {
  Node* next = nullptr;
  Node* previous = nullptr;
};

/// I1: from front_ by `next` and from back_ by `previous` lie the same size_ nodes.
template <class Node>
class cache_list {
 public:
  cache_list() = default;
  cache_list(const cache_list&) = delete;
  cache_list& operator=(const cache_list&) = delete;
  ~cache_list() {
    while (front_ != nullptr)
      static_cast<void>(take(*front_));
  }

  void push_front(std::unique_ptr<Node> node) noexcept {
    Node* const added = node.release();
    added->next = front_;
    added->previous = nullptr;
    (front_ == nullptr ? back_ : front_->previous) = added;
    front_ = added;
    ++size_;
  }

  void push_back(std::unique_ptr<Node> node) noexcept {
    Node* const added = node.release();
    added->next = nullptr;
    added->previous = back_;
    (back_ == nullptr ? front_ : back_->next) = added;
    back_ = added;
    ++size_;
  }

  /// Takes `node`, which is in this list, out of it.
  std::unique_ptr<Node> take(Node& node) noexcept {
    (node.previous == nullptr ? front_ : node.previous->next) = node.next;
    (node.next == nullptr ? back_ : node.next->previous) = node.previous;
    --size_;
    return std::unique_ptr<Node>(&node);
  }

  void move_to_front(Node& node) noexcept {
    if (front_ != &node) push_front(take(node));
  }

  [[nodiscard]] Node* front() const noexcept { return front_; }
  [[nodiscard]] Node* back() const noexcept { return back_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }

 private:
  Node* front_ = nullptr;
  Node* back_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
