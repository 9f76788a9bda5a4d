// One shard of loading_cache: what may be served, what must be loaded, what is stored of a load.
// Use for: nothing directly; include veltrix/loading_cache.hpp. Internal.
// Not for: calls without its mutex held.
// Threads: its owner locks `mutex` around every call.
// Progress: every operation is O(1) expected, but collect() and purge(): O(entries).
// Callbacks: the key's equality and copy, the clock's now(): the shard's mutex held.
// Exceptions: those of the callbacks and std::bad_alloc; land() and abandon() throw nothing.
// Lifetime: the rules outlive it; what left goes into a list that the caller ends unlocked.
// Guide: docs/loading_cache.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "../clock.hpp"
#include "cache_announcements.hpp"
#include "cache_entries.hpp"
#include "cache_flight.hpp"
#include "cache_loader.hpp"
#include "cache_result.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// What all shards of a cache go by.
template <class Clock>
struct cache_rules {
  cache_rules(const loading_cache_options& given, Clock& time)
      : options(given), clock(time), announcements(grace()) {}

  /// How long a stale value may be of use.
  [[nodiscard]] duration grace() const noexcept {
    return std::max(options.stale_while_revalidate, options.stale_if_error);
  }

  const loading_cache_options options;
  Clock& clock;
  cache_announcements announcements;
};

/// What a read does next.
enum class cache_step : std::uint8_t { serve, serve_and_refresh, load, join, refuse_recursion };

template <class Value>
struct cache_plan {
  cache_step step = cache_step::serve;
  cache_answer<Value> answer{};                      // serve, serve_and_refresh
  std::shared_ptr<cache_flight<Value>> under_way{};  // load, serve_and_refresh: ours; join
};

/// What one read has learnt so far.
struct cache_attempt {
  bool may_refresh = false;              ///< in the background
  bool missed = false;                   ///< it was counted
  bool joined = false;                   ///< in vain: the load brought an older version than needed
  std::optional<time_point> asked_at{};  ///< its first look
};

enum class cache_stored : std::uint8_t {
  yes,
  overtaken,  ///< a higher version is here
  no,         ///< too heavy, or past its time; what was here is gone
};

/// I1: at most one flight per key is current: the one begun last, if nothing was invalidated or put
///     since. Only a current one that has begun is joined, and only a current one is stored.
/// I2: a version that the source told never takes the place of a higher one.
/// I3: what nobody may be served takes no place.
template <class Key, class Value, class Equal, class Clock>
class alignas(cache_line) cache_shard {
 public:
  using asked_key = hashed_key<Key>;
  using flight = cache_flight<Value>;
  using flight_ptr = std::shared_ptr<flight>;
  using record = cache_record<Key, Value>;
  using records = cache_list<record>;
  using plan = cache_plan<Value>;
  using answer = cache_answer<Value>;
  /// An entry that a predicate is asked about.
  struct collected {
    Key key;
    std::uint64_t hash;
    std::shared_ptr<const Value> value;
    bool wanted = true;  // by the predicate
  };

  cache_shard(const cache_rules<Clock>& rules, std::size_t max_entries, std::uint64_t max_weight,
              const Equal& equal)
      : rules_(rules), entries_(max_entries, max_weight, equal), flights_(equal) {}

  mutable sync::mutex mutex;  // guards everything in here

  // ---- reads --------------------------------------------------------------------------------

  /// The fresh entry, or none.
  answer get(const asked_key& asked, records& removed) {
    const time_point now = rules_.clock.now();
    const seen at = find_live(asked, now, removed);
    if (at.here != nullptr && at.stale_since > now) return serve(at, now);
    ++counts_.misses;
    return {};
  }

