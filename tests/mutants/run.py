#!/usr/bin/env python3
# SPDX-License-Identifier: BSL-1.0
"""Breaks the headers on purpose, one named mistake at a time, and asks who notices.

    python3 tests/mutants/run.py                        every mutant of tests/mutants/*.txt
    python3 tests/mutants/run.py --only retry --only backoff
    python3 tests/mutants/run.py --name "half-open lets two probes through"
    python3 tests/mutants/run.py --sample 8 --seed 42   some of them, for a short run
    python3 tests/mutants/run.py --report out.json      also out.md, a table

The tree is copied to a scratch folder and only the copy is changed. For each mutant the programs
that it names are built from the changed copy and run, in order, until one turns red. Before that,
the same programs are built from the unchanged copy: they must be green. A program that does not end
in time counts as red. A mutant that does not compile counts as caught only if it was meant to.

Exit status: 0 every mutant was caught, 1 one survived or the unchanged tree is red, 2 a list or the
command line is wrong. The format of the lists is told in mutant_file.py.
"""

import argparse
import concurrent.futures
import json
import os
import queue
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from mutant_file import ListError, load  # noqa: E402  (beside this file)

COPIED = ("include", "tests", "worker", "fuzz", "docs")


@dataclass(frozen=True)
class Kind:
    """A way to build a step: flags, and the sources that are compiled once and linked to each."""
    flags: tuple = ()
    linked: tuple = ("tests/support/catch_main.cpp",)
    arguments: tuple = ("--abort",)  # at the run: the first failure is enough


KINDS = {
    "plain": Kind(),
    "checked": Kind(("-DVELTRIX_CHECKED=1",)),
    "tsan": Kind(("-g1", "-fsanitize=thread")),
    "asan": Kind(("-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")),
    "model": Kind(("-O2", "-DVELTRIX_MODEL=<model/instruments.hpp>"),
                  ("tests/support/catch_main.cpp", "tests/model/engine.cpp",
                   "tests/model/explore.cpp", "tests/model/fiber.cpp", "tests/model/heap.cpp",
                   "tests/model/state_memory.cpp")),
    "fuzz": Kind((), ("fuzz/replay.cpp",), ("--random", "300", "--seed", "1")),
}
# What every test includes and no mutant changes: compiled once per variant.
PRECOMPILED = ["support/catch.hpp", "algorithm", "atomic", "chrono", "cmath", "condition_variable",
               "list", "map", "memory", "mutex", "optional", "span", "stop_token", "string",
               "thread", "unordered_map", "vector"]


