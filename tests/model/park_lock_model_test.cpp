// park_lock explored: one holder at a time, who sees what the last one did, and no sleeper that is
// not woken.
// SPDX-License-Identifier: BSL-1.0
#include "model/support.hpp"
#include "veltrix/detail/park_lock.hpp"

namespace {

using namespace veltrix_model;
using veltrix::detail::park_lock;
using veltrix::detail::parking_lot;

/// A lock and what it guards.
struct place {
  parking_lot lot{asymmetric_fence_mode()};
  park_lock lock;
  var<int> changes = 0;

  void change() {
    const std::uintptr_t me = park_lock::me();
    require(!lock.held_by(me), "not yet");
    if (!lock.try_lock(me)) lock.lock_slowly(me, lot);
    require(lock.held_by(me), "now");
    changes = changes.read() + 1;
    lock.unlock(lot);
  }
};

void check(const char* name, int preemptions, void (*body)()) {
  for (const bool fenced : {false, true}) {
    exploration within{{.preemptions = preemptions, .stale_reads = 1, .ordered_fences = fenced}};
    std::printf("%s: ", fenced ? "fenced" : "membarrier");
    check_exhausted(name, explore(within, body));
  }
}

}  // namespace

TEST_CASE("park_lock model: two threads take turns") {
  check("park_lock 2 x 2", 4, [] {
    place shared;
    const auto twice = [&] {
      shared.change();
      shared.change();
    };
    together(twice, twice);
    require(shared.changes == 4, "none is lost");
  });
}

TEST_CASE("park_lock model: one sleeps while the lock changes hands") {
  check("park_lock 3 x 1", 3, [] {
    place shared;
    const auto once = [&] { shared.change(); };
    together(once, once, once);
    require(shared.changes == 3, "none is lost");
  });
}

TEST_CASE("park_lock model: sleepers of two locks share a lot and wake each other in vain") {
  check("park_lock 2 locks", 2, [] {
    place first;
    park_lock second;
    var<int> guarded = 0;
    const auto other = [&] {
      const std::uintptr_t me = park_lock::me();
      if (!second.try_lock(me)) second.lock_slowly(me, first.lot);
      guarded = guarded.read() + 1;
      second.unlock(first.lot);
    };
    together([&] { first.change(); }, [&] { first.change(); }, other, other);
    require(first.changes == 2 && guarded == 2, "none is lost");
  });
}
