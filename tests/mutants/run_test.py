#!/usr/bin/env python3
# SPDX-License-Identifier: BSL-1.0
"""What run.py promises, on a tree of one header and one test that needs no framework.

Each case writes a list into a small tree, runs the runner as a user would, and looks at its exit
status, its lines, its report, and at the tree, which must be as it was.
"""

import contextlib
import hashlib
import io
import json
import os
import shutil
import sys
import tempfile
import unittest
import unittest.mock

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import mutant_file  # noqa: E402
import run  # noqa: E402

HEADER = """#pragma once
inline int limit() { return 3; }
inline int unused() { return 1; }
inline int twice(int n) { return n + n; }
"""
TEST = """#include "small.hpp"
int check() { return limit() == 3 && twice(2) == 4 ? 0 : 1; }
"""
MAIN = """int check();
int main() { return check(); }
"""
CAUGHT = """mutant: a limit too high
promise: limit: "three"
file: include/small.hpp
layers: unit
tests: small_test
-|return 3;
+|return 4;
"""
SURVIVES = CAUGHT.replace("a limit too high", "nobody looks").replace("3;", "1;")
UNCHANGED = "include/small.hpp"


def digest(root):
    """Of all names and bytes below `root`."""
    total = hashlib.sha256()
    for folder, names, files in sorted(os.walk(root)):
        names.sort()
        for name in sorted(files):
            path = os.path.join(folder, name)
            with open(path, "rb") as file:
                total.update(path.encode() + b"\0" + file.read())
    return total.hexdigest()


