#!/usr/bin/env python3
# SPDX-License-Identifier: BSL-1.0
"""What bench/compare.py promises, on planted results and goals: nothing is measured here."""

import contextlib
import io
import json
import os
import pathlib
import sys
import tempfile
import unittest
import unittest.mock

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "bench"))

import compare  # noqa: E402

NAME = "snapshot_cell"  # any bench of the tree


def row(workload, threads, contender, samples, cpu_samples=None, unit="ns"):
    made = {"workload": workload, "threads": threads, "contender": contender, "unit": unit,
            "value": sorted(samples)[len(samples) // 2], "samples": samples}
    if cpu_samples:
        made["cpu_samples"] = cpu_samples
    return made


def goal(contender, **others):
    return {"workload": "read", "threads": 1, "contender": contender, "source": "planted", **others}


RESULTS = {
    "bench": NAME, "only": [], "absent": [{"contender": "peer", "why": "not installed"}],
    "rows": [row("read", 1, "floor", [1.0, 2.0, 4.0], [1.0, 1.0, 1.0]),
             row("read", 1, "ours", [3.0, 4.0, 8.0], [3.0, 3.0, 3.0]),  # 3, 2, 2 times the floor
             row("read", 2, "ours", [4.5, 6.0, 12.0]),                  # 1.5 times one thread
             row("busy", 1, "ours", [6.0, 4.0, 8.0]),                   # 2, 1, 1 times "read"
             row("alive", 1, "ours", [2.0, 3.0, 67.0], unit="versions")],
}


class Tree(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def write(self, name, content):
        path = self.folder / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return str(path)

    def compare(self, goals, *options, results=RESULTS):
        """Exit status, standard output and standard error."""
        text = goals if isinstance(goals, str) else {NAME: goals}
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = compare.main([NAME, "--goals", self.write("goals.json", text), "--results",
                                     self.write("results.json", results), *options])
            except SystemExit as stopped:  # argparse
                return stopped.code, out.getvalue(), err.getvalue()
        return code, out.getvalue(), err.getvalue()


class Verdicts(Tree):
    def test_a_ratio_is_the_median_of_the_rounds(self):
        code, out, _ = self.compare([goal("ours", versus="floor", at_most=2.0)], "--gate")
        self.assertEqual(code, 0)
        self.assertIn("1 met, 0 missed, 0 not measured", out)
        self.assertRegex(out, r"ours +floor +<= 2x +2x +2 to 3 +3x +met")

    def test_a_missed_goal_fails_only_the_gate(self):
        missed = [goal("ours", versus="floor", at_most=1.99)]
        code, out, _ = self.compare(missed)
        self.assertEqual(code, 0)
        self.assertIn("0 met, 1 missed", out)
        self.assertEqual(self.compare(missed, "--gate")[0], 1)

    def test_processor_time_judges_when_asked(self):
        goals = [goal("ours", versus="floor", at_most=2.5)]
        self.assertEqual(self.compare(goals, "--gate")[0], 0)
        code, out, _ = self.compare(goals, "--gate", "--cpu-time")
        self.assertEqual(code, 1)
        self.assertRegex(out, r"<= 2.5x +3x +3 to 3 +2x +missed")

    def test_at_least_is_the_other_way_round(self):
        self.assertEqual(self.compare([goal("ours", versus="floor", at_least=2)], "--gate")[0], 0)
        self.assertEqual(self.compare([goal("ours", versus="floor", at_least=2.1)], "--gate")[0], 1)

    def test_another_thread_count_and_another_workload_are_compared(self):
        goals = [goal("ours", threads=2, versus_threads=1, at_most=1.5),
                 goal("ours", workload="busy", versus_workload="read", at_most=1.0)]
        code, out, _ = self.compare(goals, "--gate")
        self.assertEqual(code, 0, out)
        self.assertIn("2 met", out)

    def test_a_count_is_held_to_its_worst_round(self):
        alive = goal("ours", workload="alive", at_most=66)
        self.assertEqual(self.compare([alive], "--gate")[0], 1)
        self.assertEqual(self.compare([{**alive, "at_most": 67}], "--gate")[0], 0)

    def test_a_time_in_other_units_and_a_share_are_judged_by_their_median(self):
        for unit in ("us", "percent"):
            rows = {**RESULTS, "rows": [row("stall", 1, "ours", [2.0, 3.0, 90.0], unit=unit)]}
            stall = goal("ours", workload="stall", at_most=3)
            self.assertEqual(self.compare([stall], "--gate", results=rows)[0], 0, unit)
            self.assertEqual(self.compare([{**stall, "at_most": 2}], "--gate", results=rows)[0], 1)

    def test_what_has_no_processor_time_is_judged_without_it(self):
        alive = goal("ours", workload="alive", versus_workload="read", at_most=10)
        for options in ((), ("--cpu-time",)):
            code, out, _ = self.compare([alive], "--gate", *options)
            self.assertEqual(code, 0, out)
            self.assertRegex(out, r"8.38x +0.667 to 8.38 ")

    def test_noise_is_how_far_two_equal_contenders_differ(self):
        twice = {**RESULTS, "rows": RESULTS["rows"] + [
            row("read", 1, "ours again", [3.3, 4.4, 16.0])]}
        self.assertIn("differed by 1.100x (1.100 to 2.000)", self.compare([], results=twice)[1])
        self.assertIn("noise: not known", self.compare([])[1])

    def test_an_absent_contender_is_not_measured_and_never_met(self):
        for absent in (goal("peer", versus="floor", at_most=9),
                       goal("ours", versus="peer", at_most=9)):
            code, out, _ = self.compare([absent], "--gate")
            self.assertEqual(code, 0)
            self.assertIn("0 met, 0 missed, 1 not measured", out)
            self.assertIn("not measured: peer: not installed", out)

    def test_a_workload_that_was_left_out_is_not_measured(self):
        goals = [goal("ours", workload="store", versus="floor", at_most=9)]
        code, out, _ = self.compare(goals, results={**RESULTS, "only": ["read"]})
        self.assertEqual(code, 0)
        self.assertIn("1 not measured", out)

    def test_no_goals_is_said(self):
        code, out, _ = self.compare([])
        self.assertEqual(code, 0)
        self.assertIn("no goals", out)

    def test_verdicts_are_written(self):
        out = str(self.folder / "out.json")
        goals = [goal("ours", versus="floor", at_most=1), goal("peer", at_most=1)]
        self.compare(goals, "--json", out)
        written = json.loads(pathlib.Path(out).read_text())
        self.assertEqual([each["state"] for each in written["goals"]], ["missed", "not measured"])
        self.assertEqual(written["goals"][0]["measured"], 2.0)
        self.assertEqual(written["rows"], RESULTS["rows"])


class Refusals(Tree):
    def refused(self, goals, *words, results=RESULTS):
        code, _, err = self.compare(goals, results=results)
        self.assertEqual(code, 2)
        for word in words:
            self.assertIn(word, err)

    def test_goals_that_are_no_json(self):
        self.refused("{", "goals.json")

    def test_goals_of_another_shape(self):
        self.refused('{"snapshot_cell": {}}', "list of goals")
        self.refused(["fast"], "goal 1", "wanted an object")

    def test_a_goal_without_a_bound_or_with_two(self):
        self.refused([goal("ours")], "wants one of at_most and at_least")
        self.refused([goal("ours", versus="floor", at_most=1, at_least=1)], "wants one of")

    def test_a_goal_that_lacks_something_or_has_too_much(self):
        self.refused([{"workload": "read", "threads": 1, "contender": "ours", "at_most": 1}],
                     "lacks 'source'")
        self.refused([goal("ours", at_most=1, at_mots=2)], "unknown key 'at_mots'")

    def test_a_goal_of_wrong_kinds(self):
        self.refused([goal("ours", at_most="fast")], "at_most is 'fast'")
        self.refused([goal("ours", threads=True, at_most=1)], "threads is True")

    def test_a_goal_against_itself(self):
        self.refused([goal("ours", versus="ours", at_most=1)], "itself")

    def test_a_goal_that_names_what_no_bench_has(self):
        self.refused([goal("oars", versus="floor", at_most=1)], "oars")
        self.refused([goal("ours", threads=3, versus="floor", at_most=1)], "3 threads")

    def test_results_that_are_none(self):
        self.refused([], "has no rows", results={})

    def test_options(self):
        for options in (["--rounds", "4"], ["--ms", "0"], ["--record"], ["--fast"]):
            self.assertEqual(self.compare([], *options)[0], 2, options)
        err = io.StringIO()
        with contextlib.redirect_stderr(err), self.assertRaises(SystemExit) as stop:
            compare.main(["no_such"])
        self.assertEqual(stop.exception.code, 2)
        self.assertIn("no bench 'no_such'; known: ", err.getvalue())


class Instructions(Tree):
    def test_no_valgrind_is_said(self):
        with unittest.mock.patch("shutil.which", return_value=None):
            code, _, err = self.compare([], "--instructions")
        self.assertEqual(code, 3)
        self.assertIn("valgrind is not installed", err)

    def test_a_bench_without_a_program_for_it_is_refused(self):
        with contextlib.redirect_stderr(io.StringIO()) as err:
            self.assertEqual(compare.main(["clock", "--instructions"]), 2)
        self.assertIn("clock_instructions.cpp", err.getvalue())


class TheGoalsOfTheTree(unittest.TestCase):
    def test_they_are_well_formed(self):
        path = pathlib.Path(compare.ROOT / "bench/goals.json")
        for bench in json.loads(path.read_text()):
            self.assertTrue((compare.ROOT / f"bench/{bench}_bench.cpp").exists(), bench)
            self.assertTrue(compare.read_goals(path, bench))


if __name__ == "__main__":
    unittest.main()
