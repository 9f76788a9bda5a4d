// branches explored: a forked call is made once, its end is seen, who waits for it runs what it has
// split off and nothing else, and nobody sleeps while there is that to do.
// SPDX-License-Identifier: BSL-1.0
#include <stdexcept>

#include "model/meeting.hpp"
#include "model/support.hpp"
#include "veltrix/detail/branches.hpp"

namespace {

using namespace veltrix_model;
using veltrix::detail::branch;
using veltrix::detail::open_branches;

/// A branch that calls what it is given.
template <class Work>
struct branch_of : branch {
  explicit branch_of(Work& given) noexcept : branch(&call), work(given) {}
  static void call(branch& self) { static_cast<branch_of&>(self).work(); }
  Work& work;
};

/// What one worker of a pool has of its own. The thread that uses it is told by who it is.
struct crew {
  open_branches of[3];

  /// As parallel_invoke() does on worker `me`.
  template <class First, class Second>
  void invoke(int me, First first, Second second) {
    branch_of<Second> forked(second);
    require(of[me].fork(forked), "there is memory");
    asymmetric_fence_light(asymmetric_fence_mode());
    of[me].tell_watcher();
    first();
    if (of[me].take_back()) return second();
    of[me].await(forked);
    require(forked.take_failure() == nullptr, "nothing was thrown");
  }

  /// Worker `me` takes one branch of worker `from`, if there is one.
  void steal(int me, int from) {
    if (branch* const stolen = of[from].steal()) of[me].run_stolen(*stolen, of[from]);
  }
};

exploration to(int preemptions, unsigned stale = 0) {
  return {{.preemptions = preemptions, .stale_reads = stale}};
}

}  // namespace

TEST_CASE("branches model: a branch is run once, and its forker sees what it did") {
  check_exhausted("branches one", explore(to(-1, 2), [] {
                    crew pool;
                    var<int> first = 0, second = 0;
                    together(
                        [&] {
                          pool.invoke(0, [&] { first = first + 1; }, [&] { second = second + 1; });
                          require(first == 1 && second == 1, "each was made once");
                        },
                        [&] { pool.steal(1, 0); });
                  }));
}

TEST_CASE("branches model: an exception is kept until the forker takes it") {
  check_exhausted("branches throws", explore(to(-1), [] {
                    crew pool;
                    auto work = [] { throw std::runtime_error("a branch"); };
                    together(
                        [&] {
                          branch_of<decltype(work)> forked(work);
                          require(pool.of[0].fork(forked), "there is memory");
                          if (pool.of[0].take_back()) return;
                          pool.of[0].await(forked);
                          require(forked.take_failure() != nullptr, "it was kept");
                        },
                        [&] { pool.steal(1, 0); });
                  }));
}

TEST_CASE("branches model: two branches of one worker go to two thieves, the oldest first") {
  check_exhausted(
      "branches two thieves, bound 3", explore(to(3), [] {
        crew pool;
        var<int> made[3] = {0, 0, 0};
        together(
            [&] {
              pool.invoke(
                  0,
                  [&] {
                    pool.invoke(0, [&] { made[0] = made[0] + 1; }, [&] { made[1] = made[1] + 1; });
                    require(made[1] == 1, "the inner one has ended");
                  },
                  [&] { made[2] = made[2] + 1; });
              for (const var<int>& each : made)
                require(each == 1, "each was made once");
            },
            [&] { pool.steal(1, 0); }, [&] { pool.steal(2, 0); });
      }));
}

TEST_CASE("branches model: who waits for a branch runs what that has split off") {
  check_exhausted("branches help, bound 4", explore(to(4, 1), [] {
                    crew pool;
                    var<int> left = 0, right = 0;
                    atomic<int> runner = 0;
                    const auto split = [&] {
                      pool.invoke(
                          runner.load(std::memory_order_relaxed), [&] { left = left + 1; },
                          [&] { right = right + 1; });
                    };
                    together(
                        [&] {
                          pool.invoke(0, [] {}, split);
                          require(left == 1 && right == 1, "both parts were made once");
                        },
                        [&] {
                          if (branch* const stolen = pool.of[0].steal()) {
                            runner.store(1, std::memory_order_relaxed);
                            pool.of[1].run_stolen(*stolen, pool.of[0]);
                          }
                        });
                  }));
}

TEST_CASE("branches model: who sleeps in a join is called when its branch splits") {
  // The thief's part waits for the other part, which only the joiner can make.
  check_exhausted("branches call a sleeping joiner, bound 4", explore(to(4, 1), [] {
                    crew pool;
                    meeting both(2);
                    bool stolen_at_all = false;
                    const auto split = [&] {
                      if (!stolen_at_all) return;
                      pool.invoke(1, [&] { both.arrive(); }, [&] { both.arrive(); });
                    };
                    together([&] { pool.invoke(0, [] {}, split); },
                             [&] {
                               if (branch* const stolen = pool.of[0].steal()) {
                                 stolen_at_all = true;
                                 pool.of[1].run_stolen(*stolen, pool.of[0]);
                               }
                             });
                  }));
}

TEST_CASE("branches model: who waits runs nothing that its thief forks later") {
  check_exhausted("branches no stranger's call, bound 4", explore(to(4, 1), [] {
                    crew pool;
                    together([&] { pool.invoke(0, [] {}, [] {}); },
                             [&] {
                               branch* const stolen = pool.of[0].steal();
                               if (stolen == nullptr) return;
                               pool.of[1].run_stolen(*stolen, pool.of[0]);
                               auto strange = [] { require(false, "a stranger's call was run"); };
                               branch_of<decltype(strange)> other(strange);
                               require(pool.of[1].fork(other), "there is memory");
                               asymmetric_fence_light(asymmetric_fence_mode());
                               pool.of[1].tell_watcher();
                               require(pool.of[1].take_back(), "nobody has taken it");
                             });
                  }));
}

TEST_CASE("branches model: who waits runs nothing that its thief had forked before") {
  check_exhausted("branches older calls of the thief, bound 4", explore(to(4), [] {
                    crew pool;
                    together([&] { pool.invoke(0, [] {}, [] {}); },
                             [&] {
                               // The thief has an open branch of its own when it takes the other's.
                               auto older = [] { require(false, "a stranger's call was run"); };
                               branch_of<decltype(older)> mine(older);
                               require(pool.of[1].fork(mine), "there is memory");
                               if (branch* const stolen = pool.of[0].steal())
                                 pool.of[1].run_stolen(*stolen, pool.of[0]);
                               require(pool.of[1].take_back(), "nobody has taken it");
                             });
                  }));
}
