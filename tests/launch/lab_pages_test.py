"""Pictures, index page and docs/reproductions.md from results made up here. Pictures only where there is matplotlib."""
import json
import os
import re
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
LAUNCH = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "launch")
sys.path.insert(0, LAUNCH)
from plots import lab  # noqa: E402

HAVE_MATPLOTLIB = subprocess.run(["/usr/bin/python3", "-c", "import matplotlib"], capture_output=True).returncode == 0

CLAIMS = [{"claim": "sgd: |x - x*|", "measured": 1e-14, "threshold": "< 1e-10", "pass": True, "verdict": "PASS", "seeds": 3, "values": [1e-14, 2e-15, 3e-15],
           "of": "mean", "std": 6.7e-15, "worst": 2e-14},
          {"claim": "ef14", "measured": "inf", "threshold": "> 0.5", "pass": False, "verdict": "FAIL", "seeds": 3, "values": ["inf", 1.0, 1.0],
           "of": "every seed", "std": "nan", "worst": "inf"},
          {"claim": "<b>ours</b>", "measured": 0.834567, "threshold": "< 0.5", "pass": False, "verdict": "does not hold here", "seeds": 1, "values": [0.834567],
           "does_not_hold_here": "too small"},
          {"claim": "MB", "measured": 8.3, "threshold": "reported", "pass": True, "verdict": "reported", "seeds": 1, "values": [8.3]}]


