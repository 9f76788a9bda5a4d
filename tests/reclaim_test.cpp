// reclaim: lists, batches, slots, domains and their statistics; guards that travel.
// SPDX-License-Identifier: BSL-1.0
#include "veltrix/reclaim.hpp"

#include <atomic>
#include <coroutine>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <random>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"
#include "support/scale.hpp"
#include "support/self_poisoning.hpp"
#include "support/threads.hpp"
#include "veltrix/snapshot_cell.hpp"

using namespace std::chrono_literals;
using veltrix::reclaim_domain;
using veltrix::retire_list;
using veltrix::snapshot_cell;
using veltrix::time_point;
using veltrix::detail::reader_record;
using veltrix_test::self_poisoning;

namespace {

/// Says in `ended` that it is gone.
struct node : veltrix::reclaimable {
  node(int given, std::vector<int>& ends) : number(given), ended(ends) {}
  ~node() { ended.push_back(number); }
  const int number;
  std::vector<int>& ended;
};
using list = retire_list<node>;
using numbers = std::vector<int>;

constinit reclaim_domain one_domain;
constinit reclaim_domain other_domain;
constinit reclaim_domain quiet_domain;

constexpr time_point noon = time_point() + 12h;

/// Shows `what` in a slot of `record`, as readers do.
reader_record::slot& show_in(reader_record& record, node& what, reclaim_domain& domain) {
  const veltrix::detail::sync::atomic<node*> current{&what};
  reader_record::slot* const free = record.lasting();
  REQUIRE(free != nullptr);
  REQUIRE(veltrix::detail::show(current, *free, domain.mode()) == &what);
  return *free;
}

/// A record of its own.
class own_record {
 public:
  explicit own_record(reclaim_domain& domain) : record_(domain.claim_for_object()) {}
  own_record(own_record&& other) noexcept : record_(std::exchange(other.record_, nullptr)) {}
  ~own_record() {
    if (record_ != nullptr) record_->give_back();
  }
  reader_record& operator*() const { return *record_; }

 private:
  reader_record* record_;
};

/// Ends in ask_and_retire, which uses all that a lock could guard.
struct busy;
struct ask_and_retire {
  void operator()(busy* ended) const;
};
using busy_list = retire_list<busy, ask_and_retire>;
struct busy : veltrix::reclaimable {
  busy(busy_list& from, int more) : home(from), left(more) {}
  busy_list& home;
  const int left;
};
void ask_and_retire::operator()(busy* ended) const {
  static_cast<void>(quiet_domain.stats());
  const list brief(quiet_domain);
  if (ended->left > 0) {
    static_cast<void>(ended->home.retire(*new busy(ended->home, ended->left - 1), noon));
    static_cast<void>(ended->home.collect(noon));
  }
  delete ended;
}

static_assert(!std::is_copy_constructible_v<list>);
static_assert(!std::is_move_constructible_v<list>);
static_assert(!std::is_copy_constructible_v<list::batch>);
static_assert(std::is_nothrow_move_constructible_v<list::batch>);
static_assert(std::is_nothrow_move_assignable_v<list::batch>);
static_assert(!std::is_copy_constructible_v<reclaim_domain>);
static_assert(!std::is_move_constructible_v<reclaim_domain>);
static_assert(std::is_trivially_destructible_v<reclaim_domain>);  // threads may outlive main()
static_assert(alignof(reader_record) == veltrix::detail::cache_line);

}  // namespace

// --- lists and batches ---------------------------------------------------------------------------

TEST_CASE("reclaim retire_list asks for a look at the 64th object") {
  numbers ended;
  list garbage(quiet_domain);
  CHECK(garbage.pending() == 0);
  CHECK(garbage.retire(*new node(0, ended), noon));  // it has never looked
  CHECK_FALSE(garbage.collect(noon).empty());
  for (int i = 1; i < 64; ++i)
    CHECK_FALSE(garbage.retire(*new node(i, ended), noon));
  CHECK(garbage.pending() == 63);
  CHECK(ended == numbers{0});
  CHECK(garbage.retire(*new node(64, ended), noon));
  CHECK(garbage.pending() == 64);
  CHECK(garbage.retire(*new node(65, ended), noon));  // who does not look is asked again
  CHECK_FALSE(garbage.collect(noon).empty());
  CHECK(garbage.pending() == 0);
  CHECK(ended.size() == 66);
  CHECK(garbage.collect(noon).empty());
}

