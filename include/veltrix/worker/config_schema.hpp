// The one table of every setting of the worker: name, type, unit, default, bounds, reload class.
// Use for: reading, checking and describing the configuration; the only place with a default.
// Not for: values in force; see config.hpp.
// Threads: constants only.
// Progress: compile time.
// Callbacks: none.
// Exceptions: none.
// Lifetime: static.
// Guide: docs/worker_config.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "../detail/config.hpp"
#include "../version.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// Every setting, in the order of the table. The name in a file has dots: workers.min.
enum class key : std::uint8_t {
  schema_version,
  pod,
  workers_max_concurrency,
  workers_min,
  workers_stack_kib,
  workers_resize_deadline_ms,
  lanes_count,
  lanes_batch_max,
  queue_max_events,
  queue_max_bytes,
  queue_latency_budget_ms,
  queue_on_full,
  limiter_mode,
  events_source,
  events_path,
  events_rate,
  events_count,
  events_keys,
  events_event_bytes,
  events_order,
  events_reorder_window,
  events_max_skew_ms,
  events_max_event_bytes,
  events_deadline_ms,
  events_schema,
  events_key_field,
  events_ts_field,
  events_on_invalid,
  handler_work_us,
  sink_kind,
  sink_path,
  dead_letter_path,
  dead_letter_max_bytes,
  commit_path,
  commit_interval_ms,
  progress_interval_ms,
  config_source,
  config_poll_ms,
  config_cache_enabled,
  config_cache_max_bytes,
  config_cache_ttl_ms,
  config_cache_stale_if_error_ms,
  config_last_good,
  config_tags,
  config_engine_use_grpc_pool,
  consistency,
  ready_stable_ms,
  retry_initial_ms,
  retry_max_ms,
  retry_deadline_ms,
  retry_budget,
  outlier_consecutive,
  outlier_grace_ms,
  outlier_max_ejected,
  connections_per_host,
  connections_idle_ms,
  connections_max_age_ms,
  control_socket,
  metrics_file,
  metrics_listen,
  sidecar_interval_ms,
  sidecar_dead_band,
  sidecar_stale_ms,
  sidecar_dwell_ticks,
  sidecar_promote_after,
};

/// What a value is.
enum class value_type : std::uint8_t {
  integer,    ///< a whole number
  size,       ///< bytes: 65536, or 64 KiB
  time_span,  ///< in the field's unit, or with a unit: 500 ms
  real,       ///< a decimal number without an exponent
  boolean,    ///< true or false
  choice,     ///< one of the field's words
  text,       ///< bounds are lengths in bytes
};

/// What a bare number of a size or a duration counts; `written` means that a unit must be given
/// (milliseconds are stored).
enum class value_unit : std::uint8_t {
  none,
  bytes,
  kibibytes,
  microseconds,
  milliseconds,
  written
};

/// What a reload does with a changed value.
enum class reload_class : std::uint8_t {
  live,       ///< L: in force at once
  handshake,  ///< H: in force when the part concerned has agreed
  restart,    ///< R: refused; restart the worker
};

/// One row. Bounds of a real number are in thousandths.
struct config_field {
  key id;
  std::string_view name;
  reload_class reload;
  std::string_view default_text;    ///< as a file would say it; empty if default_note computes it
  std::string_view default_note{};  ///< how a default that depends on the host is found
  value_type type{};
  value_unit unit{};
  std::int64_t lowest{};
  std::int64_t highest{};
  std::string_view bound_note{};     ///< bounds beyond the numbers
  std::string_view choices{};        ///< words that are built, separated by '|'
  std::string_view later_choices{};  ///< words that are known and not built
  bool available = true;             ///< false: only the default may be given
  bool power_of_two = false;
  std::string_view label{};  ///< short name for provenance lines, or empty
  std::array<std::string_view, 2> aliases{};
  std::string_view consequence{};  ///< one sentence
};

