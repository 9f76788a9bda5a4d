// The recorder and the checker themselves: known histories of each specification, unfinished calls,
// bounds, what a report shows, and thousands of small random histories against every permutation.
// SPDX-License-Identifier: BSL-1.0
#include "support/linearizability.hpp"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/history.hpp"
#include "support/random.hpp"
#include "support/scale.hpp"
#include "support/sequential_specs.hpp"

namespace {

using namespace veltrix_test;

/// Writes histories by hand: calls by thread, interval, what was asked and what was answered.
template <class Spec>
class by_hand {
 public:
  using event = event_of<Spec>;
  using input = typename Spec::input;
  using answer = typename Spec::answer;

  explicit by_hand(Spec spec = {}) : spec_(spec) {}

  by_hand& call(std::uint32_t thread, stamp called, stamp returned, input in, answer out) {
    events_.push_back({in, out, called, returned, thread});
    return *this;
  }
  by_hand& pending(std::uint32_t thread, stamp called, input in) {
    events_.push_back({in, {}, called, never, thread});
    return *this;
  }
  [[nodiscard]] lin_result<event> result() const { return check_linearizable(spec_, events_); }
  [[nodiscard]] verdict answered() const { return result().answer; }

 private:
  Spec spec_;
  std::vector<event> events_;
};

constexpr auto yes = verdict::linearizable;
constexpr auto no = verdict::not_linearizable;

using registers = by_hand<register_spec>;
using queues = by_hand<queue_spec<4>>;
using maps = by_hand<map_spec>;
using sets = by_hand<set_spec>;
using counters = by_hand<counter_spec>;
using cells = by_hand<cell_spec<8>>;
using caches = by_hand<cache_spec>;

register_spec::input read(std::uint64_t key = 0) {
  return {register_call::read, key, 0, 0};
}
register_spec::input write(std::uint64_t value, std::uint64_t key = 0) {
  return {register_call::write, key, value, 0};
}
constexpr register_spec::answer written{true, 0};
register_spec::answer saw(std::uint64_t value) {
  return {false, value};
}

queue_spec<4>::input push(std::uint64_t value) {
  return {queue_call::push, value};
}
constexpr queue_spec<4>::input pop{queue_call::pop, 0};
constexpr queue_spec<4>::answer pushed{};
queue_spec<4>::answer popped(std::uint64_t value) {
  return {queue_status::done, value};
}
queue_spec<4>::answer status(queue_status what) {
  return {what, 0};
}

}  // namespace

// --- known histories -----------------------------------------------------------------------------

TEST_CASE("check_linearizable takes an empty history for linearizable") {
  REQUIRE(registers().answered() == yes);
  REQUIRE(registers().result().operations == 0);
}

TEST_CASE("check_linearizable judges reads that overlap a write of a register") {
  // A read during a write may see the old or the new value, but not the old after the new.
  REQUIRE(registers()
              .call(0, 0, 100, write(1), written)
              .call(1, 10, 20, read(), saw(0))
              .call(1, 30, 40, read(), saw(1))
              .answered() == yes);
  REQUIRE(registers()
              .call(0, 0, 100, write(1), written)
              .call(1, 10, 20, read(), saw(1))
              .call(1, 30, 40, read(), saw(0))
              .answered() == no);
  REQUIRE(registers()
              .call(0, 0, 100, write(1), written)
              .call(1, 10, 20, read(), saw(1))
              .call(2, 30, 40, read(), saw(0))
              .answered() == no);  // nor seen by another thread, later
}

TEST_CASE("check_linearizable refuses a stale read of a register") {
  const auto told = registers()
                        .call(0, 0, 10, write(1), written)
                        .call(0, 20, 30, write(2), written)
                        .call(1, 40, 50, read(), saw(1))
                        .result();
  REQUIRE(told.answer == no);
  REQUIRE_THAT(told.report, contains("read(0) -> 1  <== not explained"));
  REQUIRE_THAT(told.report, contains("state before them: 2"));
  REQUIRE(told.window.size() == 1);
}

TEST_CASE("check_linearizable keeps the order that two readers of a register saw") {
  // Herlihy and Wing's kind of example: both writes overlap, the readers disagree on their order.
  const auto both = [](std::uint64_t first, std::uint64_t second) {
    return registers()
        .call(0, 0, 100, write(1), written)
        .call(1, 0, 100, write(2), written)
        .call(2, 10, 20, read(), saw(1))
        .call(2, 30, 40, read(), saw(2))
        .call(3, 50, 60, read(), saw(first))
        .call(3, 70, 80, read(), saw(second))
        .answered();
  };
  REQUIRE(both(2, 2) == yes);
  REQUIRE(both(2, 1) == no);
  REQUIRE(both(1, 2) == no);
}

