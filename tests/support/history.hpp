// Records what threads asked of an object and what it answered, and draws it for a person.
//
// Each thread writes into a log of its own, made beforehand, so that recording shares nothing but
// the source of the stamps. A stamp is taken before a call begins and after it has returned; the
// interval of a call is therefore never too short, which is the safe side: two calls that ran at
// once are never told as one after the other.
//   stamp_source::clock    steady_clock. It orders nothing between the threads, so it hides no
//                          mistake of theirs. A locked instruction beside each stamp keeps the
//                          call's own accesses inside the interval; that holds on x86-64.
//   stamp_source::counter  one counter for all, exact by the language's rules on every machine.
//                          It orders the threads like a lock would, and makes them slower.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace veltrix_test {

using stamp = std::uint64_t;

/// The return of a call that never returned.
inline constexpr stamp never = ~stamp{0};

/// One call and its answer.
template <class Input, class Answer>
struct recorded {
  Input input{};
  Answer answer{};  ///< means nothing while pending()
  stamp called = 0;
  stamp returned = never;
  std::uint32_t thread = 0;

  /// Whether it never returned: it may have taken effect or not.
  [[nodiscard]] bool pending() const { return returned == never; }
};

enum class stamp_source : std::uint8_t { clock, counter };

struct recorder_options {
  std::size_t threads = 1;
  std::size_t calls_per_thread = 0;  ///< room; one call more throws
  stamp_source source = stamp_source::clock;
  /// One call in so many gives its core away when it has just begun, so that calls overlap also
  /// where threads are many and cores few. 0: none.
  std::size_t yield_one_in = 0;
};

/// The logs of several threads. Input and Answer are plain values.
template <class Input, class Answer>
class recorder {
 public:
  using event = recorded<Input, Answer>;

  /// The log of one thread.
  class alignas(64) log {
   public:
    /// A call begins now. The reference holds until clear(); whoever learns only later what it
    /// asked for may still write its input.
    event& call(const Input& input) {
      if (used_ == events_.size()) throw std::length_error("a log of a recorder is full");
      event& here = events_[used_++];
      here.input = input;
      here.returned = never;
      here.thread = thread_;
      here.called = owner_->before_call(own_);
      const std::size_t yields = owner_->options_.yield_one_in;
      if (yields != 0 && (used_ + thread_ * 5) % yields == 0) std::this_thread::yield();
      return here;
    }
    /// It has returned. A call for which this is never said is pending.
    void answered(event& here, const Answer& answer) {
      here.returned = owner_->after_call(own_);
      here.answer = answer;
    }
    /// Records body() as one call; if it throws, the call stays pending.
    template <class Body>
    const Answer& record(const Input& input, Body&& body) {
      event& here = call(input);
      const Answer answer = body();
      answered(here, answer);
      return here.answer;
    }
    [[nodiscard]] std::size_t size() const { return used_; }

   private:
    friend class recorder;

    recorder* owner_ = nullptr;
    std::uint32_t thread_ = 0;
    std::atomic<std::uint32_t> own_{0};  // of this thread alone; see before_call()
    std::size_t used_ = 0;
    std::vector<event> events_;
  };

  explicit recorder(const recorder_options& options)
      : options_(options), logs_(std::make_unique<log[]>(options.threads)) {
    for (std::size_t i = 0; i < options.threads; ++i) {
      logs_[i].owner_ = this;
      logs_[i].thread_ = static_cast<std::uint32_t>(i);
      logs_[i].events_.resize(options.calls_per_thread);
    }
  }
  recorder(const recorder&) = delete;
  recorder& operator=(const recorder&) = delete;

  [[nodiscard]] log& of(std::size_t thread) { return logs_[thread]; }

