// A concurrent_map beside std::unordered_map: random operations of its whole API, every answer
// compared, in phases that fill the tables, let entries drift through them, and drain them.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include "support/map_kinds.hpp"
#include "support/random.hpp"

namespace veltrix_test {

template <class Kind>
using map_of = veltrix::concurrent_map<typename Kind::key, typename Kind::value,
                                       typename Kind::hash, typename Kind::equal>;

/// Map and model, kept in step. A difference is a std::logic_error that says which and when.
template <class Kind, class Map = map_of<Kind>>
class map_agreement {
 public:
  using value = typename Kind::value;
  using change = veltrix::concurrent_map_change;
  using number = std::uint32_t;
  static constexpr bool copies =
      std::is_copy_constructible_v<typename Kind::key> && std::is_copy_constructible_v<value>;

  map_agreement(Map& map, std::uint64_t seed, number keys)
      : map_(map), random_(seed), keys_(keys) {}

  /// `steps` random operations; half of them add a key where `size` is not reached, or take one
  /// away where it is, so that the map goes there and stays, with other keys all the time.
  void run(std::size_t steps, std::size_t size) {
    for (std::size_t i = 0; i < steps; ++i) {
      ++step_;
      if (random_.below(2) == 0) {
        model_.size() < size ? insert() : erase_some();
      } else {
        any_operation();
      }
      if (step_ % 64 == 0) hold();
      if (step_ % 4096 == 0) same_contents();
    }
    same_contents();
  }

  void same_contents() {
    std::size_t seen = 0;
    map_.for_each([&](const auto& k, const auto& v) {
      ++seen;
      const auto at = model_.find(Kind::number_of_key(k));
      agree(at != model_.end(), "for_each shows a key that is not there");
      agree(at->second == Kind::number_of_value(v), "for_each shows another value");
    });
    agree(seen == model_.size(), "for_each shows every entry once");
    agree(map_.size() == model_.size(), "size");
    agree(map_.approx_size() == model_.size(), "approx_size, at rest");
    agree(map_.empty() == model_.empty(), "empty");
    agree(map_.stats().entries == model_.size(), "stats().entries");
    for (const auto& held : held_)
      still(held);
  }

  /// Operations so far that found their key, and that did not.
  [[nodiscard]] std::size_t found() const { return found_; }
  [[nodiscard]] std::size_t missed() const { return missed_; }
  [[nodiscard]] const std::unordered_map<number, number>& model() const { return model_; }

 private:
  using model_type = std::unordered_map<number, number>;
  struct held_entry {
    typename Map::guard guard;
    number key;
    number value;
  };

  void agree(bool same, const char* what) const {
    if (!same) throw std::logic_error(std::string(what) + ", at step " + std::to_string(step_));
  }
  number any_key() { return static_cast<number>(random_.below(keys_)); }
  number any_value() { return static_cast<number>(random_.below(Kind::values)); }
  static change changed(bool inserted) { return inserted ? change::inserted : change::replaced; }
  /// By construction, as values need not be assignable.
  static void put(value& at, number n) {
    std::destroy_at(std::addressof(at));
    std::construct_at(std::addressof(at), Kind::make_value(n));
  }
  bool look(number k) {
    const bool present = model_.contains(k);
    ++(present ? found_ : missed_);
    return present;
  }

  void any_operation() {
    switch (random_.below(16)) {
      case 0:
      case 1: return insert();
      case 2: return assign();
      case 3: return update();
      case 4: return upsert();
      case 5: return compute();
      case 6: return get_or_emplace();
      case 7: return erase();
      case 8: return erase_if();
      case 9:
      case 10:
      case 11: return look_up();
      case 12: return visit_range();
      case 13: return insert_range();
      case 14: return let_go();
      default: return rarely();
    }
  }

