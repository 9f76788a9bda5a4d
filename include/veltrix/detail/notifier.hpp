// Tells callbacks of new versions: one at a time, in order, outside every lock.
// Use for: the subscriptions of snapshot_cell. Internal.
// Not for: queues; a version that a newer one overtakes is never told.
// Threads: all members may be called from any thread, also from inside a callback.
// Progress: a short lock; remove() waits for a running call of the one it removes.
// Callbacks: the subscribers and T's equality, no lock held.
// Exceptions: add() may throw std::bad_alloc; those of callbacks are caught and counted.
// Lifetime: shared by the cell and its subscriptions; ends with the last of them.
// Guide: docs/snapshot_cell.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "snapshot_node.hpp"
#include "sync.hpp"
#include "task.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// What a subscription needs of a notifier, whatever its values are.
class notifier_base {
 public:
  notifier_base() = default;
  notifier_base(const notifier_base&) = delete;
  notifier_base& operator=(const notifier_base&) = delete;
  virtual ~notifier_base() = default;

  /// After it the subscriber is not called. Waits for its running call, unless it is this thread's.
  virtual void remove(std::uint64_t id) noexcept = 0;
};

/// Keeps a callback registered; its end removes it. May outlive the cell.
class [[nodiscard]] subscription {
 public:
  subscription() noexcept = default;
  subscription(std::shared_ptr<notifier_base> notifier, std::uint64_t id) noexcept
      : notifier_(std::move(notifier)), id_(id) {}
  subscription(subscription&&) noexcept = default;
  subscription& operator=(subscription&& other) noexcept {
    if (this != &other) {
      reset();
      notifier_ = std::move(other.notifier_);
      id_ = other.id_;
    }
    return *this;
  }
  ~subscription() { reset(); }

  /// After it the callback is not called. Waits for a running call, unless called from inside it;
  /// so hold no lock that the callback takes. Blocking.
  void reset() noexcept {
    if (const auto left = std::exchange(notifier_, nullptr)) left->remove(id_);
  }

  [[nodiscard]] explicit operator bool() const noexcept { return notifier_ != nullptr; }

 private:
  std::shared_ptr<notifier_base> notifier_;  // null when nothing is registered
  std::uint64_t id_ = 0;
};

/// One thread at a time delivers (`delivering_`); others leave a mark (`pending_`) and go.
///
/// I1: subscribers_ is sorted by id, and a round calls them in that order.
/// I2: last_ is what the last round told, or what was in force when the first subscriber came.
/// I3: a subscriber in step has seen exactly last_.version(), so a round that finds no change skips
///     it. Others (they began from another version) are called for any version above theirs.
/// I4: who installs a version calls deliver() after it, so the newest version is always told.
///
/// `Same(a, b)` decides whether a value changed.
template <class T, class Same>
class notifier final : public notifier_base {
 public:
  using callback = unique_function<void(const T&, std::uint64_t)>;
  using held = snapshot_ref<T>;

  /// Registers `call` for versions above `seen`; no `seen` means the version in force.
  /// `newest()` gives that version; it is called under the lock and runs no user code.
  template <class Newest>
  std::uint64_t add(callback call, std::optional<std::uint64_t> seen, Newest newest) {
    auto added = std::make_shared<subscriber>(std::move(call));
    held replaced;  // ends after the lock: its destructor may be a user's
    const lock_guard lock(mutex_);
    subscribers_.push_back(added);  // nothing after it throws
    listed_.store(subscribers_.size(), sync::relaxed);
    // Read under the lock: a version installed later finds the new subscriber in its deliver().
    held now = newest();
    added->seen = seen.value_or(now.version());
    added->id = ++last_id_;
    if (subscribers_.size() == 1) replaced = std::exchange(last_, std::move(now));
    added->in_step = added->seen == last_.version();
    return last_id_;
  }

  void remove(std::uint64_t id) noexcept override {
    std::shared_ptr<subscriber> gone;  // these two end after the lock
    held unused;
    sync::unique_lock<sync::mutex> lock(mutex_);
    const auto found = after(id - 1);
    if (found == subscribers_.end() || (*found)->id != id) return;
    gone = std::move(*found);
    subscribers_.erase(found);
    listed_.store(subscribers_.size(), sync::relaxed);
    if (subscribers_.empty()) unused = std::exchange(last_, held());
    while (running_ == gone.get() && runner_ != sync::this_thread_id())
      finished_.wait(lock);  // woken by tell(), after running_ = nullptr
  }

  /// Lets the value told last go; for the end of the cell.
  void forget() noexcept {
    held unused;  // ends after the lock
    const lock_guard lock(mutex_);
    unused = std::exchange(last_, held());
  }

