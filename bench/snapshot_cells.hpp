// The contenders of snapshot_cell's measurements, all with the same face:
//   Cell::reader(cell).read(use)   calls use(const Value&) with the newest value, and returns what
//                                  it returns
//   Cell::writer(cell).store(value)
// A reader and a writer belong to the thread that made them, which must have an enrollment<Cell>.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <type_traits>

#include "peers/plain_pointer.hpp"
#include "peers/seqlock.hpp"
#include "peers/shared_pointers.hpp"
#include "veltrix/snapshot_cell.hpp"

#ifdef VELTRIX_BENCH_URCU
#include "peers/urcu_pointer.hpp"
#endif

namespace veltrix_bench {

/// 64 bytes, as a small config.
struct settings {
  settings() = default;
  explicit settings(std::uint64_t all) { fields.fill(all); }
  std::array<std::uint64_t, 8> fields{};
};

/// The same, counting how many are alive.
struct counted_settings : settings {
  counted_settings() { count(1); }
  explicit counted_settings(std::uint64_t all) : settings(all) { count(1); }
  counted_settings(const counted_settings& other) : settings(other) { count(1); }
  counted_settings& operator=(const counted_settings&) = default;
  ~counted_settings() { count(-1); }

  static std::int64_t alive() { return alive_.load(std::memory_order_relaxed); }

 private:
  static void count(std::int64_t change) { alive_.fetch_add(change, std::memory_order_relaxed); }
  static inline std::atomic<std::int64_t> alive_{0};
};

template <class Cell>
struct enrollment_of {
  struct type {};
};
template <class Cell>
  requires requires { typename Cell::enrollment; }
struct enrollment_of<Cell> {
  using type = typename Cell::enrollment;
};
/// What a thread needs while it has a reader or a writer; nothing, for most cells.
template <class Cell>
using enrollment = typename enrollment_of<Cell>::type;

/// The ways to read a snapshot_cell.
enum class way : std::uint8_t { cached, reader, thread, share };

template <class Value, way Way>
class snapshot {
  using cell_type = veltrix::snapshot_cell<Value>;
  using handle = std::conditional_t<Way == way::cached || Way == way::reader,
                                    typename cell_type::cached_reader, const cell_type&>;

 public:
  static constexpr const char* name = Way == way::cached   ? "snapshot_cell get()"
                                      : Way == way::reader ? "snapshot_cell reader load()"
                                      : Way == way::thread ? "snapshot_cell load()"
                                                           : "snapshot_cell share()";

  class reader {
   public:
    explicit reader(const snapshot& of) : handle_(take(of.cell_)) {}
    template <class Use>
    auto read(Use use) {
      if constexpr (Way == way::cached) {
        return use(handle_.get());
      } else if constexpr (Way == way::share) {
        return use(*handle_.share());
      } else {
        return use(*handle_.load());
      }
    }

   private:
    static handle take(const cell_type& cell) {
      if constexpr (std::is_reference_v<handle>) {
        return cell;
      } else {
        return cell.reader();
      }
    }
    handle handle_;
  };

  class writer {
   public:
    explicit writer(snapshot& of) : of_(of) {}
    void store(const Value& value) { of_.cell_.publish(value); }

   private:
    snapshot& of_;
  };

 private:
  cell_type cell_{Value{}};
};

template <class Value>
inline constexpr bool readers_load =
    requires(typename veltrix::snapshot_cell<Value>::cached_reader reader) { reader.load(); };

/// Calls `each.template operator()<Cell>()` for every contender that is there, the floor first, and
/// `absent(name, why)` for the others.
template <class Value, class Each, class Absent>
void for_each_cell(Each each, Absent absent) {
  each.template operator()<plain_pointer<Value>>();
  each.template operator()<plain_pointer<Value, 1>>();
  each.template operator()<snapshot<Value, way::cached>>();
  if constexpr (readers_load<Value>) {
    each.template operator()<snapshot<Value, way::reader>>();
  } else {
    absent("snapshot_cell reader load()", "this snapshot_cell's readers have no load()");
  }
  each.template operator()<snapshot<Value, way::thread>>();
  each.template operator()<snapshot<Value, way::share>>();
  each.template operator()<locked_pointer<Value, by_mutex>>();
  each.template operator()<locked_pointer<Value, by_shared_mutex>>();
#ifdef __cpp_lib_atomic_shared_ptr
  each.template operator()<atomic_pointer<Value>>();
#else
  absent("std::atomic<shared_ptr>", "this standard library has none");
#endif
#ifdef VELTRIX_BENCH_URCU
  each.template operator()<urcu_pointer<Value, urcu_memb>>();
  each.template operator()<urcu_pointer<Value, urcu_qsbr>>();
#else
  absent("liburcu memb", "not installed; tools/get-deps bench");
  absent("liburcu qsbr", "not installed; tools/get-deps bench");
#endif
  if constexpr (std::is_trivially_copyable_v<Value>) each.template operator()<seqlock<Value>>();
}

}  // namespace veltrix_bench