  void insert() {
    const number k = any_key();
    const number v = any_value();
    look(k);
    const bool fresh = model_.emplace(k, v).second;
    switch (random_.below(4)) {
      case 0: return agree(map_.insert(Kind::make_key(k), Kind::make_value(v)) == fresh, "insert");
      case 1:
        return agree(map_.try_emplace(Kind::make_key(k), Kind::make_value(v)) == fresh,
                     "try_emplace");
      case 2:
        return agree(map_.emplace(Kind::make_key(k), Kind::make_value(v)) == fresh, "emplace");
      default:
        return agree(map_.insert(std::pair<typename Kind::key, value>(
                         Kind::make_key(k), Kind::make_value(v))) == fresh,
                     "insert of a pair");
    }
  }
  void insert_range() {
    if constexpr (copies) {
      std::vector<std::pair<typename Kind::key, value>> pairs;
      std::size_t fresh = 0;
      for (std::uint64_t i = random_.below(6); i != 0; --i) {
        const number k = any_key();
        const number v = any_value();
        pairs.emplace_back(Kind::make_key(k), Kind::make_value(v));
        fresh += model_.emplace(k, v).second ? 1 : 0;
      }
      agree(map_.insert(pairs) == fresh, "insert of a range");
    }
  }
  void assign() {
    const number k = any_key();
    const number v = any_value();
    look(k);
    const auto done = map_.insert_or_assign(Kind::make_key(k), Kind::make_value(v));
    agree(done == changed(model_.insert_or_assign(k, v).second), "insert_or_assign");
  }
  void update() {
    if constexpr (copies) {
      const number k = any_key();
      const number v = any_value();
      const bool present = look(k);
      const bool done = map_.update(Kind::make_key(k), [&](value& now) {
        agree(present && Kind::number_of_value(now) == model_[k], "update shows the value");
        put(now, v);
      });
      agree(done == present, "update");
      if (present) model_[k] = v;
    }
  }
  void upsert() {
    if constexpr (copies) {
      const number k = any_key();
      const number v = any_value();
      const bool present = look(k);
      const auto replace = [&](value& now) {
        agree(present && Kind::number_of_value(now) == model_[k], "upsert shows the value");
        put(now, v);
      };
      auto done = change::unchanged;
      switch (random_.below(3)) {
        case 0: done = map_.upsert(Kind::make_key(k), Kind::make_value(v), replace); break;
        case 1:
          done = map_.upsert(Kind::make_key(k), [v] { return Kind::make_value(v); }, replace);
          break;
        default:
          if constexpr (std::is_default_constructible_v<value>) {
            done = map_.upsert(Kind::make_key(k), [&](value& now) { put(now, v); });
          } else {
            done = map_.upsert(Kind::make_key(k), Kind::make_value(v), replace);
          }
      }
      agree(done == changed(!present), "upsert");
      model_[k] = v;
    }
  }
  void compute() {
    if constexpr (copies) {
      const number k = any_key();
      const number v = any_value();
      const std::uint64_t what = random_.below(3);
      const bool present = look(k);
      const auto done = map_.compute(Kind::make_key(k), [&](std::optional<value>& now) {
        agree(now.has_value() == present, "compute shows whether the key is there");
        if (present) agree(Kind::number_of_value(*now) == model_[k], "compute shows the value");
        if (what == 0) now.reset();
        if (what == 1) now.emplace(Kind::make_value(v));
      });
      auto expected = present ? change::replaced : change::unchanged;
      if (what == 0) {
        if (model_.erase(k) != 0) expected = change::erased;
      } else if (what == 1) {
        model_[k] = v;
        expected = changed(!present);
      }
      agree(done == expected, "compute");
    }
  }
  void get_or_emplace() {
    const number k = any_key();
    const number v = any_value();
    look(k);
    const auto expected = model_.emplace(k, v);
    auto got = map_.get_or_emplace(Kind::make_key(k), [v] { return Kind::make_value(v); });
    agree(got.inserted == expected.second, "get_or_emplace says who made it");
    agree(Kind::number_of_key(got.entry.key()) == k, "get_or_emplace shows the key");
    agree(Kind::number_of_value(*got.entry) == expected.first->second,
          "get_or_emplace shows the value");
    keep(std::move(got.entry), k, expected.first->second);
  }

  void erase() {
    const number k = any_key();
    look(k);
    agree(map_.erase(Kind::make_key(k)) == model_.erase(k), "erase");
  }
  /// A key that is there, if it is found soon: erasures keep pace with insertions then.
  void erase_some() {
    number k = any_key();
    for (int i = 0; i < 16 && !model_.contains(k); ++i)
      k = any_key();
    agree(map_.erase(Kind::make_key(k)) == model_.erase(k), "erase");
  }
  void erase_if() {
    const number k = any_key();
    const number v = any_value();
    const bool present = look(k);
    const bool drop = present && model_[k] < v;
    const auto done = map_.erase_if(Kind::make_key(k), [&](const auto& key, const auto& now) {
      agree(Kind::number_of_key(key) == k && Kind::number_of_value(now) == model_[k],
            "erase_if shows the entry");
      return Kind::number_of_value(now) < v;
    });
    agree(done == (drop ? 1U : 0U), "erase_if");
    if (drop) model_.erase(k);
  }

