#!/usr/bin/env python3
# SPDX-License-Identifier: BSL-1.0
"""Every rule of tests/tidy is seen to fire, alone and at the right line, on a planted violation.

A small tree that obeys every rule is the start. Each plant changes it in one place and says which
findings must come out of it, and no others. A rule without a plant fails the last test.
"""

import os
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from tidy import RULES, Tree, run  # noqa: E402
from tidy.layer_rules import LAYERS  # noqa: E402
from tidy.source import Source  # noqa: E402
from tidy.suite_rules import PRIMITIVES  # noqa: E402

LICENCE = "SPDX-License-Identifier: BSL-1.0"
BASE = "include/veltrix/"
CELL, MAP = BASE + "snapshot_cell.hpp", BASE + "concurrent_map.hpp"
CELL_TEST, CELL_PAGE = "tests/snapshot_cell_test.cpp", "docs/snapshot_cell.md"
SECTIONS = ("Example", "When and when not", "Guarantees", "What happens before what",
            "Lifetime and shutdown", "Cost", "How it works", "Limits", "History")


def header(guide: str, body: str, includes: str = "", plain: bool = False) -> str:
    keys = ("Use for: the tests of tidy.", "Not for: users.", "Threads: any.",
            "Progress: blocking.", "Callbacks: none.", "Exceptions: none.", "Lifetime: static.",
            f"Guide: {guide}", LICENCE)
    inside = body if plain else (
        f"namespace veltrix {{\ninline namespace VELTRIX_ABI {{\n\n{body}\n"
        "}  // namespace VELTRIX_ABI\n}  // namespace veltrix\n")
    return ("// What this header is.\n" + "".join(f"// {key}\n" for key in keys)
            + "#pragma once\n\n" + includes + inside)


def example(stem: str) -> str:
    return (f"// The shortest use of {stem}.\n// {LICENCE}\n#include <veltrix/{stem}.hpp>\n\n"
            "int main() { return 0; }\n")


def page(stem: str) -> str:
    told = {"Cost": f"Not measured yet; `bench/{stem}_bench` is the command.",
            "Example": f"`docs/examples/{stem}_example.cpp`:\n\n```cpp\n{example(stem)}```",
            "Guarantees": "| Operation | Progress | Waits on | Throws | Callback runs under | "
                          "Complexity |\n|---|---|---|---|---|---|\n| get | blocking | a lock | "
                          "nothing | nothing | constant |"}
    return (f"# {stem}\n\nA structure that the tests of tidy use.\n\n"
            + "\n".join(f"## {name}\n\n{told.get(name, 'See the example.')}\n"
                        for name in SECTIONS))


def suite(stem: str, told: str = "") -> str:
    return (f"// {told or 'Behaviour.'}\n// {LICENCE}\n#include \"support/catch.hpp\"\n\n"
            f"TEST_CASE(\"{stem} {'under threads ' if told else ''}keeps its promise\") {{\n"
            "  CHECK(1 + 1 == 2);\n}\n")


def primitive(stem: str, body: str, includes: str = "") -> dict[str, str]:
    return {f"{BASE}{stem}.hpp": header(f"docs/{stem}.md", body, includes),
            f"tests/{stem}_test.cpp": suite(stem),
            f"tests/{stem}_stress_test.cpp": suite(stem, "Invariant: nothing is lost."),
            f"docs/{stem}.md": page(stem), f"docs/examples/{stem}_example.cpp": example(stem)}


