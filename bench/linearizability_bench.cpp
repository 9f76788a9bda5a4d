// The linearizability checker of the tests on recorded histories of a concurrent_map under four
// threads, beside the bare replay of the same calls through the same specification.
// SPDX-License-Identifier: BSL-1.0
#include "support/linearizability.hpp"

#include <cstdint>
#include <optional>
#include <thread>
#include <vector>

#include "harness.hpp"
#include "support/random.hpp"
#include "support/sequential_specs.hpp"
#include "veltrix/concurrent_map.hpp"

namespace {

using namespace veltrix_test;
using number_map = veltrix::concurrent_map<std::uint64_t, std::uint64_t>;
using history = std::vector<event_of<map_spec>>;

map_spec::answer ask(number_map& map, const map_spec::input& asked) {
  const auto changed = [](bool done, map_change what) {
    return map_spec::answer{done ? what : map_change::unchanged, {}};
  };
  switch (asked.call) {
    case map_call::insert: return changed(map.insert(asked.key, asked.value), map_change::inserted);
    case map_call::erase: return changed(map.erase(asked.key) != 0, map_change::erased);
    case map_call::update: {
      std::optional<std::uint64_t> shown;
      const bool done = map.update(asked.key, [&](std::uint64_t& value) {
        shown = value;
        value += asked.value;
      });
      return {done ? map_change::replaced : map_change::unchanged, shown};
    }
    default: return {map_change::unchanged, map.get(asked.key)};
  }
}

history record(std::uint64_t keys, std::size_t calls) {
  constexpr std::size_t threads = 4;
  constexpr map_call mix[] = {map_call::get, map_call::insert, map_call::erase, map_call::update};
  number_map map;
  recorder_of<map_spec> records(
      {.threads = threads, .calls_per_thread = calls, .yield_one_in = 16});
  std::vector<std::thread> crew;
  for (std::size_t self = 0; self < threads; ++self) {
    crew.emplace_back([&, self] {
      random_source random(self);
      for (std::size_t i = 0; i < calls; ++i) {
        const map_spec::input asked{mix[random.below(4)], random.below(keys), random.next() >> 40};
        records.of(self).record(asked, [&] { return ask(map, asked); });
      }
    });
  }
  for (std::thread& each : crew)
    each.join();
  return records.merged();
}

/// Answers that differ from those recorded; the calls are made in the order in which they began.
std::size_t replay(const history& events, std::uint64_t keys) {
  const map_spec spec;
  std::vector<map_spec::state> states(keys);
  std::size_t differ = 0;
  for (const auto& each : events)
    differ += spec.run(states[each.input.key], each.input) == each.answer ? 0 : 1;
  return differ;
}

}  // namespace

int main(int argc, char** argv) {
  veltrix_bench::bench table("linearizability", veltrix_bench::parse(argc, argv));
  for (const std::uint64_t keys : {3U, 1000U}) {
    const history events = record(keys, 2'000);
    if (!check_linearizable(map_spec{}, events)) return 1;
    // An operation of the table is a whole history: a part of one need not be linearizable.
    table.run("a history of 8,000 calls, " + std::to_string(keys) + " keys", 1,
              {{"replay",
                [&](unsigned, std::uint64_t n) {
                  for (std::uint64_t i = 0; i < n; ++i)
                    veltrix_bench::keep(replay(events, keys));
                }},
               {"check_linearizable", [&](unsigned, std::uint64_t n) {
                  for (std::uint64_t i = 0; i < n; ++i) {
                    veltrix_bench::keep(check_linearizable(map_spec{}, events).configurations);
                  }
                }}});
  }
  return table.finish();
}
