// The reader of the YAML subset: places, quoting, random files against a model, mutated bytes.
// SPDX-License-Identifier: BSL-1.0
#include "veltrix/worker/config_text.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/random.hpp"
#include "support/scale.hpp"
#include "veltrix/worker/config.hpp"
#include "veltrix/worker/config_doc.hpp"

using veltrix::config_text;
using veltrix::parse_yaml;
using veltrix::text_entry;
using veltrix::text_position;

namespace {

std::vector<text_entry> entries_of(std::string_view yaml) {
  const config_text text = parse_yaml(yaml, "f.yaml");
  INFO(yaml);
  for (const auto& fault : text.faults)
    UNSCOPED_INFO(to_string(fault));
  REQUIRE(text.faults.empty());
  return text.entries;
}

std::string value_of(std::string_view scalar) {
  const auto entries = entries_of("k: " + std::string(scalar) + "\n");
  REQUIRE(entries.size() == 1);
  return entries.front().value;
}

}  // namespace

TEST_CASE("config_text nested groups become paths with their places") {
  const auto entries = entries_of(
      "a: 1\n"
      "b:   # a group\n"
      "    c: two words\n"
      "\n"
      "    d:\n"
      "     e: 'x'\n"
      "    f: 3   # tail\n"
      "g.h: 4");
  const std::vector<text_entry> expected{{"a", "1", {1, 1}, {1, 4}, false},
                                         {"b.c", "two words", {3, 5}, {3, 8}, false},
                                         {"b.d.e", "x", {6, 6}, {6, 9}, true},
                                         {"b.f", "3", {7, 5}, {7, 8}, false},
                                         {"g.h", "4", {8, 1}, {8, 6}, false}};
  REQUIRE(entries == expected);
}

TEST_CASE("config_text line ends may be LF or CRLF and the last may be missing") {
  const std::vector<text_entry> expected{{"a.b", "1", {2, 2}, {2, 5}, false},
                                         {"c", "x", {4, 1}, {4, 4}, true}};
  REQUIRE(entries_of("a:\n b: 1\n\nc: \"x\"\n") == expected);
  REQUIRE(entries_of("a:\r\n b: 1\r\n\r\nc: \"x\"\r\n") == expected);
  REQUIRE(entries_of("a:\r\n b: 1\n\r\nc: \"x\"") == expected);
  REQUIRE(entries_of("").empty());
  REQUIRE(entries_of("\n\n  \n\t\n# only\n").empty());
}

TEST_CASE("config_text scalars lose their quotes, escapes, comments and outer blanks") {
  REQUIRE(value_of("plain") == "plain");
  REQUIRE(value_of("   spaced out   ") == "spaced out");
  REQUIRE(value_of("a#b # c") == "a#b");
  REQUIRE(value_of("a:b") == "a:b");
  REQUIRE(value_of("http://host:80/x") == "http://host:80/x");
  REQUIRE(value_of("-5") == "-5");
  REQUIRE(value_of("?x") == "?x");
  REQUIRE(value_of("64 MiB") == "64 MiB");
  REQUIRE(value_of("it's") == "it's");
  REQUIRE(value_of("'it''s' # c") == "it's");
  REQUIRE(value_of("'a # b'") == "a # b");
  REQUIRE(value_of("''") == "");
  REQUIRE(value_of("\"\"") == "");
  REQUIRE(value_of("\"a\\\"b\\\\c\\/d\"") == "a\"b\\c/d");
  REQUIRE(value_of("\"a\\tb\\nc\\rd\"") == "a\tb\nc\rd");
  REQUIRE(value_of("\"tab\there\"") == "tab\there");
  REQUIRE(value_of("caf\xC3\xA9") == "caf\xC3\xA9");
  REQUIRE(entries_of("k: 'null'\n").front().quoted);
  REQUIRE_FALSE(entries_of("k: 1\n").front().quoted);
}

TEST_CASE("config_text a fault does not hide the lines after it nor echo in those below it") {
  const config_text text = parse_yaml(
      "a: [1,\n"
      "  2]\n"
      "\"b\":\n"
      "  c: 1\n"
      "  d: 2\n"
      "e: |\n"
      "  text\n"
      "  - more: x\n"
      "f:\n"
      "  - 1\n"
      "  - 2\n"
      "  - 3\n"
      "g: good\n",
      "f.yaml");
  REQUIRE(text.entries == std::vector<text_entry>{{"g", "good", {13, 1}, {13, 4}, false}});
  std::vector<std::pair<std::size_t, unsigned>> found;
  for (const auto& fault : text.faults) {
    found.emplace_back(fault.line, static_cast<unsigned>(fault.code));
  }
  REQUIRE(found == std::vector<std::pair<std::size_t, unsigned>>{
                       {1, 1109}, {3, 1114}, {6, 1111}, {10, 1108}});
}

