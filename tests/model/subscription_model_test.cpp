// Subscriptions of snapshot_cell explored: what a subscriber has missed while it came is known.
// SPDX-License-Identifier: BSL-1.0
#include <cstdint>

#include "model/support.hpp"
#include "veltrix/snapshot_cell.hpp"

namespace {

using namespace veltrix_model;
using cell = veltrix::snapshot_cell<int>;

/// What a subscriber heard last.
struct ear {
  int value = 0;
  std::uint64_t version = 0;

  auto listens() {
    return [this](const int& told, std::uint64_t number) {
      value = told;
      version = number;
    };
  }
};

}  // namespace

TEST_CASE("subscription model: a version that differs from the one before it is told") {
  check_exhausted("subscription beside a publish",
                  explore({{.preemptions = 2, .stale_reads = 2}}, [] {
                    cell shared(10, {.history = 2});  // no look, whose fence would show all
                    ear heard;
                    veltrix::snapshot_subscription following;
                    together([&] { following = shared.subscribe(heard.listens()); },
                             [&] { shared.publish(20); });
                    shared.publish(10);  // as the first: whoever missed the second must not skip it
                    require(heard.version == 3 && heard.value == 10, "told");
                  }));
}

TEST_CASE("subscription model: whoever starts from a version hears the newest") {
  check_exhausted("subscription from a version", explore({{.preemptions = 3}}, [] {
                    cell shared(10);
                    ear heard;
                    veltrix::snapshot_subscription following;
                    together([&] { following = shared.subscribe_from(1, heard.listens()); },
                             [&] { shared.publish(20); });
                    require(heard.version == 2 && heard.value == 20, "told");
                  }));
}
