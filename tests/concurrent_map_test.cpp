// concurrent_map by one thread: what every operation answers and leaves.
// SPDX-License-Identifier: BSL-1.0
#include "veltrix/concurrent_map.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <iterator>
#include <map>
#include <memory>
#include <memory_resource>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/death.hpp"
#include "support/tracking_allocator.hpp"

namespace {

using veltrix::concurrent_map;
using veltrix::concurrent_map_change;
using veltrix::concurrent_map_options;
using veltrix_test::allocation_book;
using veltrix_test::tracking_allocator;

using numbers = concurrent_map<int, int>;
using names = concurrent_map<std::string, int>;

static_assert(!std::is_copy_constructible_v<numbers> && !std::is_copy_assignable_v<numbers>);
static_assert(!std::is_move_constructible_v<numbers> && !std::is_move_assignable_v<numbers>);
static_assert(!std::is_swappable_v<numbers>);
static_assert(!std::is_copy_constructible_v<numbers::guard>);
static_assert(std::is_nothrow_move_constructible_v<numbers::guard>);
static_assert(std::is_nothrow_move_assignable_v<numbers::guard>);
static_assert(std::is_nothrow_destructible_v<numbers::guard>);
static_assert(noexcept(std::declval<const numbers&>().approx_size()));
static_assert(noexcept(std::declval<const numbers&>().shard_count()));
static_assert(noexcept(std::declval<const numbers&>().get_allocator()));
static_assert(std::is_same_v<decltype(*std::declval<numbers::guard&>()), const int&>);
static_assert(std::uses_allocator_v<numbers, numbers::allocator_type>);
static_assert(std::is_same_v<numbers::value_type, std::pair<const int, int>>);

/// The map's entries, ordered.
template <class Map>
auto contents(const Map& map) {
  std::map<typename Map::key_type, typename Map::mapped_type> all;
  map.for_each([&](const auto& key, const auto& value) {
    if (!all.emplace(key, value).second) throw std::logic_error("for_each showed a key twice");
  });
  return all;
}

/// Hashes everything to one place: every operation walks one chain.
struct crowding_hash {
  std::size_t operator()(int) const { return 7; }
};

/// A container's elements, to be moved from.
template <class Container>
struct moving_range {
  Container& elements;
  auto begin() const { return std::make_move_iterator(elements.begin()); }
  auto end() const { return std::make_move_iterator(elements.end()); }
};

/// Counts the keys that are made.
struct counted_key {
  explicit counted_key(std::string_view given) : text(given) { ++made; }
  counted_key(const counted_key& other) : text(other.text) { ++made; }
  counted_key(counted_key&& other) noexcept : text(std::move(other.text)) { ++made; }
  std::string text;
  static inline int made = 0;
};
struct text_hash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const {
    return std::hash<std::string_view>{}(text);
  }
  std::size_t operator()(const counted_key& key) const { return (*this)(key.text); }
};
struct text_equal {
  using is_transparent = void;
  static std::string_view text_of(std::string_view text) { return text; }
  static std::string_view text_of(const counted_key& key) { return key.text; }
  template <class Left, class Right>
  bool operator()(const Left& left, const Right& right) const {
    return text_of(left) == text_of(right);
  }
};

/// Runs each task on a thread of its own; joins them all at its end.
class thread_executor {
 public:
  ~thread_executor() {
    for (std::thread& each : threads_)
      each.join();
  }
  veltrix::post_result try_post(veltrix::detail::task work) {
    threads_.emplace_back(std::move(work));
    return {};
  }
  std::size_t posted() const { return threads_.size(); }

 private:
  std::vector<std::thread> threads_;
};

/// Takes nothing.
struct refusing_executor {
  veltrix::post_result try_post(veltrix::detail::task) {
    ++asked;
    return {veltrix::post_status::full, "this one takes nothing"};
  }
  int asked = 0;
};

/// Fails.
struct failing_executor {
  veltrix::post_result try_post(veltrix::detail::task) { throw std::bad_alloc(); }
};

/// Keeps the tasks for later.
struct late_executor {
  veltrix::post_result try_post(veltrix::detail::task work) {
    kept.push_back(std::move(work));
    return {};
  }
  std::vector<veltrix::detail::task> kept;
};

}  // namespace

// --- look-ups ----------------------------------------------------------------------------------

TEST_CASE("concurrent_map look-ups find what was inserted and nothing else") {
  numbers map;
  REQUIRE(map.insert(1, 10));
  REQUIRE(map.get(1) == 10);
  REQUIRE(map.get(2) == std::nullopt);
  REQUIRE(map.contains(1));
  REQUIRE_FALSE(map.contains(2));
  REQUIRE(map.find(1).value() == 10);
  REQUIRE_FALSE(map.find(2));

  int seen = 0;
  REQUIRE(map.visit(1, [&](int value) { seen = value; }) == 1);
  REQUIRE(seen == 10);
  REQUIRE(map.visit(1, [&](int key, int value) { seen = key + value; }) == 1);
  REQUIRE(seen == 11);
  REQUIRE(map.visit(2, [&](int) { seen = -1; }) == 0);
  REQUIRE(seen == 11);
}

TEST_CASE("concurrent_map visit hands out the value as const") {
  numbers map;
  map.insert(1, 10);
  bool constant = false;
  map.visit(1, [&](auto& key, auto& value) {
    constant = std::is_const_v<std::remove_reference_t<decltype(key)>> &&
               std::is_const_v<std::remove_reference_t<decltype(value)>>;
  });
  REQUIRE(constant);
}

TEST_CASE("concurrent_map visit of a range calls once per present key in the range's order") {
  names map;
  map.insert({{"a", 1}, {"b", 2}, {"c", 3}});
  std::string seen;
  const std::vector<std::string> wanted{"c", "nobody", "a", "c"};
  REQUIRE(map.visit(wanted, [&](const std::string& key, int value) {
    seen += key + std::to_string(value) + " ";
  }) == 3);
  REQUIRE(seen == "c3 a1 c3 ");

  const std::string_view views[] = {"b", "x"};
  int total = 0;
  REQUIRE(map.visit(views, [&](int value) { total += value; }) == 1);
  REQUIRE(total == 2);
  REQUIRE(map.visit(std::vector<std::string>{}, [](int) {}) == 0);
}

