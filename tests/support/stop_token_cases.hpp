// What a stop_token must do, whichever library it comes from. Include one that declares
// veltrix::stop_source first.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <thread>
#include <type_traits>
#include <utility>

#include "support/catch.hpp"
#include "support/scale.hpp"

namespace stop_token_cases {

using veltrix::stop_callback;
using veltrix::stop_source;
using veltrix::stop_token;

static_assert(std::is_nothrow_default_constructible_v<stop_token>);
static_assert(std::is_nothrow_copy_constructible_v<stop_token>);
static_assert(std::is_nothrow_copy_constructible_v<stop_source>);
static_assert(std::is_nothrow_move_constructible_v<stop_source>);
static_assert(!std::is_copy_constructible_v<stop_callback<void (*)()>>);
static_assert(!std::is_move_constructible_v<stop_callback<void (*)()>>);

inline void one_request_is_seen_by_all() {
  stop_source source;
  const stop_source copy = source;
  const stop_token token = copy.get_token();
  CHECK(token == source.get_token());
  CHECK_FALSE(token.stop_requested());
  CHECK(token.stop_possible());
  CHECK(source.request_stop());
  CHECK_FALSE(source.request_stop());
  CHECK(token.stop_requested());
  CHECK(copy.stop_requested());
  CHECK_FALSE(stop_token().stop_possible());
  CHECK_FALSE(stop_token().stop_requested());
}

inline void possible_ends_with_the_last_source() {
  stop_token token;
  stop_token requested;
  {
    const stop_source source;
    token = source.get_token();
    stop_source copy(source);
    const stop_source moved(std::move(copy));
    CHECK_FALSE(copy.stop_possible());
    CHECK(token.stop_possible());
    stop_source other;
    requested = other.get_token();
    other.request_stop();
  }
  CHECK_FALSE(token.stop_possible());
  CHECK_FALSE(token.stop_requested());
  CHECK(requested.stop_possible());
  CHECK(requested.stop_requested());
}

/// Not for libstdc++ 12, whose move assignment forgets to discount the source it overwrites.
inline void assignment_ends_the_source_overwritten() {
  stop_source source;
  const stop_token token = source.get_token();
  stop_source copy(source);
  copy = stop_source();
  CHECK(token.stop_possible());
  source = copy;
  CHECK_FALSE(token.stop_possible());
  CHECK(source == copy);
}

inline void callbacks_run_once_in_the_requesting_thread() {
  stop_source source;
  int runs = 0;
  std::thread::id ran_in;
  const stop_callback first(source.get_token(), [&] {
    ++runs;
    ran_in = std::this_thread::get_id();
  });
  const stop_callback second(source.get_token(), [&] { ++runs; });
  CHECK(runs == 0);
  std::thread::id requester;
  std::thread([&] {
    requester = std::this_thread::get_id();
    source.request_stop();
  }).join();
  CHECK(runs == 2);
  CHECK(ran_in == requester);
  source.request_stop();
  CHECK(runs == 2);
}

inline void late_callback_runs_in_its_constructor() {
  stop_source source;
  source.request_stop();
  int runs = 0;
  {
    const stop_callback late(source.get_token(), [&] { ++runs; });
    CHECK(runs == 1);
  }
  const stop_callback never(stop_token(), [&] { ++runs; });
  CHECK(runs == 1);
}

inline void ended_callback_does_not_run() {
  stop_source source;
  int runs = 0;
  const auto count = [&] { ++runs; };
  using counter = stop_callback<decltype(count)>;
  const auto a = std::make_unique<counter>(source.get_token(), count);
  auto b = std::make_unique<counter>(source.get_token(), count);
  const auto c = std::make_unique<counter>(source.get_token(), count);
  b.reset();
  source.request_stop();
  CHECK(runs == 2);
}

inline void neighbours_of_an_ended_callback_end_as_well() {
  stop_source source;
  int runs = 0;
  const auto count = [&] { ++runs; };
  using counter = stop_callback<decltype(count)>;
  for (const bool forwards : {true, false}) {
    std::unique_ptr<counter> four[4];
    for (auto& each : four)
      each = std::make_unique<counter>(source.get_token(), count);
    four[forwards ? 1 : 2].reset();
    four[forwards ? 2 : 1].reset();
    four[0].reset();
    if (forwards) continue;  // the last one ends, and nothing is left
    source.request_stop();
    CHECK(runs == 1);
  }
}

struct ender {
  std::unique_ptr<stop_callback<ender>>* which;
  int* runs;
  void operator()() const {
    int* const counted = runs;  // this object ends below
    which->reset();
    ++*counted;
  }
};

inline void callback_may_end_itself_and_others() {
  stop_source source;
  int runs = 0;
  std::unique_ptr<stop_callback<ender>> a;
  std::unique_ptr<stop_callback<ender>> b;
  a = std::make_unique<stop_callback<ender>>(source.get_token(), ender{&a, &runs});
  source.request_stop();
  CHECK(runs == 1);
  CHECK(a == nullptr);

  stop_source other;  // whichever of the two runs first ends the other
  a = std::make_unique<stop_callback<ender>>(other.get_token(), ender{&b, &runs});
  b = std::make_unique<stop_callback<ender>>(other.get_token(), ender{&a, &runs});
  other.request_stop();
  CHECK(runs == 2);
  CHECK((a == nullptr) != (b == nullptr));
}

struct everything;
struct end_everything {
  everything* what;
  void operator()() const;
};
struct everything {
  std::unique_ptr<stop_source> source = std::make_unique<stop_source>();
  std::unique_ptr<stop_callback<end_everything>> callback;
  int runs = 0;
};
inline void end_everything::operator()() const {
  everything& all = *what;  // this object ends below
  ++all.runs;
  all.source.reset();
  all.callback.reset();
}

inline void callback_may_end_all_that_shares_the_state() {
  everything all;
  all.callback = std::make_unique<stop_callback<end_everything>>(all.source->get_token(),
                                                                 end_everything{&all});
  CHECK(all.source->request_stop());
  CHECK(all.runs == 1);
  CHECK(all.source == nullptr);
  CHECK(all.callback == nullptr);
}

inline void callback_may_register_another() {
  stop_source source;
  int runs = 0;
  const auto inner = [&] { ++runs; };
  std::optional<stop_callback<decltype(inner)>> late;
  const stop_callback first(source.get_token(), [&] { late.emplace(source.get_token(), inner); });
  source.request_stop();
  CHECK(runs == 1);
}

/// The end of a callback waits for its run in another thread: after it, the run is complete.
inline void end_waits_for_the_running_callback() {
  std::atomic<std::size_t> wrong{0};
  for (std::size_t round = 0; round < veltrix_test::scale(500); ++round) {
    stop_source source;
    std::atomic<bool> inside{false};
    std::atomic<bool> leave{false};
    bool complete = false;  // not atomic: the wait must order it
    const auto slow = [&] {
      inside = true;
      while (!leave)
        std::this_thread::yield();
      complete = true;
    };
    std::optional<stop_callback<decltype(slow)>> callback;
    callback.emplace(source.get_token(), slow);
    std::thread requester([&] { source.request_stop(); });
    while (!inside)
      std::this_thread::yield();
    leave = true;
    callback.reset();
    if (!complete) ++wrong;
    requester.join();
  }
  CHECK(wrong == 0);
}

/// Callbacks that live when the stop is requested run exactly once; ended ones never again.
inline void callbacks_run_at_most_once_under_races() {
  std::atomic<std::size_t> wrong{0};
  for (std::size_t round = 0; round < veltrix_test::scale(400); ++round) {
    stop_source source;
    std::atomic<bool> go{false};
    std::atomic<int> runs_of_ended{0};
    std::atomic<int> runs_of_kept{0};
    const auto wait = [&] {
      while (!go)
        std::this_thread::yield();
    };
    std::thread registrar([&] {
      wait();
      for (int i = 0; i < 50; ++i) {
        const int before = runs_of_ended;
        {
          const stop_callback brief(source.get_token(), [&] { ++runs_of_ended; });
        }
        if (runs_of_ended > before + 1) ++wrong;
      }
    });
    std::thread keeper([&] {
      wait();
      const stop_callback kept(source.get_token(), [&] { ++runs_of_kept; });
      while (!source.stop_requested() || runs_of_kept == 0)
        std::this_thread::yield();
    });
    go = true;
    std::thread requester([&] { source.request_stop(); });
    if (source.request_stop() && !source.stop_requested()) ++wrong;
    requester.join();
    registrar.join();
    keeper.join();
    if (runs_of_kept != 1) ++wrong;
  }
  CHECK(wrong == 0);
}

/// What the requester wrote before its request is seen by who sees the request.
inline void request_publishes_what_came_before() {
  std::atomic<std::size_t> wrong{0};
  for (std::size_t round = 0; round < veltrix_test::scale(500); ++round) {
    stop_source source;
    int written = 0;
    std::thread watcher([&wrong, &written, token = source.get_token()] {
      while (!token.stop_requested())
        std::this_thread::yield();
      if (written != 1) ++wrong;
    });
    written = 1;
    source.request_stop();
    watcher.join();
  }
  CHECK(wrong == 0);
}

}  // namespace stop_token_cases