TEST_CASE("check_linearizable treats equal stamps as overlap") {
  REQUIRE(
      registers().call(0, 0, 10, write(1), written).call(1, 10, 20, read(), saw(0)).answered() ==
      yes);
  REQUIRE(
      registers().call(0, 0, 10, write(1), written).call(1, 11, 20, read(), saw(0)).answered() ==
      no);
}

TEST_CASE("check_linearizable judges compare-exchange of a register") {
  const auto exchange = [](std::uint64_t expected, std::uint64_t value) {
    return register_spec::input{register_call::compare_exchange, 0, value, expected};
  };
  REQUIRE(registers()
              .call(0, 0, 50, exchange(0, 1), {true, 0})
              .call(1, 10, 60, exchange(0, 2), saw(1))
              .answered() == yes);
  REQUIRE(registers()
              .call(0, 0, 50, exchange(0, 1), {true, 0})
              .call(1, 10, 60, exchange(0, 2), {true, 0})
              .answered() == no);
}

TEST_CASE("check_linearizable judges keys one by one") {
  const auto told = registers()
                        .call(0, 0, 10, write(1, 7), written)
                        .call(0, 20, 30, write(2, 8), written)
                        .call(1, 40, 50, read(7), saw(1))
                        .call(1, 60, 70, read(8), saw(0))
                        .result();
  REQUIRE(told.answer == no);
  REQUIRE(told.partitions == 2);
  REQUIRE_THAT(told.report, contains("read(8) -> 0"));
  REQUIRE_THAT(told.report, !contains("(7"));
}

TEST_CASE("check_linearizable judges the order of a queue") {
  // Herlihy and Wing 1990, figure 1: what overlaps may come out in either order...
  REQUIRE(queues()
              .call(0, 0, 30, push(1), pushed)
              .call(1, 10, 20, push(2), pushed)
              .call(1, 40, 50, pop, popped(2))
              .call(0, 60, 70, pop, popped(1))
              .answered() == yes);
  // ... what does not comes out in its own,
  REQUIRE(queues()
              .call(0, 0, 5, push(1), pushed)
              .call(1, 10, 20, push(2), pushed)
              .call(1, 40, 50, pop, popped(2))
              .answered() == no);
  // and nothing comes out twice.
  REQUIRE(queues()
              .call(0, 0, 30, push(1), pushed)
              .call(1, 10, 20, push(2), pushed)
              .call(0, 40, 60, pop, popped(2))
              .call(1, 50, 70, pop, popped(2))
              .answered() == no);
}

TEST_CASE("check_linearizable judges the bounds of a queue") {
  const queue_spec<4> small{.capacity = 1};
  const auto full = status(queue_status::full);
  const auto empty = status(queue_status::empty);
  REQUIRE(by_hand(small)
              .call(0, 0, 10, push(1), pushed)
              .call(0, 20, 30, push(2), full)
              .call(1, 40, 50, pop, popped(1))
              .call(1, 60, 70, pop, empty)
              .answered() == yes);
  REQUIRE(
      by_hand(small).call(0, 0, 10, push(1), pushed).call(0, 20, 30, push(2), pushed).answered() ==
      no);
  REQUIRE(by_hand(small).call(0, 0, 10, push(2), full).answered() == no);
  REQUIRE(by_hand(small).call(0, 0, 10, push(1), pushed).call(1, 20, 30, pop, empty).answered() ==
          no);
  REQUIRE(by_hand(small).call(0, 0, 25, push(1), pushed).call(1, 20, 30, pop, empty).answered() ==
          yes);
  REQUIRE_THROWS_AS(by_hand(queue_spec<4>{.capacity = 5}).call(0, 0, 1, pop, empty).answered(),
                    std::invalid_argument);
}

