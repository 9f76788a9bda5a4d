// concurrent_map under faults explored: what throws in one thread leaves whole entries to the
// others, and what claims to need nobody else goes on when another thread stops for ever.
// SPDX-License-Identifier: BSL-1.0
#include <cstddef>
#include <optional>
#include <stdexcept>
#include <utility>

#include "model/support.hpp"
#include "veltrix/concurrent_map.hpp"

namespace {

using namespace veltrix_model;

/// Two halves that a torn look would show to differ. A copy of a negative one throws half-way.
struct fragile {
  explicit fragile(int value) : left(value), right(value) {}
  fragile(const fragile& other) : left(other.left), right(whole_or_throw(other)) {}
  fragile(fragile&&) noexcept = default;
  fragile& operator=(const fragile&) = default;
  ~fragile() {  // whoever ends it was the last of those who may
    left.forget();
    right.forget();
  }
  var<int> left, right;

  [[nodiscard]] int whole() const {
    require(left.read() == right.read(), "a value is seen whole");
    return left;
  }

 private:
  static int whole_or_throw(const fragile& other) {
    if (other.left < 0) throw std::runtime_error("a copy");
    return other.right;
  }
};

/// Throws for the key 13.
struct moody_hash {
  std::size_t operator()(int key) const {
    if (key == 13) throw std::runtime_error("a hash");
    return 7;  // one chain, so that keys are compared
  }
};
/// Throws for the key 14.
struct moody_equal {
  bool operator()(int left, int right) const {
    if (left == 14 || right == 14) throw std::runtime_error("a comparison");
    return left == right;
  }
};
using map = veltrix::concurrent_map<int, fragile, moody_hash, moody_equal>;

const veltrix::concurrent_map_options one_shard{.shards = 1};

exploration to(int preemptions) {
  return {{.preemptions = preemptions}};
}

/// Result: whether `operation` threw.
template <class Operation>
bool throws(Operation operation) {
  try {
    operation();
    return false;
  } catch (const std::runtime_error&) {
    return true;
  }
}

/// Beside `fault(map)`, which throws, a reader and writer of the same shard goes on.
template <class Fault>
void beside(Fault fault) {
  map shared(one_shard);
  shared.insert(1, fragile(1));
  together([&] { require(throws([&] { fault(shared); }), "the fault reaches its caller"); },
           [&] {
             require(shared.get(1)->whole() == 1, "nothing half done");
             shared.insert_or_assign(1, fragile(2));
             require(shared.get(1)->whole() == 2, "nothing half done");
           });
  require(shared.get(1)->whole() == 2 && shared.approx_size() == 1, "the fault changed nothing");
}

}  // namespace

TEST_CASE("concurrent_map model: a hash or a comparison that throws changes nothing for others") {
  check_exhausted("concurrent_map hash throws", explore(to(3), [] {
                    beside([](map& shared) { shared.insert(13, fragile(9)); });
                  }));
  check_exhausted("concurrent_map comparison throws", explore(to(3), [] {
                    beside([](map& shared) { shared.insert(14, fragile(9)); });
                  }));
}

TEST_CASE("concurrent_map model: a copy or a change that throws changes nothing for others") {
  check_exhausted("concurrent_map copy throws", explore(to(3), [] {
                    const fragile bad(-1);
                    beside([&](map& shared) { shared.insert_or_assign(1, bad); });
                  }));
  check_exhausted("concurrent_map change throws", explore(to(3), [] {
                    beside([](map& shared) {
                      shared.update(1, [](fragile& value) {
                        value.left = 9;  // half a change, which nobody may see
                        throw std::runtime_error("a change");
                      });
                    });
                  }));
  check_exhausted("concurrent_map factory throws", explore(to(3), [] {
                    beside([](map& shared) {
                      static_cast<void>(shared.get_or_emplace(
                          2, []() -> fragile { throw std::runtime_error("a factory"); }));
                    });
                  }));
}

TEST_CASE("concurrent_map model: a guard's end and approx_size() need nobody else") {
  exploration freezing = to(2);
  freezing.may_freeze = only(1);
  check_exhausted("concurrent_map, writer stopped", explore(freezing, [] {
                    map shared(one_shard);
                    shared.insert(1, fragile(1));
                    auto held = shared.find(1);
                    together([&] { shared.insert_or_assign(1, fragile(2)); },
                             [&] {
                               require(held->whole() == 1, "kept by the guard");
                               held = {};
                               require(shared.approx_size() == 1, "answered");
                             });
                  }));
}
