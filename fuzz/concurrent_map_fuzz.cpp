// concurrent_map: every operation in one thread, on entries that copy bytewise, small and larger,
// on others, and on those of which only the value does; hash, equality, copies, moves, user
// functions and allocations fail. Model: std::unordered_map, and the rule that an operation that
// throws changes nothing.
// SPDX-License-Identifier: BSL-1.0
#include <cstddef>
#include <cstdint>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "driver.hpp"
#include "support/tracking_allocator.hpp"
#include "veltrix/concurrent_map.hpp"

namespace veltrix_fuzz {
namespace {

using veltrix::concurrent_map_change;
using veltrix_test::faults;
using veltrix_test::faulty_number;
using veltrix_test::plain_block;
using veltrix_test::plain_number;

/// All hashes come from few values, or from many.
struct crowding_hash {
  int values = 5;
  template <class Number>
  std::size_t operator()(const Number& key) const {
    faults::point();
    return static_cast<std::size_t>(key.number() % values);
  }
};

template <class Key, class Value>
using map_of =
    veltrix::concurrent_map<Key, Value, crowding_hash, veltrix_test::faulty_equal,
                            veltrix_test::tracking_allocator<std::pair<const Key, Value>>>;
using plain_map = std::unordered_map<int, int>;
static_assert(veltrix::detail::stands_in_words<plain_number, plain_number>);
static_assert(veltrix::detail::changes_in_place<faulty_number, plain_number>);
static_assert(veltrix::detail::changes_in_place<plain_number, plain_block>);
static_assert(!veltrix::detail::changes_in_place<faulty_number, faulty_number>);

veltrix::concurrent_map_options options(byte_source& from) {
  return {.shards = std::size_t{1} << from.below(3),
          .expected_entries = from.below(40),
          .seed = from.byte()};
}

/// Each is plain_number or, of values, plain_block, which copy bytewise; or faulty_number.
template <class Key, class Value>
class session {
 public:
  using map_type = map_of<Key, Value>;

  session(byte_source& from, veltrix_test::allocation_book& book)
      : from_(from), book_(book), map_(make(options(from))) {}

  void run() {
    for (std::size_t steps = 0; !from_.empty(); ++steps) {
      step();
      agree(map_.size(), model_.size(), "size");
      agree(map_.approx_size(), model_.size(), "approx_size, at rest");
      if (steps % 8 == 0) same_contents();
    }
    check_guards();
    same_contents();
  }

 private:
  map_type make(const veltrix::concurrent_map_options& with) {
    constexpr int values[] = {1, 5, 12, 1000};
    return map_type(with, crowding_hash{values[from_.below(4)]}, veltrix_test::faulty_equal(),
                    typename map_type::allocator_type(book_));
  }

  /// Few keys most of the time, so that operations meet; more of them now and then.
  int any_key() {
    const int byte = from_.byte();
    return byte < 192 ? byte % 24 : byte - 192 + 24;
  }

  void step() {
    const int key = any_key();
    const int value = static_cast<int>(from_.below(100));
    switch (from_.below(24)) {
      case 20: return fill(key, value);
      case 21: return drain(key, value);
      case 22: return merge(key, value);
      case 23: return erase_in_parallel(value);
      case 0: return insert(key, value);
      case 1: return emplace(key, value);
      case 2: return try_emplace(key, value);
      case 3: return insert_or_assign(key, value);
      case 4: return upsert(key, value);
      case 5: return upsert_initial(key, value);
      case 6: return update(key, value);
      case 7: return compute(key, value);
      case 8: return get_or_emplace(key, value);
      case 9:
      case 10: return erase(key);
      case 11: return erase_if(key, value);
      case 12: return get(key);
      case 13: return visit(key);
      case 14: return hold(key);
      case 15: return let_go();
      case 16: return erase_matching(value);
      case 17: return insert_range(key, value);
      case 18: return resize(value);
      default: return rarely(value);
    }
  }

  static int as_change(bool inserted) {
    return static_cast<int>(inserted ? concurrent_map_change::inserted
                                     : concurrent_map_change::replaced);
  }

  /// Keys are made before the fault is armed, so that only the map's own points are hit.
  template <class Operation>
  bool through(const char* name, Operation operation) {
    trace::add(name);
    return got_through(from_, operation);
  }

