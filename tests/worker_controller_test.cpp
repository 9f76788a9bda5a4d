// SPDX-License-Identifier: BSL-1.0
#include "veltrix/worker/controller.hpp"

#include "support/catch.hpp"

using veltrix::controller_step;
using veltrix::controller_verdict;
using veltrix::controller_view;
using veltrix::pool_controller;

namespace {

const veltrix::time_point start{std::chrono::hours(1)};

controller_view view(std::int64_t desired, std::int64_t target, std::uint64_t generation = 1) {
  return {.desired = desired, .config_generation = generation, .target = target, .now = start};
}

/// A controller that has dealt with generation 1.
pool_controller settled() {
  pool_controller controller;
  CHECK(controller.step(view(64, 64)).verdict == controller_verdict::settled);
  return controller;
}

}  // namespace

TEST_CASE("pool_controller closes the difference exactly when the configuration changed") {
  pool_controller controller = settled();
  const controller_step step = controller.step(view(512, 64, 2));
  CHECK(step.verdict == controller_verdict::resize);
  CHECK(step.delta == 448);
  controller.acked(view(512, 64, 2));
  CHECK(controller.step(view(512, 512, 2)).verdict == controller_verdict::settled);
}

TEST_CASE("pool_controller takes an unknown or stale number for no number") {
  pool_controller controller = settled();
  controller_view unknown = view(0, 64, 2);
  unknown.desired.reset();
  CHECK(controller.step(unknown).verdict == controller_verdict::hold);
  controller_view stale = view(512, 64, 2);
  stale.age = std::chrono::seconds(6);
  CHECK(controller.step(stale).verdict == controller_verdict::hold);
  CHECK(controller.step(view(512, 64, 2)).verdict == controller_verdict::resize);
}

TEST_CASE("pool_controller closes a small difference in the end") {
  pool_controller controller = settled();
  controller.acked(view(512, 64, 2));
  for (int tick = 1; tick < 10; ++tick)
    REQUIRE(controller.step(view(512, 470, 2)).verdict == controller_verdict::hold);
  const controller_step step = controller.step(view(512, 470, 2));
  CHECK(step.verdict == controller_verdict::resize);
  CHECK(step.delta == 42);
}

TEST_CASE("pool_controller closes a large difference at once") {
  pool_controller controller = settled();
  controller.acked(view(512, 64, 2));
  CHECK(controller.step(view(512, 460, 2)).delta == 52);
  CHECK(controller.step(view(64, 72, 2)).delta == -8);
}

TEST_CASE("pool_controller waits out a backoff and then asks as urgently as before") {
  pool_controller controller = settled();
  controller_view asked = view(512, 64, 2);
  CHECK(controller.step(asked).verdict == controller_verdict::resize);
  controller.backed_off(start + std::chrono::milliseconds(50));
  CHECK(controller.step(asked).verdict == controller_verdict::hold);
  asked.now = start + std::chrono::milliseconds(50);
  CHECK(controller.step(asked).delta == 448);
}

TEST_CASE("pool_controller asks no second time for what was refused") {
  pool_controller controller = settled();
  CHECK(controller.step(view(5000, 64, 2)).verdict == controller_verdict::resize);
  controller.refused(view(5000, 64, 2));
  CHECK(controller.step(view(5000, 64, 2)).verdict == controller_verdict::hold);
  CHECK(controller.step(view(5000, 64, 3)).verdict == controller_verdict::hold);
  CHECK(controller.step(view(100, 64, 4)).delta == 36);
  controller_view another_pool = view(5000, 64, 4);
  another_pool.epoch = 9;
  CHECK(controller.step(another_pool).verdict == controller_verdict::resize);
}