TEST_CASE("config_text keys are words joined by dots") {
  using veltrix::detail::is_key;
  for (const char* good : {"a", "a.b", "a-b_9", "A1", "_x", "a._b", "worker-pool-size"}) {
    INFO(good);
    REQUIRE(is_key(good));
  }
  for (const char* bad :
       {"", ".", "a.", ".a", "a..b", "1a", "-a", "a.1", "a b", "a:b", "\xC3\xA9"}) {
    INFO(bad);
    REQUIRE_FALSE(is_key(bad));
  }
}

TEST_CASE("config_text UTF-8 sequences are measured as the standard has them") {
  using veltrix::detail::utf8_length;
  REQUIRE(utf8_length("a") == 1);
  REQUIRE(utf8_length("\xC2\x80") == 2);
  REQUIRE(utf8_length("\xE0\xA0\x80") == 3);
  REQUIRE(utf8_length("\xEF\xBF\xBF") == 3);
  REQUIRE(utf8_length("\xF0\x90\x80\x80") == 4);
  REQUIRE(utf8_length("\xF4\x8F\xBF\xBF") == 4);
  // Stray and cut sequences, overlong forms, surrogates, beyond the last code point.
  for (const char* bad :
       {"\x80", "\xC1\xBF", "\xC2", "\xC2\x41", "\xE0\x9F\xBF", "\xE2\x82", "\xED\xA0\x80",
        "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF"}) {
    REQUIRE(utf8_length(bad) == 0);
  }
}

namespace {

/// A random file of the subset, and the entries that it must give.
class random_file {
 public:
  explicit random_file(veltrix_test::random_source& random) : random_(random) {
    add_group("", 0, 0);
  }

  std::string yaml{};
  std::vector<text_entry> entries{};

 private:
  static constexpr std::size_t deepest = 8;

  [[nodiscard]] bool one_in(std::uint64_t chances) { return random_.below(chances) == 0; }

  void end_line() {
    if (one_in(4)) yaml += "   # comment: 'x' [";
    yaml += one_in(4) ? "\r\n" : "\n";
    ++line_;
    if (one_in(5)) {
      yaml += one_in(2) ? "\n" : "      # {not: read}\n";
      ++line_;
    }
  }

  [[nodiscard]] std::string random_text() {
    constexpr std::string_view letters = "ab1 .-_/:#'\"\\[{&*!|>%@`,~?\xC3\xA9";
    std::string text;
    const auto size = random_.below(10);
    for (std::uint64_t at = 0; at < size; ++at) {
      const auto index = random_.below(letters.size() - 1);
      text +=
          index >= letters.size() - 2 ? std::string("\xC3\xA9") : std::string(1, letters[index]);
    }
    return text;
  }

  void add_group(const std::string& prefix, std::size_t indent, std::size_t level) {
    const auto members = 1 + random_.below(4);
    for (std::uint64_t member = 0; member < members; ++member) {
      const std::string name = "k" + std::to_string(next_name_++) + (one_in(4) ? ".x-y" : "");
      const text_position key_at{line_, indent + 1};
      yaml += std::string(indent, ' ') + name + ":";
      if (level + 1 < deepest && one_in(3)) {
        end_line();
        add_group(prefix + name + ".", indent + 1 + random_.below(4), level + 1);
        continue;
      }
      const auto blanks = 1 + random_.below(3);
      yaml.append(blanks, ' ');
      text_entry entry{prefix + name, {}, key_at, {line_, indent + name.size() + 2 + blanks}, true};
      add_scalar(entry);
      entries.push_back(entry);
      end_line();
    }
  }

