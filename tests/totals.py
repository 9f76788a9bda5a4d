#!/usr/bin/env python3
# SPDX-License-Identifier: BSL-1.0
"""Writes docs/totals.md: what the models, histories, fuzz targets and mutants have counted.

tests/totals.py --build build/test --fuzz FUZZ.jsonl --mutants MUTANTS.json [--write docs/totals.md]

Models and histories are run here, from the build folder; the other two are read from the files that
fuzz/run --record and tests/mutants/run.py --report write. Prints the page unless told to write it.
"""
import argparse
import json
import platform
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODEL = re.compile(r"model: (?P<name>[^:]+): (?P<end>not exhausted|exhausted): (?P<runs>[\d,]+) "
                   r"schedules(?: and (?P<cut>[\d,]+) cut short)?, (?P<seconds>[\d.]+) s")
HISTORY = re.compile(r"(?P<name>[^:\n]+): (?P<operations>\d+) operations checked in "
                     r"(?P<rounds>\d+) rounds, (?P<overlapping>\d+) overlapping")


def output_of(programs):
    """What the programs print; a failing one ends this script."""
    for program in programs:
        ran = subprocess.run([program], capture_output=True, text=True, check=False)
        if ran.returncode != 0:
            sys.exit(f"totals: {program.name} failed with {ran.returncode}; nothing was written\n"
                     f"{ran.stdout[-2000:]}{ran.stderr[-2000:]}")
        yield program.name, ran.stdout


def number(text):
    return int(text.replace(",", "")) if text else 0


def table(head, rows):
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(str(cell) for cell in row) + " |"


def models(build):
    rows, schedules = [], 0
    for name, text in output_of(sorted((build / "tests/model").glob("*_model_test"))):
        for found in MODEL.finditer(text):
            runs, cut = number(found["runs"]), number(found["cut"])
            schedules += runs + cut
            rows.append((found["name"], found["end"], f"{runs:,}", f"{cut:,}", found["seconds"]))
    if not rows:
        sys.exit(f"totals: no model tests under {build}; build the preset 'test' first")
    yield f"## Models: {schedules:,} executions explored"
    yield from table(("search", "end", "schedules", "cut short", "seconds"), rows)


def histories(build):
    rows, operations = [], 0
    for name, text in output_of(sorted((build / "tests").glob("*_lin_test"))):
        for found in HISTORY.finditer(text):
            operations += int(found["operations"])
            rows.append((found["name"], f"{int(found['operations']):,}",
                         f"{int(found['rounds']):,}", f"{int(found['overlapping']):,}"))
    yield f"## Histories: {operations:,} operations checked for linearizability"
    yield from table(("history", "operations", "rounds", "overlapping"), rows)


def fuzzing(record):
    total = {}
    for line in record.read_text().splitlines():
        run = json.loads(line)
        seen = total.setdefault(run["target"], {"seconds": 0, "cpu_seconds": 0, "executions": 0,
                                                "features": 0, "corpus": 0, "found": 0})
        for key in ("seconds", "cpu_seconds", "executions", "found"):
            seen[key] += run.get(key, 0)
        for key in ("features", "corpus"):
            seen[key] = max(seen[key], run[key])
    seconds = sum(seen["seconds"] for seen in total.values())
    of_cpu = sum(seen["cpu_seconds"] for seen in total.values())
    yield f"## Fuzzing: {seconds / 3600:.1f} hours, at least {of_cpu / 3600:.1f} of them on a CPU"
    yield from table(("target", "minutes", "CPU minutes", "executions", "features", "corpus",
                      "open findings"),
                     ((name, f"{seen['seconds'] / 60:.0f}", f"{seen['cpu_seconds'] / 60:.1f}",
                       f"{seen['executions']:,}",
                       f"{seen['features']:,}", f"{seen['corpus']:,}", seen["found"])
                      for name, seen in sorted(total.items())))


def mutants(report):
    told = json.loads(report.read_text())
    by_layer = {}
    for mutant in told["results"]:
        layer = mutant["caught_by"]["layer"] if mutant["caught_by"] else "survived"
        layers = by_layer.setdefault(mutant["header"], {})
        layers[layer] = layers.get(layer, 0) + 1
    names = sorted({layer for layers in by_layer.values() for layer in layers})
    yield f"## Mutants: {told['caught']} of {told['mutants']} caught, by which layer first"
    yield from table(("header", *names), ((header, *(layers.get(name, "") for name in names))
                                          for header, layers in sorted(by_layer.items())))


def commit():
    ran = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short=12", "HEAD"],
                         capture_output=True, text=True, check=False)
    return ran.stdout.strip() or "an unknown commit"


def page(given):
    yield "# Totals"
    yield ""
    yield ("What the last recorded run counted; `tests/totals.py` writes this page. What each tool "
           "can and cannot show stands in [testing.md](testing.md).")
    yield ""
    yield (f"Recorded {date.today()} at {commit()}, {platform.machine()}, 2 shared cores; models "
           "and histories with g++.")
    for part in (models(given.build), histories(given.build),
                 fuzzing(given.fuzz) if given.fuzz else (),
                 mutants(given.mutants) if given.mutants else ()):
        lines = list(part)
        if lines:
            yield ""
            yield from (lines[0], "", *lines[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, required=True, help="a build folder with the tests")
    parser.add_argument("--fuzz", type=Path, help="what fuzz/run --record wrote")
    parser.add_argument("--mutants", type=Path, help="what tests/mutants/run.py --report wrote")
    parser.add_argument("--write", type=Path, help="the page; else it is printed")
    given = parser.parse_args()
    text = "\n".join(page(given)) + "\n"
    if given.write:
        given.write.write_text(text)
        print(f"totals: wrote {given.write}")
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
