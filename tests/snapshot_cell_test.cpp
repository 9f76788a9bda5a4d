// snapshot_cell: behaviour, and random operations against a plain model.
// SPDX-License-Identifier: BSL-1.0
#include "veltrix/snapshot_cell.hpp"

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/death.hpp"
#include "support/random.hpp"
#include "support/scale.hpp"

using namespace std::chrono_literals;
using veltrix::publish_result;
using veltrix::publish_status;
using veltrix::snapshot_cell;
using veltrix::snapshot_wait_status;
using veltrix_test::fail_each_allocation;

namespace {

/// Does not copy, move or compare.
struct pinned {
  explicit pinned(int given) : number(given) {}
  pinned(const pinned&) = delete;
  pinned& operator=(const pinned&) = delete;
  int number;
};

/// Counts its instances and throws from its special members when told.
struct counted {
  static inline std::atomic<int> alive{0};
  static inline bool copy_throws = false;
  static inline bool move_throws = false;

  explicit counted(int given) : number(given) { ++alive; }
  counted(const counted& other) : number(other.number) {
    if (copy_throws) throw std::runtime_error("copy");
    ++alive;
  }
  counted(counted&& other) noexcept(false) : number(other.number) {
    if (move_throws) throw std::runtime_error("move");
    ++alive;
  }
  counted& operator=(const counted&) = delete;
  ~counted() { --alive; }
  int number;
};

using cell_of_int = snapshot_cell<int>;
static_assert(!std::is_copy_constructible_v<cell_of_int>);
static_assert(!std::is_move_constructible_v<cell_of_int>);
static_assert(!std::is_copy_constructible_v<cell_of_int::guard>);
static_assert(std::is_nothrow_move_constructible_v<cell_of_int::guard>);
static_assert(std::is_nothrow_move_assignable_v<cell_of_int::guard>);
static_assert(!std::is_copy_constructible_v<cell_of_int::cached_reader>);
static_assert(std::is_nothrow_move_constructible_v<cell_of_int::cached_reader>);
static_assert(std::is_nothrow_move_constructible_v<veltrix::snapshot_subscription>);
static_assert(std::is_same_v<decltype(*std::declval<cell_of_int::guard&>()), const int&>);
static_assert(noexcept(std::declval<const cell_of_int&>().version()));
static_assert(std::is_nothrow_copy_constructible_v<veltrix::snapshot_refused>);
static_assert(!std::is_constructible_v<snapshot_cell<pinned>, pinned>);

std::vector<std::string> no_negative(const int& candidate, const int& current) {
  std::vector<std::string> reasons;
  if (candidate < 0) reasons.push_back("negative: " + std::to_string(candidate));
  if (candidate < current - 100) reasons.push_back("falls by more than 100");
  return reasons;
}

/// What a subscriber heard.
struct heard {
  std::vector<std::pair<int, std::uint64_t>> calls;
  auto listener() {
    return [this](const int& value, std::uint64_t version) { calls.emplace_back(value, version); };
  }
};
using calls = std::vector<std::pair<int, std::uint64_t>>;

}  // namespace

// --- reading -------------------------------------------------------------------------------------

TEST_CASE("snapshot_cell starts at version 1 with its first value") {
  const snapshot_cell<std::string> cell("first");
  CHECK(cell.version() == 1);
  CHECK(*cell.load() == "first");
  CHECK(cell.load()->size() == 5);
  CHECK(cell.load().version() == 1);
}

TEST_CASE("snapshot_cell guard keeps its version alive and unchanged") {
  counted::alive = 0;
  {
    snapshot_cell<counted> cell(std::in_place, 1);
    auto guard = cell.load();
    const counted* const where = guard.get();
    for (int i = 2; i < 10; ++i)
      cell.publish(counted(i));
    CHECK(guard->number == 1);
    CHECK(guard.version() == 1);
    auto moved = std::move(guard);
    CHECK(moved.get() == where);
    cell.collect();
    CHECK(counted::alive == 2);  // the guarded one and the one in force
    moved = cell.load();
    CHECK(moved->number == 9);
    cell.collect();
    CHECK(counted::alive == 1);
  }
  CHECK(counted::alive == 0);
}

TEST_CASE("snapshot_cell reader returns the same object until a version is published") {
  snapshot_cell<int> cell(1);
  auto reader = cell.reader();
  CHECK(reader.version() == 0);
  const int* const first = &reader.get();
  CHECK(&reader.get() == first);
  CHECK(reader.version() == 1);
  cell.publish(2);
  CHECK(reader.get() == 2);
  CHECK(reader.version() == 2);
  auto moved = std::move(reader);
  CHECK(moved.get() == 2);
}

