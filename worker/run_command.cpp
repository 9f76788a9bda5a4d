// run: builds the parts that the configuration names and supervises them.
// SPDX-License-Identifier: BSL-1.0
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "adapters/config_watcher.hpp"
#include "adapters/files.hpp"
#include "adapters/handlers.hpp"
#include "adapters/json_parser.hpp"
#include "adapters/progress.hpp"
#include "adapters/readers.hpp"
#include "adapters/sinks.hpp"
#include "adapters/system_text.hpp"
#include "commands.hpp"
#include "veltrix/worker/basic_worker.hpp"
#include "veltrix/worker/jsonl_source.hpp"

namespace veltrix_worker {

using veltrix::config_snapshot;
using veltrix::diagnostic;
using veltrix::diagnostic_code;
using veltrix::exit_code;
using veltrix::key;

namespace {

using source_type = veltrix::jsonl_source<any_reader, json_parser>;
using worker_type = veltrix::basic_worker<source_type, timed_handler, any_sink, dead_letter_file,
                                          config_watcher, metrics_file, commit_file>;

/// A start that cannot go on: the message is told already.
struct start_refused {
  exit_code code;
};

[[noreturn]] void refuse(veltrix::worker_log& log, exit_code code, const diagnostic& told) {
  log.say(told);
  throw start_refused{code};
}

std::string path_or_off(const config_snapshot& config, key id) {
  const std::string_view text = config.text(id);
  return text == "off" ? std::string{} : std::string(text);
}

std::optional<saved_position> load_position(const config_snapshot& config,
                                            veltrix::worker_log& log) {
  const std::string path = path_or_off(config, key::commit_path);
  if (path.empty()) return std::nullopt;
  commit_file::loaded found = commit_file::load(path);
  const std::string_view source = config.text(key::events_source);
  std::string problem = std::move(found.problem);
  if (problem.empty() && found.saved.has_value() && found.saved->source != source) {
    problem = "'" + path + "' was saved for source " + found.saved->source + ", this is " +
              std::string(source);
  }
  if (!problem.empty()) {
    refuse(log, exit_code::bad_data,
           {.code = diagnostic_code::commit_mismatch,
            .what = "saved position",
            .got = problem,
            .allowed = {},
            .stays = "nothing was read or written",
            .next = "set commit.path elsewhere, or remove the file to start from the beginning"});
  }
  return std::move(found.saved);
}

std::unique_ptr<fd_reader> open_events(const config_snapshot& config, veltrix::worker_log& log) {
  if (config.text(key::events_source) == "stdin") {
    return std::make_unique<fd_reader>(STDIN_FILENO, fd_reader::ownership::borrowed, "stdin");
  }
  const std::string path(config.text(key::events_path));
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) {
    refuse(log, exit_code::dependency,
           {.code = diagnostic_code::source_failed,
            .what = "events.path '" + path + "'",
            .got = "cannot be opened: " + errno_text(errno),
            .allowed = {},
            .stays = "nothing was read or written",
            .next = "check the path and its permissions"});
  }
  return std::make_unique<fd_reader>(file, fd_reader::ownership::owned, path);
}

std::unique_ptr<any_reader> make_reader(const config_snapshot& config,
                                        const std::optional<saved_position>& saved,
                                        veltrix::worker_log& log) {
  if (config.text(key::events_source) == "generate") {
    auto reader = std::make_unique<generate_reader>(generator_options{
        .count = static_cast<std::uint64_t>(config.integer(key::events_count)),
        .keys = static_cast<std::uint64_t>(config.integer(key::events_keys)),
        .event_bytes = static_cast<std::size_t>(config.integer(key::events_event_bytes))});
    return std::make_unique<any_reader>(std::move(reader));
  }
  auto reader = open_events(config, log);
  if (saved.has_value()) reader->expect(saved->identity);
  return std::make_unique<any_reader>(std::move(reader));
}

any_sink make_sink(const config_snapshot& config, const std::optional<saved_position>& saved,
                   veltrix::worker_log& log) {
  if (config.text(key::sink_kind) == "count") return any_sink(count_sink{});
  const std::string path(config.text(key::sink_path));
  std::optional<std::uint64_t> keep;
  if (saved.has_value() && saved->sink == "file " + path) keep = saved->record.sink_bytes;
  file_sink::opened opened = file_sink::open(path, keep);
  if (opened.sink == nullptr) {
    refuse(log, exit_code::dependency,
           {.code = diagnostic_code::sink_failed,
            .what = "sink.path",
            .got = opened.problem,
            .allowed = {},
            .stays = "nothing was read or written",
            .next = "check the path, or set sink.path elsewhere"});
  }
  return any_sink(std::move(opened.sink));
}

/// SIGINT, SIGTERM and SIGHUP as something to poll. Blocks them in every thread started later.
class signal_queue {
 public:
  signal_queue() {
    ::sigset_t set;
    ::sigemptyset(&set);
    for (const int number : {SIGINT, SIGTERM, SIGHUP})
      ::sigaddset(&set, number);
    ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
    std::signal(SIGPIPE, SIG_IGN);
    descriptor_ = ::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (descriptor_ < 0) {
      throw std::system_error(errno, std::generic_category(), "veltrix-worker: signalfd");
    }
  }
  signal_queue(const signal_queue&) = delete;
  signal_queue& operator=(const signal_queue&) = delete;
  ~signal_queue() { ::close(descriptor_); }

