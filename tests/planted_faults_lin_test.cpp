// Faults planted on purpose, each a plausible mistake of a concurrent object, and each beside its
// corrected twin: recorded histories must convict the first and never the second.
//
// The faults are races between critical sections, never data races, so that a sanitizer has nothing
// to say of them. Each lets its lock go in the middle, and one time in four yields there: the
// system might have taken the thread off its core at that point anyhow, and a std::mutex is not
// fair, so that without it the thread mostly has its lock back before a waiting one has woken up.
// SPDX-License-Identifier: BSL-1.0
#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>

#include "support/catch.hpp"
#include "support/lin_rounds.hpp"
#include "support/linearizability.hpp"
#include "support/random.hpp"
#include "support/sequential_specs.hpp"

namespace {

using namespace veltrix_test;

enum class twin : std::uint8_t { faulty, correct };

constexpr std::size_t most_calls = 40'000;

void between_locks() {
  thread_local random_source random(77);
  if (random.below(4) == 0) std::this_thread::yield();
}

/// A lock that a faulty object lets go in the middle of its operation.
class interruptible_lock {
 public:
  explicit interruptible_lock(std::mutex& mutex) : lock_(mutex) {}
  void let_go() {
    lock_.unlock();
    between_locks();
    lock_.lock();
  }

 private:
  std::unique_lock<std::mutex> lock_;
};

/// Runs rounds until a fault is found or 40,000 calls are recorded. Result: calls until it was
/// found; 0 if it was not.
template <class Object, class Spec, class Step>
std::size_t calls_until_found(const char* name, const Spec& spec, twin which, std::uint64_t seed,
                              Step step, std::size_t calls_per_step = 1) {
  constexpr std::size_t threads = 4;
  constexpr std::size_t calls = 100;
  const rounds_options options{.threads = threads,
                               .calls = calls,
                               .rounds = most_calls / (threads * calls * calls_per_step),
                               .calls_per_step = calls_per_step,
                               .seed = seed};
  const auto result =
      run_rounds(spec, options, [which] { return std::make_unique<Object>(which); }, step);
  const bool found = result.last.answer == verdict::not_linearizable;
  std::printf("%s, %s: %s after %zu operations (seed %llu)\n%s", name,
              which == twin::faulty ? "faulty" : "correct", found ? "convicted" : "clean",
              result.operations, static_cast<unsigned long long>(seed), result.last.report.c_str());
  std::fflush(stdout);
  return found ? result.operations : 0;
}

// --- map: check, then erase ----------------------------------------------------------------------

class checked_map {
 public:
  explicit checked_map(twin which) : which_(which) {}

  bool insert(std::uint64_t key, std::uint64_t value) {
    const std::lock_guard lock(mutex_);
    return entries_.try_emplace(key, value).second;
  }
  std::optional<std::uint64_t> get(std::uint64_t key) {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(key);
    return found == entries_.end() ? std::nullopt : std::optional(found->second);
  }
  bool erase(std::uint64_t key) {
    interruptible_lock lock(mutex_);
    if (entries_.find(key) == entries_.end()) return false;
    if (which_ == twin::faulty) lock.let_go();  // the fault: another erasure may come in between
    entries_.erase(key);
    return true;
  }

 private:
  const twin which_;
  std::mutex mutex_;  // guards entries_
  std::map<std::uint64_t, std::uint64_t> entries_;
};

void step_of_map(checked_map& map, recorder_of<map_spec>::log& log, random_source& random) {
  const std::uint64_t key = random.below(3);
  const std::uint64_t value = random.next() >> 40;
  const auto changed = [](bool done, map_change what) {
    return map_spec::answer{done ? what : map_change::unchanged, {}};
  };
  switch (random.below(3)) {
    case 0:
      log.record({map_call::insert, key, value},
                 [&] { return changed(map.insert(key, value), map_change::inserted); });
      break;
    case 1:
      log.record({map_call::erase, key, 0},
                 [&] { return changed(map.erase(key), map_change::erased); });
      break;
    default:
      log.record({map_call::get, key, 0},
                 [&] { return map_spec::answer{map_change::unchanged, map.get(key)}; });
  }
}

// --- counter: lost update ------------------------------------------------------------------------

class plain_counter {
 public:
  explicit plain_counter(twin which) : which_(which) {}
  std::uint64_t fetch_add(std::uint64_t amount) {
    if (which_ == twin::correct) return value_.fetch_add(amount, std::memory_order_relaxed);
    const std::uint64_t before = value_.load(std::memory_order_relaxed);
    between_locks();
    value_.store(before + amount, std::memory_order_relaxed);
    return before;
  }
  std::uint64_t read() { return value_.load(std::memory_order_relaxed); }

