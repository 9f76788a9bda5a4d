// The path of an event: source, lanes, handler, sink, position; bounded, in order, nothing lost.
// Use for: basic_worker, and tests of the path without configuration files.
// Not for: resizing the pool, or saving positions; see pool_keeper.hpp and basic_worker.hpp.
// Threads: run() on one thread; everything else from any thread.
// Progress: run() blocks; the rest takes short locks, drained() apart.
// Callbacks: source on run()'s thread; handler, sink and letters on the executor; no lock held.
// Exceptions: the constructor's; run() turns exceptions of the source into a failure.
// Lifetime: executor, parts, log and configuration outlive it.
// Guide: docs/worker.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../clock.hpp"
#include "../detail/default_hash.hpp"
#include "../detail/hash.hpp"
#include "../detail/sync.hpp"
#include "../executor.hpp"
#include "../keyed_executor.hpp"
#include "../snapshot_cell.hpp"
#include "../stop_token.hpp"
#include "commit_tracker.hpp"
#include "concepts.hpp"
#include "config.hpp"
#include "event.hpp"
#include "order_check.hpp"
#include "time_text.hpp"
#include "worker_log.hpp"
#include "worker_stats.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

/// The parts that an event passes, in this order.
template <class Source, class Handler, class Sink, class Letters>
struct pipeline_parts {
  Source& source;
  Handler& handler;
  Sink& sink;
  Letters& letters;
};

/// I1: an event that was submitted is finished exactly once, by handle_batch(), unless the run ends
///     early; then its block stays with the budget and the position stays before it.
/// I2: an event is marked done only when its result is in the sink, or it is a dead letter.
template <event_source Source, event_handler Handler, event_sink Sink, dead_letter_store Letters,
          class Executor>
class event_pipeline {
 public:
  using parts_type = pipeline_parts<Source, Handler, Sink, Letters>;
  using config_cell = snapshot_cell<config_snapshot>;

  event_pipeline(const parts_type& parts, config_cell& config, Executor where, worker_log& log,
                 failure_slot& failure)
      : parts_(parts),
        config_(config),
        log_(log),
        failure_(failure),
        budget_(bytes_of(*config.load(), key::queue_max_bytes)),
        orders_(size_of(*config.load(), key::lanes_count)),
        lanes_(std::forward<Executor>(where), lane_options(*config.load()),
               [this](std::size_t lane, std::span<event*> batch) { handle_batch(lane, batch); }) {
    const std::size_t keys = std::max<std::size_t>(most_keys / orders_.size(), 16);
    for (std::unique_ptr<order_check>& each : orders_)
      each = std::make_unique<order_check>(keys);
  }
  event_pipeline(const event_pipeline&) = delete;
  event_pipeline& operator=(const event_pipeline&) = delete;

  /// Goes on after a saved position, before run().
  void start_at(const input_position& place) { tracker_.start_at(place); }

  /// Reads until the source ends, stop() or a failure; then waits until what was taken is done.
  void run() {
    VELTRIX_TRY {
      read_all();
    }
    VELTRIX_CATCH_ALL {
      fail(exit_code::resource_limit, source_fault("an exception stopped the source"));
    }
    unpause();
    lanes_.close();
    if (!lanes_.drain({.token = hurry_.get_token()})) static_cast<void>(lanes_.stop());
    finished_at_ = steady_clock::now();
    // (1) release-store; pairs with acquire-load (2). Publishes: the whole run.
    finished_.store(true, detail::sync::release);
  }

  [[nodiscard]] bool finished() const noexcept {
    // (2) acquire-load; pairs with release-store (1). Sees: the whole run.
    return finished_.load(detail::sync::acquire);
  }

  /// When the last event was done; after finished().
  [[nodiscard]] time_point finished_at() const noexcept { return finished_at_; }

  /// No more is read; what was taken is done.
  void stop() { stop_.request_stop(); }
  /// What waits in the lanes is given up; batches at work end.
  void hurry() {
    stop_.request_stop();
    hurry_.request_stop();
  }

  /// Bounds in flight. `events` may be below the configured number; see basic_worker.
  void set_limits(std::size_t events, std::size_t bytes) {
    static_cast<void>(lanes_.set_limits({.items = events, .bytes = no_byte_limit}));
    budget_.set_limit(bytes);
  }