TEST_CASE("snapshot_cell reader keeps one version alive until it is released") {
  counted::alive = 0;
  snapshot_cell<counted> cell(std::in_place, 1);
  auto reader = cell.reader();
  CHECK(reader.get().number == 1);
  cell.emplace(2);
  CHECK(counted::alive == 2);
  reader.release();
  cell.collect();
  CHECK(counted::alive == 1);
  CHECK(reader.version() == 0);
  CHECK(reader.get().number == 2);
}

TEST_CASE("snapshot_cell shared value outlives the cell") {
  counted::alive = 0;
  std::shared_ptr<const counted> kept;
  {
    const snapshot_cell<counted> cell(std::in_place, 7);
    kept = cell.share();
  }
  CHECK(kept->number == 7);
  CHECK(counted::alive == 1);
  kept.reset();
  CHECK(counted::alive == 0);
}

TEST_CASE("snapshot_cell holds types that neither copy nor move nor compare") {
  snapshot_cell<pinned> cell(std::in_place, 1);
  CHECK(cell.emplace(2) == 2);
  CHECK(cell.update([](const pinned& now) { return pinned(now.number + 1); }));
  CHECK(cell.load()->number == 3);
  CHECK(cell.rollback(2).status == publish_status::not_kept);

  snapshot_cell<pinned> keeping({.history = 1}, {}, std::in_place, 1);
  keeping.emplace(2);
  CHECK(keeping.rollback(1));
  CHECK(keeping.load()->number == 1);

  snapshot_cell<std::unique_ptr<int>> moves(std::make_unique<int>(4));
  CHECK(moves.publish(std::make_unique<int>(5)) == 2);
  CHECK(**moves.load() == 5);
}

TEST_CASE("snapshot_cell holds values of extended alignment") {
  struct alignas(256) wide {
    int number = 3;
  };
  const snapshot_cell<wide> cell(std::in_place);
  CHECK(reinterpret_cast<std::uintptr_t>(cell.load().get()) % 256 == 0);
  CHECK(cell.load()->number == 3);
}

// --- writing -------------------------------------------------------------------------------------

TEST_CASE("snapshot_cell publish_if accepts only on the expected version") {
  snapshot_cell<int> cell(10);
  const publish_result taken = cell.publish_if(1, 11);
  CHECK(taken);
  CHECK(taken.version == 2);
  for (const std::uint64_t wrong : {0U, 1U, 3U}) {
    const publish_result turned = cell.publish_if(wrong, 99);
    CHECK(turned.status == publish_status::conflict);
    CHECK(turned.version == 2);
  }
  CHECK(*cell.load() == 11);
  CHECK(cell.stats().conflicts == 3);
}

TEST_CASE("snapshot_cell update replaces the value by a function of it") {
  snapshot_cell<int> cell(1);
  const publish_result result = cell.update([](const int& now) { return now + 41; });
  CHECK(result);
  CHECK(result.version == 2);
  CHECK(*cell.load() == 42);
}

TEST_CASE("snapshot_cell update that returns nothing publishes nothing") {
  snapshot_cell<int> cell(1);
  const auto grow_to_3 = [](const int& now) {
    return now < 3 ? std::optional<int>(now + 1) : std::nullopt;
  };
  CHECK(cell.update(grow_to_3));
  CHECK(cell.update(grow_to_3));
  const publish_result result = cell.update(grow_to_3);
  CHECK(result.status == publish_status::unchanged);
  CHECK(result.version == 3);
  CHECK(cell.version() == 3);
}

TEST_CASE("snapshot_cell update runs again on the newer value when another write came between") {
  snapshot_cell<int> cell(1);
  int tries = 0;
  const publish_result result = cell.update([&](const int& now) {
    if (++tries == 1) std::thread([&] { cell.publish(100); }).join();
    return now + 1;
  });
  CHECK(tries == 2);
  CHECK(*cell.load() == 101);
  CHECK(result.version == 3);
  CHECK(cell.stats().conflicts == 1);
}

