#!/usr/bin/env python3
# SPDX-License-Identifier: BSL-1.0
"""The worker from the outside: real events, live resizes, bad input, crashes.

Run one: VELTRIX_TEST_WORKER=build/test/worker/veltrix-worker \
         python3 tests/e2e/worker_e2e.py RealEvents.test_hdfs_file
"""
import os
import pathlib
import pty
import random
import resource
import signal
import subprocess
import time
import unittest

from support import (DATA, SLOW, SOURCE, WORKER, WorkerCase, events_text, named_workers,
                     order_faults, read_metrics, read_sink, sets)


class RealEvents(WorkerCase):
    """Public logs, from a file and from a pipe; counts, inversions and order checked apart."""

    def log(self, name):
        path = DATA / "events" / name
        if not path.is_file():
            print(f"VELTRIX SKIPPED: no real event log {name} beside the checkout")
            self.skipTest("no data")
        return path

    def check(self, name, inversions, piped):
        log = self.log(name)
        lines = log.read_bytes().splitlines()
        sink = self.path("out.jsonl")
        common = {"sink.kind": "file", "sink.path": sink, "workers.max_concurrency": 4}
        if piped:
            done = self.run_worker("run", *sets({"events.source": "stdin", **common}),
                                   stdin=log.read_bytes())
        else:
            done = self.run_worker("run", *sets({"events.source": "file", "events.path": log,
                                                 **common}))
        self.assertEqual(done.code, 0, done.text)
        self.assertEqual(done.figure(r"events ([\d,]+)"), len(lines), done.text)
        self.assertIn("lost 0", done.text)
        self.assertIn("reordered 0", done.text)
        rows = read_sink(sink)
        self.assertEqual(len(rows), len(lines))
        self.assertEqual(order_faults(rows), [])
        self.assertEqual(sorted(row["id"] for row in rows), list(range(1, len(lines) + 1)))
        if inversions:
            self.assertRegex(done.text, rf"\b{inversions} timestamps? went backwards")
        else:
            self.assertNotRegex(done.text, r"[1-9]\d* timestamps? went backwards")

    def test_hdfs_file(self):
        self.check("hdfs.jsonl", 0, piped=False)

    def test_hdfs_stdin(self):
        self.check("hdfs.jsonl", 0, piped=True)

    def test_zookeeper_file(self):
        self.check("zookeeper.jsonl", 2, piped=False)

    def test_zookeeper_stdin(self):
        self.check("zookeeper.jsonl", 2, piped=True)

    def test_the_committed_sample(self):
        sample = SOURCE / "worker/samples/events.jsonl"
        sink = self.path("out.jsonl")
        done = self.run_worker("run", *sets({"events.source": "file", "events.path": sample,
                                             "sink.kind": "file", "sink.path": sink}))
        self.assertEqual(done.code, 0, done.text)
        self.assertEqual(len(read_sink(sink)), len(sample.read_bytes().splitlines()))
        self.assertEqual(order_faults(read_sink(sink)), [])


