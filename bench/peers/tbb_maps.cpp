// tbb::concurrent_hash_map: a lock per bucket for a moment, and one per entry while it is used.
// SPDX-License-Identifier: BSL-1.0
#include <oneapi/tbb/concurrent_hash_map.h>

#include <cstddef>

#include "map_runs.hpp"

namespace veltrix_bench {
namespace {

/// Hash: the default tbb_hash_compare: std::hash times a constant.
template <class Key, class Value>
class hash_map {
  using map = tbb::concurrent_hash_map<Key, Value>;

 public:
  static constexpr const char* name = "TBB concurrent_hash_map";

  void reserve(std::size_t entries) { map_.rehash(entries); }
  template <class Use>
  bool visit(const Key& key, Use use) const {
    typename map::const_accessor found;
    if (!map_.find(found, key)) return false;
    use(found->second);
    return true;
  }
  bool insert(const Key& key, const Value& value) { return map_.insert({key, value}); }
  template <class Change>
  void upsert(const Key& key, const Value& value, Change change) {
    typename map::accessor at;
    if (map_.insert(at, key)) {
      at->second = value;
    } else {
      change(at->second);
    }
  }
  bool erase(const Key& key) { return map_.erase(key); }

 private:
  map map_;
};

}  // namespace

void add_tbb_maps(map_contenders& to) {
  add_both<hash_map<number, number>, hash_map<text, payload>>(to);
}

}  // namespace veltrix_bench
