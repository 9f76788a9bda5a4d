// The seam: the asymmetric fence and the thread whose start can fail.
// SPDX-License-Identifier: BSL-1.0
#include "veltrix/detail/sync.hpp"

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/death.hpp"
#include "support/scale.hpp"

namespace seam = veltrix::detail::sync;
using seam::fence_mode;
using seam::native_thread;

namespace {

static_assert(!std::is_copy_constructible_v<native_thread>);
static_assert(std::is_nothrow_move_constructible_v<native_thread>);

/// Store buffering: each side stores, fences, and loads what the other stored. A fence on one side
/// only, or too weak a one, lets both loads miss.
class store_buffering {
 public:
  explicit store_buffering(fence_mode mode) : mode_(mode) {}

  /// Result: rounds in which both loads missed. On a busy machine it stops after half a second.
  std::uint64_t both_missed(std::uint64_t rounds) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(500);
    std::thread light([this] { light_side(); });
    std::uint64_t missed = 0;
    for (std::uint64_t round = 1; round <= rounds; ++round) {
      if (heavy_side(round)) ++missed;
      if (round % 256 == 0 && std::chrono::steady_clock::now() > end) break;
    }
    heavy_round_.store(over, std::memory_order_release);
    light.join();
    return missed;
  }

 private:
  static constexpr std::uint64_t over = ~std::uint64_t{0};

  static void wait_for(const std::atomic<std::uint64_t>& word, std::uint64_t round) {
    for (int spins = 0; word.load(std::memory_order_acquire) < round;) {
      if (++spins < 2000) {
        seam::spin_pause();
      } else {
        seam::yield();
      }
    }
  }

  void light_side() {
    for (std::uint64_t round = 1;; ++round) {
      wait_for(heavy_round_, round);
      if (heavy_round_.load(std::memory_order_relaxed) == over) return;
      x_.store(1, std::memory_order_relaxed);
      seam::asymmetric_fence_light(mode_);
      light_saw_ = y_.load(std::memory_order_relaxed);
      light_round_.store(round, std::memory_order_release);
    }
  }

  bool heavy_side(std::uint64_t round) {
    x_.store(0, std::memory_order_relaxed);
    y_.store(0, std::memory_order_relaxed);
    heavy_round_.store(round, std::memory_order_release);
    // The light side starts some steps later: try every small delay, so that some rounds collide.
    for (std::uint64_t delay = round % 1024; delay > 0; --delay)
      static_cast<void>(y_.load(std::memory_order_relaxed));
    y_.store(1, std::memory_order_relaxed);
    seam::asymmetric_fence_heavy(mode_);
    const int heavy_saw = x_.load(std::memory_order_relaxed);
    wait_for(light_round_, round);
    return light_saw_ == 0 && heavy_saw == 0;
  }

  const fence_mode mode_;
  alignas(64) std::atomic<int> x_{0};
  alignas(64) std::atomic<int> y_{0};
  alignas(64) std::atomic<std::uint64_t> light_round_{0};
  alignas(64) std::atomic<std::uint64_t> heavy_round_{0};
  int light_saw_ = 0;  // the light side's, until it stored light_round_
};

#if defined(__linux__)
std::string name_of_this_thread() {
  char name[64] = {};
  ::pthread_getname_np(::pthread_self(), name, sizeof name);
  return name;
}

std::size_t stack_of_this_thread() {
  ::pthread_attr_t attributes;
  ::pthread_getattr_np(::pthread_self(), &attributes);
  std::size_t bytes = 0;
  ::pthread_attr_getstacksize(&attributes, &bytes);
  ::pthread_attr_destroy(&attributes);
  return bytes;
}

/// The name a thread started with `name` has.
std::string started_name(const char* name) {
  std::string seen;
  native_thread thread;
  REQUIRE(thread.start({.name = name}, [&] { seen = name_of_this_thread(); }) == 0);
  thread.join();
  return seen;
}
#endif

}  // namespace

