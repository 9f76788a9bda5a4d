// cache_announcements explored: who sees a version announced sees what the source then holds.
// SPDX-License-Identifier: BSL-1.0
#include "model/support.hpp"
#include "veltrix/detail/cache_announcements.hpp"
#include "veltrix/loading_cache.hpp"

namespace {

using namespace veltrix_model;
using veltrix::detail::cache_announcements;

}  // namespace

TEST_CASE("cache_announcements model: a version seen brings the source it tells of") {
  check_exhausted("cache_announcements floor", explore({{.stale_reads = 1}}, [] {
                    veltrix::virtual_clock clock;
                    cache_announcements told(std::chrono::seconds(1));
                    var<int> source = 1;
                    together(
                        [&] {
                          source = 2;
                          told.announce(2, clock);
                        },
                        [&] {
                          if (told.floor() == 2) require(source == 2, "the announced one");
                        },
                        [&] { told.announce(1, clock); });
                    require(told.floor() == 2, "the highest one stays");
                  }));
}

TEST_CASE("cache_announcements model: nothing older is kept under an announced version") {
  const auto body = [] {
    veltrix::loading_cache<int, int> shared({.max_entries = 4, .shards = 1});
    atomic<int> source = 1;  // relaxed: the announcement alone orders it
    const auto load = [&](int) { return source.load(std::memory_order_relaxed); };
    together(
        [&] {
          source.store(2, std::memory_order_relaxed);
          shared.announce(2);
        },
        [&] { static_cast<void>(shared.get_or_load(1, load)); });
    const auto last = shared.get_or_load(1, load);
    require(last && *last == 2, "nothing older stays");
  };
  check_exhausted("cache_announcements load beside, bound 2",
                  explore({{.preemptions = 2, .stale_reads = 1}}, body));
}
