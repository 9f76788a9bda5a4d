// snapshot_cell under threads. Each test names its invariant.
// SPDX-License-Identifier: BSL-1.0
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "support/catch.hpp"
#include "support/random.hpp"
#include "support/scale.hpp"
#include "support/self_poisoning.hpp"
#include "support/threads.hpp"
#include "veltrix/snapshot_cell.hpp"

using veltrix::publish_status;
using veltrix::snapshot_cell;
using veltrix::snapshot_wait_status;
using veltrix_test::scale;

namespace {

/// Complete exactly when every word says the same; scribbled over when it ends.
class record {
 public:
  explicit record(std::uint64_t number) {
    ++alive;
    words_.fill(number);
  }
  record(const record& other) : words_(other.words_) { ++alive; }
  record& operator=(const record&) = delete;
  ~record() {
    words_.fill(~std::uint64_t{0});
    words_[3] = 1;
    --alive;
  }
  bool complete() const {
    for (const std::uint64_t word : words_) {
      if (word != words_[0]) return false;
    }
    return true;
  }
  std::uint64_t number() const { return words_[0]; }
  bool operator==(const record& other) const { return number() == other.number(); }

  static inline std::atomic<int> alive{0};

 private:
  std::array<std::uint64_t, 16> words_;
};

/// Runs all bodies at once, each in its thread.
template <class... Bodies>
void together(Bodies... bodies) {
  std::atomic<std::size_t> missing{sizeof...(bodies)};
  const auto run = [&missing](auto& body) {
    --missing;
    while (missing != 0)
      std::this_thread::yield();
    body();
  };
  std::array<std::thread, sizeof...(bodies)> threads{
      std::thread([&run, &bodies] { run(bodies); })...};
  for (std::thread& each : threads)
    each.join();
}

/// Reads until `done`, counting what must not be.
template <class Read>
std::uint64_t watch(const std::atomic<bool>& done, Read read) {
  std::uint64_t wrong = 0;
  std::uint64_t last = 0;
  bool end = false;
  while (!end) {
    end = done;
    const auto [version, good] = read();
    if (!good || version < last) ++wrong;
    last = version;
  }
  return wrong;
}

struct look {
  std::uint64_t version;
  bool good;
};

}  // namespace

