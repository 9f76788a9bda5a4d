// SPDX-License-Identifier: BSL-1.0
#include "veltrix/detail/cache_announcements.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "support/catch.hpp"
#include "support/random.hpp"

namespace {

using namespace std::chrono_literals;
using veltrix::time_point;
using veltrix::detail::cache_announcements;

struct told {
  std::uint64_t version;
  time_point at;
};

/// When the first of `all` above `version` came.
time_point exactly(const std::vector<told>& all, std::uint64_t version) {
  for (const told& each : all)
    if (each.version > version) return each.at;
  return time_point::max();
}

}  // namespace

TEST_CASE("cache_announcements raises the floor and never lowers it") {
  veltrix::virtual_clock clock;
  cache_announcements told_so_far(1s);
  CHECK(told_so_far.floor() == 0);
  told_so_far.announce(5, clock);
  told_so_far.announce(3, clock);
  told_so_far.announce(5, clock);
  CHECK(told_so_far.floor() == 5);
}

TEST_CASE("cache_announcements knows since when each version is overtaken") {
  veltrix::virtual_clock clock;
  cache_announcements told_so_far(10s);
  const time_point first = clock.now();
  told_so_far.announce(5, clock);
  clock.advance(4s);
  told_so_far.announce(8, clock);
  CHECK(told_so_far.overtaken_at(0) == first);
  CHECK(told_so_far.overtaken_at(4) == first);
  CHECK(told_so_far.overtaken_at(5) == first + 4s);
  CHECK(told_so_far.overtaken_at(7) == first + 4s);
  clock.advance(6s);  // the first is forgotten exactly when it cannot matter any more
  told_so_far.announce(9, clock);
  CHECK(told_so_far.overtaken_at(4) == time_point::min());
  CHECK(told_so_far.overtaken_at(5) == first + 4s);
  CHECK(told_so_far.overtaken_at(8) == first + 10s);
}

TEST_CASE("cache_announcements never calls a version fresh for longer than it was") {
  const std::uint64_t seed = GENERATE(1U, 2U, 3U);
  CAPTURE(seed);
  veltrix_test::random_source random(seed);
  veltrix::virtual_clock clock;
  constexpr auto remembered = 60s;
  cache_announcements told_so_far(remembered);
  std::vector<told> all;
  std::uint64_t version = 0;
  std::size_t exact = 0;
  std::size_t asked = 0;
  for (int step = 0; step < 3000; ++step) {
    CAPTURE(step);
    clock.advance(std::chrono::milliseconds(random.below(random.below(20) == 0 ? 20'000 : 20)));
    version += 1 + random.below(3);
    told_so_far.announce(version, clock);
    all.push_back({version, clock.now()});
    REQUIRE(told_so_far.floor() == version);
    for (int i = 0; i < 4; ++i) {
      const std::uint64_t old = version - 1 -
                                random.below(i == 0          ? 1
                                             : version < 400 ? version
                                                             : 400);
      const time_point right = exactly(all, old);
      const time_point got = told_so_far.overtaken_at(old);
      REQUIRE(got <= right);
      if (i == 0) REQUIRE(got == right);  // the newest is always exact
      if (got == time_point::min()) {
        REQUIRE(right + remembered <= clock.now());
      } else {
        ++asked;
        exact += got == right ? 1 : 0;
        // Early by less than half of the time since.
        REQUIRE(right - got <= (clock.now() - got) / 2);
      }
    }
  }
  CHECK(asked > 1000);
  CHECK(exact > asked / 2);
}