TEST_CASE("concurrent_map takes an argument that can be a key as one key, not as a range") {
  concurrent_map<std::vector<int>, int,
                 decltype([](const std::vector<int>& all) { return all.size(); })>
      map;
  map.insert(std::vector<int>{1, 2}, 5);
  int seen = 0;
  REQUIRE(map.visit(std::vector<int>{1, 2}, [&](int value) { seen = value; }) == 1);
  REQUIRE(seen == 5);
  REQUIRE(map.visit(std::vector<std::vector<int>>{{1, 2}, {3}}, [&](int) { ++seen; }) == 1);
  REQUIRE(seen == 6);
}

TEST_CASE("concurrent_map finds string keys by views and literals") {
  names map;
  map.insert("key", 1);
  REQUIRE(map.get("key") == 1);
  REQUIRE(map.get(std::string_view("key")) == 1);
  REQUIRE(map.get(std::string("key")) == 1);
  REQUIRE(map.update(std::string_view("key"), [](int& value) { ++value; }));
  REQUIRE(map.upsert("key", 0, [](int& value) { ++value; }) == concurrent_map_change::replaced);
  REQUIRE(map.erase_if("key", [](int value) { return value == 3; }) == 1);
}

TEST_CASE("concurrent_map makes no key for a transparent look-up") {
  concurrent_map<counted_key, int, text_hash, text_equal> map;
  map.try_emplace(std::string_view("present"), 1);
  const int made = counted_key::made;
  const std::string_view present = "present";
  REQUIRE(map.get(present) == 1);
  REQUIRE(map.contains(present));
  REQUIRE(map.find(present).value() == 1);
  REQUIRE(map.visit(present, [](int) {}) == 1);
  REQUIRE_FALSE(map.try_emplace(present, 2));
  REQUIRE_FALSE(map.insert(present, 2));
  REQUIRE_FALSE(map.get_or_emplace(present, [] { return 2; }).inserted);
  REQUIRE(map.erase(std::string_view("absent")) == 0);
  REQUIRE(map.erase_if(present, [](int value) { return value == 2; }) == 0);
  REQUIRE(counted_key::made == made);
  REQUIRE(map.erase(present) == 1);
  REQUIRE(counted_key::made == made);
}

// --- guards ------------------------------------------------------------------------------------

TEST_CASE("concurrent_map guards keep their entry through replace, erase and clear") {
  names map;
  map.insert("a", 1);
  auto first = map.find("a");
  map.insert_or_assign("a", 2);
  auto second = map.find("a");
  map.erase("a");
  map.insert("a", 3);
  auto third = map.find("a");
  map.clear();
  REQUIRE(first.value() == 1);
  REQUIRE(first.key() == "a");
  REQUIRE(*second == 2);
  REQUIRE(*third.operator->() == 3);
  REQUIRE_FALSE(map.contains("a"));
}

TEST_CASE("concurrent_map lets a thread that holds a guard write the same key") {
  numbers map;
  map.insert(1, 1);
  const auto held = map.find(1);
  REQUIRE(map.update(1, [](int& value) { value = 2; }));
  REQUIRE(map.erase(1) == 1);
  REQUIRE(map.insert(1, 3));
  REQUIRE(*held == 1);
  REQUIRE(map.size() == 1);
}

TEST_CASE("concurrent_map guards move, and the one moved from is empty") {
  names map;
  map.insert({{"a", 1}, {"b", 2}});
  auto guard = map.find("a");
  auto taken = std::move(guard);
  REQUIRE_FALSE(guard);  // NOLINT: a moved-from guard is empty, by contract
  REQUIRE(*taken == 1);
  taken = map.find("b");
  REQUIRE(*taken == 2);
  auto& self = taken;
  taken = std::move(self);
  REQUIRE(*taken == 2);
  taken.reset();
  REQUIRE_FALSE(taken);
  taken.reset();
  names::guard empty;
  REQUIRE_FALSE(empty);
}

TEST_CASE("concurrent_map guards and look-ups leave the slots of their thread free") {
  concurrent_map<int, std::string> map;
  map.insert(1, "one");
  std::thread([&map] {
    auto& domain = veltrix::reclaim_domain::shared();
    {
      auto one = map.find(1);
      const auto other = map.find(1);
      const auto taken = std::move(one);
      CHECK_FALSE(domain.record_of_this_thread()->unused(&domain));
    }
    CHECK(domain.record_of_this_thread()->unused(&domain));
    CHECK(map.contains(1));
    CHECK_FALSE(map.find(2));
    CHECK(domain.record_of_this_thread()->unused(&domain));
  }).join();
}

TEST_CASE("concurrent_map destroys an entry once map and guards have let go") {
  concurrent_map<int, std::shared_ptr<int>> map;
  auto value = std::make_shared<int>(1);
  const std::weak_ptr<int> alive = value;
  map.insert(1, std::move(value));
  auto one = map.find(1);
  auto other = map.find(1);
  map.erase(1);
  map.collect();
  REQUIRE_FALSE(alive.expired());
  one.reset();
  map.collect();
  REQUIRE_FALSE(alive.expired());
  other.reset();
  map.collect();
  REQUIRE(alive.expired());
}

// --- insertions --------------------------------------------------------------------------------

