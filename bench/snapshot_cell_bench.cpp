// snapshot_cell beside what a service would write or take instead: reads, stores, what stays alive.
// A read is one field of the newest value. Each store makes a value.
// SPDX-License-Identifier: BSL-1.0
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include "harness.hpp"
#include "latency.hpp"
#include "snapshot_cells.hpp"

namespace {

using namespace veltrix_bench;
using namespace std::chrono_literals;

constexpr std::size_t field = 3;
constexpr unsigned most_long_rounds = 7;  // of what cannot be measured in short ones

template <class Value>
std::uint64_t one_field(const Value& value) {
  return value.fields[field];
}

/// Where a contender's cell stands: made anew for each measurement, on cache lines of its own.
template <class Cell>
class place {
 public:
  void make() { cell_ = std::make_unique<apart<Cell>>(); }
  void end() { cell_.reset(); }
  Cell& operator*() const { return cell_->value; }

 private:
  std::unique_ptr<apart<Cell>> cell_;
};

template <class Cell>
contender named(const std::shared_ptr<place<Cell>>& at) {
  contender made;
  made.name = Cell::name;
  made.before = [at] { at->make(); };
  made.after = [at] { at->end(); };
  return made;
}

/// For contender::enter: `use(cell, operations)` in an enrolled thread. A reader or writer is made
/// inside `use`, as a user makes it: on the stack, where the compiler sees all of it.
template <class Cell, class Use>
auto enrolled(const std::shared_ptr<place<Cell>>& at, Use use) {
  return [at, use](unsigned) -> std::function<void(std::uint64_t)> {
    return [at, use, while_here = std::make_shared<enrollment<Cell>>()](std::uint64_t operations) {
      use(**at, operations);
    };
  };
}

template <class Cell>
void read_fields(Cell& cell, std::uint64_t operations) {
  typename Cell::reader reader(cell);
  for (std::uint64_t i = 0; i < operations; ++i)
    keep(reader.read(one_field<settings>));
}

template <class Cell>
void store_values(Cell& cell, std::uint64_t operations) {
  typename Cell::writer writer(cell);
  for (std::uint64_t i = 0; i < operations; ++i)
    writer.store(settings(i));
}

/// Reads until `over`, asking only now and then, so that a read costs what it costs elsewhere.
template <class Cell>
std::uint64_t read_until(Cell& cell, const std::atomic<bool>& over) {
  [[maybe_unused]] const enrollment<Cell> enrolled;
  typename Cell::reader reader(cell);
  std::uint64_t reads = 0;
  while (!over.load(std::memory_order_relaxed)) {
    for (unsigned i = 0; i < 64; ++i)
      keep(reader.read([](const auto& value) { return one_field(value); }));
    reads += 64;
  }
  return reads;
}

/// Stores until `over`, with a pause after each unless it is zero.
template <class Cell>
std::uint64_t store_until(Cell& cell, std::chrono::microseconds pause,
                          const std::atomic<bool>& over) {
  [[maybe_unused]] const enrollment<Cell> enrolled;
  typename Cell::writer writer(cell);
  std::uint64_t stores = 0;
  while (!over.load(std::memory_order_relaxed)) {
    writer.store(settings(stores++));
    if (pause != 0us) std::this_thread::sleep_for(pause);
  }
  return stores;
}

/// `side.template operator()<Cell>()` makes the contender of each cell.
template <class Side>
std::vector<contender> sides(Side side) {
  std::vector<contender> all;
  for_each_cell<settings>([&]<class Cell>() { all.push_back(side.template operator()<Cell>()); },
                          [](const char*, const char*) {});
  return all;
}

template <class Cell>
contender reading() {
  const auto at = std::make_shared<place<Cell>>();
  contender made = named(at);
  made.enter = enrolled(at, read_fields<Cell>);
  return made;
}

template <class Cell>
contender reading_beside_writer(std::chrono::microseconds pause) {
  const auto at = std::make_shared<place<Cell>>();
  contender made = named(at);
  made.enter = enrolled(at, read_fields<Cell>);
  made.beside = [at, pause](const std::atomic<bool>& over) {
    return store_until(**at, pause, over);
  };
  return made;
}

template <class Cell>
contender storing() {
  const auto at = std::make_shared<place<Cell>>();
  contender made = named(at);
  made.enter = enrolled(at, store_values<Cell>);
  return made;
}

template <class Cell>
contender storing_beside_reader() {
  const auto at = std::make_shared<place<Cell>>();
  contender made = named(at);
  made.enter = enrolled(at, store_values<Cell>);
  made.beside = [at](const std::atomic<bool>& over) { return read_until(**at, over); };
  return made;
}

/// About 21 ns at 3.7 GHz, each step waiting for the one before, that no compiler shortens.
std::uint64_t work(std::uint64_t state) {
  for (unsigned i = 0; i < 16; ++i) {
    state ^= state >> 29;
    state *= 0xbf58476d1ce4e5b9ULL;
  }
  return state;
}

template <class Cell>
void read_amid_work(Cell& cell, std::uint64_t operations) {
  typename Cell::reader reader(cell);
  std::uint64_t state = 1;
  for (std::uint64_t i = 0; i < operations; ++i) {
    state = work(state) + reader.read(one_field<settings>);
    keep(state);
  }
}

template <class Cell>
contender reading_amid_work() {
  const auto at = std::make_shared<place<Cell>>();
  contender made = named(at);
  made.enter = enrolled(at, read_amid_work<Cell>);
  return made;
}

void run_reads(bench& table) {
  std::vector<workload> together;  // in one run, since their figures are compared with each other
  for (const unsigned threads : {1U, 2U, 4U})
    together.push_back({"read", threads, sides([]<class Cell>() { return reading<Cell>(); })});
  for (const unsigned threads : {1U, 2U}) {
    together.push_back({"read beside a writer each 1 ms", threads,
                        sides([]<class Cell>() { return reading_beside_writer<Cell>(1ms); })});
  }
  table.run(std::move(together));
  table.run({{"read beside a writer without pause", 1,
              sides([]<class Cell>() { return reading_beside_writer<Cell>(0us); })}});
}

void run_reads_amid_work(bench& table) {
  std::vector<contender> all{{"work without a read", [](unsigned, std::uint64_t operations) {
                                std::uint64_t state = 1;
                                for (std::uint64_t i = 0; i < operations; ++i) {
                                  state = work(state) + i;
                                  keep(state);
                                }
                              }}};
  for (contender& each : sides([]<class Cell>() { return reading_amid_work<Cell>(); }))
    all.push_back(std::move(each));
  table.run({{"read amid 21 ns of work", 1, std::move(all), shown_as::difference}});
}

void run_stores(bench& table) {
  table.run({{"store", 1, sides([]<class Cell>() { return storing<Cell>(); })},
             {"store beside a looping reader", 1,
              sides([]<class Cell>() { return storing_beside_reader<Cell>(); })}});
}

// --- versions alive ------------------------------------------------------------------------------

/// The most values alive after any of `stores` stores.
template <class Cell>
double peak_of(Cell& cell, std::uint64_t stores, std::int64_t before) {
  [[maybe_unused]] const enrollment<Cell> enrolled;
  typename Cell::writer writer(cell);
  std::int64_t peak = 0;
  for (std::uint64_t i = 0; i < stores; ++i) {
    writer.store(counted_settings(i));
    peak = std::max(peak, counted_settings::alive() - before);
  }
  return static_cast<double>(peak);
}

template <class Cell>
double peak_beside_looping_reader(std::uint64_t stores) {
  const std::int64_t before = counted_settings::alive();
  place<Cell> at;
  at.make();
  std::atomic<bool> reading{false};
  std::atomic<bool> over{false};
  std::thread reader([&] {
    reading.store(true, std::memory_order_release);
    read_until(*at, over);
  });
  while (!reading.load(std::memory_order_acquire))
    std::this_thread::yield();
  const double peak = peak_of(*at, stores, before);
  over.store(true, std::memory_order_release);
  reader.join();
  return peak;
}

template <class Cell>
double peak_beside_stalled_reader(std::uint64_t stores) {
  const std::int64_t before = counted_settings::alive();
  place<Cell> at;
  at.make();
  std::atomic<bool> reading{false};
  std::atomic<bool> over{false};
  std::thread reader([&] {
    [[maybe_unused]] const enrollment<Cell> enrolled;
    typename Cell::reader handle(*at);
    keep(handle.read([&](const counted_settings& value) {
      reading.store(true, std::memory_order_release);
      while (!over.load(std::memory_order_acquire))
        std::this_thread::sleep_for(100us);
      return one_field(value);
    }));
  });
  while (!reading.load(std::memory_order_acquire))
    std::this_thread::yield();
  const double peak = peak_of(*at, stores, before);
  over.store(true, std::memory_order_release);
  reader.join();
  return peak;
}

/// The cells in which values come and go: not the floor's, whose values stay.
template <class Each>
void for_each_reclaiming_cell(Each each) {
  for_each_cell<counted_settings>(
      [&]<class Cell>() {
        if constexpr (!std::is_same_v<Cell, plain_pointer<counted_settings>> &&
                      !std::is_same_v<Cell, plain_pointer<counted_settings, 1>>) {
          each.template operator()<Cell>();
        }
      },
      [](const char*, const char*) {});
}

void run_versions(bench& table) {
  const unsigned rounds = std::min(table.chosen().rounds, most_long_rounds);
  const std::uint64_t part = table.chosen().quick ? 20 : 1;
  const auto counts = [&](const std::string& name, auto count) {
    if (!table.chosen().wants(name)) return;
    for_each_reclaiming_cell([&]<class Cell>() {
      if (!table.chosen().wants_contender(Cell::name)) return;
      std::vector<double> peaks;
      for (unsigned round = 0; round < rounds; ++round) {
        table.tell(name + ", " + Cell::name);
        peaks.push_back(count.template operator()<Cell>());
      }
      table.clear();
      table.record(name, 1, Cell::name, "versions", std::move(peaks));
    });
  };
  counts("versions alive beside a looping reader",
         [&]<class Cell>() { return peak_beside_looping_reader<Cell>(20'000 / part); });
  counts("versions alive beside a stalled reader",
         [&]<class Cell>() { return peak_beside_stalled_reader<Cell>(50'000 / part); });
}

// --- latency -------------------------------------------------------------------------------------

/// A contender's quantiles in nanoseconds, one a round.
struct latencies {
  static constexpr std::size_t kinds = 6;
  static constexpr std::array<const char*, kinds> names{"p50",    "p99", "p99.9",
                                                        "p99.99", "max", "mean of slowest 0.1 %"};
  std::array<std::vector<double>, kinds> samples;

  void add(const histogram& found) {
    const double ns = ns_per_tick();
    const std::array<double, kinds> now{found.quantile(0.5),
                                        found.quantile(0.99),
                                        found.quantile(0.999),
                                        found.quantile(0.9999),
                                        static_cast<double>(found.longest()),
                                        found.mean_of_slowest(0.001)};
    for (std::size_t i = 0; i < kinds; ++i)
      samples[i].push_back(now[i] * ns);
  }
};

/// Times `operation` alone, again and again, for about `span`.
template <class Operation>
void time_each(std::chrono::milliseconds span, histogram& into, Operation operation) {
  const auto wanted = static_cast<std::uint64_t>(
      std::chrono::duration<double, std::nano>(span).count() / ns_per_tick());
  const std::uint64_t start = ticks();
  for (std::uint64_t now = start; now - start < wanted;) {
    const std::uint64_t before = ticks();
    operation();
    now = ticks();
    into.add(now - before);
  }
}

template <class Cell>
void time_reads(std::chrono::milliseconds span, histogram& into) {
  const auto at = std::make_shared<place<Cell>>();
  at->make();
  {
    contender side;
    side.beside = [at](const std::atomic<bool>& over) { return store_until(**at, 1ms, over); };
    const detail::companion writer(side);
    [[maybe_unused]] const enrollment<Cell> enrolled;
    typename Cell::reader reader(**at);
    time_each(span, into, [&] { keep(reader.read(one_field<settings>)); });
  }
  at->end();
}

void run_latencies(bench& table) {
  const std::string name = "latency beside a writer each 1 ms";
  if (!table.chosen().wants(name)) return;
  table.record("step of the clock for latencies", 1, "the timer alone", "ns", {step_of_ticks()});
  std::vector<std::string> of{"the timer alone"};
  const auto wanted = [&](const char* side) { return table.chosen().wants_contender(side); };
  for_each_cell<settings>(
      [&]<class Cell>() {
        if (wanted(Cell::name)) of.emplace_back(Cell::name);
      },
      [](const char*, const char*) {});
  // Rare events need long runs: the same time in all, in fewer rounds.
  const unsigned rounds = std::min(table.chosen().rounds, most_long_rounds);
  const auto span = table.chosen().per_run * table.chosen().rounds / rounds;
  std::vector<latencies> found(of.size());
  for (unsigned round = 0; round < rounds; ++round) {
    table.tell("round " + std::to_string(round + 1) + ": " + name);
    std::size_t next = 0;
    histogram alone;
    time_each(span, alone, [] {});
    found[next++].add(alone);
    const auto time_cell = [&]<class Cell>() {
      if (!wanted(Cell::name)) return;
      histogram times;
      time_reads<Cell>(span, times);
      found[next++].add(times);
    };
    for_each_cell<settings>(time_cell, [](const char*, const char*) {});
  }
  table.clear();
  for (std::size_t kind = 0; kind < latencies::kinds; ++kind) {
    for (std::size_t i = 0; i < of.size(); ++i)
      table.record(name + ", " + latencies::names[kind], 1, of[i], "ns", found[i].samples[kind]);
  }
}

}  // namespace

int main(int argc, char** argv) {
  bench table("snapshot_cell", parse(argc, argv));
  for_each_cell<settings>([]<class Cell>() {},
                          [&](const char* name, const char* why) { table.absent(name, why); });
  run_reads(table);
  run_reads_amid_work(table);
  run_stores(table);
  run_versions(table);
  run_latencies(table);
  return table.finish();
}
