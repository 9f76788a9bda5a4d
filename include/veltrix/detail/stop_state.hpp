// stop_source, stop_token and stop_callback for standard libraries that lack them (libc++ 19).
// Use for: nothing directly; include veltrix/stop_token.hpp. Internal.
// Not for: libraries that have std::stop_token.
// Threads: all members may be called from any thread.
// Progress: stop_requested() is wait-free; the rest takes the state's mutex for a few steps.
// Callbacks: run by request_stop() in its thread, one after another, no lock held.
// Exceptions: stop_source() may throw std::bad_alloc; a throwing callback terminates.
// Lifetime: the shared state lives as long as the last source, token or callback.
// Guide: docs/stop_token.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <memory>
#include <type_traits>
#include <utility>

#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// A registered callback; a node of stop_state's list.
class stop_node {
 public:
  stop_node() = default;
  stop_node(const stop_node&) = delete;
  stop_node& operator=(const stop_node&) = delete;
  virtual void run() noexcept = 0;

 protected:
  ~stop_node() = default;

 private:
  friend class stop_state;
  sync::var<stop_node*> next_ = nullptr;      // guarded by stop_state::mutex_
  sync::var<stop_node*> previous_ = nullptr;  // guarded by stop_state::mutex_
  sync::var<bool> listed_ = false;            // guarded by stop_state::mutex_
};

/// What a source, its tokens and its callbacks share.
class stop_state {
 public:
  /// Wait-free.
  bool requested() const noexcept {
    // (1) acquire-load; pairs with release-store (2).
    return requested_.load(sync::acquire);
  }

  /// Whether a request was made or can still be: by a source that lives.
  bool possible() const noexcept { return requested() || sources_.load(sync::relaxed) != 0; }

  void count_source() noexcept { sources_.fetch_add(1, sync::relaxed); }
  void discount_source() noexcept { sources_.fetch_sub(1, sync::relaxed); }

  /// Runs every registered callback. The caller keeps this state alive: a callback may end the last
  /// source and token. Result: true for the call that made the request.
  bool request() noexcept {
    sync::unique_lock<sync::mutex> lock(mutex_);
    if (requested_.load(sync::relaxed)) return false;  // relaxed: mutex_ is held
    // (2) release-store; pairs with acquire-load (1). Publishes: what the requester did before.
    requested_.store(true, sync::release);
    requester_ = sync::this_thread_id();
    while (first_ != nullptr) {
      stop_node* const node = first_;
      unlink(*node);
      running_ = node;
      lock.unlock();
      node->run();  // may destroy the node
      lock.lock();
      running_ = nullptr;
      finished_.notify_all();
    }
    return true;
  }

  /// Result: false if the stop was requested before, and the callback must run at once.
  bool add(stop_node& node) noexcept {
    const sync::lock_guard<sync::mutex> lock(mutex_);
    if (requested_.load(sync::relaxed)) return false;  // relaxed: mutex_ is held
    node.next_ = first_;
    if (first_ != nullptr) first_->previous_ = &node;
    first_ = &node;
    node.listed_ = true;
    return true;
  }

  /// After it the callback neither runs nor will run, unless it is this thread that runs it.
  void remove(stop_node& node) noexcept {
    sync::unique_lock<sync::mutex> lock(mutex_);
    if (node.listed_) {
      unlink(node);
      return;
    }
    if (requester_ == sync::this_thread_id()) return;
    while (running_ == &node)
      finished_.wait(lock);  // woken by request(), after running_ = nullptr
  }

 private:
  void unlink(stop_node& node) noexcept {
    if (node.previous_ != nullptr) node.previous_->next_ = node.next_;
    if (node.next_ != nullptr) node.next_->previous_ = node.previous_;
    if (first_ == &node) first_ = node.next_;
    node.next_ = nullptr;
    node.previous_ = nullptr;
    node.listed_ = false;
  }

  sync::mutex mutex_;  // guards the list, running_, requester_ and the write of requested_
  sync::condition_variable finished_;  // a callback has returned
  sync::atomic<bool> requested_{false};
  sync::atomic<std::size_t> sources_{0};           // relaxed: nothing is read through the number
  sync::var<stop_node*> first_ = nullptr;          // guarded by mutex_
  sync::var<const stop_node*> running_ = nullptr;  // guarded by mutex_
  sync::var<sync::thread_id> requester_;           // guarded by mutex_
};

/// What stop_token.hpp names where the standard has nothing to name.
namespace own_stop {

template <class Callback>
class stop_callback;

/// Sees a request made through its source. A default token never stops.
class stop_token {
 public:
  stop_token() noexcept = default;

  [[nodiscard]] bool stop_requested() const noexcept { return state_ && state_->requested(); }
  [[nodiscard]] bool stop_possible() const noexcept { return state_ && state_->possible(); }

  friend bool operator==(const stop_token& a, const stop_token& b) noexcept {
    return a.state_ == b.state_;
  }

 private:
  friend class stop_source;
  template <class>
  friend class stop_callback;
  explicit stop_token(std::shared_ptr<detail::stop_state> state) noexcept
      : state_(std::move(state)) {}

  std::shared_ptr<detail::stop_state> state_;  // constant after construction
};

/// Makes the request.
class stop_source {
 public:
  stop_source() : state_(std::make_shared<detail::stop_state>()) { state_->count_source(); }
  stop_source(const stop_source& other) noexcept : state_(other.state_) {
    if (state_) state_->count_source();
  }
  stop_source(stop_source&& other) noexcept = default;
  stop_source& operator=(stop_source other) noexcept {
    state_.swap(other.state_);
    return *this;
  }
  ~stop_source() {
    if (state_) state_->discount_source();
  }

  /// Result: true for the call that made the request.
  bool request_stop() const noexcept {
    const std::shared_ptr<detail::stop_state> kept = state_;  // a callback may end this source
    return kept && kept->request();
  }
  [[nodiscard]] bool stop_requested() const noexcept { return state_ && state_->requested(); }
  [[nodiscard]] bool stop_possible() const noexcept { return state_ != nullptr; }
  [[nodiscard]] stop_token get_token() const noexcept { return stop_token(state_); }

  friend bool operator==(const stop_source& a, const stop_source& b) noexcept {
    return a.state_ == b.state_;
  }

 private:
  std::shared_ptr<detail::stop_state> state_;  // null after a move
};

/// Runs `Callback` when the token's source requests a stop, or at once if it has.
template <class Callback>
class stop_callback final : private detail::stop_node {
 public:
  using callback_type = Callback;

  template <class Initializer>
    requires std::is_constructible_v<Callback, Initializer>
  explicit stop_callback(const stop_token& token, Initializer&& callback)
      : callback_(std::forward<Initializer>(callback)), state_(token.state_) {
    if (state_ && !state_->add(*this)) {
      state_.reset();
      run();
    }
  }
  ~stop_callback() {
    if (state_) state_->remove(*this);
  }

 private:
  void run() noexcept override { callback_(); }

  Callback callback_;
  std::shared_ptr<detail::stop_state> state_;  // null once there is nothing to remove
};

template <class Callback>
stop_callback(stop_token, Callback) -> stop_callback<Callback>;

}  // namespace own_stop
}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
