// Says whether a recorded history is linearizable: whether each call can be given one moment inside
// its interval so that a sequential specification, called in that order, answers the same.
//
// The search is that of Wing and Gong (1993), with Lowe's (2017) memory of configurations already
// seen in vain, on each key alone where the specification has keys (Horn and Kroening, 2015).
//   - The calls of a key are laid into lanes: two calls of one lane never overlap, so what has
//     been placed is one position per lane, in the place of a set of bits.
//   - A call may come next if it began before any call not yet placed returned.
//   - A call that observes (never changes the state, given its answer) is placed as soon as it
//     fits, and nothing else is tried in its stead: moved to the front, it disturbs no order.
//   - A configuration (positions and state) that led nowhere is kept, and never entered again.
// A pending call is placed, with any answer, or left out. Two stamps that are equal overlap.
//
// If there is no order, the earliest return is named that no order explains, with the calls since
// the last moment at which nothing ran, less those observers that the proof does not need.
//
// A specification is a struct with
//   input, answer, state      plain values; answer and state have ==
//   initial()                 the state before the first call
//   run(state&, input)        makes the call: changes the state, returns the right answer
//   observes(input, answer)   whether such a call never changes any state; false is always safe
//   hash(state)               for the memory
//   text(input), text(input, answer), text(state)
// and, if it can, key(input): calls of different keys have nothing to do with each other; and, if
// more than one answer may be right, accepts(state&, input, answer): whether that one is, making
// the call then. One answer leads from one state to one state.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "support/history.hpp"

namespace veltrix_test {

template <class Spec>
concept sequential_spec =
    requires(const Spec& spec, typename Spec::state& state, const typename Spec::input& input,
             const typename Spec::answer& answer) {
      { spec.initial() } -> std::same_as<typename Spec::state>;
      { spec.run(state, input) } -> std::same_as<typename Spec::answer>;
      { spec.observes(input, answer) } -> std::same_as<bool>;
      { spec.hash(state) } -> std::same_as<std::uint64_t>;
      { spec.text(input) } -> std::same_as<std::string>;
      { spec.text(input, answer) } -> std::same_as<std::string>;
      { spec.text(state) } -> std::same_as<std::string>;
    };

template <class Spec>
using event_of = recorded<typename Spec::input, typename Spec::answer>;

template <class Spec>
using recorder_of = recorder<typename Spec::input, typename Spec::answer>;

enum class verdict : std::uint8_t {
  linearizable,
  not_linearizable,
  gave_up,  ///< a bound was reached before there was an answer
};

struct lin_options {
  /// Configurations to visit, in all; and again for the explanation of a failure.
  std::size_t max_configurations = 20'000'000;
};

template <class Event>
struct [[nodiscard]] lin_result {
  verdict answer = verdict::linearizable;
  std::size_t operations = 0;
  std::size_t partitions = 0;  ///< keys
  std::size_t configurations = 0;
  stamp until = never;          ///< if not linearizable: the earliest return that no order explains
  std::vector<Event> window{};  ///< if not linearizable: the calls that show it
  std::string report{};         ///< unless linearizable: why, to be printed

  [[nodiscard]] explicit operator bool() const { return answer == verdict::linearizable; }
};

namespace lin {

/// Configurations that may still be visited.
class budget {
 public:
  explicit budget(std::size_t most) : most_(most) {}
  [[nodiscard]] bool spend() { return ++used_ <= most_; }
  [[nodiscard]] std::size_t used() const { return std::min(used_, most_); }

 private:
  std::size_t used_ = 0;
  std::size_t most_;
};

/// A call as the search sees it.
template <class Spec>
struct step {
  stamp called = never;
  stamp returned = never;                 ///< never: it need not be placed
  const event_of<Spec>* event = nullptr;  ///< null: the end of a lane
  bool observes = false;
};

/// The configurations that led nowhere.
template <class Spec>
class dead_ends {
 public:
  using state = typename Spec::state;
  using positions = std::vector<std::uint32_t>;