TEST_CASE("concurrent_map insertions add only absent keys and say so") {
  names map;
  REQUIRE(map.insert("a", 1));
  REQUIRE_FALSE(map.insert("a", 2));
  REQUIRE(map.insert({"b", 3}));
  REQUIRE_FALSE(map.insert(std::pair<const std::string, int>("b", 4)));
  const std::pair<std::string, int> pair("c", 5);
  REQUIRE(map.insert(pair));
  REQUIRE(map.emplace("d", 6));
  REQUIRE_FALSE(
      map.emplace(std::piecewise_construct, std::forward_as_tuple("d"), std::forward_as_tuple(7)));
  REQUIRE(map.try_emplace("e", 8));
  REQUIRE_FALSE(map.try_emplace("e", 9));
  REQUIRE(map.try_emplace("f"));
  REQUIRE(contents(map) ==
          std::map<std::string, int>{{"a", 1}, {"b", 3}, {"c", 5}, {"d", 6}, {"e", 8}, {"f", 0}});
}

TEST_CASE("concurrent_map insert of a range counts the keys that were absent") {
  numbers map;
  map.insert(1, 10);
  REQUIRE(map.insert(std::vector<std::pair<int, int>>{{1, 11}, {2, 12}, {2, 13}, {3, 14}}) == 2);
  REQUIRE(map.insert({{3, 15}, {4, 16}}) == 1);
  REQUIRE(map.insert(std::map<int, int>{{5, 17}}) == 1);
  names named;
  REQUIRE(named.insert(std::array<std::pair<std::string, int>, 2>{{{"a", 1}, {"b", 2}}}) == 2);
  REQUIRE(contents(map) == std::map<int, int>{{1, 10}, {2, 12}, {3, 14}, {4, 16}, {5, 17}});
}

TEST_CASE("concurrent_map leaves the arguments alone where the key is present") {
  concurrent_map<std::string, std::unique_ptr<int>> map;
  map.try_emplace("key", std::make_unique<int>(1));
  std::string key = "key";
  auto value = std::make_unique<int>(2);
  REQUIRE_FALSE(map.try_emplace(std::move(key), std::move(value)));
  REQUIRE(key == "key");
  REQUIRE(value != nullptr);
  REQUIRE_FALSE(map.insert(std::move(key), std::move(value)));
  REQUIRE(value != nullptr);
  std::pair<std::string, std::unique_ptr<int>> pair(std::move(key), std::move(value));
  REQUIRE_FALSE(map.insert(std::move(pair)));
  REQUIRE(pair.first == "key");
  REQUIRE(pair.second != nullptr);
}

TEST_CASE("concurrent_map get_or_emplace runs the factory only for an absent key") {
  numbers map;
  int runs = 0;
  const auto factory = [&runs] { return ++runs; };
  auto made = map.get_or_emplace(1, factory);
  REQUIRE(made.inserted);
  REQUIRE(*made.entry == 1);
  auto found = map.get_or_emplace(1, factory);
  REQUIRE_FALSE(found.inserted);
  REQUIRE(*found.entry == 1);
  REQUIRE(runs == 1);
}

TEST_CASE("concurrent_map holds values that move but do not copy") {
  concurrent_map<int, std::unique_ptr<int>> map;
  REQUIRE(map.insert(1, std::make_unique<int>(1)));
  REQUIRE(map.emplace(2, std::make_unique<int>(2)));
  REQUIRE(map.try_emplace(3, new int(3)));
  REQUIRE(map.insert_or_assign(1, std::make_unique<int>(4)) == concurrent_map_change::replaced);
  REQUIRE(map.insert_or_assign(5, std::make_unique<int>(5)) == concurrent_map_change::inserted);
  REQUIRE(**map.get_or_emplace(6, [] { return std::make_unique<int>(6); }).entry == 6);
  REQUIRE(**map.find(1) == 4);
  REQUIRE(map.erase(2) == 1);
  REQUIRE(map.erase_if(3, [](const std::unique_ptr<int>& value) { return *value == 3; }) == 1);
  int total = 0;
  map.for_each([&](const std::unique_ptr<int>& value) { total += *value; });
  REQUIRE(total == 15);
  std::vector<std::pair<int, std::unique_ptr<int>>> more;
  more.emplace_back(7, std::make_unique<int>(7));
  REQUIRE(map.insert(moving_range<decltype(more)>{more}) == 1);
  concurrent_map<int, std::unique_ptr<int>> source;
  source.insert(8, std::make_unique<int>(8));
  REQUIRE(map.merge(source) == 1);
  REQUIRE(**map.find(8) == 8);
}

TEST_CASE("concurrent_map holds keys that move but do not copy") {
  struct address_hash {
    std::size_t operator()(const std::unique_ptr<int>& key) const {
      return std::hash<std::unique_ptr<int>>{}(key);
    }
  };
  concurrent_map<std::unique_ptr<int>, int, address_hash> map;
  auto key = std::make_unique<int>(1);
  const int* const address = key.get();
  REQUIRE(map.insert(std::move(key), 5));
  int seen = 0;
  map.for_each([&](const std::unique_ptr<int>& each, int value) {
    seen = each.get() == address ? value : -1;
  });
  REQUIRE(seen == 5);
  REQUIRE(map.insert_or_assign(std::make_unique<int>(2), 6) == concurrent_map_change::inserted);
  REQUIRE(map.size() == 2);
}

TEST_CASE("concurrent_map holds values that neither move nor copy") {
  struct pinned {
    explicit pinned(int given) : number(given) {}
    pinned(const pinned&) = delete;
    pinned& operator=(const pinned&) = delete;
    int number;
  };
  concurrent_map<int, pinned> map;
  REQUIRE(map.try_emplace(1, 5));
  REQUIRE(map.find(1)->number == 5);
  REQUIRE(
      map.emplace(std::piecewise_construct, std::forward_as_tuple(2), std::forward_as_tuple(6)));
  REQUIRE(map.erase(1) == 1);
  map.rehash(100);
  REQUIRE(map.find(2)->number == 6);
}

TEST_CASE("concurrent_map holds over-aligned values where they must stand") {
  struct alignas(256) wide {
    int number = 3;
  };
  concurrent_map<int, wide> map;
  for (int i = 0; i < 100; ++i)
    map.try_emplace(i);
  int misplaced = 0;
  map.for_each([&](const wide& value) {
    misplaced += reinterpret_cast<std::uintptr_t>(&value) % 256 == 0 && value.number == 3 ? 0 : 1;
  });
  REQUIRE(misplaced == 0);
  REQUIRE(map.size() == 100);
}

