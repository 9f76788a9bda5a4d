// The main of a fuzz target without libFuzzer: replays files and folders, and random inputs.
// Usage: TARGET [--random COUNT] [--seed SEED] [--max-bytes SIZE] [--keep FOLDER] [FILE|FOLDER...]
// An input that ends the process is left in FOLDER (here: the current one) and named on stderr.
// SPDX-License-Identifier: BSL-1.0
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "support/random.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
extern "C" __attribute__((weak)) void __sanitizer_set_death_callback(void (*callback)());

namespace {

namespace fs = std::filesystem;

/// What a signal handler must find without allocating.
struct current_input {
  const std::uint8_t* bytes = nullptr;
  std::size_t size = 0;
  const char* origin = "";
  std::uint64_t index = 0;
  char keep[512] = "crash-input";
};
current_input now;

void say(const char* text) {
  const auto ignored = ::write(2, text, std::strlen(text));
  static_cast<void>(ignored);
}

/// Leaves the input behind, with the calls that a signal handler may make.
void keep_input() {
  if (now.bytes == nullptr) return;
  const int file = ::open(now.keep, O_WRONLY | O_CREAT | O_TRUNC, 0644);
  if (file >= 0) {
    const auto ignored = ::write(file, now.bytes, now.size);
    static_cast<void>(ignored);
    ::close(file);
  }
  char number[24];
  char* digit = number + sizeof number;
  *--digit = '\0';
  std::uint64_t left = now.index;
  do {
    *--digit = static_cast<char>('0' + left % 10);
    left /= 10;
  } while (left != 0);
  for (const char* part :
       {"replay: failed on ", now.origin, ", input ", static_cast<const char*>(digit), "; kept as ",
        static_cast<const char*>(now.keep), "; give that file as the argument to replay it\n"})
    say(part);
  now.bytes = nullptr;
}

void on_signal(int which) {
  keep_input();
  ::signal(which, SIG_DFL);
  ::raise(which);
}

struct choices {
  std::uint64_t random = 0;
  std::uint64_t seed = 0;
  bool has_seed = false;
  std::size_t max_bytes = 512;
  std::string keep = ".";
  std::vector<fs::path> inputs{};
};

[[noreturn]] void usage(const std::string& what) {
  std::fprintf(stderr,
               "replay: %s\nusage: TARGET [--random COUNT] [--seed SEED] [--max-bytes SIZE] "
               "[--keep FOLDER] [FILE|FOLDER...]\n",
               what.c_str());
  std::exit(64);
}

std::uint64_t number_of(const char* text) {
  char* end = nullptr;
  const std::uint64_t value = std::strtoull(text, &end, 10);
  if (end == text || *end != '\0') usage(std::string("not a number: ") + text);
  return value;
}

choices read_arguments(int count, char** arguments) {
  choices made;
  for (int i = 1; i < count; ++i) {
    const std::string name = arguments[i];
    if (name.rfind("--", 0) != 0) {
      made.inputs.emplace_back(name);
      continue;
    }
    if (i + 1 == count) usage(name + " needs a value");
    const char* const value = arguments[++i];
    if (name == "--random") {
      made.random = number_of(value);
    } else if (name == "--seed") {
      made.seed = number_of(value);
      made.has_seed = true;
    } else if (name == "--max-bytes") {
      made.max_bytes = static_cast<std::size_t>(number_of(value));
    } else if (name == "--keep") {
      made.keep = value;
    } else {
      usage("unknown option " + name);
    }
  }
  if (made.random == 0 && made.inputs.empty()) usage("nothing to do");
  if (!made.has_seed) {
    made.seed =
        static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
  }
  return made;
}

void run(const std::vector<std::uint8_t>& input, const char* origin, std::uint64_t index) {
  now.bytes = input.data();
  now.size = input.size();
  now.origin = origin;
  now.index = index;
  static_cast<void>(LLVMFuzzerTestOneInput(input.data(), input.size()));
  now.bytes = nullptr;
}

/// Files in a fixed order, so that two runs do the same.
std::vector<fs::path> files_in(const fs::path& given) {
  std::vector<fs::path> files;
  if (!fs::exists(given)) usage("not there: " + given.string());
  if (!fs::is_directory(given)) return {given};
  for (const auto& each : fs::recursive_directory_iterator(given)) {
    if (each.is_regular_file()) files.push_back(each.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::uint64_t replay(const choices& made) {
  std::uint64_t replayed = 0;
  for (const fs::path& given : made.inputs) {
    for (const fs::path& path : files_in(given)) {
      std::ifstream file(path, std::ios::binary);
      if (!file) usage("cannot be read: " + path.string());
      const std::vector<std::uint8_t> input{std::istreambuf_iterator<char>(file), {}};
      const std::string name = path.string();
      run(input, name.c_str(), replayed++);
    }
  }
  return replayed;
}

/// Three shapes: any bytes; small bytes, which reach more operations; few values, which repeat.
std::vector<std::uint8_t> random_input(veltrix_test::random_source& random, std::size_t most) {
  std::vector<std::uint8_t> input(static_cast<std::size_t>(random.below(most + 1)));
  const std::uint64_t bounds[] = {256, 32, 1 + random.below(8)};
  const std::uint64_t bound = bounds[random.below(3)];
  for (std::uint8_t& each : input)
    each = static_cast<std::uint8_t>(random.below(bound));
  return input;
}

}  // namespace

int main(int count, char** arguments) {
  const choices made = read_arguments(count, arguments);
  const std::string name = fs::path(arguments[0]).filename().string();
  std::snprintf(now.keep, sizeof now.keep, "%s/crash-%s", made.keep.c_str(), name.c_str());
  for (const int which : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL})
    ::signal(which, on_signal);
  if (__sanitizer_set_death_callback != nullptr) __sanitizer_set_death_callback(keep_input);

  const std::uint64_t replayed = replay(made);
  if (made.random != 0) {
    std::printf("%s: %llu random inputs, seed %llu\n", name.c_str(),
                static_cast<unsigned long long>(made.random),
                static_cast<unsigned long long>(made.seed));
    std::fflush(stdout);
    const std::string origin = "seed " + std::to_string(made.seed);
    for (std::uint64_t i = 0; i < made.random; ++i) {
      veltrix_test::random_source random(made.seed + i * 0x9e3779b97f4a7c15ULL);
      run(random_input(random, made.max_bytes), origin.c_str(), i);
    }
  }
  if (replayed == 0 && made.random == 0) usage("the folders hold no input");
  std::printf("%s: %llu inputs replayed, %llu random ones tried, all agree\n", name.c_str(),
              static_cast<unsigned long long>(replayed),
              static_cast<unsigned long long>(made.random));
  return 0;
}