  plan look(const asked_key& asked, const read_mode& mode, cache_attempt& tried, records& removed) {
    const time_point now = rules_.clock.now();
    if (!tried.asked_at) tried.asked_at = now;
    const flight_ptr under_way = current_flight(asked);
    const seen at = find_live(asked, now, removed);
    if (at.here != nullptr && meets(mode, at.here->held, *tried.asked_at) &&
        (at.stale_since > now || (tried.may_refresh && may_revalidate(at, now)))) {
      return serve_at_once(asked, at, now, tried.may_refresh && under_way == nullptr);
    }
    if (!std::exchange(tried.missed, true)) ++counts_.misses;
    if (under_way == nullptr || !under_way->has_begun()) {
      return {cache_step::load, {}, begin_flight(asked, now)};
    }
    if (under_way->is_mine()) return {cache_step::refuse_recursion};
    const bool joinable = under_way->floor >= rules_.announcements.floor() &&
                          saturating_add(under_way->began_at, mode.max_age()) >= *tried.asked_at &&
                          !tried.joined;
    if (!joinable) return {cache_step::load, {}, begin_flight(asked, now)};
    ++counts_.joined;
    return {cache_step::join, {}, under_way};
  }

  /// What may be served although the load failed.
  std::optional<answer> fall_back(const asked_key& asked, const read_mode& mode, records& removed) {
    const time_point now = rules_.clock.now();
    const seen at = find_live(asked, now, removed);
    if (at.here == nullptr || !at.here->held.value || !meets(mode, at.here->held, now) ||
        now >= saturating_add(at.stale_since, rules_.options.stale_if_error)) {
      return std::nullopt;
    }
    return serve(at, now);
  }

  // ---- loads --------------------------------------------------------------------------------

  /// Begins a refresh that look() planned. Result: whether it is still wanted.
  [[nodiscard]] bool begin_refresh(std::uint64_t hash, const flight_ptr& mine) {
    flight_record<Key, Value>* const here = record_of(hash, mine);
    if (here == nullptr) return false;
    if (here->epoch != epoch_) {
      static_cast<void>(flights_.take(*here));
      return false;
    }
    mine->begin(rules_.clock.now(), rules_.announcements.floor());
    ++counts_.refreshes;
    return true;
  }

  /// Stores what `mine` brought if it is still current; it is under way no more. `weight` is empty
  /// if the value could not be weighed.
  void land(const asked_key& asked, const flight_ptr& mine, const cache_arrival<Value>& got,
            std::optional<std::uint64_t> weight, records& removed) noexcept {
    ++counts_.loads;
    if (got.landing.error) ++counts_.load_failures;
    const bool was_current = end_flight(asked.hash, mine);
    if (got.landing.error) return;
    if (!was_current) {
      ++counts_.not_stored;
      return;
    }
    VELTRIX_TRY {
      if (weight) {
        store(asked, got, mine->began_at, *weight, removed);
        return;
      }
    }
    VELTRIX_CATCH_ALL {}
    drop_outdated(asked, removed);
  }

  /// `mine` will not begin.
  void abandon(std::uint64_t hash, const flight_ptr& mine) noexcept { end_flight(hash, mine); }

  /// A stale answer was planned, and is not given.
  void take_back_stale() noexcept { --counts_.stale_served; }

  // ---- writes -------------------------------------------------------------------------------

  /// Stores `got` as read now, and keeps loads under way from overwriting it.
  bool put(const asked_key& asked, const cache_arrival<Value>& got, std::uint64_t weight,
           records& removed) {
    flight_record<Key, Value>* const under_way = flights_.find(asked);
    const cache_stored done = store(asked, got, rules_.clock.now(), weight, removed);
    if (under_way != nullptr && done != cache_stored::overtaken) {
      static_cast<void>(flights_.take(*under_way));
    }
    return done == cache_stored::yes;
  }

  /// Result: whether there was an entry that some read might have been served.
  bool invalidate(const asked_key& asked, records& removed) {
    flight_record<Key, Value>* const under_way = flights_.find(asked);
    const seen at = find_live(asked, rules_.clock.now(), removed);
    if (under_way != nullptr) static_cast<void>(flights_.take(*under_way));
    if (at.here != nullptr) entries_.remove(*at.here, removal_cause::invalidated, removed);
    return at.here != nullptr;
  }

  /// Outdates every entry and every flight. O(1).
  void invalidate_all() noexcept {
    ++epoch_;
    ++entry_epoch_;
  }

  /// Outdates every flight, and lists the entries that some read might be served.
  std::vector<collected> collect() {
    std::vector<collected> all;
    all.reserve(entries_.size());
    const time_point now = rules_.clock.now();
    for (const record* at = entries_.order().front(); at != nullptr; at = at->next) {
      if (!is_gone(at->held, stale_since(at->held), now))
        all.push_back({at->key, at->hash, at->held.value});
    }
    ++epoch_;
    return all;
  }

