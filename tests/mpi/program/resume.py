"""Killed and resumed: the same bits as the unbroken run; other world sizes, damage and changed configs are said."""

import os
import random
import shutil
import signal
import unittest

import harness
from harness import overrides, poll

LAUNCH_RUN = os.path.join(harness.ROOT, "launch", "run")

# Everything that carries state from step to step somewhere: moments, e, h, H, Q.
KINDS = {
    "dense": {},
    "topk": {"compressor__name": "topk", "compressor__ratio": 0.05, "feedback__name": "ef14"},
    "powersgd": {"compressor__name": "powersgd", "compressor__rank": 2, "feedback__name": "ef14"},
    "lgreco": {"compressor__name": "powersgd", "compressor__rank": 2, "feedback__name": "ef14",
               "planner__name": "lgreco", "planner__every": 12, "planner__window": 4},
    "econtrol": {"compressor__name": "topk", "compressor__ratio": 0.05, "feedback__name": "econtrol"},
    "int4_rank1": {"optimizer__state": "int4_rank1"},
    "bf16_masters": {"train__precision": "bf16", "train__weights": "bf16", "compressor__name": "blockquant",
                     "feedback__name": "ef14"},
    "bf16_stochastic": {"train__precision": "bf16", "train__weights": "bf16", "train__masters": "stochastic"},
    "pure_masters": {"train__precision": "bf16_pure", "train__weights": "bf16", "compressor__name": "topk", "feedback__name": "ef14"},
    "pure_stochastic": {"train__precision": "bf16_pure", "train__weights": "bf16", "train__masters": "stochastic"},
    "mini_bf16": {"optimizer__name": "adam_mini", "optimizer__state": "bf16"},
}


class KillAndResume(harness.ProgramTest):
    STEPS = 60

    def unbroken(self, kind):
        self.train(3, run__dir="unbroken", train__steps=self.STEPS, checkpoint__every=5, **KINDS[kind])
        return self.summary("unbroken")

    def kill_at(self, job, rng):
        """Ends a random rank once a random step is in metrics.jsonl; the step."""
        step = rng.randrange(1, self.STEPS - 5)
        rank = rng.randrange(3)
        poll(lambda: len(self.metrics("run")) >= step or job.process.poll() is not None, f"step {step}", 60)
        ranks = job.ranks()
        self.assertIn(rank, ranks, f"the job ended before it was killed at step {step}")
        harness.send(ranks[rank], signal.SIGKILL)
        return step

    def kill_once(self, kind, whole, rng):
        """By hand: killed, started again, the same in the end."""
        shutil.rmtree(self.path("run"), ignore_errors=True)
        arguments = ["train", *overrides(run__dir="run", train__steps=self.STEPS, checkpoint__every=5, **KINDS[kind])]
        with self.start(3, arguments) as job:
            step = self.kill_at(job, rng)
            self.assertEqual(job.wait().code, 137)
            poll(lambda: not job.descendants(), "every rank to end")
        result = self.run_program(3, arguments)
        self.assertEqual(result.code, 0, result.err)
        if step > 6:
            self.assertRegex(result.err, r"resumed after step \d+ from run/checkpoints/step-")
        again = self.summary("run")
        self.assertEqual(again["params_hash"], whole["params_hash"], f"{kind}, killed at step {step}")
        self.assertAlmostEqual(again["final_loss"], whole["final_loss"], places=9)
        self.assertEqual([r["step"] for r in self.metrics("run")], list(range(1, self.STEPS + 1)))

    def check(self, kind):
        rng = random.Random(f"tightwire {kind}")
        whole = self.unbroken(kind)
        for _ in range(5 if harness.SLOW else 1):
            self.kill_once(kind, whole, rng)

    @unittest.skipUnless(harness.SLOW, "label slow")
    def test_dense(self):
        self.check("dense")

    @unittest.skipUnless(harness.SLOW, "label slow")
    def test_topk_ef14(self):
        self.check("topk")

    @unittest.skipUnless(harness.SLOW, "label slow")
    def test_powersgd_ef14(self):
        self.check("powersgd")

    @unittest.skipUnless(harness.SLOW, "label slow")
    def test_adam_mini_with_bf16_states(self):
        self.check("mini_bf16")

    @unittest.skipUnless(harness.SLOW, "label slow")
    def test_bf16_weights_rounded_at_random(self):
        self.check("bf16_stochastic")

    def test_bf16_weights_with_copies(self):
        self.check("bf16_masters")

    @unittest.skipUnless(harness.SLOW, "label slow")
    def test_pure_bf16_with_copies(self):
        self.check("pure_masters")

    def test_pure_bf16_rounded_at_random(self):
        self.check("pure_stochastic")

    def test_int4_states(self):
        self.check("int4_rank1")

    def test_econtrol(self):
        self.check("econtrol")

    def test_lgreco(self):
        """Windows, tables and plans under way at the checkpoint are part of it."""
        self.check("lgreco")

    def test_launch_run_restarts_by_itself(self):
        whole = self.unbroken("topk")
        rng = random.Random("restarts")
        command = [LAUNCH_RUN, "-n", "3", "--restarts", "2", "--", "train",
                   *overrides(run__dir="run", train__steps=self.STEPS, checkpoint__every=5, **KINDS["topk"])]
        with harness.Job(command, self.folder, env={"TIGHTWIRE": harness.PROGRAM}) as job:
            poll(lambda: len(job.ranks()) == 3, "three ranks")
            self.kill_at(job, rng)
            result = job.wait(90)
        self.assertEqual(result.code, 0, result.err)
        self.assertRegex(result.err, r"rank \d.* was killed by signal 9 \(SIGKILL\)")
        self.assertIn("restart 1 of 2", result.err)
        self.assertEqual(self.summary("run")["params_hash"], whole["params_hash"])


