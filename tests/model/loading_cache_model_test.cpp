// loading_cache explored: one load per key in flight, every waiter answered, and nothing older than
// what was asked for.
// SPDX-License-Identifier: BSL-1.0
#include <optional>
#include <stdexcept>
#include <utility>

#include "model/support.hpp"
#include "veltrix/loading_cache.hpp"

namespace {

using namespace veltrix_model;
using cache = veltrix::loading_cache<int, int>;

exploration to(int preemptions, std::uint64_t most = 400'000) {
  exploration wanted{{.preemptions = preemptions}};
  wanted.most_schedules = most;
  return wanted;
}

}  // namespace

TEST_CASE("loading_cache model: three readers of one key cause one load") {
  const auto body = [] {
    cache shared({.max_entries = 4, .shards = 1});
    atomic<int> loads = 0;
    const auto read = [&] {
      const auto got = shared.get_or_load(1, [&](int) {
        loads.fetch_add(1, std::memory_order_relaxed);
        return 10;
      });
      require(got && *got == 10, "answered");
    };
    together(read, read, read);
    require(loads.load(std::memory_order_relaxed) == 1, "one load for all");
  };
  check_exhausted("loading_cache single-flight 3 readers, bound 2", explore(to(2), body));
}

TEST_CASE("loading_cache model: a failed load is handed to all who waited, and is not kept") {
  const auto body = [] {
    cache shared({.max_entries = 4, .shards = 1});
    atomic<int> loads = 0;
    const auto read = [&] {
      const auto got = shared.get_or_load(1, [&](int) -> int {
        if (loads.fetch_add(1, std::memory_order_relaxed) == 0) throw std::runtime_error("down");
        return 10;
      });
      // A reader whose load failed may find what another has loaded since.
      require(got ? *got == 10 : got.error() != nullptr, "the value, or why there is none");
    };
    together(read, read);
    const auto after = shared.get_or_load(1, [](int) { return 10; });
    require(after && *after == 10, "a failure is not kept");
  };
  check_exhausted("loading_cache failed load, bound 2", explore(to(2), body));
}

namespace {

/// Beside a load of what the source had, the source changes and `overtake(cache)` says so.
template <class Overtake>
void load_beside(Overtake overtake) {
  cache shared({.max_entries = 4, .shards = 1});
  atomic<int> source = 1;
  const auto load = [&](int) { return source.load(std::memory_order_acquire); };
  together([&] { static_cast<void>(shared.get_or_load(1, load)); },
           [&] {
             source.store(2, std::memory_order_release);
             overtake(shared);
             const auto got = shared.get_or_load(1, load);
             require(got && *got == 2, "nothing older");
           });
  const auto last = shared.get_or_load(1, load);
  require(last && *last == 2, "nor later");
}

}  // namespace

TEST_CASE("loading_cache model: after invalidate nobody gets what was loaded before") {
  const auto body = [] {
    load_beside([](cache& shared) { static_cast<void>(shared.invalidate(1)); });
  };
  check_exhausted("loading_cache invalidate, bound 2", explore(to(2), body));
}

TEST_CASE("loading_cache model: after an announcement nobody gets an older version") {
  const auto body = [] { load_beside([](cache& shared) { shared.announce(2); }); };
  check_exhausted("loading_cache announce, bound 2", explore(to(2), body));
}

TEST_CASE("loading_cache model: put, get and eviction keep the bound") {
  const auto body = [] {
    cache shared({.max_entries = 1, .shards = 1});
    const auto write = [&](int key) { static_cast<void>(shared.put(key, key * 10)); };
    together([&] { write(1); }, [&] { write(2); },
             [&] {
               const auto got = shared.get(1);
               require(!got || *got == 10, "its own value or none");
             });
    require(shared.stats().entries <= 1, "the bound held");
  };
  check_exhausted("loading_cache put/get, bound 3", explore(to(3), body));
}

TEST_CASE("loading_cache model: a load that fails beside a put keeps the put") {
  const auto body = [] {
    cache shared({.max_entries = 4, .shards = 1});
    const auto fail = [](int) -> int { throw std::runtime_error("down"); };
    const auto read = [&] {
      const auto got = shared.get_or_load(1, fail);
      require(got ? *got == 10 : got.error() != nullptr, "what was put, or why there is nothing");
    };
    together(read, read, [&] { require(shared.put(1, 10), "stored"); });
    const auto after = shared.get(1);
    require(after && *after == 10, "what was put stays");
  };
  check_exhausted("loading_cache failed load beside a put, bound 2", explore(to(2), body));
}

TEST_CASE("loading_cache model: a load that fails beside an invalidation leaves nothing old") {
  const auto body = [] {
    cache shared({.max_entries = 4, .shards = 1});
    atomic<int> loads = 0;
    const auto load = [&](int) -> int {
      if (loads.fetch_add(1, std::memory_order_relaxed) == 1) throw std::runtime_error("down");
      return 10;
    };
    together([&] { static_cast<void>(shared.get_or_load(1, load)); },
             [&] {
               static_cast<void>(shared.invalidate(1));
               const auto got = shared.get_or_load(1, load);
               require(got ? *got == 10 : got.error() != nullptr, "the value, or why not");
             });
    const auto after = shared.get_or_load(1, load);
    require(after || loads.load(std::memory_order_relaxed) == 2, "a failure is not kept");
  };
  check_exhausted("loading_cache failed load beside an invalidation, bound 2",
                  explore(to(2), body));
}

