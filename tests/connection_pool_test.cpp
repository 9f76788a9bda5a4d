// SPDX-License-Identifier: BSL-1.0
#include "veltrix/connection_pool.hpp"

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

using namespace std::chrono_literals;
using veltrix::connection_pool;
using veltrix::connection_pool_options;
using veltrix::steady_clock;
using veltrix::stop_source;
using veltrix::time_point;

namespace {

constexpr time_point start{1h};

/// Counts what lives; moves only.
struct wire {
  explicit wire(int opened) : number(opened) { ++living(); }
  wire(wire&& other) noexcept : number(std::exchange(other.number, 0)) {}
  wire& operator=(wire&& other) noexcept {
    std::swap(number, other.number);
    return *this;
  }
  ~wire() { living() -= number == 0 ? 0 : 1; }
  static std::atomic<int>& living() {
    static std::atomic<int> count{0};
    return count;
  }
  int number;
};

struct setting {
  using opener = std::function<std::optional<wire>(const std::string&)>;
  using tester = std::function<bool(wire&)>;
  using pool = connection_pool<std::string, wire, opener, tester>;

  explicit setting(connection_pool_options options = {})
      : connections(
            options,
            [this](const std::string&) -> std::optional<wire> {
              if (refuses) return std::nullopt;
              return wire(++opened);
            },
            [this](wire&) { return alive; }) {}
  int opened = 0;
  bool refuses = false;
  bool alive = true;
  pool connections;
};

using lease = setting::pool::lease;

}  // namespace

TEST_CASE("connection_pool R56 the 51st is refused with the number in use and the oldest") {
  setting here;
  std::vector<setting::pool::answer> held;
  for (int i = 0; i < 50; ++i)
    held.push_back(here.connections.try_acquire("a", start + i * 1ms));
  CHECK(here.opened == 50);
  const auto refused = here.connections.try_acquire("a", start + 3200ms);
  CHECK_FALSE(refused);
  CHECK(refused.why == "pool of 50 in use, oldest 3.2 s");
  CHECK(here.connections.try_acquire("b", start));  // another host has its own
  held.pop_back();
  CHECK(here.connections.try_acquire("a", start + 4s));
  CHECK(here.opened == 51);
}

TEST_CASE("connection_pool R56 closes what was idle for 10 s, and reuses until 60 s old") {
  setting here;
  const auto use = [&](time_point now) {
    auto got = here.connections.try_acquire("a", now);
    REQUIRE(got);
    const int number = got.held->number;
    got.held.give_back(now);
    return number;
  };
  CHECK(use(start) == 1);
  CHECK(use(start + 10s - 1ns) == 1);
  CHECK(here.connections.sweep(start + 15s) == start + 20s - 1ns);
  CHECK(here.connections.stats("a").idle == 1);
  CHECK(here.connections.sweep(start + 20s - 1ns) == veltrix::no_deadline);
  CHECK(here.connections.stats("a").idle == 0);
  CHECK(wire::living() == 0);

  const time_point again = start + 100s;
  CHECK(use(again) == 2);
  for (int i = 1; i <= 11; ++i)
    CHECK(use(again + i * 5s) == 2);
  CHECK(use(again + 60s) == 3);  // too old, whatever its use
  CHECK(wire::living() == 1);
}

