// Connections kept for the next call: few, not too old, alive, and to hosts that are left.
// Use for: clients of one protocol to the endpoints of a service.
// Not for: many calls over one connection; share that connection instead.
// Threads: all members may be called from any thread; a lease belongs to one at a time.
// Progress: a short lock; acquire() blocks while all connections of a host are in use.
// Callbacks: open, alive, ~Connection(): no lock held.
// Exceptions: std::invalid_argument on bad options; what open throws, and nothing is held then.
// Lifetime: the pool outlives its leases.
// Guide: docs/connection_pool.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "clock.hpp"
#include "detail/option_check.hpp"
#include "detail/stoppable_wait.hpp"
#include "detail/sync.hpp"
#include "stop_token.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// Bounds of a connection_pool.
struct connection_pool_options {
  std::uint32_t per_host = 50;  ///< connections to a host, idle ones included; 1 to 100,000
  std::uint32_t waiters = 100;  ///< threads that may wait for a host; 0 to 100,000
  duration idle = std::chrono::seconds(10);     ///< kept unused for this; 1 ms to 24 h
  duration max_age = std::chrono::seconds(60);  ///< reused until this old; 1 ms to 24 h
};

/// @tparam Open   `open(const Host&)` gives a std::optional<Connection> or its like; empty: refused
/// @tparam Alive  `alive(Connection&)` tells whether an idle connection may be used again
///
/// I1: of each host, opening + in use + idle <= per_host.
/// I2: no connection opened before the host last left the set is handed out after it.
template <class Host, class Connection, class Open, class Alive>
class connection_pool {
  struct kept {
    Connection connection;
    time_point opened;
    std::uint64_t generation;
  };
  struct idler {
    kept what;
    time_point since;
  };
  struct slot {
    std::deque<idler> idle{};            // the one used last stands last
    std::multiset<time_point> in_use{};  // since when; those being opened included
    std::uint32_t waiting = 0;
    std::uint64_t generation = 0;  // grows when the host leaves the set
    bool gone = false;             // it is not in the set
  };

 public:
  /// A connection in use. Its end gives it back.
  class [[nodiscard]] lease {
   public:
    lease() noexcept = default;
    lease(lease&& other) noexcept
        : pool_(std::exchange(other.pool_, nullptr)),
          host_(std::move(other.host_)),
          held_(std::move(other.held_)),
          since_(other.since_),
          broken_(other.broken_) {}
    lease& operator=(lease&& other) noexcept {
      if (this != &other) {
        give_back(no_deadline);
        pool_ = std::exchange(other.pool_, nullptr);
        host_ = std::move(other.host_);
        held_ = std::move(other.held_);
        since_ = other.since_;
        broken_ = other.broken_;
      }
      return *this;
    }
    ~lease() { give_back(no_deadline); }

    [[nodiscard]] explicit operator bool() const noexcept { return pool_ != nullptr; }
    [[nodiscard]] Connection& operator*() noexcept { return held_->connection; }
    [[nodiscard]] Connection* operator->() noexcept { return &held_->connection; }
    /// It is not to be used again: a call failed on it.
    void discard() noexcept { broken_ = true; }
    /// Gives it back at `now`. The destructor knows no time, and counts its idle time from the
    /// next sweep.
    void give_back(time_point now) noexcept {
      if (pool_ == nullptr) return;
      std::exchange(pool_, nullptr)->returned(*host_, std::move(held_), {since_, now, broken_});
    }

   private:
    friend class connection_pool;
    connection_pool* pool_ = nullptr;  // null: nothing is held
    std::optional<Host> host_;
    std::optional<kept> held_;
    time_point since_{};
    bool broken_ = false;
  };

  /// The answer to acquire().
  struct [[nodiscard]] answer {
    lease held{};
    std::string why{};  ///< empty when held: "pool of 50 in use, oldest 3.2 s"

    [[nodiscard]] explicit operator bool() const noexcept { return static_cast<bool>(held); }
  };

