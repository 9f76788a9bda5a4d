// Memory of ended nodes for the next ones: what is freed late is in no cache of the allocator.
// Use for: the inside of snapshot_store. Internal.
// Not for: nodes of several sizes.
// Threads: take() from any thread; the rest under the owner's lock.
// Progress: wait-free.
// Callbacks: none.
// Exceptions: none.
// Lifetime: the owner takes everything out before the end.
// Guide: docs/snapshot_cell.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <new>
#include <utility>

#include "config.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// Pieces of memory, linked through their first bytes. Its end gives them back, by
/// Node::give_back_memory(void*).
template <class Node>
class memory_chain {
 public:
  memory_chain() noexcept = default;
  memory_chain(memory_chain&& other) noexcept
      : first_(std::exchange(other.first_, nullptr)), length_(std::exchange(other.length_, 0)) {}
  memory_chain& operator=(memory_chain&& other) noexcept {
    std::swap(first_, other.first_);
    std::swap(length_, other.length_);
    return *this;
  }
  ~memory_chain() {
    while (first_ != nullptr)
      Node::give_back_memory(pop());
  }

  [[nodiscard]] std::size_t length() const noexcept { return length_; }
  [[nodiscard]] bool empty() const noexcept { return first_ == nullptr; }

  void push(void* memory) noexcept {
    first_ = ::new (memory) piece{first_};
    ++length_;
  }
  /// Asks for the lines of the piece that pop() gives next, but for the first: the next user of the
  /// memory writes them, and readers of the last one have them.
  void ask_for_next() const noexcept {
    const auto* const memory = reinterpret_cast<const unsigned char*>(first_);
    if (memory == nullptr) return;
    const std::size_t end = std::min(Node::bytes(), 4 * cache_line);
    for (std::size_t at = cache_line; at < end; at += cache_line)
      __builtin_prefetch(memory + at, 1);
  }
  /// Not of an empty one.
  [[nodiscard]] void* pop() noexcept {
    --length_;
    return std::exchange(first_, first_->next);
  }

 private:
  struct piece {
    piece* next;
  };
  piece* first_ = nullptr;
  std::size_t length_ = 0;
};

/// One piece lies ready for whoever builds a node with no lock held; the others wait for the lock.
template <class Node>
class spare_memory {
 public:
  using chain = memory_chain<Node>;

  /// So many pieces are kept at most, and so many bytes; none where AddressSanitizer shall see who
  /// uses a node after its end.
  static constexpr std::size_t most_pieces = VELTRIX_ASAN ? 0 : 64;
  static constexpr std::size_t most_bytes = 16384;
  [[nodiscard]] static constexpr std::size_t most() noexcept {
    return std::min(most_pieces, most_bytes / Node::bytes());
  }

  /// From any thread. Result: memory of Node::bytes(), or null.
  [[nodiscard]] void* take() noexcept {
    // (1) acquire-exchange; pairs with release-store (2). Sees: the memory as its last user leaves
    // it.
    return ready_.exchange(nullptr, sync::acquire);
  }

  /// Lays a piece ready where there is none. Under the lock, as the next ones.
  void lay_ready() noexcept {
    // relaxed: only who has the lock puts something there
    if (kept_.empty() || ready_.load(sync::relaxed) != nullptr) return;
    // (2) release-store; pairs with acquire-exchange (1). Publishes: the memory.
    ready_.store(kept_.pop(), sync::release);
    kept_.ask_for_next();
  }
  /// Keeps of `ended` what has a place.
  void keep(chain& ended) noexcept {
    while (!ended.empty() && kept_.length() < most())
      kept_.push(ended.pop());
  }
  /// Everything, for the caller to give back outside the lock.
  [[nodiscard]] chain take_all() noexcept {
    chain all = std::exchange(kept_, chain());
    if (void* const one = take()) all.push(one);
    return all;
  }

 private:
  sync::atomic<void*> ready_{nullptr};
  chain kept_;
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