TEST_CASE("concurrent_map holds empty keys and values") {
  struct nothing {
    bool operator==(const nothing&) const = default;
  };
  struct nothing_hash {
    std::size_t operator()(nothing) const { return 0; }
  };
  concurrent_map<nothing, nothing, nothing_hash> map;
  REQUIRE(map.insert(nothing{}, nothing{}));
  REQUIRE_FALSE(map.insert(nothing{}, nothing{}));
  REQUIRE(map.update(nothing{}, [](nothing&) {}));
  REQUIRE(map.size() == 1);
  REQUIRE(map.erase(nothing{}) == 1);
}

TEST_CASE("concurrent_map takes arguments that refer to its own entries") {
  concurrent_map<std::string, std::string> map(concurrent_map_options{.shards = 1});
  const std::string text(40, 'x');
  map.insert("a" + text, "value of a" + text);
  {
    const auto held = map.find("a" + text);
    REQUIRE_FALSE(map.insert(held.key(), held.value()));
    REQUIRE(map.insert_or_assign(held.key(), held.value()) == concurrent_map_change::replaced);
    REQUIRE(map.upsert(held.key(), [&](std::string& value) { value = held.value() + "!"; }) ==
            concurrent_map_change::replaced);
    REQUIRE(map.try_emplace(held.value(), held.key()));
    REQUIRE(map.update(held.key(), [&](std::string& value) { value += held.value(); }));
  }
  REQUIRE(map.get("a" + text) == "value of a" + text + "!value of a" + text);
  REQUIRE(map.get("value of a" + text) == "a" + text);
  // In a visitor the references are the map's own, and no guard of ours keeps the entry.
  REQUIRE(map.visit("a" + text, [&](const std::string& key, const std::string& value) {
    map.insert_or_assign(key, value + "?");
    REQUIRE(map.erase(key) == 1);
    REQUIRE(map.insert(key, value));
    REQUIRE(value.back() == 'x');
  }) == 1);
  REQUIRE(map.get("a" + text)->back() == 'x');
}

// --- changes -----------------------------------------------------------------------------------

TEST_CASE("concurrent_map insert_or_assign says whether it inserted or replaced") {
  numbers map;
  REQUIRE(map.insert_or_assign(1, 1) == concurrent_map_change::inserted);
  REQUIRE(map.insert_or_assign(1, 2) == concurrent_map_change::replaced);
  REQUIRE(map.get(1) == 2);
  REQUIRE(map.size() == 1);
}

TEST_CASE("concurrent_map update changes a present value and no other") {
  numbers map;
  map.insert({{1, 1}, {2, 2}});
  REQUIRE(map.update(1, [](int& value) { value = 5; }));
  bool called = false;
  REQUIRE_FALSE(map.update(3, [&](int&) { called = true; }));
  REQUIRE_FALSE(called);
  REQUIRE(contents(map) == std::map<int, int>{{1, 5}, {2, 2}});
}

TEST_CASE("concurrent_map upsert starts from an initial value, a factory or a new value") {
  numbers map;
  const auto increment = [](int& value) { ++value; };
  REQUIRE(map.upsert(1, increment) == concurrent_map_change::inserted);
  REQUIRE(map.get(1) == 1);
  REQUIRE(map.upsert(1, increment) == concurrent_map_change::replaced);
  REQUIRE(map.get(1) == 2);
  REQUIRE(map.upsert(2, 10, increment) == concurrent_map_change::inserted);
  REQUIRE(map.get(2) == 10);
  REQUIRE(map.upsert(2, 10, increment) == concurrent_map_change::replaced);
  REQUIRE(map.get(2) == 11);
  int runs = 0;
  const auto factory = [&runs] { return 100 + runs++; };
  REQUIRE(map.upsert(3, factory, increment) == concurrent_map_change::inserted);
  REQUIRE(map.upsert(3, factory, increment) == concurrent_map_change::replaced);
  REQUIRE(map.get(3) == 101);
  REQUIRE(runs == 1);
}

TEST_CASE("concurrent_map compute reaches each of its four results") {
  numbers map;
  REQUIRE(map.compute(1, [](std::optional<int>& value) { REQUIRE_FALSE(value); }) ==
          concurrent_map_change::unchanged);
  REQUIRE(map.compute(1, [](std::optional<int>& value) { value = 5; }) ==
          concurrent_map_change::inserted);
  REQUIRE(map.compute(1, [](std::optional<int>& value) { *value += 1; }) ==
          concurrent_map_change::replaced);
  REQUIRE(map.get(1) == 6);
  REQUIRE(map.compute(1, [](std::optional<int>& value) { value.reset(); }) ==
          concurrent_map_change::erased);
  REQUIRE_FALSE(map.contains(1));
  REQUIRE(map.empty());
}

TEST_CASE("concurrent_map changes leave what a guard sees as it was") {
  names map;
  map.insert("a", 1);
  const auto before = map.find("a");
  map.update("a", [](int& value) { value = 2; });
  map.upsert("a", [](int& value) { value = 3; });
  map.compute("a", [](std::optional<int>& value) { value = 4; });
  REQUIRE(*before == 1);
  REQUIRE(map.get("a") == 4);
}

// --- erasures ----------------------------------------------------------------------------------

TEST_CASE("concurrent_map erase returns zero when the key is absent") {
  numbers map;
  REQUIRE(map.erase(1) == 0);
  map.insert(1, 1);
  REQUIRE(map.erase(1) == 1);
  REQUIRE(map.erase(1) == 0);
}

