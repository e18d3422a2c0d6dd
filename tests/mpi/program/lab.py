"""The lab as a program: the same curves on any number of ranks, what it writes, says and ends with."""

import json
import os

import harness

# Error feedback with its H; codecs of two rounds; sampled clients with control variates; shared coins; neighbours on a ring.
QUICK = ["naive_top1", "powersgd_warm_start", "scafcom_logistic", "diana_marina", "choco_consensus"]
SLOW = [*QUICK, "masha_bilinear", "econtrol_lsq", "zeta_sweep", "zeta_noise", "eta_ablation"]


class Lab(harness.ProgramTest):
    def lab(self, ranks, *words, code=0, limit_s=300):
        result = self.run_program(ranks, ["lab", "run", *words], limit_s)
        self.assertEqual(result.code, code, result.err)
        return result

    def read(self, *parts):
        with open(self.path(*parts), "rb") as file:
            return file.read()

    def test_curves_are_the_same_bits_on_one_two_and_four_ranks(self):
        names = SLOW if harness.SLOW else QUICK
        for ranks in (None, 2, 4):
            self.lab(ranks, *names, "--quick", "--plot", "no", "--out", f"on{ranks or 1}", limit_s=1500 if harness.SLOW else 240)
        for name in names:
            with self.subTest(experiment=name):
                one = self.read("on1", name, "curves.csv")
                self.assertGreater(one.count(b"\n"), 40)
                for ranks in (2, 4):
                    self.assertTrue(one == self.read(f"on{ranks}", name, "curves.csv"), f"{ranks} ranks give other curves")
        record = json.loads(self.read("on4", names[0], "claims.json"))
        self.assertEqual(record["ranks"], 4)
        self.assertEqual(record["command"], f"mpirun -np 4 tightwire lab run {names[0]} --quick")

    def test_one_rank_speaks_and_json_is_alone_on_stdout(self):
        result = self.lab(2, "powersgd_warm_start", "--quick", "--json", "--plot=no")
        claims = [json.loads(line) for line in result.out.splitlines()]
        self.assertEqual([claim["experiment"] for claim in claims], ["powersgd_warm_start"] * 2)
        self.assertRegex(result.err, r"lab 1/1: powersgd_warm_start: 2 PASS")
        self.assertEqual(sorted(os.listdir(self.path("runs/lab/powersgd_warm_start"))), ["claims.csv", "claims.json", "curves.csv"])

    def test_wrong_words_and_files_have_one_line_and_their_code(self):
        rows, three = self.write("rows.txt", "+1 1:1\nnonsense\n"), self.write("three.txt", "1 1:1\n2 1:1\n3 1:1\n")
        for words, code, needle in ((["econtrol_lqs"], 2, "did you mean econtrol_lsq"),
                                    (["econtrol_lsq", "--seeds", "0"], 2, r"seeds=0: a number in \[1, 1000\]"),
                                    (["econtrol_lsq", "--rows", "/nowhere/rows.txt"], 3, "/nowhere/rows.txt"),
                                    (["econtrol_lsq", "rows="], 2, "rows=: a file is expected"),
                                    (["all", f"rows={rows}"], 3, r"rows.txt:2: "),
                                    (["all", f"rows={three}"], 3, "2 classes are expected, not 3"),
                                    (["econtrol_lsq", "--out", "/dev/null/lab"], 3, "/dev/null/lab")):
            for ranks in (None, 2):
                with self.subTest(words=words, ranks=ranks):
                    self.one_line(self.lab(ranks, *words, code=code), needle)
        self.assertEqual(sorted(os.listdir(self.folder)), ["rows.txt", "three.txt"])

    def test_data_that_no_experiment_takes_is_named(self):
        rows = self.write("rows.txt", "+1 1:1\n-1 2:1\n")
        result = self.lab(None, "powersgd_warm_start", "--rows", rows, "--plot", "no")
        self.assertRegex(result.err, "none of these experiments takes rows")


if __name__ == "__main__":
    harness.main()
