// The config engine: golden refusals, precedence, provenance, reload, and what the schema prints.
// SPDX-License-Identifier: BSL-1.0
#include "veltrix/worker/config.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/random.hpp"
#include "support/scale.hpp"
#include "veltrix/worker/config_doc.hpp"
#include "veltrix/worker/config_page.hpp"

using veltrix::config_field;
using veltrix::config_inputs;
using veltrix::config_result;
using veltrix::config_snapshot;
using veltrix::config_table;
using veltrix::diagnostic;
using veltrix::diagnostic_code;
using veltrix::key;
using veltrix::origin_kind;
using veltrix::parse_config;
using veltrix::parse_yaml;

static_assert(std::is_empty_v<veltrix::config_engine>);
static_assert(std::is_copy_constructible_v<config_snapshot>);
static_assert(!std::is_default_constructible_v<config_snapshot>);
static_assert(std::is_same_v<decltype(&parse_config), config_result (*)(const config_inputs&)>);
static_assert(noexcept(std::declval<const config_snapshot&>().integer(key::workers_min)));
static_assert(noexcept(std::declval<const config_snapshot&>().text(key::pod)));

namespace {

namespace fs = std::filesystem;

/// The host of every test that does not bring its own.
veltrix::host_facts small_host() {
  veltrix::host_facts host;
  host.cores = 2;
  host.pids_max = 300;
  host.memory_max = std::int64_t{1} << 30;
  host.host_name = "host-1";
  return host;
}

config_inputs inputs_of(std::string_view yaml) {
  return {.file_name = "veltrix.yaml",
          .file = parse_yaml(yaml, "veltrix.yaml"),
          .host = small_host(),
          .stays = "generation 41 with 512 workers stays in force"};
}

config_result read(std::string_view yaml) {
  return parse_config(inputs_of(yaml));
}

std::vector<std::string> lines_of(const config_result& result) {
  std::vector<std::string> lines;
  for (const diagnostic& error : result.errors)
    lines.push_back(to_string(error));
  for (const diagnostic& warning : result.warnings)
    lines.push_back(to_string(warning));
  return lines;
}

std::string first_line(const config_result& result) {
  const auto lines = lines_of(result);
  return lines.empty() ? std::string() : lines.front();
}

std::string read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// With VELTRIX_TEST_UPDATE=1 in the environment the expected files are written, not compared.
bool updating() {
  return std::getenv("VELTRIX_TEST_UPDATE") != nullptr;
}

void compare_with_file(const fs::path& path, const std::string& text) {
  if (updating()) std::ofstream(path, std::ios::binary) << text;
  INFO("file " << path << "; VELTRIX_TEST_UPDATE=1 writes it anew");
  REQUIRE(read_file(path) == text);
}

std::vector<fs::path> golden_files() {
  std::vector<fs::path> files;
  for (const auto& file : fs::directory_iterator(fs::path(VELTRIX_TEST_DATA) / "config")) {
    if (file.path().extension() == ".yaml") files.push_back(file.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

/// What every refusal and warning must be like, whoever makes it.
void lint(const diagnostic& told) {
  const std::string line = to_string(told);
  INFO(line);
  CHECK(line.size() <= 400);
  CHECK(line.starts_with("VX"));
  CHECK(line.ends_with('.'));
  CHECK(line.find_first_of("\n\r\t") == std::string::npos);
  CHECK(line.find("..") == line.find("..."));
  CHECK(line.find("  ") == std::string::npos);
  CHECK_FALSE(told.what.empty());
  CHECK_FALSE(told.got.empty());
  CHECK_FALSE(told.allowed.empty());
  CHECK_FALSE(told.stays.empty());
  CHECK_FALSE(told.next.empty());
  CHECK_FALSE(told.file.empty());
  CHECK(line.find(told.stays.substr(1)) != std::string::npos);
}

}  // namespace

TEST_CASE("config each broken file gives the messages written beside it") {
  std::size_t broken = 0;
  for (const fs::path& file : golden_files()) {
    INFO(file);
    const config_result result = read(read_file(file));
    std::string text;
    for (const std::string& line : lines_of(result))
      text.append(line).append("\n");
    compare_with_file(fs::path(file).replace_extension(".expected"), text);
    REQUIRE(result.ok() == result.errors.empty());
    const bool good = file.filename().string().find("-ok-") != std::string::npos;
    REQUIRE(result.ok() == good);
    broken += good ? 0 : 1;
    for (const diagnostic& error : result.errors)
      lint(error);
    for (const diagnostic& warning : result.warnings)
      lint(warning);
  }
  REQUIRE(broken >= 40);
}

namespace {

/// A refusal that needs more than a file.
struct golden_case {
  const char* name;
  config_inputs inputs;
  std::vector<std::string> expected;
};

config_inputs started(std::string_view yaml = {}) {
  config_inputs inputs = inputs_of(yaml);
  inputs.stays = "no worker was started";
  return inputs;
}

std::vector<golden_case> cases_of_names() {
  std::vector<golden_case> cases;
  const auto add = [&](const char* name, config_inputs inputs, std::vector<std::string> expected) {
    cases.push_back({name, std::move(inputs), std::move(expected)});
  };
  config_inputs inputs = started();
  inputs.environment = {{"VELTRIX_WORKERS_MIM", "2"}};
  add("a misspelt variable", inputs,
      {"VX1001 env VELTRIX_WORKERS_MIM unknown key VELTRIX_WORKERS_MIM; did you mean "
       "VELTRIX_WORKERS_MIN? Refused; no worker was started. Correct the name or remove it."});
  inputs = started();
  inputs.environment = {{"VELTRIX_WORKERS_MIN", "0"}};
  add("a variable out of bounds", inputs,
      {"VX1012 env VELTRIX_WORKERS_MIN workers.min: 0 is below 1, the smallest in the schema. "
       "Refused; no worker was started. Raise it."});
  inputs = started();
  inputs.environment = {{"VELTRIX_WORKER_POOL_SIZE", "4"}, {"VELTRIX_MAXCONCURRENCY", "8"}};
  add("two variables for one setting", inputs,
      {"VX1003 env VELTRIX_WORKER_POOL_SIZE VELTRIX_WORKER_POOL_SIZE: 4 and "
       "VELTRIX_MAXCONCURRENCY: 8 set the same thing. Refused; no worker was started. Remove "
       "one."});
  inputs = started();
  inputs.command_line = {"workers.min", "=3", "nope=1", "workers=4"};
  add("malformed settings", inputs,
      {"VX1001 --set unknown key nope; no setting has a name like it. Refused; no worker was "
       "started. Remove it; `veltrix-worker schema` lists all.",
       "VX1002 --set value for the group workers; its settings are workers.max_concurrency, "
       "workers.min, workers.stack_kib and workers.resize_deadline_ms. Refused; no worker was "
       "started. Name one of them.",
       "VX1017 --set setting workers.min; it is not of the form key=value. Refused; no worker was "
       "started. Write for example workers.min=2.",
       "VX1017 --set setting =3; it is not of the form key=value. Refused; no worker was started. "
       "Write for example workers.min=2."});
  inputs = started();
  inputs.command_line = {"workers.min=2", "workers.min=3"};
  add("one setting twice on the command line", inputs,
      {"VX1003 --set workers.min: 2 and workers.min: 3 set the same thing. Refused; no worker was "
       "started. Remove one."});
  return cases;
}

std::vector<golden_case> cases_of_places_and_limits() {
  std::vector<golden_case> cases;
  const auto add = [&](const char* name, config_inputs inputs, std::vector<std::string> expected) {
    cases.push_back({name, std::move(inputs), std::move(expected)});
  };
  config_inputs inputs = started();
  inputs.control = {"workers.max_concurrency=900"};
  add("a command above the host", inputs,
      {"VX1012 control workers.max_concurrency: 900 is above 284 (pids.max=300, 16 kept back). "
       "Refused; no worker was started. Lower it or raise pids.max."});
  inputs = started();
  inputs.other_sources = {"b.yaml"};
  add("a second configuration file", inputs,
      {"VX1016 b.yaml configuration source: b.yaml is a second one beside veltrix.yaml, and "
       "exactly one may be active. Refused; no worker was started. Name one of them."});
  inputs = started();
  inputs.environment = {{"VELTRIX_CONFIG", "other.yaml"}};
  add("a second configuration file in the environment", inputs,
      {"VX1016 other.yaml configuration source: other.yaml is a second one beside veltrix.yaml, "
       "and exactly one may be active. Refused; no worker was started. Name one of them."});
  inputs = started();
  inputs.host.pids_max = 10;
  add("a host too small for one worker", inputs,
      {"VX1012 default workers.max_concurrency: 1 is above 0 (pids.max=10, 16 kept back). Refused; "
       "no worker was started. Lower it or raise pids.max."});
  inputs = started("workers:\n  max_concurrency: 5000\n");
  inputs.host = {.cores = 2};
  add("no host limit: the schema's own bound", inputs,
      {"VX1012 veltrix.yaml:2:20 workers.max_concurrency: 5000 is above 4096, the largest in the "
       "schema. Refused; no worker was started. Lower it."});
  inputs = started("workers:\n  max_concurrency: 9\n");
  inputs.host.pids_others = 276;
  add("others use the tasks too", inputs,
      {"VX1012 veltrix.yaml:2:20 workers.max_concurrency: 9 is above 8 (pids.max=300, 16 kept "
       "back, 276 in use by others). Refused; no worker was started. Lower it or raise pids.max."});
  inputs = started("workers:\n  max_concurrency: 9\n");
  inputs.command_line = {"workers.max_concurrency=4"};
  inputs.host.pids_max = 24;
  add("a value in the file is held to the bound even if it is overridden", inputs,
      {"VX1012 veltrix.yaml:2:20 workers.max_concurrency: 9 is above 8 (pids.max=24, 16 kept "
       "back). Refused; no worker was started. Lower it or raise pids.max."});
  inputs = started("workers:\n  min: 3\n");
  inputs.command_line = {"workers.max_concurrency=2"};
  add("a contradiction between places is told at the value that was given", inputs,
      {"VX1014 veltrix.yaml:2:8 workers.min: 3 is above workers.max_concurrency 2. Refused; no "
       "worker was started. Lower it or raise workers.max_concurrency."});
  inputs = started("queue:\n  max_bytes: 4 MiB\n");
  inputs.command_line = {"events.max_event_bytes=8 MiB"};
  add("a contradiction with a value from the command line", inputs,
      {"VX1014 --set events.max_event_bytes: 8 MiB is above queue.max_bytes 4 MiB. Refused; no "
       "worker was started. Lower it or raise queue.max_bytes."});
  return cases;
}

std::vector<golden_case> golden_cases() {
  std::vector<golden_case> cases = cases_of_names();
  for (golden_case& one : cases_of_places_and_limits())
    cases.push_back(std::move(one));
  return cases;
}

}  // namespace

TEST_CASE("config each refusal that needs more than a file says what it should") {
  for (const golden_case& one : golden_cases()) {
    INFO(one.name);
    const config_result result = parse_config(one.inputs);
    REQUIRE_FALSE(result.ok());
    REQUIRE(result.warnings.empty());
    REQUIRE(lines_of(result) == one.expected);
    for (const diagnostic& error : result.errors)
      lint(error);
  }
}

TEST_CASE("config the bytes of a file are checked before its text") {
  using namespace std::string_literals;
  struct bytes_case {
    std::string bytes;
    std::string expected;
  };
  const std::string tail = " Refused; generation 41 with 512 workers stays in force. ";
  const std::vector<bytes_case> cases{
      {"\xEF\xBB\xBFpod: a\n",
       "VX1102 veltrix.yaml:1:1 byte order mark 0xef; plain UTF-8 has none." + tail +
           "Save the file as UTF-8 without a mark."},
      {"\xFF\xFEp\0o\0"s, "VX1102 veltrix.yaml:1:1 byte order mark 0xff; plain UTF-8 has none." +
                              tail + "Save the file as UTF-8 without a mark."},
      {"pod: a\npod: caf\xE9\n",
       "VX1101 veltrix.yaml:2:9 byte 0xe9; it is not part of any UTF-8 character." + tail +
           "Save the file as UTF-8."},
      {"pod: \xC0\xAF\n",
       "VX1101 veltrix.yaml:1:6 byte 0xc0; it is not part of any UTF-8 "
       "character." +
           tail + "Save the file as UTF-8."},
      {"pod: \xED\xA0\x80\n",
       "VX1101 veltrix.yaml:1:6 byte 0xed; it is not part of any UTF-8 "
       "character." +
           tail + "Save the file as UTF-8."},
      {"pod: a\0b\n"s,
       "VX1103 veltrix.yaml:1:7 control character 0x00; only spaces and line ends "
       "are allowed." +
           tail + "Remove it."},
      {"pod: a\rworkers:\n",
       "VX1103 veltrix.yaml:1:7 control character 0x0d; only spaces and line "
       "ends are allowed." +
           tail + "Remove it."},
      {std::string(1024 * 1024 + 1, '#'),
       "VX1104 veltrix.yaml file of 1048577 bytes; at most 1048576 are read." + tail +
           "Check that the path names a configuration."},
  };
  for (const bytes_case& one : cases) {
    const config_result result = read(one.bytes);
    REQUIRE(lines_of(result) == std::vector<std::string>{one.expected});
    lint(result.errors.front());
  }
  REQUIRE(read(std::string(1024 * 1024, '#')).ok());
  REQUIRE(read("pod: caf\xC3\xA9 \xF0\x9F\x90\x8C\r\n").snapshot->text(key::pod) ==
          "caf\xC3\xA9 \xF0\x9F\x90\x8C");
}

TEST_CASE("config a file with very many faults names a hundred and counts the rest") {
  std::string yaml;
  for (int at = 0; at < 20'000; ++at)
    yaml += "key_" + std::to_string(at) + ": 1\n";
  const config_result result = read(yaml);
  REQUIRE(result.errors.size() == 101);
  REQUIRE(to_string(result.errors.back()) ==
          "VX1019 veltrix.yaml and 19900 more faults; 100 are printed. Refused; generation 41 with "
          "512 workers stays in force. Correct these first.");
  lint(result.errors.back());
}

TEST_CASE("config a file that cannot be read is a refusal with the reason of the system") {
  diagnostic told = veltrix::file_unreadable("conf/veltrix.yaml", "No such file or directory");
  REQUIRE(to_string(told) ==
          "VX1018 conf/veltrix.yaml configuration file: No such file or directory is what the "
          "system says. Refused; check the path and its permissions.");
  told.stays = "no worker was started";
  lint(told);
}

TEST_CASE("config the stronger place wins and each value says where it came from") {
  config_inputs inputs = inputs_of(
      "schema_version: 1\nworkers:\n  max_concurrency: 20\n  min: 2\nlanes:\n  batch_max: 8\n"
      "queue:\n  max_events: 100\n");
  inputs.environment = {
      {"VELTRIX_WORKERS_MAX_CONCURRENCY", "30"}, {"VELTRIX_WORKERS_MIN", "3"},
      {"VELTRIX_LANES_BATCH_MAX", "9"},          {"HOME", "/home"},
      {"VELTRIX_SERVICE_HOST", "10.0.0.1"},      {"VELTRIX_WORKER_PORT_80_TCP_ADDR", "10.0.0.1"},
      {"VELTRIX_CONFIG", "veltrix.yaml"}};
  inputs.command_line = {"workers.max_concurrency=40", "workers.min=4"};
  inputs.control = {"MaxConcurrency=50"};
  const config_result result = parse_config(inputs);
  REQUIRE(result.ok());
  const config_snapshot& snapshot = *result.snapshot;
  REQUIRE(snapshot.provenance_line(key::workers_max_concurrency) ==
          "workers 50 (control; default was 4)");
  REQUIRE(snapshot.provenance_line(key::workers_min) == "workers.min 4 (--set; default was 1)");
  REQUIRE(snapshot.provenance_line(key::lanes_batch_max) ==
          "lanes.batch_max 9 (env VELTRIX_LANES_BATCH_MAX; default was 64)");
  REQUIRE(snapshot.provenance_line(key::queue_max_events) ==
          "queue.max_events 100 (veltrix.yaml:8; default was 50000)");
  REQUIRE(snapshot.provenance_line(key::lanes_count) == "lanes.count 1024 (default)");
  REQUIRE(snapshot.provenance_line(key::events_path) == "events.path '' (default)");
  REQUIRE(snapshot.origin(key::queue_max_events).at == veltrix::text_position{8, 15});
  REQUIRE(snapshot.origin(key::lanes_count).kind == origin_kind::built_in);

  std::vector<std::string> warnings;
  for (const diagnostic& warning : result.warnings) {
    lint(warning);
    warnings.push_back(to_string(warning));
  }
  REQUIRE(
      warnings ==
      std::vector<std::string>{
          "VX1901 veltrix.yaml:3:20 workers.max_concurrency: 20 is overridden by control. 50 is "
          "in force. Remove one of the two.",
          "VX1901 veltrix.yaml:4:8 workers.min: 2 is overridden by --set. 4 is in force. Remove "
          "one of the two.",
          "VX1901 veltrix.yaml:6:14 lanes.batch_max: 8 is overridden by env "
          "VELTRIX_LANES_BATCH_MAX. 9 is in force. Remove one of the two."});
}

TEST_CASE("config the start line of the workers is the one that operators look for") {
  const config_result result = read("\n\nworkers: \n  max_concurrency: 256\n");
  REQUIRE(result.snapshot->provenance_line(key::workers_max_concurrency) ==
          "workers 256 (veltrix.yaml:4; default was 4)");
  REQUIRE(read("").snapshot->provenance_line(key::workers_max_concurrency) ==
          "workers 4 (default)");
}

TEST_CASE("config every alias sets the setting it stands for") {
  const std::map<std::string, key> aliases{{"worker-pool-size", key::workers_max_concurrency},
                                           {"MaxConcurrency", key::workers_max_concurrency},
                                           {"config-cache-enabled", key::config_cache_enabled}};
  std::size_t found = 0;
  for (const config_field& field : config_table) {
    for (const std::string_view alias : field.aliases) {
      if (alias.empty()) continue;
      ++found;
      REQUIRE(aliases.at(std::string(alias)) == field.id);
    }
  }
  REQUIRE(found == aliases.size());
  REQUIRE(read("worker-pool-size: 64\n").snapshot->integer(key::workers_max_concurrency) == 64);
  REQUIRE(read("MaxConcurrency: 64\n").snapshot->integer(key::workers_max_concurrency) == 64);
  REQUIRE_FALSE(read("config-cache-enabled: false\n").snapshot->boolean(key::config_cache_enabled));
  config_inputs inputs = inputs_of("");
  inputs.environment = {{"VELTRIX_WORKER_POOL_SIZE", "7"}};
  REQUIRE(parse_config(inputs).snapshot->integer(key::workers_max_concurrency) == 7);
}

TEST_CASE("config the defaults follow the host and say so when it allows less") {
  veltrix::host_facts host;
  host.cores = 1;
  REQUIRE(veltrix::default_config(host).snapshot->integer(key::workers_max_concurrency) == 4);
  host.cores = 48;
  REQUIRE(veltrix::default_config(host).snapshot->integer(key::workers_max_concurrency) == 96);
  host.cores = 10'000;
  REQUIRE(veltrix::default_config(host).snapshot->integer(key::workers_max_concurrency) == 4096);
  REQUIRE(veltrix::default_config(host).snapshot->text(key::pod) == "unnamed");
  host.host_name = "host-1";
  REQUIRE(veltrix::default_config(host).snapshot->text(key::pod) == "host-1");
  host.pod_name = "pod-7";
  REQUIRE(veltrix::default_config(host).snapshot->text(key::pod) == "pod-7");

  host.cores = 8;
  host.pids_max = 20;
  host.memory_max = std::int64_t{48} << 20;
  const config_result small = veltrix::default_config(host);
  REQUIRE(small.snapshot->integer(key::workers_max_concurrency) == 4);
  REQUIRE(small.snapshot->integer(key::queue_max_bytes) == std::int64_t{24} << 20);
  REQUIRE(
      lines_of(small) ==
      std::vector<std::string>{
          "VX1903 default workers.max_concurrency: 16 is above 4 (pids.max=20, 16 kept back). 4 "
          "is in force. Raise pids.max or set a value.",
          "VX1903 default queue.max_bytes: 64 MiB is above 24 MiB (half of memory.max=48 MiB). "
          "24 MiB is in force. Raise memory.max or set a value."});
  for (const diagnostic& warning : small.warnings)
    lint(warning);
}

TEST_CASE("config a reload changes live settings and refuses those that need a restart") {
  const config_snapshot old = *read("pod: a\nlanes:\n  count: 256\n").snapshot;
  const config_result good = veltrix::reload_config(
      old, inputs_of("pod: a\nlanes:\n  count: 256\n  batch_max: 8\nworkers:\n"
                     "  max_concurrency: 9\n"));
  REQUIRE(good.ok());
  REQUIRE(veltrix::diff(old, *good.snapshot) ==
          std::vector<veltrix::config_change>{
              {key::workers_max_concurrency, veltrix::reload_class::handshake, "4", "9"},
              {key::lanes_batch_max, veltrix::reload_class::live, "64", "8"}});

  const config_result bad =
      veltrix::reload_config(old, inputs_of("lanes:\n  batch_max: 8\n  count: 512\n"));
  REQUIRE_FALSE(bad.ok());
  REQUIRE(lines_of(bad) ==
          std::vector<std::string>{
              "VX1013 veltrix.yaml:3:10 lanes.count: 512 differs from 256, and only a restart "
              "changes it. Refused; generation 41 with 512 workers stays in force. Restart the "
              "worker or put 256 back.",
              "VX1013 default pod: host-1 differs from a, and only a restart changes it. Refused; "
              "generation 41 with 512 workers stays in force. Restart the worker or put a back."});
  for (const diagnostic& error : bad.errors)
    lint(error);

  const config_result broken = veltrix::reload_config(old, inputs_of("lanes:\n  count: 3\n"));
  REQUIRE_FALSE(broken.ok());
  REQUIRE(broken.errors.front().code == diagnostic_code::out_of_bounds);
  REQUIRE(veltrix::diff(old, old).empty());
}

TEST_CASE("config two snapshots are equal and have one digest exactly when their values are") {
  const config_snapshot usual = *read("").snapshot;
  const config_snapshot spelt = *read("queue:\n  max_bytes: 65536 KiB\n").snapshot;
  const config_snapshot other = *read("queue:\n  max_bytes: 65 MiB\n").snapshot;
  REQUIRE(usual == spelt);
  REQUIRE(usual.digest() == spelt.digest());
  REQUIRE_FALSE(usual == other);
  REQUIRE(usual.digest() != other.digest());
  std::set<std::uint64_t> digests{usual.digest()};
  for (int workers = 5; workers < 200; ++workers) {
    config_inputs inputs = inputs_of("");
    inputs.command_line = {"workers.max_concurrency=" + std::to_string(workers)};
    digests.insert(parse_config(inputs).snapshot->digest());
  }
  REQUIRE(digests.size() == 196);
}

TEST_CASE("config the engine gives the same answer every time and leaves its input alone") {
  const config_inputs inputs = inputs_of("workers:\n  max_concurrency: 12\nnope: 1\n");
  const veltrix::config_engine engine;
  REQUIRE(lines_of(engine(inputs)) == lines_of(parse_config(inputs)));
  REQUIRE(lines_of(engine(inputs)) == lines_of(engine(inputs)));
  REQUIRE(inputs.file.entries.size() == 2);
}

TEST_CASE("config the variables of a process are found among the others") {
  const char* const environment[] = {"HOME=/home", "VELTRIX_POD=a=b", "VELTRIX_ODD", "X=VELTRIX_",
                                     nullptr};
  const auto found = veltrix::environment_settings(environment);
  REQUIRE(found.size() == 1);
  REQUIRE(found[0].name == "VELTRIX_POD");
  REQUIRE(found[0].value == "a=b");
  REQUIRE(veltrix::environment_settings(nullptr).empty());
}

namespace {

/// A plain model of the engine: the layers in order, each a map; the last that has a key wins.
struct layers_model {
  std::map<key, std::pair<std::int64_t, origin_kind>> values;
  void set(key id, std::int64_t value, origin_kind kind) { values[id] = {value, kind}; }
};

struct plain_setting {
  key id;
  std::int64_t lowest;
  std::int64_t highest;
};

/// Settings whose bounds are all in these two numbers.
constexpr plain_setting plain_settings[] = {{key::workers_max_concurrency, 16, 284},
                                            {key::workers_min, 1, 16},
                                            {key::workers_resize_deadline_ms, 10, 600'000},
                                            {key::lanes_batch_max, 1, 4096},
                                            {key::queue_max_events, 64, 100'000'000},
                                            {key::queue_latency_budget_ms, 0, 600'000},
                                            {key::events_rate, 0, 1'000'000'000},
                                            {key::handler_work_us, 0, 60'000'000},
                                            {key::commit_interval_ms, 10, 600'000},
                                            {key::progress_interval_ms, 0, 3'600'000},
                                            {key::config_poll_ms, 10, 600'000}};

}  // namespace

namespace {

/// One random configuration and what the model says of it.
struct random_layers {
  config_inputs inputs = inputs_of("");
  std::string yaml = "# round\n";
  std::size_t line = 1;
  std::map<key, std::size_t> lines{};
  layers_model model{};

  explicit random_layers(veltrix_test::random_source& random) {
    for (const plain_setting& setting : plain_settings)
      add(setting, random);
    inputs.file = parse_yaml(yaml, "veltrix.yaml");
  }

  void add(const plain_setting& setting, veltrix_test::random_source& random) {
    const std::string name(veltrix::field_of(setting.id).name);
    const auto choose = [&](origin_kind kind) {
      const auto width = static_cast<std::uint64_t>(setting.highest - setting.lowest + 1);
      const auto value = setting.lowest + static_cast<std::int64_t>(random.below(width));
      model.set(setting.id, value, kind);
      return std::to_string(value);
    };
    // workers.max_concurrency is always given, so that workers.min never exceeds it.
    if (setting.id == key::workers_max_concurrency || random.below(2) == 0) {
      const auto blanks = random.below(3);
      yaml.append(blanks, '\n');
      line += blanks + 1;
      lines[setting.id] = line;
      yaml += name + ": " + choose(origin_kind::file) + (random.below(2) == 0 ? "  # x\n" : "\n");
    }
    if (random.below(4) == 0) {
      inputs.environment.push_back(
          {veltrix::environment_name(name), choose(origin_kind::environment)});
    }
    if (random.below(4) == 0) {
      inputs.command_line.push_back(name + "=" + choose(origin_kind::command_line));
    }
    if (random.below(8) == 0) inputs.control.push_back(name + "=" + choose(origin_kind::control));
  }
};

void compare_with_model(const random_layers& layers, const config_snapshot& snapshot) {
  for (const plain_setting& setting : plain_settings) {
    const auto found = layers.model.values.find(setting.id);
    if (found == layers.model.values.end()) {
      REQUIRE(snapshot.origin(setting.id).kind == origin_kind::built_in);
      REQUIRE(snapshot.shown(setting.id) == veltrix::field_of(setting.id).default_text);
      continue;
    }
    REQUIRE(snapshot.integer(setting.id) == found->second.first);
    REQUIRE(snapshot.origin(setting.id).kind == found->second.second);
    if (found->second.second != origin_kind::file) continue;
    REQUIRE(snapshot.origin(setting.id).at.line == layers.lines.at(setting.id));
  }
}

}  // namespace

TEST_CASE("config random layers agree with a plain model") {
  const std::uint64_t seed = 20'240'611;
  veltrix_test::random_source random(seed);
  for (std::size_t round = 0; round < veltrix_test::scale(2000); ++round) {
    const random_layers layers(random);
    const config_result result = parse_config(layers.inputs);
    INFO("seed " << seed << ", round " << round << "\n" << layers.yaml << first_line(result));
    REQUIRE(result.ok());
    compare_with_model(layers, *result.snapshot);
  }
}

TEST_CASE("config the default file reads back as the defaults of any host") {
  for (const std::int64_t cores : {1, 2, 64}) {
    config_inputs inputs = inputs_of(veltrix::default_file());
    inputs.host.cores = cores;
    const config_result result = parse_config(inputs);
    INFO(first_line(result));
    REQUIRE(result.ok());
    REQUIRE(*result.snapshot == *veltrix::default_config(inputs.host).snapshot);
    REQUIRE(result.snapshot->origin(key::lanes_count).kind == origin_kind::file);
  }
}

TEST_CASE("config the default file names every setting") {
  const std::string file = veltrix::default_file();
  std::string all;
  for (std::size_t at = 0; at < file.size(); ++at) {
    // Takes the comment sign off the settings that are comments.
    if (file.compare(at, 2, "# ") == 0 &&
        (at == 0 || file[at - 1] == '\n' || file[at - 1] == ' ')) {
      const std::size_t colon = file.find_first_of(":\n ", at + 2);
      if (file[colon] == ':')
        ++at;
      else
        all += file[at];
      continue;
    }
    all += file[at];
  }
  const auto text = parse_yaml(all, "all");
  std::set<std::string> names;
  for (const auto& entry : text.entries)
    names.insert(entry.path);
  for (const config_field& field : config_table) {
    INFO(field.name);
    REQUIRE(names.count(std::string(field.name)) == 1);
  }
}

TEST_CASE("config the docs page is the one that the schema gives") {
  compare_with_file(fs::path(VELTRIX_SOURCE_DIR) / "docs" / "worker_config.md",
                    veltrix::schema_markdown());
}

TEST_CASE("config every listing has each setting with its type, default, bounds and effect") {
  const std::string text = veltrix::schema_text();
  const std::string page = veltrix::schema_markdown();
  const std::string json = veltrix::schema_json();
  for (const config_field& field : config_table) {
    INFO(field.name);
    const std::string name(field.name);
    REQUIRE(text.find(name + " (" + veltrix::detail::type_text(field) + ")\n") !=
            std::string::npos);
    const std::size_t row = page.find("| `" + name + "`");
    REQUIRE(row != std::string::npos);
    const std::string line = page.substr(row, page.find('\n', row) - row);
    REQUIRE(line.find(" | " + veltrix::detail::default_text(field) + " | ") != std::string::npos);
    REQUIRE(line.find(veltrix::detail::bounds_text(field)) != std::string::npos);
    REQUIRE(line.find(std::string(field.consequence)) != std::string::npos);
    REQUIRE(json.find(std::string(field.consequence)) != std::string::npos);
    REQUIRE(field.consequence.ends_with('.'));
    REQUIRE((field.consequence.front() >= 'A' && field.consequence.front() <= 'Z'));
  }
  REQUIRE(std::count(json.begin(), json.end(), '{') == std::count(json.begin(), json.end(), '}'));
  for (std::string_view rest = text; !rest.empty();) {
    const std::size_t end = rest.find('\n');
    REQUIRE(end <= 120);
    rest.remove_prefix(end + 1);
  }
}

TEST_CASE("config each name and each variable means one setting") {
  std::set<std::string> names;
  std::size_t count = 0;
  for (const config_field& field : config_table) {
    std::vector<std::string_view> all{field.name};
    for (const std::string_view alias : field.aliases) {
      if (!alias.empty()) all.push_back(alias);
    }
    for (const std::string_view name : all) {
      ++count;
      names.insert(std::string(name));
      REQUIRE(veltrix::find_field(name) == &field);
      REQUIRE(veltrix::find_variable(veltrix::environment_name(name)) == &field);
      REQUIRE_FALSE(veltrix::detail::is_foreign_variable(veltrix::environment_name(name)));
      REQUIRE_FALSE(veltrix::is_group(name));
    }
  }
  REQUIRE(names.size() == count);
  REQUIRE(veltrix::is_group("config.cache"));
  REQUIRE(veltrix::find_field("workers") == nullptr);
}

TEST_CASE("config the nearest name is found through slips of the finger") {
  using veltrix::detail::edit_distance;
  using veltrix::detail::nearest_name;
  REQUIRE(edit_distance("", "abc") == 3);
  REQUIRE(edit_distance("abc", "abc") == 0);
  REQUIRE(edit_distance("ab", "ba") == 1);
  REQUIRE(edit_distance("Max-Events", "max_events") == 0);
  REQUIRE(edit_distance("kitten", "sitting") == 3);
  REQUIRE(edit_distance(std::string(65, 'a'), "a") == 66);
  REQUIRE(nearest_name("workers.max_concurency") == "workers.max_concurrency");
  REQUIRE(nearest_name("wrokers.min") == "workers.min");
  REQUIRE(nearest_name("worker_pool_size") == "worker-pool-size");
  REQUIRE(nearest_name("maxConcurrency") == "MaxConcurrency");
  REQUIRE(nearest_name("poll_ms") == "config.poll_ms");
  REQUIRE(nearest_name("q").empty());
  REQUIRE(nearest_name(std::string(500, 'x')).empty());
}

TEST_CASE("config every code of the table is reached by a case of this file or is a report") {
  std::set<diagnostic_code> reached;
  const auto note = [&](const config_result& result) {
    for (const diagnostic& error : result.errors)
      reached.insert(error.code);
    for (const diagnostic& warning : result.warnings)
      reached.insert(warning.code);
  };
  for (const fs::path& file : golden_files())
    note(read(read_file(file)));
  for (const golden_case& one : golden_cases())
    note(parse_config(one.inputs));
  for (const char* bytes : {"\xEF\xBB\xBF", "\xFF", "\x01"})
    note(read(bytes));
  note(read(std::string(1024 * 1024 + 1, ' ')));
  std::string many;
  for (int at = 0; at < 101; ++at)
    many += "key_" + std::to_string(at) + ": 1\n";
  note(read(many));
  config_inputs overriding = inputs_of("workers:\n  min: 2\n");
  overriding.command_line = {"workers.min=3"};
  note(parse_config(overriding));
  note(veltrix::default_config({.cores = 8, .pids_max = 20}));
  note(veltrix::reload_config(*read("").snapshot, inputs_of("pod: b\n")));
  reached.insert(veltrix::file_unreadable("f", "r").code);
  // The JSON reader, an adapter, has this one; worker_config_json_test.cpp reaches it.
  reached.insert(diagnostic_code::json_syntax);
  for (const veltrix::diagnostic_row& row : veltrix::diagnostic_table) {
    INFO(to_string(row.code));
    if (static_cast<unsigned>(row.code) >= 2000) continue;  // made by the running worker
    REQUIRE(reached.count(row.code) == 1);
  }
}
