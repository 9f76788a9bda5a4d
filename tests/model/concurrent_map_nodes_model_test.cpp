// concurrent_map of entries in nodes explored: a look-up shows what it reads before it reads it,
// and a guard keeps its entry, whatever becomes of the key, the slot and the table.
// SPDX-License-Identifier: BSL-1.0
#include <cstddef>
#include <utility>

#include "model/map_kinds.hpp"

namespace {

using namespace veltrix_model;
using map = nodes_kind::map;

template <class Body>
void check_nodes(const char* name, map_bounds bounds, Body body) {
  check_kinds<nodes_kind>(name, bounds, [&](nodes_kind) { body(); });
}

}  // namespace

TEST_CASE("concurrent_map nodes model: an entry that is replaced ends when none reads it") {
  check_nodes("visit/assign", {}, [] {
    map shared(one_shard);
    shared.emplace(1, 1);
    together(
        [&] {
          const int first = value_of(shared, 1);
          require(first <= value_of(shared, 1), "no reader goes back");
        },
        [&] {
          shared.insert_or_assign(1, 2);
          shared.insert_or_assign(1, 3);
        });
  });
}

TEST_CASE("concurrent_map nodes model: two readers of one entry, and who ends it") {
  check_nodes("2 visits/erase", {1}, [] {
    map shared(one_shard);
    shared.emplace(1, 1);
    const auto look = [&] { require(value_of(shared, 1) <= 1, "whole, or gone"); };
    together(look, look, [&] {
      shared.erase(1);
      shared.collect();
    });
  });
}

TEST_CASE("concurrent_map nodes model: a slot that another key gets is never read as one") {
  check_nodes("slot reused", {}, [] {
    map shared(one_shard);
    shared.emplace(1, 10);
    together(
        [&] {
          shared.visit(1, [](int key, const var<int>& value) {
            require(key == 1 && value == 10, "the entry of its key");
          });
          shared.visit(2, [](int key, const var<int>& value) {
            require(key == 2 && value == 20, "the entry of its key");
          });
        },
        [&] {
          shared.erase(1);
          shared.emplace(2, 20);
        });
  });
}

TEST_CASE("concurrent_map nodes model: the nodes of a table that was emptied are left alone") {
  check_nodes("visit/clear", {}, [] {
    map shared(one_shard);
    shared.emplace(1, 10);
    together([&] { require(value_of(shared, 1) % 10 == 0, "whole, or gone"); },
             [&] {
               shared.clear();
               shared.collect();
             });
  });
}

TEST_CASE("concurrent_map nodes model: a node that left a table after its time is left alone") {
  check_nodes("visit/growth/erase", {}, [] {
    map shared(one_shard);
    shared.emplace(1, 10);
    together([&] { require(value_of(shared, 1) % 10 == 0, "whole, or gone"); },
             [&] {
               shared.rehash(4);  // the old table goes on naming the node
               shared.erase(1);
               shared.collect();
             });
  });
}

TEST_CASE("concurrent_map nodes model: such a node behind another of its tag is left alone, too") {
  check_nodes("visit behind another/growth/erase", {}, [] {
    map shared(one_shard);
    shared.emplace(1, 10);
    shared.emplace(101, 20);
    together([&] { require(value_of(shared, 101) % 20 == 0, "whole, or gone"); },
             [&] {
               shared.rehash(4);
               shared.erase(101);
               shared.collect();
             });
  });
}

TEST_CASE("concurrent_map nodes model: a guard keeps its entry through all that happens to it") {
  check_nodes("guard/erase/growth/clear", {}, [] {
    map shared(one_shard);
    shared.emplace(1, 10);
    shared.emplace(2, 20);
    together(
        [&] {
          if (const auto kept = shared.find(1)) require(*kept == 10, "kept by the guard");
        },
        [&] {
          shared.emplace(3, 30);
          shared.erase(1);
          shared.clear();
          shared.collect();
        });
  });
}

TEST_CASE(
    "concurrent_map nodes model: a guard beyond the slots of its thread keeps its entry, too") {
  check_nodes("3 guards/erase", {.stale_reads = 0}, [] {
    map shared(one_shard);
    shared.emplace(1, 10);
    shared.emplace(2, 20);
    together(
        [&] {
          static_cast<void>(shared.contains(3));  // from here on the thread has slots
          const auto first = shared.find(2);
          const auto second = shared.find(1);  // counted: no slot is left
          const auto third = shared.find(1);
          require(!second || *second == 10, "kept by the guard");
          require(!third || (second && *third == 10), "kept by the guard");
          require(!first || *first == 20, "kept by the guard");
        },
        [&] {
          shared.erase(1);
          shared.erase(2);
          shared.collect();
        });
  });
}

TEST_CASE("concurrent_map nodes model: a guard ends in another thread than it was made in") {
  check_nodes("guard moved", {}, [] {
    map shared(one_shard);
    shared.emplace(1, 10);
    auto made = shared.find(1);
    auto counted = shared.find(1);
    together(
        [&] {
          const auto kept = std::move(made);
          require(*kept == 10, "kept by the guard");
        },
        [&] {
          require(*counted == 10, "kept by the guard");
          counted.reset();
        },
        [&] {
          shared.erase(1);
          shared.collect();
        });
    require(!shared.find(1), "gone");
  });
}

TEST_CASE("concurrent_map nodes model: a thread's slot is its own again once a guard has ended") {
  check_nodes("guard handed over", {}, [] {
    map shared(one_shard);
    shared.emplace(1, 10);
    map::guard handed;
    atomic<int> ready = 0;
    together(
        [&] {
          handed = shared.find(1);
          ready.store(1, std::memory_order_release);
          require(value_of(shared, 1) % 10 == 0, "looked up beside it");
        },
        [&] {
          if (ready.load(std::memory_order_acquire) == 1) handed.reset();
          shared.erase(1);
        });
  });
}

TEST_CASE("concurrent_map nodes model: get_or_emplace keeps what it found or made") {
  check_nodes("get_or_emplace/erase", {}, [] {
    map shared(one_shard);
    together(
        [&] {
          const auto got = shared.get_or_emplace(1, [] { return var<int>(10); });
          require(*got.entry == 10, "kept by the guard");
        },
        [&] {
          shared.erase(1);
          shared.insert_or_assign(1, 10);
          shared.collect();
        });
  });
}

TEST_CASE("concurrent_map nodes model: a walk keeps what it has yet to meet") {
  check_nodes("for_each/erase", {}, [] {
    map shared(one_shard);
    shared.emplace(1, 1);
    shared.emplace(2, 2);
    together(
        [&] {
          shared.for_each([](int key, const var<int>& value) { require(value == key, "whole"); });
        },
        [&] {
          shared.erase(2);
          shared.insert_or_assign(1, 1);
          shared.collect();
        });
  });
}

TEST_CASE("concurrent_map nodes model: who sees an entry sees what its writer did before") {
  check_nodes("publication", {3}, [] {
    map shared(one_shard);
    var<int> inserted = 0, updated = 0;
    together(
        [&] {
          const int seen = value_of(shared, 1);
          if (seen != 0) require(inserted == 1, "what came before the insertion");
          if (seen == 2) require(updated == 1, "what came before the update");
        },
        [&] {
          inserted = 1;
          shared.emplace(1, 1);
          updated = 1;
          shared.update(1, [](var<int>& value) { value = 2; });
        });
  });
}