  /// Throws std::invalid_argument when an option is out of its bounds.
  connection_pool(connection_pool_options options, Open open, Alive alive)
      : options_(checked(options)), open_(std::move(open)), alive_(std::move(alive)) {}
  connection_pool(const connection_pool&) = delete;
  connection_pool& operator=(const connection_pool&) = delete;
  ~connection_pool() {
    const lock_guard lock(mutex_);
    for ([[maybe_unused]] const auto& each : slots_) {
      VELTRIX_ASSERT(each.second.in_use.empty(), "a connection_pool ended under a lease");
      VELTRIX_ASSERT(each.second.waiting == 0, "a connection_pool ended under a waiter");
    }
  }

  /// A connection to `host`, idle or new, without waiting.
  [[nodiscard]] answer try_acquire(const Host& host, time_point now) {
    for (;;) {
      std::vector<kept> ending;  // outside the lock
      std::optional<kept> found;
      answer told;
      told.held.host_ = host;  // before anything is counted: a copy may throw
      {
        const lock_guard lock(mutex_);
        slot& one = slot_of(host);
        if (one.gone) return {{}, not_in_set};
        found = take_idle(one, now, ending);
        if (!found && !room_in(one)) return {{}, full(one, now)};
        one.in_use.insert(now);
      }
      occupy(told.held, now);
      if (!found) return opened(std::move(told), host, now);
      told.held.held_ = std::move(found);
      if (!alive_(*told.held)) {
        told.held.discard();
        continue;
      }
      // It may have left while the connection was tested.
      if (generation_of(host) != told.held.held_->generation) return {{}, not_in_set};
      return told;
    }
  }

  /// How long to wait, and who may end it.
  struct patience {
    time_point until;  ///< on the machine's steady clock
    stop_token token{};
  };
  /// The same, and waits while the host's connections are all in use. Blocking.
  template <clock_source Clock>
  [[nodiscard]] answer acquire(const Host& host, Clock& clock, const patience& wait) {
    for (;;) {
      answer told = try_acquire(host, clock.now());
      if (told) return told;
      detail::sync::unique_lock<detail::sync::mutex> lock(mutex_);
      slot& one = slot_of(host);
      if (one.gone || refused_to_open(told)) return told;
      if (room_in(one) || !one.idle.empty()) continue;
      if (one.waiting >= options_.waiters) {
        told.why.append(", ").append(std::to_string(one.waiting)).append(" wait already");
        return told;
      }
      ++one.waiting;
      // woken by returned() and keep_only(), after they changed the slot; by deadline and token
      const bool came = detail::wait_until(lock, changed_, wait.until, wait.token, [&] {
        return one.gone || room_in(one) || !one.idle.empty();
      });
      --one.waiting;
      if (!came) return told;
    }
  }

  /// Only these hosts are left: idle connections to others are closed now, those in use when they
  /// come back, and no new ones are opened. A host that returns starts with none.
  void keep_only(const std::vector<Host>& hosts) {
    std::vector<idler> ending;  // outside the lock
    {
      std::set<Host> left(hosts.begin(), hosts.end());
      const lock_guard lock(mutex_);
      std::size_t idle = 0;
      for (const auto& each : slots_)
        idle += each.second.idle.size();
      ending.reserve(idle);  // nothing below throws
      left_.swap(left);
      any_host_ = false;
      for (auto& [host, one] : slots_) {
        const bool there = left_.find(host) != left_.end();
        if (!there && !one.gone) {
          ++one.generation;
          for (idler& each : one.idle)
            ending.push_back(std::move(each));
          one.idle.clear();
        }
        one.gone = !there;
      }
    }
    changed_.notify_all();
  }

  /// Closes what was idle or lived too long at `now`. Result: when to call again.
  time_point sweep(time_point now) {
    std::vector<kept> ending;  // outside the lock
    const lock_guard lock(mutex_);
    time_point next = no_deadline;
    for (auto& [host, one] : slots_) {
      for (auto each = one.idle.begin(); each != one.idle.end();) {
        if (each->since == no_deadline) each->since = now;
        const time_point end = std::min(saturating_add(each->since, options_.idle),
                                        saturating_add(each->what.opened, options_.max_age));
        if (now >= end) {
          ending.push_back(std::move(each->what));
          each = one.idle.erase(each);
        } else {
          next = std::min(next, end);
          ++each;
        }
      }
    }
    return next;
  }

  struct counts {
    std::size_t in_use;
    std::size_t idle;
    std::size_t waiting;
  };
  [[nodiscard]] counts stats(const Host& host) const {
    const lock_guard lock(mutex_);
    const auto found = slots_.find(host);
    if (found == slots_.end()) return {0, 0, 0};
    return {found->second.in_use.size(), found->second.idle.size(), found->second.waiting};
  }

