// A bounded concurrent cache that loads each missing key once, and knows how old its answers are.
// Use for: values that are dear to fetch and may be asked for by many threads at once.
// Not for: the only copy of anything; unbounded key sets without a bound on weight.
// Threads: all members may be called from any thread.
// Progress: hits take one shard's mutex for a few steps; a miss waits for the one load of its key.
// Callbacks: loader, check, predicate, weigher, listener: no lock held. Hash, equality: a shard's.
// Exceptions: a loader's is handed to all who wait; a listener's is counted; std::bad_alloc passes.
// Lifetime: results keep their values alive; the destructor waits for background refreshes.
// Guide: docs/loading_cache.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <list>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include "clock.hpp"
#include "detail/cache_flight.hpp"
#include "detail/cache_result.hpp"
#include "detail/cache_shard.hpp"
#include "detail/hash.hpp"
#include "detail/message.hpp"
#include "detail/sync.hpp"
#include "detail/task.hpp"
#include "executor.hpp"
#include "stop_token.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// The cache.
///
/// I1: at most one flight per key is current, and a reader joins only a current one. invalidate()
///     and put() end that of the flights before them, and announce() keeps readers from joining
///     them: no load in flight undoes what came after it began.
/// I2: an entry's version never goes down while it stays.
/// I3: a shard's mutex is never held while user code but hash and equality runs.
template <class Key, class Value, class Hash = detail::default_hash<Key>,
          class Equal = detail::default_equal, class Clock = steady_clock>
class loading_cache {
  static_assert(clock_source<Clock>, "loading_cache: Clock needs now(); see veltrix/clock.hpp");
  static_assert(std::copy_constructible<Key>, "loading_cache: Key must be copyable");

 public:
  using result = cache_result<Value>;
  /// The weight of an entry, in any unit; called once per store.
  using weigher = detail::unique_function<std::uint64_t(const Key&, const Value&)>;
  /// Told of each entry that left; exceptions are counted.
  using listener =
      detail::unique_function<void(const Key&, const std::shared_ptr<const Value>&, removal_cause)>;

  /// Callables that the cache keeps. Both may be empty.
  struct hooks {
    weigher weigh{};     ///< empty: each entry weighs 1
    listener removed{};  ///< empty: nobody is told
    Hash hash{};
    Equal equal{};
  };

  /// A cache that loads in the threads that ask.
  /// Throws std::invalid_argument for a bound of 0, a negative duration, or background refreshes
  /// (refresh_after, stale_while_revalidate), which need an executor.
  explicit loading_cache(const loading_cache_options& options, hooks kept = {})
    requires std::default_initializable<Clock>
      : loading_cache(options, default_clock(), std::move(kept)) {}

  /// The same, on a clock of the caller's, which outlives the cache.
  loading_cache(const loading_cache_options& options, Clock& clock, hooks kept = {})
      : loading_cache(options, clock, nullptr, std::move(kept)) {}

  /// The same, with an executor for background refreshes. It outlives the cache, and runs or
  /// destroys what it accepted.
  template <executor Executor>
  loading_cache(const loading_cache_options& options, Clock& clock, Executor& background,
                hooks kept = {})
      : loading_cache(options, clock, poster([&background](detail::task work) {
                        return background.try_post(std::move(work));
                      }),
                      std::move(kept)) {}

  loading_cache(const loading_cache&) = delete;
  loading_cache& operator=(const loading_cache&) = delete;

  /// Waits for the background refreshes under way.
  ~loading_cache() {
    detail::sync::unique_lock<mutex> lock(refresh_mutex_);
    while (refreshing_ != 0)
      refresh_ended_.wait(lock);  // woken by end_refresh(), after --refreshing_
  }

  /// The fresh entry of `key` (hit or absent), or miss. Never loads, never waits for a load. O(1).
  result get(const Key& key) {
    shard& home = shard_of(key);
    records removed;
    result answer;
    {
      const lock_guard lock(home.mutex);
      const time_point now = clock_.now();
      entry* const found = live(home, key, now, removed);
      if (found != nullptr && stale_since(*found) > now) {
        answer = serve(home, key, *found, now);
      } else {
        ++home.counts.misses;
      }
    }
    tell(removed);
    return answer;
  }

