// loading_cache on a virtual clock and an executor that the bytes drive: reads in every mode, puts,
// invalidation, announced versions, refreshes that run late, at once or never; loaders that fail,
// take time and call the cache. Model: plain_cache.hpp. Hash, equality, copies, weigher and
// allocations fail too: then nothing wrong is served, and the cache goes on.
// SPDX-License-Identifier: BSL-1.0
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <utility>
#include <vector>

#include "driver.hpp"
#include "plain_cache.hpp"
#include "veltrix/clock.hpp"
#include "veltrix/loading_cache.hpp"

namespace veltrix_fuzz {
namespace {

using veltrix::cache_outcome;
using veltrix::duration;
using veltrix::read_mode;
using veltrix_test::faults;

/// Two neighbours share a hash.
struct touchy_key {
  explicit touchy_key(int number) : id(number) {}
  touchy_key(const touchy_key& other) : id(other.id) { faults::point(); }
  touchy_key& operator=(const touchy_key&) = delete;
  ~touchy_key() = default;
  int id;
};
struct touchy_hash {
  std::size_t operator()(const touchy_key& key) const {
    faults::point();
    return static_cast<std::size_t>(key.id / 2);
  }
};
struct touchy_equal {
  bool operator()(const touchy_key& left, const touchy_key& right) const {
    faults::point();
    return left.id == right.id;
  }
};

using cache_type = veltrix::loading_cache<touchy_key, cached_value, touchy_hash, touchy_equal,
                                          veltrix::virtual_clock>;

/// Takes, runs, refuses: as the bytes say. Its tasks are those of the model, in the same order.
class refresh_executor {
 public:
  veltrix::post_result try_post(veltrix::task&& work) {
    if (fate == refresh_fate::refused) return {veltrix::post_status::full, "no room"};
    veltrix::task taken(std::move(work));
    if (fate == refresh_fate::kept) {
      tasks_.push_back(std::move(taken));
    } else {
      taken();
    }
    return {};
  }
  std::size_t waiting() const { return tasks_.size(); }
  veltrix::task take(std::size_t which) {
    veltrix::task taken = std::move(tasks_[which]);
    tasks_.erase(tasks_.begin() + static_cast<std::ptrdiff_t>(which));
    return taken;
  }
  void clear() { tasks_.clear(); }

  refresh_fate fate = refresh_fate::kept;

 private:
  std::vector<veltrix::task> tasks_;
};

/// What one run of a loader does: made of bytes once, then done to the cache and to the model.
struct script {
  plain_arrival brings{};
  duration takes{};
  std::size_t meanwhile = 0;
  int other = 0;
  cached_value given{};
};

duration choose(byte_source& from, duration usual) {
  switch (from.below(5)) {
    case 0: return duration(10);
    case 1: return duration(40);
    case 2: return duration::zero();
    default: return usual;
  }
}

veltrix::loading_cache_options options(byte_source& from, bool has_executor) {
  veltrix::loading_cache_options made;
  made.max_entries = 1 + from.below(6);
  if (from.flag()) made.max_weight = 1 + from.below(24);
  made.shards = 1;
  made.ttl = choose(from, duration::max());
  made.idle = choose(from, duration::max());
  made.negative_ttl = choose(from, duration::zero());
  made.stale_if_error = choose(from, duration::zero());
  if (has_executor) {
    made.refresh_after = choose(from, duration::max());
    made.stale_while_revalidate = choose(from, duration::zero());
  }
  return made;
}

class session {
 public:
  explicit session(byte_source& from)
      : from_(from),
        has_executor_(from.flag()),
        options_(options(from, has_executor_)),
        model_(options_, has_executor_, clock_.now()) {
    cache_type::hooks hooks;
    hooks.weigh = [](const touchy_key&, const cached_value& value) {
      faults::point();
      return value.weight;
    };
    hooks.removed = [this](const touchy_key& key, const std::shared_ptr<const cached_value>& value,
                           veltrix::removal_cause cause) { told(key.id, value.get(), cause); };
    if (has_executor_) {
      cache_.emplace(options_, clock_, executor_, std::move(hooks));
    } else {
      cache_.emplace(options_, clock_, std::move(hooks));
    }
  }

  void run() {
    while (!from_.empty()) {
      step();
      compare();
    }
    if (from_.flag()) executor_.clear();
    cache_.reset();
    executor_.clear();  // tasks may end after the cache
  }

