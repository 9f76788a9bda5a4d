// One shard of loading_cache: entries in order of use, bounded by count and weight. Not locked.
// Use for: nothing directly; include veltrix/loading_cache.hpp. Internal.
// Not for: sharing; the cache holds a mutex around each shard.
// Threads: one at a time.
// Progress: not synchronised; every operation is O(1) expected but remove_if().
// Callbacks: the key's hash and equality; predicates of remove_if().
// Exceptions: store() has the strong guarantee; the rest throw what hash and equality throw.
// Lifetime: owns its entries; removed ones are handed to the caller.
// Guide: docs/loading_cache.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <list>
#include <memory>
#include <unordered_map>
#include <utility>

#include "../clock.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// Why an entry left a cache.
enum class removal_cause : std::uint8_t {
  replaced,        ///< a newer value took its place
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
struct cache_record {
  Key key;
  cache_entry<Value> held;
  removal_cause cause = removal_cause::replaced;
};

/// I1: index_ holds each record of order_ once, by the address of its key.
/// I2: weight_ is the sum of the weights in order_; neither bound is exceeded between calls.
/// What leaves is spliced into the caller's list: leaving allocates nothing and cannot fail.
template <class Key, class Value, class Hash, class Equal>
class cache_shard {
 public:
  using entry = cache_entry<Value>;
  using record = cache_record<Key, Value>;
  using records = std::list<record>;

  cache_shard(std::size_t max_entries, std::uint64_t max_weight, const Hash& hash,
              const Equal& equal)
      : max_entries_(max_entries),
        max_weight_(max_weight),
        index_(0, key_hash{hash}, key_equal{equal}) {}

  /// The entry of `key`, or null. Does not count as a use.
  entry* find(const Key& key) {
    const auto found = index_.find(&key);
    return found == index_.end() ? nullptr : &found->second->held;
  }

  /// Makes `key` the most recently used one; it must be present.
  void touch(const Key& key, time_point now) {
    const auto found = index_.find(&key);
    found->second->held.used_at = now;
    order_.splice(order_.begin(), order_, found->second);
  }

  /// Puts `held` under `key`, evicting the least recently used while a bound is exceeded.
  /// @return false if it is heavier than the whole shard may be; nothing changed then
  bool store(const Key& key, entry held, records& removed) {
    if (held.weight > max_weight_) return false;
    records added;
    added.push_back(record{key, std::move(held)});
    const auto [found, is_new] = index_.try_emplace(&added.front().key, added.begin());
    // Nothing below can fail.
    weight_ += added.front().held.weight;
    if (is_new) {
      order_.splice(order_.begin(), added);
    } else {
      std::swap(added.front().held, found->second->held);
      order_.splice(order_.begin(), order_, found->second);
      weight_ -= added.front().held.weight;
      added.front().cause = removal_cause::replaced;
      removed.splice(removed.end(), added);
    }
    while (order_.size() > max_entries_) {
      take(std::prev(order_.end()), removal_cause::evicted_count, removed);
    }
    while (weight_ > max_weight_) {
      take(std::prev(order_.end()), removal_cause::evicted_weight, removed);
    }
    return true;
  }

  /// Removes `key`. Result: whether it was there.
  bool remove(const Key& key, removal_cause cause, records& removed) {
    const auto found = index_.find(&key);
    if (found == index_.end()) return false;
    take(found->second, cause, removed);
    return true;
  }

  /// Removes every record for which `gone(record)` holds. O(size).
  template <class Predicate>
  std::size_t remove_if(Predicate gone, removal_cause cause, records& removed) {
    std::size_t count = 0;
    for (auto at = order_.begin(); at != order_.end();) {
      const auto here = at++;
      if (!gone(std::as_const(*here))) continue;
      take(here, cause, removed);
      ++count;
    }
    return count;
  }

  /// The records, most recently used first.
  [[nodiscard]] const records& in_order() const noexcept { return order_; }
  [[nodiscard]] std::size_t size() const noexcept { return order_.size(); }
  [[nodiscard]] std::uint64_t weight() const noexcept { return weight_; }

 private:
  struct key_hash {
    Hash hash;
    std::size_t operator()(const Key* key) const { return hash(*key); }
  };
  struct key_equal {
    Equal equal;
    bool operator()(const Key* left, const Key* right) const { return equal(*left, *right); }
  };

  void take(typename records::iterator at, removal_cause cause, records& removed) {
    index_.erase(&at->key);
    weight_ -= at->held.weight;
    at->cause = cause;
    removed.splice(removed.end(), order_, at);
  }

  std::size_t max_entries_;  // at least 1
  std::uint64_t max_weight_;
  records order_;  // front: most recently used
  std::unordered_map<const Key*, typename records::iterator, key_hash, key_equal> index_;
  std::uint64_t weight_ = 0;
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