class Resize(WorkerCase):
    """What is configured is what runs."""

    def config(self, workers, **more):
        text = f"workers:\n  max_concurrency: {workers}\n"
        text += "".join(f"{key}: {value}\n" for key, value in more.items())
        temporary = self.path("veltrix.yaml.new", text)
        temporary.rename(self.path("veltrix.yaml"))

    def test_512_asked_512_run(self):
        self.config(512)
        process = self.start("run", "-c", "veltrix.yaml",
                             *sets({"events.source": "generate", "events.rate": 1000}))
        began = time.monotonic()
        self.until(lambda: named_workers(process.pid) == 512, "512 named threads")
        self.assertLess(time.monotonic() - began, 1 * SLOW + 0.5)
        process.send_signal(signal.SIGTERM)
        done = self.finish(process)
        self.assertEqual(done.code, 0, done.text)
        self.assertRegex(done.text, r"workers 512 \(veltrix\.yaml:2; default was \d+\)")

    def test_64_to_512_and_back_under_load(self):
        self.config(64)
        sink = self.path("out.jsonl")
        metrics = self.path("metrics.prom")
        count = int(600_000 / SLOW)
        process = self.start("run", "-c", "veltrix.yaml", *sets({
            "events.source": "generate", "events.count": count, "events.keys": 1000,
            "events.rate": int(count / (6 if SLOW == 1 else 30)), "sink.kind": "file",
            "sink.path": sink, "config.poll_ms": 50, "metrics.file": metrics}))
        for wanted in (64, 512, 64, 512, 64):
            self.config(wanted)
            self.until(lambda: process.poll() is not None or
                       named_workers(process.pid) == wanted, f"{wanted} named threads")
            self.assertIsNone(process.poll(), "the events ended before the last resize")
        done = self.finish(process, 120)
        self.assertEqual(done.code, 0, done.text)
        self.assertEqual(done.text.count(": ack in "), 4, done.text)
        self.assertIn("lost 0", done.text)
        self.assertIn("reordered 0", done.text)
        rows = read_sink(sink)
        self.assertEqual(len(rows), count)
        self.assertEqual(len({row["id"] for row in rows}), count)
        self.assertEqual(order_faults(rows), [])

    def test_a_pids_cap_refuses_5000_and_names_the_limit(self):
        group = pathlib.Path("/sys/fs/cgroup/pids/veltrix-test") if pathlib.Path(
            "/sys/fs/cgroup/pids").is_dir() else pathlib.Path("/sys/fs/cgroup/veltrix-test")
        try:
            group.mkdir(exist_ok=True)
            (group / "pids.max").write_text("300")
        except OSError as error:
            print(f"VELTRIX SKIPPED: no pids cap can be set here ({error})")
            self.skipTest("no cgroup")

        def enter():
            (group / "cgroup.procs").write_text("0")

        try:
            self.config(5000)
            refused = self.run_worker("run", "-c", "veltrix.yaml",
                                      *sets({"events.count": 1000}), preexec_fn=enter)
            self.assertEqual(refused.code, 78, refused.text)
            self.assertIn("5000", refused.err)
            self.assertIn("no worker was started", refused.err)
            self.config(400)
            refused = self.run_worker("check", "-c", "veltrix.yaml", preexec_fn=enter)
            self.assertEqual(refused.code, 78, refused.text)
            self.assert_message(refused.text, "VX1012", "veltrix.yaml:2", "400", "pids.max=300")

            self.config(64)
            process = self.start("run", "-c", "veltrix.yaml", *sets({
                "events.rate": 1000, "config.poll_ms": 50}), preexec_fn=enter)
            self.until(lambda: named_workers(process.pid) == 64, "64 named threads")
            self.config(400)
            time.sleep(1 * SLOW)  # sleep: long enough for several polls; nothing may change
            self.assertEqual(named_workers(process.pid), 64)
            process.send_signal(signal.SIGTERM)
            done = self.finish(process)
            self.assertEqual(done.code, 0, done.text)
            self.assert_message(done.err, "VX1012", "400", "pids.max=300",
                                "64 workers stays in force")
        finally:
            for process in self.running:
                process.kill()
                process.wait()
            group.rmdir()

    def test_a_thread_limit_met_on_the_way_refuses_all_or_nothing(self):
        def few_address_space():  # room for about 64 stacks of 1 MiB
            resource.setrlimit(resource.RLIMIT_AS, (512 << 20, 512 << 20))

        if SLOW != 1:
            print("VELTRIX SKIPPED: an address-space limit and a sanitizer do not go together")
            self.skipTest("sanitizer")
        self.config(2000)
        done = self.run_worker("run", "-c", "veltrix.yaml", *sets({
            "events.count": 1000, "workers.stack_kib": 1024}), preexec_fn=few_address_space)
        self.assertIn(done.code, (71, 78), done.text)
        self.assertIn("2000", done.err)
        self.assertIn("no worker was started", done.err)


