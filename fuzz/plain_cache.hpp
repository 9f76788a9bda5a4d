// A plain model of loading_cache for one thread and one shard: what is kept, since when it is
// stale, what a read answers, who leaves and why. Lists that are walked; no table, lock or fault.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "veltrix/loading_cache.hpp"

namespace veltrix_fuzz {

struct cached_value {
  int number = 0;
  std::uint64_t weight = 1;
};

/// What a loader brings.
struct plain_arrival {
  bool fails = false;
  std::optional<cached_value> value{};  // empty: the source has no such key
  std::uint64_t version = 0;            // 0: none told
  veltrix::duration ttl = veltrix::duration::max();
};

struct plain_answer {
  veltrix::cache_outcome outcome = veltrix::cache_outcome::miss;
  std::optional<int> number{};
  veltrix::duration age{};
  std::uint64_t version = 0;
  bool error = false;
};

struct plain_removal {
  int key;
  std::optional<int> number;
  veltrix::removal_cause cause;

  friend bool operator==(const plain_removal&, const plain_removal&) = default;
};

/// What an executor does with a refresh.
enum class refresh_fate : std::uint8_t { kept, run_at_once, refused };

class plain_cache {
 public:
  using duration = veltrix::duration;
  using time_point = veltrix::time_point;
  using outcome = veltrix::cache_outcome;
  using cause = veltrix::removal_cause;
  /// Runs once per load; may call the cache.
  using loader = std::function<plain_arrival()>;

  plain_cache(const veltrix::loading_cache_options& options, bool has_executor, time_point start)
      : now(start), options_(options), has_executor_(has_executor) {}

  time_point now;
  refresh_fate fate = refresh_fate::kept;
  veltrix::loading_cache_stats count{};  // but for entries and weight
  std::vector<plain_removal> removed{};  // told to the listener, in order

  plain_answer get(int key) {
    entry* const here = find_live(key);
    if (here != nullptr && stale_since(*here) > now) return serve(key);
    ++count.misses;
    return {};
  }

  plain_answer get_or_load(int key, const veltrix::read_mode& mode, const loader& load) {
    const time_point asked_at = now;
    bool may_refresh = has_executor_;
    bool missed = false;
    for (;;) {
      entry* const here = find_live(key);
      if (here != nullptr && meets(mode, *here, asked_at) &&
          (stale_since(*here) > now || (may_refresh && may_revalidate(*here)))) {
        const bool due = stale_since(*here) <= now ||
                         (here->value && options_.refresh_after <= now - here->read_at);
        plain_answer answer = serve(key);
        if (!due || !may_refresh || current_flight(key) != nullptr) return answer;
        if (post_refresh(key, load) || answer.outcome == outcome::hit) return answer;
        --count.stale_served;
        may_refresh = false;
        continue;
      }
      if (!std::exchange(missed, true)) ++count.misses;
      flight* const under_way = current_flight(key);
      if (under_way != nullptr && under_way->begun)
        return {.outcome = outcome::failed, .error = true};
      const std::uint64_t mine = add_flight(key);
      const time_point began = now;
      return deliver(key, mode, began, fly(key, mine, began, mode.required(), load));
    }
  }

  bool put(int key, const plain_arrival& given) {
    plain_arrival got = given;
    const bool stored =
        store(key, got, given.version != 0 ? given.version : floor_, now) == kept::yes;
    if (flights_.contains(key) && last_store_ != kept::overtaken) flights_.erase(key);
    return stored;
  }

  bool invalidate(int key) {
    const bool present = find_live(key) != nullptr;
    flights_.erase(key);
    if (present) remove(key, cause::invalidated);
    return present;
  }

  template <class Predicate>
  std::size_t invalidate_if(Predicate predicate) {
    std::vector<int> chosen;
    for (const entry& each : entries_) {
      if (!is_gone(each) && (!each.value || predicate(each.value->number)))
        chosen.push_back(each.key);
    }
    ++epoch_;
    for (const int key : chosen)
      remove(key, cause::invalidated);
    return chosen.size();
  }

  void invalidate_all() {
    ++epoch_;
    for (entry& each : entries_)
      each.invalidated = true;
  }

  void announce(std::uint64_t version) { announce_at(version, now); }
  void announce_at(std::uint64_t version, time_point at) {
    if (version <= floor_) return;
    floor_ = version;
    announced_.emplace_back(version, at);
  }

