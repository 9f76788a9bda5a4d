// snapshot_cell under faults explored: a write whose function, copy or validator throws changes
// nothing, and waits whose time is short say so.
// SPDX-License-Identifier: BSL-1.0
#include <chrono>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "model/support.hpp"
#include "veltrix/snapshot_cell.hpp"

namespace {

using namespace veltrix_model;

/// Two halves that a torn look would show to differ. A copy of a negative one throws half-way.
struct config {
  explicit config(int value) : left(value), right(value) {}
  config(const config& other) : left(other.left), right(whole_or_throw(other)) {}
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

 private:
  static int whole_or_throw(const config& other) {
    if (other.left < 0) throw std::runtime_error("a copy");
    return other.right;
  }
};
using cell = veltrix::snapshot_cell<config>;

exploration to(int preemptions) {
  return {{.preemptions = preemptions, .stale_reads = 1}};
}

/// Beside `fault(cell)`, which throws, a publisher puts 2 in force and a reader looks.
template <class Fault>
void beside(cell& shared, Fault fault) {
  together(
      [&] {
        bool thrown = false;
        try {
          fault(shared);
        } catch (const std::runtime_error&) {
          thrown = true;
        }
        require(thrown, "the fault reaches its caller");
      },
      [&] { require(shared.publish(config(2)) == 2, "the only version that is new"); },
      [&] {
        const int first = shared.load()->whole();
        require(first >= 1 && first <= shared.load()->whole(), "no reader goes back");
      });
  require(shared.load()->whole() == 2 && shared.version() == 2, "the fault changed nothing");
}

}  // namespace

TEST_CASE("snapshot_cell model: an update that throws changes nothing beside a publisher") {
  check_exhausted("snapshot_cell update throws", explore(to(2), [] {
                    cell shared(std::in_place, 1);
                    beside(shared, [](cell& at) {
                      static_cast<void>(at.update([](const config& old) -> config {
                        require(old.whole() >= 1, "whole");
                        throw std::runtime_error("an update");
                      }));
                    });
                  }));
  check_exhausted("snapshot_cell copy throws", explore(to(2), [] {
                    const config bad(-1);
                    cell shared(std::in_place, 1);
                    beside(shared, [&](cell& at) {
                      static_cast<void>(at.update([&](const config&) { return config(bad); }));
                    });
                  }));
}

TEST_CASE("snapshot_cell model: a validator that throws turns its own write down") {
  check_exhausted("snapshot_cell validator throws", explore(to(2), [] {
                    const auto check = [](const config& candidate, const config& current) {
                      require(current.whole() >= 1, "whole");
                      if (candidate.whole() == 9) throw std::runtime_error("a validator");
                      return std::vector<std::string>();
                    };
                    cell shared(veltrix::snapshot_cell_options(), check, std::in_place, 1);
                    beside(shared, [](cell& at) { static_cast<void>(at.try_publish(config(9))); });
                  }));
}

TEST_CASE("snapshot_cell model: a subscriber that throws misses nothing later") {
  check_exhausted("snapshot_cell subscriber throws", explore(to(2), [] {
                    cell shared(std::in_place, 1);
                    var<int> heard = 1;
                    const auto following =
                        shared.subscribe([&](const config& value, std::uint64_t) {
                          require(value.whole() > heard, "in order");
                          heard = value.whole();
                          throw std::runtime_error("a subscriber");
                        });
                    const auto add = [&] {
                      static_cast<void>(
                          shared.update([](const config& old) { return config(old.whole() + 1); }));
                    };
                    together(add, add);
                    require(heard == 3, "the newest was told");
                    const std::uint64_t failures = shared.stats().subscriber_failures;
                    require(failures == 1 || failures == 2, "each throw is counted");
                  }));
}

TEST_CASE("snapshot_cell model: a wait whose time is short tells what is in force") {
  exploration hasty = to(3);
  hasty.early_timeouts = 1;
  check_exhausted("snapshot_cell wait_for deadline", explore(hasty, [] {
                    cell shared(std::in_place, 1);
                    const auto deadline = veltrix::steady_clock::now() + std::chrono::hours(1);
                    together(
                        [&] {
                          const auto seen = shared.wait_for(2, deadline);
                          require(bool(seen) == (seen.version >= 2), "it says what it saw");
                          require(bool(seen) || veltrix::steady_clock::now() >= deadline,
                                  "late only after the deadline");
                        },
                        [&] { shared.publish(config(2)); });
                  }));
}

TEST_CASE("snapshot_cell model: a cached reader needs nobody while nothing changes") {
  exploration freezing = to(3);
  freezing.may_freeze = only(1);
  check_exhausted("snapshot_cell cached reader, loader stopped", explore(freezing, [] {
                    cell shared(std::in_place, 1);
                    auto reader = shared.reader();
                    require(reader.get().whole() == 1, "the first");
                    together([&] { static_cast<void>(shared.load()); },
                             [&] { require(reader.get().whole() == 1, "the same"); });
                  }));
}
