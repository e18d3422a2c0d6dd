"""launch/peers/timing.py against figures worked by hand."""

import math
import os
import random
import statistics
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../launch/peers"))
from timing import bootstrap_interval, quiet_ms, ratio  # noqa: E402


class Quiet(unittest.TestCase):
    def test_waiting_for_a_core_does_not_count(self):
        # Two ranks on one core: each works 100 ms, waits 100 ms for the core, is blocked 20 ms and 60 ms.
        self.assertAlmostEqual(quiet_ms([220, 260], [100, 100], [100, 100]), 120)

    def test_work_is_averaged_and_the_least_blocked_rank_counts(self):
        self.assertAlmostEqual(quiet_ms([50, 50, 50], [10, 20, 30], [0, 5, 0]), 20 + 20)

    def test_clocks_read_apart_give_no_negative_waiting(self):
        self.assertAlmostEqual(quiet_ms([10.0], [9.9], [0.2]), 9.9)

    def test_unknown_waiting_is_not_hidden(self):
        self.assertTrue(math.isnan(quiet_ms([10.0, 10.0], [5.0, 5.0], [0.0, math.nan])))


class Intervals(unittest.TestCase):
    def test_one_value_is_its_own_interval(self):
        self.assertEqual(bootstrap_interval([0.7]), (0.7, 0.7))

    def test_median_of_three(self):
        # A resample of 3 has its median at the smallest with probability 7/27, so 5 % and 95 % lie at the ends.
        self.assertEqual(bootstrap_interval([1.0, 2.0, 5.0]), (1.0, 5.0))
        # At 40 % (cuts of 0.3) both lie in the middle.
        self.assertEqual(bootstrap_interval([1.0, 2.0, 5.0], confidence=0.4), (2.0, 2.0))

    def test_holds_the_true_median_about_as_often_as_it_says(self):
        rng = random.Random(7)
        held = 0
        for trial in range(200):
            low, high = bootstrap_interval([rng.gauss(1.0, 0.1) for _ in range(9)], draws=400, seed=trial)
            held += low <= 1.0 <= high
        self.assertTrue(160 <= held <= 200, held)

    def test_ratio_pairs_blocks(self):
        # A machine twice as slow in block 2 changes no ratio.
        got = ratio([1.0, 2.0, 1.0], [2.0, 4.0, 2.0])
        self.assertEqual((got["median"], got["low"], got["high"], got["blocks"]), (0.5, 0.5, 0.5, 3))
        self.assertEqual(ratio([1, 1, 3], [1, 2, 1])["median"], statistics.median([1, 0.5, 3]))
        with self.assertRaises(ValueError):
            ratio([1.0], [1.0, 2.0])


if __name__ == "__main__":
    unittest.main()
