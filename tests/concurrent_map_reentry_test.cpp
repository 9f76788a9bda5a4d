// concurrent_map used by a callback of its own: every operation from every callback. Under a lock
// it is refused, naming both operations in a checked build; without one it is served.
// SPDX-License-Identifier: BSL-1.0
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/death.hpp"
#include "veltrix/concurrent_map.hpp"

namespace {

using veltrix::concurrent_map;
using veltrix::concurrent_map_change;

/// What the map's functions, allocator and constructors do when the test says so.
class hook {
 public:
  static void run() {
    if (!armed()) return;
    const auto once = std::exchange(armed(), nullptr);
    once();
  }
  static std::function<void()>& armed() {
    static thread_local std::function<void()> what;
    return what;
  }
};

/// A value whose constructors from a number are hooked.
struct hooked_value {
  hooked_value() = default;
  explicit hooked_value(int n) : number(n) { hook::run(); }
  int number = 0;
  int more[4] = {};
};
/// One that does so when it ends.
struct parting_value {
  explicit parting_value(int n) : number(n) {}
  parting_value(const parting_value&) = default;
  parting_value& operator=(const parting_value&) = default;
  ~parting_value() {
    if (number == 7) hook::run();
  }
  int number;
};
struct hooked_equal {
  bool operator()(int left, int right) const {
    if (on) hook::run();
    return left == right;
  }
  static inline bool on = false;
};
struct hooked_hash {
  using is_avalanching = void;  // the top bit names the shard
  std::size_t operator()(int key) const {
    if (on) hook::run();
    return static_cast<std::size_t>(key) << 63;
  }
  static inline bool on = false;
};
bool hooked_allocations = false;

/// Its allocations are hooked.
template <class T>
struct hooked_allocator {
  using value_type = T;
  hooked_allocator() = default;
  template <class U>
  hooked_allocator(const hooked_allocator<U>&) noexcept {}
  T* allocate(std::size_t count) {
    if (hooked_allocations) hook::run();
    return std::allocator<T>().allocate(count);
  }
  void deallocate(T* memory, std::size_t count) { std::allocator<T>().deallocate(memory, count); }
  bool operator==(const hooked_allocator&) const = default;
};

template <class Value>
using map_of = concurrent_map<int, Value, hooked_hash, hooked_equal,
                              hooked_allocator<std::pair<const int, Value>>>;
using small_map = map_of<int>;
using large_map = map_of<hooked_value>;
using parting_map = map_of<parting_value>;

// Of two shards; both hold one entry.
constexpr int present = 2;  // in shard 0
constexpr int absent = 4;   // in shard 0, as the next
constexpr int absent_here = 6;
constexpr int other = 3;  // in shard 1

template <class Map>
struct call {
  const char* name;  ///< without concurrent_map::
  void (*act)(Map&);
};
using function = std::function<void()>;

/// Each operation, on the key given.
template <class Map, int Key, class V = typename Map::mapped_type>
const std::vector<call<Map>>& changes() {
  static const std::vector<call<Map>> all = {
      {"insert", [](Map& m) { m.insert(Key, V(1)); }},
      {"insert", [](Map& m) { m.insert(std::vector<std::pair<int, V>>{{Key, V(1)}}); }},
      {"try_emplace", [](Map& m) { m.try_emplace(Key, 1); }},
      {"emplace", [](Map& m) { m.emplace(Key, 1); }},
      {"get_or_emplace",
       [](Map& m) { static_cast<void>(m.get_or_emplace(Key, [] { return V(1); })); }},
      {"insert_or_assign", [](Map& m) { m.insert_or_assign(Key, V(1)); }},
      {"upsert", [](Map& m) { m.upsert(Key, V(1), [](V&) {}); }},
      {"update", [](Map& m) { m.update(Key, [](V&) {}); }},
      {"compute", [](Map& m) { m.compute(Key, [](std::optional<V>&) {}); }},
      {"erase", [](Map& m) { m.erase(Key); }},
      {"erase_if", [](Map& m) { m.erase_if(Key, [](const V&) { return true; }); }},
      {"erase_if", [](Map& m) { m.erase_if([](const V&) { return false; }); }},
      {"clear", [](Map& m) { m.clear(); }},
      {"rehash", [](Map& m) { m.rehash(100); }},
      {"reserve", [](Map& m) { m.reserve(1000); }},
      {"size", [](Map& m) { static_cast<void>(m.size()); }},
  };
  return all;
}

/// What may be served without a lock: refused all the same where the build looks.
template <class Map, int Key, class V = typename Map::mapped_type>
const std::vector<call<Map>>& look_ups() {
  static const std::vector<call<Map>> all = {
      {"get", [](Map& m) { static_cast<void>(m.get(Key)); }},
      {"find", [](Map& m) { static_cast<void>(m.find(Key)); }},
      {"contains", [](Map& m) { static_cast<void>(m.contains(Key)); }},
      {"visit", [](Map& m) { m.visit(Key, [](const V&) {}); }},
      {"for_each", [](Map& m) { m.for_each([](const V&) {}); }},
      {"snapshot", [](Map& m) { static_cast<void>(m.snapshot()); }},
      {"stats", [](Map& m) { static_cast<void>(m.stats()); }},
  };
  return all;
}

/// Each callback that runs under a lock: outer(map, f) calls f once, in the shard of `present`.
template <class Map>
struct locked_callback {
  const char* name;
  void (*outer)(Map&, const function&);
};
template <class Map, class V = typename Map::mapped_type>
const std::vector<locked_callback<Map>>& locked_callbacks() {
  static const std::vector<locked_callback<Map>> all = {
      {"update", [](Map& m, const function& f) { m.update(present, [&](V&) { f(); }); }},
      {"upsert", [](Map& m, const function& f) { m.upsert(present, V(), [&](V&) { f(); }); }},
      {"upsert",
       [](Map& m, const function& f) {
         const auto make = [&] {
           f();
           return V();
         };
         m.upsert(absent, make, [](V&) {});
       }},
      {"compute",
       [](Map& m, const function& f) { m.compute(absent, [&](std::optional<V>&) { f(); }); }},
      {"get_or_emplace",
       [](Map& m, const function& f) {
         static_cast<void>(m.get_or_emplace(absent, [&] {
           f();
           return V();
         }));
       }},
      {"erase_if",
       [](Map& m, const function& f) {
         m.erase_if(present, [&](const V&) {
           f();
           return true;
         });
       }},
      {"erase_if",
       [](Map& m, const function& f) {
         m.erase_if([&](int key, const V&) {
           if (key == present) f();
           return false;
         });
       }},
      {"erase_if",
       [](Map& m, const function& f) {
         m.erase_if(veltrix::inline_executor{}, [&](int key, const V&) {
           if (key == present) f();
           return false;
         });
       }},
  };
  return all;
}

/// Each that may run under a lock, or before it is taken: constructors, Equal, the allocator.
template <class Map, class V = typename Map::mapped_type>
const std::vector<locked_callback<Map>>& hooks() {
  static const auto with = [](bool& on, const function& f, const function& outer) {
    on = true;
    hook::armed() = f;
    try {
      outer();
    } catch (...) {
      on = false;
      throw;
    }
    on = false;
  };
  static const std::vector<locked_callback<Map>> all = {
      {"try_emplace",
       [](Map& m, const function& f) {
         hook::armed() = f;
         m.try_emplace(absent, 1);
       }},
      {"insert",
       [](Map& m, const function& f) {
         with(hooked_equal::on, f, [&] { m.insert(present, V()); });
       }},
      {"insert_or_assign",
       [](Map& m, const function& f) {
         with(hooked_allocations, f, [&] { m.insert_or_assign(present, V()); });
       }},
  };
  return all;
}

/// Each callback that runs without a lock.
template <class Map, class V = typename Map::mapped_type>
const std::vector<locked_callback<Map>>& free_callbacks() {
  static const std::vector<locked_callback<Map>> all = {
      {"visit", [](Map& m, const function& f) { m.visit(present, [&](const V&) { f(); }); }},
      {"visit of a range",
       [](Map& m, const function& f) {
         m.visit(std::vector<int>{present, other}, [&](const V&) { f(); });
       }},
      {"for_each", [](Map& m, const function& f) { m.for_each([&](const V&) { f(); }); }},
      {"for_each in parallel",
       [](Map& m, const function& f) {
         m.for_each(veltrix::inline_executor{}, [&](const V&) { f(); });
       }},
      {"a hash",
       [](Map& m, const function& f) {
         hook::armed() = f;
         hooked_hash::on = true;
         m.insert(absent, V());
         hooked_hash::on = false;
       }},
      {"a constructor in emplace",
       [](Map& m, const function& f) {
         hook::armed() = f;
         m.emplace(absent, 1);
         hook::armed() = nullptr;
       }},
  };
  return all;
}

template <class Map>
void fill(Map& map) {
  map.try_emplace(present, 7);
  map.try_emplace(other, 8);
}
template <class Map>
[[maybe_unused]] bool as_filled(const Map& map) {
  int sum = 0;
  int seen = 0;
  map.for_each([&](int, const auto& value) {
    if constexpr (std::is_same_v<typename Map::mapped_type, int>) {
      sum += value;
    } else {
      sum += value.number;
    }
    ++seen;
  });
  return seen == 2 && sum == 15 && map.size() == 2;
}

enum class expected : std::uint8_t { refused, refused_or_served };

#if VELTRIX_CHECKED

/// Result: what is wrong, or nothing.
template <class Map>
std::string wrong_with(const locked_callback<Map>& callback, const call<Map>& inner,
                       expected what) {
  const auto seen = veltrix_test::run_to_its_end([&] {
    Map map({.shards = 2});
    fill(map);
    callback.outer(map, [&] { inner.act(map); });
  });
  const std::string wanted = std::string("concurrent_map::") + inner.name +
                             " called by a callback of concurrent_map::" + callback.name + ",";
  const bool named = seen.told.find(wanted) != std::string::npos;
  if (seen.aborted ? named : what == expected::refused_or_served) return {};
  return wanted + (seen.aborted ? " told: " + seen.told : " did not abort") + "\n";
}

#else

/// Result: what is wrong, or nothing.
template <class Map>
std::string wrong_with(const locked_callback<Map>& callback, const call<Map>& inner,
                       expected what) {
  Map map({.shards = 2});
  fill(map);
  bool refused = false;
  bool passed = false;
  try {
    callback.outer(map, [&] {
      inner.act(map);
      passed = true;
    });
  } catch (const std::system_error& error) {
    refused = error.code() == std::errc::resource_deadlock_would_occur;
  }
  hook::armed() = nullptr;
  const std::string called = std::string(inner.name) + " called by a callback of " + callback.name;
  if (!refused && !(what == expected::refused_or_served && passed)) {
    return called + " was not refused\n";
  }
  if (refused && !as_filled(map)) return called + " left something half done\n";
  map.insert_or_assign(present, typename Map::mapped_type(9));  // the map goes on, in both shards
  map.insert_or_assign(other, typename Map::mapped_type(9));
  return map.size() >= 2 ? std::string() : called + " left a map that does not go on\n";
}

#endif

/// In a checked build the shard does not matter; else it is the one that the thread holds.
constexpr int inner_key = VELTRIX_CHECKED ? other : absent_here;

template <class Map>
std::string wrong_with_all(const std::vector<locked_callback<Map>>& callbacks,
                           const std::vector<call<Map>>& some, expected what) {
  std::string wrong;
  for (const auto& callback : callbacks) {
    for (const auto& inner : some)
      wrong += wrong_with(callback, inner, what);
  }
  return wrong;
}

/// Without a lock each operation is served, whatever it does to the entry that is looked at.
template <class Map>
std::size_t served_from_free_callbacks() {
  std::size_t calls = 0;
  for (const auto& callback : free_callbacks<Map>()) {
    for (const auto* const some : {&changes<Map, present>(), &look_ups<Map, present>()}) {
      for (const auto& inner : *some) {
        INFO(inner.name << " from " << callback.name);
        Map map({.shards = 2});
        fill(map);
        CHECK_NOTHROW(callback.outer(map, [&] {
          inner.act(map);
          ++calls;
        }));
        CHECK(map.contains(present) == map.get(present).has_value());
      }
    }
  }
  return calls;
}

}  // namespace

