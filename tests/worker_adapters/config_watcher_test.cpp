// SPDX-License-Identifier: BSL-1.0
#include "adapters/config_watcher.hpp"

#include <filesystem>
#include <string>

#include "support/catch.hpp"
#include "support/temporary.hpp"

using veltrix::config_news;
using veltrix_test::temporary_folder;
using veltrix_worker::config_watcher;

namespace {

std::string value(const veltrix::config_update& update) {
  return update.inputs.file.entries.empty() ? "" : update.inputs.file.entries.front().value;
}

}  // namespace

TEST_CASE("config_watcher brings a file that was written into or renamed over, once") {
  const temporary_folder folder;
  const std::string path = folder.write("v.yaml", "workers.min: 1\n");
  config_watcher watcher({.files = {path}, .settings = {"pod=p"}});
  CHECK(watcher.poll().news == config_news::unchanged);
  folder.write("v.yaml", "workers.min: 22\n");
  const veltrix::config_update written = watcher.poll();
  CHECK(written.news == config_news::changed);
  CHECK(value(written) == "22");
  CHECK(written.inputs.command_line == std::vector<std::string>{"pod=p"});
  CHECK(written.inputs.file_name == path);
  CHECK(watcher.poll().news == config_news::unchanged);
  std::filesystem::rename(folder.write("n.yaml", "workers.min: 33\n"), path);
  const veltrix::config_update renamed = watcher.poll();
  CHECK(renamed.news == config_news::changed);
  CHECK(value(renamed) == "33");
  CHECK(watcher.poll().news == config_news::unchanged);
}

TEST_CASE("config_watcher sees a file that is gone, empty and back") {
  const temporary_folder folder;
  const std::string path = folder.write("v.yaml", "workers.min: 1\n");
  config_watcher watcher({.files = {path}, .settings = {}});
  std::filesystem::remove(path);
  const veltrix::config_update gone = watcher.poll();
  CHECK(gone.news == config_news::missing);
  CHECK(to_string(gone.fault).find("ENOENT") != std::string::npos);
  folder.write("v.yaml", "");
  CHECK(watcher.poll().news == config_news::missing);
  folder.write("v.yaml", "workers.min: 1\n");
  CHECK(watcher.poll().news == config_news::unchanged);
  std::filesystem::remove(path);
  CHECK(watcher.poll().news == config_news::missing);
  folder.write("v.yaml", "workers.min: 2\n");
  CHECK(watcher.poll().news == config_news::changed);
}

TEST_CASE("config_watcher does not bring the same bytes again, and none without a file") {
  const temporary_folder folder;
  const std::string path = folder.write("v.yaml", "workers.min: 1\n");
  config_watcher watcher({.files = {path}, .settings = {}});
  std::filesystem::rename(folder.write("n.yaml", "workers.min: 1\n"), path);
  CHECK(watcher.poll().news == config_news::unchanged);
  watcher.look_again();
  CHECK(watcher.poll().news == config_news::unchanged);
  config_watcher none({});
  CHECK(none.poll().news == config_news::unchanged);
}

TEST_CASE("config_watcher hands JSON and YAML to their readers, and other files to the schema") {
  const temporary_folder folder;
  const std::string path = folder.write("v.json", "{\"workers\": {\"min\": 7}}");
  const auto read = veltrix_worker::read_config({.files = {path, "second"}, .settings = {}});
  CHECK_FALSE(read.fault.has_value());
  REQUIRE(read.inputs.file.entries.size() == 1);
  CHECK(read.inputs.file.entries.front().path == "workers.min");
  CHECK(read.inputs.other_sources == std::vector<std::string>{"second"});
  CHECK(veltrix_worker::read_config({.files = {folder.file("none")}, .settings = {}})
            .fault.has_value());
}
