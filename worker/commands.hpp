// The commands of veltrix-worker. Each gives what the process ends with.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstdint>
#include <string>

#include "adapters/config_watcher.hpp"
#include "adapters/readers.hpp"
#include "veltrix/worker/worker_log.hpp"

namespace veltrix_worker {

struct run_options {
  config_choice config;
  bool strict = false;
};

enum class schema_form : std::uint8_t { text, json, markdown, default_file };

[[nodiscard]] veltrix::exit_code run_command(const run_options& options);
[[nodiscard]] veltrix::exit_code check_command(const config_choice& choice);
[[nodiscard]] veltrix::exit_code schema_command(schema_form form);
[[nodiscard]] veltrix::exit_code explain_command(const config_choice& choice,
                                                 const std::string& name);
[[nodiscard]] veltrix::exit_code generate_command(const generator_options& options);
void print_version();

/// Reads and checks the configuration; says what is wrong with it on stderr.
[[nodiscard]] std::optional<veltrix::config_snapshot> load_config(const config_choice& choice,
                                                                  const veltrix::host_facts& host);

}  // namespace veltrix_worker
