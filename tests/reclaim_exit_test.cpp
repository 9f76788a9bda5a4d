// reclaim when threads end: their records, and what is left in them.
// SPDX-License-Identifier: BSL-1.0
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/scale.hpp"
#include "support/self_poisoning.hpp"
#include "support/threads.hpp"
#include "veltrix/snapshot_cell.hpp"

using veltrix::reclaim_domain;
using veltrix::snapshot_cell;
using veltrix_test::scale;
using veltrix_test::self_poisoning;

namespace {

using cell_type = snapshot_cell<self_poisoning>;

reclaim_domain& domain() {
  return reclaim_domain::shared();
}

/// What a user keeps for each thread, ended after the library's own exit hook when it was made
/// before the thread's first read.
struct last_words {
  cell_type* cell = nullptr;
  std::atomic<int>* spoken = nullptr;
  std::atomic<int>* wrong = nullptr;
  std::optional<cell_type::guard>* parting = nullptr;
  std::optional<cell_type::guard> early;  // made while the thread had its record

  ~last_words() {
    if (cell == nullptr) return;
    const auto check = [this](bool right) { right ? 0 : (*wrong)++; };
    check(domain().record_of_this_thread() == nullptr);  // the hook has run
    if (early) check((*early)->is(early->version()));
    auto first = cell->load();
    check(first->is(first.version()));
    check(cell->version() >= first.version());
    static_cast<void>(
        cell->update([](const self_poisoning& now) { return self_poisoning(now.number() + 1); }));
    check(first->is(first.version()));
    auto reader = cell->reader();
    check(reader.get().number() > first->number());
    check(reader.load()->is(reader.load().version()));
    check(cell->share()->intact());
    cell->collect();
    if (parting != nullptr) parting->emplace(std::move(first));
    ++*spoken;
  }
};

thread_local last_words of_thread;

/// Reads only when its thread ends.
struct first_read {
  cell_type* cell = nullptr;
  std::atomic<int>* reads = nullptr;
  ~first_read() {
    if (cell != nullptr && cell->load()->intact()) ++*reads;
  }
};

thread_local first_read read_at_end;

}  // namespace