TEST_CASE("reclaim retire_list asks for a look 1 ms after the last, by the clock it is given") {
  numbers ended;
  list garbage(quiet_domain);
  CHECK(garbage.collect(noon).empty());
  CHECK_FALSE(garbage.retire(*new node(1, ended), noon));
  CHECK_FALSE(garbage.retire(*new node(2, ended), noon + 999us));
  CHECK_FALSE(garbage.retire(*new node(3, ended), noon - 1h));  // a clock that went back
  CHECK(garbage.retire(*new node(4, ended), noon + 1ms));
  static_cast<void>(garbage.collect(noon + 1ms));
  CHECK(ended == numbers{1, 2, 3, 4});
  CHECK_FALSE(garbage.retire(*new node(5, ended), noon + 1ms));
  CHECK(garbage.retire(*new node(6, ended), noon + 1h));
}

TEST_CASE("reclaim retire_list holds at most twice what readers showed at the last look") {
  numbers ended;
  list garbage(quiet_domain);
  static_cast<void>(garbage.collect(noon));
  std::vector<own_record> records;
  for (int i = 0; i < 25; ++i)
    records.emplace_back(quiet_domain);
  std::vector<reader_record::slot*> slots;
  for (int i = 0; i < 100; ++i) {
    auto* const shown = new node(i, ended);
    slots.push_back(&show_in(*records[static_cast<std::size_t>(i) / 4], *shown, quiet_domain));
    static_cast<void>(garbage.retire(*shown, noon));
  }
  CHECK(garbage.collect(noon).empty());
  CHECK(garbage.pending() == 100);
  for (int i = 100; i < 199; ++i)
    CHECK_FALSE(garbage.retire(*new node(i, ended), noon));
  CHECK(garbage.retire(*new node(199, ended), noon));  // the 200th
  static_cast<void>(garbage.collect(noon));
  CHECK(garbage.pending() == 100);
  CHECK(ended.size() == 100);
  for (auto* const slot : slots)
    reader_record::clear(*slot, one_domain.free_word());
  static_cast<void>(garbage.collect(noon));
  CHECK(garbage.pending() == 0);
  CHECK(ended.size() == 200);
  for (int i = 0; i < 63; ++i)
    CHECK_FALSE(garbage.retire(*new node(i, ended), noon));
  CHECK(garbage.retire(*new node(63, ended), noon));
}

TEST_CASE("reclaim retire_list frees in the order of retiring, around those that are shown") {
  numbers ended;
  {
    list garbage(quiet_domain);
    const own_record record(quiet_domain);
    std::vector<reader_record::slot*> slots;
    for (int i = 0; i < 10; ++i) {
      auto* const each = new node(i, ended);
      if (i % 3 == 0) slots.push_back(&show_in(*record, *each, quiet_domain));  // 0, 3, 6, 9
      static_cast<void>(garbage.retire(*each, noon));
    }
    static_cast<void>(garbage.collect(noon));
    CHECK(ended == numbers{1, 2, 4, 5, 7, 8});
    reader_record::clear(*slots[1], one_domain.free_word());
    reader_record::clear(
        *slots[3], one_domain.free_word());  // the last of the list: what comes next is linked to 6
    static_cast<void>(garbage.collect(noon));
    CHECK(ended == numbers{1, 2, 4, 5, 7, 8, 3, 9});
    static_cast<void>(garbage.retire(*new node(10, ended), noon));
    CHECK(garbage.pending() == 3);
    reader_record::clear(*slots[0], one_domain.free_word());
    reader_record::clear(*slots[2], one_domain.free_word());
  }
  CHECK(ended == numbers{1, 2, 4, 5, 7, 8, 3, 9, 0, 6, 10});
}

TEST_CASE("reclaim retire_list spares each of three hundred objects that are shown") {
  numbers ended;
  std::vector<own_record> readers;
  list garbage(quiet_domain);
  for (int i = 0; i < 300; ++i) {
    auto* const each = new node(i, ended);
    readers.emplace_back(quiet_domain);
    show_in(*readers.back(), *each, quiet_domain);
    static_cast<void>(garbage.retire(*each, noon));
  }
  CHECK(garbage.collect(noon).empty());
  CHECK(ended.empty());
  for (own_record& each : readers)
    reader_record::clear((*each).shown[0], one_domain.free_word());
  CHECK_FALSE(garbage.collect(noon).empty());
  CHECK(ended.size() == 300);
}

TEST_CASE("reclaim retire_list disposes of all when it ends") {
  numbers ended;
  {
    list garbage(quiet_domain);
    for (int i = 0; i < 5; ++i)
      static_cast<void>(garbage.retire(*new node(i, ended), noon));
    CHECK(ended.empty());
  }
  CHECK(ended == numbers{0, 1, 2, 3, 4});
}

