// snapshot_cell: writes, refusals, history, rollback, guards, readers, subscribers, derived cells;
// copies, validators and allocations fail. Model: the list of all versions ever in force.
// SPDX-License-Identifier: BSL-1.0
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "driver.hpp"
#include "veltrix/snapshot_cell.hpp"

namespace veltrix_fuzz {
namespace {

using veltrix::publish_result;
using veltrix::publish_status;
using veltrix_test::faults;

int alive = 0;

/// A value whose copy and move are points; equal ones are not told to subscribers twice.
class number {
 public:
  explicit number(int made) : value(made) { ++alive; }
  number(const number& other) : value(other.value) {
    faults::point();
    ++alive;
  }
  number(number&& other) : value(other.value) {
    faults::point();
    ++alive;
  }
  number& operator=(const number&) = delete;
  ~number() { --alive; }
  friend bool operator==(const number& left, const number& right) {
    faults::point();
    return left.value == right.value;
  }
  const int value;
};

using cell_type = veltrix::snapshot_cell<number>;

/// Multiples of ten are refused, with as many reasons as tens.
std::vector<std::string> check(const number& candidate, const number&) {
  faults::point();
  if (candidate.value % 10 != 0 || candidate.value == 0) return {};
  return std::vector<std::string>(static_cast<std::size_t>(candidate.value / 10), "too round");
}
bool refused(int value) {
  return value % 10 == 0 && value != 0;
}

/// What a subscriber heard.
struct listener {
  std::uint64_t since = 0;  // versions above it
  int before = 0;           // the value at `since`
  std::vector<std::pair<int, std::uint64_t>> heard{};
  veltrix::snapshot_subscription following{};
};

class session {
 public:
  explicit session(byte_source& from)
      : from_(from),
        history_(from.below(4)),
        cell_(number(1), {.history = history_}, check),
        values_{1} {}

  void run() {
    while (!from_.empty()) {
      step();
      compare();
    }
  }

 private:
  void step() {
    nested_count_ = 0;
    const int value = static_cast<int>(from_.below(32));
    switch (from_.below(12)) {
      case 0:
      case 1: return publish(value);
      case 2: return try_publish(value);
      case 3: return publish_if(value);
      case 4: return update(value);
      case 5: return rollback();
      case 6: return hold();
      case 7: return let_go();
      case 8: return subscribe();
      case 9: return unsubscribe();
      case 10: return history();
      default: return wait(value);
    }
  }

  std::uint64_t version() const { return values_.size(); }
  int current() const { return values_.back(); }

  /// After a write. One that threw may still have been put in force if the throw came in telling;
  /// the contract says it stays, so the version alone decides.
  void wrote(bool through, const publish_result& got, publish_status expected, int value) {
    if (!through) {
      agree(cell_.version(), version(), "a write that threw changed nothing");
      // A refusal counts also if there is no memory for its words.
      const std::uint64_t refusals = cell_.stats().refused;
      require(refusals - refusals_ <= 1, "a write is refused once");
      refusals_ = refusals;
      return;
    }
    agree(static_cast<int>(got.status), static_cast<int>(expected), "the status of a write");
    if (expected == publish_status::accepted) values_.push_back(value);
    agree(got.version, version(), "the version told");
    values_.insert(values_.end(), nested_values_.begin(), nested_values_.end());
    nested_values_.clear();
    agree(got.reasons.size(),
          expected == publish_status::refused ? static_cast<std::size_t>(value / 10) : 0U,
          "the reasons told");
    if (expected == publish_status::refused) ++refusals_;
    if (expected == publish_status::conflict) ++conflicts_;
  }

