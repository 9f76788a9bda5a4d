// snapshot_cell: the memory of versions that ended, used again by the next ones; what is kept, and
// for how long.
// SPDX-License-Identifier: BSL-1.0
#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <stdexcept>
#include <thread>
#include <vector>

#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "veltrix/snapshot_cell.hpp"

using veltrix::snapshot_cell;

namespace {

using veltrix_test::allocations_alive;
using veltrix_test::allocations_made;

/// Where AddressSanitizer is on, memory is never used again.
constexpr bool kept = VELTRIX_ASAN == 0;

/// Counts its instances; throws when told.
template <std::size_t Bytes, std::size_t Alignment = 8>
struct alignas(Alignment) sized {
  static inline int alive = 0;
  static inline bool throws = false;

  explicit sized(std::uint64_t given) {
    if (throws) throw std::runtime_error("told to");
    fields.fill(given);
    ++alive;
  }
  sized(const sized& other) : fields(other.fields) { ++alive; }
  sized& operator=(const sized&) = delete;
  ~sized() { --alive; }
  [[nodiscard]] bool is(std::uint64_t number) const {
    for (const std::uint64_t each : fields) {
      if (each != number) return false;
    }
    return reinterpret_cast<std::uintptr_t>(this) % Alignment == 0;
  }
  std::array<std::uint64_t, Bytes / 8> fields;
};
using small = sized<64>;

/// The cell's clock is the kernel's, which ticks each 10 ms or more often.
void pass_a_tick() {
  std::this_thread::sleep_for(std::chrono::milliseconds(25));  // sleep: nothing tells of a tick
}

/// Stores the numbers from `first` on, each of which is read once. Result: whether all were right.
template <class T>
bool burst(snapshot_cell<T>& cell, std::uint64_t first, int stores) {
  bool right = true;
  for (int i = 0; i < stores; ++i) {
    const std::uint64_t number = first + static_cast<std::uint64_t>(i);
    cell.emplace(number);
    right = right && cell.load()->is(number);
  }
  return right;
}

}  // namespace

