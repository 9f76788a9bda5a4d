// loading_cache beside the LRU that a service would write without it.
// SPDX-License-Identifier: BSL-1.0
#include "veltrix/loading_cache.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <vector>

#include "harness.hpp"

namespace {

using key = std::uint64_t;
using value = std::uint64_t;

constexpr std::size_t entries = 100'000;

/// One mutex around a list in order of use and an index.
class locked_lru {
 public:
  explicit locked_lru(std::size_t bound) : bound_(bound) {}

  std::optional<value> get(key asked) {
    const std::lock_guard lock(mutex_);
    const auto found = index_.find(asked);
    if (found == index_.end()) return std::nullopt;
    order_.splice(order_.begin(), order_, found->second);
    return found->second->second;
  }

  void put(key given, value held) {
    const std::lock_guard lock(mutex_);
    const auto [found, is_new] = index_.try_emplace(given);
    if (!is_new) {
      found->second->second = held;
      order_.splice(order_.begin(), order_, found->second);
      return;
    }
    order_.emplace_front(given, held);
    found->second = order_.begin();
    if (order_.size() <= bound_) return;
    index_.erase(order_.back().first);
    order_.pop_back();
  }

 private:
  const std::size_t bound_;
  std::mutex mutex_;  // guards everything below
  std::list<std::pair<key, value>> order_;
  std::unordered_map<key, std::list<std::pair<key, value>>::iterator> index_;
};

/// The same 64 times over.
class sharded_lru {
 public:
  explicit sharded_lru(std::size_t bound) {
    for (auto& each : shards_)
      each = std::make_unique<locked_lru>(bound / shards_.size());
  }
  std::optional<value> get(key asked) { return shard_of(asked).get(asked); }
  void put(key given, value held) { shard_of(given).put(given, held); }

 private:
  locked_lru& shard_of(key asked) { return *shards_[veltrix::detail::mix(asked) % shards_.size()]; }
  std::array<std::unique_ptr<locked_lru>, 64> shards_;
};

/// Keys as they are asked for: Zipf's law over `many` keys, drawn beforehand.
std::vector<key> zipf(std::size_t many, double exponent, std::uint64_t seed) {
  std::vector<double> sums(many);
  double sum = 0;
  for (std::size_t i = 0; i < many; ++i)
    sums[i] = sum += 1 / std::pow(static_cast<double>(i + 1), exponent);
  std::vector<key> drawn(std::size_t(1) << 20);
  for (std::size_t i = 0; i < drawn.size(); ++i) {
    const double at = static_cast<double>(veltrix::detail::mix(i, seed) >> 11) * 0x1p-53 * sum;
    const auto rank = std::lower_bound(sums.begin(), sums.end(), at) - sums.begin();
    drawn[i] = veltrix::detail::mix(static_cast<key>(rank));
  }
  return drawn;
}

template <class Cache>
void read_or_load(Cache& cache, key asked) {
  if (const auto found = cache.get(asked)) {
    veltrix_bench::keep(*found);
  } else {
    cache.put(asked, asked);
  }
}

}  // namespace

int main(int argc, char** argv) {
  using namespace veltrix_bench;
  bench table("loading_cache", parse(argc, argv));

  // Half of the cache asked for again and again; and ten times as many keys as it holds.
  const std::array<std::vector<key>, 2> hits{zipf(entries / 2, 0.99, 1),
                                             zipf(entries / 2, 0.99, 2)};
  const std::array<std::vector<key>, 2> mixed{zipf(entries * 10, 0.99, 3),
                                              zipf(entries * 10, 0.99, 4)};
  const auto each = [](const std::vector<key>& keys, std::uint64_t operations, auto visit) {
    for (std::uint64_t i = 0; i < operations; ++i)
      visit(keys[i & (keys.size() - 1)]);
  };
  const auto load = [](const key& asked) { return value{asked}; };

  locked_lru locked(entries);
  sharded_lru sharded(entries);
  veltrix::loading_cache<key, value> cache({.max_entries = entries});
  for (const auto& keys : hits) {
    for (const key asked : keys) {
      locked.put(asked, asked);
      sharded.put(asked, asked);
      cache.put(asked, asked);
    }
  }

  for (const unsigned threads : {1U, 2U}) {
    table.run("hits, zipf 0.99", threads,
              {{"mutex + list + unordered_map",
                [&](unsigned t, std::uint64_t operations) {
                  each(hits[t], operations, [&](key asked) { keep(locked.get(asked)); });
                }},
               {"64 of them",
                [&](unsigned t, std::uint64_t operations) {
                  each(hits[t], operations, [&](key asked) { keep(sharded.get(asked)); });
                }},
               {"loading_cache get()",
                [&](unsigned t, std::uint64_t operations) {
                  each(hits[t], operations, [&](key asked) { keep(*cache.get(asked)); });
                }},
               {"loading_cache get_or_load()", [&](unsigned t, std::uint64_t operations) {
                  each(hits[t], operations,
                       [&](key asked) { keep(*cache.get_or_load(asked, load)); });
                }}});
  }
  for (const unsigned threads : {1U, 2U}) {
    table.run("10 x the keys, zipf 0.99", threads,
              {{"mutex + list + unordered_map",
                [&](unsigned t, std::uint64_t operations) {
                  each(mixed[t], operations, [&](key asked) { read_or_load(locked, asked); });
                }},
               {"64 of them",
                [&](unsigned t, std::uint64_t operations) {
                  each(mixed[t], operations, [&](key asked) { read_or_load(sharded, asked); });
                }},
               {"loading_cache get_or_load()", [&](unsigned t, std::uint64_t operations) {
                  each(mixed[t], operations,
                       [&](key asked) { keep(*cache.get_or_load(asked, load)); });
                }}});
  }
  return table.finish();
}
