// snapshot_cell and what it stands on (reclaim.hpp, snapshot_store.hpp) explored: readers see
// whole values that do not end while held, and versions that never fall; no update is lost;
// waiters and subscribers hear of the newest. Use after the end is a finding of the explorer.
// SPDX-License-Identifier: BSL-1.0
#include <new>
#include <optional>
#include <utility>

#include "model/support.hpp"
#include "veltrix/snapshot_cell.hpp"

namespace {

using namespace veltrix_model;

/// Two halves that a torn read would show to differ. Its end is a write: a reader that nothing
/// orders before it is a race.
struct config {
  explicit config(int value) : left(value), right(value) {}
  config(config&&) noexcept = default;
  var<int> left, right;

  [[nodiscard]] int whole() const {
    require(left.read() == right.read(), "a value is seen whole");
    return left;
  }
};
using cell = veltrix::snapshot_cell<config>;

exploration to(int preemptions) {
  return {{.preemptions = preemptions, .stale_reads = 1}};
}

/// As to(), on a machine without membarrier.
exploration fenced_to(int preemptions) {
  return {{.preemptions = preemptions, .stale_reads = 1, .ordered_fences = true}};
}

/// What two threads hand over; the explorer knows the order it makes.
class hand_over {
 public:
  void ready() { ready_.store(true, std::memory_order_release); }
  [[nodiscard]] bool is_ready() const { return ready_.load(std::memory_order_acquire); }

 private:
  veltrix_model::atomic<bool> ready_{false};
};

}  // namespace

TEST_CASE("snapshot_cell model: readers see whole values and never an older one after a newer") {
  check_exhausted("snapshot_cell read/publish", explore(to(2), [] {
                    cell shared(std::in_place, 1);
                    const auto read = [&] {
                      const int first = shared.load()->whole();
                      const int second = shared.load()->whole();
                      require(first <= second, "no reader goes back");
                    };
                    together(read, read, [&] {
                      shared.publish(config(2));
                      shared.publish(config(3));
                    });
                    require(shared.load()->whole() == 3 && shared.version() == 3,
                            "the last one stays");
                  }));
}

TEST_CASE("snapshot_cell model: the same where readers must be fenced") {
  const auto body = [] {
    cell shared(std::in_place, 1);
    const auto read = [&] {
      const int first = shared.load()->whole();
      require(first <= shared.load()->whole(), "no reader goes back");
    };
    together(read, [&] {
      shared.publish(config(2));
      shared.publish(config(3));
    });
    require(shared.load()->whole() == 3, "the last one stays");
  };
  check_exhausted("snapshot_cell read/publish, two threads", explore(to(3), body));
  check_exhausted("snapshot_cell read/publish, fenced", explore(fenced_to(3), body));
}

TEST_CASE("snapshot_cell model: a guard holds its version, whoever ends it and wherever") {
  check_exhausted("snapshot_cell guard of another thread", explore(to(2), [] {
                    cell shared(std::in_place, 1);
                    std::optional<cell::guard> passed;
                    hand_over given;
                    together(
                        [&] {
                          passed = shared.load();
                          given.ready();
                          // Maybe in the slot that the other thread has just let go.
                          require(shared.load()->whole() >= 1, "whole");
                        },
                        [&] {
                          if (!given.is_ready()) return;
                          require(passed->get()->whole() >= 1, "held");
                          passed.reset();
                        },
                        [&] {
                          shared.publish(config(2));
                          shared.publish(config(3));
                        });
                    passed.reset();
                  }));
  check_exhausted("snapshot_cell more guards than slots", explore(to(2), [] {
                    cell shared(std::in_place, 1);
                    together(
                        [&] {
                          const auto first = shared.load();
                          const auto second = shared.load();  // records have two slots here
                          auto third = shared.load();
                          require(first->whole() <= second->whole(), "in order");
                          third = shared.load();
                          require(second->whole() <= third->whole(), "in order");
                        },
                        [&] {
                          shared.publish(config(2));
                          shared.publish(config(3));
                        });
                    require(shared.stats().versions_alive <= 2, "the first two are gone or due");
                  }));
}

