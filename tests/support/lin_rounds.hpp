// Many short rounds of a few threads on a fresh object each, recorded and checked round by round.
//
// Short rounds keep the threads close together, so that calls overlap densely; the threads live on
// from round to round and wait for each other by yielding, not by sleeping, to start at once.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "support/linearizability.hpp"
#include "support/random.hpp"

namespace veltrix_test {

/// Threads that run body(thread) once per round, all at the same time.
template <class Body>
class crew {
 public:
  crew(std::size_t threads, Body body) : body_(std::move(body)), count_(threads) {
    for (std::size_t i = 0; i < threads; ++i)
      threads_.emplace_back([this, i] { work(i); });
  }
  crew(const crew&) = delete;
  crew& operator=(const crew&) = delete;
  ~crew() {
    ended_.store(true);
    round_.fetch_add(1);
    for (std::thread& each : threads_)
      each.join();
  }

  /// One round; what the caller wrote before is seen by all, what they wrote by the caller after.
  void round() {
    here_.store(0);
    done_.store(0);
    round_.fetch_add(1);
    await(done_, count_);  // woken by work(), after the last body has returned
  }

 private:
  static void await(const std::atomic<std::size_t>& counter, std::size_t wanted) {
    while (counter.load() != wanted)
      std::this_thread::yield();
  }
  void work(std::size_t self) {
    for (std::size_t seen = 1;; ++seen) {
      await(round_, seen);  // woken by round() and the destructor
      if (ended_.load()) return;
      here_.fetch_add(1);
      await(here_, count_);  // woken by the last of the others
      body_(self);
      done_.fetch_add(1);
    }
  }

  Body body_;
  const std::size_t count_;
  std::atomic<std::size_t> round_{0};
  std::atomic<std::size_t> here_{0};
  std::atomic<std::size_t> done_{0};
  std::atomic<bool> ended_{false};
  std::vector<std::thread> threads_;
};

struct rounds_options {
  std::size_t threads = 4;
  std::size_t calls = 50;          ///< per thread and round: calls of the step
  std::size_t rounds = 1;          ///< at most
  std::size_t calls_per_step = 1;  ///< recorded by one step, at most
  std::uint64_t seed = 1;
  stamp_source source = stamp_source::clock;
  std::size_t yield_one_in = 16;  ///< see recorder_options
  /// No round begins later than this: on a busy machine each yield costs somebody else's time.
  std::chrono::milliseconds longest{2'000};
};

/// What the rounds came to.
template <class Event>
struct rounds_result {
  lin_result<Event> last{};  ///< of the last round: the first that is not linearizable, if any
  std::size_t rounds = 0;
  std::size_t operations = 0;   ///< recorded and checked
  std::size_t overlapping = 0;  ///< those that began before an earlier one of their round returned
  double check_seconds = 0;

  [[nodiscard]] explicit operator bool() const { return static_cast<bool>(last); }

  /// Tells the totals to whoever reads the output, and a failure in lines that nobody wraps.
  void print(const char* what) const {
    const double rate = static_cast<double>(operations) / (check_seconds > 0 ? check_seconds : 1);
    std::printf("%s: %zu operations checked in %zu rounds, %zu overlapping, %.2f M operations/s\n",
                what, operations, rounds, overlapping, rate / 1e6);
    std::fputs(last.report.c_str(), stdout);
    std::fflush(stdout);
  }
};

template <class Event>
std::size_t overlapping(const std::vector<Event>& by_call) {
  std::size_t count = 0;
  stamp busy_until = 0;
  for (const Event& each : by_call) {
    count += each.called <= busy_until ? 1 : 0;
    busy_until = std::max(busy_until, each.returned);
  }
  return count;
}

/// Nobody disturbs the rounds.
struct undisturbed {};

/// Each round, make() gives a fresh object (something that * dereferences) and each thread calls
/// step(object, log, random) so many times; one more thread, if there is a `disturb`, calls
/// disturb(object, random) as often. Ends with the first round that is not linearizable.
template <sequential_spec Spec, class Make, class Step, class Disturb = undisturbed>
rounds_result<event_of<Spec>> run_rounds(const Spec& spec, const rounds_options& options, Make make,
                                         Step step, Disturb disturb = {}) {
  constexpr bool disturbed = !std::is_same_v<Disturb, undisturbed>;
  using clock = std::chrono::steady_clock;
  recorder_of<Spec> records({.threads = options.threads,
                             .calls_per_thread = options.calls * options.calls_per_step,
                             .source = options.source,
                             .yield_one_in = options.yield_one_in});
  decltype(make()) subject{};
  std::size_t round = 0;
  const std::size_t all = options.threads + (disturbed ? 1 : 0);
  crew threads(all, [&](std::size_t self) {
    random_source random(options.seed + (round * all + self) * 0x2545f491ULL);
    for (std::size_t i = 0; i < options.calls; ++i) {
      if constexpr (disturbed) {
        if (self == options.threads) {
          disturb(*subject, random);
          continue;
        }
      }
      step(*subject, records.of(self), random);
    }
  });
  rounds_result<event_of<Spec>> result;
  const auto last_start = clock::now() + options.longest;
  for (; round < options.rounds && result && clock::now() < last_start; ++round) {
    records.clear();
    subject = make();
    threads.round();
    const auto history = records.merged();
    const auto began = clock::now();
    result.last = check_linearizable(spec, history);
    result.check_seconds += std::chrono::duration<double>(clock::now() - began).count();
    result.operations += history.size();
    result.overlapping += overlapping(history);
    ++result.rounds;
  }
  return result;
}

}  // namespace veltrix_test