CELL_BODY = '''/// Holds one value. Braces in literals: "}" and '{' mislead nobody.
template <class Value>
class snapshot_cell {
 public:
  snapshot_cell() = default;

  /// Takes the value.
  int load() const noexcept {
    return value_.load(detail::sync::acquire);  // (1) acquire-load; pairs with release-store (2)
  }

  /// Replaces the value.
  void publish(int value, detail::task callback) {
    const char* text = R"(std::mutex volatile } ")";
    {
      const detail::sync::lock_guard<detail::sync::mutex> lock(mutex_);
      count_.fetch_add(1'000, detail::sync::relaxed);
      // (2) release-store; pairs with acquire-load (1). Publishes: what came before
      // the store, (3) in the drawing.
      value_.store(value, detail::sync::release);
    }
    callback(text);
  }

  /// Waits.
  void await() {
    detail::sync::unique_lock<detail::sync::mutex> lock(mutex_);
    // Woken by publish(), after it stored value_.
    while (value_.load(detail::sync::relaxed) == 0) {  // relaxed: mutex_ is held
      for (int i = 0; i < 2; ++i) {
        if (i == 1) {
          changed_.wait(lock);  // woken by publish(), after it stored value_
        }
      }
    }
  }

  bool claim() {
    bool expected = false;
    return taken_.compare_exchange_strong(
        expected, true, detail::sync::acq_rel,  // (4) acq_rel-rmw; pairs with itself (4)
        detail::sync::relaxed);
  }

 private:
  detail::sync::mutex mutex_;                // guards value_
  detail::sync::condition_variable changed_;  // value_ changed
  detail::sync::atomic<int> value_{0};
  detail::sync::atomic<int> count_{0};  // relaxed: statistics only
  detail::sync::atomic<bool> taken_{false};
};
'''

GOOD = {
    **primitive("snapshot_cell", CELL_BODY, '#include "detail/sync.hpp"\n\n'),
    **primitive("concurrent_map", "/// A map.\nclass concurrent_map {\n public:\n"
                "  /// Puts it in.\n  void insert(int key);\n\n private:\n  int count_ = 0;\n};\n",
                '#include "detail/sync.hpp"\n\n'),
    BASE + "version.hpp": header("docs/design.md", "#define VELTRIX_ABI v1\n", plain=True),
    "tests/version_test.cpp": suite("version"),
    BASE + "veltrix.hpp": header("docs/design.md", '#include "concurrent_map.hpp"\n'
                                 '#include "snapshot_cell.hpp"\n#include "version.hpp"\n',
                                 plain=True),
    BASE + "detail/config.hpp": header("docs/design.md",
                                       "namespace detail {\ninline void raise() {}\n}\n",
                                       '#include "../version.hpp"\n\n'),
    BASE + "detail/sync.hpp": header(
        "docs/design.md", "namespace detail::sync {\nusing mutex = std::mutex;\n}\n",
        '#include <atomic>\n#include <mutex>\n#include <unistd.h>\n\n#include "config.hpp"\n\n'),
    BASE + "worker/meter.hpp": header("docs/design.md", "struct meter {\n  int seen;\n};\n",
                                      '#include <string>\n\n#include "../detail/sync.hpp"\n\n'),
    "tests/support/catch.hpp": f"// A shim.\n// {LICENCE}\n#pragma once\n",
    "docs/design.md": "# Design\n\nSee [decisions](decisions.md), `bench/results/a.json`: 5 ns.\n",
    "docs/decisions.md": "# Decisions\n\nNone yet.\n",
    "bench/results/a.json": "{}\n",
    "README.md": "# Veltrix\n\nRead [the cell](docs/snapshot_cell.md#cost).\n",
}


class Plant:
    """A change of the good tree, and the findings it must bring: (path, text of the line)."""

    def __init__(self, path, old, new, *wanted, add=None, remove=(), line=None):
        self.path, self.old, self.new = path, old, new
        self.wanted, self.add, self.remove, self.line = wanted, add or {}, remove, line

    def apply(self) -> dict[str, str]:
        files = {**GOOD, **self.add}
        for path in self.remove:
            del files[path]
        if self.old is not None:
            assert files[self.path].count(self.old) >= 1, (self.path, self.old)
            files[self.path] = files[self.path].replace(self.old, self.new, 1)
        return files

    def expected(self, files) -> set[tuple[str, int]]:
        if self.line is not None:
            return {(self.path, self.line)}
        places = set()
        for path, text in self.wanted or [(self.path, self.new.strip("\n").split("\n")[0])]:
            lines = [number for number, line in enumerate(files[path].split("\n"), 1)
                     if text in line]
            assert len(lines) == 1, (path, text, lines)
            places.add((path, lines[0]))
        return places


def in_cell(new: str, *wanted, **more) -> Plant:
    """Puts a line into publish()."""
    return Plant(CELL, "    callback(text);\n", f"    {new}\n    callback(text);\n", *wanted,
                 **more)


