// What one atomic pointer led to before, ended without a heavy fence where readers have gone on.
// Use for: the inside of snapshot_store. Internal.
// Not for: structures with more than one pointer: there nothing says which object is newer.
// Threads: as retire_list.
// Progress: a look at every record; a system call where a reader has not been seen for long.
// Callbacks: none.
// Exceptions: none.
// Lifetime: as retire_list.
// Guide: docs/reclaim.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <utility>

#include "../reclaim.hpp"
#include "reader_record.hpp"
#include "reclaim_domain.hpp"
#include "sync.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

/// A retire_list whose objects have stamps that grow in the order in which they came into force.
///
/// A look must know of each object p that no reader shows it, and that none comes to show it. The
/// membarrier of retire_core::collect() gives both, and costs as much as hundreds of reads. But a
/// reader that goes on leaves a trace: when it finds another object in force than before, it puts
/// that one's stamp into its record (I3 of reader_record). Say a look finds stamp x there, x > p:
///  - an owner of the record has loaded the object of x from the pointer. So by coherence, each
///    later load of that owner, and of the record's later owners, finds that object or a newer one:
///    none comes to show p, not even before it looks again;
///  - what the record showed before was stored before the stamp. So who reads the slots after the
///    stamp sees p where it is still shown, and is ordered behind all other uses of p.
/// A record that nobody has needs no stamp: who claims it runs a full fence, as the look does. So
/// either the look finds the owner, or the owner finds the pointer as the look's thread left it.
/// The thread that looks needs none for its own record: it is not reading meanwhile.
///
/// Where a reader has not been seen beyond enough of the objects, the membarrier it is. The trace
/// is a number that never comes back, not an address: there may be another object by now.
///
/// I1: stamps are given to the objects in the order in which the pointer leads to them; the list
///     has them in that order. One that has none was there before all others.
template <class Node, class Dispose>
class proven_garbage : private retire_core {
 public:
  using batch = retired_batch<Node, Dispose>;

  explicit proven_garbage(reclaim_domain& domain) : retire_core(domain) {}
  /// Nobody reads any more.
  ~proven_garbage() { const batch unread(take_all()); }

  /// For the object that comes into force next.
  [[nodiscard]] stamp next_stamp() noexcept {
    if (next_ == stamps_.end) [[unlikely]] {
      stamps_ = domain().take_stamps();
      next_ = stamps_.next;
      if (next_ == stamps_.end) return no_stamp;
    }
    return next_++;
  }

  /// As retire_list's.
  [[nodiscard]] bool retire(Node& replaced, time_point now) noexcept {
    due_in_time_ = in_time(now);
    return retire_core::retire(replaced, now);
  }

  /// When a look is due: ends what has been read beyond, and where that is too little, all that no
  /// reader shows.
  [[nodiscard]] batch look(time_point now) noexcept {
    if (domain().mode() == sync::fence_mode::ordered) return collect(now);
    const stamp reached = domain().reached_by_all(stamps_.next, next_);
    mark_shown();
    batch dead(take_out(now, [reached](const reclaimable& each) {
      return static_cast<const Node&>(each).order() < reached;
    }));
    if (!left_few(due_in_time_)) dead.append(collect(now));
    return dead;
  }

  /// Takes out what no reader shows.
  [[nodiscard]] batch collect(time_point now) noexcept { return batch(retire_core::collect(now)); }

  using retire_core::pending;

 private:
  // Guarded by the owner's lock.
  reclaim_domain::stamp_range stamps_{no_stamp, no_stamp};  // those of now
  stamp next_ = no_stamp;                                   // of these
  bool due_in_time_ = false;
};

}  // namespace detail
}  // namespace VELTRIX_ABI
}  // namespace veltrix
