// A worker: events through a pool, positions saved, its configuration followed while it runs.
// Use for: building an executable from parts of your own; veltrix-worker is one.
// Not for: a library call that returns; run it from a loop that ticks.
// Threads: the members are for one supervising thread; stop() and hurry() may come from any.
// Progress: start() starts threads; tick() does I/O for configuration and metrics.
// Callbacks: parts, on the threads that event_pipeline.hpp names.
// Exceptions: start() std::system_error if threads cannot be had; tick() std::bad_alloc.
// Lifetime: parts and log outlive it; the destructor stops and waits.
// Guide: docs/worker.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "../clock.hpp"
#include "../detail/sync.hpp"
#include "../elastic_pool.hpp"
#include "../snapshot_cell.hpp"
#include "../stop_token.hpp"
#include "concepts.hpp"
#include "config.hpp"
#include "event_pipeline.hpp"
#include "metrics.hpp"
#include "pool_keeper.hpp"
#include "worker_log.hpp"
#include "worker_stats.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// The parts of a worker beyond the path of an event.
template <class Config, class Exporter, class Store>
struct service_parts {
  Config& config;
  Exporter& exporter;
  Store& store;
};

/// What a worker starts with.
struct worker_start {
  config_snapshot config;
  host_facts host{};
  std::optional<commit_record> resume{};  ///< the saved position, if there is one
  bool strict = false;                    ///< a configuration that is refused ends the run
};

/// Says when a repeated warning is due: at once, then at most every 30 seconds.
class warning_timer {
 public:
  [[nodiscard]] bool due(time_point now) noexcept {
    if (now < next_) return false;
    next_ = now + std::chrono::seconds(30);
    return true;
  }
  void reset() noexcept { next_ = {}; }

 private:
  time_point next_{};
};

template <event_source Source, event_handler Handler, event_sink Sink, dead_letter_store Letters,
          config_source Config, metrics_exporter Exporter, commit_store Store>
class basic_worker {
 public:
  using path_parts = pipeline_parts<Source, Handler, Sink, Letters>;
  using other_parts = service_parts<Config, Exporter, Store>;

  basic_worker(const path_parts& path, const other_parts& others, worker_log& log,
               worker_start start)
      : path_(path),
        others_(others),
        log_(log),
        host_(std::move(start.host)),
        resume_(start.resume),
        strict_(start.strict),
        config_(std::move(start.config)) {}
  basic_worker(const basic_worker&) = delete;
  basic_worker& operator=(const basic_worker&) = delete;
  ~basic_worker() {
    if (source_thread_.joinable()) {
      hurry();
      source_thread_.join();
    }
    end_commits();
  }

  /// Starts the pool, the control thread and the source's thread.
  void start() {
    const auto config = config_.load();
    const auto workers = static_cast<std::size_t>(config->integer(key::workers_max_concurrency));
    pool_.emplace(workers, pool_options(*config));
    keeper_.emplace(*pool_, log_, wish_of(*config));
    pipeline_.emplace(path_, config_, pool_->executor(), log_, failure_);
    apply(*config);
    if (resume_.has_value()) pipeline_->start_at(resume_->input);
    if (resume_.has_value()) saved_ = *resume_;
    started_ = steady_clock::now();
    rated_at_ = started_;
    last_tick_ = started_;
    reloaded_at_ = unix_seconds();
    const int error = source_thread_.start({.name = "vx-source"}, [this] { pipeline_->run(); });
    if (error != 0) {
      detail::raise(std::system_error(error, std::generic_category(),
                                      "basic_worker: the source's thread cannot be started"));
    }
    const int refused = commit_thread_.start({.name = "vx-commit"}, [this] { run_commits(); });
    if (refused != 0) {
      detail::raise(std::system_error(refused, std::generic_category(),
                                      "basic_worker: the commit thread cannot be started"));
    }
  }

