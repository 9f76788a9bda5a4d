// Invariants under threads: one load per key; no read older than it may be; no invalidation undone;
// bounds never exceeded; one slow load stops no other key.
// SPDX-License-Identifier: BSL-1.0
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/random.hpp"
#include "support/scale.hpp"
#include "veltrix/loading_cache.hpp"

namespace {

using namespace std::chrono_literals;
using veltrix::cache_outcome;
using veltrix_test::scale;

/// Runs `body(thread index)` on `count` threads and joins them.
template <class Body>
void on_threads(unsigned count, Body body) {
  std::vector<std::thread> crew;
  for (unsigned t = 0; t < count; ++t)
    crew.emplace_back(body, t);
  for (std::thread& each : crew)
    each.join();
}

}  // namespace

TEST_CASE("loading_cache R74: a thousand concurrent misses of a key are one load") {
  constexpr unsigned askers = 1000 / veltrix_test::slowdown;
  for (int round = 0; round < 3; ++round) {
    veltrix::loading_cache<int, int> cache({.max_entries = 10});
    std::atomic<unsigned> waiting{0};
    std::atomic<unsigned> loads{0};
    std::atomic<unsigned> right{0};
    on_threads(askers, [&](unsigned) {
      waiting.fetch_add(1);
      const auto got = cache.get_or_load(1, [&](int) {
        loads.fetch_add(1);
        while (waiting.load() != askers)
          std::this_thread::yield();  // all have come
        return 42;
      });
      if (got && *got == 42) right.fetch_add(1);
    });
    CHECK(loads.load() == 1);
    CHECK(right.load() == askers);
    CHECK(cache.stats().loads == 1);
  }
}

TEST_CASE("loading_cache hands one failure to all who joined the load") {
  constexpr unsigned askers = 16;
  veltrix::loading_cache<int, int> cache({.max_entries = 10});
  std::atomic<unsigned> loads{0};
  std::atomic<unsigned> failures{0};
  on_threads(askers, [&](unsigned) {
    const auto got = cache.get_or_load(1, [&](int) -> int {
      loads.fetch_add(1);
      while (cache.stats().joined != askers - 1)
        std::this_thread::yield();
      throw std::runtime_error("down");
    });
    if (got.outcome() == cache_outcome::failed && got.error()) failures.fetch_add(1);
  });
  CHECK(loads.load() == 1);
  CHECK(failures.load() == askers);
}

