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

using entry = std::pair<const faulty_number, faulty_number>;
using faulty_map = veltrix::concurrent_map<faulty_number, faulty_number, veltrix_test::faulty_hash,
                                           veltrix_test::faulty_equal, tracking_allocator<entry>>;
using plain_map = std::map<int, int>;
constexpr veltrix::concurrent_map_options few_shards{.shards = 2, .seed = 5};

plain_map contents(const faulty_map& map) {
  plain_map all;
  map.for_each([&](const faulty_number& key, const faulty_number& value) {
    all.emplace(key.number(), value.number());
  });
  return all;
}

/// One operation, and what it makes of the plain map.
struct operation {
  const char* name;
  void (*act)(faulty_map&);
  void (*act_on_model)(plain_map&);
};

/// An absent key that the next table growth comes with: eight buckets are full by then.
constexpr int absent = 100;

void set(faulty_number& value, int number) {
  faults::point();
  value = faulty_number(number);
}

const operation operations[] = {
    {"insert absent", [](faulty_map& m) { m.insert(faulty_number(absent), faulty_number(1)); },
     [](plain_map& m) { m.emplace(absent, 1); }},
    {"insert present", [](faulty_map& m) { m.insert(faulty_number(1), faulty_number(1)); },
     [](plain_map&) {}},
    {"insert pair",
     [](faulty_map& m) { m.insert(std::pair(faulty_number(absent), faulty_number(1))); },
     [](plain_map& m) { m.emplace(absent, 1); }},
    {"emplace absent", [](faulty_map& m) { m.emplace(absent, 1); },
     [](plain_map& m) { m.emplace(absent, 1); }},
    {"emplace present", [](faulty_map& m) { m.emplace(1, 1); }, [](plain_map&) {}},
    {"try_emplace absent", [](faulty_map& m) { m.try_emplace(faulty_number(absent), 1); },
     [](plain_map& m) { m.emplace(absent, 1); }},
    {"insert_or_assign absent",
     [](faulty_map& m) { m.insert_or_assign(faulty_number(absent), faulty_number(2)); },
     [](plain_map& m) { m[absent] = 2; }},
    {"insert_or_assign present",
     [](faulty_map& m) { m.insert_or_assign(faulty_number(1), faulty_number(2)); },
     [](plain_map& m) { m[1] = 2; }},
    {"update present",
     [](faulty_map& m) { m.update(faulty_number(1), [](faulty_number& v) { set(v, 3); }); },
     [](plain_map& m) { m[1] = 3; }},
    {"upsert absent",
     [](faulty_map& m) { m.upsert(faulty_number(absent), [](faulty_number& v) { set(v, 3); }); },
     [](plain_map& m) { m[absent] = 3; }},
    {"upsert present",
     [](faulty_map& m) { m.upsert(faulty_number(1), [](faulty_number& v) { set(v, 3); }); },
     [](plain_map& m) { m[1] = 3; }},
    {"upsert initial",
     [](faulty_map& m) {
       m.upsert(faulty_number(absent), faulty_number(4), [](faulty_number& v) { set(v, 3); });
     },
     [](plain_map& m) { m[absent] = 4; }},
    {"upsert factory",
     [](faulty_map& m) {
       m.upsert(
           faulty_number(absent), [] { return faulty_number(4); },
           [](faulty_number& v) { set(v, 3); });
     },
     [](plain_map& m) { m[absent] = 4; }},
    {"compute inserts",
     [](faulty_map& m) { m.compute(faulty_number(absent), [](auto& v) { v = faulty_number(5); }); },
     [](plain_map& m) { m[absent] = 5; }},
    {"compute replaces",
     [](faulty_map& m) { m.compute(faulty_number(1), [](auto& v) { set(*v, 5); }); },
     [](plain_map& m) { m[1] = 5; }},
    {"compute erases",
     [](faulty_map& m) {
       m.compute(faulty_number(1), [](auto& v) {
         faults::point();
         v.reset();
       });
     },
     [](plain_map& m) { m.erase(1); }},
    {"get_or_emplace absent",
     [](faulty_map& m) {
       static_cast<void>(m.get_or_emplace(faulty_number(absent), [] { return faulty_number(6); }));
     },
     [](plain_map& m) { m[absent] = 6; }},
    {"erase", [](faulty_map& m) { m.erase(faulty_number(1)); }, [](plain_map& m) { m.erase(1); }},
    {"erase_if key",
     [](faulty_map& m) {
       m.erase_if(faulty_number(1), [](const faulty_number&) {
         faults::point();
         return true;
       });
     },
     [](plain_map& m) { m.erase(1); }},
    {"get", [](faulty_map& m) { static_cast<void>(m.get(faulty_number(1))); }, [](plain_map&) {}},
    {"find", [](faulty_map& m) { static_cast<void>(m.find(faulty_number(1))); }, [](plain_map&) {}},
    {"visit",
     [](faulty_map& m) {
       m.visit(faulty_number(1), [](const faulty_number&) { faults::point(); });
     },
     [](plain_map&) {}},
    {"snapshot", [](faulty_map& m) { static_cast<void>(m.snapshot()); }, [](plain_map&) {}},
    {"rehash", [](faulty_map& m) { m.rehash(1000); }, [](plain_map&) {}},
    {"reserve", [](faulty_map& m) { m.reserve(1000); }, [](plain_map&) {}},
    {"clear", [](faulty_map& m) { m.clear(); }, [](plain_map& m) { m.clear(); }},
    {"size", [](faulty_map& m) { static_cast<void>(m.size()); }, [](plain_map&) {}},
};