 private:
  void step() {
    const int key = any_key();
    switch (from_.below(16)) {
      case 0:
      case 1:
      case 2:
      case 3: return get_or_load(key);
      case 4: return linearizable(key);
      case 5:
      case 6: return get(key);
      case 7:
      case 8: return put(key);
      case 9: return invalidate(key);
      case 10: return invalidate_some();
      case 11: return announce();
      case 12: return purge();
      case 13: return advance();
      case 14: return run_refresh();
      default: return rarely();
    }
  }

  int any_key() { return static_cast<int>(from_.below(9)); }
  cached_value make_value(int key) {
    return {key * 1'000'000 + next_number_++, 1 + from_.below(from_.one_in(8) ? 40 : 6)};
  }
  std::uint64_t any_version() { return from_.flag() ? 0 : model_.floor() + 2 - from_.below(4) % 3; }

  script make_script(int key) {
    script made;
    made.brings.fails = from_.one_in(5);
    if (!from_.one_in(6)) made.brings.value = make_value(key);
    made.brings.version = made.brings.value ? any_version() : 0;
    if (from_.one_in(5)) made.brings.ttl = duration(static_cast<int>(from_.below(30)) - 3);
    if (!made.brings.value) made.brings.ttl = duration::max();
    made.takes = duration(from_.one_in(3) ? static_cast<int>(from_.below(60)) : 0);
    made.meanwhile = from_.one_in(3) ? 1 + from_.below(6) : 0;
    if (made.meanwhile == 4 && ++announcements_ > 80) made.meanwhile = 0;
    made.other = any_key();
    made.given = make_value(key);
    return made;
  }

  /// The loader of the cache: what the script says.
  auto loader(const script& does) {
    return [this, does](const touchy_key& key) -> std::optional<veltrix::loaded<cached_value>> {
      faults::point();
      clock_.advance(does.takes);
      const touchy_key other(does.other);
      switch (does.meanwhile) {
        case 1: static_cast<void>(cache_->put(key, does.given)); break;
        case 2: static_cast<void>(cache_->invalidate(key)); break;
        case 3: cache_->invalidate_all(); break;
        case 4: announce_in_loader(does.brings.version + 1); break;
        case 5: static_cast<void>(cache_->get(other)); break;
        case 6: recurse(key); break;
        default: break;
      }
      if (does.brings.fails) throw std::runtime_error("the loader fails");
      if (!does.brings.value) return std::nullopt;
      return veltrix::loaded<cached_value>{*does.brings.value, does.brings.version,
                                           does.brings.ttl};
    };
  }
  void announce_in_loader(std::uint64_t version) {
    const unfailing_memory ours;
    cache_->announce(version);
    announced_.emplace_back(version, clock_.now());
  }
  void recurse(const touchy_key& key) {
    const auto never = [](const touchy_key&) -> cached_value {
      disagree("a loader was called inside itself", __FILE__, __LINE__);
    };
    static_cast<void>(cache_->get_or_load(key, never));
  }
  static plain_arrival never() { disagree("the model loads inside a load", __FILE__, __LINE__); }
  /// The same, done to the model.
  plain_cache::loader model_loader(int key, const script& does) {
    return [this, key, does] {
      model_.now += does.takes;
      plain_arrival given{.value = does.given};
      switch (does.meanwhile) {
        case 1: model_.put(key, given); break;
        case 2: model_.invalidate(key); break;
        case 3: model_.invalidate_all(); break;
        case 4: model_.announce(does.brings.version + 1); break;
        case 5: model_.get(does.other); break;
        case 6: model_.get_or_load(key, read_mode::snapshot(), never); break;
        default: break;
      }
      return does.brings;
    };
  }

  read_mode any_mode() {
    switch (from_.below(4)) {
      case 0: return read_mode::bounded(duration(static_cast<int>(from_.below(50))));
      case 1: return read_mode::at_least(model_.floor() + from_.below(3));
      default: return read_mode::snapshot();
    }
  }

