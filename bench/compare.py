#!/usr/bin/env python3
# SPDX-License-Identifier: BSL-1.0
"""Runs a bench and holds what it found against the goals of bench/goals.json.

    bench/compare.py snapshot_cell                 build, run, print the table
    bench/compare.py snapshot_cell --gate          the same; exit 1 if a goal is missed
    bench/compare.py snapshot_cell --record        the same; writes bench/results/snapshot_cell.json
    bench/compare.py snapshot_cell --results FILE  judges a run that --json or --record wrote
    bench/compare.py snapshot_cell --instructions  counts instructions per operation with callgrind

All contenders take turns in each round of one run. A ratio is the median of the rounds' ratios; the
lowest and the highest of them stand beside it, and the ratio of processor times: where that is far
from it, others used the machine, or somebody waited; --cpu-time judges by it. A goal whose
contender is absent on this machine is `not measured`. Exit status: 0 done, 1 a goal was missed and
--gate was given, 2 usage or a malformed goals.json, 3 the build or the bench failed.
"""

import argparse
import dataclasses
import datetime
import json
import os
import pathlib
import platform
import re
import shutil
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
BOUNDS = ("at_most", "at_least")
KEYS = {"workload": str, "threads": int, "contender": str, "source": str, "at_most": (int, float),
        "at_least": (int, float), "versus": str, "versus_threads": int, "versus_workload": str}
CLOCKS = ("samples", "cpu_samples")  # what judges, what stands beside it
CLOCK_NAMES = {"samples": "by the wall", "cpu_samples": "by processor time"}
AGAIN = " again"  # ends the name of a contender that is there twice
TIMES = ("ns", "us", "percent")  # noise is in these; other units are counts


class UsageError(Exception):
    """What was asked for, or what goals.json says, makes no sense."""


class RunError(Exception):
    """The build or the bench failed."""


def threads_of(count):
    return f"{count} thread{'s' * (count != 1)}"


# --- goals ----------------------------------------------------------------------------------------

@dataclasses.dataclass(frozen=True)
class Goal:
    workload: str
    threads: int
    contender: str
    source: str
    at_most: float = None
    at_least: float = None
    versus: str = None           # the other contender; the same one if only what follows is given
    versus_threads: int = None
    versus_workload: str = None

    @property
    def row(self):
        return (self.workload, self.threads, self.contender)

    @property
    def other_row(self):
        """The row to divide by, or None if the bound is on the value itself."""
        if self.versus is None and self.versus_threads is None and self.versus_workload is None:
            return None
        return (self.versus_workload or self.workload, self.versus_threads or self.threads,
                self.versus or self.contender)

    @property
    def against(self):
        if self.other_row is None:
            return ""
        told = [self.versus, self.versus_threads and threads_of(self.versus_threads),
                self.versus_workload]
        return ", ".join(part for part in told if part)

    @property
    def bound(self):
        sign, limit = ("<=", self.at_most) if self.at_most is not None else (">=", self.at_least)
        return f"{sign} {limit:g}{'' if self.other_row is None else 'x'}"

    def holds(self, value):
        return value <= self.at_most if self.at_most is not None else value >= self.at_least


def goal_from(entry, where):
    if not isinstance(entry, dict):
        raise UsageError(f"{where}: got {entry!r}, wanted an object")
    for key, value in entry.items():
        if key not in KEYS:
            raise UsageError(f"{where}: unknown key '{key}'; known: {', '.join(KEYS)}")
        if not isinstance(value, KEYS[key]) or isinstance(value, bool):
            raise UsageError(f"{where}: {key} is {value!r}, which is of the wrong kind")
    for key in ("workload", "threads", "contender", "source"):
        if key not in entry:
            raise UsageError(f"{where}: lacks '{key}'")
    if sum(bound in entry for bound in BOUNDS) != 1:
        raise UsageError(f"{where}: wants one of {' and '.join(BOUNDS)}")
    goal = Goal(**entry)
    if goal.other_row == goal.row:
        raise UsageError(f"{where}: is compared with itself")
    return goal


def read_goals(path, bench):
    """The goals of one bench; none if the file has nothing for it."""
    try:
        found = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(each, list) for each in found.values()):
        raise UsageError(f"{path}: wanted an object that has a list of goals for each bench")
    return [goal_from(entry, f"{path}: {bench}, goal {number}")
            for number, entry in enumerate(found.get(bench, []), 1)]


# --- judging --------------------------------------------------------------------------------------

