// What a map has replaced waits in bounds, whatever the clock does.
// SPDX-License-Identifier: BSL-1.0
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "support/catch.hpp"
#include "veltrix/detail/map_shard.hpp"
#include "veltrix/reclaim.hpp"

namespace {

using numbers = veltrix::detail::map_types<std::uint64_t, std::uint64_t,
                                           std::allocator<std::pair<const std::uint64_t, int>>>;

}  // namespace

TEST_CASE("map_memory keeps no more than a quarter of a mebibyte of replaced tables waiting") {
  numbers::memory memory({}, veltrix::reclaim_domain::shared());
  for (const unsigned log2 : {0U, 4U, 11U}) {
    CAPTURE(log2);
    const auto one = memory.make_table(log2);
    const std::size_t bytes = one.bytes();
    memory.free_table(one);
    std::size_t most = 0;
    for (int i = 0; i < 2'000; ++i) {
      memory.retire(memory.make_table(log2));
      most = std::max(most, memory.waiting());
    }
    CHECK(most * bytes < std::max(std::size_t{256} << 10, bytes));
    memory.look();
    CHECK(memory.waiting() == 0);
  }
}
