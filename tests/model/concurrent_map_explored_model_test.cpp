// concurrent_map explored: operations on one key come one after another, readers see whole entries,
// and a guard keeps what it names.
// SPDX-License-Identifier: BSL-1.0
#include <optional>

#include "model/support.hpp"
#include "veltrix/concurrent_map.hpp"

namespace {

using namespace veltrix_model;

/// A value of two halves that a torn look would show to differ; copies look, too.
struct pair_of {
  explicit pair_of(int value) : left(value), right(value) {}
  pair_of(const pair_of& other) = default;
  pair_of& operator=(const pair_of& other) = default;
  ~pair_of() {  // whoever ends it was the last of those who may
    left.forget();
    right.forget();
  }
  var<int> left, right;

  [[nodiscard]] int whole() const {
    require(left.read() == right.read(), "a value is seen whole");
    return left;
  }
};
using map = veltrix::concurrent_map<int, pair_of>;

const veltrix::concurrent_map_options one_shard{.shards = 1};

exploration to(int preemptions) {
  return {{.preemptions = preemptions}};
}

}  // namespace

TEST_CASE("concurrent_map model: one of two inserts and one of two erases wins") {
  check_exhausted("concurrent_map insert/insert", explore(to(2), [] {
                    map shared(one_shard);
                    bool left = false, right = false;
                    together([&] { left = shared.insert(1, pair_of(10)); },
                             [&] { right = shared.insert(1, pair_of(20)); });
                    require(left != right, "one of them wins");
                    require(shared.get(1)->whole() == (left ? 10 : 20), "the winner's value");
                  }));
  check_exhausted("concurrent_map erase/erase", explore(to(2), [] {
                    map shared(one_shard);
                    shared.insert(1, pair_of(10));
                    std::size_t left = 0, right = 0;
                    together([&] { left = shared.erase(1); }, [&] { right = shared.erase(1); });
                    require(left + right == 1 && !shared.contains(1), "erased once");
                  }));
}

TEST_CASE("concurrent_map model: readers see whole values beside writers") {
  check_exhausted("concurrent_map get/assign", explore(to(2), [] {
                    map shared(one_shard);
                    shared.insert(1, pair_of(1));
                    const auto read = [&] {
                      const auto first = shared.get(1);
                      const auto second = shared.get(1);
                      require(first->whole() <= second->whole(), "no reader goes back");
                    };
                    together(read, [&] {
                      shared.insert_or_assign(1, pair_of(2));
                      shared.insert_or_assign(1, pair_of(3));
                    });
                  }));
  check_exhausted("concurrent_map guard/erase", explore(to(2), [] {
                    map shared(one_shard);
                    shared.insert(1, pair_of(1));
                    together(
                        [&] {
                          if (const auto found = shared.find(1)) {
                            require(found->whole() == 1, "kept by the guard");
                          }
                        },
                        [&] { shared.erase(1); }, [&] { shared.insert_or_assign(1, pair_of(1)); });
                  }));
}

TEST_CASE("concurrent_map model: no update is lost") {
  check_exhausted("concurrent_map update/update", explore(to(2), [] {
                    map shared(one_shard);
                    shared.insert(1, pair_of(0));
                    const auto add = [&] {
                      shared.update(1, [](pair_of& value) { value = pair_of(value.whole() + 1); });
                    };
                    together(add, add);
                    require(shared.get(1)->whole() == 2, "both are in");
                  }));
  check_exhausted("concurrent_map get_or_emplace", explore(to(2), [] {
                    map shared(one_shard);
                    atomic<int> made = 0, inserted = 0;
                    const auto get = [&] {
                      const auto got = shared.get_or_emplace(1, [&] {
                        made.fetch_add(1, std::memory_order_relaxed);
                        return pair_of(7);
                      });
                      require(got.entry->whole() == 7, "the one that is there");
                      if (got.inserted) inserted.fetch_add(1, std::memory_order_relaxed);
                    };
                    together(get, get);
                    require(made.load(std::memory_order_relaxed) == 1 &&
                                inserted.load(std::memory_order_relaxed) == 1,
                            "made by the call that inserts");
                    require(shared.get(1)->whole() == 7, "it is there");
                  }));
}

TEST_CASE("concurrent_map model: erase_if judges what it erases") {
  check_exhausted(
      "concurrent_map erase_if/assign", explore(to(2), [] {
        map shared(one_shard);
        shared.insert(1, pair_of(1));
        together(
            [&] { shared.erase_if(1, [](const pair_of& value) { return value.whole() == 1; }); },
            [&] { shared.insert_or_assign(1, pair_of(2)); });
        require(shared.get(1)->whole() == 2, "the newer one was not meant");
      }));
}

TEST_CASE("concurrent_map model: a walk meets what is there throughout, though the shard grows") {
  check_exhausted("concurrent_map for_each/insert", explore(to(2), [] {
                    map shared(one_shard);
                    shared.insert(1, pair_of(1));
                    together(
                        [&] {
                          int met = 0;
                          shared.for_each([&](int key, const pair_of& value) {
                            require(value.whole() == key, "a value is seen whole");
                            met += key == 1 ? 1 : 0;
                          });
                          require(met == 1, "met once");
                        },
                        [&] {
                          shared.insert(2, pair_of(2));
                          shared.insert(3, pair_of(3));
                        });
                  }));
}

TEST_CASE("concurrent_map model: whoever lets an entry go last sees all reading of it done") {
  check_exhausted("concurrent_map last holder", explore(to(3), [] {
                    veltrix::concurrent_map<int, var<int>> shared(one_shard);
                    shared.emplace(1, 7);
                    auto held = shared.find(1);
                    together(
                        [&] {
                          require(held->read() == 7, "kept by the guard");
                          held = {};
                        },
                        [&] { shared.erase(1); });  // either may end it
                  }));
}