  /// The next signal, or 0 after `milliseconds`.
  int next(int milliseconds) const {
    ::pollfd waiting{.fd = descriptor_, .events = POLLIN, .revents = 0};
    if (::poll(&waiting, 1, milliseconds) <= 0) return 0;
    ::signalfd_siginfo info{};
    if (::read(descriptor_, &info, sizeof info) != sizeof info) return 0;
    return static_cast<int>(info.ssi_signo);
  }

 private:
  int descriptor_ = -1;
};

/// Ticks the worker, shows progress and passes signals on until the run has ended.
class supervisor {
 public:
  supervisor(worker_type& worker, config_watcher& watcher, timed_handler& handler,
             terminal_view& view, veltrix::worker_log& log)
      : worker_(worker), watcher_(watcher), handler_(handler), view_(view), log_(log) {}

  /// Result: whether the run was whole.
  run_end watch(const signal_queue& signals) {
    next_progress_ = veltrix::steady_clock::now();
    while (!worker_.finished()) {
      const int number = signals.next(tick_ms);
      if (number != 0) act_on(number);
      worker_.tick();
      show_progress();
    }
    view_.clear();
    return stops_ >= 2 ? run_end::cut_short : run_end::whole;
  }

 private:
  static constexpr int tick_ms = 20;

  void act_on(int number) {
    if (number == SIGHUP) {
      log_.say("SIGHUP: looking at the configuration");
      watcher_.look_again();
      worker_.reload();
      return;
    }
    const std::string name = number == SIGINT ? "SIGINT" : "SIGTERM";
    if (++stops_ == 1) {
      log_.say(name + ": reading no more, finishing what was read; again to give that up");
      worker_.stop();
      return;
    }
    if (stops_ > 2) {
      log_.say(name + ": ending at once; what is committed stays");
      std::_Exit(static_cast<int>(exit_code::dependency));  // a sink that hangs cannot be joined
    }
    log_.say(name + ": giving up what is not begun; again to end at once");
    handler_.cut_short();
    worker_.hurry();
  }

  void show_progress() {
    const auto interval =
        std::chrono::milliseconds(worker_.config().integer(key::progress_interval_ms));
    if (interval.count() == 0) return;
    const veltrix::time_point now = veltrix::steady_clock::now();
    if (now < next_progress_ + interval) return;
    next_progress_ = now;
    view_.progress(progress_line(worker_.report()));
  }

