// SPDX-License-Identifier: BSL-1.0
#include "progress.hpp"

#include <algorithm>
#include <cstdio>

#include <sys/ioctl.h>
#include <unistd.h>

#include "system_text.hpp"
#include "veltrix/worker/time_text.hpp"

namespace veltrix_worker {

using veltrix::fault_kind;
using veltrix::worker_report;

std::string grouped(std::uint64_t number) {
  std::string digits = std::to_string(number);
  for (std::size_t at = digits.size(); at > 3;) {
    at -= 3;
    digits.insert(at, 1, ',');
  }
  return digits;
}

std::string shown(veltrix::duration length) {
  const auto ns = static_cast<double>(length.count());
  char text[32];
  if (ns < 1e6) {
    std::snprintf(text, sizeof text, "%.0f us", ns / 1e3);
  } else if (ns < 1e9) {
    std::snprintf(text, sizeof text, "%.2f ms", ns / 1e6);
  } else {
    std::snprintf(text, sizeof text, "%.2f s", ns / 1e9);
  }
  return text;
}

namespace {

std::string minutes(double seconds) {
  char text[32];
  const auto whole = static_cast<unsigned long long>(seconds);
  std::snprintf(text, sizeof text, "%llu:%02llu", whole / 60, whole % 60);
  return text;
}

std::uint64_t refused(const worker_report& now) {
  std::uint64_t sum = 0;
  for (const std::uint64_t count : now.faults)
    sum += count;
  return sum;
}

}  // namespace

std::string progress_line(const worker_report& now) {
  std::string line = grouped(now.processed) + " events, " +
                     grouped(static_cast<std::uint64_t>(now.rate)) + "/s, in flight " +
                     grouped(now.in_flight) + ", p99 " +
                     shown(now.counters->latency.quantile(0.99)) + ", dead letters " +
                     grouped(now.dead_lettered) + ", workers " + std::to_string(now.pool.running) +
                     " (" + std::to_string(now.pool.busy) + " busy)";
  if (now.paused) line += ", source paused";
  if (now.lag_known && now.seconds > 0 && now.bytes > 0) {
    const double all = static_cast<double>(now.bytes + now.lag_bytes);
    const double left =
        static_cast<double>(now.lag_bytes) / (static_cast<double>(now.bytes) / now.seconds);
    char text[40];
    std::snprintf(text, sizeof text, ", %.0f %% read, ETA ",
                  100 * static_cast<double>(now.bytes) / all);
    line += text + minutes(left);
  }
  return line;
}

namespace {

std::string faults_text(const worker_report& last) {
  std::string text;
  for (std::size_t kind = 1; kind < veltrix::fault_kinds; ++kind) {
    if (last.faults[kind] == 0) continue;
    text.append(text.empty() ? " (" : ", ");
    text.append(veltrix::to_string(static_cast<fault_kind>(kind))).append(" ");
    text += grouped(last.faults[kind]);
  }
  return text.empty() ? text : text + ")";
}

std::string times_text(const worker_report& last) {
  const veltrix::time_inversions& found = last.inversions;
  if (found.count == 0) return {};
  return grouped(found.count) + (found.count == 1 ? " timestamp" : " timestamps") +
         " went backwards, first at line " + std::to_string(found.first_line) + ": " +
         veltrix::format_time(found.first_us) + " after " +
         veltrix::format_time(found.previous_us) + "\n";
}

}  // namespace

std::string summary_text(const worker_report& last, run_end how, std::string_view commit_path) {
  const auto rate = last.seconds > 0 ? static_cast<double>(last.processed) / last.seconds : 0;
  char seconds[32];
  std::snprintf(seconds, sizeof seconds, "%.3f", last.seconds);
  std::string text = "lines " + grouped(last.lines) + ", empty " + grouped(last.empty) + "\n";
  text += "events " + grouped(last.processed) + " in " + seconds + " s, " +
          grouped(static_cast<std::uint64_t>(rate)) + "/s\n";
  const veltrix::latency_histogram& latency = last.counters->latency;
  text += "latency p50 " + shown(latency.quantile(0.5)) + ", p99 " + shown(latency.quantile(0.99)) +
          ", p99.9 " + shown(latency.quantile(0.999)) + "\n";
  text += "refused " + grouped(refused(last)) + faults_text(last) + ", dead-lettered " +
          grouped(last.dead_lettered) + ", dropped when full " + grouped(last.dropped) + "\n";
  if (last.letters_lost != 0) {
    text += grouped(last.letters_lost) + " refused lines were not kept: dead_letter.max_bytes\n";
  }
  text += "keys: missing " + std::to_string(last.missing) + ", late " +
          grouped(last.order.late + last.order.too_old) + ", duplicates " +
          grouped(last.order.duplicates) + "\n";
  text += times_text(last);
  const std::int64_t open = last.unaccounted();
  if (how == run_end::cut_short && open > 0) {
    text += "unfinished " + grouped(static_cast<std::uint64_t>(open)) +
            " (not committed: a restart repeats them)\n";
  }
  const std::int64_t lost = how == run_end::whole ? open : 0;
  text += "lost " + std::to_string(lost) + ", reordered " + grouped(last.order.overtaken) + "\n";
  text += commit_path.empty() ? "done up to line " : "committed line ";
  text += grouped(last.committed.lines) + ", byte " + grouped(last.committed.bytes) + " (" +
          (commit_path.empty() ? "not saved: commit.path is off" : std::string(commit_path)) +
          ")\n";
  return text;
}

terminal_view::terminal_view() : live_(::isatty(STDERR_FILENO) == 1) {}

void terminal_view::put(std::string_view text) const {
  static_cast<void>(write_all(STDERR_FILENO, text));  // nobody is left to be told
}

void terminal_view::line(std::string_view text) {
  const lock_guard lock(mutex_);
  std::string all;
  if (!shown_.empty()) all = "\r\033[K";
  all.append(text).append("\n").append(shown_);
  put(all);
}

void terminal_view::progress(std::string_view text) {
  if (!live_) return line(text);
  ::winsize size{};
  const std::size_t columns =
      ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col : 80;
  const lock_guard lock(mutex_);
  shown_.assign(text.substr(0, columns - 1));
  put("\r\033[K" + shown_);
}

void terminal_view::clear() {
  const lock_guard lock(mutex_);
  if (!shown_.empty()) put("\r\033[K");
  shown_.clear();
}

}  // namespace veltrix_worker
