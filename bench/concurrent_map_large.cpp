// Maps of many millions of entries: the longest insert while they grow, the memory they take, and
// what a snapshot does to those who write meanwhile.
// SPDX-License-Identifier: BSL-1.0
#include <malloc.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "concurrent_maps.hpp"
#include "map_keys.hpp"

namespace veltrix_bench {
namespace {

using namespace std::chrono_literals;
using map_type = measured_map<number, number>;
using map_pointer = std::unique_ptr<map_type>;

constexpr unsigned most_rounds = 5;
constexpr std::size_t million = 1'000'000;

std::size_t count_of(const bench& table, std::size_t millions) {
  return millions * (table.chosen().quick ? 2'000 : million);
}

std::vector<number_map> large_ones(const bench& table, const std::vector<number_map>& all) {
  std::vector<number_map> wanted = all;
  std::erase_if(wanted, [&](const number_map& each) {
    return !each.part.large ||
           (each.name != all.front().name && !table.chosen().wants_contender(each.name));
  });
  return wanted;
}

unsigned rounds_of(const bench& table) {
  return std::min(table.chosen().rounds, most_rounds);
}

/// Calls `each(first, count)` with the keys of numbers from `from` on, by pieces.
template <class Each>
void for_keys(std::uint64_t from, std::uint64_t to, Each each) {
  std::array<number, 4'096> keys{};
  while (from < to) {
    const std::size_t count = std::min<std::uint64_t>(keys.size(), to - from);
    for (std::size_t i = 0; i < count; ++i)
      keys[i] = key_of<number>(from++);
    each(keys.data(), count);
  }
}

void fill(map_type& map, std::size_t entries) {
  for_keys(0, entries, [&](const number* first, std::size_t count) { map.insert(first, count); });
}

// --- growth --------------------------------------------------------------------------------------

/// What the inserts of a growing map cost, one value a round.
struct growth_times {
  static constexpr std::array<double, 4> parts{0.5, 0.99, 0.999, 0.9999};
  static constexpr std::array<const char*, 4> names{"p50", "p99", "p99.9", "p99.99"};
  static constexpr std::array<double, 3> spans_us{100, 1'000, 10'000};
  static constexpr std::array<const char*, 3> span_names{"of 100 us and more", "of 1 ms and more",
                                                         "of 10 ms and more"};
  std::array<std::vector<double>, parts.size()> quantiles_us;
  std::array<std::vector<double>, spans_us.size()> longer;
  std::vector<double> longest_us;
  std::vector<double> slowest_us;  // by what it took, with what others took from its thread

  void add(const stall_meter& meter) {
    const double us = ns_per_tick() / 1'000;
    for (std::size_t i = 0; i < parts.size(); ++i)
      quantiles_us[i].push_back(meter.costs().quantile(parts[i]) * us);
    for (std::size_t i = 0; i < spans_us.size(); ++i)
      longer[i].push_back(static_cast<double>(meter.costs().above(spans_us[i] / us)));
    longest_us.push_back(static_cast<double>(meter.costs().longest()) * us);
    slowest_us.push_back(static_cast<double>(meter.slowest()) * us);
  }
};

void run_growth(bench& table, const std::vector<number_map>& sides) {
  const std::string name = "insert growing 1 M to 8 M u64";
  if (!table.chosen().wants(name)) return;
  std::vector<growth_times> found(sides.size());
  for (unsigned round = 0; round < rounds_of(table); ++round) {
    for (std::size_t i = 0; i < sides.size(); ++i) {
      table.tell(name + ", " + sides[i].name);
      const map_pointer map = sides[i].make();
      fill(*map, count_of(table, 1));
      stall_meter meter;
      for_keys(count_of(table, 1), count_of(table, 8), [&](const number* first, std::size_t count) {
        map->time_inserts(first, count, meter);
      });
      found[i].add(meter);
    }
  }
  table.clear();
  const auto record = [&](const std::string& of, const char* unit, auto samples) {
    for (std::size_t i = 0; i < sides.size(); ++i)
      table.record(name + ", " + of, 1, sides[i].name, unit, samples(found[i]));
  };
  for (std::size_t kind = 0; kind < growth_times::parts.size(); ++kind) {
    record(growth_times::names[kind], "us",
           [&](const growth_times& times) { return times.quantiles_us[kind]; });
  }
  for (std::size_t kind = 0; kind < growth_times::spans_us.size(); ++kind) {
    record(growth_times::span_names[kind], "inserts",
           [&](const growth_times& times) { return times.longer[kind]; });
  }
  record("longest by the wall", "us", [](const growth_times& times) { return times.slowest_us; });
  record("longest", "us", [](const growth_times& times) { return times.longest_us; });
}

// --- memory --------------------------------------------------------------------------------------

struct memory {
  double in_use;    // of what malloc() gave; nothing where it cannot tell
  double resident;  // pages
};

memory memory_now() {
  memory found{};
#ifdef __GLIBC__
  const auto told = mallinfo2();
  found.in_use = static_cast<double>(told.uordblks + told.hblkhd);
#endif
  std::ifstream pages("/proc/self/statm");
  double all = 0;
  pages >> all >> found.resident;
  found.resident *= static_cast<double>(sysconf(_SC_PAGESIZE));
  return found;
}

/// What a map of so many entries takes, measured in a process of its own.
std::optional<memory> memory_of(const number_map& side, std::size_t entries) {
  std::array<int, 2> ends{};
  if (pipe(ends.data()) != 0) return std::nullopt;
  const pid_t child = fork();
  if (child == 0) {
    const memory before = memory_now();
    const map_pointer map = side.make();
    fill(*map, entries);
    const memory after = memory_now();
    const memory took{after.in_use - before.in_use, after.resident - before.resident};
    const bool told = write(ends[1], &took, sizeof took) == sizeof took;
    _exit(told ? 0 : 1);
  }
  close(ends[1]);
  memory took{};
  const bool told = child > 0 && read(ends[0], &took, sizeof took) == sizeof took;
  close(ends[0]);
  if (child > 0) waitpid(child, nullptr, 0);
  return told ? std::optional(took) : std::nullopt;
}

void run_memory(bench& table, const std::vector<number_map>& sides) {
  for (const std::size_t millions : {1U, 10U}) {
    const std::string of = std::to_string(millions) + " M u64: bytes per entry";
    if (!table.chosen().wants(of)) continue;
    for (const number_map& side : sides) {
      table.tell(of + ", " + side.name);
      const std::size_t entries = count_of(table, millions);
      const std::optional<memory> took = memory_of(side, entries);
      table.clear();
      if (!took) {
        std::fprintf(stderr, "concurrent_map: %s: %s could not be measured\n", of.c_str(),
                     side.name.c_str());
        std::exit(1);
      }
      const auto each = static_cast<double>(entries);
      if (took->in_use > 0) table.record(of, 1, side.name, "bytes", {took->in_use / each});
      table.record(of + ", resident", 1, side.name, "bytes", {took->resident / each});
    }
  }
}

// --- snapshots -----------------------------------------------------------------------------------

/// What a writer did during a while.
struct writing {
  double per_us;  // of what they cost
  double longest_us;
};

/// Writes in a thread of its own while `meanwhile()` runs.
template <class Meanwhile>
writing write_while(map_type& map, key_walk<number>& walk, Meanwhile meanwhile) {
  std::atomic<bool> over{false};
  std::atomic<bool> begun{false};
  writing found{};
  std::thread writer([&] {
    stall_meter meter;
    begun.store(true, std::memory_order_release);
    const std::uint64_t writes = map.time_upserts(walk, over, meter);
    const double us = ns_per_tick() / 1'000;
    found.per_us = static_cast<double>(writes) / (static_cast<double>(meter.sum_of_costs()) * us);
    found.longest_us = static_cast<double>(meter.costs().longest()) * us;
  });
  while (!begun.load(std::memory_order_acquire))
    std::this_thread::yield();
  meanwhile();
  over.store(true, std::memory_order_release);
  writer.join();
  return found;
}

/// Copies as many pairs as a snapshot, and has nothing to do with a map.
void copy_plainly(const std::vector<std::pair<number, number>>& from) {
  std::vector<std::pair<number, number>> copies;
  copies.reserve(from.size());
  for (const auto& each : from)
    copies.push_back(each);
  keep(copies.data());
}

void run_snapshots(bench& table, const std::vector<number_map>& sides) {
  const std::string name = "writes beside a snapshot of 10 M u64";
  if (!table.chosen().wants(name)) return;
  const std::size_t entries = count_of(table, 10);
  std::vector<number> ring(table.chosen().quick ? 1'024 : std::size_t{1} << 20);
  for (std::size_t i = 0; i < ring.size(); ++i)
    ring[i] = key_of<number>(spread(i) % entries);
  const std::vector<std::pair<number, number>> plain(entries);
  for (const number_map& side : sides) {
    table.tell(name + ", filling " + side.name);
    const map_pointer map = side.make();
    fill(*map, entries);
    key_walk<number> walk{ring.data(), ring.size() - 1, 0};
    std::vector<double> kept;
    std::vector<double> kept_beside_copy;
    std::vector<double> longest_us;
    for (unsigned round = 0; round < rounds_of(table); ++round) {
      table.tell(name + ", " + side.name);
      const writing alone = write_while(
          *map, walk, [&] { std::this_thread::sleep_for(table.chosen().quick ? 5ms : 500ms); });
      std::size_t copied = 0;
      const writing beside = write_while(*map, walk, [&] { copied = map->snapshot(); });
      const writing control = write_while(*map, walk, [&] { copy_plainly(plain); });
      if (copied != entries) {
        std::fprintf(stderr, "concurrent_map: %s: %s copied %zu entries of %zu\n", name.c_str(),
                     side.name.c_str(), copied, entries);
        std::exit(1);
      }
      kept.push_back(100 * beside.per_us / alone.per_us);
      kept_beside_copy.push_back(100 * control.per_us / alone.per_us);
      longest_us.push_back(beside.longest_us);
    }
    table.clear();
    table.record(name + ", kept", 1, side.name, "percent", kept);
    table.record(name + ", kept beside a plain copy", 1, side.name, "percent", kept_beside_copy);
    table.record(name + ", longest", 1, side.name, "us", longest_us);
  }
}

}  // namespace

void run_large_maps(bench& table, const std::vector<number_map>& all) {
  const std::vector<number_map> sides = large_ones(table, all);
  run_memory(table, sides);
  run_growth(table, sides);
  run_snapshots(table, sides);
}

}  // namespace veltrix_bench
