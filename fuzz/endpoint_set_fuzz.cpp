// endpoint_set: a resolver that answers with any hosts, with none, or fails, at any time.
// Model: the last good answer as a std::set; which part of it is used follows from which host of
// each two is preferred, asked of a set that uses one.
// SPDX-License-Identifier: BSL-1.0
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "driver.hpp"
#include "veltrix/clock.hpp"
#include "veltrix/detail/duration_text.hpp"
#include "veltrix/endpoint_set.hpp"

namespace veltrix_fuzz {
namespace {

using veltrix::duration;
using veltrix::endpoint;
using veltrix::endpoint_set;
using veltrix::endpoint_set_options;
using veltrix::endpoint_view;
using veltrix::time_point;
using veltrix::detail::text_of;

endpoint host_number(std::size_t number) {
  return {"host-" + std::to_string(number / 2), static_cast<std::uint16_t>(80 + number % 2)};
}

endpoint_set_options read_options(byte_source& from) {
  const auto time = [&] {
    return duration(std::chrono::milliseconds(1 + static_cast<std::int64_t>(from.number(2))));
  };
  endpoint_set_options made;
  made.subset = static_cast<std::uint32_t>(1 + from.below(8));
  made.ttl = time();
  made.complain_each = time();
  made.instance = from.any_size();
  return made;
}

class session {
 public:
  explicit session(byte_source& from)
      : from_(from), options_(read_options(from)), subject_(options_) {}

  void run() {
    while (!from_.empty()) {
      now_ += duration(std::chrono::milliseconds(from_.flag() ? from_.below(4) : from_.number(2)));
      step();
      compare();
    }
  }

 private:
  void step() {
    switch (from_.below(4)) {
      case 0:
      case 1: resolve(); break;
      case 2: fail(); break;
      default: kept_.push_back({subject_.current(), subject_.current()->endpoints}); break;
    }
  }

  void resolve() {
    trace::add("resolved");
    std::vector<endpoint> found;
    for (std::size_t left = from_.below(24); left > 0; --left)
      found.push_back(host_number(from_.below(32)));
    const std::set<endpoint> good(found.begin(), found.end());
    bool changed = false;
    if (!got_through(from_, [&] { changed = subject_.resolved(std::move(found), now_); })) return;
    if (good.empty()) return agree(changed, false, "an empty answer changes nothing");
    const std::vector<endpoint> used = part_of(good);
    agree(changed, used != used_, "whether the endpoints changed");
    generation_ += used != used_ ? 1 : 0;
    used_ = used;
    known_ = good.size();
    resolved_at_ = now_;
    ask_at_ = now_ + options_.ttl;
    failing_since_.reset();
  }

  /// The hosts that are preferred to most others, in order of name.
  std::vector<endpoint> part_of(const std::set<endpoint>& good) const {
    std::vector<endpoint> chosen(good.begin(), good.end());
    while (chosen.size() > options_.subset)
      chosen.erase(std::find_if(chosen.begin(), chosen.end(), [&](const endpoint& each) {
        return std::all_of(chosen.begin(), chosen.end(), [&](const endpoint& other) {
          return each == other || preferred(each, other) == other;
        });
      }));
    return chosen;
  }
  endpoint preferred(const endpoint& one, const endpoint& other) const {
    endpoint_set_options single = options_;
    single.subset = 1;
    endpoint_set of_two(single);
    of_two.resolved({one, other}, now_);
    return of_two.current()->endpoints.at(0);
  }

  void fail() {
    trace::add("failed");
    std::optional<std::string> text;
    const endpoint_set::failure told{"service", "resolver", "no answer"};
    ask_at_ = now_ + options_.ttl / 10;
    if (!got_through(from_, [&] { text = subject_.failed(told, now_); })) return;
    if (failing_since_ && now_ - complained_at_ < options_.complain_each)
      return require(!text, "one text in a while");
    if (!failing_since_) failing_since_ = now_;
    complained_at_ = now_;
    std::string expected =
        "veltrix: endpoint_set: service: resolver said: no answer; failing for " +
        text_of(now_ - *failing_since_);
    expected += generation_ == 0 ? "; there is no endpoint yet"
                                 : "; " + std::to_string(used_.size()) + " endpoints from " +
                                       text_of(now_ - resolved_at_) + " ago stay in use";
    require(text.has_value(), "a failing while is told of");
    agree(*text, expected, "the text");
  }

  void compare() const {
    const std::shared_ptr<const endpoint_view> view = subject_.current();
    agree(view->endpoints, used_, "the endpoints in use");
    agree(view->generation, generation_, "the generation");
    agree(view->known, known_, "how many there were");
    require(view->resolved_at == resolved_at_, "when it was resolved");
    agree(subject_.due(now_), now_ >= ask_at_, "whether it is time to ask");
    for (const held_view& each : kept_)
      agree(each.view->endpoints, each.endpoints, "a view that is held");
  }

  struct held_view {
    std::shared_ptr<const endpoint_view> view;
    std::vector<endpoint> endpoints;
  };

  byte_source& from_;
  const endpoint_set_options options_;
  endpoint_set subject_;
  time_point now_{std::chrono::hours(1)};
  std::vector<held_view> kept_{};
  std::vector<endpoint> used_{};
  std::uint64_t generation_ = 0;
  std::size_t known_ = 0;
  time_point resolved_at_{};
  time_point ask_at_{duration::min()};
  std::optional<time_point> failing_since_{};
  time_point complained_at_{};
};

}  // namespace

void one_input(byte_source& from) {
  session(from).run();
}

}  // namespace veltrix_fuzz