  [[nodiscard]] input_position position() const { return tracker_.position(); }
  [[nodiscard]] const worker_counters& counters() const noexcept { return counters_; }
  [[nodiscard]] bool paused() const noexcept {
    return paused_since_.load(detail::sync::relaxed) != 0;
  }

  /// Fills in what the pipeline knows.
  void describe(worker_report& report) const {
    report.count(counters_);
    const keyed_stats lanes = lanes_.stats();
    report.in_flight = lanes.in_flight.items;
    report.in_flight_limit = lanes.limit.items;
    report.in_flight_bytes = budget_.bytes();
    report.in_flight_bytes_limit = budget_.limit();
    report.paused = paused();
    report.paused_seconds =
        std::chrono::duration<double>(duration(counters_.pauses_ns.get()) + paused_for()).count();
    report.committed = tracker_.position();
    report.read = tracker_.read();
    const std::int64_t lag = lag_.load(detail::sync::relaxed);
    report.lag_known = lag >= 0;
    report.lag_bytes = lag >= 0 ? static_cast<std::uint64_t>(lag) : 0;
    const detail::sync::lock_guard<detail::sync::mutex> lock(inversions_mutex_);
    report.inversions = inversions_;
  }

 private:
  using lanes_type = keyed_executor<event*, Executor>;
  using item = keyed_item<event*>;

  static constexpr std::size_t most_keys = std::size_t{1} << 20;
  static constexpr duration slice = std::chrono::milliseconds(100);

  static std::size_t size_of(const config_snapshot& config, key id) {
    return static_cast<std::size_t>(config.integer(id));
  }
  static std::size_t bytes_of(const config_snapshot& config, key id) { return size_of(config, id); }

  static keyed_options lane_options(const config_snapshot& config) {
    return {.max_items = size_of(config, key::queue_max_events),
            .max_bytes = no_byte_limit,  // the budget counts the memory itself
            .lanes = size_of(config, key::lanes_count),
            .batch_max = size_of(config, key::lanes_batch_max)};
  }

  /// Ends the run; what was taken is still done.
  void fail(exit_code code, diagnostic told) {
    failure_.set(code, std::move(told));
    stop_.request_stop();
  }

  /// Ends the run now: nothing can be finished any more.
  void break_off(exit_code code, diagnostic told) {
    broken_.store(true, detail::sync::relaxed);
    fail(code, std::move(told));
    hurry();
  }

  diagnostic source_fault(std::string_view what) const {
    return {.code = diagnostic_code::source_failed,
            .what = "source '" + std::string(parts_.source.name()) + "'",
            .got = std::string(what),
            .allowed = {},
            .stays = "what was read before is done and committed",
            .next = "repair the source and start again"};
  }

  // --- the source's thread ---

  void read_all() {
    auto seen = config_.load();
    std::uint64_t version = config_.version();
    parts_.source.configure(*seen);
    while (!stop_.stop_requested()) {
      if (config_.version() != version) {
        version = config_.version();
        seen = config_.load();
        parts_.source.configure(*seen);
      }
      if (!wait_for_room()) continue;
      const std::size_t allowed = rate_allows(*seen);
      if (allowed == 0) continue;
      if (!read_block(*seen, allowed)) return;
    }
  }

  /// False when there was no room for a while: look around and come again.
  bool wait_for_room() {
    if (budget_.has_room() && tracker_.has_room()) {
      unpause();
      return true;
    }
    pause();
    const time_point until = steady_clock::now() + slice;
    if (budget_.has_room()) {
      // Only the commit window is full: a position moves when the event before it ends.
      steady_clock::sleep_until(steady_clock::now() + std::chrono::milliseconds(1),
                                stop_.get_token());
    } else {
      budget_.wait_for_room(until);
    }
    return false;
  }

  void pause() {
    if (paused()) return;
    paused_since_.store(steady_clock::now().time_since_epoch().count(), detail::sync::relaxed);
  }
  void unpause() {
    if (!paused()) return;
    counters_.pauses_ns.add(static_cast<std::uint64_t>(paused_for().count()));
    paused_since_.store(0, detail::sync::relaxed);
  }
  /// How long the pause lasts that goes on now.
  [[nodiscard]] duration paused_for() const noexcept {
    const std::int64_t since = paused_since_.load(detail::sync::relaxed);
    if (since == 0) return duration::zero();
    return steady_clock::now().time_since_epoch() - duration(since);
  }

