"""What a run reports: bytes that can be counted by hand, every promised field, lines that can be read in a log file."""

import json
import re

import harness
from harness import overrides

FRAME_BYTES = 48
# Loss sum and verdicts of a step, sent as a few doubles; sizes of gathered bodies.
CONTROL_BYTES = 256

SUMMARY = """name world_size steps params tokens final_loss val_loss wall_s step_ms_median wire_bytes_per_step
dense_bytes_per_step payload_bytes_per_step compression_ratio exposed_ms_median peak_tensor_bytes peak_rss_bytes
optimizer_state_bytes optimizer_bytes_per_param feedback_state_bytes params_hash config_hash plan warnings
status""".split()
METRICS = """step samples tokens loss lr grad_norm payload_bytes wire_bytes dense_bytes step_ms cpu_ms core_wait_ms
forward_ms backward_ms encode_ms exchange_ms decode_ms exposed_ms optimizer_ms residual_norm peak_tensor_bytes""".split()


class Metrics(harness.ProgramTest):
    def explain(self, ranks, **changes):
        result = self.run_program(None, ["explain", *overrides(**changes), f"ranks={ranks}", "--json"])
        self.assertEqual(result.code, 0, result.err)
        return json.loads(result.out)

    def test_dense_wire_bytes(self):
        for ranks in (1, 2, 3, 4) if harness.SLOW else (1, 3):
            with self.subTest(ranks=ranks):
                self.train(ranks, run__dir=f"dense{ranks}", train__steps=3)
                params = self.summary(f"dense{ranks}")["params"]
                for record in self.metrics(f"dense{ranks}"):
                    self.assertEqual(record["dense_bytes"], 4 * params)
                    if ranks == 1:
                        self.assertEqual(record["wire_bytes"], 0)
                        continue
                    self.assertEqual(record["payload_bytes"], 4 * params)
                    control = record["wire_bytes"] - 2 * (ranks - 1) * 4 * params / ranks
                    self.assertLess(abs(control), CONTROL_BYTES)

    def test_gathered_wire_bytes(self):
        for ranks in (2, 3, 4) if harness.SLOW else (3,):
            with self.subTest(ranks=ranks):
                run_dir = f"topk{ranks}"
                self.train(ranks, run__dir=run_dir, train__steps=3, compressor__name="topk", feedback__name="ef14")
                plan = self.summary(run_dir)["plan"]
                bodies = [p["bytes"] for p in plan if p["compressor"] == "topk"]
                dense = sum(p["bytes"] for p in plan if p["compressor"] == "none")
                self.assertGreater(len(bodies), 3)
                for record in self.metrics(run_dir):
                    self.assertEqual(record["payload_bytes"], sum(bodies) + dense)
                    gathered = (ranks - 1) * (sum(bodies) + FRAME_BYTES * len(bodies))
                    control = record["wire_bytes"] - gathered - 2 * (ranks - 1) * dense / ranks
                    self.assertLess(abs(control), CONTROL_BYTES)

    def test_every_rank_when_asked(self):
        self.train(3, run__dir="ranks", train__steps=4, metrics__sinks='["jsonl", "jsonl_ranks"]')
        every = []
        for rank in range(3):
            with open(self.path("ranks", f"metrics.rank{rank}.jsonl"), encoding="utf-8") as file:
                every.append([json.loads(line) for line in file])
        self.assertEqual(every[0], self.metrics("ranks"))
        for records in zip(*every, strict=True):
            self.assertEqual(len({record["loss"] for record in records}), 1)
            for record in records:
                self.assertGreater(record["cpu_ms"], 0)
                # Three clocks read one after the other.
                self.assertLess(record["cpu_ms"] + (record["core_wait_ms"] or 0), record["step_ms"] + 1)

    def test_timeline_of_the_steps_asked_for(self):
        self.train(2, run__dir="traced", train__steps=6, compressor__name="powersgd", feedback__name="ef14",
                   metrics__trace_steps="3:4")
        records = {record["step"]: record for record in self.metrics("traced")}
        kinds = {"step": "step_ms", "forward": "forward_ms", "backward": "backward_ms", "wait": "exposed_ms",
                 "optimizer": "optimizer_ms", "encode": "encode_ms", "wire": "exchange_ms", "decode": "decode_ms"}
        for rank in range(2):
            with open(self.path("traced", f"trace.rank{rank}.json"), encoding="utf-8") as file:
                trace = json.load(file)
            spans = [event for event in trace["traceEvents"] if event["ph"] == "X"]
            self.assertEqual({span["args"]["step"] for span in spans}, {3, 4})
            self.assertEqual({span["pid"] for span in spans}, {rank})
            for step in (3, 4):
                mine = [span for span in spans if span["args"]["step"] == step]
                whole, = (span for span in mine if span["name"] == "step")
                for span in mine:
                    self.assertGreaterEqual(span["ts"], whole["ts"])
                    self.assertLessEqual(span["ts"] + span["dur"], whole["ts"] + whole["dur"] + 0.01)
                for name, key in kinds.items() if rank == 0 else ():
                    total = sum(span["dur"] for span in mine if span["name"] == name) / 1000
                    self.assertAlmostEqual(total, records[step][key], places=4, msg=name)

    def test_explain_foretells_the_bytes(self):
        pairs = [("none", "none"), ("blockquant", "ef14"), ("powersgd", "ef14"), ("topk", "econtrol")]
        if harness.SLOW:
            pairs += [("bf16", "none"), ("randk", "ef14"), ("sign", "ef14"), ("qsgd", "none")]
        for compressor, feedback in pairs:
            with self.subTest(compressor=compressor, feedback=feedback):
                keys = {"compressor__name": compressor, "feedback__name": feedback, "model__width": 128}
                told = self.explain(3, **keys)
                run_dir = f"{compressor}-{feedback}"
                self.train(3, run__dir=run_dir, train__steps=3, **keys)
                last = self.metrics(run_dir)[-1]
                self.assertLess(abs(last["wire_bytes"] / told["wire_bytes_per_step"] - 1), 0.01,
                                f"{last['wire_bytes']} sent, {told['wire_bytes_per_step']} foretold")
                self.assertEqual(last["payload_bytes"], told["payload_bytes_per_step"])
                self.assertEqual(sum(p["bytes"] for p in told["plan"]), told["payload_bytes_per_step"])

    def test_every_promised_field_is_there(self):
        self.train(2, run__dir="run", train__steps=25, compressor__name="topk", feedback__name="ef14")
        summary = self.summary("run")
        self.assertEqual([k for k in SUMMARY if k not in summary], [])
        records = self.metrics("run")
        self.assertEqual(len(records), 25)
        for record in records:
            self.assertEqual([k for k in METRICS if k not in record], [])
        losses = [r["loss"] for r in records[-20:]]
        self.assertAlmostEqual(summary["final_loss"], sum(losses) / 20, places=6)
        self.assertAlmostEqual(summary["wire_bytes_per_step"], sum(r["wire_bytes"] for r in records) / 25, places=3)
        self.assertEqual(summary["status"], "finished")
        self.assertEqual(summary["tokens"], 25 * 2 * 2 * 32)
        self.assertEqual(records[-1]["tokens"], summary["tokens"])
        self.assertEqual(records[-1]["samples"], 25 * 2 * 2)
        self.assertRegex(summary["params_hash"], "^[0-9a-f]{16}$")
        # adamw keeps two fp32 moments, ef14 one error of the compressed parameters.
        self.assertEqual(summary["optimizer_bytes_per_param"], 8)
        self.assertGreater(summary["feedback_state_bytes"], 0)
        self.assertGreater(summary["peak_rss_bytes"], summary["peak_tensor_bytes"])

    def test_accuracy_of_classes(self):
        keys = {k: v for k, v in harness.TINY.items() if k.split(".")[0] not in ("data", "model")}
        for task in ("image", "tabular"):
            words = [f"{k}={v}" for k, v in keys.items()]
            result = self.run_program(2, ["train", *words, f"run.dir={task}", f"task.name={task}",
                                          "data.path=synthetic", "train.batch_size=16"])
            self.assertEqual(result.code, 0, result.err)
            self.assertTrue(0 <= self.summary(task)["val_accuracy"] <= 1)

    def test_console_in_a_log_file(self):
        result = self.train(2, run__dir="run", train__steps=200, metrics__sinks='["console"]')
        steps = [line for line in result.err.splitlines() if line.startswith("step ")]
        self.assertTrue(10 <= len(steps) <= 30, result.err)
        for line in steps:
            self.assertRegex(line, r"^step \d+/200  loss \d+\.\d+  [\d.]+ ms/step  [\d.]+ ?k?M?B/step")
        self.assertNotIn("\r", result.err)
        self.assertNotIn("\x1b", result.err)
        self.assertEqual(result.out, "")
        self.assertEqual(len(re.findall("final_loss", result.err)), 1)


if __name__ == "__main__":
    harness.main()