TEST_CASE("check_linearizable judges a queue that drops its oldest, refuses or closes") {
  const queue_spec<4> dropping{.capacity = 2, .policy = when_full::drop_oldest};
  const queue_spec<4>::answer dropped{queue_status::done, 1};
  const auto three = [&](std::uint64_t first) {
    return by_hand(dropping)
        .call(0, 0, 1, push(1), pushed)
        .call(0, 2, 3, push(2), pushed)
        .call(0, 4, 5, push(3), dropped)
        .call(1, 6, 7, pop, popped(first))
        .answered();
  };
  REQUIRE(three(2) == yes);
  REQUIRE(three(1) == no);
  const queue_spec<4>::input close{queue_call::close, 0};
  const queue_spec<4>::input size{queue_call::size, 0};
  const auto closed = status(queue_status::closed);
  REQUIRE(queues()
              .call(0, 0, 1, push(1), pushed)
              .call(0, 2, 3, push(2), status(queue_status::refused))
              .call(1, 4, 5, size, popped(1))
              .call(1, 6, 20, close, pushed)
              .call(0, 10, 15, push(3), closed)
              .call(1, 30, 40, pop, popped(1))
              .call(1, 50, 60, pop, closed)
              .answered() == yes);
  REQUIRE(queues().call(1, 0, 1, close, pushed).call(0, 2, 3, push(3), pushed).answered() == no);
  REQUIRE(queues().call(0, 0, 1, push(3), closed).call(1, 2, 3, close, pushed).answered() == no);
  REQUIRE(queues().call(0, 0, 1, push(1), pushed).call(0, 2, 3, size, popped(2)).answered() == no);
}

TEST_CASE("check_linearizable judges the winners of a set") {
  const set_spec::input insert{set_call::insert, 1};
  const set_spec::input erase{set_call::erase, 1};
  const set_spec::input look{set_call::contains, 1};
  REQUIRE(sets().call(0, 0, 10, insert, true).call(1, 5, 15, insert, false).answered() == yes);
  REQUIRE(sets().call(0, 0, 10, insert, true).call(1, 5, 15, insert, true).answered() == no);
  REQUIRE(sets()
              .call(0, 0, 10, insert, true)
              .call(1, 5, 15, insert, true)
              .call(2, 0, 20, erase, true)
              .answered() == yes);  // between the two
  REQUIRE(sets().call(0, 0, 10, insert, false).call(1, 5, 15, insert, false).answered() == no);
  REQUIRE(sets().call(0, 0, 10, insert, true).call(1, 20, 30, look, false).answered() == no);
}

TEST_CASE("check_linearizable judges what a counter told") {
  const counter_spec::input fetch{counter_call::fetch_add, 1};
  const counter_spec::input add{counter_call::add, 1};
  const counter_spec::input look{counter_call::read, 0};
  REQUIRE(counters().call(0, 0, 10, fetch, 1).call(1, 5, 15, fetch, 0).answered() == yes);
  REQUIRE(counters().call(0, 0, 10, fetch, 0).call(1, 5, 15, fetch, 0).answered() == no);
  REQUIRE(
      counters().call(0, 0, 10, add, 0).call(1, 0, 9, add, 0).call(0, 20, 30, look, 2).answered() ==
      yes);
  REQUIRE(
      counters().call(0, 0, 10, add, 0).call(1, 0, 9, add, 0).call(0, 20, 30, look, 1).answered() ==
      no);
}

TEST_CASE("check_linearizable judges each operation of a map") {
  const auto in = [](map_call call, std::uint64_t value = 0) {
    return map_spec::input{call, 1, value};
  };
  using enum map_change;
  // One thread: the answers are those of the specification, or the history is refused.
  REQUIRE(maps()
              .call(0, 0, 1, in(map_call::get), {unchanged, {}})
              .call(0, 2, 3, in(map_call::insert, 10), {inserted, {}})
              .call(0, 4, 5, in(map_call::insert, 11), {unchanged, {}})
              .call(0, 6, 7, in(map_call::contains), {unchanged, 1})
              .call(0, 8, 9, in(map_call::assign, 20), {replaced, {}})
              .call(0, 10, 11, in(map_call::update, 2), {replaced, 20})
              .call(0, 12, 13, in(map_call::upsert, 2), {replaced, 22})
              .call(0, 14, 15, in(map_call::erase_below, 24), {unchanged, 24})
              .call(0, 16, 17, in(map_call::erase_below, 25), {erased, 24})
              .call(0, 18, 19, in(map_call::erase), {unchanged, {}})
              .call(0, 20, 21, in(map_call::update, 2), {unchanged, {}})
              .call(0, 22, 23, in(map_call::upsert, 6), {inserted, {}})
              .call(0, 24, 25, in(map_call::compute, 2), {replaced, 6})
              .call(0, 26, 27, in(map_call::compute, 1), {erased, 8})
              .call(0, 28, 29, in(map_call::compute, 1), {unchanged, {}})
              .call(0, 30, 31, in(map_call::compute, 2), {inserted, {}})
              .call(0, 32, 33, in(map_call::get_or_emplace, 5), {unchanged, 2})
              .call(0, 34, 35, in(map_call::erase), {erased, {}})
              .call(0, 36, 37, in(map_call::get_or_emplace, 5), {inserted, 5})
              .answered() == yes);
  REQUIRE(maps().call(0, 0, 1, in(map_call::get), {unchanged, 3}).answered() == no);
  // Two erasures of one entry.
  REQUIRE(maps()
              .call(0, 0, 1, in(map_call::insert, 10), {inserted, {}})
              .call(0, 2, 10, in(map_call::erase), {erased, {}})
              .call(1, 2, 10, in(map_call::erase), {erased, {}})
              .answered() == no);
  // A lost update: both saw the same value.
  REQUIRE(maps()
              .call(0, 0, 1, in(map_call::insert, 10), {inserted, {}})
              .call(0, 2, 10, in(map_call::update, 1), {replaced, 10})
              .call(1, 2, 10, in(map_call::update, 2), {replaced, 10})
              .answered() == no);
}

