// snapshot_cell beside what a service would write without it.
// SPDX-License-Identifier: BSL-1.0
#include "veltrix/snapshot_cell.hpp"

#include <array>
#include <memory>
#include <mutex>
#include <shared_mutex>

#include "harness.hpp"

namespace {

struct settings {  // 64 bytes, as a small config
  std::array<std::uint64_t, 8> fields{};
};

template <class Mutex, template <class> class Lock>
class locked_cell {
 public:
  std::shared_ptr<const settings> load() {
    const Lock<Mutex> lock(mutex_);
    return value_;
  }

 private:
  Mutex mutex_;  // guards value_
  std::shared_ptr<const settings> value_ = std::make_shared<settings>();
};

}  // namespace

int main(int argc, char** argv) {
  using namespace veltrix_bench;
  bench table("snapshot_cell", parse(argc, argv));

  locked_cell<std::mutex, std::lock_guard> by_mutex;
  locked_cell<std::shared_mutex, std::shared_lock> by_shared_mutex;
  veltrix::snapshot_cell<settings> cell(settings{});

  for (const unsigned threads : {1U, 2U}) {
    table.run("load one field", threads,
              {{"mutex + shared_ptr",
                [&](unsigned, std::uint64_t operations) {
                  for (std::uint64_t i = 0; i < operations; ++i)
                    keep(by_mutex.load()->fields[3]);
                }},
               {"shared_mutex + shared_ptr",
                [&](unsigned, std::uint64_t operations) {
                  for (std::uint64_t i = 0; i < operations; ++i) {
                    keep(by_shared_mutex.load()->fields[3]);
                  }
                }},
               {"snapshot_cell load()",
                [&](unsigned, std::uint64_t operations) {
                  for (std::uint64_t i = 0; i < operations; ++i)
                    keep(cell.load()->fields[3]);
                }},
               {"snapshot_cell reader()", [&](unsigned, std::uint64_t operations) {
                  auto reader = cell.reader();
                  for (std::uint64_t i = 0; i < operations; ++i)
                    keep(reader.get().fields[3]);
                }}});
  }
  return table.finish();
}
