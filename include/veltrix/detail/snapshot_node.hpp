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
#include <utility>

#include "../reclaim.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// Counts the values of a cell that are alive; ends with the last of them and the cell.
class value_census {
 public:
  void enter() noexcept { holds_.fetch_add(1, sync::relaxed); }  // relaxed: the caller holds it
  static void leave(value_census* census) noexcept {
    // (1) acq_rel-sub; pairs with itself. Orders: all uses, before the end.
    if (census->holds_.fetch_sub(1, sync::acq_rel) == 1) delete census;
  }
  /// Values alive, for the cell, which holds it as well.
  [[nodiscard]] std::size_t alive() const noexcept { return holds_.load(sync::relaxed) - 1; }

 private:
  sync::atomic<std::size_t> holds_{1};  // relaxed reads: statistics only
};

/// I1: version_ is written once, before the node is in force.
/// I2: holds_ counts the cell's own hold, the references, and the guards that found no slot. It
///     rises only through one who holds the node or shows it in a slot.
template <class T>
class snapshot_node : public reclaimable {
 public:
  [[nodiscard]] const T* value() const noexcept { return value_; }
  [[nodiscard]] std::uint64_t version() const noexcept { return version_; }
  void set_version(std::uint64_t version) noexcept { version_ = version; }

  /// By one who holds it or shows it, so that it does not end meanwhile.
  void hold() noexcept { holds_.fetch_add(1, sync::relaxed); }

  /// The next version of a history, guarded by that history's lock.
  [[nodiscard]] snapshot_node* newer() const noexcept { return newer_; }
  void set_newer(snapshot_node* node) noexcept { newer_ = node; }

  /// Ends a hold, and the node with the last one.
  static void release(snapshot_node* node) noexcept {
    // (2) acq_rel-sub; pairs with itself, with acquire-load (3). Orders: all uses, before the end.
    if (node->holds_.fetch_sub(1, sync::acq_rel) == 1) node->end_(node);
  }

  /// Ends the cell's own hold, when no reader shows the node.
  struct let_go {
    void operator()(snapshot_node* node) const noexcept {
      // (3) acquire-load; pairs with acq_rel-sub (2). The only hold: nobody can add one.
      if (node->holds_.load(sync::acquire) == 1) {
        node->end_(node);
      } else {
        release(node);
      }
    }
  };

  /// A node with the value that `make()` returns, held once.
  template <class Make>
  static snapshot_node* with_value(value_census& census, Make& make) {
    return new own_value(census, make);
  }
  /// A node that shows the value of `kept`, held once; T is not copied. It holds the node that owns
  /// the value, so going back again and again makes no chain.
  static snapshot_node* showing(snapshot_node& kept) { return new others_value(*kept.owner_); }

 private:
  using end_function = void (*)(snapshot_node*) noexcept;
  explicit snapshot_node(end_function end) noexcept : end_(end) {}

  struct own_value;
  struct others_value;

  sync::var<const T*> value_{nullptr};  // constant once made
  sync::var<std::uint64_t> version_{};  // see I1
  sync::atomic<std::size_t> holds_{1};  // relaxed: I2; who ends a hold has an order, see (2)
  sync::var<snapshot_node*> newer_{nullptr};
  snapshot_node* owner_ = this;  // of the value; constant once made
  const end_function end_;
};

template <class T>
struct snapshot_node<T>::own_value final : snapshot_node<T> {
  template <class Make>
  own_value(value_census& census, Make& make)
      : snapshot_node([](snapshot_node* node) noexcept {
          value_census* const left = static_cast<own_value*>(node)->counted_by;
          delete static_cast<own_value*>(node);
          value_census::leave(left);
        }),
        counted_by(&census),
        value(make()) {
    census.enter();
    this->value_ = std::addressof(value);
  }

  value_census* const counted_by;
  const T value;
};

template <class T>
struct snapshot_node<T>::others_value final : snapshot_node<T> {
  /// By one who holds a node that shows the value of `owner`, which therefore does not end.
  explicit others_value(snapshot_node& owner)
      : snapshot_node([](snapshot_node* node) noexcept {
          snapshot_node* const held = node->owner_;
          delete static_cast<others_value*>(node);
          snapshot_node::release(held);
        }) {
    owner.hold();
    this->owner_ = &owner;
    this->value_ = owner.value();
  }
};

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
