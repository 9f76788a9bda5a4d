// A pointer under liburcu: readers mark their sections, old values go by call_rcu() as its manual
// advises, which neither waits nor bounds them.
// Only functions of a few lines are inlined, which the header's licence lets everybody do.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <urcu/urcu-memb.h>
#include <urcu/urcu-qsbr.h>

#include <atomic>

// The second flavour's header leaves these out, since the first one's has read call-rcu.h.
extern "C" {
void urcu_qsbr_call_rcu(rcu_head* head, void (*call)(rcu_head*));
void urcu_qsbr_barrier();
}

namespace veltrix_bench {

struct urcu_memb {
  static constexpr const char* name = "liburcu memb";
  static void enroll() { urcu_memb_register_thread(); }
  static void leave() { urcu_memb_unregister_thread(); }
  static void lock() { urcu_memb_read_lock(); }
  static void unlock() { urcu_memb_read_unlock(); }
  static void quiescent() {}
  static void call(rcu_head* head, void (*run)(rcu_head*)) { urcu_memb_call_rcu(head, run); }
  static void barrier() { urcu_memb_barrier(); }
};

/// Cheaper reads for the duty to say now and then that none is under way.
struct urcu_qsbr {
  static constexpr const char* name = "liburcu qsbr";
  static void enroll() { urcu_qsbr_register_thread(); }
  static void leave() { urcu_qsbr_unregister_thread(); }
  static void lock() { urcu_qsbr_read_lock(); }
  static void unlock() { urcu_qsbr_read_unlock(); }
  static void quiescent() { urcu_qsbr_quiescent_state(); }
  static void call(rcu_head* head, void (*run)(rcu_head*)) { urcu_qsbr_call_rcu(head, run); }
  static void barrier() { urcu_qsbr_barrier(); }
};

template <class Value, class Flavour>
class urcu_pointer {
  struct node {
    rcu_head head{};  // first, so that a pointer to it is one to the node
    Value value{};
  };
  static constexpr unsigned reads_between_quiescent_states = 128;

 public:
  static constexpr const char* name = Flavour::name;

  urcu_pointer() = default;
  urcu_pointer(const urcu_pointer&) = delete;
  urcu_pointer& operator=(const urcu_pointer&) = delete;
  ~urcu_pointer() {
    delete current_.load(std::memory_order_relaxed);
    Flavour::barrier();
  }

  /// What a thread needs while it has a reader or a writer.
  class enrollment {
   public:
    enrollment() { Flavour::enroll(); }
    enrollment(const enrollment&) = delete;
    enrollment& operator=(const enrollment&) = delete;
    ~enrollment() { Flavour::leave(); }
  };

  class reader {
   public:
    explicit reader(const urcu_pointer& of) : of_(of) {}
    template <class Use>
    auto read(Use use) {
      Flavour::lock();
      const auto used = use(of_.current_.load(std::memory_order_acquire)->value);
      Flavour::unlock();
      if (++reads_ % reads_between_quiescent_states == 0) Flavour::quiescent();
      return used;
    }

   private:
    const urcu_pointer& of_;
    unsigned reads_ = 0;
  };

  class writer {
   public:
    explicit writer(urcu_pointer& of) : of_(of) {}
    void store(const Value& value) {
      node* const old = of_.current_.exchange(new node{{}, value}, std::memory_order_acq_rel);
      Flavour::call(&old->head, [](rcu_head* head) { delete reinterpret_cast<node*>(head); });
      Flavour::quiescent();
    }

   private:
    urcu_pointer& of_;
  };

 private:
  std::atomic<node*> current_{new node};
};

}  // namespace veltrix_bench
