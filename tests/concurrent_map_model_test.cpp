// concurrent_map beside std::unordered_map: random operations, every answer compared.
// SPDX-License-Identifier: BSL-1.0
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/random.hpp"
#include "support/scale.hpp"
#include "veltrix/concurrent_map.hpp"

namespace {

using veltrix::concurrent_map;
using veltrix::concurrent_map_change;
using veltrix::concurrent_map_options;

using numbers = concurrent_map<int, int>;
using names = concurrent_map<std::string, int>;

/// Hashes everything to one place: every operation walks one chain.
struct crowding_hash {
  std::size_t operator()(int) const { return 7; }
};

/// Does one random operation on the map and the model, and compares what they answer.
template <class Map, class Model>
class random_operations {
 public:
  using key = typename Map::key_type;

  random_operations(Map& map, Model& model, veltrix_test::random_source& random, int keys,
                    key (*make_key)(int))
      : map_(map), model_(model), random_(random), keys_(keys), make_key_(make_key) {}

  /// Result: whether map and model agree.
  bool step() {
    const key k = any_key();
    const auto found = model_.find(k);
    const bool present = found != model_.end();
    const int n = static_cast<int>(random_.below(1'000'000));
    switch (random_.below(20)) {
      case 0: return map_.insert(k, n) == model_.emplace(k, n).second;
      case 1: return map_.insert(std::pair<key, int>(k, n)) == model_.emplace(k, n).second;
      case 2: return map_.emplace(k, n) == model_.emplace(k, n).second;
      case 3: return map_.try_emplace(k, n) == model_.try_emplace(k, n).second;
      case 4: return map_.insert_or_assign(k, n) == changed(model_.insert_or_assign(k, n).second);
      case 5: {
        const bool same = map_.upsert(k, [n](int& value) { value += n; }) == changed(!present);
        model_[k] += n;
        return same;
      }
      case 6: {
        const bool same = map_.upsert(k, n, [n](int& value) { value ^= n; }) == changed(!present);
        present ? model_[k] ^= n : model_[k] = n;
        return same;
      }
      case 7: {
        if (present) found->second -= n;
        return map_.update(k, [n](int& value) { value -= n; }) == present;
      }
      case 8: return map_.erase(k) == model_.erase(k);
      case 9: {
        const bool drop = present && found->second % 2 == 0;
        if (drop) model_.erase(found);
        return map_.erase_if(k, [](int value) { return value % 2 == 0; }) == (drop ? 1U : 0U);
      }
      case 10: return get_or_emplace(k, n);
      case 11: return compute(k, n);
      case 12: return map_.get(k) == (present ? std::optional<int>(found->second) : std::nullopt);
      case 13: return map_.contains(k) == present;
      case 14: {
        const auto held = map_.find(k);
        return present ? held && held.key() == k && *held == found->second : !held;
      }
      case 15: {
        int seen = -1;
        const auto calls = map_.visit(k, [&](int value) { seen = value; });
        return present ? calls == 1 && seen == found->second : calls == 0 && seen == -1;
      }
      case 16: return insert_range(n);
      case 17:
        return map_.size() == model_.size() && map_.approx_size() == model_.size() &&
               map_.empty() == model_.empty();
      case 18: return visit_range();
      default: return rarely(n);
    }
  }

  bool same_contents() const {
    std::size_t seen = 0;
    bool same = true;
    map_.for_each([&](const key& k, int value) {
      const auto at = model_.find(k);
      same = same && at != model_.end() && at->second == value;
      ++seen;
    });
    return same && seen == model_.size();
  }

 private:
  static concurrent_map_change changed(bool inserted) {
    return inserted ? concurrent_map_change::inserted : concurrent_map_change::replaced;
  }
  key any_key() { return make_key_(static_cast<int>(random_.below(static_cast<unsigned>(keys_)))); }

  bool get_or_emplace(const key& k, int n) {
    const auto got = map_.get_or_emplace(k, [n] { return n; });
    const auto expected = model_.emplace(k, n);
    return got.inserted == expected.second && *got.entry == expected.first->second;
  }