TEST_CASE("snapshot_cell refuses what the validator objects to and keeps the old version") {
  snapshot_cell<int> cell(500, {.history = 1}, no_negative);
  const publish_result result = cell.try_publish(-1);
  CHECK_FALSE(result);
  CHECK(result.status == publish_status::refused);
  CHECK(result.version == 1);
  CHECK(result.reasons == std::vector<std::string>{"negative: -1", "falls by more than 100"});
  CHECK(cell.publish_if(1, -2).status == publish_status::refused);
  CHECK(cell.update([](const int&) { return -3; }).status == publish_status::refused);
  CHECK(cell.version() == 1);
  CHECK(*cell.load() == 500);
  CHECK(cell.stats().refused == 3);
  const publish_result fine = cell.try_publish(450);
  CHECK(fine);
  CHECK(fine.version == 2);
  CHECK(fine.reasons.empty());
}

TEST_CASE("snapshot_cell publish throws the validator's reasons") {
  snapshot_cell<int> cell(0, {}, no_negative);
  try {
    cell.publish(-5);
    FAIL("accepted");
  } catch (const veltrix::snapshot_refused& refused) {
    CHECK(std::string(refused.what()) ==
          "veltrix: snapshot_cell::publish: the validator's objections: got negative: -5, allowed "
          "none; version 1 stays in force; mend the value, or use try_publish()");
    CHECK(refused.result().reasons == std::vector<std::string>{"negative: -5"});
    CHECK(refused.result().version == 1);
  }
  CHECK_THROWS_AS(cell.emplace(-6), veltrix::snapshot_refused);
  CHECK(cell.version() == 1);
}

TEST_CASE("snapshot_cell shows its first value to no validator") {
  snapshot_cell<int> cell(-9, {}, no_negative);
  CHECK(*cell.load() == -9);
}

TEST_CASE("snapshot_cell validates again when another write came between") {
  snapshot_cell<int>* at = nullptr;
  std::vector<int> seen;
  snapshot_cell<int> cell(1, {}, [&](const int& candidate, const int& current) {
    seen.push_back(current);
    if (candidate == 50 && current == 1) at->publish(160);  // a competing writer
    return no_negative(candidate, current);
  });
  at = &cell;
  const publish_result result = cell.try_publish(50);
  CHECK(seen == std::vector<int>{1, 1, 160});
  CHECK(result.status == publish_status::refused);
  CHECK(result.version == 2);
  CHECK(*cell.load() == 160);
}

TEST_CASE("snapshot_cell rollback publishes a kept value as a new version") {
  snapshot_cell<int> cell(1, {.history = 2}, no_negative);
  for (const int value : {2, 3, 4})
    cell.publish(value);
  const publish_result back = cell.rollback(2);
  CHECK(back);
  CHECK(back.version == 5);
  CHECK(*cell.load() == 2);
  CHECK(cell.rollback(2).status == publish_status::not_kept);
  CHECK(cell.rollback(99).status == publish_status::not_kept);
  CHECK(cell.rollback(0).status == publish_status::not_kept);
  cell.publish(102);
  cell.publish(203);
  const publish_result refused = cell.rollback(5);
  CHECK(refused.status == publish_status::refused);
  CHECK(refused.reasons == std::vector<std::string>{"falls by more than 100"});
  CHECK(cell.version() == 7);
}

TEST_CASE("snapshot_cell going back again and again keeps no more than its history") {
  snapshot_cell<int> cell(1, {.history = 1});
  cell.publish(2);
  const auto back = [&] { return cell.rollback(cell.version() - 1).version; };
  for (int i = 0; i < 200; ++i)
    static_cast<void>(back());
  const long before = veltrix_test::allocations_alive();
  for (int i = 0; i < 1000; ++i)
    static_cast<void>(back());
  cell.collect();
  CHECK(veltrix_test::allocations_alive() - before <= 0);
  CHECK(cell.version() == 1202);
  CHECK(*cell.load() == 2);
}

namespace {
struct self_sharing : std::enable_shared_from_this<self_sharing> {
  int number = 7;
};
}  // namespace

TEST_CASE("snapshot_cell share does not write to a value that can share itself") {
  const snapshot_cell<self_sharing> cell(std::in_place);
  const auto shared = cell.share();
  CHECK(shared->number == 7);
  CHECK(shared->weak_from_this().expired());  // many share one value at once
}

TEST_CASE("snapshot_cell history gives the kept versions, newest first") {
  snapshot_cell<int> cell(10, {.history = 3});
  for (const int value : {20, 30, 40, 50})
    cell.publish(value);
  const auto all = cell.history(100);
  REQUIRE(all.size() == 4);
  for (std::size_t i = 0; i < all.size(); ++i) {
    CHECK(all[i].version == 5 - i);
    CHECK(*all[i].value == 50 - 10 * static_cast<int>(i));
  }
  CHECK(cell.history(2).size() == 2);
  CHECK(cell.history(0).empty());
  const snapshot_cell<int> without(1);
  CHECK(without.history(5).size() == 1);
}

