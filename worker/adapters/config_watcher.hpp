// Looks at the configuration file, again and again, and brings what is new.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <sys/stat.h>

#include "veltrix/worker/concepts.hpp"
#include "veltrix/worker/config.hpp"

namespace veltrix_worker {

/// What the command line says of the configuration.
struct config_choice {
  std::vector<std::string> files;     ///< the first is read; others are refused by the schema
  std::vector<std::string> settings;  ///< "key=value"
};

/// The first file and the settings around it, or why it cannot be read.
struct config_reading {
  veltrix::config_inputs inputs;
  std::optional<veltrix::diagnostic> fault;
};

/// Reads the chosen configuration now. `host` is not filled in.
[[nodiscard]] config_reading read_config(const config_choice& choice);

/// A config_source over one file. Renaming over it, writing into it and removing it are all seen;
/// bytes that are still being written, and an empty file, are not taken for a configuration.
class config_watcher {
 public:
  explicit config_watcher(config_choice choice);

  [[nodiscard]] veltrix::config_update poll();
  /// Makes the next poll() read the file even if it looks the same.
  void look_again() { seen_.reset(); }

 private:
  struct face {
    ::dev_t device;
    ::ino_t inode;
    ::off_t size;
    std::int64_t changed_ns;
    friend bool operator==(const face&, const face&) = default;
  };
  [[nodiscard]] std::optional<face> look() const;

  const config_choice choice_;
  std::optional<face> seen_;
  std::string bytes_;  // of the last configuration that was handed out
};

}  // namespace veltrix_worker