  void look_up() {
    const number k = any_key();
    const auto at = model_.find(k);
    const bool present = look(k);
    const auto key = Kind::make_key(k);
    agree(map_.contains(key) == present, "contains");
    if constexpr (copies) {
      const auto got = map_.get(key);
      agree(got.has_value() == present, "get");
      if (got) agree(Kind::number_of_value(*got) == at->second, "get shows the value");
    }
    const auto held = map_.find(key);
    agree(static_cast<bool>(held) == present, "find");
    if (held) {
      agree(Kind::number_of_key(held.key()) == k, "find shows the key");
      agree(Kind::number_of_value(*held) == at->second, "find shows the value");
    }
    std::size_t calls = 0;
    const auto told = map_.visit(key, [&](const auto& seen, const auto& v) {
      ++calls;
      agree(Kind::number_of_key(seen) == k, "visit shows the key");
      agree(Kind::number_of_value(v) == at->second, "visit shows the value");
    });
    agree(told == calls && calls == (present ? 1U : 0U), "visit");
  }
  void visit_range() {
    std::vector<typename Kind::key> keys;
    std::vector<number> expected;
    for (std::uint64_t i = random_.below(20); i != 0; --i) {
      const number k = any_key();
      keys.push_back(Kind::make_key(k));
      if (model_.contains(k)) expected.push_back(k);
    }
    std::vector<number> seen;
    const auto told = map_.visit(keys, [&](const auto& k, const auto& v) {
      seen.push_back(Kind::number_of_key(k));
      agree(Kind::number_of_value(v) == model_.at(seen.back()), "visit of a range: the value");
    });
    agree(told == seen.size() && seen == expected, "visit of a range, in its order");
  }

  void hold() {
    const number k = any_key();
    if (auto held = map_.find(Kind::make_key(k))) keep(std::move(held), k, model_.at(k));
  }
  void keep(typename Map::guard&& guard, number k, number v) {
    if (held_.size() < 40) held_.push_back({std::move(guard), k, v});
  }
  void still(const held_entry& held) const {
    agree(Kind::number_of_key(held.guard.key()) == held.key, "a guard keeps its key");
    agree(Kind::number_of_value(*held.guard) == held.value, "a guard keeps its value");
  }
  void let_go() {
    if (held_.empty()) return;
    std::swap(held_[random_.below(held_.size())], held_.back());
    still(held_.back());
    held_.pop_back();
  }

  void rarely() {
    switch (random_.below(48)) {
      case 0: return clear();
      case 1:
      case 2: return map_.reserve(random_.below(2 * model_.size() + 10));
      case 3:
      case 4:
      case 5: return map_.rehash(0);
      case 6: return map_.rehash(random_.below(8 * model_.size() + 10));
      case 7:
      case 8: return erase_many();
      case 9:
      case 10: return merge();
      case 11: return snapshot();
      default: return look_up();
    }
  }
  void clear() {
    map_.clear();
    model_.clear();
    agree(map_.empty(), "clear");
  }
  void erase_many() {
    const number part = 2 + static_cast<number>(random_.below(6));
    const auto done = map_.erase_if(
        [&](const auto& k, const auto&) { return Kind::number_of_key(k) % part == 1; });
    agree(done == std::erase_if(model_, [&](const auto& e) { return e.first % part == 1; }),
          "erase_if over all");
  }
  void merge() {
    Map source({.shards = std::size_t{1} << random_.below(4)});
    model_type others;
    for (std::uint64_t i = random_.below(60); i != 0; --i) {
      const number k = any_key();
      const number v = any_value();
      agree(source.insert(Kind::make_key(k), Kind::make_value(v)) == others.emplace(k, v).second,
            "insert into the source of a merge");
    }
    std::size_t moved = 0;
    for (auto at = others.begin(); at != others.end();) {
      const bool fresh = model_.insert(*at).second;
      moved += fresh ? 1 : 0;
      at = fresh ? others.erase(at) : std::next(at);
    }
    agree(map_.merge(source) == moved, "merge");
    source.for_each([&](const auto& k, const auto& v) {
      const auto at = others.find(Kind::number_of_key(k));
      agree(at != others.end() && at->second == Kind::number_of_value(v), "what merge leaves");
    });
    agree(source.size() == others.size(), "how much merge leaves");
  }
  void snapshot() {
    if constexpr (copies) {
      const auto all = map_.snapshot();
      agree(all.size() == model_.size(), "snapshot copies every entry");
      for (const auto& [k, v] : all) {
        const auto at = model_.find(Kind::number_of_key(k));
        agree(at != model_.end() && at->second == Kind::number_of_value(v), "snapshot's entries");
      }
    }
  }

  Map& map_;
  random_source random_;
  number keys_;
  model_type model_;
  std::vector<held_entry> held_;  // ends before the map
  std::size_t step_ = 0;
  std::size_t found_ = 0;
  std::size_t missed_ = 0;
};

}  // namespace veltrix_test