// --- failures ------------------------------------------------------------------------------------

TEST_CASE("snapshot_cell keeps its version when a copy, a move or a callback throws") {
  counted::alive = 0;
  counted::copy_throws = counted::move_throws = false;
  bool validator_throws = false;
  snapshot_cell<counted> cell(
      {},
      [&](const counted&, const counted&) -> std::vector<std::string> {
        if (validator_throws) throw std::runtime_error("validator");
        return {};
      },
      std::in_place, 1);
  counted next(2);

  counted::copy_throws = true;
  CHECK_THROWS_WITH(cell.publish(next), "copy");
  CHECK_THROWS_WITH(cell.update([](const counted& now) { return counted(now); }), "copy");
  counted::copy_throws = false;
  counted::move_throws = true;
  CHECK_THROWS_WITH(cell.publish(next), "move");
  CHECK_THROWS_WITH(cell.try_publish(next), "move");
  CHECK_THROWS_WITH(cell.publish_if(1, next), "move");
  counted::move_throws = false;
  validator_throws = true;
  CHECK_THROWS_WITH(cell.publish(next), "validator");
  CHECK_THROWS_WITH(cell.try_publish(next), "validator");
  CHECK_THROWS_WITH(cell.publish_if(1, next), "validator");
  CHECK_THROWS_WITH(cell.emplace(3), "validator");
  validator_throws = false;
  CHECK_THROWS_WITH(
      cell.update([](const counted&) -> counted { throw std::runtime_error("change"); }), "change");

  CHECK(cell.version() == 1);
  CHECK(cell.load()->number == 1);
  CHECK(cell.stats().refused == 0);
  CHECK(cell.stats().versions_alive == 1);
  CHECK(counted::alive == 2);  // the one in force, and `next`
}

TEST_CASE("snapshot_cell keeps its version whichever allocation of a write fails") {
  snapshot_cell<int> cell(1, {.history = 4});
  heard told;
  told.calls.reserve(100);
  const auto following = cell.subscribe(told.listener());
  int failures = 0;
  const auto hold = [&](auto write) {
    const std::uint64_t version = cell.version();
    const int value = *cell.load();
    failures += fail_each_allocation(write, [&] {
      CHECK(cell.version() == version);
      CHECK(*cell.load() == value);
    });
    CHECK(cell.version() == version + 1);
  };
  hold([&] { cell.publish(7); });
  hold([&] { static_cast<void>(cell.update([](const int& now) { return now + 1; })); });
  hold([&] { static_cast<void>(cell.publish_if(cell.version(), 9)); });
  hold([&] { static_cast<void>(cell.rollback(1)); });
  CHECK(failures == 4);  // one allocation each
  CHECK(told.calls == calls{{7, 2}, {8, 3}, {9, 4}, {1, 5}});
  CHECK(cell.stats().subscriber_failures == 0);
}

TEST_CASE("snapshot_cell subscribe that runs out of memory registers nothing") {
  snapshot_cell<int> cell(1);
  heard told;
  const int failures =
      fail_each_allocation([&] { const auto following = cell.subscribe(told.listener()); },
                           [&] { CHECK(cell.stats().subscribers == 0); });
  CHECK(failures >= 1);
  cell.publish(2);
  CHECK(told.calls.empty());
}

// --- waiting -------------------------------------------------------------------------------------

TEST_CASE("snapshot_cell wait_for looks before it waits") {
  snapshot_cell<int> cell(1);
  cell.publish(2);
  veltrix::stop_source stopped;
  stopped.request_stop();
  const auto past = veltrix::steady_clock::now() - 1h;
  for (const std::uint64_t asked : {0U, 1U, 2U}) {
    const auto result = cell.wait_for(asked, past, stopped.get_token());
    CHECK(result.status == snapshot_wait_status::reached);
    CHECK(result.version == 2);
  }
}

TEST_CASE("snapshot_cell wait_for ends at its deadline") {
  const snapshot_cell<int> cell(1);
  for (const auto deadline : {veltrix::time_point::min(), veltrix::steady_clock::now() - 1h,
                              veltrix::steady_clock::now() + 2ms}) {
    const auto result = cell.wait_for(2, deadline);
    CHECK(result.status == snapshot_wait_status::timed_out);
    CHECK_FALSE(result);
    CHECK(result.version == 1);
    CHECK(veltrix::steady_clock::now() >= deadline);
  }
}

