// concurrent_map of small trivially copyable entries explored: they stand in the table and are
// copied out while it changes, and no look-up puts a key and a value together that never were.
// SPDX-License-Identifier: BSL-1.0
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>

#include "model/map_kinds.hpp"

namespace {

using namespace veltrix_model;

/// As words_kind, where only keys tell entries apart.
struct one_tag_kind {
  static constexpr const char* name = "one tag";
  using map = veltrix::concurrent_map<int, int, one_tag_hash>;
};

/// A key of two words.
struct wide_key {
  std::uint64_t high, low;
  bool operator==(const wide_key&) const = default;
};
struct same_tag {
  using is_avalanching = void;
  std::size_t operator()(const wide_key&) const noexcept { return std::size_t{7} << 32; }
};
struct wide_kind {
  static constexpr const char* name = "two words";
  using map = veltrix::concurrent_map<wide_key, int, same_tag>;
};
static_assert(veltrix::detail::stands_in_words<wide_key, int>);

/// Keys that agree in their last digit are equal, and differ in their bytes.
struct last_digit_hash {
  using is_avalanching = void;
  std::size_t operator()(int key) const noexcept {
    return static_cast<std::size_t>(key % 10) << 32;
  }
};
struct last_digit_equal {
  bool operator()(int left, int right) const noexcept { return left % 10 == right % 10; }
};
struct last_digit_kind {
  static constexpr const char* name = "last digit";
  using map = veltrix::concurrent_map<int, int, last_digit_hash, last_digit_equal>;
};

/// Throws for the key 2 where a map says so.
struct moody_hash {
  using is_avalanching = void;
  const atomic<bool>* moody;
  std::size_t operator()(int key) const {
    if (key == 2 && moody->load(std::memory_order_relaxed)) throw std::runtime_error("a hash");
    return placing_hash()(key);
  }
};
struct moody_kind {
  static constexpr const char* name = "moody";
  using map = veltrix::concurrent_map<int, int, moody_hash>;
};

}  // namespace

TEST_CASE("concurrent_map words model: a slot that another key gets is never read as one") {
  check_kinds<words_kind, one_tag_kind>("slot reused", {}, [](auto kind) {
    typename decltype(kind)::map shared(one_shard);
    shared.insert(1, 10);
    together(
        [&] {
          const auto old = shared.get(1);
          require(!old || *old == 10, "the value of its key");
          const auto fresh = shared.get(2);
          require(!fresh || *fresh == 20, "the value of its key");
          if (fresh) require(!shared.contains(1), "it had gone before");
        },
        [&] {
          shared.erase(1);
          shared.insert(2, 20);
        });
  });
}

TEST_CASE("concurrent_map words model: a slot that is filled twice shows each time what it has") {
  check_kinds<one_tag_kind>("slot filled twice", {}, [](auto kind) {
    typename decltype(kind)::map shared(one_shard);
    shared.insert(1, 10);
    together(
        [&] {
          int last = 0;
          const auto look = [&](int key, int value) {
            require(key == 1 && (value == 10 || value == 11), "a pair that was put in");
            require(value >= last, "no reader goes back");
            last = value;
          };
          shared.visit(1, look);
          shared.visit(1, look);
        },
        [&] {
          shared.erase(1);
          shared.insert(2, 20);
          shared.erase(2);
          shared.insert(1, 11);
        });
  });
}

TEST_CASE("concurrent_map words model: half a key of two words is no key") {
  check_kinds<wide_kind>("torn key", {}, [](auto kind) {
    typename decltype(kind)::map shared(one_shard);
    shared.insert(wide_key{1, 1}, 10);
    together(
        [&] {
          require(!shared.contains(wide_key{1, 2}), "it never was there");
          require(!shared.contains(wide_key{2, 1}), "it never was there");
        },
        [&] {
          shared.erase(wide_key{1, 1});
          shared.insert(wide_key{2, 2}, 20);
        });
  });
}

TEST_CASE("concurrent_map words model: no reader goes back, nor behind what another has seen") {
  check_kinds<words_kind>("get/update", {1}, [](auto kind) {
    typename decltype(kind)::map shared(one_shard);
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
          shared.insert_or_assign(1, 3);
        });
  });
}

TEST_CASE("concurrent_map words model: who sees an entry sees what its writer did before") {
  check_kinds<words_kind>("publication", {3}, [](auto kind) {
    typename decltype(kind)::map shared(one_shard);
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

TEST_CASE("concurrent_map words model: an equal key with other bytes comes with its value") {
  check_kinds<last_digit_kind>("other bytes", {}, [](auto kind) {
    typename decltype(kind)::map shared(one_shard);
    shared.insert(1, 1);
    shared.insert(2, 2);
    together(
        [&] {
          int last = 0;
          const auto look = [&](int key, int value) {
            require(key == value && key >= last, "a pair that was put in, none older");
            last = key;
          };
          require(shared.visit(1, look) == 1, "it never was away");
          require(shared.visit(1, look) == 1, "it never was away");
          require(*shared.get(2) == 2, "the others stay");
        },
        [&] {
          shared.insert_or_assign(11, 11);
          shared.insert_or_assign(21, 21);
        });
    require(shared.size() == 2, "replaced");
  });
}

TEST_CASE("concurrent_map words model: a hash that throws while a table grows changes nothing") {
  check_kinds<moody_kind>("hash throws in growth", {}, [](auto kind) {
    atomic<bool> moody = false;
    typename decltype(kind)::map shared(one_shard, moody_hash{&moody});
    shared.insert(1, 10);
    shared.insert(2, 20);
    together(
        [&] {
          require(shared.get(1) == 10 && shared.get(1) == 10, "it never was away");
          require(!shared.contains(3), "it never came in");
        },
        [&] {
          moody.store(true, std::memory_order_relaxed);
          bool thrown = false;
          try {
            shared.insert(3, 30);
          } catch (const std::runtime_error&) {
            thrown = true;
          }
          require(thrown, "the fault reaches its caller");
          moody.store(false, std::memory_order_relaxed);
        });
    require(shared.size() == 2 && shared.get(2) == 20, "nothing has changed");
    require(shared.insert(3, 30) && shared.get(2) == 20, "the next one finds room");
  });
}
