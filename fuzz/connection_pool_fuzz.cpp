// connection_pool: users that take, keep, hand on, drop and give back connections to hosts that
// come and go, also while one is opened or tested; dead connections, refusals, sweeps, any times;
// memory, hosts' copies, open and alive that fail.
// Model: of each host, which connections are idle and since when others are in use, as lists.
// SPDX-License-Identifier: BSL-1.0
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "driver.hpp"
#include "veltrix/clock.hpp"
#include "veltrix/connection_pool.hpp"
#include "veltrix/detail/duration_text.hpp"

namespace veltrix_fuzz {
namespace {

using veltrix::connection_pool;
using veltrix::connection_pool_options;
using veltrix::duration;
using veltrix::time_point;

/// A host whose copies may fail.
struct host_name {
  explicit host_name(int named) : number(named) {}
  host_name(const host_name& other) : number(other.number) { veltrix_test::faults::point(); }
  host_name(host_name&&) noexcept = default;
  host_name& operator=(const host_name&) = default;
  host_name& operator=(host_name&&) noexcept = default;
  ~host_name() = default;
  friend bool operator<(const host_name& one, const host_name& other) {
    return one.number < other.number;
  }
  int number;
};

class session;

/// A connection that is told of when it ends, and then asks the pool: no lock may be held.
struct wire {
  wire(session& of, int opened) : owner(&of), id(opened) {}
  wire(wire&& other) noexcept : owner(std::exchange(other.owner, nullptr)), id(other.id) {}
  wire& operator=(wire&& other) noexcept {
    const wire before(std::move(*this));  // ends here
    owner = std::exchange(other.owner, nullptr);
    id = other.id;
    return *this;
  }
  ~wire();
  session* owner;  // null once moved from
  int id;
};

struct opener {
  session* of;
  std::optional<wire> operator()(const host_name& host) const;
};
struct tester {
  session* of;
  bool operator()(wire& tested) const;
};
using pool = connection_pool<host_name, wire, opener, tester>;

struct own_clock {
  time_point at{std::chrono::hours(1)};
  [[nodiscard]] time_point now() const noexcept { return at; }
};

/// What a callback was asked and did.
struct callback {
  int id;                                  // of the connection; 0: open() refused
  bool good = false;                       // of alive()
  bool threw = false;                      // by a fault
  std::optional<std::set<int>> left = {};  // keep_only() was called meanwhile
};

struct plain_idler {
  int id;
  time_point opened;
  std::size_t generation;
  std::optional<time_point> since;
};
struct plain_host {
  std::vector<plain_idler> idle{};
  std::vector<time_point> in_use{};
  std::size_t generation = 0;
};
struct plain_lease {
  int host = 0;
  int id = 0;  // 0: nothing is held
  time_point opened{};
  std::size_t generation = 0;
  time_point since{};
  bool broken = false;
};

connection_pool_options read_options(byte_source& from) {
  connection_pool_options made;
  made.per_host = static_cast<std::uint32_t>(1 + from.below(3));
  made.waiters = static_cast<std::uint32_t>(from.below(2));
  made.idle = duration(std::chrono::milliseconds(1 + from.below(64)));
  made.max_age = duration(std::chrono::milliseconds(1 + from.below(256)));
  return made;
}

class session {
 public:
  explicit session(byte_source& from)
      : from_(from), options_(read_options(from)), subject_(options_, {this}, {this}) {}

  void run() {
    while (!from_.empty()) {
      clock_.at += duration(std::chrono::milliseconds(from_.flag() ? 0 : from_.below(32)));
      step();
      compare();
    }
    for (std::size_t hand = 0; hand < hands; ++hand)
      give_back(hand);
    compare();
    ending_ = true;
  }

  // What the callbacks do.

  std::optional<wire> open(const host_name&) {
    log_.push_back({0});
    take_fault();
    if (from_.one_in(6)) return std::nullopt;
    hosts_may_leave();
    log_.back().id = ++opened_;
    living_.insert(opened_);
    return wire(*this, opened_);
  }
  bool alive(const wire& tested) {
    log_.push_back({tested.id});
    take_fault();
    hosts_may_leave();
    return log_.back().good = !from_.one_in(4);
  }
  void ended(int id) {
    const unfailing_memory memory;
    living_.erase(id);
    if (!ending_) static_cast<void>(subject_.stats(host_name(0)));  // hangs under the pool's lock
  }

 private:
  static constexpr int hosts = 3;
  static constexpr std::size_t hands = 6;
  static constexpr const char* not_in_set = "the host is not in the set";

