// SPDX-License-Identifier: BSL-1.0
#include "veltrix/endpoint_set.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

using namespace std::chrono_literals;
using veltrix::endpoint;
using veltrix::endpoint_set;
using veltrix::time_point;

namespace {

constexpr time_point start{1h};

std::vector<endpoint> hosts(int from, int to) {
  std::vector<endpoint> made;
  for (int i = from; i < to; ++i)
    made.push_back({"host-" + std::to_string(i), 8500});
  return made;
}

}  // namespace

TEST_CASE("endpoint_set R53 uses a part of 2,000 hosts, and keeps it when the name is gone") {
  endpoint_set set;
  CHECK(set.due(start));
  CHECK(set.resolved(hosts(0, 2000), start));
  const auto before = set.current();
  CHECK(before->endpoints.size() == 20);
  CHECK(before->known == 2000);
  CHECK_FALSE(set.due(start + 30s - 1ns));
  CHECK(set.due(start + 30s));

  std::vector<std::string> lines;
  for (time_point now = start + 30s; now < start + 90s; now += 3s) {
    CHECK(set.due(now));
    const auto line = set.failed({"consul.service", "10.0.0.2:53", "NXDOMAIN"}, now);
    if (line) lines.push_back(*line);
    CHECK_FALSE(set.due(now));
  }
  CHECK(set.current() == before);
  REQUIRE(lines.size() == 2);
  CHECK(lines[1] ==
        "veltrix: endpoint_set: consul.service: 10.0.0.2:53 said: NXDOMAIN; failing for 30 s; 20 "
        "endpoints from 60 s ago stay in use");
  CHECK_FALSE(set.resolved({}, start + 91s));  // nobody is no answer
  CHECK(set.current() == before);
}

TEST_CASE("endpoint_set keeps its choice when other hosts come and go") {
  endpoint_set set;
  set.resolved(hosts(0, 500), start);
  const auto before = set.current()->endpoints;
  set.resolved(hosts(0, 550), start);
  const auto grown = set.current()->endpoints;
  std::vector<endpoint> stayed;
  std::set_intersection(before.begin(), before.end(), grown.begin(), grown.end(),
                        std::back_inserter(stayed));
  CHECK(stayed.size() >= 14);  // 20 × 500 / 550 are expected
  const std::uint64_t generation = set.current()->generation;
  auto again = hosts(0, 550);
  std::reverse(again.begin(), again.end());
  again.push_back(again.front());  // a double
  CHECK_FALSE(set.resolved(again, start));
  CHECK(set.current()->generation == generation);
  CHECK(set.current()->known == 550);
  CHECK(set.resolved(hosts(1000, 1005), start));
  CHECK(set.current()->generation == generation + 1);
  CHECK(set.current()->endpoints == hosts(1000, 1005));
}

TEST_CASE("endpoint_set spreads instances over all hosts") {
  std::set<std::string> used;
  for (std::uint64_t instance = 0; instance < 200; ++instance) {
    endpoint_set set({.subset = 5, .instance = instance});
    set.resolved(hosts(0, 100), start);
    for (const endpoint& each : set.current()->endpoints)
      used.insert(each.host);
  }
  CHECK(used.size() == 100);
}

TEST_CASE("endpoint_set says that there is nothing yet, and refuses bad options") {
  endpoint_set set;
  CHECK(set.current()->generation == 0);
  CHECK(*set.failed({"db", "resolver", "timeout"}, start) ==
        "veltrix: endpoint_set: db: resolver said: timeout; failing for 0 s; there is no endpoint "
        "yet");
  CHECK_THROWS_AS(endpoint_set({.subset = 0}), std::invalid_argument);
  CHECK_THROWS_AS(endpoint_set({.ttl = 0s}), std::invalid_argument);
  CHECK_THROWS_AS(endpoint_set({.complain_each = 25h}), std::invalid_argument);
}

TEST_CASE("endpoint_set gives its text once there is memory for it") {
  endpoint_set set;
  REQUIRE(set.resolved(hosts(0, 3), start));
  const endpoint_set::failure told{"db.service", "resolver-1", "NXDOMAIN"};
  std::optional<std::string> text;
  const int failed =
      veltrix_test::fail_each_allocation([&] { text = set.failed(told, start + 30s); },
                                         [&] { CHECK(set.current()->endpoints == hosts(0, 3)); });
  CHECK(failed > 0);
  CHECK(text.has_value());
  CHECK_FALSE(set.failed(told, start + 59s).has_value());
}