TEST_CASE("snapshot_cell wait_for ends when its token stops") {
  const snapshot_cell<int> cell(1);
  veltrix::stop_source source;
  std::thread stopper([&] { source.request_stop(); });
  const auto result = cell.wait_for(2, veltrix::no_deadline, source.get_token());
  stopper.join();
  CHECK(result.status == snapshot_wait_status::stopped);
  CHECK(result.version == 1);
}

TEST_CASE("snapshot_cell wait_for returns the newest version once it is reached") {
  snapshot_cell<int> cell(1);
  std::thread writer([&] {
    for (int i = 0; i < 5; ++i)
      cell.publish(i);
  });
  const auto result = cell.wait_for(4);
  CHECK(result.status == snapshot_wait_status::reached);
  CHECK(result.version >= 4);
  writer.join();
}

// --- following -----------------------------------------------------------------------------------

TEST_CASE("snapshot_cell subscriber hears each later version before publish returns") {
  snapshot_cell<int> cell(1);
  cell.publish(2);
  heard told;
  {
    const auto following = cell.subscribe(told.listener());
    CHECK(told.calls.empty());
    cell.publish(3);
    CHECK(told.calls == calls{{3, 3}});
    CHECK(cell.update([](const int& now) { return now * 2; }));
    CHECK(told.calls == calls{{3, 3}, {6, 4}});
    CHECK(cell.stats().subscribers == 1);
  }
  cell.publish(7);
  CHECK(told.calls.size() == 2);
  CHECK(cell.stats().subscribers == 0);
}

TEST_CASE("snapshot_cell tells no version whose value equals the one before") {
  snapshot_cell<int> cell(1);
  heard told;
  const auto following = cell.subscribe(told.listener());
  CHECK(cell.publish(1) == 2);
  CHECK(cell.publish(5) == 3);
  CHECK(cell.publish(5) == 4);
  CHECK(cell.publish(1) == 5);
  CHECK(told.calls == calls{{5, 3}, {1, 5}});
}

namespace {

struct never_same {
  int number;
  bool operator==(const never_same&) const = default;
};

}  // namespace

template <>
inline constexpr bool veltrix::notify_only_on_change<never_same> = false;

TEST_CASE("snapshot_cell tells every version of a type that does not compare") {
  snapshot_cell<pinned> cell(std::in_place, 1);
  int told = 0;
  const auto following = cell.subscribe([&](const pinned&, std::uint64_t) { ++told; });
  cell.emplace(1);
  cell.emplace(1);
  CHECK(told == 2);

  snapshot_cell<never_same> opted_out(never_same{1});
  const auto also = opted_out.subscribe([&](const never_same&, std::uint64_t) { ++told; });
  opted_out.publish(never_same{1});
  CHECK(told == 3);
}

TEST_CASE("snapshot_cell subscribe_from tells at once what is newer than asked") {
  snapshot_cell<int> cell(1);
  cell.publish(2);
  heard all;
  heard later;
  heard future;
  const auto from_zero = cell.subscribe_from(0, all.listener());
  const auto from_now = cell.subscribe_from(2, later.listener());
  const auto from_future = cell.subscribe_from(3, future.listener());
  CHECK(all.calls == calls{{2, 2}});
  CHECK(later.calls.empty());
  cell.publish(3);
  cell.publish(4);
  CHECK(all.calls == calls{{2, 2}, {3, 3}, {4, 4}});
  CHECK(later.calls == calls{{3, 3}, {4, 4}});
  CHECK(future.calls == calls{{4, 4}});
}

TEST_CASE("snapshot_cell tells a newcomer a return to the value that older subscribers know") {
  snapshot_cell<int> cell(1);
  heard newcomer;
  veltrix::snapshot_subscription joined;
  const auto first = cell.subscribe([&](const int&, std::uint64_t version) {
    if (version != 2) return;
    cell.publish(3);
    joined = cell.subscribe(newcomer.listener());  // from version 3, which is not told yet
    cell.publish(2);                               // overtakes 3, equal to what was told last
  });
  cell.publish(2);
  CHECK(newcomer.calls == calls{{2, 4}});
}

namespace {

/// Runs `during` in its next comparison.
struct interrupting {
  static inline std::function<void()> during;

  explicit interrupting(int given) : number(given) {}
  bool operator==(const interrupting& other) const {
    if (const auto run = std::exchange(during, nullptr)) run();
    return number == other.number;
  }
  int number;
};

}  // namespace