TEST_CASE(
    "loading_cache model: whoever waits for a load goes at its deadline, and the load goes on") {
  const auto body = [] {
    cache shared({.max_entries = 4, .shards = 1});
    const veltrix::read_options soon{.deadline =
                                         veltrix::steady_clock::now() + std::chrono::seconds(1)};
    const auto read = [&] {
      const auto got = shared.get_or_load(1, soon, [](int) { return 10; });
      require(got ? *got == 10 : got.outcome() == veltrix::cache_outcome::timed_out,
              "the value, or late");
      require(got || veltrix::steady_clock::now() >= soon.deadline, "late only when it is");
    };
    together(read, read);
    const auto after = shared.get(1);
    require(after && *after == 10, "the load went on");
  };
  check_exhausted("loading_cache deadline of a waiter, bound 1",
                  explore({{.preemptions = 1, .early_timeouts = 1}}, body));
}

namespace {

using timed_cache = veltrix::loading_cache<int, int, veltrix::detail::default_hash<int>,
                                           veltrix::detail::default_equal, veltrix::virtual_clock>;

/// Takes a task and runs it when told, on the thread that tells.
struct one_task {
  mutex guard;
  veltrix::task kept;

  veltrix::post_result try_post(veltrix::task work) {
    const lock_guard<mutex> lock(guard);
    kept = std::move(work);
    return {};
  }
  void run() {
    veltrix::task work;
    {
      const lock_guard<mutex> lock(guard);
      work = std::move(kept);
    }
    if (work) work();
  }
};

}  // namespace

TEST_CASE("loading_cache model: a refresh in the background and the end of the cache meet") {
  const auto body = [] {
    one_task later;
    veltrix::virtual_clock clock;
    std::optional<timed_cache> shared;
    shared.emplace(
        veltrix::loading_cache_options{
            .max_entries = 4, .shards = 1, .refresh_after = std::chrono::seconds(1)},
        clock, later);
    auto* const alive = new var<int>(1);
    const auto load = [alive](int) { return alive->read(); };
    static_cast<void>(shared->get_or_load(1, load));
    clock.advance(std::chrono::seconds(2));
    static_cast<void>(shared->get_or_load(1, load));  // posts the refresh
    together([&] { later.run(); },
             [&] {
               shared.reset();
               delete alive;  // a refresh that still ran would read it
             });
  };
  check_exhausted("loading_cache refresh/end, bound 3", explore(to(3), body));
}

TEST_CASE("loading_cache model: a refresh that fails leaves readers what they had") {
  const auto body = [] {
    one_task later;
    veltrix::virtual_clock clock;
    timed_cache shared(
        veltrix::loading_cache_options{
            .max_entries = 4, .shards = 1, .refresh_after = std::chrono::seconds(1)},
        clock, later);
    atomic<int> loads = 0;
    const auto load = [&](int) -> int {
      if (loads.fetch_add(1, std::memory_order_relaxed) == 1) throw std::runtime_error("down");
      return 10;
    };
    const auto read = [&] {
      const auto got = shared.get_or_load(1, load);
      require(got && *got == 10, "served");
    };
    read();
    clock.advance(std::chrono::seconds(2));
    read();  // posts the refresh, which fails
    together([&] { later.run(); }, read, read);
    later.run();
    read();
  };
  check_exhausted("loading_cache refresh fails, bound 2", explore(to(2), body));
}

TEST_CASE("loading_cache model: when the clock jumps, nothing is served after its time") {
  const auto body = [] {
    veltrix::virtual_clock clock;
    timed_cache shared(
        veltrix::loading_cache_options{
            .max_entries = 4, .shards = 1, .ttl = std::chrono::seconds(1)},
        clock);
    const veltrix::time_point end = clock.now() + std::chrono::seconds(1);
    atomic<int> source = 1;
    const auto load = [&](int) { return source.load(std::memory_order_acquire); };
    const auto read = [&] {
      const bool over = clock.now() >= end;
      const auto got = shared.get_or_load(1, load);
      // Who joins a load gets what it read, however long ago it began; age() says so.
      const bool joined = got.outcome() == veltrix::cache_outcome::loaded;
      require(got && (*got == 2 || !over || joined), "nothing that is past its time");
      require(*got == 2 || !over || got.age() >= std::chrono::seconds(1), "or its age is told");
    };
    together([&] { static_cast<void>(shared.get_or_load(1, load)); }, read,
             [&] {
               source.store(2, std::memory_order_release);
               clock.advance(std::chrono::hours(1));
             });
    const auto after = shared.get_or_load(1, load);
    require(after && *after == 2, "a load that began before the jump is past its time");
  };
  check_exhausted("loading_cache ttl beside a jump, bound 2", explore(to(2), body));
}