TEST_CASE("connection_pool R54 hands out no dead connection, and none to a host that left") {
  const std::uint64_t seed = 38001;
  INFO("seed " << seed);
  veltrix_test::random_source choose(seed);
  setting here;
  std::vector<std::string> hosts;
  for (int i = 0; i < 20; ++i)
    hosts.push_back("server-" + std::to_string(i));
  here.connections.keep_only(hosts);
  std::map<std::string, int> share;
  for (int call = 0; call < 1000; ++call) {
    auto got = here.connections.try_acquire(hosts[choose.below(20)], start);
    REQUIRE(got);
    got.held.give_back(start);
  }
  auto in_use = here.connections.try_acquire("server-7", start);
  auto left = hosts;
  left.erase(left.begin() + 7);
  here.connections.keep_only(left);
  CHECK(here.connections.stats("server-7").idle == 0);
  in_use.held.give_back(start);  // it comes back to a host that is gone, and is closed
  CHECK(here.connections.stats("server-7").idle == 0);
  for (int call = 0; call < 100'000; ++call) {
    const std::string& host = hosts[choose.below(20)];
    auto got = here.connections.try_acquire(host, start + 1s);
    share[host] += got ? 1 : 0;
    got.held.give_back(start + 1s);
  }
  CHECK(share["server-7"] == 0);
  CHECK(share["server-8"] > 4000);
  CHECK(here.connections.try_acquire("server-7", start).why == "the host is not in the set");
  CHECK(here.connections.try_acquire("never seen", start).why == "the host is not in the set");

  here.connections.keep_only(hosts);
  const int before = here.opened;
  CHECK(here.connections.try_acquire("server-7", start));
  CHECK(here.opened == before + 1);  // a host that returns starts with none

  here.alive = false;
  CHECK(here.connections.try_acquire("server-3", start));
  CHECK(here.opened == before + 2);  // the idle one did not answer
}

TEST_CASE("connection_pool keeps no discarded connection, nor room for a refused one") {
  setting here({.per_host = 1});
  {
    auto got = here.connections.try_acquire("a", start);
    CHECK(got.held->number == 1);
    got.held.discard();
  }
  CHECK(here.connections.stats("a").idle == 0);
  here.refuses = true;
  const auto refused = here.connections.try_acquire("a", start);
  CHECK(refused.why == "the connection was refused");
  CHECK(here.connections.stats("a").in_use == 0);
  here.refuses = false;
  CHECK(here.connections.try_acquire("a", start));
}

namespace {

/// A host whose copy may throw.
struct fickle_host {
  explicit fickle_host(int named) : name(named) {}
  fickle_host(const fickle_host& other) : name(other.name) {
    if (copies_left() == 0) throw std::runtime_error("a copy of a host");
    --copies_left();
  }
  fickle_host(fickle_host&&) noexcept = default;
  fickle_host& operator=(const fickle_host&) = default;
  fickle_host& operator=(fickle_host&&) noexcept = default;
  friend bool operator<(const fickle_host& left, const fickle_host& right) {
    return left.name < right.name;
  }
  static int& copies_left() {
    static int left = 1'000;
    return left;
  }
  int name;
};

}  // namespace

TEST_CASE("connection_pool counts nothing as in use when a host's copy throws") {
  const auto open = [](const fickle_host&) { return std::optional<wire>(wire(1)); };
  const auto alive = [](wire&) { return true; };
  connection_pool<fickle_host, wire, decltype(open), decltype(alive)> pool({.per_host = 1}, open,
                                                                           alive);
  const fickle_host host(1);
  CHECK(pool.try_acquire(host, start));  // its host is known from here on
  for (int copies = 0; copies < 4; ++copies) {
    fickle_host::copies_left() = copies;
    try {
      static_cast<void>(pool.try_acquire(host, start));
    } catch (const std::runtime_error&) {}
    fickle_host::copies_left() = 1'000;
    CHECK(pool.stats(host).in_use == 0);
    CHECK(pool.try_acquire(host, start));
  }
}

TEST_CASE("connection_pool closes what was opened while its host left") {
  connection_pool<int, int, std::function<std::optional<int>(int)>, bool (*)(int&)>* self = nullptr;
  connection_pool<int, int, std::function<std::optional<int>(int)>, bool (*)(int&)> pool(
      {},
      [&](int) {
        self->keep_only({2});
        return std::optional<int>(7);
      },
      [](int&) { return true; });
  self = &pool;
  CHECK(pool.try_acquire(1, start).why == "the host is not in the set");
  CHECK(pool.stats(1).in_use == 0);
  CHECK(pool.stats(1).idle == 0);
}

TEST_CASE("connection_pool closes what was tested while its host left") {
  connection_pool<int, int, std::optional<int> (*)(const int&), std::function<bool(int&)>>* self =
      nullptr;
  std::vector<int> left{1};
  connection_pool<int, int, std::optional<int> (*)(const int&), std::function<bool(int&)>> pool(
      {}, [](const int&) { return std::optional<int>(7); },
      [&](int&) {
        self->keep_only(left);
        return true;
      });
  self = &pool;
  pool.try_acquire(1, start).held.give_back(start);
  CHECK(pool.try_acquire(1, start));  // its host is still there
  left = {2};
  CHECK(pool.try_acquire(1, start).why == "the host is not in the set");
  CHECK(pool.stats(1).in_use == 0);
  CHECK(pool.stats(1).idle == 0);
}

