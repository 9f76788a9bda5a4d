// concurrent_map beside one lock around a standard map, and the map without any lock.
// SPDX-License-Identifier: BSL-1.0
#include "veltrix/concurrent_map.hpp"

#include <mutex>
#include <shared_mutex>
#include <unordered_map>

#include "harness.hpp"

namespace {

constexpr std::uint64_t keys = 10'000;

/// A cheap walk over the keys that no prefetcher follows; another one for each thread.
class key_walk {
 public:
  explicit key_walk(unsigned thread) : state_(thread * 7919 + 1) {}
  std::uint64_t next() {
    state_ = state_ * 6364136223846793005ULL + 1442695040888963407ULL;
    return (state_ >> 33) % keys;
  }

 private:
  std::uint64_t state_;
};

using plain_map = std::unordered_map<std::uint64_t, std::uint64_t>;
using veltrix_map = veltrix::concurrent_map<std::uint64_t, std::uint64_t>;

/// What both workloads run on; `plain_mutex` guards `plain` where a contender says so.
struct maps {
  plain_map plain;
  std::shared_mutex plain_mutex;
  veltrix_map map;
};

void find_hits(veltrix_bench::bench& table, maps& both, unsigned threads) {
  using veltrix_bench::keep;
  plain_map& plain = both.plain;
  std::shared_mutex& plain_mutex = both.plain_mutex;
  veltrix_map& map = both.map;
  table.run("find hit, 10 K keys", threads,
            {{"unordered_map + shared_mutex",
              [&](unsigned t, std::uint64_t n) {
                key_walk walk(t);
                for (std::uint64_t i = 0; i < n; ++i) {
                  const std::shared_lock lock(plain_mutex);
                  keep(plain.find(walk.next())->second);
                }
              }},
             {"unordered_map, no lock",
              [&](unsigned t, std::uint64_t n) {
                key_walk walk(t);
                for (std::uint64_t i = 0; i < n; ++i)
                  keep(plain.find(walk.next())->second);
              }},
             {"concurrent_map visit", [&](unsigned t, std::uint64_t n) {
                key_walk walk(t);
                for (std::uint64_t i = 0; i < n; ++i) {
                  map.visit(walk.next(), [](const std::uint64_t& value) { keep(value); });
                }
              }}});
}

void mixed(veltrix_bench::bench& table, maps& both, unsigned threads) {
  using veltrix_bench::keep;
  plain_map& plain = both.plain;
  std::shared_mutex& plain_mutex = both.plain_mutex;
  veltrix_map& map = both.map;
  table.run("95 % find, 5 % update, 10 K keys", threads,
            {{"unordered_map + shared_mutex",
              [&](unsigned t, std::uint64_t n) {
                key_walk walk(t);
                for (std::uint64_t i = 0; i < n; ++i) {
                  const std::uint64_t key = walk.next();
                  if (i % 20 == 0) {
                    const std::lock_guard lock(plain_mutex);
                    ++plain[key];
                  } else {
                    const std::shared_lock lock(plain_mutex);
                    keep(plain.find(key)->second);
                  }
                }
              }},
             {"concurrent_map", [&](unsigned t, std::uint64_t n) {
                key_walk walk(t);
                for (std::uint64_t i = 0; i < n; ++i) {
                  const std::uint64_t key = walk.next();
                  if (i % 20 == 0) {
                    map.update(key, [](std::uint64_t& value) { ++value; });
                  } else {
                    map.visit(key, [](const std::uint64_t& value) { keep(value); });
                  }
                }
              }}});
}

}  // namespace

int main(int argc, char** argv) {
  veltrix_bench::bench table("concurrent_map", veltrix_bench::parse(argc, argv));
  maps both;
  for (std::uint64_t key = 0; key < keys; ++key) {
    both.plain.emplace(key, key);
    both.map.insert(key, key);
  }
  for (const unsigned threads : {1U, 2U}) {
    find_hits(table, both, threads);
    mixed(table, both, threads);
  }
  return table.finish();
}