  explicit dead_ends(const Spec& spec) : spec_(spec) {}

  void clear() {
    if (states_.empty()) return;
    states_.clear();
    places_.clear();
    std::fill(slots_.begin(), slots_.end(), 0);
  }
  [[nodiscard]] bool empty() const { return states_.empty(); }
  [[nodiscard]] bool has(const positions& at, const state& with) const {
    return !states_.empty() && slots_[slot_of(at, with)] != 0;
  }
  void add(const positions& at, const state& with) {
    if (slots_.size() < 2 * (states_.size() + 1)) grow(at.size());
    std::uint32_t& slot = slots_[slot_of(at, with)];
    if (slot != 0) return;
    states_.push_back(with);
    places_.insert(places_.end(), at.begin(), at.end());
    slot = static_cast<std::uint32_t>(states_.size());
  }

 private:
  std::size_t slot_of(const positions& at, const state& with) const {
    std::uint64_t hash = spec_.hash(with);
    for (const std::uint32_t each : at) {
      hash = (hash ^ each) * 0x9e3779b97f4a7c15ULL;
      hash ^= hash >> 29;
    }
    const std::size_t mask = slots_.size() - 1;
    std::size_t slot = static_cast<std::size_t>(hash) & mask;
    while (slots_[slot] != 0 && !is(slots_[slot] - 1, at, with))
      slot = (slot + 1) & mask;
    return slot;
  }
  bool is(std::size_t index, const positions& at, const state& with) const {
    const auto place = places_.begin() + static_cast<std::ptrdiff_t>(index * at.size());
    return std::equal(at.begin(), at.end(), place) && states_[index] == with;
  }
  void grow(std::size_t lanes) {
    slots_.assign(std::max<std::size_t>(64, slots_.size() * 4), 0);
    positions at(lanes);
    for (std::size_t i = 0; i < states_.size(); ++i) {
      const auto place = places_.begin() + static_cast<std::ptrdiff_t>(i * lanes);
      std::copy_n(place, lanes, at.begin());
      slots_[slot_of(at, states_[i])] = static_cast<std::uint32_t>(i + 1);
    }
  }

  const Spec& spec_;
  std::vector<state> states_;
  std::vector<std::uint32_t> places_;  // one position per lane for each state
  std::vector<std::uint32_t> slots_;   // index into states_ + 1; 0: free. A power of two of them
};

enum class outcome : std::uint8_t { stopped, exhausted, gave_up };

/// Looks for orders of some calls.
template <class Spec>
class search {
 public:
  using state = typename Spec::state;
  static constexpr std::size_t max_lanes = 64;

  search(const Spec& spec, budget& left) : spec_(spec), budget_(left), dead_(spec) {}
  search(const search&) = delete;
  search& operator=(const search&) = delete;

  /// Takes the calls, by the time they began. Result: whether they fit into max_lanes.
  [[nodiscard]] bool load(const std::vector<step<Spec>>& steps) {
    for (auto& each : lanes_)
      each.clear();
    dead_.clear();
    deepest_dead_ = 0;
    furthest_ = 0;
    used_lanes_ = 0;
    for (const step<Spec>& each : steps) {
      if (each.returned == never && each.observes) continue;
      const std::size_t lane = lane_for(each.called);
      if (lane == max_lanes) return false;
      lanes_[lane].push_back(each);
    }
    for (std::size_t i = 0; i < used_lanes_; ++i)
      lanes_[i].push_back({});
    return true;
  }

