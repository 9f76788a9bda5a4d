// concurrent_map of entries in nodes whose value fits into a word explored: it is replaced in its
// node, and who reads it goes neither back nor to a value that another map was given.
// SPDX-License-Identifier: BSL-1.0
#include <cstddef>
#include <cstdint>
#include <optional>

#include "model/map_kinds.hpp"

namespace {

using namespace veltrix_model;

/// Too large for a slot.
struct long_key {
  long_key(int named) : name(named) {}  // as implicit as an int is
  bool operator==(const long_key&) const = default;
  std::int64_t name;
  std::int64_t more[2] = {};
};
struct placing_long_hash {
  using is_avalanching = void;
  std::size_t operator()(const long_key& key) const noexcept {
    return placing_hash()(static_cast<int>(key.name));
  }
};
struct in_place_kind {
  static constexpr const char* name = "in place";
  using map = veltrix::concurrent_map<long_key, int, placing_long_hash>;
};
static_assert(veltrix::detail::changes_in_place<long_key, int>);
using map = in_place_kind::map;

template <class Body>
void check_values(const char* name, map_bounds bounds, Body body) {
  check_kinds<in_place_kind>(name, bounds, [&](in_place_kind) { body(); });
}

}  // namespace

TEST_CASE("concurrent_map values model: no reader goes back, nor behind what another has seen") {
  check_values("get/update", {1}, [] {
    map shared(one_shard);
    shared.insert(1, 1);
    atomic<int> told = 0;
    together(
        [&] {
          const int first = *shared.get(1);
          const int second = *shared.get(1);
          require(first <= second, "no reader goes back");
          told.store(second, std::memory_order_release);
        },
        [&] {
          const int seen = told.load(std::memory_order_acquire);
          require(*shared.get(1) >= seen, "not behind another");
        },
        [&] {
          shared.update(1, [](int& value) { value = 2; });
          shared.compute(1, [](std::optional<int>& value) { value = 3; });
        });
  });
}

TEST_CASE("concurrent_map values model: two writers of one value lose no change") {
  check_values("update/update", {}, [] {
    map shared(one_shard);
    shared.insert(1, 0);
    const auto add = [&] { shared.update(1, [](int& value) { ++value; }); };
    together(add, add);
    require(*shared.get(1) == 2, "both are in it");
  });
}

TEST_CASE("concurrent_map values model: who sees a value sees what its writer did before") {
  check_values("publication", {3}, [] {
    map shared(one_shard);
    var<int> inserted = 0, updated = 0;
    together(
        [&] {
          const auto seen = shared.get(1);
          if (seen) require(inserted == 1, "what came before the insertion");
          if (seen && *seen == 2) require(updated == 1, "what came before the update");
        },
        [&] {
          inserted = 1;
          shared.insert(1, 1);
          updated = 1;
          shared.update(1, [](int& value) { value = 2; });
        });
  });
}

TEST_CASE("concurrent_map values model: an entry that is taken out and put in again is two") {
  check_values("get/erase/insert", {}, [] {
    map shared(one_shard);
    shared.insert(1, 1);
    together(
        [&] {
          const int first = value_of(shared, 1);
          const int second = value_of(shared, 1);
          require(first == 0 || second == 0 || first <= second, "no reader goes back");
        },
        [&] {
          shared.update(1, [](int& value) { value = 2; });
          shared.erase(1);
          shared.insert(1, 3);
          shared.collect();
        });
  });
}

TEST_CASE("concurrent_map values model: a guard keeps its value, whatever becomes of the entry") {
  check_values("find/update/erase", {}, [] {
    map shared(one_shard);
    shared.insert(1, 1);
    together(
        [&] {
          const auto kept = shared.find(1);
          if (!kept) return;
          const int first = *kept;
          require(first == 1 || first == 2, "a value that was there");
          require(*kept == first && kept.key() == 1, "and stays");
        },
        [&] {
          shared.update(1, [](int& value) { value = 2; });
          shared.erase(1);
          shared.collect();
        });
  });
}

TEST_CASE("concurrent_map values model: a reader finds no value that another map was given") {
  check_values("get/merge/update there", {}, [] {
    map shared(one_shard), other(one_shard);
    shared.insert(1, 1);
    together([&] { require(value_of(shared, 1) <= 1, "its own, or none"); },
             [&] {
               other.merge(shared);
               other.update(1, [](int& value) { value = 2; });
             });
    require(*other.get(1) == 2 && !shared.contains(1), "moved");
  });
}

TEST_CASE("concurrent_map values model: a merge moves the value of the moment") {
  check_values("merge/update", {}, [] {
    map shared(one_shard), other(one_shard);
    shared.insert(1, 1);
    together([&] { other.merge(shared); },
             [&] {
               const auto more = [](int& value) { ++value; };
               if (!shared.update(1, more)) other.update(1, more);
             });
    require(*other.get(1) == 2 && !shared.contains(1), "moved with its change");
  });
}
