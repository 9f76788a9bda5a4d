// Runs a handler over items in per-key order, in batches, on any executor, in parallel over lanes.
// Use for: event streams where the items of one key must be handled one after another.
// Not for: order across keys, nor handlers that wait for another lane.
// Threads: all members may be called from any thread.
// Progress: submit() takes short locks only; submit_wait(), wait_idle(), drain(), stop() wait.
// Callbacks: handler and failure handler with no lock held, on the executor, or in a caller's
//   thread where the executor refuses; never two at once for a lane. The weigher in the submitting
//   thread, no lock held. Item's move constructor under a lane's lock: it must not call back.
// Exceptions: constructor std::invalid_argument, std::bad_alloc; submit only the weigher's; what a
//   handler throws goes to the failure handler.
// Lifetime: its executor outlives it; its destructor handles what was accepted and waits for that.
// Guide: docs/keyed_executor.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include "detail/block_group.hpp"
#include "detail/keyed_core.hpp"
#include "detail/keyed_types.hpp"
#include "detail/load_bound.hpp"
#include "detail/task.hpp"
#include "executor.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// @tparam Item      what is handled; its move constructor must be noexcept
/// @tparam Executor  held by value (`keyed_executor<event, elastic_pool::executor_type>`), or by
///                   reference where it is one (`keyed_executor<event, elastic_pool&>`)
/// @tparam Weigher   gives the bytes of a const Item&; called once per item that is offered
/// How it works, with its invariants: detail/lane_runs.hpp.
template <class Item, class Executor, class Weigher = object_weight>
class keyed_executor final : private detail::keyed_core<Item> {
  static_assert(std::is_nothrow_move_constructible_v<Item> && std::is_nothrow_destructible_v<Item>,
                "keyed_executor moves items under a lock: Item's move must be noexcept; hold it by "
                "unique_ptr if it cannot be");
  static_assert(executor<std::remove_reference_t<Executor>>,
                "keyed_executor needs an executor: post_result try_post(task)");
  static_assert(std::is_invocable_r_v<std::size_t, const Weigher&, const Item&>,
                "keyed_executor's Weigher gives the bytes of a const Item&");
  using core = detail::keyed_core<Item>;

 public:
  /// Gets the next items of one lane, in order, 1 to batch_max of them; may move from them. They
  /// end when it returns. Called from several threads at once, for different lanes.
  using handler_type = typename core::handler_type;
  /// Gets the batch whose handler threw, as the handler left it, before the lane goes on.
  using failure_type = typename core::failure_type;

  /// @param where       the executor; it outlives this object
  /// @param options     a value out of bounds throws std::invalid_argument
  /// @param handle      must not be empty
  /// @param on_failure  without it, failures are only counted
  keyed_executor(Executor where, const keyed_options& options, handler_type handle,
                 failure_type on_failure = {})
      : keyed_executor(Weigher(), std::forward<Executor>(where), options, std::move(handle),
                       std::move(on_failure)) {}
  keyed_executor(Weigher weigher, Executor where, const keyed_options& options, handler_type handle,
                 failure_type on_failure = {})
      : core(detail::checked_keyed_options(options, static_cast<bool>(handle)), std::move(handle),
             std::move(on_failure)),
        weigher_(std::move(weigher)),
        executor_(std::forward<Executor>(where)) {}
  /// Closes, then handles or waits for everything accepted. Call stop() before to abandon it.
  /// Called by a handler of its own, it reports so and aborts, in every build.
  ~keyed_executor() {
    if (core::inside_handler()) {  // else it would wait for itself, for ever
      detail::misuse("outside its handlers", "a keyed_executor was destroyed by its own handler",
                     __FILE__, __LINE__);
    }
    core::finish();
  }

  /// Takes the longest prefix of `block` for which there is room, without waiting for room. Items
  /// of one key are handled in the order of the block, after those of every submit that returned
  /// before this one began. Exceptions: the weigher's; nothing was taken then.
  /// O(items + lanes touched): two short locks per round of 4,096, and one per lane touched.
  submit_result submit(std::span<keyed_item<Item>> block) { return offer(block, nullptr); }
  /// The same for one item, untouched unless accepted. Prefer blocks: this locks three times.
  submit_result submit(std::uint64_t key_hash, Item&& item) {
    return offer_one(key_hash, item, nullptr);
  }
  /// Waits until all of `block` is taken, the deadline passes or the token stops; what was taken
  /// before stays taken. First come, first served. A waiter wakes when its rest fits, when a
  /// sixteenth of the limit is free, or when no lane is ready. Inside a handler it does not wait.
  submit_result submit_wait(std::span<keyed_item<Item>> block, const wait_options& wait = {}) {
    return offer(block, &wait);
  }
  submit_result submit_wait(std::uint64_t key_hash, Item&& item, const wait_options& wait = {}) {
    return offer_one(key_hash, item, &wait);
  }