  /// The value of `key` as options.mode wants it, loading it if needed. One load per key is under
  /// way at a time; others join it. `loader(key)` runs in this thread, no lock held, and returns
  /// Value, loaded<Value>, or std::optional of either (empty: the source has no such key). If
  /// background refreshes are on, a copyable loader is copied and may run later, in the executor.
  /// A loader that asks the cache for its own key is refused with std::logic_error (failed).
  /// Does not throw what the loader throws: see cache_result::error(). O(1) and the load.
  template <class Loader>
  result get_or_load(const Key& key, const read_options& options, Loader loader) {
    static_assert(std::is_invocable_v<Loader&, const Key&>,
                  "loading_cache: the loader is called with a const Key&");
    const time_point asked_at = clock_.now();
    attempt tried;
    for (;;) {
      records removed;
      const plan next = look(key, options.mode, asked_at, tried, removed);
      tell(removed);
      if (next.step == step::serve) return next.answer;
      if (next.step == step::load) return load(key, next.under_way, loader, options.mode);
      if (next.step == step::serve_and_refresh) {
        if (refresh(key, next.under_way, loader) || next.answer.outcome() == cache_outcome::hit) {
          return next.answer;
        }
        tried.no_background = true;  // nobody will do it for us
        continue;
      }
      if (next.under_way->is_mine()) return recursion();
      const landing got = next.under_way->wait(options.deadline, options.token);
      if (got.end == detail::flight_end::under_way) return gave_up(options.token);
      if (acceptable(got, options.mode)) return deliver(key, got, *next.under_way, options.mode);
      tried.joined = true;  // abandoned, or older than asked for: look again, and load if need be
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
    VELTRIX_TRY {
      options.mode = read_mode::at_least(check(key));
    }
    VELTRIX_CATCH_ALL {
      return failure(std::current_exception());
    }
    return get_or_load(key, options, std::move(loader));
  }

  /// Stores `given.value` as if it had just been loaded. A load under way will not overwrite it.
  /// @return false if it was not stored: too heavy (an older entry is gone then, too), or a newer
  ///         version is here already
  bool put(const Key& key, loaded<Value> given) {
    landing got;
    got.end = detail::flight_end::arrived;
    got.value = std::make_shared<const Value>(std::move(given.value));
    got.version = given.version == 0 ? floor() : given.version;
    const std::uint64_t weight = weigh(key, got);
    shard& home = shard_of(key);
    records removed;
    bool stored = false;
    {
      const lock_guard lock(home.mutex);
      home.flights.erase(key);
      stored = store(home, key, got, clock_.now(), given.ttl, weight, removed);
    }
    tell(removed);
    return stored;
  }
  bool put(const Key& key, Value value) { return put(key, loaded<Value>{std::move(value)}); }

  /// Removes `key`. A load under way still answers those who wait for it, but is not stored, and
  /// later readers do not join it. Result: whether an entry was there. O(1).
  bool invalidate(const Key& key) {
    shard& home = shard_of(key);
    records removed;
    bool there = false;
    {
      const lock_guard lock(home.mutex);
      home.flights.erase(key);
      there = home.held.remove(key, removal_cause::invalidated, removed);
    }
    tell(removed);
    return there;
  }

  /// Removes each entry with `predicate(key, value)`; absent ones are removed too. What is loading
  /// now is not stored. The predicate runs with no lock held, on the entries of one shard after the
  /// other. Result: how many were removed. O(size), and copies the keys of one shard at a time.
  template <class Predicate>
  std::size_t invalidate_if(Predicate predicate) {
    std::size_t count = 0;
    for (const std::unique_ptr<shard>& home : shards_)
      count += invalidate_in(*home, predicate);
    return count;
  }

  /// Makes every entry and every load under way count no more, at once. O(shards); the memory comes
  /// back as the entries are met or evicted, or with purge().
  void invalidate_all() {
    for (const std::unique_ptr<shard>& home : shards_) {
      const lock_guard lock(home->mutex);
      ++home->epoch;
      home->flights.clear();
    }
  }

  /// Says that the source is now at `version`: every entry read at an older one is stale from now
  /// on, and no load that began before is joined. A lower version than before changes nothing. O(1).
  void announce(std::uint64_t version) {
    const lock_guard lock(announce_mutex_);
    if (version <= floor_.load(detail::sync::relaxed)) return;  // relaxed: announce_mutex_ is held
    announced_at_.store(clock_.now().time_since_epoch().count(), detail::sync::relaxed);
    // (2) release-store; pairs with acquire-load (1). Publishes: announced_at_ before floor_.
    floor_.store(version, detail::sync::release);
  }

  /// Removes what is past serving in any mode. Result: how many. O(size), one shard at a time.
  std::size_t purge() {
    std::size_t count = 0;
    for (const std::unique_ptr<shard>& home : shards_) {
      records removed;
      {
        const lock_guard lock(home->mutex);
        const time_point now = clock_.now();
        count +=
            home->held.remove_if([&](const record& each) { return is_gone(*home, each.held, now); },
                                 removal_cause::expired, removed);
      }
      tell(removed);
    }
    return count;
  }

  /// Takes every shard's mutex in turn; each count is right for a moment of its own. O(shards).
  [[nodiscard]] loading_cache_stats stats() const {
    loading_cache_stats sum;
    for (const std::unique_ptr<shard>& home : shards_) {
      const lock_guard lock(home->mutex);
      sum.hits += home->counts.hits;
      sum.misses += home->counts.misses;
      sum.loads += home->counts.loads;
      sum.load_failures += home->counts.load_failures;
      sum.joined += home->counts.joined;
      sum.stale_served += home->counts.stale_served;
      sum.not_stored += home->counts.not_stored;
      sum.refreshes += home->counts.refreshes;
      sum.evicted += home->counts.evicted;
      sum.entries += home->held.size();
      sum.weight += home->held.weight();
    }
    sum.listener_failures = listener_failures_.load(detail::sync::relaxed);
    return sum;
  }

  [[nodiscard]] std::size_t shard_count() const noexcept { return shards_.size(); }

 private:
  using mutex = detail::sync::mutex;
  using lock_guard = detail::sync::lock_guard<mutex>;
  using entry = detail::cache_entry<Value>;
  using record = detail::cache_record<Key, Value>;
  using records = std::list<record>;
  using flight = detail::cache_flight<Value>;
  using flight_ptr = std::shared_ptr<flight>;
  using landing = detail::flight_result<Value>;
  using poster = detail::unique_function<post_result(detail::task)>;
  struct alignas(detail::cache_line) shard {
    shard(std::size_t max_entries, std::uint64_t max_weight, const Hash& hash, const Equal& equal)
        : held(max_entries, max_weight, hash, equal), flights(0, hash, equal) {}

    detail::sync::mutex mutex;  // guards everything below
    detail::cache_shard<Key, Value, Hash, Equal> held;
    std::unordered_map<Key, flight_ptr, Hash, Equal> flights;  // the current ones (I1)
    std::uint64_t epoch = 0;                                   // invalidate_all() so far
    loading_cache_stats counts;
  };

  enum class step : std::uint8_t { serve, serve_and_refresh, load, join };
  struct plan {
    enum step step = step::serve;
    result answer{};         // serve, serve_and_refresh
    flight_ptr under_way{};  // load, serve_and_refresh: ours to end; join: another's
  };
  struct attempt {  // what this call has tried in vain
    bool joined = false;
    bool no_background = false;
  };

  loading_cache(const loading_cache_options& options, Clock& clock, poster background, hooks kept)
      : options_(detail::checked(options, static_cast<bool>(background))),
        clock_(clock),
        background_(std::move(background)),
        hooks_(std::move(kept)) {
    const std::size_t count = options_.shards;
    shards_.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
      shards_.push_back(std::make_unique<shard>(
          options_.max_entries / count + (i < options_.max_entries % count ? 1 : 0),
          options_.max_weight / count + (i < options_.max_weight % count ? 1 : 0), hooks_.hash,
          hooks_.equal));
    }
  }