 private:
  const twin which_;
  std::atomic<std::uint64_t> value_{0};  // relaxed: nothing else is published with it
};

void step_of_counter(plain_counter& counter, recorder_of<counter_spec>::log& log,
                     random_source& random) {
  const std::uint64_t amount = 1 + random.below(1000);
  switch (random.below(3)) {
    case 0: log.record({counter_call::read, 0}, [&] { return counter.read(); }); break;
    case 1:
      log.record({counter_call::add, amount}, [&] {
        counter.fetch_add(amount);
        return std::uint64_t{0};
      });
      break;
    default:
      log.record({counter_call::fetch_add, amount}, [&] { return counter.fetch_add(amount); });
  }
}

// --- queues --------------------------------------------------------------------------------------

using queue = queue_spec<8>;

/// What the queues below share; they differ in where the fault is.
class queue_base {
 public:
  explicit queue_base(twin which) : which_(which) {}

 protected:
  static constexpr std::size_t capacity = 4;
  static queue::answer status(queue_status what) { return {what, 0}; }

  const twin which_;
  std::mutex mutex_;  // guards items_
  std::deque<std::uint64_t> items_;
};

/// pop() reads the oldest, then removes the oldest: by then, maybe another.
class duplicating_queue : queue_base {
 public:
  using queue_base::queue_base;
  queue::answer push(std::uint64_t value) {
    const std::lock_guard lock(mutex_);
    if (items_.size() == capacity) return status(queue_status::full);
    items_.push_back(value);
    return {};
  }
  queue::answer pop() {
    interruptible_lock lock(mutex_);
    if (items_.empty()) return status(queue_status::empty);
    const std::uint64_t oldest = items_.front();
    if (which_ == twin::faulty) lock.let_go();
    if (!items_.empty()) items_.pop_front();
    return {queue_status::done, oldest};
  }
};

/// push() looks for room, then adds: by then, there may be none.
class overfull_queue : queue_base {
 public:
  using queue_base::queue_base;
  queue::answer push(std::uint64_t value) {
    interruptible_lock lock(mutex_);
    if (items_.size() >= capacity) return status(queue_status::full);
    if (which_ == twin::faulty) lock.let_go();
    items_.push_back(value);
    return {};
  }
  queue::answer pop() {
    const std::lock_guard lock(mutex_);
    if (items_.empty()) return status(queue_status::empty);
    const std::uint64_t oldest = items_.front();
    items_.pop_front();
    return {queue_status::done, oldest};
  }
};

/// push() takes a ticket, then adds: who took the later ticket may add first.
class reordering_queue : queue_base {
 public:
  using queue_base::queue_base;
  queue::answer push(std::uint64_t value) {
    interruptible_lock lock(mutex_);
    if (reserved_ == capacity) return status(queue_status::full);
    ++reserved_;
    const std::uint64_t ticket = next_++;
    if (which_ == twin::faulty) lock.let_go();
    by_ticket_.emplace(ticket, value);
    return {};
  }
  /// The fault shows here: it hands out the lowest ticket present, though lower ones are to come.
  queue::answer pop() {
    const std::lock_guard lock(mutex_);
    if (by_ticket_.empty()) return status(queue_status::empty);
    const auto oldest = by_ticket_.extract(by_ticket_.begin());
    --reserved_;
    return {queue_status::done, oldest.mapped()};
  }

 private:
  std::size_t reserved_ = 0;
  std::uint64_t next_ = 0;
  std::map<std::uint64_t, std::uint64_t> by_ticket_;
};

template <class Queue>
void step_of_queue(Queue& subject, recorder_of<queue>::log& log, random_source& random) {
  if (random.below(2) == 0) {
    const std::uint64_t value = random.next() >> 40;
    log.record({queue_call::push, value}, [&] { return subject.push(value); });
  } else {
    log.record({queue_call::pop, 0}, [&] { return subject.pop(); });
  }
}

// --- registers -----------------------------------------------------------------------------------

/// Readers look at a copy without the lock. The fault: it is made after the lock is let go, so that
/// the older of two writes may overwrite it for good.
class copied_register {
 public:
  explicit copied_register(twin which) : which_(which) {}
  void write(std::uint64_t value) {
    {
      const std::lock_guard lock(mutex_);
      value_ = value;
      if (which_ == twin::correct) copy_.store(value, std::memory_order_relaxed);
    }
    if (which_ == twin::correct) return;
    between_locks();
    copy_.store(value, std::memory_order_relaxed);
  }
  std::uint64_t read() { return copy_.load(std::memory_order_relaxed); }
  /// Sees the value under the lock.
  std::pair<bool, std::uint64_t> compare_exchange(std::uint64_t expected, std::uint64_t value) {
    const std::lock_guard lock(mutex_);
    if (value_ != expected) return {false, value_};
    value_ = value;
    copy_.store(value, std::memory_order_relaxed);
    return {true, expected};
  }

