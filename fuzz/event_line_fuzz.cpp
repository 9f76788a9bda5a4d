// The way of a line into the worker: cut out of a stream that comes in pieces, checked by a schema.
// Model: the stream cut at its line feeds by a loop, and each line read and checked the slow way.
// SPDX-License-Identifier: BSL-1.0
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "driver.hpp"
#include "plain_json.hpp"
#include "plain_schema.hpp"
#include "support/random.hpp"
#include "veltrix/worker/event_schema.hpp"
#include "veltrix/worker/line_splitter.hpp"
#include "veltrix/worker/time_text.hpp"

namespace veltrix_fuzz {
namespace {

using veltrix::event_block;
using veltrix::fault_kind;
using veltrix::read_result;
using veltrix::read_status;

/// Gives the stream out in pieces of any size, with pauses.
class piecewise_reader {
 public:
  piecewise_reader(std::string_view stream, std::uint64_t seed)
      : rest_(stream), random_(seed), largest_(1 + random_.below(64)) {}

  read_result read(std::span<char> into) {
    require(!into.empty(), "a reader is given room");
    if (rest_.empty()) return {read_status::end, 0};
    if (random_.below(5) == 0) return {read_status::idle, 0};
    const std::size_t bytes = std::min(
        {rest_.size(), into.size(), static_cast<std::size_t>(1 + random_.below(largest_))});
    std::memcpy(into.data(), rest_.data(), bytes);
    rest_.remove_prefix(bytes);
    return {read_status::data, bytes};
  }

 private:
  std::string_view rest_;
  veltrix_test::random_source random_;
  std::uint64_t largest_;
};

struct plain_cut {
  std::string text;
  std::uint64_t number;
  std::uint64_t offset;
};

/// All lines of a stream, by kind.
struct plain_lines {
  std::vector<plain_cut> good{};
  std::vector<plain_cut> too_long{};
  std::uint64_t empty = 0;
  std::uint64_t count = 0;
};

plain_lines cut_plainly(std::string_view stream, std::size_t longest, std::uint64_t line,
                        std::uint64_t offset) {
  plain_lines lines;
  while (!stream.empty()) {
    const std::size_t end = std::min(stream.find('\n'), stream.size());
    const std::string text(stream.substr(0, end));
    if (text.size() > longest) {
      lines.too_long.push_back({text, line, offset});
    } else if (text.find_first_not_of(" \t\r") == text.npos) {
      ++lines.empty;
    } else {
      lines.good.push_back({text, line, offset});
    }
    const std::size_t taken = std::min(end + 1, stream.size());
    stream.remove_prefix(taken);
    offset += taken;
    ++line;
    ++lines.count;
  }
  return lines;
}

/// What the splitter made of the stream, block after block.
class collected_lines {
 public:
  explicit collected_lines(const plain_lines& expected) : expected_(expected) {}

  void take(event_block& block) {
    for (const veltrix::raw_line& line : block.lines()) {
      require(good_ < expected_.good.size(), "more lines than there are");
      const plain_cut& wanted = expected_.good[good_++];
      require(block.text().substr(line.begin, line.length) == wanted.text, "the text of a line");
      agree(line.number, wanted.number, "the number of a line");
      agree(line.offset, wanted.offset, "the offset of a line");
    }
    for (const veltrix::rejected_line& reject : block.rejects()) {
      require(too_long_ < expected_.too_long.size(), "more lines too long than there are");
      const plain_cut& wanted = expected_.too_long[too_long_++];
      require(reject.kind == fault_kind::too_long, "a splitter rejects for length alone");
      agree(reject.length, wanted.text.size(), "the length of a rejected line");
      agree(reject.number, wanted.number, "the number of a rejected line");
      agree(reject.offset, wanted.offset, "the offset of a rejected line");
      require(reject.text == wanted.text.substr(0, veltrix::rejected_line::kept_bytes),
              "the head of a rejected line");
    }
    empty_ += block.empty_lines;
    lines_ += block.line_count;
  }

  void finish() const {
    agree(good_, expected_.good.size(), "all lines came");
    agree(too_long_, expected_.too_long.size(), "all lines too long came");
    agree(empty_, expected_.empty, "empty lines are counted");
    agree(lines_, expected_.count, "all lines are counted");
  }

