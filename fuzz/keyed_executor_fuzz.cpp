// keyed_executor on an executor of which the bytes say which task runs next, and when it refuses,
// drops or runs a task at once. Handlers throw and submit again; weights and allocations fail.
// Model: per key the number that must come next, and two sums for what is in flight.
// SPDX-License-Identifier: BSL-1.0
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <span>
#include <stdexcept>
#include <utility>
#include <vector>

#include "driver.hpp"
#include "veltrix/keyed_executor.hpp"
#include "veltrix/stop_token.hpp"

namespace veltrix_fuzz {
namespace {

using veltrix::bound_kind;
using veltrix::drain_status;
using veltrix::load;
using veltrix::submit_status;
using veltrix_test::faults;

int alive = 0;

class item {
 public:
  item(std::size_t of, int which, std::size_t bytes) : key(of), number(which), weight(bytes) {
    ++alive;
  }
  item(item&& other) noexcept : key(other.key), number(other.number), weight(other.weight) {
    other.number = gone;
    ++alive;
  }
  item& operator=(item&&) = delete;
  ~item() { --alive; }

  static constexpr int gone = -1;
  std::size_t key;
  int number;
  std::size_t weight;
};

struct item_weight {
  std::size_t operator()(const item& weighed) const {
    faults::point();
    return weighed.weight;
  }
};

/// Keeps tasks until the bytes choose one.
class chosen_executor {
 public:
  enum class mood : std::uint8_t { takes, runs_at_once, full, full_and_destroys, closed };

  veltrix::post_result try_post(veltrix::task&& work) {
    switch (now) {
      case mood::takes: tasks_.push_back(std::move(work)); return {};
      case mood::runs_at_once: {
        veltrix::task running(std::move(work));
        running();
        return {};
      }
      case mood::full: return {veltrix::post_status::full, "no room"};
      case mood::full_and_destroys: {
        const veltrix::task ending(std::move(work));
        return {veltrix::post_status::full, "no room, and the task is gone"};
      }
      case mood::closed: said_closed = true; return {veltrix::post_status::closed, "closed"};
    }
    return {};
  }
  bool run(std::size_t which) {
    if (tasks_.empty()) return false;
    veltrix::task running = take(which);
    running();
    return true;
  }
  void drop(std::size_t which) {
    if (!tasks_.empty()) static_cast<void>(take(which));
  }

  mood now = mood::takes;
  bool said_closed = false;

 private:
  veltrix::task take(std::size_t which) {
    const auto at = tasks_.begin() + static_cast<std::ptrdiff_t>(which % tasks_.size());
    veltrix::task taken = std::move(*at);
    tasks_.erase(at);
    return taken;
  }
  std::vector<veltrix::task> tasks_;
};

using keyed = veltrix::keyed_executor<item, chosen_executor&, item_weight>;

veltrix::keyed_options options(byte_source& from) {
  return {.max_items = 1 + from.below(24),
          .max_bytes = from.one_in(3) ? veltrix::no_byte_limit : 1 + from.below(100),
          .lanes = 64,
          .batch_max = 1 + from.below(5),
          .max_runs = from.below(4),
          .max_waiters = from.below(2),
          .run_budget = from.flag() ? veltrix::duration::zero() : std::chrono::hours(1),
          .seed = from.byte()};
}

class session {
 public:
  explicit session(byte_source& from)
      : from_(from),
        options_(options(from)),
        limit_{options_.max_items, options_.max_bytes},
        keyed_(
            executor_, options_,
            [this](std::size_t lane, std::span<item> batch) { handle(lane, batch); },
            [this](std::size_t, std::span<item> batch, const std::exception_ptr&) {
              ++failed_batches_;
              failed_ += batch.size();
              if (from_.one_in(8)) {
                ++lost_failures_;
                throw std::runtime_error("the failure handler fails");
              }
            }) {}

  void run() {
    while (!from_.empty()) {
      step();
      compare();
    }
    finish();
  }

 private:
  static constexpr std::size_t keys = 12;

