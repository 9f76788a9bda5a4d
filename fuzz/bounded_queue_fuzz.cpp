// bounded_queue: every policy and operation in one thread, items whose move may throw, weights of
// any size, limits that change. Model: a deque, two sums, and the policies written out plainly.
// SPDX-License-Identifier: BSL-1.0
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <stdexcept>
#include <utility>
#include <vector>

#include "driver.hpp"
#include "veltrix/bounded_queue.hpp"
#include "veltrix/stop_token.hpp"

namespace veltrix_fuzz {
namespace {

using veltrix::full_policy;
using veltrix::load;
using veltrix::pop_status;
using veltrix::push_status;
using veltrix_test::faults;

int alive = 0;

/// An item whose move and weight are points of failure.
class item {
 public:
  item(int id, std::size_t bytes) : id_(id), bytes_(bytes) { ++alive; }
  item(item&& other) : id_(other.id_), bytes_(other.bytes_) {
    faults::point();
    other.id_ = gone;
    ++alive;
  }
  item& operator=(item&&) = delete;
  ~item() { --alive; }
  int id() const { return id_; }
  std::size_t bytes() const { return bytes_; }
  static constexpr int gone = -1;

 private:
  int id_;
  std::size_t bytes_;
};

struct item_weight {
  std::size_t operator()(const item& weighed) const {
    faults::point();
    return weighed.bytes();
  }
};

using queue = veltrix::bounded_queue<item, item_weight>;

/// The plain model: what is inside, and what each push must answer.
struct plain_queue {
  struct entry {
    int id;
    std::size_t bytes;
  };
  full_policy policy;
  load limit;
  std::deque<entry> inside{};
  std::vector<int> dropped{};  // by drop_oldest, in order
  veltrix::bounded_queue_stats count{};
  load peak{};
  bool closed = false;

  std::size_t bytes() const {
    std::size_t sum = 0;
    for (const entry& each : inside)
      sum += each.bytes;
    return sum;
  }
  /// What weighs nothing adds nothing, also above a limit that was lowered.
  bool fits(std::size_t more) const {
    const std::size_t free = limit.bytes - std::min(limit.bytes, bytes());
    return inside.size() < limit.items && more <= free;
  }
  push_status refusal(std::size_t more, push_status when_blocked) const {
    if (closed) return push_status::closed;
    if (more > limit.bytes) return push_status::too_heavy;
    if (fits(more)) return push_status::accepted;
    switch (policy) {
      case full_policy::block: return when_blocked;
      case full_policy::reject: return push_status::full;
      case full_policy::drop_newest: return push_status::dropped;
      case full_policy::drop_oldest: return push_status::accepted;
      case full_policy::caller_runs: return push_status::run_yourself;
    }
    return push_status::full;
  }
  void add(const entry& added) {
    while (!fits(added.bytes)) {
      dropped.push_back(inside.front().id);
      inside.pop_front();
      ++count.evicted;
    }
    inside.push_back(added);
    ++count.pushed;
    peak.items = std::max(peak.items, inside.size());
    peak.bytes = std::max(peak.bytes, bytes());
  }
  void refuse(push_status status, std::size_t items) {
    if (status == push_status::dropped) {
      count.dropped += items;
    } else if (status == push_status::run_yourself) {
      count.handed_back += items;
    } else {
      count.rejected += items;
    }
  }
};

load first_limit(byte_source& from) {
  const std::size_t items = 1 + from.below(8);
  return {items, from.one_in(4) ? veltrix::no_byte_limit : 1 + from.below(64)};
}

class session {
 public:
  explicit session(byte_source& from)
      : from_(from),
        model_{static_cast<full_policy>(from.below(5)), first_limit(from)},
        max_waiters_(from.below(2)),
        queue_({model_.limit.items, model_.limit.bytes, model_.policy, max_waiters_},
               [this](item&& ended) { on_drop(ended); }) {}

  void run() {
    while (!from_.empty()) {
      step();
      compare();
    }
    while (auto got = queue_.try_pop())
      take(got.item->id());
  }

 private:
  void step() {
    switch (from_.below(10)) {
      case 0:
      case 1:
      case 2: return push_one();
      case 3:
      case 4: return push_bulk();
      case 5:
      case 6: return pop_one();
      case 7: return pop_bulk();
      case 8: return set_limits();
      default:
        if (!from_.one_in(8)) return;
        trace::add("close");
        queue_.close();
        model_.closed = true;
    }
  }

