#!/usr/bin/env python3
# SPDX-License-Identifier: BSL-1.0
"""Tests fuzz/run on stand-ins for targets: what it says, records and ends with."""
import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

RUN = Path(__file__).resolve().parent.parent / "run"

GOOD = """#!/bin/sh
echo '#2 INITED cov: 3 ft: 4 corp: 1/1b exec/s: 0 rss: 30Mb'
echo '#900 NEW    cov: 12 ft: 34 corp: 5/60b lim: 4 exec/s: 0 rss: 30Mb L: 1/4 MS: 1 CopyPart-'
echo '#1234 DONE   cov: 12 ft: 35 corp: 6/61b lim: 4 exec/s: 12 rss: 30Mb'
echo 'stat::number_of_executed_units: 1234'
"""
BAD = """#!/bin/sh
echo '#7 NEW    cov: 9 ft: 8 corp: 2/3b lim: 4 exec/s: 0 rss: 30Mb L: 1/4 MS: 1 CopyPart-'
echo 'fuzz: a.cpp:7: the value'
echo 'SUMMARY: libFuzzer: deadly signal'
echo "artifact_prefix='x'; Test unit written to /some/where/retry-crash-1"
exit 77
"""


class RunTest(unittest.TestCase):
    def setUp(self):
        self.keeper = tempfile.TemporaryDirectory()
        self.addCleanup(self.keeper.cleanup)
        self.folder = Path(self.keeper.name)
        (self.folder / "fuzz").mkdir()

    def plant(self, target, script):
        path = self.folder / "fuzz" / f"{target}_fuzz"
        path.write_text(script, encoding="utf-8")
        path.chmod(0o755)
        return path

    def run_it(self, *arguments):
        record = self.folder / "totals.jsonl"
        done = subprocess.run(
            [sys.executable, str(RUN), "--build", str(self.folder), "--no-build",
             "--record", str(record), *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=60)
        lines = record.read_text(encoding="utf-8").splitlines() if record.exists() else []
        return done.returncode, done.stdout, [json.loads(line) for line in lines]

    def test_a_hunt_that_finds_nothing_is_recorded(self):
        self.plant("retry", GOOD)
        returned, said, totals = self.run_it("5", "retry")
        self.assertEqual(returned, 0, said)
        self.assertIn("retry: ok", said)
        self.assertEqual(len(totals), 1)
        for name, value in (("target", "retry"), ("executions", 1234), ("features", 35),
                            ("edges", 12), ("corpus", 6), ("found", 0)):
            self.assertEqual(totals[0][name], value, name)
        for name in ("seconds", "cpu_seconds", "commit", "compiler"):
            self.assertIn(name, totals[0])

    def test_a_find_ends_with_one_and_says_how_to_see_it_again(self):
        program = self.plant("retry", BAD)
        self.plant("config", GOOD)
        returned, said, totals = self.run_it("5", "retry", "config")
        self.assertEqual(returned, 1, said)
        self.assertIn("fuzz: a.cpp:7: the value", said)
        self.assertIn(f"to see it again: {program} /some/where/retry-crash-1", said)
        self.assertIn("config: ok", said)
        self.assertEqual({each["target"]: each["found"] for each in totals},
                         {"retry": 1, "config": 0})
        self.assertEqual({each["executions"] for each in totals}, {7, 1234})

    def test_nothing_run_is_no_success(self):
        returned, said, totals = self.run_it("5", "retry")
        self.assertEqual((returned, totals), (69, []), said)

    def test_an_unknown_target_is_named(self):
        returned, said, _ = self.run_it("5", "retyr")
        self.assertEqual(returned, 64)
        self.assertIn("no such target: retyr", said)


if __name__ == "__main__":
    unittest.main(verbosity=2)
