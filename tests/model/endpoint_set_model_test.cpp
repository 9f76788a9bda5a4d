// endpoint_set explored: the last good set stays in force, whole, whoever resolves, fails, reads.
// SPDX-License-Identifier: BSL-1.0
#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

#include "model/support.hpp"
#include "veltrix/endpoint_set.hpp"

namespace {

using namespace veltrix_model;
using namespace std::chrono_literals;
using veltrix::endpoint;
using veltrix::endpoint_set;
using veltrix::endpoint_view;
using veltrix::time_point;

constexpr time_point start{1h};
const endpoint_set::failure no_answer{"db", "resolver", "no answer"};

std::vector<endpoint> hosts_of(std::uint16_t port) {
  return {{"a", port}, {"b", port}};
}
bool is_whole(const endpoint_view& view) {
  return view.endpoints == hosts_of(1) || view.endpoints == hosts_of(2) ||
         view.endpoints == hosts_of(3);
}

}  // namespace

TEST_CASE("endpoint_set model: a reader sees whole good sets, the newer the later") {
  check_exhausted("endpoint_set 2 resolvers, a reader", explore({}, [] {
                    endpoint_set set;
                    set.resolved(hosts_of(1), start);
                    together([&] { set.resolved(hosts_of(2), start); },
                             [&] {
                               set.resolved({}, start + 1s);
                               static_cast<void>(set.failed(no_answer, start + 1s));
                             },
                             [&] {
                               const auto first = set.current();
                               const auto second = set.current();
                               require(is_whole(*first) && is_whole(*second), "a good set");
                               require(first->generation <= second->generation, "no way back");
                               const bool same = first->endpoints == second->endpoints;
                               require(same == (first->generation == second->generation),
                                       "a generation is one set");
                             });
                    require(set.current()->endpoints == hosts_of(2), "the last good one stays");
                    require(set.current()->generation == 2, "it changed once");
                  }));
}

TEST_CASE("endpoint_set model: every change is told to one resolver, and counted once") {
  check_exhausted("endpoint_set 3 resolvers", explore({}, [] {
                    endpoint_set set;
                    set.resolved(hosts_of(1), start);
                    atomic<std::uint64_t> changes = 1;
                    const auto resolve = [&](std::uint16_t port) {
                      if (set.resolved(hosts_of(port), start)) {
                        changes.fetch_add(1, std::memory_order_relaxed);
                      }
                    };
                    together([&] { resolve(2); }, [&] { resolve(2); }, [&] { resolve(3); });
                    const std::uint64_t told = changes.load(std::memory_order_relaxed);
                    require(told == 3 || told == 4, "2 and 3 came, 2 perhaps twice");
                    require(set.current()->generation == told, "as many as were told");
                  }));
  check_exhausted("endpoint_set 2 resolvers, one answer", explore({}, [] {
                    endpoint_set set;
                    set.resolved(hosts_of(1), start);
                    atomic<int> changes = 0;
                    const auto resolve = [&] {
                      if (set.resolved(hosts_of(2), start)) {
                        changes.fetch_add(1, std::memory_order_relaxed);
                      }
                    };
                    together(resolve, resolve);
                    require(changes.load(std::memory_order_relaxed) == 1, "it changed once");
                    require(set.current()->generation == 2, "and is counted once");
                  }));
}

TEST_CASE("endpoint_set model: of those that fail together one gets the text") {
  check_exhausted("endpoint_set 3 failures", explore({}, [] {
                    endpoint_set set;
                    set.resolved(hosts_of(1), start);
                    atomic<int> texts = 0;
                    const auto fail = [&] {
                      if (set.failed(no_answer, start + 1s)) {
                        texts.fetch_add(1, std::memory_order_relaxed);
                      }
                    };
                    together(fail, fail, fail);
                    require(texts.load(std::memory_order_relaxed) == 1, "one text");
                    require(set.due(start + 4s), "it is asked again soon");
                    require(set.current()->endpoints == hosts_of(1), "the last good one stays");
                  }));
}
