"""Strategies of local steps as a program: replicas, traffic, a round cut in two, another number of ranks."""

import os
import shutil

import harness

LOCAL = {"strategy__local_steps": 4, "compressor__name": "topk", "compressor__ratio": 0.05, "feedback__name": "ef14",
         "compressor__min_numel": 512, "checkpoint__every": 5, "checkpoint__keep": 9}


class LocalSteps(harness.ProgramTest):
    def cut_after(self, run, step):
        """The run folder as it was when that checkpoint had just been written."""
        for name in os.listdir(self.path(f"{run}/checkpoints")):
            if name > f"step-{step:08d}":
                shutil.rmtree(self.path(f"{run}/checkpoints/{name}"))
        os.remove(self.path(f"{run}/summary.json"))

    def test_rounds_send_once_and_go_on_where_they_were_cut(self):
        for name, more, sends in (("diloco", {}, [4, 8, 12, 16, 18]), ("sparseloco", {"feedback__decay": 0.95}, [4, 8, 12, 16, 18]),
                                  # Due after steps 7, 11, 15, but for the first the checkpoint after step 5 waits.
                                  ("late", {"strategy__name": "diloco", "strategy__delay_steps": 3}, [6, 11, 15, 18])):
            with self.subTest(run=name):
                keys = dict(LOCAL, run__dir=name, train__steps=18, **{"strategy__name": name, **more})
                self.train(2, **keys)
                whole = self.summary(name)
                self.assertEqual(whole["status"], "finished")
                sent = [r["step"] for r in self.metrics(name) if r["wire_bytes"] > 0]
                self.assertEqual(sent, sends)
                self.cut_after(name, 10)  # two steps into a round
                result = self.train(2, **keys)
                self.assertRegex(result.err, "resumed after step 10 from")
                again = self.summary(name)
                self.assertEqual(again["params_hash"], whole["params_hash"])
                self.assertAlmostEqual(again["final_loss"], whole["final_loss"], places=12)
                self.assertEqual([r["step"] for r in self.metrics(name)], list(range(1, 19)))

    def test_another_number_of_ranks_goes_on_in_the_middle_of_a_round(self):
        keys = dict(LOCAL, strategy__name="diloco", run__dir="run")
        self.train(2, train__steps=18, **keys)
        self.cut_after("run", 10)
        for ranks, steps in ((1, 22), (3, 26)):
            result = self.train(ranks, train__steps=steps, **keys)
            self.assertRegex(result.err, "each rank's own state .* is (averaged|copied)")
            self.assertEqual(self.summary("run")["world_size"], ranks)


if __name__ == "__main__":
    harness.main()