  void publish(int value) {
    trace::add("publish");
    publish_result got;
    bool was_refused = false;
    const bool through = got_through(from_, [&] {
      try {
        got.version = cell_.publish(number(value));
      } catch (const veltrix::snapshot_refused& told) {
        was_refused = true;
        const unfailing_memory ours;
        got = told.result();
      }
    });
    if (through) agree(was_refused, refused(value), "publish throws exactly when refused");
    wrote(through, got, refused(value) ? publish_status::refused : publish_status::accepted, value);
  }
  void try_publish(int value) {
    trace::add("try_publish");
    publish_result got;
    const bool through = got_through(from_, [&] { got = cell_.try_publish(number(value)); });
    wrote(through, got, refused(value) ? publish_status::refused : publish_status::accepted, value);
  }
  void publish_if(int value) {
    trace::add("publish_if");
    const std::uint64_t expected = version() + 1 - from_.below(3);
    publish_result got;
    const bool through =
        got_through(from_, [&] { got = cell_.publish_if(expected, number(value)); });
    auto status = publish_status::accepted;
    if (expected != version()) {
      status = publish_status::conflict;
    } else if (refused(value)) {
      status = publish_status::refused;
    }
    wrote(through, got, status, value);
  }
  void update(int value) {
    trace::add("update");
    publish_result got;
    const int seen_before = current();
    const auto change = [&](const number& now) -> std::optional<number> {
      faults::point();
      agree(now.value, seen_before, "update sees the value in force");
      if (value % 4 == 0) return std::nullopt;
      return std::optional<number>(std::in_place, value);
    };
    const bool through = got_through(from_, [&] { got = cell_.update(change); });
    auto status = publish_status::accepted;
    if (value % 4 == 0) {
      status = publish_status::unchanged;
    } else if (refused(value)) {
      status = publish_status::refused;
    }
    wrote(through, got, status, value);
  }
  void rollback() {
    trace::add("rollback");
    const std::uint64_t back = from_.below(8);
    const std::uint64_t wanted = version() > back ? version() - back : back;
    const bool kept = wanted >= oldest_kept() && wanted <= version();
    const int value = kept ? values_[wanted - 1] : 0;
    publish_result got;
    const bool through = got_through(from_, [&] { got = cell_.rollback(wanted); });
    auto status = publish_status::accepted;
    if (!kept) {
      status = publish_status::not_kept;
    } else if (refused(value)) {
      status = publish_status::refused;
    }
    wrote(through, got, status, value);
  }

  std::uint64_t oldest_kept() const { return version() > history_ ? version() - history_ : 1; }

  void hold() {
    if (guards_.size() == 6) return;
    trace::add("load");
    if (!reader_) reader_.emplace(cell_.reader());
    // More guards than a thread or a reader has slots, by both ways.
    guards_.emplace_back(guards_.size() % 3 == 1 ? reader_->load() : cell_.load(), current());
    shared_.emplace_back(cell_.share(), current());
  }
  void let_go() {
    trace::add("let-go");
    if (!guards_.empty()) guards_.erase(guards_.begin());
    if (!shared_.empty()) shared_.erase(shared_.begin());
    if (from_.flag()) reader_.reset();
    cell_.collect();
    require(static_cast<std::size_t>(alive) <= most_held(), "what nobody holds has ended");
  }
  /// Values that somebody holds, if no two hold the same: the cell, its history, guards, shared
  /// pointers, the reader, and the subscribers for the value told last.
  std::size_t most_held() const {
    return 1 + static_cast<std::size_t>(version() - oldest_kept()) + guards_.size() +
           shared_.size() + (reader_ ? 1 : 0) + (listeners_.empty() ? 0 : 1);
  }

  void subscribe() {
    if (listeners_.size() >= 4) return;
    trace::add("subscribe");
    auto fresh = make_listener();
    const bool through = got_through(from_, [&] { fresh->following = follow(*fresh); });
    if (through) listeners_.push_back(std::move(fresh));
  }
  std::unique_ptr<listener> make_listener() {
    auto fresh = std::make_unique<listener>();
    const auto now = cell_.load();
    fresh->since = now.version();
    fresh->before = now->value;
    return fresh;
  }
  veltrix::snapshot_subscription follow(listener& hears) {
    return cell_.subscribe([this, &hears](const number& value, std::uint64_t of) {
      const unfailing_memory ours;
      hears.heard.emplace_back(value.value, of);
      faults::point();
      if (nested_count_ < 3 && from_.one_in(6)) nested();
    });
  }
  /// What a subscriber may do itself: what it publishes is told after all have heard this version,
  /// and whom it brings hears nothing of this one.
  void nested() {
    trace::add("(in a subscriber)");
    ++nested_count_;
    if (from_.flag()) {
      const int value = 1 + static_cast<int>(from_.below(9));
      if (cell_.try_publish(number(value))) nested_values_.push_back(value);
    } else if (listeners_.size() < 6) {
      auto fresh = make_listener();
      fresh->following = follow(*fresh);
      listeners_.push_back(std::move(fresh));
    }
  }
  void unsubscribe() {
    if (listeners_.empty()) return;
    trace::add("unsubscribe");
    const std::size_t which = from_.below(listeners_.size());
    listeners_[which]->following.reset();
    listeners_.erase(listeners_.begin() + static_cast<std::ptrdiff_t>(which));
  }

