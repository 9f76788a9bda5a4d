// SPDX-License-Identifier: BSL-1.0
#include "veltrix/worker/line_splitter.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "support/catch.hpp"
#include "support/random.hpp"

using veltrix::event_block;
using veltrix::fault_kind;
using veltrix::line_splitter;
using veltrix::raw_line;
using veltrix::read_result;
using veltrix::read_status;
using veltrix::splitter_limits;

namespace {

/// Gives a text in pieces of random size, with pauses.
class piecewise {
 public:
  piecewise(std::string_view text, std::uint64_t seed, std::size_t largest)
      : rest_(text), random_(seed), largest_(largest) {}

  read_result read(std::span<char> into) {
    if (rest_.empty()) return {read_status::end, 0};
    if (random_.below(4) == 0) return {read_status::idle, 0};
    const std::size_t bytes = std::min(
        {into.size(), rest_.size(), static_cast<std::size_t>(random_.below(largest_)) + 1});
    std::memcpy(into.data(), rest_.data(), bytes);
    rest_.remove_prefix(bytes);
    return {read_status::data, bytes};
  }

 private:
  std::string_view rest_;
  veltrix_test::random_source random_;
  std::size_t largest_;
};

struct seen_line {
  std::string text;
  std::uint64_t number;
  std::uint64_t offset;
  bool rejected;
  std::uint64_t length;

  friend bool operator==(const seen_line&, const seen_line&) = default;
};

std::ostream& operator<<(std::ostream& out, const seen_line& line) {
  return out << line.number << "@" << line.offset << (line.rejected ? " rejected " : " ")
             << line.length << " " << line.text.substr(0, 40);
}

struct outcome {
  std::vector<seen_line> lines;
  std::uint64_t empty = 0;
  std::size_t blocks = 0;
  std::size_t widest = 0;  // most text a block held
};

template <class Reader>
outcome split(Reader& reader, const splitter_limits& limits, line_splitter& splitter) {
  outcome seen;
  event_block block;
  for (;;) {
    block.clear();
    const std::uint64_t line = splitter.next_line();
    const std::uint64_t offset = splitter.next_offset();
    const read_status status = splitter.fill(block, reader, limits);
    seen.widest = std::max(seen.widest, block.text_capacity());
    if (status == read_status::end) return seen;
    if (status == read_status::idle) continue;
    REQUIRE(status == read_status::data);
    ++seen.blocks;
    REQUIRE(block.first_line == line);
    REQUIRE(block.begin_offset == offset);
    REQUIRE(block.line_count == block.lines().size() + block.rejects().size() + block.empty_lines);
    REQUIRE(block.lines().size() <= limits.max_lines);
    for (const raw_line& each : block.lines()) {
      seen.lines.push_back({std::string(block.text().substr(each.begin, each.length)), each.number,
                            each.offset, false, each.length});
    }
    for (const auto& each : block.rejects()) {
      REQUIRE(each.kind == fault_kind::too_long);
      seen.lines.push_back({each.text, each.number, each.offset, true, each.length});
    }
    seen.empty += block.empty_lines;
  }
}

/// The same by hand.
outcome split_plainly(std::string_view text, std::size_t longest) {
  outcome seen;
  std::uint64_t number = 0;
  std::size_t at = 0;
  while (at < text.size()) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = text.substr(at, end - at);
    ++number;
    if (line.size() > longest) {
      seen.lines.push_back({std::string(line.substr(0, veltrix::rejected_line::kept_bytes)), number,
                            at, true, line.size()});
    } else if (line.find_first_not_of(" \t\r") == std::string_view::npos) {
      ++seen.empty;
    } else {
      seen.lines.push_back({std::string(line), number, at, false, line.size()});
    }
    at = end + 1;
  }
  return seen;
}

void sort_lines(outcome& seen) {
  std::ranges::sort(seen.lines, {}, &seen_line::number);
}

}  // namespace

TEST_CASE("line_splitter gives every line once, with its number and offset, however bytes come") {
  const std::uint64_t seed = 4711;
  INFO("seed " << seed);
  veltrix_test::random_source random(seed);
  for (int round = 0; round < 300; ++round) {
    std::string text;
    const std::uint64_t lines = random.below(60);
    for (std::uint64_t line = 0; line < lines; ++line) {
      const std::uint64_t kind = random.below(10);
      if (kind == 0) text += " \t";
      if (kind > 1) text.append(random.below(kind == 9 ? 400 : 40), 'a');
      if (line + 1 != lines || random.below(2) == 0) text += '\n';
    }
    const splitter_limits limits{.max_line_bytes = 100,
                                 .block_bytes = 64 + random.below(600),
                                 .max_lines = 1 + random.below(20)};
    piecewise reader(text, random.next(), 1 + random.below(300));
    line_splitter splitter;
    outcome seen = split(reader, limits, splitter);
    sort_lines(seen);
    const outcome expected = split_plainly(text, 100);
    REQUIRE(seen.lines == expected.lines);
    REQUIRE(seen.empty == expected.empty);
    REQUIRE(splitter.next_offset() == text.size());
  }
}

TEST_CASE("line_splitter skips a line of any length in bounded memory") {
  std::string text = "first\n";
  text.append(20'000'000, 'x');
  text += "\nlast\n";
  piecewise reader(text, 1, 100'000);
  line_splitter splitter;
  outcome seen = split(reader, {.max_line_bytes = 1000, .block_bytes = 4096}, splitter);
  sort_lines(seen);
  REQUIRE(seen.lines.size() == 3);
  CHECK(seen.lines[1].rejected);
  CHECK(seen.lines[1].length == 20'000'000);
  CHECK(seen.lines[1].text.size() == veltrix::rejected_line::kept_bytes);
  CHECK(seen.lines[2] == seen_line{"last", 3, 20'000'007, false, 4});
  CHECK(seen.widest < 64 * 1024);
}

TEST_CASE("line_splitter goes on with the numbers it was given") {
  line_splitter splitter;
  splitter.start_after(41, 1000);
  piecewise reader("a\nb", 2, 10);
  const outcome seen = split(reader, {}, splitter);
  REQUIRE(seen.lines.size() == 2);
  CHECK(seen.lines[0] == seen_line{"a", 42, 1000, false, 1});
  CHECK(seen.lines[1] == seen_line{"b", 43, 1002, false, 1});
}
