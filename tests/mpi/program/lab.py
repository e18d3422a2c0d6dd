"""The lab as a program: the same curves on any number of ranks, what it writes, says and ends with."""

import json
import os
import re
import signal

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

    def test_jobs_beside_each_other_give_the_same_files_and_totals(self):
        for jobs in ("1", "3"):
            result = self.lab(None, *QUICK, "--quick", "--plot", "no", "--out", f"jobs{jobs}", "--jobs", jobs)
            self.assertRegex(result.out, rf"{len(QUICK)} experiments, .*PASS")
            for name in QUICK:
                self.assertEqual(result.out.count(f"{name}: "), 1)
            self.assertEqual(len(re.findall(r"^lab \d/5: ", result.err, re.MULTILINE)), len(QUICK))
        for name in QUICK:
            self.assertTrue(self.read("jobs1", name, "curves.csv") == self.read("jobs3", name, "curves.csv"), name)
            one, three = (json.loads(self.read(f"jobs{jobs}", name, "claims.json")) for jobs in "13")
            self.assertEqual(one["claims"], three["claims"])
            self.assertEqual(one["command"], three["command"])

    def test_a_worker_that_dies_is_named_and_the_others_go_on(self):
        command = [harness.PROGRAM, "lab", "run", "zeta_sweep", "naive_top1", "--jobs", "2", "--plot", "no"]
        with harness.Job(command, self.folder) as job:
            def worker():
                for pid in job.descendants():
                    with open(f"/proc/{pid}/cmdline", "rb") as file:
                        if b"zeta_sweep" in file.read().split(b"\0"):
                            return pid
                return None
            harness.send(harness.poll(worker, "the worker of zeta_sweep"), signal.SIGKILL)
            result = job.wait(120)
        self.assertEqual(result.code, 70, result.err)
        self.assertRegex(result.err, r"zeta_sweep: its process was ended by a signal: Killed")
        self.assertRegex(result.out, r"could not run  zeta_sweep: ")
        self.assertTrue(os.path.exists(self.path("runs/lab/naive_top1/claims.json")))

    def test_workers_end_with_the_process_that_started_them(self):
        command = [harness.PROGRAM, "lab", "run", "zeta_sweep", "econtrol_deep", "--jobs", "2", "--plot", "no"]
        with harness.Job(command, self.folder) as job:
            workers = harness.poll(lambda: len(job.descendants()) == 2 and job.descendants(), "two workers")
            harness.send(job.process.pid, signal.SIGKILL)
            job.process.wait()
            harness.poll(lambda: not any(harness.exists(pid) for pid in workers), "their end", 10)

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
