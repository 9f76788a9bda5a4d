// A version of a snapshot_cell: the value, its number, and counted holds on it.
// Use for: the inside of snapshot_cell and of its notifier. Internal.
// Not for: anything else.
// Threads: a node from any thread that shows or holds it; a reference as a value.
// Progress: wait-free.
// Callbacks: ~T(), where the last hold ends.
// Exceptions: those of T's constructor; std::bad_alloc. share() loses nothing by one.
// Lifetime: a node lives while it is held; its value too, and while another version shows it.
// Guide: docs/snapshot_cell.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <utility>

#include "../reclaim.hpp"
#include "reader_record.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// Counts the values of a cell that were in force and are alive; ends with the last of them and the
/// cell. Those that come are counted by the cell alone, so a write needs no read-modify-write.
class value_census {
 public:
  /// By one thread at a time, while the cell is there.
  void enter() noexcept { entered_.store(++came_, sync::relaxed); }
  /// For `ended` values, at least one.
  void leave(std::int64_t ended) noexcept { subtract(ended); }
  /// The cell ends. By its thread.
  void close() noexcept { subtract(-came_); }

  /// Values alive, for the cell.
  [[nodiscard]] std::size_t alive() const noexcept {
    const std::int64_t ended = -balance_.load(sync::relaxed);  // first: so it is not too much
    return static_cast<std::size_t>(entered_.load(sync::relaxed) - ended);
  }

 private:
  /// While the cell is there, the balance is never above zero; after that it is the values alive.
  void subtract(std::int64_t ended) noexcept {
    // (1) acq_rel-sub; pairs with itself. Orders: all uses, before the end.
    if (balance_.fetch_sub(ended, sync::acq_rel) == ended) delete this;
  }

  std::int64_t came_ = 0;                  // the cell's
  sync::atomic<std::int64_t> entered_{0};  // relaxed: came_, for statistics
  sync::atomic<std::int64_t> balance_{0};  // relaxed: reads for statistics
};

/// I1: version_ and order_ are written once, before the node is in force; so is who counts its
///     value.
/// I2: holds_ counts the cell's own hold, the references, and the guards that found no slot. It
///     rises only through one who holds the node or shows it in a slot.
template <class T>
class snapshot_node : public reclaimable {
 public:
  [[nodiscard]] const T* value() const noexcept { return value_; }
  [[nodiscard]] std::uint64_t version() const noexcept { return version_; }
  void set_version(std::uint64_t version) noexcept { version_ = version; }
  /// Its place among the versions of its cell, see proven_garbage.hpp.
  [[nodiscard]] stamp order() const noexcept { return order_; }
  void set_order(stamp order) noexcept { order_ = order; }
  /// Has its value, if that is its own, counted from here on, as it comes into force.
  void enter(value_census& census) noexcept;

  /// By one who holds it or shows it, so that it does not end meanwhile.
  void hold() noexcept { holds_.fetch_add(1, sync::relaxed); }

  /// The next version of a history, guarded by that history's lock.
  [[nodiscard]] snapshot_node* newer() const noexcept { return newer_; }
  void set_newer(snapshot_node* node) noexcept { newer_ = node; }

  /// Ends a hold, and the node with the last one.
  static void release(snapshot_node* node) noexcept {
    // (2) acq_rel-sub; pairs with itself, with acquire-load (3). Orders: all uses, before the end.
    if (node->holds_.fetch_sub(1, sync::acq_rel) == 1) end(node);
  }

  /// Ends the cell's own hold, when no reader shows the node. Result: the memory of the value that
  /// ended with it, which the cell has to count as ended; or null.
  [[nodiscard]] static void* let_go(snapshot_node* node) noexcept {
    // (3) acquire-load; pairs with acq_rel-sub (2). The only hold: nobody can add one.
    if (node->holds_.load(sync::acquire) != 1) {
      release(node);
      return nullptr;
    }
    if (node->owner_ != node) {
      end(node);
      return nullptr;
    }
    auto* const last = static_cast<own_value*>(node);
    last->~own_value();
    return last;
  }

  /// A node with the value that `make()` returns, held once, in `memory` of take_memory() or in
  /// memory of its own.
  template <class Make>
  static snapshot_node* with_value(void* memory, Make& make) {
    struct holder {
      void* memory;
      ~holder() {
        if (memory != nullptr) give_back_memory(memory);
      }
    } held{memory != nullptr ? memory : take_memory()};
    auto* const made = ::new (held.memory) own_value(make);
    held.memory = nullptr;
    return made;
  }
  /// Bytes of a node with a value.
  static constexpr std::size_t bytes() noexcept { return sizeof(own_value); }
  static void give_back_memory(void* memory) noexcept {
    if constexpr (over_aligned()) {
      ::operator delete(memory, std::align_val_t(alignof(own_value)));
    } else {
      ::operator delete(memory);
    }
  }
  /// A node that shows the value of `kept`, held once; T is not copied. It holds the node that owns
  /// the value, so going back again and again makes no chain.
  static snapshot_node* showing(snapshot_node& kept) { return new others_value(*kept.owner_); }