class RunnerTest(unittest.TestCase):
    def setUp(self):
        patch = unittest.mock.patch.object(run, "PRECOMPILED", ["support/catch.hpp"])
        patch.start()
        self.addCleanup(patch.stop)
        folder = tempfile.TemporaryDirectory(prefix="veltrix-mutants-test-")
        self.addCleanup(folder.cleanup)
        self.root = os.path.join(folder.name, "tree")
        self.scratch = os.path.join(folder.name, "scratch")
        self.report = os.path.join(folder.name, "report.json")
        os.makedirs(self.scratch)
        self.write("include/small.hpp", HEADER)
        self.write("tests/small_test.cpp", TEST)
        self.write("tests/support/catch_main.cpp", MAIN)
        self.write("tests/support/catch.hpp", "")

    def write(self, name, text):
        path = os.path.join(self.root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        run.replace_file(path, text)

    def run_list(self, text, *more):
        """(exit status, what was printed, the report or None)"""
        self.write("tests/mutants/small.txt", text)
        before = digest(self.root)
        told = io.StringIO()
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
            status = run.main(["--root", self.root, "--scratch", self.scratch, "--jobs", "1",
                               "--report", self.report, *more])
        self.assertEqual(digest(self.root), before, "the tree itself was changed")
        self.assertEqual(os.listdir(self.scratch), [], "a copy was left behind")
        report = None
        if os.path.exists(self.report):
            with open(self.report, encoding="utf-8") as file:
                report = json.load(file)
        return status, told.getvalue(), report

    def test_a_caught_mutant_is_reported_with_layer_and_test(self):
        status, told, report = self.run_list(CAUGHT)
        self.assertEqual(status, 0, told)
        self.assertIn("1 of 1: small: a limit too high: caught by unit, small_test", told)
        self.assertEqual(report["caught"], 1)
        self.assertEqual(report["results"][0]["caught_by"]["layer"], "unit")
        with open(self.report.replace(".json", ".md"), encoding="utf-8") as file:
            self.assertIn("| a limit too high | small | unit | small_test |", file.read())

    def test_a_survivor_is_named_and_the_status_is_not_zero(self):
        status, told, report = self.run_list(CAUGHT + "\n" + SURVIVES)
        self.assertEqual(status, 1)
        self.assertIn("not caught: small: nobody looks: SURVIVED", told)
        self.assertEqual((report["caught"], report["survived"]), (1, 1))

    def test_a_mutant_is_undone_before_the_next_one(self):
        status, told, _ = self.run_list(SURVIVES + "\n" + CAUGHT + "\n" +
                                        SURVIVES.replace("nobody looks", "nor here"))
        self.assertEqual(status, 1)
        self.assertIn("1 of 3 caught", told)

    def test_an_old_text_that_is_missing_is_an_error(self):
        status, told, report = self.run_list(CAUGHT.replace("-|return 3;", "-|return 33;"))
        self.assertEqual((status, report), (2, None))
        self.assertIn("is not there in include/small.hpp", told)

    def test_an_old_text_that_is_ambiguous_is_an_error(self):
        status, told, _ = self.run_list(CAUGHT.replace("-|return 3;", "-|return"))
        self.assertEqual(status, 2)
        self.assertIn("is there 3 times in include/small.hpp", told)

    def test_an_equivalent_mutant_is_refused_with_its_reason(self):
        status, told, _ = self.run_list(CAUGHT + "equivalent: the sum is the same\n")
        self.assertEqual(status, 2)
        self.assertIn("it is equivalent (the sum is the same): take it out of the list", told)

    def test_a_pending_mutant_is_counted_and_not_run(self):
        status, told, report = self.run_list(CAUGHT + "\n" + SURVIVES +
                                             "pending: needs two threads\n")
        self.assertEqual(status, 0, told)
        self.assertIn("1 of 1 caught, 1 pending", told)
        self.assertEqual(report["pending"], 1)

    def test_a_run_that_hangs_is_caught_by_timeout(self):
        status, told, report = self.run_list(
            CAUGHT.replace("+|return 4;", "+|for (volatile int n = 0;;) n = n; return 3;"),
            "--timeout", "0.5")
        self.assertEqual(status, 0, told)
        self.assertEqual(report["results"][0]["caught_by"]["how"], "timeout")
        self.assertEqual(report["results"][0]["caught_by"]["where"], "the run")

    def test_a_build_that_hangs_is_caught_by_timeout(self):
        compiler = os.path.join(self.root, "compiler")
        run.replace_file(compiler, "#!/bin/sh\n"
                         "grep -q 'return 4' include/small.hpp && exec sleep 60\n"
                         f"exec {shutil.which('g++') or 'c++'} \"$@\"\n")
        os.chmod(compiler, 0o755)
        status, told, report = self.run_list(CAUGHT, "--compiler", compiler, "--build-timeout", "9")
        self.assertEqual(status, 0, told)
        self.assertEqual(report["results"][0]["caught_by"]["where"], "the build")

    def test_a_mutant_that_does_not_compile_must_be_meant_to(self):
        broken = CAUGHT.replace("+|return 4;", "+|return four;")
        status, told, _ = self.run_list(broken)
        self.assertEqual(status, 1)
        self.assertIn("FAULTY, it does not compile", told)
        status, told, report = self.run_list(broken.replace("layers: unit", "layers: compile"))
        self.assertEqual(status, 0, told)
        self.assertEqual(report["results"][0]["caught_by"]["layer"], "compile")

    def test_an_unchanged_tree_that_is_red_stops_the_run(self):
        self.write("include/small.hpp", HEADER.replace("n + n", "n"))
        status, told, report = self.run_list(CAUGHT)
        self.assertEqual((status, report), (1, None))
        self.assertIn("the unchanged tree is red", told)

    def test_a_sample_is_repeated_by_its_seed(self):
        several = "\n".join(CAUGHT.replace("too high", f"too high {n}") for n in range(20))
        self.write("tests/mutants/small.txt", several)
        given = ["--root", self.root, "--sample", "5", "--seed"]
        first, again, other = (run.chosen(run.arguments(given + [seed]))[0]
                               for seed in ("1", "1", "2"))
        self.assertEqual(len(first), 5)
        self.assertEqual([each.name for each in first], [each.name for each in again])
        self.assertNotEqual([each.name for each in first], [each.name for each in other])

    def test_only_and_name_choose_and_refuse_what_is_not_there(self):
        both = CAUGHT + "\n" + SURVIVES
        status, told, _ = self.run_list(both, "--name", "a limit too high")
        self.assertEqual(status, 0, told)
        self.assertIn("1 of 1 caught", told)
        status, told, _ = self.run_list(both, "--only", "large")
        self.assertEqual(status, 2)
        self.assertIn("no list large.txt with mutants; there are: small", told)
        status, told, _ = self.run_list(both, "--name", "a limit too low")
        self.assertEqual(status, 2)
        self.assertIn("no mutant 'a limit too low'", told)

    def test_a_test_that_is_not_there_is_an_error(self):
        status, told, _ = self.run_list(CAUGHT.replace("tests: small_test", "tests: large_test"))
        self.assertEqual(status, 2)
        self.assertIn("there is no tests/large_test.cpp", told)


class ListTest(unittest.TestCase):
    def refused(self, text, why):
        with self.assertRaisesRegex(mutant_file.ListError, why):
            mutant_file.parse(text, "small")

    def test_what_is_missing_is_named(self):
        self.refused(CAUGHT.replace('promise: limit: "three"\n', ""), "'promise:' is missing")
        self.refused(CAUGHT.replace("layers: unit\n", ""), "'layers:' is missing")
        self.refused(CAUGHT.replace("tests: small_test\n", ""), "'tests:' is missing")
        self.refused(CAUGHT.replace("file: include/small.hpp\n", ""), "text before 'file:'")
        self.refused(CAUGHT.replace("-|return 3;\n", ""), r"'\+\|' without '-\|'")
        self.refused("promise: none\n", "'mutant:' comes first")

    def test_what_is_not_known_is_named(self):
        self.refused(CAUGHT.replace("layers: unit", "layers: units"), "no layer units")
        self.refused(CAUGHT.replace("small_test", "small_test@msan"), "names the variant 'msan'")
        self.refused(CAUGHT.replace("file:", "flie:"), "is none of mutant, promise")

    def test_layers_follow_from_the_tests(self):
        layers = {"a_test": "unit", "a_stress_test": "stress", "a_test@tsan": "tsan",
                  "model/a_test": "model", "fuzz/a_fuzz": "fuzz",
                  "a_lin_test": "lin", "tidy": "tidy"}
        for word, layer in layers.items():
            self.assertEqual(mutant_file.read_step(word, "here").layer, layer)

    def test_two_places_may_change_and_lines_join(self):
        (mutant,) = mutant_file.parse(CAUGHT + "-|return 1;\n-|}\n+|return 2;\n+|}\n", "small")
        self.assertEqual(len(mutant.edits), 2)
        self.assertEqual(mutant.edits[1].apply("return 1;\n}"), "return 2;\n}")

    def test_the_lists_of_this_tree_can_be_read(self):
        mutants = mutant_file.load(HERE)
        self.assertGreaterEqual(len(mutants), 50)
        root = os.path.dirname(os.path.dirname(HERE))
        for mutant in mutants:
            texts = {}
            for edit in mutant.edits:
                if edit.path not in texts:
                    with open(os.path.join(root, edit.path), encoding="utf-8") as file:
                        texts[edit.path] = file.read()
                with self.subTest(mutant.place):
                    texts[edit.path] = edit.apply(texts[edit.path])


if __name__ == "__main__":
    unittest.main()
