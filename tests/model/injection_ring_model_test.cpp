// injection_ring explored: every value taken comes out once and whole, refusals are exact, and
// nothing is taken after the close.
// SPDX-License-Identifier: BSL-1.0
#include "model/support.hpp"
#include "veltrix/detail/injection_ring.hpp"

namespace {

using namespace veltrix_model;
using veltrix::detail::injection_ring;
using veltrix::detail::ring_answer;
using veltrix::detail::stand_off;

/// Plain data: a move beside another, or a read of what is not there yet, is a race.
struct parcel {
  var<int> inside = 0;
};

parcel parcel_of(int inside) {
  parcel made;
  made.inside = inside;
  return made;
}

exploration within(int preemptions) {
  return {{.preemptions = preemptions, .stale_reads = 1}};
}

}  // namespace

TEST_CASE("injection_ring model: two push and two pop, through two rounds of one cell") {
  check_exhausted("injection_ring 2 + 2, capacity 1, bound 2", explore(within(2), [] {
                    injection_ring<parcel> ring(1);
                    atomic<int> sum = 0;
                    const auto push = [&](int value) {
                      parcel mine = parcel_of(value);
                      if (ring.push(mine) != ring_answer::taken)
                        sum.fetch_add(value, std::memory_order_relaxed);
                    };
                    const auto pop = [&] {
                      parcel got;
                      stand_off away;
                      if (ring.pop(got, away)) sum.fetch_add(got.inside, std::memory_order_relaxed);
                    };
                    together([&] { push(1); }, [&] { push(10); }, pop, pop);
                    pop();
                    require(sum.load(std::memory_order_relaxed) == 11, "each came out once");
                  }));
}

TEST_CASE("injection_ring model: what one pushes comes out in order beside another pusher") {
  check_exhausted("injection_ring order, capacity 4, bound 2", explore(within(2), [] {
                    injection_ring<parcel> ring(4);
                    together(
                        [&] {
                          for (int i = 1; i <= 2; ++i) {
                            parcel mine = parcel_of(i);
                            require(ring.push(mine) == ring_answer::taken, "there is room");
                          }
                        },
                        [&] {
                          parcel mine = parcel_of(10);
                          require(ring.push(mine) == ring_answer::taken, "there is room");
                        },
                        [&] {
                          int last = 0;
                          for (int i = 0; i < 3; ++i) {
                            parcel got;
                            stand_off away;
                            if (!ring.pop(got, away) || got.inside == 10) continue;
                            require(got.inside == last + 1, "in order");
                            last = got.inside;
                          }
                        });
                  }));
}

TEST_CASE("injection_ring model: what is taken beside a close is there for who leaves after it") {
  check_exhausted("injection_ring close, bound 3", explore(within(3), [] {
                    injection_ring<parcel> ring(2);
                    var<bool> taken = false;
                    int got = 0;
                    together(
                        [&] {
                          parcel mine = parcel_of(7);
                          taken = ring.push(mine) == ring_answer::taken;
                        },
                        [&] {
                          ring.close();
                          while (ring.claimed()) {
                            parcel found;
                            stand_off away;
                            if (ring.pop(found, away)) got = found.inside;
                            yield();
                          }
                        });
                    require(taken == (got == 7), "taken, so it came out; or refused");
                  }));
}
