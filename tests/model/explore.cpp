// SPDX-License-Identifier: BSL-1.0
#include "model/explore.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string_view>
#include <unordered_map>

#include "model/heap.hpp"

namespace veltrix_model {

namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// What the process has had of the processor; a search has one thread.
double processor_seconds() {
  return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
}

const char* name_of(action what) noexcept {
  switch (what) {
    case action::none: return "begins";
    case action::load: return "load";
    case action::store: return "store";
    case action::modify: return "modify";
    case action::fence: return "fence";
    case action::lock: return "lock";
    case action::unlock: return "unlock";
    case action::wait: return "wait";
    case action::notify: return "notify";
    case action::start: return "start a thread";
    case action::join: return "join";
    case action::yield: return "yield";
  }
  return "?";
}

const char* name_of(std::memory_order order) noexcept {
  switch (order) {
    case std::memory_order_relaxed: return "relaxed";
    case std::memory_order_acquire: return "acquire";
    case std::memory_order_release: return "release";
    case std::memory_order_acq_rel: return "acq_rel";
    default: return "seq_cst";
  }
}

bool has_order(action what) noexcept {
  return what == action::load || what == action::store || what == action::modify ||
         what == action::fence;
}

/// A line for each operation; objects are numbered in the order of their first use.
std::string trace_text() {
  std::unordered_map<const void*, std::size_t> numbers;
  std::string text;
  for (unsigned i = 0; i < the.trace_length(); ++i) {
    const trace_line& at = the.trace()[i];
    const char* const slash = std::strrchr(at.what.at.file, '/');
    char line[300];
    int used = std::snprintf(line, sizeof line, "%4u  %*sT%u %s", at.step, 2 * at.thread, "",
                             unsigned(at.thread), name_of(at.what.what));
    const auto add = [&](const char* format, auto... values) {
      const auto from = static_cast<std::size_t>(used);
      if (from < sizeof line)
        used += std::snprintf(line + from, sizeof line - from, format, values...);
    };
    if (has_order(at.what.what)) add("(%s)", name_of(at.what.order));
    if (at.what.object != nullptr && at.what.what != action::join) {
      add(" #%zu", numbers.try_emplace(at.what.object, numbers.size() + 1).first->second);
    }
    if (at.what.what == action::load || at.what.what == action::store ||
        at.what.what == action::modify) {
      add(" = %llu", static_cast<unsigned long long>(at.value));
    }
    if (at.note[0] != '\0') add(" (%s)", at.note);
    add("  %s:%d", slash != nullptr ? slash + 1 : at.what.at.file, at.what.at.line);
    text.append(line).append("\n");
  }
  return text;
}

/// "2a0/3.": each decision's choice as a hexadecimal digit, with the sleeping threads after '/'.
std::string path_text() {
  std::string text;
  for (unsigned i = 0; i < the.path_length(); ++i) {
    const decision& at = the.path()[i];
    char part[24];
    if (at.done != 0) {
      std::snprintf(part, sizeof part, "%x/%x.", unsigned(at.taken), at.done);
    } else {
      std::snprintf(part, sizeof part, "%x", unsigned(at.taken));
    }
    text += part;
  }
  return text.empty() ? "-" : text;
}

bool read_path(const std::string& text) {
  unsigned length = 0;
  for (std::size_t at = 0; at < text.size() && text[at] != '-'; ++length) {
    unsigned taken = 0, done = 0;
    int used = 0;
    if (std::sscanf(text.c_str() + at, "%1x/%x.%n", &taken, &done, &used) != 2 || used == 0) {
      done = 0;
      if (std::sscanf(text.c_str() + at, "%1x%n", &taken, &used) != 1) return false;
    }
    the.path()[length] = {0, done, static_cast<std::uint8_t>(taken), false};
    at += static_cast<std::size_t>(used);
  }
  the.set_path_length(length);
  return true;
}

/// Runs the path at hand once more, to tell it.
void tell_failure(findings& found, void (*body)(void*), void* argument, const std::string& place) {
  found.failed = true;
  found.what = the.failure();
  found.replay = place + path_text();
  the.set_path_length(the.path_length());
  the.set_tracing(true);
  the.set_replaying(true);
  const outcome again = the.execute(body, argument);
  the.set_tracing(false);
  the.set_replaying(false);
  found.trace = trace_text();
  if (again != outcome::failed || found.what != the.failure()) {
    found.trace.append("the replay went another way: the body depends on more than the schedule\n");
  }
}

/// "queue_model_test.cpp:52=": whose replay string it is.
std::string place_text(source_line at) {
  const char* const slash = std::strrchr(at.file, '/');
  return std::string(slash != nullptr ? slash + 1 : at.file) + ":" + std::to_string(at.line) + "=";
}

/// VELTRIX_MODEL_SCALE: how many times as far a search goes before it gives up.
std::uint64_t search_scale() {
  const char* const factor = std::getenv("VELTRIX_MODEL_SCALE");
  return factor == nullptr ? 1 : std::max(1ull, std::strtoull(factor, nullptr, 10));
}

std::string grouped(std::uint64_t number) {
  std::string text = std::to_string(number);
  for (std::size_t at = text.size(); at > 3; at -= 3)
    text.insert(at - 3, 1, ',');
  return text;
}

}  // namespace

