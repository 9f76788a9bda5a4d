// SPDX-License-Identifier: BSL-1.0
#include "veltrix/worker/commit_tracker.hpp"

#include <algorithm>
#include <deque>
#include <memory>
#include <vector>

#include "support/catch.hpp"
#include "support/random.hpp"

using veltrix::commit_tracker;
using veltrix::event;
using veltrix::event_block;
using veltrix::input_position;

namespace {

/// A block of `lines` lines of 10 bytes; those in `events` are events, the others are not.
std::unique_ptr<event_block> make_block(std::uint64_t first, std::uint64_t lines,
                                        const std::vector<std::uint64_t>& events) {
  auto block = std::make_unique<event_block>();
  block->first_line = first;
  block->line_count = lines;
  block->begin_offset = (first - 1) * 10;
  block->end_offset = (first - 1 + lines) * 10;
  block->reserve_events(events.size());
  for (const std::uint64_t number : events) {
    event& next = block->next_event();
    next.number = number;
    next.offset = (number - 1) * 10;
    block->take_event();
  }
  block->seal();
  return block;
}

void finish(commit_tracker& tracker, event_block& block, std::size_t at) {
  commit_tracker::event_done(block.events()[at]);
  if (block.finish(1)) tracker.block_done(block);
}

}  // namespace

TEST_CASE("commit_tracker stays before the first event that is not done") {
  commit_tracker tracker;
  const auto block = make_block(1, 6, {2, 3, 5});
  tracker.opened(*block);
  CHECK(tracker.position() == input_position{1, 10});
  finish(tracker, *block, 1);
  CHECK(tracker.position() == input_position{1, 10});
  finish(tracker, *block, 0);
  CHECK(tracker.position() == input_position{4, 40});
  finish(tracker, *block, 2);
  CHECK(tracker.position() == input_position{6, 60});
  CHECK(tracker.read() == input_position{6, 60});
}

TEST_CASE("commit_tracker passes a later block only after the earlier ones") {
  commit_tracker tracker;
  const auto first = make_block(1, 2, {1, 2});
  const auto second = make_block(3, 2, {3, 4});
  tracker.opened(*first);
  tracker.opened(*second);
  finish(tracker, *second, 0);
  finish(tracker, *second, 1);
  CHECK(tracker.position() == input_position{0, 0});
  finish(tracker, *first, 0);
  CHECK(tracker.position() == input_position{1, 10});
  finish(tracker, *first, 1);
  CHECK(tracker.position() == input_position{4, 40});
}

TEST_CASE("commit_tracker starts at a place and passes blocks without events") {
  commit_tracker tracker;
  tracker.start_at({100, 1000});
  CHECK(tracker.position() == input_position{100, 1000});
  const auto block = make_block(101, 3, {});
  tracker.opened(*block);
  tracker.block_done(*block);
  CHECK(tracker.position() == input_position{103, 1030});
}

TEST_CASE("commit_tracker has no room while one event holds many blocks back") {
  commit_tracker tracker(2);
  const auto first = make_block(1, 1, {1});
  const auto second = make_block(2, 1, {2});
  tracker.opened(*first);
  CHECK(tracker.has_room());
  tracker.opened(*second);
  CHECK_FALSE(tracker.has_room());
  finish(tracker, *second, 0);
  CHECK_FALSE(tracker.has_room());
  finish(tracker, *first, 0);
  CHECK(tracker.has_room());
}

TEST_CASE("commit_tracker agrees with a plain list whatever order events end in") {
  const std::uint64_t seed = 99;
  INFO("seed " << seed);
  veltrix_test::random_source random(seed);
  commit_tracker tracker;
  std::vector<bool> line_done;  // by line number - 1; lines that are no events are done
  std::deque<std::unique_ptr<event_block>> blocks;
  std::vector<std::pair<event_block*, std::size_t>> open;
  for (int step = 0; step < 5000; ++step) {
    if (random.below(20) == 0 || open.empty()) {
      const std::uint64_t lines = 1 + random.below(20);
      std::vector<std::uint64_t> events;
      for (std::uint64_t line = 0; line < lines; ++line) {
        const bool is_event = random.below(5) != 0;
        if (is_event) events.push_back(line_done.size() + 1);
        line_done.push_back(!is_event);
      }
      blocks.push_back(make_block(line_done.size() - lines + 1, lines, events));
      tracker.opened(*blocks.back());
      if (events.empty()) tracker.block_done(*blocks.back());
      for (std::size_t at = 0; at < events.size(); ++at)
        open.emplace_back(blocks.back().get(), at);
    } else {
      const auto which = static_cast<std::size_t>(random.below(open.size()));
      const auto [block, at] = open[which];
      open.erase(open.begin() + static_cast<std::ptrdiff_t>(which));
      line_done[block->events()[at].number - 1] = true;
      finish(tracker, *block, at);
    }
    const auto prefix =
        static_cast<std::uint64_t>(std::ranges::find(line_done, false) - line_done.begin());
    REQUIRE(tracker.position() == input_position{prefix, prefix * 10});
  }
}
