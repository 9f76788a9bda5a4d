// A bounded concurrent cache that loads each missing key once, and knows how old its answers are.
// Use for: values that are dear to fetch and may be asked for by many threads at once.
// Not for: the only copy of anything; unbounded key sets without a bound on weight.
// Threads: all members may be called from any thread; hooks and hash are called by many at once.
// Progress: hits take one shard's mutex for a few steps; a miss waits for the one load of its key.
// Callbacks: loader, check, predicate, weigher, listener, hash: no lock held. Equality and copies
//   of the key, and the clock: a shard's; they must not call the cache.
// Exceptions: a loader's is handed to all who wait; a listener's is counted; what the key's hash,
//   equality or copy throws passes, as does std::bad_alloc: no load is left behind.
// Lifetime: results keep their values alive; the destructor waits for refreshes that have begun.
// Guide: docs/loading_cache.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "clock.hpp"
#include "detail/cache_loader.hpp"
#include "detail/cache_refresh.hpp"
#include "detail/cache_result.hpp"
#include "detail/cache_shard.hpp"
#include "detail/default_hash.hpp"
#include "detail/hash.hpp"
#include "detail/message.hpp"
#include "detail/reentry.hpp"
#include "detail/sync.hpp"
#include "detail/task.hpp"
#include "executor.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// The cache. Each key belongs to one shard, which decides everything about it; see there for the
/// invariants. This class calls the user's code, and tells the listener, with no lock held.
template <class Key, class Value, class Hash = detail::default_hash<Key>,
          class Equal = detail::default_equal, class Clock = steady_clock>
class loading_cache {
  static_assert(clock_source<Clock>, "loading_cache: Clock needs now(); see veltrix/clock.hpp");
  static_assert(std::copy_constructible<Key>, "loading_cache: Key must be copyable");

 public:
  using key_type = Key;
  using value_type = Value;
  using result = cache_result<Value>;
  /// The weight of an entry, in any unit; called once per store.
  using weigher = detail::unique_function<std::uint64_t(const Key&, const Value&)>;
  /// Told of each entry that left; exceptions are counted. The value is null for an absent key.
  using listener =
      detail::unique_function<void(const Key&, const std::shared_ptr<const Value>&, removal_cause)>;

  /// Callables that the cache keeps; many threads call them at once. The first two may be empty.
  struct hooks {
    weigher weigh{};     ///< empty: each entry weighs 1
    listener removed{};  ///< empty: nobody is told
    Hash hash{};
    Equal equal{};
  };

  /// A cache that loads in the threads that ask.
  /// Throws std::invalid_argument for a bound of 0, a negative duration, more shards than entries
  /// or weight, or background refreshes (refresh_after, stale_while_revalidate), which need an
  /// executor.
  explicit loading_cache(const loading_cache_options& options, hooks kept = {})
    requires std::is_empty_v<Clock> && std::default_initializable<Clock>
      : loading_cache(options, default_clock(), std::move(kept)) {}

  /// The same, on a clock of the caller's, which outlives the cache.
  loading_cache(const loading_cache_options& options, Clock& clock, hooks kept = {})
      : loading_cache(options, clock, poster(), std::move(kept)) {}

  /// The same, with an executor for background refreshes. It outlives the cache, and runs or
  /// destroys what it accepted, before the cache ends or after.
  template <executor Executor>
  loading_cache(const loading_cache_options& options, Clock& clock, Executor& background,
                hooks kept = {})
      : loading_cache(options, clock, poster([&background](detail::task work) {
                        return background.try_post(std::move(work));
                      }),
                      std::move(kept)) {}

  loading_cache(const loading_cache&) = delete;
  loading_cache& operator=(const loading_cache&) = delete;

  /// Waits for the background refreshes that have begun; the others end as soon as the executor
  /// comes to them. Entries that are still here are not told to the listener. Checked builds abort
  /// if a call is under way.
  ~loading_cache() {
    if (gate_ != nullptr) gate_->close();
    use_.check_unused("loading_cache");
  }