TEST_CASE("check_linearizable judges the versions of a cell") {
  using input = cell_spec<8>::input;
  const input load{cell_call::load, 0, 0};
  const input publish{cell_call::publish, 7, 0};
  const input publish_if_1{cell_call::publish_if, 9, 1};
  const input rollback_to_1{cell_call::rollback, 0, 1};
  REQUIRE(cells()
              .call(0, 0, 10, publish, {true, 2, 0})
              .call(1, 5, 15, publish_if_1, {false, 2, 0})
              .call(0, 20, 30, load, {false, 2, 7})
              .call(0, 40, 50, rollback_to_1, {true, 3, 0})
              .call(0, 60, 70, load, {false, 3, 0})
              .call(0, 80, 90, {cell_call::previous, 0, 0}, {false, 3, 7})
              .call(0, 91, 92, {cell_call::version, 0, 0}, {false, 3, 0})
              .call(0, 93, 94, {cell_call::update, 5, 0}, {true, 4, 0})
              .call(0, 95, 96, load, {false, 4, 5})
              .answered() == yes);
  REQUIRE(cells()
              .call(0, 0, 10, publish, {true, 2, 0})
              .call(1, 5, 15, publish_if_1, {true, 2, 0})
              .answered() == no);
  REQUIRE(cells()
              .call(0, 0, 10, publish, {true, 2, 0})
              .call(0, 20, 30, load, {false, 1, 0})
              .answered() == no);
  REQUIRE(cells()
              .call(0, 0, 10, publish, {true, 2, 0})
              .call(0, 20, 30, load, {false, 2, 0})
              .answered() == no);
}

TEST_CASE("check_linearizable judges what a cache serves after an invalidation") {
  const cache_spec::input get{cache_call::get, 1, 0, {}};
  const cache_spec::input begin{cache_call::begin_load, 1, 1, {}};
  const cache_spec::input land{cache_call::land, 1, 1, 50};
  const cache_spec::input join{cache_call::join, 1, 1, {}};
  const cache_spec::input invalidate{cache_call::invalidate, 1, 0, {}};
  const cache_spec::input put{cache_call::put, 1, 60, {}};
  const cache_spec::answer right{true, {}};
  const cache_spec::answer wrong{false, {}};
  const auto shows = [](std::optional<std::uint64_t> value) {
    return cache_spec::answer{false, value};
  };
  const auto loaded = caches().call(0, 0, 10, begin, right).call(0, 20, 30, land, {});
  REQUIRE(caches(loaded).call(1, 40, 50, get, shows(50)).answered() == yes);
  REQUIRE(caches(loaded).call(1, 40, 50, get, shows({})).answered() == no);
  REQUIRE(caches(loaded).call(1, 5, 35, join, right).answered() == yes);
  REQUIRE(caches(loaded).call(1, 40, 50, join, right).answered() == no);
  REQUIRE(caches(loaded)
              .call(1, 40, 50, invalidate, right)
              .call(1, 60, 70, get, shows({}))
              .answered() == yes);
  // The load was overtaken: nobody joins it or is served what it brought.
  const auto overtaken = caches(loaded).call(1, 12, 15, invalidate, wrong);
  REQUIRE(caches(overtaken).call(1, 40, 50, get, shows({})).answered() == yes);
  REQUIRE(caches(overtaken).call(1, 40, 50, get, shows(50)).answered() == no);
  REQUIRE(caches(overtaken).call(1, 16, 35, join, right).answered() == no);
  REQUIRE(caches(loaded).call(1, 12, 15, put, right).call(1, 40, 50, get, shows(60)).answered() ==
          yes);
  REQUIRE(caches(loaded).call(1, 12, 15, put, right).call(1, 40, 50, get, shows(50)).answered() ==
          no);
  // One load at a time.
  const cache_spec::input second{cache_call::begin_load, 1, 2, {}};
  REQUIRE(caches(loaded).call(1, 12, 15, second, right).answered() == no);
  REQUIRE(caches(overtaken).call(1, 16, 18, second, right).answered() == yes);
}

