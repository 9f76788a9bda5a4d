// bounded_queue explored: what goes in comes out once and in order, nobody sleeps for ever, and the
// bound holds at every moment.
// SPDX-License-Identifier: BSL-1.0
#include <new>
#include <utility>

#include "model/support.hpp"
#include "veltrix/bounded_queue.hpp"

namespace {

using namespace veltrix_model;
using veltrix::full_policy;
using veltrix::no_byte_limit;
using veltrix::pop_status;
using veltrix::push_status;

/// An item whose insides a racing thread would be seen to touch.
struct watched {
  watched(int given) : value(given) {}  // NOLINT: as the int it stands for
  watched(watched&&) noexcept = default;
  watched& operator=(watched&&) noexcept = default;
  var<int> value;
};
using queue = veltrix::bounded_queue<watched>;

veltrix::bounded_queue_options limit(std::size_t items, full_policy policy) {
  return {.max_items = items, .max_bytes = no_byte_limit, .policy = policy};
}

/// Two pushers of one item each and two poppers of one each; none waits.
void try_both_ways() {
  queue shared(limit(2, full_policy::reject));
  int got[2] = {0, 0};
  const auto push = [&](int item) {
    require(bool(shared.try_push(watched(item))), "there is room for two");
  };
  const auto pop = [&](int& into) {
    if (auto popped = shared.try_pop()) into = popped->value;
  };
  together([&] { push(1); }, [&] { push(2); }, [&] { pop(got[0]); }, [&] { pop(got[1]); });
  int sum = got[0] + got[1];
  while (auto left = shared.try_pop())
    sum += left->value;
  require(sum == 3, "each item came out once");
}

/// Two pushers and two poppers that wait, over room for one.
void wait_both_ways() {
  queue shared(limit(1, full_policy::block));
  int got[2] = {0, 0};
  together([&] { require(bool(shared.push(watched(1))), "pushed"); },
           [&] { require(bool(shared.push(watched(2))), "pushed"); },
           [&] { got[0] = shared.pop()->value; }, [&] { got[1] = shared.pop()->value; });
  require(got[0] + got[1] == 3 && got[0] != got[1], "each item came out once");
  const auto seen = shared.stats();
  require(seen.peak.items <= 1 && seen.inside.items == 0, "the bound held");
}

}  // namespace

TEST_CASE("bounded_queue model: two pushers and two poppers lose and double nothing") {
  check_exhausted("bounded_queue try 2+2, bound 1", explore({{.preemptions = 1}}, try_both_ways));
  check_exhausted("bounded_queue try 2+2, bound 2", explore({{.preemptions = 2}}, try_both_ways));
  check_exhausted("bounded_queue try 2+2, bound 3", explore({{.preemptions = 3}}, try_both_ways));
  check_exhausted("bounded_queue try 2+2, all", explore({}, try_both_ways));
}

TEST_CASE("bounded_queue model: each waiting pusher and popper is woken") {
  check_exhausted("bounded_queue wait 2+2, bound 1", explore({{.preemptions = 1}}, wait_both_ways));
  check_exhausted("bounded_queue wait 2+2, bound 2", explore({{.preemptions = 2}}, wait_both_ways));
  check_exhausted("bounded_queue wait 2+2, bound 3", explore({{.preemptions = 3}}, wait_both_ways));
  check_exhausted("bounded_queue wait 2+2, bound 2, one wake-up for no reason",
                  explore({{.preemptions = 2, .spurious_wakeups = 1}}, wait_both_ways));
}

TEST_CASE("bounded_queue model: one pusher's items come out in order") {
  check_exhausted("bounded_queue order", explore({{.preemptions = 3}}, [] {
                    queue shared(limit(1, full_policy::block));
                    together(
                        [&] {
                          for (int item = 1; item <= 3; ++item)
                            require(bool(shared.push(watched(item))), "pushed");
                          shared.close();
                        },
                        [&] {
                          for (int item = 1; item <= 3; ++item)
                            require(shared.pop()->value == item, "in the order of the pushes");
                          require(shared.pop().status == pop_status::closed,
                                  "closed after the last");
                        });
                  }));
}

TEST_CASE("bounded_queue model: close ends every wait, and nothing accepted is lost") {
  check_exhausted("bounded_queue close", explore({{.preemptions = 3}}, [] {
                    queue shared(limit(1, full_policy::block));
                    int pushed = 0, popped = 0;
                    together(
                        [&] {
                          pushed += shared.push(watched(1)).status == push_status::accepted ? 1 : 0;
                          pushed += shared.push(watched(2)).status == push_status::accepted ? 1 : 0;
                        },
                        [&] {
                          while (shared.pop())
                            ++popped;
                        },
                        [&] { shared.close(); });
                    while (shared.try_pop())
                      ++popped;
                    require(pushed == popped, "what was accepted came out");
                  }));
}