  void step() {
    const std::size_t hand = from_.below(hands);
    switch (from_.below(8)) {
      case 0:
      case 1:
      case 2: acquire(hand); break;
      case 3: give_back(hand); break;
      case 4: drop(hand); break;
      case 5: hand_on(hand, from_.below(hands)); break;
      case 6: keep_only(); break;
      default: sweep(); break;
    }
  }

  void take_fault() {
    try {
      veltrix_test::faults::point();
    } catch (...) {
      log_.back().threw = true;
      throw;
    }
  }
  void hosts_may_leave() {
    const unfailing_memory memory;
    if (under_fault_ || !from_.one_in(8)) return;
    const std::set<int> left = any_hosts();
    subject_.keep_only(names(left));
    log_.back().left = left;
  }
  std::set<int> any_hosts() {
    std::set<int> left;
    const std::size_t which = from_.below(1 << hosts);
    for (int host = 0; host < hosts; ++host) {
      if ((which >> host & 1) != 0) left.insert(host);
    }
    return left;
  }
  static std::vector<host_name> names(const std::set<int>& of) {
    std::vector<host_name> made;
    for (const int each : of)
      made.emplace_back(each);
    return made;
  }

  /// Runs one operation, under a fault perhaps. Result: whether it got through.
  template <class Operation>
  bool attempt(Operation operation) {
    log_.clear();
    log_.reserve(64);
    under_fault_ = from_.one_in(4);
    if (!under_fault_) {
      operation();
      return true;
    }
    return got_through(from_, operation);
  }

  void acquire(std::size_t hand) {
    const int host = static_cast<int>(from_.below(hosts));
    const bool waits = from_.flag();
    trace::add(waits ? "acquire" : "try_acquire");
    drop(hand);
    const std::vector<time_point> in_use = model_[host].in_use;
    pool::answer got;
    const host_name name(host);
    const bool through = attempt([&] {
      got = waits ? subject_.acquire(name, clock_, {time_point::min()})
                  : subject_.try_acquire(name, clock_.at);
    });
    if (!through) {
      model_[host].in_use = in_use;  // nothing is held then
      return forget_dead(host);
    }
    const std::string why = expect(hand, host, waits);
    agree(got.why, why, "why there is none");
    agree(static_cast<bool>(got), why.empty(), "whether one is held");
    if (!got) return;
    agree(got.held->id, leases_[hand].id, "which connection");
    held_[hand] = std::move(got.held);
  }

  /// Goes through an acquisition by the rules, with what the callbacks did. Result: the refusal.
  std::string expect(std::size_t hand, int host, bool waits) {
    plain_host& at = model_[host];
    for (std::size_t next = 0;;) {
      if (is_gone(host)) return not_in_set;
      const std::optional<plain_idler> found = take_idle(at);
      if (!found && at.in_use.size() >= options_.per_host) return full(at, waits);
      require(next < log_.size(), "a connection is tested, or opened");
      const callback& made = log_[next++];
      const std::size_t generation = at.generation;
      if (made.left) leave_but(*made.left);
      const bool left = is_gone(host) || at.generation != generation;
      if (!found && made.id == 0) return "the connection was refused";
      if (found && !made.good) continue;
      if (left && waits && !is_gone(host)) continue;  // it is back: acquire() begins anew
      if (left) return not_in_set;
      if (!found) {
        leases_[hand] = {host, made.id, clock_.at, generation, clock_.at, false};
      } else {
        agree(made.id, found->id, "which one is tested");
        leases_[hand] = {host, found->id, found->opened, found->generation, clock_.at, false};
      }
      at.in_use.push_back(clock_.at);
      return "";
    }
  }

  std::optional<plain_idler> take_idle(plain_host& at) const {
    while (!at.idle.empty()) {
      const plain_idler last = at.idle.back();
      at.idle.pop_back();
      const bool rested = last.since && clock_.at - *last.since >= options_.idle;
      if (!rested && clock_.at - last.opened < options_.max_age) return last;
    }
    return std::nullopt;
  }
  std::string full(const plain_host& at, bool waits) const {
    const time_point oldest = *std::min_element(at.in_use.begin(), at.in_use.end());
    std::string text = "pool of " + std::to_string(options_.per_host) + " in use, oldest " +
                       veltrix::detail::text_of(clock_.at - oldest);
    if (waits && options_.waiters == 0) text += ", 0 wait already";
    return text;
  }

  /// After a fault: what was idle may have been closed, or tested and put back.
  void forget_dead(int host) {
    plain_host& at = model_[host];
    if (!log_.empty() && log_.back().threw && log_.back().id != 0) {
      const auto tested =
          std::find_if(at.idle.begin(), at.idle.end(),
                       [&](const plain_idler& each) { return each.id == log_.back().id; });
      require(tested != at.idle.end(), "what is tested was idle");
      tested->since.reset();
      std::rotate(tested, tested + 1, at.idle.end());
    }
    std::erase_if(at.idle, [&](const plain_idler& each) { return living_.count(each.id) == 0; });
  }