  /// The fresh entry of `key` (hit or absent), or miss. Never loads, never waits for a load. O(1).
  result get(const Key& key) {
    const char* const name = "loading_cache::get";
    const detail::operation_scope inside(use_, name);
    const place at = place_of(key);
    departures removed(*this);
    const locked lock(*this, at.home, name);
    return result(at.home.get(at.asked, removed.list));
  }

  /// The value of `key` as options.mode wants it, loading it if needed. One load per key is under
  /// way at a time; others join it. `loader(key)` runs in this thread, no lock held, and returns
  /// Value, loaded<Value>, or std::optional of either (empty: the source has no such key). If
  /// background refreshes are on, a copyable loader is copied and may run later, in the executor:
  /// what it refers to must live until then.
  /// A loader that asks the cache for its own key is refused with std::logic_error (failed).
  /// Does not throw what the loader throws: see cache_result::error(). O(1) and the load.
  template <class Loader>
  result get_or_load(const Key& key, const read_options& options, Loader loader) {
    static_assert(std::is_invocable_v<Loader&, const Key&>,
                  "loading_cache: the loader is called with a const Key&");
    using enum detail::cache_step;
    const detail::operation_scope inside(use_, loading);
    const place at = place_of(key);
    detail::cache_attempt tried{.may_refresh = gate_ != nullptr && std::copy_constructible<Loader>};
    for (;;) {
      plan next = look(at, options.mode, tried);
      switch (next.step) {
        case serve: return result(std::move(next.answer));
        case serve_and_refresh:
          if (refresh(at, next, loader)) return result(std::move(next.answer));
          tried.may_refresh = false;  // nobody will do it for us
          break;
        case load: return deliver(at, fly(at, next.under_way, loader, options.mode), next, options);
        case refuse_recursion: return recursion();
        case join: {
          landing got = next.under_way->wait(options.deadline, options.token);
          if (got.under_way) return gave_up(options.token);
          if (got.error || got.version >= options.mode.required())
            return deliver(at, std::move(got), next, options);
          tried.joined = true;  // older than asked for: look again, and load if need be
        }
      }
    }
  }

  /// The same, in mode snapshot and without a deadline.
  template <class Loader>
  result get_or_load(const Key& key, Loader loader) {
    return get_or_load(key, read_options{}, std::move(loader));
  }

  /// A value that is current at the source: `check(key)` asks it for the version, inside this call,
  /// and nothing older is served. A failing check is a failed read: never the old value.
  template <class Check, class Loader>
  result get_linearizable(const Key& key, read_options options, Check check, Loader loader) {
    const detail::operation_scope inside(use_, "loading_cache::get_linearizable");
    VELTRIX_TRY {
      options.mode = read_mode::at_least(check(key));
    }
    VELTRIX_CATCH_ALL {
      return failure(std::current_exception());
    }
    return get_or_load(key, options, std::move(loader));
  }

  /// Stores `given.value` as if it had just been loaded. A load under way will not overwrite it.
  /// Without a version it always counts as newer than what is here.
  /// @return false if it was not stored: too heavy, or past its time already (an older entry is
  ///         gone then, too), or `given.version` is lower than that of what is here, which stays.
  bool put(const Key& key, loaded<Value> given) {
    const char* const name = "loading_cache::put";
    const detail::operation_scope inside(use_, name);
    arrival got;
    got.has_version = given.version != 0;
    got.landing.version = got.has_version ? given.version : rules_.announcements.floor();
    got.landing.value = std::make_shared<const Value>(std::move(given.value));
    got.ttl = given.ttl;
    const std::uint64_t weight = weigh(key, got.landing);
    const place at = place_of(key);
    departures removed(*this);
    const locked lock(*this, at.home, name);
    return at.home.put(at.asked, got, weight, removed.list);
  }
  bool put(const Key& key, Value value) { return put(key, loaded<Value>{std::move(value)}); }

