// veltrix-worker: the command line.
// SPDX-License-Identifier: BSL-1.0
#include <array>
#include <cstdio>
#include <exception>
#include <string>
#include <string_view>
#include <utility>

#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wshadow"
#endif
#include <CLI/CLI.hpp>
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

#include "commands.hpp"
#include "veltrix/worker/config_names.hpp"

namespace {

using veltrix_worker::config_choice;

struct shorthand {
  const char* flag;
  std::string_view name;
};

/// Each stands for a --set.
constexpr std::array shorthands{
    shorthand{"--source", "events.source"},
    shorthand{"--path", "events.path"},
    shorthand{"--schema", "events.schema"},
    shorthand{"--count", "events.count"},
    shorthand{"--rate", "events.rate"},
    shorthand{"--sink", "sink.kind"},
    shorthand{"--sink-path", "sink.path"},
    shorthand{"--commit", "commit.path"},
    shorthand{"--dead", "dead_letter.path"},
    shorthand{"--metrics", "metrics.file"},
    shorthand{"--workers", "workers.max_concurrency"},
};

void add_config_options(CLI::App& command, config_choice& choice) {
  command.add_option("-c,--config", choice.files, "configuration file, YAML subset or JSON")
      ->envname(std::string(veltrix::environment_config_file))
      ->type_name("FILE");
  command
      .add_option("--set", choice.settings,
                  "one setting, over the file: workers.max_concurrency=64")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  for (const shorthand& each : shorthands) {
    command
        .add_option_function<std::string>(
            each.flag,
            [&choice, &each](const std::string& value) {
              choice.settings.push_back(std::string(each.name) + "=" + value);
            },
            "short for --set " + std::string(each.name) + "=...")
        ->group("Short for --set");
  }
}

struct command_line {
  CLI::App app{"Ingests events, handles them in the order of their keys, and can be resized live.",
               "veltrix-worker"};
  veltrix_worker::run_options run;
  config_choice check;
  config_choice explain;
  std::string explained;
  bool json = false;
  bool markdown = false;
  bool default_file = false;
  bool version = false;
  veltrix_worker::generator_options generate{.count = 1000, .keys = 40};
  CLI::App* run_command = nullptr;
  CLI::App* check_command = nullptr;
  CLI::App* schema_command = nullptr;
  CLI::App* explain_command = nullptr;
  CLI::App* generate_command = nullptr;

  command_line() {
    app.require_subcommand(0, 1);
    app.add_flag("--version", version, "print the version and what is built in");
    run_command = app.add_subcommand("run", "take events until the source ends or a signal comes");
    add_config_options(*run_command, run.config);
    run_command->add_flag("--strict", run.strict,
                          "end with 78 when a changed configuration is refused");
    check_command = app.add_subcommand("check", "check a configuration against this host");
    add_config_options(*check_command, check);
    schema_command = app.add_subcommand("schema", "print every setting");
    schema_command->add_flag("--json", json, "as JSON Schema");
    schema_command->add_flag("--markdown", markdown, "as the page of the documentation");
    schema_command->add_flag("--default-file", default_file, "as a file with every default");
    explain_command =
        app.add_subcommand("explain", "say where the value of one setting comes from");
    explain_command->add_option("setting", explained, "such as workers.max_concurrency")
        ->required();
    add_config_options(*explain_command, explain);
    generate_command = app.add_subcommand("generate", "write made-up events to stdout");
    generate_command->add_option("--count", generate.count, "events; 0 is without end")
        ->capture_default_str();
    generate_command->add_option("--keys", generate.keys, "different keys")
        ->check(CLI::Range(std::uint64_t{1}, std::uint64_t{1'000'000'000}))
        ->capture_default_str();
    generate_command->add_option("--event-bytes", generate.event_bytes, "bytes of a line, at least")
        ->check(CLI::Range(std::size_t{64}, std::size_t{16} << 20U))
        ->capture_default_str();
    generate_command->add_option("--seed", generate.seed, "another order of the keys")
        ->capture_default_str();
  }

  [[nodiscard]] veltrix::exit_code act() const {
    using veltrix_worker::schema_form;
    if (version) {
      veltrix_worker::print_version();
      return veltrix::exit_code::ok;
    }
    if (run_command->parsed()) return veltrix_worker::run_command(run);
    if (check_command->parsed()) return veltrix_worker::check_command(check);
    if (explain_command->parsed()) return veltrix_worker::explain_command(explain, explained);
    if (generate_command->parsed()) return veltrix_worker::generate_command(generate);
    if (schema_command->parsed()) {
      return veltrix_worker::schema_command(json           ? schema_form::json
                                            : markdown     ? schema_form::markdown
                                            : default_file ? schema_form::default_file
                                                           : schema_form::text);
    }
    std::fputs(app.help().c_str(), stderr);
    return veltrix::exit_code::usage;
  }
};

}  // namespace

int main(int argc, char** argv) {
  try {
    command_line line;
    try {
      line.app.parse(argc, argv);
    } catch (const CLI::ParseError& problem) {
      const int code = line.app.exit(problem);
      return code == 0 ? 0 : static_cast<int>(veltrix::exit_code::usage);
    }
    return static_cast<int>(line.act());
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "veltrix-worker: %s\n", problem.what());
    return static_cast<int>(veltrix::exit_code::resource_limit);
  }
}