  /// Does what is due: configuration, watching, metrics. Call it about every 50 ms.
  void tick() {
    const time_point now = steady_clock::now();
    const auto config = config_.load();
    if (take_due(next_poll_, now, milliseconds(*config, key::config_poll_ms))) poll_config();
    watch_pool(now);
    if (take_due(next_rate_, now, std::chrono::milliseconds(250))) measure(*config, now);
    if (take_due(next_metrics_, now, std::chrono::seconds(1))) export_metrics(now);
    watch_flow(now);
  }

  /// Looks at the configuration now.
  void reload() { poll_config(); }

  void stop() { pipeline_->stop(); }
  void hurry() {
    if (pipeline_.has_value()) pipeline_->hurry();
  }

  /// True once the source has ended or was stopped, and all that was taken is done.
  [[nodiscard]] bool finished() const noexcept { return pipeline_->finished(); }

  /// After finished(): saves the last position and metrics. Result: what the process ends with.
  exit_code finish() {
    source_thread_.join();
    ended_ = pipeline_->finished_at();
    end_commits();
    const bool saved = checkpoint();
    export_metrics(steady_clock::now());
    if (const auto failure = failure_.get(); failure.has_value()) {
      log_.say(failure->told);
      return failure->code;
    }
    return saved ? exit_code::ok : exit_code::dependency;
  }

  [[nodiscard]] worker_report report() const {
    worker_report now;
    pipeline_->describe(now);
    {
      const detail::sync::lock_guard<detail::sync::mutex> lock(commit_mutex_);
      now.committed = saved_.input;
      now.sink_bytes = saved_.sink_bytes;
    }
    describe_pool(now);
    now.config_generation = config_generation_;
    const auto config = config_.load();
    now.config_digest = config->digest();
    now.pod = std::string(config->text(key::pod));
    now.last_reload_good = last_reload_good_;
    now.last_reload_at = reloaded_at_;
    now.reloads_accepted = reloads_accepted_;
    now.reloads_refused = reloads_refused_;
    now.reloads_missing = reloads_missing_;
    const time_point until = ended_ == time_point{} ? steady_clock::now() : ended_;
    now.seconds = std::chrono::duration<double>(until - started_).count();
    now.rate = rate_;
    return now;
  }

  [[nodiscard]] config_snapshot config() const { return *config_.load(); }

 private:
  using pipeline_type = event_pipeline<Source, Handler, Sink, Letters, elastic_pool::executor_type>;

  static duration milliseconds(const config_snapshot& config, key id) {
    return std::chrono::milliseconds(config.integer(id));
  }