  /// Removes the wanted ones of what collect() listed, unless they were replaced. Result: how many.
  std::size_t invalidate_those(const std::vector<collected>& chosen, records& removed) {
    std::size_t count = 0;
    for (const collected& each : chosen) {
      if (!each.wanted) continue;
      record* const at = entries_.find({each.key, each.hash});
      if (at == nullptr || at->held.value != each.value) continue;
      entries_.remove(*at, removal_cause::invalidated, removed);
      ++count;
    }
    return count;
  }

  /// Removes what no read may be served any more. Result: how many.
  std::size_t purge(records& removed) {
    const time_point now = rules_.clock.now();
    std::size_t count = 0;
    for (record* at = entries_.order().front(); at != nullptr;) {
      record& each = *std::exchange(at, at->next);
      if (!is_gone(each.held, stale_since(each.held), now)) continue;
      remove_gone(each, removed);
      ++count;
    }
    return count;
  }

  void add_to(loading_cache_stats& sum) const noexcept {
    sum.hits += counts_.hits;
    sum.misses += counts_.misses;
    sum.loads += counts_.loads;
    sum.load_failures += counts_.load_failures;
    sum.joined += counts_.joined;
    sum.stale_served += counts_.stale_served;
    sum.not_stored += counts_.not_stored;
    sum.refreshes += counts_.refreshes;
    sum.evicted += counts_.evicted;
    sum.entries += entries_.size();
    sum.weight += entries_.weight();
  }

 private:
  /// An entry, and what was found out about it once.
  struct seen {
    record* here = nullptr;
    time_point stale_since{};
  };

  // ---- time and version ---------------------------------------------------------------------

  /// From when on `held` is stale: its time is over, or something newer was announced.
  time_point stale_since(const cache_entry<Value>& held) const noexcept {
    if (held.version >= rules_.announcements.floor()) return held.expires_at;
    return std::min(held.expires_at, rules_.announcements.overtaken_at(held.version));
  }

  /// Whether no read may be served `held`.
  bool is_gone(const cache_entry<Value>& held, time_point stale, time_point now) const noexcept {
    if (held.epoch != entry_epoch_) return true;
    if (now >= saturating_add(held.used_at, rules_.options.idle)) return true;
    return now >= saturating_add(stale, held.value ? rules_.grace() : duration::zero());
  }

  static bool meets(const read_mode& mode, const cache_entry<Value>& held,
                    time_point asked_at) noexcept {
    if (held.version < mode.required()) return false;
    return saturating_add(held.read_at, mode.max_age()) >= asked_at;
  }

  bool may_revalidate(const seen& at, time_point now) const noexcept {
    return at.here->held.value &&
           now < saturating_add(at.stale_since, rules_.options.stale_while_revalidate);
  }

  // ---- entries ------------------------------------------------------------------------------

  /// The entry, if some read may be served it; one that is gone is removed.
  seen find_live(const asked_key& asked, time_point now, records& removed) {
    record* const here = entries_.find(asked);
    if (here == nullptr) return {};
    const time_point stale = stale_since(here->held);
    if (!is_gone(here->held, stale, now)) return {here, stale};
    remove_gone(*here, removed);
    return {};
  }

  void remove_gone(record& gone, records& removed) noexcept {
    const bool invalidated = gone.held.epoch != entry_epoch_;
    entries_.remove(gone, invalidated ? removal_cause::invalidated : removal_cause::expired,
                    removed);
  }

  /// An answer from `at`; counts it, and makes it the most recently used.
  answer serve(const seen& at, time_point now) {
    const cache_entry<Value>& held = at.here->held;
    const bool stale = at.stale_since <= now;
    ++(stale ? counts_.stale_served : counts_.hits);
    entries_.touch(*at.here, now);
    const cache_outcome outcome = !held.value ? cache_outcome::absent
                                  : stale     ? cache_outcome::stale
                                              : cache_outcome::hit;
    return {outcome, held.value, now - held.read_at, held.version};
  }

