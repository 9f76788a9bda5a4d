// The explorer on protocols whose outcomes are known: it finds each classic mistake, and passes the
// corrected twin.
// SPDX-License-Identifier: BSL-1.0
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>

#include "model/explore.hpp"
#include "support/catch.hpp"

namespace {

using namespace veltrix_model;

constexpr auto relaxed = std::memory_order_relaxed;
constexpr auto acquire = std::memory_order_acquire;
constexpr auto release = std::memory_order_release;
constexpr auto acq_rel = std::memory_order_acq_rel;
constexpr auto seq_cst = std::memory_order_seq_cst;

/// A failure is found, told with a trace, and found again from its replay string alone.
template <class Body>
void check_found(exploration wanted, Body body, const char* expected) {
  const findings seen = explore(wanted, body);
  INFO(seen);
  REQUIRE(seen.failed);
  CHECK(seen.what.find(expected) != std::string::npos);
  CHECK(seen.trace.find("another way") == std::string::npos);
  CHECK(seen.seconds < 10);
  wanted.replay = seen.replay;
  const findings again = explore(wanted, body);
  CHECK(again.failed);
  CHECK(again.what == seen.what);
}

template <class Body>
void check_exhausted(const exploration& wanted, Body body) {
  const findings seen = explore(wanted, body);
  INFO(seen);
  REQUIRE(seen.passed());
  CHECK(seen.exhausted);
  UNSCOPED_INFO(seen);
}

/// The result pairs that all executions of `body` give; `body` returns one.
template <class Body>
std::set<std::pair<int, int>> outcomes(const exploration& wanted, Body body) {
  std::set<std::pair<int, int>> seen;
  static std::pair<int, int> last;
  findings found;
  // A set grows outside of executions only, so each is run to find one more outcome.
  bool grows = true;
  static const std::pair<int, int>* known;
  static std::size_t known_count;
  std::pair<int, int> kept[16];
  while (grows) {
    known_count = 0;
    for (const auto& each : seen)
      kept[known_count++] = each;
    known = kept;
    found = explore(wanted, [&] {
      last = body();
      for (std::size_t i = 0; i < known_count; ++i) {
        if (known[i] == last) return;
      }
      require(false, "a new outcome");
    });
    grows = found.failed && seen.insert(last).second;
  }
  REQUIRE((found.passed() && found.exhausted));
  return seen;
}

const exploration stale{{.stale_reads = 2}};
const exploration bounded{{.preemptions = 3, .stale_reads = 2}};  // enough for all outcomes

template <std::memory_order Store, std::memory_order Load>
void pass_message() {
  var<int> data = 0;
  atomic<bool> ready = false;
  together(
      [&] {
        data = 42;
        ready.store(true, Store);
      },
      [&] {
        if (ready.load(Load)) require(data == 42, "the message is there");
      });
}

template <std::memory_order Order>
std::pair<int, int> store_buffering() {
  atomic<int> x = 0, y = 0;
  int left = 0, right = 0;
  together(
      [&] {
        x.store(1, Order);
        left = y.load(Order);
      },
      [&] {
        y.store(1, Order);
        right = x.load(Order);
      });
  return {left, right};
}

using results = std::set<std::pair<int, int>>;

}  // namespace

TEST_CASE("explorer finds message passing with a relaxed flag") {
  check_found(stale, pass_message<relaxed, acquire>, "data race");
  check_found(stale, pass_message<release, relaxed>, "data race");
  check_exhausted(stale, pass_message<release, acquire>);
}

TEST_CASE("explorer finds a publish before the write, which needs no stale read") {
  check_found(
      {},
      [] {
        var<int> data = 0;
        atomic<bool> ready = false;
        together(
            [&] {
              ready.store(true, release);
              data = 42;
            },
            [&] {
              if (ready.load(acquire)) require(data == 42, "the message is there");
            });
      },
      "data race");
}