  void give_back(std::size_t hand) {
    trace::add("give_back");
    if (from_.one_in(6)) {
      held_[hand].discard();
      leases_[hand].broken = true;
    }
    const int id = leases_[hand].id;
    require(attempt([&] { held_[hand].give_back(clock_.at); }), "it throws nothing");
    returned(hand, clock_.at);
    if (id != 0 && living_.count(id) == 0) forget(id);  // no memory to keep it, or not wanted
  }
  void drop(std::size_t hand) {
    trace::add("drop");
    held_[hand] = pool::lease();
    returned(hand, std::nullopt);
  }
  void returned(std::size_t hand, std::optional<time_point> since) {
    const plain_lease lease = std::exchange(leases_[hand], {});
    if (lease.id == 0) return;
    plain_host& at = model_[lease.host];
    at.in_use.erase(std::find(at.in_use.begin(), at.in_use.end(), lease.since));
    const bool keeps = !lease.broken && !is_gone(lease.host) && lease.generation == at.generation;
    if (keeps) at.idle.push_back({lease.id, lease.opened, lease.generation, since});
  }
  void forget(int id) {
    if (!under_fault_) return;
    for (plain_host& each : model_)
      std::erase_if(each.idle, [&](const plain_idler& idle) { return idle.id == id; });
  }

  void hand_on(std::size_t from, std::size_t to) {
    trace::add("hand on");
    if (from == to) return;
    held_[to] = std::move(held_[from]);
    returned(to, std::nullopt);
    leases_[to] = std::exchange(leases_[from], {});
  }

  void keep_only() {
    trace::add("keep_only");
    const std::set<int> left = any_hosts();
    const std::vector<host_name> list = names(left);
    if (attempt([&] { subject_.keep_only(list); })) leave_but(left);
  }
  void leave_but(const std::set<int>& left) {
    for (int host = 0; host < hosts; ++host) {
      if (is_gone(host) || left.count(host) != 0) continue;
      ++model_[host].generation;
      model_[host].idle.clear();
    }
    left_ = left;
  }
  bool is_gone(int host) const { return left_ && left_->count(host) == 0; }

  void sweep() {
    trace::add("sweep");
    time_point next{};
    const bool through = attempt([&] { next = subject_.sweep(clock_.at); });
    if (!through) next = subject_.sweep(clock_.at);  // the rest of it
    time_point expected = veltrix::no_deadline;
    for (plain_host& host : model_) {
      for (plain_idler& each : host.idle) {
        if (!each.since) each.since = clock_.at;
      }
      std::erase_if(host.idle, [&](const plain_idler& each) { return end_of(each) <= clock_.at; });
      for (const plain_idler& each : host.idle)
        expected = std::min(expected, end_of(each));
    }
    require(next == expected, "when to sweep again");
  }
  time_point end_of(const plain_idler& each) const {
    return std::min(*each.since + options_.idle, each.opened + options_.max_age);
  }

  void compare() const {
    std::set<int> expected;
    for (int host = 0; host < hosts; ++host) {
      const plain_host& at = model_[host];
      const pool::counts told = subject_.stats(host_name(host));
      agree(told.in_use, at.in_use.size(), "connections in use");
      agree(told.idle, at.idle.size(), "idle connections");
      agree(told.waiting, 0, "nobody waits");
      require(told.in_use + told.idle <= options_.per_host, "the bound");
      for (const plain_idler& each : at.idle)
        expected.insert(each.id);
    }
    for (std::size_t hand = 0; hand < hands; ++hand) {
      agree(static_cast<bool>(held_[hand]), leases_[hand].id != 0, "who holds one");
      if (leases_[hand].id != 0) expected.insert(leases_[hand].id);
    }
    agree(living_, expected, "which connections are open");
  }

  byte_source& from_;
  const connection_pool_options options_;
  own_clock clock_{};
  std::set<int> living_{};
  std::vector<callback> log_{};  // of the operation under way
  bool under_fault_ = false;
  bool ending_ = false;
  int opened_ = 0;
  plain_host model_[hosts]{};
  plain_lease leases_[hands]{};
  std::optional<std::set<int>> left_{};  // nothing until keep_only() was called
  pool subject_;
  pool::lease held_[hands]{};
};

wire::~wire() {
  if (owner != nullptr) owner->ended(id);
}
std::optional<wire> opener::operator()(const host_name& host) const {
  return of->open(host);
}
bool tester::operator()(wire& tested) const {
  return of->alive(tested);
}

}  // namespace

void one_input(byte_source& from) {
  session(from).run();
}

}  // namespace veltrix_fuzz