 private:
  const twin which_;
  std::mutex mutex_;  // guards value_
  std::uint64_t value_ = 0;
  std::atomic<std::uint64_t> copy_{0};  // relaxed: nothing else is published with it
};

/// The fault: compare_exchange() compares, then writes.
class torn_register {
 public:
  explicit torn_register(twin which) : which_(which) {}
  void write(std::uint64_t value) {
    const std::lock_guard lock(mutex_);
    value_ = value;
  }
  std::uint64_t read() {
    const std::lock_guard lock(mutex_);
    return value_;
  }
  std::pair<bool, std::uint64_t> compare_exchange(std::uint64_t expected, std::uint64_t value) {
    interruptible_lock lock(mutex_);
    if (value_ != expected) return {false, value_};
    if (which_ == twin::faulty) lock.let_go();
    value_ = value;
    return {true, expected};
  }

 private:
  const twin which_;
  std::mutex mutex_;  // guards value_
  std::uint64_t value_ = 0;
};

template <class Register>
void step_of_register(Register& subject, recorder_of<register_spec>::log& log,
                      random_source& random) {
  const std::uint64_t value = random.next() >> 40;
  switch (random.below(3)) {
    case 0:
      log.record({register_call::read, 0, 0, 0},
                 [&] { return register_spec::answer{false, subject.read()}; });
      break;
    case 1:
      log.record({register_call::write, 0, value, 0}, [&] {
        subject.write(value);
        return register_spec::answer{true, 0};
      });
      break;
    default: {
      const std::uint64_t expected = subject.read();  // no part of the history
      log.record({register_call::compare_exchange, 0, value, expected}, [&] {
        const auto [written, shown] = subject.compare_exchange(expected, value);
        return register_spec::answer{written, shown};
      });
    }
  }
}

// --- set: two winners ----------------------------------------------------------------------------

class two_winner_set {
 public:
  explicit two_winner_set(twin which) : which_(which) {}
  bool insert(std::uint64_t key) {
    interruptible_lock lock(mutex_);
    if (keys_.count(key) != 0) return false;
    if (which_ == twin::faulty) lock.let_go();
    keys_.insert(key);
    return true;
  }
  bool erase(std::uint64_t key) {
    const std::lock_guard lock(mutex_);
    return keys_.erase(key) != 0;
  }
  bool contains(std::uint64_t key) {
    const std::lock_guard lock(mutex_);
    return keys_.count(key) != 0;
  }

 private:
  const twin which_;
  std::mutex mutex_;  // guards keys_
  std::set<std::uint64_t> keys_;
};

void step_of_set(two_winner_set& set, recorder_of<set_spec>::log& log, random_source& random) {
  const std::uint64_t key = random.below(3);
  switch (random.below(3)) {
    case 0: log.record({set_call::insert, key}, [&] { return set.insert(key); }); break;
    case 1: log.record({set_call::erase, key}, [&] { return set.erase(key); }); break;
    default: log.record({set_call::contains, key}, [&] { return set.contains(key); });
  }
}

// --- cache: serves after an invalidation ---------------------------------------------------------

/// One key. A load under way is joined. The fault: an invalidation leaves the load under way as it
/// is, so that what was read before the invalidation is stored after it.
class forgetful_cache {
 public:
  explicit forgetful_cache(twin which) : which_(which) {}

  std::optional<std::uint64_t> get() {
    const std::lock_guard lock(mutex_);
    return entry_;
  }
  bool invalidate() {
    const std::lock_guard lock(mutex_);
    if (which_ == twin::correct) under_way_ = 0;
    return std::exchange(entry_, std::nullopt).has_value();
  }
  /// A hit, or 0 and the number of a load that the caller has begun; nothing if one is under way.
  struct looked {
    std::optional<std::uint64_t> hit{};
    std::uint64_t load = 0;
    bool joined = false;
  };
  looked look(std::uint64_t number) {
    const std::lock_guard lock(mutex_);
    if (entry_) return {entry_, 0, false};
    if (under_way_ != 0) return {{}, under_way_, true};
    under_way_ = number;
    return {{}, number, false};
  }
  void land(std::uint64_t number, std::uint64_t value) {
    const std::lock_guard lock(mutex_);
    if (under_way_ != number) return;
    under_way_ = 0;
    entry_ = value;
  }

