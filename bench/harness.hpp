// Compares contenders fairly on a noisy machine: interleaved rounds, medians, ratios.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <pthread.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

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
#include <utility>
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

/// Gives what is contended cache lines of its own, so that no contender has luck with its place.
/// 128: processors fetch lines in pairs.
template <class Value>
struct alignas(128) apart {
  template <class... Arguments>
  explicit apart(Arguments&&... arguments) : value(std::forward<Arguments>(arguments)...) {}
  Value value;
};

/// One way to do the work. Each of these is called once per measurement, never once per operation.
struct contender {
  std::string name;
  /// `body(thread, operations)` does that many operations.
  std::function<void(unsigned, std::uint64_t)> body;
  /// Instead of `body`, where a thread needs something that is not to be timed: `enter(thread)`
  /// returns what does a number of operations. Made, used and ended in that thread.
  std::function<std::function<void(std::uint64_t)>(unsigned)> enter = nullptr;
  /// Runs in a thread of its own while the bodies do, until `over`; returns how often it did what
  /// it does.
  std::function<std::uint64_t(const std::atomic<bool>& over)> beside = nullptr;
  std::function<void()> before = nullptr;  ///< each measurement, not timed
  std::function<void()> after = nullptr;   ///< each measurement, not timed
};

enum class shown_as : std::uint8_t {
  ratio,       ///< "1.35x" the baseline
  difference,  ///< "+1.35 ns" over the baseline
};

/// The same work by several contenders. The first one is the baseline.
struct workload {
  std::string name;
  unsigned threads = 1;
  std::vector<contender> sides;
  shown_as shown = shown_as::ratio;
  std::uint64_t operations = 0;  ///< of one thread, in each measurement; 0: what fills the time
  unsigned most_rounds = ~0U;    ///< of what takes long
  std::uint64_t few = 16;        ///< operations that take far less than a run; tried first
};

struct options {
  unsigned rounds = 7;                     ///< at least 5, but for a smoke test
  std::chrono::milliseconds per_run{100};  ///< aimed at for each contender and round
  std::string json_path;                   ///< empty: no file
  std::vector<std::string> only;           ///< parts of workloads' names; empty: all
  std::vector<std::string> contenders;     ///< parts of names, besides the baseline; empty: all
  bool quick = false;                      ///< a smoke test: figures mean nothing

  [[nodiscard]] bool wants(const std::string& workload) const { return named(workload, only); }
  [[nodiscard]] bool wants_contender(const std::string& name) const {
    return named(name, contenders);
  }

 private:
  static bool named(const std::string& name, const std::vector<std::string>& parts) {
    return parts.empty() || std::any_of(parts.begin(), parts.end(), [&](const std::string& part) {
             return name.find(part) != std::string::npos;
           });
  }
};

/// `--quick` (smoke: 2 short rounds), `--rounds N`, `--ms N`, `--only TEXT`, `--contender TEXT`,
/// `--json FILE`.
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
      chosen.quick = true;
      chosen.rounds = 2;
      chosen.per_run = std::chrono::milliseconds(1);
    } else if (word == "--rounds") {
      chosen.rounds = std::max(5U, static_cast<unsigned>(std::atoi(value())));
    } else if (word == "--ms") {
      chosen.per_run = std::chrono::milliseconds(std::max(1, std::atoi(value())));
    } else if (word == "--only") {
      chosen.only.emplace_back(value());
    } else if (word == "--contender") {
      chosen.contenders.emplace_back(value());
    } else if (word == "--json") {
      chosen.json_path = value();
    } else {
      std::fprintf(stderr,
                   "%s: unknown option %s; known: --quick --rounds N --ms N --only TEXT "
                   "--contender TEXT --json FILE\n",
                   argv[0], argv[i]);
      std::exit(2);
    }
  }
  return chosen;
}

inline double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// What one measurement of one contender found.
struct measured {
  double wall_ns = 0;    ///< from the moment all threads are let go until the last is done
  double beside_ns = 0;  ///< of the thread beside, per time it did what it does; 0: nobody beside
  double cpu_ns = 0;     ///< processor time of the measured threads, their mean
};

namespace detail {

inline double thread_cpu_ns() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}

