// boost::concurrent_flat_map (Boost 1.83 or newer), and boost::unordered_flat_map without any lock
// as the floor for one thread.
// SPDX-License-Identifier: BSL-1.0
#include <boost/unordered/concurrent_flat_map.hpp>
#include <boost/unordered/unordered_flat_map.hpp>
#include <cstddef>
#include <utility>
#include <vector>

#include "map_runs.hpp"
#include "peers/unlocked_map.hpp"

namespace veltrix_bench {
namespace {

/// Hash: the default boost::hash. It is the identity for numbers, so the map mixes it by itself.
template <class Key, class Value>
class concurrent_flat_map {
 public:
  static constexpr const char* name = "boost concurrent_flat_map";

  void reserve(std::size_t entries) { map_.reserve(entries); }
  template <class Use>
  bool visit(const Key& key, Use use) const {
    return map_.cvisit(key, [&](const auto& entry) { use(entry.second); }) != 0;
  }
  template <class Use>
  std::size_t visit_batch(const Key* keys, std::size_t count, Use use) const {
    return map_.cvisit(keys, keys + count, [&](const auto& entry) { use(entry.second); });
  }
  bool insert(const Key& key, const Value& value) { return map_.try_emplace(key, value); }
  template <class Change>
  void upsert(const Key& key, const Value& value, Change change) {
    map_.try_emplace_or_visit(key, value, [&](auto& entry) { change(entry.second); });
  }
  bool erase(const Key& key) { return map_.erase(key) != 0; }
  std::size_t snapshot() const {
    std::vector<std::pair<Key, Value>> copies;
    copies.reserve(map_.size());
    map_.cvisit_all([&](const auto& entry) { copies.emplace_back(entry.first, entry.second); });
    return copies.size();
  }

 private:
  boost::concurrent_flat_map<Key, Value> map_;
};

/// Hash: as above.
template <class Key, class Value>
struct boost_flat_map : unlocked_map<boost::unordered_flat_map<Key, Value>> {
  static constexpr const char* name = "unlocked boost unordered_flat_map";
};

}  // namespace

void add_boost_maps(map_contenders& to) {
  add_both<concurrent_flat_map<number, number>, concurrent_flat_map<text, payload>>(
      to, {.large = true});
  add_both<boost_flat_map<number, number>, boost_flat_map<text, payload>>(to, {.shared = false});
}

}  // namespace veltrix_bench
