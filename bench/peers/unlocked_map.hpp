// A map of the standard's interface without any lock: the floor, for one thread.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>

namespace veltrix_bench {

template <class Map>
class unlocked_map {
 public:
  using key = typename Map::key_type;
  using value = typename Map::mapped_type;

  void reserve(std::size_t entries) { map_.reserve(entries); }
  template <class Use>
  bool visit(const key& wanted, Use use) const {
    const auto found = map_.find(wanted);
    if (found == map_.end()) return false;
    use(found->second);
    return true;
  }
  bool insert(const key& fresh, const value& initial) {
    return map_.try_emplace(fresh, initial).second;
  }
  template <class Change>
  void upsert(const key& wanted, const value& initial, Change change) {
    const auto [at, inserted] = map_.try_emplace(wanted, initial);
    if (!inserted) change(at->second);
  }
  bool erase(const key& wanted) { return map_.erase(wanted) != 0; }

 private:
  Map map_;
};

}  // namespace veltrix_bench
