// snapshot_cell: loads, versions and writes take effect at one moment each, a version belongs to
// one value, and no update is lost. Three or four threads, recorded and checked round by round.
// SPDX-License-Identifier: BSL-1.0
#include "veltrix/snapshot_cell.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "support/catch.hpp"
#include "support/lin_rounds.hpp"
#include "support/random.hpp"
#include "support/scale.hpp"
#include "support/sequential_specs.hpp"

namespace {

using namespace veltrix_test;
using veltrix::publish_result;

using number_cell = veltrix::snapshot_cell<std::uint64_t>;
using spec = cell_spec<128>;
using log_of_cell = recorder_of<spec>::log;

/// Every version of a round is kept, so that a rollback does not depend on how long it took.
std::unique_ptr<number_cell> make() {
  return std::make_unique<number_cell>(0, veltrix::snapshot_cell_options{.history = 128});
}

spec::answer told(const publish_result& result, std::uint64_t shown = 0) {
  const bool accepted = static_cast<bool>(result);
  return {accepted, result.version, accepted ? shown : 0};
}

void look(number_cell& cell, log_of_cell& log, random_source& random) {
  switch (random.below(4)) {
    case 0:
      log.record({cell_call::load, 0, 0}, [&] {
        const auto held = cell.load();
        return spec::answer{false, held.version(), *held};
      });
      break;
    case 1:
      log.record({cell_call::version, 0, 0},
                 [&] { return spec::answer{false, cell.version(), 0}; });
      break;
    case 2:
      log.record({cell_call::version, 0, 0}, [&] {
        const std::uint64_t wanted = 1;  // long reached: it tells the version in force
        return spec::answer{false, cell.wait_for(wanted).version, 0};
      });
      break;
    default:
      log.record({cell_call::previous, 0, 0}, [&] {
        const auto kept = cell.history(2);
        return spec::answer{false, kept[0].version, kept.size() < 2 ? 0 : *kept[1].value};
      });
  }
}

void write(number_cell& cell, log_of_cell& log, random_source& random) {
  const std::uint64_t value = 1 + (random.next() >> 40);
  const std::uint64_t seen = cell.version();  // no part of the history
  switch (random.below(4)) {
    case 0:
      log.record({cell_call::publish, value, 0},
                 [&] { return spec::answer{true, cell.publish(value), 0}; });
      break;
    case 1:
      log.record({cell_call::publish_if, value, seen},
                 [&] { return told(cell.publish_if(seen, value)); });
      break;
    case 2:
      log.record({cell_call::update, value, 0}, [&] {
        std::uint64_t shown = 0;
        const auto result = cell.update([&](const std::uint64_t& before) {
          shown = before;
          if (value % 8 == 0) std::this_thread::yield();  // others may write meanwhile
          return before + value;
        });
        return told(result, shown);
      });
      break;
    default: {
      const std::uint64_t to = 1 + random.below(seen);
      log.record({cell_call::rollback, 0, to}, [&] { return told(cell.rollback(to)); });
    }
  }
}

void any_call(number_cell& cell, log_of_cell& log, random_source& random) {
  if (random.below(2) == 0) {
    look(cell, log, random);
  } else {
    write(cell, log, random);
  }
}

template <class Make, class Step>
void require_linearizable(const char* name, const rounds_options& options, Make making, Step step) {
  const auto result = run_rounds(spec{}, options, making, step);
  result.print(name);
  INFO("seed " << options.seed);
  REQUIRE(result.last.answer == verdict::linearizable);
  REQUIRE(result.overlapping > result.operations / 4);
}

}  // namespace

TEST_CASE("snapshot_cell reads and writes are linearizable, all of them together") {
  const rounds_options options{.calls = 25, .rounds = scale(2'500), .seed = 91};
  require_linearizable("snapshot_cell, clock", options, make, any_call);
}

TEST_CASE("snapshot_cell is linearizable by a counter's stamps") {
  const rounds_options options{.threads = 3,
                               .calls = 30,
                               .rounds = scale(1'500),
                               .seed = 92,
                               .source = stamp_source::counter};
  require_linearizable("snapshot_cell, counter", options, make, any_call);
}

TEST_CASE("snapshot_cell cached readers are linearizable with the writes") {
  // A reader lives for a few reads; between them the others write.
  const rounds_options options{.calls = 8, .rounds = scale(2'000), .calls_per_step = 5, .seed = 93};
  require_linearizable("snapshot_cell, cached readers", options, make,
                       [](number_cell& cell, log_of_cell& log, random_source& random) {
                         if (random.below(2) == 0) return write(cell, log, random);
                         auto reader = cell.reader();
                         for (int i = 0; i < 5; ++i) {
                           log.record({cell_call::load, 0, 0}, [&] {
                             const std::uint64_t value = reader.get();
                             return spec::answer{false, reader.version(), value};
                           });
                           if (random.below(4) == 0) std::this_thread::yield();
                         }
                       });
}

TEST_CASE("snapshot_cell writes with a validator are linearizable") {
  // Values divisible by 3 are refused: the cell stays at the version told.
  const rounds_options options{.calls = 25, .rounds = scale(1'000), .seed = 94};
  require_linearizable(
      "snapshot_cell, validated", options,
      [] {
        return std::make_unique<number_cell>(
            0, veltrix::snapshot_cell_options{.history = 128},
            [](const std::uint64_t& candidate, const std::uint64_t&) {
              return candidate % 3 == 0 ? std::vector<std::string>{"divisible by three"}
                                        : std::vector<std::string>{};
            });
      },
      [](number_cell& cell, log_of_cell& log, random_source& random) {
        if (random.below(2) == 0) return look(cell, log, random);
        const std::uint64_t value = 1 + (random.next() >> 40);
        const cell_call call = value % 3 == 0 ? cell_call::version : cell_call::publish;
        log.record({call, value, 0}, [&] { return told(cell.try_publish(value)); });
      });
}
