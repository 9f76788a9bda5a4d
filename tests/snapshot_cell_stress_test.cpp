// snapshot_cell under threads. Each test names its invariant.
// SPDX-License-Identifier: BSL-1.0
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "support/catch.hpp"
#include "support/scale.hpp"
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