  /// Lines that events.rate allows now; waits a little when it allows none.
  std::size_t rate_allows(const config_snapshot& config) {
    const auto rate = static_cast<double>(config.integer(key::events_rate));
    if (rate <= 0) return event_block::max_events;
    const time_point now = steady_clock::now();
    if (rate != paced_rate_) {
      paced_rate_ = rate;
      pace_from_ = now;
      paced_ = 0;
    }
    const double due = std::chrono::duration<double>(now - pace_from_).count() * rate - paced_;
    if (due >= 1) {
      // After a hold-up, at most a second's worth is caught up.
      if (due > rate) paced_ += due - rate;
      return static_cast<std::size_t>(std::min(due, static_cast<double>(event_block::max_events)));
    }
    const auto next =
        std::chrono::duration_cast<duration>(std::chrono::duration<double>((1 - due) / rate));
    constexpr duration least = std::chrono::microseconds(200);
    steady_clock::sleep_until(now + std::clamp<duration>(next, least, slice), stop_.get_token());
    return 0;
  }

  /// False at the end of the source.
  bool read_block(const config_snapshot& config, std::size_t most_lines) {
    event_block& block = budget_.take();
    const splitter_limits limits{
        .max_line_bytes = size_of(config, key::events_max_event_bytes),
        .block_bytes = std::min<std::size_t>(512 * 1024, budget_.limit() / 8),
        .max_lines = most_lines};
    const read_status status = parts_.source.poll(block, limits);
    if (status != read_status::data) {
      budget_.give_back(block);
      if (status == read_status::failed) {
        fail(exit_code::dependency, source_fault(std::string(parts_.source.failure())));
      }
      if (status == read_status::idle) parts_.source.wait(steady_clock::now() + slice);
      return status == read_status::idle;
    }
    paced_ += static_cast<double>(block.line_count);
    lag_.store(static_cast<std::int64_t>(parts_.source.lag().value_or(no_lag)),
               detail::sync::relaxed);
    take_block(config, block);
    return true;
  }

  void take_block(const config_snapshot& config, event_block& block) {
    if (!take_rejects(config, block)) return;  // broken off: the position stays before this block
    counters_.lines.add(block.line_count);
    counters_.bytes.add(block.end_offset - block.begin_offset);
    counters_.empty.add(block.empty_lines);
    counters_.ingested.add(block.events().size());
    budget_.charge(block);
    block.seal();
    tracker_.opened(block);
    if (block.events().empty()) {
      end_block(block);
      return;
    }
    prepare(config, block);
    submit(config);
  }

  /// Hashes keys and looks at times, in the order of the input.
  void prepare(const config_snapshot& config, event_block& block) {
    const bool per_key = config.text(key::events_order) == "per_key";
    check_order_.store(per_key, detail::sync::relaxed);
    items_.clear();
    for (event& each : block.events()) {
      // Without an order to keep, neighbours share a lane for the sake of batches.
      each.key_hash = per_key ? detail::mix(detail::default_hash<std::string_view>{}(each.key))
                              : detail::mix(each.number / 64);
      if (each.has_time) look_at_time(each);
      items_.push_back({each.key_hash, &each});
    }
  }

  void look_at_time(const event& each) {
    if (has_previous_ && each.time_us < previous_us_) {
      const detail::sync::lock_guard<detail::sync::mutex> lock(inversions_mutex_);
      if (inversions_.count++ == 0) {
        inversions_.first_line = each.number;
        inversions_.first_us = each.time_us;
        inversions_.previous_us = previous_us_;
      }
    }
    previous_us_ = each.time_us;
    has_previous_ = true;
  }

  bool take_rejects(const config_snapshot& config, event_block& block) {
    if (block.rejects().empty()) return true;
    const std::string_view policy = config.text(key::events_on_invalid);
    if (policy == "stop") {
      stop_at(block);
      return true;
    }
    for (const rejected_line& line : block.rejects()) {
      counters_.faults[static_cast<std::size_t>(line.kind)].add(1);
      if (policy == "dead_letter" && !bury(line)) return false;
    }
    return true;
  }

  /// Ends the run before the first line that is no event; the events before it are done.
  void stop_at(event_block& block) {
    const rejected_line line =
        *std::ranges::min_element(block.rejects(), {}, &rejected_line::number);
    counters_.faults[static_cast<std::size_t>(line.kind)].add(1);
    block.cut_before(line.number, line.offset);
    fail(exit_code::bad_data, {.code = diagnostic_code::event_invalid,
                               .what = "line " + std::to_string(line.number) + " of '" +
                                       std::string(parts_.source.name()) + "' (byte " +
                                       std::to_string(line.offset) + ")",
                               .got = line.reason,
                               .allowed = "events.on_invalid is stop",
                               .stays = "what came before is done and committed",
                               .next = "repair the line, or set events.on_invalid to dead_letter"});
  }

