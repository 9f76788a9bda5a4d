// concurrency_limiter: calls that enter, wait in line, ask again early or late, succeed, fail, give
// up, and take any time.
// Model: the rules with a list of who waits, each of whom counts those ahead.
// SPDX-License-Identifier: BSL-1.0
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <utility>

#include "driver.hpp"
#include "veltrix/clock.hpp"
#include "veltrix/resilience.hpp"

namespace veltrix_fuzz {
namespace {

using veltrix::concurrency_limiter;
using veltrix::concurrency_limiter_options;
using veltrix::duration;
using veltrix::limit_by;
using veltrix::time_point;

concurrency_limiter_options read_options(byte_source& from) {
  constexpr double shares[] = {0.1, 0.5, 0.8, 1};
  concurrency_limiter_options made;
  made.follows = from.flag() ? limit_by::delay : limit_by::failures;
  made.most = static_cast<std::uint32_t>(1 + from.below(6));
  made.first = static_cast<std::uint32_t>(1 + from.below(made.most));
  made.slow_factor = 1.0 + static_cast<double>(from.below(8));
  if (from.one_in(4)) made.slow_after = duration(static_cast<std::int64_t>(from.number(3)));
  made.after_slow = shares[from.below(4)];
  made.after_failure = shares[from.below(4)];
  made.cut_gap = duration(static_cast<std::int64_t>(from.number(3)));
  return made;
}

/// Where a call stands.
enum class place : std::uint8_t { outside, in_line, inside };

struct plain_call {
  place where = place::outside;
  std::size_t ahead = 0;  // in line
  time_point began{};     // inside
};

class session {
 public:
  explicit session(byte_source& from)
      : from_(from),
        options_(read_options(from)),
        subject_(options_, veltrix::small_random(from.number(2))),
        bound_(options_.first) {}

  void run() {
    while (!from_.empty()) {
      now_ += duration(static_cast<std::int64_t>(from_.number(from_.below(5))));
      const std::size_t which = from_.below(calls);
      switch (from_.below(8)) {
        case 0: try_enter(which); break;
        case 1:
        case 2:
        case 3: enter_or_wait(which); break;
        case 4:
        case 5: end(which, result::success); break;
        case 6: end(which, result::failure); break;
        default: end(which, result::nothing); break;
      }
      compare();
    }
    for (std::size_t which = 0; which < calls; ++which)
      end(which, result::nothing);
    compare();
  }

 private:
  static constexpr std::size_t calls = 10;
  enum class result : std::uint8_t { success, failure, nothing };

  std::size_t count_of(place where) const {
    return static_cast<std::size_t>(
        std::count_if(std::begin(model_), std::end(model_),
                      [&](const plain_call& each) { return each.where == where; }));
  }
  duration nap() const {
    return std::clamp<duration>(usual_ / 8, std::chrono::milliseconds(1),
                                std::chrono::milliseconds(10));
  }
  bool may_take(std::size_t ahead) {
    const auto places = static_cast<std::size_t>(bound_);
    const std::size_t used = count_of(place::inside);
    if (used >= places) return false;
    if (!free_since_) free_since_ = now_;
    return used + ahead < places || now_ - *free_since_ > 2 * nap();
  }

  /// One place of the line is gone, and all that counted it, or might have, move up.
  void leave_line(std::size_t which) {
    model_[which].where = place::outside;
    for (plain_call& each : model_) {
      if (each.where == place::in_line && each.ahead > 0) --each.ahead;
    }
  }

  void try_enter(std::size_t which) {
    if (model_[which].where != place::outside) return;
    trace::add("try_enter");
    const bool may = may_take(count_of(place::in_line));
    permits_[which] = subject_.try_enter(now_);
    agree(static_cast<bool>(permits_[which]), may, "whether there was a place");
    if (may) model_[which] = {place::inside, 0, now_};
  }