  plan serve_at_once(const asked_key& asked, const seen& at, time_point now, bool may_refresh) {
    plan next{cache_step::serve, serve(at, now)};
    const cache_entry<Value>& held = at.here->held;
    const bool due =
        at.stale_since <= now || (held.value && rules_.options.refresh_after <= now - held.read_at);
    if (!due || !may_refresh) return next;
    VELTRIX_TRY {
      next.under_way = add_flight(asked);
      next.step = cache_step::serve_and_refresh;
    }
    VELTRIX_CATCH_ALL {}  // no memory for a refresh: served all the same
    return next;
  }

  /// Strong guarantee, but for entries that were gone.
  cache_stored store(const asked_key& asked, const cache_arrival<Value>& got, time_point read_at,
                     std::uint64_t weight, records& removed) {
    const time_point now = rules_.clock.now();
    const duration lifetime =
        got.landing.value ? std::min(rules_.options.ttl, got.ttl) : rules_.options.negative_ttl;
    cache_entry<Value> held{.value = got.landing.value,
                            .read_at = read_at,
                            .expires_at = saturating_add(read_at, lifetime),
                            .used_at = now,
                            .version = got.landing.version,
                            .epoch = entry_epoch_,
                            .weight = weight};
    record* const before = find_live(asked, now, removed).here;
    if (before != nullptr && got.has_version && before->held.version > held.version) {
      ++counts_.not_stored;
      return cache_stored::overtaken;
    }
    if (weight > entries_.max_weight() || is_gone(held, stale_since(held), now)) {
      ++counts_.not_stored;
      if (before != nullptr) entries_.remove(*before, removal_cause::replaced, removed);
      return cache_stored::no;
    }
    const std::size_t size = entries_.size() + (before == nullptr ? 1 : 0);
    entries_.store(asked, before, std::move(held), removed);
    counts_.evicted += size - entries_.size();
    return cache_stored::yes;
  }

  /// A reader is given a newer value that cannot be stored: later ones must not get the older.
  void drop_outdated(const asked_key& asked, records& removed) noexcept {
    ++counts_.not_stored;
    VELTRIX_TRY {
      record* const before = entries_.find(asked);
      if (before != nullptr) entries_.remove(*before, removal_cause::replaced, removed);
    }
    VELTRIX_CATCH_ALL {}  // equality threw: no reader finds it either
  }

  // ---- flights ------------------------------------------------------------------------------

  flight_ptr current_flight(const asked_key& asked) const {
    const flight_record<Key, Value>* const here = flights_.find(asked);
    return here == nullptr || here->epoch != epoch_ ? nullptr : here->flight;
  }

  /// A new current flight that has not begun; one before it is current no more.
  flight_ptr add_flight(const asked_key& asked) {
    auto added = std::make_shared<flight>();
    flight_record<Key, Value>* here = flights_.find(asked);
    if (here == nullptr) {
      auto place = std::make_unique<flight_record<Key, Value>>(asked);
      flights_.make_room();
      here = place.get();
      flights_.insert(std::move(place));
    }
    here->flight = added;
    here->epoch = epoch_;
    return added;
  }

  flight_ptr begin_flight(const asked_key& asked, time_point now) {
    flight_ptr added = add_flight(asked);
    added->begin(now, rules_.announcements.floor());
    return added;
  }

  flight_record<Key, Value>* record_of(std::uint64_t hash, const flight_ptr& mine) const noexcept {
    return flights_.find_if(
        hash, [&](const flight_record<Key, Value>& each) { return each.flight == mine; });
  }

  /// Takes `mine` out. Result: whether it was current.
  bool end_flight(std::uint64_t hash, const flight_ptr& mine) noexcept {
    flight_record<Key, Value>* const here = record_of(hash, mine);
    if (here == nullptr) return false;
    const bool was_current = here->epoch == epoch_;
    static_cast<void>(flights_.take(*here));
    return was_current;
  }

  const cache_rules<Clock>& rules_;
  cache_entries<Key, Value, Equal> entries_;
  cache_table<flight_record<Key, Value>, Equal> flights_;
  std::uint64_t epoch_ = 0;        // flights of an older one are not current
  std::uint64_t entry_epoch_ = 0;  // entries of an older one were invalidated
  loading_cache_stats counts_;
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