  /// Calls on_order(state) with the state after each order found, until it returns true; orders
  /// that lead through the same configuration are told once, also over several runs.
  template <class OnOrder>
  outcome run(const state& from, OnOrder on_order) {
    places_.assign(used_lanes_, 0);
    frames_.clear();
    if (dead_.has(places_, from)) return outcome::exhausted;
    frames_.push_back({from, limit(), 0, 0});
    while (!frames_.empty()) {
      frame& top = frames_.back();
      if (top.limit == never) {
        if (on_order(top.at)) return outcome::stopped;
        leave();
        continue;
      }
      const std::size_t lane = choice(top);
      if (lane == max_lanes) {
        leave();
      } else if (place(top, lane) && !budget_.spend()) {
        return outcome::gave_up;
      }
    }
    return outcome::exhausted;
  }

  /// The latest return before which all calls could be placed; meaningful when none was found.
  [[nodiscard]] stamp furthest() const { return furthest_; }

 private:
  /// A configuration on the way.
  struct frame {
    state at;
    stamp limit;          // the earliest return of a call not placed
    std::uint64_t tried;  // a bit for each lane
    std::size_t lane;     // the call that led here came from it
  };

  std::size_t lane_for(stamp called) {
    for (std::size_t i = 0; i < used_lanes_; ++i) {
      if (lanes_[i].back().returned < called) return i;
    }
    if (used_lanes_ == max_lanes) return max_lanes;
    if (used_lanes_ == lanes_.size()) lanes_.emplace_back();
    return used_lanes_++;
  }

  const step<Spec>& head(std::size_t lane) const { return lanes_[lane][places_[lane]]; }

  stamp limit() {
    stamp earliest = never;
    for (std::size_t i = 0; i < used_lanes_; ++i)
      earliest = std::min(earliest, head(i).returned);
    furthest_ = std::max(furthest_, earliest);
    return earliest;
  }

  /// The lane to try next: observers first, then what returned earliest.
  std::size_t choice(const frame& top) const {
    std::size_t best = max_lanes;
    stamp best_return = never;
    for (std::size_t i = 0; i < used_lanes_; ++i) {
      const step<Spec>& next = head(i);
      if (next.called > top.limit || (top.tried >> i & 1) != 0) continue;
      const stamp by = next.observes ? 0 : next.returned;
      if (best != max_lanes && by >= best_return) continue;
      best = i;
      best_return = by;
    }
    return best;
  }

  bool fits(state& at, const event_of<Spec>& event) const {
    if (event.pending()) {
      static_cast<void>(spec_.run(at, event.input));
      return true;
    }
    if constexpr (requires { spec_.accepts(at, event.input, event.answer); }) {
      return spec_.accepts(at, event.input, event.answer);
    } else {
      return spec_.run(at, event.input) == event.answer;
    }
  }

  /// Goes on with the lane's next call. Result: whether there is a new configuration.
  bool place(frame& top, std::size_t lane) {
    const step<Spec>& next = head(lane);
    top.tried |= std::uint64_t{1} << lane;
    state after = top.at;
    if (!fits(after, *next.event)) return false;
    if (next.observes) top.tried = ~std::uint64_t{0};
    ++places_[lane];
    if (frames_.size() <= deepest_dead_ && dead_.has(places_, after)) {
      --places_[lane];
      return false;
    }
    frames_.push_back({std::move(after), limit(), 0, lane});
    return true;
  }

  void leave() {
    const frame& top = frames_.back();
    const std::size_t lane = top.lane;
    dead_.add(places_, top.at);
    deepest_dead_ = std::max(deepest_dead_, frames_.size() - 1);
    frames_.pop_back();
    if (!frames_.empty()) --places_[lane];
  }

  const Spec& spec_;
  budget& budget_;
  std::vector<std::vector<step<Spec>>> lanes_;
  std::size_t used_lanes_ = 0;
  std::vector<std::uint32_t> places_;  // the next call of each lane
  std::vector<frame> frames_;
  dead_ends<Spec> dead_;
  std::size_t deepest_dead_ = 0;  // calls placed in the deepest of them
  stamp furthest_ = 0;
};

/// What shows that there is no order.
template <class Spec>
struct evidence {
  std::vector<step<Spec>> steps{};             ///< by the time they began
  std::vector<typename Spec::state> starts{};  ///< each state they may start from; empty: unknown
  std::vector<step<Spec>> before{};            ///< the last calls that are not among them
};

/// Finds little evidence for calls that are known to have no order.
template <class Spec>
class explainer {
 public:
  using state = typename Spec::state;

