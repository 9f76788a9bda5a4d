// Parts of a worker that live in memory, for tests of what stands between them.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "veltrix/clock.hpp"
#include "veltrix/detail/sync.hpp"
#include "veltrix/worker/concepts.hpp"
#include "veltrix/worker/config.hpp"
#include "veltrix/worker/worker_log.hpp"

namespace veltrix_test {

namespace sync = veltrix::detail::sync;

/// The defaults, changed by `settings`.
inline veltrix::config_snapshot make_config(std::vector<std::string> settings) {
  veltrix::config_inputs inputs;
  inputs.command_line = std::move(settings);
  inputs.host.cores = 2;
  inputs.host.host_name = "test";
  veltrix::config_result result = veltrix::parse_config(inputs);
  if (!result.ok()) throw std::invalid_argument(to_string(result.errors.front()));
  return std::move(*result.snapshot);
}

/// `count` events over `keys` keys, numbered within their keys, `per_block` in a block. Lines whose
/// number divides by `bad_every` are no events; a break comes after `broken_after` lines.
class counting_source {
 public:
  std::uint64_t count = 0;
  std::uint64_t keys = 1;
  std::uint64_t per_block = 64;
  std::uint64_t bad_every = 0;
  std::uint64_t broken_after = 0;
  int configured = 0;

  veltrix::read_status poll(veltrix::event_block& block, const veltrix::splitter_limits& limits) {
    if (broken_after != 0 && next_ >= broken_after) return veltrix::read_status::failed;
    if (next_ == count) return veltrix::read_status::end;
    block.first_line = next_ + 1;
    block.begin_offset = next_ * line_bytes;
    block.read_at = veltrix::steady_clock::now();
    const std::uint64_t lines =
        std::min({per_block, static_cast<std::uint64_t>(limits.max_lines), count - next_});
    block.reserve_events(lines);
    for (std::uint64_t line = 0; line < lines; ++line)
      add_line(block);
    block.line_count = lines;
    block.end_offset = next_ * line_bytes;
    return veltrix::read_status::data;
  }
  void wait(veltrix::time_point) const {}
  void configure(const veltrix::config_snapshot&) { ++configured; }
  std::string start_after(const veltrix::input_position& place) {
    next_ = place.lines;
    return {};
  }
  [[nodiscard]] std::optional<std::uint64_t> lag() const { return (count - next_) * line_bytes; }
  [[nodiscard]] std::string failure() const { return "the source broke"; }
  [[nodiscard]] std::string name() const { return "counting"; }

  static constexpr std::uint64_t line_bytes = 10;

 private:
  void add_line(veltrix::event_block& block) {
    const std::uint64_t number = ++next_;
    if (bad_every != 0 && number % bad_every == 0) {
      block.rejects().push_back({.kind = veltrix::fault_kind::syntax,
                                 .number = number,
                                 .offset = (number - 1) * line_bytes,
                                 .length = line_bytes,
                                 .text = "bad",
                                 .reason = "it is bad"});
      return;
    }
    veltrix::event& next = block.next_event();
    next.number = number;
    next.offset = (number - 1) * line_bytes;
    next.key = block.keep(std::to_string(number % keys));
    next.text = next.key;
    next.sequence = number / keys + 1;
    next.has_sequence = true;
    block.take_event();
  }

  std::uint64_t next_ = 0;
};

/// Calls a function for each event.
class calling_handler {
 public:
  explicit calling_handler(veltrix::detail::unique_function<void(const veltrix::event&)> call = {})
      : call_(std::move(call)) {}
  void configure(const veltrix::config_snapshot&) {}
  void handle(const veltrix::event& each) {
    if (call_) call_(each);
  }

 private:
  veltrix::detail::unique_function<void(const veltrix::event&)> call_;
};

/// Keeps what it is given: key and line number. Fails after `fails_after` events, if that is set.
class keeping_sink {
 public:
  struct kept {
    std::string key;
    std::uint64_t number;
  };
  std::optional<std::size_t> fails_after;

  std::string write(std::span<veltrix::event* const> batch) {
    const sync::lock_guard<sync::mutex> lock(mutex_);
    for (const veltrix::event* each : batch) {
      if (fails_after.has_value() && events_.size() >= *fails_after) return "no room";
      events_.push_back({std::string(each->key), each->number});
    }
    return {};
  }
  std::string flush() { return {}; }
  [[nodiscard]] std::uint64_t position() const {
    const sync::lock_guard<sync::mutex> lock(mutex_);
    return events_.size();
  }
  [[nodiscard]] std::string name() const { return "keeping"; }
  [[nodiscard]] std::vector<kept> events() const {
    const sync::lock_guard<sync::mutex> lock(mutex_);
    return events_;
  }

 private:
  mutable sync::mutex mutex_;  // guards events_
  std::vector<kept> events_;
};

/// Keeps letters up to a number of them.
class keeping_letters {
 public:
  std::size_t room = static_cast<std::size_t>(-1);
  bool broken = false;

  void configure(const veltrix::config_snapshot&) {}
  veltrix::letter_status write(const veltrix::rejected_line& line) {
    const sync::lock_guard<sync::mutex> lock(mutex_);
    if (broken) return veltrix::letter_status::failed;
    if (letters_.size() >= room) return veltrix::letter_status::full;
    letters_.push_back(line);
    return veltrix::letter_status::kept;
  }
  std::string flush() { return {}; }
  [[nodiscard]] std::string failure() const { return "no paper"; }
  [[nodiscard]] std::vector<veltrix::rejected_line> letters() const {
    const sync::lock_guard<sync::mutex> lock(mutex_);
    return letters_;
  }

 private:
  mutable sync::mutex mutex_;  // guards letters_
  std::vector<veltrix::rejected_line> letters_;
};

/// Log lines, kept.
class kept_lines {
 public:
  veltrix::worker_log log{[this](std::string_view line) { lines_.emplace_back(line); }};
  [[nodiscard]] std::string all() const {
    std::string text;
    for (const std::string& line : lines_)
      text.append(line).append("\n");
    return text;
  }

 private:
  std::vector<std::string> lines_;  // guarded by the log
};

}  // namespace veltrix_test