  bool compute(const key& k, int n) {
    const auto at = model_.find(k);
    const bool present = at != model_.end();
    const bool leave = n % 3 != 0;
    const auto done = map_.compute(k, [&](std::optional<int>& value) {
      if (leave) {
        value = value.value_or(0) + n;
      } else {
        value.reset();
      }
    });
    if (leave) {
      model_[k] += n;
      return done == changed(!present);
    }
    if (present) model_.erase(at);
    return done == (present ? concurrent_map_change::erased : concurrent_map_change::unchanged);
  }

  bool insert_range(int n) {
    std::vector<std::pair<key, int>> pairs;
    for (std::uint64_t i = random_.below(5); i != 0; --i)
      pairs.emplace_back(any_key(), n);
    std::size_t fresh = 0;
    for (const auto& pair : pairs)
      fresh += model_.insert(pair).second ? 1 : 0;
    return map_.insert(pairs) == fresh;
  }

  bool visit_range() {
    std::vector<key> wanted;
    for (std::uint64_t i = random_.below(5); i != 0; --i)
      wanted.push_back(any_key());
    std::int64_t expected = 0;
    std::size_t present = 0;
    for (const key& each : wanted) {
      if (const auto at = model_.find(each); at != model_.end()) {
        ++present;
        expected += at->second;
      }
    }
    std::int64_t total = 0;
    const auto calls = map_.visit(wanted, [&](const key&, int value) { total += value; });
    return calls == present && total == expected;
  }

  bool rarely(int n) {
    switch (random_.below(64)) {
      case 0:
        map_.clear();
        model_.clear();
        return true;
      case 1: map_.reserve(static_cast<std::size_t>(n % 5000)); return true;
      case 2: map_.rehash(0); return true;
      case 3: {
        std::size_t dropped = 0;
        for (auto at = model_.begin(); at != model_.end();) {
          const bool drop = at->second % 3 == 0;
          dropped += drop ? 1 : 0;
          at = drop ? model_.erase(at) : std::next(at);
        }
        return map_.erase_if([](int value) { return value % 3 == 0; }) == dropped;
      }
      case 4: return merge(n);
      case 5: return map_.snapshot().size() == model_.size();
      default: return true;
    }
  }

  bool merge(int n) {
    Map source(concurrent_map_options{.shards = 4});
    std::size_t fresh = 0;
    for (int i = 0; i < 50; ++i) {
      const key k = any_key();
      if (source.insert(k, n + i)) fresh += model_.emplace(k, n + i).second ? 1 : 0;
    }
    const std::size_t all = source.size();
    return map_.merge(source) == fresh && source.size() == all - fresh;
  }

  Map& map_;
  Model& model_;
  veltrix_test::random_source& random_;
  int keys_;
  key (*make_key_)(int);
};

template <class Map>
void compare_with_model(std::uint64_t seed, const concurrent_map_options& options, int keys,
                        typename Map::key_type (*make_key)(int)) {
  CAPTURE(seed, options.shards, keys);
  veltrix_test::random_source random(seed);
  std::unordered_map<typename Map::key_type, int> model;
  Map map(options);
  random_operations<Map, decltype(model)> operations(map, model, random, keys, make_key);
  const std::size_t steps = veltrix_test::scale(150'000);
  for (std::size_t step = 0; step < steps; ++step) {
    if (!operations.step() || (step % 1024 == 0 && !operations.same_contents())) {
      FAIL("map and model differ after step " << step);
    }
  }
  REQUIRE(operations.same_contents());
}

}  // namespace

TEST_CASE("concurrent_map agrees with std::unordered_map over random operations on numbers") {
  const std::uint64_t seed = GENERATE(1U, 2U, 3U, 4U);
  const auto same = [](int number) { return number; };
  compare_with_model<numbers>(seed, {.shards = 16}, 2000, same);
  compare_with_model<numbers>(seed, {.shards = 1}, 10, same);
}

TEST_CASE("concurrent_map agrees with std::unordered_map over random operations on strings") {
  const std::uint64_t seed = GENERATE(11U, 12U);
  compare_with_model<names>(seed, {.shards = 2}, 300, [](int number) {
    return "a key that does not fit in place " + std::to_string(number);
  });
}

TEST_CASE("concurrent_map agrees with std::unordered_map where every hash is the same") {
  const std::uint64_t seed = 21;
  compare_with_model<concurrent_map<int, int, crowding_hash>>(seed, {.shards = 4}, 40,
                                                              [](int number) { return number; });
}
