// SPDX-License-Identifier: BSL-1.0
#include "adapters/readers.hpp"

#include <map>
#include <memory>
#include <sstream>
#include <string>

#include <fcntl.h>
#include <unistd.h>

#include "adapters/json_parser.hpp"
#include "support/catch.hpp"
#include "support/temporary.hpp"
#include "support/worker_parts.hpp"
#include "veltrix/worker/jsonl_source.hpp"

using veltrix::read_status;
using veltrix_worker::any_reader;
using veltrix_worker::fd_reader;
using veltrix_worker::generate_reader;
using veltrix_worker::generator_options;
using veltrix_worker::input_identity;

namespace {

std::unique_ptr<fd_reader> open_file(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  REQUIRE(file >= 0);
  return std::make_unique<fd_reader>(file, fd_reader::ownership::owned, path);
}

template <class Reader>
std::string read_all(Reader& reader, std::size_t step) {
  std::string all;
  std::string part(step, '\0');
  for (;;) {
    const veltrix::read_result got = reader.read(part);
    if (got.status == read_status::end) return all;
    REQUIRE(got.status == read_status::data);
    all.append(part, 0, got.bytes);
  }
}

}  // namespace

TEST_CASE("fd_reader reads a file from the place it is told, and knows its size") {
  const veltrix_test::temporary_folder folder;
  const std::string path = folder.write("in", "0123456789");
  auto whole = open_file(path);
  CHECK(whole->size() == 10);
  CHECK(read_all(*whole, 3) == "0123456789");
  auto rest = open_file(path);
  CHECK(rest->start_after({1, 4}).empty());
  CHECK(read_all(*rest, 3) == "456789");
}

TEST_CASE("fd_reader refuses a place beyond the file, and a file that begins otherwise") {
  const veltrix_test::temporary_folder folder;
  const std::string path = folder.write("in", "0123456789");
  CHECK(open_file(path)->start_after({1, 11}).find("has 10 bytes, fewer") != std::string::npos);
  auto first = open_file(path);
  CHECK(read_all(*first, 100).size() == 10);
  const input_identity known{4, first->digest(4)};
  auto same = open_file(folder.write("grown", "0123456789 and more"));
  same->expect(known);
  CHECK(same->start_after({1, 4}).empty());
  auto other = open_file(folder.write("other", "0120456789"));
  other->expect(known);
  CHECK(other->start_after({1, 4}).find("does not begin as") != std::string::npos);
}

TEST_CASE("fd_reader says why it cannot read") {
  const veltrix_test::temporary_folder folder;
  auto directory = open_file(folder.file("."));
  char byte[1];
  CHECK(directory->read(byte).status == read_status::failed);
  CHECK(directory->failure().find("EISDIR") != std::string::npos);
}

TEST_CASE("fd_reader of a pipe is idle while nothing is there, and skips what is done") {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  fd_reader reader(ends[0], fd_reader::ownership::owned, "pipe");
  char bytes[100];
  CHECK(reader.read(bytes).status == read_status::idle);
  CHECK_FALSE(reader.size().has_value());
  CHECK(reader.start_after({1, 6}).empty());
  REQUIRE(::write(ends[1], "done\n", 5) == 5);
  CHECK(reader.read(bytes).status == read_status::idle);
  REQUIRE(::write(ends[1], "\nnew", 4) == 4);
  const veltrix::read_result got = reader.read(bytes);
  CHECK(got.status == read_status::data);
  CHECK(std::string(bytes, got.bytes) == "new");
  ::close(ends[1]);
  CHECK(reader.read(bytes).status == read_status::end);
}

TEST_CASE("fd_reader of a pipe fails when the input ends early or is another one") {
  for (const std::string text : {"abc", "abXdefgh"}) {
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    fd_reader reader(ends[0], fd_reader::ownership::owned, "pipe");
    REQUIRE(::write(ends[1], text.data(), text.size()) == static_cast<::ssize_t>(text.size()));
    ::close(ends[1]);
    veltrix_worker::input_head head;
    head.add(std::string("abcdef"));
    reader.expect({6, head.digest(6)});
    CHECK(reader.start_after({1, 6}).empty());
    char bytes[100];
    CHECK(reader.read(bytes).status == read_status::failed);
    CHECK(reader.failure().find(text.size() < 6 ? "ends at byte 3" : "does not begin as") !=
          std::string::npos);
  }
}

TEST_CASE("generate_reader makes events that the built-in schema takes, numbered in their keys") {
  auto reader = std::make_unique<any_reader>(std::make_unique<generate_reader>(
      generator_options{.count = 5'000, .keys = 37, .event_bytes = 120, .seed = 5}));
  veltrix::jsonl_source<any_reader, veltrix_worker::json_parser> source(
      std::move(reader),
      std::make_unique<veltrix_worker::json_parser>(veltrix::event_schema::built_in()));
  source.configure(veltrix_test::make_config({}));
  std::map<std::string, std::uint64_t> last;
  std::int64_t time = 0;
  std::uint64_t seen = 0;
  veltrix::event_block block;
  while (source.poll(block, {}) == read_status::data) {
    REQUIRE(block.rejects().empty());
    for (const veltrix::event& each : block.events()) {
      ++seen;
      REQUIRE(each.text.size() == 120);
      REQUIRE(each.number == seen);
      REQUIRE(each.id == std::to_string(seen));
      REQUIRE(each.sequence == ++last[std::string(each.key)]);
      REQUIRE((time == 0 || each.time_us == time + 1000));
      time = each.time_us;
    }
    block.clear();
  }
  CHECK(seen == 5'000);
  CHECK(last.size() == 37);
}

TEST_CASE("generate_reader gives the same bytes in any pieces and from any place") {
  const generator_options options{.count = 2'000, .keys = 30, .event_bytes = 64, .seed = 3};
  generate_reader whole(options);
  const std::string all = read_all(whole, 1 << 20);
  generate_reader pieces(options);
  CHECK(read_all(pieces, 7) == all);
  for (const std::uint64_t lines : {0U, 1U, 29U, 30U, 999U, 1000U, 1999U, 2000U}) {
    std::size_t at = 0;
    for (std::uint64_t line = 0; line < lines; ++line)
      at = all.find('\n', at) + 1;
    generate_reader rest(options);
    CHECK(rest.start_after({lines, at}).empty());
    REQUIRE(read_all(rest, 1 << 16) == all.substr(at));
  }
  generate_reader other({.count = 2'000, .keys = 30, .event_bytes = 64, .seed = 4});
  CHECK(read_all(other, 1 << 20) != all);
  CHECK(other.digest(0) != whole.digest(0));
}