def in_map(new: str, *wanted, **more) -> Plant:
    """Puts a public member into concurrent_map."""
    return Plant(MAP, "\n private:", f"\n  {new}\n\n private:", *wanted, **more)


def in_test(new: str, *wanted, **more) -> Plant:
    return Plant(CELL_TEST, "TEST_CASE(", f"{new}\n\nTEST_CASE(", *wanted, **more)


def include(name: str, path: str = CELL) -> Plant:
    return Plant(path, "#pragma once\n\n", f"#pragma once\n\n#include {name}\n", (path, name))


def lines_of(count: int, text: str) -> str:
    return "".join(f"    {text};\n" for _ in range(count))


DEEP = "if (a) {\n if (b) {\n  for (;;) {\n   while (c) {\n   }\n  }\n }\n}"
LONG = "void publish_all() {\n" + lines_of(60, "act()") + "  }"
TOO_LONG_HEADER = "// filler\n" * 600

PLANTS: dict[str, list[Plant]] = {
    "layer-unknown": [Plant("include/other/strange.hpp", None, "", line=1, add={
        "include/other/strange.hpp": header("docs/design.md", "", plain=True)})],
    "layer-order": [include('"concurrent_map.hpp"'), include('"worker/meter.hpp"')],
    "layer-cycle": [Plant(BASE + "version.hpp", "#define", '#include "detail/config.hpp"\n#define',
                          (BASE + "version.hpp", '"detail/config.hpp"'),
                          (BASE + "detail/config.hpp", '"../version.hpp"'))],
    "layer-umbrella": [
        Plant(BASE + "veltrix.hpp", '#include "version.hpp"\n', "", line=1),
        Plant(BASE + "veltrix.hpp", '#include "version.hpp"\n',
              '#include "version.hpp"\n#include "worker/meter.hpp"\n',
              (BASE + "veltrix.hpp", "worker/meter.hpp"))],
    "include-foreign": [include("<unistd.h>"), include("<simdjson.h>", BASE + "worker/meter.hpp"),
                        include('"missing.hpp"')],
    "include-banned": [include("<functional>"), include("<iostream>", BASE + "detail/sync.hpp")],
    "include-seam": [include("<mutex>")],
    "seam": [in_cell("std::this_thread::yield();"),
             in_map("std::atomic<int>* word(); ")],
    "std-name": [in_map("void visit(std::function<void()> seen);")],
    "fence": [in_cell("atomic_thread_fence(detail::sync::relaxed);  // relaxed: no order")],
    "volatile": [in_cell("volatile int seen = 0;")],
    "consume": [in_cell("value_.load(detail::sync::consume);")],
    "thread-detach": [in_cell("worker_thread.detach();"),
                      in_test("void go() { thread(f).detach(); }")],
    "macro-place": [Plant(CELL, "/// Holds", "#define VELTRIX_CELL 1\n/// Holds")],
    "macro-prefix": [Plant(BASE + "version.hpp", "#define", "#define OTHER 1\n#define")],
    "ndebug": [Plant(CELL, "/// Holds", "#if defined(NDEBUG)\n#endif\n/// Holds"),
               in_test("void go() { assert(true); }"),
               Plant(CELL_TEST, "#include", "#include <cassert>\n#include")],
    "raw-throw": [in_cell("throw text;"), in_cell("if (text) { } try { } catch (int) { }")],
    "layout-macro": [Plant(MAP, "  int count_ = 0;",
                           "#if VELTRIX_CHECKED\n  int extra_ = 0;\n#endif\n  int count_ = 0;",
                           (MAP, "extra_"))],
    "await-suspend": [in_cell("bool await_suspend(int);")],
    "model-place": [Plant(MAP, "  int count_ = 0;",
                          "#if defined(VELTRIX_MODEL)\n#endif\n  int count_ = 0;",
                          (MAP, "VELTRIX_MODEL"))],
    "header-block": [
        Plant(CELL, "// Progress: blocking.\n", "", (CELL, "// Callbacks:")),
        Plant(CELL, "// Threads: any.\n// Progress: blocking.\n",
              "// Progress: blocking.\n// Threads: any.\n",
              (CELL, "// Progress:"), (CELL, "// Threads:")),
        Plant(CELL, "// What this header is.\n", "", line=1),
        Plant(CELL, "// Threads: any.", "// Threads:"),
        Plant(CELL, "// Use for:", "// more.\n" * 16 + "// Use for:", line=26)],
    "header-guide": [Plant(CELL, "Guide: docs/snapshot_cell.md", "Guide: docs/none.md"),
                     Plant(CELL, "Guide: docs/snapshot_cell.md", "Guide: the manual")],
    "spdx": [Plant(CELL_TEST, f"// {LICENCE}\n", "", line=1)],
    "pragma-once": [Plant(CELL, "#pragma once\n\n", "", (CELL, '#include "detail/sync.hpp"'))],
    "abi-namespace": [
        Plant(MAP, "inline namespace VELTRIX_ABI {", "namespace other {",
              (MAP, "namespace veltrix {")),
        Plant(BASE + "detail/sync.hpp", "namespace veltrix {", "namespace veltrix::detail {")],
    "name-template": [Plant(CELL, "template <class Value>",
                            "template <class value_type, class = void>")],
    "name-type": [in_map("struct BadName;"), in_map("using Other = int;")],
    "name-function": [in_map("void doIt();")],
    "name-member": [Plant(MAP, "int count_ = 0;", "int count = 0;")],
    "bool-parameter": [in_map("void set(int key, bool on);")],
    "same-type-arguments": [in_map("void move(int from, int to);")],
    "callback-last": [in_map("template <class Function> void visit(Function&& f, int key);")],
    "type-docstring": [Plant(MAP, "/// A map.\n", "", (MAP, "class concurrent_map {"))],
    "line-length": [in_cell("act();" + " " * 100 + "act();")],
    "header-length": [Plant(MAP, "/// A map.\n", TOO_LONG_HEADER + "/// A map.\n", line=601)],
    "function-length": [in_map(LONG),
                        Plant(CELL_TEST, "  CHECK(", lines_of(60, "act()") + "  CHECK(",
                              (CELL_TEST, "TEST_CASE("))],
    "nesting": [Plant(CELL, "    callback(text);\n", DEEP + "\n    callback(text);\n",
                      (CELL, "while (c)"))],
    "size-exception": [
        Plant("docs/decisions.md", "None yet.",
              f"size-exception: `{MAP}` is one algorithm that reads best in one place."),
        Plant("docs/decisions.md", "None yet.", f"size-exception: `{MAP}:publish_all`",
              add={MAP: GOOD[MAP].replace("\n private:", f"\n  {LONG}\n\n private:", 1)})],
    "atomic-order": [in_cell("value_.load();"),
                     Plant(MAP, "  int count_ = 0;",
                           "  using counter = detail::sync::atomic<int>;\n  counter hits_{0};\n"
                           "  int hits() { return hits_.load(); }", (MAP, "hits_.load()")),
                     Plant(MAP, "  int count_ = 0;",
                           "  detail::sync::atomic<int> hits_[2];\n"
                           "  void reset() { for (auto& each : hits_) each.store(0); }",
                           (MAP, "each.store(0)")), in_cell("count_.fetch_add(1);"),
                     in_cell("// (5) acq_rel-rmw; pairs with itself.\n"
                             "    taken_.compare_exchange_weak(e, true, detail::sync::acq_rel);",
                             (CELL, "compare_exchange_weak"))],
    "atomic-operator": [in_cell("++count_;"), in_cell("count_ += 2;"),
                        Plant(MAP, "  int count_ = 0;",
                              "  detail::sync::atomic<int> hits_{0};\n"
                              "  void hit() { hits_.value++; }", (MAP, "hits_.value++")),
                        in_cell("value_ = value;")],
    "memory-order-comment": [
        in_cell("value_.load(detail::sync::acquire);"),
        in_cell("value_.load(detail::sync::memory_order::acquire);  // the newest"),
        in_cell("value_.store(1, detail::sync::release);  // (5) release-load; pairs with itself "
                "(5)"),
        in_cell("act();  // (5) release-store; pairs with itself (5)"),
        Plant(CELL, "    callback(text);\n",
              "    // (5) release-rmw; pairs with itself (5)\n"
              "    taken_.compare_exchange_weak(e, true, detail::sync::release,\n"
              "                                 detail::sync::acquire);\n    callback(text);\n",
              (CELL, "taken_.compare_exchange_weak"))],
    "memory-order-pair": [
        Plant(CELL, "pairs with release-store (2)", "pairs with release-store (9)",
              (CELL, "(1) acquire-load; pairs with release-store (9)"),
              (CELL, "// (2) release-store;")),
        Plant(CELL, "pairs with itself (4)", "pairs with the store"),
        Plant(CELL, "pairs with itself (4)", "pairs with itself (4) and (1)"),
        Plant(CELL, "pairs with release-store (2)", "pairs with release-rmw (2)"),
        Plant(CELL, "// (4) acq_rel-rmw; pairs with itself (4)",
              "// (2) acq_rel-rmw; pairs with acquire-load (1)",
              (CELL, "// (2) acq_rel-rmw"))],
    "memory-order-seq-cst": [in_cell("value_.store(1, detail::sync::seq_cst);  "
                                     "// (5) seq_cst-store; pairs with itself (5)")],
    "relaxed-reason": [in_cell("taken_.store(true, detail::sync::relaxed);")],
    "mutex-guards": [Plant(MAP, "  int count_", "  detail::sync::mutex other_;\n  int count_")],
    "wait-woken": [in_cell("changed_.wait(its_lock);"),
                   in_cell("return detail::wait_until(lock, changed_, ready);")],
    "try-waits": [Plant(CELL, "void await() {", "void try_await() {",
                        (CELL, "changed_.wait(lock);"))],
    "result-nodiscard": [Plant(MAP, "/// A map.\n", "/// An answer.\nstruct put_result {\n"
                               "  int count;\n};\n\n/// A map.\n", (MAP, "struct put_result"))],
    "test-hidden": [in_test('TEST_CASE("snapshot_cell may fail", "[.][slow]") { CHECK(true); }')],
    "test-shim": [Plant(CELL_TEST, '"support/catch.hpp"', "<catch2/catch.hpp>",
                        (CELL_TEST, "catch2"))],
    "suppression": [in_test('__attribute__((no_sanitize("thread"))) void go();'),
                    Plant("tests/tsan.supp", None, "", line=1, add={"tests/tsan.supp": "race\n"})],
    "test-name": [
        in_test('TEST_CASE("snapshot_cell test1") { CHECK(true); }'),
        in_test('TEST_CASE("test1 checks the cell") { CHECK(true); }'),
        in_test('TEST_CASE("the cell keeps it") { CHECK(true); }'),
        Plant("tests/concurrent_map_test.cpp", "TEST_CASE(",
              'TEST_CASE("concurrent_map twice " "named here") { CHECK(true); }\n'
              'TEST_CASE("concurrent_map twice named here") { CHECK(1); }\n\nTEST_CASE(',
              ("tests/concurrent_map_test.cpp", "CHECK(1)"))],
    "test-asserts": [in_test('TEST_CASE("snapshot_cell does nothing") { go("CHECK(true)"); }'),
                     in_test('void go() { act(); }\nTEST_CASE("snapshot_cell goes on") { go(); }',
                             (CELL_TEST, "goes on"))],
    "test-sleep": [in_test("void go() { std::this_thread::sleep_for(1ms); }")],
    "test-seed": [in_test("std::mt19937_64 numbers(7);")],
    "stress-invariant": [Plant("tests/snapshot_cell_stress_test.cpp", "Invariant: nothing is lost.",
                               "Threads.", line=1)],
    "primitive-files": [
        Plant(CELL, None, "", line=1, remove=["tests/snapshot_cell_stress_test.cpp"]),
        Plant(MAP, None, "", line=1, remove=["tests/concurrent_map_test.cpp"])],
    "page-title": [Plant(CELL_PAGE, "# snapshot_cell", "# The cell"),
                   Plant(CELL_PAGE, "A structure that the tests of tidy use.\n", "",
                         (CELL_PAGE, "## Example"))],
    "page-sections": [Plant(CELL_PAGE, "## Cost", "## Costs"),
                      Plant(CELL_PAGE, "## History\n\nSee the example.\n", "",
                            line=GOOD[CELL_PAGE].count("\n") + 1 - 3),
                      Plant(CELL_PAGE, "## History", "## History\n\nNone.\n\n## More",
                            (CELL_PAGE, "## More"))],
    "page-guarantees": [Plant(CELL_PAGE, "| Operation |", "| Call |")],
    "page-example": [Plant(CELL_PAGE, "return 0;", "return 1;", (CELL_PAGE, "int main()")),
                     Plant(CELL_PAGE, "`docs/examples/snapshot_cell_example.cpp`:", "The file:",
                           (CELL_PAGE, "## Example"),
                           add={"README.md": "# Veltrix\n\nsnapshot_cell_example.cpp\n"})],
    "page-cost": [Plant(CELL_PAGE, "Not measured yet;", "Little;", (CELL_PAGE, "## Cost"))],
    "example-used": [Plant("docs/examples/other_example.cpp", None, "", line=1, add={
        "docs/examples/other_example.cpp": example("nothing")})],
    "page-figure": [Plant(CELL_PAGE, "## Cost\n\n", "## Cost\n\nIt takes 12.5 ns.\n",
                          (CELL_PAGE, "12.5 ns")),
                    Plant("README.md", "Read", "It is 3 × faster.\nRead")],
    "page-link": [Plant("README.md", "(docs/snapshot_cell.md#cost)", "(docs/cell.md)"),
                  Plant("docs/design.md", "See [", "`bench/results/b.json`\nSee [")],
    "machine-path": [Plant("README.md", "Read", "Built in /ho" + "me/me/veltrix.\nRead"),
                     in_test('const char* where = "/ro' + 'ot/data";')],
    "unfinished": [in_test("// TO" + "DO: more."),
                   Plant("README.md", "Read", "FIX" + "ME later.\nRead")],
    "marketing": [Plant("README.md", "Read", "A blazing fast library.\nRead")],
}

