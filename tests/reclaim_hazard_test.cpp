// reclaim: hazards, as a structure of a user's own would use them.
// SPDX-License-Identifier: BSL-1.0
#include <atomic>
#include <memory>
#include <new>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "veltrix/reclaim.hpp"

using veltrix::hazard;
using veltrix::reclaim_domain;
using veltrix::retire_list;

namespace {

struct node : veltrix::reclaimable {
  explicit node(int given) : number(given) { ++alive; }
  ~node() { --alive; }
  const int number;
  static inline std::atomic<int> alive{0};
};

/// One pointer that is replaced, and what was replaced.
class place {
 public:
  explicit place(node* first) : current_(first) {}
  ~place() { delete current_.load(std::memory_order_relaxed); }

  hazard<node> protect() const { return reclaim_domain::shared().protect(current_); }

  /// Puts `fresh` there. Result: how many objects wait to be freed.
  std::size_t replace(node* fresh) {
    retire_list<node>::batch dead;
    node* const old = current_.exchange(fresh, std::memory_order_acq_rel);
    const veltrix::time_point now = veltrix::coarse_clock::now();
    if (old != nullptr) static_cast<void>(garbage_.retire(*old, now));
    dead = garbage_.collect(now);
    return garbage_.pending();
  }

 private:
  std::atomic<node*> current_;
  retire_list<node> garbage_;
};

}  // namespace

TEST_CASE("reclaim hazard keeps its object until it ends") {
  node::alive = 0;
  {
    place one(new node(1));
    auto held = one.protect();
    CHECK(one.replace(new node(2)) == 1);
    CHECK(held->number == 1);
    CHECK((*held).number == 1);
    auto moved = std::move(held);
    CHECK(held.get() == nullptr);
    CHECK_FALSE(held);
    CHECK(one.replace(new node(3)) == 1);
    CHECK(moved->number == 1);
    moved = one.protect();
    CHECK(moved->number == 3);
    CHECK(one.replace(new node(4)) == 1);
    moved = hazard<node>();
    CHECK(one.replace(new node(5)) == 0);
    CHECK(node::alive == 1);
  }
  CHECK(node::alive == 0);
}

TEST_CASE("reclaim hazard on nothing takes no slot from another one") {
  place empty(nullptr);
  place full(new node(1));
  auto nothing = empty.protect();
  CHECK(nothing.get() == nullptr);
  const auto held = full.protect();
  nothing = hazard<node>();
  CHECK(full.replace(nullptr) == 1);  // and not freed under `held`
  CHECK(held->number == 1);
}

TEST_CASE("reclaim hazards beyond a thread's slots have records of their own") {
  const auto in_use = [] { return reclaim_domain::shared().stats().records_in_use; };
  place one(new node(0));
  std::vector<hazard<node>> held;
  held.push_back(one.protect());
  const std::size_t before = in_use();
  for (int i = 1; i < 10; ++i) {
    one.replace(new node(i));
    held.push_back(one.protect());
  }
  CHECK(in_use() == before + 6);
  for (int i = 0; i < 10; ++i)
    CHECK(held[static_cast<std::size_t>(i)]->number == i);
  held.clear();
  CHECK(in_use() == before);
  CHECK(one.replace(nullptr) == 0);
}

TEST_CASE("reclaim hazard ends in another thread, and may outlive its own") {
  place one(new node(1));
  std::optional<hazard<node>> passed;
  std::thread([&] { passed = one.protect(); }).join();
  CHECK(one.replace(new node(2)) == 1);
  std::thread([&] {  // may have the same record, but not the slot
    const auto own = one.protect();
    CHECK((*passed)->number == 1);
    passed.reset();
    CHECK(own->number == 2);
    CHECK(one.replace(new node(3)) == 1);
    CHECK(own->number == 2);
  })
      .join();
  CHECK(one.replace(nullptr) == 0);
}
