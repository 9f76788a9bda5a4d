// Metrics in the Prometheus text format: a writer, and the worker's own list.
// Use for: what metrics.file holds.
// Not for: serving HTTP.
// Threads: one writer belongs to one thread.
// Progress: linear in the series; allocates.
// Callbacks: none.
// Exceptions: std::bad_alloc.
// Lifetime: owns its text.
// Guide: docs/worker.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <charconv>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <initializer_list>
#include <string>
#include <string_view>

#include "../version.hpp"
#include "latency_histogram.hpp"
#include "worker_stats.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

struct metric_label {
  std::string_view name;
  std::string_view value;
};

/// Writes families one after another: HELP and TYPE once, then the series.
class metrics_writer {
 public:
  using labels = std::initializer_list<metric_label>;

  /// Begins a family. `type` is counter, gauge or summary.
  void family(std::string_view name, std::string_view type, std::string_view help) {
    name_ = name;
    text_.append("# HELP ").append(name).append(" ").append(help).append("\n");
    text_.append("# TYPE ").append(name).append(" ").append(type).append("\n");
  }

  template <std::integral Number>
  void series(Number value, labels where = {}) {
    begin(name_, where);
    text_.append(std::to_string(value)).push_back('\n');
  }

  void series(double value, labels where = {}) {
    begin(name_, where);
    number(value);
    text_.push_back('\n');
  }

  /// Quantiles, sum and count of a histogram, in seconds: five series.
  void summary(std::string_view name, std::string_view help, const latency_histogram& from) {
    family(name, "summary", help);
    for (const auto& [share, label] :
         {quantile{0.5, "0.5"}, quantile{0.99, "0.99"}, quantile{0.999, "0.999"}}) {
      series(seconds(from.quantile(share)), {{"quantile", label}});
    }
    const std::string sum = std::string(name) + "_sum";
    const std::string count = std::string(name) + "_count";
    begin(sum, {});
    number(seconds(from.total()));
    text_.push_back('\n');
    begin(count, {});
    text_.append(std::to_string(from.count())).push_back('\n');
  }

  [[nodiscard]] const std::string& text() const noexcept { return text_; }
  /// Lines that carry a value.
  [[nodiscard]] std::size_t series_count() const noexcept { return series_count_; }

 private:
  struct quantile {
    double share;
    std::string_view label;
  };

  static double seconds(duration length) noexcept {
    return static_cast<double>(length.count()) / 1e9;
  }

  void begin(std::string_view name, labels where) {
    ++series_count_;
    text_.append(name);
    char separator = '{';
    for (const metric_label& label : where) {
      text_.append(1, separator).append(label.name).append("=\"");
      escape(label.value);
      text_.push_back('"');
      separator = ',';
    }
    if (separator == ',') text_.push_back('}');
    text_.push_back(' ');
  }

  void escape(std::string_view value) {
    for (const char letter : value) {
      if (letter == '\\' || letter == '"') text_.push_back('\\');
      if (letter == '\n') {
        text_.append("\\n");
      } else {
        text_.push_back(letter);
      }
    }
  }

  void number(double value) {
    char digits[40];
    const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
    text_.append(digits, static_cast<std::size_t>(end - digits));
  }

  std::string text_;
  std::string_view name_;
  std::size_t series_count_ = 0;
};

