// steal_deque explored: every element goes to one, with all that was written before its push.
// SPDX-License-Identifier: BSL-1.0
#include "model/support.hpp"
#include "veltrix/detail/steal_deque.hpp"

namespace {

using namespace veltrix_model;
using veltrix::detail::steal_deque;

/// An element whose taker writes it: two takers, or one too early, are a race.
struct item {
  var<int> times = 0;
  void take() { times = times.read() + 1; }
};

exploration within(int preemptions) {
  return {{.preemptions = preemptions, .stale_reads = 2}};
}

struct yard {
  steal_deque<item> deque;
  item items[3];

  void push(int at) {
    items[at].times = 0;
    deque.reserve();
    deque.push(&items[at]);
  }
  void pop() {
    if (item* const mine = deque.pop()) mine->take();
  }
  void steal() {
    if (item* const stolen = deque.steal()) stolen->take();
  }
  void check(int count) {
    while (item* const left = deque.pop())
      left->take();
    for (int i = 0; i < count; ++i)
      require(items[i].times == 1, "taken once");
  }
};

}  // namespace

TEST_CASE("steal_deque model: owner and thief meet at the last element") {
  check_exhausted("steal_deque last element, bound 4", explore(within(4), [] {
                    yard here;
                    here.push(0);
                    together([&] { here.pop(); }, [&] { here.steal(); });
                    here.check(1);
                  }));
}

TEST_CASE("steal_deque model: the owner pushes and pops beside a thief, and outgrows its array") {
  check_exhausted("steal_deque push, pop, grow, bound 3", explore(within(3), [] {
                    yard here;
                    together(
                        [&] {
                          here.push(0);
                          here.push(1);
                          here.push(2);  // the first array has two cells
                          here.pop();
                          here.pop();
                        },
                        [&] {
                          here.steal();
                          here.steal();
                        });
                    here.check(3);
                  }));
}

TEST_CASE("steal_deque model: two thieves and the owner want two elements") {
  check_exhausted("steal_deque 2 thieves, bound 2", explore(within(2), [] {
                    yard here;
                    here.push(0);
                    here.push(1);
                    together(
                        [&] {
                          here.pop();
                          here.pop();
                        },
                        [&] { here.steal(); }, [&] { here.steal(); });
                    here.check(2);
                  }));
}