  explainer(const Spec& spec, budget& left) : spec_(spec), search_(spec, left) {}

  /// `until`: the earliest return that no order explains.
  evidence<Spec> explain(const std::vector<step<Spec>>& all, stamp until) {
    evidence<Spec> found;
    for (step<Spec> each : all) {
      if (each.called > until) break;
      if (each.returned > until) each.returned = never;  // it still ran
      if (each.returned != never || !each.observes) found.steps.push_back(each);
    }
    found.starts = {spec_.initial()};
    std::size_t before = 0;
    do {
      before = found.steps.size();
      if (!keep_last_part(found)) return {std::move(found.steps), {}, {}};
      drop_observers(found);
    } while (found.steps.size() < before);
    add_context(found, all);
    return found;
  }

 private:
  /// Cuts at the last moment at which nothing ran, carrying the states there. False: gave up.
  bool keep_last_part(evidence<Spec>& found) {
    std::vector<step<Spec>> part;
    stamp busy_until = 0;
    for (const step<Spec>& each : found.steps) {
      if (!part.empty() && busy_until < each.called) {
        if (!pass(part, found.starts)) return false;
        part.clear();
      }
      part.push_back(each);
      busy_until = std::max(busy_until, each.returned);
    }
    found.steps = std::move(part);
    return true;
  }

  /// Replaces `states` by those that `part` may lead to.
  bool pass(const std::vector<step<Spec>>& part, std::vector<state>& states) {
    if (!search_.load(part)) return false;
    std::vector<state> after;
    for (const state& from : states) {
      const outcome end = search_.run(from, [&](const state& at) {
        if (std::find(after.begin(), after.end(), at) == after.end()) after.push_back(at);
        return false;
      });
      if (end == outcome::gave_up) return false;
    }
    states = std::move(after);
    return true;
  }

  void drop_observers(evidence<Spec>& found) {
    constexpr std::size_t few_enough = 256;
    if (found.steps.size() > few_enough) return;
    for (std::size_t i = found.steps.size(); i-- > 0;) {
      if (!found.steps[i].observes) continue;
      std::vector<step<Spec>> fewer = found.steps;
      fewer.erase(fewer.begin() + static_cast<std::ptrdiff_t>(i));
      if (has_no_order(fewer, found.starts)) found.steps = std::move(fewer);
    }
  }

  bool has_no_order(const std::vector<step<Spec>>& steps, const std::vector<state>& starts) {
    if (!search_.load(steps)) return false;
    return std::all_of(starts.begin(), starts.end(), [&](const state& from) {
      return search_.run(from, [](const state&) { return true; }) == outcome::exhausted;
    });
  }

  static void add_context(evidence<Spec>& found, const std::vector<step<Spec>>& all) {
    constexpr std::ptrdiff_t most = 8;
    const stamp first = found.steps.front().called;
    const auto end = std::find_if(all.begin(), all.end(),
                                  [&](const step<Spec>& each) { return each.called >= first; });
    found.before.assign(end - std::min(most, end - all.begin()), end);
  }

