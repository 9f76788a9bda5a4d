// The worker's JSON parser, with simdjson inside, on one hostile line. Model: a plain recursive
// reader and a plain check of the schema; the two must agree on the fault and on every field.
// SPDX-License-Identifier: BSL-1.0
#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>

#include "adapters/json_parser.hpp"
#include "driver.hpp"
#include "plain_json.hpp"
#include "plain_schema.hpp"

namespace veltrix_fuzz {
namespace {

using veltrix::fault_kind;

bool is_json_fault(fault_kind kind) {
  return kind == fault_kind::syntax || kind == fault_kind::not_utf8;
}

}  // namespace

void one_input(byte_source& from) {
  const veltrix::event_schema schema = chosen_schema(from);
  std::string_view line = from.text();
  line = line.substr(0, std::min(line.find('\n'), line.size()));
  if (line.find_first_not_of(" \t\r") == line.npos) return;  // never handed to a parser

  veltrix::event_block block;
  block.grow_text(line.size());
  std::memcpy(block.free_text().data(), line.data(), line.size());
  block.set_text_size(line.size());
  block.reserve_events(1);
  veltrix::event& event = block.next_event();
  veltrix_worker::json_parser parser(schema);
  const veltrix::raw_line raw{0, static_cast<std::uint32_t>(line.size()), 7, 99};
  const fault_kind got = parser.parse(block, raw, event);
  require(got == fault_kind::none || !parser.reason(got).empty(), "a fault has words");

  if (!is_utf8(line)) {
    require(is_json_fault(got), "what is not UTF-8 is no event");
    return;
  }
  const plain_event expected = check_plain(schema, plain_json(line, 64).read());
  agree(static_cast<int>(got), static_cast<int>(expected.fault), "the fault of a line");
  if (got != fault_kind::none) return;
  agree_on_event(event, expected);
  require(event.text == line, "the event's text is the line");
  agree(event.number, 7, "the event's number");
  agree(event.offset, 99, "the event's offset");
}

}  // namespace veltrix_fuzz
