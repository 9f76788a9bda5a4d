// libcuckoo::cuckoohash_map: two buckets per key, under spin locks.
// SPDX-License-Identifier: BSL-1.0
#include <cstddef>
#include <libcuckoo/cuckoohash_map.hh>

#include "map_runs.hpp"

namespace veltrix_bench {
namespace {

/// Hash: the default std::hash, whose low bits are the bucket: it suits keys that are spread, as
/// these are.
template <class Key, class Value>
class cuckoo_map {
 public:
  static constexpr const char* name = "libcuckoo";

  void reserve(std::size_t entries) { map_.reserve(entries); }
  template <class Use>
  bool visit(const Key& key, Use use) const {
    return map_.find_fn(key, [&](const Value& value) { use(value); });
  }
  bool insert(const Key& key, const Value& value) { return map_.insert(key, value); }
  template <class Change>
  void upsert(const Key& key, const Value& value, Change change) {
    map_.upsert(key, [&](Value& present) { change(present); }, value);
  }
  bool erase(const Key& key) { return map_.erase(key); }

 private:
  libcuckoo::cuckoohash_map<Key, Value> map_;
};

}  // namespace

void add_libcuckoo_maps(map_contenders& to) {
  add_both<cuckoo_map<number, number>, cuckoo_map<text, payload>>(to);
}

}  // namespace veltrix_bench