  void add_scalar(text_entry& entry) {
    switch (random_.below(3)) {
      case 0:
        entry.value = std::to_string(random_.below(100'000)) + (one_in(2) ? " MiB" : "");
        entry.quoted = false;
        yaml += entry.value;
        return;
      case 1:
        entry.value = random_text();
        yaml += "'";
        for (const char letter : entry.value)
          yaml.append(letter == '\'' ? 2 : 1, letter);
        yaml += "'";
        return;
      default:
        entry.value = random_text();
        yaml += veltrix::detail::json_string(entry.value);
        return;
    }
  }

  veltrix_test::random_source& random_;
  std::size_t line_ = 1;
  std::size_t next_name_ = 0;
};

}  // namespace

TEST_CASE("config_text random files give the entries that they were written from") {
  const std::uint64_t seed = 77;
  veltrix_test::random_source random(seed);
  std::size_t entries = 0;
  for (std::size_t round = 0; round < veltrix_test::scale(4000); ++round) {
    const random_file file(random);
    const config_text text = parse_yaml(file.yaml, "f.yaml");
    INFO("seed " << seed << ", round " << round << "\n" << file.yaml);
    if (!text.faults.empty()) UNSCOPED_INFO(to_string(text.faults.front()));
    REQUIRE(text.faults.empty());
    REQUIRE(text.entries == file.entries);
    entries += text.entries.size();
  }
  REQUIRE(entries > veltrix_test::scale(4000));
}

TEST_CASE("config_text values written by yaml_scalar are read back") {
  const std::uint64_t seed = 78;
  veltrix_test::random_source random(seed);
  for (std::size_t round = 0; round < veltrix_test::scale(20'000); ++round) {
    std::string text;
    const auto size = random.below(12);
    for (std::uint64_t at = 0; at < size; ++at)
      text += static_cast<char>(' ' + random.below(95));
    INFO("seed " << seed << ", round " << round << ": " << text);
    REQUIRE(value_of(veltrix::detail::yaml_scalar(text)) == text);
  }
}

namespace {

/// Changes a few bytes of `text`: the kinds of damage that editors, disks and merges do.
void mutate(std::string& text, veltrix_test::random_source& random) {
  using namespace std::string_view_literals;
  constexpr std::string_view odd =
      "\0\t\n\r :#'\"-[]{}&*!|>%@`,?~.\\\x7F\x80\xC3\xFF"sv;  // with its NUL
  const auto changes = 1 + random.below(4);
  for (std::uint64_t change = 0; change < changes; ++change) {
    const std::size_t at = random.below(text.size() + 1);
    switch (random.below(6)) {
      case 0: text.insert(at, 1, odd[random.below(odd.size())]); break;
      case 1: text.erase(at, 1 + random.below(8)); break;
      case 2:
        if (at < text.size()) text[at] = odd[random.below(odd.size())];
        break;
      case 3: text.insert(at, text.substr(random.below(text.size() + 1), random.below(40))); break;
      case 4: text.resize(at); break;
      default:
        if (at < text.size()) text[at] = static_cast<char>(random.below(256));
        break;
    }
  }
}

/// What must hold of any bytes: an answer, with places inside the text, and never both or neither.
/// Result: what does not hold, or empty.
std::string fault_of_answer(const std::string& bytes, config_text text) {
  veltrix::config_inputs inputs{.file_name = "f.yaml", .file = std::move(text)};
  inputs.stays = "no worker was started";
  const auto lines = static_cast<std::size_t>(std::count(bytes.begin(), bytes.end(), '\n')) + 1;
  for (const text_entry& entry : inputs.file.entries) {
    if (entry.key_at.line < 1 || entry.value_at.line > lines) return "an entry outside the file";
    if (!veltrix::detail::is_key(entry.path)) return "an entry with an odd key";
  }
  const veltrix::config_result result = veltrix::parse_config(inputs);
  if (result.ok() != result.errors.empty()) return "both an answer and errors, or neither";
  for (const veltrix::diagnostic& error : result.errors) {
    const std::string line = to_string(error);
    if (error.line > lines) return "outside the file: " + line;
    if (line.size() > 400 || !line.ends_with('.')) return "not one short sentence: " + line;
    if (line.find('\n') != std::string::npos) return "not one line: " + line;
  }
  return {};
}

}  // namespace

TEST_CASE("config_text a hundred thousand damaged files each get an answer") {
  const std::uint64_t seed = 79;
  veltrix_test::random_source random(seed);
  const std::string good = veltrix::default_file();
  const std::string small =
      "worker-pool-size: 64\nqueue:\n  max_bytes: 64 MiB\n  on_full: block\nevents:\n"
      "  path: 'it''s'\n  key_field: \"a\\tb\"\n";
  std::size_t refused = 0;
  const std::size_t rounds = veltrix_test::scale(100'000);
  for (std::size_t round = 0; round < rounds; ++round) {
    // The large file costs fifty times the small one.
    std::string bytes = round % 50 == 0 ? good : small;
    mutate(bytes, random);
    config_text text = parse_yaml(bytes, "f.yaml");
    refused += text.faults.empty() ? 0 : 1;
    const std::string fault = fault_of_answer(bytes, std::move(text));
    if (!fault.empty()) FAIL(fault << "\nseed " << seed << ", round " << round << "\n" << bytes);
  }
  REQUIRE(refused > rounds / 4);
  REQUIRE(refused < rounds);
}