  static Clock& default_clock() {
    static Clock shared;  // stateless by the concept default_initializable and steady_clock
    return shared;
  }

  shard& shard_of(const Key& key) const {
    // Another seed than the tables inside use, so that a shard's keys still spread in its table.
    return *shards_[detail::mix(hooks_.hash(key), 0x5eedULL) % shards_.size()];
  }

  std::uint64_t floor() const noexcept {
    return floor_.load(detail::sync::acquire);  // (1) acquire-load; pairs with release-store (2)
  }

  // ---- one shard, its mutex held --------------------------------------------------------------

  /// From when on `held` is stale: its time is over, or something newer was announced.
  time_point stale_since(const entry& held) const noexcept {
    if (held.version >= floor()) return held.expires_at;
    const time_point announced(duration(announced_at_.load(detail::sync::relaxed)));
    return std::min(held.expires_at, announced);
  }

  bool is_gone(const shard& home, const entry& held, time_point now) const noexcept {
    if (held.epoch != home.epoch) return true;
    if (now >= saturating_add(held.used_at, options_.idle)) return true;
    const duration grace = std::max(options_.stale_while_revalidate, options_.stale_if_error);
    return now >= saturating_add(stale_since(held), held.value ? grace : duration::zero());
  }

  /// The entry of `key` if it may be served in some mode; one that is gone is removed.
  entry* live(shard& home, const Key& key, time_point now, records& removed) {
    entry* const found = home.held.find(key);
    if (found == nullptr || !is_gone(home, *found, now)) return found;
    const bool invalidated = found->epoch != home.epoch;
    home.held.remove(key, invalidated ? removal_cause::invalidated : removal_cause::expired,
                     removed);
    return nullptr;
  }