 private:
  const twin which_;
  std::mutex mutex_;  // guards the rest
  std::optional<std::uint64_t> entry_;
  std::uint64_t under_way_ = 0;
};

void step_of_cache(forgetful_cache& cache, recorder_of<cache_spec>::log& log,
                   random_source& random) {
  switch (random.below(3)) {
    case 0:
      log.record({cache_call::get, 0, 0, {}},
                 [&] { return cache_spec::answer{false, cache.get()}; });
      return;
    case 1:
      log.record({cache_call::invalidate, 0, 0, {}},
                 [&] { return cache_spec::answer{cache.invalidate(), {}}; });
      return;
    default: break;
  }
  const std::uint64_t number = 1 + (random.next() >> 24);
  auto& looking = log.call({cache_call::begin_load, 0, number, {}});
  const auto found = cache.look(number);
  if (found.hit) {
    looking.input = {cache_call::get, 0, 0, {}};
    log.answered(looking, {false, found.hit});
    return;
  }
  looking.input = {found.joined ? cache_call::join : cache_call::begin_load, 0, found.load, {}};
  log.answered(looking, {true, {}});
  if (found.joined) return;
  between_locks();  // the load
  log.record({cache_call::land, 0, number, number}, [&] {
    cache.land(number, number);
    return cache_spec::answer{};
  });
}

}  // namespace

TEST_CASE("check_linearizable finds a check-then-erase in a map within 40,000 calls, 5 runs of 5") {
  for (std::uint64_t run = 0; run < 5; ++run) {
    const std::uint64_t seed = 1000 + run * 7919;
    INFO("seed " << seed);
    REQUIRE(calls_until_found<checked_map>("check-then-erase map", map_spec{}, twin::faulty, seed,
                                           step_of_map) != 0);
  }
  REQUIRE(calls_until_found<checked_map>("check-then-erase map", map_spec{}, twin::correct, 1000,
                                         step_of_map) == 0);
}

namespace {

/// The faulty one is convicted, the other is not.
template <class Object, class Spec, class Step>
void require_conviction(const char* name, const Spec& spec, std::uint64_t seed, Step step,
                        std::size_t calls_per_step = 1) {
  INFO("seed " << seed);
  REQUIRE(calls_until_found<Object>(name, spec, twin::faulty, seed, step, calls_per_step) != 0);
  REQUIRE(calls_until_found<Object>(name, spec, twin::correct, seed, step, calls_per_step) == 0);
}

}  // namespace

TEST_CASE("check_linearizable finds the lost update of a counter") {
  require_conviction<plain_counter>("lost update counter", counter_spec{}, 2000, step_of_counter);
}

TEST_CASE("check_linearizable finds a queue that hands out an item twice") {
  require_conviction<duplicating_queue>("duplicating queue", queue{.capacity = 4}, 3000,
                                        step_of_queue<duplicating_queue>);
}

TEST_CASE("check_linearizable finds a queue that reorders") {
  require_conviction<reordering_queue>("reordering queue", queue{.capacity = 4}, 3100,
                                       step_of_queue<reordering_queue>);
}

TEST_CASE("check_linearizable finds a queue above its bound") {
  require_conviction<overfull_queue>("overfull queue", queue{.capacity = 4}, 3200,
                                     step_of_queue<overfull_queue>);
}

TEST_CASE("check_linearizable finds a register whose readers are left with an older value") {
  require_conviction<copied_register>("stale register", register_spec{}, 4000,
                                      step_of_register<copied_register>);
}

TEST_CASE("check_linearizable finds a compare-exchange of a register in two steps") {
  require_conviction<torn_register>("torn compare-exchange", register_spec{}, 4100,
                                    step_of_register<torn_register>);
}

TEST_CASE("check_linearizable finds a set that lets two insertions of a key win") {
  require_conviction<two_winner_set>("set with two winners", set_spec{}, 5000, step_of_set);
}

TEST_CASE("check_linearizable finds a cache that serves after an invalidation") {
  require_conviction<forgetful_cache>("forgetful cache", cache_spec{}, 6000, step_of_cache, 2);
}
