// SPDX-License-Identifier: BSL-1.0
#include "adapters/sinks.hpp"

#include <optional>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/temporary.hpp"

using veltrix::event;
using veltrix_worker::file_sink;

namespace {

std::string write(file_sink& sink, std::uint64_t number, std::string_view key) {
  event each;
  each.id = "17";
  each.id_is_number = true;
  each.key = key;
  each.sequence = 3;
  each.has_sequence = true;
  each.number = number;
  event* batch[] = {&each};
  return sink.write(batch);
}

const std::string line_one = "{\"id\":17,\"key\":\"a\",\"seq\":3,\"offset\":1}\n";

}  // namespace

TEST_CASE("file_sink writes whole lines, and its position is what flush made durable") {
  const veltrix_test::temporary_folder folder;
  const auto opened = file_sink::open(folder.file("out"), std::nullopt);
  REQUIRE(opened.sink != nullptr);
  CHECK(write(*opened.sink, 1, "a").empty());
  CHECK(opened.sink->position() == 0);
  CHECK(opened.sink->flush().empty());
  CHECK(opened.sink->position() == line_one.size());
  CHECK(folder.read("out") == line_one);
}

TEST_CASE("file_sink escapes keys and ids, and writes null where there is no number") {
  const veltrix_test::temporary_folder folder;
  const auto opened = file_sink::open(folder.file("out"), std::nullopt);
  REQUIRE(opened.sink != nullptr);
  event each;
  each.id = "x\"\\";
  each.key = "tab\there\x01";
  each.number = 5;
  event* batch[] = {&each};
  CHECK(opened.sink->write(batch).empty());
  CHECK(opened.sink->flush().empty());
  CHECK(folder.read("out") ==
        "{\"id\":\"x\\\"\\\\\",\"key\":\"tab\\there\\u0001\",\"seq\":null,\"offset\":5}\n");
}

TEST_CASE("file_sink appends to what is there, and ends a broken line first") {
  const veltrix_test::temporary_folder folder;
  folder.write("out", "{\"whole\":1}\n{\"bro");
  const auto opened = file_sink::open(folder.file("out"), std::nullopt);
  REQUIRE(opened.sink != nullptr);
  CHECK(write(*opened.sink, 1, "a").empty());
  CHECK(opened.sink->flush().empty());
  CHECK(folder.read("out") == "{\"whole\":1}\n{\"bro\n" + line_one);
}

TEST_CASE("file_sink cuts off what was written after the saved position") {
  const veltrix_test::temporary_folder folder;
  folder.write("out", line_one + "not committed");
  {
    const auto opened = file_sink::open(folder.file("out"), line_one.size());
    REQUIRE(opened.sink != nullptr);
    CHECK(opened.sink->position() == line_one.size());
    CHECK(write(*opened.sink, 1, "a").empty());
    CHECK(opened.sink->flush().empty());
    CHECK(folder.read("out") == line_one + line_one);
  }
  const auto missing = file_sink::open(folder.file("out"), 1000);
  CHECK(missing.sink == nullptr);
  CHECK(missing.problem.find("the saved position needs 1000") != std::string::npos);
}

TEST_CASE("file_sink refuses a file that another worker writes") {
  const veltrix_test::temporary_folder folder;
  const auto first = file_sink::open(folder.file("out"), std::nullopt);
  REQUIRE(first.sink != nullptr);
  const auto second = file_sink::open(folder.file("out"), std::nullopt);
  CHECK(second.sink == nullptr);
  CHECK(second.problem.find("in use") != std::string::npos);
}

TEST_CASE("file_sink says that the disk is full, and goes on saying so") {
  const auto opened = file_sink::open("/dev/full", std::nullopt);
  REQUIRE(opened.sink != nullptr);
  CHECK(write(*opened.sink, 1, "a").empty());
  CHECK(opened.sink->flush().find("ENOSPC") != std::string::npos);
  CHECK(write(*opened.sink, 2, "a").find("ENOSPC") != std::string::npos);
  CHECK(opened.sink->position() == 0);
}

TEST_CASE("file_sink says why a file cannot be opened") {
  const veltrix_test::temporary_folder folder;
  const auto opened = file_sink::open(folder.file("no/such/folder"), std::nullopt);
  CHECK(opened.sink == nullptr);
  CHECK(opened.problem.find("ENOENT") != std::string::npos);
}