TEST_CASE("connection_pool keeps its set of hosts when there is no memory for another") {
  setting here;
  for (const char* host : {"a", "b", "c"}) {
    auto got = here.connections.try_acquire(host, start);
    REQUIRE(got);
    got.held.give_back(start);
  }
  const std::vector<std::string> left{"b"};
  const int failed =
      veltrix_test::fail_each_allocation([&] { here.connections.keep_only(left); },
                                         [&] {
                                           for (const char* host : {"a", "b", "c"})
                                             CHECK(here.connections.stats(host).idle == 1);
                                           auto got = here.connections.try_acquire("a", start);
                                           CHECK(got);
                                           got.held.give_back(start);
                                         });
  CHECK(failed > 0);
  CHECK(here.connections.stats("a").idle == 0);
  CHECK(here.connections.stats("b").idle == 1);
}

namespace {

/// Asks its pool when it ends, which would wait for ever under the pool's lock.
struct asking_wire {
  using pool = connection_pool<int, asking_wire, std::optional<asking_wire> (*)(const int&),
                               bool (*)(asking_wire&)>;
  explicit asking_wire(pool* about) : of(about) {}
  asking_wire(asking_wire&& other) noexcept : of(std::exchange(other.of, nullptr)) {}
  asking_wire& operator=(asking_wire&& other) noexcept {
    std::swap(of, other.of);
    return *this;
  }
  ~asking_wire() {
    if (of != nullptr) static_cast<void>(of->stats(1));
  }
  static pool*& current() {
    static pool* now = nullptr;
    return now;
  }
  pool* of;
};

}  // namespace

TEST_CASE("connection_pool ends connections with no lock held, also for want of memory") {
  asking_wire::pool pool(
      {}, [](const int&) { return std::optional<asking_wire>(asking_wire::current()); },
      [](asking_wire&) { return true; });
  asking_wire::current() = &pool;
  pool.try_acquire(1, start).held.give_back(start);
  CHECK(veltrix_test::fail_each_allocation(
            [&] {
              auto got = pool.try_acquire(1, start + 10s);  // the idle one is too old
              got.held.discard();
            },
            [] {}) > 0);
  CHECK(pool.stats(1).idle == 0);
  CHECK(pool.stats(1).in_use == 0);
}

TEST_CASE("connection_pool acquire waits for a place, within its bounds") {
  setting here({.per_host = 1, .waiters = 1});
  steady_clock clock;
  auto held = here.connections.acquire("a", clock, {veltrix::no_deadline});
  REQUIRE(held);
  const auto late = here.connections.acquire("a", clock, {clock.now() + 1ms});
  CHECK_FALSE(late);

  stop_source stop;
  std::thread waiter([&] {
    const auto stopped =
        here.connections.acquire("a", clock, {veltrix::no_deadline, stop.get_token()});
    CHECK_FALSE(stopped);
  });
  while (here.connections.stats("a").waiting == 0)
    std::this_thread::yield();
  const auto beyond = here.connections.acquire("a", clock, {veltrix::no_deadline});
  CHECK(veltrix_test::contains(", 1 wait already").match(beyond.why));
  stop.request_stop();
  waiter.join();

  std::thread giver([&] { held.held.give_back(clock.now()); });
  CHECK(here.connections.acquire("a", clock, {veltrix::no_deadline}));
  giver.join();
}

TEST_CASE("connection_pool refuses options out of bounds") {
  CHECK_THROWS_AS(setting({.per_host = 0}), std::invalid_argument);
  CHECK_THROWS_AS(setting({.waiters = 200'000}), std::invalid_argument);
  CHECK_THROWS_AS(setting({.idle = 0s}), std::invalid_argument);
  CHECK_THROWS_AS(setting({.max_age = 25h}), std::invalid_argument);
}