  /// Writes a dead letter. False if that failed, which ends the run.
  bool bury(const rejected_line& line) {
    switch (parts_.letters.write(line)) {
      case letter_status::kept: counters_.dead_lettered.add(1); return true;
      case letter_status::full:
        counters_.letters_lost.add(1);
        say_letters_full();
        return true;
      case letter_status::failed: break;
    }
    break_off(exit_code::dependency, {.code = diagnostic_code::dead_letter_failed,
                                      .what = "dead letters",
                                      .got = std::string(parts_.letters.failure()),
                                      .allowed = {},
                                      .stays = "nothing is committed that was not written",
                                      .next = "make room or set dead_letter.path elsewhere"});
    return false;
  }

  /// Once in a run.
  void say_letters_full() {
    if (letters_full_said_.exchange(true, detail::sync::relaxed)) return;
    log_.warn({.code = diagnostic_code::dead_letter_failed,
               .what = "dead letters",
               .got = "the file has reached dead_letter.max_bytes",
               .allowed = {},
               .stays = "refused events are counted and no longer kept",
               .next = "move the file away or raise dead_letter.max_bytes"});
  }

  void submit(const config_snapshot& config) {
    std::span<item> rest(items_);
    const std::string_view policy = config.text(key::queue_on_full);
    while (!rest.empty()) {
      const submit_result taken =
          policy == "block" ? lanes_.submit_wait(rest, {.deadline = steady_clock::now() + slice,
                                                        .token = hurry_.get_token()})
                            : lanes_.submit(rest);
      counters_.submitted.add(taken.accepted);
      rest = rest.subspan(taken.accepted);
      if (taken) break;
      if (taken.status == submit_status::closed || hurry_.stop_requested()) {
        return;  // given up: the position stays before these
      }
      if (policy != "block") {
        refuse(policy, rest);
        break;
      }
      pause();
    }
    unpause();
  }

  /// queue.on_full is reject or drop_newest: these events end here.
  void refuse(std::string_view policy, std::span<item> rest) {
    std::vector<event*> ended;
    ended.reserve(rest.size());
    for (const item& each : rest) {
      if (policy == "reject") {
        counters_.faults[static_cast<std::size_t>(fault_kind::queue_full)].add(1);
        if (!bury(letter_for(*each.item, fault_kind::queue_full, "the queue was full"))) return;
      } else {
        counters_.dropped.add(1);
      }
      ended.push_back(each.item);
    }
    finish(ended);
  }

  static rejected_line letter_for(const event& each, fault_kind kind, std::string reason) {
    return {.kind = kind,
            .number = each.number,
            .offset = each.offset,
            .length = each.text.size(),
            .text = std::string(each.text.substr(0, rejected_line::kept_bytes)),
            .reason = std::move(reason)};
  }

  // --- the executor's threads ---

  void handle_batch(std::size_t lane, std::span<event*> batch) {
    const time_point begun = steady_clock::now();
    record_wait(batch, begun);
    if (check_order_.load(detail::sync::relaxed)) look_at_order(*orders_[lane], batch);
    const std::span<event*> good = run_handler(batch);
    if (broken_.load(detail::sync::relaxed)) return;  // unfinished: the position stays before it
    const time_point handled = steady_clock::now();
    if (!good.empty()) {
      std::string problem = parts_.sink.write(good);
      if (!problem.empty()) {
        sink_failed(std::move(problem));
        return;
      }
    }
    const time_point ended = steady_clock::now();
    counters_.sink_write.record(ended - handled);
    counters_.service.record(ended - begun);
    record_latency(good, ended);
    counters_.processed.add(good.size());
    finish(good);
  }

  /// Runs the handler; events that it throws on become dead letters and are finished here.
  /// Result: the others, in their order, at the front of `batch`.
  std::span<event*> run_handler(std::span<event*> batch) {
    std::size_t good = 0;
    for (event* const each : batch) {
      const std::optional<std::string> problem = try_handle(*each);
      if (!problem.has_value()) {
        batch[good++] = each;
        continue;
      }
      counters_.faults[static_cast<std::size_t>(fault_kind::handler_failed)].add(1);
      if (!bury(letter_for(*each, fault_kind::handler_failed, *problem))) return {};
      event* ended[] = {each};
      finish(ended);
    }
    return batch.first(good);
  }

