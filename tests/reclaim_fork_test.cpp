// reclaim in the child of a fork: what was held stays valid, what dead threads had becomes free.
// SPDX-License-Identifier: BSL-1.0
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/child.hpp"
#include "support/scale.hpp"
#include "support/self_poisoning.hpp"
#include "support/skip.hpp"
#include "support/threads.hpp"
#include "veltrix/snapshot_cell.hpp"

using veltrix::reclaim_domain;
using veltrix::snapshot_cell;
using veltrix_test::child_report;
using veltrix_test::run_in_child;
using veltrix_test::scale;
using veltrix_test::self_poisoning;
using veltrix_test::standing_threads;

namespace {

using cell_type = snapshot_cell<self_poisoning>;

reclaim_domain& domain() {
  return reclaim_domain::shared();
}

bool children_may_start_threads() {
  if (veltrix_test::child_may_start_threads) return true;
  veltrix_test::skip("the sanitizer ends a child that starts threads");
  return false;
}

/// Readers and a writer at once; what they see must live.
std::uint64_t hammer(cell_type& cell, std::uint64_t writes) {
  std::atomic<bool> done{false};
  std::atomic<std::uint64_t> wrong{0};
  const auto read = [&] {
    auto reader = cell.reader();
    while (!done) {
      const auto guard = cell.load();
      const auto nested = reader.load();
      if (!guard->is(guard.version()) || !nested->is(nested.version())) ++wrong;
      if (!reader.get().is(reader.version())) ++wrong;
    }
  };
  veltrix_test::run_at_once({read, read, [&] {
                               for (std::uint64_t i = 0; i < writes; ++i)
                                 cell.emplace(cell.version() + 1);
                               done = true;
                             }});
  return wrong;
}

/// Threads of a parent that stand with what they read: `holding` with a guard each, one with eight
/// guards, `idle` with nothing but their record, `reading` with a reader. Each on a version of its
/// own.
class crowd {
 public:
  static constexpr std::size_t holding = 4;
  static constexpr std::size_t idle = 4;
  static constexpr std::size_t reading = 3;

  explicit crowd(cell_type& cell) {
    for (std::size_t i = 0; i < holding + 1; ++i) {
      threads_.add([&cell, i](auto stand) {
        std::vector<cell_type::guard> guards;
        for (std::size_t guard = 0; guard < (i == holding ? 8 : 1); ++guard)
          guards.push_back(cell.load());
        stand();
      });
      cell.emplace(cell.version() + 1);
    }
    for (std::size_t i = 0; i < reading; ++i) {
      threads_.add([&cell](auto stand) {
        auto reader = cell.reader();
        static_cast<void>(reader.get());
        stand();
      });
      cell.emplace(cell.version() + 1);
    }
    for (std::size_t i = 0; i < idle; ++i) {
      threads_.add([&cell](auto stand) {
        static_cast<void>(cell.version());
        stand();
      });
    }
  }

 private:
  standing_threads threads_;
};

constinit reclaim_domain stamped_domain;
struct stamped {
  [[nodiscard]] veltrix::detail::stamp order() const { return 1500; }
};

/// A domain whose first record is claimed while a fork is under way, in a handler that runs after
/// the library's own: it was registered earlier.
constinit reclaim_domain late_domain;
std::atomic<bool> claim_late{false};
const int registered_first = ::pthread_atfork(
    [] {
      if (claim_late) static_cast<void>(late_domain.record_of_this_thread());
    },
    nullptr, nullptr);

}  // namespace

