// reclaim: stamps of what is in force, and looks that go by how far readers have come.
// SPDX-License-Identifier: BSL-1.0
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <numeric>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "veltrix/detail/proven_garbage.hpp"
#include "veltrix/reclaim.hpp"

using namespace std::chrono_literals;
using veltrix::reclaim_domain;
using veltrix::time_point;
using veltrix::detail::no_stamp;
using veltrix::detail::proven_garbage;
using veltrix::detail::reader_record;
using veltrix::detail::stamp;

namespace {

constexpr time_point noon = time_point() + 12h;
using numbers = std::vector<int>;

struct node : veltrix::reclaimable {
  node(int given, stamp at) : number(given), order_(at) {}
  [[nodiscard]] stamp order() const noexcept { return order_; }
  const int number;

 private:
  stamp order_;
};
using garbage = proven_garbage<node, std::default_delete<node>>;

numbers numbers_of(garbage::batch dead) {
  numbers found;
  while (node* const each = dead.pop()) {
    found.push_back(each->number);
    delete each;
  }
  return found;
}
numbers from_to(int first, int last) {
  numbers all(static_cast<std::size_t>(last - first + 1));
  std::iota(all.begin(), all.end(), first);
  return all;
}

/// A list in which the nodes from 1 on are retired, each replaced by the next one.
class chain {
 public:
  explicit chain(reclaim_domain& domain) : list(domain) {
    // The first look is due as there was none before; from then on time stands still.
    REQUIRE(list.retire(*new node(0, list.next_stamp()), noon));
    REQUIRE(numbers_of(list.collect(noon)) == numbers{0});
    next_ = make();
  }
  chain(const chain&) = delete;
  chain& operator=(const chain&) = delete;
  ~chain() { delete next_; }

  /// Result: whether a look is due with the last one.
  bool replace_until(int number, time_point now = noon) {
    bool due = false;
    while (next_->number < number) {
      node* const old = std::exchange(next_, make());
      kept.push_back(old);
      due = list.retire(*old, now);
    }
    return due;
  }
  [[nodiscard]] node& at(int number) const {
    return number == next_->number ? *next_ : *kept[static_cast<std::size_t>(number - 1)];
  }

  garbage list;
  std::vector<node*> kept;  // those that were retired, some of them ended

 private:
  node* make() { return new node(++last_, list.next_stamp()); }
  int last_ = 0;
  node* next_ = nullptr;  // in force
};

/// A reader that does what it is told.
class reader {
 public:
  explicit reader(reclaim_domain& domain) : domain_(domain), record_(domain.claim_for_object()) {}
  reader(const reader&) = delete;
  reader& operator=(const reader&) = delete;
  ~reader() {
    done();
    record_->give_back();
  }
  void show(node& what) {
    const veltrix::detail::sync::atomic<node*> current{&what};
    static_cast<void>(veltrix::detail::show(current, record_->shown[0], domain_.mode()));
    record_->note(what, record_->last);
  }
  /// It finds `what` in force, too, in another slot that is clear again.
  void note_only(node& what) { record_->note(what, record_->last); }
  void done() { reader_record::clear(record_->shown[0]); }

 private:
  reclaim_domain& domain_;
  reader_record* record_;
};

constinit reclaim_domain domain;
constinit reclaim_domain other_domain;

bool by_membarrier() {
  return domain.mode() == veltrix::detail::sync::fence_mode::membarrier;
}

}  // namespace