  static bool meets(const read_mode& mode, const entry& held, time_point asked_at) noexcept {
    if (held.version < mode.required_) return false;
    return saturating_add(held.read_at, mode.max_age_) >= asked_at;
  }

  /// An answer from `held`; counts it, and makes it the most recently used.
  result serve(shard& home, const Key& key, const entry& held, time_point now) {
    result answer;
    const bool stale = stale_since(held) <= now;
    answer.outcome_ = !held.value ? cache_outcome::absent
                      : stale     ? cache_outcome::stale
                                  : cache_outcome::hit;
    answer.value_ = held.value;
    answer.age_ = now - held.read_at;
    answer.version_ = held.version;
    ++(stale ? home.counts.stale_served : home.counts.hits);
    home.held.touch(key, now);
    return answer;
  }

  /// A new current flight for `key`; one before it is current no more.
  flight_ptr begin(shard& home, const Key& key, time_point now) {
    auto started = std::make_shared<flight>(now, floor());
    home.flights.insert_or_assign(key, started);
    return started;
  }

  plan look(const Key& key, const read_mode& mode, time_point asked_at, const attempt& tried,
            records& removed) {
    shard& home = shard_of(key);
    const lock_guard lock(home.mutex);
    const time_point now = clock_.now();
    const auto current = home.flights.find(key);
    const flight_ptr under_way = current == home.flights.end() ? nullptr : current->second;
    const bool may_refresh = background_ && !under_way && !tried.no_background;

    if (const entry* const found = live(home, key, now, removed);
        found != nullptr && meets(mode, *found, asked_at)) {
      const time_point since = stale_since(*found);
      const bool fresh = since > now;
      const bool tolerable = found->value && background_ && !tried.no_background &&
                             now < saturating_add(since, options_.stale_while_revalidate);
      if (fresh || tolerable) {
        const bool due = !fresh || (found->value && options_.refresh_after <= now - found->read_at);
        plan next{step::serve, serve(home, key, *found, now), nullptr};
        if (due && may_refresh) {
          next.under_way = begin(home, key, now);
          next.step = step::serve_and_refresh;
          ++home.counts.refreshes;
        }
        return next;
      }
    }
    ++home.counts.misses;
    const bool joinable = under_way && under_way->floor_at_start >= floor() &&
                          saturating_add(under_way->started_at, mode.max_age_) >= asked_at &&
                          !(tried.joined && mode.required_ != 0);
    if (joinable) {
      ++home.counts.joined;
      return {step::join, {}, under_way};
    }
    return {step::load, {}, begin(home, key, now)};
  }

