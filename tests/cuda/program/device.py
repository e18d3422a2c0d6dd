"""The whole program with tensors on emulated GPUs: the bits of a run on CPUs, resume, and what cannot run there is said.

    python3 device.py PROGRAM MPIRUN EMULATED_PROGRAM [unittest arguments]
"""

import json
import os
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "mpi", "program"))

import harness  # noqa: E402

EMULATED = ""
# Norms of gradients may differ from the host's in the last bit of a double, so nothing is clipped where bits are compared.
COMMON = {"train.steps": "4", "train.batch_size": "4", "train.grad_clip": "0", "train.threads": "1", "comm.check_replicas_every": "1",
          "comm.timeout_s": "60", "compressor.min_numel": "100", "metrics.sinks": '["jsonl"]'}
# Its loss is LibTorch's own, on the emulated device too.
PICTURES = {"task.name": "image", "data.path": "synthetic", "data.val_fraction": "0.01", "model.name": "mlp", "model.hidden": "[40]"}
# Its head and loss are kernels whose exponentials are the host's to rounding.
TEXT = {"data.path": "synthetic", "data.context": "32", "data.val_fraction": "0.002", "model.layers": "1", "model.width": "32",
        "model.heads": "2"}


class OnDevice(harness.ProgramTest):
    def run_on(self, device, ranks, run_dir, task, changes, expect=0, env=None, program=None):
        program = program or (harness.PROGRAM if device == "cpu" else EMULATED)
        keys = {**COMMON, **task, **{name.replace("__", "."): str(value) for name, value in changes.items()}}
        words = [f"{key}={value}" for key, value in keys.items()]
        with harness.Job([harness.MPIRUN, "--oversubscribe", "--bind-to", "none", "-np", str(ranks), program, "train", f"run.dir={run_dir}",
                          f"train.device={device}", *words], self.folder, env=env or {}) as job:
            ended = job.wait(120)
        self.assertEqual(ended.code, expect, ended.err)
        return ended

    def both(self, ranks, task, changes):
        self.run_on("cpu", ranks, "host", task, changes)
        there = self.run_on("cuda", ranks, "device", task, changes)
        self.assertIn("tensors on emulated GPU", there.err)
        host, device = self.summary("host"), self.summary("device")
        self.assertEqual((device["status"], device["skipped_steps"]), ("finished", 0))
        return host, device

    def same_bits(self, ranks, **changes):
        host, device = self.both(ranks, PICTURES, changes)
        self.assertEqual(device["params_hash"], host["params_hash"])
        self.assertEqual(device["final_loss"], host["final_loss"])

    def test_topk_with_error_feedback_on_two_ranks(self):
        self.same_bits(2, compressor__name="topk", compressor__ratio=0.05, feedback__name="ef14")

    def test_quantized_with_ef21_and_int4_states_on_three_ranks(self):
        self.same_bits(3, compressor__name="blockquant", feedback__name="ef21", optimizer__state="int4",
                       comm__sums="direct")  # the host's choice for three ranks is a ring

    def test_dense_adam_mini_on_one_rank(self):
        self.same_bits(1, optimizer__name="adam_mini")

    def test_factored_states_are_the_hosts_to_rounding(self):
        host, device = self.both(2, TEXT, {"optimizer__state": "int4_factor", "model__width": 80, "comm__sums": "direct"})
        self.assertAlmostEqual(device["final_loss"], host["final_loss"], delta=2e-5)
        self.assertAlmostEqual(device["val_loss"], host["val_loss"], delta=2e-5)

    def test_norms_of_skipped_steps(self):
        def norms(run_dir):
            with open(self.path(run_dir, "metrics.jsonl"), encoding="utf-8") as file:
                return [(row["skipped"], row["residual_norm"], row["grad_norm"]) for row in map(json.loads, file)]

        changes = {"compressor__name": "topk", "feedback__name": "ef14", "optimizer__name": "sgdm", "optimizer__lr": 1e25, "train__max_skipped": 100}
        for device in ("cpu", "cuda"):
            self.run_on(device, 2, device, PICTURES, changes)
        self.assertEqual([skipped for skipped, _, _ in norms("cpu")], [False, True, True, True])
        for host, there in zip(norms("cpu"), norms("cuda")):
            self.assertEqual(there[0], host[0])
            for a, b in zip(host[1:], there[1:]):
                self.assertAlmostEqual(a, b, delta=1e-6 * abs(a), msg=(host, there))

    def test_sign_in_groups(self):
        self.same_bits(4, compressor__name="sign", feedback__name="ef14", comm__hierarchical="on", comm__group_size=2)

    def test_a_text_to_rounding(self):
        for changes in ({"compressor__name": "topk", "compressor__ratio": 0.05, "feedback__name": "ef14", "train__grad_clip": 1},
                        {"train__precision": "bf16", "train__weights": "bf16", "compressor__name": "powersgd", "feedback__name": "ef14"},
                        {"train__precision": "bf16_pure", "train__weights": "bf16", "train__masters": "stochastic"}):
            with self.subTest(**changes):
                host, device = self.both(2, TEXT, changes)
                narrow = "train__precision" in changes
                self.assertAlmostEqual(device["final_loss"], host["final_loss"], delta=2e-3 if narrow else 2e-5)
                self.assertAlmostEqual(device["val_loss"], host["val_loss"], delta=2e-3 if narrow else 2e-5)
                shutil.rmtree(self.path("host"))
                shutil.rmtree(self.path("device"))

    def test_resumed_is_unbroken(self):
        run = {"compressor__name": "topk", "feedback__name": "econtrol", "checkpoint__every": 2}
        self.run_on("cuda", 2, "whole", TEXT, run)
        self.run_on("cuda", 2, "parts", TEXT, {**run, "train__steps": 2})
        again = self.run_on("cuda", 2, "parts", TEXT, run)
        self.assertRegex(again.err, "resumed after step 2")
        self.assertEqual(self.summary("parts")["params_hash"], self.summary("whole")["params_hash"])

    def test_on_to_the_host(self):
        run = {"compressor__name": "topk", "feedback__name": "ef14", "checkpoint__every": 2, "optimizer__state": "int8"}
        self.run_on("cpu", 2, "host", PICTURES, run)
        self.run_on("cuda", 2, "moved", PICTURES, {**run, "train__steps": 2})
        result = self.run_on("cpu", 2, "moved", PICTURES, run)
        self.assertRegex(result.err, "resumed after step 2")
        self.assertEqual(self.summary("moved")["params_hash"], self.summary("host")["params_hash"])

    def test_each_rank_sees_one_gpu(self):
        run = {"compressor__name": "topk", "feedback__name": "ef14"}
        self.run_on("cuda", 2, "numbers", PICTURES, run)
        there = self.run_on("auto", 2, "own", PICTURES, run, env={"EMULATED_GPUS": "own"})
        self.assertIn("tensors on emulated GPU", there.err)
        self.assertEqual(self.summary("own")["params_hash"], self.summary("numbers")["params_hash"])

    def test_two_ranks_never_share_one(self):
        alone = {"EMULATED_GPUS": "only-one"}
        said = r"on \S+ ranks 0, 1 share GPU 0: start fewer ranks a host, or let each see a GPU of its own"
        for backend in ("auto", "mpi"):
            refused = self.run_on("cuda", 2, "none", PICTURES, {"comm__backend": backend}, expect=3, env=alone)
            self.one_line(refused, "train.device = cuda: " + said + "; cpu works")
        self.run_on("cpu", 2, "host", PICTURES, {})
        there = self.run_on("auto", 2, "auto", PICTURES, {}, env=alone)
        self.assertRegex(there.err, "train.device = auto: tensors lie in the host's memory; " + said)
        self.assertNotIn("tensors on", there.err)
        self.assertEqual(self.summary("auto")["params_hash"], self.summary("host")["params_hash"])

    def test_what_cannot_run_there_is_one_line(self):
        for needle, changes in ((r"planner.name = .lgreco. measures on the host; train.device = cpu works",
                                 {"planner__name": "lgreco", "compressor__name": "powersgd", "feedback__name": "ef14"}),
                                (r"strategy.name = .diloco. moves tensors on the host", {"strategy__name": "diloco"}),
                                (r"compressor.name = .topk.: zstd works on the host; train.device = cpu works",
                                 {"compressor__name": "topk", "compressor__entropy": "zstd"}),
                                (r"compressor.merge = .sparse. adds lists on the host; train.device = cpu works",
                                 {"compressor__name": "topk", "compressor__merge": "sparse"}),
                                (r"optimizer.state = .two_passes. has no step on a device .*; train.device = cpu works",
                                 {"optimizer__state": "two_passes"})):
            with self.subTest(needle=needle):
                self.one_line(self.run_on("cuda", 2, "none", TEXT, changes, expect=2), needle)

    def test_auto_leaves_it_to_the_host(self):
        topk = {"compressor__name": "topk", "compressor__ratio": 0.05, "feedback__name": "ef14"}
        for why, ranks, changes in ((r"compressor.name = \"topk\": zstd works on the host", 2, {**topk, "compressor__entropy": "zstd"}),
                                    (r"compressor.merge = \"sparse\" adds lists on the host", 2, {**topk, "compressor__merge": "sparse"}),
                                    (r"optimizer.state = \"two_passes\" has no step on a device for this optimizer and fp32 parameters \(\S+\)",
                                     2, {**topk, "optimizer__state": "two_passes"}),
                                    (r"comm.sums = \"library\" is a sum of all ranks, and comm.hierarchical has groups of them",
                                     4, {"comm__sums": "library", "comm__hierarchical": "on", "comm__group_size": 2}),
                                    (r"planner.name = \"lgreco\" measures on the host",
                                     2, {"planner__name": "lgreco", "compressor__name": "powersgd", "feedback__name": "ef14"})):
            with self.subTest(why=why):
                self.run_on("cpu", ranks, "host", PICTURES, changes, program=EMULATED)
                self.left_to_the_host(why, ranks, changes)
                self.assertEqual(self.summary("auto")["params_hash"], self.summary("host")["params_hash"])
                self.assertEqual(self.summary("auto")["final_loss"], self.summary("host")["final_loss"])
                shutil.rmtree(self.path("host"))
                shutil.rmtree(self.path("auto"))

    def left_to_the_host(self, why, ranks, changes, env=None):
        there = self.run_on("auto", ranks, "auto", PICTURES, changes, env=env)
        self.assertRegex(there.err, r"train.device = auto: tensors lie in the host's memory; " + why + r"\n")
        self.assertEqual(there.err.count("in the host's memory"), 1, there.err)
        self.assertNotIn("tensors on", there.err)

    def test_a_gpu_that_does_not_start(self):
        fault = {"EMULATED_FAULT": "1"}
        self.one_line(self.run_on("cuda", 2, "none", PICTURES, {}, expect=3, env=fault), "GPU 1 does not start")
        self.left_to_the_host(r"rank 1: GPU 1 does not start", 2, {}, env=fault)


if __name__ == "__main__":
    EMULATED = os.path.abspath(sys.argv.pop(3))
    harness.main()
