// Does a number of reads, for a tool that counts instructions:
//   snapshot_cell_instructions                     the contenders' names, a line each
//   snapshot_cell_instructions CONTENDER READS
// Twice the reads less once the reads leaves what the reads alone cost.
// SPDX-License-Identifier: BSL-1.0
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string_view>
#include <thread>

#include "harness.hpp"
#include "snapshot_cells.hpp"

namespace {

using veltrix_bench::settings;

template <class Cell>
void read(std::uint64_t reads) {
  const auto cell = std::make_unique<Cell>();
  [[maybe_unused]] const veltrix_bench::enrollment<Cell> enrolled;
  typename Cell::reader reader(*cell);
  for (std::uint64_t i = 0; i < reads; ++i)
    veltrix_bench::keep(reader.read([](const settings& value) { return value.fields[3]; }));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 1 && argc != 3) {
    std::fprintf(stderr, "%s: wanted nothing, or CONTENDER READS\n", argv[0]);
    return 2;
  }
  std::thread([] {}).join();  // without any, libstdc++ counts references without atomics
  bool found = argc == 1;
  const auto each = [&]<class Cell>() {
    if (argc == 1) {
      std::printf("%s\n", Cell::name);
    } else if (std::string_view(argv[1]) == Cell::name) {
      read<Cell>(std::strtoull(argv[2], nullptr, 10));
      found = true;
    }
  };
  veltrix_bench::for_each_cell<settings>(each, [](const char*, const char*) {});
  if (!found) std::fprintf(stderr, "%s: no contender '%s' here\n", argv[0], argv[1]);
  return found ? 0 : 2;
}