TEST_CASE("explorer lets both sides of store buffering miss the other unless seq_cst") {
  const results weak{{0, 0}, {0, 1}, {1, 0}, {1, 1}};
  const results strong{{0, 1}, {1, 0}, {1, 1}};
  CHECK(outcomes(stale, store_buffering<relaxed>) == weak);
  CHECK(outcomes(stale, store_buffering<seq_cst>) == strong);
  CHECK(outcomes({}, store_buffering<relaxed>) == strong);  // without stale reads: interleavings
}

TEST_CASE("explorer orders stores before loads across seq_cst fences") {
  const auto fenced = [](std::memory_order left_fence) {
    return [left_fence] {
      atomic<int> x = 0, y = 0;
      int left = 0, right = 0;
      together(
          [&] {
            x.store(1, relaxed);
            thread_fence(left_fence);
            left = y.load(relaxed);
          },
          [&] {
            y.store(1, relaxed);
            thread_fence(seq_cst);
            right = x.load(relaxed);
          });
      return std::pair(left, right);
    };
  };
  CHECK(outcomes(stale, fenced(seq_cst)).count({0, 0}) == 0);
  CHECK(outcomes(stale, fenced(acq_rel)).count({0, 0}) == 1);
  CHECK(outcomes(bounded, fenced(seq_cst)) == outcomes(stale, fenced(seq_cst)));
}

TEST_CASE("explorer counts no seq_cst fence as synchronisation of plain data") {
  // The fences are ordered one after the other, and yet nothing synchronises.
  check_found(
      stale,
      [] {
        var<int> data = 0;
        atomic<int> x = 0;
        together(
            [&] {
              data = 1;
              thread_fence(seq_cst);
            },
            [&] {
              thread_fence(seq_cst);
              static_cast<void>(x.load(relaxed));
              static_cast<void>(data.read());
            });
      },
      "data race");
}

TEST_CASE("explorer models the asymmetric fence in both of its forms") {
  const auto asymmetric = [](bool heavy) {
    return [heavy] {
      atomic<int> x = 0, y = 0;
      int left = 0, right = 0;
      together(
          [&] {
            x.store(1, relaxed);
            asymmetric_fence_light(asymmetric_fence_mode());
            left = y.load(relaxed);
          },
          [&] {
            y.store(1, relaxed);
            (heavy ? asymmetric_fence_heavy : asymmetric_fence_light)(asymmetric_fence_mode(),
                                                                      source_line::here());
            right = x.load(relaxed);
          });
      return std::pair(left, right);
    };
  };
  exploration ordered = stale;
  ordered.ordered_fences = true;
  CHECK(outcomes(stale, asymmetric(true)).count({0, 0}) == 0);
  CHECK(outcomes(stale, asymmetric(false)).count({0, 0}) == 1);
  CHECK(outcomes(ordered, asymmetric(true)).count({0, 0}) == 0);
  CHECK(outcomes(bounded, asymmetric(true)) == outcomes(stale, asymmetric(true)));
}

TEST_CASE("explorer keeps coherence: no thread sees one variable go back") {
  const auto twice = [] {
    atomic<int> x = 0;
    int first = 0, second = 0;
    together([&] { x.store(1, relaxed); },
             [&] {
               first = x.load(relaxed);
               second = x.load(relaxed);
             });
    return std::pair(first, second);
  };
  CHECK(outcomes(stale, twice) == results{{0, 0}, {0, 1}, {1, 1}});
}

TEST_CASE("explorer lets two readers disagree on the order of two writers unless seq_cst") {
  const auto readers = [](std::memory_order store, std::memory_order load) {
    return [=] {
      atomic<int> x = 0, y = 0;
      int a = 0, b = 0, c = 0, d = 0;
      together([&] { x.store(1, store); }, [&] { y.store(1, store); },
               [&] {
                 a = x.load(load);
                 b = y.load(load);
               },
               [&] {
                 c = y.load(load);
                 d = x.load(load);
               });
      return std::pair(a * 2 + b, c * 2 + d);
    };
  };
  CHECK(outcomes(stale, readers(release, acquire)).count({2, 2}) == 1);
  CHECK(outcomes(stale, readers(seq_cst, seq_cst)).count({2, 2}) == 0);
}