  const Spec& spec_;
  search<Spec> search_;
};

template <class Spec>
std::string report_of(const Spec& spec, const evidence<Spec>& shown, stamp until) {
  constexpr std::size_t most_lines = 60;
  using event = event_of<Spec>;
  const auto text = [&](const event& each) {
    std::string words = spec.text(each.input);
    words += each.pending() ? " -> pending" : " -> " + spec.text(each.input, each.answer);
    return each.returned == until ? words + "  <== not explained" : words;
  };
  const std::size_t count = shown.steps.size();
  const auto events = [](auto from, auto to) {
    std::vector<event> lines;
    for (; from != to; ++from)
      lines.push_back(*from->event);
    return lines;
  };
  std::string all = "not linearizable: no order of these " + std::to_string(count) +
                    " operations gives these answers\n  state before them: ";
  if (shown.starts.empty()) all += "not found within the bound";
  for (std::size_t i = 0; i < shown.starts.size() && i < 8; ++i)
    all += (i == 0 ? "" : ", or ") + spec.text(shown.starts[i]);
  if (shown.starts.size() > 8) {
    all += ", or one of " + std::to_string(shown.starts.size() - 8) + " others";
  }
  all += '\n';
  const std::size_t hidden = count - std::min(count, most_lines);
  if (hidden != 0) all += "  (" + std::to_string(hidden) + " earlier ones are not shown)\n";
  all += drawn(
      events(shown.steps.end() - static_cast<std::ptrdiff_t>(count - hidden), shown.steps.end()),
      text);
  if (shown.before.empty()) return all;
  return all + "  the last calls before them:\n" +
         drawn(events(shown.before.begin(), shown.before.end()), text);
}

/// Gives each key its own list of calls, in the order in which keys are first met.
template <class Spec>
std::vector<std::vector<step<Spec>>> partitioned(const Spec& spec,
                                                 const std::vector<event_of<Spec>>& events) {
  std::vector<std::vector<step<Spec>>> parts;
  std::unordered_map<std::uint64_t, std::size_t> part_of;
  for (const event_of<Spec>& each : events) {
    std::size_t part = 0;
    if constexpr (requires { spec.key(each.input); }) {
      const auto key = static_cast<std::uint64_t>(spec.key(each.input));
      part = part_of.try_emplace(key, part_of.size()).first->second;
    }
    if (part == parts.size()) parts.emplace_back();
    const bool observes = !each.pending() && spec.observes(each.input, each.answer);
    parts[part].push_back({each.called, each.returned, &each, observes});
  }
  return parts;
}

}  // namespace lin

/// Checks a history, in any order. O(operations) where few calls overlap; exponential in the number
/// that do at worst, until options.max_configurations.
template <sequential_spec Spec>
lin_result<event_of<Spec>> check_linearizable(const Spec& spec, std::vector<event_of<Spec>> history,
                                              const lin_options& options = {}) {
  const auto by_call = [](const auto& a, const auto& b) { return a.called < b.called; };
  if (!std::is_sorted(history.begin(), history.end(), by_call)) {
    std::stable_sort(history.begin(), history.end(), by_call);
  }
  const auto parts = lin::partitioned(spec, history);
  lin_result<event_of<Spec>> result;
  result.operations = history.size();
  result.partitions = parts.size();
  lin::budget left(options.max_configurations);
  lin::search<Spec> search(spec, left);
  const std::vector<lin::step<Spec>>* wrong = nullptr;
  stamp until = never;
  for (const auto& part : parts) {
    auto end = lin::outcome::gave_up;
    if (search.load(part)) {
      end = search.run(spec.initial(), [](const auto&) { return true; });
    }
    if (end == lin::outcome::gave_up) result.answer = verdict::gave_up;
    if (end == lin::outcome::exhausted && search.furthest() < until) {
      wrong = &part;
      until = search.furthest();
    }
  }
  result.configurations = left.used();
  if (wrong != nullptr) {
    result.answer = verdict::not_linearizable;
    result.until = until;
    lin::budget more(options.max_configurations);
    const auto shown = lin::explainer<Spec>(spec, more).explain(*wrong, until);
    for (const auto& each : shown.steps)
      result.window.push_back(*each.event);
    result.report = lin::report_of(spec, shown, until);
  } else if (result.answer == verdict::gave_up) {
    result.report = "gave up after " + std::to_string(result.configurations) +
                    " configurations, or because more than 64 calls overlap";
  }
  return result;
}

}  // namespace veltrix_test
