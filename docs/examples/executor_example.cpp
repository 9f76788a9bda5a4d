// A bounded executor of one's own, and a function that takes any executor.
// SPDX-License-Identifier: BSL-1.0
#include <veltrix/executor.hpp>

#include <cstdio>
#include <deque>
#include <string>
#include <utility>

/// Keeps tasks until somebody runs them: an event loop's queue.
class loop_queue {
 public:
  veltrix::post_result try_post(veltrix::task work) {
    if (waiting_.size() == 2) return {veltrix::post_status::full, "the loop has 2 tasks waiting"};
    waiting_.push_back(std::move(work));
    return {};
  }

  void run_all() {
    while (!waiting_.empty()) {
      auto work = std::move(waiting_.front());
      waiting_.pop_front();
      work();
    }
  }

 private:
  std::deque<veltrix::task> waiting_;
};

/// Posts `count` tasks. Result: how many were accepted; the rest is the caller's to run or drop.
template <veltrix::executor Executor>
int add_up(Executor& where, int count, int& sum, std::string& why) {
  int accepted = 0;
  for (int i = 1; i <= count; ++i) {
    const veltrix::post_result answer = where.try_post([&sum, i] { sum += i; });
    if (answer) {
      ++accepted;
    } else {
      why = answer.why;
    }
  }
  return accepted;
}

int main() {
  std::string why;
  int sum = 0;
  loop_queue loop;
  const int queued = add_up(loop, 3, sum, why);
  const int before = sum;
  loop.run_all();

  int inline_sum = 0;
  veltrix::inline_executor here;
  const int ran = add_up(here, 3, inline_sum, why);

  std::printf("queued %d (%s), sum %d; inline %d, sum %d\n", queued, why.c_str(), sum, ran,
              inline_sum);
  return queued == 2 && before == 0 && sum == 3 && ran == 3 && inline_sum == 6 ? 0 : 1;
}
