"""Failures: one clear line on one rank, the right exit code, no hang, nothing left running."""

import ctypes
import gzip
import os
import shutil
import signal
import subprocess
import unittest

import harness
from harness import overrides, poll

LAUNCH_RUN = os.path.join(harness.ROOT, "launch", "run")


class Peers(harness.ProgramTest):
    def wrapper(self, rank_1):
        """A program in front of the program: rank 1 runs `rank_1` instead."""
        return self.write("wrapper.sh", f"""#!/bin/sh
if [ "$OMPI_COMM_WORLD_RANK" = 1 ]; then {rank_1}; fi
exec "$@"
""", 0o755)

    def endless(self, ranks=3, **changes):
        return self.start(ranks, ["train", *overrides(run__dir="run", train__steps=1000000, **changes)])

    def until_step(self, job, step):
        poll(lambda: len(self.metrics("run")) >= step or job.process.poll() is not None, f"step {step}")
        ranks = job.ranks()
        self.assertEqual(len(ranks), 3)
        return ranks

    def test_killed_rank(self):
        command = [LAUNCH_RUN, "-n", "3", "--", "train", *overrides(run__dir="run", train__steps=1000000)]
        with harness.Job(command, self.folder, env={"TIGHTWIRE": harness.PROGRAM}) as job:
            poll(lambda: len(job.ranks()) == 3, "three ranks")
            harness.send(self.until_step(job, 3)[1], signal.SIGKILL)
            result = job.wait(20)
            self.assertEqual(result.code, 4, result.err)
            errors = [line for line in result.lines() if "error" in line or "rank" in line and "missing" in line]
            self.assertEqual(len(errors), 1, result.err)
            self.assertRegex(errors[0], r"rank 1 .*killed by signal 9 \(SIGKILL\)")
            poll(lambda: not job.descendants(), "every rank to end")

    def test_rank_that_never_arrives(self):
        wrapper = self.wrapper("exec sleep 600")
        with self.start(3, ["train", *overrides(run__dir="run", comm__timeout_s=2)], wrapper=wrapper) as job:
            result = job.wait(20)
            self.assertEqual(result.code, 4, result.err)
            self.assertEqual(len(result.lines()), 1, result.err)
            self.assertIn("not all ranks arrived within 2 s", result.err)
            poll(lambda: not job.descendants(), "every rank to end")

    def test_stopped_rank_is_named(self):
        for overlap in ("true", "false"):
            with self.subTest(overlap=overlap), self.endless(comm__timeout_s=2, comm__overlap=overlap) as job:
                harness.send(self.until_step(job, 3)[2], signal.SIGSTOP)
                result = job.wait(20)
                self.assertEqual(result.code, 4, result.err)
                errors = [line for line in result.lines() if "timed out" in line]
                self.assertEqual(len(errors), 1, result.err)
                self.assertRegex(errors[0], r"in step \d+ timed out after 2 s; missing: rank 2")
                poll(lambda: not job.descendants(), "every rank to end")
            shutil.rmtree(self.path("run"))

    def test_different_configs(self):
        wrapper = self.wrapper('exec "$@" optimizer.lr=0.5')
        result = self.run_program(3, ["train", *overrides(run__dir="run")], wrapper=wrapper)
        self.assertEqual(result.code, 2, result.err)
        self.one_line(result, "rank 1: its config is not rank 0's", r"optimizer\.lr: 0\.001 -> 0\.5")

    def test_ranks_that_would_end_or_save_at_other_steps(self):
        for change in ("train.steps=20", "checkpoint.every=3", "checkpoint.resume=never", "run.dir="):
            with self.subTest(change=change):
                wrapper = self.wrapper(f'exec "$@" {change}')
                result = self.run_program(2, ["train", *overrides(run__dir="run")], wrapper=wrapper)
                self.assertEqual(result.code, 2, result.err)
                self.one_line(result, "rank 1: its config is not rank 0's", change.split("=", maxsplit=1)[0])

    def test_config_error_on_one_rank_only(self):
        wrapper = self.wrapper('exec "$@" optimizer.lrr=0.5')
        result = self.run_program(3, ["train", *overrides(run__dir="run")], wrapper=wrapper)
        self.assertEqual(result.code, 2, result.err)
        self.one_line(result, "rank 1", "lrr", "lr")

    def test_backend_of_one_rank_only(self):
        wrapper = self.wrapper('exec "$@" comm.backend=thread')
        result = self.run_program(3, ["train", *overrides(run__dir="run", comm__timeout_s=3)], wrapper=wrapper)
        self.assertIn(result.code, (2, 4), result.err)

    def test_interrupt_ends_all(self):
        with self.endless() as job:
            self.until_step(job, 3)
            harness.send(job.process.pid, signal.SIGINT)
            result = job.wait(20)
            self.assertNotEqual(result.code, 0)
            poll(lambda: not job.descendants(), "every rank to end")
        with harness.Job([LAUNCH_RUN, "-n", "2", "--", "train", *overrides(run__dir="other", train__steps=1000000)],
                         self.folder, env={"TIGHTWIRE": harness.PROGRAM}) as job:
            poll(lambda: len(self.metrics("other")) > 2, "step 3")
            harness.send(job.process.pid, signal.SIGINT)
            self.assertEqual(job.wait(20).code, 130)
            poll(lambda: not job.descendants(), "every rank to end")