  /// Stores what arrived, unless something newer is here. Result: whether it was stored.
  bool store(shard& home, const Key& key, const landing& got, time_point read_at, duration own_ttl,
             std::uint64_t weight, records& removed) {
    const time_point now = clock_.now();
    entry held;
    held.value = got.value;
    held.read_at = read_at;
    held.used_at = now;
    held.version = got.version;
    held.epoch = home.epoch;
    held.weight = weight;
    held.expires_at = saturating_add(
        read_at, got.value ? std::min(options_.ttl, own_ttl) : options_.negative_ttl);
    const entry* const before = live(home, key, now, removed);
    const bool overtaken = before != nullptr && before->version > held.version;
    const std::size_t told = removed.size();
    bool stored = !overtaken && home.held.store(key, std::move(held), removed);
    if (!stored) {
      ++home.counts.not_stored;
      if (!overtaken)
        home.held.remove(key, removal_cause::replaced, removed);  // too heavy: outdated
    }
    for (auto each = std::next(removed.begin(), static_cast<std::ptrdiff_t>(told));
         each != removed.end(); ++each) {
      const bool evicted = each->cause == removal_cause::evicted_count ||
                           each->cause == removal_cause::evicted_weight;
      home.counts.evicted += evicted ? 1 : 0;
    }
    return stored;
  }

  // ---- no lock held ---------------------------------------------------------------------------

  std::uint64_t weigh(const Key& key, const landing& got) {
    return got.value && hooks_.weigh ? hooks_.weigh(key, *got.value) : 1;
  }

  void tell(const records& removed) noexcept {
    if (!hooks_.removed) return;
    for (const record& each : removed) {
      VELTRIX_TRY {
        hooks_.removed(each.key, each.held.value, each.cause);
      }
      VELTRIX_CATCH_ALL {
        listener_failures_.fetch_add(1, detail::sync::relaxed);
      }
    }
  }

  /// Calls the loader; what it throws becomes the result. `own_ttl` is set if it tells one.
  template <class Loader>
  landing call(const Key& key, Loader& loader, const read_mode& mode, const flight& mine,
               duration& own_ttl) {
    landing got;
    // A load that began after the source told `required` reads that or something newer.
    got.version = std::max(mine.floor_at_start, mode.required_);
    VELTRIX_TRY {
      take(loader(key), got, own_ttl);
      got.end = detail::flight_end::arrived;
    }
    VELTRIX_CATCH_ALL {
      got = landing{};
      got.end = detail::flight_end::failed;
      got.error = std::current_exception();
    }
    return got;
  }

  template <class Answer>
  static void take(Answer&& answer, landing& got, duration& own_ttl) {
    using plain = std::remove_cvref_t<Answer>;
    if constexpr (std::same_as<plain, std::optional<Value>> ||
                  std::same_as<plain, std::optional<loaded<Value>>>) {
      if (answer) take(*std::forward<Answer>(answer), got, own_ttl);
    } else if constexpr (std::same_as<plain, loaded<Value>>) {
      got.value = std::make_shared<const Value>(std::forward<Answer>(answer).value);
      if (answer.version != 0) got.version = answer.version;
      own_ttl = answer.ttl;
    } else {
      static_assert(std::convertible_to<Answer, Value>,
                    "loading_cache: a loader returns Value, loaded<Value>, or an optional of them");
      got.value = std::make_shared<const Value>(std::forward<Answer>(answer));
    }
  }