inline double wall_ns() {
  return std::chrono::duration<double, std::nano>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

/// The thread beside a measurement, from its construction to stop().
class companion {
 public:
  explicit companion(const contender& side) {
    if (!side.beside) return;
    thread_ = std::thread([this, &side] {
      const double start = wall_ns();
      running_.store(true, std::memory_order_release);
      const std::uint64_t times = side.beside(over_);
      per_time_ns_ = (wall_ns() - start) / static_cast<double>(std::max<std::uint64_t>(1, times));
    });
    while (!running_.load(std::memory_order_acquire))
      std::this_thread::yield();
  }
  companion(const companion&) = delete;
  companion& operator=(const companion&) = delete;
  ~companion() { stop(); }

  /// Result: nanoseconds per time that it did what it does, 0 if there is nobody beside.
  double stop() {
    over_.store(true, std::memory_order_release);
    if (thread_.joinable()) thread_.join();
    return per_time_ns_;
  }

 private:
  std::atomic<bool> running_{false};
  std::atomic<bool> over_{false};
  double per_time_ns_ = 0;  // written by thread_, read after the join
  std::thread thread_;
};

/// Gives the threads of a crew a core each, as far as there are: else the scheduler may leave two
/// on one for as long as a short run, and nobody contends.
inline void settle([[maybe_unused]] unsigned thread) {
#ifdef __linux__
  static const std::vector<int> cores = [] {
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    sched_getaffinity(0, sizeof allowed, &allowed);
    std::vector<int> found;
    for (int core = 0; core < CPU_SETSIZE; ++core) {
      if (CPU_ISSET(core, &allowed)) found.push_back(core);
    }
    return found;
  }();
  if (cores.empty()) return;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(cores[thread % cores.size()], &one);
  pthread_setaffinity_np(pthread_self(), sizeof one, &one);
#endif
}

/// What one thread of a measurement found.
struct thread_times {
  double cpu_ns = 0;
  double ended = 0;
};

/// One thread's run, once `wait` returns.
template <class Wait>
thread_times timed_run(const contender& side, unsigned thread, std::uint64_t operations,
                       Wait wait) {
  std::function<void(std::uint64_t)> run;
  if (side.enter) {
    run = side.enter(thread);
  } else {
    run = [&side, thread](std::uint64_t count) { side.body(thread, count); };
  }
  wait();
  const double cpu_start = thread_cpu_ns();
  run(operations);
  return {thread_cpu_ns() - cpu_start, wall_ns()};
}

/// Result: when the threads were let go. One thread is the caller itself.
inline double timed_crew(const contender& side, std::uint64_t operations,
                         std::vector<thread_times>& times) {
  double start = 0;
  if (times.size() == 1) {
    times[0] = timed_run(side, 0, operations, [&] { start = wall_ns(); });
    return start;
  }
  // The last to be ready lets all go. The others stay on their cores for about a millisecond: who
  // gave its core away gets it back when others on the machine please, and that would be timed.
  constexpr unsigned turns_on_core = 20'000;
  const bool crowded = times.size() > std::thread::hardware_concurrency();
  std::atomic<std::size_t> missing{times.size()};
  std::atomic<bool> go{false};
  std::vector<std::thread> crew;
  for (unsigned t = 0; t < times.size(); ++t) {
    crew.emplace_back([&, t] {
      settle(t);
      times[t] = timed_run(side, t, operations, [&] {
        if (missing.fetch_sub(1, std::memory_order_acq_rel) == 1) {
          start = wall_ns();  // read after the joins
          go.store(true, std::memory_order_release);
        }
        for (unsigned turns = 0; !go.load(std::memory_order_acquire); ++turns) {
          if (crowded || turns > turns_on_core) std::this_thread::yield();
        }
      });
    });
  }
  for (std::thread& each : crew)
    each.join();
  return start;
}

inline measured measure(const contender& side, unsigned threads, std::uint64_t operations) {
  if (side.before) side.before();
  measured found;
  {
    companion beside(side);
    std::vector<thread_times> times(threads);
    const double start = timed_crew(side, operations, times);
    found.beside_ns = beside.stop();
    for (const thread_times& each : times) {
      found.wall_ns = std::max(found.wall_ns, each.ended - start);
      found.cpu_ns += each.cpu_ns / threads;
    }
  }
  if (side.after) side.after();
  return found;
}

/// Says on stderr how far a long run is: a line that is overwritten on a terminal, else one plain
/// line each ten seconds.
class progress {
 public:
  void tell(const std::string& text) {
    const auto now = std::chrono::steady_clock::now();
    if (terminal_) {
      std::fprintf(stderr, "\r%.100s\033[K", text.c_str());
    } else if (now - last_ >= std::chrono::seconds(10)) {
      std::fprintf(stderr, "%s\n", text.c_str());
      last_ = now;
    }
  }
  void clear() const {
    if (terminal_) std::fprintf(stderr, "\r\033[K");
  }

 private:
  bool terminal_ = isatty(STDERR_FILENO) == 1;
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

}  // namespace detail

/// A table of contenders per workload, printed, and written as JSON on request.
class bench {
 public:
  bench(std::string name, options chosen) : name_(std::move(name)), options_(std::move(chosen)) {
    // In a process that never had a second thread, libstdc++ counts references without atomics.
    std::thread([] {}).join();
  }
  bench(const bench&) = delete;
  bench& operator=(const bench&) = delete;

  [[nodiscard]] const options& chosen() const { return options_; }

  /// One workload alone.
  void run(const std::string& name, unsigned threads, const std::vector<contender>& sides) {
    run({workload{name, threads, sides}});
  }

  /// Measures every contender of every workload once per round, so that what is slow for a while
  /// is slow for all, and prints "workload, contender, ns per operation of one thread, times the
  /// baseline". Every other round runs backwards: a steady drift favours nobody. The ratio is the
  /// median of each round's ratio, which a change between rounds does not move.
  void run(std::vector<workload> together) {
    std::erase_if(together, [&](const workload& each) { return !options_.wants(each.name); });
    for (workload& each : together) {
      const std::string baseline = each.sides.front().name;
      std::erase_if(each.sides, [&](const contender& side) {
        return side.name != baseline && !options_.wants_contender(side.name);
      });
    }
    std::vector<series> all;
    for (const workload& each : together) {
      for (const contender& side : each.sides) {
        progress_.tell(name_ + ": finding the length of a run: " + each.name + ", " + side.name);
        const std::uint64_t operations =
            each.operations != 0 ? each.operations : calibrate(side, each);
        all.push_back(series{&each, &side, operations, {}, {}, {}});
      }
    }
    for (unsigned round = 0; round < options_.rounds; ++round) {
      for (series& each : all) {
        if (round < each.of->most_rounds) measure_once(each, round);
      }
      std::reverse(all.begin(), all.end());
    }
    if (options_.rounds % 2 == 1) std::reverse(all.begin(), all.end());
    progress_.clear();
    const series* baseline = nullptr;
    for (const series& each : all) {
      if (each.side == each.of->sides.data()) baseline = &each;
      conclude(each, *baseline);
    }
  }

  /// Keeps and prints what a bench counted or timed itself, one sample per round.
  void record(const std::string& of, unsigned threads, const std::string& side,
              const std::string& unit, std::vector<double> samples) {
    row found{of, threads, side, unit, median(samples), 0, "", 0, std::move(samples), {}};
    std::printf("%-14s %-44s t=%u  %-28s %10.2f %s\n", name_.c_str(), of.c_str(), threads,
                side.c_str(), found.value, unit.c_str());
    std::fflush(stdout);
    rows_.push_back(std::move(found));
  }

  /// Keeps and prints that a contender cannot be measured here.
  void absent(const std::string& side, const std::string& why) {
    std::printf("%-14s skipped: %s: %s\n", name_.c_str(), side.c_str(), why.c_str());
    absent_.emplace_back(side, why);
  }

  void tell(const std::string& text) { progress_.tell(name_ + ": " + text); }
  void clear() const { progress_.clear(); }

  /// Writes the rows as JSON when --json was given. Result: the exit code for main.
  int finish() const {
    if (options_.json_path.empty()) return 0;
    std::FILE* const file = std::fopen(options_.json_path.c_str(), "w");
    if (file == nullptr) {
      std::fprintf(stderr, "cannot write %s\n", options_.json_path.c_str());
      return 1;
    }
    std::fprintf(file, "{\"bench\": \"%s\", \"rounds\": %u, \"ms\": %lld, \"cores\": %u,\n",
                 name_.c_str(), options_.rounds, static_cast<long long>(options_.per_run.count()),
                 std::thread::hardware_concurrency());
    write(file, "only", options_.only);
    write(file, "contenders", options_.contenders);
    std::fprintf(file, "\"absent\": [");
    const char* separator = "";
    for (const auto& [side, why] : absent_) {
      std::fprintf(file, "%s{\"contender\": \"%s\", \"why\": \"%s\"}", separator, side.c_str(),
                   why.c_str());
      separator = ", ";
    }
    std::fprintf(file, "],\n\"rows\": [");
    separator = "\n";
    for (const row& each : rows_) {
      std::fprintf(file, "%s", separator);
      write(file, each);
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
    std::string unit;
    double value;        // the median of the samples
    double ratio;        // to `versus`: the median of the rounds' ratios; 0: none
    std::string versus;  // the workload's first contender; empty: none
    double beside_ns;    // 0: nobody beside
    std::vector<double> samples;
    std::vector<double> cpu_samples;  // the same in processor time; empty: not known
  };

  /// A contender's samples, one a round.
  struct series {
    const workload* of;
    const contender* side;
    std::uint64_t operations;
    std::vector<double> samples;      // ns per operation of one thread
    std::vector<double> cpu_samples;  // the same in processor time
    std::vector<double> beside_ns;
  };

  void measure_once(series& each, unsigned round) {
    progress_.tell(name_ + ": round " + std::to_string(round + 1) + " of " +
                   std::to_string(options_.rounds) + ": " + each.of->name + ", " +
                   "t=" + std::to_string(each.of->threads) + ", " + each.side->name);
    const measured found = detail::measure(*each.side, each.of->threads, each.operations);
    each.samples.push_back(found.wall_ns / static_cast<double>(each.operations));
    each.cpu_samples.push_back(found.cpu_ns / static_cast<double>(each.operations));
    each.beside_ns.push_back(found.beside_ns);
  }

  void conclude(const series& each, const series& baseline) {
    std::vector<double> ratios;
    std::vector<double> differences;
    std::vector<double> cpu_differences;
    for (std::size_t i = 0; i < each.samples.size(); ++i) {
      cpu_differences.push_back(each.cpu_samples[i] - baseline.cpu_samples[i]);
      ratios.push_back(each.samples[i] / baseline.samples[i]);
      differences.push_back(each.samples[i] - baseline.samples[i]);
    }
    row found{each.of->name,        each.of->threads, each.side->name,     "ns",
              median(each.samples), median(ratios),   baseline.side->name, median(each.beside_ns),
              each.samples,         each.cpu_samples};
    std::printf("%-14s %-44s t=%u  %-28s %10.2f ns", name_.c_str(), found.workload.c_str(),
                found.threads, found.name.c_str(), found.value);
    if (each.of->shown == shown_as::ratio) {
      std::printf("  %7.2fx", found.ratio);
    } else {
      std::printf("  %+7.2f ns", median(differences));
    }
    if (found.beside_ns > 0) std::printf("  (beside: %.0f ns each)", found.beside_ns);
    std::printf("\n");
    std::fflush(stdout);
    if (each.of->shown == shown_as::difference && each.side != baseline.side) {
      row added = found;
      added.workload += ", added";
      added.value = median(differences);
      added.versus.clear();
      added.samples = std::move(differences);
      added.cpu_samples = std::move(cpu_differences);
      rows_.push_back(std::move(added));
    }
    rows_.push_back(std::move(found));
  }

  static void write(std::FILE* file, const char* key, const std::vector<std::string>& words) {
    std::fprintf(file, "\"%s\": [", key);
    const char* separator = "";
    for (const std::string& word : words) {
      std::fprintf(file, "%s\"%s\"", separator, word.c_str());
      separator = ", ";
    }
    std::fprintf(file, "],\n");
  }

  static void write(std::FILE* file, const row& each) {
    std::fprintf(file,
                 "  {\"workload\": \"%s\", \"threads\": %u, \"contender\": \"%s\", "
                 "\"unit\": \"%s\", \"value\": %.4f",
                 each.workload.c_str(), each.threads, each.name.c_str(), each.unit.c_str(),
                 each.value);
    if (!each.versus.empty()) {
      std::fprintf(file, ", \"ratio\": %.4f, \"versus\": \"%s\"", each.ratio, each.versus.c_str());
    }
    if (each.beside_ns > 0) std::fprintf(file, ", \"beside_ns\": %.1f", each.beside_ns);
    write(file, "samples", each.samples);
    if (!each.cpu_samples.empty()) write(file, "cpu_samples", each.cpu_samples);
    std::fprintf(file, "}");
  }

  static void write(std::FILE* file, const char* key, const std::vector<double>& samples) {
    std::fprintf(file, ", \"%s\": [", key);
    const char* separator = "";
    for (const double sample : samples) {
      std::fprintf(file, "%s%.5g", separator, sample);
      separator = ", ";
    }
    std::fprintf(file, "]");
  }

  /// How many operations take about as long as wanted. Two runs must be long enough: one alone may
  /// have been held up.
  std::uint64_t calibrate(const contender& side, const workload& of) const {
    if (options_.quick) return 256;
    const double wanted = std::chrono::duration<double, std::nano>(options_.per_run).count();
    for (std::uint64_t operations = of.few;;) {
      double took = detail::measure(side, of.threads, operations).wall_ns;
      if (took >= wanted / 8) {
        took = std::min(took, detail::measure(side, of.threads, operations).wall_ns);
      }
      if (took >= wanted / 8) {
        const double scaled = static_cast<double>(operations) * wanted / took;
        return std::max<std::uint64_t>(1, static_cast<std::uint64_t>(scaled));
      }
      operations *= took < wanted / 128 ? 16 : 4;
    }
  }

  std::string name_;
  options options_;
  detail::progress progress_;
  std::vector<row> rows_;
  std::vector<std::pair<std::string, std::string>> absent_;  // contender, why
};

}  // namespace veltrix_bench