TEST_CASE("snapshot_cell tells a newcomer nothing older than what is in force when it joins") {
  snapshot_cell<interrupting> cell(interrupting(1));
  std::vector<std::uint64_t> versions;
  veltrix::snapshot_subscription newcomer;
  auto first = cell.subscribe([](const interrupting&, std::uint64_t) {});
  interrupting::during = [&] {  // while version 2 is compared with the one before
    first.reset();
    cell.publish(interrupting(3));
    newcomer = cell.subscribe_from(
        0, [&](const interrupting&, std::uint64_t version) { versions.push_back(version); });
  };
  cell.publish(interrupting(2));
  CHECK(versions == std::vector<std::uint64_t>{3});
}

TEST_CASE("snapshot_cell tells what a subscriber publishes after all have heard the one before") {
  snapshot_cell<int> cell(0);
  std::vector<std::pair<char, int>> order;
  const auto a = cell.subscribe([&](const int& value, std::uint64_t) {
    order.emplace_back('a', value);
    if (value == 1) {
      CHECK(cell.publish(2) == 3);
      order.emplace_back('p', 2);
    }
  });
  const auto b =
      cell.subscribe([&](const int& value, std::uint64_t) { order.emplace_back('b', value); });
  cell.publish(1);
  CHECK(order ==
        std::vector<std::pair<char, int>>{{'a', 1}, {'p', 2}, {'b', 1}, {'a', 2}, {'b', 2}});
}

TEST_CASE("snapshot_cell subscriber may leave, join and read from inside its call") {
  snapshot_cell<int> cell(0);
  int own = 0;
  int other = 0;
  heard joined;
  veltrix::snapshot_subscription self;
  veltrix::snapshot_subscription next;
  veltrix::snapshot_subscription late;
  auto life = std::make_shared<int>(1);
  const std::weak_ptr<int> capture = life;
  self = cell.subscribe([&, life = std::move(life)](const int& value, std::uint64_t version) {
    own += value;
    self.reset();
    next.reset();
    CHECK(*life == 1);  // the callable lives until its call returns
    late = cell.subscribe(joined.listener());
    CHECK(*cell.load() == value);
    CHECK(cell.stats().version == version);
  });
  next = cell.subscribe([&](const int&, std::uint64_t) { ++other; });
  cell.publish(1);
  cell.publish(2);
  CHECK(own == 1);
  CHECK(other == 0);
  CHECK(joined.calls == calls{{2, 3}});
  CHECK(capture.expired());
}

TEST_CASE("snapshot_cell contains and counts what subscribers and comparisons throw") {
  struct touchy {
    int number;
    bool operator==(const touchy& other) const {
      if (number == 13) throw std::runtime_error("compare");
      return number == other.number;
    }
  };
  snapshot_cell<touchy> cell(touchy{1});
  std::vector<int> told;
  const auto thrower =
      cell.subscribe([](const touchy&, std::uint64_t) { throw std::runtime_error("subscriber"); });
  const auto listener =
      cell.subscribe([&](const touchy& now, std::uint64_t) { told.push_back(now.number); });
  CHECK(cell.publish(touchy{2}) == 2);
  CHECK(told == std::vector<int>{2});
  CHECK(cell.stats().subscriber_failures == 1);
  cell.publish(touchy{13});
  cell.publish(touchy{13});  // the comparison throws: taken as a change
  CHECK(told == std::vector<int>{2, 13, 13});
  CHECK(cell.stats().subscriber_failures == 4);
}

TEST_CASE("snapshot_cell subscription may outlive the cell and moves") {
  counted::alive = 0;
  veltrix::snapshot_subscription kept;
  CHECK_FALSE(kept);
  {
    snapshot_cell<counted> cell(std::in_place, 1);
    int told = 0;
    kept = cell.subscribe([&](const counted&, std::uint64_t) { ++told; });
    cell.emplace(2);
    veltrix::snapshot_subscription moved = std::move(kept);
    cell.emplace(3);
    CHECK(told == 2);
    kept = std::move(moved);
    CHECK(kept);
  }
  CHECK(counted::alive == 0);
  kept.reset();
  CHECK_FALSE(kept);
}

namespace {

/// Looks into its cell from its special members: that would hang if the cell's lock were held.
struct nosy {
  static inline int looks = 0;
  static void look();

  explicit nosy(int given) : number(given) {}
  nosy(nosy&& other) noexcept : number(std::exchange(other.number, 0)) {}
  ~nosy() {
    if (number != 0) look();
  }
  bool operator==(const nosy& other) const {
    look();
    return number == other.number;
  }
  int number;
};

snapshot_cell<nosy>* looked_at = nullptr;

void nosy::look() {
  if (looked_at == nullptr) return;
  ++looks;
  static_cast<void>(looked_at->load());
  static_cast<void>(looked_at->history(2));
  static_cast<void>(looked_at->stats());
  static_cast<void>(looked_at->wait_for(1));
}

}  // namespace

