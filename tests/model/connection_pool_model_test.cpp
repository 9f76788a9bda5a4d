// connection_pool explored: never more than the limit out, no waiter left behind whatever frees a
// place, and nothing of before a host left handed out after it, whoever meets.
// SPDX-License-Identifier: BSL-1.0
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "model/support.hpp"
#include "veltrix/connection_pool.hpp"

namespace {

using namespace veltrix_model;
using veltrix::no_deadline;
using veltrix::time_point;

constexpr time_point start{std::chrono::hours(1)};

struct own_clock {
  [[nodiscard]] time_point now() const noexcept { return start; }
};

/// A connection whose users write to it as to plain memory.
struct wire {
  explicit wire(int opened) : number(opened), used(0) {}
  wire(wire&& other) noexcept : number(other.number), used(other.used.read()) {}
  wire& operator=(wire&& other) noexcept {
    number = other.number;
    used = other.used.read();
    return *this;
  }
  int number;
  var<int> used;
};

struct opener {
  atomic<int>* opened;
  std::optional<wire> operator()(int) const {
    return wire(opened->fetch_add(1, std::memory_order_relaxed) + 1);
  }
};
/// Tells what its test wants to see of a test of a connection.
struct tester {
  void (*look)(void*) = nullptr;
  void* context = nullptr;
  bool operator()(wire&) const {
    if (look != nullptr) look(context);
    return true;
  }
};

struct setting {
  using pool_type = veltrix::connection_pool<int, wire, opener, tester>;

  explicit setting(veltrix::connection_pool_options options, tester test = {})
      : pool(options, {&opened}, test) {}

  pool_type::answer acquire(int host, const veltrix::stop_token& token = {}) {
    own_clock clock;
    return pool.acquire(host, clock, {no_deadline, token});
  }
  /// The connection in use, counted: at most `most` users at once.
  void use(pool_type::answer& got, int most) {
    require(out.fetch_add(1, std::memory_order_relaxed) < most, "the limit");
    got.held->used = got.held->used + 1;
    out.fetch_sub(1, std::memory_order_relaxed);
  }
  void nothing_left(int host) const {
    require(pool.stats(host).in_use == 0, "all came back");
    require(pool.stats(host).waiting == 0, "nobody waits");
  }

  atomic<int> opened = 0;
  atomic<int> out = 0;
  pool_type pool;
};

}  // namespace

TEST_CASE("connection_pool model: never are more out than the limit, one user at a time") {
  check_exhausted("connection_pool 3 users, limit 1, not waiting", explore({}, [] {
                    setting here({.per_host = 1});
                    const auto call = [&] {
                      auto got = here.pool.try_acquire(1, start);
                      if (got) here.use(got, 1);
                    };
                    together(call, call, call);
                    here.nothing_left(1);
                    require(here.pool.stats(1).idle == 1, "the one connection is kept");
                  }));
  check_exhausted("connection_pool 3 users, limit 2, not waiting",
                  explore({{.preemptions = 4}}, [] {
                    setting here({.per_host = 2});
                    const auto call = [&] {
                      auto got = here.pool.try_acquire(1, start);
                      if (got) here.use(got, 2);
                    };
                    together(call, call, call);
                    here.nothing_left(1);
                    require(here.opened.load(std::memory_order_relaxed) <= 2, "never more open");
                  }));
}

TEST_CASE("connection_pool model: a connection given back, or closed, wakes a waiter") {
  check_exhausted("connection_pool 3 users wait for 1",
                  explore({{.preemptions = 3, .spurious_wakeups = 1}}, [] {
                    setting here({.per_host = 1, .waiters = 2});
                    const auto call = [&](bool breaks) {
                      auto got = here.acquire(1);
                      require(static_cast<bool>(got), "there is room for all to wait");
                      here.use(got, 1);
                      if (breaks) got.held.discard();
                    };
                    together([&] { call(false); }, [&] { call(true); }, [&] { call(false); });
                    here.nothing_left(1);
                  }));
}