class LabPages(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = scratch.name

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def write(self, name, content):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(content)

    def read(self, name):
        with open(self.path(name), encoding="utf-8") as file:
            return file.read()

    def experiment(self, name, curves=(), **more):
        """curves: (label, seed, [value at round 0, 10, 20, ...])"""
        rows = ["series,seed,round,uplink_bytes,total_bytes,metric,value"]
        for label, seed, values in curves:
            for i, value in enumerate(values):
                rows += [f'"{label}",{seed},{10 * i},{100 * i},{900 * i},{metric},{value}' for metric in ("distance", "loss")]
        self.write(f"lab/{name}/curves.csv", "\n".join(rows) + "\n")
        self.write(f"lab/{name}/claims.json", json.dumps({
            "experiment": name, "paper": "A & B: on <errors>", "arxiv": "2311.05645, 1901.09269", "command": f"tightwire lab run {name}", "quick": False,
            "ranks": 1, "seconds": 1.25, "date": "2026-11-24T20:00:00", "claims": CLAIMS, **more}))

    def run_tool(self, tool, *words, python=sys.executable, **environment):
        done = subprocess.run([python, "-B", os.path.join(LAUNCH, tool), *words], capture_output=True, text=True, env={**os.environ, **environment})
        return done.returncode, done.stdout + done.stderr

    def test_curves_are_medians_over_the_seeds_that_are_left(self):
        self.experiment("x", [("a", 1, [8, 4, 2]), ("a", 2, [8, 6, 3]), ("a", 3, [8, 5, 4]), ("b", 1, [8, 16, "inf"]), ("b", 2, [8, 9, 7]),
                              ("c, tuning 1", 1, [1, 1, 1])])
        series, metric, left_out = lab.read(self.path("lab/x/curves.csv"))
        self.assertEqual((sorted(series), metric, left_out), (["a", "b"], "distance", 1))
        for one in series.values():
            one.prepare()
        self.assertEqual([point[3:] for point in series["a"].points], [(8, 8, 8), (5, 4, 6), (3, 2, 4)])
        self.assertEqual(series["a"].points[-1][:3], (20, 1600, 14400))  # bits
        self.assertFalse(series["a"].diverged)
        self.assertTrue(series["b"].diverged)
        self.assertEqual(len(series["b"].points), 2)  # one of two is gone: no median

    def test_many_variants_get_rows_and_few_lines_share_one(self):
        curves = [(f"{method}, zeta {zeta}", 1, [4, 2, 1]) for zeta in (0, 1, 10) for method in ("ef14", "ef21", "econtrol")]
        self.experiment("x", curves)
        series, _, _ = lab.read(self.path("lab/x/curves.csv"))
        self.assertEqual([(title, list(row)) for title, row in lab.rows_of(series)],
                         [(f"zeta {zeta}", ["ef14", "ef21", "econtrol"]) for zeta in (0, 1, 10)])
        few = dict(list(series.items())[:6])
        self.assertEqual(lab.rows_of(few), [("", few)])

    def test_what_has_no_variant_is_in_every_row(self):
        self.experiment("x", [("sgd", 1, [4, 2, 1])] + [(f"{method}, top-k {k} %", 1, [4, 2, 1]) for k in (1, 10) for method in ("a", "b", "c")])
        series, _, _ = lab.read(self.path("lab/x/curves.csv"))
        self.assertEqual([(title, list(row)) for title, row in lab.rows_of(series)],
                         [("top-k 1 %", ["sgd", "a", "b", "c"]), ("top-k 10 %", ["sgd", "a", "b", "c"])])

    def test_an_experiment_says_what_is_drawn_of_it(self):
        curves = [("a", 1, [8, 4, 2]), ("a", 2, [6, 5, "inf"])]
        self.experiment("x", curves)
        self.assertEqual(lab.plot_of(self.path("lab/x"))["metric"], "")
        self.experiment("x", curves, plot={"metric": "loss", "from_start": True, "lines": [0.5], "training": True})
        wanted = lab.plot_of(self.path("lab/x"))
        self.assertEqual(wanted, {"metric": "loss", "from_start": True, "lines": [0.5], "training": True})
        series, metric, _ = lab.read(self.path("lab/x/curves.csv"), wanted["metric"], wanted["from_start"])
        self.assertEqual(metric, "loss, less that of the start")
        self.assertEqual([p[3] for p in series["a"].runs["1"]], [0, -4, -6])
        self.assertTrue(series["a"].diverged)
        series["a"].prepare()
        self.assertEqual(lab.limits(series), (False, None, None))
        with self.assertRaises(SystemExit):
            lab.read(self.path("lab/x/curves.csv"), "nothing of this name")

    @unittest.skipUnless(HAVE_MATPLOTLIB, "no matplotlib")
    def test_pictures_and_index_page_are_whole(self):
        self.experiment("x", [("sgd", seed, [8.0 / 10 ** i for i in range(9)]) for seed in (1, 2)] + [("naive", 1, [8, 80, "inf"])])
        self.experiment("y", [("sgd, step 1", 1, [3, 2, 0])])
        self.experiment("z")  # no curves
        self.write("lab/w/claims.json", "{}")
        code, out = self.run_tool("plot", "--lab", self.path("lab"))
        self.assertEqual(code, 0, out)
        self.assertIn("lab/w/claims.json is not of tightwire lab", out)
        self.assertTrue(os.path.exists(self.path("lab/x/plot.svg")) and os.path.exists(self.path("lab/y/plot.svg")))
        self.assertFalse(os.path.exists(self.path("lab/z/plot.svg")))
        page = self.read("lab/index.html")
        self.assertEqual(page.count("<figure>"), 2)
        self.assertEqual(len(re.findall(r'<section id="[xyz]">', page)), 3)
        for part in ('href="#x"', "prefers-color-scheme: dark", "&lt;b&gt;ours&lt;/b&gt;", "A &amp; B: on &lt;errors&gt;", "too small", "naive (× diverges)", 'abs/1901.09269">1901.09269</a>',
                     "uplink of all clients", "3 PASS", "3 do not hold here"):
            self.assertTrue(part in page, part)
        # Nothing is fetched: links go to papers, everything that loads is in the page.
        self.assertEqual(re.findall(r'(?:src|xlink:href)="(?!#)[^"]*"|url\((?!#)[^)]*\)|<script|@import|<link', page), [])
        ids = re.findall(r' id="([^"]+)"', page)
        self.assertEqual(sorted(set(ids)), sorted(ids))
        code, out = self.run_tool("plot", "--lab", self.path("lab"), "x", "-o", self.path("x.png"))
        self.assertEqual((code, out.splitlines()[:1]), (0, [self.path("x.png")]))

    @unittest.skipUnless(HAVE_MATPLOTLIB, "no matplotlib")
    def test_wrong_words_are_refused(self):
        self.experiment("x", [("sgd", 1, [3, 2, 1])])
        for words, wanted, text in ((["nowhere"], 3, "nowhere is no folder"), ([self.path("lab"), "q"], 2, "no experiment q; there are x"),
                                    ([self.path("lab"), "-o", "a.png"], 2, "draws one experiment")):
            code, out = self.run_tool("plot", "--lab", *words)
            self.assertEqual(code, wanted, out)
            self.assertIn(text, out)
        self.write("lab/x/curves.csv", "a,b\n1,2\n")
        self.assertEqual(self.run_tool("plot", "--lab", self.path("lab"))[0], 3)

    def test_without_matplotlib_the_page_has_the_verdicts_and_a_line_says_how(self):
        self.experiment("x", [("sgd", 1, [3, 2, 1])])
        # A module in front of the real one, which does not load; the system's Python is this one then.
        self.write("none/matplotlib.py", "raise ImportError\n")
        code, out = self.run_tool("plot", "--lab", self.path("lab"), python=os.path.realpath("/usr/bin/python3"), PYTHONPATH=self.path("none"))
        self.assertEqual(code, 3, out)
        self.assertIn("apt-get install -y python3-matplotlib, then launch/plot --lab", out)
        self.assertIn("1 PASS", self.read("lab/index.html"))

    def reproductions(self, *words, names=("x", "y")):
        self.write("program", "#!/bin/sh\n" + "".join(f"echo '{{\"name\": \"{name}\"}}'\n" for name in names))
        os.chmod(self.path("program"), 0o755)
        return self.run_tool("make_reproductions", *words, "--program", self.path("program"), "--docs", self.path("docs"))

    def test_the_page_of_reproductions_says_what_was_measured(self):
        self.write("docs/reproductions.md", "before\n<!-- generated by launch/make_reproductions: begin -->\n"
                                            "<!-- generated by launch/make_reproductions: end -->\nafter\n")
        self.experiment("x")
        self.experiment("y", quick=True)
        self.experiment("gone")
        self.assertEqual(self.reproductions("--check")[0], 1)
        code, out = self.reproductions(self.path("lab"))
        self.assertEqual(code, 0, out)
        self.assertIn("y is left aside: a quick run", out)
        page = self.read("docs/reproductions.md")
        self.assertTrue(page.startswith("before\n") and page.endswith("after\n"))
        for part in ("| sgd: \\|x - x*\\| | < 1e-10 | 1e-14 | ± 6.7e-15 | 2e-14 | 3 | PASS |", "| ef14 (every seed) | > 0.5 | inf |  | inf | 3 | FAIL |",
                     "| MB |  | 8.3 |  |  | 1 | reported |",
                     "| <b>ours</b> | < 0.5 | 0.8346 |  |  | 1 | does not hold here: too small |", "`tightwire lab run x`", "[2311.05645](https://arxiv.org/abs/2311.05645), [1901.09269](https://arxiv.org/abs/1901.09269)", "| y | | | not yet run | |"):
            self.assertIn(part, page)
        self.assertNotIn("gone", page)
        self.assertEqual(self.reproductions("--check")[0], 0)
        # A new experiment, and a number changed by hand.
        code, out = self.reproductions("--check", names=("x", "y", "new"))
        self.assertEqual(code, 1)
        self.assertIn("not in reproductions.md: | new |", out)
        self.write("docs/reproductions.md", page.replace("0.8346", "0.4346"))
        self.assertEqual(self.reproductions("--check")[0], 1)
        # What is not run again stays.
        self.experiment("y")
        self.write("lab/x/claims.json", "broken")
        self.assertEqual(self.reproductions(self.path("lab"))[0], 0)
        self.assertIn("0.8346", self.read("docs/reproductions.md"))
        self.assertNotIn("not yet run", self.read("docs/reproductions.md"))


if __name__ == "__main__":
    unittest.main()