TEST_CASE("snapshot_cell runs all user code without a lock") {
  snapshot_cell<nosy> cell(
      {.history = 1},
      [](const nosy&, const nosy&) {
        nosy::look();
        return std::vector<std::string>{};
      },
      std::in_place, 1);
  looked_at = &cell;
  auto following = cell.subscribe([](const nosy&, std::uint64_t) { nosy::look(); });
  nosy::looks = 0;
  cell.publish(nosy(2));
  CHECK(nosy::looks == 3);  // validator, comparison, subscriber
  cell.publish(nosy(3));
  CHECK(nosy::looks == 7);  // and the end of the first value
  CHECK(cell.update([](const nosy& now) {
    nosy::look();
    return nosy(now.number + 1);
  }));
  cell.collect();
  CHECK(nosy::looks == 12);
  const int before = nosy::looks;
  following.reset();
  cell.publish(nosy(5));
  cell.collect();
  CHECK(nosy::looks == before + 2);  // the validator, and the end of a value
  looked_at = nullptr;
}

// --- derived cells -------------------------------------------------------------------------------

TEST_CASE("snapshot_cell derive computes a cell from another") {
  snapshot_cell<int> cell(2);
  const auto text = cell.derive([](const int& value) { return std::to_string(value * 10); });
  const auto length = text.derive([](const std::string& value) { return value.size(); });
  CHECK(*text.load() == "20");
  CHECK(*length.load() == 2);
  std::vector<std::string> told;
  const auto following =
      text.subscribe([&](const std::string& value, std::uint64_t) { told.push_back(value); });
  cell.publish(1234);
  CHECK(*text.load() == "12340");
  CHECK(text.version() == 2);
  CHECK(*length.load() == 5);
  CHECK(told == std::vector<std::string>{"12340"});
  auto reader = length.reader();
  CHECK(reader.get() == 5);
  const snapshot_cell<std::string>& as_cell = text.as_cell();
  CHECK(*as_cell.share() == "12340");
  CHECK(text.wait_for(2).status == snapshot_wait_status::reached);
}

TEST_CASE("snapshot_cell derived value stays when its function throws, and the failure counts") {
  snapshot_cell<int> cell(1);
  const auto odd = cell.derive([](const int& value) {
    if (value % 2 == 0) throw std::runtime_error("even");
    return pinned(value);
  });
  cell.publish(4);
  CHECK(odd.load()->number == 1);
  CHECK(odd.failures() == 1);
  CHECK(odd.version() == 1);
  CHECK(cell.stats().subscriber_failures == 0);
  cell.publish(5);
  CHECK(odd.load()->number == 5);
  const auto first_throws = [&] {
    return cell.derive([](const int&) -> int { throw std::runtime_error("first"); });
  };
  CHECK_THROWS_WITH(first_throws(), "first");
  CHECK(cell.stats().subscribers == 1);
}

TEST_CASE("snapshot_cell derived cell outlives its source and keeps its last value") {
  auto source = std::make_unique<snapshot_cell<int>>(1);
  const auto twice = source->derive([](const int& value) { return value * 2; });
  source->publish(21);
  source.reset();
  CHECK(*twice.load() == 42);
  CHECK(twice.stats().published == 1);
}

// --- model and lifetime --------------------------------------------------------------------------

namespace {

/// The cell without threads: all there is to know of it.
struct model {
  std::uint64_t keep;
  std::map<std::uint64_t, int> versions{{1, 0}};
  std::vector<std::pair<int, std::uint64_t>> told;
  std::uint64_t refused = 0;
  std::uint64_t conflicts = 0;

  std::uint64_t version() const { return versions.rbegin()->first; }
  int value() const { return versions.rbegin()->second; }

