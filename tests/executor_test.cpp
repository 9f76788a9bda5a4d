// The executor concept and its smallest model.
// SPDX-License-Identifier: BSL-1.0
#include "veltrix/executor.hpp"

#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "support/catch.hpp"

using veltrix::post_result;
using veltrix::post_status;
using veltrix::task;

namespace {

/// Keeps at most two tasks until they are run; refuses for ever once closed.
struct small_queue {
  std::vector<task> waiting;
  bool closed = false;

  post_result try_post(task work) {
    if (closed) return {post_status::closed, "the queue was closed"};
    if (waiting.size() == 2) return {post_status::full, "2 tasks wait already"};
    waiting.push_back(std::move(work));
    return {};
  }
};

struct answers_bool {
  bool try_post(task) { return true; }
};

static_assert(veltrix::executor<veltrix::inline_executor>);
static_assert(veltrix::executor<const veltrix::inline_executor>);
static_assert(veltrix::executor<small_queue>);
static_assert(!veltrix::executor<const small_queue>);
static_assert(!veltrix::executor<answers_bool>);
static_assert(!veltrix::executor<int>);

/// What the library does with an executor it was given.
template <veltrix::executor Executor>
post_result offer(Executor& where, task work) {
  return where.try_post(std::move(work));
}

}  // namespace

TEST_CASE("inline_executor runs the task in the posting thread before it answers") {
  std::thread::id ran_in;
  const veltrix::inline_executor here;
  const post_result answer = offer(here, [&ran_in] { ran_in = std::this_thread::get_id(); });
  CHECK(answer);
  CHECK(answer.status == post_status::accepted);
  CHECK(std::string(answer.why).empty());
  CHECK(ran_in == std::this_thread::get_id());
}

TEST_CASE("inline_executor lets what the task throws pass") {
  const veltrix::inline_executor here;
  CHECK_THROWS_AS(offer(here, [] { throw std::runtime_error("task"); }), std::runtime_error);
}

TEST_CASE("post_result is true only when accepted and names the bound otherwise") {
  small_queue queue;
  int ran = 0;
  const auto counted = [&ran] { ++ran; };
  CHECK(offer(queue, counted));
  CHECK(offer(queue, counted));
  const post_result full = offer(queue, counted);
  CHECK_FALSE(full);
  CHECK(full.status == post_status::full);
  CHECK(std::string(full.why) == "2 tasks wait already");
  queue.closed = true;
  const post_result closed = offer(queue, counted);
  CHECK_FALSE(closed);
  CHECK(closed.status == post_status::closed);
  for (task& each : queue.waiting)
    each();
  CHECK(ran == 2);
}