  void get_or_load(int key) {
    trace::add("get_or_load");
    const script does = make_script(key);
    const read_mode mode = any_mode();
    cache_type::result got;
    const bool certain =
        did([&] { got = cache_->get_or_load(touchy_key(key), {.mode = mode}, loader(does)); });
    check_value(key, got);
    if (certain) same(got, model_.get_or_load(key, mode, model_loader(key, does)));
  }
  void linearizable(int key) {
    trace::add("get_linearizable");
    const script does = make_script(key);
    const std::uint64_t current = model_.floor() + from_.below(3);
    const bool fails = from_.one_in(4);
    const auto check = [&](const touchy_key&) {
      if (fails) throw std::runtime_error("the check fails");
      return current;
    };
    cache_type::result got;
    const bool certain =
        did([&] { got = cache_->get_linearizable(touchy_key(key), {}, check, loader(does)); });
    check_value(key, got);
    require(!got || got.version() >= current, "get_linearizable never serves an older version");
    if (!certain) return;
    if (fails) return same(got, {.outcome = cache_outcome::failed, .error = true});
    same(got, model_.get_or_load(key, read_mode::at_least(current), model_loader(key, does)));
  }
  void get(int key) {
    trace::add("get");
    cache_type::result got;
    const bool certain = did([&] { got = cache_->get(touchy_key(key)); });
    check_value(key, got);
    if (certain) same(got, model_.get(key));
  }
  void put(int key) {
    trace::add("put");
    const plain_arrival given{.value = make_value(key),
                              .version = any_version(),
                              .ttl = from_.one_in(4) ? duration(from_.below(30)) : duration::max()};
    bool stored = false;
    const bool certain = did(
        [&] { stored = cache_->put(touchy_key(key), {*given.value, given.version, given.ttl}); });
    if (certain) agree(stored, model_.put(key, given), "whether a put was stored");
  }
  void invalidate(int key) {
    trace::add("invalidate");
    bool was_there = false;
    const bool certain = did([&] { was_there = cache_->invalidate(touchy_key(key)); });
    if (certain) agree(was_there, model_.invalidate(key), "whether there was something to remove");
  }
  void invalidate_some() {
    trace::add("invalidate_if");
    const int part = static_cast<int>(from_.below(3));
    std::size_t removed = 0;
    const bool certain = did([&] {
      removed = cache_->invalidate_if([part](const touchy_key&, const cached_value& value) {
        faults::point();
        return value.number % 3 == part;
      });
    });
    if (!certain) return;
    agree(removed, model_.invalidate_if([part](int number) { return number % 3 == part; }),
          "how many were invalidated");
  }
  void announce() {
    if (++announcements_ > 40) return;  // the cache remembers so many moments exactly
    trace::add("announce");
    const std::uint64_t version = model_.floor() + 2 - from_.below(4) % 3;
    cache_->announce(version);
    model_.announce(version);
  }
  void purge() {
    trace::add("purge");
    agree(cache_->purge(), model_.purge(), "how many were purged");
  }
  void advance() {
    trace::add("advance");
    const duration by(from_.one_in(8) ? static_cast<std::int64_t>(from_.number(5))
                                      : static_cast<std::int64_t>(from_.below(64)));
    clock_.advance(by);
    model_.now += by;
  }
  void run_refresh() {
    agree(executor_.waiting(), model_.waiting(), "refreshes that wait");
    if (executor_.waiting() == 0) return;
    const std::size_t which = from_.below(executor_.waiting());
    if (from_.one_in(4)) {
      trace::add("drop-refresh");
      static_cast<void>(executor_.take(which));
      model_.drop_refresh(which);
      return;
    }
    trace::add("run-refresh");
    veltrix::task due = executor_.take(which);
    const bool certain = did([&] { due(); });
    due.reset();
    if (certain) model_.run_refresh(which);
  }
  void rarely() {
    if (from_.flag()) {
      trace::add("invalidate_all");
      cache_->invalidate_all();
      model_.invalidate_all();
      return;
    }
    trace::add("mood");
    executor_.fate = model_.fate = static_cast<refresh_fate>(from_.below(3));
  }

  /// Does `operation` under a fault, maybe. Result: whether the model must say the same; if not,
  /// cache and model start again from nothing.
  template <class Operation>
  bool did(Operation operation) {
    bool armed = false;
    {
      const armed_fault fault(from_);
      armed = fault.armed();
      try {
        operation();
      } catch (const veltrix_test::injected_fault&) {
        require(armed, "it threw what only a fault throws, without one");
      } catch (const std::bad_alloc&) {
        require(armed, "it threw what only a fault throws, without one");
      }
    }
    if (armed) recover();
    return !armed;
  }

