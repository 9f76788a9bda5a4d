// What each part of a program, its main or a shared library, can do with any part's cell.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "support/self_poisoning.hpp"
#include "veltrix/snapshot_cell.hpp"

namespace parts {

using value = veltrix_test::self_poisoning;
using cell = veltrix::snapshot_cell<value>;

/// Guards and a reader, held by one part.
class holder {
 public:
  holder() = default;
  holder(const holder&) = delete;
  holder& operator=(const holder&) = delete;
  virtual ~holder() = default;
  /// Takes as many guards of the version in force as there are ways to have one.
  virtual void hold() = 0;
  /// Whether each still has the version it had, and what it reads now is not older.
  virtual bool intact() = 0;
};

/// The functions of a part: compiled in it, called by the main program.
struct part {
  const char* name;
  cell* (*make)(std::uint64_t number);
  void (*end)(cell* ended);
  void (*publish)(cell& to, std::uint64_t number);
  holder* (*holder_of)(cell& of);
  void (*drop)(holder* ended);
  /// Whether a load, nested ones, a reader and a shared value live and are not older than `last`.
  bool (*read)(cell& from, std::uint64_t& last);
  /// Runs `reads` rounds of read() in a thread of its own each time, and waits for it.
  bool (*read_in_new_thread)(cell& from, int reads);
  const void* (*domain)();
  std::size_t (*records_in_use)();
};

}  // namespace parts

extern "C" {
[[gnu::visibility("default")]] const parts::part* veltrix_part_first();
[[gnu::visibility("default")]] const parts::part* veltrix_part_second();
}
