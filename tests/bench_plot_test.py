#!/usr/bin/env python3
# SPDX-License-Identifier: BSL-1.0
"""What bench/plot.py promises, on planted results."""

import contextlib
import io
import json
import os
import pathlib
import sys
import tempfile
import unittest
import xml.etree.ElementTree as tree

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "bench"))

import plot  # noqa: E402

SVG = "{http://www.w3.org/2000/svg}"


def results(reads, bench="snapshot_cell"):
    rows = [{"workload": workload, "threads": threads, "contender": contender, "value": value}
            for each in plot.PLOTS["snapshot_cell"] for workload, threads, _ in each.series
            for contender, value in reads.items()]
    return {"bench": bench, "rows": rows, "machine": {"cpu": "<any>", "cores": 2, "commit": "abc"}}


class Plots(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def drawn(self, content):
        """Exit status, standard error, and the files written."""
        source = self.folder / "results.json"
        source.write_text(content if isinstance(content, str) else json.dumps(content))
        err = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
            code = plot.main([str(source), "--out", str(self.folder)])
        return code, err.getvalue(), {path.name: path.read_bytes()
                                      for path in self.folder.glob("*.svg")}

    def reads(self, values):
        return tree.fromstring(self.drawn(results(values))[2]["snapshot_cell_reads.svg"])

    def widths(self, root):
        return [float(each.get("width")) for each in root.iter(SVG + "rect")
                if each.get("class") == "s0" and each.get("x") == str(plot.LEFT)]

    def words(self, root):
        return [each.text for each in root.iter(SVG + "text")]

    def test_all_plots_are_written_and_the_same_each_time(self):
        first, second = (self.drawn(results({"ours": 1.0, "theirs": 40.0})) for _ in range(2))
        self.assertEqual(first, second)
        self.assertEqual(first[0], 0)
        self.assertEqual(len(first[2]), len(plot.PLOTS["snapshot_cell"]))

    def test_lengths_are_in_proportion(self):
        root = self.reads({"ours": 1.0, "theirs": 4.0})
        short, long = self.widths(root)
        self.assertAlmostEqual(long / short, 4, delta=0.01)
        self.assertFalse(any("logarithmic" in words for words in self.words(root)))

    def test_a_wide_range_is_logarithmic_and_says_so(self):
        root = self.reads({"ours": 1.0, "middle": 10.0, "theirs": 100.0})
        short, middle, long = self.widths(root)
        self.assertAlmostEqual(long - middle, middle - short, delta=0.3)
        self.assertTrue(any("logarithmic" in words for words in self.words(root)))

    def test_names_axis_and_machine_are_shown(self):
        words = self.words(self.reads({"std::atomic<shared_ptr>": 1.0, "ours": 2.0}))
        for wanted in ("std::atomic<shared_ptr>", "1 reader", "2 readers"):
            self.assertIn(wanted, words)
        self.assertTrue(any("nanoseconds per read" in each for each in words))
        self.assertTrue(any("<any>, 2 cores" in each for each in words))

    def test_speeds_are_the_medians_of_the_rounds_ratios(self):
        speeds = next(each for each in plot.PLOTS["concurrent_map"]
                      if isinstance(each, plot.Speeds))
        rows = [{"workload": speeds.workloads[0], "threads": speeds.threads, "contender": contender,
                 "value": 0, "samples": samples}
                for contender, samples in ((speeds.contenders[0], [5.0, 1.0, 20.0]),  # 4, 2, 1
                                           (speeds.versus, [20.0, 2.0, 20.0]))]
        found = {"bench": "concurrent_map", "rows": rows}
        root = tree.fromstring(plot.draw(speeds, found))
        self.assertIn(speeds.workloads[0], self.words(root))
        self.assertNotIn(speeds.workloads[1], self.words(root))
        ours, theirs = (float(each.get("width")) for each in root.iter(SVG + "rect")
                        if each.get("x") == str(plot.LEFT))
        self.assertAlmostEqual(ours / theirs, 2, delta=0.01)

    def test_what_cannot_be_drawn_is_refused_and_nothing_is_written(self):
        for content in ("{", "{}", results({}), results({"ours": 1.0}, bench="clock")):
            code, err, files = self.drawn(content)
            self.assertEqual((code, files), (2, {}), content)
            self.assertTrue(err.startswith("plot: "), err)


if __name__ == "__main__":
    unittest.main()