@dataclasses.dataclass(frozen=True)
class Verdict:
    goal: Goal
    state: str              # met, missed, not measured
    value: float = None     # the ratio, or the value itself
    low: float = None
    high: float = None
    otherwise: float = None  # the ratio by the clock that does not judge
    why: str = ""           # when not measured


def ratios_of(row, other, samples="samples"):
    """Round by round if both took part in the same rounds."""
    ours, theirs = row.get(samples), other.get(samples)
    if not ours or not theirs:
        return []
    if len(ours) == len(theirs) and all(theirs):
        return [one / two for one, two in zip(ours, theirs)]
    return [statistics.median(ours) / statistics.median(theirs)]


def why_not(goal, rows, absent, partial):
    """Why a goal cannot be judged; empty if it can."""
    for key in [goal.row] + ([goal.other_row] if goal.other_row else []):
        if key in rows:
            continue
        if key[2] in absent:
            return f"{key[2]}: {absent[key[2]]}"
        if not partial:
            raise UsageError(f"a goal names what the bench does not have: {key[0]}, "
                             f"{key[1]} threads, {key[2]}")
        return "only a part was run"
    return ""


def judge_one(goal, rows, absent, partial, clocks):
    why = why_not(goal, rows, absent, partial)
    if why:
        return Verdict(goal, "not measured", why=why)
    row = rows[goal.row]
    otherwise = None
    if goal.other_row:
        other = rows[goal.other_row]
        values = ratios_of(row, other, clocks[0]) or ratios_of(row, other)
        otherwise = statistics.median(ratios_of(row, other, clocks[1]) or [0]) or None
    else:
        values = row.get(clocks[0]) or row["samples"]
    # A count is held to its worst round, a time to its median one.
    value = statistics.median(values)
    if row["unit"] not in TIMES:
        value = max(values) if goal.at_most is not None else min(values)
    return Verdict(goal, "met" if goal.holds(value) else "missed", value, min(values), max(values),
                   otherwise)


def judge(goals, results, clocks=CLOCKS):
    rows = {(row["workload"], row["threads"], row["contender"]): row for row in results["rows"]}
    absent = {each["contender"]: each["why"] for each in results["absent"]}
    partial = bool(results.get("only") or results.get("contenders"))
    return [judge_one(goal, rows, absent, partial, clocks) for goal in goals]


def number(value):
    return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"


def cells(verdict):
    goal = verdict.goal
    start = ("  " + goal.contender, goal.against, goal.bound)
    if verdict.state == "not measured":
        return start + ("-", "-", "-", verdict.state)
    return start + (number(verdict.value) + ("x" if goal.other_row else ""),
                    f"{number(verdict.low)} to {number(verdict.high)}",
                    "-" if verdict.otherwise is None else number(verdict.otherwise) + "x",
                    verdict.state)


