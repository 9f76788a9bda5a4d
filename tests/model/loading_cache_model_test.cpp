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