  std::size_t purge() {
    std::vector<int> gone;
    for (const entry& each : entries_) {
      if (is_gone(each)) gone.push_back(each.key);
    }
    for (const int key : gone)
      remove_gone(key);
    return gone.size();
  }

  /// The executor runs, or destroys, the refresh `which`.
  void run_refresh(std::size_t which) {
    const pending chosen = waiting_[which];
    waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(which));
    begin_refresh(chosen);
  }
  void drop_refresh(std::size_t which) {
    const pending chosen = waiting_[which];
    waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(which));
    end_flight(chosen.key, chosen.flight);
  }
  std::size_t waiting() const { return waiting_.size(); }

  std::size_t size() const { return entries_.size(); }
  std::uint64_t weight() const {
    std::uint64_t sum = 0;
    for (const entry& each : entries_)
      sum += each.weight;
    return sum;
  }
  std::uint64_t floor() const { return floor_; }

  /// After a fault: nothing is kept and nothing is under way.
  void forget_all() {
    entries_.clear();
    flights_.clear();
    waiting_.clear();
    ++epoch_;
  }

 private:
  struct entry {
    int key;
    std::optional<cached_value> value;
    time_point read_at;
    time_point expires_at;
    time_point used_at;
    std::uint64_t version;
    std::uint64_t weight;
    bool invalidated = false;
  };
  struct flight {
    std::uint64_t id;
    std::uint64_t epoch;
    bool begun;
  };
  struct pending {
    int key;
    std::uint64_t flight;
    loader load;
  };
  enum class kept : std::uint8_t { yes, overtaken, no };

  // --- time and version ---

  time_point stale_since(const entry& held) const {
    time_point since = held.expires_at;
    if (held.version >= floor_) return since;
    for (const auto& [version, at] : announced_) {
      if (version > held.version) return std::min(since, at);
    }
    return since;
  }
  bool is_gone(const entry& held) const {
    const duration grace = std::max(options_.stale_while_revalidate, options_.stale_if_error);
    return held.invalidated || now >= veltrix::saturating_add(held.used_at, options_.idle) ||
           now >= veltrix::saturating_add(stale_since(held), held.value ? grace : duration::zero());
  }
  static bool meets(const veltrix::read_mode& mode, const entry& held, time_point asked_at) {
    return held.version >= mode.required() &&
           veltrix::saturating_add(held.read_at, mode.max_age()) >= asked_at;
  }
  bool may_revalidate(const entry& held) const {
    return held.value &&
           now < veltrix::saturating_add(stale_since(held), options_.stale_while_revalidate);
  }

  // --- entries: the most recently used first ---

  auto place(int key) {
    return std::find_if(entries_.begin(), entries_.end(),
                        [key](const entry& each) { return each.key == key; });
  }
  void remove(int key, cause why) {
    const auto at = place(key);
    removed.push_back({key, number_of(*at), why});
    entries_.erase(at);
  }
  void remove_gone(int key) {
    remove(key, place(key)->invalidated ? cause::invalidated : cause::expired);
  }
  static std::optional<int> number_of(const entry& held) {
    return held.value ? std::optional<int>(held.value->number) : std::nullopt;
  }
  entry* find_live(int key) {
    const auto at = place(key);
    if (at == entries_.end()) return nullptr;
    if (!is_gone(*at)) return &*at;
    remove_gone(key);
    return nullptr;
  }

  plain_answer serve(int key) {
    const auto at = place(key);
    const bool stale = stale_since(*at) <= now;
    ++(stale ? count.stale_served : count.hits);
    at->used_at = now;
    const entry held = *at;
    std::rotate(entries_.begin(), at, at + 1);
    const outcome what = !held.value ? outcome::absent : stale ? outcome::stale : outcome::hit;
    return {what, number_of(held), now - held.read_at, held.version, false};
  }

  kept store(int key, const plain_arrival& got, std::uint64_t version, time_point read_at) {
    return last_store_ = store_now(key, got, version, read_at);
  }
  kept store_now(int key, const plain_arrival& got, std::uint64_t version, time_point read_at) {
    const duration lifetime = got.value ? std::min(options_.ttl, got.ttl) : options_.negative_ttl;
    const std::uint64_t weight = got.value ? got.value->weight : 1;
    const entry fresh{key, got.value, read_at, veltrix::saturating_add(read_at, lifetime),
                      now, version,   weight};
    entry* const before = find_live(key);
    if (before != nullptr && got.version != 0 && before->version > version) {
      ++count.not_stored;
      return kept::overtaken;
    }
    if (weight > options_.max_weight || is_gone(fresh)) {
      ++count.not_stored;
      if (before != nullptr) remove(key, cause::replaced);
      return kept::no;
    }
    if (before != nullptr) remove(key, cause::replaced);
    while (entries_.size() >= options_.max_entries)
      evict(cause::evicted_count);
    while (this->weight() > options_.max_weight - weight)
      evict(cause::evicted_weight);
    entries_.insert(entries_.begin(), fresh);
    return kept::yes;
  }
  void evict(cause why) {
    ++count.evicted;
    remove(entries_.back().key, why);
  }

  // --- loads ---

  flight* current_flight(int key) {
    const auto at = flights_.find(key);
    return at == flights_.end() || at->second.epoch != epoch_ ? nullptr : &at->second;
  }
  std::uint64_t add_flight(int key, bool begun = true) {
    flights_[key] = {++last_flight_, epoch_, begun};
    return last_flight_;
  }
  bool end_flight(int key, std::uint64_t mine) {
    const auto at = flights_.find(key);
    if (at == flights_.end() || at->second.id != mine) return false;
    const bool was_current = at->second.epoch == epoch_;
    flights_.erase(at);
    return was_current;
  }

  struct landing {
    plain_arrival got;
    std::uint64_t version;
  };
  landing fly(int key, std::uint64_t mine, time_point began, std::uint64_t required,
              const loader& load) {
    const std::uint64_t worth = std::max(floor_, required);
    const plain_arrival got = load();
    const std::uint64_t version = got.version != 0 ? got.version : worth;
    ++count.loads;
    if (got.fails) ++count.load_failures;
    const bool was_current = end_flight(key, mine);
    if (got.fails) return {got, version};
    if (was_current) {
      store(key, got, version, began);
    } else {
      ++count.not_stored;
    }
    return {got, version};
  }
  plain_answer deliver(int key, const veltrix::read_mode& mode, time_point began,
                       const landing& landed) {
    if (landed.got.fails) return fall_back(key, mode);
    if (landed.version < mode.required()) return {.outcome = outcome::failed, .error = true};
    if (!landed.got.value) return {outcome::absent, {}, now - began, landed.version, false};
    return {outcome::loaded, landed.got.value->number, now - began, landed.version, false};
  }
  plain_answer fall_back(int key, const veltrix::read_mode& mode) {
    entry* const here = find_live(key);
    if (here == nullptr || !here->value || !meets(mode, *here, now) ||
        now >= veltrix::saturating_add(stale_since(*here), options_.stale_if_error)) {
      return {.outcome = outcome::failed, .error = true};
    }
    plain_answer answer = serve(key);
    answer.error = true;
    return answer;
  }

  bool post_refresh(int key, const loader& load) {
    const std::uint64_t mine = add_flight(key, false);
    switch (fate) {
      case refresh_fate::kept: waiting_.push_back({key, mine, load}); return true;
      case refresh_fate::run_at_once: begin_refresh({key, mine, load}); return true;
      case refresh_fate::refused: end_flight(key, mine); return false;
    }
    return false;
  }
  void begin_refresh(const pending& chosen) {
    const auto at = flights_.find(chosen.key);
    if (at == flights_.end() || at->second.id != chosen.flight) return;
    if (at->second.epoch != epoch_) {
      flights_.erase(at);
      return;
    }
    at->second.begun = true;
    ++count.refreshes;
    static_cast<void>(fly(chosen.key, chosen.flight, now, 0, chosen.load));
  }

  const veltrix::loading_cache_options options_;
  const bool has_executor_;
  std::vector<entry> entries_;
  std::map<int, flight> flights_;  // by key
  std::vector<pending> waiting_;
  std::vector<std::pair<std::uint64_t, time_point>> announced_;
  std::uint64_t floor_ = 0;
  std::uint64_t epoch_ = 0;
  std::uint64_t last_flight_ = 0;
  kept last_store_ = kept::no;
};

}  // namespace veltrix_fuzz