def table(verdicts, clocks=CLOCKS):
    """The goals, under their workloads, and why some were not measured."""
    lines = [("", "against", "goal", "measured", "lowest to highest", CLOCK_NAMES[clocks[1]], "")]
    titles = {}
    for each in verdicts:
        title = f"{each.goal.workload}, {threads_of(each.goal.threads)}"
        if title not in titles.values():
            titles[len(lines)] = title
        lines.append(cells(each))
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    shown = []
    for place, line in enumerate(lines):
        if place in titles:
            shown.append(titles[place])
        shown.append("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())
    reasons = sorted({each.why for each in verdicts if each.why})
    return "\n".join(shown + [f"not measured: {why}" for why in reasons])


def summary(verdicts):
    counts = {state: sum(each.state == state for each in verdicts)
              for state in ("met", "missed", "not measured")}
    return ", ".join(f"{count} {state}" for state, count in counts.items())


def noise(results):
    """How far two equal contenders differed, and how much of the machine was ours."""
    rows = {(row["workload"], row["threads"], row["contender"]): row for row in results["rows"]}
    twice = next((key for key in rows if key[1] == 1 and (key[0], 1, key[2] + AGAIN) in rows), None)
    if twice is None:
        return "noise: not known"
    workload, _, contender = twice
    ratios = ratios_of(rows[workload, 1, contender + AGAIN], rows[twice])
    lines = [f"noise: two equal contenders differed by {statistics.median(ratios):.3f}x "
             f"({min(ratios):.3f} to {max(ratios):.3f})"]
    for threads in (1, 2):
        row = rows.get((workload, threads, contender), {})
        had = [100 * part for part in ratios_of(dict(samples=row.get("cpu_samples")), row)]
        if had:
            lines.append(f"{threads_of(threads)} ran for {statistics.median(had):.0f} % "
                         f"of the time ({min(had):.0f} to {max(had):.0f})")
    return "; ".join(lines)


# --- running --------------------------------------------------------------------------------------

def output_of(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT,
                              check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def cached(build, name):
    found = re.search(rf"^{name}:\w+=(.*)$", (build / "CMakeCache.txt").read_text(), re.M)
    return found[1] if found else ""


def machine(build):
    """What a figure depends on."""
    model = "unknown"
    if os.path.exists("/proc/cpuinfo"):
        found = re.search(r"^(?:model name|CPU part)\s*:\s*(.*)$",
                          pathlib.Path("/proc/cpuinfo").read_text(), re.M)
        model = found[1] if found else model
    told = {"cpu": model, "cores": os.cpu_count(), "kernel": platform.release()}
    if (build / "CMakeCache.txt").exists():
        kind = cached(build, "CMAKE_BUILD_TYPE").upper()
        flags = [cached(build, "CMAKE_CXX_FLAGS"), cached(build, f"CMAKE_CXX_FLAGS_{kind}")]
        told["compiler"] = (output_of(cached(build, "CMAKE_CXX_COMPILER") or "c++", "--version")
                            .split("\n")[0])
        told["flags"] = " ".join(" ".join(flags).split())
    changed = bool(output_of("git", "status", "--porcelain", "--", "include", "bench"))
    commit = output_of("git", "rev-parse", "--short", "HEAD") or "unknown"
    told["commit"] = commit + (" with changes" if changed else "")
    told["date"] = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    told["load"] = round(os.getloadavg()[0], 2)
    return told


def told(machine_):
    return "\n".join(f"{name}: {value}" for name, value in machine_.items())


def quietly(what, *command):
    print(f"compare: {what}", file=sys.stderr, flush=True)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print(done.stdout[-4000:] + done.stderr[-4000:], file=sys.stderr)
        raise RunError(f"'{' '.join(command)}' failed with exit code {done.returncode}")


def built(build, target):
    """The program of a target, up to date."""
    if not (build / "CMakeCache.txt").exists():
        if build != ROOT / "build/bench":
            raise UsageError(f"{build} is not a build folder; cmake --preset bench makes one")
        quietly("configuring", "cmake", "--preset", "bench")
    quietly(f"building {target}", "cmake", "--build", str(build), "--target", target)
    return build / "bench" / target


def run(options, build):
    program = built(build, f"{options.bench}_bench")
    info = machine(build)  # before the run: the load is that of others
    raw = build / f"{options.bench}.json"
    command = [str(program), "--json", str(raw), "--rounds", str(options.rounds), "--ms",
               str(options.ms)]
    for part in options.only:
        command += ["--only", part]
    for part in options.contender:
        command += ["--contender", part]
    sys.stdout.flush()
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    if code != 0:
        raise RunError(f"the bench failed with exit code {code}")
    results = json.loads(raw.read_text(encoding="utf-8"))
    results["machine"] = info
    results["command"] = (f"bench/compare.py {options.bench} --rounds {options.rounds} "
                          f"--ms {options.ms}{' --cpu-time' * options.cpu_time}")
    return results


COUNTED = 20_000


def collected(program, contender, operations):
    """All instructions of one run under callgrind."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", str(program),
               contender, str(operations)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or not found:
        print(done.stderr[-4000:], file=sys.stderr)
        raise RunError(f"valgrind failed on {contender}")
    return int(found[1])


def instructions(options, build):
    """Of each contender, per operation: what the second half of twice as many adds."""
    target = f"{options.bench}_instructions"
    if not (ROOT / f"bench/{target}.cpp").exists():
        raise UsageError(f"{options.bench} has no bench/{target}.cpp, which does the operations")
    if shutil.which("valgrind") is None:
        raise RunError("valgrind is not installed (tools/get-deps bench); nothing was counted")
    program = built(build, target)
    names = subprocess.run([program], capture_output=True, text=True, check=True).stdout.split("\n")
    counts = []
    for name in filter(None, names):
        once, twice = (collected(program, name, COUNTED * times) for times in (1, 2))
        counts.append({"contender": name, "instructions": round((twice - once) / COUNTED, 2)})
        print(f"{options.bench}: {counts[-1]['instructions']:10.2f} instructions per operation: "
              f"{name}", flush=True)
    return counts


def text_of(results, verdicts):
    """JSON with one row a line, for people who compare two of them."""
    shown = dict(results)
    shown["goals"] = [{**{key: value for key, value in dataclasses.asdict(each.goal).items()
                          if value is not None},
                       "state": each.state,
                       **({} if each.value is None else {"measured": round(each.value, 4)})}
                      for each in verdicts]
    parts = []
    for key, value in shown.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            rows = ",\n".join("  " + json.dumps(each) for each in value)
            parts.append(f"{json.dumps(key)}: [\n{rows}\n]")
        else:
            parts.append(f"{json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def earlier(path):
    try:
        results = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error
    if not isinstance(results, dict) or "rows" not in results or "absent" not in results:
        raise UsageError(f"{path}: has no rows of a bench")
    return results


def arguments(given):
    parser = argparse.ArgumentParser(
        description="Runs a bench and holds what it found against bench/goals.json.")
    parser.add_argument("bench", metavar="NAME", help="of bench/NAME_bench.cpp")
    parser.add_argument("--gate", action="store_true", help="exit 1 if a goal is missed")
    parser.add_argument("--rounds", type=int, default=41, help="at least 5 (default: 41)")
    parser.add_argument("--ms", type=int, default=5,
                        help="milliseconds per contender and round (default: 5); many short rounds "
                        "bear others on the machine better than few long ones")
    parser.add_argument("--only", action="append", default=[], metavar="TEXT",
                        help="workloads whose name has this in it; may be repeated")
    parser.add_argument("--contender", action="append", default=[], metavar="TEXT",
                        help="contenders whose name has this in it, besides the baseline")
    parser.add_argument("--cpu-time", action="store_true",
                        help="judge ratios by processor time, where others use the machine; what "
                        "waits is cheap then, so this flatters locks")
    parser.add_argument("--json", metavar="OUT", help="write rows, machine and verdicts there")
    parser.add_argument("--record", action="store_true", help="write them to bench/results/")
    parser.add_argument("--build", metavar="DIR", default=str(ROOT / "build/bench"),
                        help="a build folder made with VELTRIX_BUILD_BENCH (default: build/bench)")
    parser.add_argument("--instructions", action="store_true",
                        help="count instructions instead of time, with valgrind")
    parser.add_argument("--results", metavar="FILE", help="judge an earlier run, run nothing")
    parser.add_argument("--goals", metavar="FILE", default=str(ROOT / "bench/goals.json"),
                        help=argparse.SUPPRESS)
    options = parser.parse_args(given)
    if options.rounds < 5:
        parser.error(f"--rounds {options.rounds}: wanted at least 5, for a median")
    if options.ms < 1:
        parser.error(f"--ms {options.ms}: wanted at least 1")
    if not (ROOT / f"bench/{options.bench}_bench.cpp").exists():
        known = sorted(path.name[:-len("_bench.cpp")] for path in ROOT.glob("bench/*_bench.cpp"))
        parser.error(f"no bench '{options.bench}'; known: {', '.join(known)}")
    if options.record and (options.only or options.contender):
        parser.error("--record wants a whole run, so no --only and no --contender")
    if options.results and options.record:
        parser.error("--record is for a run that is made now, so no --results")
    return options


def compare(options):
    goals = read_goals(options.goals, options.bench)  # first: a run takes minutes
    build = pathlib.Path(options.build).resolve()
    if options.instructions:
        counted = {"bench": options.bench, "instructions": instructions(options, build)}
        if options.json:
            counted["machine"] = machine(build)
            pathlib.Path(options.json).write_text(text_of(counted, []), encoding="utf-8")
        return 0
    results = earlier(options.results) if options.results else run(options, build)
    if options.record and (ROOT / f"bench/{options.bench}_instructions.cpp").exists():
        results["instructions"] = instructions(options, build)
    clocks = CLOCKS[::-1] if options.cpu_time else CLOCKS
    verdicts = judge(goals, results, clocks)
    print()
    if "machine" in results:
        print(told(results["machine"]))
    print(noise(results), end="\n\n")
    print(table(verdicts, clocks) if verdicts else f"goals.json has no goals for {options.bench}")
    print(f"\n{options.bench}: {summary(verdicts)}")
    outputs = [options.json] if options.json else []
    if options.record:
        (ROOT / "bench/results").mkdir(exist_ok=True)
        outputs.append(str(ROOT / f"bench/results/{options.bench}.json"))
    for path in outputs:
        pathlib.Path(path).write_text(text_of(results, verdicts), encoding="utf-8")
    return 1 if options.gate and any(each.state == "missed" for each in verdicts) else 0


def main(given=None):
    try:
        return compare(arguments(given))
    except UsageError as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    except RunError as error:
        print(f"compare: {error}", file=sys.stderr)
        return 3


if __name__ == "__main__":
    sys.exit(main())
