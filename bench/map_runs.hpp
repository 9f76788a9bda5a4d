// The loops of concurrent_map's measurements over one contender, whose face is
//   Map::name
//   bool visit(key, use)               calls use(const Value&) if the key is there
//   bool insert(key, value)            whether the key was absent
//   void upsert(key, value, change)    inserts the value, or calls change(Value&) on what is there
//   bool erase(key)
//   void reserve(entries)
// and, where the contender can do it in a way of its own,
//   std::size_t visit_batch(keys, count, use)   many look-ups
//   std::size_t snapshot()                      copies all entries; returns how many
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "concurrent_maps.hpp"

namespace veltrix_bench {

inline number value_of(number key) {
  return key >> 1;
}
inline payload value_of(const text& key) {
  payload made;
  made.words.fill(key.size());
  return made;
}

/// Reads a value: all of a number, both cache lines of a payload.
inline void read(number value) {
  keep(value);
}
inline void read(const payload& value) {
  keep(value.words.front() + value.words.back());
}

inline void change(number& value) {
  ++value;
}
inline void change(payload& value) {
  ++value.words.front();
}

template <class Key, class Value, class Map>
class map_runs final : public measured_map<Key, Value> {
 public:
  void reserve(std::size_t entries) override { map_.reserve(entries); }

  std::uint64_t insert(const Key* first, std::uint64_t count) override {
    std::uint64_t inserted = 0;
    for (const Key* key = first; key != first + count; ++key)
      inserted += map_.insert(*key, value_of(*key)) ? 1 : 0;
    return inserted;
  }

  void time_inserts(const Key* first, std::uint64_t count, stall_meter& times) override {
    for (const Key* key = first; key != first + count; ++key)
      times.time([&] { map_.insert(*key, value_of(*key)); });
  }

  std::uint64_t time_upserts(key_walk<Key>& keys, const std::atomic<bool>& over,
                             stall_meter& times) override {
    std::uint64_t done = 0;
    for (; !over.load(std::memory_order_relaxed); ++done) {
      const Key& key = keys.next();
      times.time([&] { map_.upsert(key, value_of(key), [](Value& value) { change(value); }); });
    }
    return done;
  }

  std::size_t snapshot() override {
    if constexpr (requires { map_.snapshot(); }) {
      return map_.snapshot();
    } else {
      return 0;
    }
  }

  std::uint64_t find(key_walk<Key>& keys, std::uint64_t operations) override {
    key_walk<Key> walk = keys;
    std::uint64_t found = 0;
    for (std::uint64_t i = 0; i < operations; ++i)
      found += map_.visit(walk.next(), [](const Value& value) { read(value); }) ? 1 : 0;
    keys = walk;
    return found;
  }

  std::uint64_t find_batches(key_walk<Key>& keys, std::uint64_t operations) override {
    std::uint64_t found = 0;
    if constexpr (requires { map_.visit_batch(keys.keys, 1U, [](const Value&) {}); }) {
      for (std::uint64_t done = 0; done < operations; done += keys_in_a_batch) {
        // A ring's length is a multiple of a batch's: none goes over its end.
        const Key* const first = keys.keys + (keys.at & keys.mask & ~(keys_in_a_batch - 1));
        found += map_.visit_batch(first, keys_in_a_batch, [](const Value& value) { read(value); });
        keys.at += keys_in_a_batch;
      }
    }
    return found;
  }

  std::uint64_t mix(key_walk<Key>& keys, unsigned one_of, std::uint64_t operations) override {
    key_walk<Key> walk = keys;
    std::uint64_t found = 0;
    unsigned until_upsert = 0;
    for (std::uint64_t i = 0; i < operations; ++i) {
      const Key& key = walk.next();
      if (until_upsert-- == 0) {
        map_.upsert(key, value_of(key), [](Value& value) { change(value); });
        until_upsert = one_of - 1;
      } else {
        found += map_.visit(key, [](const Value& value) { read(value); }) ? 1 : 0;
      }
    }
    keys = walk;
    return found;
  }

  std::uint64_t churn(key_walk<Key>& keys, std::size_t alive, std::uint64_t operations) override {
    std::uint64_t changed = 0;
    for (std::size_t i = keys.at; i != keys.at + operations; ++i) {
      const std::size_t here = i / 2;
      if (i % 2 == 0) {
        const Key& key = keys.keys[(here + alive) & keys.mask];
        changed += map_.insert(key, value_of(key)) ? 1 : 0;
      } else {
        changed += map_.erase(keys.keys[here & keys.mask]) ? 1 : 0;
      }
    }
    keys.at += operations;
    return changed;
  }

 private:
  Map map_;
};

template <class Key, class Value, class Map>
map_contender<Key, Value> contender_of(const map_part& part) {
  return {Map::name,
          []() -> std::unique_ptr<measured_map<Key, Value>> {
            return std::make_unique<map_runs<Key, Value, Map>>();
          },
          requires(Map & map, const Key* keys){map.visit_batch(keys, 1U, [](const Value&) {});
}
, part
};  // namespace veltrix_bench
}

/// Adds a contender for numbers and for texts. Not by a template of maps: with g++ 12 those of
/// unnamed namespaces have external linkage there, and the linker takes one file's for all.
template <class Numbers, class Texts>
void add_both(map_contenders& to, const map_part& part = {}) {
  to.numbers.push_back(contender_of<number, number, Numbers>(part));
  to.texts.push_back(contender_of<text, payload, Texts>(part));
}

}  // namespace veltrix_bench