  /// From now on every submit answers closed; what was accepted is handled. May be called again.
  void close() noexcept { core::close(); }
  /// Waits until nothing is in flight; submits stay allowed. Refused inside a handler.
  drain_result wait_idle(const wait_options& wait = {}) { return core::await_empty(wait); }
  /// close(), then wait_idle().
  drain_result drain(const wait_options& wait = {}) {
    core::close();
    return core::await_empty(wait);
  }
  /// close(), ends unhandled every item that no handler has been given yet, and waits for the
  /// handlers at work. The answer counts what was abandoned.
  drain_result stop(const wait_options& wait = {}) {
    core::abandon();
    return core::await_empty(wait);
  }

  /// Effective at once. Nothing in flight is dropped and nothing is taken above it. Refused with a
  /// reason when 0 or absurd; the old limits stay in force then.
  limits_result set_limits(const load& limit) noexcept { return core::set_limits(limit); }
  /// How many runs may be at work at once, 1..lane_count(); surplus ones end after their batch.
  /// Refused with a reason out of bounds. May itself serve lanes where the executor refuses.
  limits_result set_max_runs(std::size_t runs) noexcept { return core::set_max_runs(runs); }

  /// The lane of a key, 0 to lane_count() - 1; the same for ever. Wait-free.
  [[nodiscard]] std::size_t lane_of(std::uint64_t key_hash) const noexcept {
    return core::lane_of(key_hash);
  }
  [[nodiscard]] std::size_t lane_count() const noexcept { return core::lane_count(); }
  [[nodiscard]] bool closed() const noexcept { return core::closed(); }
  [[nodiscard]] keyed_stats stats() const noexcept { return core::stats(); }

 private:
  using group_type = typename core::group_type;

  /// Grouping memory, taken for one call.
  struct group_lease {
    explicit group_lease(keyed_executor& owner) : from(owner), group(owner.core::take_group()) {}
    group_lease(const group_lease&) = delete;
    group_lease& operator=(const group_lease&) = delete;
    ~group_lease() {
      if (group != nullptr) from.core::give_group(group);
    }
    keyed_executor& from;
    group_type* const group;  // null: no memory
  };

  submit_result offer(std::span<keyed_item<Item>> block, const wait_options* wait) {
    submit_result answer;
    if (block.empty()) {
      if (closed()) answer.status = submit_status::closed;
      return answer;
    }
    const group_lease lease(*this);
    if (lease.group == nullptr || !lease.group->reserve(block.size())) {
      return core::refuse_for_memory(block.size());
    }
    auto& weights = lease.group->weights;
    for (std::size_t i = 0; i < block.size(); ++i)
      weights[i] = weigher_(std::as_const(block[i].item));
    std::size_t done = 0;
    while (done < block.size() && answer) {
      answer = offer_round(block.subspan(done), {weights.data() + done, block.size() - done}, wait,
                           *lease.group);
      done += answer.accepted;
    }
    answer.accepted = done;
    return answer;
  }

  /// Groups the next items by lane and places as many as are admitted.
  submit_result offer_round(std::span<keyed_item<Item>> rest, std::span<const std::size_t> weights,
                            const wait_options* wait, group_type& group) {
    const auto round = rest.first(std::min(rest.size(), group_type::round_max));
    detail::keyed_offer offer{weights.first(round.size()), 0, 0, rest.size()};
    for (std::size_t i = 0; i < round.size(); ++i) {
      group.add(static_cast<typename group_type::index>(i), lane_of(round[i].key_hash));
      const std::size_t room = std::numeric_limits<std::size_t>::max() - offer.bytes;
      offer.bytes += std::min(room, weights[i]);
    }
    offer.nodes = group.nodes_needed(round.size());
    const submit_result answer = core::admit(offer, wait, group.stock);
    if (answer.accepted != 0) core::place(round, answer.accepted, offer, group);
    group.clear();
    return answer;
  }

  submit_result offer_one(std::uint64_t key_hash, Item& item, const wait_options* wait) {
    const std::size_t weight = weigher_(std::as_const(item));
    typename core::stock_type stock;
    const detail::keyed_offer offer{{&weight, 1}, weight, 1, 1};
    const submit_result answer = core::admit(offer, wait, stock);
    if (answer.accepted != 0) core::place_one(lane_of(key_hash), item, weight, stock);
    return answer;
  }

  post_result post_to_executor(detail::task run) override {
    return executor_.try_post(std::move(run));
  }

  const Weigher weigher_;  // called from any thread
  Executor executor_;      // called from any thread
};

}  // namespace VELTRIX_ABI
}  // namespace veltrix