TEST_CASE("loading_cache R50: no linearizable read is older than the source was when it began") {
  constexpr int keys = 4;
  std::atomic<std::uint64_t> source[keys] = {};  // the value is the version
  veltrix::loading_cache<int, std::uint64_t> cache({.max_entries = 16});
  std::atomic<bool> done{false};
  std::atomic<std::uint64_t> reads{0};
  std::atomic<std::uint64_t> old_reads{0};
  std::atomic<std::uint64_t> errors{0};
  const auto load = [&](int key) {
    const std::uint64_t value = source[key].load();
    return veltrix::loaded<std::uint64_t>{value, value};
  };
  on_threads(12, [&](unsigned t) {
    veltrix_test::random_source random(t);
    if (t < 4) {
      while (reads.load() == 0)
        std::this_thread::yield();
      for (std::size_t i = 0; i < scale(20'000); ++i)
        source[random.below(keys)].fetch_add(1);
      done.store(true);
      return;
    }
    while (!done.load()) {
      const int key = static_cast<int>(random.below(keys));
      const std::uint64_t before = source[key].load();
      const auto got =
          cache.get_linearizable(key, {}, [&](int asked) { return source[asked].load(); }, load);
      reads.fetch_add(1);
      if (!got) errors.fetch_add(1);
      if (got && *got < before) old_reads.fetch_add(1);
    }
  });
  CHECK(reads.load() > 0);
  CHECK(errors.load() == 0);
  CHECK(old_reads.load() == 0);
}

TEST_CASE("loading_cache announced versions are never served by a later read") {
  std::atomic<std::uint64_t> announced{0};
  std::atomic<std::uint64_t> source{0};
  veltrix::loading_cache<int, std::uint64_t> cache({.max_entries = 16});
  std::atomic<bool> done{false};
  std::atomic<std::uint64_t> old_reads{0};
  std::atomic<std::uint64_t> reads{0};
  on_threads(8, [&](unsigned t) {
    if (t == 0) {
      while (reads.load() == 0)
        std::this_thread::yield();
      for (std::uint64_t version = 1; version <= scale(5000); ++version) {
        source.store(version);
        cache.announce(version);
        announced.store(version);
      }
      done.store(true);
      return;
    }
    while (!done.load()) {
      const std::uint64_t before = announced.load();
      const auto got =
          cache.get_or_load(static_cast<int>(t % 3), [&](int) { return source.load(); });
      reads.fetch_add(1);
      if (got && *got < before) old_reads.fetch_add(1);
    }
  });
  CHECK(reads.load() > 0);
  CHECK(old_reads.load() == 0);
}

TEST_CASE("loading_cache invalidations are not undone by loads in flight") {
  std::atomic<std::uint64_t> source{0};
  veltrix::loading_cache<int, std::uint64_t> cache({.max_entries = 16});
  std::atomic<bool> done{false};
  std::atomic<std::uint64_t> undone{0};
  on_threads(4, [&](unsigned t) {
    if (t == 0) {
      veltrix_test::random_source random(7);
      while (cache.stats().loads == 0)
        std::this_thread::yield();
      for (std::size_t i = 0; i < scale(20'000); ++i) {
        const std::uint64_t now = source.fetch_add(1) + 1;
        switch (random.below(3)) {
          case 0: cache.invalidate(1); break;
          case 1: cache.invalidate_all(); break;
          default: cache.invalidate_if([](int, std::uint64_t) { return true; }); break;
        }
        const auto got = cache.get(1);
        if (got && *got < now) undone.fetch_add(1);
      }
      done.store(true);
      return;
    }
    while (!done.load()) {
      static_cast<void>(cache.get_or_load(1, [&](int) { return source.load(); }));
    }
  });
  CHECK(undone.load() == 0);
  CHECK(cache.stats().loads > 0);
}

TEST_CASE("loading_cache never holds more than its bounds, at any sample") {
  veltrix::loading_cache<std::uint64_t, std::uint64_t>::hooks hooks;
  hooks.weigh = [](const std::uint64_t&, const std::uint64_t& value) { return value % 7 + 1; };
  veltrix::loading_cache<std::uint64_t, std::uint64_t> cache(
      {.max_entries = 100, .max_weight = 300, .shards = 4}, std::move(hooks));
  std::atomic<bool> done{false};
  std::atomic<std::uint64_t> broken{0};
  std::atomic<unsigned> writers{3};
  on_threads(4, [&](unsigned t) {
    if (t == 3) {
      while (!done.load()) {
        const auto now = cache.stats();
        if (now.entries > 100 || now.weight > 300) broken.fetch_add(1);
      }
      return;
    }
    veltrix_test::random_source random(t);
    for (std::size_t i = 0; i < scale(60'000); ++i) {
      const std::uint64_t key = random.below(1000);
      static_cast<void>(cache.get_or_load(key, [](std::uint64_t asked) { return asked; }));
    }
    if (writers.fetch_sub(1) == 1) done.store(true);
  });
  CHECK(broken.load() == 0);
  CHECK(cache.stats().evicted > 0);
}

TEST_CASE("loading_cache goes on with other keys while one load is slow") {
  veltrix::loading_cache<int, int> cache({.max_entries = 16, .shards = 1});
  std::atomic<bool> loading{false};
  std::atomic<bool> others_done{false};
  on_threads(2, [&](unsigned t) {
    if (t == 0) {
      static_cast<void>(cache.get_or_load(0, [&](int) {
        loading.store(true);
        while (!others_done.load())
          std::this_thread::yield();  // ends only after the others
        return 0;
      }));
      return;
    }
    while (!loading.load())
      std::this_thread::yield();
    for (int key = 1; key < 100; ++key) {
      static_cast<void>(cache.get_or_load(key, [](int asked) { return asked; }));
    }
    others_done.store(true);
  });
  CHECK(*cache.get(0) == 0);
  CHECK(cache.stats().loads == 100);
}

TEST_CASE("loading_cache waits at its end for every refresh that has begun, and its loader") {
  struct thread_executor {
    std::vector<std::thread> crew;
    veltrix::post_result try_post(veltrix::detail::task work) {
      crew.emplace_back([moved = std::move(work)]() mutable {
        std::this_thread::yield();
        moved();
      });
      return {};
    }
  } threads;
  veltrix::virtual_clock clock;
  std::atomic<std::size_t> loads{0};
  std::atomic<std::size_t> late{0};
  for (std::size_t round = 0; round < scale(200); ++round) {
    const auto alive = std::make_shared<std::atomic<bool>>(true);
    {
      veltrix::loading_cache<int, int, veltrix::detail::default_hash<int>,
                             veltrix::detail::default_equal, veltrix::virtual_clock>
          cache({.max_entries = 4, .refresh_after = 1s}, clock, threads);
      struct witness {
        std::shared_ptr<std::atomic<bool>> alive;  // null: moved from
        std::atomic<std::size_t>* late;
        bool ran = false;
        witness(std::shared_ptr<std::atomic<bool>> whose, std::atomic<std::size_t>* counter)
            : alive(std::move(whose)), late(counter) {}
        witness(const witness&) = default;
        witness(witness&&) = default;
        witness& operator=(witness&&) = delete;
        ~witness() {
          std::this_thread::yield();
          if (ran && alive && !alive->load()) late->fetch_add(1);
        }
      };
      const auto load = [&loads, seen = witness(alive, &late)](int) mutable {
        seen.ran = true;
        std::this_thread::yield();
        if (!seen.alive->load()) seen.late->fetch_add(1);
        return static_cast<int>(loads.fetch_add(1));
      };
      static_cast<void>(cache.get_or_load(1, load));
      clock.advance(1s);
      static_cast<void>(cache.get_or_load(1, load));
      if (round % 2 == 0) {
        while (cache.stats().refreshes == 0)
          std::this_thread::yield();  // it has begun
      }
    }
    alive->store(false);
  }
  for (std::thread& each : threads.crew)
    each.join();
  CHECK(late.load() == 0);
  CHECK(loads.load() >= scale(200) + scale(200) / 2);
}
