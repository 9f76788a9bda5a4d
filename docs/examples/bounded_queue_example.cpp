// SPDX-License-Identifier: BSL-1.0
#include <veltrix/bounded_queue.hpp>

#include <cstdio>
#include <string>
#include <thread>
#include <vector>

struct text_bytes {
  std::size_t operator()(const std::string& text) const { return text.size(); }
};

int main() {
  // Two stages with a limit between them: the first waits when the second is slow.
  veltrix::bounded_queue<std::string, text_bytes> queue({.max_items = 100, .max_bytes = 64});
  std::size_t lines = 0;
  std::thread second([&] {
    while (auto line = queue.pop())  // until closed and empty
      lines += line->empty() ? 0 : 1;
  });
  bool all_taken = true;
  for (int i = 0; i < 1000; ++i)
    all_taken = all_taken && queue.push("line " + std::to_string(i));

  // An item that can never fit is refused, with figures, instead of waiting for ever.
  std::string book(1000, 'x');
  const auto refused = queue.push(std::move(book));
  std::printf("%s\n", refused.message("lines").c_str());
  queue.close();
  second.join();

  // Another answer to overload: the newest matter most.
  std::vector<int> dropped;
  veltrix::bounded_queue<int> latest({.max_items = 2,
                                      .max_bytes = veltrix::no_byte_limit,
                                      .policy = veltrix::full_policy::drop_oldest},
                                     [&](int&& old) { dropped.push_back(old); });
  for (int i = 1; i <= 4; ++i)
    all_taken = all_taken && latest.push(i);

  const auto seen = queue.stats();
  std::printf("%zu lines, at most %zu bytes at once; dropped %zu\n", lines, seen.peak.bytes,
              dropped.size());
  const bool right = all_taken && lines == 1000 && seen.peak.bytes <= 64 &&
                     refused.status == veltrix::push_status::too_heavy && book.size() == 1000 &&
                     dropped == std::vector{1, 2} && *latest.pop() == 3;
  return right ? 0 : 1;
}
