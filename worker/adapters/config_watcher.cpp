// SPDX-License-Identifier: BSL-1.0
#include "config_watcher.hpp"

#include <cerrno>
#include <cstdio>
#include <utility>

#include <unistd.h>

#include "json_config.hpp"
#include "system_text.hpp"
#include "veltrix/clock.hpp"

namespace veltrix_worker {

using veltrix::config_news;
using veltrix::config_update;

namespace {

struct file_bytes {
  std::string bytes;
  std::string problem;
};

file_bytes read_file(const std::string& path) {
  std::FILE* const file = std::fopen(path.c_str(), "rbe");
  if (file == nullptr) return {{}, errno_text(errno)};
  file_bytes read;
  char part[16384];
  std::size_t count = 0;
  // One byte beyond the schema's limit is enough for its refusal.
  while (read.bytes.size() <= veltrix::detail::most_config_bytes &&
         (count = std::fread(part, 1, sizeof part, file)) != 0) {
    read.bytes.append(part, count);
  }
  if (std::ferror(file) != 0) read.problem = errno_text(errno);
  std::fclose(file);
  return read;
}

veltrix::config_inputs around(const config_choice& choice) {
  veltrix::config_inputs inputs;
  if (!choice.files.empty()) {
    inputs.file_name = choice.files.front();
    inputs.other_sources.assign(choice.files.begin() + 1, choice.files.end());
  }
  inputs.environment = veltrix::environment_settings(::environ);
  inputs.command_line = choice.settings;
  return inputs;
}

}  // namespace

config_reading read_config(const config_choice& choice) {
  config_reading reading{around(choice), std::nullopt};
  if (choice.files.empty()) return reading;
  const std::string& path = choice.files.front();
  const file_bytes read = read_file(path);
  if (!read.problem.empty()) {
    reading.fault = veltrix::file_unreadable(path, read.problem);
  } else {
    reading.inputs.file = parse_config_text(read.bytes, path);
  }
  return reading;
}

config_watcher::config_watcher(config_choice choice) : choice_(std::move(choice)) {
  if (choice_.files.empty()) return;
  seen_ = look();
  bytes_ = read_file(choice_.files.front()).bytes;
}

std::optional<config_watcher::face> config_watcher::look() const {
  struct ::stat about{};
  if (::stat(choice_.files.front().c_str(), &about) != 0) return std::nullopt;
  return face{about.st_dev, about.st_ino, about.st_size,
              about.st_mtim.tv_sec * std::int64_t{1'000'000'000} + about.st_mtim.tv_nsec};
}

config_update config_watcher::poll() {
  if (choice_.files.empty()) return {};
  const std::string& path = choice_.files.front();
  const auto missing = [&](const std::string& why) {
    seen_.reset();
    return config_update{config_news::missing, {}, veltrix::file_unreadable(path, why)};
  };
  const std::optional<face> now = look();
  if (!now.has_value()) return missing(errno_text(errno));
  if (now == seen_) return {};
  file_bytes read = read_file(path);
  if (!read.problem.empty()) return missing(read.problem);
  if (read.bytes.empty()) return missing("it is empty");
  // A writer that is not done yet changes the file again; then the next poll takes it.
  veltrix::steady_clock::sleep_until(veltrix::steady_clock::now() + std::chrono::milliseconds(10),
                                     {});
  if (look() != now) return {};
  seen_ = now;
  if (read.bytes == bytes_) return {};
  bytes_ = std::move(read.bytes);
  config_update update{config_news::changed, around(choice_), {}};
  update.inputs.file = parse_config_text(bytes_, path);
  return update;
}

}  // namespace veltrix_worker