class Resume(harness.ProgramTest):
    def first(self, ranks=2, steps=10, **more):
        self.train(ranks, run__dir="run", checkpoint__every=5, train__steps=steps, **more)

    def again(self, ranks=2, steps=15, **more):
        return self.train(ranks, run__dir="run", checkpoint__every=5, train__steps=steps, **more)

    def test_other_world_sizes_run_on_and_say_so(self):
        for kind in ("topk", "econtrol") if harness.SLOW else ("econtrol",):
            with self.subTest(kind=kind):
                self.first(4, **KINDS[kind])
                result = self.again(2, 15, **KINDS[kind])
                self.assertRegex(result.err, "saved by 4 ranks, resumed by 2: each rank's own state .* is averaged")
                result = self.again(3, 20, **KINDS[kind])
                self.assertRegex(result.err, "saved by 2 ranks, resumed by 3: each rank's own state .* is averaged over all")
                self.assertEqual(self.summary("run")["world_size"], 3)
                shutil.rmtree(self.path("run"))

    def test_damaged_newest_checkpoint_falls_back(self):
        self.first()
        newest = self.path("run", "checkpoints", "step-00000010")
        whole = self.path("whole")
        shutil.copytree(newest, whole)

        def flip(path):
            with open(path, "r+b") as file:
                file.seek(os.path.getsize(path) // 2)
                byte = file.read(1)[0]
                file.seek(-1, os.SEEK_CUR)
                file.write(bytes([byte ^ 1]))

        def truncate(path):
            os.truncate(path, os.path.getsize(path) - 7)

        names = ("model.safetensors", "rank-00001.safetensors", "replicated.safetensors", "manifest.json")
        damages = [(name, damage) for damage in (flip, truncate, os.remove) for name in names]
        for name, damage in damages if harness.SLOW else (damages[1], damages[4], damages[11]):
            with self.subTest(file=name, damage=damage.__name__):
                shutil.rmtree(self.path("run", "checkpoints", "step-00000010"))
                shutil.copytree(whole, newest)
                damage(os.path.join(newest, name))
                result = self.train(2, run__dir="run", checkpoint__every=5, train__steps=11)
                self.assertRegex(result.err, f"passed over: .*step-00000010/{name}")
                self.assertIn("resumed after step 5 from", result.err)
                shutil.rmtree(self.path("run", "checkpoints", "step-00000011"))
                os.remove(self.path("run", "summary.json"))

    def test_all_checkpoints_damaged_is_an_error(self):
        self.first()
        for step in (5, 10):
            os.truncate(self.path("run", "checkpoints", f"step-{step:08d}", "model.safetensors"), 100)
        result = self.again_expecting(3)
        self.assertRegex(result.err, "all 2 checkpoints are damaged")
        self.one_line_after_warnings(result, "model.safetensors")

    def again_expecting(self, code, ranks=2, **more):
        return self.train(ranks, expect=code, run__dir="run", checkpoint__every=5, train__steps=15, **more)

    def one_line_after_warnings(self, result, needle):
        lines = [line for line in result.lines() if "rank 0:" in line]
        self.assertEqual(len(lines), 1, result.err)
        self.assertRegex(lines[0], needle)

    def test_finished_run_says_so(self):
        self.first()
        before = self.summary("run")
        result = self.again(steps=10)
        self.one_line(result, "run is finished; nothing to do$")
        self.assertEqual(self.summary("run"), before)
        result = self.again(steps=10, optimizer__lr=0.01)
        self.one_line(result, r"run is finished; nothing to do \(it ran with another config; .*another run.dir")

    def test_a_summary_that_is_none_is_no_finished_run(self):
        self.first()
        for text in ('{"status":"finished","steps":"x"}', "[]", "garbage", ""):
            self.write("run/summary.json", text)
            self.again(steps=10)
            self.assertEqual(self.summary("run")["steps"], 10)

    def test_two_runs_in_one_folder_keep_out_of_each_others_way(self):
        with self.start(2, ["train", *overrides(run__dir="run", train__steps=1000000)]):
            poll(lambda: len(self.metrics("run")) > 2, "step 3")
            result = self.run_program(1, ["train", *overrides(run__dir="run", train__steps=1000000)])
            self.assertEqual(result.code, 2, result.err)
            self.one_line(result, "run: another run is at work there")

    def test_run_started_again_is_not_finished(self):
        """The summary of an earlier run in the folder must not pass for that of the one that was killed."""
        self.first()
        with self.start(2, ["train", *overrides(run__dir="run", train__steps=1000000,
                                                checkpoint__resume="never")]):
            poll(lambda: not os.path.exists(self.path("run", "summary.json")), "the old summary to go")

    def test_changed_learning_rate_is_a_warning_that_names_it(self):
        self.first()
        result = self.again(optimizer__lr=0.01)
        self.assertRegex(result.err, r"optimizer\.lr: 0\.001 -> 0\.01")
        self.assertRegex(result.err, "another run.dir")
        self.assertEqual(self.summary("run")["steps"], 15)
        self.assertNotIn("config changed", self.again(steps=20, optimizer__lr=0.01).err)

    def test_other_steps_are_a_warning_where_the_schedule_depends_on_them(self):
        for schedule, depends in (("constant", False), ("linear", True)):
            with self.subTest(schedule=schedule):
                keys = {"run__dir": schedule, "checkpoint__every": 5, "schedule__name": schedule,
                        "schedule__warmup_steps": 0}
                self.train(1, **keys)
                result = self.train(1, train__steps=15, **keys)
                self.assertIn("resumed after step 10", result.err)
                warning = r'train\.steps: 10 -> 15 since the checkpoint, and schedule\.name = "linear" depends on it'
                (self.assertRegex if depends else self.assertNotRegex)(result.err, warning)

    def test_other_model_is_an_error(self):
        self.first()
        result = self.again_expecting(3, model__width=64)
        self.one_line_after_warnings(result, "model.safetensors")
        self.assertFalse(os.path.exists(self.path("run", "checkpoints", "step-00000015")))

    def test_state_of_another_shape_is_an_error(self):
        self.first(**KINDS["powersgd"])
        result = self.again_expecting(3, **{**KINDS["powersgd"], "compressor__rank": 3})
        self.one_line_after_warnings(result, r"state codec/.* \[2, \d+\] in the checkpoint, fp32 \[3, \d+\] in this run")

    def test_moments_of_another_state_are_an_error(self):
        for before, after in ({"optimizer__state": "fp32"}, {"optimizer__state": "int4"}), ({"optimizer__state": "int8"}, {"optimizer__state": "fp32"}), \
                ({"optimizer__name": "adamw"}, {"optimizer__name": "sgdm"}):
            with self.subTest(after=after):
                shutil.rmtree(self.path("run"), ignore_errors=True)
                self.first(model__width=64, **before)
                result = self.again_expecting(3, model__width=64, **after)
                self.one_line_after_warnings(result, r"state optimizer/.* is .*in the checkpoint")

    def test_other_feedback_is_a_warning(self):
        self.first(**KINDS["topk"])
        result = self.again(**{**KINDS["topk"], "feedback__name": "ef21"})
        self.assertRegex(result.err, r'feedback\.name: "ef14" -> "ef21"')

    def test_from_another_run(self):
        self.first()
        result = self.train(2, run__dir="other", checkpoint__resume="run", train__steps=12)
        self.assertIn("resumed after step 10 from run/checkpoints/step-00000010", result.err)
        result = self.train(2, 3, run__dir="third", checkpoint__resume="nowhere")
        self.one_line_after_warnings(result, "nowhere: no such folder")


if __name__ == "__main__":
    harness.main()
