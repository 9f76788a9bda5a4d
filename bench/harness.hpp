// Compares contenders fairly on a noisy machine: interleaved rounds, medians, ratios.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <vector>

namespace veltrix_bench {

/// Keeps a value alive in the eyes of the optimiser, and makes it read memory anew after this.
/// What fits a register must be in one: else an address would do, and the last load be left out.
template <class Value>
inline void keep(const Value& value) {
  if constexpr (std::is_scalar_v<Value>) {
    asm volatile("" : : "r"(value) : "memory");
  } else {
    asm volatile("" : : "r,m"(value) : "memory");
  }
}

/// One way to do the work: `body(thread_index, operations)` does that many operations.
struct contender {
  std::string name;
  std::function<void(unsigned, std::uint64_t)> body;
};

struct options {
  unsigned rounds = 7;                     ///< at least 5
  std::chrono::milliseconds per_run{100};  ///< aimed at for each contender and round
  std::string json_path;                   ///< empty: no file
};

/// `--quick` (smoke: 5 rounds of 10 ms), `--rounds N`, `--ms N`, `--json FILE`.
inline options parse(int argc, char** argv) {
  options chosen;
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    const auto value = [&]() -> const char* {
      if (i + 1 < argc) return argv[++i];
      std::fprintf(stderr, "%s: %s wants a value\n", argv[0], argv[i]);
      std::exit(2);
    };
    if (word == "--quick") {
      chosen.rounds = 5;
      chosen.per_run = std::chrono::milliseconds(10);
    } else if (word == "--rounds") {
      chosen.rounds = std::max(5U, static_cast<unsigned>(std::atoi(value())));
    } else if (word == "--ms") {
      chosen.per_run = std::chrono::milliseconds(std::max(1, std::atoi(value())));
    } else if (word == "--json") {
      chosen.json_path = value();
    } else {
      std::fprintf(stderr, "%s: unknown option %s; known: --quick --rounds N --ms N --json FILE\n",
                   argv[0], argv[i]);
      std::exit(2);
    }
  }
  return chosen;
}

/// A table of contenders per workload. The first contender of a workload is its baseline.
class bench {
 public:
  bench(std::string name, options chosen) : name_(std::move(name)), options_(std::move(chosen)) {}
  bench(const bench&) = delete;
  bench& operator=(const bench&) = delete;

  /// Prints "workload, contender, ns per operation, times the baseline" and keeps it for the file.
  void run(const std::string& workload, unsigned threads, const std::vector<contender>& sides) {
    std::vector<std::uint64_t> operations;
    for (const contender& side : sides)
      operations.push_back(calibrate(side, threads));
    std::vector<std::vector<double>> samples(sides.size());
    for (unsigned round = 0; round < options_.rounds; ++round) {
      for (std::size_t i = 0; i < sides.size(); ++i) {
        const double took = measure(sides[i], threads, operations[i]);
        samples[i].push_back(took / static_cast<double>(operations[i]));
      }
    }
    const double baseline = median(samples[0]);
    for (std::size_t i = 0; i < sides.size(); ++i) {
      const double found = median(samples[i]);
      std::printf("%-14s %-34s t=%u  %-28s %10.2f ns  %6.2fx\n", name_.c_str(), workload.c_str(),
                  threads, sides[i].name.c_str(), found, found / baseline);
      std::fflush(stdout);
      rows_.push_back(row{workload, threads, sides[i].name, found, found / baseline});
    }
  }

  /// Writes the rows as JSON when --json was given. Result: the exit code for main.
  int finish() const {
    if (options_.json_path.empty()) return 0;
    std::FILE* const file = std::fopen(options_.json_path.c_str(), "w");
    if (file == nullptr) {
      std::fprintf(stderr, "cannot write %s\n", options_.json_path.c_str());
      return 1;
    }
    std::fprintf(file, "{\"bench\": \"%s\", \"rounds\": %u, \"cores\": %u, \"rows\": [",
                 name_.c_str(), options_.rounds, std::thread::hardware_concurrency());
    const char* separator = "\n";
    for (const row& each : rows_) {
      std::fprintf(file,
                   "%s  {\"workload\": \"%s\", \"threads\": %u, \"contender\": \"%s\", "
                   "\"ns\": %.3f, \"ratio\": %.4f}",
                   separator, each.workload.c_str(), each.threads, each.name.c_str(), each.ns,
                   each.ratio);
      separator = ",\n";
    }
    std::fprintf(file, "\n]}\n");
    return std::fclose(file) == 0 ? 0 : 1;
  }

 private:
  struct row {
    std::string workload;
    unsigned threads;
    std::string name;
    double ns;     // per operation of one thread
    double ratio;  // to the workload's first contender
  };

  static double median(std::vector<double> values) {
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
  }

  /// Nanoseconds from the moment all threads are let go until the last is done.
  static double measure(const contender& side, unsigned threads, std::uint64_t operations) {
    using clock = std::chrono::steady_clock;
    if (threads == 1) {
      const auto start = clock::now();
      side.body(0, operations);
      return std::chrono::duration<double, std::nano>(clock::now() - start).count();
    }
    std::atomic<unsigned> ready{0};
    std::atomic<bool> go{false};
    std::vector<std::thread> crew;
    for (unsigned t = 0; t < threads; ++t) {
      crew.emplace_back([&, t] {
        ready.fetch_add(1, std::memory_order_acq_rel);
        while (!go.load(std::memory_order_acquire))
          std::this_thread::yield();
        side.body(t, operations);
      });
    }
    while (ready.load(std::memory_order_acquire) != threads)
      std::this_thread::yield();
    const auto start = clock::now();
    go.store(true, std::memory_order_release);
    for (std::thread& each : crew)
      each.join();
    return std::chrono::duration<double, std::nano>(clock::now() - start).count();
  }

  std::uint64_t calibrate(const contender& side, unsigned threads) const {
    const double wanted = std::chrono::duration<double, std::nano>(options_.per_run).count();
    for (std::uint64_t operations = 16;; operations *= 4) {
      const double took = measure(side, threads, operations);
      if (took >= wanted / 8) {
        const double scaled = static_cast<double>(operations) * wanted / took;
        return std::max<std::uint64_t>(1, static_cast<std::uint64_t>(scaled));
      }
    }
  }

  std::string name_;
  options options_;
  std::vector<row> rows_;
};

}  // namespace veltrix_bench