class BadConfig(WorkerCase):
    """Each refusal says what, where, got, allowed, what stays in force; exit 78."""

    def refused(self, text, code, *parts):
        self.path("veltrix.yaml", text)
        for command in (("check",), ("run",)):
            done = self.run_worker(*command, "-c", "veltrix.yaml")
            self.assertEqual(done.code, 78, done.text)
            self.assert_message(done.text, code, *parts)

    def test_an_unknown_key(self):
        self.refused("workers:\n  max_concurency: 4\n", "VX1001", "veltrix.yaml:2:3",
                     "did you mean workers.max_concurrency?")

    def test_two_names_for_one_setting(self):
        self.refused("worker-pool-size: 64\nworkers:\n  max_concurrency: 512\n", "VX1003", "64",
                     "512", "veltrix.yaml:1")

    def test_a_wrong_type(self):
        self.refused("workers:\n  max_concurrency: many\n", "VX10", "veltrix.yaml:2:20", "many")

    def test_out_of_bounds(self):
        self.refused("queue:\n  max_events: 1\n", "VX1012", "veltrix.yaml:2:15", "64")

    def test_no_such_file(self):
        done = self.run_worker("run", "-c", "absent.yaml")
        self.assertEqual(done.code, 78, done.text)
        self.assertIn("absent.yaml", done.err)

    def test_usage(self):
        done = self.run_worker("run", "--nonsense")
        self.assertEqual(done.code, 2, done.text)

    def test_a_good_config_is_explained(self):
        self.path("veltrix.yaml", "worker-pool-size: 6\n")
        done = self.run_worker("check", "-c", "veltrix.yaml")
        self.assertEqual(done.code, 0, done.text)
        self.assertIn("veltrix.yaml:1", done.text)

    def test_the_environment_names_the_file(self):
        self.path("veltrix.yaml", "worker-pool-size: 6\n")
        named = {**os.environ, "VELTRIX_CONFIG": "veltrix.yaml"}
        done = self.run_worker("check", env=named)
        self.assertEqual(done.code, 0, done.text)
        self.assertIn("workers 6 (veltrix.yaml:1", done.text)

    def test_json_is_accepted(self):
        self.path("veltrix.json", '{"workers": {"max_concurrency": 6}}\n')
        self.assertEqual(self.run_worker("check", "-c", "veltrix.json").code, 0)
        self.path("veltrix.json", '{"workers": {\n  "max_concurrency": 0}}\n')
        done = self.run_worker("check", "-c", "veltrix.json")
        self.assertEqual(done.code, 78, done.text)
        self.assert_message(done.text, "VX1012", "veltrix.json:2")

    def test_a_bad_rewrite_leaves_the_old_in_force(self):
        self.path("veltrix.yaml", "workers:\n  max_concurrency: 8\n")
        metrics = self.path("metrics.prom")
        process = self.start("run", "-c", "veltrix.yaml", *sets({
            "events.rate": 1000, "config.poll_ms": 50, "metrics.file": metrics,
            "progress.interval_ms": 100}))
        self.until(lambda: named_workers(process.pid) == 8, "8 workers")
        good = "veltrix_config_last_reload_successful"
        self.until(lambda: read_metrics(metrics).get(good) == 1, "a good load in the metrics")
        self.path("veltrix.yaml", "workers:\n  max_concurrency: eight\n")
        self.until(lambda: read_metrics(metrics).get(good) == 0, "the refusal in the metrics")
        self.assertEqual(named_workers(process.pid), 8)
        self.path("veltrix.yaml", "workers:\n  max_concurrency: 9\n")
        self.until(lambda: read_metrics(metrics).get(good) == 1, "good bytes again")
        self.until(lambda: named_workers(process.pid) == 9, "9 workers")
        process.send_signal(signal.SIGTERM)
        done = self.finish(process)
        self.assertEqual(done.code, 0, done.text)
        self.assertRegex(done.err, r"VX\d+ veltrix\.yaml:2:20 .*eight.*stays in force")

    def test_a_strict_run_ends_on_a_bad_rewrite(self):
        self.path("veltrix.yaml", "workers:\n  max_concurrency: 8\n")
        process = self.start("run", "--strict", "-c", "veltrix.yaml", *sets({
            "events.rate": 1000, "config.poll_ms": 50}))
        self.until(lambda: named_workers(process.pid) == 8, "8 workers")
        self.path("veltrix.yaml", "workers:\n  max_concurrency: eight\n")
        self.assertEqual(self.finish(process).code, 78)