namespace detail {

inline void write_pool_metrics(metrics_writer& out, const worker_report& now) {
  out.family("veltrix_config_max_concurrency", "gauge", "Workers that the configuration asks for");
  out.series(now.desired_workers, {{"pod", now.pod}});
  out.family("veltrix_workers_configured", "gauge", "Workers that the pool is to have");
  out.series(now.pool.configured);
  out.family("veltrix_workers_running", "gauge", "Workers that have registered and not left");
  out.series(now.pool.running);
  out.family("veltrix_workers_busy", "gauge", "Workers at work on a batch");
  out.series(now.pool.busy);
  out.family("veltrix_workers_starting", "gauge", "Workers asked for and not yet registered");
  out.series(now.pool.starting);
  out.family("veltrix_workers_retiring", "gauge", "Workers told to leave and still at work");
  out.series(now.pool.retiring);
  out.family("veltrix_pool_generation", "gauge", "Changes of the pool's size that were accepted");
  out.series(now.pool.generation);
  out.family("veltrix_pool_writer_info", "gauge", "Who sets the pool's size");
  out.series(1, {{"writer", "direct"}});
  out.family("veltrix_pool_mismatch_seconds_total", "counter",
             "Time in which the workers running were not as many as configured");
  out.series(now.mismatch_seconds);
  out.family("veltrix_pool_resizes_total", "counter", "Answers to requests for another size");
  out.series(now.resizes.ack, {{"result", "ack"}});
  out.series(now.resizes.backoff, {{"result", "backoff"}});
  out.series(now.resizes.refused, {{"result", "refused"}});
  if (now.resize_seconds != nullptr) {
    out.summary("veltrix_pool_resize_seconds", "Time to a settled size", *now.resize_seconds);
  }
}

inline void write_event_metrics(metrics_writer& out, const worker_report& now) {
  out.family("veltrix_events_ingested_total", "counter", "Events read from the source");
  out.series(now.ingested);
  out.family("veltrix_events_processed_total", "counter", "Events that ended, by how");
  out.series(now.processed, {{"outcome", "ok"}});
  out.series(now.fault(fault_kind::handler_failed), {{"outcome", "failed"}});
  out.series(now.dropped, {{"outcome", "dropped"}});
  out.family("veltrix_events_dead_lettered_total", "counter", "Lines and events refused, by why");
  for (std::size_t kind = 1; kind < fault_kinds; ++kind)
    out.series(now.faults[kind], {{"reason", to_string(static_cast<fault_kind>(kind))}});
  out.family("veltrix_events_out_of_order_total", "counter",
             "Events whose number in their key was lower than one seen before");
  out.series(now.order.late + now.order.too_old);
  out.family("veltrix_events_duplicate_total", "counter",
             "Events whose number in their key was seen before");
  out.series(now.order.duplicates);
  out.family("veltrix_events_missing", "gauge", "Numbers left out within keys");
  out.series(now.missing);
  out.family("veltrix_events_reordered_total", "counter",
             "Events that overtook another of their key inside the worker");
  out.series(now.order.overtaken);
  out.family("veltrix_events_time_inversions_total", "counter",
             "Events whose time was before that of the event read before");
  out.series(now.inversions.count);
  if (now.counters == nullptr) return;
  out.summary("veltrix_event_wait_seconds", "From the read to the handler", now.counters->wait);
  out.summary("veltrix_event_service_seconds", "Handler and sink, for a batch",
              now.counters->service);
  out.summary("veltrix_event_latency_seconds", "From the read to the sink", now.counters->latency);
  out.summary("veltrix_sink_write_seconds", "The sink, for a batch", now.counters->sink_write);
}

inline void write_flow_metrics(metrics_writer& out, const worker_report& now) {
  out.family("veltrix_queue_events", "gauge", "Events read and not yet done");
  out.series(now.in_flight);
  out.family("veltrix_queue_events_limit", "gauge", "The bound of veltrix_queue_events");
  out.series(now.in_flight_limit);
  out.family("veltrix_queue_bytes", "gauge", "Memory of the events read and not yet done");
  out.series(now.in_flight_bytes);
  out.family("veltrix_queue_bytes_limit", "gauge", "The bound of veltrix_queue_bytes");
  out.series(now.in_flight_bytes_limit);
  out.family("veltrix_source_paused", "gauge", "1 while the source is held back");
  out.series(now.paused ? 1 : 0);
  out.family("veltrix_source_paused_seconds_total", "counter",
             "Time in which the source was held back");
  out.series(now.paused_seconds);
  if (now.lag_known) {
    out.family("veltrix_source_lag_bytes", "gauge", "Bytes of the source not yet read");
    out.series(now.lag_bytes);
  }
  out.family("veltrix_commit_lag_events", "gauge", "Lines read and not yet committed");
  out.series(now.read.lines - now.committed.lines);
}

inline void write_config_metrics(metrics_writer& out, const worker_report& now) {
  char digest[17];
  std::snprintf(digest, sizeof digest, "%016llx",
                static_cast<unsigned long long>(now.config_digest));
  out.family("veltrix_config_generation", "gauge", "Configurations taken into force");
  out.series(now.config_generation);
  out.family("veltrix_config_info", "gauge", "The configuration in force");
  out.series(1, {{"digest", digest}});
  out.family("veltrix_config_last_reload_successful", "gauge",
             "1 if the newest configuration seen is in force");
  out.series(now.last_reload_good ? 1 : 0);
  out.family("veltrix_config_last_reload_success_timestamp_seconds", "gauge",
             "When a configuration was last taken into force");
  out.series(now.last_reload_at);
  out.family("veltrix_config_reloads_total", "counter", "Looks at a changed configuration");
  out.series(now.reloads_accepted, {{"result", "accepted"}});
  out.series(now.reloads_refused, {{"result", "refused"}});
  out.series(now.reloads_missing, {{"result", "missing"}});
}

}  // namespace detail

/// All metrics of a worker that runs: at most 120 series, whatever the workers and keys.
[[nodiscard]] inline std::string metrics_text(const worker_report& now) {
  metrics_writer out;
  detail::write_pool_metrics(out, now);
  detail::write_event_metrics(out, now);
  detail::write_flow_metrics(out, now);
  detail::write_config_metrics(out, now);
  out.family("veltrix_build_info", "gauge", "The version that runs");
  out.series(1, {{"version", VELTRIX_VERSION_STRING}});
  return out.text();
}

}  // namespace VELTRIX_ABI
}  // namespace veltrix
