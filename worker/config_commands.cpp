// check, schema, explain, generate and --version: all that needs no pool.
// SPDX-License-Identifier: BSL-1.0
#include <cerrno>
#include <cstdio>
#include <string>

#include <unistd.h>

#include "adapters/system_text.hpp"
#include "commands.hpp"
#include "veltrix/version.hpp"
#include "veltrix/worker/config.hpp"
#include "veltrix/worker/config_doc.hpp"
#include "veltrix/worker/config_page.hpp"

namespace veltrix_worker {

using veltrix::exit_code;

namespace {

void complain(const veltrix::diagnostic& told) {
  std::fprintf(stderr, "%s\n", veltrix::to_string(told).c_str());
}

/// Writes to stdout, all of it or an error.
exit_code print(std::string_view text) {
  if (write_all(STDOUT_FILENO, text) == text.size()) return exit_code::ok;
  if (errno == EPIPE) return exit_code::ok;  // the reader has seen enough
  std::fprintf(stderr, "veltrix-worker: cannot write to stdout: %s\n", errno_text(errno).c_str());
  return exit_code::dependency;
}

}  // namespace

std::optional<veltrix::config_snapshot> load_config(const config_choice& choice,
                                                    const veltrix::host_facts& host) {
  config_reading reading = read_config(choice);
  constexpr const char* stays = "no worker was started";
  if (reading.fault.has_value()) {
    reading.fault->stays = stays;
    complain(*reading.fault);
    return std::nullopt;
  }
  reading.inputs.host = host;
  reading.inputs.stays = stays;
  veltrix::config_result result = veltrix::parse_config(reading.inputs);
  for (const veltrix::diagnostic& told : result.errors)
    complain(told);
  for (const veltrix::diagnostic& told : result.warnings)
    complain(told);
  return std::move(result.snapshot);
}

exit_code check_command(const config_choice& choice) {
  const veltrix::host_facts host = veltrix::read_host_facts();
  const auto config = load_config(choice, host);
  if (!config.has_value()) return exit_code::config;
  std::string text;
  for (const veltrix::config_field& field : veltrix::config_table) {
    const bool given = config->origin(field.id).kind != veltrix::origin_kind::built_in;
    if (given || field.id == veltrix::key::workers_max_concurrency) {
      text.append(config->provenance_line(field.id)).append("\n");
    }
  }
  const auto most = veltrix::max_workers(host, config->integer(veltrix::key::workers_stack_kib));
  if (most.has_value()) {
    text.append("host allows ").append(std::to_string(most->value)).append(" workers (");
    text.append(most->source).append(")\n");
  }
  return print(text.append("ok\n"));
}

exit_code schema_command(schema_form form) {
  switch (form) {
    case schema_form::json: return print(veltrix::schema_json());
    case schema_form::markdown: return print(veltrix::schema_markdown());
    case schema_form::default_file: return print(veltrix::default_file());
    case schema_form::text: break;
  }
  return print(veltrix::schema_text());
}

exit_code explain_command(const config_choice& choice, const std::string& name) {
  const veltrix::config_field* const field = veltrix::find_field(name);
  if (field == nullptr) {
    std::fprintf(stderr,
                 "veltrix-worker: no setting is called '%s'; `veltrix-worker schema` lists "
                 "them\n",
                 name.c_str());
    return exit_code::usage;
  }
  const auto config = load_config(choice, veltrix::read_host_facts());
  if (!config.has_value()) return exit_code::config;
  std::string text = config->provenance_line(field->id);
  text.append("\n").append(veltrix::detail::type_text(*field)).append("; ");
  text.append(veltrix::detail::bounds_text(*field)).append("\n");
  text.append(field->consequence).append("\n");
  return print(text);
}

exit_code generate_command(const generator_options& options) {
  generate_reader reader(options);
  std::string block(256 * 1024, '\0');
  for (;;) {
    const veltrix::read_result got = reader.read(block);
    if (got.status != veltrix::read_status::data) return exit_code::ok;
    if (write_all(STDOUT_FILENO, std::string_view(block).substr(0, got.bytes)) == got.bytes) {
      continue;
    }
    return print({block.data(), 0}) == exit_code::ok && errno == EPIPE ? exit_code::ok
                                                                       : exit_code::dependency;
  }
}

void print_version() {
  static_cast<void>(
      print("veltrix-worker " VELTRIX_VERSION_STRING "\n"
            "sources   generate, file, stdin (built in); kafka (not built: needs librdkafka)\n"
            "sinks     count, file (built in); kafka (not built: needs librdkafka), postgres "
            "(not built: needs libpq)\n"
            "config    file (built in); etcd, zookeeper, postgres (not built)\n"
            "control   in-process (built in); gRPC (not built: needs grpc++)\n"
            "metrics   file (built in); HTTP (not built: needs prometheus-cpp)\n"));
}

}  // namespace veltrix_worker
