// SPDX-License-Identifier: BSL-1.0
// Whom a post calls. What a full or closed pool answers is in elastic_pool_test.cpp, interleavings
// are in model/elastic_pool_model_test.cpp.
#include "veltrix/detail/task_intake.hpp"

#include "support/catch.hpp"

using namespace veltrix::detail;

TEST_CASE("task_intake calls a sleeper for whatever it takes, and nobody for what it refuses") {
  work_supply supply(16);
  supply.reserve(1);
  idle_workers idle(veltrix::detail::sync::asymmetric_fence_mode());
  task_intake intake(16, supply, idle);
  idle_workers::seat sleeper;
  const auto check = [&](bool takes, auto&& post) {
    idle.begin_search();
    idle.sit(sleeper);
    task works[] = {task([] {}), task([] {})};
    CHECK(post(works) == takes);
    CHECK(idle.rise(sleeper) != takes);
    if (takes) idle.wait(sleeper);  // returns at once
    CHECK(idle.end_search());
  };
  const poster people[] = {{},                                           // from outside
                           {.worker = true, .share = &supply.share(0)},  // in a task
                           {.worker = true}};                            // in a hook
  const auto each_calls = [&](bool takes) {
    for (const poster& from : people) {
      check(takes,
            [&](task* works) { return bool(intake.push(from, *works, when_full::refuses)); });
      check(takes, [&](task* works) {
        return intake.push_all(from, works, 2, when_full::refuses).first == 2;
      });
    }
  };
  each_calls(true);
  intake.close();
  each_calls(false);
}