TEST_CASE("reclaim retire_list is not moved by what is shown of another list") {
  numbers ended;
  list garbage(quiet_domain);
  list others(quiet_domain);
  const own_record record(quiet_domain);
  auto* const shown = new node(1, ended);
  auto& slot = show_in(*record, *shown, quiet_domain);
  static_cast<void>(others.retire(*shown, noon));
  static_cast<void>(garbage.retire(*new node(2, ended), noon));
  static_cast<void>(garbage.collect(noon));
  static_cast<void>(others.collect(noon));
  CHECK(ended == numbers{2});
  reader_record::clear(slot, one_domain.free_word());
}

TEST_CASE("reclaim batch disposes once, in whoever holds it at its end") {
  numbers ended;
  list garbage(quiet_domain);
  const auto retired = [&](int from, int to) {
    for (int i = from; i < to; ++i)
      static_cast<void>(garbage.retire(*new node(i, ended), noon));
    return garbage.collect(noon);
  };
  {
    list::batch first = retired(0, 3);
    CHECK(garbage.pending() == 0);
    CHECK(ended.empty());  // collected, not disposed of
    list::batch second(std::move(first));
    CHECK(first.empty());
    CHECK_FALSE(second.empty());
    {
      list::batch third = retired(3, 5);
      third = std::move(second);  // the two change places
      CHECK(ended.empty());
    }
    CHECK(ended == numbers{0, 1, 2});
  }
  CHECK(ended == numbers{0, 1, 2, 3, 4});
  CHECK(list::batch().empty());
}

TEST_CASE("reclaim disposer runs with no lock held") {
  // It asks for statistics, makes and ends a list, and retires into the list it came from.
  busy_list garbage(quiet_domain);
  static_cast<void>(garbage.retire(*new busy(garbage, 10), noon));
  static_cast<void>(garbage.collect(noon));
  CHECK(garbage.pending() == 0);
  CHECK(quiet_domain.stats().freed == 11);
}

// --- slots ---------------------------------------------------------------------------------------

TEST_CASE("reclaim show keeps an object until its slot is let go") {
  numbers ended;
  list garbage(one_domain);
  reader_record* const mine = one_domain.record_of_this_thread();
  REQUIRE(mine != nullptr);
  CHECK(one_domain.record_of_this_thread() == mine);
  CHECK(mine->unused(&one_domain));
  auto* const object = new node(1, ended);
  veltrix::detail::sync::atomic<node*> current{object};
  reader_record::slot* const slot = mine->lasting();
  REQUIRE(slot != nullptr);
  CHECK(veltrix::detail::show(current, *slot, one_domain.mode()) == object);
  current.store(nullptr, std::memory_order_release);
  static_cast<void>(garbage.retire(*object, noon));
  for (int look = 0; look < 3; ++look)
    CHECK(garbage.collect(noon).empty());
  CHECK(garbage.pending() == 1);
  CHECK(ended.empty());
  CHECK(object->number == 1);
  reader_record::clear(*slot, one_domain.free_word());
  CHECK(veltrix::detail::show(current, *slot, one_domain.mode()) == nullptr);
  CHECK(mine->unused(&one_domain));  // null shows nothing
  static_cast<void>(garbage.collect(noon));
  CHECK(ended == numbers{1});
}

TEST_CASE("reclaim protects one object for as long as any of its slots shows it") {
  numbers ended;
  list garbage(one_domain);
  const own_record first(one_domain);
  const own_record second(one_domain);
  auto* const object = new node(1, ended);
  auto& a = show_in(*first, *object, one_domain);
  auto& b = show_in(*second, *object, one_domain);
  static_cast<void>(garbage.retire(*object, noon));
  reader_record::clear(a, one_domain.free_word());
  CHECK(garbage.collect(noon).empty());
  reader_record::clear(b, one_domain.free_word());
  CHECK_FALSE(garbage.collect(noon).empty());
}

