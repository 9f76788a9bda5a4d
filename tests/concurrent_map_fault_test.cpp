// concurrent_map under faults: each point of each operation that may throw does, and nothing is
// half done. Points are allocations, copies, moves, hashes, comparisons, calls of user functions.
// SPDX-License-Identifier: BSL-1.0
#include <cstdint>
#include <map>
#include <new>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/faults.hpp"
#include "support/tracking_allocator.hpp"
#include "veltrix/concurrent_map.hpp"

namespace {

using veltrix_test::allocation_book;
using veltrix_test::faults;
using veltrix_test::faulty_number;
using veltrix_test::tracking_allocator;

/// Entries that copy bytewise, and entries whose every copy and move may throw.
template <class Number>
using map_of =
    veltrix::concurrent_map<Number, Number, veltrix_test::faulty_hash, veltrix_test::faulty_equal,
                            tracking_allocator<std::pair<const Number, Number>>>;
using small_map = map_of<veltrix_test::plain_number>;
using faulty_map = map_of<faulty_number>;
using plain_map = std::map<int, int>;
constexpr veltrix::concurrent_map_options few_shards{.shards = 2, .seed = 5};

template <class Map>
Map make_map(allocation_book& book, const veltrix::concurrent_map_options& options = few_shards) {
  return Map(options, typename Map::allocator_type(book));
}

template <class Map>
plain_map contents(const Map& map) {
  plain_map all;
  map.for_each([&](const auto& key, const auto& value) {
    if (!all.emplace(key.number(), value.number()).second) FAIL("a key is shown twice");
  });
  return all;
}

/// One operation, and what it makes of the plain map.
template <class Map>
struct operation {
  const char* name;
  void (*act)(Map&);
  void (*act_on_model)(plain_map&);
};

/// No key of fill().
constexpr int absent = 100;

/// A shard's table is full then, so that the absent key makes it grow: see entries_before_growth().
constexpr int most_entries = 90;

template <class Number>
void set(Number& value, int number) {
  faults::point();
  value = Number(number);
}

void nothing(plain_map&) {}
template <int Value>
void put_absent(plain_map& m) {
  m.insert_or_assign(absent, Value);
}
template <int Value>
void put_one(plain_map& m) {
  m.insert_or_assign(1, Value);
}
void erase_one(plain_map& m) {
  m.erase(1);
}

/// What adds or replaces one entry, or does not. That the arguments throw is no matter: they are
/// made in the operation.
template <class Map, class N = typename Map::key_type>
const std::vector<operation<Map>>& changes() {
  static const auto change = [](N& v) { set(v, 3); };
  static const std::vector<operation<Map>> all = {
      {"insert absent", [](Map& m) { m.insert(N(absent), N(1)); }, put_absent<1>},
      {"insert present", [](Map& m) { m.insert(N(1), N(1)); }, nothing},
      {"insert pair", [](Map& m) { m.insert(std::pair(N(absent), N(1))); }, put_absent<1>},
      {"emplace absent", [](Map& m) { m.emplace(absent, 1); }, put_absent<1>},
      {"emplace present", [](Map& m) { m.emplace(1, 1); }, nothing},
      {"try_emplace absent", [](Map& m) { m.try_emplace(N(absent), 1); }, put_absent<1>},
      {"try_emplace present", [](Map& m) { m.try_emplace(N(1), 1); }, nothing},
      {"assign absent", [](Map& m) { m.insert_or_assign(N(absent), N(2)); }, put_absent<2>},
      {"assign present", [](Map& m) { m.insert_or_assign(N(1), N(2)); }, put_one<2>},
      {"update absent", [](Map& m) { m.update(N(absent), change); }, nothing},
      {"update present", [](Map& m) { m.update(N(1), change); }, put_one<3>},
      {"upsert absent", [](Map& m) { m.upsert(N(absent), change); }, put_absent<3>},
      {"upsert present", [](Map& m) { m.upsert(N(1), change); }, put_one<3>},
      {"upsert initial", [](Map& m) { m.upsert(N(absent), N(4), change); }, put_absent<4>},
      {"upsert initial present", [](Map& m) { m.upsert(N(1), N(4), change); }, put_one<3>},
      {"upsert factory",
       [](Map& m) {
         const auto make = [] {
           faults::point();
           return N(4);
         };
         m.upsert(N(absent), make, change);
       },
       put_absent<4>},
  };
  return all;
}

/// What may also take one away.
template <class Map, class N = typename Map::key_type>
const std::vector<operation<Map>>& decisions() {
  static const auto decide = [](const N&) {
    faults::point();
    return true;
  };
  static const std::vector<operation<Map>> all = {
      {"compute inserts",
       [](Map& m) { m.compute(N(absent), [](std::optional<N>& v) { v.emplace(5); }); },
       put_absent<5>},
      {"compute replaces", [](Map& m) { m.compute(N(1), [](std::optional<N>& v) { set(*v, 5); }); },
       put_one<5>},
      {"compute erases",
       [](Map& m) {
         m.compute(N(1), [](std::optional<N>& v) {
           faults::point();
           v.reset();
         });
       },
       erase_one},
      {"compute leaves absent",
       [](Map& m) { m.compute(N(absent), [](std::optional<N>&) { faults::point(); }); }, nothing},
      {"get_or_emplace absent",
       [](Map& m) {
         static_cast<void>(m.get_or_emplace(N(absent), [] {
           faults::point();
           return N(6);
         }));
       },
       put_absent<6>},
      {"get_or_emplace present",
       [](Map& m) { static_cast<void>(m.get_or_emplace(N(1), [] { return N(6); })); }, nothing},
      {"erase", [](Map& m) { m.erase(N(1)); }, erase_one},
      {"erase_if key", [](Map& m) { m.erase_if(N(1), decide); }, erase_one},
  };
  return all;
}

/// What changes no key, or all of them at once without a point.
template <class Map, class N = typename Map::key_type>
const std::vector<operation<Map>>& others() {
  static const auto look = [](const N&) { faults::point(); };
  static const std::vector<operation<Map>> all = {
      {"get", [](Map& m) { static_cast<void>(m.get(N(1))); }, nothing},
      {"find", [](Map& m) { static_cast<void>(m.find(N(1))); }, nothing},
      {"contains", [](Map& m) { static_cast<void>(m.contains(N(1))); }, nothing},
      {"visit", [](Map& m) { m.visit(N(1), look); }, nothing},
      {"visit range", [](Map& m) { m.visit(std::vector<N>{N(1), N(absent), N(2)}, look); },
       nothing},
      {"for_each", [](Map& m) { m.for_each(look); }, nothing},
      {"for_each in parallel", [](Map& m) { m.for_each(veltrix::inline_executor{}, look); },
       nothing},
      {"snapshot", [](Map& m) { static_cast<void>(m.snapshot()); }, nothing},
      {"rehash", [](Map& m) { m.rehash(1000); }, nothing},
      {"rehash to fit", [](Map& m) { m.rehash(0); }, nothing},
      {"reserve", [](Map& m) { m.reserve(1000); }, nothing},
      {"clear", [](Map& m) { m.clear(); }, [](plain_map& m) { m.clear(); }},
      {"size", [](Map& m) { static_cast<void>(m.size()); }, nothing},
  };
  return all;
}

template <class Map>
void fill(Map& map, plain_map& model, int entries) {
  using number = typename Map::key_type;
  for (int i = 1; i <= entries; ++i) {
    map.insert(number(i), number(-i));
    model.emplace(i, -i);
  }
  map.rehash(0);
}

/// How many entries fill() must add so that the absent key makes a table grow.
template <class Map>
int entries_before_growth() {
  using number = typename Map::key_type;
  for (int entries = 20; entries < most_entries; ++entries) {
    allocation_book book;
    auto map = make_map<Map>(book);
    plain_map model;
    fill(map, model, entries);
    const std::size_t slots = map.stats().slots;
    map.insert(number(absent), number(1));
    if (map.stats().slots > slots) return entries;
  }
  FAIL("no table grows");
  return 0;
}

/// Calls act(map), with every point in it failing once. Result: the points.
template <class Map>
std::uint64_t at_each_point(const operation<Map>& tried, int entries) {
  using number = typename Map::key_type;
  for (std::uint64_t nth = 1;; ++nth) {
    CAPTURE(tried.name, nth, entries);
    allocation_book book;
    bool fired = false;
    {
      auto map = make_map<Map>(book);
      plain_map model;
      fill(map, model, entries);
      faults::arm(nth);
      bool threw = false;
      try {
        tried.act(map);
      } catch (const veltrix_test::injected_fault&) {
        threw = true;
      } catch (const std::bad_alloc&) {
        threw = true;
      }
      fired = faults::disarm();
      REQUIRE(threw == fired);
      if (!fired) tried.act_on_model(model);
      REQUIRE(contents(map) == model);
      REQUIRE(map.size() == model.size());
      REQUIRE(map.approx_size() == model.size());
      if (threw) {  // the same again is as if it had not been tried before
        tried.act(map);
        tried.act_on_model(model);
      }
      REQUIRE(map.insert(number(absent + 1), number(1)));  // the map goes on
      model.emplace(absent + 1, 1);
      REQUIRE(contents(map) == model);
    }
    REQUIRE(book.live_blocks == 0);
    REQUIRE(faulty_number::alive() == 0);
    if (!fired) return nth - 1;
    REQUIRE(nth < 10'000);
  }
}

template <class Map>
void changes_nothing_when_any_point_throws() {
  const int full = entries_before_growth<Map>();
  for (const auto* const some : {&changes<Map>(), &decisions<Map>()}) {
    for (const auto& tried : *some) {
      INFO(tried.name);
      REQUIRE(at_each_point(tried, full) > 0);
      REQUIRE(at_each_point(tried, 1) > 0);
    }
  }
  for (const auto& tried : others<Map>())
    static_cast<void>(at_each_point(tried, full));
}

}  // namespace

TEST_CASE("concurrent_map operations change nothing when any point in them throws") {
  changes_nothing_when_any_point_throws<faulty_map>();
}

TEST_CASE("concurrent_map operations on small entries change nothing when any point throws") {
  changes_nothing_when_any_point_throws<small_map>();
}

namespace {

/// A call on many keys: it may stop half-way, and each key is as before or as after then.
template <class Map>
struct many_keys {
  const char* name;
  void (*act)(Map& map, Map& source);
};

template <class Map, class N = typename Map::key_type>
const many_keys<Map> calls_on_many_keys[] = {
    {"insert a range",
     [](Map& map, Map& source) {
       std::vector<std::pair<int, int>> numbers;
       source.for_each(
           [&](const N& k, const N& v) { numbers.emplace_back(k.number(), v.number()); });
       std::vector<std::pair<N, N>> pairs;
       for (const auto& [key, value] : numbers)
         pairs.emplace_back(N(key), N(value));
       map.insert(pairs);
     }},
    {"merge", [](Map& map, Map& source) { map.merge(source); }},
};

/// Points up to `most` fail, each once. A key that is in the source alone comes, whole, or stays.
template <class Map>
void keeps_each_key_whole(const many_keys<Map>& tried) {
  using number = typename Map::key_type;
  const bool moves = std::string(tried.name) == "merge";
  for (std::uint64_t nth = 1;; ++nth) {
    CAPTURE(nth, tried.name);
    allocation_book book;
    bool fired = false;
    {
      auto map = make_map<Map>(book);
      auto source = make_map<Map>(book, {.shards = 4, .seed = 6});
      for (int i = 0; i < 40; ++i)
        source.insert(number(i), number(i));
      map.insert(number(3), number(-3));
      faults::arm(nth);
      try {
        tried.act(map, source);
      } catch (const veltrix_test::injected_fault&) {
      } catch (const std::bad_alloc&) {}
      fired = faults::disarm();
      plain_map all = contents(map);
      const plain_map left = contents(source);
      REQUIRE(map.size() == all.size());
      REQUIRE(source.size() == left.size());
      REQUIRE(all[3] == -3);
      REQUIRE(left.at(3) == 3);
      if (!fired) REQUIRE(all.size() == 40);
      if (moves) REQUIRE(all.size() + left.size() == 41);  // 3 is in both, no other key is
      if (!moves) REQUIRE(left.size() == 40);
      all.insert(left.begin(), left.end());
      REQUIRE(all.size() == 40);
      for (const auto& [key, value] : all)
        REQUIRE(value == (key == 3 ? -3 : key));
      map.merge(source);  // both go on
      REQUIRE(map.size() == 40);
    }
    REQUIRE(book.live_blocks == 0);
    REQUIRE(faulty_number::alive() == 0);
    if (!fired) break;
    REQUIRE(nth < 10'000);
  }
}

/// The n-th call of its predicate throws, for each n.
template <class Map>
void keeps_what_it_erased(bool parallel) {
  using number = typename Map::key_type;
  for (std::size_t calls = 0; calls <= 60; ++calls) {
    allocation_book book;
    {
      auto map = make_map<Map>(book);
      plain_map model;
      fill(map, model, 60);
      std::vector<int> erased;
      std::size_t left = calls;
      const auto pred = [&](const number& key, const number&) {
        if (left-- == 0) throw veltrix_test::injected_fault();
        if (key.number() % 3 == 0) return false;
        erased.push_back(key.number());
        return true;
      };
      const auto act = [&] {
        parallel ? map.erase_if(veltrix::inline_executor{}, pred) : map.erase_if(pred);
      };
      if (calls < 60) REQUIRE_THROWS_AS(act(), veltrix_test::injected_fault);
      if (calls == 60) REQUIRE_NOTHROW(act());
      for (const int key : erased)
        model.erase(key);
      REQUIRE(contents(map) == model);
      REQUIRE(map.size() == model.size());
    }
    REQUIRE(book.live_blocks == 0);
  }
}

}  // namespace

TEST_CASE("concurrent_map operations on many keys keep each key whole when any point throws") {
  for (const auto& tried : calls_on_many_keys<faulty_map>)
    keeps_each_key_whole(tried);
  for (const auto& tried : calls_on_many_keys<small_map>)
    keeps_each_key_whole(tried);
}

TEST_CASE("concurrent_map erase_if keeps what it erased before its predicate threw") {
  const bool parallel = GENERATE(false, true);
  keeps_what_it_erased<faulty_map>(parallel);
  keeps_what_it_erased<small_map>(parallel);
}

TEST_CASE("concurrent_map construction frees everything when any point throws") {
  std::uint64_t points = 0;
  for (std::uint64_t nth = 1;; ++nth) {
    allocation_book book;
    faults::arm(nth);
    try {
      auto map = make_map<faulty_map>(book, {.shards = 4, .expected_entries = 100});
      map.insert(faulty_number(1), faulty_number(1));
    } catch (const std::bad_alloc&) {
    } catch (const veltrix_test::injected_fault&) {}
    const bool fired = faults::disarm();
    REQUIRE(book.live_blocks == 0);
    REQUIRE(faulty_number::alive() == 0);
    if (!fired) break;
    ++points;
  }
  REQUIRE(points >= 5);  // the shards, and four tables; and what the entry asks for
}

TEST_CASE("concurrent_map moves nothing out of its arguments when there is no memory") {
  using text_map =
      veltrix::concurrent_map<std::string, std::string, veltrix::detail::default_hash<std::string>,
                              veltrix::detail::default_equal,
                              tracking_allocator<std::pair<const std::string, std::string>>>;
  allocation_book book;
  text_map map({.shards = 1}, text_map::allocator_type(book));
  std::uint64_t points = 0;
  for (std::uint64_t nth = 1;; ++nth) {
    std::string key(50, 'k');
    std::string value(50, 'v');
    faults::arm(nth);
    try {
      map.insert(std::move(key), std::move(value));
    } catch (const std::bad_alloc&) {}
    if (!faults::disarm()) break;
    ++points;
    REQUIRE(key == std::string(50, 'k'));
    REQUIRE(value == std::string(50, 'v'));
  }
  REQUIRE(points >= 2);  // the table and the entry
  REQUIRE(map.get(std::string(50, 'k')) == std::string(50, 'v'));
}