  /// Runs the load, stores what it brought if the flight is still current, and wakes who waits.
  template <class Loader>
  landing fly(const Key& key, const flight_ptr& mine, Loader& loader, const read_mode& mode) {
    mine->claim();
    duration own_ttl = duration::max();
    landing got = call(key, loader, mode, *mine, own_ttl);
    records removed;
    VELTRIX_TRY {
      const std::uint64_t weight = weigh(key, got);
      shard& home = shard_of(key);
      const lock_guard lock(home.mutex);
      ++home.counts.loads;
      if (got.end == detail::flight_end::failed) ++home.counts.load_failures;
      const bool was_current = retire(home, key, mine);
      if (got.end == detail::flight_end::arrived) {
        if (was_current) {
          store(home, key, got, mine->started_at, own_ttl, weight, removed);
        } else {
          ++home.counts.not_stored;
        }
      }
    }
    VELTRIX_CATCH_ALL {
      forget(key, mine);
    }  // the weigher threw, or no memory: answered, not stored
    mine->finish(got);
    tell(removed);
    return got;
  }

  /// Takes `mine` out of the current flights. Result: whether it was there. Mutex held.
  static bool retire(shard& home, const Key& key, const flight_ptr& mine) {
    const auto current = home.flights.find(key);
    if (current == home.flights.end() || current->second != mine) return false;
    home.flights.erase(current);
    return true;
  }

  void forget(const Key& key, const flight_ptr& mine) {
    shard& home = shard_of(key);
    const lock_guard lock(home.mutex);
    ++home.counts.not_stored;
    retire(home, key, mine);
  }

  template <class Loader>
  result load(const Key& key, const flight_ptr& mine, Loader& loader, const read_mode& mode) {
    const landing got = fly(key, mine, loader, mode);
    return deliver(key, got, *mine, mode);
  }

  static bool acceptable(const landing& got, const read_mode& mode) noexcept {
    if (got.end == detail::flight_end::abandoned) return false;
    if (got.end == detail::flight_end::failed) return true;
    return got.version >= mode.required_;
  }

  /// The answer to one reader of a flight that has ended.
  result deliver(const Key& key, const landing& got, const flight& from, const read_mode& mode) {
    if (got.end == detail::flight_end::failed) return stale_or_failed(key, got.error, mode);
    if (got.version < mode.required_) {
      return failure(std::make_exception_ptr(std::runtime_error(detail::describe(
          {"loading_cache::get_or_load", "the version the loader returned",
           detail::text_of(got.version), "at least " + detail::text_of(mode.required_),
           "no older value is served", "ask a source that has caught up"}))));
    }
    result answer;
    answer.outcome_ = got.value ? cache_outcome::loaded : cache_outcome::absent;
    answer.value_ = got.value;
    answer.age_ = clock_.now() - from.started_at;
    answer.version_ = got.version;
    return answer;
  }

  result stale_or_failed(const Key& key, const std::exception_ptr& error, const read_mode& mode) {
    result answer = failure(error);
    records removed;
    {
      shard& home = shard_of(key);
      const lock_guard lock(home.mutex);
      const time_point now = clock_.now();
      const entry* const found = live(home, key, now, removed);
      if (found != nullptr && found->value && meets(mode, *found, now) &&
          now < saturating_add(stale_since(*found), options_.stale_if_error)) {
        answer = serve(home, key, *found, now);
        answer.error_ = error;
      }
    }
    tell(removed);
    return answer;
  }

  static result failure(std::exception_ptr error) {
    result answer;
    answer.outcome_ = cache_outcome::failed;
    answer.error_ = std::move(error);
    return answer;
  }

  static result recursion() {
    return failure(std::make_exception_ptr(std::logic_error(detail::describe(
        {"loading_cache::get_or_load", "the key", "one that this thread is loading",
         "any other key", "the load under way goes on",
         "a loader must not ask for its own key"}))));
  }

  static result gave_up(const stop_token& token) {
    result answer;
    answer.outcome_ = token.stop_requested() ? cache_outcome::stopped : cache_outcome::timed_out;
    return answer;
  }

  // ---- background refreshes -------------------------------------------------------------------