TEST_CASE("concurrent_map erase_if erases only what the predicate accepts") {
  numbers map;
  for (int i = 0; i < 100; ++i)
    map.insert(i, i * 2);
  REQUIRE(map.erase_if(10, [](int value) { return value != 20; }) == 0);
  REQUIRE(map.erase_if(10, [](int key, int value) { return value == 2 * key; }) == 1);
  REQUIRE(map.erase_if(10, [](int) { return true; }) == 0);
  REQUIRE(map.erase_if([](int key, int) { return key % 2 == 1; }) == 50);
  REQUIRE(map.erase_if([](int value) { return value >= 100; }) == 25);
  REQUIRE(map.size() == 24);
  int wrong = 0;
  map.for_each([&](int key, int value) { wrong += key % 2 == 0 && value < 100 ? 0 : 1; });
  REQUIRE(wrong == 0);
}

TEST_CASE("concurrent_map clear erases everything and the map goes on") {
  numbers map;
  for (int i = 0; i < 1000; ++i)
    map.insert(i, i);
  map.clear();
  REQUIRE(map.empty());
  REQUIRE(map.size() == 0);
  REQUIRE(map.stats().slots == 0);
  REQUIRE(map.insert(1, 1));
  REQUIRE(map.size() == 1);
}

// --- the whole map -----------------------------------------------------------------------------

TEST_CASE("concurrent_map for_each and snapshot show every entry once") {
  numbers map;
  std::map<int, int> expected;
  for (int i = 0; i < 1000; ++i) {
    map.insert(i, -i);
    expected.emplace(i, -i);
  }
  REQUIRE(contents(map) == expected);
  const auto copies = map.snapshot();
  REQUIRE(copies.size() == 1000);
  REQUIRE(std::map<int, int>(copies.begin(), copies.end()) == expected);
}

TEST_CASE("concurrent_map visitors may use the map they visit") {
  numbers map(concurrent_map_options{.shards = 1});
  for (int i = 0; i < 20; ++i)
    map.insert(i, i);
  std::size_t seen = 0;
  map.for_each([&](int key, int) {
    ++seen;
    map.erase(key);
    map.insert(key + 1000, key);
    REQUIRE(map.size() == 20);
  });
  REQUIRE(seen == 20);
  REQUIRE(map.visit(1000, [&](int) {
    map.clear();
    map.rehash(0);
    map.reserve(10);
  }) == 1);
  REQUIRE(map.empty());
}

TEST_CASE("concurrent_map for_each passes a visitor's exception on and holds nothing after") {
  concurrent_map<int, std::shared_ptr<int>> map;
  const auto shared = std::make_shared<int>(1);
  for (int i = 0; i < 10; ++i)
    map.insert(i, shared);
  REQUIRE_THROWS_AS(map.for_each([](const auto&) { throw std::runtime_error("stop"); }),
                    std::runtime_error);
  REQUIRE(map.size() == 10);
  map.clear();
  REQUIRE(shared.use_count() == 1);
}

TEST_CASE("concurrent_map parallel forms do each entry once whatever the executor answers") {
  numbers map;
  for (int i = 0; i < 1000; ++i)
    map.insert(i, i);
  const auto walk = [&map](auto& where) {
    std::array<std::atomic<int>, 1000> seen{};
    map.for_each(where, [&](int key, int) { ++seen[static_cast<std::size_t>(key)]; });
    for (const auto& each : seen) {
      if (each != 1) return false;
    }
    return true;
  };
  veltrix::inline_executor here;
  refusing_executor refusing;
  failing_executor failing;
  late_executor late;
  REQUIRE(walk(here));
  REQUIRE(walk(refusing));
  REQUIRE(walk(failing));
  REQUIRE(walk(late));
  for (auto& task : late.kept)
    task();                      // finds the walk over, and touches nothing of it
  REQUIRE(refusing.asked <= 1);  // a refusal ends the offers
  {
    thread_executor threads;
    REQUIRE(walk(threads));
    REQUIRE(threads.posted() < std::max(2U, std::thread::hardware_concurrency()));
  }
  thread_executor threads;
  REQUIRE(map.erase_if(threads, [](int key, int) { return key % 2 == 0; }) == 500);
  REQUIRE(map.erase_if(veltrix::inline_executor{}, [](int value) { return value < 100; }) == 50);
  REQUIRE(map.size() == 450);
}

TEST_CASE("concurrent_map parallel forms rethrow the first exception once all have stopped") {
  numbers map;
  for (int i = 0; i < 1000; ++i)
    map.insert(i, i);
  std::atomic<int> running{0};
  {
    thread_executor threads;
    REQUIRE_THROWS_WITH(map.for_each(threads,
                                     [&](int value) {
                                       ++running;
                                       if (value % 7 == 3) {
                                         --running;
                                         throw std::runtime_error("no sevens");
                                       }
                                       --running;
                                     }),
                        "no sevens");
    REQUIRE(running == 0);
  }
  thread_executor threads;
  REQUIRE_THROWS_AS(map.erase_if(threads, [](int) -> bool { throw std::bad_alloc(); }),
                    std::bad_alloc);
  REQUIRE(map.size() == 1000);
}

TEST_CASE("concurrent_map merge moves the entries whose keys are absent") {
  names map;
  concurrent_map<std::string, int, text_hash, text_equal> other_functions;
  map.insert({{"a", 1}, {"b", 2}});
  names source(concurrent_map_options{.shards = 2});
  source.insert({{"b", 20}, {"c", 30}});
  const auto held = source.find("c");
  REQUIRE(map.merge(source) == 1);
  REQUIRE(contents(map) == std::map<std::string, int>{{"a", 1}, {"b", 2}, {"c", 30}});
  REQUIRE(contents(source) == std::map<std::string, int>{{"b", 20}});
  REQUIRE(*held == 30);
  REQUIRE(map.merge(map) == 0);
  other_functions.insert("d", 4);
  REQUIRE(map.merge(other_functions) == 1);
  REQUIRE(other_functions.empty());
  REQUIRE(map.get("d") == 4);
  concurrent_map<std::string, std::string> texts, more_texts;
  more_texts.insert("e", "5");
  const auto kept = more_texts.find("e");
  REQUIRE(texts.merge(more_texts) == 1);
  REQUIRE(&*texts.find("e") == &*kept);  // moved, not copied: the guard sees the map's own entry
}