  /// A wait that ends at once: by its deadline, or by its token.
  veltrix::wait_options short_wait() {
    stopped_.request_stop();
    if (from_.flag()) return {.deadline = veltrix::time_point{}, .token = {}};
    return {.deadline = veltrix::no_deadline, .token = stopped_.get_token()};
  }
  /// What policy block answers without room.
  push_status when_blocked(bool waits, const veltrix::wait_options& wait) const {
    if (!waits || max_waiters_ == 0) return push_status::full;
    return wait.token.stop_requested() ? push_status::stopped : push_status::timed_out;
  }

  void push_one() {
    item offered(next_id_++, weight());
    const bool waits = from_.flag();
    const auto wait = short_wait();
    trace::add(waits ? "push" : "try_push");
    veltrix::push_result got;
    const bool through = got_through(from_, [&] {
      got = waits ? queue_.push(std::move(offered), wait) : queue_.try_push(std::move(offered));
    });
    if (!through) {
      require(offered.id() != item::gone, "a push that threw left the item");
      return;
    }
    const plain_queue::entry wanted{next_id_ - 1, offered.bytes()};
    judge(got, {&wanted, 1}, waits, wait);
    require((offered.id() == item::gone) == (got.status == push_status::accepted),
            "an item is moved from only when accepted");
  }

  void push_bulk() {
    std::vector<item> items;
    std::vector<plain_queue::entry> wanted;
    const std::size_t count = from_.below(6);
    items.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
      wanted.push_back({next_id_, weight()});
      items.emplace_back(next_id_++, wanted.back().bytes);
    }
    const bool waits = from_.flag();
    const auto wait = short_wait();
    trace::add(waits ? "push_bulk" : "try_push_bulk");
    veltrix::push_result got;
    const bool through = got_through(
        from_, [&] { got = waits ? queue_.push_bulk(items, wait) : queue_.try_push_bulk(items); });
    if (through) judge(got, wanted, waits, wait);
    const std::size_t accepted = through ? got.accepted : 0;
    for (std::size_t i = 0; i < count; ++i)
      agree(items[i].id() == item::gone, i < accepted, "the prefix accepted is what was moved");
  }

  /// Compares one answer with what the model says, and does the same to the model.
  void judge(const veltrix::push_result& got, std::span<const plain_queue::entry> wanted,
             bool waits, const veltrix::wait_options& wait) {
    const std::size_t evicted_before = model_.dropped.size();
    std::size_t accepted = 0;
    push_status status = push_status::accepted;
    if (wanted.empty() && model_.closed) status = push_status::closed;
    for (; accepted < wanted.size(); ++accepted) {
      status = model_.refusal(wanted[accepted].bytes, when_blocked(waits, wait));
      if (status != push_status::accepted) break;
      if (got.status == push_status::threw && got.accepted == accepted) {
        require(accepted != 0, "threw is for the second of a bulk, or later");
        status = push_status::threw;
        break;
      }
      model_.add(wanted[accepted]);
    }
    agree(static_cast<int>(got.status), static_cast<int>(status), "the status of a push");
    agree(got.accepted, accepted, "how many were accepted");
    agree(got.evicted, model_.dropped.size() - evicted_before, "how many were evicted");
    require(!got.message().empty(), "every answer has words");
    if (status == push_status::accepted) return;
    model_.refuse(status, wanted.size() - accepted);
    if (!wanted.empty()) agree(got.item_bytes, wanted[accepted].bytes, "the weight told");
    require(got.limit == model_.limit, "the limit told");
    require(got.inside == load{model_.inside.size(), model_.bytes()}, "the load told");
  }

  void pop_one() {
    trace::add("pop");
    const bool waits = from_.flag();
    const auto wait = short_wait();
    std::optional<int> id;
    pop_status status = pop_status::empty;
    const bool through = got_through(from_, [&] {
      auto got = waits ? queue_.pop(wait) : queue_.try_pop();
      status = got.status;
      if (got.item) id = got.item->id();
    });
    // The answer itself is moved out by elision; so what threw left the item inside.
    if (!through) return;
    agree(static_cast<int>(status), static_cast<int>(pop_answer(waits, wait)), "status of a pop");
    require(id.has_value() == (status == pop_status::item), "an item exactly when it says so");
    if (id) take(*id);
  }

