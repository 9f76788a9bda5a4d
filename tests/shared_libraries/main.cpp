// Cells, guards and writers in different parts of one program: nobody sees a value after its end.
//   main linked <domains>            the libraries are linked; this many domains are expected
//   main loaded <path> <path>        they are loaded with dlopen(3), RTLD_LOCAL
//   main closed <path>               it is loaded, used in a thread, and closed again
// SPDX-License-Identifier: BSL-1.0
#include <dlfcn.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "make_part.hpp"
#include "support/child.hpp"
#include "support/scale.hpp"
#include "support/threads.hpp"

namespace {

using parts::cell;
using parts::part;

constexpr part own = parts::make_part("main");
int failures = 0;

void expect(bool right, const std::string& what) {
  if (right) return;
  std::printf("failed: %s\n", what.c_str());
  ++failures;
}

/// A guard held by one part while another publishes a thousand times.
void hold_while_another_writes(const part& maker, const part& holding, const part& writing) {
  const std::string who = std::string("a cell of ") + maker.name + ", held by " + holding.name +
                          ", written by " + writing.name;
  cell* const shared = maker.make(1);
  parts::holder* const held = holding.holder_of(*shared);
  held->hold();
  for (std::uint64_t i = 2; i <= 1'001; ++i)
    writing.publish(*shared, i);
  expect(held->intact(), who + ": the value ended under the guard");
  shared->collect();
  expect(held->intact(), who + ": the value ended under the guard at a look");
  expect(shared->stats().versions_alive == 2, who + ": more is alive than held");
  holding.drop(held);
  shared->collect();
  expect(shared->stats().versions_alive == 1, who + ": something is still held");
  expect(writing.read_in_new_thread(*shared, 3), who + ": a new thread's reads");
  maker.end(shared);
}

/// All parts read and write one cell at once, in threads that come and go.
void all_at_once(const std::vector<const part*>& all, const part& maker) {
  cell* const shared = maker.make(1);
  const std::size_t in_use = maker.records_in_use();
  std::atomic<std::uint64_t> wrong{0};
  std::atomic<std::size_t> writers{2};
  std::vector<std::function<void()>> bodies;
  for (const part* reading : all) {
    bodies.emplace_back([&, reading] {
      std::uint64_t last = 0;
      while (writers != 0) {
        // by turns in the code of each part, so that one thread has records from all of them
        for (const part* each : all) {
          if (!each->read(*shared, last)) ++wrong;
        }
        if (!reading->read_in_new_thread(*shared, 5)) ++wrong;
      }
    });
  }
  for (std::size_t i = 0; i < 2; ++i) {
    bodies.emplace_back([&, i] {
      for (std::size_t turn = 0; turn < veltrix_test::scale(3'000); ++turn) {
        static_cast<void>(
            shared->update([](const parts::value& now) { return parts::value(now.number() + 1); }));
        all[(turn + i) % all.size()]->records_in_use();
      }
      --writers;
    });
  }
  veltrix_test::run_at_once(bodies);
  expect(wrong == 0, std::string("a cell of ") + maker.name + ": a value was seen after its end");
  // Each thread had a record of each part's making; they end with it, by the exit hook of each.
  expect(maker.records_in_use() == in_use, std::string(maker.name) + ": records are in use");
  shared->collect();
  expect(shared->stats().versions_alive == 1, std::string(maker.name) + ": something is held");
  maker.end(shared);
}

/// The child of a fork: the forking thread keeps the records it has by whichever part's code, the
/// threads that are gone do not.
void fork_with_records_of_all(const std::vector<const part*>& all, const part& maker) {
  cell* const shared = maker.make(1);
  std::vector<parts::holder*> held;
  for (const part* each : all) {
    held.push_back(each->holder_of(*shared));
    held.back()->hold();
  }
  for (const part* each : all) {
    std::uint64_t last = 0;
    expect(each->read(*shared, last), "a read before the fork");
  }
  const std::size_t in_use = maker.records_in_use();
  veltrix_test::standing_threads others;
  for (const part* each : all) {
    others.add([shared, each](auto stand) {
      std::uint64_t last = 0;
      static_cast<void>(each->read(*shared, last));
      stand();
    });
  }
  expect(maker.records_in_use() == in_use + all.size(), "records of the other threads");
  const std::string told = veltrix_test::run_in_child([&](veltrix_test::child_report& report) {
    report.tell(std::to_string(maker.records_in_use()) + " records in use");
    report.expect(maker.records_in_use() == in_use, "not those of the forking thread");
    for (std::uint64_t i = 2; i <= 500; ++i)
      all[i % all.size()]->publish(*shared, i);
    for (parts::holder* each : held)
      report.expect(each->intact(), "a guard lost its value");
    if (!veltrix_test::child_may_start_threads) return;
    for (const part* each : all)
      report.expect(each->read_in_new_thread(*shared, 3), "a new thread's reads");
    report.expect(maker.records_in_use() == in_use, "records of threads that ended");
  });
  expect(!told.ends_with("failed") && told.find("ended by") == std::string::npos,
         std::string("a fork with a cell of ") + maker.name + ": " + told);
  others.let_go();
  for (std::size_t i = 0; i < all.size(); ++i)
    all[i]->drop(held[i]);
  maker.end(shared);
}

void run(const std::vector<const part*>& all, std::size_t domains) {
  std::set<const void*> seen;
  for (const part* each : all)
    seen.insert(each->domain());
  std::printf("%zu domains in %zu parts\n", seen.size(), all.size());
  expect(domains == 0 || seen.size() == domains, "so many domains were not expected");
  for (const part* maker : all) {
    for (const part* holding : all) {
      for (const part* writing : all)
        hold_while_another_writes(*maker, *holding, *writing);
    }
    all_at_once(all, *maker);
    fork_with_records_of_all(all, *maker);
  }
}

using entry = const part* (*)();

const part* load(void*& library, const char* path, const char* name) {
  library = ::dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    std::printf("dlopen: %s\n", ::dlerror());
    std::exit(2);
  }
  return reinterpret_cast<entry>(::dlsym(library, name))();
}

/// A cell of the main program that a library was the first to read is fit for a fork even after the
/// library is gone.
void use_and_close(const char* path) {
  void* library = nullptr;
  cell* const shared = own.make(1);
  expect(load(library, path, "veltrix_part_first")->read_in_new_thread(*shared, 3),
         "a read by the library");
  ::dlclose(library);
  const bool gone = ::dlopen(path, RTLD_NOW | RTLD_NOLOAD) == nullptr;
  std::printf("the library is %s\n", gone ? "gone" : "still loaded");
  std::uint64_t last = 0;
  expect(own.read(*shared, last), "a read by the main program");
  veltrix_test::standing_threads others;
  others.add([shared](auto stand) {
    std::uint64_t mine = 0;
    static_cast<void>(own.read(*shared, mine));
    stand();
  });
  expect(own.records_in_use() == 2, "records before the fork");
  const std::string told = veltrix_test::run_in_child([&](veltrix_test::child_report& report) {
    report.expect(own.records_in_use() == 1, "not the forking thread's record alone");
    if (!veltrix_test::child_may_start_threads) return;
    report.expect(own.read_in_new_thread(*shared, 3), "a new thread's reads");
  });
  expect(told.empty(), "a fork after the library was closed: " + told);
  others.let_go();
  own.end(shared);
}

}  // namespace

int main(int count, char** arguments) {
  const std::string mode = count > 1 ? arguments[1] : "";
#if defined(VELTRIX_PARTS_LINKED)
  if (mode == "linked" && count == 3) {
    run({&own, veltrix_part_first(), veltrix_part_second()},
        static_cast<std::size_t>(std::atoi(arguments[2])));
    return failures == 0 ? 0 : 1;
  }
#endif
  if (mode == "loaded" && count == 4) {
    void* libraries[2] = {};
    run({&own, load(libraries[0], arguments[2], "veltrix_part_first"),
         load(libraries[1], arguments[3], "veltrix_part_second")},
        0);
    return failures == 0 ? 0 : 1;
  }
  if (mode == "closed" && count == 3) {
    use_and_close(arguments[2]);
    return failures == 0 ? 0 : 1;
  }
  std::printf("usage: see the top of %s\n", __FILE__);
  return 2;
}
