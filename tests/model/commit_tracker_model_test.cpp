// commit_tracker explored: a saved position promises that everything before it is in the sink.
// SPDX-License-Identifier: BSL-1.0
#include <cstddef>

#include "model/support.hpp"
#include "veltrix/worker/commit_tracker.hpp"

namespace {

using namespace veltrix_model;
using veltrix::commit_tracker;
using veltrix::event;
using veltrix::event_block;

constexpr std::size_t lines = 2;

/// A block whose lines are all events, of 10 bytes each.
void fill(event_block& block) {
  block.first_line = 1;
  block.line_count = lines;
  block.end_offset = lines * 10;
  block.reserve_events(lines);
  for (std::size_t at = 0; at < lines; ++at) {
    event& next = block.next_event();
    next.number = at + 1;
    next.offset = at * 10;
    block.take_event();
  }
  block.seal();
}

}  // namespace

TEST_CASE("commit_tracker model: whoever reads a position sees the results before it") {
  check_exhausted("commit_tracker position", explore({{.stale_reads = 1}}, [] {
                    commit_tracker tracker;
                    event_block block;
                    fill(block);
                    tracker.opened(block);
                    var<int> sink[lines];  // plain memory, as a file's buffer
                    const auto handle = [&](std::size_t at) {
                      sink[at] = 1;
                      commit_tracker::event_done(block.events()[at]);
                      if (block.finish(1)) tracker.block_done(block);
                    };
                    together([&] { handle(0); }, [&] { handle(1); },
                             [&] {
                               const veltrix::input_position safe = tracker.position();
                               for (std::size_t at = 0; at < safe.lines; ++at)
                                 require(sink[at] == 1, "what the position covers is there");
                             });
                    require(tracker.position() == veltrix::input_position{lines, lines * 10},
                            "all is done");
                  }));
}
