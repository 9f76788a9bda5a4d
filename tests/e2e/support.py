# SPDX-License-Identifier: BSL-1.0
"""Running the worker as its users do, and reading what it wrote with nothing of its own code."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import time
import unittest

WORKER = os.environ.get("VELTRIX_TEST_WORKER", "")
SLOW = float(os.environ.get("VELTRIX_TEST_SLOWDOWN", "1"))
DATA = pathlib.Path(os.environ.get("VELTRIX_TEST_DATA", "/nonexistent"))
SOURCE = pathlib.Path(__file__).resolve().parents[2]


def sets(pairs):
    """--set arguments from a dict of dotted keys."""
    return [word for key, value in pairs.items() for word in ("--set", f"{key}={value}")]


class Finished:
    """A run that ended: exit code and both streams as text."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err
        self.text = out + err

    def figure(self, pattern):
        """The first group of `pattern` as an int; commas are allowed in it."""
        found = re.search(pattern, self.text)
        if not found:
            raise AssertionError(f"no {pattern!r} in:\n{self.text}")
        return int(found.group(1).replace(",", ""))


class WorkerCase(unittest.TestCase):
    """Gives each test a folder of its own and kills what it left running."""

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="veltrix-e2e-"))
        self.running = []

    def tearDown(self):
        for process in self.running:
            if process.poll() is None:
                process.kill()
            process.communicate()
        shutil.rmtree(self.folder, ignore_errors=True)

    def path(self, name, text=None):
        where = self.folder / name
        if text is not None:
            where.write_text(text)
        return where

    def start(self, *arguments, stdin=subprocess.DEVNULL, **more):
        process = subprocess.Popen([WORKER, *map(str, arguments)], stdin=stdin,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   cwd=self.folder, **more)
        self.running.append(process)
        return process

    def finish(self, process, seconds=60, stdin=None):
        out, err = process.communicate(stdin, timeout=seconds * SLOW)
        return Finished(process.returncode, out.decode(), err.decode())

    def run_worker(self, *arguments, stdin=None, seconds=60, **more):
        given = subprocess.PIPE if stdin is not None else subprocess.DEVNULL
        return self.finish(self.start(*arguments, stdin=given, **more), seconds, stdin)

    def until(self, condition, what, seconds=20):
        """Polls `condition` and returns its first true value."""
        end = time.monotonic() + seconds * SLOW
        while time.monotonic() < end:
            value = condition()
            if value:
                return value
            time.sleep(0.01)
        self.fail(f"waited {seconds * SLOW:.0f} s for {what}")

    def assert_message(self, text, code, *parts):
        """One line carries the code and every part: what, where, got, allowed, what stays."""
        lines = [line for line in text.splitlines() if code in line]
        self.assertTrue(lines, f"no line with {code} in:\n{text}")
        for part in parts:
            self.assertTrue(any(part in line for line in lines), f"no {part!r} in {lines}")


def events_text(count, keys=10, start=1):
    """Events of our own making: id, ts, key, seq, kind, per-key sequence numbers from 1."""
    lines, sequence = [], {}
    for i in range(start, start + count):
        key = f"key-{i % keys}"
        sequence[key] = sequence.get(key, 0) + 1
        lines.append(json.dumps({
            "id": i, "ts": f"2026-01-01T00:{i // 60000 % 60:02}:{i // 1000 % 60:02}.{i % 1000:03}Z",
            "key": key, "seq": sequence[key], "kind": "E1", "level": "INFO", "source": "test",
            "message": f"event {i}"}, separators=(",", ":")))
    return "\n".join(lines) + "\n"


def read_sink(path):
    """The sink's lines as dicts, in file order."""
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def order_faults(rows):
    """Keys whose source offsets do not strictly grow in the sink: per-key order, checked apart."""
    last, faults = {}, []
    for row in rows:
        if row["offset"] <= last.get(row["key"], -1):
            faults.append((row["key"], last[row["key"]], row["offset"]))
        last[row["key"]] = row["offset"]
    return faults


def named_workers(pid):
    """How many threads of the process are named vx-w-*, counted from outside."""
    count = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        try:
            count += (task / "comm").read_text().startswith("vx-w-")
        except OSError:
            pass  # the thread ended between the two looks
    return count


def read_metrics(path):
    """name{labels} -> value of a Prometheus text file; {} while it is not there."""
    try:
        text = pathlib.Path(path).read_text()
    except OSError:
        return {}
    rows = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, value in rows}
