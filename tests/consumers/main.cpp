// What a consumer writes first: a bit of each primitive, checked. Built by every consumer test.
// SPDX-License-Identifier: BSL-1.0
#include <chrono>
#include <cstdio>

#include "veltrix/veltrix.hpp"

int main() {
  veltrix::snapshot_cell<int> workers(4);
  workers.publish(512);

  veltrix::concurrent_map<int, int> squares;
  {
    veltrix::elastic_pool pool(2);
    for (int i = 0; i < 100; ++i) {
      if (!pool.post([&squares, i] { squares.insert_or_assign(i, i * i); })) return 1;
    }
  }  // stop() ran every accepted task

  const auto nine = squares.get(3);
  std::printf("veltrix %s: workers %d, 3 * 3 = %d\n", VELTRIX_VERSION_STRING, *workers.load(),
              nine.value_or(-1));
  return *workers.load() == 512 && nine == 9 && squares.size() == 100 ? 0 : 1;
}