TEST_CASE("concurrent_map merge refuses a source of another allocator and moves nothing") {
  using map_type =
      concurrent_map<int, int, veltrix::detail::default_hash<int>, veltrix::detail::default_equal,
                     tracking_allocator<std::pair<const int, int>>>;
  allocation_book one;
  allocation_book other;
  map_type map{map_type::allocator_type(one)};
  map_type source{map_type::allocator_type(other)};
  source.insert(1, 1);
  REQUIRE_THROWS_AS(map.merge(source), std::invalid_argument);
  REQUIRE_THROWS_WITH(map.merge(source), Catch::Contains("concurrent_map::merge") &&
                                             Catch::Contains("allocator") &&
                                             Catch::Contains("as they were"));
  REQUIRE(source.size() == 1);
  REQUIRE(map.empty());
}

TEST_CASE("concurrent_map reserve makes room so that no insertion resizes") {
  numbers map(concurrent_map_options{.shards = 8, .seed = 1});
  map.reserve(10'000);
  const auto before = map.stats();
  REQUIRE(before.slots >= 10'000);
  for (int i = 0; i < 10'000; ++i)
    map.insert(i, i);
  REQUIRE(map.stats().resizes == before.resizes);
  map.reserve(1);
  REQUIRE(map.stats().slots == before.slots);
}

TEST_CASE("concurrent_map rehash fits the tables to the entries") {
  numbers map(concurrent_map_options{.shards = 8, .expected_entries = 10'000});
  for (int i = 0; i < 100; ++i)
    map.insert(i, i);
  map.rehash(0);
  REQUIRE(map.stats().slots < 8 * 64);
  REQUIRE(map.size() == 100);
  map.rehash(10'000);
  REQUIRE(map.stats().slots >= 10'000);
  for (int i = 0; i < 100; ++i)
    REQUIRE(map.get(i) == i);
  map.clear();
  map.rehash(0);
  REQUIRE(map.stats().slots == 0);
}

TEST_CASE("concurrent_map refuses to reserve more than memory can hold") {
  numbers map;
  map.insert(1, 1);
  const std::size_t slots = map.stats().slots;
  REQUIRE_THROWS_AS(map.reserve(~std::size_t{0}), std::length_error);
  REQUIRE_THROWS_WITH(map.rehash(~std::size_t{0}), Catch::Contains("concurrent_map::rehash") &&
                                                       Catch::Contains("18446744073709551615") &&
                                                       Catch::Contains("every table is as it was"));
  REQUIRE(map.stats().slots == slots);
  REQUIRE(map.get(1) == 1);
}

TEST_CASE("concurrent_map takes a power of two of shards up to 65536 and refuses the rest") {
  for (const std::size_t shards : {1U, 2U, 64U, 1024U, 65'536U}) {
    numbers map(concurrent_map_options{.shards = shards});
    REQUIRE(map.shard_count() == shards);
    REQUIRE(map.stats().shards == shards);
    for (int i = 0; i < 50; ++i)
      map.insert(i, i);
    REQUIRE(map.size() == 50);
  }
  REQUIRE(numbers().shard_count() == 256);
  for (const std::size_t shards : {0U, 3U, 63U, 65U, 131'072U, 1U << 20}) {
    const concurrent_map_options options{.shards = shards};
    REQUIRE_THROWS_AS(numbers(options), std::invalid_argument);
    REQUIRE_THROWS_WITH(numbers(options), Catch::Contains("got " + std::to_string(shards) + ",") &&
                                              Catch::Contains("power of two from 1 to 65536") &&
                                              Catch::Contains("no map was built"));
  }
}

TEST_CASE("concurrent_map gives the memory of a table back that is nearly empty") {
  for (const bool reserved : {false, true}) {
    numbers map(concurrent_map_options{.shards = 1});
    for (int i = 0; i < 1000; ++i)
      map.insert(i, i);
    if (!reserved) map.reserve(0);
    if (reserved) map.reserve(1000);
    const std::size_t slots = map.stats().slots;
    for (int i = 0; i < 1000; ++i)
      map.erase(i);
    REQUIRE((map.stats().slots < slots / 8) == !reserved);
  }
}

TEST_CASE("concurrent_map stats tell entries, slots, load, probes, resizes and memory") {
  concurrent_map<int, int, crowding_hash> crowded(concurrent_map_options{.shards = 4});
  REQUIRE(crowded.stats().load == 0);
  REQUIRE(crowded.stats().longest_probe == 0);
  for (int i = 0; i < 20; ++i)
    crowded.insert(i, i);
  const auto told = crowded.stats();
  REQUIRE(told.entries == 20);
  REQUIRE(told.shards == 4);
  REQUIRE(told.longest_probe == 20);
  REQUIRE(told.slots >= 20);
  REQUIRE(told.load == Approx(20.0 / static_cast<double>(told.slots)));
  REQUIRE(told.resizes == 2);  // one group, two groups
  REQUIRE(told.contended == 0);
  REQUIRE(told.memory_bytes > 20 * sizeof(int) * 2);
  REQUIRE(crowded.approx_size() == 20);
}

// --- hashing -----------------------------------------------------------------------------------

TEST_CASE("concurrent_map order depends on the seed alone, and each map draws its own") {
  const auto order = [](std::optional<std::uint64_t> seed) {
    numbers map(concurrent_map_options{.seed = seed});
    for (int i = 0; i < 100; ++i)
      map.insert(i, i);
    std::vector<int> keys;
    map.for_each([&](int key, int) { keys.push_back(key); });
    return keys;
  };
  REQUIRE(order(1) == order(1));
  REQUIRE(order(1) != order(2));
  REQUIRE(order({}) != order({}));
}

TEST_CASE("concurrent_map hashes text by its seed, or by the secret of the process") {
  using texts = concurrent_map<std::string, int>;
  const texts seeded(concurrent_map_options{.seed = 5});
  const texts first, second;
  CHECK(seeded.hash_function()("a key") == veltrix::detail::text_hash(5)("a key"));
  CHECK(first.hash_function()("a key") == second.hash_function()("a key"));
  CHECK(first.hash_function()("a key") != seeded.hash_function()("a key"));
}

TEST_CASE("concurrent_map spreads keys that a weak hash leaves in step") {
  struct identity_hash {
    std::size_t operator()(std::uint64_t key) const { return static_cast<std::size_t>(key); }
  };
  for (const int shift : {0, 8, 20, 32, 48}) {
    concurrent_map<std::uint64_t, int, identity_hash> map(
        concurrent_map_options{.shards = 16, .seed = 1});
    for (std::uint64_t i = 0; i < 4096; ++i)
      map.insert(i << shift, 1);
    REQUIRE(map.size() == 4096);
    REQUIRE(map.stats().longest_probe <= 60);  // four groups of fifteen
  }
}

namespace {
struct high_bits_hash {
  using is_avalanching = void;
  std::size_t operator()(int key) const { return static_cast<std::size_t>(key) << 48; }
};
struct declared_hash {
  std::size_t operator()(int key) const { return static_cast<std::size_t>(key) << 48; }
};
}  // namespace
namespace veltrix {
template <>
inline constexpr bool hash_is_avalanching<declared_hash> = true;
}  // namespace veltrix

TEST_CASE("concurrent_map uses the hash unmixed where it is declared to avalanche") {
  static_assert(veltrix::hash_is_avalanching<high_bits_hash>);
  static_assert(!veltrix::hash_is_avalanching<crowding_hash>);
  const auto in_shard_order = [](auto& map) {
    for (const int key : {3, 0, 2, 1})
      map.insert(key, key);
    std::vector<int> keys;
    map.for_each([&](int key, int) { keys.push_back(key); });
    return keys == std::vector<int>{0, 1, 2, 3};  // bits 48 to 63 name the shard
  };
  concurrent_map<int, int, high_bits_hash> member(concurrent_map_options{.shards = 16});
  concurrent_map<int, int, declared_hash> specialised(concurrent_map_options{.shards = 16});
  REQUIRE(in_shard_order(member));
  REQUIRE(in_shard_order(specialised));
}

TEST_CASE("concurrent_map works on the functions it was given") {
  struct modulo_hash {
    int modulus = 1;
    std::size_t operator()(int key) const { return static_cast<std::size_t>(key % modulus); }
  };
  struct modulo_equal {
    int modulus = 1;
    bool operator()(int left, int right) const { return left % modulus == right % modulus; }
  };
  concurrent_map<int, int, modulo_hash, modulo_equal> map(concurrent_map_options{}, modulo_hash{10},
                                                          modulo_equal{10});
  REQUIRE(map.insert(3, 1));
  REQUIRE_FALSE(map.insert(13, 2));
  REQUIRE(map.get(23) == 1);
  REQUIRE(map.hash_function().modulus == 10);
  REQUIRE(map.key_eq().modulus == 10);
  // A replaced entry takes the key of insert_or_assign; the other changes keep the present one.
  map.update(33, [](int& value) { value = 4; });
  REQUIRE(map.find(3).key() == 3);
  map.upsert(43, [](int& value) { value = 5; });
  REQUIRE(map.find(3).key() == 3);
  map.compute(53, [](std::optional<int>& value) { value = 6; });
  REQUIRE(map.find(3).key() == 3);
  map.insert_or_assign(63, 7);
  REQUIRE(map.find(3).key() == 63);
}

// --- allocators --------------------------------------------------------------------------------

TEST_CASE("concurrent_map gets all its memory from its allocator and gives all of it back") {
  using entry = std::pair<const int, std::string>;
  using map_type = concurrent_map<int, std::string, veltrix::detail::default_hash<int>,
                                  veltrix::detail::default_equal, tracking_allocator<entry>>;
  allocation_book book;
  {
    map_type map{tracking_allocator<entry>(book)};
    REQUIRE(&map.get_allocator().book() == &book);
    REQUIRE(book.live_blocks == 1);  // the shards
    for (int i = 0; i < 1000; ++i)
      map.insert(i, "x");
    for (int i = 0; i < 1000; i += 2)
      map.erase(i);
    for (int i = 1; i < 1000; i += 2)
      map.update(i, [](std::string& value) { value += "y"; });
    REQUIRE(book.live_blocks >= 501);
    const auto held = map.find(1);
    map.clear();
    map.collect();
    REQUIRE(book.live_blocks == 2);  // the shards, and the entry held
    REQUIRE(*held == "xy");
  }
  REQUIRE(book.live_blocks == 0);
  REQUIRE(book.live_bytes == 0);
}

TEST_CASE("concurrent_map hands a polymorphic allocator on to keys and values") {
  using map_type = concurrent_map<
      std::pmr::string, std::pmr::string, veltrix::detail::default_hash<std::pmr::string>,
      veltrix::detail::default_equal,
      std::pmr::polymorphic_allocator<std::pair<const std::pmr::string, std::pmr::string>>>;
  std::pmr::unsynchronized_pool_resource pool(std::pmr::new_delete_resource());
  map_type map(concurrent_map_options{.shards = 4}, &pool);
  const std::string text(100, 'x');
  const auto key = [&text](const char* name) { return std::pmr::string(name + text); };
  REQUIRE(map.try_emplace(key("insert"), text));
  REQUIRE(map.emplace(key("emplace"), text));
  map.insert_or_assign(key("assign"), text);
  map.upsert(key("assign"), [](std::pmr::string& value) { value += "!"; });
  map.upsert(std::string_view("upsert"), text, [](std::pmr::string& value) { value += "!"; });
  map.compute("compute", [&](std::optional<std::pmr::string>& value) { value = text; });
  std::size_t elsewhere = 0;
  std::size_t seen = 0;
  map.for_each([&](const std::pmr::string& held, const std::pmr::string& value) {
    ++seen;
    elsewhere += held.get_allocator().resource() == &pool ? 0 : 1;
    elsewhere += value.get_allocator().resource() == &pool ? 0 : 1;
  });
  REQUIRE(seen == 5);
  REQUIRE(elsewhere == 0);
  REQUIRE(map.get_allocator().resource() == &pool);
}

// --- locks and callbacks -----------------------------------------------------------------------

TEST_CASE("concurrent_map destroys entries and spare values with no lock held") {
  struct asking {
    explicit asking(concurrent_map<int, asking>* owner) : map(owner) {}
    asking(const asking&) = default;
    ~asking() {
      if (map != nullptr)
        static_cast<void>(map->contains(1));  // would wait for itself under a lock
    }
    concurrent_map<int, asking>* map;
  };
  concurrent_map<int, asking> map(concurrent_map_options{.shards = 1});
  map.try_emplace(1, &map);
  REQUIRE(map.insert_or_assign(1, &map) == concurrent_map_change::replaced);
  REQUIRE(map.update(1, [](asking&) {}));
  REQUIRE_FALSE(map.emplace(1, &map));
  REQUIRE(map.erase(1) == 1);
  map.try_emplace(1, &map);
  REQUIRE(map.compute(1, [](std::optional<asking>&) {}) == concurrent_map_change::replaced);
  REQUIRE(map.erase_if([](const asking&) { return true; }) == 1);
  map.try_emplace(2, &map);
  map.clear();
  REQUIRE(map.size() == 0);
  map.try_emplace(3, &map);
  REQUIRE_THROWS(map.update(3, [](asking&) { throw std::runtime_error("no"); }));
  map.clear();
}

#if VELTRIX_CHECKED

TEST_CASE("concurrent_map names both operations when a callback under a lock comes back") {
  const auto told = [](auto&& misuse) {
    const auto seen = veltrix_test::run_to_its_end([&] {
      numbers map;
      map.insert(1, 1);
      map.insert(2, 2);
      misuse(map);
    });
    return seen.aborted ? seen.told : "did not abort";
  };
  const auto both = [](const std::string& inner, const std::string& outer) {
    return Catch::Contains("concurrent_map::" + inner +
                           " called by a callback of concurrent_map::" + outer + ",");
  };
  // Whatever shard the inner key is in.
  CHECK_THAT(told([](numbers& map) { map.update(1, [&](int&) { map.erase(2); }); }),
             both("erase", "update"));
  CHECK_THAT(told([](numbers& map) { map.upsert(1, [&](int&) { map.insert(3, 3); }); }),
             both("insert", "upsert"));
  CHECK_THAT(told([](numbers& map) {
               map.compute(3, [&](std::optional<int>&) { (void)map.contains(1); });
             }),
             both("contains", "compute"));
  CHECK_THAT(
      told([](numbers& map) { map.erase_if(1, [&](int) { return map.get(2).has_value(); }); }),
      both("get", "erase_if"));
  CHECK_THAT(told([](numbers& map) { map.erase_if([&](int) { return map.size() == 2; }); }),
             both("size", "erase_if"));
  CHECK_THAT(told([](numbers& map) { (void)map.get_or_emplace(3, [&] { return *map.find(1); }); }),
             both("find", "get_or_emplace"));
  CHECK_THAT(told([](numbers& map) { map.update(1, [&](int&) { map.clear(); }); }),
             both("clear", "update"));
}

TEST_CASE("concurrent_map names what still uses it when it is destroyed") {
  const auto guarded = veltrix_test::run_to_its_end([] {
    auto map = std::make_unique<numbers>();
    map->insert(1, 1);
    const auto held = map->find(1);
    map.reset();
  });
  REQUIRE(guarded.aborted);
  REQUIRE_THAT(guarded.told,
               Catch::Contains("concurrent_map destroyed while 1 of its guards are alive"));
  const auto visited = veltrix_test::run_to_its_end([] {
    auto map = std::make_unique<numbers>();
    map->insert(1, 1);
    map->visit(1, [&](int) { map.reset(); });
  });
  REQUIRE(visited.aborted);
  REQUIRE_THAT(visited.told,
               Catch::Contains("concurrent_map destroyed while concurrent_map::visit runs on it"));
  const auto empty = veltrix_test::run_to_its_end([] {
    const numbers::guard nothing;
    (void)*nothing;
  });
  REQUIRE(empty.aborted);
  REQUIRE_THAT(empty.told, Catch::Contains("an empty concurrent_map::guard was read"));
}

#else

TEST_CASE("concurrent_map answers a callback that would wait for its own shard") {
  numbers map(concurrent_map_options{.shards = 1});
  map.insert(1, 1);
  const auto would_wait = [](const std::system_error& error) {
    return error.code() == std::errc::resource_deadlock_would_occur;
  };
  const auto refused = [&](auto&& inner) {
    try {
      map.update(1, [&](int& value) {
        value = 100;
        inner();
      });
    } catch (const std::system_error& error) {
      return would_wait(error) &&
             std::string(error.what()).find("let the callback return first") != std::string::npos;
    }
    return false;
  };
  REQUIRE(refused([&] { map.insert(2, 2); }));
  REQUIRE(refused([&] { (void)map.size(); }));
  REQUIRE(refused([&] { map.clear(); }));
  REQUIRE(refused([&] { map.collect(); }));
  REQUIRE(refused([&] { map.for_each([](int) {}); }));
  REQUIRE(map.get(1) == 1);  // the outer call changed nothing either
  REQUIRE(map.size() == 1);
}

TEST_CASE("concurrent_map loses nothing to a collect that is refused") {
  concurrent_map<int, std::shared_ptr<int>> map(concurrent_map_options{.shards = 16});
  std::vector<std::weak_ptr<int>> erased;
  for (int i = 0; i < 64; ++i) {
    auto value = std::make_shared<int>(i);
    erased.push_back(value);
    map.insert(i, std::move(value));
    map.erase(i);
  }
  map.insert(100, nullptr);
  const auto collect = [&](std::shared_ptr<int>&) { map.collect(); };
  REQUIRE_THROWS_AS(map.update(100, collect), std::system_error);
  map.collect();
  for (const auto& each : erased)
    REQUIRE(each.expired());
}

#endif