# Changes that break no rule: what a careless rule would take for a fault.
HARMLESS = {
    "code in comments and literals": in_cell(
        'const char* other = "std::mutex throw // (9) release-store";  // std::atomic<int> x; ++y'),
    "a brace in one branch of #if": in_cell(
        "#if A\n    if (text) {\n#else\n    if (value) {\n#endif\n    }"),
    "an exchange that is no atomic's": in_cell("std::exchange(value, 2);"),
    "one relaxed order for both ends of an exchange": in_cell(
        "taken_.compare_exchange_weak(e, true, detail::sync::relaxed);  // relaxed: why"),
    "a load that is no atomic's": in_cell("other.load();"),
    "a wrapped number comment behind code": Plant(
        CELL, "    callback(text);\n",
        "    value_.store(1, detail::sync::seq_cst);  // (5) seq_cst-store; pairs with\n"
        "                                             // itself (5). Forbids: both read 0.\n"
        "    callback(text);\n"),
    "a partner in another header": Plant(
        CELL, "    callback(text);\n",
        "    // (5) release-store; pairs with acquire-load concurrent_map.hpp (7).\n"
        "    value_.store(1, detail::sync::release);\n    callback(text);\n",
        add={MAP: GOOD[MAP].replace(
            "  int count_ = 0;", "  int get() {\n    // (7) acquire-load; pairs with "
            "snapshot_cell.hpp (5).\n    return word_.load(detail::sync::acquire);\n  }\n"
            "  detail::sync::atomic<int> word_{0};")}),
    "a group of atomics under one reason": Plant(
        MAP, "  int count_ = 0;", "  // relaxed: statistics only\n"
        "  detail::sync::atomic<int> hits_{0};\n  detail::sync::atomic<int> misses_{0};\n"
        "  void miss() { misses_.fetch_add(1, detail::sync::relaxed); }"),
    "an atomic alone on its cache line, paired with itself": Plant(
        MAP, "  int count_ = 0;",
        "  detail::cache_padded<detail::sync::atomic<int>> hits_{0};  // relaxed: statistics only\n"
        "  void hit() {\n    hits_.value.fetch_add(1, detail::sync::relaxed);\n"
        "    // (1) acq_rel-rmw; pairs with itself. Publishes: all use before the last hit.\n"
        "    hits_.value.exchange(0, detail::sync::acq_rel);\n  }"),
    "a wait that hands over to another": in_cell("return state_->wait_until(steady_clock::now());"),
    "a comment over the loop that waits": in_cell(
        "// Woken by publish(), after it stored value_.\n    while (text) {\n"
        "      if (value) {\n        changed_.wait(its_lock);\n      }\n    }"),
    "an alias of an atomic": Plant(
        MAP, "  int count_ = 0;",
        "  using counter = detail::sync::atomic<int>;\n"
        "  counter hits_{0};  // relaxed: statistics only\n"
        "  int hits() { return hits_.load(detail::sync::relaxed); }"),
    "a member defined outside its class": Plant(
        MAP, "  int count_ = 0;\n};\n",
        "  int count_ = 0;\n};\ninline void concurrent_map::insert(int key) { count_ = key; }\n"),
    "a reference to an atomic": Plant(
        MAP, "  int count_ = 0;",
        "  // relaxed: statistics only\n  std::array<detail::sync::atomic<int>, 9> hits_{};\n"
        "  int hits() {\n    int sum = 0;\n    for (const auto& one : hits_)\n"
        "      sum += one.load(detail::sync::relaxed);\n    auto& first = hits_[0];\n"
        "    return sum + first.load(detail::sync::relaxed);\n  }"),
    "an enumeration whose values tell themselves": Plant(
        MAP, "/// A map.\n", "enum class answer {\n  full,  ///< no room\n};\n\n/// A map.\n"),
    "template parameters over several lines": Plant(
        MAP, "/// A map.\n", "/// A map.\ntemplate <class Key, class Hash = std::hash<Key>,\n"
        "          class Equal = std::equal_to<>,\n          class Allocator = int>\n"),
    "exceptions under their macro": in_cell(
        "#if VELTRIX_HAS_EXCEPTIONS\n    try { act(); } catch (...) { throw; }\n#endif"),
    "an assertion in a helper": in_test(
        'template <class T> void verify() { CHECK(true); }\n'
        'TEST_CASE("snapshot_cell is verified elsewhere") { verify<std::map<int, int>>(); }'),
    "a sleep with its reason": in_test(
        "void go() { std::this_thread::sleep_for(1ms); }  // sleep: the kernel's tick is tested"),
    "a folder that every machine has": in_test('const char* root = "/home";'),
    "a test of a part named after the whole": Plant(
        CELL, None, "", add={"tests/snapshot_cell_history_test.cpp": suite("snapshot_cell").replace(
            "keeps its promise", "keeps its history")}),
    "fixed seeds of a stress test": Plant(
        "tests/snapshot_cell_stress_test.cpp", "  CHECK(", "  random_source random(7);\n  CHECK("),
    "an example shown by the README": Plant(
        "README.md", "Read", f"```cpp\n{example('nothing')}```\nRead",
        add={"docs/examples/other_example.cpp": example("nothing")}),
    "a virtual sleep": in_test("void go() { clock.sleep_for(hours(24)); }"),
    "a seed that is printed": in_test(
        "std::mt19937_64 numbers(7);\nvoid go(int seed) { CAPTURE(seed); }"),
    "a granted long function": in_map(LONG, add={
        "docs/decisions.md": f"# Decisions\n\n- size-exception: `{MAP}:publish_all`\n"
                             "  It lists every event in one table, in one place.\n"}),
    "a lambda starts its own levels": in_cell(
        "if (a) { if (b) { for (;;) { run([&] { if (c) { act(); } }); } } }"),
    "else-if chains are flat": in_cell(
        "if (a) { } else if (b) { } else if (c) { } else if (d) { } else { }"),
    "formulas and settings on a page": Plant(
        CELL_PAGE, "## Cost\n\n", "## Cost\n\nAt most 2 × held; a wait of 50 ms; `3 ns`.\n"),
    "a bool that is returned or private": Plant(
        MAP, "  int count_ = 0;", "  bool has(int key, bool twice);\n  int count_ = 0;"),
    "the example without its opening comment": Plant(
        CELL_PAGE, f"```cpp\n// The shortest use of snapshot_cell.\n// {LICENCE}\n", "```cpp\n"),
}


