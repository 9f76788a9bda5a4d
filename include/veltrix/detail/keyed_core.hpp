// Admission, placing and waiting of a keyed_executor; lane_runs drains what is placed.
// Use for: keyed_executor; it adds the executor, the weigher and the contract. Internal.
// Not for: anything else.
// Threads: all members may be called from any thread.
// Progress: blocking in short locks; waits where the name says so.
// Callbacks: handler and failure handler, no lock held; Item's move under a lane's lock.
// Exceptions: the constructor's std::bad_alloc.
// Lifetime: finish() before the end.
// Guide: docs/keyed_executor.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <exception>
#include <span>
#include <utility>

#include "../clock.hpp"
#include "block_group.hpp"
#include "keyed_types.hpp"
#include "lane_runs.hpp"
#include "lane_store.hpp"
#include "load_bound.hpp"
#include "stoppable_wait.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// What keyed_executor does but for its executor and its weigher. See lane_runs for the invariants.
template <class Item>
class keyed_core : public lane_runs<Item> {
 public:
  using base = lane_runs<Item>;
  using typename base::failure_type;
  using typename base::handler_type;
  using group_type = block_group<Item>;
  using stock_type = node_stock<Item>;

  keyed_core(const keyed_options& options, handler_type&& handle, failure_type&& on_failure)
      : base(options, std::move(handle), std::move(on_failure)) {}

  /// Reserves room for a prefix of the offer, and nodes for it in `stock`. Result: accepted with
  /// the length of the prefix, at least 1, to be placed; or why nothing was taken.
  submit_result admit(const keyed_offer& offer, const wait_options* wait, stock_type& stock);
  /// Puts the first `taken` admitted items into their lanes and sees that somebody drains them.
  void place(std::span<keyed_item<Item>> round, std::size_t taken, const keyed_offer& offer,
             group_type& group) noexcept;
  void place_one(std::size_t lane, Item& item, std::size_t weight, stock_type& stock) noexcept;
  /// The answer when there was no memory even to look at `items` items.
  submit_result refuse_for_memory(std::size_t items) noexcept {
    const lock_guard lock(mutex_);
    count_.refused += items;
    return answer_with(submit_status::full, bound_kind::memory, 0);
  }

  [[nodiscard]] group_type* take_group() noexcept;
  void give_group(group_type* group) noexcept;

  void close() noexcept;
  void abandon() noexcept;
  [[nodiscard]] drain_result await_empty(const wait_options& wait);
  /// close(), then waits until everything ended and no run is left anywhere.
  void finish() noexcept;
  limits_result set_limits(const load& limit) noexcept;
  limits_result set_max_runs(std::size_t runs) noexcept;
  [[nodiscard]] bool closed() const noexcept {
    const lock_guard lock(mutex_);
    return closed_ || executor_closed_;
  }
  [[nodiscard]] keyed_stats stats() const noexcept;

 protected:
  ~keyed_core() {
    while (groups_ != nullptr)
      delete std::exchange(groups_, groups_->link);
  }

 private:
  using base::bound_;
  using base::closed_;
  using base::count_;
  using base::empty_;
  using base::empty_waiters_;
  using base::executor_closed_;
  using base::mutex_;
  using base::orphaned;
  using base::ready_;
  using base::refuses;
  using base::waiters_;
  using typename base::lane_type;
  using typename base::lock_guard;
  using typename base::ready_list;
  using typename base::unique_lock;
  using typename base::waiter;

  [[nodiscard]] submit_result answer_with(submit_status status, bound_kind bound,
                                          std::size_t item_bytes) const noexcept {
    return {status, bound, 0, item_bytes, bound_.used, bound_.limit};
  }
  submit_result admit_now(const keyed_offer& offer, load& admitted) noexcept;
  submit_result await_room(unique_lock& lock, const keyed_offer& offer, const wait_options& wait,
                           load& admitted);
  void publish(const ready_list& became_ready, stock_type* left_over) noexcept;

  group_type* groups_ = nullptr;  // grouping memory not in use; guarded by mutex_
};

// --- submitting -------------------------------------------------------------------------------