TEST_CASE("explorer carries a release through a chain of relaxed read-modify-writes") {
  const auto chain = [](bool plain_store) {
    return [plain_store] {
      var<int> data = 0;
      atomic<int> flag = 0;
      together(
          [&] {
            data = 1;
            flag.store(1, release);
          },
          [&] {
            if (flag.load(relaxed) == 1) {
              plain_store ? flag.store(2, relaxed) : void(flag.fetch_add(1, relaxed));
            }
          },
          [&] {
            if (flag.load(acquire) == 2) require(data == 1, "the data came with it");
          });
    };
  };
  check_exhausted(stale, chain(false));
  check_found(stale, chain(true), "data race");
}

TEST_CASE("explorer joins release and acquire fences around relaxed accesses") {
  const auto fenced = [](bool with_release, bool with_acquire) {
    return [=] {
      var<int> data = 0;
      atomic<int> flag = 0;
      together(
          [&] {
            data = 1;
            if (with_release) thread_fence(release);
            flag.store(1, relaxed);
          },
          [&] {
            if (flag.load(relaxed) != 1) return;
            if (with_acquire) thread_fence(acquire);
            require(data == 1, "the data came with it");
          });
    };
  };
  check_exhausted(stale, fenced(true, true));
  check_found(stale, fenced(false, true), "data race");
  check_found(stale, fenced(true, false), "data race");
}

namespace {

/// A stack of three nodes that are used again. `Counted`: the head carries a count of changes.
template <bool Counted>
struct treiber_stack {
  static constexpr unsigned none = 7;
  atomic<unsigned> head = none;
  atomic<unsigned> next[3] = {none, none, none};

  static unsigned node_of(unsigned word) { return word & 7; }
  static unsigned changed(unsigned old, unsigned node) {
    return Counted ? ((old >> 3) + 1) << 3 | node : node;
  }
  void push(unsigned node) {
    unsigned old = head.load(relaxed);
    do {
      next[node].store(node_of(old), relaxed);
    } while (!head.compare_exchange_strong(old, changed(old, node), release, relaxed));
  }
  unsigned pop() {
    unsigned old = head.load(acquire);
    for (;;) {
      if (node_of(old) == none) return none;
      const unsigned after = next[node_of(old)].load(relaxed);
      if (head.compare_exchange_strong(old, changed(old, after), acquire, acquire)) {
        return node_of(old);
      }
    }
  }
};

template <bool Counted>
void reuse_nodes() {
  treiber_stack<Counted> stack;
  atomic<unsigned> taken[3] = {0, 0, 0};
  stack.push(2);
  stack.push(1);
  stack.push(0);
  const auto take = [&](unsigned node) {
    if (node != stack.none) require(taken[node].fetch_add(1, relaxed) == 0, "taken once");
  };
  together([&] { take(stack.pop()); },
           [&] {
             const unsigned first = stack.pop();
             const unsigned second = stack.pop();
             if (second != stack.none) taken[second].fetch_add(1, relaxed);
             if (first != stack.none) stack.push(first);
           });
  for (unsigned node = stack.pop(); node != stack.none; node = stack.pop())
    take(node);
}

}  // namespace

TEST_CASE("explorer finds ABA in a Treiber stack that uses nodes again") {
  check_found({}, reuse_nodes<false>, "taken once");
  check_exhausted({{.preemptions = 3}}, reuse_nodes<true>);
}

namespace {

/// One owner leaves, one still reads. `Order` is that of the count.
struct counted_node {
  atomic<int> owners = 2;
  var<int> value = 1;
};

template <std::memory_order Order>
void share_node() {
  auto* const node = new counted_node;
  const auto leave = [node] {
    require(node->value == 1, "still there");
    if (node->owners.fetch_sub(1, Order) == 1) delete node;
  };
  together(leave, leave);
}

}  // namespace