class BadEvents(WorkerCase):
    """A bad line is named and set aside; the good ones go on."""

    def run_lines(self, text, **more):
        sink, dead = self.path("out.jsonl"), self.path("dead.jsonl")
        done = self.run_worker("run", *sets({
            "events.source": "stdin", "sink.kind": "file", "sink.path": sink,
            "dead_letter.path": dead, **more}), stdin=text.encode())
        rows = read_sink(sink) if sink.exists() else []
        letters = read_sink(dead) if dead.exists() else []
        return done, rows, letters

    def test_each_kind_of_bad_line_is_dead_lettered_with_line_and_reason(self):
        good = events_text(4, keys=1).splitlines()
        bad = {2: '{"id": 1, "ts":', 4: '{"id":7,"ts":"2026-01-01T00:00:00Z"}',
               5: '{"id":8,"ts":"2026-01-01T00:00:00Z","key":5,"seq":1}',
               7: "not json", 8: '[1, 2]'}
        lines = [good[0], bad[2], good[1], bad[4], bad[5], good[2], bad[7], bad[8], good[3]]
        done, rows, letters = self.run_lines("\n".join(lines) + "\n")
        self.assertEqual(done.code, 0, done.text)
        self.assertEqual([row["id"] for row in rows], [1, 2, 3, 4])
        self.assertEqual(sorted(letter["line"] for letter in letters), sorted(bad))
        for letter in letters:
            self.assertTrue(letter["reason"], letter)
        self.assertIn("lost 0", done.text)
        self.assertEqual(done.figure(r"dead[- ]lettered ([\d,]+)"), len(bad))

    def test_an_over_long_line_does_not_take_memory(self):
        good = events_text(2, keys=1).splitlines()
        text = good[0] + "\n" + '{"key":"' + "x" * (64 << 20) + '"}\n' + good[1] + "\n"
        done, rows, letters = self.run_lines(text, **{"events.max_event_bytes": 4096})
        self.assertEqual(done.code, 0, done.text)
        self.assertEqual([row["id"] for row in rows], [1, 2])
        self.assertEqual([letter["line"] for letter in letters], [2])
        self.assertLess(self.path("dead.jsonl").stat().st_size, 1 << 20)

    def test_a_last_line_without_newline_counts(self):
        done, rows, _ = self.run_lines(events_text(3).rstrip("\n"))
        self.assertEqual((done.code, len(rows)), (0, 3), done.text)

    def test_no_input_at_all(self):
        done, rows, _ = self.run_lines("")
        self.assertEqual((done.code, rows), (0, []), done.text)

    def test_on_invalid_stop_ends_with_65_and_says_where(self):
        done, rows, _ = self.run_lines(events_text(2) + "broken\n" + events_text(2),
                                       **{"events.on_invalid": "stop"})
        self.assertEqual(done.code, 65, done.text)
        self.assertRegex(done.err, r"VX\d+ .*line 3|VX\d+ .*:3")

    def test_on_invalid_drop_counts(self):
        done, rows, letters = self.run_lines(events_text(2) + "broken\n",
                                             **{"events.on_invalid": "drop"})
        self.assertEqual((done.code, len(rows), letters), (0, 2, []), done.text)

    def test_gaps_and_duplicates_of_a_key_are_counted(self):
        lines = events_text(5, keys=1).splitlines()
        done, rows, _ = self.run_lines("\n".join([lines[0], lines[2], lines[2], lines[4]]) + "\n")
        self.assertEqual(len(rows), 4, done.text)
        self.assertIn("missing 2, late 0, duplicates 1", done.text)

    def test_a_source_that_is_not_there(self):
        done = self.run_worker("run", *sets({"events.source": "file",
                                             "events.path": "absent.jsonl"}))
        self.assertEqual(done.code, 69, done.text)
        self.assertIn("absent.jsonl", done.err)

    def test_a_full_disk_is_named_and_nothing_unwritten_is_committed(self):
        source = self.path("in.jsonl", events_text(5000))
        commit = self.path("commit.json")
        done = self.run_worker("run", *sets({
            "events.source": "file", "events.path": source, "sink.kind": "file",
            "sink.path": "/dev/full", "commit.path": commit}))
        self.assertEqual(done.code, 69, done.text)
        self.assertRegex(done.err, r"VX\d+ .*/dev/full.*No space left")
        # The same commit file with a disk that takes it: nothing was skipped.
        sink = self.path("out.jsonl")
        commit.unlink(missing_ok=True)
        done = self.run_worker("run", *sets({
            "events.source": "file", "events.path": source, "sink.kind": "file",
            "sink.path": sink, "commit.path": commit}))
        self.assertEqual(len(read_sink(sink)), 5000, done.text)