template <class Item>
submit_result keyed_core<Item>::admit(const keyed_offer& offer, const wait_options* wait,
                                      stock_type& stock) {
  unique_lock lock(mutex_);
  this->serve_orphans(lock);
  load admitted;
  submit_result answer = !waiters_.empty() && !refuses(offer)
                             ? answer_with(submit_status::full, bound_kind::waiters, 0)
                             : admit_now(offer, admitted);
  if (answer.status == submit_status::full && wait != nullptr) {
    answer = await_room(lock, offer, *wait, admitted);
  }
  if (answer.accepted == 0) {
    count_.refused += offer.remaining;
    answer.item_bytes = offer.weights.front();
    return answer;
  }
  stock.take_from(this->spare_, offer.nodes);
  if (stock.size() >= offer.nodes) return answer;
  lock.unlock();
  VELTRIX_TRY {
    stock.make(offer.nodes);
    return answer;
  }
  VELTRIX_CATCH_ALL {}
  lock.lock();
  bound_.subtract(admitted);
  count_.submitted -= admitted.items;
  count_.refused += offer.remaining;
  this->tell_waiters();
  return answer_with(submit_status::full, bound_kind::memory, offer.weights.front());
}

/// Takes the longest prefix that fits.
template <class Item>
submit_result keyed_core<Item>::admit_now(const keyed_offer& offer, load& admitted) noexcept {
  if (closed_ || executor_closed_) return answer_with(submit_status::closed, bound_kind::none, 0);
  if (refuses(offer)) return answer_with(submit_status::too_heavy, bound_kind::bytes, 0);
  admitted = offer.whole();
  if (!bound_.fits(admitted)) {
    const load room = bound_.room();
    admitted = load();
    for (const std::size_t weight : offer.weights) {
      if (admitted.items == room.items || weight > room.bytes - admitted.bytes) break;
      ++admitted.items;
      admitted.bytes += weight;
    }
  }
  if (admitted.items == 0)
    return answer_with(submit_status::full, bound_.in_the_way(offer.first()), 0);
  bound_.add(admitted);
  count_.submitted += admitted.items;
  submit_result answer;
  answer.accepted = admitted.items;
  return answer;
}

template <class Item>
submit_result keyed_core<Item>::await_room(unique_lock& lock, const keyed_offer& offer,
                                           const wait_options& wait, load& admitted) {
  if (this->inside_handler()) return answer_with(submit_status::full, bound_kind::handler, 0);
  if (waiters_.size() >= this->max_waiters_)
    return answer_with(submit_status::full, bound_kind::waiters, 0);
  waiter self{{}, offer};
  waiters_.join(self);
  const time_point began = steady_clock::now();
  for (;;) {
    // Woken by tell_waiters(), after room was made or limits moved; by close(), after closed_; by
    // the token and the deadline.
    static_cast<void>(wait_until(lock, self.called, wait.deadline, wait.token, [&] {
      return refuses(offer) || orphaned() ||
             (waiters_.front() == &self && this->worth_waking(offer));
    }));
    if (!orphaned()) break;
    this->serve_orphans(lock);
  }
  const bool my_turn = waiters_.front() == &self;
  waiters_.leave(self);
  count_.blocked += steady_clock::now() - began;
  submit_result answer = my_turn || refuses(offer)
                             ? admit_now(offer, admitted)
                             : answer_with(submit_status::full, bound_kind::waiters, 0);
  if (answer.status == submit_status::full) {
    answer.status = wait.token.stop_requested() ? submit_status::stopped : submit_status::timed_out;
  }
  this->tell_waiters();  // the next in line
  return answer;
}

template <class Item>
void keyed_core<Item>::place(std::span<keyed_item<Item>> round, std::size_t taken,
                             const keyed_offer& offer, group_type& group) noexcept {
  ready_list became_ready;
  for (const auto touched : group.touched) {
    auto at = group.chains[touched].first;
    if (at >= taken) break;  // lanes stand in the order of their first item
    lane_type& target = this->lanes_[touched];
    bool was_scheduled = false;
    {
      const lock_guard lock(target.mutex);
      for (; at < taken; at = group.next[at])  // `none` is above every index
        target.append(std::move(round[at].item), offer.weights[at], group.stock);
      was_scheduled = std::exchange(target.scheduled, true);
    }
    if (!was_scheduled) became_ready.push(target);
  }
  publish(became_ready, nullptr);
}

