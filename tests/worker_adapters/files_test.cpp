// SPDX-License-Identifier: BSL-1.0
#include "adapters/files.hpp"

#include <string>
#include <utility>

#include "adapters/system_text.hpp"
#include "support/catch.hpp"
#include "support/temporary.hpp"
#include "support/worker_parts.hpp"

using veltrix::fault_kind;
using veltrix::letter_status;
using veltrix::rejected_line;
using veltrix_test::make_config;
using veltrix_test::temporary_folder;
using veltrix_worker::any_reader;
using veltrix_worker::commit_file;
using veltrix_worker::dead_letter_file;
using veltrix_worker::generate_reader;
using veltrix_worker::metrics_file;

namespace {

rejected_line letter(std::string text) {
  return {.kind = fault_kind::syntax,
          .number = 3,
          .offset = 40,
          .length = text.size(),
          .text = std::move(text),
          .reason = "it is \"bad\""};
}

}  // namespace

TEST_CASE("dead_letter_file keeps line, offset, reason and text, and makes no file before") {
  const temporary_folder folder;
  dead_letter_file letters("in.jsonl");
  letters.configure(make_config({"dead_letter.path=" + folder.file("dead")}));
  CHECK(letters.flush().empty());
  CHECK_FALSE(folder.has("dead"));
  CHECK(letters.write(letter("{\"a\":\n")) == letter_status::kept);
  CHECK(letters.write(letter("\xff\x01")) == letter_status::kept);
  CHECK(letters.flush().empty());
  CHECK(folder.read("dead") ==
        "{\"source\":\"in.jsonl\",\"line\":3,\"offset\":40,\"length\":6,\"reason\":\"syntax\","
        "\"detail\":\"it is \\\"bad\\\"\",\"text\":\"{\\\"a\\\":\\n\"}\n"
        "{\"source\":\"in.jsonl\",\"line\":3,\"offset\":40,\"length\":2,\"reason\":\"syntax\","
        "\"detail\":\"it is \\\"bad\\\"\",\"base64\":\"/wE=\"}\n");
}

TEST_CASE("dead_letter_file stops growing at its bound, and goes to another path when told") {
  const temporary_folder folder;
  dead_letter_file letters("in");
  letters.configure(
      make_config({"dead_letter.path=" + folder.file("dead"), "dead_letter.max_bytes=65536"}));
  int kept = 0;
  while (letters.write(letter(std::string(1000, 'x'))) == letter_status::kept)
    ++kept;
  CHECK(kept > 50);
  CHECK(folder.read("dead").size() <= 65536);
  letters.configure(make_config({"dead_letter.path=" + folder.file("other")}));
  CHECK(letters.write(letter("y")) == letter_status::kept);
  CHECK(folder.has("other"));
}

TEST_CASE("dead_letter_file ends a line that a crash broke") {
  const temporary_folder folder;
  folder.write("dead", "{\"bro");
  dead_letter_file letters("in");
  letters.configure(make_config({"dead_letter.path=" + folder.file("dead")}));
  CHECK(letters.write(letter("y")) == letter_status::kept);
  CHECK(folder.read("dead").starts_with("{\"bro\n{\"source\""));
}

TEST_CASE("dead_letter_file says why it cannot write") {
  dead_letter_file letters("in");
  letters.configure(make_config({"dead_letter.path=/dev/full"}));
  CHECK(letters.write(letter("y")) == letter_status::failed);
  CHECK(letters.failure().find("ENOSPC") != std::string::npos);
  letters.configure(make_config({"dead_letter.path=/no/such/folder/dead"}));
  CHECK(letters.write(letter("y")) == letter_status::failed);
  CHECK(letters.failure().find("ENOENT") != std::string::npos);
}

TEST_CASE("commit_file reads back what it saved, and nothing where there is no file") {
  const temporary_folder folder;
  const any_reader reader(
      std::make_unique<generate_reader>(veltrix_worker::generator_options{.count = 1, .keys = 1}));
  CHECK_FALSE(commit_file::load(folder.file("pos")).saved.has_value());
  CHECK(commit_file::load(folder.file("pos")).problem.empty());
  commit_file commits(folder.file("pos"), "generate", "file out put.jsonl", reader);
  const veltrix::commit_record record{{1234, 567890}, 4321};
  CHECK(commits.save(record).empty());
  const auto loaded = commit_file::load(folder.file("pos"));
  REQUIRE(loaded.saved.has_value());
  CHECK(loaded.saved->record == record);
  CHECK(loaded.saved->source == "generate");
  CHECK(loaded.saved->sink == "file out put.jsonl");
  CHECK(loaded.saved->identity.bytes == 4096);
  CHECK(loaded.saved->identity.digest == reader.digest(4096));
  CHECK_FALSE(folder.has("pos.tmp"));
}

TEST_CASE("commit_file refuses every file that is cut short or changed by a byte") {
  const temporary_folder folder;
  const any_reader reader(
      std::make_unique<generate_reader>(veltrix_worker::generator_options{.count = 1, .keys = 1}));
  commit_file commits(folder.file("pos"), "generate", "count", reader);
  CHECK(commits.save({{1234, 567890}, 0}).empty());
  const std::string good = folder.read("pos");
  for (std::size_t at = 0; at < good.size(); ++at) {
    folder.write("cut", good.substr(0, at));
    REQUIRE_FALSE(commit_file::load(folder.file("cut")).problem.empty());
    std::string changed = good;
    changed[at] = changed[at] == '7' ? '8' : '7';
    folder.write("changed", changed);
    INFO(at);
    REQUIRE_FALSE(commit_file::load(folder.file("changed")).problem.empty());
  }
}

TEST_CASE("commit_file keeps the old position when the new one cannot be written") {
  const temporary_folder folder;
  const any_reader reader(
      std::make_unique<generate_reader>(veltrix_worker::generator_options{.count = 1, .keys = 1}));
  commit_file nowhere(folder.file("no/such/pos"), "generate", "count", reader);
  CHECK(nowhere.save({{1, 2}, 0}).find("ENOENT") != std::string::npos);
  commit_file off("", "generate", "count", reader);
  CHECK(off.save({{1, 2}, 0}).empty());
}

TEST_CASE("metrics_file replaces its file whole") {
  const temporary_folder folder;
  CHECK(metrics_file(folder.file("m.prom")).publish("a 1\n").empty());
  CHECK(metrics_file(folder.file("m.prom")).publish("b 2\n").empty());
  CHECK(folder.read("m.prom") == "b 2\n");
  CHECK_FALSE(folder.has("m.prom.tmp"));
  CHECK(metrics_file("").publish("c 3\n").empty());
  CHECK_FALSE(metrics_file(folder.file("no/such")).publish("c 3\n").empty());
}

TEST_CASE("base64 and append_json write what any reader takes") {
  using veltrix_worker::base64;
  CHECK(base64("") == "");
  CHECK(base64("f") == "Zg==");
  CHECK(base64("fo") == "Zm8=");
  CHECK(base64("foo") == "Zm9v");
  CHECK(base64("foobar") == "Zm9vYmFy");
  std::string text;
  veltrix_worker::append_json(text, "a\"\\\b\x1f\n\xc3\xa9");
  CHECK(text == "\"a\\\"\\\\\\u0008\\u001f\\n\xc3\xa9\"");
  CHECK(veltrix_worker::is_utf8("\xc3\xa9"));
  CHECK_FALSE(veltrix_worker::is_utf8("\xc3"));
  CHECK_FALSE(veltrix_worker::is_utf8("\xed\xa0\x80"));
}
