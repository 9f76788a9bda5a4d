#!/usr/bin/env python3
# SPDX-License-Identifier: BSL-1.0
"""Shows that the fuzz driver goes red when it must, and leaves what is needed to see it again.

Usage: selftest.py PLANTED_REPLAY [--sanitized]

Each mistake that planted_fuzz.cpp knows is planted in turn: the replay must end badly, name the
disagreement, and keep an input that ends badly again, but passes once the mistake is gone.
"""
import os
import subprocess
import sys
import tempfile
import unittest

PROGRAM = ""
SANITIZED = False
RANDOM = ["--random", "3000", "--seed", "1", "--max-bytes", "64"]


def run(arguments, mistake="", folder="."):
    environment = dict(os.environ, VELTRIX_PLANTED=mistake)
    return subprocess.run([PROGRAM, *arguments], env=environment, cwd=folder, timeout=120,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace", check=False)


class Selftest(unittest.TestCase):
    def found(self, mistake, words):
        with tempfile.TemporaryDirectory() as folder:
            first = run(RANDOM, mistake, folder)
            self.assertNotEqual(first.returncode, 0, "the mistake was not found")
            for word in words:
                self.assertIn(word, first.stdout)
            kept = os.path.join(folder, "crash-" + os.path.basename(PROGRAM))
            self.assertTrue(os.path.isfile(kept), "no input was kept")
            again = run([kept], mistake, folder)
            self.assertNotEqual(again.returncode, 0, "the kept input does not end badly again")
            mended = run([kept], "", folder)
            self.assertEqual(mended.returncode, 0, mended.stdout)

    def test_a_right_thing_agrees_with_its_model(self):
        result = run(RANDOM)
        self.assertEqual(result.returncode, 0, result.stdout)
        self.assertIn("seed 1", result.stdout)
        self.assertIn("3000 random ones tried, all agree", result.stdout)

    def test_a_wrong_operation_is_found(self):
        self.found("operation", ["planted_fuzz.cpp", "the last ones:", "erase erase"])

    def test_a_fault_that_leaves_something_half_done_is_found(self):
        self.found("fault", ["size", "insert"])

    def test_an_entry_served_too_long_is_found(self):
        self.found("time", ["whether there is a value", "advance"])

    def test_a_read_out_of_bounds_is_found(self):
        if not SANITIZED:
            self.skipTest("only a sanitizer sees it")
        self.found("crash", ["AddressSanitizer"])

    def test_bad_arguments_are_refused(self):
        for arguments in ([], ["--random"], ["--random", "x"], ["--what", "1"], ["not/there"]):
            self.assertEqual(run(arguments).returncode, 64, arguments)

    def test_an_empty_folder_is_no_success(self):
        with tempfile.TemporaryDirectory() as folder:
            self.assertEqual(run([folder]).returncode, 64)


if __name__ == "__main__":
    SANITIZED = "--sanitized" in sys.argv
    PROGRAM = os.path.abspath(sys.argv[1])
    unittest.main(argv=sys.argv[:1], verbosity=2)
