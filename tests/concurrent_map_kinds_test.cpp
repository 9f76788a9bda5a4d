// concurrent_map over kinds of keys and values that it may store and compare differently: each is
// taken through filling, drifting and draining tables beside std::unordered_map.
// SPDX-License-Identifier: BSL-1.0
#include <cstddef>
#include <cstdint>

#include "support/catch.hpp"
#include "support/map_agreement.hpp"
#include "support/scale.hpp"

namespace {

using namespace veltrix_test;

/// One shard or two, so that each table is large for its map; a new seed for each.
template <class Kind>
void agrees_with_the_model(std::size_t steps = 15'000, std::uint32_t keys = 2'000) {
  for (const std::size_t shards : {1U, 2U}) {
    const std::uint64_t seed = 500 + shards;
    CAPTURE(seed, shards, keys);
    map_of<Kind> map({.shards = shards, .seed = seed});
    map_agreement<Kind> both(map, seed, keys);
    REQUIRE_NOTHROW(both.run(scale(steps), keys / 2));   // fill
    REQUIRE_NOTHROW(both.run(scale(steps), keys / 2));   // drift: others, as many
    REQUIRE_NOTHROW(both.run(scale(steps), keys / 50));  // drain
    map.rehash(0);
    REQUIRE_NOTHROW(both.run(scale(steps), keys / 5));
    CHECK(both.found() > scale(steps) / 8);
    CHECK(both.missed() > scale(steps) / 8);
  }
}

}  // namespace

TEST_CASE("concurrent_map agrees with a model on small entries that copy bytewise") {
  agrees_with_the_model<word_to_word>();
  agrees_with_the_model<number_to_byte>();
  agrees_with_the_model<enum_to_nan>();
  agrees_with_the_model<wide_to_nothing>();
}

TEST_CASE("concurrent_map agrees with a model on small entries whose bytes do not decide") {
  agrees_with_the_model<padded_to_padded>();
  agrees_with_the_model<view_to_number>();
  agrees_with_the_model<fixed_to_fixed>();
  agrees_with_the_model<long_double_to_pointer>();
}

TEST_CASE("concurrent_map agrees with a model on entries of many bytes") {
  agrees_with_the_model<word_to_block<block<9>>>();
  agrees_with_the_model<word_to_block<block<63>>>();
  agrees_with_the_model<word_to_block<block<64>>>();
  agrees_with_the_model<word_to_block<block<65>>>();
  agrees_with_the_model<text_to_block>();
  agrees_with_the_model<text_to_fixed>();
  agrees_with_the_model<long_key_to_byte>();
}

TEST_CASE("concurrent_map agrees with a model on entries with constructors of their own") {
  agrees_with_the_model<text_to_text>();
  agrees_with_the_model<word_to_owner>();
  agrees_with_the_model<word_to_self_pointing>();
}

TEST_CASE("concurrent_map agrees with a model on over-aligned values") {
  agrees_with_the_model<word_to_block<block<64, 64>>>();
  agrees_with_the_model<word_to_block<block<4096, 4096>>>(3'000, 100);
}
