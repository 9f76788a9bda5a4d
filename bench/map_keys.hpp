// The keys of concurrent_map's measurements: key_of<Key>(i), all different, in no order.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>

namespace veltrix_bench {

/// The finalizer of splitmix64 (Steele, Lea, Flood, OOPSLA 2014): one to one, so all keys differ.
inline std::uint64_t spread(std::uint64_t index) {
  index += 0x9e3779b97f4a7c15ULL;
  index = (index ^ (index >> 30)) * 0xbf58476d1ce4e5b9ULL;
  index = (index ^ (index >> 27)) * 0x94d049bb133111ebULL;
  return index ^ (index >> 31);
}

template <class Key>
Key key_of(std::uint64_t index) {
  if constexpr (std::is_same_v<Key, std::uint64_t>) {
    return spread(index);
  } else {
    // The first 16 characters tell keys apart; the others only make it longer.
    std::uint64_t bits = spread(index);
    std::string made(16 + bits % 25, 'x');
    for (std::size_t i = 0; i < 16; ++i, bits >>= 4)
      made[i] = "0123456789abcdef"[bits & 15];
    return made;
  }
}

}  // namespace veltrix_bench