class Crash(WorkerCase):
    """What was committed stays; what was not comes again."""

    def arguments(self, source, **more):
        return ["run", *sets({
            "events.source": "file", "events.path": source, "sink.kind": "file",
            "sink.path": self.path("out.jsonl"), "commit.path": self.path("commit.json"),
            "commit.interval_ms": 10, "workers.max_concurrency": 4, **more})]

    def test_killed_at_random_nothing_is_lost_and_no_key_is_reordered(self):
        count = 40_000
        source = self.path("in.jsonl", events_text(count, keys=50))
        seed = int(os.environ.get("VELTRIX_TEST_SEED", time.time_ns() & 0xFFFF))
        print(f"seed {seed}")
        chance = random.Random(seed)
        kills = 0
        for _ in range(20):
            process = self.start(*self.arguments(source, **{"events.rate": int(200_000 / SLOW)}))
            try:
                process.wait(chance.uniform(0.01, 0.15) * SLOW)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                kills += 1
        done = self.run_worker(*self.arguments(source))
        self.assertEqual(done.code, 0, done.text)
        self.assertGreater(kills, 0)
        # At least once: what was written after the last checkpoint may come again. Whether a reader
        # keeps the first or the last of each event, it has all, and each key in order.
        rows = read_sink(self.path("out.jsonl"))
        last = list({row["id"]: row for row in reversed(rows)}.values())[::-1]
        kept = set()
        first = [row for row in rows if not (row["id"] in kept or kept.add(row["id"]))]
        for way in (first, last):
            self.assertEqual(sorted(row["id"] for row in way), list(range(1, count + 1)))
            self.assertEqual(order_faults(way), [])
        print(f"{kills} kills, {len(rows) - count} events came again")

    def test_a_graceful_stop_commits_and_a_second_run_goes_on_from_there(self):
        count = 20_000
        source = self.path("in.jsonl", events_text(count, keys=50))
        sink = self.path("out.jsonl", "")
        for sent in (signal.SIGTERM, signal.SIGINT):
            before = sink.stat().st_size
            process = self.start(*self.arguments(source, **{"events.rate": 20_000}))
            self.until(lambda: sink.stat().st_size > before, "some output")
            process.send_signal(sent)
            done = self.finish(process)
            self.assertEqual(done.code, 0, done.text)
            self.assertIn("lost 0", done.text)
            rows = read_sink(self.path("out.jsonl"))
            self.assertEqual([row["id"] for row in sorted(rows, key=lambda row: row["id"])],
                             list(range(1, len(rows) + 1)))
        done = self.run_worker(*self.arguments(source))
        self.assertEqual(done.code, 0, done.text)
        rows = read_sink(self.path("out.jsonl"))
        self.assertEqual(sorted(row["id"] for row in rows), list(range(1, count + 1)))

    def test_a_third_signal_ends_a_run_whose_sink_hangs(self):
        sink = self.path("out.fifo")
        os.mkfifo(sink)
        process = self.start("run", *sets({"events.source": "generate", "events.count": 1_000_000,
                                           "sink.kind": "file", "sink.path": sink}))
        reader = os.open(sink, os.O_RDONLY)  # opened, and never read from
        try:
            told = b""
            while b"VX2007" not in told:  # the full queue is said although the sink hangs
                told += process.stderr.readline()
            for answer in (b"finishing what was read", b"giving up", b"ending at once"):
                process.send_signal(signal.SIGTERM)
                while answer not in told:
                    line = process.stderr.readline()
                    self.assertTrue(line, told)
                    told += line
            self.assertEqual(self.finish(process).code, 69)
        finally:
            os.close(reader)

    def test_a_source_that_disappears_while_it_is_read_loses_nothing(self):
        count = 20_000
        source = self.path("in.jsonl", events_text(count))
        process = self.start(*self.arguments(source, **{"events.rate": 40_000}))
        self.until(lambda: self.path("out.jsonl").exists() and
                   self.path("out.jsonl").stat().st_size > 0, "some output")
        source.unlink()
        done = self.finish(process)
        self.assertEqual(done.code, 0, done.text)
        self.assertEqual(len(read_sink(self.path("out.jsonl"))), count)

    def test_a_config_file_that_disappears_leaves_the_old_in_force(self):
        config = self.path("veltrix.yaml", "workers:\n  max_concurrency: 5\n")
        process = self.start("run", "-c", config,
                             *sets({"events.rate": 1000, "config.poll_ms": 50}))
        self.until(lambda: named_workers(process.pid) == 5, "5 workers")
        config.unlink()
        time.sleep(0.5 * SLOW)  # sleep: several polls of a missing file; nothing may change
        self.assertEqual(named_workers(process.pid), 5)
        config.write_text("workers:\n  max_concurrency: 6\n")
        self.until(lambda: named_workers(process.pid) == 6, "6 workers after it came back")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(self.finish(process).code, 0)


