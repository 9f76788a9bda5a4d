// count_gate explored: counts and the writers they stopped take turns, and size() is exact.
// SPDX-License-Identifier: BSL-1.0
#include <cstddef>

#include "model/support.hpp"
#include "veltrix/concurrent_map.hpp"
#include "veltrix/detail/count_gate.hpp"

namespace {

using namespace veltrix_model;
using veltrix::detail::count_gate;

/// Key 0 lies in the shard that is counted first, key 1 in the other.
struct top_bit {
  using is_avalanching = void;
  std::size_t operator()(int key) const noexcept { return static_cast<std::size_t>(key) << 63; }
};

}  // namespace

TEST_CASE("count_gate model: no writer passes while a count goes on, and each gets its turn") {
  check_exhausted("count_gate 2 counts, 2 passes", explore({{.preemptions = 3}}, [] {
                    count_gate gate;
                    var<bool> frozen = false;  // a pass beside a count would race for it
                    const auto count = [&] {
                      const count_gate::count counting(gate);
                      frozen = true;
                      frozen = false;
                    };
                    const auto pass = [&] {
                      const count_gate::pass passing(gate);
                      require(!frozen.read(), "no count goes on");
                    };
                    together(count, count, pass, pass);
                  }));
}

TEST_CASE("count_gate model: size() is that of one moment, count after count") {
  exploration sample;  // each try of a shard's lock may fail: too many ways to see them all
  sample.how = search_kind::priorities;
  sample.most_schedules = 30'000;
  const findings seen = explore(sample, [] {
    veltrix::concurrent_map<int, int, top_bit> shared({.shards = 2});
    shared.insert(1, 1);
    const auto count = [&] {
      const std::size_t counted = shared.size();
      require(counted == 1 || counted == 2, "never none");
    };
    together(count, count, [&] {
      shared.insert(0, 1);
      shared.erase(1);
    });
    require(shared.size() == 1, "the moved one");
  });
  check_sampled("count_gate size beside a move, by priorities", seen, 30'000);
}

TEST_CASE("count_gate model: size() holds back what a merge brings, too") {
  using map = veltrix::concurrent_map<int, int, top_bit>;
  exploration sample;
  sample.how = search_kind::priorities;
  sample.most_schedules = 10'000;
  const findings seen = explore(sample, [] {
    map shared({.shards = 2}), source({.shards = 2});
    shared.insert(1, 1);
    source.insert(0, 1);
    together(
        [&] {
          const std::size_t counted = shared.size();
          require(counted == 1 || counted == 2, "never none");
        },
        [&] {
          shared.merge(source);
          shared.erase(1);
        });
    require(shared.size() == 1, "the merged one");
  });
  check_sampled("count_gate size beside a merge, by priorities", seen, 10'000);
}