  void step() {
    switch (from_.below(16)) {
      case 0:
      case 1:
      case 2: return submit_block();
      case 3:
      case 4: return submit_one();
      case 5:
      case 6:
      case 7:
        trace::add("run");
        executor_.run(from_.byte());
        return;
      case 8:
        trace::add("mood");
        // Closed is for ever, so it comes seldom.
        executor_.now = static_cast<chosen_executor::mood>(from_.below(from_.one_in(8) ? 5 : 4));
        return;
      case 9:
        trace::add("drop");
        executor_.drop(from_.byte());
        return;
      case 10: return set_limits();
      case 11: return set_max_runs();
      case 12:
      case 13: return drain();
      case 14: return close();
      default: return stop();
    }
  }

  veltrix::wait_options short_wait() {
    stopped_.request_stop();
    if (from_.flag()) return {.deadline = veltrix::time_point{}, .token = {}};
    return {.deadline = veltrix::no_deadline, .token = stopped_.get_token()};
  }

  bool closed() const { return closed_ || executor_.said_closed; }

  /// Numbers are given out when items are made and taken back when they are refused.
  item make(std::array<int, keys>& numbers) {
    const std::size_t key = from_.below(keys);
    const std::size_t weight = from_.one_in(16) ? 200 : from_.below(12);
    return item(key, numbers[key]++, weight);
  }

  void submit_block() {
    trace::add("submit");
    auto numbers = next_made_;
    std::vector<veltrix::keyed_item<item>> block;
    const std::size_t count = from_.below(9);
    block.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
      item made = make(numbers);
      block.push_back({made.key, std::move(made)});
    }
    std::vector<std::size_t> weights;
    for (const auto& each : block)
      weights.push_back(each.item.weight);
    const bool waits = from_.flag();
    const auto wait = short_wait();
    const before was = look();
    // Handlers may run inside the call, so what may be accepted is noted first.
    for (const auto& each : block)
      offered_.push_back({each.item.key, each.item.number});
    const std::size_t first_offered = offered_.size() - count;
    veltrix::submit_result got;
    const bool through =
        call([&] { got = waits ? keyed_.submit_wait(block, wait) : keyed_.submit(block); });
    if (!through) {
      got.accepted = 0;
      agree(handled_ + failed_ - was.ended, 0U, "a weight that throws takes nothing");
    }
    for (std::size_t i = 0; i < count; ++i) {
      const bool taken = block[i].item.number == item::gone;
      agree(taken, i < got.accepted, "the prefix accepted is what was moved");
      if (!taken) continue;
      const auto [key, number] = offered_[first_offered + i];
      agree(number, next_made_[key], "numbers of a key are accepted in order");
      ++next_made_[key];
    }
    offered_.resize(first_offered);
    if (through) judge(got, weights, was, waits, wait);
  }

  void submit_one() {
    trace::add("submit-one");
    auto numbers = next_made_;
    item made = make(numbers);
    const std::size_t key = made.key;
    const std::vector<std::size_t> weights{made.weight};
    const bool waits = from_.flag();
    const auto wait = short_wait();
    const before was = look();
    veltrix::submit_result got;
    const bool through = call([&] {
      got = waits ? keyed_.submit_wait(key, std::move(made), wait)
                  : keyed_.submit(key, std::move(made));
    });
    if (!through) got.accepted = 0;
    agree(made.number == item::gone, got.accepted == 1, "untouched unless accepted");
    if (got.accepted == 1) ++next_made_[key];
    if (through) judge(got, weights, was, waits, wait);
  }

  struct before {
    load in_flight;
    std::uint64_t ended;
    std::uint64_t calls;
    bool closed;
  };
  before look() const { return {in_flight_, handled_ + failed_, calls_, closed()}; }

  template <class Operation>
  bool call(Operation operation) {
    const armed_fault fault(from_);
    memory_may_fail_ = fault.armed();
    try {
      operation();
      return true;
    } catch (const veltrix_test::injected_fault&) {
    } catch (const std::bad_alloc&) {
      armed_fault::disarm();
      require(false, "submit throws the weigher's exceptions only");
    }
    return false;
  }

  /// The admission, if no handler ran meanwhile: then it is exact.
  void judge(const veltrix::submit_result& got, const std::vector<std::size_t>& weights,
             const before& was, bool waits, const veltrix::wait_options& wait) {
    require(!got.message().empty(), "every answer has words");
    if (calls_ == was.calls) judge_exactly(got, weights, was, waits, wait);
    for (std::size_t i = 0; i < got.accepted; ++i) {
      in_flight_.items += 1;
      in_flight_.bytes += weights[i];
    }
    settle();
  }

