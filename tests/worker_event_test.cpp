// SPDX-License-Identifier: BSL-1.0
#include "veltrix/worker/event.hpp"

#include <cstring>
#include <string>
#include <type_traits>

#include "support/catch.hpp"

using veltrix::block_budget;
using veltrix::event;
using veltrix::event_block;
using veltrix::steady_clock;

static_assert(!std::is_copy_constructible_v<event_block>);
static_assert(!std::is_move_constructible_v<event_block>);
static_assert(!std::is_copy_constructible_v<block_budget>);

namespace {

void put(event_block& block, std::string_view text) {
  block.grow_text(block.text().size() + text.size());
  std::memcpy(block.free_text().data(), text.data(), text.size());
  block.set_text_size(block.text().size() + text.size());
}

}  // namespace

TEST_CASE("event_block keeps its text when it grows, and readable bytes behind it") {
  event_block block;
  put(block, "hello ");
  put(block, "world");
  CHECK(block.text() == "hello world");
  for (std::size_t at = 0; at < event_block::padding; ++at)
    REQUIRE(block.text().data()[block.text_capacity() + at] == '\0');
}

TEST_CASE("event_block gives memory back when most of it is unused") {
  event_block block;
  block.grow_text(1 << 20);
  put(block, "short");
  block.shrink_text();
  CHECK(block.text() == "short");
  CHECK(block.text_capacity() == 5);
  CHECK(block.footprint() < 4096);
}

TEST_CASE("event_block is ended by the finish of its last event") {
  event_block block;
  block.reserve_events(3);
  for (int made = 0; made < 3; ++made) {
    event& next = block.next_event();
    next.number = static_cast<std::uint64_t>(made) + 1;
    CHECK(next.block == &block);
    block.take_event();
  }
  block.seal();
  CHECK_FALSE(block.finish(1));
  CHECK_FALSE(block.finish(1));
  CHECK(block.finish(1));
}

TEST_CASE("event_block next_event is empty even where another event was before") {
  event_block block;
  block.reserve_events(1);
  event& first = block.next_event();
  first.id = first.key = first.kind = "old";
  first.has_sequence = first.has_time = first.id_is_number = true;
  first.done.store(true);
  const event& again = block.next_event();
  CHECK(again.id.empty());
  CHECK(again.key.empty());
  CHECK(again.kind.empty());
  CHECK_FALSE(again.has_sequence);
  CHECK_FALSE(again.has_time);
  CHECK_FALSE(again.id_is_number);
  CHECK_FALSE(again.done.load());
}

TEST_CASE("event_block cut_before gives up a line and what follows") {
  event_block block;
  block.first_line = 10;
  block.line_count = 5;
  block.end_offset = 500;
  block.reserve_events(3);
  for (const std::uint64_t number : {10U, 12U, 14U}) {
    block.next_event().number = number;
    block.take_event();
  }
  block.cut_before(12, 230);
  CHECK(block.events().size() == 1);
  CHECK(block.line_count == 2);
  CHECK(block.end_offset == 230);
}

TEST_CASE("event_block keeps an unescaped text until it is cleared") {
  event_block block;
  const std::string_view kept = block.keep(std::string(100, 'k'));
  const std::string_view other = block.keep("other");
  CHECK(kept == std::string(100, 'k'));
  CHECK(other == "other");
}

TEST_CASE("block_budget has room until the charges reach its limit") {
  block_budget budget(100'000);
  event_block& first = budget.take();
  event_block& second = budget.take();
  CHECK(&first != &second);
  first.grow_text(60'000);
  second.grow_text(60'000);
  budget.charge(first);
  CHECK(budget.has_room());
  CHECK(budget.bytes() == first.footprint());
  budget.charge(second);
  CHECK_FALSE(budget.has_room());
  CHECK_FALSE(budget.wait_for_room(steady_clock::now()));
  budget.give_back(first);
  CHECK(budget.has_room());
  budget.give_back(second);
  CHECK(budget.bytes() == 0);
}

TEST_CASE("block_budget wakes who waits when a block comes back or the limit grows") {
  block_budget budget(1000);
  event_block& block = budget.take();
  block.grow_text(5000);
  budget.charge(block);
  veltrix::detail::sync::native_thread other;
  SECTION("a block comes back") {
    REQUIRE(other.start({}, [&] { budget.give_back(block); }) == 0);
  }
  SECTION("the limit grows") {
    REQUIRE(other.start({}, [&] { budget.set_limit(100'000); }) == 0);
  }
  CHECK(budget.wait_for_room(veltrix::no_deadline));
  other.join();
}

TEST_CASE("block_budget takes blocks back in any order and gives memory of many back") {
  block_budget budget(1);
  std::vector<event_block*> out;
  for (int taken = 0; taken < 100; ++taken) {
    out.push_back(&budget.take());
    out.back()->grow_text(10);
    budget.charge(*out.back());
  }
  for (std::size_t at = 0; at < out.size(); at += 2)
    budget.give_back(*out[at]);
  for (std::size_t at = 1; at < out.size(); at += 2)
    budget.give_back(*out[at]);
  CHECK(budget.bytes() == 0);
  CHECK(budget.has_room());
}