  void insert(int k, int v) {
    const Key key(k);
    const Value value(v);
    bool did = false;
    if (!through("insert", [&] { did = map_.insert(key, value); })) return;
    agree(did, model_.emplace(k, v).second, "insert");
  }
  void emplace(int k, int v) {
    bool did = false;
    if (!through("emplace", [&] { did = map_.emplace(k, v); })) return;
    agree(did, model_.emplace(k, v).second, "emplace");
  }
  void try_emplace(int k, int v) {
    Key key(k);
    bool did = false;
    if (!through("try_emplace", [&] { did = map_.try_emplace(std::move(key), v); })) return;
    agree(did, model_.emplace(k, v).second, "try_emplace");
    if (!did) agree(key.number(), k, "an argument not used is as it was");
  }
  void insert_or_assign(int k, int v) {
    const Key key(k);
    const Value value(v);
    auto did = concurrent_map_change::unchanged;
    if (!through("insert_or_assign", [&] { did = map_.insert_or_assign(key, value); })) return;
    agree(static_cast<int>(did), as_change(model_.insert_or_assign(k, v).second),
          "insert_or_assign");
  }

  static void set(Value& changed, int number) {
    faults::point();
    changed = Value(number);
  }

  void upsert(int k, int v) {
    const Key key(k);
    auto did = concurrent_map_change::unchanged;
    const auto add = [v](Value& changed) { set(changed, changed.number() + v); };
    if (!through("upsert", [&] { did = map_.upsert(key, add); })) return;
    agree(static_cast<int>(did), as_change(!model_.contains(k)), "upsert");
    model_[k] += v;
  }
  void upsert_initial(int k, int v) {
    const Key key(k);
    auto did = concurrent_map_change::unchanged;
    const auto add = [v](Value& changed) { set(changed, changed.number() + v); };
    const auto make = [v] { return Value(-v); };
    if (!through("upsert-initial", [&] { did = map_.upsert(key, make, add); })) return;
    const auto [at, inserted] = model_.emplace(k, -v);
    if (!inserted) at->second += v;
    agree(static_cast<int>(did), as_change(inserted), "upsert with an initial value");
  }
  void update(int k, int v) {
    const Key key(k);
    bool did = false;
    const auto change = [v](Value& changed) { set(changed, changed.number() - v); };
    if (!through("update", [&] { did = map_.update(key, change); })) return;
    agree(did, model_.contains(k), "update");
    if (did) model_[k] -= v;
  }
  void compute(int k, int v) {
    const Key key(k);
    auto did = concurrent_map_change::unchanged;
    const auto decide = [v](std::optional<Value>& value) {
      faults::point();
      if (v % 3 == 0) {
        value.reset();
      } else if (v % 3 == 1) {
        value = Value((value ? value->number() : 0) + v);
      }
    };
    if (!through("compute", [&] { did = map_.compute(key, decide); })) return;
    const bool present = model_.contains(k);
    auto expected = present ? concurrent_map_change::replaced : concurrent_map_change::unchanged;
    if (v % 3 == 0) {
      if (present) expected = concurrent_map_change::erased;
      model_.erase(k);
    } else if (v % 3 == 1) {
      if (!present) expected = concurrent_map_change::inserted;
      model_[k] += v;
    }
    agree(static_cast<int>(did), static_cast<int>(expected), "compute");
  }
  void get_or_emplace(int k, int v) {
    const Key key(k);
    bool inserted = false;
    int got = 0;
    const auto make = [v] {
      faults::point();
      return Value(v);
    };
    const bool done = through("get_or_emplace", [&] {
      const auto answer = map_.get_or_emplace(key, make);
      inserted = answer.inserted;
      got = answer.entry->number();
    });
    if (!done) return;
    const auto [at, fresh] = model_.emplace(k, v);
    agree(inserted, fresh, "get_or_emplace: who inserted");
    agree(got, at->second, "get_or_emplace: the value");
  }
  void erase(int k) {
    const Key key(k);
    std::size_t did = 0;
    if (!through("erase", [&] { did = map_.erase(key); })) return;
    agree(did, model_.erase(k), "erase");
  }
  void erase_if(int k, int v) {
    const Key key(k);
    std::size_t did = 0;
    const auto smaller = [v](const Value& value) {
      faults::point();
      return value.number() < v;
    };
    if (!through("erase_if", [&] { did = map_.erase_if(key, smaller); })) return;
    const auto at = model_.find(k);
    const bool wanted = at != model_.end() && at->second < v;
    if (wanted) model_.erase(at);
    agree(did, wanted ? 1U : 0U, "erase_if");
  }

