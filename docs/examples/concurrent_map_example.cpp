// Word counts by several threads, and what each kind of operation is for.
// SPDX-License-Identifier: BSL-1.0
#include <veltrix/concurrent_map.hpp>

#include <cstdio>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

int main() {
  veltrix::concurrent_map<std::string, int> counts({.shards = 16});

  // Write: each change of a key happens at once, whoever else is at it.
  const std::string_view words[] = {"to", "be", "or", "not", "to", "be"};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (const std::string_view word : words)
        counts.upsert(word, [](int& count) { ++count; });
    });
  }
  for (std::thread& each : threads)
    each.join();

  // Read: a copy, a call, or the entry itself, kept alive while others change the key.
  const int to = counts.get("to").value_or(0);
  const auto held = counts.find("be");
  counts.erase("be");
  std::printf("to: %d, be: %d (erased meanwhile)\n", to, *held);

  // Decide under the key's lock; make what is missing only once.
  counts.compute("or", [](std::optional<int>& count) {
    if (count == 4) count.reset();
  });
  const auto made = counts.get_or_emplace("question", [] { return 1; });

  // Walk: no lock is held meanwhile, so the visitor may change the map.
  int total = 0;
  counts.for_each([&](const std::string& word, int count) {
    total += count;
    if (count > 4) counts.erase(word);
  });
  std::printf("%d words seen, %zu keys left\n", total, counts.size());

  const bool right = to == 8 && *held == 8 && made.inserted && *made.entry == 1 && total == 13 &&
                     counts.size() == 2 && counts.contains("not");
  return right ? 0 : 1;
}