TEST_CASE("explorer finds a premature free") {
  check_exhausted({}, share_node<acq_rel>);
  check_found({}, share_node<relaxed>, "data race: T2 ends what T1 reads");
  check_found(
      {},
      [] {
        auto* const node = new counted_node;
        together([node] { require(node->value == 1, "still there"); }, [node] { delete node; });
      },
      "data race");
  check_found(
      {},
      [] {
        auto* const node = new atomic<int>(1);
        atomic<bool> gone = false;
        together(
            [&] {
              delete node;
              gone.store(true, release);
            },
            [&] {
              if (gone.load(acquire)) static_cast<void>(node->load(relaxed));
            });
      },
      "use of an atomic");
}

TEST_CASE("explorer finds a leak and a double free") {
  check_found(
      {},
      [] {
        int* volatile kept = new int(1);
        static_cast<void>(*kept);
      },
      "leak: 1 blocks");
  check_found(
      {},
      [] {
        int* volatile twice = new int(1);
        delete twice;
        delete twice;
      },
      "freed twice");
}

namespace {

template <bool UnderLock>
void park_and_wake() {
  mutex guard;
  condition_variable woken;
  atomic<bool> ready = false;
  together(
      [&] {
        if (!UnderLock && ready.load(acquire)) return;  // the look that the wait does not repeat
        unique_lock<mutex> lock(guard);
        if (UnderLock) {
          while (!ready.load(relaxed))
            woken.wait(lock);
        } else {
          woken.wait(lock);
        }
      },
      [&] {
        if (UnderLock) {
          const lock_guard<mutex> lock(guard);
          ready.store(true, relaxed);
        } else {
          ready.store(true, release);
        }
        woken.notify_one();
      });
}

}  // namespace

TEST_CASE("explorer finds the lost wake-up of a naive park") {
  check_found({}, park_and_wake<false>, "lost wake-up");
  check_exhausted({}, park_and_wake<true>);
  check_exhausted({{.preemptions = 3, .spurious_wakeups = 2}}, park_and_wake<true>);
}

TEST_CASE("explorer finds a deadlock of two mutexes taken in two orders") {
  check_found(
      {},
      [] {
        mutex a, b;
        const auto both = [](mutex& first, mutex& second) {
          const lock_guard<mutex> outer(first);
          const lock_guard<mutex> inner(second);
        };
        together([&] { both(a, b); }, [&] { both(b, a); });
      },
      "deadlock");
}

TEST_CASE("explorer lets try_lock meet a mutex before, within and after its holder") {
  CHECK(outcomes({}, [] {
          mutex guard;
          atomic<int> inside = 0;
          int seen = 0;
          bool locked = false;
          together(
              [&] {
                const lock_guard<mutex> lock(guard);
                inside.store(1, relaxed);
              },
              [&] {
                const unique_lock<mutex> lock(guard, std::try_to_lock);
                locked = lock.owns_lock();
                if (locked) seen = inside.load(relaxed);
              });
          return std::pair(locked ? 1 : 0, seen);
        }) == results{{0, 0}, {1, 0}, {1, 1}});
}

namespace {

template <std::memory_order Load>
void look_twice() {
  struct made {
    var<int> value = 7;
  };
  mutex guard;
  atomic<made*> shared = nullptr;
  const auto get = [&] {
    made* found = shared.load(Load);
    if (found == nullptr) {
      const lock_guard<mutex> lock(guard);
      found = shared.load(relaxed);
      if (found == nullptr) {
        found = new made;
        shared.store(found, release);
      }
    }
    require(found->value == 7, "made whole");
  };
  together(get, get);
  delete shared.load(relaxed);
}

}  // namespace

TEST_CASE("explorer finds double-checked locking without acquire") {
  check_found(stale, look_twice<relaxed>, "data race");
  check_exhausted(stale, look_twice<acquire>);
}