  std::optional<std::string> try_handle(const event& each) {
#if VELTRIX_HAS_EXCEPTIONS
    try {
      parts_.handler.handle(each);
      return std::nullopt;
    } catch (const std::exception& problem) {
      return std::string(problem.what());
    } catch (...) {
      return std::string("an exception that is no std::exception");
    }
#else
    parts_.handler.handle(each);
    return std::nullopt;
#endif
  }

  void look_at_order(order_check& order, std::span<event*> batch) {
    for (const event* each : batch)
      order.see(*each);
    if (!order.found_any()) return;
    const order_counts found = order.take();
    counters_.overtaken.add(found.overtaken);
    counters_.late.add(found.late);
    counters_.duplicates.add(found.duplicates);
    counters_.too_old.add(found.too_old);
    counters_.keys_forgotten.add(found.forgotten);
    counters_.missing.fetch_add(static_cast<std::int64_t>(found.missing), detail::sync::relaxed);
  }

  template <class Record>
  static void for_each_block(std::span<event* const> batch, Record record) {
    for (std::size_t at = 0; at < batch.size();) {
      event_block* const block = batch[at]->block;
      const std::size_t first = at;
      while (at < batch.size() && batch[at]->block == block)
        ++at;
      record(*block, at - first);
    }
  }

  void record_wait(std::span<event* const> batch, time_point begun) {
    for_each_block(batch, [&](const event_block& block, std::size_t count) {
      counters_.wait.record(begun - block.read_at, count);
    });
  }
  void record_latency(std::span<event* const> batch, time_point ended) {
    for_each_block(batch, [&](const event_block& block, std::size_t count) {
      counters_.latency.record(ended - block.read_at, count);
    });
  }

  void finish(std::span<event* const> batch) {
    for (const event* each : batch)
      commit_tracker::event_done(*each);
    for_each_block(batch, [&](event_block& block, std::size_t count) {
      if (block.finish(count)) end_block(block);
    });
  }

  void end_block(event_block& block) {
    tracker_.block_done(block);
    budget_.give_back(block);
  }

  void sink_failed(std::string problem) {
    break_off(exit_code::dependency,
              {.code = diagnostic_code::sink_failed,
               .what = "sink '" + std::string(parts_.sink.name()) + "'",
               .got = std::move(problem),
               .allowed = {},
               .stays = "nothing is committed that was not written",
               .next = "make room or set sink.path elsewhere, then start again"});
  }

  static constexpr std::uint64_t no_lag = ~std::uint64_t{0};

  const parts_type parts_;
  config_cell& config_;
  worker_log& log_;
  failure_slot& failure_;
  worker_counters counters_;
  block_budget budget_;
  commit_tracker tracker_;
  std::vector<std::unique_ptr<order_check>> orders_;  // each touched only by its lane's batch
  stop_source stop_;                                  // no more is read
  stop_source hurry_;                                 // what waits is given up

  // The source's thread only.
  std::vector<item> items_;
  double paced_rate_ = 0;
  double paced_ = 0;
  time_point pace_from_{};
  std::int64_t previous_us_ = 0;
  bool has_previous_ = false;
  time_point finished_at_{};  // read by others once finished_ is set

  // relaxed: a change of it takes effect with a later block.
  detail::sync::atomic<bool> check_order_{true};
  // relaxed: a batch that does not see it yet does what it would have done a moment before.
  detail::sync::atomic<bool> broken_{false};
  // relaxed: it orders nothing; one thread wins.
  detail::sync::atomic<bool> letters_full_said_{false};
  // relaxed: shown only. Nanoseconds of the steady clock; 0: not paused.
  detail::sync::atomic<std::int64_t> paused_since_{0};
  // relaxed: shown only.
  detail::sync::atomic<std::int64_t> lag_{-1};
  detail::sync::atomic<bool> finished_{false};
  mutable detail::sync::mutex inversions_mutex_;  // guards inversions_
  time_inversions inversions_;                    // guarded by inversions_mutex_

  lanes_type lanes_;  // last: its destructor waits for batches, which use all of the above
};

}  // namespace VELTRIX_ABI
}  // namespace veltrix
