// concurrent_map of entries in nodes whose value is replaced in its node explored, by one store or
// by several: who reads it goes neither back, nor to a value that another map was given, nor finds
// half of two.
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

/// Two words that must agree: a mix of two values is no value.
struct sealed {
  sealed(std::int64_t made) : number(made), seal(~made) {}  // as implicit as a number is
  [[nodiscard]] bool whole() const { return seal == ~number; }
  std::int64_t number;
  std::int64_t seal;
};
struct in_stores_kind {
  static constexpr const char* name = "in place, by several stores";
  using map = veltrix::concurrent_map<long_key, sealed, placing_long_hash>;
};
static_assert(veltrix::detail::changes_in_place<long_key, sealed>);
using sealed_map = in_stores_kind::map;

template <class Body>
void check_sealed(const char* name, map_bounds bounds, Body body) {
  check_kinds<in_stores_kind>(name, bounds, [&](in_stores_kind) { body(); });
}

/// The number of a value that must be whole; 0: no such key.
std::int64_t number_of(const sealed_map& shared, int key) {
  std::int64_t seen = 0;
  shared.visit(key, [&](const sealed& value) {
    require(value.whole(), "one value, whole");
    seen = value.number;
  });
  return seen;
}
constexpr auto set_to(std::int64_t number) {
  return [number](sealed& value) { value = number; };
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

TEST_CASE("concurrent_map values model: a reader never finds half of two values") {
  check_sealed("get/update twice", {2, 2}, [] {
    sealed_map shared(one_shard);
    shared.insert(1, 1);
    together(
        [&] {
          const auto first = number_of(shared, 1);
          require(first <= number_of(shared, 1), "no reader goes back");
        },
        [&] {
          shared.update(1, set_to(2));
          shared.update(1, set_to(3));
        });
    require(number_of(shared, 1) == 3, "the last one");
  });
}

TEST_CASE("concurrent_map values model: a value in transit is that of its key alone") {
  // The reader may meet the first key half written and go on while the second one is.
  check_sealed("get/update one, then another", {2, 2}, [] {
    sealed_map shared(one_shard);
    shared.insert(1, 1);
    shared.insert(2, 10);
    together([&] { require(number_of(shared, 1) <= 2, "its own"); },
             [&] {
               shared.update(1, set_to(2));
               shared.update(2, set_to(20));
             });
    require(number_of(shared, 1) == 2 && number_of(shared, 2) == 20, "both");
  });
}

TEST_CASE("concurrent_map values model: readers agree on what came first, in transit or not") {
  check_sealed("get/get/update", {1}, [] {
    sealed_map shared(one_shard);
    shared.insert(1, 1);
    atomic<std::int64_t> told = 0;
    together([&] { told.store(number_of(shared, 1), std::memory_order_release); },
             [&] {
               const std::int64_t seen = told.load(std::memory_order_acquire);
               require(number_of(shared, 1) >= seen, "not behind another");
             },
             [&] { shared.update(1, set_to(2)); });
  });
}

TEST_CASE("concurrent_map values model: who sees a value of several words sees what came before") {
  check_sealed("publication", {3, 2}, [] {
    sealed_map shared(one_shard);
    shared.insert(1, 1);
    var<int> updated = 0;
    together(
        [&] {
          if (number_of(shared, 1) == 2) require(updated == 1, "what came before the update");
        },
        [&] {
          updated = 1;
          shared.update(1, set_to(2));
        });
  });
}

TEST_CASE("concurrent_map values model: two writers of several words lose no change") {
  check_sealed("update/update", {}, [] {
    sealed_map shared(one_shard);
    shared.insert(1, 0);
    const auto add = [&] { shared.update(1, [](sealed& value) { value = value.number + 1; }); };
    together(add, add);
    require(number_of(shared, 1) == 2, "both are in it");
  });
}

TEST_CASE("concurrent_map values model: a guard's copy is whole and stays") {
  check_sealed("find/update/erase", {}, [] {
    sealed_map shared(one_shard);
    shared.insert(1, 1);
    together(
        [&] {
          const auto kept = shared.find(1);
          if (!kept) return;
          const std::int64_t first = kept->number;
          require(kept->whole() && (first == 1 || first == 2), "a value that was there");
          require(kept->number == first && kept.key() == 1, "and stays");
        },
        [&] {
          shared.update(1, set_to(2));
          shared.erase(1);
          shared.collect();
        });
  });
}

TEST_CASE("concurrent_map values model: a merge moves a value of several words whole") {
  check_sealed("get/merge/update there", {1}, [] {
    sealed_map shared(one_shard), other(one_shard);
    shared.insert(1, 1);
    together([&] { require(number_of(shared, 1) <= 1, "its own, or none"); },
             [&] {
               other.merge(shared);
               other.update(1, set_to(2));
             });
    require(number_of(other, 1) == 2 && !shared.contains(1), "moved");
  });
}