TEST_CASE("check_linearizable lets an entry of a cache be evicted where the cache is bounded") {
  const cache_spec::input get{cache_call::get, 1, 0, {}};
  const cache_spec::input put{cache_call::put, 1, 60, {}};
  const auto history = [&](cache_bound bound) {
    return by_hand(cache_spec{.bound = bound})
        .call(0, 0, 10, put, {true, {}})
        .call(0, 20, 30, get, {false, 60})
        .call(0, 40, 50, get, {});
  };
  REQUIRE(history(cache_bound::never_evicts).answered() == no);
  REQUIRE(history(cache_bound::may_evict).answered() == yes);
  // What was evicted does not come back.
  REQUIRE(history(cache_bound::may_evict).call(0, 60, 70, get, {false, 60}).answered() == no);
}

// --- calls that never returned -------------------------------------------------------------------

TEST_CASE("check_linearizable lets a pending call take effect or not") {
  REQUIRE(registers().pending(0, 0, write(1)).call(1, 10, 20, read(), saw(0)).answered() == yes);
  REQUIRE(registers().pending(0, 0, write(1)).call(1, 10, 20, read(), saw(1)).answered() == yes);
  REQUIRE(registers().pending(0, 0, write(1)).call(1, 10, 20, read(), saw(2)).answered() == no);
  // at any time after its call, even much later, but once,
  REQUIRE(registers()
              .pending(0, 0, write(1))
              .call(1, 10, 20, read(), saw(0))
              .call(1, 30, 40, read(), saw(1))
              .answered() == yes);
  REQUIRE(registers()
              .pending(0, 0, write(1))
              .call(1, 10, 20, read(), saw(1))
              .call(1, 30, 40, write(2), written)
              .call(1, 50, 60, read(), saw(1))
              .answered() == no);
  // and not before it.
  REQUIRE(registers().call(1, 10, 20, read(), saw(1)).pending(0, 30, write(1)).answered() == no);
}

TEST_CASE("check_linearizable lets a thread go on after a pending call") {
  // A call that threw stays pending; its thread calls again.
  REQUIRE(queues()
              .pending(0, 0, push(1))
              .call(0, 10, 20, push(2), pushed)
              .call(0, 30, 40, pop, popped(2))
              .call(0, 50, 60, pop, popped(1))
              .answered() == yes);
  REQUIRE(queues()
              .pending(0, 0, pop)
              .call(0, 10, 20, push(2), pushed)
              .call(0, 30, 40, pop, popped(3))
              .answered() == no);
}

// --- bounds and reports --------------------------------------------------------------------------

TEST_CASE("check_linearizable gives up at its bound, and says so") {
  std::vector<event_of<counter_spec>> history;
  for (std::uint32_t i = 0; i < 12; ++i)
    history.push_back({{counter_call::add, i + 1}, 0, 0, 100, i});
  history.push_back({{counter_call::read, 0}, 1000, 200, 300, 0});
  const counter_spec spec;
  const auto told = check_linearizable(spec, history, {.max_configurations = 20});
  REQUIRE(told.answer == verdict::gave_up);
  REQUIRE(told.configurations == 20);
  REQUIRE_THAT(told.report, contains("gave up after 20 configurations"));
  REQUIRE(check_linearizable(spec, history).answer == no);  // all 2^12 subsets
  for (std::uint32_t i = 0; i < 60; ++i)
    history.push_back({{counter_call::add, 1}, 0, 0, 100, i});
  REQUIRE(check_linearizable(spec, history).answer == verdict::gave_up);  // more than 64 at once
}

