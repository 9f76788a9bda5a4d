// SPDX-License-Identifier: BSL-1.0
#include <veltrix/elastic_pool.hpp>
#include <veltrix/keyed_executor.hpp>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <span>
#include <vector>

struct payment {
  std::uint64_t account;
  int amount;
};

int main() {
  constexpr std::size_t accounts = 100;
  std::vector<int> balance(accounts);   // no lock: an account's payments never run at once
  std::vector<int> smallest(accounts);  // below 0 if a withdrawal overtook its deposit

  veltrix::elastic_pool pool(2);
  veltrix::keyed_executor<payment, veltrix::elastic_pool&> lanes(
      pool, {.max_items = 1000, .max_bytes = veltrix::no_byte_limit},
      [&](std::size_t, std::span<payment> batch) {
        for (const payment& each : batch) {
          balance[each.account] += each.amount;
          smallest[each.account] = std::min(smallest[each.account], balance[each.account]);
        }
      });

  // A block at a time: few locks, and at most one wake-up.
  std::vector<veltrix::keyed_item<payment>> block;
  bool taken = true;
  for (int round = 0; round < 100; ++round) {
    block.clear();
    for (std::uint64_t account = 0; account < accounts; ++account) {
      block.push_back({account, {account, +5}});
      block.push_back({account, {account, -4}});
    }
    taken = taken && lanes.submit_wait(block);            // waits while 1,000 are in flight
    if (round == 50) taken = taken && pool.resize_to(4);  // reorders nothing
  }
  const bool drained = static_cast<bool>(lanes.drain());

  const auto seen = lanes.stats();
  std::printf("%llu payments in %llu batches, at most %zu in flight\n",
              static_cast<unsigned long long>(seen.handled),
              static_cast<unsigned long long>(seen.batches), seen.peak.items);
  const bool right = taken && drained && balance == std::vector<int>(accounts, 100) &&
                     smallest == std::vector<int>(accounts, 0) && seen.handled == 20'000 &&
                     seen.peak.items <= 1000;
  return right ? 0 : 1;
}
