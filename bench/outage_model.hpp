// A service that is away for some seconds and comes back weak, and the clients that call it, in
// virtual time. The clients run the library's own engine under the policy they are given.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <queue>
#include <utility>
#include <vector>

#include "veltrix/retry.hpp"

namespace veltrix_bench::outage {

using veltrix::duration;
using veltrix::time_point;

/// What the model is about. Times are seconds after the start.
struct world {
  std::uint32_t clients = 200;
  double calls_per_second = 2000;  // of all clients, at random times
  double away_from = 20;           // from then on every attempt is refused at once
  double away_for = 10;
  double weak_for = 10;             // afterwards capacity grows in this time from half to whole
  double served_per_second = 3000;  // one after another
  double waiting_room = 1.0;        // seconds of whole capacity; beyond, attempts are refused
  double refusal_costs = 0.05;      // of one served attempt, when it is refused for want of room
  double attempt_timeout = 0.3;     // the service works on, but nobody listens
  double in_time = 0.3;             // a call that took longer is a bad one
  double ends = 120;                // no calls afterwards; what is open 40 s later has failed
};

/// How an attempt ended.
enum class reply_kind : std::uint8_t { served, refused, timed_out };
struct reply {
  reply_kind kind = reply_kind::served;
  duration told_wait{};  // "Retry-After" of a refusal
};
inline veltrix::verdict classify(const reply& got) {
  if (got.kind == reply_kind::served) return veltrix::verdict::success();
  return veltrix::verdict::transient(got.told_wait);
}

/// What one run gives.
struct findings {
  std::uint64_t attempts = 0;
  std::uint64_t successes = 0;
  double peak = 0;                   // attempts in the worst tenth of a second / calls in it
  double recovers_after = -1;        // seconds after the return; negative: never
  std::uint64_t failed_after = 0;    // calls that came after the return
  std::vector<double> load{};        // attempts / calls, per second
  std::vector<double> good_share{};  // of the calls that came in that second

  [[nodiscard]] double wasted() const {
    return static_cast<double>(attempts - std::min(attempts, successes));
  }
};

/// Random numbers of the model; the policies have their own.
class dice {
 public:
  explicit dice(std::uint64_t seed) : bits_(seed) {}
  double share() { return veltrix::detail::random_fraction(bits_); }
  double until_next(double per_second) { return -std::log1p(-share()) / per_second; }
  /// What follows serving: 10 ms in the middle, a long tail.
  double reply_time() {
    const double angle = 2.0 * 3.14159265358979323846 * share();
    const double normal = std::sqrt(-2.0 * std::log1p(-share())) * std::cos(angle);
    return 0.010 * std::exp(0.6 * normal);
  }
  std::uint64_t bits() { return bits_(); }

 private:
  veltrix::small_random bits_;
};

/// `Policy` is a pipeline; `make(client number, random)` gives each client a policy over state of
/// its own, which it keeps alive.
template <class Policy>
class simulation {
  using environment = veltrix::env<veltrix::virtual_clock>;
  using chain = veltrix::detail::retry_chain<const Policy, environment>;
  static constexpr double one_way = 0.001;

  struct call {
    call(const Policy& policy, veltrix::virtual_clock& clock, std::uint64_t seed, double now)
        : where(clock, {}, veltrix::small_random(seed)),
          steps(policy, where, veltrix::detail::retry_access::note(told)),
          came(now),
          until(now + std::chrono::duration<double>(policy.total_time()).count()) {}
    environment where;
    veltrix::outcome<reply> told;
    chain steps;
    double came;
    double until;
    std::uint32_t turn = 0;  // events of an older turn come too late
  };
  enum class event_kind : std::uint8_t { new_call, at_service, answered, timed_out, woken, served };
  struct event {
    double at;
    std::uint64_t order;  // equal times keep the order in which they were planned
    event_kind kind;
    reply_kind what = reply_kind::served;
    std::uint32_t call = 0;
    std::uint32_t turn = 0;
    bool operator>(const event& other) const {
      return at != other.at ? at > other.at : order > other.order;
    }
  };
  struct ticket {
    std::uint32_t call;
    std::uint32_t turn;
  };

 public:
  template <class Make>
  simulation(const world& rules, std::uint64_t seed, duration told_wait, Make make)
      : rules_(rules), told_wait_(told_wait), dice_(seed) {
    for (std::uint32_t i = 0; i < rules.clients; ++i)
      policies_.push_back(make(veltrix::small_random(dice_.bits())));
    const auto seconds = static_cast<std::size_t>(rules.ends) + 50;
    came_.resize(seconds);
    good_.resize(seconds);
    sent_.resize(seconds * 10);
  }

  findings run() {
    plan(dice_.until_next(rules_.calls_per_second), event_kind::new_call);
    while (!events_.empty() && events_.top().at < rules_.ends + 40) {
      const event next = events_.top();
      events_.pop();
      now_ = next.at;
      clock_.advance_to(start_ + seconds(now_));
      happen(next);
    }
    for (const auto& each : calls_) {
      if (each && each->came >= back()) ++found_.failed_after;
    }
    tell();
    return std::move(found_);
  }

 private:
  static duration seconds(double s) { return duration(static_cast<std::int64_t>(s * 1e9)); }
  [[nodiscard]] double back() const { return rules_.away_from + rules_.away_for; }
  [[nodiscard]] bool away() const { return now_ >= rules_.away_from && now_ < back(); }
  [[nodiscard]] double capacity() const {
    const double since = now_ - back();
    const bool weak = since >= 0 && since < rules_.weak_for;
    return rules_.served_per_second * (weak ? 0.5 + 0.5 * since / rules_.weak_for : 1.0);
  }

