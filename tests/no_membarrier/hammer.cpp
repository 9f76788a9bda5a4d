// Readers against writers, in the mode of fences that is expected.
//   hammer ordered|membarrier
//   hammer withdrawn            membarrier works at first, and is refused later: the program aborts
// SPDX-License-Identifier: BSL-1.0
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "filter.hpp"
#include "support/collisions.hpp"
#include "support/death.hpp"
#include "support/scale.hpp"
#include "support/self_poisoning.hpp"
#include "support/skip.hpp"
#include "support/threads.hpp"
#include "veltrix/snapshot_cell.hpp"

namespace {

using cell_type = veltrix::snapshot_cell<veltrix_test::self_poisoning>;
using veltrix::detail::sync::fence_mode;

/// Result: reads that saw a value after its end.
std::uint64_t hammer() {
  cell_type cell(std::in_place, 1U);
  std::atomic<int> writers{2};
  std::atomic<std::uint64_t> wrong{0};
  const auto read = [&] {
    auto reader = cell.reader();
    while (writers != 0) {
      const auto guard = cell.load();
      const auto nested = reader.load();
      if (!guard->is(guard.version()) || !nested->is(nested.version())) ++wrong;
      if (!reader.get().is(reader.version()) || !cell.share()->intact()) ++wrong;
    }
  };
  const auto write = [&] {
    for (std::size_t i = 0; i < veltrix_test::scale(200'000); ++i) {
      static_cast<void>(cell.update([](const veltrix_test::self_poisoning& now) {
        return veltrix_test::self_poisoning(now.number() + 1);
      }));
      if (i % 4 == 0) cell.collect();  // so that values end soon after they are replaced
    }
    --writers;
  };
  veltrix_test::run_at_once({read, read, write, write});
  cell.collect();
  return wrong + cell.stats().versions_alive - 1;
}

int withdrawn() {
  if (veltrix::reclaim_domain::shared().mode() != fence_mode::membarrier) {
    veltrix_test::skip("no membarrier here");
    return 0;
  }
  const auto end = veltrix_test::run_to_its_end([] {
    cell_type cell(std::in_place, 1U);
    cell.emplace(2U);
    if (!no_membarrier::install(no_membarrier::answer::refused)) return;
    cell.collect();
  });
  std::printf("%s", end.told.c_str());
  if (!end.aborted && end.told.empty()) veltrix_test::skip("seccomp(2) takes no filter here");
  return end.aborted && end.told.find("withdrew membarrier") != std::string::npos ? 0 : 1;
}

}  // namespace

int main(int count, char** arguments) {
  const std::string wanted = count == 2 ? arguments[1] : "";
  if (wanted == "withdrawn") return withdrawn();
  const fence_mode mode = veltrix::reclaim_domain::shared().mode();
  const char* const name = mode == fence_mode::membarrier ? "membarrier" : "ordered";
  if (wanted != name) {
    std::printf("the fences are %s, expected: %s\n", name, wanted.c_str());
    return 1;
  }
  veltrix_test::collisions pair(veltrix::reclaim_domain::shared());
  const std::uint64_t wrong = hammer() + pair.run(std::chrono::milliseconds(500));
  std::printf("%s: %llu values were seen after their end\n", name,
              static_cast<unsigned long long>(wrong));
  return wrong == 0 ? 0 : 1;
}