TEST_CASE("concurrent_map refuses each change that a callback under a lock asks for") {
  const auto& some = changes<small_map, inner_key>();
  CHECK(wrong_with_all(locked_callbacks<small_map>(), some, expected::refused) == "");
}

TEST_CASE("concurrent_map refuses look-ups of a callback under a lock, or serves them unlocked") {
  const auto& some = look_ups<small_map, inner_key>();
  const auto what = VELTRIX_CHECKED ? expected::refused : expected::refused_or_served;
  CHECK(wrong_with_all(locked_callbacks<small_map>(), some, what) == "");
}

TEST_CASE("concurrent_map never waits for itself in constructors, comparisons and allocations") {
  const auto& some = changes<large_map, inner_key>();
  CHECK(wrong_with_all(hooks<large_map>(), some, expected::refused_or_served) == "");
}

TEST_CASE("concurrent_map serves each operation that a callback without a lock asks for") {
  const std::size_t calls = changes<large_map, present>().size() + look_ups<large_map, 2>().size();
  CHECK(served_from_free_callbacks<large_map>() >= 6 * calls);
}

TEST_CASE("concurrent_map serves each change that the destructor of an entry asks for") {
  for (const auto& inner : changes<parting_map, absent>()) {
    INFO(inner.name);
    parting_map map({.shards = 2});
    fill(map);
    std::size_t calls = 0;
    hook::armed() = [&] {
      inner.act(map);
      ++calls;
    };
    CHECK_NOTHROW(map.erase(present));
    CHECK_NOTHROW(map.clear());
    hook::armed() = nullptr;
    CHECK(calls <= 1);
  }
}