template <class Item>
void keyed_core<Item>::place_one(std::size_t lane, Item& item, std::size_t weight,
                                 stock_type& stock) noexcept {
  ready_list became_ready;
  lane_type& target = this->lanes_[lane];
  bool was_scheduled = false;
  {
    const lock_guard lock(target.mutex);
    target.append(std::move(item), weight, stock);
    was_scheduled = std::exchange(target.scheduled, true);
  }
  if (!was_scheduled) became_ready.push(target);
  publish(became_ready, &stock);
}

template <class Item>
void keyed_core<Item>::publish(const ready_list& became_ready, stock_type* left_over) noexcept {
  unique_lock lock(mutex_);
  if (left_over != nullptr)
    this->spare_.take_from(*left_over, this->spare_.size() + left_over->size());
  ready_.append(became_ready);
  if (this->wants_run()) this->start_run(lock);
}

// --- memory -----------------------------------------------------------------------------------

template <class Item>
typename keyed_core<Item>::group_type* keyed_core<Item>::take_group() noexcept {
  {
    const lock_guard lock(mutex_);
    if (groups_ != nullptr) return std::exchange(groups_, groups_->link);
  }
  VELTRIX_TRY {
    return new group_type(this->lane_count_);
  }
  VELTRIX_CATCH_ALL {}
  return nullptr;
}

template <class Item>
void keyed_core<Item>::give_group(group_type* group) noexcept {
  group->clear();
  const lock_guard lock(mutex_);
  group->link = std::exchange(groups_, group);
}

// --- closing, waiting, limits -----------------------------------------------------------------

template <class Item>
void keyed_core<Item>::close() noexcept {
  const lock_guard lock(mutex_);
  closed_ = true;
  waiters_.call_all();
}

template <class Item>
void keyed_core<Item>::abandon() noexcept {
  const lock_guard lock(mutex_);
  closed_ = true;
  this->abandoning_ = true;
  waiters_.call_all();
}

template <class Item>
drain_result keyed_core<Item>::await_empty(const wait_options& wait) {
  unique_lock lock(mutex_);
  drain_result answer;
  if (this->inside_handler()) {
    answer.status = drain_status::inside_handler;
  } else {
    ++empty_waiters_;
    for (;;) {
      // Woken by tell_waiters(), after the last item ended or the executor dropped a run.
      static_cast<void>(wait_until(lock, empty_, wait.deadline, wait.token,
                                   [&] { return bound_.used.items == 0 || orphaned(); }));
      if (!orphaned()) break;
      this->serve_orphans(lock);
    }
    --empty_waiters_;
    if (bound_.used.items != 0) {
      answer.status = wait.token.stop_requested() ? drain_status::stopped : drain_status::timed_out;
    }
  }
  answer.in_flight = bound_.used.items;
  answer.abandoned = count_.abandoned;
  return answer;
}

template <class Item>
void keyed_core<Item>::finish() noexcept {
  close();
  static_cast<void>(await_empty({}));
  unique_lock lock(mutex_);
  ++empty_waiters_;
  while (!this->at_rest())
    empty_.wait(lock);  // woken by tell_waiters(), after a run ended or was dropped
}

template <class Item>
limits_result keyed_core<Item>::set_limits(const load& limit) noexcept {
  const limits_result checked = check_limits(limit);
  if (!checked) return checked;
  const lock_guard lock(mutex_);
  bound_.limit = limit;
  waiters_.call_all();  // any of them may be too heavy now
  return checked;
}

template <class Item>
limits_result keyed_core<Item>::set_max_runs(std::size_t runs) noexcept {
  if (runs == 0) return {false, "0 runs would handle nothing; allowed 1..lanes"};
  if (runs > this->lane_count_)
    return {false, "more runs than lanes cannot work; allowed 1..lanes"};
  unique_lock lock(mutex_);
  this->max_runs_ = runs;
  if (this->wants_run()) this->start_run(lock);
  return {true, ""};
}

template <class Item>
keyed_stats keyed_core<Item>::stats() const noexcept {
  const lock_guard lock(mutex_);
  keyed_stats now = count_;
  now.in_flight = bound_.used;
  now.limit = bound_.limit;
  now.peak = bound_.peak;
  now.ready_lanes = ready_.count;
  now.runs = this->runs_;
  now.waiting = waiters_.size();
  return now;
}

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