TEST_CASE("check_linearizable names the earliest return without an order, and little else") {
  by_hand<map_spec> history;
  for (std::uint64_t i = 0; i < 50; ++i) {  // noise, before and at the same time
    history.call(0, i * 10, i * 10 + 5, {map_call::assign, 1, i},
                 {i == 0 ? map_change::inserted : map_change::replaced, {}});
    history.call(1, i * 10 + 1, i * 10 + 8, {map_call::get, 1, 0}, {map_change::unchanged, i});
  }
  history.call(0, 1000, 1020, {map_call::erase, 1, 0}, {map_change::erased, {}});
  history.call(2, 1005, 1030, {map_call::erase, 1, 0}, {map_change::erased, {}});
  history.call(1, 1001, 1025, {map_call::get, 1, 0}, {map_change::unchanged, 49});
  history.call(1, 2000, 2001, {map_call::get, 1, 0}, {map_change::unchanged, 1234});
  const auto told = history.result();
  INFO(told.report);
  REQUIRE(told.answer == no);
  REQUIRE(told.operations == 104);
  REQUIRE(told.window.size() == 2);
  REQUIRE_THAT(told.report, contains("no order of these 2 operations"));
  REQUIRE_THAT(told.report, contains("state before them: 49"));
  REQUIRE_THAT(told.report, contains("thread 0  erase(1) -> erased                     [=]"));
  REQUIRE_THAT(told.report, contains("thread 2  erase(1) -> erased  <== not explained   [=]"));
}

TEST_CASE("check_linearizable gives the earliest of the failures of several keys") {
  const auto told = registers()
                        .call(0, 0, 10, read(5), saw(1))
                        .call(0, 20, 30, read(6), saw(1))
                        .call(1, 2, 8, read(7), saw(1))
                        .result();
  REQUIRE(told.answer == no);
  REQUIRE(told.window.size() == 1);
  REQUIRE(told.window[0].input.key == 7);
}

TEST_CASE("check_linearizable answers for long histories without a moment of rest") {
  // Each call overlaps the next; every second one could come first.
  by_hand<queue_spec<4>> history;
  const std::uint64_t count = 20'000;
  for (std::uint64_t i = 0; i < count; ++i) {
    history.call(0, i * 10, i * 10 + 9, push(i), pushed);
    history.call(1, i * 10 + 5, i * 10 + 12, pop, popped(i));
  }
  REQUIRE(history.answered() == yes);
  history.call(0, count * 20, count * 20 + 1, pop, popped(5));
  REQUIRE(history.answered() == no);
}

// --- the recorder --------------------------------------------------------------------------------

TEST_CASE("recorder keeps calls, answers and threads, and orders them by call") {
  for (const stamp_source source : {stamp_source::clock, stamp_source::counter}) {
    recorder_of<counter_spec> records({.threads = 2, .calls_per_thread = 4, .source = source});
    auto& pending = records.of(1).call({counter_call::add, 7});
    REQUIRE(records.of(0).record({counter_call::read, 0}, [] { return std::uint64_t{5}; }) == 5);
    REQUIRE_THROWS_AS(
        records.of(1).record({counter_call::add, 9},
                             []() -> std::uint64_t { throw std::runtime_error("lost"); }),
        std::runtime_error);
    REQUIRE(records.size() == 3);
    const auto all = records.merged();
    REQUIRE(all.size() == 3);
    REQUIRE(all[0].thread == 1);
    REQUIRE(all[0].pending());
    REQUIRE(all[1].thread == 0);
    REQUIRE(all[1].answer == 5);
    REQUIRE(all[1].called <= all[1].returned);
    REQUIRE(all[2].input.amount == 9);
    REQUIRE(all[2].pending());
    pending.returned = pending.called - 1;
    REQUIRE_THROWS_AS(records.merged(), std::logic_error);
    records.clear();
    REQUIRE(records.merged().empty());
    for (int i = 0; i < 4; ++i)
      records.of(0).call({});
    REQUIRE_THROWS_AS(records.of(0).call({}), std::length_error);
  }
}