 private:
  struct own_value;
  struct others_value;

  snapshot_node() noexcept = default;

  static constexpr bool over_aligned() noexcept {
    return alignof(own_value) > __STDCPP_DEFAULT_NEW_ALIGNMENT__;
  }
  static void* take_memory() {
    if constexpr (over_aligned()) {
      return ::operator new(sizeof(own_value), std::align_val_t(alignof(own_value)));
    } else {
      return ::operator new(sizeof(own_value));
    }
  }
  /// The last hold has ended.
  static void end(snapshot_node* node) noexcept;

  // What writers use, on a line that they keep while readers use the next ones.
  sync::atomic<std::size_t> holds_{1};  // relaxed: I2; who ends a hold has an order, see (2)
  sync::var<snapshot_node*> newer_{nullptr};
  snapshot_node* owner_ = this;         // of the value; constant once made
  value_census* counted_by_ = nullptr;  // of an own_value: constant once in force; null before

  alignas(cache_line) sync::var<const T*> value_{nullptr};  // constant once made
  sync::var<stamp> order_{no_stamp};                        // see I1
  sync::var<std::uint64_t> version_{};                      // see I1
};

template <class T>
struct snapshot_node<T>::own_value final : snapshot_node<T> {
  template <class Make>
  explicit own_value(Make& make) : value(make()) {
    this->value_ = std::addressof(value);
  }

  const T value;
};

template <class T>
struct snapshot_node<T>::others_value final : snapshot_node<T> {
  /// By one who holds a node that shows the value of `owner`, which therefore does not end.
  explicit others_value(snapshot_node& owner) {
    owner.hold();
    this->owner_ = &owner;
    this->value_ = owner.value();
  }
};

template <class T>
void snapshot_node<T>::end(snapshot_node* node) noexcept {
  if (snapshot_node* const held = node->owner_; held != node) {
    delete static_cast<others_value*>(node);
    release(held);
    return;
  }
  auto* const last = static_cast<own_value*>(node);
  value_census* const left = last->counted_by_;
  last->~own_value();
  give_back_memory(last);
  if (left != nullptr) left->leave(1);
}

template <class T>
void snapshot_node<T>::enter(value_census& census) noexcept {
  if (owner_ != this) return;
  census.enter();
  counted_by_ = &census;
}

/// Holds a version, or none.
template <class T>
class snapshot_ref {
 public:
  using node = snapshot_node<T>;

  snapshot_ref() noexcept = default;
  /// Takes over a hold.
  explicit snapshot_ref(node* held) noexcept : node_(held) {}
  /// A hold of its own.
  static snapshot_ref to(node& held) noexcept {
    held.hold();
    return snapshot_ref(&held);
  }
  snapshot_ref(const snapshot_ref& other) noexcept : node_(other.node_) {
    if (node_ != nullptr) node_->hold();
  }
  snapshot_ref(snapshot_ref&& other) noexcept : node_(std::exchange(other.node_, nullptr)) {}
  snapshot_ref& operator=(snapshot_ref other) noexcept {
    std::swap(node_, other.node_);
    return *this;
  }
  ~snapshot_ref() {
    if (node_ != nullptr) node::release(node_);
  }

  [[nodiscard]] explicit operator bool() const noexcept { return node_ != nullptr; }
  [[nodiscard]] node* get() const noexcept { return node_; }
  /// Null for none.
  [[nodiscard]] const T* value() const noexcept { return node_ ? node_->value() : nullptr; }
  /// 0 for none.
  [[nodiscard]] std::uint64_t version() const noexcept { return node_ ? node_->version() : 0; }

  /// Gives the hold away.
  node* take() noexcept { return std::exchange(node_, nullptr); }

  /// The hold as the standard's pointer, which may outlive the cell. Throws std::bad_alloc.
  [[nodiscard]] std::shared_ptr<const T> share() && {
    // By way of void: a T that is enable_shared_from_this must not be written to, by many at once.
    const T* const shown = value();
    const void* const of_no_type = shown;
    return {std::shared_ptr<const void>(of_no_type, keeper{std::move(*this)}), shown};
  }

 private:
  struct keeper {
    snapshot_ref held;
    void operator()(const void*) noexcept { held = snapshot_ref(); }
  };

  node* node_ = nullptr;
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