class Devices(harness.ProgramTest):
    def test_nccl_without_a_gpu(self):
        try:
            ctypes.CDLL("libcuda.so.1")
        except OSError:
            pass
        else:
            self.skipTest("there is a driver here")
        for ranks in (None, 2):
            result = self.run_program(ranks, ["train", *overrides(run__dir="run", comm__backend="nccl")])
            self.assertEqual(result.code, 3, result.err)
            self.one_line(result, "comm.backend = nccl: no GPU to use: no driver: libcuda.so.1 not found; mpi works")
            result = self.run_program(ranks, ["train", *overrides(run__dir="run", train__device="cuda")])
            self.assertEqual(result.code, 3, result.err)
            self.one_line(result, "train.device = cuda: no GPU to use: no driver: libcuda.so.1 not found; cpu works")


class Usage(harness.ProgramTest):
    def fails(self, code, arguments, *needles, ranks=2):
        for n in (None, ranks) if harness.SLOW else (ranks,):
            result = self.run_program(n, arguments)
            self.assertEqual(result.code, code, result.err)
            self.one_line(result, *needles)

    def test_command_line(self):
        self.fails(2, [], "help")
        self.fails(2, ["nonsense"], "nonsense", "train, eval")
        self.fails(2, ["trian"], "did you mean train")
        self.fails(2, ["train", "--nonsense"], "nonsense")
        self.fails(2, ["--hepl"], "no option --hepl", "did you mean --help")
        self.fails(2, ["train", "train.steps"], "train.steps")
        self.fails(2, ["list", "nonsense"], "nonsense", "compressor")
        self.fails(2, ["bench", "nonsense"], "nonsense", "encode")
        self.fails(2, ["bench", "planner", "modles=gpt"], "modles", "did you mean models")
        self.fails(2, ["eval", "checkpoint=x", "chekpoint=y"], "chekpoint", "did you mean checkpoint")
        self.fails(2, ["explain", "rnks=8"], "rnks", "did you mean ranks")
        self.fails(3, ["inspect", "nonsense"], "nonsense")
        self.fails(2, ["eval", "data.path=synthetic"], "checkpoint=PATH")
        self.fails(3, ["eval", "data.path=synthetic", "checkpoint=nowhere"], "nowhere")
        self.assertEqual(self.run_program(None, ["--help"]).code, 0)
        self.assertIn("examples", self.run_program(None, ["train", "--help"]).out)

    def test_config_file(self):
        self.write("garbage.toml", b"\x7fELF\x00\x01]]]]")
        self.write("key.toml", "[optimizer]\nname = \"adamw\"\nlearning_rate = 0.1\n")
        self.write("range.toml", "[train]\nsteps = 10\nbatch_size = 0\n")
        self.write("type.toml", "[train]\nsteps = \"ten\"\n")
        self.write("section.toml", "[trian]\nsteps = 10\n")
        self.write("name.toml", "[compressor]\nname = \"topkk\"\n")
        self.fails(2, ["train", "missing.toml"], "missing.toml", "No such file")
        self.fails(2, ["train", "garbage.toml"], "garbage.toml")
        self.fails(2, ["train", "key.toml"], r"key\.toml:3", "learning_rate", "lr")
        self.fails(2, ["train", "range.toml"], r"range\.toml:3", "batch_size", "1")
        self.fails(2, ["train", "type.toml"], r"type\.toml:2", "steps")
        self.fails(2, ["train", "section.toml"], r"section\.toml:1", "trian", "train")
        self.fails(2, ["train", "name.toml"], r"name\.toml:2", "topkk", "topk")
        self.fails(2, ["train", *overrides(compressor__name="sign", feedback__name="diana")], "sign", "diana")
        self.fails(2, ["train", *overrides(model__width=33)], "width", "heads")
        self.assertFalse(os.path.exists(self.path("runs")), "a refused config leaves no run folder")