  /// Removes `key`. A load under way still answers those who wait for it, but is not stored, and
  /// later readers do not join it. Result: whether an entry was there that could be read. O(1).
  bool invalidate(const Key& key) {
    const char* const name = "loading_cache::invalidate";
    const detail::operation_scope inside(use_, name);
    const place at = place_of(key);
    departures removed(*this);
    const locked lock(*this, at.home, name);
    return at.home.invalidate(at.asked, removed.list);
  }

  /// Removes each entry with `predicate(key, value)`; absent ones are removed too. What is loading
  /// now is not stored. The predicate runs with no lock held, on the entries of one shard after the
  /// other; what it throws passes, and the shards before are done. Result: how many were removed.
  /// O(size), and copies the keys of one shard at a time, its mutex held.
  template <class Predicate>
  std::size_t invalidate_if(Predicate predicate) {
    const detail::operation_scope inside(use_, "loading_cache::invalidate_if");
    std::size_t count = 0;
    for (const std::unique_ptr<shard>& home : shards_)
      count += invalidate_in(*home, predicate);
    return count;
  }

  /// Makes every entry and every load under way count no more, at once. O(shards); the memory comes
  /// back as the entries are met or evicted, or with purge().
  void invalidate_all() {
    const char* const name = "loading_cache::invalidate_all";
    const detail::operation_scope inside(use_, name);
    for (const std::unique_ptr<shard>& home : shards_) {
      const locked lock(*this, *home, name);
      home->invalidate_all();
    }
  }

  /// Says that the source is now at `version`: every entry read at an older one is stale from now
  /// on, and no load that began before is joined. A lower version than before does nothing. O(1).
  void announce(std::uint64_t version) {
    const detail::operation_scope inside(use_, "loading_cache::announce");
    rules_.announcements.announce(version, rules_.clock);
  }

  /// Removes what is past serving in any mode. Result: how many. O(size), one shard at a time.
  std::size_t purge() {
    const char* const name = "loading_cache::purge";
    const detail::operation_scope inside(use_, name);
    std::size_t count = 0;
    for (const std::unique_ptr<shard>& home : shards_) {
      departures removed(*this);
      const locked lock(*this, *home, name);
      count += home->purge(removed.list);
    }
    return count;
  }

  /// Takes every shard's mutex in turn; each count is right for a moment of its own. O(shards).
  [[nodiscard]] loading_cache_stats stats() const {
    const char* const name = "loading_cache::stats";
    const detail::operation_scope inside(use_, name);
    loading_cache_stats sum;
    for (const std::unique_ptr<shard>& home : shards_) {
      const locked lock(*this, *home, name);
      home->add_to(sum);
    }
    sum.listener_failures = listener_failures_.load(detail::sync::relaxed);
    return sum;
  }

  [[nodiscard]] std::size_t shard_count() const noexcept { return shards_.size(); }

 private:
  template <class, class>
  friend class detail::cache_refresh;

  using shard = detail::cache_shard<Key, Value, Equal, Clock>;
  using flight_ptr = typename shard::flight_ptr;
  using plan = typename shard::plan;
  using landing = detail::cache_landing<Value>;
  using arrival = detail::cache_arrival<Value>;
  using poster = detail::unique_function<post_result(detail::task)>;

  static constexpr const char* loading = "loading_cache::get_or_load";

  /// Holds a shard's mutex; checked builds know meanwhile that a callback must not come back.
  struct locked {
    locked(const loading_cache& cache, shard& home, const char* operation)
        : lock(home.mutex), scope(cache.use_, operation) {}

    const detail::sync::lock_guard<detail::sync::mutex> lock;
    const detail::locked_scope scope;
  };

  /// A key of the caller's, and where it belongs.
  struct place {
    detail::hashed_key<Key> asked;
    shard& home;
  };