  static double unix_seconds() {
    return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch())
        .count();
  }

  static bool take_due(time_point& next, time_point now, duration every) noexcept {
    if (now < next) return false;
    next = now + every;
    return true;
  }

  [[nodiscard]] elastic_pool_options pool_options(const config_snapshot& config) const {
    elastic_pool_options options;
    const std::int64_t stack_kib = config.integer(key::workers_stack_kib);
    options.stack_bytes = static_cast<std::size_t>(stack_kib) * 1024;
    const config_field& field = field_of(key::workers_max_concurrency);
    options.max_workers = static_cast<std::size_t>(field.highest);
    options.max_reason = "the ceiling of workers.max_concurrency";
    if (const auto limit = max_workers(host_, stack_kib);
        limit.has_value() && limit->value < field.highest) {
      options.max_workers = static_cast<std::size_t>(std::max<std::int64_t>(limit->value, 1));
      options.max_reason = limit->source;
    }
    return options;
  }

  [[nodiscard]] pool_wish wish_of(const config_snapshot& config) const {
    return {.workers = config.integer(key::workers_max_concurrency),
            .config_generation = config_generation_,
            .deadline = milliseconds(config, key::workers_resize_deadline_ms)};
  }

  // --- configuration ---

  void poll_config() {
    config_update update = others_.config.poll();
    switch (update.news) {
      case config_news::unchanged:
        if (missing_said_) {
          log_.say("configuration is back, unchanged");
          last_reload_good_ = !refused_in_force_;
        }
        missing_said_ = false;
        return;
      case config_news::missing: return config_missing(update.fault);
      case config_news::changed: break;
    }
    missing_said_ = false;
    update.inputs.host = host_;
    const auto old = config_.load();
    update.inputs.stays = in_force(*old);
    config_result result = reload_config(*old, update.inputs);
    for (const diagnostic& told : result.errors)
      log_.say(told);
    for (const diagnostic& told : result.warnings)
      log_.say(told);
    if (!result.ok()) return refuse_config();
    take_config(*old, std::move(*result.snapshot));
  }

  [[nodiscard]] std::string in_force(const config_snapshot& config) const {
    return "generation " + std::to_string(config_generation_) + " with " +
           std::to_string(config.integer(key::workers_max_concurrency)) + " workers stays in force";
  }

  void config_missing(diagnostic fault) {
    if (missing_said_) return;
    missing_said_ = true;
    ++reloads_missing_;
    last_reload_good_ = false;
    fault.stays = in_force(*config_.load());
    log_.warn(fault);
  }

  void refuse_config() {
    ++reloads_refused_;
    last_reload_good_ = false;
    refused_in_force_ = true;
    if (!strict_) return;
    failure_.set(exit_code::config, {.code = diagnostic_code::contradiction,
                                     .what = "configuration",
                                     .got = "refused while running",
                                     .allowed = "ends the run because of --strict",
                                     .stays = "what was read is done and committed",
                                     .next = "repair the file and start again"});
    stop();
  }

  void take_config(const config_snapshot& old, config_snapshot fresh) {
    const std::vector<config_change> changes = diff(old, fresh);
    ++config_generation_;
    ++reloads_accepted_;
    last_reload_good_ = true;
    refused_in_force_ = false;
    reloaded_at_ = unix_seconds();
    std::string line = "configuration generation " + std::to_string(config_generation_) + ":";
    for (const config_change& change : changes) {
      line +=
          " " + std::string(field_of(change.id).name) + " " + change.before + " -> " + change.after;
    }
    log_.say(changes.empty() ? line + " nothing changed" : line);
    if (fresh.integer(key::lanes_batch_max) != old.integer(key::lanes_batch_max)) {
      log_.say({.code = diagnostic_code::no_effect,
                .what = "lanes.batch_max",
                .got = fresh.shown(key::lanes_batch_max),
                .allowed = "takes effect at the next start",
                .stays = old.shown(key::lanes_batch_max) + " stays in force",
                .next = "Restart the worker when it suits"});
    }
    static_cast<void>(config_.publish(std::move(fresh)));
    apply(*config_.load());
    keeper_->want(wish_of(*config_.load()));
  }

  /// Gives live settings to the parts that cannot look for themselves.
  void apply(const config_snapshot& config) {
    path_.handler.configure(config);
    path_.letters.configure(config);
    set_limits(config);
  }

  // --- the pool ---

  void describe_pool(worker_report& now) const {
    const pool_stats pool = pool_->stats();
    now.pool = {.configured = pool.configured,
                .running = pool.running,
                .busy = pool.busy,
                .starting = pool.starting,
                .retiring = pool.retiring,
                .generation = pool.generation};
    const keeper_state keeper = keeper_->state();
    now.desired_workers = static_cast<std::uint64_t>(keeper.wish.workers);
    now.resizes = keeper.counts;
    now.resize_seconds = &keeper_->resize_times();
    now.mismatch_seconds = mismatch_seconds_;
  }

  /// Counts and tells the time in which the workers running are not as many as configured.
  void watch_pool(time_point now) {
    const double passed = std::chrono::duration<double>(now - last_tick_).count();
    last_tick_ = now;
    const keeper_state keeper = keeper_->state();
    const pool_stats pool = pool_->stats();
    if (keeper.refused && refusal_seen_ != keeper.wish.config_generation) {
      refusal_seen_ = keeper.wish.config_generation;
      refuse_config();
    }
    if (static_cast<std::int64_t>(pool.running) == keeper.wish.workers) {
      mismatch_since_ = {};
      mismatch_warning_.reset();
      return;
    }
    if (mismatch_since_ == time_point{}) {
      mismatch_since_ = now;
      return;
    }
    mismatch_seconds_ += passed;
    if (now - mismatch_since_ < std::chrono::milliseconds(500)) return;  // a resize takes its time
    if (!mismatch_warning_.due(now)) return;
    std::string why = keeper.reason;
    if (why.empty()) {
      why = std::to_string(pool.starting) + " starting, " + std::to_string(pool.retiring) +
            " retiring";
    }
    log_.warn({.code = diagnostic_code::pool_mismatch,
               .what = "workers",
               .got = std::to_string(pool.running) + " running, " +
                      std::to_string(keeper.wish.workers) + " configured",
               .allowed = why,
               .stays = "events go on with those that run",
               .next = keeper.refused ? "lower workers.max_concurrency or raise the limit"
                                      : "the pool is asked again"});
  }

  // --- flow ---

  /// The rate of late, and the bound in flight that follows from it.
  void measure(const config_snapshot& config, time_point now) {
    const std::uint64_t done = pipeline_->counters().processed.get();
    const double seconds = std::chrono::duration<double>(now - rated_at_).count();
    const double fresh = seconds > 0 ? static_cast<double>(done - rated_) / seconds : 0;
    rate_ = rate_ == 0 ? fresh : rate_ * 0.75 + fresh * 0.25;
    rated_at_ = now;
    if (done == rated_) return;  // stalled, not slow: the bound stays what it was
    rated_ = done;
    progressed_at_ = now;
    set_limits(config);
  }

  void set_limits(const config_snapshot& config) {
    const auto most = static_cast<double>(config.integer(key::queue_max_events));
    const auto budget = static_cast<double>(config.integer(key::queue_latency_budget_ms)) / 1e3;
    // Fewer than a batch for each worker would leave workers idle.
    const auto least = static_cast<double>(config.integer(key::workers_max_concurrency) *
                                           config.integer(key::lanes_batch_max));
    // Until a rate is known, one block is enough to find it.
    const double held = rate_ > 0 ? rate_ * budget : static_cast<double>(event_block::max_events);
    const double wanted = budget > 0 ? std::max(held, least) : most;
    pipeline_->set_limits(static_cast<std::size_t>(std::min(wanted, most)),
                          static_cast<std::size_t>(config.integer(key::queue_max_bytes)));
  }

  /// Says when the source is held back and nothing moves.
  void watch_flow(time_point now) {
    const worker_counters& counters = pipeline_->counters();
    if (counters.overtaken.get() > overtaken_said_) {
      overtaken_said_ = counters.overtaken.get();
      log_.warn({.code = diagnostic_code::order_broken,
                 .what = "order",
                 .got = std::to_string(overtaken_said_) + " events overtook others of their key",
                 .allowed = "allowed 0",
                 .stays = "events go on",
                 .next = "report this: it is a fault of the worker"});
    }
    const time_point since = progressed_at_ == time_point{} ? started_ : progressed_at_;
    if (!pipeline_->paused() || now - since < std::chrono::seconds(2)) {
      if (!pipeline_->paused()) full_warning_.reset();
      return;
    }
    if (!full_warning_.due(now)) return;
    say_full(std::chrono::duration<double>(now - since).count());
  }

  void say_full(double seconds) {
    worker_report now;
    pipeline_->describe(now);
    char text[200];
    std::snprintf(text, sizeof text, "%.1f MiB of %.0f MiB (%llu of %llu events)",
                  static_cast<double>(now.in_flight_bytes) / (1 << 20),
                  static_cast<double>(now.in_flight_bytes_limit) / (1 << 20),
                  static_cast<unsigned long long>(now.in_flight),
                  static_cast<unsigned long long>(now.in_flight_limit));
    char stalled[100];
    std::snprintf(stalled, sizeof stalled, "handler and sink '%s' have finished nothing for %.1f s",
                  std::string(path_.sink.name()).c_str(), seconds);
    log_.warn({.code = diagnostic_code::queue_full,
               .what = "queue full",
               .got = text,
               .allowed = stalled,
               .stays = "source paused",
               .next = "look at the handler and the sink, or raise workers.max_concurrency"});
  }

  // --- positions, on a thread of their own: a sink that hangs must hang nothing else ---

  void run_commits() {
    while (!commit_stop_.stop_requested()) {
      const duration pause = milliseconds(*config_.load(), key::commit_interval_ms);
      steady_clock::sleep_until(steady_clock::now() + pause, commit_stop_.get_token());
      checkpoint();
    }
  }

  void end_commits() {
    commit_stop_.request_stop();
    if (commit_thread_.joinable()) commit_thread_.join();
  }

  /// Everything before the position is written before the position is saved.
  bool checkpoint() {
    const input_position place = pipeline_->position();
    if (failure_.failed() && flush_failed_) return false;
    std::string problem = path_.sink.flush();
    if (!problem.empty()) return flush_fault(diagnostic_code::sink_failed, "sink", problem);
    problem = path_.letters.flush();
    if (!problem.empty()) {
      return flush_fault(diagnostic_code::dead_letter_failed, "dead letters", problem);
    }
    const commit_record record{place, path_.sink.position()};
    if (record == saved_ && saved_once_) return true;
    problem = others_.store.save(record);
    if (!problem.empty()) {
      if (commit_warning_.due(steady_clock::now())) {
        log_.warn(
            {.code = diagnostic_code::commit_failed,
             .what = "position",
             .got = problem,
             .allowed = {},
             .stays = "the position saved before stays: line " + std::to_string(saved_.input.lines),
             .next = "make room or set commit.path elsewhere"});
      }
      return false;
    }
    saved_once_ = true;
    const detail::sync::lock_guard<detail::sync::mutex> lock(commit_mutex_);
    saved_ = record;
    return true;
  }

  bool flush_fault(diagnostic_code code, std::string what, const std::string& problem) {
    flush_failed_ = true;
    failure_.set(exit_code::dependency, {.code = code,
                                         .what = std::move(what),
                                         .got = problem,
                                         .allowed = {},
                                         .stays = "nothing is committed that was not written",
                                         .next = "make room, then start again"});
    hurry();
    return false;
  }

  void export_metrics(time_point now) {
    const std::string problem = others_.exporter.publish(metrics_text(report()));
    if (problem.empty() || !metrics_warning_.due(now)) return;
    log_.warn({.code = diagnostic_code::metrics_failed,
               .what = "metrics",
               .got = problem,
               .allowed = {},
               .stays = "events go on",
               .next = "make room or set metrics.file elsewhere"});
  }

  const path_parts path_;
  const other_parts others_;
  worker_log& log_;
  const host_facts host_;
  const std::optional<commit_record> resume_;
  const bool strict_;
  snapshot_cell<config_snapshot> config_;
  failure_slot failure_;

  // The supervising thread's own.
  time_point started_{}, ended_{}, last_tick_{}, rated_at_{}, progressed_at_{};
  time_point mismatch_since_{};
  time_point next_poll_{}, next_rate_{}, next_metrics_{};
  warning_timer mismatch_warning_, full_warning_, metrics_warning_;
  std::uint64_t config_generation_ = 1;
  std::uint64_t refusal_seen_ = 0;
  std::uint64_t reloads_accepted_ = 0, reloads_refused_ = 0, reloads_missing_ = 0;
  std::uint64_t rated_ = 0;
  std::uint64_t overtaken_said_ = 0;
  double mismatch_seconds_ = 0;
  double rate_ = 0;
  double reloaded_at_ = 0;
  bool last_reload_good_ = true;
  bool refused_in_force_ = false;
  bool missing_said_ = false;

  // The commit thread's, and after it the supervising thread's.
  warning_timer commit_warning_;
  bool flush_failed_ = false;
  bool saved_once_ = false;
  mutable detail::sync::mutex commit_mutex_;  // guards writes of saved_; only checkpoint() writes
  commit_record saved_;                       // guarded by commit_mutex_
  stop_source commit_stop_;

  // In the order of their need: batches use the pipeline, the pool runs batches.
  std::optional<elastic_pool> pool_;
  std::optional<pool_keeper<elastic_pool>> keeper_;
  std::optional<pipeline_type> pipeline_;
  detail::sync::native_thread source_thread_;
  detail::sync::native_thread commit_thread_;
};

}  // namespace VELTRIX_ABI
}  // namespace veltrix