 private:
  using lock_guard = detail::sync::lock_guard<detail::sync::mutex>;

  static const connection_pool_options& checked(const connection_pool_options& options) {
    constexpr std::string_view where = "connection_pool";
    const duration least = std::chrono::milliseconds(1);
    const duration day = std::chrono::hours(24);
    detail::require_between(where, "per_host", options.per_host, 1U, 100'000U);
    detail::require_between(where, "waiters", options.waiters, 0U, 100'000U);
    detail::require_between(where, "idle", options.idle, least, day);
    detail::require_between(where, "max_age", options.max_age, least, day);
    return options;
  }

  [[nodiscard]] bool room_in(const slot& one) const noexcept {
    return one.in_use.size() + one.idle.size() < options_.per_host;
  }

  [[nodiscard]] std::string full(const slot& one, time_point now) const {
    std::string text("pool of ");
    text.append(std::to_string(options_.per_host)).append(" in use");
    if (one.in_use.empty()) return text;
    return text.append(", oldest ").append(detail::text_of(now - *one.in_use.begin()));
  }

  static bool refused_to_open(const answer& told) { return told.why == not_opened; }

  /// The idle connection that was used last and is young enough; older ones go to `ending`.
  std::optional<kept> take_idle(slot& one, time_point now, std::vector<kept>& ending) {
    while (!one.idle.empty()) {
      idler& last = one.idle.back();
      const bool rested = last.since != no_deadline && now - last.since >= options_.idle;
      if (!rested && now - last.what.opened < options_.max_age) {
        std::optional<kept> found(std::move(last.what));
        one.idle.pop_back();
        return found;
      }
      ending.push_back(std::move(last.what));  // without memory for it, it stays
      one.idle.pop_back();
    }
    return std::nullopt;
  }

  /// The lease, whose host is known, counts as in use from here on.
  void occupy(lease& held, time_point now) noexcept {
    held.pool_ = this;
    held.since_ = now;
  }

  answer opened(answer told, const Host& host, time_point now) {
    const std::optional<std::uint64_t> generation = generation_of(host);
    auto got = open_(host);
    if (!got) return {{}, not_opened};
    told.held.held_.emplace(kept{std::move(*got), now, generation.value_or(0)});
    // It may have left while the connection was made.
    if (!generation || generation_of(host) != generation) return {{}, not_in_set};
    return told;
  }

  /// Nothing when the host is not in the set.
  [[nodiscard]] std::optional<std::uint64_t> generation_of(const Host& host) {
    const lock_guard lock(mutex_);
    const slot& one = slot_of(host);
    if (one.gone) return std::nullopt;
    return one.generation;
  }

  slot& slot_of(const Host& host) {
    const auto [place, made] = slots_.try_emplace(host);
    if (made) place->second.gone = !any_host_ && left_.find(host) == left_.end();
    return place->second;
  }

  struct return_news {
    time_point since;
    time_point now;
    bool broken;
  };
  void returned(const Host& host, std::optional<kept> held, return_news told) noexcept {
    {
      const lock_guard lock(mutex_);
      slot& one = slots_.find(host)->second;
      one.in_use.erase(one.in_use.find(told.since));
      const bool keeps = held && !told.broken && !one.gone && held->generation == one.generation;
      VELTRIX_TRY {
        if (keeps) one.idle.push_back({std::move(*held), told.now});
      }
      VELTRIX_CATCH_ALL {
        // Without memory to keep it, it is closed.
      }
    }
    changed_.notify_all();
  }

  static constexpr const char* not_in_set = "the host is not in the set";
  static constexpr const char* not_opened = "the connection was refused";
  const connection_pool_options options_;
  Open open_;                                 // called by several threads at once
  Alive alive_;                               // the same
  mutable detail::sync::mutex mutex_;         // guards slots_, left_ and any_host_
  detail::sync::condition_variable changed_;  // a place became free, or a host left
  std::map<Host, slot> slots_;
  std::set<Host> left_;
  bool any_host_ = true;  // until keep_only() was called
};

}  // namespace VELTRIX_ABI
}  // namespace veltrix