  publish_status write(int value) {
    if (!no_negative(value, this->value()).empty()) {
      ++refused;
      return publish_status::refused;
    }
    if (value != this->value()) told.emplace_back(value, version() + 1);
    versions.emplace(version() + 1, value);
    if (versions.size() > keep + 1) versions.erase(versions.begin());
    return publish_status::accepted;
  }
};

void compare(const snapshot_cell<int>& cell, const model& plain, const heard& told) {
  REQUIRE(cell.version() == plain.version());
  REQUIRE(*cell.load() == plain.value());
  REQUIRE(told.calls == plain.told);
  const auto kept = cell.history(100);
  REQUIRE(kept.size() == plain.versions.size());
  auto expected = plain.versions.rbegin();
  for (const auto& each : kept) {
    REQUIRE(each.version == expected->first);
    REQUIRE(*each.value == expected->second);
    ++expected;
  }
  const auto stats = cell.stats();
  REQUIRE(stats.published == plain.version() - 1);
  REQUIRE(stats.refused == plain.refused);
  REQUIRE(stats.conflicts == plain.conflicts);
}

publish_status publish_if(model& plain, std::uint64_t expected, int value) {
  if (expected == plain.version()) return plain.write(value);
  ++plain.conflicts;
  return publish_status::conflict;
}

publish_status rollback(model& plain, std::uint64_t version) {
  const auto kept = plain.versions.find(version);
  return kept == plain.versions.end() ? publish_status::not_kept : plain.write(kept->second);
}

/// One random operation on both.
void act(snapshot_cell<int>& cell, model& plain, veltrix_test::random_source& random) {
  const int value = static_cast<int>(random.below(250)) - 20;
  const std::uint64_t version = random.below(plain.version() + 2);
  switch (random.below(5)) {
    case 0: REQUIRE(cell.try_publish(value).status == plain.write(value)); break;
    case 1:
      REQUIRE(cell.publish_if(version, value).status == publish_if(plain, version, value));
      break;
    case 2: {
      const int by = static_cast<int>(random.below(3)) - 1;
      const auto expected = plain.write(plain.value() + by);
      REQUIRE(cell.update([&](const int& now) { return now + by; }).status == expected);
      break;
    }
    case 3: REQUIRE(cell.rollback(version).status == rollback(plain, version)); break;
    default:
      if (plain.write(value) == publish_status::accepted) {
        REQUIRE(cell.publish(value) == plain.version());
      } else {
        REQUIRE_THROWS_AS(cell.publish(value), veltrix::snapshot_refused);
      }
  }
}

}  // namespace

TEST_CASE("snapshot_cell does what a plain model does over random operations") {
  const std::uint64_t seed = 20240607;
  CAPTURE(seed);
  veltrix_test::random_source random(seed);
  for (std::size_t round = 0; round < veltrix_test::scale(200); ++round) {
    model plain{random.below(5), {{1, 0}}, {}, 0, 0};
    snapshot_cell<int> cell(0, {.history = plain.keep}, no_negative);
    heard told;
    const auto following = cell.subscribe(told.listener());
    for (int step = 0; step < 60; ++step) {
      act(cell, plain, random);
      compare(cell, plain, told);
    }
  }
}

TEST_CASE("snapshot_cell keeps the version in force, its history, and one for subscribers alive") {
  counted::alive = 0;
  {
    snapshot_cell<counted> cell({.history = 3}, {}, std::in_place, 0);
    int most = 0;
    for (int i = 1; i < 1000; ++i) {
      cell.emplace(i);
      most = std::max(most, counted::alive.load());
    }
    CHECK(most <= 4 + 63);  // the look that the 64th replaced version brings ends them
    cell.collect();
    CHECK(cell.stats().versions_alive == 4);
    const auto following = cell.subscribe([](const counted&, std::uint64_t) {});
    auto guard = cell.load();
    most = 0;
    for (int i = 1; i < 1000; ++i) {
      cell.emplace(i);
      most = std::max(most, counted::alive.load());
    }
    CHECK(most <= 4 + 64);  // with the guard's
    cell.collect();
    CHECK(counted::alive == 5);
    CHECK(cell.stats().versions_alive == 5);
  }
  CHECK(counted::alive == 0);
}

#if VELTRIX_CHECKED
TEST_CASE("snapshot_cell in checked mode names the end under a guard") {
  const auto ending = veltrix_test::run_to_its_end([] {
    auto cell = std::make_unique<snapshot_cell<int>>(1);
    const auto guard = cell->load();
    cell.reset();
  });
  CHECK(ending.aborted);
  CHECK(ending.told.find("ended before a guard, a cached_reader or a waiter of it") !=
        std::string::npos);
}

TEST_CASE("snapshot_cell in checked mode names the use of an empty guard") {
  const auto ending = veltrix_test::run_to_its_end([] {
    const snapshot_cell<int> cell(1);
    auto guard = cell.load();
    const auto moved = std::move(guard);
    static_cast<void>(*guard);
  });
  CHECK(ending.aborted);
  CHECK(ending.told.find("a snapshot_cell guard was used after it was moved") != std::string::npos);
}
#endif