TEST_CASE("snapshot_cell model: a record is another thread's later, and nothing shown is lost") {
  check_exhausted("snapshot_cell thread exit", explore(to(2), [] {
                    cell shared(std::in_place, 1);
                    const auto read = [&] { require(shared.load()->whole() >= 1, "whole"); };
                    together(
                        [&] {
                          native_thread first;
                          first.start(read);
                          first.join();
                          native_thread second;
                          second.start(read);
                          second.join();
                        },
                        [&] {
                          shared.publish(config(2));
                          shared.publish(config(3));
                        });
                  }));
}

TEST_CASE("snapshot_cell model: a reader object follows, and its guards hold") {
  check_exhausted("snapshot_cell reader object", explore(to(2), [] {
                    cell shared(std::in_place, 1);
                    together(
                        [&] {
                          auto reader = shared.reader();
                          const int first = reader.get().whole();
                          const auto held = reader.load();
                          const int again = reader.get().whole();
                          require(first <= held->whole() && held->whole() <= again, "in order");
                          reader.release();
                          require(reader.get().whole() >= again, "in order");
                        },
                        [&] {
                          shared.publish(config(2));
                          shared.publish(config(3));
                        });
                  }));
}

TEST_CASE("snapshot_cell model: what is shared or kept lives on, and comes back by rollback") {
  check_exhausted("snapshot_cell share, history, rollback", explore(to(2), [] {
                    std::optional<cell> shared;
                    shared.emplace(veltrix::snapshot_cell_options{.history = 1}, cell::validator(),
                                   std::in_place, 1);
                    std::shared_ptr<const config> kept;
                    together([&] { kept = shared->share(); },
                             [&] {
                               shared->publish(config(2));
                               const auto back = shared->rollback(1);
                               require(back.version == 3 && shared->load()->whole() == 1, "back");
                               shared->publish(config(4));
                             });
                    shared.reset();
                    require(kept->whole() >= 1, "outlives the cell");
                  }));
}

TEST_CASE("snapshot_cell model: whoever stops for ever, the others go on in bounded memory") {
  exploration frozen_reader = to(2);
  frozen_reader.may_freeze = only(1);
  check_exhausted("snapshot_cell reader stopped", explore(frozen_reader, [] {
                    auto& shared = *new cell(std::in_place, 1);  // its reader may never end
                    bool written = false;
                    native_thread reader;
                    reader.start([&] { require(shared.load()->whole() >= 1, "whole"); });
                    for (int i = 2; i < 6; ++i) {
                      shared.publish(config(i));
                      require(shared.stats().versions_alive <= 3, "in force, held, and one to go");
                    }
                    written = true;
                    require(written && shared.load()->whole() == 5, "nobody waited");
                    reader.join();
                    delete &shared;
                  }));
  exploration frozen_writer = to(2);
  frozen_writer.may_freeze = only(1);
  check_exhausted("snapshot_cell writer stopped", explore(frozen_writer, [] {
                    auto& shared = *new cell(std::in_place, 1);
                    auto reader = shared.reader();
                    native_thread writer;
                    writer.start([&] { shared.publish(config(2)); });
                    require(shared.load()->whole() >= 1, "load() waits for nobody");
                    require(reader.get().whole() >= 1, "nor does get()");
                    require(reader.load()->whole() >= 1, "nor load() of a reader");
                    require(shared.share()->whole() >= 1, "nor share()");
                    writer.join();
                    reader.release();
                    delete &shared;
                  }));
}

TEST_CASE("snapshot_cell model: a version once seen is there to be read") {
  check_exhausted("snapshot_cell version", explore(to(2), [] {
                    cell shared(std::in_place, 1);
                    auto reader = shared.reader();
                    together(
                        [&] {
                          const auto version = shared.version();
                          require(reader.get().whole() >= static_cast<int>(version),
                                  "the cached reader follows");
                          require(shared.load()->whole() >= static_cast<int>(version),
                                  "so does a load");
                        },
                        [&] {
                          shared.publish(config(2));
                          shared.publish(config(3));
                        });
                  }));
}

TEST_CASE("snapshot_cell model: no update is lost, and one conditional publish wins") {
  check_exhausted(
      "snapshot_cell update", explore(to(2), [] {
        cell shared(std::in_place, 0);
        const auto add = [&] {
          require(bool(shared.update([](const config& old) { return config(old.whole() + 1); })),
                  "accepted");
        };
        together(add, add);
        require(shared.load()->whole() == 2, "both updates are in");
      }));
  check_exhausted("snapshot_cell publish_if", explore(to(2), [] {
                    cell shared(std::in_place, 0);
                    bool left = false, right = false;
                    together([&] { left = bool(shared.publish_if(1, config(10))); },
                             [&] { right = bool(shared.publish_if(1, config(20))); });
                    require(left != right, "one of them wins");
                    require(shared.load()->whole() == (left ? 10 : 20) && shared.version() == 2,
                            "the winner's");
                  }));
}

