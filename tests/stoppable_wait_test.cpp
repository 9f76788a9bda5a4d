// wait_until(): the one wait that deadlines and tokens end.
// SPDX-License-Identifier: BSL-1.0
#include "veltrix/detail/stoppable_wait.hpp"

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>

#include "support/catch.hpp"
#include "support/scale.hpp"

using namespace std::chrono_literals;
using veltrix::stop_source;
using veltrix::stop_token;
using veltrix::detail::wait_until;
namespace seam = veltrix::detail::sync;
using clock_type = std::chrono::steady_clock;

namespace {

constexpr auto for_ever = clock_type::time_point::max();

/// A counter to wait on.
struct waiting_room {
  seam::mutex mutex;  // guards value
  seam::condition_variable changed;
  int value = 0;

  void add(int by) {
    {
      const seam::lock_guard<seam::mutex> lock(mutex);
      value += by;
    }
    changed.notify_all();
  }

  bool wait_for(int wanted, clock_type::time_point deadline, const stop_token& token) {
    seam::unique_lock<seam::mutex> lock(mutex);
    const bool reached =
        wait_until(lock, changed, deadline, token, [&] { return value >= wanted; });
    CHECK(lock.owns_lock());
    CHECK(reached == (value >= wanted));
    return reached;
  }
};

stop_token stopped_token() {
  stop_source source;
  source.request_stop();
  return source.get_token();
}

}  // namespace

TEST_CASE("wait_until looks before it waits") {
  waiting_room room;
  CHECK(room.wait_for(0, clock_type::time_point::min(), stopped_token()));
}

TEST_CASE("wait_until ends at its deadline, however far in the past") {
  waiting_room room;
  const stop_source never;
  for (const auto deadline : {clock_type::time_point::min(), clock_type::time_point(),
                              clock_type::now() - 1h, clock_type::now() + 2ms}) {
    CHECK_FALSE(room.wait_for(1, deadline, stop_token()));
    CHECK_FALSE(room.wait_for(1, deadline, never.get_token()));
    CHECK(clock_type::now() >= deadline);
  }
}

TEST_CASE("wait_until ends when its token stops") {
  waiting_room room;
  CHECK_FALSE(room.wait_for(1, for_ever, stopped_token()));
  CHECK_FALSE(room.wait_for(1, for_ever - 1ns, stopped_token()));
}

TEST_CASE("wait_until passes an exception of its predicate with the lock held") {
  waiting_room room;
  stop_source source;
  int looks = 0;
  seam::unique_lock<seam::mutex> lock(room.mutex);
  const auto throw_at = [&](int look) {
    return wait_until(lock, room.changed, for_ever, source.get_token(), [&]() -> bool {
      if (++looks == look) throw std::runtime_error("predicate");
      return false;
    });
  };
  CHECK_THROWS_AS(throw_at(1), std::runtime_error);
  CHECK(lock.owns_lock());
  looks = 0;
  CHECK_THROWS_AS(throw_at(2), std::runtime_error);  // with the callback registered
  CHECK(lock.owns_lock());
}

TEST_CASE("wait_until passes an exception while its token stops") {
  std::size_t thrown = 0;
  const std::size_t rounds = veltrix_test::scale(500);
  for (std::size_t round = 0; round < rounds; ++round) {
    waiting_room room;
    stop_source source;
    std::atomic<bool> looked{false};
    std::thread stopper([&] {
      while (!looked)
        std::this_thread::yield();
      source.request_stop();  // needs the mutex, which the one who throws holds
    });
    int looks = 0;
    seam::unique_lock<seam::mutex> lock(room.mutex);
    try {
      wait_until(lock, room.changed, clock_type::now() + 1h, source.get_token(), [&]() -> bool {
        looked = true;
        if (++looks == 2) throw std::runtime_error("predicate");
        return false;
      });
    } catch (const std::runtime_error&) {
      ++thrown;
    }
    looked = true;
    lock.unlock();
    stopper.join();
  }
  CHECK(thrown <= rounds);
  CHECK(thrown > 0);
}

TEST_CASE("wait_until loses no wake-up by a change or a stop") {
  std::size_t wrong = 0;
  for (std::size_t round = 0; round < veltrix_test::scale(1000); ++round) {
    waiting_room room;
    stop_source source;
    const bool stops = round % 2 == 0;
    std::thread waker([&] {
      if (stops) {
        source.request_stop();
      } else {
        room.add(1);
      }
    });
    seam::unique_lock<seam::mutex> lock(room.mutex);
    const bool reached = wait_until(lock, room.changed, for_ever, source.get_token(),
                                    [&] { return room.value == 1; });
    if (reached == stops) ++wrong;
    lock.unlock();
    waker.join();
  }
  CHECK(wrong == 0);
}

TEST_CASE("wait_until returns false only after the deadline or a stop") {
  // Two takers per token that was added: what one saw, the other may take before it looks again.
  const int tokens = static_cast<int>(veltrix_test::scale(20'000));
  waiting_room room;
  std::atomic<int> taken{0};
  std::atomic<int> wrong{0};
  const stop_source never;
  const auto take = [&] {
    for (;;) {
      seam::unique_lock<seam::mutex> lock(room.mutex);
      const bool got = wait_until(lock, room.changed, for_ever, never.get_token(),
                                  [&] { return room.value > 0; });
      if (!got || room.value <= 0) ++wrong;
      if (!got) continue;
      --room.value;
      if (++taken > tokens) return;  // the last two tokens end the takers
    }
  };
  std::thread first(take);
  std::thread second(take);
  for (int i = 0; i < tokens + 2; ++i)
    room.add(1);
  first.join();
  second.join();
  CHECK(wrong == 0);
  CHECK(room.value == 0);
}
