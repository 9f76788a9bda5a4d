// The entries of one shard in order of use, bounded by count and weight. Not locked.
// Use for: nothing directly; include veltrix/loading_cache.hpp. Internal.
// Not for: sharing; the cache holds a mutex around each shard.
// Threads: one at a time.
// Progress: not synchronised; O(1) expected, store() amortised.
// Callbacks: the key's equality in find() and store(), its copy in store().
// Exceptions: store() has the strong guarantee; find() throws what equality throws.
// Lifetime: owns its entries; removed ones are handed to the caller.
// Guide: docs/loading_cache.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "../clock.hpp"
#include "cache_table.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// Why an entry left a cache.
enum class removal_cause : std::uint8_t {
  replaced,        ///< a newer value took its place, or was too heavy or too late to take it
  invalidated,     ///< invalidate(), invalidate_if() or invalidate_all()
  expired,         ///< its time was over, and it was found or purged
  evicted_count,   ///< the least recently used, over the bound by count
  evicted_weight,  ///< the least recently used, over the bound by weight
};

namespace detail {

/// A value with what decides whether it may be served. A null `value` means: known to be absent.
template <class Value>
struct cache_entry {
  std::shared_ptr<const Value> value;
  time_point read_at{};                 ///< when its load began: the age of what it says
  time_point expires_at = no_deadline;  ///< from here on it is stale
  time_point used_at{};                 ///< the last hit, for the idle bound
  std::uint64_t version = 0;            ///< the source's, or what was announced when it was read
  std::uint64_t epoch = 0;              ///< entries of an older epoch were invalidated
  std::uint64_t weight = 0;
};

/// A key with its entry, and, once it has left the shard, why.
template <class Key, class Value>
struct cache_record : cache_node<cache_record<Key, Value>, Key> {
  cache_record(const hashed_key<Key>& from, cache_entry<Value> entry)
      : cache_node<cache_record, Key>(from), held(std::move(entry)) {}

  cache_entry<Value> held;
  removal_cause cause = removal_cause::replaced;
};

/// I1: weight_ is the sum of the weights inside; neither bound is exceeded at any time.
/// What leaves goes into the caller's list: leaving allocates nothing, calls nothing, cannot fail.
template <class Key, class Value, class Equal>
class cache_entries {
 public:
  using record = cache_record<Key, Value>;
  using records = cache_list<record>;

  cache_entries(std::size_t max_entries, std::uint64_t max_weight, const Equal& equal)
      : max_entries_(max_entries), max_weight_(max_weight), table_(equal) {}

  /// The record of the key, or null. Does not count as a use.
  record* find(const hashed_key<Key>& asked) const { return table_.find(asked); }

  /// Makes `used` the most recently used one.
  void touch(record& used, time_point now) noexcept {
    used.held.used_at = now;
    table_.move_to_front(used);
  }

  /// Puts `held` in the place of `before` (null: there is none of this key), evicting the least
  /// recently used until it fits. It is not heavier than max_weight().
  void store(const hashed_key<Key>& asked, record* before, cache_entry<Value> held,
             records& removed) {
    auto added = std::make_unique<record>(asked, std::move(held));
    table_.make_room();
    // Nothing below can fail.
    const std::uint64_t weight = added->held.weight;
    if (before != nullptr) remove(*before, removal_cause::replaced, removed);
    while (table_.size() >= max_entries_)
      remove(*table_.order().back(), removal_cause::evicted_count, removed);
    while (weight_ > max_weight_ - weight)
      remove(*table_.order().back(), removal_cause::evicted_weight, removed);
    weight_ += weight;
    table_.insert(std::move(added));
  }

  void remove(record& leaving, removal_cause cause, records& removed) noexcept {
    weight_ -= leaving.held.weight;
    leaving.cause = cause;
    removed.push_back(table_.take(leaving));
  }

  /// Most recently used first.
  [[nodiscard]] const records& order() const noexcept { return table_.order(); }
  [[nodiscard]] std::size_t size() const noexcept { return table_.size(); }
  [[nodiscard]] std::uint64_t weight() const noexcept { return weight_; }
  [[nodiscard]] std::uint64_t max_weight() const noexcept { return max_weight_; }

 private:
  const std::size_t max_entries_;  // at least 1
  const std::uint64_t max_weight_;
  cache_table<record, Equal> table_;
  std::uint64_t weight_ = 0;
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