def ended(command, seconds, **how):
    """Runs `command` in a process group of its own. Result: (exit status or None, output)."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace", start_new_session=True, **how) as process:
        try:
            output, _ = process.communicate(timeout=seconds)
            return process.returncode, output
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return None, ""


def replace_file(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


@dataclass
class Outcome:
    """What became of one step: green, or what turned red and how."""
    red: str = ""  # "", "fails", "timeout", "does not compile"
    where: str = ""  # the first assertion, or the compiler's first error
    seconds: float = 0
    run_seconds: float = 0


class Workshop:
    """One copy of the tree, in which one thing at a time is built."""

    def __init__(self, folder, options):
        self.folder = folder
        self.options = options
        self.built = {}  # kind: the objects that its steps share

    def copy(self):
        for name in COPIED:
            source = os.path.join(self.options.root, name)
            if os.path.isdir(source):
                shutil.copytree(source, os.path.join(self.folder, name))

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def command(self, kind):
        launcher = ["ccache"] if self.options.ccache else []
        return launcher + [self.options.compiler, "-std=c++20", *self.options.flags.split(), "-w",
                           "-pthread", "-Iinclude", "-Itests", *KINDS[kind].flags,
                           '-DVELTRIX_TEST_DATA="tests/data"', '-DVELTRIX_SOURCE_DIR="."']

    def environment(self):
        return os.environ | {
            "CCACHE_NOHASHDIR": "1",
            "CCACHE_SLOPPINESS": "pch_defines,time_macros,include_file_mtime,include_file_ctime",
            "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
            "ASAN_OPTIONS": "detect_stack_use_after_return=1:strict_string_checks=1"}

    def compile(self, kind, more):
        return ended(self.command(kind) + more, self.options.build_timeout, cwd=self.folder,
                     env=self.environment())

    def prepare(self, kind):
        """Compiles what no mutant changes, once. Result: the objects to link."""
        if kind in self.built:
            return self.built[kind]
        ready = f"ready/{kind}"
        os.makedirs(self.path(ready))
        includes = "".join(f'#include "{name}"\n' if "/" in name else f"#include <{name}>\n"
                           for name in PRECOMPILED)
        replace_file(self.path(ready, "common.hpp"), includes)
        commands = [["-x", "c++-header", f"{ready}/common.hpp", "-o", f"{ready}/common.hpp.gch"]]
        objects = []
        for source in KINDS[kind].linked:
            objects.append(f"{ready}/{os.path.basename(source)}.o")
            commands.append(["-c", source, "-o", objects[-1]])
        for more in commands:
            status, output = self.compile(kind, more)
            if status != 0:
                raise RuntimeError(f"cannot build what the tests share ({kind}):\n{output}")
        self.built[kind] = objects
        return objects

    def run(self, step, seconds):
        """Builds and runs one step. `seconds`: for the run."""
        begun = time.monotonic()
        outcome = self.run_tidy(seconds) if step.test == "tidy" else self.run_test(step, seconds)
        outcome.seconds = time.monotonic() - begun
        return outcome

    def run_tidy(self, seconds):
        status, output = ended([sys.executable, self.path("tests/tidy.py"), "--root", self.folder,
                                "include"], seconds)
        if status == 0:
            return Outcome()
        return Outcome("timeout" if status is None else "fails", output.partition("\n")[0])

    def run_test(self, step, seconds):
        objects = self.prepare(step.kind)
        status, output = self.compile(
            step.kind, ["-include", f"ready/{step.kind}/common.hpp", "-c", step.source, "-o",
                        "step.o"])
        if status == 0:
            status, output = self.compile(step.kind, ["step.o", *objects, "-o", "step"])
        if status is None:
            return Outcome("timeout", "the build")
        if status != 0:
            return Outcome("does not compile", first_error(output))
        begun = time.monotonic()
        status, output = ended([self.path("step"), *self.arguments(step)], seconds,
                               cwd=self.folder, env=self.environment())
        if status == 0:
            return Outcome(run_seconds=time.monotonic() - begun)
        if status is None:
            return Outcome("timeout", "the run")
        return Outcome("fails", first_failure(output) or f"exit status {status}")

    def arguments(self, step):
        corpus = f"fuzz/corpus/{os.path.basename(step.test).removesuffix('_fuzz')}"
        more = step.kind == "fuzz" and os.path.isdir(self.path(corpus))
        return [*KINDS[step.kind].arguments, *([corpus] if more else [])]

    def change(self, mutant):
        """Applies the mutant to the copy. Result: the files as they were, for put_back()."""
        before = {}
        for edit in mutant.edits:
            path = self.path(edit.path)
            if not os.path.isfile(path):
                raise ListError(f"{mutant.place}: there is no {edit.path}")
            with open(path, encoding="utf-8") as file:
                text = file.read()
            before.setdefault(path, text)
            try:
                replace_file(path, edit.apply(text))
            except ListError as error:
                self.put_back(before)
                raise ListError(f"{mutant.place}: {error}") from None
        return before

    @staticmethod
    def put_back(before):
        for path, text in before.items():
            replace_file(path, text)


def first_error(output):
    found = re.search(r"^\S+:\d+:\d+: (?:fatal )?error: .*", output, re.M)
    return found.group(0) if found else output.strip().partition("\n")[0]


def first_failure(output):
    found = re.search(r"^(\S+\.[ch]pp:\d+): FAILED", output, re.M)
    if found:
        return found.group(1)
    found = re.search(r"(ThreadSanitizer|AddressSanitizer|runtime error|veltrix): ?(.*)", output)
    return found.group(0)[:120] if found else ""


# --- what to run ----------------------------------------------------------------------------------


def arguments(given):
    parser = argparse.ArgumentParser(
        description="Breaks the headers on purpose and asks which test notices.")
    add = parser.add_argument
    add("--only", action="append", default=[], metavar="HEADER",
        help="this list only; may be repeated")
    add("--name", action="append", default=[], help="this mutant only; may be repeated")
    add("--sample", type=int, default=0, metavar="N", help="N of them, chosen by --seed")
    add("--seed", type=int, default=0, help="for --sample (default: 0)")
    add("--jobs", type=int, default=max(1, os.cpu_count() or 1), help="mutants at a time")
    add("--report", metavar="FILE", help="write FILE (JSON) and a table beside it (.md)")
    add("--list", action="store_true", help="print the mutants and stop")
    add("--root", default=os.path.dirname(os.path.dirname(HERE)), help="the tree to copy")
    add("--lists", help="the folder of the lists (default: tests/mutants of the tree)")
    add("--compiler", default=os.environ.get("CXX", "g++"))
    add("--flags", default="-O0", help="for the compiler; -O0 builds fastest")
    add("--build-timeout", type=float, default=300, metavar="SECONDS")
    add("--timeout", type=float, default=10, metavar="SECONDS",
        help="for a run, beside five times what the unchanged tree took")
    add("--scratch", help="where the copies are made (default: a temporary folder)")
    add("--ccache", action="store_true",
        help="compile with ccache; it saves little, as a mutant is new to it")
    options = parser.parse_args(given)
    options.root = os.path.abspath(options.root)
    options.lists = options.lists or os.path.join(options.root, "tests", "mutants")
    return options


def chosen(options):
    """(the mutants to run, how many are pending). Errors: ListError for what is not there."""
    mutants = load(options.lists)
    known = {mutant.header for mutant in mutants}
    for header in options.only:
        if header not in known:
            raise ListError(f"no list {header}.txt with mutants; there are: "
                            f"{', '.join(sorted(known))}")
    names = {mutant.name for mutant in mutants}
    for name in options.name:
        if name not in names:
            raise ListError(f"no mutant '{name}'; --list prints them")
    mutants = [mutant for mutant in mutants
               if (not options.only or mutant.header in options.only)
               and (not options.name or mutant.name in options.name)]
    ready = [mutant for mutant in mutants if not mutant.pending]
    pending = len(mutants) - len(ready)
    if options.sample and options.sample < len(ready):
        picked = set(random.Random(options.seed).sample(range(len(ready)), options.sample))
        ready = [mutant for at, mutant in enumerate(ready) if at in picked]
    return ready, pending


# --- running --------------------------------------------------------------------------------------


class Runner:
    def __init__(self, options, mutants, scratch):
        self.options = options
        self.mutants = mutants
        self.free = queue.SimpleQueue()
        self.green = {}  # step: the seconds its run took on the unchanged tree
        for number in range(min(options.jobs, max(1, len(mutants)))):
            shop = Workshop(os.path.join(scratch, f"copy{number}"), options)
            os.makedirs(shop.folder)
            shop.copy()
            self.free.put(shop)

    def each(self, work, items):
        """Calls work(shop, item) for each item, as many at a time as there are copies."""
        def one(item):
            shop = self.free.get()
            try:
                return work(shop, item)
            finally:
                self.free.put(shop)

        with concurrent.futures.ThreadPoolExecutor(self.options.jobs) as threads:
            waiting = {threads.submit(one, item): item for item in items}
            for count, done in enumerate(concurrent.futures.as_completed(waiting), 1):
                yield count, waiting[done], done.result()

    def check_anchors(self):
        """Every old text is where it should be, before anything is built."""
        shop = self.free.get()
        for mutant in self.mutants:
            shop.put_back(shop.change(mutant))
            for step in mutant.steps:
                if not os.path.isfile(shop.path(step.source)):
                    raise ListError(f"{mutant.place}: there is no {step.source}")
        self.free.put(shop)

    def check_green(self):
        """Result: the steps that are red on the unchanged tree, with their outcomes."""
        steps = sorted({str(step): step for mutant in self.mutants
                        for step in mutant.steps}.items())
        red = []
        for count, (name, _), outcome in self.each(
                lambda shop, item: shop.run(item[1], self.options.build_timeout), steps):
            self.green[name] = outcome.run_seconds
            told = f"{outcome.red} {outcome.where}" if outcome.red else "green"
            say(f"unchanged {count} of {len(steps)}: {name}: {told}, {outcome.seconds:.0f} s")
            if outcome.red:
                red.append((name, outcome))
        return red

    def run_mutants(self):
        results = []
        for count, mutant, result in self.each(self.try_mutant, self.mutants):
            say(f"{count} of {len(self.mutants)}: {mutant.header}: {mutant.name}: "
                f"{told_of(result)}, {result['seconds']:.0f} s")
            results.append(result)
        place = {mutant.name: at for at, mutant in enumerate(self.mutants)}
        return sorted(results, key=lambda result: place[result["name"]])

    def try_mutant(self, shop, mutant):
        begun = time.monotonic()
        result = {"name": mutant.name, "header": mutant.header, "promise": mutant.promise,
                  "files": sorted({edit.path for edit in mutant.edits}),
                  "expected": mutant.layers, "caught_by": None, "fault": None}
        before = shop.change(mutant)
        try:
            for step in mutant.steps:
                limit = self.options.timeout + 5 * self.green.get(str(step), 0)
                self.note(result, mutant, step, shop.run(step, limit))
                if result["caught_by"] or result["fault"]:
                    break
        finally:
            shop.put_back(before)
        result["seconds"] = round(time.monotonic() - begun, 1)
        return result

    @staticmethod
    def note(result, mutant, step, outcome):
        if not outcome.red:
            return
        if outcome.red == "does not compile" and "compile" not in mutant.layers:
            result["fault"] = f"it does not compile: {outcome.where}"
            return
        layer = "compile" if outcome.red == "does not compile" else step.layer
        result["caught_by"] = {"layer": layer, "test": str(step), "how": outcome.red,
                               "where": outcome.where}


def say(text):
    print(text, flush=True)


def told_of(result):
    if result["fault"]:
        return f"FAULTY, {result['fault']}"
    caught = result["caught_by"]
    if not caught:
        return "SURVIVED"
    how = "" if caught["how"] == "fails" else f" ({caught['how']})"
    return f"caught by {caught['layer']}, {caught['test']}{how} {caught['where']}".rstrip()


# --- telling --------------------------------------------------------------------------------------


def table_of(results, pending):
    """Which layer caught how many of each header's, as Markdown."""
    layers = sorted({result["caught_by"]["layer"] for result in results if result["caught_by"]})
    lines = ["| header | mutants | " + " | ".join(layers) + " | survived |",
             "|---|" + "---|" * (len(layers) + 2)]
    headers = sorted({result["header"] for result in results})
    for header in headers + ["all"]:
        of_header = [result for result in results if header in (result["header"], "all")]
        caught = [result["caught_by"]["layer"] for result in of_header if result["caught_by"]]
        counts = [str(caught.count(layer)) for layer in layers]
        lines.append(f"| {header} | {len(of_header)} | " + " | ".join(counts) +
                     f" | {len(of_header) - len(caught)} |")
    lines += ["", f"Pending, not run: {pending}.", "", "| mutant | header | caught by | test |",
              "|---|---|---|---|"]
    for result in results:
        caught = result["caught_by"] or {"layer": "nobody", "test": "", "how": ""}
        how = " (timeout)" if caught["how"] == "timeout" else ""
        lines.append(f"| {result['name']} | {result['header']} | {caught['layer']}{how} | "
                     f"{caught['test']} |")
    return "\n".join(lines) + "\n"


