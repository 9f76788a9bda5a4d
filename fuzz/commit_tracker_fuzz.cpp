// commit_tracker: blocks opened in order, events and blocks done in any order.
// Model: every line with whether it is done; the position is where the first open one begins.
// SPDX-License-Identifier: BSL-1.0
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "driver.hpp"
#include "veltrix/worker/commit_tracker.hpp"

namespace veltrix_fuzz {
namespace {

using veltrix::commit_tracker;
using veltrix::event;
using veltrix::event_block;
using veltrix::input_position;

struct plain_event {
  input_position before;
  bool done = false;
};

struct plain_block {
  std::unique_ptr<event_block> block;
  std::vector<plain_event> events;
  input_position end;
  bool done = false;  // told to the tracker
};

class session {
 public:
  explicit session(byte_source& from)
      : from_(from), most_blocks_(1 + from.below(6)), tracker_(most_blocks_) {
    if (from_.flag()) {
      at_ = {from_.number(2), from_.number(4)};
      tracker_.start_at(at_);
    }
    start_ = last_ = at_;
  }

  void run() {
    while (!from_.empty()) {
      switch (from_.below(4)) {
        case 0: open(); break;
        case 1:
        case 2: finish_event(); break;
        default: finish_block(); break;
      }
      compare();
    }
  }

 private:
  void open() {
    if (!tracker_.has_room()) return;
    trace::add("open");
    plain_block fresh;
    fresh.block = std::make_unique<event_block>();
    event_block& block = *fresh.block;
    block.first_line = at_.lines + 1;
    block.begin_offset = at_.bytes;
    const std::size_t events = from_.below(5);
    block.reserve_events(events);
    for (std::size_t i = 0; i < events; ++i) {
      skip_lines();  // empty or rejected ones
      event& next = block.next_event();
      next.number = at_.lines + 1;
      next.offset = at_.bytes;
      block.take_event();
      fresh.events.push_back({at_});
      take_line();
    }
    skip_lines();
    block.line_count = at_.lines + 1 - block.first_line;
    block.end_offset = at_.bytes;
    block.seal();
    fresh.end = at_;
    tracker_.opened(block);
    blocks_.push_back(std::move(fresh));
  }

  void skip_lines() {
    for (std::size_t i = from_.below(3); i != 0; --i)
      take_line();
  }
  void take_line() {
    ++at_.lines;
    at_.bytes += 1 + from_.below(100);
  }

  plain_block* any_block() {
    std::vector<plain_block*> open;
    for (plain_block& each : blocks_) {
      if (!each.done) open.push_back(&each);
    }
    return open.empty() ? nullptr : open[from_.below(open.size())];
  }

  void finish_event() {
    plain_block* const chosen = any_block();
    if (chosen == nullptr || chosen->events.empty()) return;
    trace::add("event-done");
    const std::size_t which = from_.below(chosen->events.size());
    chosen->events[which].done = true;
    commit_tracker::event_done(chosen->block->events()[which]);
  }

  /// As the pipeline does it: the last event first, then the block, then its memory is used again.
  void finish_block() {
    plain_block* const chosen = any_block();
    if (chosen == nullptr) return;
    trace::add("block-done");
    for (std::size_t i = 0; i < chosen->events.size(); ++i) {
      chosen->events[i].done = true;
      commit_tracker::event_done(chosen->block->events()[i]);
    }
    compare();
    chosen->done = true;
    tracker_.block_done(*chosen->block);
    chosen->block.reset();  // the tracker must not look at it again
  }

  input_position expected() const {
    input_position reached = start_;
    for (const plain_block& each : blocks_) {
      for (const plain_event& one : each.events) {
        if (!one.done) return one.before;
      }
      reached = each.end;
      if (!each.done) return reached;  // looks at one block's events only
    }
    return reached;
  }

  std::size_t held() const {
    std::size_t first = 0;
    while (first < blocks_.size() && blocks_[first].done)
      ++first;
    return blocks_.size() - first;
  }

  void compare() {
    const input_position now = tracker_.position();
    require(now == expected(), "the position is the beginning of the first line not done");
    require(now.lines >= last_.lines && now.bytes >= last_.bytes, "the position never goes back");
    last_ = now;
    require(tracker_.read() == at_, "read() is the end of the newest block");
    agree(tracker_.has_room(), held() < most_blocks_, "has_room");
  }

  byte_source& from_;
  const std::size_t most_blocks_;
  commit_tracker tracker_;
  std::deque<plain_block> blocks_;
  input_position at_{};
  input_position start_{};
  input_position last_{};
};

}  // namespace

void one_input(byte_source& from) {
  session(from).run();
}

}  // namespace veltrix_fuzz
