// Times single operations: a clock as cheap as the machine has, and a histogram of its ticks.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/resource.h>
#include <time.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

namespace veltrix_bench {

/// Counts at a steady rate. The fences keep what is timed between two calls.
inline std::uint64_t ticks() {
#if defined(__x86_64__)
  _mm_lfence();
  const std::uint64_t now = __rdtsc();
  _mm_lfence();
  return now;
#else
  return static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch() /
                                    std::chrono::nanoseconds(1));
#endif
}

/// Measured once, against steady_clock.
inline double ns_per_tick() {
  static const double found = [] {
    using clock = std::chrono::steady_clock;
    const auto start = clock::now();
    const std::uint64_t first = ticks();
    while (clock::now() - start < std::chrono::milliseconds(20)) {}
    const std::uint64_t last = ticks();
    const auto took = std::chrono::duration<double, std::nano>(clock::now() - start).count();
    return took / static_cast<double>(last - first);
  }();
  return found;
}

/// The shortest span that ticks() can tell from none, in nanoseconds: some clocks step far.
inline double step_of_ticks() {
  std::uint64_t shortest = ~std::uint64_t{0};
  std::uint64_t last = ticks();
  for (unsigned i = 0; i < 10'000; ++i) {
    const std::uint64_t now = ticks();
    if (now != last && now - last < shortest) shortest = now - last;
    last = now;
  }
  return static_cast<double>(shortest) * ns_per_tick();
}

/// Durations in ticks; exact below 256, within 1 % above.
class histogram {
 public:
  void add(std::uint64_t took) {
    bucket& into = buckets_[index(took)];
    ++into.count;
    into.sum += took;
    ++count_;
    if (took > longest_) longest_ = took;
  }

  [[nodiscard]] std::uint64_t count() const { return count_; }
  [[nodiscard]] std::uint64_t longest() const { return longest_; }

  /// The mean of the bucket in which the duration is that `part` of all do not exceed.
  [[nodiscard]] double quantile(double part) const {
    const auto wanted = static_cast<std::uint64_t>(part * static_cast<double>(count_));
    std::uint64_t seen = 0;
    for (const bucket& each : buckets_) {
      seen += each.count;
      if (seen > wanted) return static_cast<double>(each.sum) / static_cast<double>(each.count);
    }
    return static_cast<double>(longest_);
  }

  /// How many took as long as that or longer, to the exactness of a bucket.
  [[nodiscard]] std::uint64_t above(double took) const {
    std::uint64_t found = 0;
    for (std::size_t i = index(static_cast<std::uint64_t>(took)); i < buckets_.size(); ++i)
      found += buckets_[i].count;
    return found;
  }

  /// The mean of the slowest `part` of all.
  [[nodiscard]] double mean_of_slowest(double part) const {
    const double wanted = part * static_cast<double>(count_);
    double taken = 0;
    double sum = 0;
    for (std::size_t i = buckets_.size(); i-- > 0 && taken < wanted;) {
      if (buckets_[i].count == 0) continue;
      const auto in_it = static_cast<double>(buckets_[i].count);
      const double used = in_it < wanted - taken ? in_it : wanted - taken;
      sum += static_cast<double>(buckets_[i].sum) * used / in_it;
      taken += used;
    }
    return taken == 0 ? 0 : sum / taken;
  }

 private:
  struct bucket {
    std::uint64_t count = 0;
    std::uint64_t sum = 0;
  };
  static constexpr unsigned exact_bits = 8;
  static constexpr std::size_t per_power = std::size_t{1} << (exact_bits - 1);

  /// 256 buckets of one tick, then 128 for each power of two.
  static std::size_t index(std::uint64_t took) {
    const auto width = static_cast<unsigned>(std::bit_width(took));
    if (width <= exact_bits) return static_cast<std::size_t>(took);
    const unsigned shift = width - exact_bits;
    return shift * per_power + static_cast<std::size_t>(took >> shift);
  }

  std::vector<bucket> buckets_ = std::vector<bucket>((64 - exact_bits + 2) * per_power);
  std::uint64_t count_ = 0;
  std::uint64_t longest_ = 0;
};

/// Times each operation of one thread, and tells what they cost from what they took: a slow one
/// whose thread lost its core, but waited for nothing, costs its processor time.
class stall_meter {
 public:
  template <class Operation>
  void time(Operation operation) {
    if (since_look_++ == look_each) look();
    const std::uint64_t before = ticks();
    operation();
    const std::uint64_t took = ticks() - before;
    const std::uint64_t cost = took < slow_ ? took : cost_of(took);
    costs_.add(cost);
    sum_ += cost;
    slowest_ = std::max(slowest_, took);
  }

  [[nodiscard]] const histogram& costs() const { return costs_; }
  [[nodiscard]] std::uint64_t sum_of_costs() const { return sum_; }
  [[nodiscard]] std::uint64_t slowest() const { return slowest_; }  ///< by what it took

 private:
  static constexpr unsigned look_each = 256;  // so that what came before a slow one is not much
  static constexpr double slow_ns = 20'000;

  /// What the thread has used so far.
  struct usage {
    double cpu_ns;
    long waits;  // it gave its core away to wait for something

    static usage now() {
      ::rusage used{};
      ::getrusage(RUSAGE_THREAD, &used);
      ::timespec cpu{};
      ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu);
      return {static_cast<double>(cpu.tv_sec) * 1e9 + static_cast<double>(cpu.tv_nsec),
              used.ru_nvcsw};
    }
  };

  void look() {
    last_ = usage::now();
    since_look_ = 0;
  }

  std::uint64_t cost_of(std::uint64_t took) {
    const usage before = last_;
    look();
    if (last_.waits != before.waits) return took;
    return std::min(took,
                    static_cast<std::uint64_t>((last_.cpu_ns - before.cpu_ns) / ns_per_tick()));
  }

  const std::uint64_t slow_ = static_cast<std::uint64_t>(slow_ns / ns_per_tick());
  histogram costs_;  // in ticks, as all else
  std::uint64_t sum_ = 0;
  std::uint64_t slowest_ = 0;
  usage last_ = usage::now();  // of the thread that made this
  unsigned since_look_ = 0;
};

}  // namespace veltrix_bench