  void judge_exactly(const veltrix::submit_result& got, const std::vector<std::size_t>& weights,
                     const before& was, bool waits, const veltrix::wait_options& wait) const {
    if (memory_may_fail_ && got.bound == bound_kind::memory) return;
    if (abandoned_) return;  // what was abandoned meanwhile made room
    std::size_t fit = 0;
    load sum = was.in_flight;
    const auto free_bytes = [&] { return limit_.bytes - std::min(limit_.bytes, sum.bytes); };
    // What weighs nothing adds nothing, also above a limit that was lowered.
    while (!was.closed && fit < weights.size() && sum.items < limit_.items &&
           weights[fit] <= free_bytes()) {
      ++sum.items;
      sum.bytes += weights[fit++];
    }
    agree(got.accepted, fit, "the longest prefix that fits");
    auto status = submit_status::accepted;
    if (was.closed) {
      status = submit_status::closed;
    } else if (fit < weights.size()) {
      status = submit_status::full;
      if (weights[fit] > limit_.bytes) {
        status = submit_status::too_heavy;
      } else if (waits && options_.max_waiters != 0 && depth_ == 0) {
        status = wait.token.stop_requested() ? submit_status::stopped : submit_status::timed_out;
      }
    }
    if (got.status == submit_status::closed && executor_.said_closed) return;  // in this call
    agree(static_cast<int>(got.status), static_cast<int>(status), "the status of a submit");
  }

  /// What the handler saw before the call returned was counted off too early.
  void settle() {
    in_flight_.items -= early_.items;
    in_flight_.bytes -= early_.bytes;
    early_ = {};
  }

  void handle(std::size_t lane, std::span<item> batch) {
    const unfailing_memory ours;
    require(!abandoned_, "no handler begins after stop()");
    require(!batch.empty() && batch.size() <= options_.batch_max, "1 to batch_max items");
    ++calls_;
    load ended;
    for (const item& each : batch) {
      agree(keyed_.lane_of(each.key), lane, "an item comes in its key's lane");
      require(each.number != item::gone, "an item that was moved away comes");
      agree(each.number, next_handled_[each.key], "the order of a key");
      ++next_handled_[each.key];
      ended.items += 1;
      ended.bytes += each.weight;
    }
    // Items of a submit that has not returned yet are not in the model's sums so far.
    early_.items += ended.items;
    early_.bytes += ended.bytes;
    if (depth_ < 2 && from_.one_in(6)) {
      const deeper inside(depth_);
      nested();  // may meet a fault meant for the caller, and throw it
    }
    if (from_.one_in(6)) throw std::runtime_error("the handler fails");
    handled_ += batch.size();
  }

  struct deeper {
    explicit deeper(std::size_t& level) : depth(level) { ++depth; }
    deeper(const deeper&) = delete;
    deeper& operator=(const deeper&) = delete;
    ~deeper() { --depth; }
    std::size_t& depth;
  };

  /// What a handler may do itself: submits never wait in here, waits are refused.
  void nested() {
    trace::add("(in a handler)");
    const auto refused = keyed_.wait_idle();
    agree(static_cast<int>(refused.status), static_cast<int>(drain_status::inside_handler),
          "a handler does not wait for itself");
    // A submit of the outer call may be half booked, so only keys of its own are used.
    item made(keys + depth_, next_own_[depth_], 1);
    const auto got = keyed_.submit_wait(keys + depth_, std::move(made));
    require(got.status != submit_status::timed_out && got.status != submit_status::stopped,
            "inside a handler nobody waits");
    if (got) {
      ++next_own_[depth_];
      early_.items -= 1;
      early_.bytes -= 1;
    }
  }

