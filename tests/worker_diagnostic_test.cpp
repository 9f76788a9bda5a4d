// One line, one code: how the parts of a diagnostic are joined, and the table of codes.
// SPDX-License-Identifier: BSL-1.0
#include "veltrix/worker/diagnostic.hpp"

#include <algorithm>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "support/catch.hpp"

using veltrix::diagnostic;
using veltrix::diagnostic_code;
using veltrix::diagnostic_form;
using veltrix::diagnostic_row;
using veltrix::diagnostic_table;

TEST_CASE("diagnostic a refusal says what, got, allowed, what stays and what to do") {
  const diagnostic told{.code = diagnostic_code::out_of_bounds,
                        .file = "veltrix.yaml",
                        .line = 7,
                        .column = 20,
                        .what = "workers.max_concurrency",
                        .got = "5120",
                        .allowed = "is above 284 (pids.max=300, 16 kept back)",
                        .stays = "generation 41 with 512 workers stays in force",
                        .next = "Lower it or raise pids.max"};
  REQUIRE(to_string(told) ==
          "VX1012 veltrix.yaml:7:20 workers.max_concurrency: 5120 is above 284 (pids.max=300, 16 "
          "kept back). Refused; generation 41 with 512 workers stays in force. Lower it or raise "
          "pids.max.");
}

TEST_CASE("diagnostic a refusal without a state in force goes on with what to do") {
  const diagnostic told{.code = diagnostic_code::two_names,
                        .file = "veltrix.yaml",
                        .line = 3,
                        .column = 1,
                        .what = "worker-pool-size",
                        .got = "64",
                        .allowed = "and workers.max_concurrency: 512 (line 7) set the same thing",
                        .next = "Remove one"};
  REQUIRE(to_string(told) ==
          "VX1003 veltrix.yaml:3:1 worker-pool-size: 64 and workers.max_concurrency: 512 (line 7) "
          "set the same thing. Refused; remove one.");
}

TEST_CASE("diagnostic a remark puts the kind before the thing and may end in a question") {
  diagnostic told{.code = diagnostic_code::unknown_key,
                  .file = "veltrix.yaml",
                  .line = 9,
                  .column = 3,
                  .what = "unknown key",
                  .got = "workers.max_concurency",
                  .allowed = "did you mean workers.max_concurrency?",
                  .next = "correct the name or remove it"};
  REQUIRE(to_string(told) ==
          "VX1001 veltrix.yaml:9:3 unknown key workers.max_concurency; did you mean "
          "workers.max_concurrency? Refused; correct the name or remove it.");
  told.stays = "no worker was started";
  told.line = 0;
  REQUIRE(to_string(told) ==
          "VX1001 veltrix.yaml unknown key workers.max_concurency; did you mean "
          "workers.max_concurrency? Refused; no worker was started. Correct the name or remove "
          "it.");
}

TEST_CASE("diagnostic a report joins its parts by semicolons and leaves empty ones out") {
  diagnostic told{.code = diagnostic_code::queue_full,
                  .what = "queue full",
                  .got = "64.0 MiB of 64 MiB (48,211 events)",
                  .allowed = "sink 'file' has not returned for 12.3 s",
                  .stays = "source paused"};
  REQUIRE(to_string(told) ==
          "VX2007 queue full: 64.0 MiB of 64 MiB (48,211 events); sink 'file' has not returned for "
          "12.3 s; source paused.");
  told.next = "Look at the sink";
  told.stays.clear();
  REQUIRE(to_string(told) ==
          "VX2007 queue full: 64.0 MiB of 64 MiB (48,211 events); sink 'file' has not returned for "
          "12.3 s; look at the sink.");
}

TEST_CASE("diagnostic each form of the table ends in a full stop whatever parts are missing") {
  for (const diagnostic_row& row : diagnostic_table) {
    for (unsigned parts = 0; parts < 32; ++parts) {
      const auto part = [&](unsigned bit, const char* text) {
        return (parts & bit) != 0 ? std::string(text) : std::string();
      };
      const diagnostic told{.code = row.code,
                            .file = part(16, "f.yaml"),
                            .what = "what",
                            .got = part(1, "got"),
                            .allowed = part(2, "allowed"),
                            .stays = part(4, "stays"),
                            .next = part(8, "next")};
      const std::string line = to_string(told);
      INFO(line);
      REQUIRE(line.starts_with(to_string(row.code) + ((parts & 16) != 0 ? " f.yaml " : " ")));
      REQUIRE(line.ends_with('.'));
      REQUIRE(line.find("..") == std::string::npos);
      REQUIRE(line.find("  ") == std::string::npos);
      REQUIRE((line.find("got") != std::string::npos) == ((parts & 1) != 0));
      REQUIRE((line.find("tays") != std::string::npos) == ((parts & 4) != 0));
      REQUIRE((line.find("ext") != std::string::npos) == ((parts & 8) != 0));
      const bool refuses =
          row.form == diagnostic_form::refusal || row.form == diagnostic_form::remark;
      REQUIRE((line.find("Refused") != std::string::npos) == refuses);
    }
  }
}

TEST_CASE("diagnostic the table is in the order of its codes and says what each means") {
  std::set<std::string_view> meanings;
  REQUIRE(std::ranges::is_sorted(diagnostic_table, {}, &diagnostic_row::code));
  for (const diagnostic_row& row : diagnostic_table) {
    INFO(to_string(row.code));
    REQUIRE(to_string(row.code).size() == 6);
    REQUIRE(&veltrix::row_of(row.code) == &row);
    REQUIRE_FALSE(row.meaning.empty());
    REQUIRE_FALSE(row.meaning.ends_with('.'));
    REQUIRE(meanings.insert(row.meaning).second);
    const auto number = static_cast<unsigned>(row.code);
    if (number >= 1900 && number < 2000) REQUIRE(row.form == diagnostic_form::warning);
    if (number < 1900) {
      REQUIRE((row.form == diagnostic_form::refusal || row.form == diagnostic_form::remark));
    }
  }
}

TEST_CASE("diagnostic values are shortened and made printable, never inside a character") {
  using veltrix::detail::quote_value;
  REQUIRE(quote_value("plain text") == "plain text");
  REQUIRE(quote_value("a\tb\n\x7F") == "a\\x09b\\x0a\\x7f");
  REQUIRE(quote_value(std::string(60, 'x')) == std::string(60, 'x'));
  REQUIRE(quote_value(std::string(61, 'x')) == std::string(60, 'x') + "...");
  const std::string long_word = std::string(59, 'x') + "\xC3\xA9" + "tail";
  REQUIRE(quote_value(long_word) == std::string(59, 'x') + "\xC3\xA9" + "...");
}

TEST_CASE("diagnostic faults are sorted by place, those of the file first") {
  const auto at = [](std::size_t line, std::size_t column, diagnostic_code code) {
    return diagnostic{.code = code, .line = line, .column = column};
  };
  std::vector<diagnostic> found{
      at(0, 0, diagnostic_code::unknown_key), at(9, 1, diagnostic_code::unknown_key),
      at(2, 7, diagnostic_code::wrong_type), at(2, 3, diagnostic_code::two_names),
      at(2, 3, diagnostic_code::unknown_key)};
  veltrix::sort_by_place(found);
  REQUIRE(found == std::vector<diagnostic>{at(2, 3, diagnostic_code::unknown_key),
                                           at(2, 3, diagnostic_code::two_names),
                                           at(2, 7, diagnostic_code::wrong_type),
                                           at(9, 1, diagnostic_code::unknown_key),
                                           at(0, 0, diagnostic_code::unknown_key)});
}
