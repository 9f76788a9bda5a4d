// reclaim explored: what a hazard shows does not end, what nobody shows does; memory has a bound.
// The cell that stands on it is explored in snapshot_cell_model_test.
// SPDX-License-Identifier: BSL-1.0
#include <optional>
#include <utility>

#include "model/support.hpp"
#include "veltrix/detail/proven_garbage.hpp"
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

/// A node with a place in the order in which nodes came into force. Its memory is used again at
/// once: a reader that is not done with it is a race.
struct stamped : veltrix::reclaimable {
  [[nodiscard]] veltrix::detail::stamp order() const { return stamp; }
  var<int> number{0};
  var<veltrix::detail::stamp> stamp{veltrix::detail::no_stamp};
  stamped* next_unused = nullptr;
};

/// What snapshot_store does: readers leave stamps, and a look goes by them where it can.
class stamped_place {
 public:
  stamped_place() {
    for (stamped& each : nodes_)
      put_back(&each);
    current_.store(taken(1), std::memory_order_relaxed);
  }

  [[nodiscard]] int read() const {
    return read_and([](int) {});
  }

  /// Calls `use(number)` while it holds what it reads, and reads that again after.
  template <class Use>
  int read_and(Use use) const {
    auto& mine = *reclaim_domain::shared().record_of_this_thread();
    auto& slot = *mine.lasting();
    const stamped* const found =
        veltrix::detail::show(current_, slot, reclaim_domain::shared().mode());
    mine.note(*found, mine.last);
    use(found->number.read());
    const int number = found->number;
    veltrix::detail::reader_record::clear(slot);
    return number;
  }

  void replace(int number) {
    const veltrix_model::lock_guard<veltrix_model::mutex> lock(mutex_);
    stamped* const fresh = taken(number);
    fresh->stamp = garbage_.next_stamp();
    stamped* const old = current_.exchange(fresh, std::memory_order_acq_rel);
    if (!garbage_.retire(*old, {})) return;
    auto dead = garbage_.look({});
    while (stamped* const each = dead.pop())
      put_back(each);
    require(garbage_.pending() <= 2, "what one reader shows, and what comes next");
  }

 private:
  struct none {
    void operator()(stamped*) const noexcept {}
  };
  stamped* taken(int number) {
    stamped* const taken = unused_;
    require(taken != nullptr, "four nodes are enough");
    unused_ = taken->next_unused;
    taken->number = number;
    return taken;
  }
  void put_back(stamped* node) {
    node->next_unused = unused_;
    unused_ = node;
  }

  stamped nodes_[4];
  stamped* unused_ = nullptr;  // this and garbage_: guarded by mutex_
  veltrix_model::mutex mutex_;
  veltrix_model::atomic<stamped*> current_{nullptr};
  veltrix::detail::proven_garbage<stamped, none> garbage_{reclaim_domain::shared()};
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

TEST_CASE("reclaim model: a look that goes by stamps ends nothing that is read, or will be") {
  const auto body = [] {
    stamped_place shared;
    together(
        [&] {
          const int first = shared.read();  // the record is claimed in the midst of a look, too
          const int second = shared.read();
          require(first <= second, "no reader goes back");
          require(second <= shared.read(), "no reader goes back");
        },
        [&] {
          for (int number = 2; number < 5; ++number)
            shared.replace(number);
        });
  };
  check_exhausted("reclaim stamps", explore(to(3), body));
  check_exhausted("reclaim stamps, fenced", explore(to(3, true), body));
}

TEST_CASE("reclaim model: a look that goes by stamps finds what a reader still holds") {
  check_exhausted("reclaim stamps, held", explore(to(3), [] {
                    stamped_place shared;
                    together(
                        [&] {
                          const int held = shared.read_and([&](int first) {
                            require(first <= shared.read(), "the second one is no older");
                          });
                          require(held >= 1, "whole");
                        },
                        [&] {
                          shared.replace(2);
                          shared.replace(3);
                        });
                  }));
}

TEST_CASE("reclaim model: a look and who claims a record meanwhile never both miss the other") {
  const auto body = [] {
    stamped_place shared;
    together([&] { require(shared.read() >= 1, "whole"); },
             [&] {
               shared.replace(2);
               shared.replace(3);
             });
  };
  exploration older = to(3);
  older.stale_reads = 2;  // one on each side, or both on one
  check_exhausted("reclaim claim beside a look", explore(older, body));
}

TEST_CASE("reclaim model: stamps hold for whoever has the record next, and for each writer") {
  check_exhausted("reclaim stamps, two readers in a row", explore(to(2), [] {
                    stamped_place shared;
                    const auto read = [&] {
                      const int first = shared.read();
                      require(first <= shared.read(), "no reader goes back");
                    };
                    together(
                        [&] {
                          native_thread other;
                          other.start(read);
                          other.join();
                          read();
                        },
                        [&] {
                          for (int number = 2; number < 5; ++number)
                            shared.replace(number);
                        });
                  }));
  check_exhausted("reclaim stamps, two writers", explore(to(2), [] {
                    stamped_place shared;
                    together(
                        [&] {
                          const int first = shared.read();
                          const int second = shared.read();
                          require(first >= 1 && second >= 1, "whole");
                        },
                        [&] { shared.replace(2); },
                        [&] {
                          shared.replace(3);
                          require(shared.read() >= 2, "a writer reads what is in force");
                        });
                  }));
}

TEST_CASE("reclaim model: a stamp of one structure says nothing of another") {
  check_exhausted("reclaim stamps of two places", explore(to(3), [] {
                    stamped_place one;
                    stamped_place other;
                    other.replace(2);
                    other.replace(3);
                    together(
                        [&] {
                          require(other.read() == 3, "in force");
                          require(one.read() >= 1, "whole");
                        },
                        [&] {
                          one.replace(2);
                          one.replace(3);
                        });
                  }));
}