namespace detail {

inline constexpr std::int64_t kib = 1024;
inline constexpr std::int64_t mib = 1024 * kib;
inline constexpr std::int64_t tib = mib * mib;
inline constexpr std::int64_t day_ms = 86'400'000;

/// The ceiling of workers everywhere; the host may allow fewer.
inline constexpr std::int64_t most_pool_workers = 4096;
/// The default number of workers: so many for each core, and never fewer than the floor.
inline constexpr std::int64_t default_workers_per_core = 2;
inline constexpr std::int64_t default_workers_floor = 4;

/// The words that the table below is written in.
namespace schema {

using enum reload_class;

struct range {
  std::int64_t lowest;
  std::int64_t highest;
  std::string_view note{};
};

struct words {
  std::string_view built;
  std::string_view later{};
};

constexpr config_field number(config_field row, value_type type, value_unit unit, range bounds,
                              std::string_view consequence) {
  row.type = type;
  row.unit = unit;
  row.lowest = bounds.lowest;
  row.highest = bounds.highest;
  row.bound_note = bounds.note;
  row.consequence = consequence;
  return row;
}

constexpr config_field whole(config_field row, range bounds, std::string_view consequence) {
  return number(row, value_type::integer, value_unit::none, bounds, consequence);
}

constexpr config_field bytes(config_field row, range bounds, std::string_view consequence) {
  return number(row, value_type::size, value_unit::bytes, bounds, consequence);
}

constexpr config_field kibibytes(config_field row, range bounds, std::string_view consequence) {
  return number(row, value_type::size, value_unit::kibibytes, bounds, consequence);
}

constexpr config_field microseconds(config_field row, range bounds, std::string_view consequence) {
  return number(row, value_type::time_span, value_unit::microseconds, bounds, consequence);
}

constexpr config_field milliseconds(config_field row, range bounds, std::string_view consequence) {
  return number(row, value_type::time_span, value_unit::milliseconds, bounds, consequence);
}

/// Milliseconds that are always written with a unit.
constexpr config_field span(config_field row, range bounds, std::string_view consequence) {
  return number(row, value_type::time_span, value_unit::written, bounds, consequence);
}

/// A share of one; bounds in thousandths.
constexpr config_field share(config_field row, range bounds, std::string_view consequence) {
  return number(row, value_type::real, value_unit::none, bounds, consequence);
}

/// Bounds are lengths in bytes.
constexpr config_field text(config_field row, range bounds, std::string_view consequence) {
  return number(row, value_type::text, value_unit::none, bounds, consequence);
}

constexpr config_field flag(config_field row, std::string_view consequence) {
  return number(row, value_type::boolean, value_unit::none, {}, consequence);
}

constexpr config_field word(config_field row, words allowed, std::string_view consequence) {
  row.choices = allowed.built;
  row.later_choices = allowed.later;
  return number(row, value_type::choice, value_unit::none, {}, consequence);
}

constexpr config_field not_built(config_field row) {
  row.available = false;
  return row;
}

constexpr config_field power_of_two(config_field row) {
  row.power_of_two = true;
  return row;
}

constexpr config_field labelled(std::string_view label, config_field row) {
  row.label = label;
  return row;
}

constexpr config_field also_named(std::array<std::string_view, 2> aliases, config_field row) {
  row.aliases = aliases;
  return row;
}

inline constexpr std::array table{
    whole({key::schema_version, "schema_version", restart, "1"}, {1, 1},
          "Says which edition of this table the file was written for; another edition is refused "
          "rather than guessed at."),
    text({key::pod, "pod", restart, "", "$POD_NAME, else the host name"}, {1, 253},
         "Names this instance in metrics and in log lines."),
    labelled(
        "workers",
        also_named(
            {"worker-pool-size", "MaxConcurrency"},
            whole({key::workers_max_concurrency, "workers.max_concurrency", handshake, "",
                   "2 x cores, at least 4"},
                  {1, most_pool_workers,
                   "and at most what pids.max, RLIMIT_NPROC and memory / workers.stack_kib leave"},
                  "How many workers run the handler: more of them help while the handler waits, "
                  "and cost memory and switches while it computes."))),
    whole({key::workers_min, "workers.min", handshake, "1"},
          {1, most_pool_workers, "and at most workers.max_concurrency"},
          "The smallest number of workers that a controller may ask for."),
    kibibytes({key::workers_stack_kib, "workers.stack_kib", restart, "256"}, {64, 8192},
              "The stack of one worker: a deeply recursive handler needs more, and each "
              "worker's stack counts against memory."),
    milliseconds({key::workers_resize_deadline_ms, "workers.resize_deadline_ms", live, "5000"},
                 {10, 600'000},
                 "How long a change of the number of workers may take before it is given up and "
                 "tried again."),
    power_of_two(whole({key::lanes_count, "lanes.count", restart, "1024"}, {64, 65'536},
                       "How many keys can be worked on side by side: two keys of one lane wait "
                       "for each other.")),
    whole({key::lanes_batch_max, "lanes.batch_max", live, "64"}, {1, 4096},
          "How many events of a lane one worker takes in a row: more is faster, and less fair "
          "to the other lanes."),
    whole({key::queue_max_events, "queue.max_events", live, "50000"}, {64, 100'000'000},
          "How many events may wait inside the worker before its source is held back."),
    bytes({key::queue_max_bytes, "queue.max_bytes", live, "64 MiB",
           "64 MiB, or half of the memory limit where that is less"},
          {mib, tib, "and at most half of the memory limit"},
          "How many bytes of events may wait inside the worker before its source is held back."),
    milliseconds({key::queue_latency_budget_ms, "queue.latency_budget_ms", live, "42"},
                 {0, 600'000},
                 "Bounds the events in flight to what the workers finish in this time; 0 turns the "
                 "bound off."),
    word({key::queue_on_full, "queue.on_full", live, "block"}, {"block|reject|drop_newest"},
         "What happens to an event that finds the queue full: its source waits, or the event "
         "goes to the dead letters, or it is dropped and counted."),
    word({key::limiter_mode, "limiter.mode", live, "off"}, {"off", "aimd|gradient"},
         "Lets a limiter find the concurrency below workers.max_concurrency."),
    word({key::events_source, "events.source", restart, "generate"},
         {"generate|file|stdin", "kafka"}, "Where events come from."),
    text({key::events_path, "events.path", restart, ""}, {0, 4095},
         "The file of events, one JSON object a line; events.source file needs it."),
    whole({key::events_rate, "events.rate", live, "0"}, {0, 1'000'000'000},
          "Holds the source to so many events a second; 0 is as fast as they can be taken."),
    whole({key::events_count, "events.count", restart, "0"}, {0, 1'000'000'000'000},
          "How many events the generate source makes; 0 is without end."),
    whole({key::events_keys, "events.keys", restart, "10000"}, {1, 1'000'000'000},
          "How many different keys the generate source uses."),
    bytes({key::events_event_bytes, "events.event_bytes", restart, "100"},
          {64, 16 * mib, "and at most events.max_event_bytes"},
          "The size of an event of the generate source."),
    word({key::events_order, "events.order", restart, "per_key"}, {"per_key|none"},
         "Keeps the events of one key in order, or lets any worker take any event."),
    not_built(whole({key::events_reorder_window, "events.reorder_window", live, "0"}, {0, 4096},
                    "How many events of a key may be held to put late ones in their place.")),
    not_built(
        milliseconds({key::events_max_skew_ms, "events.max_skew_ms", live, "10000"}, {0, day_ms},
                     "How far behind its key an event's time may be before it counts as late.")),
    bytes({key::events_max_event_bytes, "events.max_event_bytes", live, "64 KiB"}, {64, 16 * mib},
          "The longest event that is read; a longer line is an invalid event."),
    not_built(milliseconds(
        {key::events_deadline_ms, "events.deadline_ms", live, "0"}, {0, 600'000},
        "Drops an event that waited longer than this before its handler ran; 0 never does.")),
    word({key::events_schema, "events.schema", handshake, "builtin"}, {"builtin|journal|any"},
         "Says which fields an event must have: the worker's own, those of journalctl -o json, or "
         "any JSON object that has events.key_field."),
    text({key::events_key_field, "events.key_field", restart, "key"}, {1, 255},
         "Names the field that holds the key when events.schema is any."),
    text({key::events_ts_field, "events.ts_field", restart, "ts"}, {0, 255},
         "Names the field that holds the time when events.schema is any; empty: events have no "
         "time."),
    word({key::events_on_invalid, "events.on_invalid", live, "dead_letter"},
         {"dead_letter|drop|stop"},
         "What happens to an event that does not fit the schema: it is written to the dead "
         "letters, or counted and dropped, or the worker stops."),
    microseconds({key::handler_work_us, "handler.work_us", live, "0"}, {0, 60'000'000},
                 "Adds so much artificial work to each event, for load tests."),
    word({key::sink_kind, "sink.kind", restart, "count"}, {"count|file", "kafka|postgres"},
         "Where results go: they are counted, or appended to a file."),
    text({key::sink_path, "sink.path", restart, ""}, {0, 4095},
         "The file of results; sink.kind file needs it."),
    text({key::dead_letter_path, "dead_letter.path", live, "./dead.jsonl"}, {1, 4095},
         "The file that refused events are appended to, each with its reason."),
    bytes({key::dead_letter_max_bytes, "dead_letter.max_bytes", live, "64 MiB"}, {64 * kib, tib},
          "How large the dead-letter file may grow before the worker stops writing to it and "
          "says so."),
    text({key::commit_path, "commit.path", restart, "off"}, {1, 4095},
         "The file that remembers how far the input is done, so that a restart goes on from "
         "there; off: nothing is remembered."),
    milliseconds({key::commit_interval_ms, "commit.interval_ms", live, "1000"}, {10, 600'000},
                 "How often the position is saved: a crash repeats at most the events since."),
    milliseconds({key::progress_interval_ms, "progress.interval_ms", live, "1000"}, {0, 3'600'000},
                 "How often the worker prints its rates; 0 prints none."),
    word({key::config_source, "config.source", restart, "file"},
         {"file", "etcd|zookeeper|postgres"}, "Where the configuration comes from."),
    milliseconds({key::config_poll_ms, "config.poll_ms", live, "500"}, {10, 600'000},
                 "How often the configuration file is looked at."),
    also_named({"config-cache-enabled"},
               not_built(flag({key::config_cache_enabled, "config.cache.enabled", live, "false"},
                              "Turns on the cache of configuration values."))),
    not_built(bytes({key::config_cache_max_bytes, "config.cache.max_bytes", live, "64 MiB"},
                    {mib, tib}, "Bounds the cache of configuration values.")),
    not_built(milliseconds({key::config_cache_ttl_ms, "config.cache.ttl_ms", live, "30000"},
                           {0, day_ms}, "How long a cached configuration value is fresh.")),
    not_built(milliseconds(
        {key::config_cache_stale_if_error_ms, "config.cache.stale_if_error_ms", live, "0"},
        {0, day_ms}, "How long a stale configuration value may serve while its source fails.")),
    not_built(text({key::config_last_good, "config.last_good", restart, "./last-good.vxs"},
                   {1, 4095},
                   "The file that keeps the last good configuration for the next start.")),
    not_built(text({key::config_tags, "config.tags", handshake, "off"}, {1, 4095},
                   "A file of tags, up to 1 GiB, that handlers can look up.")),
    not_built(
        flag({key::config_engine_use_grpc_pool, "config.engine.use_grpc_pool", handshake, "false"},
             "Hands the number of workers to the sidecar; exactly one of the two ever writes it.")),
    not_built(
        text({key::consistency, "consistency", live, "bounded:1000"}, {1, 64},
             "Says how old a value read may be: linearizable, bounded:milliseconds, or snapshot.")),
    not_built(milliseconds({key::ready_stable_ms, "ready.stable_ms", live, "30000"}, {0, 600'000},
                           "How long all must be well before the worker calls itself ready.")),
    not_built(milliseconds({key::retry_initial_ms, "retry.initial_ms", live, "50"}, {1, 600'000},
                           "The first wait before a call is tried again.")),
    not_built(milliseconds({key::retry_max_ms, "retry.max_ms", live, "400"}, {1, 600'000},
                           "The longest wait between two tries.")),
    not_built(milliseconds({key::retry_deadline_ms, "retry.deadline_ms", live, "60000"},
                           {1, day_ms}, "When a call is given up, all tries together.")),
    not_built(share({key::retry_budget, "retry.budget", live, "0.10"}, {0, 1000},
                    "How many tries may be added to the calls made, as a share of them.")),
    not_built(whole({key::outlier_consecutive, "outlier.consecutive", live, "3"}, {1, 1000},
                    "How many failures in a row take an endpoint out.")),
    not_built(milliseconds({key::outlier_grace_ms, "outlier.grace_ms", live, "5000"}, {0, 600'000},
                           "How long an endpoint stays out the first time.")),
    not_built(share({key::outlier_max_ejected, "outlier.max_ejected", live, "0.5"}, {0, 1000},
                    "The largest share of the endpoints that may be out at once.")),
    not_built(whole({key::connections_per_host, "connections.per_host", live, "50"}, {1, 65'536},
                    "Bounds the connections to one host.")),
    not_built(milliseconds({key::connections_idle_ms, "connections.idle_ms", live, "10000"},
                           {1, day_ms},
                           "How long a connection may be unused before it is closed.")),
    not_built(milliseconds({key::connections_max_age_ms, "connections.max_age_ms", live, "60000"},
                           {1, day_ms}, "How long a connection may live.")),
    not_built(text({key::control_socket, "control.socket", restart, "/var/run/vwc.sock"}, {1, 107},
                   "The socket that takes commands; without the right to make it, "
                   "$XDG_RUNTIME_DIR/vwc.sock.")),
    text({key::metrics_file, "metrics.file", restart, "off"}, {1, 4095},
         "A file that always holds the newest metrics in Prometheus text format; off: none is "
         "written."),
    not_built(text({key::metrics_listen, "metrics.listen", restart, "off"}, {1, 253},
                   "The address that serves the metrics over HTTP; off: none.")),
    not_built(milliseconds({key::sidecar_interval_ms, "sidecar.interval_ms", live, "500"},
                           {50, 600'000},
                           "How often the sidecar compares what runs with what is wanted.")),
    not_built(share({key::sidecar_dead_band, "sidecar.dead_band", live, "0.10"}, {0, 1000},
                    "The share by which the two may differ before the sidecar acts at once.")),
    not_built(milliseconds({key::sidecar_stale_ms, "sidecar.stale_ms", live, "5000"}, {50, 600'000},
                           "How old a wanted value may be and still be acted upon.")),
    not_built(whole({key::sidecar_dwell_ticks, "sidecar.dwell_ticks", live, "10"}, {1, 100'000},
                    "After how many looks even a small difference is closed.")),
    not_built(span({key::sidecar_promote_after, "sidecar.promote_after", live, "12h"},
                   {0, 365 * day_ms}, "How long the sidecar only watches before it may act.")),
};

}  // namespace schema
}  // namespace detail

/// The schema. Its order is the order of `key`, of the default file and of every listing.
inline constexpr const auto& config_table = detail::schema::table;

/// The row of `id`. Complexity: constant.
[[nodiscard]] constexpr const config_field& field_of(key id) noexcept {
  return config_table[static_cast<std::size_t>(id)];
}

/// The number of settings.
inline constexpr std::size_t key_count = config_table.size();

namespace detail {

[[nodiscard]] constexpr bool rows_stand_in_order() noexcept {
  for (std::size_t at = 0; at < config_table.size(); ++at) {
    const config_field& row = config_table[at];
    if (row.id != static_cast<key>(at)) return false;
    if (row.lowest > row.highest || (row.type == value_type::text && row.lowest > 1)) return false;
  }
  return config_table.size() == static_cast<std::size_t>(key::sidecar_promote_after) + 1;
}
static_assert(
    rows_stand_in_order(),
    "config_table must have one row for each key, in its order, with bounds that make sense");

/// Calls `use(word)` for each word of `words`, which '|' separates.
template <class Use>
constexpr void for_each_choice(std::string_view words, Use use) {
  while (!words.empty()) {
    const std::size_t bar = words.find('|');
    use(words.substr(0, bar));
    words = bar == std::string_view::npos ? std::string_view{} : words.substr(bar + 1);
  }
}

[[nodiscard]] constexpr bool has_choice(std::string_view words, std::string_view wanted) {
  bool found = false;
  for_each_choice(words, [&](std::string_view word) { found = found || word == wanted; });
  return found;
}

}  // namespace detail

/// The row that `name` means, as its name or as an alias, or null. Complexity: linear in the table.
[[nodiscard]] constexpr const config_field* find_field(std::string_view name) noexcept {
  for (const config_field& field : config_table) {
    if (field.name == name) return &field;
    for (const std::string_view alias : field.aliases) {
      if (!alias.empty() && alias == name) return &field;
    }
  }
  return nullptr;
}

/// True if a setting's name starts with `name` and a dot.
[[nodiscard]] constexpr bool is_group(std::string_view name) noexcept {
  for (const config_field& field : config_table) {
    if (field.name.size() > name.size() && field.name.starts_with(name) &&
        field.name[name.size()] == '.') {
      return true;
    }
  }
  return false;
}

}  // namespace VELTRIX_ABI
}  // namespace veltrix