 private:
  const plain_lines& expected_;
  std::size_t good_ = 0;
  std::size_t too_long_ = 0;
  std::uint64_t empty_ = 0;
  std::uint64_t lines_ = 0;
};

void check_block(const event_block& block, std::uint64_t line, std::uint64_t offset,
                 std::size_t most_lines) {
  agree(block.first_line, line, "a block goes on where the last one ended: line");
  agree(block.begin_offset, offset, "a block goes on where the last one ended: byte");
  require(block.end_offset >= block.begin_offset, "a block ends after its beginning");
  // One line more: the end of a line that was too long for the blocks before.
  require(block.line_count <= most_lines + 1, "a block holds its share of lines");
}

void split(const veltrix::splitter_limits& limits, std::uint64_t seed, std::string_view stream,
           const plain_lines& expected, std::uint64_t lines, std::uint64_t bytes) {
  trace::add("split");
  veltrix::line_splitter splitter;
  splitter.start_after(lines, bytes);
  piecewise_reader reader(stream, seed);
  collected_lines got(expected);
  event_block block;
  std::uint64_t line = lines + 1;
  std::uint64_t offset = bytes;
  for (;;) {
    block.clear();
    const read_status status = splitter.fill(block, reader, limits);
    check_block(block, line, offset, limits.max_lines);
    line += block.line_count;
    offset = block.end_offset;
    got.take(block);
    require((block.line_count != 0) == (status == read_status::data), "data exactly with lines");
    if (status == read_status::end) break;
  }
  got.finish();
  agree(splitter.next_line(), line, "the splitter's line");
  agree(splitter.next_offset(), bytes + stream.size(), "the splitter's place");
}

/// The worker's checker, fed with the fields of a line.
void check(const veltrix::event_schema& schema, const plain_line& line) {
  if (line.fault != fault_kind::none) return;
  trace::add("check");
  const plain_event expected = check_plain(schema, line);
  veltrix::event_checker checker(schema);
  veltrix::event event;
  checker.begin();
  fault_kind fault = fault_kind::none;
  for (const plain_field& field : line.fields) {
    const std::size_t rule = checker.find(field.name);
    if (rule == veltrix::event_checker::no_rule || fault != fault_kind::none) continue;
    fault = checker.field(rule, {field.type, field.text, field.integer}, event);
  }
  if (fault == fault_kind::none) fault = checker.finish(event);
  agree(static_cast<int>(fault), static_cast<int>(expected.fault), "the fault of an event");
  if (fault == fault_kind::none) return agree_on_event(event, expected);
  require(!checker.reason(fault).empty(), "a fault has words");
}

/// A time, formatted, reads back as the same: years 0 to 9999 are what four digits hold.
void check_time(std::string_view text) {
  const auto got = veltrix::parse_time(text);
  require(got == plain_time(text), "a time, as the calendar has it");
  if (!got) return;
  const auto again = veltrix::parse_time(veltrix::format_time(*got));
  constexpr std::int64_t first = -62'167'219'200'000'000;
  constexpr std::int64_t last = 253'402'300'799'999'999;
  if (*got >= first && *got <= last) require(again == got, "a time written out reads back");
}

/// A field of each rule, at the bounds of what it allows: bytes alone seldom get there.
void check_bounds(const veltrix::event_schema& schema, veltrix_test::random_source& random) {
  plain_line line;
  for (const veltrix::field_rule& rule : schema.rules()) {
    plain_field field;
    field.name = rule.name;
    if ((rule.types & static_cast<unsigned>(veltrix::json_type::integer)) != 0 &&
        random.below(2) == 0) {
      field.type = veltrix::json_type::integer;
      const std::int64_t least = std::max<std::int64_t>(rule.lowest, -1'000'000);
      field.integer = least + static_cast<std::int64_t>(random.below(3)) - 1;
      field.text = std::to_string(field.integer);
    } else {
      field.type = veltrix::json_type::string;
      const std::int64_t bound =
          std::clamp<std::int64_t>(random.below(2) == 0 ? rule.lowest : rule.highest, 0, 5000);
      const std::int64_t length = bound + static_cast<std::int64_t>(random.below(3)) - 1;
      field.text.assign(static_cast<std::size_t>(std::max<std::int64_t>(length, 0)), '1');
    }
    if (rule.role == veltrix::field_role::time && random.below(4) != 0) {
      field.type = veltrix::json_type::string;
      field.text = "2024-02-29T00:00:00Z";
    }
    if (random.below(8) != 0) line.fields.push_back(field);
    if (random.below(16) == 0) line.fields.push_back(field);
  }
  check(schema, line);
}

/// A time near the ends of months and years, in every form that is allowed, and some that are not.
std::string made_time(veltrix_test::random_source& random) {
  const auto number = [&](std::uint64_t least, std::uint64_t most, std::size_t digits) {
    const std::string text = std::to_string(least + random.below(most - least + 1));
    return std::string(digits - std::min(digits, text.size()), '0') + text;
  };
  constexpr std::string_view between = "Tt Z";
  std::string text = random.below(2) == 0 ? number(0, 99, 2) + "00" : number(0, 9999, 4);
  text += "-" + number(0, 13, 2) + "-" + number(random.below(2) * 28, 32, 2);
  text += between[random.below(between.size())];
  text += number(0, 24, 2) + ":" + number(0, 60, 2) + ":" + number(0, 60, 2);
  if (random.below(2) == 0) text += (random.below(4) == 0 ? "," : ".") + number(0, 9999999999, 1);
  if (random.below(2) == 0) return text + (random.below(4) == 0 ? "z" : "Z");
  return text + (random.below(2) == 0 ? "+" : "-") + number(0, 24, 2) +
         (random.below(2) == 0 ? ":" : "") + number(0, 60, 2);
}

}  // namespace

void one_input(byte_source& from) {
  const veltrix::event_schema schema = chosen_schema(from);
  veltrix::splitter_limits limits;
  limits.max_line_bytes = from.flag() ? 65536 : 1 + from.below(128);
  limits.block_bytes = from.flag() ? limits.block_bytes : 1 + from.below(256);
  limits.max_lines = from.flag() ? limits.max_lines : 1 + from.below(4);
  const std::uint64_t seed = from.byte();
  const std::uint64_t lines = from.below(4);
  const std::uint64_t bytes = lines * from.below(100);
  const std::string_view stream = from.text();
  const plain_lines expected = cut_plainly(stream, limits.max_line_bytes, lines + 1, bytes);
  split(limits, seed, stream, expected, lines, bytes);
  for (const plain_cut& line : expected.good) {
    check(schema, plain_json(line.text, 64).read());
    check_time(line.text);
  }
  veltrix_test::random_source random(seed + 256 * stream.size());
  for (int i = 0; i < 4; ++i) {
    check_bounds(schema, random);
    check_time(made_time(random));
  }
}

}  // namespace veltrix_fuzz
