// concurrent_map as a contender of its own bench, by each of its ways to look a key up.
// SPDX-License-Identifier: BSL-1.0
#include <cstddef>
#include <optional>
#include <span>

#include "map_runs.hpp"
#include "veltrix/concurrent_map.hpp"

namespace veltrix_bench {
namespace {

/// Hash: the default, std::hash mixed with the map's seed.
template <class Key, class Value>
class by_visit {
 public:
  static constexpr const char* name = "concurrent_map";

  void reserve(std::size_t entries) { map_.reserve(entries); }
  template <class Use>
  bool visit(const Key& key, Use use) const {
    return map_.visit(key, use) != 0;
  }
  template <class Use>
  std::size_t visit_batch(const Key* keys, std::size_t count, Use use) const {
    return map_.visit(std::span<const Key>(keys, count), use);
  }
  bool insert(const Key& key, const Value& value) { return map_.insert(key, value); }
  template <class Change>
  void upsert(const Key& key, const Value& value, Change change) {
    map_.upsert(key, value, change);
  }
  bool erase(const Key& key) { return map_.erase(key) != 0; }
  std::size_t snapshot() const { return map_.snapshot().size(); }

 protected:
  veltrix::concurrent_map<Key, Value> map_;
};

/// A second map of the same kind: how far it differs from the first is the noise.
template <class Key, class Value>
class by_visit_again : public by_visit<Key, Value> {
 public:
  static constexpr const char* name = "concurrent_map again";
};

template <class Key, class Value>
class by_get : public by_visit<Key, Value> {
 public:
  static constexpr const char* name = "concurrent_map get()";
  template <class Use>
  bool visit(const Key& key, Use use) const {
    const std::optional<Value> found = this->map_.get(key);
    if (found) use(*found);
    return found.has_value();
  }
};

template <class Key, class Value>
class by_find : public by_visit<Key, Value> {
 public:
  static constexpr const char* name = "concurrent_map find()";
  template <class Use>
  bool visit(const Key& key, Use use) const {
    const auto found = this->map_.find(key);
    if (found) use(found.value());
    return static_cast<bool>(found);
  }
};

}  // namespace

void add_concurrent_map(map_contenders& to) {
  add_both<by_visit<number, number>, by_visit<text, payload>>(to, {.large = true});
  add_both<by_visit_again<number, number>, by_visit_again<text, payload>>(to,
                                                                          {.only = "hit uniform"});
  add_both<by_get<number, number>, by_get<text, payload>>(to, {.only = "hit"});
  add_both<by_find<number, number>, by_find<text, payload>>(to, {.only = "hit"});
}

}  // namespace veltrix_bench