TEST_CASE("snapshot_cell model: memory that is used again is one writer's") {
  check_exhausted("snapshot_cell two writers in a burst", explore(to(2), [] {
                    cell shared(std::in_place, 1);
                    shared.publish(config(2));
                    shared.publish(config(3));  // the memory of an ended version lies ready
                    const auto write = [&] {
                      shared.publish(config(4));
                      require(shared.load()->whole() >= 4, "whole");
                    };
                    together(write, write);
                    require(shared.load()->whole() == 4 && shared.version() == 5, "both came");
                  }));
}

TEST_CASE("snapshot_cell model: a waiter wakes for its version, and for a stop") {
  check_exhausted("snapshot_cell wait_for", explore(to(2), [] {
                    cell shared(std::in_place, 1);
                    together([&] { require(shared.wait_for(3).version >= 3, "woken for it"); },
                             [&] { shared.publish(config(2)); },
                             [&] { shared.publish(config(3)); });
                  }));
  check_exhausted(
      "snapshot_cell wait_for, stopped", explore(to(2), [] {
        cell shared(std::in_place, 1);
        veltrix::stop_source stop;
        together(
            [&] {
              const auto seen = shared.wait_for(2, veltrix::no_deadline, stop.get_token());
              require(seen.version == shared.version() || seen.version == 1, "what was in force");
            },
            [&] { stop.request_stop(); }, [&] { shared.publish(config(2)); });
      }));
}

TEST_CASE("snapshot_cell model: subscribers hear the newest, in order and one at a time") {
  check_exhausted(
      "snapshot_cell subscribe", explore(to(2), [] {
        cell shared(std::in_place, 1);
        var<int> heard = 1;
        const auto following = shared.subscribe([&](const config& value, std::uint64_t) {
          require(value.whole() > heard, "in order");  // a second call beside it would race
          heard = value.whole();
        });
        together(
            [&] {
              static_cast<void>(
                  shared.update([](const config& old) { return config(old.whole() + 1); }));
            },
            [&] {
              static_cast<void>(
                  shared.update([](const config& old) { return config(old.whole() + 1); }));
            });
        require(heard == 3, "the newest was told");
      }));
}

TEST_CASE("snapshot_cell model: after unsubscribing nothing is told, whoever publishes") {
  check_exhausted("snapshot_cell unsubscribe", explore(to(2), [] {
                    cell shared(std::in_place, 1);
                    auto* const heard = new var<int>(0);
                    together(
                        [&] {
                          {
                            const auto following =
                                shared.subscribe([heard](const config& value, std::uint64_t) {
                                  *heard = value.whole();
                                });
                          }
                          delete heard;  // a call still under way would use it after its end
                        },
                        [&] { shared.publish(config(2)); });
                  }));
}

TEST_CASE("snapshot_cell model: version() needs nobody else, whoever stops for ever") {
  exploration freezing = to(2);
  freezing.may_freeze = only(1);
  check_exhausted("snapshot_cell version, publisher stopped", explore(freezing, [] {
                    cell shared(std::in_place, 1);
                    together([&] { shared.publish(config(2)); },
                             [&] { require(shared.version() >= 1, "answered"); });
                  }));
}

TEST_CASE("snapshot_cell model: a publish without memory changes nothing") {
  check_exhausted("snapshot_cell without memory", explore_failing_allocations(to(1), [] {
                    std::optional<cell> shared;
                    try {
                      shared.emplace(std::in_place, 1);
                    } catch (const std::bad_alloc&) {
                      return;
                    }
                    bool published = false;
                    together(
                        [&] {
                          try {
                            published = shared->publish(config(2)) == 2;
                          } catch (const std::bad_alloc&) {
                            published = false;
                          }
                        },
                        [&] { require(shared->load()->whole() >= 1, "always whole"); });
                    require(shared->load()->whole() == (published ? 2 : 1), "all or nothing");
                    require(shared->version() == (published ? 2u : 1u), "all or nothing");
                  }));
}