  void plan(double at, event_kind kind, ticket whose = {}, reply_kind what = reply_kind::served) {
    events_.push({at, ++planned_, kind, what, whose.call, whose.turn});
  }

  void happen(const event& now) {
    const ticket whose{now.call, now.turn};
    switch (now.kind) {
      case event_kind::new_call: return begin_call();
      case event_kind::at_service: return arrive(whose);
      case event_kind::served:
        plan(now_ + dice_.reply_time(), event_kind::answered, serving_);
        return serve_next();
      case event_kind::answered: return answer(whose, now.what);
      case event_kind::timed_out: return answer(whose, reply_kind::timed_out);
      case event_kind::woken:
        if (call* const woken = waiting(whose)) drive(whose.call, woken->steps.resume());
        return;
    }
  }

  // --- clients

  void begin_call() {
    if (now_ >= rules_.ends) return;
    plan(now_ + dice_.until_next(rules_.calls_per_second), event_kind::new_call);
    ++came_[static_cast<std::size_t>(now_)];
    const auto client = static_cast<std::size_t>(dice_.share() * rules_.clients);
    const auto number = static_cast<std::uint32_t>(calls_.size());
    calls_.push_back(std::make_unique<call>(policies_[client], clock_, dice_.bits(), now_));
    drive(number, calls_.back()->steps.begin());
  }

  call* waiting(ticket whose) {
    call* const found = calls_[whose.call].get();
    return found != nullptr && found->turn == whose.turn ? found : nullptr;
  }

  void drive(std::uint32_t number, veltrix::detail::retry_step step) {
    call& mine = *calls_[number];
    const ticket whose{number, ++mine.turn};
    switch (step) {
      case veltrix::detail::retry_step::attempt:
        ++found_.attempts;
        ++sent_[static_cast<std::size_t>(now_ * 10)];
        plan(now_ + one_way, event_kind::at_service, whose);
        plan(std::min(now_ + rules_.attempt_timeout, mine.until), event_kind::timed_out, whose);
        return;
      case veltrix::detail::retry_step::wait: {
        const duration wake = mine.steps.wake_at() - start_;
        plan(std::max(now_, static_cast<double>(wake.count()) * 1e-9 + 1e-9), event_kind::woken,
             whose);
        return;
      }
      case veltrix::detail::retry_step::stop: return end_call(number);
    }
  }

  void answer(ticket whose, reply_kind what) {
    call* const asker = waiting(whose);
    if (asker == nullptr) return;
    const auto got = [&] {
      return reply{what, what == reply_kind::refused ? told_wait_ : duration{}};
    };
    drive(whose.call, asker->steps.perform(got, asker->told));
  }

  void end_call(std::uint32_t number) {
    const call& ended = *calls_[number];
    if (ended.told) {
      ++found_.successes;
      if (now_ - ended.came <= rules_.in_time) ++good_[static_cast<std::size_t>(ended.came)];
    } else if (ended.came >= back()) {
      ++found_.failed_after;
    }
    calls_[number].reset();
  }

  // --- the service

  void arrive(ticket whose) {
    if (away()) {
      refuse(whose);
      for (const ticket& each : room_)
        refuse(each);
      room_.clear();
    } else if (static_cast<double>(room_.size()) >=
               rules_.waiting_room * rules_.served_per_second) {
      refuse(whose);
      owed_ += rules_.refusal_costs / capacity();
    } else {
      room_.push_back(whose);
      if (!busy_) serve_next();
    }
  }
  void refuse(ticket whose) {
    plan(now_ + one_way, event_kind::answered, whose, reply_kind::refused);
  }
  void serve_next() {
    busy_ = !room_.empty();
    const double late = std::exchange(owed_, 0.0);
    if (!busy_) return;
    serving_ = room_.front();
    room_.pop_front();
    plan(now_ + 1.0 / capacity() + late, event_kind::served);
  }

  // --- what was seen

  void tell() {
    std::uint32_t most = 0;
    for (auto i = static_cast<std::size_t>(rules_.away_from * 10);
         i < static_cast<std::size_t>(rules_.ends * 10); ++i)
      most = std::max(most, sent_[i]);
    found_.peak = most / (rules_.calls_per_second / 10);
    int well = 0;
    const auto ends = static_cast<std::size_t>(rules_.ends);
    for (auto i = static_cast<std::size_t>(std::ceil(back())); i < ends; ++i) {
      well = good_[i] >= 0.999 * came_[i] ? well + 1 : 0;
      if (well < 30) continue;
      found_.recovers_after = static_cast<double>(i) - 29 - back();
      break;
    }
    for (std::size_t i = 0; i < ends; ++i) {
      std::uint32_t sent = 0;
      for (std::size_t tenth = 0; tenth < 10; ++tenth)
        sent += sent_[i * 10 + tenth];
      found_.load.push_back(sent / rules_.calls_per_second);
      found_.good_share.push_back(came_[i] == 0 ? 1.0 : good_[i] / static_cast<double>(came_[i]));
    }
  }

  const world rules_;
  const duration told_wait_;
  dice dice_;
  veltrix::virtual_clock clock_;
  const time_point start_ = clock_.now();
  double now_ = 0;
  std::vector<Policy> policies_;
  std::vector<std::unique_ptr<call>> calls_;
  std::priority_queue<event, std::vector<event>, std::greater<event>> events_;
  std::uint64_t planned_ = 0;
  std::deque<ticket> room_;
  ticket serving_{};
  bool busy_ = false;
  double owed_ = 0;                                // seconds that refusals cost the service
  std::vector<std::uint32_t> came_, good_, sent_;  // per second, per second, per tenth
  findings found_;
};

}  // namespace veltrix_bench::outage
