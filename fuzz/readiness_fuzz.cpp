// readiness: conditions met, lost and told again in any order, asked at any time after.
// Model: everything that was ever told, kept whole; each answer is read off it anew.
// SPDX-License-Identifier: BSL-1.0
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "driver.hpp"
#include "veltrix/clock.hpp"
#include "veltrix/detail/duration_text.hpp"
#include "veltrix/readiness.hpp"

namespace veltrix_fuzz {
namespace {

using veltrix::condition_state;
using veltrix::duration;
using veltrix::readiness;
using veltrix::time_point;
using veltrix::detail::text_of;

/// One thing that was told of a condition.
struct told_once {
  condition_state state;
  std::string why;
  time_point at;
};

/// A condition with all that was told of it.
struct plain_condition {
  std::string name;
  std::vector<told_once> told{};

  bool met() const { return !told.empty() && told.back().state == condition_state::met; }
  /// Since when it is what it is.
  time_point since() const {
    std::size_t first = told.size() - 1;
    while (first > 0 && told[first - 1].state == told.back().state)
      --first;
    return told[first].at;
  }
  std::size_t losses() const {
    std::size_t count = 0;
    for (std::size_t i = 1; i < told.size(); ++i)
      count += told[i - 1].state == condition_state::met && told[i].state != told[i - 1].state;
    return count;
  }
};

class session {
 public:
  explicit session(byte_source& from)
      : from_(from),
        stable_(duration(static_cast<std::int64_t>(from.number(2)))),
        plain_(names(1 + from.below(4))),
        subject_(name_list(plain_), {.stable_for = stable_}) {}

  void run() {
    while (!from_.empty()) {
      now_ += duration(static_cast<std::int64_t>(from_.flag() ? from_.below(4) : from_.number(2)));
      if (from_.below(3) != 0) {
        tell();
      } else {
        ask();
      }
      std::size_t losses = 0;
      for (const plain_condition& each : plain_)
        losses += each.losses();
      agree(subject_.flaps(), losses, "flaps");
    }
    ask();
  }

 private:
  static std::vector<plain_condition> names(std::size_t count) {
    std::vector<plain_condition> made;
    for (std::size_t i = 0; i < count; ++i)
      made.push_back({"condition " + std::to_string(i)});
    return made;
  }
  static std::vector<std::string> name_list(const std::vector<plain_condition>& from) {
    std::vector<std::string> made;
    for (const plain_condition& each : from)
      made.push_back(each.name);
    return made;
  }

  void tell() {
    const std::size_t which = from_.below(plain_.size());
    const condition_state state = from_.flag() ? condition_state::met : condition_state::unmet;
    const std::string why(from_.below(24), 'w');
    trace::add(state == condition_state::met ? "met" : "unmet");
    readiness::news told{state, why};
    if (got_through(from_, [&] { subject_.set(which, std::move(told), now_); }))
      plain_[which].told.push_back({state, why, now_});
  }

  void ask() {
    trace::add("ask");
    bool ready = true;
    bool somebody_knows = true;
    duration wait{};
    std::string body;
    for (const plain_condition& each : plain_) {
      const duration held = each.told.empty() ? duration() : now_ - each.since();
      if (!each.met()) {
        ready = somebody_knows = false;
        body += "not ready: " + each.name;
        if (!each.told.empty() && !each.told.back().why.empty())
          body += ": " + each.told.back().why;
        if (!each.told.empty()) body += ", for " + text_of(held);
        body += "\n";
      } else if (each.losses() > 0 && held < stable_) {
        ready = false;
        wait = std::max(wait, stable_ - held);
        body += "not ready: " + each.name + ": holds for " + text_of(held) + " of " +
                text_of(stable_) + "\n";
      }
    }
    readiness::answer got{};
    if (!got_through(from_, [&] { got = subject_.ask(now_); })) return;
    agree(got.ready, ready, "ready");
    agree(got.http_status, ready ? 200 : 503, "the status");
    agree(got.retry_after.count(), somebody_knows ? wait.count() : 0, "when to ask again");
    agree(got.body, ready ? "ready\n" : body, "the body");
    if (ready || !somebody_knows) return;
    require(!subject_.ask(now_ + got.retry_after - duration(1)).ready, "not before it says");
    require(subject_.ask(now_ + got.retry_after).ready, "ready when it says, if nothing is lost");
  }

  byte_source& from_;
  const duration stable_;
  std::vector<plain_condition> plain_;
  readiness subject_;
  time_point now_{std::chrono::hours(1)};
};

}  // namespace

void one_input(byte_source& from) {
  session(from).run();
}

}  // namespace veltrix_fuzz