class Files(harness.ProgramTest):
    def fails(self, code, *needles, ranks=3, **changes):
        result = self.train(ranks, expect=code, run__dir="run", **changes)
        errors = [line for line in result.lines() if "rank" in line and not line.startswith("tightwire: 3 ranks")]
        self.assertEqual(len(errors), 1, result.err)
        for needle in needles:
            self.assertRegex(errors[0], needle)
        return result

    def test_data(self):
        self.fails(3, "missing.txt", data__path="missing.txt")
        self.write("empty.txt", "")
        self.fails(3, "empty.txt", data__path="empty.txt")
        self.write("short.txt", "too short")
        self.fails(3, "short.txt", data__path="short.txt")
        whole = gzip.compress(os.urandom(30000))
        self.write("cut.txt.gz", whole[:20000])
        self.fails(3, r"cut\.txt\.gz", data__path="cut.txt.gz")
        self.write("garbage.txt.gz", os.urandom(2000))
        self.fails(3, r"garbage\.txt\.gz", data__path="garbage.txt.gz")
        self.write("odd.bin", b"\1\2\3")
        self.fails(3, r"odd\.bin", data__path="odd.bin")

    def test_classes(self):
        image = {"task__name": "image", "data__path": "pictures", "model__layers": 1, "model__width": 8}
        keys = {k: v for k, v in harness.TINY.items() if k.split(".")[0] not in ("data", "model")}

        def fails(*needles, **changes):
            words = [f"{k}={v}" for k, v in {**keys, **{n.replace("__", "."): v for n, v in changes.items()}}.items()]
            result = self.run_program(3, ["train", *words, "run.dir=run"])
            self.assertEqual(result.code, 3, result.err)
            self.one_line(result, *needles)

        fails("pictures", **image)
        os.mkdir(self.path("pictures"))
        fails("pictures", **image)
        for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte",
                     "t10k-labels-idx1-ubyte"):
            self.write(os.path.join("pictures", name), b"garbage that is no IDX file at all")
        fails(r"pictures/t.*-idx3-ubyte: starts with", **image)
        self.write("rows.svm", "1 1:0.5 2:x\n")
        fails(r"rows\.svm:1", task__name="tabular", data__path="rows.svm", model__name="linear")

    def test_weights(self):
        self.fails(3, "nowhere.safetensors", model__init="nowhere.safetensors")
        self.write("garbage.safetensors", os.urandom(300))
        self.fails(3, "garbage.safetensors", model__init="garbage.safetensors")
        self.train(1, run__dir="small", checkpoint__every=10)
        weights = os.path.join("small", "checkpoints", "step-00000010", "model.safetensors")
        self.fails(3, "model.safetensors", "tok.weight", model__init=weights, model__width=64)

    def test_run_folder_that_cannot_be_made(self):
        self.write("file", "in the way")
        result = self.train(3, 3, run__dir="file/run")
        self.one_line(result, "file/run")

    def test_numbers(self):
        result = self.train(3, 5, run__dir="run", optimizer__name="sgdm", optimizer__lr=1e30, train__grad_clip=0,
                            train__max_skipped=3, train__steps=50)
        errors = [line for line in result.lines() if "in a row" in line]
        self.assertEqual(len(errors), 1, result.err)
        self.assertRegex(errors[0], "3 steps in a row.*optimizer.lr")

    def test_model_larger_than_the_memory(self):
        self.fails(2, "out of memory", "smaller model", model__width=1048576)

    def test_full_disk(self):
        """A disk of 700 kB, where the test may mount one."""
        os.mkdir(self.path("disk"))
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", self.path("disk")],
                                 capture_output=True, check=False).returncode == 0
        if not mounted:
            self.skipTest("may not mount a small disk here")
        self.addCleanup(subprocess.run, ["umount", self.path("disk")], check=False)
        # A checkpoint takes about 265 kB: two fit.
        result = self.train(2, 3, run__dir="disk/run", checkpoint__every=5, checkpoint__keep=5, train__steps=50)
        errors = [line for line in result.lines() if "rank" in line and "checkpoint" in line]
        self.assertEqual(len(errors), 1, result.err)
        self.assertRegex(errors[0], "No space left on device")
        saved = sorted(os.listdir(self.path("disk", "run", "checkpoints")))
        self.assertEqual(saved, ["step-00000005", "step-00000010"])
        shutil.copytree(self.path("disk", "run"), self.path("moved"))
        result = self.train(2, run__dir="moved", checkpoint__every=5, train__steps=15)
        self.assertIn("resumed after step 10", result.err)

    def test_full_disk_for_metrics(self):
        os.mkdir(self.path("run"))
        os.symlink("/dev/full", self.path("run", "metrics.jsonl"))
        result = self.train(2, 3, run__dir="run")
        errors = [line for line in result.lines() if "metrics.jsonl" in line]
        self.assertEqual(len(errors), 1, result.err)
        self.assertRegex(errors[0], "No space left on device")


if __name__ == "__main__":
    harness.main()
