// A configuration that is checked before it is in force, read in a hot loop, and followed.
// SPDX-License-Identifier: BSL-1.0
#include <veltrix/snapshot_cell.hpp>

#include <cstdio>
#include <string>
#include <vector>

struct limits {
  int workers;
  int queue;
  bool operator==(const limits&) const = default;
};

std::vector<std::string> check(const limits& candidate, const limits&) {
  if (candidate.workers < 1) return {"workers must be at least 1"};
  return {};
}

int main() {
  veltrix::snapshot_cell<limits> cell(limits{4, 100}, {.history = 8}, check);

  // Follow it: called after each change, with no lock held.
  int told = 0;
  const auto following = cell.subscribe([&](const limits&, std::uint64_t) { ++told; });
  const auto total = cell.derive([](const limits& now) { return now.workers * now.queue; });

  // Replace it: whole, or from the value in force.
  cell.publish({64, 100});
  const bool grown = static_cast<bool>(
      cell.update([](const limits& now) { return limits{now.workers * 8, now.queue}; }));

  // A bad value changes nothing and says why.
  const auto refused = cell.try_publish({0, 100});
  std::printf("refused: %s; version %d stays\n", refused.reasons.front().c_str(),
              static_cast<int>(refused.version));

  // Read it: a guard for one look, a reader for a loop.
  const auto guard = cell.load();
  auto reader = cell.reader();
  long sum = 0;
  for (int i = 0; i < 1000; ++i)
    sum += reader.get().workers;

  // Go back: version 2's value, as version 4.
  const bool back = static_cast<bool>(cell.rollback(2));
  std::printf("workers %d, version %d, told %d times\n", cell.load()->workers,
              static_cast<int>(cell.version()), told);

  const bool right = grown && !refused && guard->workers == 512 && sum == 512'000 && back &&
                     cell.load()->workers == 64 && cell.version() == 4 && told == 3 &&
                     *total.load() == 6400;
  return right ? 0 : 1;
}