TEST_CASE("reclaim stamps grow, and no two lists of a domain have one in common") {
  garbage one(domain);
  garbage other(domain);
  std::set<stamp> all;
  stamp last_of_one = no_stamp;
  stamp last_of_other = no_stamp;
  bool grow = true;
  for (int i = 0; i < 200'000; ++i) {
    const stamp now = one.next_stamp();
    grow = grow && now > last_of_one;
    last_of_one = now;
    all.insert(now);
    const stamp elsewhere = other.next_stamp();
    grow = grow && elsewhere > last_of_other;
    last_of_other = elsewhere;
    all.insert(elsewhere);
  }
  CHECK(grow);
  CHECK(all.size() == 400'000);
  CHECK_FALSE(all.contains(no_stamp));
  CHECK_FALSE(all.contains(reclaim_domain::all_read));
}

TEST_CASE("reclaim stamps end rather than come again") {
  const auto first = reclaim_domain::stamps_of(0);
  const std::uint64_t width = first.end - first.next;
  CHECK(first.next > no_stamp);
  CHECK(reclaim_domain::stamps_of(1).next == first.end);
  std::uint64_t number = UINT64_MAX / width - 4;
  std::uint64_t end = reclaim_domain::stamps_of(number).end;
  for (++number; reclaim_domain::stamps_of(number).next != no_stamp; ++number) {
    REQUIRE(reclaim_domain::stamps_of(number).next == end);
    REQUIRE(reclaim_domain::stamps_of(number).end > end);
    end = reclaim_domain::stamps_of(number).end;
  }
  CHECK(end > UINT64_MAX - 3 * width);
  for (const std::uint64_t beyond : {number, number + 1, UINT64_MAX / 2, UINT64_MAX}) {
    CHECK(reclaim_domain::stamps_of(beyond).next == no_stamp);
    CHECK(reclaim_domain::stamps_of(beyond).end == no_stamp);
  }
}

TEST_CASE("reclaim domain tells how far the slowest reader has come") {
  const stamp first = 1000;
  const stamp end = 2000;
  const auto reached = [&] { return domain.reached_by_all(first, end); };
  CHECK(reached() == reclaim_domain::all_read);
  static_cast<void>(domain.record_of_this_thread());  // its owner is here, not reading
  CHECK(reached() == reclaim_domain::all_read);
  {
    reader one(domain);
    CHECK(reached() == no_stamp);
    node early(1, 999);
    one.show(early);
    CHECK(reached() == no_stamp);  // of another list, or of a range gone by
    node at_first(2, first);
    one.show(at_first);
    CHECK(reached() == first);  // while it shows it
    one.done();
    CHECK(reached() == first);
    node late(3, 1999);
    one.show(late);
    CHECK(reached() == 1999);
    reader other(domain);
    CHECK(reached() == no_stamp);
    node middle(4, 1500);
    other.show(middle);
    CHECK(reached() == 1500);
    node beyond(5, end);
    other.show(beyond);
    CHECK(reached() == no_stamp);
  }
  CHECK(reached() == reclaim_domain::all_read);  // who is gone is not waited for
  const reader elsewhere(other_domain);
  CHECK(reached() == reclaim_domain::all_read);
}

TEST_CASE("reclaim domain counts another thread's record as a reader until it ends") {
  const auto reached = [] { return other_domain.reached_by_all(1, 2); };
  std::thread([&] {
    static_cast<void>(other_domain.record_of_this_thread());
    stamp seen_elsewhere = reclaim_domain::all_read;
    std::thread([&] { seen_elsewhere = reached(); }).join();
    CHECK(seen_elsewhere == no_stamp);
    CHECK(reached() == reclaim_domain::all_read);
  }).join();
  CHECK(reached() == reclaim_domain::all_read);
}

TEST_CASE("reclaim look ends what all readers have gone beyond") {
  chain nodes(domain);
  reader one(domain);
  reader other(domain);
  REQUIRE_FALSE(nodes.replace_until(50));
  one.show(nodes.at(50));
  one.done();
  REQUIRE_FALSE(nodes.replace_until(60));
  other.show(nodes.at(60));
  other.done();
  REQUIRE(nodes.replace_until(65));
  const numbers ended = numbers_of(nodes.list.look(noon));
  // Without membarrier each look has a fence, and needs to go by nothing.
  CHECK(ended == from_to(1, by_membarrier() ? 49 : 64));
  CHECK(nodes.list.pending() == (by_membarrier() ? 15 : 0));
}

TEST_CASE("reclaim look keeps what a reader shows, however far it has come since") {
  chain nodes(domain);
  reader one(domain);
  one.show(nodes.at(1));
  REQUIRE_FALSE(nodes.replace_until(5));
  reader of_one_more(domain);
  of_one_more.show(nodes.at(5));
  REQUIRE_FALSE(nodes.replace_until(64));
  one.note_only(nodes.at(64));
  of_one_more.note_only(nodes.at(64));
  REQUIRE(nodes.replace_until(65));
  numbers expected = from_to(1, 64);
  std::erase_if(expected, [](int number) { return number == 1 || number == 5; });
  if (by_membarrier()) std::erase(expected, 64);  // who has found it may find it again
  CHECK(numbers_of(nodes.list.look(noon)) == expected);
  one.done();
  of_one_more.done();
  CHECK(numbers_of(nodes.list.collect(noon)) ==
        (by_membarrier() ? numbers{1, 5, 64} : numbers{1, 5}));
}

TEST_CASE("reclaim look waits for no reader that is not seen, and leaves at most half") {
  chain nodes(domain);
  reader silent(domain);
  REQUIRE(nodes.replace_until(65));
  CHECK(numbers_of(nodes.list.look(noon)) == from_to(1, 64));
  REQUIRE_FALSE(nodes.replace_until(96));
  silent.show(nodes.at(96));
  silent.done();
  REQUIRE(nodes.replace_until(129));
  CHECK(numbers_of(nodes.list.look(noon)) == from_to(65, 128));  // 33 were not gone beyond
  REQUIRE_FALSE(nodes.replace_until(161));
  silent.show(nodes.at(161));
  silent.done();
  REQUIRE(nodes.replace_until(193));
  CHECK(numbers_of(nodes.list.look(noon)) == from_to(129, by_membarrier() ? 160 : 192));
  REQUIRE(nodes.replace_until(by_membarrier() ? 225 : 257));
  CHECK(numbers_of(nodes.list.look(noon)) ==
        (by_membarrier() ? from_to(161, 224) : from_to(193, 256)));
}

TEST_CASE("reclaim look that time has brought leaves nothing but what is shown") {
  chain nodes(domain);
  reader one(domain);
  REQUIRE_FALSE(nodes.replace_until(10));
  one.show(nodes.at(10));
  REQUIRE_FALSE(nodes.replace_until(12));
  REQUIRE(nodes.replace_until(13, noon + 1ms));
  numbers expected = from_to(1, 12);
  std::erase(expected, 10);
  numbers ended = numbers_of(nodes.list.look(noon + 1ms));
  std::sort(ended.begin(), ended.end());
  CHECK(ended == expected);
  CHECK(nodes.list.pending() == 1);
  one.done();
  CHECK(numbers_of(nodes.list.collect(noon)) == numbers{10});
}

TEST_CASE("reclaim batches are taken apart and put together in order") {
  chain nodes(domain);
  nodes.replace_until(3);
  garbage::batch first = nodes.list.collect(noon);
  nodes.replace_until(5);
  first.append(nodes.list.collect(noon));
  first.append(garbage::batch());
  garbage::batch all;
  CHECK(all.pop() == nullptr);
  all.append(std::move(first));
  CHECK(first.empty());
  CHECK(numbers_of(std::move(all)) == from_to(1, 4));
}