def write(folder: str, files: dict[str, str]):
    for path, text in files.items():
        full = os.path.join(folder, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w", encoding="utf-8") as file:
            file.write(text)


def findings(files: dict[str, str]):
    with tempfile.TemporaryDirectory() as folder:
        write(folder, files)
        return run(Tree(folder))


class Rules(unittest.TestCase):
    maxDiff = None

    def test_the_good_tree_passes(self):
        self.assertEqual([str(each) for each in findings(GOOD)], [])

    def test_each_planted_violation_is_found_alone_and_in_its_place(self):
        for rule, plants in PLANTS.items():
            for at, plant in enumerate(plants):
                with self.subTest(rule=rule, plant=at):
                    files = plant.apply()
                    found = findings(files)
                    wanted = {(rule, path, line) for path, line in plant.expected(files)}
                    self.assertEqual({(each.rule, each.path, each.line) for each in found}, wanted,
                                     "\n" + "\n".join(map(str, found)))

    def test_harmless_changes_pass(self):
        for what, plant in HARMLESS.items():
            with self.subTest(what):
                self.assertEqual([str(each) for each in findings(plant.apply())], [])

    def test_every_rule_has_a_planted_violation(self):
        self.assertEqual(sorted(RULES), sorted(PLANTS))

    def test_the_tables_of_headers_agree(self):
        public = {name.removesuffix(".hpp") for name in LAYERS if "/" not in name}
        self.assertEqual(public, set(PRIMITIVES))


class Lexing(unittest.TestCase):
    def code(self, text):
        return Source("a.cpp", text).code

    def test_comments_and_literals_are_blanked_and_offsets_kept(self):
        for text in ('a("x // y") /* z\n "q" */ b', "c = '\"'; d", 'R"--(")" //)--" + e',
                     "1'000'000 + f", "u8'x' + g", '"a\\"b" + h', "// one \\\n two\ni"):
            code = self.code(text)
            self.assertEqual(len(code), len(text))
            self.assertEqual(code.count("\n"), text.count("\n"))
            self.assertEqual(code[-1], text[-1])
            self.assertNotRegex(code, r"[xyzq]|//|two")

    def test_a_literal_is_joined_from_its_parts(self):
        source = Source("a.cpp", 'f("one "\n  "two", "three");')
        self.assertEqual(source.literal_after(1)[0], "one two")


class Command(unittest.TestCase):
    def tidy(self, *given):
        return subprocess.run([sys.executable, os.path.join(HERE, "tidy.py"), *given],
                              capture_output=True, text=True, check=False)

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        write(self.folder, {**GOOD, "README.md": "# Veltrix\n\nFIX" + "ME\n"})

    def test_a_finding_is_one_line_and_the_exit_status_one(self):
        answer = self.tidy("--root", self.folder)
        self.assertEqual(answer.returncode, 1)
        first, last = answer.stdout.splitlines()
        self.assertRegex(first, r"^README\.md:3: unfinished: 'FIX" + "ME'; .+$")
        self.assertRegex(last, r"^tidy: 1 findings in 1 files by 1 rules; \d+ files read")

    def test_paths_and_rules_narrow_the_report(self):
        self.assertEqual(self.tidy("--root", self.folder, "docs", "include").returncode, 0)
        self.assertEqual(self.tidy("--root", self.folder, "README.md").returncode, 1)
        self.assertEqual(self.tidy("--root", self.folder, "--rule", "fence").returncode, 0)
        self.assertEqual(self.tidy("--root", self.folder, "--rule", "unfinished").returncode, 1)

    def test_mistakes_are_refused(self):
        self.assertEqual(self.tidy("--rule", "nonsense").returncode, 2)
        self.assertNotEqual(self.tidy("--root", self.folder, "no/such/path").returncode, 0)

    def test_list_prints_every_rule_with_a_sentence(self):
        lines = self.tidy("--list").stdout.splitlines()
        self.assertEqual([line.split(":")[0] for line in lines], list(RULES))
        for line in lines:
            self.assertRegex(line, r"^[a-z-]+: [A-Z].+\.$")


if __name__ == "__main__":
    unittest.main()