TEST_CASE("concurrent_map destroys what many an erasure took out with no lock held") {
  struct changing {
    concurrent_map<int, changing>* map;
    char more[8'000];  // so that few of them wait to be freed
    explicit changing(concurrent_map<int, changing>* home) : map(home), more() {}
    ~changing() { ended += map->erase(-1) == 0 ? 1 : 0; }
    std::size_t& ended = count();
    static std::size_t& count() {
      static std::size_t all = 0;
      return all;
    }
  };
  concurrent_map<int, changing> map({.shards = 1});
  const auto fill = [&] {
    for (int i = 0; i < 200; ++i)
      map.emplace(i, &map);
  };
  changing::count() = 0;
  fill();
  CHECK(map.erase_if([](int, const changing&) { return true; }) == 200);
  CHECK(changing::count() >= 100);  // most of them by now
  fill();
  map.clear();
  CHECK(changing::count() >= 300);
  map.collect();
  CHECK(changing::count() == 400);
}

#if !VELTRIX_CHECKED
TEST_CASE("concurrent_map merge holds no shard of either map once it is refused") {
  small_map first({.shards = 1}), second({.shards = 1});  // either may have the lower address
  for (const auto& [target, source] : {std::pair(&first, &second), std::pair(&second, &first)}) {
    target->insert_or_assign(1, 1);
    source->insert_or_assign(2, 2);
    const auto merge = [into = target, from = source](int&) { into->merge(*from); };
    REQUIRE_THROWS_AS(target->update(1, merge), std::system_error);
    REQUIRE_NOTHROW(source->insert_or_assign(3, 3));
    REQUIRE_NOTHROW(target->insert_or_assign(3, 3));
  }
}
#endif