TEST_CASE("snapshot_cell readers see complete values whose versions never fall") {
  const std::uint64_t writes = scale(100'000);
  record::alive = 0;
  int most_alive = 0;
  {
    snapshot_cell<record> cell({.history = 2}, {}, std::in_place, 1U);
    std::atomic<bool> done{false};
    std::array<std::uint64_t, 3> wrong{};
    together(
        [&] {
          for (std::uint64_t i = 2; i <= writes; ++i) {
            cell.emplace(i);
            most_alive = std::max(most_alive, record::alive.load());
          }
          done = true;
        },
        [&] {
          wrong[0] = watch(done, [&] {
            const auto guard = cell.load();
            return look{guard.version(), guard->complete() && guard->number() == guard.version()};
          });
        },
        [&] {
          auto reader = cell.reader();
          wrong[1] = watch(done, [&] {
            const record& now = reader.get();
            return look{reader.version(), now.complete() && now.number() == reader.version()};
          });
        },
        [&] {
          wrong[2] = watch(done, [&] {
            const std::uint64_t before = cell.version();
            const auto shared = cell.share();
            return look{shared->number(), shared->complete() && shared->number() >= before};
          });
        });
    CHECK(wrong == std::array<std::uint64_t, 3>{});
    CHECK(cell.version() == writes);
    // In force, history, and 63 replaced ones before the write that looks for those nobody reads:
    // the three readers' are among them.
    CHECK(most_alive <= 3 + 63 + 3);
    cell.collect();
    CHECK(record::alive == 3);
  }
  CHECK(record::alive == 0);
}

TEST_CASE("snapshot_cell loses no update of eight updaters") {
  const std::uint64_t each = scale(40'000);
  snapshot_cell<std::uint64_t> cell(0);
  const auto add = [&] {
    for (std::uint64_t i = 0; i < each; ++i) {
      static_cast<void>(cell.update([](const std::uint64_t& now) { return now + 1; }));
    }
  };
  together(add, add, add, add, add, add, add, add);
  CHECK(*cell.load() == 8 * each);
  CHECK(cell.version() == 8 * each + 1);
}

TEST_CASE("snapshot_cell publish_if has one winner for each version") {
  const std::uint64_t versions = scale(60'000);
  snapshot_cell<std::uint64_t> cell(0);
  std::array<std::uint64_t, 4> won{};
  const auto compete = [&](std::size_t me) {
    return [&, me] {
      for (std::uint64_t now = 1; now <= versions; now = cell.version()) {
        if (cell.publish_if(now, me).status == publish_status::accepted) ++won[me];
      }
    };
  };
  together(compete(0), compete(1), compete(2), compete(3));
  CHECK(won[0] + won[1] + won[2] + won[3] == cell.version() - 1);
}

TEST_CASE("snapshot_cell validator sees every value against the one it replaces") {
  // The validator lets the value grow by exactly one, so the sum can only be right if each accepted
  // candidate was validated against its predecessor.
  const std::uint64_t each = scale(40'000);
  snapshot_cell<std::uint64_t> cell(
      0, {}, [](const std::uint64_t& candidate, const std::uint64_t& current) {
        return candidate == current + 1 ? std::vector<std::string>{}
                                        : std::vector<std::string>{"not the next number"};
      });
  std::atomic<std::uint64_t> accepted{0};
  const auto push = [&] {
    for (std::uint64_t i = 0; i < each; ++i) {
      if (cell.try_publish(*cell.load() + 1)) ++accepted;
    }
  };
  together(push, push, push);
  CHECK(*cell.load() == accepted);
  CHECK(cell.version() == accepted + 1);
  CHECK(cell.stats().refused == 3 * each - accepted);
}

TEST_CASE("snapshot_cell wait_for misses no version") {
  const std::uint64_t writes = scale(20'000);
  snapshot_cell<std::uint64_t> cell(1);
  std::atomic<std::uint64_t> heard{1};
  std::atomic<std::uint64_t> wrong{0};
  // The writer publishes only after the waiter asks for more: a missed wake would stop both.
  together(
      [&] {
        for (std::uint64_t next = 2; next <= writes; ++next) {
          while (heard < next - 1)
            std::this_thread::yield();
          cell.publish(next);
        }
      },
      [&] {
        for (std::uint64_t next = 2; next <= writes; ++next) {
          const auto result = cell.wait_for(next);
          if (result.status != snapshot_wait_status::reached || result.version != next) ++wrong;
          if (*cell.load() != next) ++wrong;
          heard = next;
        }
      },
      [&] {
        veltrix::stop_source never;
        for (std::uint64_t next = 2; next <= writes; next += 7) {
          const auto result = cell.wait_for(next, veltrix::no_deadline, never.get_token());
          if (result.status != snapshot_wait_status::reached || result.version < next) ++wrong;
        }
      });
  CHECK(wrong == 0);
}

TEST_CASE("snapshot_cell version shows all that its publisher did before") {
  for (std::size_t round = 0; round < scale(200); ++round) {
    snapshot_cell<int> cell(0);
    int written = 0;  // not atomic: the version must order it
    std::atomic<int> wrong{0};
    together(
        [&] {
          written = 1;
          cell.publish(1);
        },
        [&] {
          while (cell.version() == 1)
            std::this_thread::yield();
          if (written != 1) ++wrong;
        });
    CHECK(wrong == 0);
  }
}

TEST_CASE("snapshot_cell subscribers hear rising versions, one call at a time, the newest last") {
  const std::uint64_t each = scale(40'000);
  snapshot_cell<std::uint64_t> cell(0);
  std::atomic<int> inside{0};
  std::uint64_t wrong = 0;  // written inside calls only, which never overlap
  std::array<std::uint64_t, 2> last{};
  const auto listener = [&](std::size_t me) {
    return [&, me](const std::uint64_t&, std::uint64_t version) {
      if (++inside != 1 || version <= last[me]) ++wrong;
      last[me] = version;
      --inside;
    };
  };
  const auto first = cell.subscribe(listener(0));
  const auto second = cell.subscribe(listener(1));
  const auto write = [&] {
    for (std::uint64_t i = 0; i < each; ++i) {
      static_cast<void>(cell.update([](const std::uint64_t& now) { return now + 1; }));
    }
  };
  together(write, write, write);
  CHECK(wrong == 0);
  CHECK(last == std::array<std::uint64_t, 2>{3 * each + 1, 3 * each + 1});
}

TEST_CASE("snapshot_cell subscribers end on the value in force, whoever joins and leaves") {
  const std::uint64_t rounds = scale(60'000);
  snapshot_cell<std::uint64_t> cell(0);
  std::atomic<std::uint64_t> told{0};
  const auto constant =
      cell.subscribe([&](const std::uint64_t& value, std::uint64_t) { told = value; });
  // Few values, so that many versions equal the one before and many others come back.
  const auto write = [&](std::uint64_t step) {
    return [&, step] {
      for (std::uint64_t i = 0; i < rounds; ++i)
        cell.publish(i / step % 3);
    };
  };
  std::uint64_t wrong = 0;
  together(write(1), write(2), [&] {
    for (std::uint64_t i = 0; i < rounds / 4; ++i) {
      std::atomic<std::uint64_t> last{99};
      const auto from = cell.load();
      last = *from;
      auto joined = cell.subscribe_from(
          from.version(), [&](const std::uint64_t& value, std::uint64_t) { last = value; });
      joined.reset();
      if (last > 2) ++wrong;
    }
  });
  CHECK(wrong == 0);
  CHECK(told == *cell.load());
}

TEST_CASE("snapshot_cell newcomers hear the last change even when it returns to an old value") {
  const std::uint64_t rounds = scale(1'000);
  for (std::uint64_t round = 0; round < rounds; ++round) {
    snapshot_cell<int> cell(0);
    std::atomic<int> constant{0};
    std::atomic<int> late{-1};
    veltrix::snapshot_subscription joined;
    const auto stays = cell.subscribe([&](const int& value, std::uint64_t) { constant = value; });
    together(
        [&] {
          cell.publish(1);
          cell.publish(0);
        },
        [&] {
          const auto from = cell.load();
          late = *from;
          joined = cell.subscribe_from(from.version(),
                                       [&](const int& value, std::uint64_t) { late = value; });
        });
    REQUIRE(constant == 0);
    REQUIRE(late == 0);
  }
}

TEST_CASE("snapshot_cell unsubscribing waits for the running call") {
  const std::uint64_t rounds = scale(400);
  snapshot_cell<std::uint64_t> cell(0);
  std::atomic<bool> done{false};
  std::atomic<std::uint64_t> wrong{0};
  std::atomic<std::uint64_t> calls{0};
  together(
      [&] {
        for (std::uint64_t i = 1; !done; ++i)
          cell.publish(i);
      },
      [&] {
        for (std::uint64_t i = 0; i < rounds; ++i) {
          const auto open = std::make_shared<std::atomic<bool>>(true);
          const std::uint64_t before = calls;
          auto following = cell.subscribe([&, open](const std::uint64_t&, std::uint64_t) {
            ++calls;
            std::this_thread::yield();
            if (!*open) ++wrong;
          });
          while (calls == before)
            std::this_thread::yield();
          following.reset();
          *open = false;
        }
        done = true;
      });
  CHECK(wrong == 0);
  CHECK(calls >= rounds);
  CHECK(cell.stats().subscribers == 0);
}

TEST_CASE("snapshot_cell derived cells end with the function of the last value") {
  const std::uint64_t each = scale(40'000);
  snapshot_cell<std::uint64_t> cell(0);
  const auto doubled = cell.derive([](const std::uint64_t& value) { return record(2 * value); });
  const auto text =
      doubled.derive([](const record& value) { return std::to_string(value.number()); });
  std::atomic<bool> done{false};
  std::atomic<int> writers{2};
  std::uint64_t wrong = 0;
  const auto write = [&] {
    for (std::uint64_t i = 0; i < each; ++i) {
      static_cast<void>(cell.update([](const std::uint64_t& now) { return now + 1; }));
    }
    if (--writers == 0) done = true;
  };
  together(write, write, [&] {
    wrong = watch(done, [&] {
      const auto guard = doubled.load();
      return look{guard->number(), guard->complete()};
    });
  });
  CHECK(wrong == 0);
  CHECK(doubled.load()->number() == 4 * each);
  CHECK(*text.load() == std::to_string(4 * each));
  CHECK(doubled.failures() == 0);
}

namespace {

using veltrix_test::self_poisoning;
using poisoned_cell = snapshot_cell<self_poisoning>;

/// Values of its cells alive at once, at most.
class counted_alive {
 public:
  explicit counted_alive(std::uint64_t number) : value_(number) {
    const int now = ++alive;
    int most = most_alive;
    while (most < now && !most_alive.compare_exchange_weak(most, now)) {}
  }
  counted_alive(const counted_alive&) = delete;
  counted_alive& operator=(const counted_alive&) = delete;
  ~counted_alive() { --alive; }
  bool is(std::uint64_t number) const { return value_.is(number); }

  static void reset() { most_alive = alive.load(); }
  static inline std::atomic<int> alive{0};
  static inline std::atomic<int> most_alive{0};

 private:
  self_poisoning value_;
};
using counting_cell = snapshot_cell<counted_alive>;

/// Guards and readers of one thread, held across many reads of every kind.
std::uint64_t read_in_every_way(const poisoned_cell& cell, const std::atomic<bool>& done,
                                std::uint64_t seed) {
  veltrix_test::random_source random(seed);
  std::uint64_t wrong = 0;
  std::uint64_t newest = 0;
  std::vector<poisoned_cell::guard> guards;
  auto reader = cell.reader();
  const auto check = [&](bool good) { wrong += good ? 0 : 1; };
  const auto look = [&](const self_poisoning& value, std::uint64_t version) {
    check(value.is(version) && version >= newest);
    newest = version;
  };
  while (!done) {
    switch (random.below(10)) {
      case 0: guards.push_back(cell.load()); break;
      case 1: guards.push_back(reader.load()); break;
      case 2: {
        const self_poisoning& now = reader.get();
        look(now, reader.version());
        break;
      }
      case 3: reader.release(); break;
      case 4: reader = cell.reader(); break;
      case 5: {
        const auto shared = cell.share();
        look(*shared, shared->number());
        break;
      }
      case 6: check(cell.version() >= newest); break;
      case 7: {
        const auto outer = cell.load();
        const auto inner = reader.load();
        check(inner.version() >= outer.version() && outer->is(outer.version()));
        look(*inner, inner.version());
        break;
      }
      default:
        if (guards.empty()) break;
        std::swap(guards[random.below(guards.size())], guards.back());
        guards.pop_back();
    }
    if (guards.size() > 8) guards.erase(guards.begin(), guards.begin() + 4);
    for (const auto& each : guards)
      check(each->is(each.version()));
  }
  return wrong;
}

}  // namespace

TEST_CASE("snapshot_cell shows no value after its end, however it is read and whoever writes") {
  const std::uint64_t seed = std::random_device()();
  INFO("seed " << seed);
  const std::uint64_t each = scale(100'000);
  poisoned_cell cell(std::in_place, 1U);
  std::atomic<bool> done{false};
  std::atomic<int> writers{3};
  std::atomic<std::uint64_t> wrong{0};
  const auto read = [&](std::uint64_t mine) {
    return [&, mine] { wrong += read_in_every_way(cell, done, seed + mine); };
  };
  const auto write = [&] {
    for (std::uint64_t i = 0; i < each; ++i) {
      static_cast<void>(
          cell.update([](const self_poisoning& now) { return self_poisoning(now.number() + 1); }));
    }
    if (--writers == 0) done = true;
  };
  together(read(1), read(2), read(3), write, write, write);
  CHECK(wrong == 0);
  CHECK(cell.version() == 3 * each + 1);
  cell.collect();
  CHECK(cell.stats().versions_alive == 1);
}

TEST_CASE("snapshot_cell shows no value after its end while threads and readers come and go") {
  const std::size_t rounds = scale(300);
  poisoned_cell cell(std::in_place, 1U);
  std::atomic<int> comers{3};
  std::atomic<std::uint64_t> wrong{0};
  std::mutex mutex;  // guards left
  std::vector<poisoned_cell::guard> left;
  const auto come_and_go = [&] {
    for (std::size_t i = 0; i < rounds; ++i) {
      std::thread([&] {
        for (int turn = 0; turn < 10; ++turn) {
          auto reader = cell.reader();
          auto guard = reader.load();
          const auto nested = cell.load();
          if (!guard->is(guard.version()) || !nested->is(nested.version())) ++wrong;
          if (!reader.get().is(reader.version())) ++wrong;
          if (turn != 5) continue;
          const std::lock_guard<std::mutex> lock(mutex);
          left.push_back(std::move(guard));  // ends in another thread, later
        }
      }).join();
    }
    --comers;
  };
  together(
      come_and_go, come_and_go, come_and_go,
      [&] {
        while (comers != 0) {
          std::vector<poisoned_cell::guard> mine;
          {
            const std::lock_guard<std::mutex> lock(mutex);
            mine.swap(left);
          }
          for (const auto& guard : mine) {
            if (!guard->is(guard.version())) ++wrong;
          }
        }
      },
      [&] {
        for (std::uint64_t i = 2; comers != 0; ++i)
          cell.emplace(i);
      });
  left.clear();
  CHECK(wrong == 0);
  cell.collect();
  CHECK(cell.stats().versions_alive == 1);
  // Those alive at once: three comers, one reader each, and the slots that were handed over.
  CHECK(veltrix::reclaim_domain::shared().stats().records_in_use <= 1);
}

TEST_CASE("snapshot_cell keeps at most 66 versions and those held, with a reader that loops") {
  const std::uint64_t stores = scale(20'000) * 10;
  {
    counting_cell cell(std::in_place, 1U);
    counted_alive::reset();
    std::atomic<bool> done{false};
    std::uint64_t wrong = 0;
    together(
        [&] {
          for (std::uint64_t i = 2; i <= stores; ++i)
            cell.emplace(i);
          done = true;
        },
        [&] {
          auto reader = cell.reader();
          while (!done) {
            const auto guard = cell.load();
            if (!guard->is(guard.version()) || !reader.get().is(reader.version())) ++wrong;
          }
        });
    CHECK(wrong == 0);
    CHECK(counted_alive::most_alive <= 66 + 2);
  }
  CHECK(counted_alive::alive == 0);
}

TEST_CASE("snapshot_cell keeps at most 66 versions and those held, with readers that stall") {
  const std::uint64_t stores = scale(50'000);
  {
    counting_cell cell(std::in_place, 1U);
    const auto first = cell.load();
    cell.emplace(2U);
    auto reader = cell.reader();
    static_cast<void>(reader.get());
    counted_alive::reset();
    for (std::uint64_t i = 3; i <= stores; ++i)
      cell.emplace(i);
    CHECK(counted_alive::most_alive <= 66 + 2);
    CHECK(first->is(1));
    CHECK(reader.version() == 2);
    cell.collect();
    CHECK(counted_alive::alive == 3);
  }
  CHECK(counted_alive::alive == 0);
}

TEST_CASE("snapshot_cell keeps its bound while 500 guards are held at once") {
  const std::uint64_t stores = scale(20'000);
  // In one thread most of them count on the version, in 125 threads each has a slot.
  const int threads = GENERATE(1, 125);
  counting_cell cell(std::in_place, 1U);
  std::vector<counting_cell::guard> guards;
  guards.reserve(500);
  for (int thread = 0; thread < threads; ++thread) {
    const auto hold = [&] {
      for (int i = 0; i < 500 / threads; ++i) {
        guards.push_back(cell.load());
        cell.emplace(cell.version() + 1);
      }
    };
    threads == 1 ? hold() : std::thread(hold).join();
  }
  cell.collect();
  CHECK(counted_alive::alive == 501);
  counted_alive::reset();
  for (std::uint64_t i = 0; i < stores; ++i)
    cell.emplace(cell.version() + 1);
  CHECK(counted_alive::most_alive <= 66 + 2 * 500);
  for (std::size_t i = 0; i < guards.size(); ++i)
    REQUIRE(guards[i]->is(i + 1));
  cell.collect();
  CHECK(counted_alive::alive == 501);
  guards.clear();
  cell.collect();
  CHECK(counted_alive::alive == 1);
}

TEST_CASE("snapshot_cell writers together keep at most 66 versions and a dying batch each") {
  const std::uint64_t each = scale(50'000);
  {
    counting_cell cell(std::in_place, 1U);
    const auto stalled = cell.load();
    counted_alive::reset();
    const auto write = [&] {
      for (std::uint64_t i = 0; i < each; ++i)
        cell.emplace(i);
    };
    together(write, write, write, write);
    // Each may be ending the 64 of a look, and have a value that is not in force yet.
    CHECK(counted_alive::most_alive <= 66 + 1 + 4 * 65);
    CHECK(stalled->is(1));
  }
  CHECK(counted_alive::alive == 0);
}
