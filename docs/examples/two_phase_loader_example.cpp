// A version that comes whole or not at all.
// SPDX-License-Identifier: BSL-1.0
#include <veltrix/two_phase_loader.hpp>

#include <cstdio>
#include <map>
#include <optional>
#include <string>

namespace {

struct shelf {  // an object store in a program
  std::map<std::string, std::string> contents;
  veltrix::manifest latest;

  std::optional<veltrix::manifest> newest() { return latest; }
  std::optional<std::string> blob(const veltrix::manifest::part& wanted) {
    const auto found = contents.find(wanted.digest);
    if (found == contents.end()) return std::nullopt;
    return found->second;
  }
};

std::string digest(const std::string& content) {  // a cryptographic hash in a program
  return "d:" + content;
}

}  // namespace

int main() {
  shelf source{{{"d:gold", "gold"}, {"d:wolf", "wolf"}},
               {1, {{"drops", "d:gold"}, {"spawns", "d:wolf"}}}};
  veltrix::two_phase_loader loader(source, digest);
  if (loader.load().status != veltrix::load_status::swapped) return 1;

  source.latest = {2, {{"drops", "d:gold"}, {"spawns", "d:bear"}}};  // one part is not there yet
  const veltrix::load_answer early = loader.load();
  std::puts(early.why.c_str());
  if (early.status != veltrix::load_status::incomplete || early.version != 1) return 1;

  source.contents["d:bear"] = "bear";
  const veltrix::load_answer whole = loader.load();
  std::printf("version %d, %zu part fetched\n", static_cast<int>(whole.version), whole.fetched);
  return *loader.current()->find("spawns") == "bear" && whole.fetched == 1 ? 0 : 1;
}