  pop_status pop_answer(bool waits, const veltrix::wait_options& wait) const {
    if (!model_.inside.empty()) return pop_status::item;
    if (model_.closed) return pop_status::closed;
    if (!waits) return pop_status::empty;
    return wait.token.stop_requested() ? pop_status::stopped : pop_status::timed_out;
  }

  void pop_bulk() {
    trace::add("pop_bulk");
    const std::size_t most = from_.below(6);
    const bool waits = from_.flag();
    const auto wait = short_wait();
    std::vector<int> ids;
    pop_status status = pop_status::empty;
    const bool through = got_through(from_, [&] {
      auto got = waits ? queue_.pop_bulk(most, wait) : queue_.try_pop_bulk(most);
      armed_fault::disarm();
      status = got.status;
      for (const item& each : got.items)
        ids.push_back(each.id());
    });
    if (!through) return;
    const pop_status expected = most == 0 ? pop_status::empty : pop_answer(waits, wait);
    agree(static_cast<int>(status), static_cast<int>(expected), "status of a bulk pop");
    require(ids.size() <= most, "no more than asked");
    if (expected == pop_status::item) require(!ids.empty(), "at least one");
    for (const int id : ids)
      take(id);
  }

  void set_limits() {
    trace::add("set_limits");
    const load wanted{static_cast<std::size_t>(from_.any_size()),
                      static_cast<std::size_t>(from_.any_size())};
    const auto answer = queue_.set_limits(wanted);
    const bool allowed =
        wanted.items != 0 && wanted.bytes != 0 && wanted.items <= veltrix::max_load.items &&
        (wanted.bytes <= veltrix::max_load.bytes || wanted.bytes == veltrix::no_byte_limit);
    agree(static_cast<bool>(answer), allowed, "whether limits are taken");
    agree(*answer.why != '\0', !allowed, "a reason exactly when refused");
    if (allowed) model_.limit = wanted;
  }

  std::size_t weight() {
    return from_.one_in(8) ? static_cast<std::size_t>(from_.any_size()) % (std::size_t{1} << 40)
                           : from_.below(24);
  }

  void take(int id) {
    require(!model_.inside.empty(), "an item came from an empty queue");
    agree(id, model_.inside.front().id, "first in, first out");
    model_.inside.pop_front();
    ++model_.count.popped;
  }

  /// Called in the push; throws now and then.
  void on_drop(item& ended) {
    const unfailing_memory ours;
    told_.push_back(ended.id());
    if (ended.id() % 5 == 0) {
      ++drop_failures_;
      throw std::runtime_error("the handler fails");
    }
  }

  void compare() {
    agree(queue_.size(), model_.inside.size(), "size");
    agree(queue_.closed(), model_.closed, "closed");
    const auto stats = queue_.stats();
    require(stats.inside == load{model_.inside.size(), model_.bytes()}, "stats: inside");
    require(stats.limit == model_.limit, "stats: limit");
    require(stats.peak == model_.peak, "stats: peak");
    agree(stats.pushed, model_.count.pushed, "stats: pushed");
    agree(stats.popped, model_.count.popped, "stats: popped");
    agree(stats.evicted, model_.count.evicted, "stats: evicted");
    agree(stats.dropped, model_.count.dropped, "stats: dropped");
    agree(stats.handed_back, model_.count.handed_back, "stats: handed_back");
    agree(stats.rejected, model_.count.rejected, "stats: rejected");
    agree(stats.drop_failures, drop_failures_, "stats: drop_failures");
    agree(stats.waiting_pushers + stats.waiting_poppers, 0, "nobody waits");
    require(told_ == model_.dropped, "the drop handler heard each, oldest first");
    agree(static_cast<std::size_t>(alive), model_.inside.size(), "items alive");
  }

  byte_source& from_;
  plain_queue model_;
  const std::size_t max_waiters_;
  std::vector<int> told_;
  std::uint64_t drop_failures_ = 0;
  veltrix::stop_source stopped_;
  int next_id_ = 0;
  queue queue_;  // last: its handler uses the others
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
