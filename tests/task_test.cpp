// unique_function: a move-only callable that allocates for large captures only.
// SPDX-License-Identifier: BSL-1.0
#include "veltrix/detail/task.hpp"

#include <array>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include "support/allocations.hpp"
#include "support/catch.hpp"

using veltrix::detail::task;
using veltrix::detail::unique_function;

namespace {

static_assert(!std::is_copy_constructible_v<task>);
static_assert(std::is_nothrow_move_constructible_v<task>);
static_assert(std::is_nothrow_move_assignable_v<task>);
static_assert(std::is_nothrow_default_constructible_v<task>);
static_assert(!std::is_constructible_v<task, int>);
static_assert(!std::is_constructible_v<unique_function<int()>, void (*)()>);
static_assert(std::is_constructible_v<unique_function<void()>, int (*)()>);

/// Allocations of this thread while `body` runs.
template <class Body>
std::size_t allocations_of(Body body) {
  const std::size_t before = veltrix_test::allocations_made;
  body();
  return veltrix_test::allocations_made - before;
}

/// Not inlined: a compiler may leave out an allocation whose end it sees.
template <class Callable>
[[gnu::noinline]] unique_function<char()> hold(Callable callable) {
  return unique_function<char()>(std::move(callable));
}

/// Counts its instances; throws when copied or moved, as told.
struct fickle {
  static inline int alive = 0;
  static inline bool throws = false;

  fickle() { ++alive; }
  fickle(const fickle&) { pass(); }
  fickle(fickle&&) noexcept(false) { pass(); }
  fickle& operator=(const fickle&) = delete;
  ~fickle() { --alive; }
  int operator()() const { return 7; }

 private:
  static void pass() {
    if (throws) throw std::runtime_error("fickle");
    ++alive;
  }
};

}  // namespace

TEST_CASE("unique_function allocates for captures above 48 bytes only") {
  const std::array<char, 48> fits{'a'};
  const std::array<char, 49> large{'b'};
  unique_function<char()> small;
  unique_function<char()> big;
  CHECK(allocations_of([&] { small = hold([fits] { return fits[0]; }); }) == 0);
  CHECK(allocations_of([&] { big = hold([large] { return large[0]; }); }) == 1);
  CHECK(allocations_of([&] { std::swap(small, big); }) == 0);
  CHECK(small() == 'b');
  CHECK(big() == 'a');
}

TEST_CASE("unique_function keeps a capture whose move may throw on the heap") {
  fickle::alive = 0;
  fickle::throws = false;
  {
    unique_function<int()> held{fickle()};
    fickle::throws = true;  // moving the function moves a pointer
    unique_function<int()> moved(std::move(held));
    CHECK_FALSE(held);
    CHECK(moved() == 7);
    fickle::throws = false;
  }
  CHECK(fickle::alive == 0);
}

TEST_CASE("unique_function keeps what it held when storing a new capture throws") {
  fickle::alive = 0;
  fickle::throws = true;
  unique_function<int()> held([] { return 1; });
  {
    const fickle bad;
    CHECK_THROWS_AS(held = bad, std::runtime_error);
  }
  CHECK(held() == 1);
  CHECK(fickle::alive == 0);
  fickle::throws = false;
  const std::array<char, 100> large{};
  veltrix_test::allocations_left = 0;
  bool failed = false;
  try {
    held = [large] { return static_cast<int>(large.size()); };
  } catch (const std::bad_alloc&) {
    failed = true;
  }
  veltrix_test::allocations_left = -1;
  CHECK(failed);
  CHECK(held() == 1);
}

TEST_CASE("unique_function aligns what it holds") {
  struct alignas(128) wide {
    std::uintptr_t operator()() const { return reinterpret_cast<std::uintptr_t>(this) % 128; }
  };
  unique_function<std::uintptr_t()> held{wide{}};
  unique_function<std::uintptr_t()> moved(std::move(held));
  CHECK(moved() == 0);
}

TEST_CASE("unique_function carries move-only captures, arguments and results") {
  unique_function<std::unique_ptr<int>(std::unique_ptr<int>, int&)> add(
      [own = std::make_unique<int>(40)](std::unique_ptr<int> other, int& calls) {
        ++calls;
        return std::make_unique<int>(*own + *other);
      });
  int calls = 0;
  CHECK(*add(std::make_unique<int>(2), calls) == 42);
  CHECK(calls == 1);
  std::string text = "a";
  unique_function<std::string&(std::string&)> same(
      [](std::string& it) -> std::string& { return it += "b"; });
  CHECK(&same(text) == &text);
  CHECK(text == "ab");
}

TEST_CASE("unique_function is empty by default, after a move and after reset") {
  task empty;
  CHECK_FALSE(empty);
  CHECK_FALSE(task(nullptr));
  auto life = std::make_shared<int>(1);
  task held([life] {});
  CHECK(held);
  CHECK(life.use_count() == 2);
  task moved(std::move(held));
  CHECK_FALSE(held);
  CHECK(life.use_count() == 2);
  task& alias = moved;
  moved = std::move(alias);
  CHECK(moved);
  moved.reset();
  CHECK_FALSE(moved);
  CHECK(life.use_count() == 1);
  held = [life] {};
  held = nullptr;
  CHECK_FALSE(held);
  CHECK(life.use_count() == 1);
}

TEST_CASE("unique_function may be replaced by one that its own capture holds") {
  struct chain {
    task next;
    int number = 0;
  };
  int called = 0;
  auto inner = std::make_shared<chain>();
  inner->next = [&called] { called = 2; };
  chain* const raw = inner.get();
  task head([&called, inner = std::move(inner)] { called = 1; });
  head = std::move(raw->next);  // ends the capture that held the new one
  head();
  CHECK(called == 2);
}

TEST_CASE("unique_function lets what the capture throws pass and stays callable") {
  int calls = 0;
  task thrower([&calls] {
    if (++calls == 1) throw std::runtime_error("first");
  });
  CHECK_THROWS_AS(thrower(), std::runtime_error);
  thrower();
  CHECK(calls == 2);
}
