// Counts durations in buckets that are at most 1/32 wide, without a lock.
// Use for: p50, p99 and p99.9 of latencies from many threads.
// Not for: exact values; a quantile is the upper end of its bucket, at most 3.2 % too high.
// Threads: all members may be called from any thread.
// Progress: record() is wait-free; the rest is linear in the buckets.
// Callbacks: none.
// Exceptions: none.
// Lifetime: about 15 KiB inside the object.
// Guide: docs/worker.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>

#include "../clock.hpp"
#include "../detail/sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// Log-linear, as HdrHistogram: below 32 ns one bucket each, then 32 for each power of two.
class latency_histogram {
 public:
  /// Longer durations count as this one: about 9 hours.
  static constexpr std::int64_t longest_ns = (std::int64_t{1} << 45) - 1;

  latency_histogram() = default;
  latency_histogram(const latency_histogram&) = delete;
  latency_histogram& operator=(const latency_histogram&) = delete;

  /// Counts `count` durations of `value`; a negative one counts as 0.
  void record(duration value, std::uint64_t count = 1) noexcept {
    const auto ns =
        static_cast<std::uint64_t>(std::clamp<std::int64_t>(value.count(), 0, longest_ns));
    buckets_[bucket_of(ns)].fetch_add(count, detail::sync::relaxed);
    total_ns_.fetch_add(ns * count, detail::sync::relaxed);
  }

  [[nodiscard]] std::uint64_t count() const noexcept {
    std::uint64_t sum = 0;
    for (const auto& bucket : buckets_)
      sum += bucket.load(detail::sync::relaxed);
    return sum;
  }

  [[nodiscard]] duration total() const noexcept {
    return duration(static_cast<std::int64_t>(total_ns_.load(detail::sync::relaxed)));
  }

  /// The smallest bucket's end that `share` (0 to 1) of all durations do not exceed; 0 if there are
  /// none.
  [[nodiscard]] duration quantile(double share) const noexcept {
    const std::uint64_t all = count();
    if (all == 0) return duration::zero();
    const double exact = share * static_cast<double>(all);
    const auto wanted = std::clamp<std::uint64_t>(
        static_cast<std::uint64_t>(exact) +
            (exact > static_cast<double>(static_cast<std::uint64_t>(exact)) ? 1 : 0),
        1, all);
    std::uint64_t seen = 0;
    std::size_t last = 0;
    for (std::size_t at = 0; at < buckets_.size(); ++at) {
      const std::uint64_t here = buckets_[at].load(detail::sync::relaxed);
      if (here != 0) last = at;
      seen += here;
      if (seen >= wanted) break;
    }
    return duration(end_of(last));
  }

 private:
  static constexpr unsigned sub_bits = 5;
  static constexpr std::size_t sub_buckets = std::size_t{1} << sub_bits;
  static constexpr std::size_t bucket_count = (45 - sub_bits + 1) * sub_buckets;

  static constexpr std::size_t bucket_of(std::uint64_t ns) noexcept {
    if (ns < sub_buckets) return static_cast<std::size_t>(ns);
    const auto power = static_cast<unsigned>(std::bit_width(ns)) - 1 - sub_bits;
    return (std::size_t{power} + 1) * sub_buckets +
           static_cast<std::size_t>((ns >> power) - sub_buckets);
  }

  /// The largest value of a bucket.
  static constexpr std::int64_t end_of(std::size_t bucket) noexcept {
    if (bucket < sub_buckets) return static_cast<std::int64_t>(bucket);
    const auto power = static_cast<unsigned>(bucket / sub_buckets - 1);
    const std::uint64_t mantissa = bucket % sub_buckets + sub_buckets;
    return static_cast<std::int64_t>(((mantissa + 1) << power) - 1);
  }

  // relaxed: statistics only; a reader may see a count of one bucket before another's.
  std::array<detail::sync::atomic<std::uint64_t>, bucket_count> buckets_{};
  // relaxed: statistics only.
  detail::sync::atomic<std::uint64_t> total_ns_{0};
};

}  // namespace VELTRIX_ABI
}  // namespace veltrix