TEST_CASE("snapshot_cell in a burst takes no memory but at its beginning") {
  snapshot_cell<small> cell(std::in_place, 0U);
  CHECK(burst(cell, 1, 1'000));
  const std::size_t before = allocations_made;
  CHECK(burst(cell, 2'000, 100'000));
  const std::size_t made = allocations_made - before;
  INFO(made << " allocations in 100,000 stores");
  // A look that the clock brings with few to end gives all back: then they are made anew.
  if (kept) CHECK(made < 20'000);
  if (!kept) CHECK(made == 100'000);
}

TEST_CASE(
    "snapshot_cell ends values when a look finds them, whether or not it keeps their memory") {
  small::alive = 0;
  {
    snapshot_cell<small> cell(std::in_place, 0U);
    int most = 0;
    for (std::uint64_t i = 1; i < 10'000; ++i) {
      cell.emplace(i);
      most = std::max(most, small::alive);
    }
    CHECK(most <= 65);
    cell.collect();
    CHECK(small::alive == 1);
    CHECK(cell.stats().versions_alive == 1);
  }
  CHECK(small::alive == 0);
}

TEST_CASE("snapshot_cell keeps the memory of at most 64 versions, and collect() gives it back") {
  const long before = allocations_alive();
  {
    snapshot_cell<small> cell(std::in_place, 0U);
    const long one = allocations_alive();
    long most = 0;
    for (std::uint64_t i = 1; i < 10'000; ++i) {
      cell.emplace(i);
      most = std::max(most, allocations_alive() - one);
    }
    CHECK(most <= 130);  // 64 that wait, 64 that are kept, and one between
    cell.collect();
    CHECK(allocations_alive() == one);
    burst(cell, 1, 1'000);
  }
  CHECK(allocations_alive() == before);
}

TEST_CASE("snapshot_cell keeps at most 16 KiB, and no memory of large values") {
  snapshot_cell<sized<1024>> middle(std::in_place, 0U);
  snapshot_cell<sized<20'000>> large(std::in_place, 0U);
  burst(middle, 1, 5'000);
  burst(large, 1, 5'000);
  const std::size_t before = allocations_made;
  CHECK(burst(large, 9'000, 1'000));
  CHECK(allocations_made - before == 1'000);
  const std::size_t again = allocations_made;
  CHECK(burst(middle, 9'000, 64'000));
  const std::size_t made = allocations_made - again;
  INFO(made << " allocations in 64,000 stores of 1 KiB");
  CHECK(made > 64'000 / 64 * (64 - 16));
  if (kept) CHECK(made < 63'000);
}

TEST_CASE("snapshot_cell that is written now and then keeps no memory") {
  snapshot_cell<small> cell(std::in_place, 0U);
  burst(cell, 1, 1'000);
  cell.collect();
  const long one = allocations_alive();
  for (std::uint64_t i = 0; i < 4; ++i) {
    pass_a_tick();
    cell.emplace(i);
    CHECK(allocations_alive() == one);
  }
  burst(cell, 1, 1'000);
  for (std::uint64_t i = 0; i < 9; ++i) {  // the eighth looks at the latest
    pass_a_tick();
    cell.emplace(i);
  }
  CHECK(allocations_alive() == one);
}

TEST_CASE("snapshot_cell uses memory again at the alignment of its type") {
  snapshot_cell<sized<64, 64>> lines(std::in_place, 0U);
  snapshot_cell<sized<256, 256>> wide(std::in_place, 0U);
  CHECK(burst(lines, 1, 2'000));
  CHECK(burst(wide, 1, 2'000));
}

TEST_CASE("snapshot_cell memory goes from one writer to another, who sees it as it was left") {
  // ThreadSanitizer is the judge.
  using value = std::array<std::uint64_t, 8>;
  snapshot_cell<value> cell(value{});
  const auto write = [&] {
    for (std::uint64_t i = 0; i < 100'000; ++i) {
      value next;
      next.fill(i);
      cell.publish(next);
    }
  };
  std::thread other(write);
  write();
  other.join();
  CHECK(cell.version() == 200'001);
  CHECK(cell.load()->front() == cell.load()->back());
}

TEST_CASE("snapshot_cell whose value throws loses no memory, old or new") {
  const long before = allocations_alive();
  {
    snapshot_cell<small> cell(std::in_place, 0U);
    burst(cell, 1, 1'000);
    small::throws = true;
    for (int i = 0; i < 100; ++i)
      CHECK_THROWS_AS(cell.emplace(7U), std::runtime_error);
    small::throws = false;
    CHECK(cell.load()->is(1'000));
    CHECK(cell.version() == 1'001);
    CHECK(burst(cell, 3'000, 1'000));
  }
  CHECK(allocations_alive() == before);
}

TEST_CASE("snapshot_cell memory that readers, pointers or the history hold is not used again") {
  small::alive = 0;
  {
    std::shared_ptr<const small> shared;
    {
      snapshot_cell<small> cell({.history = 2}, {}, std::in_place, 0U);
      const auto guard = cell.load();
      shared = cell.share();
      auto reader = cell.reader();
      CHECK(reader.get().is(0));
      CHECK(burst(cell, 1, 5'000));
      CHECK(guard->is(0));
      CHECK(shared->is(0));
      CHECK(cell.history(3).back().value->is(4'998));
      CHECK(cell.rollback(4'999).version == 5'002);
      CHECK(cell.load()->is(4'998));
      CHECK(burst(cell, 6'000, 5'000));
      CHECK(guard->is(0));
      CHECK(reader.get().is(10'999));
      cell.collect();
      CHECK(cell.stats().versions_alive == 4);  // in force, two kept, the guard's
    }
    CHECK(shared->is(0));
    CHECK(small::alive == 1);
  }
  CHECK(small::alive == 0);
}

TEST_CASE("snapshot_cell counts a value from its first version on, and no refused one") {
  snapshot_cell<int> cell(1, {.history = 4}, [](const int& candidate, const int&) {
    return candidate < 0 ? std::vector<std::string>{"negative"} : std::vector<std::string>{};
  });
  CHECK(cell.stats().versions_alive == 1);
  CHECK_FALSE(cell.try_publish(-1));
  CHECK(cell.stats().versions_alive == 1);
  CHECK(cell.publish(2) == 2);
  CHECK(cell.stats().versions_alive == 2);
  CHECK(cell.rollback(1));  // a version of the same value
  CHECK(cell.stats().versions_alive == 2);
}
