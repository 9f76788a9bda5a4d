// A place where modelled threads wait for each other.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "model/support.hpp"

namespace veltrix_model {

/// Everybody who arrives waits for the others.
class meeting {
 public:
  explicit meeting(int people) : missing_(people) {}
  void arrive() {
    unique_lock<mutex> lock(mutex_);
    missing_ = missing_.read() - 1;
    changed_.notify_all();
    while (missing_ != 0)
      changed_.wait(lock);
  }

 private:
  mutex mutex_;
  condition_variable changed_;
  var<int> missing_;
};

}  // namespace veltrix_model