  /// Tells the subscribers of `newest()`, or leaves that to the thread that is telling them now.
  template <class Newest>
  void deliver(Newest newest) noexcept {
    {
      held unused;  // ends after the lock
      const lock_guard lock(mutex_);
      if (subscribers_.empty()) {
        unused = std::exchange(last_, held());
        return;
      }
      pending_ = true;
      if (delivering_) return;
      delivering_ = true;
    }
    while (begin_round()) {
      const held now = newest();
      if (!note_change(now)) continue;
      std::uint64_t told = 0;
      while (tell(told, now)) {}
    }
  }

  /// Whether nobody listens. For one who has put a version in force under the lock that newest()
  /// takes in add(): a newcomer whom this does not see yet will see that version there.
  [[nodiscard]] bool idle() const noexcept { return listed_.load(sync::relaxed) == 0; }

  /// Callbacks and comparisons that threw.
  [[nodiscard]] std::uint64_t failures() const noexcept { return failures_.load(sync::relaxed); }

  [[nodiscard]] std::size_t size() const noexcept { return listed_.load(sync::relaxed); }

 private:
  using lock_guard = sync::lock_guard<sync::mutex>;

  struct subscriber {
    explicit subscriber(callback called) : call(std::move(called)) {}

    callback call;           // called by one thread at a time: the one that delivers
    std::uint64_t id = 0;    // constant once listed
    std::uint64_t seen = 0;  // guarded by mutex_
    bool in_step = false;    // guarded by mutex_; see I3
  };

  auto after(std::uint64_t id) noexcept {
    return std::upper_bound(subscribers_.begin(), subscribers_.end(), id,
                            [](std::uint64_t wanted, const auto& one) { return wanted < one->id; });
  }

  bool begin_round() noexcept {
    const lock_guard lock(mutex_);
    delivering_ = std::exchange(pending_, false);
    return delivering_;
  }

  /// Makes `now` the value told last. Result: false if there is nobody to tell it to.
  bool note_change(const held& now) noexcept {
    held before;  // ends after the lock
    {
      const lock_guard lock(mutex_);
      before = last_;
    }
    const bool changed = differ(before, now);
    held replaced = now;  // ends after the lock
    const lock_guard lock(mutex_);
    // Meanwhile all may have gone, and others come who start from a newer version: their round is
    // still to come.
    if (subscribers_.empty() || last_.version() > now.version()) return false;
    changed_ = changed;
    std::swap(last_, replaced);
    return true;
  }

  bool differ(const held& before, const held& now) noexcept {
    if (before.value() == now.value()) return false;
    if (!before) return true;
    VELTRIX_TRY {
      return !Same{}(*before.value(), *now.value());
    }
    VELTRIX_CATCH_ALL {
      failures_.fetch_add(1, sync::relaxed);
      return true;
    }
  }

  /// Calls the first subscriber after `told` that has news to hear. Result: false at the end.
  bool tell(std::uint64_t& told, const held& now) noexcept {
    std::shared_ptr<subscriber> next;  // ends unlocked: a removed callback is destroyed here
    {
      const lock_guard lock(mutex_);
      auto found = after(told);
      while (found != subscribers_.end() && !needs(**found, now.version()))
        ++found;
      if (found == subscribers_.end()) return false;
      next = *found;
      told = next->id;
      running_ = next.get();
      runner_ = sync::this_thread_id();
    }
    VELTRIX_TRY {
      next->call(*now.value(), now.version());
    }
    VELTRIX_CATCH_ALL {
      failures_.fetch_add(1, sync::relaxed);
    }
    const lock_guard lock(mutex_);
    running_ = nullptr;
    finished_.notify_all();
    return true;
  }

  /// Brings `one` in step with `version`. Result: whether it must be called for that.
  bool needs(subscriber& one, std::uint64_t version) const noexcept {
    if (one.seen > version) return false;
    const bool news = one.seen < version && (changed_ || !one.in_step);
    one.seen = version;
    one.in_step = true;
    return news;
  }

  mutable sync::mutex mutex_;                             // guards everything below but failures_
  sync::condition_variable finished_;                     // running_ became null
  std::vector<std::shared_ptr<subscriber>> subscribers_;  // sorted by id
  held last_;                                             // the value told last
  bool changed_ = false;  // last_ differs from the value told before it
  std::uint64_t last_id_ = 0;
  bool delivering_ = false;                  // a thread is inside deliver()'s loop
  bool pending_ = false;                     // that thread has another round to do
  const subscriber* running_ = nullptr;      // whose call is running
  sync::thread_id runner_;                   // in which thread; meaningful while running_
  sync::atomic<std::size_t> listed_{0};      // subscribers_.size(); relaxed: see idle()
  sync::atomic<std::uint64_t> failures_{0};  // relaxed: statistics only
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