TEST_CASE("asymmetric_fence_light and heavy never let both sides miss, in the ordered mode") {
  CHECK(store_buffering(fence_mode::ordered).both_missed(veltrix_test::scale(200'000)) == 0);
}

TEST_CASE("asymmetric_fence_light and heavy never let both sides miss, in the machine's mode") {
  const fence_mode mode = seam::asymmetric_fence_mode();
  INFO("mode " << (mode == fence_mode::membarrier ? "membarrier" : "ordered"));
  CHECK(mode == seam::asymmetric_fence_mode());
  CHECK(store_buffering(mode).both_missed(veltrix_test::scale(100'000)) == 0);
}

TEST_CASE("native_thread runs its body once and join shows what it wrote") {
  int runs = 0;
  std::thread::id ran_in;
  native_thread thread;
  CHECK_FALSE(thread.joinable());
  const auto own = std::make_shared<int>(1);
  REQUIRE(thread.start({}, [&, own] {
    ++runs;
    ran_in = seam::this_thread_id();
  }) == 0);
  CHECK(thread.joinable());
  native_thread moved(std::move(thread));
  CHECK_FALSE(thread.joinable());
  moved.join();
  CHECK_FALSE(moved.joinable());
  CHECK(runs == 1);
  CHECK(ran_in != std::this_thread::get_id());
  CHECK(own.use_count() == 1);  // the body is gone with the thread
  REQUIRE(moved.start({}, [&] { ++runs; }) == 0);
  thread = std::move(moved);
  thread.join();
  CHECK(runs == 2);
}

#if VELTRIX_JOINS_UNTIL
TEST_CASE("native_thread join_until gives up at its deadline, and joins a thread that has ended") {
  using std::chrono::steady_clock;
  std::atomic<bool> ends{false};
  int written = 0;
  native_thread thread;
  REQUIRE(thread.start({}, [&] {
    while (!ends.load(std::memory_order_acquire))
      std::this_thread::yield();
    written = 1;
  }) == 0);
  const auto soon = steady_clock::now() + std::chrono::milliseconds(5);
  CHECK_FALSE(thread.join_until(soon));
  CHECK(steady_clock::now() >= soon);
  CHECK_FALSE(thread.join_until(steady_clock::now() - std::chrono::seconds(1)));
  CHECK(thread.joinable());
  ends.store(true, std::memory_order_release);
  CHECK(thread.join_until(steady_clock::now() + std::chrono::minutes(1)));
  CHECK_FALSE(thread.joinable());
  CHECK(written == 1);
}
#endif

#if VELTRIX_KEEPS_STACKS
/// Whether the page has memory.
bool is_resident(void* page) {
  unsigned char state = 0;
  REQUIRE(mincore(page, seam::page_bytes(), &state) == 0);
  return (state & 1) != 0;
}

TEST_CASE("native_thread runs on the stack it is given, and the next one does too") {
  seam::thread_stack stack;
  void* first = nullptr;
  for (int round = 0; round < 3; ++round) {
    native_thread thread;
    bool inside = false;
    REQUIRE(thread.start({.stack_bytes = 262'000, .stack = &stack}, [&] {
      volatile char deep[200'000];
      for (std::size_t i = 0; i < sizeof deep; i += 1024)
        deep[i] = 1;
      const auto low = reinterpret_cast<std::uintptr_t>(stack.base());
      const auto here = reinterpret_cast<std::uintptr_t>(&deep[0]);
      inside = here > low && here + sizeof deep < low + stack.bytes();
    }) == 0);
    thread.join();
    CHECK(inside);
    CHECK(stack.bytes() == 262'144);
    if (round == 0) first = stack.base();
    CHECK(stack.base() == first);
    char* const deep_page = static_cast<char*>(stack.base()) + 131'072;
    CHECK(is_resident(deep_page));
    stack.trim();
    CHECK_FALSE(is_resident(deep_page));
    CHECK(is_resident(static_cast<char*>(stack.base()) + stack.bytes() - 4096));
  }
}

TEST_CASE("thread_stack has a guarded page below it") {
  seam::thread_stack stack;
  REQUIRE(stack.reserve(65'536) == 0);
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  CHECK(::write(ends[1], stack.base(), 1) == 1);
  CHECK(::write(ends[1], static_cast<char*>(stack.base()) - 1, 1) == -1);  // it cannot be read
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST_CASE("thread_stack says EAGAIN when it cannot have the memory, and takes another size") {
  seam::thread_stack stack;
  CHECK(stack.reserve(~std::size_t{0} / 4096 * 4096) == EAGAIN);
  CHECK(stack.reserve(std::size_t{1} << 60) == EAGAIN);
  CHECK(stack.bytes() == 0);
  REQUIRE(stack.reserve(65'536) == 0);
  CHECK(stack.bytes() == 65'536);
  REQUIRE(stack.reserve(131'072) == 0);
  static_cast<char*>(stack.base())[131'071] = 1;
  stack.release();
  CHECK(stack.bytes() == 0);
}
#endif

TEST_CASE("native_thread says ENOMEM when there is no memory for its body") {
  native_thread thread;
  veltrix_test::allocations_left = 0;
  const int error = thread.start({}, [] {});
  veltrix_test::allocations_left = -1;
  CHECK(error == ENOMEM);
  CHECK_FALSE(thread.joinable());
}

#if defined(__linux__)
TEST_CASE("native_thread keeps 15 bytes of its name, and copies them") {
  CHECK(started_name("vx-w-17") == "vx-w-17");
  CHECK(started_name("fifteen-bytes-x") == "fifteen-bytes-x");
  CHECK(started_name("seventeen-bytes-x") == "seventeen-bytes");
  CHECK(started_name(nullptr) == name_of_this_thread());
  std::string seen;
  native_thread thread;
  {
    std::string brief = "brief-name";
    REQUIRE(thread.start({.name = brief.c_str()}, [&] { seen = name_of_this_thread(); }) == 0);
    brief.assign(brief.size(), '#');
  }
  thread.join();
  CHECK(seen == "brief-name");
}

TEST_CASE("native_thread gets the stack it asked for, in whole pages") {
  std::size_t bytes = 0;
  native_thread thread;
  REQUIRE(thread.start({.stack_bytes = 1'000'001}, [&] { bytes = stack_of_this_thread(); }) == 0);
  thread.join();
  CHECK(bytes >= 1'000'001);
  CHECK(bytes < 2'000'000);
}

TEST_CASE("native_thread says why an absurd stack is refused, and does not run") {
  bool ran = false;
  native_thread thread;
  const auto answer = [&](std::size_t bytes) {
    const int error = thread.start({.stack_bytes = bytes}, [&] { ran = true; });
    CHECK_FALSE(thread.joinable());
    return error;
  };
  CHECK(answer(1) == EINVAL);
  CHECK(answer(std::numeric_limits<std::size_t>::max()) == EINVAL);
  CHECK(answer(std::size_t{1} << 56) == EAGAIN);
  CHECK_FALSE(ran);
}
#endif

TEST_CASE("parker keeps a call that comes first, and several are one") {
  seam::parker here;
  here.unpark();
  here.unpark();
  here.park();  // returns at once
  std::atomic<bool> parked{false};
  std::thread sleeper([&] {
    here.park();
    parked.store(true);
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // sleep: it must not return
  CHECK_FALSE(parked.load());  // the second of the two calls was not kept beside the first
  here.unpark();
  sleeper.join();
  CHECK(parked.load());
}

TEST_CASE("parker stress: two threads that call each other lose no call and see what was written") {
  const std::uint64_t rounds = veltrix_test::scale(50'000);
  seam::parker ping, pong;
  std::uint64_t written = 0;  // plain: each call publishes it
  std::thread other([&] {
    for (std::uint64_t round = 1; round <= rounds; ++round) {
      ping.park();
      if (written != 2 * round - 1) std::abort();
      ++written;
      pong.unpark();
    }
  });
  for (std::uint64_t round = 1; round <= rounds; ++round) {
    ++written;
    ping.unpark();
    pong.park();
    REQUIRE(written == 2 * round);
  }
  other.join();
}

TEST_CASE("hardware_threads is at least one") {
  CHECK(seam::hardware_threads() >= 1);
}

#if VELTRIX_CHECKED
TEST_CASE("native_thread in checked mode names the end without join") {
  const auto ending = veltrix_test::run_to_its_end([] {
    native_thread thread;
    static_cast<void>(thread.start({}, [] {}));
  });
  CHECK(ending.aborted);
  CHECK(ending.told.find("a native_thread ended without join()") != std::string::npos);
}
#endif
