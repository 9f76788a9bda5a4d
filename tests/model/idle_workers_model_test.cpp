// idle_workers explored: no work is left beside sleepers, whoever makes it and whoever searches.
// SPDX-License-Identifier: BSL-1.0
#include <cstdint>
#include <cstdio>

#include "model/support.hpp"
#include "veltrix/detail/idle_workers.hpp"

namespace {

using namespace veltrix_model;
using veltrix::detail::idle_workers;

/// Pieces of work that wait for `together_` of them to be in hand at once: sleepers beside a piece
/// that nobody takes are a deadlock.
class site {
 public:
  site(int pieces, int together) : pieces_(pieces), together_(together) {}

  /// By a read-modify-write, as a push into the ring.
  void inject() {
    left_.fetch_add(1, std::memory_order_seq_cst);
    idle_.call_after_injection();
  }
  /// By a plain store of the only one who pushes there, as a push to the worker's own deque.
  void push() {
    own_.store(own_.load(std::memory_order_relaxed) + 1, std::memory_order_release);
    idle_.call_after_push();
  }

  void work(idle_workers::seat& mine) {
    bool searching = false;
    while (done_.load(std::memory_order_relaxed) != pieces_) {
      if (take()) {
        if (searching && idle_.end_search() && any()) idle_.call_if_quiet();
        searching = false;
        finish();
      } else if (!searching) {
        searching = true;
        idle_.begin_search();
      } else {
        idle_.sit(mine);
        if ((any() || done_.load(std::memory_order_relaxed) == pieces_) && idle_.rise(mine))
          continue;
        idle_.wait(mine);
      }
    }
  }

 private:
  static bool take_from(atomic<int>& from) {
    int seen = from.load(std::memory_order_relaxed);
    while (seen != 0) {
      if (from.compare_exchange_weak(seen, seen - 1, std::memory_order_acq_rel,
                                     std::memory_order_relaxed))
        return true;
    }
    return false;
  }
  bool take() { return take_from(left_) || take_from(own_); }
  bool any() {
    return left_.load(std::memory_order_seq_cst) != 0 || own_.load(std::memory_order_relaxed) != 0;
  }
  void finish() {
    {
      unique_lock<mutex> lock(mutex_);
      in_hand_ = in_hand_.read() + 1;
      met_.notify_all();
      while (in_hand_ < together_)
        met_.wait(lock);
    }
    if (done_.fetch_add(1, std::memory_order_relaxed) + 1 == pieces_) idle_.call(4);
  }

  const int pieces_;
  const int together_;
  idle_workers idle_{asymmetric_fence_mode()};
  atomic<int> left_ = 0;
  atomic<int> own_ = 0;
  atomic<int> done_ = 0;
  mutex mutex_;
  condition_variable met_;
  var<int> in_hand_ = 0;
};

/// Exhausted, or searched for a while where that takes too long.
enum class far : std::uint8_t { to_its_end, for_a_while };

template <class Body>
void check(const char* name, int preemptions, Body body, far how = far::to_its_end) {
  for (const bool fenced : {false, true}) {
    exploration wanted{{.preemptions = preemptions, .stale_reads = 1, .ordered_fences = fenced}};
    wanted.most_schedules = how == far::to_its_end ? 1'000'000 : 200'000;
    std::printf("%s: ", fenced ? "fenced" : "membarrier");
    const findings seen = explore(wanted, body);
    how == far::to_its_end ? check_exhausted(name, seen) : check_searched(name, seen, 200'000);
    // Stale reads and many switches together, which the search above comes to last.
    exploration sample{{.stale_reads = 2, .ordered_fences = fenced}};
    sample.how = search_kind::priorities;
    sample.most_schedules = 100'000;
    check_sampled(name, explore(sample, body), 100'000);
  }
}

}  // namespace

TEST_CASE("idle_workers model: one that goes to sleep and one that injects miss nothing") {
  check("idle_workers inject, bound 3", 3, [] {
    site here(1, 1);
    idle_workers::seat seat;
    together([&] { here.inject(); }, [&] { here.work(seat); });
  });
}

TEST_CASE("idle_workers model: one that goes to sleep and one that pushes miss nothing") {
  check("idle_workers push, bound 3", 3, [] {
    site here(1, 1);
    idle_workers::seat seat;
    together([&] { here.push(); }, [&] { here.work(seat); });
  });
}

TEST_CASE("idle_workers model: two injected at once bring two workers") {
  check("idle_workers 2 injected, bound 2", 2, [] {
    site here(2, 2);
    idle_workers::seat seats[2];
    together(
        [&] {
          here.inject();
          here.inject();
        },
        [&] { here.work(seats[0]); }, [&] { here.work(seats[1]); });
  });
}

TEST_CASE("idle_workers model: one pushed and one injected by the same thread bring two workers") {
  check("idle_workers 1 pushed, then 1 injected, bound 2", 2, [] {
    site here(2, 2);
    idle_workers::seat seats[2];
    together(
        [&] {
          here.push();
          here.inject();
        },
        [&] { here.work(seats[0]); }, [&] { here.work(seats[1]); });
  });
}

TEST_CASE("idle_workers model: one pushed beside an injected one bring both workers") {
  const auto body = [] {
    site here(2, 2);
    idle_workers::seat seats[2];
    together([&] { here.push(); }, [&] { here.inject(); }, [&] { here.work(seats[0]); },
             [&] { here.work(seats[1]); });
  };
  check("idle_workers 1 pushed, 1 injected, bound 1", 1, body);
  check("idle_workers 1 pushed, 1 injected, bound 2", 2, body, far::for_a_while);
}
