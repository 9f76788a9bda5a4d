#!/usr/bin/env python3
# SPDX-License-Identifier: BSL-1.0
"""Draws the plots of a bench from what it recorded.

    bench/plot.py bench/results/snapshot_cell.json            writes docs/snapshot_cell_*.svg
    bench/plot.py bench/results/snapshot_cell.json --out DIR  writes them there

The same results give the same bytes. Bars are on a logarithmic scale where the longest is more than
30 times the shortest. A speed is the median of the rounds' ratios to one contender's. The colours
follow the reader's choice of light or dark. Exit status: 0 written, 2 usage or results that cannot
be drawn.
"""

import argparse
import dataclasses
import json
import math
import pathlib
import statistics
import sys
from xml.sax.saxutils import escape

ROOT = pathlib.Path(__file__).resolve().parents[1]
LOGARITHMIC_OVER = 30
SKIPPED = {"plain pointer again", "work without a read"}  # of use to the bench only


@dataclasses.dataclass(frozen=True)
class Plot:
    name: str      # docs/BENCH_NAME.svg
    title: str
    axis: str      # what a bar's length is
    series: tuple  # of (workload, threads, legend)
    better: str = "less"

    @property
    def legends(self):
        return [legend for _, _, legend in self.series]

    def groups(self, rows):
        """contender -> its values, one for each series or None; in the order of the results."""
        groups = {}
        for place, (workload, threads, _) in enumerate(self.series):
            for row in rows:
                if (row["workload"], row["threads"]) != (workload, threads):
                    continue
                if row["contender"] not in SKIPPED:
                    values = groups.setdefault(row["contender"], [None] * len(self.series))
                    values[place] = row["value"]
        return groups


@dataclasses.dataclass(frozen=True)
class Speeds:
    name: str
    title: str
    versus: str        # whose speed is 1
    threads: int
    contenders: tuple  # the series
    workloads: tuple   # the groups
    better: str = "more"

    @property
    def axis(self):
        return f"times the speed of {self.versus}"

    @property
    def legends(self):
        return self.contenders

    def groups(self, rows):
        """workload -> how many times the speed of `versus` each contender has, or None."""
        samples = {(row["workload"], row["contender"]): row["samples"] for row in rows
                   if row["threads"] == self.threads}
        groups = {}
        for workload in self.workloads:
            basis = samples.get((workload, self.versus))
            if basis:
                groups[workload] = [
                    statistics.median(base / each for base, each in zip(basis, samples[key]))
                    if (key := (workload, contender)) in samples else None
                    for contender in self.contenders]
        return groups


GROWTH = "insert growing 1 M to 8 M u64, "
MAPS = ("concurrent_map", "boost concurrent_flat_map", "gtl spin x256", "parlayhash",
        "TBB concurrent_hash_map", "libcuckoo")
LATENCY = "latency beside a writer each 1 ms, "
PLOTS = {
    "snapshot_cell": (
        Plot("reads", "Reading one field of the newest value", "nanoseconds per read of one thread",
             (("read", 1, "1 reader"), ("read", 2, "2 readers"),
              ("read beside a writer without pause", 1, "1 reader beside a writer without pause"))),
        Plot("stores", "Putting a new value in force", "nanoseconds per store",
             (("store", 1, "alone"), ("store beside a looping reader", 1, "beside a reader"))),
        Plot("versions", "Values not yet destroyed, at most", "values",
             (("versions alive beside a looping reader", 1, "reader loops, 20,000 stores"),
              ("versions alive beside a stalled reader", 1, "reader stalls, 50,000 stores"))),
        Plot("latency", "One read, with the clock's own cost, beside a writer each 1 ms",
             "nanoseconds", ((LATENCY + "p50", 1, "half of them take no longer"),
                             (LATENCY + "p99.9", 1, "all but one in 1,000"),
                             (LATENCY + "p99.99", 1, "all but one in 10,000"))),
    ),
    "concurrent_map": (
        Speeds("numbers", "Maps of 64-bit numbers, 2 threads", "boost concurrent_flat_map", 2,
               MAPS, tuple(f"{size} u64: {task}" for size, tasks in (
                   ("1 M", ("hit uniform", "hit zipf", "hit one hot key", "miss",
                            "hit in batches of 256", "95/5 uniform", "95/5 zipf", "50/50 uniform",
                            "50/50 zipf", "churn", "insert growing", "insert reserved")),
                   ("10 K", ("hit uniform", "miss", "95/5 uniform", "50/50 uniform", "churn")))
                           for task in tasks)),
        Speeds("texts", "Maps of texts to 64 bytes, 2 threads", "boost concurrent_flat_map", 2,
               MAPS, tuple(f"{size} text: {task}" for size, tasks in (
                   ("1 M", ("hit uniform", "hit zipf", "95/5 uniform", "50/50 uniform",
                            "insert growing")),
                   ("10 K", ("hit uniform", "95/5 uniform", "hit one hot key")))
                           for task in tasks)),
        Plot("growth", "One insert, with the clock's own cost, while 1 M entries become 8 M",
             "microseconds", ((GROWTH + "p50", 1, "half of them take no longer"),
                              (GROWTH + "p99.99", 1, "all but one in 10,000"),
                              (GROWTH + "longest", 1, "the longest"))),
    ),
}