TEST_CASE("reclaim in a child: membarrier works without a new registration") {
  if (domain().mode() != veltrix::detail::sync::fence_mode::membarrier)
    return veltrix_test::skip("no membarrier here");
  standing_threads others;
  others.add([](auto stand) { stand(); });
  CHECK(run_in_child([](child_report& report) {
          const int private_expedited = 1 << 3;
          report.expect(::syscall(SYS_membarrier, private_expedited, 0, 0) == 0, "refused");
          cell_type cell(std::in_place, 1U);
          report.expect(hammer(cell, scale(100'000)) == 0, "a value was seen after its end");
        }) == "");
}

TEST_CASE("reclaim in a child: what was held stays, and reads, writes and threads go on") {
  if (!children_may_start_threads()) return;
  cell_type cell(std::in_place, 1U);
  const auto held = cell.load();
  auto mine = cell.reader();
  CHECK(mine.get().is(1));
  cell.emplace(2U);
  const std::size_t in_use_before = domain().stats().records_in_use;
  const crowd others(cell);
  cell.collect();
  const auto parent = domain().stats();
  CHECK(parent.records_in_use == in_use_before + crowd::holding + 1 + crowd::idle + crowd::reading);
  const std::size_t alive = cell.stats().versions_alive;
  const std::uint64_t version = cell.version();

  CHECK(run_in_child([&](child_report& report) {
          const auto stats = domain().stats();
          report.expect(stats.records == parent.records, "records are not as they were");
          report.expect(stats.records_in_use == in_use_before + crowd::reading,
                        "dead threads still have records");
          for (std::uint64_t i = 1; i <= 1'000; ++i)
            cell.emplace(version + i);
          cell.collect();
          report.expect(held->is(1), "the guard of the forking thread lost its value");
          report.expect(mine.version() == 1, "the reader forgot its version");
          report.expect(cell.stats().versions_alive == alive, "too many or too few are alive");
          report.expect(mine.get().is(version + 1'000), "the reader misses the newest");
          report.expect(cell.load()->is(version + 1'000), "load() misses the newest");
          {
            standing_threads fresh;
            for (int i = 0; i < 4; ++i) {
              fresh.add([&](auto stand) {
                const auto guard = cell.load();
                stand();
                report.expect(guard->is(version + 1'000), "a new thread lost its value");
              });
            }
            const auto now = domain().stats();
            report.expect(now.records == parent.records, "free records are not used again");
            report.expect(now.records_in_use == stats.records_in_use + 4, "records are shared");
            for (int i = 0; i < 100; ++i)
              cell.emplace(cell.version() + 1);
          }
          report.expect(domain().stats().records_in_use == stats.records_in_use,
                        "threads that ended in the child kept their records");
          report.expect(hammer(cell, scale(20'000)) == 0, "a value was seen after its end");
          report.expect(held->is(1), "the guard of the forking thread lost its value at last");
        }) == "");
  CHECK(held->is(1));
  CHECK(domain().stats().records_in_use == parent.records_in_use);  // the parent's are untouched
}

TEST_CASE("reclaim in a child: guards that came from a thread that is gone stay protected") {
  if (!children_may_start_threads()) return;
  cell_type cell(std::in_place, 1U);
  std::optional<cell_type::guard> handed;
  std::optional<cell_type::cached_reader> reader;
  standing_threads others;
  others.add([&](auto stand) {
    handed.emplace(cell.load());
    reader.emplace(cell.reader());
    static_cast<void>(reader->get());
    stand();
  });
  cell.emplace(2U);
  CHECK(run_in_child([&](child_report& report) {
          const std::size_t records = domain().stats().records;
          for (std::uint64_t i = 3; i <= 500; ++i) {
            cell.emplace(i);
            if (i % 100 == 0) std::thread([&] { static_cast<void>(cell.load()); }).join();
          }
          report.expect((*handed)->is(1), "the guard lost its value");
          report.expect(reader->version() == 1, "the reader lost its version");
          handed.reset();
          report.expect(reader->get().is(500), "the reader misses the newest");
          cell.collect();
          report.expect(cell.stats().versions_alive == 1, "something is still held");
          reader.reset();
          report.expect(domain().stats().records_in_use <= 1, "records stay in use");
          report.expect(domain().stats().records <= records + 1, "records are not used again");
        }) == "");
  CHECK((*handed)->is(1));
  handed.reset();
  reader.reset();
}

TEST_CASE("reclaim in a child: a thread that was in the midst of a read leaves its record free") {
  struct node : veltrix::reclaimable {};
  static constinit reclaim_domain interrupted;
  node object;
  const veltrix::detail::sync::atomic<node*> current{&object};
  standing_threads others;
  for (int i = 0; i < 20; ++i) {
    others.add([&](auto stand) {
      const veltrix::detail::momentary_slot brief(interrupted);
      static_cast<void>(veltrix::detail::show(current, brief.slot(), interrupted.mode()));
      stand();
    });
  }
  CHECK(interrupted.stats().records_in_use == 20);
  CHECK(run_in_child([&](child_report& report) {
          report.expect(interrupted.stats().records_in_use == 0, "records in use");
          for (int i = 0; i < 20; ++i)
            static_cast<void>(interrupted.claim_for_object());
          report.expect(interrupted.stats().records == 20, "records were made anew");
        }) == "");
}

TEST_CASE("reclaim in a child: cells on the stacks of threads that are gone are not looked at") {
  if (!children_may_start_threads()) return;
  standing_threads others;
  for (int i = 0; i < 3; ++i) {
    others.add([](auto stand) {
      cell_type brief(std::in_place, 1U);
      brief.emplace(2U);
      stand();
      brief.emplace(3U);  // it is not the parent's stack that the child writes to
    });
  }
  cell_type lasting(std::in_place, 1U);
  lasting.emplace(2U);
  CHECK(run_in_child([&](child_report& report) {
          const auto overwrite = [] {  // stacks are used again
            std::array<std::uint64_t, 50'000> words;
            words.fill(0x5a5a5a5a5a5a5a5a);
            asm volatile("" : : "r"(words.data()) : "memory");
          };
          veltrix_test::run_at_once({overwrite, overwrite, overwrite});
          const auto none = domain().stats();
          report.expect(none.retired <= 1, "retired by cells that are gone");
          cell_type fresh(std::in_place, 1U);
          fresh.emplace(2U);
          fresh.collect();
          report.expect(domain().stats().retired >= 1, "the new cell is not counted");
          lasting.emplace(3U);
          lasting.collect();
          report.expect(domain().stats().retired == 3, "the inherited cell is not counted");
          report.expect(domain().stats().pending == 0, "something is pending");
          veltrix_test::run_at_once({overwrite, overwrite, overwrite});
          report.expect(fresh.load()->is(2) && lasting.load()->is(3), "values");
        }) == "");
}

TEST_CASE("reclaim in a child: a fork by another thread than the first, and a child of the child") {
  if (!children_may_start_threads()) return;
  cell_type cell(std::in_place, 1U);
  const auto held_by_main = cell.load();
  cell.emplace(2U);
  std::string told = "not run";
  std::thread([&] {
    const auto held = cell.load();
    cell.emplace(3U);
    told = run_in_child([&](child_report& report) {
      const std::size_t in_use = domain().stats().records_in_use;
      report.expect(in_use == 1, "only the forking thread has a record");
      for (std::uint64_t i = 4; i <= 300; ++i)
        cell.emplace(i);
      standing_threads fresh;
      std::optional<cell_type::guard> handed;
      fresh.add([&](auto stand) {
        handed.emplace(cell.load());
        stand();
      });
      report.expect(run_in_child([&](child_report& grandchild) {
                      grandchild.expect(domain().stats().records_in_use == 1, "records leak");
                      for (std::uint64_t i = 301; i <= 600; ++i)
                        cell.emplace(i);
                      grandchild.expect(held->is(2), "the forking thread's guard");
                      grandchild.expect((*handed)->is(300), "the other's guard");
                      grandchild.expect(hammer(cell, scale(10'000)) == 0, "the hammer");
                    }) == "",
                    "the grandchild failed");
      report.expect(held->is(2), "the guard");
      report.expect(held_by_main->is(1), "the guard of the thread that is gone");
      handed.reset();
      fresh.let_go();
      report.expect(domain().stats().records_in_use == in_use, "records leak");
    });
  }).join();
  CHECK(told == "");
  CHECK(held_by_main->is(1));
}

TEST_CASE("reclaim in a child: a look goes by no stamp that was left before the fork") {
  auto* const record = stamped_domain.claim_for_object();
  const stamped found;
  record->note(found, record->last);
  CHECK(stamped_domain.reached_by_all(1000, 2000) == 1500);
  CHECK(run_in_child([](child_report& report) {
          const auto reached = stamped_domain.reached_by_all(1000, 2000);
          report.expect(reached == veltrix::detail::no_stamp, "it went by the parent's stamp");
        }) == "");
  record->give_back();
}

TEST_CASE("reclaim in a child: the statistics name the thread that lives on") {
  cell_type cell(std::in_place, 1U);
  const auto held = cell.load();
  cell.emplace(2U);
  cell.collect();
  CHECK(domain().stats().oldest_pin_thread == veltrix::detail::sync::this_thread_number());
  CHECK(run_in_child([&](child_report& report) {
          cell.collect();  // a list counts there from its first use on
          report.expect(
              domain().stats().oldest_pin_thread == veltrix::detail::sync::this_thread_number(),
              "another thread");
        }) == "");
}

TEST_CASE("reclaim in a child: forks in the middle of others' reads and looks leave it usable") {
  if (!children_may_start_threads()) return;
#if defined(__SANITIZE_ADDRESS__)
  // Seen: a thread that begins while another forks leaves the lock taken in the child.
  veltrix_test::skip("AddressSanitizer's allocator has no hooks around a fork");
#else
  cell_type read_by_all(std::in_place, 1U);
  cell_type own(std::in_place, 1U);
  std::atomic<bool> done{false};
  std::vector<std::thread> threads;
  threads.emplace_back([&] {
    while (!done) {
      const auto outer = read_by_all.load();
      if (!outer->is(read_by_all.load().version())) done = true;
    }
  });
  threads.emplace_back([&] {
    auto reader = read_by_all.reader();
    while (!done)
      static_cast<void>(reader.load()->is(reader.get().number()));
  });
  threads.emplace_back([&] {
    while (!done)
      static_cast<void>(domain().stats());  // takes the domain's lock
  });
  threads.emplace_back([&] {
    while (!done) {
      cell_type brief(std::in_place, 1U);  // takes the domain's lock at both ends
      brief.emplace(2U);
      std::thread([&] { static_cast<void>(brief.share()); }).join();
    }
  });
  const std::size_t forks = scale(40);
  std::string told;
  for (std::size_t i = 0; i < forks && told.empty(); ++i) {
    const auto held = own.load();
    const std::uint64_t version = own.version();
    told = run_in_child([&](child_report& report) {
      report.expect(read_by_all.load()->is(1), "the shared cell");
      for (std::uint64_t more = 1; more <= 200; ++more)
        own.emplace(version + more);
      own.collect();
      report.expect(held->is(version), "the guard");
      report.expect(own.stats().versions_alive == 2, "values alive");
      std::thread([&] {
        report.expect(own.load()->is(version + 200), "a new thread");
        report.expect(own.share()->is(version + 200), "a new thread's share()");
      }).join();
      cell_type fresh(std::in_place, 7U);
      report.expect(fresh.load()->is(7), "a new cell");
      report.expect(domain().stats().records_in_use <= 6, "records");
    });
    own.emplace(version + 1);
  }
  CHECK(told == "");
  CHECK_FALSE(done);
  done = true;
  for (std::thread& each : threads)
    each.join();
#endif
}

TEST_CASE("reclaim in a child: a domain first used during the fork is unlocked only if locked") {
  REQUIRE(registered_first == 0);
  const cell_type cell(std::in_place, 1U);
  static_cast<void>(cell.version());
  claim_late = true;
  CHECK(run_in_child([&](child_report& report) {
          report.expect(late_domain.stats().records_in_use == 1, "the record is lost");
          report.expect(cell.load()->is(1), "the cell");
        }) == "");
  claim_late = false;
  CHECK(late_domain.stats().records_in_use == 1);
  veltrix_test::run_at_once({[] { static_cast<void>(late_domain.stats()); },
                             [] { static_cast<void>(late_domain.stats()); }});
}