findings detail::explore(const exploration& wanted, void (*body)(void*), void* argument,
                         source_line at) {
  findings found;
  const std::string place = place_text(at);
  std::string replay = wanted.replay;
  if (const char* const given = std::getenv("VELTRIX_REPLAY");
      given != nullptr && std::string_view(given).starts_with(place)) {
    replay = given;
  }
  if (const auto end = replay.find('='); end != std::string::npos) replay.erase(0, end + 1);
  const auto start = std::chrono::steady_clock::now();
  const double had = processor_seconds();
  the.begin_search(wanted);
  // The first execution makes what stays for good (statics of functions); its choices are not kept.
  outcome ended = the.execute(body, argument);
  if (ended == outcome::failed) {
    tell_failure(found, body, argument, place);
    return found;
  }
  the.set_path_length(0);
  if (!replay.empty()) {
    if (!read_path(replay)) {
      found.failed = true;
      found.what = "a replay string is hexadecimal digits, got \"" + replay + "\"";
      return found;
    }
    the.set_replaying(true);
    ended = the.execute(body, argument);
    the.set_replaying(false);
    ++found.schedules;
    if (ended == outcome::failed) tell_failure(found, body, argument, place);
    return found;
  }
  const std::uint64_t most_schedules = wanted.most_schedules * search_scale();
  const double most_seconds = wanted.most_seconds * static_cast<double>(search_scale());
  const bool counts_all = wanted.how == search_kind::depth_first;
  for (;;) {
    ended = the.execute(body, argument);
    if (ended == outcome::failed) {
      tell_failure(found, body, argument, place);
      break;
    }
    ++(ended == outcome::pruned ? found.pruned : found.schedules);
    if (counts_all && !the.next_path()) {
      found.exhausted = true;
      break;
    }
    const std::uint64_t run = found.schedules + found.pruned;
    if (run >= most_schedules) break;
    if (run % 4096 == 0 && processor_seconds() - had > most_seconds) break;
  }
  found.steps = the.steps();
  found.seconds = seconds_since(start);
  return found;
}

std::string findings::report() const {
  if (failed) {
    return "after " + grouped(schedules) + " schedules: " + what + "\n" + trace +
           "replay: VELTRIX_REPLAY=" + replay + "\n";
  }
  char rest[100];
  std::snprintf(rest, sizeof rest, ", %.2f s, %.0f k schedules/s", seconds,
                seconds > 0 ? static_cast<double>(schedules + pruned) / seconds / 1e3 : 0.0);
  std::string text = exhausted ? "exhausted: " : "not exhausted: ";
  text += grouped(schedules) + " schedules";
  if (pruned != 0) text += " and " + grouped(pruned) + " cut short";
  return text + rest;
}

std::ostream& operator<<(std::ostream& to, const findings& found) {
  return to << found.report();
}

}  // namespace veltrix_model
