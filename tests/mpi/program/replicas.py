"""Replicas stay equal bit for bit: every pair of compressor and feedback the plan allows, and whatever the buckets."""

import json
import unittest

import harness
from harness import overrides

# Pairs of the quick label: every exchange and every feedback once.
QUICK = {("none", "none"), ("powersgd", "ef14"), ("topk", "econtrol_m"), ("blockquant", "ef21"), ("randk", "econtrol"),
         ("natural", "diana"), ("bf16", "ef21m"), ("threshold", "ef14"), ("intsum", "ef21"), ("topk", "dgc")}


class Replicas(harness.ProgramTest):
    def pairs(self):
        names = {"compressor": [], "feedback": []}
        for line in self.run_program(None, ["list", "--json"]).out.splitlines():
            entry = json.loads(line)
            if entry["kind"] in names:
                names[entry["kind"]].append(entry["name"])
        self.assertGreater(len(names["compressor"]), 10)
        self.assertGreater(len(names["feedback"]), 5)
        return [(c, f) for c in names["compressor"] for f in names["feedback"]]

    def allowed(self, compressor, feedback):
        result = self.run_program(
            None, ["explain", *overrides(compressor__name=compressor, feedback__name=feedback), "--json"])
        self.assertIn(result.code, (0, 2), result.err)
        if result.code == 2:
            self.one_line(result, compressor, feedback, "do not go together", "work")
        return result.code == 0

    def agree(self, ranks, steps, pairs):
        for compressor, feedback in pairs:
            with self.subTest(compressor=compressor, feedback=feedback, ranks=ranks):
                self.train(ranks, limit_s=300, compressor__name=compressor, feedback__name=feedback,
                           run__dir=f"{compressor}-{feedback}", train__steps=steps,
                           compressor__min_numel=512)
                summary = self.summary(f"{compressor}-{feedback}")
                self.assertEqual(summary["status"], "finished")
                self.assertEqual(summary["steps"], steps)
                self.assertEqual(summary["skipped_steps"], 0)

    def test_quick_pairs_at_3_ranks(self):
        self.agree(3, 10, sorted(QUICK))

    def test_bf16_weights(self):
        """Halves of what travels; losses as with fp32 ones."""
        losses = {}
        for precision, masters, compressor, feedback in (
                ("bf16", "fp32", "none", "none"), ("bf16", "stochastic", "none", "none"), ("bf16", "fp32", "topk", "ef14"),
                ("bf16", "stochastic", "blockquant", "ef14"), ("bf16", "fp32", "powersgd", "ef21"),
                ("bf16_pure", "fp32", "none", "none"), ("bf16_pure", "stochastic", "topk", "ef14")):
            with self.subTest(precision=precision, masters=masters, compressor=compressor):
                run_dir = f"{precision}-{masters}-{compressor}"
                self.train(2, run__dir=run_dir, train__steps=40, train__precision=precision, train__weights="bf16", train__masters=masters,
                           compressor__name=compressor, feedback__name=feedback, compressor__min_numel=512)
                summary = self.summary(run_dir)
                self.assertEqual((summary["status"], summary["steps"], summary["skipped_steps"]), ("finished", 40, 0))
                losses[run_dir] = summary["final_loss"]
        self.train(2, run__dir="wide", train__steps=40, train__precision="bf16")
        wide = self.summary("wide")["final_loss"]
        for run_dir in ("bf16-fp32-none", "bf16-stochastic-none", "bf16_pure-fp32-none"):
            self.assertLess(abs(losses[run_dir] / wide - 1), 0.02, f"{run_dir}: {losses[run_dir]}, fp32 weights {wide}")

    def test_topk_at_2_and_reencode_at_4_ranks(self):
        self.agree(2, 10, [("topk", "ef14")])
        self.agree(4, 10, [("blockquant", "ef14")])

    def test_sparse_at_4_ranks_gives_the_bits_of_gather(self):
        hashes = set()
        for merge in ("gather", "sparse"):
            self.train(4, run__dir=merge, train__steps=10, compressor__name="topk", compressor__merge=merge,
                       feedback__name="ef21", compressor__min_numel=512)
            summary = self.summary(merge)
            self.assertEqual(summary["status"], "finished")
            hashes.add(summary["params_hash"])
        self.assertEqual(len(hashes), 1)

    def test_groups_send_one_message_and_replicas_stay_equal(self):
        for size, ranks in ((2, 4), (2, 3)):
            for compressor, feedback in (("none", "none"), ("topk", "dgc"), ("powersgd", "ef14")):
                with self.subTest(compressor=compressor, size=size, ranks=ranks):
                    run_dir = f"{compressor}-{size}-{ranks}"
                    result = self.train(ranks, run__dir=run_dir, train__steps=10, compressor__name=compressor,
                                        feedback__name=feedback, comm__group_size=size, compressor__min_numel=512)
                    self.assertIn(f"{ranks} ranks in 2 groups", result.err)
                    self.assertEqual(self.summary(run_dir)["status"], "finished")

    @unittest.skipUnless(harness.SLOW, "label slow")
    def test_all_pairs_refused_or_equal_at_2_ranks(self):
        self.all_pairs(2)

    @unittest.skipUnless(harness.SLOW, "label slow")
    def test_all_pairs_refused_or_equal_at_3_ranks(self):
        self.all_pairs(3)

    @unittest.skipUnless(harness.SLOW, "label slow")
    def test_all_pairs_refused_or_equal_at_4_ranks(self):
        self.all_pairs(4)

    def all_pairs(self, ranks):
        allowed = [pair for pair in self.pairs() if self.allowed(*pair)]
        self.assertGreater(len(allowed), 40)
        self.assertLessEqual(QUICK, set(allowed))
        self.agree(ranks, 200, allowed)
        print(f"\n{len(allowed)} pairs, 200 steps each, {ranks} ranks: replicas equal after every step")

    def test_overlap_and_buckets_do_not_change_a_bit(self):
        ways = [("none", "none", "auto"), ("none", "none", "halving"), ("blockquant", "ef14", "auto")]
        if harness.SLOW:
            ways += [("none", "none", "direct"), ("topk", "ef14", "auto"), ("powersgd", "ef14", "auto"), ("randk", "econtrol", "auto"),
                     ("natural", "diana", "auto")]
        for compressor, feedback, sums in ways:
            hashes = set()
            for overlap in ("true", "false"):
                for cap in ("1000", "0.005"):
                    run_dir = f"{compressor}-{sums}-{overlap}-{cap}"
                    result = self.train(3, run__dir=run_dir, comm__overlap=overlap, comm__bucket_cap_mb=cap, comm__sums=sums,
                                        compressor__name=compressor, feedback__name=feedback)
                    self.assertRegex(result.err, "in 1 buckets" if cap == "1000" else r"in ([4-9]|1\d) buckets")
                    hashes.add(self.summary(run_dir)["params_hash"])
            self.assertEqual(len(hashes), 1, f"{compressor}, {sums}: {hashes}")

    def test_sums_by_mpi_keep_replicas_equal(self):
        self.train(3, run__dir="library", train__steps=10, comm__sums="library", comm__bucket_cap_mb="0.005", comm__check_replicas_every=1)
        self.train(3, run__dir="direct", train__steps=10, comm__sums="direct", comm__bucket_cap_mb="0.005")
        library, direct = self.summary("library"), self.summary("direct")
        self.assertEqual(library["status"], "finished")
        self.assertAlmostEqual(library["final_loss"], direct["final_loss"], places=4)


if __name__ == "__main__":
    harness.main()