TEST_CASE("connection_pool model: a place of one host wakes no other's waiter in its stead") {
  check_exhausted("connection_pool 2 hosts, a waiter each", explore({{.preemptions = 4}}, [] {
                    setting here({.per_host = 1, .waiters = 1});
                    auto one = here.pool.try_acquire(1, start);
                    auto two = here.pool.try_acquire(2, start);
                    veltrix::stop_source stop;
                    together(
                        [&] {
                          require(static_cast<bool>(here.acquire(1)), "its place is free");
                          stop.request_stop();
                        },
                        [&] { require(!here.acquire(2, stop.get_token()), "nobody gave it"); },
                        [&] { one.held.give_back(start); });
                    two.held.give_back(start);
                    here.nothing_left(1);
                    here.nothing_left(2);
                  }));
}

TEST_CASE("connection_pool model: no more wait than may, and those are served") {
  check_exhausted("connection_pool 1 place to wait", explore({{.preemptions = 4}}, [] {
                    setting here({.per_host = 1, .waiters = 1});
                    auto held = here.pool.try_acquire(1, start);
                    atomic<int> served = 0;
                    const auto call = [&] {
                      if (here.acquire(1)) served.fetch_add(1, std::memory_order_relaxed);
                    };
                    together(call, call, [&] {
                      require(here.pool.stats(1).waiting <= 1, "one may wait");
                      held.held.give_back(start);
                    });
                    require(served.load(std::memory_order_relaxed) >= 1, "who waited was served");
                    here.nothing_left(1);
                  }));
}

TEST_CASE("connection_pool model: a host that leaves, and a stop, end a wait") {
  check_exhausted("connection_pool host leaves a waiter", explore({{.preemptions = 4}}, [] {
                    setting here({.per_host = 1, .waiters = 2});
                    auto held = here.pool.try_acquire(1, start);
                    const auto wait = [&] {
                      const auto got = here.acquire(1);
                      require(!got, "nobody gives it back");
                      require(got.why == "the host is not in the set" ||
                                  got.why == "pool of 1 in use, oldest 0 s",
                              "and it is told why");
                    };
                    together(wait, wait, [&] { here.pool.keep_only({2}); });
                    held.held.give_back(start);
                    here.nothing_left(1);
                  }));
  check_exhausted("connection_pool stop beside a return", explore({{.preemptions = 4}}, [] {
                    setting here({.per_host = 1, .waiters = 1});
                    auto held = here.pool.try_acquire(1, start);
                    veltrix::stop_source stop;
                    together([&] { static_cast<void>(here.acquire(1, stop.get_token())); },
                             [&] { stop.request_stop(); }, [&] { held.held.give_back(start); });
                    here.nothing_left(1);
                    require(here.pool.stats(1).idle == 1, "it is kept, whoever had it last");
                  }));
}

TEST_CASE("connection_pool model: nothing of before a host left is handed out after it") {
  check_exhausted("connection_pool host leaves and returns", explore({{.preemptions = 4}}, [] {
                    setting here({.per_host = 2});
                    auto before = here.pool.try_acquire(1, start);  // number 1
                    atomic<bool> is_back = false;
                    const auto call = [&] {
                      const bool late = is_back.load(std::memory_order_seq_cst);
                      auto got = here.pool.try_acquire(1, start);
                      if (late) require(!got || got.held->number != 1, "of before it left");
                    };
                    together(
                        [&] {
                          here.pool.keep_only({2});
                          here.pool.keep_only({1, 2});
                          is_back.store(true, std::memory_order_seq_cst);
                          call();
                        },
                        [&] { before.held.give_back(start); }, call);
                    auto after = here.pool.try_acquire(1, start);
                    require(after && after.held->number != 1, "nor later");
                  }));
}

namespace {

/// Sees whether a host had left when its idle connection was still being tested.
struct witness {
  atomic<bool> left = false;
  bool late = false;
  static void look(void* self) {
    auto& seen = *static_cast<witness*>(self);
    seen.late = seen.left.load(std::memory_order_seq_cst);
  }
};

}  // namespace

TEST_CASE("connection_pool model: a host that leaves during a test takes its connection along") {
  check_exhausted("connection_pool host leaves under a test", explore({}, [] {
                    witness seen;
                    setting here({.per_host = 1}, {&witness::look, &seen});
                    here.pool.try_acquire(1, start).held.give_back(start);
                    together(
                        [&] {
                          here.pool.keep_only({2});
                          seen.left.store(true, std::memory_order_seq_cst);
                        },
                        [&] {
                          const auto got = here.pool.try_acquire(1, start);
                          require(!got || !seen.late, "handed out after its host left");
                        });
                    here.nothing_left(1);
                    require(here.pool.stats(1).idle == 0, "nothing is kept");
                  }));
}