  void get(int k) {
    const Key key(k);
    const auto at = model_.find(k);
    bool found = false;
    const bool done = through("get", [&] {
      const auto got = map_.get(key);
      found = got.has_value();
      if (got && at != model_.end()) agree(got->number(), at->second, "get: the value");
    });
    if (done) agree(found, at != model_.end(), "get");
    agree(map_.contains(key), at != model_.end(), "contains");
  }
  void visit(int k) {
    const Key key(k);
    std::vector<Key> keys;
    for (std::size_t i = from_.below(4); i != 0; --i)
      keys.emplace_back(any_key());
    std::size_t expected = model_.contains(k) ? 1 : 0;
    for (const Key& each : keys)
      expected += model_.contains(each.number()) ? 1 : 0;
    std::size_t got = 0;
    std::size_t calls = 0;
    const auto look = [&](const Key& seen, const Value& value) {
      ++calls;
      faults::point();
      agree(value.number(), model_.at(seen.number()), "visit: the value");
    };
    const bool done = through("visit", [&] {
      got = map_.visit(key, look);
      got += map_.visit(keys, look);
    });
    if (done) agree(got, expected, "visit: found");
    if (done) agree(calls, expected, "visit: calls");
  }

  /// A guard keeps what it saw, whatever happens to its key.
  void hold(int k) {
    if (guards_.size() == 40) return;
    const Key key(k);
    typename map_type::guard held;
    if (!through("find", [&] { held = map_.find(key); })) return;
    const auto at = model_.find(k);
    agree(static_cast<bool>(held), at != model_.end(), "find");
    if (held) guards_.emplace_back(std::move(held), std::pair(k, at->second));
  }
  void check_guards() const {
    for (const auto& [held, seen] : guards_) {
      agree(held.key().number(), seen.first, "a guard keeps the key");
      agree(held->number(), seen.second, "a guard keeps the value");
    }
  }
  void let_go() {
    trace::add("let-go");
    check_guards();
    if (!guards_.empty()) guards_.erase(guards_.begin());
  }

  /// Shard by shard: if the predicate throws, what was erased stays erased.
  void erase_matching(int v) {
    std::size_t did = 0;
    const auto odd = [v](const Key& key, const Value&) {
      faults::point();
      return key.number() % 2 == v % 2;
    };
    const plain_map before = model_;
    const bool done = through("erase_if-all", [&] { did = map_.erase_if(odd); });
    std::erase_if(model_, [v](const auto& each) { return each.first % 2 == v % 2; });
    if (done) {
      agree(did, before.size() - model_.size(), "erase_if over all");
    } else {
      adopt_between(model_, before);
    }
  }
  void insert_range(int k, int v) {
    std::vector<std::pair<Key, Value>> pairs;
    for (std::size_t i = from_.below(6); i != 0; --i) {
      pairs.emplace_back(Key(static_cast<int>((static_cast<std::size_t>(k) + i) % 24)), Value(v));
    }
    std::size_t did = 0;
    const plain_map before = model_;
    const bool done = through("insert-range", [&] { did = map_.insert(pairs); });
    for (const auto& [key, value] : pairs)
      model_.emplace(key.number(), v);
    if (done) {
      agree(did, model_.size() - before.size(), "insert of a range");
    } else {
      adopt_between(before, model_);
    }
  }

  /// Many keys one after the other, so that tables grow; the first that fails ends it.
  void fill(int k, int v) {
    const int end = k + v;
    for (bool done = true; done && k < end; ++k) {
      const Key key(k);
      const Value value(v);
      bool did = false;
      done = through("fill", [&] { did = map_.insert(key, value); });
      if (done) agree(did, model_.emplace(k, v).second, "fill");
    }
  }
  void drain(int k, int v) {
    const int end = k + v;
    for (bool done = true; done && k < end; ++k) {
      const Key key(k);
      std::size_t did = 0;
      done = through("drain", [&] { did = map_.erase(key); });
      if (done) agree(did, model_.erase(k), "drain");
    }
  }

