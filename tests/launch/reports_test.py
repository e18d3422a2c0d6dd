"""The tools that turn measurements into tables and pictures, on measurements made up here. Pictures only where there is matplotlib."""
import importlib.machinery
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
LAUNCH = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "launch")
sys.path.insert(0, LAUNCH)
HAVE_MATPLOTLIB = subprocess.run(["/usr/bin/python3", "-c", "import matplotlib"], capture_output=True).returncode == 0


def load(tool):
    loader = importlib.machinery.SourceFileLoader(tool, os.path.join(LAUNCH, tool))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(tool, loader))
    loader.exec_module(module)
    return module


def run(tool, *words):
    done = subprocess.run([sys.executable, "-B", os.path.join(LAUNCH, tool), *words], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


# What launch/compare -o writes, of two links. sign is slower than dense on the fast one.
QUIET = {("100mbit", "dense"): 900, ("100mbit", "sign"): 300, ("100mbit", "torch none@4"): 1000,
         ("1gbit", "dense"): 250, ("1gbit", "sign"): 275, ("1gbit", "torch none@4"): 300}
COMPARED = {
    "began": "2026-11-24T12:00:00", "config": "/somewhere/my.toml", "overrides": [], "hosts": 2, "blocks": 3, "steps": 8, "skip": 3, "cores": 2,
    "medians": [{"rate": rate, "contender": who, "quiet_ms": ms, "wall_ms": ms, "sent_bytes": 2.5e6} for (rate, who), ms in QUIET.items()],
    "ratios": [{"rate": rate, "ours": ours, "other": "torch none@4", "quiet": {"median": QUIET[rate, ours] / QUIET[rate, "torch none@4"],
                                                                             "low": 0.1, "high": 2.0, "blocks": 3}}
               for rate in ("100mbit", "1gbit") for ours in ("dense", "sign")],
    "starts": {"large": list(range(1000))}}


class Reports(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.scratch = scratch.name

    def write(self, name, content):
        path = os.path.join(self.scratch, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(content if isinstance(content, str) else json.dumps(content))
        return path

    def test_the_page_says_what_the_results_say(self):
        report = load("bench_report")
        self.write("benchmarks.md", f"before\n{report.BEGIN}\n{report.END}\nafter\n")
        page = os.path.join(self.scratch, "benchmarks.md")
        compared = {**COMPARED, "medians": [m for m in COMPARED["medians"] if m["rate"] == "1gbit"],
                    "ratios": [r for r in COMPARED["ratios"] if r["rate"] == "1gbit"]}  # one link: no picture
        self.assertEqual(run("bench_report", "--docs", self.scratch, "--add", "two", self.write("c.json", compared), "--command", "make it")[0], 0)
        rows = [{"bench": "exchange", "name": "sum", "ranks": 4, "numel": 2500000, "ms": 100.0, "cpu_ms": 50.0, "wire_bytes": 15000000,
                 "rate": "1gbit", "link_fraction": 0.93}]
        self.assertEqual(run("bench_report", "--docs", self.scratch, "--add", "sums", self.write("e.json", "\n".join(map(json.dumps, rows))))[0], 0)
        self.assertEqual(run("bench_report", "--docs", self.scratch, "--check")[0], 1)
        code, out = run("bench_report", "--docs", self.scratch)
        self.assertEqual(code, 0, out)
        self.assertEqual(run("bench_report", "--docs", self.scratch, "--check")[0], 0)
        with open(page, encoding="utf-8") as file:
            text = file.read()
        self.assertTrue(text.startswith("before\n") and text.endswith("after\n"))
        for part in ("| dense | 250 (2.50) |", "| sign | torch none@4 | 0.92 (0.10-2.00) |", "`make it`", "| sum | 4 | 1gbit | 10 | 100.0 | 50 | 0.930 |",
                     "| 2 | 1gbit | dense | sign (1.10x) |"):
            self.assertIn(part, text)
        self.assertLess(os.path.getsize(os.path.join(self.scratch, "results", "two.json")), 2000)  # no single starts

    def test_the_committed_page_is_what_the_committed_results_say(self):
        code, out = run("bench_report", "--check")
        self.assertEqual(code, 0, out)

    def test_what_is_not_a_result_is_refused(self):
        self.assertEqual(run("bench_report", "--docs", self.scratch, "--add", "x", self.write("x.json", {"a": 1}))[0], 3)
        self.assertEqual(run("bench_report", "--docs", self.scratch, "--add", "x", os.path.join(self.scratch, "none"))[0], 3)
        self.assertEqual(run("bench_report", "--docs", self.scratch, "--add", "Bad Name", self.write("y.json", COMPARED))[0], 2)
        self.assertEqual(run("bench_report", "--docs", self.scratch)[0], 3)

    @unittest.skipUnless(HAVE_MATPLOTLIB, "no matplotlib")
    def test_steps_against_link_rate_are_drawn(self):
        report = load("bench_report")
        self.write("benchmarks.md", f"{report.BEGIN}\n{report.END}\n")
        run("bench_report", "--docs", self.scratch, "--add", "two", self.write("c.json", COMPARED))
        code, out = run("bench_report", "--docs", self.scratch)
        self.assertEqual(code, 0, out)
        self.assertTrue(1000 < os.path.getsize(os.path.join(self.scratch, "images", "two.png")) < 200000)

    @unittest.skipUnless(HAVE_MATPLOTLIB, "no matplotlib")
    def test_time_to_a_loss_has_its_table_and_picture(self):
        report = load("bench_report")
        page = self.write("benchmarks.md", f"{report.BEGIN}\n{report.END}\n")
        curve = {"rate": "1mbit", "points": [[100.0, 3.0], [900.0, 1.5]], "s_per_step": 0.5, "share": 0.95}
        measured = {"hosts": 4, "target": 1.75, "curves": [
            {**curve, "who": "PyTorch none@4", "torch": True, "seconds_to_target": 800.0, "share": None},
            {**curve, "who": "4 bits", "torch": False, "seconds_to_target": 8.0},
            {**curve, "who": "too coarse", "torch": False, "seconds_to_target": None}]}
        self.assertEqual(run("bench_report", "--docs", self.scratch, "--add", "slow", self.write("t.json", measured))[0], 0)
        code, out = run("bench_report", "--docs", self.scratch)
        self.assertEqual(code, 0, out)
        with open(page, encoding="utf-8") as file:
            text = file.read()
        for part in ("| 1mbit | PyTorch none@4 | 500 | 800 | 1.00 |  |", "| 1mbit | 4 bits | 500 | 8 | 100.00 | 0.95 |", "| too coarse | 500 | not reached |  |"):
            self.assertIn(part, text)
        self.assertTrue(1000 < os.path.getsize(os.path.join(self.scratch, "images", "slow.png")) < 200000)

    def test_time_to_a_loss_is_read_off_between_two_evaluations(self):
        seconds_to = load("time_to_loss").seconds_to
        curve = [[10, 3.0], [20, 2.0], [30, 1.0]]
        self.assertAlmostEqual(seconds_to(curve, 1.5), 25)
        self.assertAlmostEqual(seconds_to(curve, 2.0), 20)
        self.assertAlmostEqual(seconds_to(curve, 3.5), 10)
        self.assertIsNone(seconds_to(curve, 0.5))

    @unittest.skipUnless(HAVE_MATPLOTLIB, "no matplotlib")
    def test_a_timeline_is_drawn_of_the_step_asked_for(self):
        def span(step, name, tid, begin, ms, **more):
            return {"name": name, "ph": "X", "pid": 0, "tid": tid, "ts": 1e6 * step + 1e3 * begin, "dur": 1e3 * ms, "args": {"step": step, **more}}
        events = [{"name": "process_name", "ph": "M", "pid": 0, "tid": 0, "args": {"name": "rank 0"}}]
        for step in (5, 6):
            events += [span(step, "step", 0, 0, 100), span(step, "forward", 0, 1, 30), span(step, "backward", 0, 31, 50),
                       span(step, "wait", 0, 81, 15), span(step, "encode", 1, 50, 5, bucket=0), span(step, "wire", 2, 55, 30, bucket=0),
                       span(step, "wire", 3, 60, 34, bucket=1)]
        self.write("trace.rank0.json", {"traceEvents": events})
        code, out = run("plot", "--timeline", self.scratch, "--step", "6")
        self.assertEqual(code, 0, out)
        self.assertGreater(os.path.getsize(os.path.join(self.scratch, "timeline.png")), 1000)
        self.assertEqual(run("plot", "--timeline", self.scratch, "--step", "7")[0], 2)
        code, out = run("plot", "--timeline", self.scratch, "--rank", "1")
        self.assertEqual(code, 3)
        self.assertIn("there are those of ranks 0", out)


if __name__ == "__main__":
    unittest.main()
