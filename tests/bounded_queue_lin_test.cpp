// bounded_queue: pushes and pops take effect at one moment each, first in first out, under every
// policy. Three or four threads, recorded and checked round by round.
// SPDX-License-Identifier: BSL-1.0
#include "veltrix/bounded_queue.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>

#include "support/catch.hpp"
#include "support/lin_rounds.hpp"
#include "support/random.hpp"
#include "support/scale.hpp"
#include "support/sequential_specs.hpp"

namespace {

using namespace veltrix_test;
using veltrix::bound_kind;
using veltrix::full_policy;
using veltrix::pop_status;
using veltrix::push_status;

/// Moved under the queue's lock, where one in 16 gives its core away: the others find it taken.
struct item {
  explicit item(std::uint64_t number) : value(number) {}
  item(item&& other) noexcept : value(other.value) {
    if (value % 16 == 0) std::this_thread::yield();
  }
  item& operator=(item&&) = delete;

  std::uint64_t value;
};

using number_queue = veltrix::bounded_queue<item>;
using spec = queue_spec<4>;
using log_of_queue = recorder_of<spec>::log;

std::unique_ptr<number_queue> make(full_policy policy, std::size_t items) {
  return std::make_unique<number_queue>(veltrix::bounded_queue_options{
      .max_items = items, .max_bytes = veltrix::no_byte_limit, .policy = policy});
}

spec::answer told(const veltrix::push_result& result) {
  switch (result.status) {
    case push_status::accepted: return {queue_status::done, result.evicted};
    case push_status::full:
      // Refused for the sake of those who wait already, whether there is room or not.
      if (result.bound == bound_kind::waiters) return {queue_status::refused, 0};
      return {queue_status::full, 0};
    case push_status::dropped:
    case push_status::run_yourself: return {queue_status::full, 0};
    case push_status::closed: return {queue_status::closed, 0};
    default: return {queue_status::refused, 0};  // timed out: others may have waited longer
  }
}

spec::answer told(const veltrix::pop_result<item>& result) {
  switch (result.status) {
    case pop_status::item: return {queue_status::done, result.item->value};
    case pop_status::closed: return {queue_status::closed, 0};
    default: return {queue_status::empty, 0};  // timed out: it looks once more, and finds nothing
  }
}

void try_call(number_queue& queue, log_of_queue& log, random_source& random) {
  const std::uint64_t kind = random.below(16);
  if (kind < 8) {
    const std::uint64_t value = random.next() >> 40;
    log.record({queue_call::push, value}, [&] { return told(queue.try_push(item(value))); });
  } else if (kind < 15) {
    log.record({queue_call::pop, 0}, [&] { return told(queue.try_pop()); });
  } else {
    log.record({queue_call::size, 0},
               [&] { return spec::answer{queue_status::done, queue.size()}; });
  }
}

/// Waits at most a few microseconds, so that no round hangs.
void waiting_call(number_queue& queue, log_of_queue& log, random_source& random) {
  const auto soon = veltrix::steady_clock::now() + std::chrono::microseconds(random.below(30));
  const std::uint64_t kind = random.below(32);
  if (kind == 0) {
    log.record({queue_call::close, 0}, [&] {
      queue.close();
      return spec::answer{};
    });
  } else if (kind < 12) {
    const std::uint64_t value = random.next() >> 40;
    log.record({queue_call::push, value},
               [&] { return told(queue.push(item(value), {.deadline = soon, .token = {}})); });
  } else if (kind < 22) {
    log.record({queue_call::pop, 0}, [&] { return told(queue.pop_until(soon)); });
  } else {
    try_call(queue, log, random);
  }
}

template <class Step>
void require_linearizable(const char* name, full_policy policy, const rounds_options& options,
                          Step step) {
  constexpr std::size_t capacity = 3;
  const auto when = policy == full_policy::drop_oldest ? when_full::drop_oldest : when_full::refuse;
  const auto result = run_rounds(
      spec{.capacity = capacity, .policy = when}, options,
      [policy] { return make(policy, capacity); }, step);
  result.print(name);
  INFO("seed " << options.seed);
  REQUIRE(result.last.answer == verdict::linearizable);
  REQUIRE(result.overlapping > result.operations / 4);
}

}  // namespace

TEST_CASE("bounded_queue try_push and try_pop are linearizable under each policy") {
  const rounds_options options{
      .calls = 150, .rounds = scale(600), .seed = 81, .longest = std::chrono::milliseconds(500)};
  require_linearizable("bounded_queue, block", full_policy::block, options, try_call);
  require_linearizable("bounded_queue, reject", full_policy::reject, options, try_call);
  require_linearizable("bounded_queue, drop_newest", full_policy::drop_newest, options, try_call);
  require_linearizable("bounded_queue, drop_oldest", full_policy::drop_oldest, options, try_call);
  require_linearizable("bounded_queue, caller_runs", full_policy::caller_runs, options, try_call);
}

TEST_CASE("bounded_queue push, pop and close are linearizable where they wait") {
  const rounds_options options{.threads = 3, .calls = 40, .rounds = scale(1'500), .seed = 82};
  require_linearizable("bounded_queue, waiting", full_policy::block, options, waiting_call);
}

TEST_CASE("bounded_queue is linearizable by a counter's stamps") {
  const rounds_options options{
      .calls = 150, .rounds = scale(600), .seed = 83, .source = stamp_source::counter};
  require_linearizable("bounded_queue, counter", full_policy::reject, options, try_call);
}