  /// A key that moves is in one of the two maps afterwards, whatever throws.
  void merge(int k, int v) {
    map_type source = make({.shards = std::size_t{1} << from_.below(2), .seed = from_.byte()});
    plain_map others;
    for (int i = v % 16; i >= 0; --i) {
      source.insert(Key(k + 3 * i), Value(v));
      others.emplace(k + 3 * i, v);
    }
    std::size_t moved = 0;
    const bool done = through("merge", [&] { moved = map_.merge(source); });
    std::size_t gone = 0;
    for (const auto& [key, value] : others) {
      const bool stayed = source.contains(Key(key));
      gone += stayed ? 0 : 1;
      if (stayed) continue;
      require(model_.emplace(key, value).second, "merge moved a key that was there");
    }
    for (const auto& [key, value] : others)
      agree(map_.contains(Key(key)), model_.contains(key), "merge: half done");
    if (!done) return;
    agree(moved, gone, "merge");
    for (const auto& [key, value] : others)
      require(model_.contains(key), "merge left a key that was absent");
  }

  void erase_in_parallel(int v) {
    std::size_t did = 0;
    const plain_map before = model_;
    const auto third = [v](const Key& key, const Value&) {
      faults::point();
      return key.number() % 3 == v % 3;
    };
    const bool done = through("erase_if-parallel",
                              [&] { did = map_.erase_if(veltrix::inline_executor{}, third); });
    std::erase_if(model_, [v](const auto& each) { return each.first % 3 == v % 3; });
    if (done) {
      agree(did, before.size() - model_.size(), "erase_if over all, in parallel");
    } else {
      adopt_between(model_, before);
    }
  }

  /// After an operation on many keys threw: each key is as before or as after, nothing else.
  void adopt_between(const plain_map& least, const plain_map& most) {
    plain_map now;
    map_.for_each(
        [&](const Key& key, const Value& value) { now.emplace(key.number(), value.number()); });
    for (const auto& [key, value] : now) {
      const auto at = most.find(key);
      require(at != most.end() && at->second == value, "half done: a key that nobody put there");
    }
    for (const auto& [key, value] : least)
      require(now.contains(key), "half done: a key is gone that had to stay");
    model_ = std::move(now);
  }

  void resize(int v) {
    const auto wanted = static_cast<std::size_t>(v);
    static_cast<void>(through("rehash", [&] { map_.rehash(wanted * 4); }));
    static_cast<void>(through("reserve", [&] { map_.reserve(wanted); }));
  }
  void rarely(int v) {
    if (v % 4 == 0) {
      trace::add("clear");
      map_.clear();
      model_.clear();
      return;
    }
    std::size_t copied = 0;
    if (through("snapshot", [&] { copied = map_.snapshot().size(); })) {
      agree(copied, model_.size(), "snapshot");
    }
    agree(map_.stats().entries, model_.size(), "stats: entries");
    agree(map_.empty(), model_.empty(), "empty");
  }

  void same_contents() {
    std::size_t seen = 0;
    map_.for_each([&](const Key& key, const Value& value) {
      const auto at = model_.find(key.number());
      require(at != model_.end(), "for_each shows a key that nobody put there");
      agree(value.number(), at->second, "for_each: the value");
      ++seen;
    });
    agree(seen, model_.size(), "for_each shows every entry once");
  }

  byte_source& from_;
  veltrix_test::allocation_book& book_;
  map_type map_;
  plain_map model_;
  std::vector<std::pair<typename map_type::guard, std::pair<int, int>>>
      guards_;  // ends before the map
};

}  // namespace

void one_input(byte_source& from) {
  veltrix_test::allocation_book book;
  {
    const unsigned kind = from.byte() % 4U;
    if (kind == 1) {
      session<plain_number, plain_number>(from, book).run();
    } else if (kind == 3) {
      session<plain_number, plain_block>(from, book).run();
    } else if (kind == 2) {
      session<faulty_number, plain_number>(from, book).run();
    } else {
      session<faulty_number, faulty_number>(from, book).run();
    }
  }
  agree(book.live_blocks.load(), 0U, "blocks given back");
  agree(faulty_number::alive(), 0, "keys and values alive at the end");
}

}  // namespace veltrix_fuzz