def write_report(options, results, pending, seconds):
    caught = sum(1 for result in results if result["caught_by"])
    told = {"compiler": options.compiler, "flags": options.flags, "mutants": len(results),
            "caught": caught, "survived": len(results) - caught, "pending": pending,
            "seconds": round(seconds, 1), "results": results}
    replace_file(options.report, json.dumps(told, indent=2) + "\n")
    replace_file(os.path.splitext(options.report)[0] + ".md", table_of(results, pending))


def run_all(options, scratch):
    begun = time.monotonic()
    mutants, pending = chosen(options)
    if options.list:
        for mutant in mutants:
            say(f"{mutant.header}: {mutant.name}")
        return 0
    runner = Runner(options, mutants, scratch)
    runner.check_anchors()
    if runner.check_green():
        say("the unchanged tree is red: nothing was broken on purpose yet")
        return 1
    results = runner.run_mutants()
    seconds = time.monotonic() - begun
    if options.report:
        write_report(options, results, pending, seconds)
    missed = [result for result in results if not result["caught_by"]]
    say(f"{len(results) - len(missed)} of {len(results)} caught, {pending} pending, "
        f"{seconds:.0f} s")
    for result in missed:
        say(f"not caught: {result['header']}: {result['name']}: {told_of(result)}")
    return 1 if missed else 0


def main(given=None):
    options = arguments(given)
    try:
        with tempfile.TemporaryDirectory(prefix="veltrix-mutants-", dir=options.scratch) as scratch:
            return run_all(options, scratch)
    except ListError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