/// A map whose next insertion grows a table, whichever shard it falls into.
void fill(faulty_map& map, plain_map& model) {
  for (int i = 1; i <= 60; ++i) {
    map.insert(faulty_number(i), faulty_number(-i));
    model.emplace(i, -i);
  }
  map.rehash(0);
}

}  // namespace

TEST_CASE("concurrent_map single-key operations change nothing when any point in them throws") {
  const auto& tried = operations[GENERATE(range(std::size_t{0}, std::size(operations)))];
  CAPTURE(tried.name);
  std::uint64_t points = 0;
  for (std::uint64_t nth = 1;; ++nth) {
    CAPTURE(nth);
    allocation_book book;
    bool fired = false;
    {
      faulty_map map(few_shards, tracking_allocator<entry>(book));
      plain_map model;
      fill(map, model);
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
      REQUIRE(map.insert(faulty_number(absent + 1), faulty_number(1)));  // the map goes on
    }
    REQUIRE(book.live_blocks == 0);
    REQUIRE(faulty_number::alive() == 0);
    if (!fired) break;
    ++points;
  }
  const std::string name = tried.name;
  REQUIRE((points > 0 || name == "clear" || name == "size"));
}

TEST_CASE("concurrent_map operations on many keys keep each key whole when any point throws") {
  const bool by_range = GENERATE(true, false);
  for (std::uint64_t nth = 1;; ++nth) {
    CAPTURE(nth, by_range);
    allocation_book book;
    bool fired = false;
    {
      faulty_map map(few_shards, tracking_allocator<entry>(book));
      faulty_map source(few_shards, tracking_allocator<entry>(book));
      std::vector<std::pair<int, faulty_number>> pairs;
      for (int i = 0; i < 20; ++i) {
        source.insert(faulty_number(i), faulty_number(i));
        pairs.emplace_back(i, faulty_number(i));
      }
      map.insert(faulty_number(3), faulty_number(-3));
      faults::arm(nth);
      try {
        if (by_range) {
          for (auto& pair : pairs)
            map.emplace(pair.first, pair.second);
        } else {
          map.merge(source);
        }
      } catch (const veltrix_test::injected_fault&) {
      } catch (const std::bad_alloc&) {}
      fired = faults::disarm();
      plain_map all = contents(map);
      const std::size_t in_map = all.size();
      REQUIRE(all[3] == -3);
      if (!by_range) {
        const plain_map left = contents(source);
        REQUIRE(in_map + left.size() == 21);  // 3 is in both, no other key is
        all.insert(left.begin(), left.end());
        REQUIRE(all.size() == 20);
      }
      for (const auto& [key, value] : all)
        REQUIRE(value == (key == 3 ? -3 : key));
      REQUIRE(map.size() == in_map);
      if (!fired) REQUIRE(in_map == 20);
    }
    REQUIRE(book.live_blocks == 0);
    REQUIRE(faulty_number::alive() == 0);
    if (!fired) break;
    REQUIRE(nth < 10'000);
  }
}

TEST_CASE("concurrent_map erase_if keeps what it erased before its predicate threw") {
  allocation_book book;
  {
    faulty_map map(few_shards, tracking_allocator<entry>(book));
    plain_map model;
    fill(map, model);
    std::vector<int> erased;
    const auto pred = [&](const faulty_number& key, const faulty_number&) {
      if (erased.size() == 10) throw veltrix_test::injected_fault();
      erased.push_back(key.number());
      return true;
    };
    REQUIRE_THROWS_AS(map.erase_if(pred), veltrix_test::injected_fault);
    for (const int key : erased)
      model.erase(key);
    REQUIRE(contents(map) == model);
    REQUIRE(map.size() == 50);
  }
  REQUIRE(book.live_blocks == 0);
}

TEST_CASE("concurrent_map construction frees everything when any point throws") {
  std::uint64_t points = 0;
  for (std::uint64_t nth = 1;; ++nth) {
    allocation_book book;
    faults::arm(nth);
    try {
      faulty_map map({.shards = 4, .expected_entries = 100}, tracking_allocator<entry>(book));
    } catch (const std::bad_alloc&) {}
    const bool fired = faults::disarm();
    REQUIRE(book.live_blocks == 0);
    if (!fired) break;
    ++points;
  }
  REQUIRE(points == 5);  // the shards, and four tables
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
  REQUIRE(points == 2);  // the table and the entry
  REQUIRE(map.get(std::string(50, 'k')) == std::string(50, 'v'));
}