STYLE = """
  .ground { fill: #ffffff } .text { fill: #24292f } .faint { fill: #57606a }
  .grid { stroke: #d0d7de } .s0 { fill: #2f6fb7 } .s1 { fill: #d47a1f } .s2 { fill: #3f9163 }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117 } .text { fill: #e6edf3 } .faint { fill: #9198a1 }
    .grid { stroke: #30363d } .s0 { fill: #6aa5ec } .s1 { fill: #f0a550 } .s2 { fill: #6fca95 }
  }
  text { font-family: system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif }
"""
MORE_COLOURS = """
  .s3 { fill: #8a5bb0 } .s4 { fill: #9a8f2a } .s5 { fill: #7c858e }
  @media (prefers-color-scheme: dark) {
    .s3 { fill: #bb92dd } .s4 { fill: #d3c75c } .s5 { fill: #a9b1b9 }
  }
"""
WIDTH, LEFT, RIGHT = 860, 220, 80
BAR, GAP = 13, 12


class Undrawable(Exception):
    """The results have nothing for a plot, or are none."""


def number(value):
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 1 else f"{value:.2f}"


class Axis:
    """From a value to a length, and where the grid's lines are."""

    def __init__(self, values, length):
        self.length = length
        low, high = min(values), max(values)
        self.logarithmic = low > 0 and high / low > LOGARITHMIC_OVER
        if self.logarithmic:
            # Half a decade of room, so that the shortest bar can be seen.
            self.first = 10.0 ** math.floor(math.log10(low) - 0.3)
            last = 10.0 ** math.ceil(math.log10(high))
            decades = round(math.log10(last / self.first))
            step = 1 + decades // 9
            self.ticks = [self.first * 10.0 ** i for i in range(0, decades + 1, step)]
            self.last = last
        else:
            self.first = 0.0
            step = 10.0 ** math.floor(math.log10(high)) if high > 0 else 1.0
            step = next(step * part for part in (0.2, 0.5, 1, 2) if high / (step * part) <= 6)
            self.ticks = [step * i for i in range(math.ceil(high / step) + 1)]
            self.last = self.ticks[-1]

    def at(self, value):
        if self.logarithmic:
            part = math.log(value / self.first) / math.log(self.last / self.first)
        else:
            part = value / self.last
        return self.length * part


def text(x, y, words, kind="text", size=13, anchor="start", weight="normal"):
    return (f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" font-size="{size}" '
            f'text-anchor="{anchor}" font-weight="{weight}">{escape(words)}</text>')


def footer(results):
    machine = results.get("machine", {})
    told = [f"{machine['cpu']}, {machine['cores']} cores" if "cpu" in machine else "",
            machine.get("compiler", ""),
            f"commit {machine['commit']}" if "commit" in machine else "",
            machine.get("date", "").split(" ")[0]]
    return "; ".join(part for part in told if part)