  void set_limits() {
    trace::add("set_limits");
    const load wanted{static_cast<std::size_t>(from_.any_size()),
                      static_cast<std::size_t>(from_.any_size())};
    const auto answer = keyed_.set_limits(wanted);
    const bool allowed =
        wanted.items != 0 && wanted.bytes != 0 && wanted.items <= veltrix::max_load.items &&
        (wanted.bytes <= veltrix::max_load.bytes || wanted.bytes == veltrix::no_byte_limit);
    agree(static_cast<bool>(answer), allowed, "whether limits are taken");
    if (allowed) limit_ = wanted;
  }
  void set_max_runs() {
    trace::add("set_max_runs");
    const std::size_t runs = from_.below(70);
    const auto answer = keyed_.set_max_runs(runs);
    agree(static_cast<bool>(answer), runs >= 1 && runs <= 64, "whether a number of runs is taken");
    settle();
  }
  void drain() {
    trace::add("wait_idle");
    const auto got = keyed_.wait_idle(short_wait());
    settle();
    judge_drain(got);
  }
  void close() {
    if (!from_.one_in(4)) return;
    trace::add("close");
    keyed_.close();
    closed_ = true;
  }
  void stop() {
    if (!from_.one_in(8)) return;
    trace::add("stop");
    closed_ = abandoned_ = true;
    const auto got = keyed_.stop(short_wait());
    settle();
    judge_drain(got);
  }
  void judge_drain(const veltrix::drain_result& got) {
    agree(got.in_flight == 0, got.status == drain_status::drained, "drained says: nothing left");
    if (!abandoned_) agree(got.in_flight, in_flight_.items, "what a drain says is left");
  }

  void compare() {
    settle();
    const auto stats = keyed_.stats();
    if (abandoned_) {
      in_flight_ = stats.in_flight;
    } else {
      agree(stats.abandoned, 0U, "abandoned without a stop()");
    }
    agree(stats.in_flight.items, in_flight_.items, "stats: items in flight");
    agree(stats.in_flight.bytes, in_flight_.bytes, "stats: bytes in flight");
    require(stats.limit == limit_, "stats: limit");
    agree(stats.handled, handled_, "stats: handled");
    agree(stats.failed, failed_, "stats: failed");
    agree(stats.failed_batches, failed_batches_, "stats: failed batches");
    agree(stats.lost_failures, lost_failures_, "stats: lost failures");
    agree(stats.batches, calls_, "stats: batches");
    agree(stats.submitted, stats.handled + stats.failed + stats.abandoned + stats.in_flight.items,
          "every item submitted is somewhere");
    agree(stats.runs + stats.waiting, 0U, "nobody is at work between two steps");
    agree(keyed_.closed(), closed(), "closed");
    agree(static_cast<std::size_t>(alive), in_flight_.items, "items alive");
  }

  /// Whatever happened before: with an executor that runs its tasks, everything comes to an end.
  void finish() {
    trace::add("finish");
    executor_.now = chosen_executor::mood::takes;
    while (executor_.run(0)) {}
    const auto got = keyed_.drain({.deadline = veltrix::time_point{}, .token = {}});
    closed_ = true;
    while (executor_.run(0)) {}
    settle();
    const auto left = keyed_.drain({.deadline = veltrix::time_point{}, .token = {}});
    while (executor_.run(0)) {}
    settle();
    static_cast<void>(got);
    static_cast<void>(left);
    compare();
    agree(keyed_.stats().in_flight.items, 0U, "everything accepted ends");
    if (!abandoned_) {
      for (std::size_t key = 0; key < keys; ++key)
        agree(next_handled_[key], next_made_[key], "every item of a key was handled");
    }
  }

  byte_source& from_;
  const veltrix::keyed_options options_;
  load limit_;
  load in_flight_{};
  load early_{};                              // ended, and not yet taken from in_flight_
  std::array<int, keys> next_made_{};         // per key: the number of the next one accepted
  std::array<int, keys + 4> next_handled_{};  // per key: the number that must be handled next
  std::array<int, 4> next_own_{};             // per depth: of the items that handlers submit
  std::vector<std::pair<std::size_t, int>> offered_{};
  std::uint64_t handled_ = 0;
  std::uint64_t failed_ = 0;
  std::uint64_t failed_batches_ = 0;
  std::uint64_t lost_failures_ = 0;
  std::uint64_t calls_ = 0;
  std::size_t depth_ = 0;
  bool closed_ = false;
  bool abandoned_ = false;
  bool memory_may_fail_ = false;
  veltrix::stop_source stopped_{};
  chosen_executor executor_{};
  keyed keyed_;  // last: it uses the others
};

}  // namespace

void one_input(byte_source& from) {
  {
    session one(from);
    one.run();
  }
  agree(alive, 0, "items alive at the end");
}

}  // namespace veltrix_fuzz