  /// What a fault left must be as good as new once nothing is kept: no load stays under way.
  void recover() {
    trace::add("(fault)");
    cache_->invalidate_all();
    static_cast<void>(cache_->purge());
    executor_.clear();
    const auto fate = std::exchange(executor_.fate, refresh_fate::refused);
    for (int key = 0; key < 9; ++key) {
      require(!cache_->get(touchy_key(key)), "nothing is kept after a purge");
      const auto load = [key](const touchy_key&) { return cached_value{key * 1'000'000 + 1, 1}; };
      const auto got = cache_->get_or_load(touchy_key(key), load);
      require(got.outcome() == cache_outcome::loaded, "no load was left behind");
    }
    executor_.fate = fate;
    cache_->invalidate_all();
    static_cast<void>(cache_->purge());
    const auto stats = cache_->stats();
    agree(stats.entries, 0U, "nothing is kept after a purge");
    model_.forget_all();
    model_.now = clock_.now();
    model_.count = stats;
    model_.removed.clear();
    told_.clear();
    lost_listeners_ = stats.listener_failures;
    // What a loader announced before it failed.
    for (const auto& [version, at] : announced_)
      model_.announce_at(version, at);
  }

  void told(int key, const cached_value* value, veltrix::removal_cause cause) {
    const unfailing_memory ours;
    told_.push_back(
        {key, value == nullptr ? std::nullopt : std::optional<int>(value->number), cause});
    if (fails_to_listen(told_.back())) throw std::runtime_error("the listener fails");
  }
  static bool fails_to_listen(const plain_removal& told) {
    return told.number.value_or(1) % 7 == 0;
  }

  void check_value(int key, const cache_type::result& got) const {
    if (got) agree(got->number / 1'000'000, key, "a value is its key's");
    agree(static_cast<bool>(got), got.share() != nullptr, "a result with a value shares it");
  }

  static void same(const cache_type::result& got, const plain_answer& expected) {
    agree(static_cast<int>(got.outcome()), static_cast<int>(expected.outcome), "the outcome");
    agree(static_cast<bool>(got), expected.number.has_value(), "whether there is a value");
    if (got) agree(got->number, *expected.number, "the value");
    agree(got.age().count(), expected.age.count(), "the age");
    agree(got.version(), expected.version, "the version");
    agree(got.error() != nullptr, expected.error, "whether there is an error");
  }

  void compare() {
    const auto stats = cache_->stats();
    agree(clock_.now().time_since_epoch().count(), model_.now.time_since_epoch().count(), "time");
    agree(stats.entries, model_.size(), "stats: entries");
    agree(stats.weight, model_.weight(), "stats: weight");
    require(stats.entries <= options_.max_entries && stats.weight <= options_.max_weight,
            "the bounds hold");
    agree(stats.hits, model_.count.hits, "stats: hits");
    agree(stats.misses, model_.count.misses, "stats: misses");
    agree(stats.loads, model_.count.loads, "stats: loads");
    agree(stats.load_failures, model_.count.load_failures, "stats: load failures");
    agree(stats.stale_served, model_.count.stale_served, "stats: stale served");
    agree(stats.not_stored, model_.count.not_stored, "stats: not stored");
    agree(stats.refreshes, model_.count.refreshes, "stats: refreshes");
    agree(stats.evicted, model_.count.evicted, "stats: evicted");
    require(told_ == model_.removed, "the listener heard of each who left, and why");
    std::uint64_t failures = lost_listeners_;
    for (const plain_removal& each : told_)
      failures += fails_to_listen(each) ? 1U : 0U;
    agree(stats.listener_failures, failures, "stats: listener failures");
  }

  byte_source& from_;
  const bool has_executor_;
  const veltrix::loading_cache_options options_;
  veltrix::virtual_clock clock_;
  plain_cache model_;
  std::vector<plain_removal> told_;
  std::uint64_t lost_listeners_ = 0;
  int next_number_ = 0;
  int announcements_ = 0;
  std::vector<std::pair<std::uint64_t, veltrix::time_point>> announced_;  // by loaders
  refresh_executor executor_;
  std::optional<cache_type> cache_;  // last: its hooks use the others
};

}  // namespace

void one_input(byte_source& from) {
  session(from).run();
}

}  // namespace veltrix_fuzz