class Face(WorkerCase):
    """What a person and a scraper see."""

    def test_version_names_what_is_built_in(self):
        done = self.run_worker("--version")
        self.assertEqual(done.code, 0, done.text)
        self.assertRegex(done.out, r"0\.1\.0")
        self.assertRegex(done.out, r"sources +generate, file, stdin \(built in\)")
        self.assertRegex(done.out, r"kafka \(not built")

    def test_schema_prints_each_form(self):
        for form in ((), ("--json",), ("--markdown",), ("--default-file",)):
            done = self.run_worker("schema", *form)
            self.assertEqual(done.code, 0, done.text)
            self.assertIn("max_concurrency", done.out)
        self.path("default.yaml", self.run_worker("schema", "--default-file").out)
        done = self.run_worker("check", "-c", "default.yaml")
        self.assertEqual(done.code, 0, done.text)

    def test_piped_output_is_plain_lines(self):
        done = self.run_worker("run", *sets({"events.count": 50_000, "events.rate": 100_000,
                                             "progress.interval_ms": 100}))
        self.assertEqual(done.code, 0, done.text)
        self.assertNotIn("\r", done.text)
        self.assertNotIn("\x1b", done.text)
        self.assertRegex(done.text, r"p50 .*p99 .*p99\.9 ")

    def test_a_terminal_sees_progress_in_place(self):
        lead, follow = pty.openpty()
        process = self.start_on_terminal(follow, "run", *sets({
            "events.count": int(100_000 / SLOW), "events.rate": int(100_000 / SLOW),
            "progress.interval_ms": 100}))
        os.close(follow)
        shown = b""
        while True:
            try:
                piece = os.read(lead, 65536)
            except OSError:
                break
            if not piece:
                break
            shown += piece
        os.close(lead)
        self.assertEqual(process.wait(30 * SLOW), 0, shown)
        self.assertIn(b"\r", shown.replace(b"\r\n", b"\n"))
        self.assertIn(b"lost 0", shown)

    def start_on_terminal(self, terminal, *arguments):
        process = subprocess.Popen([WORKER, *map(str, arguments)], stdin=terminal, stdout=terminal,
                                   stderr=terminal, cwd=self.folder)
        self.running.append(process)
        return process

    def test_metrics_agree_with_the_run(self):
        metrics = self.path("metrics.prom")
        done = self.run_worker("run", *sets({"events.count": 50_000, "metrics.file": metrics,
                                             "workers.max_concurrency": 3}))
        self.assertEqual(done.code, 0, done.text)
        found = read_metrics(metrics)
        self.assertEqual(found["veltrix_events_ingested_total"], 50_000)
        self.assertEqual(found["veltrix_workers_configured"], 3)
        self.assertLessEqual(len(found), 120)
        named = [name for name in found if name.startswith("veltrix_config_max_concurrency")]
        self.assertEqual([found[name] for name in named], [3])


if __name__ == "__main__":
    if not WORKER:
        raise SystemExit("VELTRIX_TEST_WORKER must name the built veltrix-worker")
    unittest.main(verbosity=2)
