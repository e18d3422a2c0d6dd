"""eval: of a run folder, a checkpoint, a weights file; the loss that the run itself reported."""

import json
import os
import random

import harness
from harness import overrides

# Where eval needs no more than the model and the validation data.
MODEL = ("data.path", "data.context", "model.layers", "model.width", "model.heads", "train.threads")


class Evaluation(harness.ProgramTest):
    def evaluate(self, checkpoint, code=0, **changes):
        keys = {k: harness.TINY[k] for k in MODEL}
        keys.update({name.replace("__", "."): value for name, value in changes.items()})
        result = self.run_program(
            None, ["eval", *(f"{k}={v}" for k, v in keys.items()), f"checkpoint={checkpoint}", "--json"])
        self.assertEqual(result.code, code, result.err)
        return json.loads(result.out) if code == 0 else result

    def text(self, name, seed, size=40000):
        letters = random.Random(seed)
        return self.write(name, "".join(letters.choice("abcdefgh ") for _ in range(size)))

    def test_run_folder_checkpoint_and_file_agree_with_the_summary(self):
        self.train(1, run__dir="run", checkpoint__every=5)
        whole = self.summary("run")["val_loss"]
        checkpoint = os.path.join("run", "checkpoints", "step-00000010")
        for path in ("run", checkpoint, os.path.join(checkpoint, "model.safetensors")):
            with self.subTest(path=path):
                found = self.evaluate(path)
                self.assertAlmostEqual(found["loss"], whole, delta=1e-6)
                self.assertGreater(found["tokens"], 0)
        before = self.evaluate(os.path.join("run", "checkpoints", "step-00000005"))
        self.assertNotEqual(before["loss"], whole)

    def test_run_on_several_ranks(self):
        self.train(3, run__dir="run", checkpoint__every=5)
        self.assertAlmostEqual(self.evaluate("run")["loss"], self.summary("run")["val_loss"], delta=1e-5)

    def test_under_mpirun_one_rank_answers(self):
        self.train(1, run__dir="run", checkpoint__every=10)
        words = [f"{k}={harness.TINY[k]}" for k in MODEL]
        result = self.run_program(3, ["eval", *words, "checkpoint=run", "--json"])
        self.assertEqual(result.code, 0, result.err)
        self.assertEqual(len(result.out.splitlines()), 1)

    def test_validation_text_alone(self):
        self.text("train.txt", 1)
        self.text("val.txt", 2, 10007)
        self.train(1, run__dir="run", data__path="train.txt", data__val_path="val.txt", checkpoint__every=10)
        os.remove(self.path("train.txt"))
        found = self.evaluate("run", data__path="train.txt", data__val_path="val.txt")
        self.assertAlmostEqual(found["loss"], self.summary("run")["val_loss"], delta=1e-6)
        # Windows of 32 targets without overlap; the last incomplete one is dropped.
        self.assertEqual(found["tokens"], (10007 - 1) // 32 * 32)
        self.assertIn("train.txt", self.evaluate("run", code=3, data__path="train.txt").err)

    def test_damaged_checkpoint_is_passed_over(self):
        self.train(1, run__dir="run", checkpoint__every=5)
        older = self.evaluate(os.path.join("run", "checkpoints", "step-00000005"))
        weights = self.path("run", "checkpoints", "step-00000010", "model.safetensors")
        os.truncate(weights, os.path.getsize(weights) - 1)
        self.assertEqual(self.evaluate("run"), older)
        self.one_line(self.evaluate(os.path.dirname(weights), code=3), "model.safetensors")

    def test_what_does_not_fit(self):
        self.train(1, run__dir="run", checkpoint__every=10)
        self.one_line(self.evaluate("run", code=3, model__width=64), "tok.weight", "32", "64")
        self.one_line(self.evaluate("nowhere", code=3), "nowhere")
        self.write("garbage.safetensors", b"\0" * 100)
        self.one_line(self.evaluate("garbage.safetensors", code=3), "garbage.safetensors")


if __name__ == "__main__":
    harness.main()
