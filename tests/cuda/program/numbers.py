"""The benches with device=cuda on an emulated GPU: each prints its row, what cannot be is one line, and tests/gpu_numbers.py makes its table.

    python3 numbers.py PROGRAM MPIRUN EMULATED_PROGRAM [unittest arguments]
"""

import json
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "mpi", "program"))

import harness  # noqa: E402

EMULATED = ""


class Numbers(harness.ProgramTest):
    def bench(self, *words, program=None, expect=0):
        command = [program or EMULATED, "bench", *words, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=self.folder, env={**os.environ, **harness.ENVIRONMENT})
        self.assertEqual(done.returncode, expect, done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()] if expect == 0 else done.stderr

    def test_every_compressor_but_those_of_hosts(self):
        rows = self.bench("encode", "rows=48", "cols=32", "repetitions=7", "device=cuda")
        names = {row["name"] for row in rows}
        self.assertLessEqual({"none", "topk", "sign", "powersgd", "randk", "qsgd"}, names)
        for row in rows:
            self.assertEqual(row["device"], "emulated GPU")
            self.assertGreater(row["of_bound"], 0, row)
            self.assertGreater(row["decode_of_bound"], 0, row)
        host = {(row["name"], row.get("bits")): row["wire_bytes"] for row in self.bench("encode", "rows=48", "cols=32", "repetitions=7")}
        for row in rows:
            self.assertEqual(row["wire_bytes"], host[row["name"], row.get("bits")], row)

    def test_every_optimizer_on_every_state(self):
        rows = self.bench("optimizer", "rows=72", "cols=64", "repetitions=7", "queued=2", "device=cuda")
        pairs = {(row["name"], row["state"]) for row in rows}
        self.assertLessEqual({("adamw", "fp32"), ("adamw", "int8"), ("adamw", "int4"), ("sgdm", "fp32")}, pairs)
        for row in rows:
            self.assertEqual(row["device"], "emulated GPU")
            self.assertGreater(row["of_bound"], 0, row)

    def test_memory_is_that_of_the_device(self):
        sizes = {"head": ["tokens=64", "vocab=2048"], "mlp": ["tokens=256"], "compact": ["tokens=64"]}
        for name, words in sizes.items():
            with self.subTest(name=name):
                [row] = self.bench("memory", f"name={name}", "width=16", "repetitions=1", "device=cuda", *words)
                [host] = self.bench("memory", f"name={name}", "width=16", "repetitions=1", *words)
                self.assertEqual(row["device"], "emulated GPU")
                self.assertGreater(row["plain_extra_peak_bytes"], row["extra_peak_bytes"])
                if name != "mlp":  # the emulated device's operators do nothing in place
                    self.assertLess(abs(row["extra_peak_bytes"] / host["extra_peak_bytes"] - 1), 0.01, (row, host))

    def test_steps_with_and_without_the_reducer(self):
        model = ["model.layers=1", "model.width=32", "model.heads=2", "data.context=32", "train.batch_size=2", "blocks=1", "block_steps=2"]
        [row] = self.bench("step", "device=cuda", "optimizer.state=int4", "compressor.name=topk", "feedback.name=ef14", *model)
        self.assertEqual((row["device"], row["name"]), ("emulated GPU", "topk"))
        self.assertGreater(row["ms"], 0)
        # EF14 keeps an error of the parameters' size beside what both have.
        self.assertGreater(row["peak_bytes"], row["plain_peak_bytes"])

    def test_without_a_gpu_it_is_one_line(self):
        if os.path.exists("/dev/nvidiactl"):
            self.skipTest("there may be a GPU")
        for words in (["encode", "rows=8", "cols=8"], ["optimizer", "rows=8", "cols=8"], ["memory", "name=head"], ["step"]):
            with self.subTest(words=words):
                said = self.bench(*words, "device=cuda", program=harness.PROGRAM, expect=3)
                self.assertRegex(said, r"^tightwire: .*device = cuda: .+\n$")

    def test_the_table_has_a_measured_line_for_every_figure(self):
        script = os.path.join(harness.ROOT, "tests", "gpu_numbers.py")
        command = [sys.executable, "-B", script, "--program", EMULATED, "--tiny", "--backend", "auto", "--out", "gpu",
                   "--ranks", "2", "--mpirun", f"{harness.MPIRUN} --oversubscribe --bind-to none"]
        more = {**harness.ENVIRONMENT, "OUT": os.path.join(self.folder, "again")}
        done = subprocess.run(command, capture_output=True, text=True, timeout=280, cwd=self.folder, env={**os.environ, **more})
        self.assertEqual(done.returncode, 0, done.stderr)
        peers = re.compile(r"PyTorch|torch|cuBLAS")  # there is none here
        lines = done.stdout.splitlines()
        self.assertGreater(len(lines), 20)
        for line in lines[1:]:
            if not peers.search(line):
                self.assertRegex(line, r"\d(  +(<=|>=) \S+  (ok|missed))?$")
        self.assertRegex(done.stdout, r"train by auto, one rank: loss off the host's by +\S+ +<= 0.001  ok")
        self.assertRegex(done.stdout, r"train on 2 GPUs: parameters by auto those by mpi +1 +>= 1  ok")
        for folder in ("gpu", "again"):
            with open(os.path.join(self.folder, folder, "numbers.txt"), encoding="utf-8") as file:
                self.assertEqual(file.read(), done.stdout)
            with open(os.path.join(self.folder, folder, "numbers.json"), encoding="utf-8") as file:
                self.assertEqual(sum("fault" in json.loads(line) for line in file), 0)


if __name__ == "__main__":
    EMULATED = os.path.abspath(sys.argv.pop(3))
    harness.main()
