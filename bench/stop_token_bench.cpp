// What it costs to ask whether to stop, and to have a callback in place while one works.
// SPDX-License-Identifier: BSL-1.0
#include "veltrix/stop_token.hpp"

#include <version>

#include "harness.hpp"
#include "veltrix/detail/stop_state.hpp"

#if defined(__cpp_lib_jthread)
#include <stop_token>
#endif

namespace {

using veltrix_bench::contender;

template <class Token>
contender asks(const char* name, const Token& token) {
  return {name, [&token](unsigned, std::uint64_t operations) {
            for (std::uint64_t i = 0; i < operations; ++i)
              veltrix_bench::keep(token.stop_requested());
          }};
}

template <template <class> class Callback, class Token>
contender registers(const char* name, const Token& token) {
  return {name, [&token](unsigned, std::uint64_t operations) {
            int called = 0;
            const auto count = [&called] { ++called; };
            for (std::uint64_t i = 0; i < operations; ++i) {
              const Callback<decltype(count)> callback(token, count);
              veltrix_bench::keep(called);
            }
          }};
}

}  // namespace

int main(int argc, char** argv) {
  using namespace veltrix_bench;
  namespace own = veltrix::detail::own_stop;
  bench table("stop_token", parse(argc, argv));
  const own::stop_source source;
  const auto token = source.get_token();
#if defined(__cpp_lib_jthread)
  const std::stop_source of_std;
  const auto token_of_std = of_std.get_token();
#endif
  for (const unsigned threads : {1U, 2U}) {
    table.run("stop_requested()", threads,
              {
#if defined(__cpp_lib_jthread)
                  asks("std::stop_token", token_of_std),
#endif
                  asks("veltrix's own", token)});
    table.run("a callback in and out", threads,
              {
#if defined(__cpp_lib_jthread)
                  registers<std::stop_callback>("std::stop_callback", token_of_std),
#endif
                  registers<own::stop_callback>("veltrix's own", token)});
  }
  return table.finish();
}