TEST_CASE("reclaim uses the records of ended threads again") {
  // 8 at a time: records are made for those alive at once, not for all that ever were.
  const std::size_t rounds = scale(10'000) / 8;
  cell_type cell(std::in_place, 1U);
  const auto before = domain().stats();
  std::atomic<int> wrong{0};
  for (std::size_t round = 0; round < rounds; ++round) {
    std::vector<std::thread> threads;
    for (int i = 0; i < 8; ++i) {
      threads.emplace_back([&] {
        const auto guard = cell.load();
        if (!guard->is(guard.version())) ++wrong;
      });
    }
    for (std::thread& each : threads)
      each.join();
    if (round % 16 == 0) cell.emplace(cell.version() + 1);
  }
  const auto after = domain().stats();
  CHECK(wrong == 0);
  CHECK(after.records <= before.records + 9);
  CHECK(after.records_in_use <= before.records_in_use + 1);  // this thread's, by its version()
  cell.collect();
  CHECK(cell.stats().versions_alive == 1);
}

TEST_CASE("reclaim makes as many records as threads read at once, and no more the second time") {
  cell_type cell(std::in_place, 1U);
  const auto before = domain().stats();
  std::size_t records = 0;
  for (int round = 0; round < 3; ++round) {
    veltrix_test::standing_threads threads;
    std::atomic<int> wrong{0};
    for (int i = 0; i < 50; ++i) {
      threads.add([&](auto stand) {
        const auto guard = cell.load();
        stand();
        if (!guard->is(guard.version())) ++wrong;
      });
      cell.emplace(cell.version() + 1);
    }
    const auto now = domain().stats();
    CHECK(now.records_in_use >= before.records_in_use + 50);
    CHECK(now.records_in_use <= before.records_in_use + 51);
    CHECK(cell.stats().versions_alive >= 51);
    threads.let_go();
    if (round == 0) records = domain().stats().records;
    CHECK(domain().stats().records == records);
    CHECK(wrong == 0);
  }
}

TEST_CASE("reclaim leaks no record to thread_local destructors that run after its own hook") {
  cell_type cell(std::in_place, 1U);
  std::atomic<int> spoken{0};
  std::atomic<int> wrong{0};
  static_cast<void>(cell.load());  // this thread has its record
  const auto before = domain().stats();
  for (int i = 0; i < 100; ++i) {
    std::thread([&] {
      of_thread.spoken = &spoken;  // made here, before the first read
      of_thread.wrong = &wrong;
      of_thread.cell = &cell;
      if (i % 2 == 0) of_thread.early.emplace(cell.load());
      if (!cell.load()->intact()) ++wrong;
    }).join();
    REQUIRE(domain().stats().records_in_use == before.records_in_use);
  }
  CHECK(spoken == 100);
  CHECK(wrong == 0);
  CHECK(cell.version() == 101);
  CHECK(domain().stats().records <= before.records + 3);
  cell.collect();
  CHECK(cell.stats().versions_alive == 1);
}

TEST_CASE("reclaim guard made after the exit hook outlives its thread") {
  cell_type cell(std::in_place, 1U);
  std::atomic<int> spoken{0};
  std::atomic<int> wrong{0};
  std::vector<std::optional<cell_type::guard>> left(20);
  for (std::size_t i = 0; i < left.size(); ++i) {
    std::thread([&] {
      of_thread.spoken = &spoken;
      of_thread.wrong = &wrong;
      of_thread.parting = &left[i];
      of_thread.cell = &cell;
      if (!cell.load()->intact()) ++wrong;
    }).join();
  }
  CHECK(spoken == 20);
  CHECK(wrong == 0);
  for (int i = 0; i < 200; ++i)
    cell.emplace(cell.version() + 1);
  cell.collect();
  CHECK(cell.stats().versions_alive == 21);
  for (std::size_t i = 0; i < left.size(); ++i)
    CHECK((*left[i])->is(i + 1));
  left.clear();
  cell.collect();
  CHECK(cell.stats().versions_alive == 1);
}

TEST_CASE("reclaim thread that reads for the first time while it ends leaks no record") {
  cell_type cell(std::in_place, 1U);
  std::atomic<int> reads{0};
  const auto before = domain().stats();
  for (int i = 0; i < 100; ++i) {
    std::thread([&] {
      read_at_end.reads = &reads;
      read_at_end.cell = &cell;
    }).join();
  }
  CHECK(reads == 100);
  CHECK(domain().stats().records_in_use == before.records_in_use);
  CHECK(domain().stats().records <= before.records + 1);
}

TEST_CASE("reclaim keeps what ended threads left in guards and readers elsewhere") {
  cell_type cell(std::in_place, 1U);
  const auto before = domain().stats();
  std::vector<cell_type::guard> guards;
  std::vector<cell_type::cached_reader> readers;
  for (std::uint64_t i = 1; i <= 60; ++i) {
    std::thread([&] {
      guards.push_back(cell.load());
      readers.push_back(cell.reader());
      static_cast<void>(readers.back().get());
      guards.push_back(readers.back().load());
    }).join();
    cell.emplace(i + 1);
  }
  cell.collect();
  CHECK(cell.stats().versions_alive == 61);
  CHECK(domain().stats().records_in_use <= before.records_in_use + 61);
  CHECK(domain().stats().records >= 120);
  for (std::size_t i = 0; i < 60; ++i) {
    CHECK(guards[2 * i]->is(i + 1));
    CHECK(guards[2 * i + 1]->is(i + 1));
    CHECK(readers[i].version() == i + 1);
    CHECK(readers[i].get().is(61));
  }
  readers.clear();
  cell.collect();
  CHECK(cell.stats().versions_alive == 61);
  const std::size_t records = domain().stats().records;
  guards.clear();
  cell.collect();
  CHECK(cell.stats().versions_alive == 1);
  for (int i = 0; i < 100; ++i)
    readers.push_back(cell.reader());
  CHECK(domain().stats().records == records);  // all of them are free again
}

TEST_CASE("reclaim records of several domains are free when their thread ends") {
  static constinit reclaim_domain others[3];
  std::atomic<int> wrong{0};
  for (int round = 0; round < 40; ++round) {
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&wrong, i] {
        for (int turn = 0; turn < 3; ++turn) {
          auto& each = others[(i + turn) % 3];
          if (each.record_of_this_thread() == nullptr) ++wrong;
        }
      });
    }
    for (std::thread& each : threads)
      each.join();
  }
  CHECK(wrong == 0);
  for (auto& each : others) {
    CHECK(each.stats().records_in_use == 0);
    CHECK(each.stats().records <= 4);
  }
}