TEST_CASE("reclaim random slots and lists agree with a plain model") {
  const std::uint64_t seed = std::random_device()();
  INFO("seed " << seed);
  veltrix_test::random_source random(seed);
  numbers ended;
  list garbage(one_domain);
  std::vector<own_record> records;
  for (int i = 0; i < 12; ++i)
    records.emplace_back(one_domain);
  struct shown {
    reader_record::slot* slot;
    int number;
  };
  std::vector<shown> model_shown;
  std::set<int> model_waiting;
  std::set<int> model_ended;
  int made = 0;
  node* current = new node(made, ended);
  time_point now = noon;
  for (std::size_t step = 0; step < veltrix_test::scale(20'000); ++step) {
    now += std::chrono::microseconds(random.below(300));
    switch (random.below(4)) {
      case 0: {
        reader_record& chosen = *records[random.below(records.size())];
        if (chosen.lasting() == nullptr) break;
        model_shown.push_back({&show_in(chosen, *current, one_domain), made});
        break;
      }
      case 1:
        if (model_shown.empty()) break;
        std::swap(model_shown[random.below(model_shown.size())], model_shown.back());
        reader_record::clear(*model_shown.back().slot, one_domain.free_word());
        model_shown.pop_back();
        break;
      default: {
        node& replaced = *std::exchange(current, new node(made + 1, ended));
        model_waiting.insert(made++);
        if (!garbage.retire(replaced, now)) break;
        static_cast<void>(garbage.collect(now));
        std::set<int> kept;
        for (const shown& each : model_shown) {
          if (model_waiting.contains(each.number)) kept.insert(each.number);
        }
        for (const int each : model_waiting) {
          if (!kept.contains(each)) model_ended.insert(each);
        }
        model_waiting = kept;
        REQUIRE(std::set<int>(ended.begin(), ended.end()) == model_ended);
        REQUIRE(ended.size() == model_ended.size());  // nothing twice
        ended.clear();
        model_ended.clear();
      }
    }
    REQUIRE(garbage.pending() == model_waiting.size());
  }
  for (const shown& each : model_shown)
    reader_record::clear(*each.slot, one_domain.free_word());
  delete current;
}

TEST_CASE("reclaim record offers four lasting slots and keeps one for a moment") {
  const own_record record(one_domain);
  std::set<reader_record::slot*> slots;
  numbers ended;
  node object(1, ended);
  for (int i = 0; i < 4; ++i)
    slots.insert(&show_in(*record, object, one_domain));
  CHECK(slots.size() == 4);
  CHECK((*record).lasting() == nullptr);
  CHECK_FALSE(slots.contains(&(*record).momentary()));
  for (auto* const slot : slots)
    reader_record::clear(*slot, one_domain.free_word());
  CHECK((*record).unused(&one_domain));
}

TEST_CASE("reclaim gives a record with a slot in use to nobody") {
  numbers ended;
  node object(1, ended);
  reader_record* left = nullptr;
  reader_record::slot* slot = nullptr;
  std::thread([&] {
    left = other_domain.record_of_this_thread();
    slot = &show_in(*left, object, other_domain);
  }).join();
  CHECK(left->owner.load() == veltrix::detail::record_owner::nobody);
  std::vector<own_record> taken;
  for (int i = 0; i < 40; ++i) {
    taken.emplace_back(other_domain);
    REQUIRE(&*taken.back() != left);
  }
  taken.clear();
  reader_record::clear(*slot, other_domain.free_word());
  bool found = false;
  for (int i = 0; i < 41; ++i) {
    taken.emplace_back(other_domain);
    found = found || &*taken.back() == left;
  }
  CHECK(found);
}

// --- domains -------------------------------------------------------------------------------------

TEST_CASE("reclaim domains used in turn by one thread keep one record each") {
  const std::size_t one_before = one_domain.stats().records_in_use;
  const std::size_t other_before = other_domain.stats().records_in_use;
  numbers ended;
  std::thread([&] {
    reader_record* const in_one = one_domain.record_of_this_thread();
    reader_record* const in_other = other_domain.record_of_this_thread();
    reader_record* const in_third = quiet_domain.record_of_this_thread();
    bool same = in_one != in_other && in_third != in_one && in_third != in_other;
    for (int i = 0; i < 1'000; ++i) {
      same = same && one_domain.record_of_this_thread() == in_one;
      same = same && other_domain.record_of_this_thread() == in_other;
      reader_record& recent = *veltrix::detail::reader_place::mine().recent;
      auto* const quick = other_domain.quick_slot(recent);  // of the domain used last only
      const bool membarrier = other_domain.mode() == veltrix::detail::sync::fence_mode::membarrier;
      same = same && quick == (membarrier ? in_other->shown.data() : nullptr);
      same = same && one_domain.quick_slot(recent) == nullptr;
    }
    CHECK(same);
    CHECK(one_domain.stats().records_in_use == one_before + 1);
    CHECK(other_domain.stats().records_in_use == other_before + 1);
  }).join();
  CHECK(one_domain.stats().records_in_use == one_before);
  CHECK(other_domain.stats().records_in_use == other_before);
}

TEST_CASE("reclaim slot that was let go is as quick to find as at first") {
  const auto membarrier = veltrix::detail::sync::fence_mode::membarrier;
  numbers ended;
  node object(1, ended);
  const veltrix::detail::sync::atomic<node*> somewhere{&object};
  const veltrix::detail::sync::atomic<node*> nowhere{nullptr};
  std::thread([&] {
    reader_record& mine = *one_domain.record_of_this_thread();
    const auto is_quick = [&](std::size_t slot) {
      if (one_domain.mode() != membarrier) return one_domain.quick_slot(mine) == nullptr;
      return one_domain.quick_slot(mine) == &mine.shown[slot];
    };
    CHECK(is_quick(0));
    {
      auto first = one_domain.protect(somewhere);
      CHECK(is_quick(1));
      {
        const auto second = one_domain.protect(somewhere);
        CHECK(one_domain.quick_slot(mine) == nullptr);
      }
      CHECK(is_quick(1));
      std::thread([moved = std::move(first)] {}).join();
    }
    CHECK(is_quick(0));
    static_cast<void>(one_domain.protect(nowhere));
    CHECK(is_quick(0));
  }).join();
}

TEST_CASE("reclaim domain does not look at the slots of another") {
  numbers ended;
  list garbage(one_domain);
  const own_record record(other_domain);
  auto* const object = new node(1, ended);
  auto& slot = show_in(*record, *object, other_domain);
  static_cast<void>(garbage.retire(*object, noon));
  static_cast<void>(garbage.collect(noon));
  CHECK(ended == numbers{1});
  reader_record::clear(slot, other_domain.free_word());
}

// --- statistics ----------------------------------------------------------------------------------

TEST_CASE("reclaim stats counts what is retired, freed and pending over the lists that exist") {
  const auto before = one_domain.stats();
  numbers ended;
  {
    list first(one_domain);
    list second(one_domain);
    const own_record record(one_domain);
    auto* const shown = new node(0, ended);
    auto& slot = show_in(*record, *shown, one_domain);
    static_cast<void>(first.retire(*shown, noon));
    for (int i = 1; i <= 6; ++i)
      static_cast<void>((i % 2 == 0 ? first : second).retire(*new node(i, ended), noon));
    auto now = one_domain.stats();
    CHECK(now.retired == before.retired + 7);
    CHECK(now.freed == before.freed);
    CHECK(now.pending == 7);
    CHECK(now.records_in_use == before.records_in_use + 1);
    CHECK(now.records >= now.records_in_use);
    CHECK(now.by_membarrier ==
          (one_domain.mode() == veltrix::detail::sync::fence_mode::membarrier));
    static_cast<void>(first.collect(noon));
    now = one_domain.stats();
    CHECK(now.retired == before.retired + 7);
    CHECK(now.freed == before.freed + 3);
    CHECK(now.pending == 4);
    reader_record::clear(slot, one_domain.free_word());
  }
  const auto after = one_domain.stats();
  CHECK(after.retired == before.retired);
  CHECK(after.freed == before.freed);
  CHECK(after.pending == 0);
  CHECK(after.records_in_use == before.records_in_use);
}

TEST_CASE("reclaim stats names the thread that holds the oldest object, and since when") {
  numbers ended;
  list garbage(one_domain);
  CHECK(one_domain.stats().oldest_pin == 0ns);
  CHECK(one_domain.stats().oldest_pin_thread == 0);
  const time_point now = veltrix::detail::sync::coarse_now();
  auto* const old = new node(1, ended);
  auto* const younger = new node(2, ended);
  std::atomic<long> number{0};
  veltrix_test::standing_threads holders;
  const auto hold = [&](node* what) {
    holders.add([&, what](auto stand) {
      auto& slot = show_in(*one_domain.record_of_this_thread(), *what, one_domain);
      if (what == old) number = veltrix::detail::sync::this_thread_number();
      stand();
      reader_record::clear(slot, one_domain.free_word());
    });
  };
  hold(younger);
  hold(old);
  static_cast<void>(garbage.retire(*old, now - 5s));
  static_cast<void>(garbage.retire(*younger, now - 2s));
  CHECK(one_domain.stats().oldest_pin == 0ns);  // it is found at a look
  CHECK(garbage.collect(now).empty());
  const auto pinned = one_domain.stats();
  CHECK(pinned.oldest_pin >= 5s);
  CHECK(pinned.oldest_pin < 5s + (veltrix::detail::sync::coarse_now() - now) + 100ms);
  CHECK(pinned.oldest_pin_thread == number);
  CHECK(number != 0);
  holders.let_go();
  CHECK(one_domain.stats().oldest_pin == 0ns);
  CHECK(one_domain.stats().oldest_pin_thread == 0);
  CHECK_FALSE(garbage.collect(now).empty());
  CHECK(one_domain.stats().oldest_pin == 0ns);
}

TEST_CASE("reclaim stats finds the oldest object still shown when another list's is let go") {
  numbers ended;
  list first(one_domain);
  list second(one_domain);
  const own_record record(one_domain);
  const time_point now = veltrix::detail::sync::coarse_now();
  auto* const old = new node(1, ended);
  auto* const younger = new node(2, ended);
  auto& a = show_in(*record, *old, one_domain);
  auto& b = show_in(*record, *younger, one_domain);
  static_cast<void>(first.retire(*old, now - 50s));
  static_cast<void>(second.retire(*younger, now - 2s));
  CHECK(first.collect(now).empty());
  CHECK(second.collect(now).empty());
  CHECK(one_domain.stats().oldest_pin >= 50s);
  reader_record::clear(a, one_domain.free_word());
  const auto left = one_domain.stats();
  CHECK(left.oldest_pin >= 2s);
  CHECK(left.oldest_pin < 50s);
  CHECK(left.oldest_pin_thread == veltrix::detail::sync::this_thread_number());
  reader_record::clear(b, one_domain.free_word());
}

// --- guards of a cell ----------------------------------------------------------------------------

TEST_CASE("reclaim guards beyond a thread's slots stay valid, each on its version") {
  snapshot_cell<self_poisoning> cell(std::in_place, 1U);
  std::vector<snapshot_cell<self_poisoning>::guard> guards;
  for (std::uint64_t version = 1; version <= 40; ++version) {
    guards.push_back(cell.load());
    cell.emplace(version + 1);
  }
  for (int i = 0; i < 200; ++i)
    cell.emplace(cell.version() + 1);
  cell.collect();
  for (std::uint64_t version = 1; version <= 40; ++version) {
    CHECK(guards[version - 1].version() == version);
    CHECK(guards[version - 1]->is(version));
  }
  CHECK(cell.stats().versions_alive == 41);
  guards.erase(guards.begin(), guards.begin() + 3);  // gives slots back
  cell.collect();
  CHECK(cell.stats().versions_alive == 38);
  guards.push_back(cell.load());
  CHECK(guards.back()->is(cell.version()));
  guards.clear();
  cell.collect();
  CHECK(cell.stats().versions_alive == 1);
}

namespace {

/// A cell with guards and readers on it, and what a plain model says they hold.
class held_versions {
 public:
  explicit held_versions(std::uint64_t seed) : random_(seed) {
    for (int i = 0; i < 4; ++i)
      readers_.push_back({cell_.reader(), 0});
  }

  void step() {
    const std::size_t any = random_.below(readers_.size());
    switch (random_.below(8)) {
      case 0: return add(cell_.load());
      case 1: return add(readers_[any].what.load());
      case 2: return drop();
      case 3:
        REQUIRE(readers_[any].what.get().is(version_));
        readers_[any].version = version_;
        return;
      case 4:
        readers_[any].what.release();
        readers_[any].version = 0;
        return;
      case 5: return std::swap(readers_[any], readers_[random_.below(readers_.size())]);
      default: cell_.emplace(++version_);
    }
  }

  /// Each holds its version. Result: how many values must be alive.
  std::size_t check() const {
    std::set<std::uint64_t> alive{version_};
    for (const auto& each : guards_) {
      REQUIRE(each.what.version() == each.version);
      REQUIRE(each.what->is(each.version));
      alive.insert(each.version);
    }
    for (const auto& each : readers_) {
      REQUIRE(each.what.version() == each.version);
      if (each.version != 0) alive.insert(each.version);
    }
    return alive.size();
  }

  std::size_t alive_after_a_look() {
    cell_.collect();
    return cell_.stats().versions_alive;
  }

 private:
  using cell_type = snapshot_cell<self_poisoning>;
  template <class Holder>
  struct held {
    Holder what;
    std::uint64_t version;
  };

  void add(cell_type::guard guard) {
    if (guards_.size() < 20) guards_.push_back({std::move(guard), version_});
  }
  void drop() {
    if (guards_.empty()) return;
    std::swap(guards_[random_.below(guards_.size())], guards_.back());
    guards_.pop_back();
  }

  veltrix_test::random_source random_;
  cell_type cell_{std::in_place, 1U};
  std::uint64_t version_ = 1;
  std::vector<held<cell_type::guard>> guards_;
  std::vector<held<cell_type::cached_reader>> readers_;
};

}  // namespace

TEST_CASE("reclaim guards and readers in random order agree with a plain model") {
  const std::uint64_t seed = std::random_device()();
  INFO("seed " << seed);
  held_versions held(seed);
  for (std::size_t step = 0; step < veltrix_test::scale(20'000); ++step) {
    held.step();
    const std::size_t alive = held.check();
    if (step % 16 == 0) REQUIRE(held.alive_after_a_look() == alive);
  }
}

TEST_CASE("reclaim guard ends in another thread and frees its maker's slot") {
  snapshot_cell<self_poisoning> cell(std::in_place, 1U);
  for (std::uint64_t round = 1; round <= 10; ++round) {
    std::vector<snapshot_cell<self_poisoning>::guard> guards;
    for (int i = 0; i < 6; ++i)
      guards.push_back(cell.load());  // four of them in slots
    cell.emplace(round + 1);
    cell.collect();
    CHECK(cell.stats().versions_alive == 2);
    std::thread([&cell, round, moved = std::move(guards)]() mutable {
      for (auto& each : moved)
        CHECK(each->is(round));
      auto own = cell.load();
      std::swap(own, moved.front());
      CHECK(own->is(round));
      CHECK(moved.front()->is(round + 1));
    }).join();
    cell.collect();
    CHECK(cell.stats().versions_alive == 1);
    CHECK(reclaim_domain::shared().record_of_this_thread()->unused(&reclaim_domain::shared()));
  }
}

TEST_CASE("reclaim guard outlives the thread that made it, and the record waits for it") {
  snapshot_cell<self_poisoning> cell(std::in_place, 1U);
  auto& domain = reclaim_domain::shared();
  std::optional<snapshot_cell<self_poisoning>::guard> left;
  const auto before = domain.stats();
  std::thread([&] { left.emplace(cell.load()); }).join();
  CHECK(domain.stats().records_in_use == before.records_in_use);
  for (std::uint64_t i = 2; i <= 200; ++i) {
    cell.emplace(i);
    if (i % 20 == 0) std::thread([&] { CHECK(cell.load()->is(i)); }).join();
    REQUIRE((*left)->is(1));
  }
  cell.collect();
  CHECK(cell.stats().versions_alive == 2);
  left.reset();
  cell.collect();
  CHECK(cell.stats().versions_alive == 1);
  CHECK(domain.stats().records <= before.records + 2);
}

TEST_CASE("reclaim reader moves between objects and threads with what it holds") {
  snapshot_cell<self_poisoning> cell(std::in_place, 1U);
  const std::size_t before = reclaim_domain::shared().stats().records_in_use;
  auto first = cell.reader();
  CHECK(first.get().is(1));
  cell.emplace(2U);
  auto second = std::move(first);
  CHECK(first.version() == 0);
  cell.collect();
  CHECK(cell.stats().versions_alive == 2);  // the second one still holds version 1
  std::thread([&cell, moved = std::move(second)]() mutable {
    CHECK(moved.version() == 1);
    CHECK(moved.get().is(2));
    cell.emplace(3U);
    CHECK(moved.get().is(3));
    CHECK(moved.load()->is(3));
  }).join();
  CHECK(second.version() == 0);
  first = cell.reader();
  second = cell.reader();
  CHECK(first.get().is(3));
  cell.emplace(4U);
  second = std::move(first);  // the record it had is free again
  CHECK(second.version() == 3);
  CHECK(second.get().is(4));
  CHECK(reclaim_domain::shared().stats().records_in_use <= before + 2);
  cell.collect();
  CHECK(cell.stats().versions_alive == 1);
}

TEST_CASE("reclaim reader gives guards, nested and longer-lived than itself") {
  snapshot_cell<self_poisoning> cell(std::in_place, 1U);
  {
    std::vector<snapshot_cell<self_poisoning>::guard> guards;
    {
      auto reader = cell.reader();
      for (std::uint64_t version = 1; version <= 12; ++version) {
        CHECK(reader.get().is(version));
        guards.push_back(reader.load());
        guards.push_back(reader.load());
        cell.emplace(version + 1);
        CHECK(reader.version() == version);  // load() does not touch what get() gave
        guards.push_back(reader.load());
      }
    }
    auto next = cell.reader();  // not in the record whose slot a guard still uses
    CHECK(next.get().is(13));
    cell.collect();
    for (std::size_t i = 0; i < guards.size(); ++i)
      CHECK(guards[i]->is(i / 3 + (i % 3 == 2 ? 2 : 1)));
    CHECK(cell.stats().versions_alive == 13);
  }
  cell.collect();
  CHECK(cell.stats().versions_alive == 1);
}

namespace {

/// A coroutine that starts at once and owns nothing.
struct errand {
  struct promise_type {
    errand get_return_object() { return {}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() {}
    void unhandled_exception() { std::terminate(); }
  };
};

/// The threads a coroutine has come through.
struct journey {
  std::vector<std::thread> threads;
  std::mutex mutex;  // guards the end of threads: the next thread waits until this one is listed
};

/// Goes on in a thread of its own.
struct elsewhere {
  journey& on;
  bool await_ready() const noexcept { return false; }
  [[gnu::noinline]] void await_suspend(std::coroutine_handle<> rest) {
    journey& of = on;  // the coroutine may take this object with it
    const std::lock_guard<std::mutex> lock(of.mutex);
    of.threads.emplace_back([&of, rest] {
      { const std::lock_guard<std::mutex> listed(of.mutex); }
      rest.resume();
    });
  }
  void await_resume() const noexcept {}
};

errand travel(snapshot_cell<self_poisoning>& cell, journey& on, std::atomic<int>& wrong) {
  const auto first = cell.load();
  const std::uint64_t began = first.version();
  auto reader = cell.reader();
  for (std::uint64_t stop = 0; stop < 8; ++stop) {
    const auto here = cell.load();
    const bool kept = reader.get().is(began + stop);
    co_await elsewhere{on};
    cell.emplace(began + stop + 1);
    const auto there = cell.load();  // of the thread it is in now
    if (!kept || !here->is(began + stop) || !there->is(began + stop + 1)) ++wrong;
    if (!first->is(began) || !reader.load()->is(began + stop + 1)) ++wrong;
  }
  cell.collect();
}

}  // namespace

TEST_CASE("reclaim guards cross the suspensions of a coroutine into other threads") {
  snapshot_cell<self_poisoning> cell(std::in_place, 1U);
  std::atomic<int> wrong{0};
  const std::size_t before = reclaim_domain::shared().stats().records_in_use;
  for (std::size_t round = 0; round < veltrix_test::scale(100); ++round) {
    journey on;
    on.threads.reserve(8);
    travel(cell, on, wrong);
    for (std::size_t i = 0; i < 8; ++i)
      on.threads[i].join();  // it has started the next one
  }
  CHECK(wrong == 0);
  cell.collect();
  CHECK(cell.stats().versions_alive == 1);
  CHECK(reclaim_domain::shared().stats().records_in_use <= before + 1);
}

// --- no memory -----------------------------------------------------------------------------------

TEST_CASE("reclaim reads go on where there is no memory for a record") {
  using cell_type = snapshot_cell<self_poisoning>;
  cell_type cell(std::in_place, 1U);
  auto& domain = reclaim_domain::shared();
  std::vector<cell_type::cached_reader> readers;
  readers.reserve(1'000);
  // Until every record that exists is in use.
  for (auto now = domain.stats(); now.records < 16 || now.records_in_use < now.records;
       now = domain.stats()) {
    readers.push_back(cell.reader());
  }
  const auto full = domain.stats();
  std::thread([&] {
    veltrix_test::allocations_left = 0;
    CHECK_THROWS_AS(cell.reader(), std::bad_alloc);
    veltrix_test::allocations_left = 0;
    bool good = domain.record_of_this_thread() == nullptr;
    std::vector<cell_type::guard> guards;
    {
      veltrix_test::allocations_left = -1;
      guards.reserve(10);
      veltrix_test::allocations_left = 0;
    }
    for (int i = 0; i < 10; ++i)
      guards.push_back(cell.load());
    good = good && cell.version() == 1;
    veltrix_test::allocations_left = -1;
    CHECK(good);
    CHECK(domain.stats().records == full.records);
    CHECK(domain.stats().records_in_use == full.records_in_use);
    for (std::uint64_t i = 2; i < 200; ++i)
      cell.emplace(i);
    for (const auto& each : guards)
      CHECK(each->is(1));
    guards.clear();
    CHECK(cell.load()->is(199));  // with memory the thread gets its record
    CHECK(domain.stats().records == full.records + 1);
  }).join();
  veltrix_test::allocations_left = 0;
  CHECK_THROWS_AS(([&] {
                    for (;;)
                      readers.push_back(cell.reader());
                  }()),
                  std::bad_alloc);
  veltrix_test::allocations_left = -1;
  CHECK(domain.stats().records == full.records + 1);
  CHECK(readers.back().get().is(199));
  readers.clear();
  cell.collect();
  CHECK(cell.stats().versions_alive == 1);
  CHECK(domain.stats().records_in_use <= 1);
}

TEST_CASE("reclaim threads without a record take turns at the spare one") {
  using cell_type = snapshot_cell<self_poisoning>;
  cell_type cell(std::in_place, 1U);
  auto& domain = reclaim_domain::shared();
  std::vector<cell_type::cached_reader> readers;
  readers.reserve(1'000);
  for (auto now = domain.stats(); now.records < 16 || now.records_in_use < now.records;
       now = domain.stats()) {
    readers.push_back(cell.reader());
  }
  const std::size_t records = domain.stats().records;
  std::atomic<bool> done{false};
  std::atomic<int> wrong{0};
  const auto read = [&] {
    veltrix_test::allocations_left = 0;
    while (!done) {
      const auto first = cell.load();
      const auto second = cell.load();
      if (!first->is(first.version()) || second.version() < first.version()) ++wrong;
    }
    veltrix_test::allocations_left = -1;
  };
  veltrix_test::run_at_once({read, read, read, [&] {
                               for (std::uint64_t i = 2; i < veltrix_test::scale(20'000); ++i)
                                 cell.emplace(i);
                               done = true;
                             }});
  CHECK(wrong == 0);
  CHECK(domain.stats().records <= records + 1);  // the writer's
}