  /// A refresh that was begun. If it is destroyed before it ran, its flight is abandoned.
  template <class Loader>
  class refresh_task {
   public:
    refresh_task(loading_cache& owner, const Key& key, flight_ptr mine, const Loader& loader)
        : owner_(&owner), key_(key), mine_(std::move(mine)), loader_(loader) {
      const lock_guard lock(owner.refresh_mutex_);
      ++owner.refreshing_;
    }
    refresh_task(refresh_task&& other) noexcept(std::is_nothrow_move_constructible_v<Key> &&
                                                std::is_nothrow_move_constructible_v<Loader>)
        : owner_(std::exchange(other.owner_, nullptr)),
          key_(std::move(other.key_)),
          mine_(std::move(other.mine_)),
          loader_(std::move(other.loader_)) {}
    refresh_task& operator=(refresh_task&&) = delete;
    ~refresh_task() {
      if (owner_ == nullptr) return;
      if (mine_) owner_->abandon(key_, mine_);
      owner_->end_refresh();
    }

    void operator()() {
      owner_->fly(key_, std::exchange(mine_, nullptr), loader_, read_mode::snapshot());
    }

   private:
    loading_cache* owner_;
    Key key_;
    flight_ptr mine_;  // null once it ran
    Loader loader_;
  };

  /// Posts the load of `mine`. Result: whether it was accepted; if not, the flight is abandoned.
  template <class Loader>
  bool refresh(const Key& key, const flight_ptr& mine, const Loader& loader) {
    if constexpr (std::copy_constructible<Loader>) {
      VELTRIX_TRY {
        return static_cast<bool>(
            background_(detail::task(refresh_task<Loader>(*this, key, mine, loader))));
      }
      VELTRIX_CATCH_ALL {}
    }
    abandon(key, mine);
    return false;
  }

  void abandon(const Key& key, const flight_ptr& mine) {
    {
      shard& home = shard_of(key);
      const lock_guard lock(home.mutex);
      retire(home, key, mine);
    }
    landing nothing;
    nothing.end = detail::flight_end::abandoned;
    mine->finish(nothing);
  }

  void end_refresh() {
    // Notified under the mutex: the destructor may go on as soon as it is free.
    const lock_guard lock(refresh_mutex_);
    --refreshing_;
    refresh_ended_.notify_all();
  }

  template <class Predicate>
  std::size_t invalidate_in(shard& home, Predicate& predicate) {
    std::vector<std::pair<Key, std::shared_ptr<const Value>>> chosen;
    {
      const lock_guard lock(home.mutex);
      home.flights.clear();
      chosen.reserve(home.held.size());
      for (const record& each : home.held.in_order())
        chosen.emplace_back(each.key, each.held.value);
    }
    std::erase_if(chosen, [&](const auto& each) {
      return each.second && !predicate(each.first, *each.second);
    });
    records removed;
    {
      const lock_guard lock(home.mutex);
      for (const auto& [key, value] : chosen) {
        const entry* const found = home.held.find(key);
        if (found == nullptr || found->value != value) continue;
        home.held.remove(key, removal_cause::invalidated, removed);
      }
    }
    tell(removed);
    return removed.size();
  }

  const loading_cache_options options_;
  Clock& clock_;
  poster background_;  // empty: no background refreshes
  hooks hooks_;        // called from many threads at once
  std::vector<std::unique_ptr<shard>> shards_;

  mutex announce_mutex_;                                      // guards the order of announcements
  detail::sync::atomic<std::uint64_t> floor_{0};              // the announced version
  detail::sync::atomic<std::int64_t> announced_at_{0};        // relaxed: published by floor_
  detail::sync::atomic<std::uint64_t> listener_failures_{0};  // relaxed: statistics only

  mutex refresh_mutex_;                             // guards refreshing_
  detail::sync::condition_variable refresh_ended_;  // refreshing_ fell
  std::size_t refreshing_ = 0;                      // guarded by refresh_mutex_
};

}  // namespace VELTRIX_ABI
}  // namespace veltrix
