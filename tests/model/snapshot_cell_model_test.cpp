// snapshot_cell explored: readers see whole values and versions that never fall; no update is lost;
// waiters and subscribers hear of the newest.
// SPDX-License-Identifier: BSL-1.0
#include <new>
#include <optional>
#include <utility>

#include "model/support.hpp"
#include "veltrix/snapshot_cell.hpp"

namespace {

using namespace veltrix_model;

/// Two halves that a torn read would show to differ.
struct config {
  explicit config(int value) : left(value), right(value) {}
  config(config&&) noexcept = default;
  ~config() {  // whoever ends it was the last of std::shared_ptr's owners
    left.forget();
    right.forget();
  }
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
      "snapshot_cell update", explore(to(3), [] {
        cell shared(std::in_place, 0);
        const auto add = [&] {
          require(bool(shared.update([](const config& old) { return config(old.whole() + 1); })),
                  "accepted");
        };
        together(add, add);
        require(shared.load()->whole() == 2, "both updates are in");
      }));
  check_exhausted("snapshot_cell publish_if", explore(to(3), [] {
                    cell shared(std::in_place, 0);
                    bool left = false, right = false;
                    together([&] { left = bool(shared.publish_if(1, config(10))); },
                             [&] { right = bool(shared.publish_if(1, config(20))); });
                    require(left != right, "one of them wins");
                    require(shared.load()->whole() == (left ? 10 : 20) && shared.version() == 2,
                            "the winner's");
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
