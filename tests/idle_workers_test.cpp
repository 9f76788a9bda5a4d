// SPDX-License-Identifier: BSL-1.0
// Who sleeps and who is called. Interleavings: model/idle_workers_model_test.cpp.
#include "veltrix/detail/idle_workers.hpp"

#include <atomic>
#include <thread>

#include "support/catch.hpp"
#include "support/pool.hpp"
#include "support/scale.hpp"

using veltrix::detail::idle_workers;
namespace seam = veltrix::detail::sync;

TEST_CASE("idle_workers calls the one seated last, and nobody while one searches") {
  idle_workers idle(seam::asymmetric_fence_mode());
  idle_workers::seat first;
  idle_workers::seat second;
  for (idle_workers::seat* each : {&first, &second}) {
    idle.begin_search();
    idle.sit(*each);
  }
  CHECK(idle.searching() == 0);
  idle.call_after_injection();
  CHECK(idle.searching() == 1);
  idle.call_after_injection();  // one is on its way
  idle.call_after_push();
  idle.call_if_quiet();
  CHECK(idle.searching() == 1);
  idle.wait(second);  // returns at once
  CHECK_FALSE(idle.rise(second));
  CHECK(idle.end_search());
  idle.call_after_push();
  idle.wait(first);
  CHECK(idle.end_search());
  idle.call_if_quiet();  // nobody is left
  CHECK(idle.searching() == 0);
}

TEST_CASE("idle_workers lets a worker get up from any place") {
  idle_workers idle(seam::asymmetric_fence_mode());
  idle_workers::seat seats[3];
  for (idle_workers::seat& each : seats) {
    idle.begin_search();
    idle.sit(each);
  }
  CHECK(idle.rise(seats[1]));
  CHECK(idle.searching() == 1);
  CHECK_FALSE(idle.rise(seats[1]));
  CHECK(idle.end_search());
  idle.call(10);  // the two that are left
  CHECK(idle.searching() == 2);
  idle.wait(seats[0]);
  idle.wait(seats[2]);
  CHECK_FALSE(idle.end_search());
  CHECK(idle.end_search());
}

TEST_CASE("idle_workers stress: whatever is made is taken, though workers sleep in between") {
  const int made = static_cast<int>(veltrix_test::scale(100'000));
  idle_workers idle(seam::asymmetric_fence_mode());
  std::atomic<int> left{0};
  std::atomic<int> taken{0};
  std::atomic<bool> ends{false};
  const auto take = [&] {
    int seen = left.load();
    while (seen != 0 && !left.compare_exchange_weak(seen, seen - 1)) {}
    return seen != 0;
  };
  const auto work = [&](idle_workers::seat& mine) {
    bool searching = false;
    while (!ends.load()) {
      if (take()) {
        if (searching && idle.end_search() && left.load() != 0) idle.call_if_quiet();
        searching = false;
        taken.fetch_add(1);
      } else if (!searching) {
        searching = true;
        idle.begin_search();
      } else {
        idle.sit(mine);
        if ((left.load() != 0 || ends.load()) && idle.rise(mine)) continue;
        idle.wait(mine);
      }
    }
  };
  idle_workers::seat seats[3];
  std::vector<std::thread> crew;
  for (idle_workers::seat& each : seats)
    crew.emplace_back([&] { work(each); });
  for (int i = 0; i < made; ++i) {
    left.fetch_add(1);
    idle.call_after_injection();
    if (i % 64 == 0) CHECK(veltrix_test::eventually([&] { return taken.load() == i + 1; }));
  }
  CHECK(veltrix_test::eventually([&] { return taken.load() == made; }));
  ends = true;
  idle.call(3);
  for (std::thread& each : crew)
    each.join();
}
