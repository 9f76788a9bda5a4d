// A routing table that is replaced whole: look-ups take no lock, old tables end when none is read.
// SPDX-License-Identifier: BSL-1.0
#include "veltrix/reclaim.hpp"

#include <atomic>
#include <cstdio>
#include <map>
#include <mutex>
#include <string>
#include <thread>

struct table : veltrix::reclaimable {
  std::map<std::string, int> ports;
};

class router {
 public:
  ~router() { delete current_.load(std::memory_order_relaxed); }  // nobody looks up any more

  int port_of(const std::string& service) const {
    const auto now = veltrix::reclaim_domain::shared().protect(current_);
    const auto found = now->ports.find(service);  // `now` is not freed under our hands
    return found == now->ports.end() ? 0 : found->second;
  }

  void set(const std::string& service, int port) {
    veltrix::retire_list<table>::batch dead;  // ends after the lock: destructors run unlocked
    const std::lock_guard<std::mutex> lock(mutex_);
    const table* const before = current_.load(std::memory_order_relaxed);
    auto* const after = new table;
    after->ports = before->ports;
    after->ports[service] = port;
    table* const replaced = current_.exchange(after, std::memory_order_acq_rel);
    const auto time = veltrix::coarse_clock::now();
    if (garbage_.retire(*replaced, time)) dead = garbage_.collect(time);
  }

 private:
  std::mutex mutex_;  // guards garbage_, and writes of current_
  std::atomic<table*> current_{new table};
  veltrix::retire_list<table> garbage_;
};

int main() {
  router routes;
  routes.set("billing", 8001);
  bool right = true;
  std::thread reader([&] {
    for (int i = 0; i < 1000; ++i)
      right = right && routes.port_of("billing") >= 8001;
  });
  for (int port = 8002; port < 8100; ++port)
    routes.set("billing", port);
  reader.join();

  const auto seen = veltrix::reclaim_domain::shared().stats();
  std::printf("port %d, %llu tables replaced, %zu not freed yet\n", routes.port_of("billing"),
              static_cast<unsigned long long>(seen.retired), seen.pending);
  return right && routes.port_of("billing") == 8099 && seen.pending <= 64 ? 0 : 1;
}