  /// Forgets all. No thread records meanwhile; so with the two below.
  void clear() {
    for (std::size_t i = 0; i < options_.threads; ++i)
      logs_[i].used_ = 0;
  }
  [[nodiscard]] std::size_t size() const {
    std::size_t sum = 0;
    for (std::size_t i = 0; i < options_.threads; ++i)
      sum += logs_[i].used_;
    return sum;
  }
  /// All calls, by the time they began. Throws std::logic_error if a clock ran backwards.
  [[nodiscard]] std::vector<event> merged() const {
    std::vector<event> all;
    all.reserve(size());
    for (std::size_t i = 0; i < options_.threads; ++i) {
      const auto begin = logs_[i].events_.begin();
      const auto end = begin + static_cast<std::ptrdiff_t>(logs_[i].used_);
      const auto backwards = [](const event& each) { return each.returned < each.called; };
      const auto by_call = [](const event& a, const event& b) { return a.called < b.called; };
      if (std::any_of(begin, end, backwards) || !std::is_sorted(begin, end, by_call)) {
        throw std::logic_error("a recorder's clock ran backwards in one thread");
      }
      const auto middle = static_cast<std::ptrdiff_t>(all.size());
      all.insert(all.end(), begin, end);
      std::inplace_merge(all.begin(), all.begin() + middle, all.end(), by_call);
    }
    return all;
  }

 private:
  static stamp clock_now() {
    return static_cast<stamp>(std::chrono::steady_clock::now().time_since_epoch().count());
  }
  stamp before_call(std::atomic<std::uint32_t>& own) {
    if (options_.source == stamp_source::counter)
      return counter_.fetch_add(1, std::memory_order_seq_cst);
    const stamp now = clock_now();
    own.exchange(0, std::memory_order_seq_cst);  // no access of the call happens before here
    return now;
  }
  stamp after_call(std::atomic<std::uint32_t>& own) {
    if (options_.source == stamp_source::counter)
      return counter_.fetch_add(1, std::memory_order_seq_cst);
    own.exchange(0, std::memory_order_seq_cst);  // what the call wrote can be seen from here on
    return clock_now();
  }

  const recorder_options options_;
  const std::unique_ptr<log[]> logs_;
  alignas(64) std::atomic<stamp> counter_{1};
};

/// A drawing of `events`, one line each in the order given: thread, what `text(event)` says, and
/// the interval, in steps from one stamp to the next. A pending call has no end: "[==>".
template <class Event, class Text>
std::string drawn(const std::vector<Event>& events, Text text) {
  std::vector<stamp> ticks;
  for (const Event& each : events) {
    ticks.push_back(each.called);
    if (!each.pending()) ticks.push_back(each.returned);
  }
  std::sort(ticks.begin(), ticks.end());
  ticks.erase(std::unique(ticks.begin(), ticks.end()), ticks.end());
  const auto column = [&](stamp at) {
    return static_cast<std::size_t>(std::lower_bound(ticks.begin(), ticks.end(), at) -
                                    ticks.begin());
  };
  const bool has_bars = ticks.size() <= 100;
  std::vector<std::string> words;
  std::size_t width = 0;
  for (const Event& each : events) {
    words.push_back(text(each));
    width = std::max(width, words.back().size());
  }
  std::string all;
  for (std::size_t i = 0; i < events.size(); ++i) {
    const Event& each = events[i];
    all += "  thread " + std::to_string(each.thread) + "  " + words[i];
    all.append(width - words[i].size() + 2, ' ');
    if (has_bars) {
      const std::size_t from = column(each.called);
      const std::size_t to = each.pending() ? ticks.size() : column(each.returned);
      all.append(from, ' ').append(1, '[').append(to > from ? to - from - 1 : 0, '=');
      all += each.pending() ? '>' : ']';
    } else {
      const stamp start = ticks.front();
      all += std::to_string(each.called - start) + " .. " +
             (each.pending() ? "never" : std::to_string(each.returned - start));
    }
    all += '\n';
  }
  return all;
}

}  // namespace veltrix_test