  worker_type& worker_;
  config_watcher& watcher_;
  timed_handler& handler_;
  terminal_view& view_;
  veltrix::worker_log& log_;
  int stops_ = 0;
  veltrix::time_point next_progress_{};
};

void say_start(const config_snapshot& config, const config_choice& choice,
               veltrix::worker_log& log) {
  log.say("veltrix-worker " VELTRIX_VERSION_STRING ", pid " + std::to_string(::getpid()) + ", " +
          (choice.files.empty() ? "no configuration file" : "config " + choice.files.front()));
  for (const veltrix::config_field& field : veltrix::config_table) {
    const bool given = config.origin(field.id).kind != veltrix::origin_kind::built_in;
    if (given || field.id == key::workers_max_concurrency) {
      log.say(config.provenance_line(field.id));
    }
  }
}

exit_code run_configured(const run_options& options, config_snapshot config,
                         veltrix::host_facts host, terminal_view& view, veltrix::worker_log& log) {
  const signal_queue signals;
  say_start(config, options.config, log);
  const std::optional<saved_position> saved = load_position(config, log);
  std::unique_ptr<any_reader> reader = make_reader(config, saved, log);
  const any_reader& head = *reader;
  source_type source(std::move(reader), std::make_unique<json_parser>(schema_of(config)));
  if (saved.has_value()) {
    const std::string problem = source.start_after(saved->record.input);
    if (!problem.empty()) {
      refuse(log, exit_code::bad_data,
             {.code = diagnostic_code::commit_mismatch,
              .what = "saved position",
              .got = problem,
              .allowed = {},
              .stays = "nothing was read or written",
              .next = "set commit.path elsewhere, or remove the file to start from the beginning"});
    }
    log.say("going on after line " + grouped(saved->record.input.lines) + ", byte " +
            grouped(saved->record.input.bytes));
  }
  any_sink sink = make_sink(config, saved, log);
  timed_handler handler;
  dead_letter_file letters(source.name());
  config_watcher watcher(options.config);
  metrics_file metrics(path_or_off(config, key::metrics_file));
  const std::string commit_path = path_or_off(config, key::commit_path);
  commit_file commits(commit_path, std::string(config.text(key::events_source)), sink.name(), head);

  veltrix::worker_start start{.config = std::move(config), .host = std::move(host)};
  start.strict = options.strict;
  if (saved.has_value()) start.resume = saved->record;
  worker_type worker({source, handler, sink, letters}, {watcher, metrics, commits}, log,
                     std::move(start));
  worker.start();
  const run_end how = supervisor(worker, watcher, handler, view, log).watch(signals);
  const exit_code code = worker.finish();
  const std::string summary =
      summary_text(worker.report(), code == exit_code::ok ? how : run_end::cut_short, commit_path);
  static_cast<void>(write_all(STDOUT_FILENO, summary));
  return code;
}

}  // namespace

exit_code run_command(const run_options& options) {
  const veltrix::host_facts host = veltrix::read_host_facts();
  auto config = load_config(options.config, host);
  if (!config.has_value()) return exit_code::config;
  terminal_view view;
  veltrix::worker_log log([&view](std::string_view text) { view.line(text); });
  try {
    return run_configured(options, std::move(*config), host, view, log);
  } catch (const start_refused& refused) {
    return refused.code;
  } catch (const std::system_error& problem) {
    log.say({.code = diagnostic_code::resize_refused,
             .what = "start",
             .got = problem.what(),
             .allowed = "is more than the system gives",
             .stays = "no worker is left running",
             .next = "lower workers.max_concurrency or raise the limit"});
    return exit_code::resource_limit;
  } catch (const std::bad_alloc&) {
    log.say("veltrix-worker: out of memory; what was committed stays");
    return exit_code::resource_limit;
  }
}

}  // namespace veltrix_worker
