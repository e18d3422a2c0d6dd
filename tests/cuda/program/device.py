"""The whole program with tensors on emulated GPUs: the bits of a run on CPUs, resume, and what cannot run there is said.

    python3 device.py PROGRAM MPIRUN EMULATED_PROGRAM [unittest arguments]
"""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "mpi", "program"))

import harness  # noqa: E402

EMULATED = ""
# Norms of gradients may differ from the host's in the last bit of a double, so nothing is clipped where bits are compared.
COMMON = {"train__steps": 4, "train__grad_clip": 0}


def keys(**more):
    return {**COMMON, **more}


class OnDevice(harness.ProgramTest):
    def train_there(self, ranks, expect=0, **changes):
        result = harness.Job([*self.launch(ranks), EMULATED, "train", *harness.overrides(**changes)], self.folder)
        with result as job:
            ended = job.wait(120)
        self.assertEqual(ended.code, expect, ended.err)
        return ended

    @staticmethod
    def launch(ranks):
        return [harness.MPIRUN, "--oversubscribe", "--bind-to", "none", "-np", str(ranks)]

    def same_bits(self, ranks, **changes):
        self.train(ranks, run__dir="host", train__device="cpu", **keys(**changes))
        there = self.train_there(ranks, run__dir="device", train__device="cuda", **keys(**changes))
        self.assertIn("tensors on emulated GPU", there.err)
        host, device = self.summary("host"), self.summary("device")
        self.assertEqual(device["params_hash"], host["params_hash"])
        self.assertEqual(device["final_loss"], host["final_loss"])
        self.assertEqual(device["skipped_steps"], 0)

    def test_topk_with_error_feedback_on_two_ranks(self):
        self.same_bits(2, compressor__name="topk", compressor__ratio=0.05, feedback__name="ef14")

    def test_quantized_with_ef21_and_int4_states_on_three_ranks(self):
        self.same_bits(3, compressor__name="blockquant", feedback__name="ef21", optimizer__state="int4")

    def test_dense_adam_mini_on_one_rank(self):
        self.same_bits(1, optimizer__name="adam_mini")

    def test_factored_states_are_the_hosts_to_rounding(self):
        changes = keys(optimizer__state="int4_factor", model__width=80)
        self.train(2, run__dir="host", train__device="cpu", **changes)
        self.train_there(2, run__dir="device", train__device="cuda", **changes)
        host, device = self.summary("host")["final_loss"], self.summary("device")["final_loss"]
        self.assertLess(abs(device - host), 1e-5 * host)

    def test_sign_in_groups(self):
        self.same_bits(4, compressor__name="sign", feedback__name="ef14", comm__hierarchical="on", comm__group_size=2)

    def test_resumed_is_unbroken(self):
        run = keys(compressor__name="topk", feedback__name="econtrol", checkpoint__every=2)
        self.train_there(2, run__dir="whole", **run)
        self.train_there(2, run__dir="parts", **{**run, "train__steps": 2})
        again = self.train_there(2, run__dir="parts", **run)
        self.assertRegex(again.err, "resumed after step 2")
        self.assertEqual(self.summary("parts")["params_hash"], self.summary("whole")["params_hash"])

    def test_on_to_the_host(self):
        run = keys(compressor__name="topk", feedback__name="ef14", checkpoint__every=2)
        self.train(2, run__dir="host", train__device="cpu", **run)
        self.train_there(2, run__dir="moved", **{**run, "train__steps": 2})
        result = self.train(2, run__dir="moved", train__device="cpu", **run)
        self.assertRegex(result.err, "resumed after step 2")
        self.assertEqual(self.summary("moved")["params_hash"], self.summary("host")["params_hash"])

    def test_what_cannot_run_there_is_one_line(self):
        for needle, changes in ((r"planner.name = .lgreco. measures on the host; train.device = cpu works",
                                 {"planner__name": "lgreco", "compressor__name": "powersgd", "feedback__name": "ef14"}),
                                (r"strategy.name = .diloco. moves tensors on the host", {"strategy__name": "diloco"}),
                                (r"entropy", {"compressor__name": "topk", "compressor__entropy": "zstd"})):
            with self.subTest(needle=needle):
                result = self.train_there(2, expect=2, run__dir="none", compressor__min_numel=512, **keys(**changes))
                self.one_line(result, needle)


if __name__ == "__main__":
    EMULATED = os.path.abspath(sys.argv.pop(3))
    harness.main()