TEST_CASE("recorder stamps never run backwards from one thread to the next") {
  // Two threads pass a token to and fro; each stamp is taken after the one before it.
  for (const stamp_source source : {stamp_source::clock, stamp_source::counter}) {
    const std::size_t turns = scale(40'000);
    recorder_of<counter_spec> records({.threads = 2, .calls_per_thread = turns, .source = source});
    std::atomic<std::size_t> turn{0};
    const auto play = [&](std::size_t self) {
      for (std::size_t mine = self; mine < turns; mine += 2) {
        while (turn.load(std::memory_order_relaxed) != mine)
          std::this_thread::yield();  // woken by the other thread, after its stamp
        records.of(self).record({counter_call::add, mine}, [] { return std::uint64_t{0}; });
        turn.store(mine + 1, std::memory_order_relaxed);
      }
    };
    std::thread other(play, std::size_t{1});
    play(0);
    other.join();
    const auto all = records.merged();
    REQUIRE(all.size() == turns);
    std::size_t backwards = 0;
    for (std::size_t i = 1; i < all.size(); ++i) {
      if (all[i].input.amount != i || all[i].called < all[i - 1].returned) ++backwards;
    }
    REQUIRE(backwards == 0);
  }
}

// --- every permutation ---------------------------------------------------------------------------

namespace {

/// The states of an object, one for each key where it has keys.
template <class Spec>
class states_by_key {
 public:
  using state = typename Spec::state;

  explicit states_by_key(const Spec& spec) : spec_(spec) {}

  state& of(const typename Spec::input& in) {
    std::uint64_t key = 0;
    if constexpr (requires { spec_.key(in); }) key = spec_.key(in);
    for (auto& each : states_) {
      if (each.first == key) return each.second;
    }
    return states_.emplace_back(key, spec_.initial()).second;
  }

 private:
  const Spec& spec_;
  std::vector<std::pair<std::uint64_t, state>> states_;
};

/// Whether the calls answer so, one after the other.
template <class Spec>
bool replays(const Spec& spec, const std::vector<event_of<Spec>>& events,
             const std::vector<std::size_t>& order) {
  states_by_key<Spec> states(spec);
  for (const std::size_t i : order) {
    const auto& each = events[i];
    auto& at = states.of(each.input);
    if (each.pending()) {
      spec.run(at, each.input);
    } else if constexpr (requires { spec.accepts(at, each.input, each.answer); }) {
      if (!spec.accepts(at, each.input, each.answer)) return false;
    } else if (spec.run(at, each.input) != each.answer) {
      return false;
    }
  }
  return true;
}

template <class Event>
bool keeps_time(const std::vector<Event>& events, const std::vector<std::size_t>& order) {
  for (std::size_t i = 0; i < order.size(); ++i) {
    for (std::size_t j = i + 1; j < order.size(); ++j) {
      if (events[order[j]].returned < events[order[i]].called) return false;
    }
  }
  return true;
}

/// The definition itself: tries every order of the calls that returned by `until`, with each choice
/// of those that did not.
template <class Spec>
bool some_permutation(const Spec& spec, const std::vector<event_of<Spec>>& events,
                      stamp until = never - 1) {
  std::vector<std::size_t> must;
  std::vector<std::size_t> may;
  for (std::size_t i = 0; i < events.size(); ++i) {
    if (events[i].called <= until) (events[i].returned <= until ? must : may).push_back(i);
  }
  for (std::size_t choice = 0; choice < std::size_t{1} << may.size(); ++choice) {
    std::vector<std::size_t> order = must;
    for (std::size_t i = 0; i < may.size(); ++i) {
      if ((choice >> i & 1) != 0) order.push_back(may[i]);
    }
    std::sort(order.begin(), order.end());
    do {
      if (keeps_time(events, order) && replays(spec, events, order)) return true;
    } while (std::next_permutation(order.begin(), order.end()));
  }
  return false;
}

template <class Spec>
void answer_in(std::vector<event_of<Spec>>& events, const Spec& spec,
               const std::vector<std::size_t>& order) {
  states_by_key<Spec> states(spec);
  for (const std::size_t i : order)
    events[i].answer = spec.run(states.of(events[i].input), events[i].input);
}

/// A few calls of three threads, answered by some order that keeps time, or by any order: the
/// second kind is wrong more often than not, and never absurd.
template <class Spec, class Draw>
std::vector<event_of<Spec>> random_history(const Spec& spec, random_source& random, Draw draw) {
  const std::size_t count = 2 + random.below(5);
  std::vector<event_of<Spec>> events;
  std::vector<stamp> now(3, 1);
  std::vector<std::pair<stamp, std::size_t>> moments;
  for (std::size_t i = 0; i < count; ++i) {
    const auto thread = static_cast<std::uint32_t>(random.below(3));
    const stamp called = now[thread] + random.below(4);
    const stamp returned = called + random.below(8);
    now[thread] = returned + 1;
    events.push_back({draw(random), {}, called, returned, thread});
    moments.push_back({called + random.below(returned - called + 1), i});
  }
  std::sort(moments.begin(), moments.end());
  std::vector<std::size_t> order;
  for (const auto& each : moments)
    order.push_back(each.second);
  for (std::uint64_t swaps = random.below(2) * count; swaps > 0; --swaps)
    std::swap(order[random.below(count)], order[random.below(count)]);
  answer_in(events, spec, order);
  for (auto& each : events) {
    if (random.below(16) == 0) each.returned = never;
  }
  return events;
}

/// Compares the checker with every permutation on random histories: verdict, and earliest failure.
template <class Spec, class Draw>
void agree_on_random_histories(const char* name, const Spec& spec, std::uint64_t seed, Draw draw) {
  random_source random(seed);
  const std::size_t count = scale(4'000);
  std::size_t linearizable = 0;
  std::size_t disagreements = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const auto events = random_history(spec, random, draw);
    const auto told = check_linearizable(spec, events);
    const bool expected = some_permutation(spec, events);
    linearizable += expected ? 1 : 0;
    bool agrees = told.answer == (expected ? yes : no);
    if (!expected && told.until != 0) {
      agrees = agrees && !some_permutation(spec, events, told.until) &&
               some_permutation(spec, events, told.until - 1) && !told.window.empty();
    }
    if (agrees || disagreements++ > 0) continue;
    const auto text = [&](const auto& each) {
      return spec.text(each.input) + " -> " + spec.text(each.input, each.answer);
    };
    INFO(name << ", seed " << seed << ", history " << i << "\n" << drawn(events, text));
    CHECK(told.answer == (expected ? yes : no));
    CHECK(told.report.empty());
  }
  std::printf("%s: %zu random histories, %zu linearizable, %zu disagreements (seed %llu)\n", name,
              count, linearizable, disagreements, static_cast<unsigned long long>(seed));
  REQUIRE(disagreements == 0);
  REQUIRE(linearizable > count / 20);
  REQUIRE(count - linearizable > count / 20);
}

}  // namespace

TEST_CASE("check_linearizable agrees with every permutation on maps and sets") {
  agree_on_random_histories("map", map_spec{}, 11, [](random_source& random) {
    return map_spec::input{static_cast<map_call>(random.below(10)), random.below(4) == 0 ? 1U : 0U,
                           1 + random.below(4)};
  });
  agree_on_random_histories("set", set_spec{}, 12, [](random_source& random) {
    return set_spec::input{static_cast<set_call>(random.below(3)), random.below(4) == 0 ? 1U : 0U};
  });
}

TEST_CASE("check_linearizable agrees with every permutation on registers, counters and cells") {
  agree_on_random_histories("register", register_spec{}, 21, [](random_source& random) {
    return register_spec::input{static_cast<register_call>(random.below(3)), 0, random.below(3),
                                random.below(3)};
  });
  agree_on_random_histories("counter", counter_spec{}, 22, [](random_source& random) {
    return counter_spec::input{static_cast<counter_call>(random.below(3)), random.below(3)};
  });
  agree_on_random_histories("cell", cell_spec<8>{}, 23, [](random_source& random) {
    return cell_spec<8>::input{static_cast<cell_call>(random.below(7)), 1 + random.below(4),
                               1 + random.below(3)};
  });
}

TEST_CASE("check_linearizable agrees with every permutation on queues") {
  const auto draw = [](random_source& random) {
    const std::uint64_t kind = random.below(10);
    const auto call = kind < 5 ? queue_call::push : kind < 9 ? queue_call::pop : queue_call::size;
    return queue_spec<4>::input{random.below(16) == 0 ? queue_call::close : call,
                                1 + random.below(20)};
  };
  agree_on_random_histories("queue", queue_spec<4>{.capacity = 2}, 31, draw);
  agree_on_random_histories("queue that drops its oldest",
                            queue_spec<4>{.capacity = 2, .policy = when_full::drop_oldest}, 32,
                            draw);
}

TEST_CASE("check_linearizable agrees with every permutation on caches") {
  const auto draw = [](random_source& random) {
    return cache_spec::input{static_cast<cache_call>(random.below(7)), 0, 1 + random.below(2),
                             10 + random.below(2)};
  };
  agree_on_random_histories("cache", cache_spec{}, 41, draw);
  agree_on_random_histories("bounded cache", cache_spec{.bound = cache_bound::may_evict}, 42, draw);
}