  /// Entries that leave. Declared before a shard is locked, it tells of them when the lock is free,
  /// also if the operation failed.
  struct departures {
    explicit departures(loading_cache& cache) noexcept : owner(cache) {}
    departures(const departures&) = delete;
    departures& operator=(const departures&) = delete;
    ~departures() { owner.tell(list); }

    loading_cache& owner;
    typename shard::records list{};
  };

  loading_cache(const loading_cache_options& options, Clock& clock, poster background, hooks kept)
      : rules_(detail::checked(options, static_cast<bool>(background)), clock),
        background_(std::move(background)),
        gate_(background_ ? std::make_shared<detail::refresh_gate>() : nullptr),
        hooks_(std::move(kept)) {
    const std::size_t count = rules_.options.shards;
    const std::size_t entries = rules_.options.max_entries;
    const std::uint64_t weight = rules_.options.max_weight;
    shards_.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
      shards_.push_back(std::make_unique<shard>(rules_, entries / count + (i < entries % count),
                                                weight / count + (i < weight % count),
                                                hooks_.equal));
    }
  }

  static Clock& default_clock() {
    static Clock shared;  // it has no state
    return shared;
  }

  place place_of(const Key& key) const {
    const std::uint64_t hash = detail::mix(hooks_.hash(key));
    return of_hash({key, hash});
  }
  place of_hash(const detail::hashed_key<Key>& asked) const noexcept {
    // By the high bits: the tables inside go by the low ones.
    return {asked, *shards_[(asked.hash >> 32) % shards_.size()]};
  }

  plan look(const place& at, const read_mode& mode, detail::cache_attempt& tried) {
    departures removed(*this);
    const locked lock(*this, at.home, loading);
    return at.home.look(at.asked, mode, tried, removed.list);
  }

  std::uint64_t weigh(const Key& key, const landing& got) {
    return got.value && hooks_.weigh ? hooks_.weigh(key, *got.value) : 1;
  }

  std::optional<std::uint64_t> try_weigh(const Key& key, const landing& got) noexcept {
    VELTRIX_TRY {
      return weigh(key, got);
    }
    VELTRIX_CATCH_ALL {
      return std::nullopt;
    }
  }

  void tell(const typename shard::records& removed) noexcept {
    if (!hooks_.removed) return;
    for (const auto* each = removed.front(); each != nullptr; each = each->next) {
      VELTRIX_TRY {
        hooks_.removed(each->key, each->held.value, each->cause);
      }
      VELTRIX_CATCH_ALL {
        listener_failures_.fetch_add(1, detail::sync::relaxed);
      }
    }
  }

  /// Runs the load, stores what it brought if the flight is still current, and wakes who waits.
  /// Nothing in here throws: a flight that never landed would be waited for for ever.
  template <class Loader>
  landing fly(const place& at, const flight_ptr& mine, Loader& loader,
              const read_mode& mode) noexcept {
    // A load that began after the source told `required` reads that or something newer.
    const std::uint64_t version = std::max(mine->floor, mode.required());
    const arrival got = detail::call_loader<Value>(loader, at.asked.key, version);
    const std::optional<std::uint64_t> weight = try_weigh(at.asked.key, got.landing);
    departures removed(*this);
    {
      const locked lock(*this, at.home, loading);
      at.home.land(at.asked, mine, got, weight, removed.list);
    }
    mine->land(got.landing);
    return got.landing;
  }

  /// The answer to one reader of a flight that has landed.
  result deliver(const place& at, landing got, const plan& was, const read_options& options) {
    if (got.error) return stale_or_failed(at, got.error, options.mode);
    const std::uint64_t required = options.mode.required();
    if (got.version < required) {
      return failure(std::make_exception_ptr(std::runtime_error(
          detail::describe({"loading_cache::get_or_load", "the version the loader returned",
                            detail::text_of(got.version), "at least " + detail::text_of(required),
                            "no older value is served", "ask a source that has caught up"}))));
    }
    const cache_outcome outcome = got.value ? cache_outcome::loaded : cache_outcome::absent;
    return result(
        {outcome, std::move(got.value), rules_.clock.now() - was.under_way->began_at, got.version});
  }

  result stale_or_failed(const place& at, const std::exception_ptr& error, const read_mode& mode) {
    departures removed(*this);
    const locked lock(*this, at.home, loading);
    auto stale = at.home.fall_back(at.asked, mode, removed.list);
    if (!stale) return failure(error);
    stale->error = error;
    return result(*std::move(stale));
  }

  static result failure(std::exception_ptr error) {
    return result({.outcome = cache_outcome::failed, .error = std::move(error)});
  }

  static result recursion() {
    return failure(std::make_exception_ptr(std::logic_error(detail::describe(
        {"loading_cache::get_or_load", "the key", "one that this thread is loading",
         "any other key", "the load under way goes on",
         "a loader must not ask for its own key"}))));
  }

  static result gave_up(const stop_token& token) {
    return result(
        {.outcome = token.stop_requested() ? cache_outcome::stopped : cache_outcome::timed_out});
  }

  // ---- background refreshes -------------------------------------------------------------------

  /// Posts the load that `planned` asks for. Result: whether its answer may be given: it is fresh,
  /// or the load was accepted. If not accepted, the flight is abandoned.
  template <class Loader>
  bool refresh(const place& at, const plan& planned, const Loader& loader) {
    if constexpr (std::copy_constructible<Loader>) {
      VELTRIX_TRY {
        using refresh_task = detail::cache_refresh<loading_cache, Loader>;
        detail::task work(refresh_task(gate_, *this, at.asked, planned.under_way, loader));
        if (background_(std::move(work))) return true;
      }
      VELTRIX_CATCH_ALL {}  // no memory, or the loader or the key would not be copied
    }
    abandon(at.asked.hash, planned.under_way);
    if (planned.answer.outcome == cache_outcome::hit) return true;
    const locked lock(*this, at.home, loading);
    at.home.take_back_stale();
    return false;
  }

  /// In the executor's thread, while the gate is entered.
  template <class Loader>
  void run_refresh(const detail::hashed_key<Key>& asked, const flight_ptr& mine,
                   Loader& loader) noexcept {
    const place at = of_hash(asked);
    {
      const locked lock(*this, at.home, loading);
      if (!at.home.begin_refresh(asked.hash, mine)) return;
    }
    fly(at, mine, loader, read_mode::snapshot());
  }

  void abandon(std::uint64_t hash, const flight_ptr& mine) noexcept {
    shard& home = *shards_[(hash >> 32) % shards_.size()];
    const locked lock(*this, home, loading);
    home.abandon(hash, mine);
  }

  // ---- invalidation ---------------------------------------------------------------------------

  template <class Predicate>
  std::size_t invalidate_in(shard& home, Predicate& predicate) {
    std::vector<typename shard::collected> chosen = collect(home);
    for (auto& each : chosen)  // marked, not erased: a key need not be assignable
      each.wanted = each.value == nullptr || predicate(each.key, *each.value);
    departures removed(*this);
    const locked lock(*this, home, "loading_cache::invalidate_if");
    return home.invalidate_those(chosen, removed.list);
  }

  std::vector<typename shard::collected> collect(shard& home) {
    const locked lock(*this, home, "loading_cache::invalidate_if");
    return home.collect();
  }

  mutable detail::usage use_;
  detail::cache_rules<Clock> rules_;
  poster background_;                           // empty: no background refreshes
  std::shared_ptr<detail::refresh_gate> gate_;  // null: no background refreshes
  hooks hooks_;                                 // called from many threads at once
  std::vector<std::unique_ptr<shard>> shards_;
  detail::sync::atomic<std::uint64_t> listener_failures_{0};  // relaxed: statistics only
};

}  // namespace VELTRIX_ABI
}  // namespace veltrix