namespace {

/// A map with one key. `Twice`: erase looks and erases under two locks.
template <bool Twice>
void erase_concurrently() {
  mutex guard;
  std::map<int, int> map{{1, 1}};
  const auto erase = [&]() -> bool {
    if (Twice) {
      {
        const lock_guard<mutex> lock(guard);
        if (map.count(1) == 0) return false;
      }
      const lock_guard<mutex> lock(guard);
      map.erase(1);
      return true;
    }
    const lock_guard<mutex> lock(guard);
    return map.erase(1) == 1;
  };
  bool left = false, right = false;
  together([&] { left = erase(); }, [&] { right = erase(); });
  require(left != right, "one of them erased it");
}

}  // namespace

TEST_CASE("explorer finds a check-then-erase in a map") {
  check_found({}, erase_concurrently<true>, "one of them erased it");
  check_exhausted({}, erase_concurrently<false>);
}

TEST_CASE("explorer finds the same mistakes by sampling") {
  for (const search_kind how : {search_kind::uniform, search_kind::priorities}) {
    exploration sample = stale;
    sample.how = how;
    sample.most_schedules = 200'000;
    check_found(sample, pass_message<relaxed, acquire>, "data race");
    check_found(sample, reuse_nodes<false>, "taken once");
    check_found(sample, park_and_wake<false>, "lost wake-up");
    check_found(sample, erase_concurrently<true>, "one of them erased it");
    const findings twin = explore(sample, erase_concurrently<false>);
    INFO(twin);
    CHECK((twin.passed() && twin.schedules == 200'000));
  }
}

TEST_CASE("explorer passes time only when nobody can go on, unless timeouts may come early") {
  const auto timed = [] {
    mutex guard;
    condition_variable woken;
    bool ready = false;
    int timeouts = 0;
    together(
        [&] {
          unique_lock<mutex> lock(guard);
          const auto deadline = steady_now() + std::chrono::hours(5);
          while (!ready && steady_now() < deadline) {
            if (woken.wait_until(lock, deadline) == std::cv_status::timeout) ++timeouts;
          }
        },
        [&] {
          const lock_guard<mutex> lock(guard);
          ready = true;
          woken.notify_one();
        });
    return std::pair(timeouts, ready ? 1 : 0);
  };
  CHECK(outcomes({}, timed) == results{{0, 1}});
  CHECK(outcomes({{.preemptions = 3, .early_timeouts = 1}}, timed) == results{{0, 1}, {1, 1}});
  CHECK(outcomes({}, [] {
          mutex guard;
          condition_variable never;
          unique_lock<mutex> lock(guard);
          const auto deadline = steady_now() + std::chrono::hours(5);
          const bool late = never.wait_until(lock, deadline) == std::cv_status::timeout;
          return std::pair(late ? 1 : 0, steady_now() == deadline ? 1 : 0);
        }) == results{{1, 1}});
}

TEST_CASE("explorer tells a spinner that never ends from one that waits its turn") {
  check_exhausted({}, [] {
    atomic<bool> done = false;
    together([&] { done.store(true, release); },
             [&] {
               while (!done.load(acquire))
                 yield();
             });
  });
  check_found(
      {{.most_steps = 500}},
      [] {
        atomic<bool> done = false;
        together([&] {
          while (!done.load(acquire))
            yield();
        });
      },
      "livelock");
}

TEST_CASE("explorer stops a thread for ever and sees who cannot go on") {
  const auto locked = [] {
    mutex guard;
    int value = 0;
    const auto add = [&] {
      const lock_guard<mutex> lock(guard);
      yield();
      ++value;
    };
    together(add, add);
  };
  const auto lock_free = [] {
    atomic<int> value = 0;
    const auto add = [&] { value.fetch_add(1, relaxed); };
    together(add, add);
  };
  const exploration freezing{{.preemptions = 2, .may_freeze = only(1)}};
  check_found(freezing, locked, "T2 cannot go on once T1 has stopped");
  check_exhausted(freezing, lock_free);
}

TEST_CASE("explorer runs what a thread leaves for its end, before a join returns") {
  check_exhausted({}, [] {
    var<int> ended = 0;
    auto last = [&] { ended = 1; };
    together([&] { at_thread_end(last); });
    require(ended == 1, "it ran");
  });
  check_found(
      {},
      [] {
        atomic<bool> joined = false;
        auto last = [&] {
          while (!joined.load(acquire))
            yield();
        };
        together([&] { at_thread_end(last); });
        joined.store(true, release);
      },
      "livelock");
}

TEST_CASE("explorer runs as many schedules as counted by hand") {
  // Two threads of two independent-looking but conflicting stores each: 4! / (2! 2!) orders.
  const auto stores = [] {
    atomic<int> x = 0;
    const auto twice = [&] {
      x.store(1, relaxed);
      x.store(2, relaxed);
    };
    together(twice, twice);
  };
  // start, start, join and join are the body's; the threads can run between them.
  const findings all = explore({{.preemptions = 100}}, stores);
  INFO(all);
  const findings reduced = explore({}, stores);
  INFO(reduced);
  CHECK(reduced.exhausted);
  CHECK(reduced.schedules == 6);
  CHECK(all.schedules > reduced.schedules);
  // Different variables: one order stands for all.
  const findings apart = explore({}, [] {
    atomic<int> x = 0, y = 0;
    together([&] { x.store(1, relaxed); }, [&] { y.store(1, relaxed); });
  });
  CHECK(apart.schedules == 1);
}

namespace {

/// A small program of three threads, drawn from a seed, and what its threads may see of each other.
class drawn_program {
 public:
  explicit drawn_program(unsigned seed) : random_(seed * 0x9e3779b9u + 1) {
    for (auto& thread : steps_) {
      for (unsigned& step : thread)
        step = draw();
    }
  }

  /// What each execution may end with, as hashes.
  std::set<std::uint64_t> results(exploration wanted) {
    count_ = 0;
    const findings seen = explore(wanted, [this] { run(); });
    INFO(seen);
    REQUIRE(seen.passed());
    REQUIRE(seen.exhausted);
    REQUIRE(count_ < most);
    runs += seen.schedules + seen.pruned;
    return {results_, results_ + count_};
  }

  std::uint64_t runs = 0;

 private:
  static constexpr std::size_t most = 20'000;
  static constexpr unsigned kinds = 14;

  struct shared {
    atomic<unsigned> words[3] = {0u, 0u, 0u};
    mutex guard;
    condition_variable changed;
    var<unsigned> guarded = 0u;
  };

  unsigned draw() {
    random_ = random_ * 1664525u + 1013904223u;
    return random_ >> 16;
  }

  void run() {
    shared all;
    std::uint64_t seen[3] = {1, 2, 3};
    const auto body = [&](unsigned me) {
      for (const unsigned step : steps_[me])
        seen[me] = state_memory::mix(seen[me], act(all, me, step));
    };
    together([&] { body(0); }, [&] { body(1); }, [&] { body(2); });
    std::uint64_t end = all.guarded.read();
    for (const std::uint64_t each : seen)
      end = state_memory::mix(end, each);
    for (std::size_t i = 0; i < count_; ++i) {
      if (results_[i] == end) return;
    }
    if (count_ < most) results_[count_++] = end;
  }

  static std::uint64_t act(shared& all, unsigned me, unsigned step) {
    atomic<unsigned>& word = all.words[step / kinds % 3];
    const unsigned value = 1 + step / (3 * kinds) % 2;
    switch (step % kinds) {
      case 0: return word.load(relaxed);
      case 1: return word.load(acquire);
      case 2: return word.load(seq_cst);
      case 3: word.store(value, relaxed); return 0;
      case 4: word.store(value, release); return 0;
      case 5: word.store(value, seq_cst); return 0;
      case 6: return word.fetch_add(value, acq_rel);
      case 7: {
        unsigned expected = 0;
        return word.compare_exchange_weak(expected, value, seq_cst) ? 9 : expected;
      }
      case 8: full_fence(); return 0;
      case 9: fence_everywhere(); return 0;
      case 10: return thread_is_listed(1 + (me + value) % 3) ? 1 : 0;
      case 11: return add_guarded(all, value);
      case 12: return wait_a_little(all, me);
      default:
        if (value == 1) yield();
        all.changed.notify_one();
        return 0;
    }
  }

  static std::uint64_t add_guarded(shared& all, unsigned value) {
    unique_lock<mutex> lock(all.guard, std::defer_lock);
    if (value == 1) {
      lock.lock();
    } else if (lock = unique_lock<mutex>(all.guard, std::try_to_lock); !lock.owns_lock()) {
      return 1;
    }
    all.guarded = all.guarded.read() * 3 + value;
    return all.guarded.read() + 1;
  }

  static std::uint64_t wait_a_little(shared& all, unsigned me) {
    unique_lock<mutex> lock(all.guard);
    const auto late = all.changed.wait_until(lock, steady_now() + std::chrono::seconds(1 + me));
    all.guarded = all.guarded.read() * 3;
    return all.guarded.read() * 2 + (late == std::cv_status::timeout ? 1 : 0);
  }

  unsigned random_;
  unsigned steps_[3][5];
  std::size_t count_ = 0;
  std::uint64_t results_[most];
};

}  // namespace

TEST_CASE("explorer loses no outcome to states that it has been in before") {
  const auto first = static_cast<unsigned>(Catch::rngSeed());
  std::uint64_t with = 0, without = 0;
  for (unsigned seed = first; seed < first + 40; ++seed) {
    CAPTURE(seed);
    const auto program = std::make_unique<drawn_program>(seed);
    for (const int preemptions : {0, 1, 2}) {
      for (const unsigned more : {0u, 1u, 2u, 3u}) {
        exploration wanted{{.preemptions = preemptions, .stale_reads = more % 2}};
        wanted.early_timeouts = more / 2;
        wanted.spurious_wakeups = preemptions == 1 ? more / 2 : 0;
        wanted.every_order = true;
        CAPTURE(preemptions, more);
        program->runs = 0;
        const auto all = program->results(wanted);
        without += program->runs;
        program->runs = 0;
        wanted.every_order = false;
        const auto remembered = program->results(wanted);
        with += program->runs;
        CHECK(remembered.size() == all.size());
        CHECK(std::includes(all.begin(), all.end(), remembered.begin(), remembered.end()));
      }
    }
  }
  std::printf("model: explorer: %llu executions in place of %llu, the same outcomes\n",
              static_cast<unsigned long long>(with), static_cast<unsigned long long>(without));
  CHECK(with < without);
}

TEST_CASE("explorer goes on with a search that gave up when VELTRIX_MODEL_SCALE asks for more") {
  const auto stores = [] {
    atomic<int> x = 0;
    together([&] { x.store(1, relaxed); }, [&] { x.store(2, relaxed); });
  };
  const std::uint64_t all = explore({{.preemptions = 100}}, stores).schedules;
  REQUIRE(all > 2);
  exploration first{{.preemptions = 100}};
  first.most_schedules = 2;
  const char* const given = std::getenv("VELTRIX_MODEL_SCALE");
  const std::string before = given != nullptr ? given : "1";
  REQUIRE(::setenv("VELTRIX_MODEL_SCALE", "1", 1) == 0);
  const findings as_told = explore(first, stores);
  REQUIRE(::setenv("VELTRIX_MODEL_SCALE", "1000", 1) == 0);
  const findings further = explore(first, stores);
  REQUIRE(::setenv("VELTRIX_MODEL_SCALE", before.c_str(), 1) == 0);
  CHECK_FALSE(as_told.exhausted);
  CHECK(as_told.schedules == 2);
  CHECK(further.exhausted);
  CHECK(further.schedules == all);
}
