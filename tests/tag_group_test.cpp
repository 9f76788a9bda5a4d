// The tags of a map's table, compared with a look at each byte by itself: with the vector unit
// where there is one, and by the arithmetic that stands in for it elsewhere.
// SPDX-License-Identifier: BSL-1.0
#include <cstddef>
#include <cstdint>
#include <set>

#include "support/catch.hpp"
#include "support/random.hpp"
#include "veltrix/detail/tag_group.hpp"

using veltrix::detail::hash_parts;
using veltrix::detail::seen_tags;
using veltrix::detail::slot_set;

namespace {

std::set<unsigned> slots_of(slot_set set) {
  std::set<unsigned> found;
  for (; !set.empty(); set.drop_first())
    found.insert(set.first());
  return found;
}

template <std::size_t Words>
void check_group(const seen_tags<Words>& group, std::uint8_t tag) {
  std::set<unsigned> equal, used;
  unsigned bits = 0;
  for (unsigned i = 0; i < Words * 8; ++i) {
    const auto byte = static_cast<std::uint8_t>(group.words[i / 8] >> (8 * (i % 8)));
    if (byte == tag) bits |= 1U << i;
    if (i == Words * 8 - 1) continue;  // the marks of overflow are no tag
    if (byte == tag) equal.insert(i);
    if (byte != 0) used.insert(i);
  }
  CHECK(slots_of(group.matching(tag)) == equal);
  CHECK(slots_of(group.used()) == used);
  CHECK(group.equal_bytes_anywhere(tag) == bits);
}

/// Groups of few values beside each other, where a carry would do harm, and of any.
template <std::size_t Words>
void check_groups(std::uint64_t seed) {
  INFO("seed " << seed);
  veltrix_test::random_source draw(seed);
  constexpr std::uint8_t few[] = {0x00, 0x01, 0x02, 0x7f, 0x80, 0x81, 0xfe, 0xff};
  for (int i = 0; i < 20'000; ++i) {
    seen_tags<Words> group{};
    for (std::uint64_t& word : group.words) {
      for (unsigned shift = 0; shift < 64; shift += 8) {
        const auto any = static_cast<std::uint8_t>(draw.below(256));
        const std::uint8_t byte = i % 2 == 0 ? few[any % 8] : any;
        word |= std::uint64_t{byte} << shift;
      }
    }
    const auto any = static_cast<std::uint8_t>(draw.below(256));
    check_group(group, few[any % 8]);
    check_group(group, any);
  }
}

}  // namespace

TEST_CASE("tag_group finds the slots of a tag as a look at each byte does") {
  check_groups<1>(1);
  check_groups<2>(2);
}

TEST_CASE("tag_group tells overflow by the eighth of the hashes it was marked for") {
  for (std::uint64_t eighth = 0; eighth < 8; ++eighth) {
    veltrix::detail::tag_group<2> group;
    group.set(3, 0x55);
    group.mark_overflow(eighth << 40);
    for (std::uint64_t other = 0; other < 8; ++other)
      CHECK(group.look().overflow().tells(other << 40) == (other == eighth));
    CHECK(slots_of(group.look().used()) == std::set<unsigned>{3});
  }
}

TEST_CASE("tag_group takes no tag of a key for an empty slot") {
  for (std::uint64_t part = 0; part < 256; ++part)
    CHECK(hash_parts::tag(part << 32) == (part == 0 ? 1 : part));
}