def bars(plot, groups, axis, top, ours):
    """The shapes of all bars, and where the next thing goes."""
    parts, y = [], top
    for name, values in groups.items():
        shown = [(place, value) for place, value in enumerate(values)
                 if value is not None or isinstance(plot, Plot)]
        height = BAR * len(shown)
        parts.append(text(LEFT - 10, y + height / 2 + 4.5, name, anchor="end",
                          weight="bold" if name.startswith(ours) else "normal"))
        for line, (place, value) in enumerate(shown):
            if value is None:
                continue
            length = max(1.0, axis.at(value))
            parts.append(f'<rect class="s{place}" x="{LEFT}" y="{y + BAR * line:.1f}" '
                         f'width="{length:.1f}" height="{BAR - 2}"><title>'
                         f'{escape(f"{name}, {plot.legends[place]}: {number(value)}")}'
                         f'</title></rect>')
            parts.append(text(LEFT + length + 5, y + BAR * line + BAR - 3.5, number(value),
                              size=11))
        y += height + GAP
    return parts, y


def legend(plot, groups, top):
    """The names of the series that have a bar, and where the next thing goes."""
    parts, x, y = [], 20.0, top
    for place, name in enumerate(plot.legends):
        if all(values[place] is None for values in groups.values()):
            continue
        width = 18 + 7.2 * len(name) + 24
        if x > 20.0 and x + width > WIDTH:
            x, y = 20.0, y + 20
        parts.append(f'<rect class="s{place}" x="{x:.1f}" y="{y}" width="12" height="12"/>')
        parts.append(text(x + 18, y + 10.5, name))
        x += width
    return parts, y + 34


def draw(plot, results):
    groups = plot.groups(results["rows"])
    values = [value for each in groups.values() for value in each if value is not None]
    if not values:
        raise Undrawable(f"no rows for '{plot.title}'")
    axis = Axis(values, WIDTH - LEFT - RIGHT)
    head, top = legend(plot, groups, 46)
    head.insert(0, text(20, 30, plot.title, size=17, weight="bold"))
    shapes, bottom = bars(plot, groups, axis, top + 12, results["bench"])
    lines = []
    for tick in axis.ticks:
        at = LEFT + axis.at(tick) if tick else LEFT
        lines.append(f'<line class="grid" x1="{at:.1f}" y1="{top}" x2="{at:.1f}" '
                     f'y2="{bottom:.1f}"/>')
        lines.append(text(at, bottom + 16, f"{tick:,g}" if tick < 1000 else f"{tick:,.0f}", "faint",
                          11, "middle"))
    scale = ", logarithmic" if axis.logarithmic else ""
    foot = [text(LEFT + axis.length / 2, bottom + 38,
                 f"{plot.axis} ({plot.better} is better{scale})", anchor="middle"),
            text(20, bottom + 62, footer(results), "faint", 11)]
    height = bottom + 76
    style = STYLE + (MORE_COLOURS if len(plot.legends) > 3 else "")
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" '
                      f'width="{WIDTH}" height="{height:.0f}" role="img" '
                      f'aria-label="{escape(plot.title)}">', f"<style>{style}</style>",
                      f'<rect class="ground" width="{WIDTH}" height="{height:.0f}"/>']
                     + head + lines + shapes + foot + ["</svg>", ""])


def main(given=None):
    parser = argparse.ArgumentParser(description="Draws the plots of a bench.")
    parser.add_argument("results", help="what bench/compare.py wrote")
    parser.add_argument("--out", default=str(ROOT / "docs"), help="the folder (default: docs)")
    options = parser.parse_args(given)
    try:
        results = json.loads(pathlib.Path(options.results).read_text(encoding="utf-8"))
        if results["bench"] not in PLOTS:
            raise Undrawable(f"no plots are known for {results['bench']}")
        drawn = {plot.name: draw(plot, results) for plot in PLOTS[results["bench"]]}
        for name, svg in drawn.items():
            path = pathlib.Path(options.out) / f"{results['bench']}_{name}.svg"
            path.write_text(svg, encoding="utf-8")
            print(path)
    except (OSError, ValueError, KeyError, TypeError, Undrawable) as error:
        print(f"plot: {options.results}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