  void enter_or_wait(std::size_t which) {
    trace::add("enter_or_wait");
    plain_call& call = model_[which];
    const time_point again = subject_.enter_or_wait(permits_[which], now_);
    if (call.where == place::inside) return require(again == now_, "it is inside already");
    const std::size_t waiting = count_of(place::in_line);
    const std::size_t ahead = call.where == place::in_line ? call.ahead : waiting;
    const bool may = may_take(ahead);
    agree(static_cast<bool>(permits_[which]), may, "whether it is let in");
    if (may) {
      if (call.where == place::in_line) leave_line(which);
      call = {place::inside, 0, now_};
      return require(again == now_, "let in now");
    }
    call.where = place::in_line;
    call.ahead = ahead;
    const double turns = static_cast<double>(ahead) / bound_ - 1.0;
    const double longest = static_cast<double>(usual_.count()) * std::max(turns, 0.0);
    require(again >= now_ + nap(), "it sleeps a nap at least");
    const double slept = static_cast<double>((again - now_).count());
    require(slept <= std::max(longest * 1.000001 + 1, static_cast<double>(nap().count())),
            "not longer than those ahead are likely to take");
  }

  void end(std::size_t which, result how) {
    trace::add(how == result::success ? "success" : how == result::failure ? "failure" : "drop");
    plain_call& call = model_[which];
    const plain_call was = call;
    const std::size_t used = count_of(place::inside);
    const bool full = used >= static_cast<std::size_t>(bound_);
    tell(which, how);
    require(!permits_[which], "it is over");
    if (was.where == place::in_line) leave_line(which);
    call.where = place::outside;
    if (was.where != place::inside) return;
    if (full) free_since_ = now_;
    if (full && how == result::nothing) free_since_.reset();  // it tells no time
    judge(how, now_ - was.began, used);
  }
  void tell(std::size_t which, result how) {
    if (how == result::success) permits_[which].success(now_);
    if (how == result::failure) permits_[which].failure(now_);
    if (how != result::nothing) return;
    if (from_.flag()) {
      permits_[which].drop();
    } else {
      permits_[which] = concurrency_limiter::permit();
    }
  }

  /// What the end of a call does to the bound.
  void judge(result how, duration took, std::size_t used) {
    if (how == result::nothing) return;
    const bool slow =
        how == result::success && options_.follows == limit_by::delay && is_slow(took);
    if (how == result::success) learn(took);
    if (how == result::failure || slow) {
      if (lowered_ > 0 && now_ - lowered_at_ < options_.cut_gap) return;
      const double left = how == result::failure ? options_.after_failure : options_.after_slow;
      bound_ = std::max(bound_ * left, 1.0);
      lowered_at_ = now_;
      ++lowered_;
    } else if (static_cast<double>(used) >= bound_ / 2) {
      bound_ = std::min(bound_ + 1.0 / bound_, static_cast<double>(options_.most));
    }
  }
  bool is_slow(duration took) const {
    if (options_.slow_after.count() > 0) return took > options_.slow_after;
    return usual_.count() > 0 && static_cast<double>(took.count()) >
                                     options_.slow_factor * static_cast<double>(usual_.count());
  }
  void learn(duration took) {
    if (usual_.count() == 0) {
      usual_ = took;
    } else if (took < usual_) {
      usual_ -= (usual_ - took) / 16;
    } else {
      usual_ += (took - usual_) / 1024;
    }
    usual_ = std::max(usual_, duration(1));
  }

  void compare() const {
    const concurrency_limiter::counts told = subject_.stats();
    agree(told.bound, bound_, "the bound");
    agree(told.in_use, count_of(place::inside), "calls under way");
    agree(told.waiting, count_of(place::in_line), "places in line");
    agree(told.usual.count(), usual_.count(), "what is usual");
    agree(told.lowered, lowered_, "how often it was lowered");
    require(told.bound >= 1.0 && told.bound <= options_.most, "1 <= bound <= most");
  }

  byte_source& from_;
  const concurrency_limiter_options options_;
  concurrency_limiter subject_;
  concurrency_limiter::permit permits_[calls]{};
  plain_call model_[calls]{};
  double bound_;
  time_point now_{std::chrono::hours(1)};
  std::optional<time_point> free_since_{time_point{}};  // nothing: from the next look on
  duration usual_{};
  time_point lowered_at_{};
  std::uint64_t lowered_ = 0;
};

}  // namespace

void one_input(byte_source& from) {
  session(from).run();
}

}  // namespace veltrix_fuzz
