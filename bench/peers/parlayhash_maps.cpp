// parlay::parlay_unordered_map (github.com/cmuparlay/parlayhash): reads without a lock or a shared
// write, entries in their buckets for numbers, behind a pointer for texts.
// SPDX-License-Identifier: BSL-1.0
#include <parlay_hash/unordered_map.h>
#include <cstddef>
#include <optional>

#include "map_runs.hpp"

namespace veltrix_bench {
namespace {

/// Hash: the default std::hash. Its low bits are the bucket: it suits keys that are spread.
template <class Key, class Value>
class parlay_map {
 public:
  static constexpr const char* name = "parlayhash";

  void reserve(std::size_t entries) { map_.emplace(static_cast<long>(entries)); }
  template <class Use>
  bool visit(const Key& key, Use use) {
    return map_
        ->Find(key,
               [&](const auto& entry) {
                 use(entry.second);
                 return true;
               })
        .has_value();
  }
  bool insert(const Key& key, const Value& value) { return !map_->Insert(key, value); }
  template <class Change>
  void upsert(const Key& key, const Value& value, Change change) {
    map_->Upsert(key, [&](const std::optional<Value>& present) {
      Value changed = value;
      if (present) change(changed = *present);
      return changed;
    });
  }
  bool erase(const Key& key) { return map_->Remove(key).has_value(); }

 private:
  std::optional<parlay::parlay_unordered_map<Key, Value>> map_{std::in_place};
};

}  // namespace

void add_parlayhash_maps(map_contenders& to) {
  add_both<parlay_map<number, number>, parlay_map<text, payload>>(to);
}

}  // namespace veltrix_bench
