// reclaim explored: what a hazard shows does not end, what nobody shows does; memory has a bound.
// The cell that stands on it is explored in snapshot_cell_model_test.
// SPDX-License-Identifier: BSL-1.0
#include <optional>
#include <utility>

#include "model/support.hpp"
#include "veltrix/reclaim.hpp"

namespace {

using namespace veltrix_model;
using veltrix::hazard;
using veltrix::reclaim_domain;
using veltrix::retire_list;

/// Its end is a write: a reader that nothing orders before it is a race.
struct node : veltrix::reclaimable {
  explicit node(int given) : number(given) {}
  var<int> number;
};

class place {
 public:
  explicit place(node* first) : current_(first) {}
  ~place() { delete current_.load(std::memory_order_relaxed); }

  hazard<node> protect() const { return reclaim_domain::shared().protect(current_); }

  void replace(node* fresh) {
    retire_list<node>::batch dead;
    const veltrix_model::lock_guard<veltrix_model::mutex> lock(mutex_);
    node* const old = current_.exchange(fresh, std::memory_order_acq_rel);
    if (old != nullptr && garbage_.retire(*old, {})) dead = garbage_.collect({});
    require(garbage_.pending() <= 2, "what one reader shows, and what comes next");
  }

 private:
  veltrix_model::mutex mutex_;
  veltrix_model::atomic<node*> current_;
  retire_list<node> garbage_;
};

exploration to(int preemptions, bool fenced = false) {
  return {{.preemptions = preemptions, .stale_reads = 1, .ordered_fences = fenced}};
}

}  // namespace

TEST_CASE("reclaim model: a hazard keeps its object, the next one sees no older") {
  const auto body = [] {
    place shared(new node(1));
    together(
        [&] {
          auto first = shared.protect();
          const auto second = shared.protect();
          require(first->number <= second->number, "no reader goes back");
          first = shared.protect();
          require(second->number <= first->number, "nor when it lets go");
        },
        [&] {
          shared.replace(new node(2));
          shared.replace(new node(3));
        });
  };
  check_exhausted("reclaim protect/replace", explore(to(3), body));
  check_exhausted("reclaim protect/replace, fenced", explore(to(3, true), body));
}

TEST_CASE("reclaim model: a hazard on nothing takes no slot from another one") {
  check_exhausted("reclaim null", explore(to(3), [] {
                    place shared(nullptr);
                    together(
                        [&] {
                          std::optional<hazard<node>> first = shared.protect();
                          const auto second = shared.protect();
                          first.reset();
                          require(!second || second->number >= 1, "whole");
                        },
                        [&] {
                          shared.replace(new node(1));
                          shared.replace(nullptr);
                        });
                  }));
}

TEST_CASE("reclaim model: writers take turns, and readers of two threads share nothing") {
  check_exhausted("reclaim two writers", explore(to(2), [] {
                    place shared(new node(1));
                    together([&] { require(shared.protect()->number >= 1, "whole"); },
                             [&] { shared.replace(new node(2)); },
                             [&] { shared.replace(new node(3)); });
                  }));
}