  void history() {
    trace::add("history");
    const std::size_t count = from_.below(6);
    std::vector<veltrix::snapshot_version<number>> kept;
    if (!got_through(from_, [&] { kept = cell_.history(count); })) return;
    const std::uint64_t most = version() - oldest_kept() + 1;
    agree(kept.size(), std::min<std::uint64_t>(count, most), "how many versions are kept");
    for (std::size_t i = 0; i < kept.size(); ++i) {
      agree(kept[i].version, version() - i, "history: newest first");
      agree(kept[i].value->value, values_[version() - i - 1], "history: the value");
    }
  }
  void wait(int value) {
    trace::add("wait_for");
    const std::uint64_t wanted = static_cast<std::uint64_t>(value) % (version() + 3);
    const auto got = cell_.wait_for(wanted, veltrix::time_point{});
    agree(static_cast<bool>(got), wanted <= version(), "wait_for: reached");
    agree(got.version, version(), "wait_for: the version");
  }

  void compare() {
    agree(cell_.version(), version(), "version");
    {
      const auto now = cell_.load();
      agree(now->value, current(), "load: the value");
      agree(now.version(), version(), "load: the version");
    }
    if (reader_) agree(reader_->get().value, current(), "a reader sees the newest");
    for (const auto& [held, value] : guards_)
      agree(held->value, value, "a guard keeps its version");
    for (const auto& [held, value] : shared_)
      agree(held->value, value, "a shared value stays");
    const auto stats = cell_.stats();
    agree(stats.published, version() - 1, "stats: published");
    agree(stats.refused, refusals_, "stats: refused");
    agree(stats.conflicts, conflicts_, "stats: conflicts");
    agree(stats.subscribers, listeners_.size(), "stats: subscribers");
    agree(stats.versions_alive, static_cast<std::size_t>(alive), "stats: versions alive");
    require(static_cast<std::size_t>(alive) <= most_held() + 64, "what waits to end has a bound");
    for (const auto& each : listeners_)
      check_heard(*each);
  }

  /// One thread writes, so each version is told: in order, none twice, the equal ones left out, the
  /// newest always (a comparison that throws counts as a difference).
  void check_heard(const listener& told) const {
    std::uint64_t last = told.since;
    for (const auto& [value, of] : told.heard) {
      require(of > last, "told in the order of versions, after the subscription");
      require(of <= version(), "told of a version that exists");
      agree(value, values_[of - 1], "told the value of the version");
      last = of;
    }
    const int newest_told = told.heard.empty() ? told.before : told.heard.back().first;
    agree(newest_told, current(), "the newest value was told");
  }

  byte_source& from_;
  const std::size_t history_;
  cell_type cell_;
  std::vector<int> values_;         // of each version, from 1
  std::vector<int> nested_values_;  // published by subscribers in the write at hand
  int nested_count_ = 0;            // what subscribers did in this step
  std::uint64_t refusals_ = 0;
  std::uint64_t conflicts_ = 0;
  std::vector<std::pair<cell_type::guard, int>> guards_;
  std::vector<std::pair<std::shared_ptr<const number>, int>> shared_;
  std::optional<cell_type::cached_reader> reader_;
  std::vector<std::unique_ptr<listener>> listeners_;
};

}  // namespace

void one_input(byte_source& from) {
  {
    session one(from);
    one.run();
  }
  agree(alive, 0, "values alive at the end");
}

}  // namespace veltrix_fuzz