TEST_CASE("bounded_queue model: a stop and a deadline end the wait of one caller alone") {
  check_exhausted(
      "bounded_queue stop", explore({{.preemptions = 2}}, [] {
        queue shared(limit(1, full_policy::block));
        veltrix::stop_source stop;
        push_status first{}, second{};
        require(bool(shared.push(watched(0))), "pushed");
        together([&] { first = shared.push(watched(1), {.token = stop.get_token()}).status; },
                 [&] { second = shared.push(watched(2)).status; }, [&] { stop.request_stop(); },
                 [&] {
                   require(bool(shared.pop()), "popped");
                   require(bool(shared.pop()), "popped");
                 });
        require(second == push_status::accepted, "who was not stopped got in");
        require(first == push_status::accepted || first == push_status::stopped, "one of the two");
        require(shared.size() == (first == push_status::accepted ? 1u : 0u), "nothing lost");
      }));
  check_exhausted("bounded_queue deadline", explore({{.preemptions = 2, .early_timeouts = 1}}, [] {
                    queue shared(limit(1, full_policy::block));
                    push_status first{};
                    pop_status popped[2] = {};
                    const auto soon = veltrix::steady_clock::now() + std::chrono::seconds(1);
                    require(bool(shared.push(watched(0))), "pushed");
                    together([&] { first = shared.push(watched(1), {.deadline = soon}).status; },
                             [&] { popped[0] = shared.try_pop().status; },
                             [&] { popped[1] = shared.pop({.deadline = soon}).status; });
                    const std::size_t in = first == push_status::accepted ? 2 : 1;
                    std::size_t out = 0;
                    for (const pop_status each : popped)
                      out += each == pop_status::item ? 1 : 0;
                    require(shared.size() == in - out, "nothing lost");
                    require(first == push_status::accepted || first == push_status::timed_out,
                            "one of the two");
                  }));
}

TEST_CASE("bounded_queue model: a stop alone ends a wait, whenever it comes") {
  check_exhausted("bounded_queue stop alone", explore({{.preemptions = 3}}, [] {
                    queue shared(limit(1, full_policy::block));
                    veltrix::stop_source stop;
                    pop_status popped{};
                    together([&] { popped = shared.pop({.token = stop.get_token()}).status; },
                             [&] { stop.request_stop(); });
                    require(popped == pop_status::stopped, "nothing else could end it");
                  }));
}

TEST_CASE("bounded_queue model: a lowered limit and a dropped item keep the account") {
  check_exhausted(
      "bounded_queue limits", explore({{.preemptions = 3}}, [] {
        queue shared(limit(2, full_policy::drop_oldest));
        together(
            [&] { static_cast<void>(shared.push(watched(1))); },
            [&] { static_cast<void>(shared.push(watched(2))); },
            [&] { require(bool(shared.set_limits({.items = 1, .bytes = no_byte_limit})), "set"); },
            [&] { static_cast<void>(shared.try_pop()); });
        const auto seen = shared.stats();
        require(seen.pushed == 2, "drop_oldest takes all");
        require(seen.pushed == seen.popped + seen.evicted + seen.inside.items, "the account");
      }));
}

TEST_CASE("bounded_queue model: a push without memory loses nothing, its item included") {
  const exploration wanted{{.preemptions = 2}};
  check_exhausted("bounded_queue without memory", explore_failing_allocations(wanted, [] {
                    queue shared(limit(2, full_policy::reject));
                    int in[2] = {0, 0}, out = 0;
                    const auto push = [&](int& taken) {
                      watched item(1);
                      try {
                        taken = shared.try_push(std::move(item)) ? 1 : 0;
                      } catch (const std::bad_alloc&) {
                        require(item.value == 1, "still the caller's");
                      }
                    };
                    together([&] { push(in[0]); }, [&] { push(in[1]); },
                             [&] { out = shared.try_pop() ? 1 : 0; });
                    require(shared.size() == static_cast<std::size_t>(in[0] + in[1] - out),
                            "what was taken is there");
                  }));
}

TEST_CASE("bounded_queue model: two and two threads by sampling, at full speed") {
  exploration sample;
  sample.most_schedules = 300'000;
  for (const search_kind how : {search_kind::uniform, search_kind::priorities}) {
    sample.how = how;
    check_sampled("bounded_queue try 2+2, sampled", explore(sample, try_both_ways), 300'000);
    check_sampled("bounded_queue wait 2+2, sampled", explore(sample, wait_both_ways), 300'000);
  }
}
