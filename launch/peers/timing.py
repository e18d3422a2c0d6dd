"""How steps are timed and compared on a machine whose cores are shared and loaded.

Two ratios near 1 drown in the neighbours' noise when wall times are compared. So a step has a *quiet* time: what it would
take if every rank had a core whenever it could run,

    quiet = mean over ranks of the main thread's time on a core + the least blocked time of any rank,
    blocked = wall - time on a core - time ready to run while all cores were taken (the kernel's schedstat)

The least, because a rank is also blocked while another waits for a core. Both sides of a comparison are measured by the same
formula, in blocks that alternate; a block's figure is the median of its steps, the ratio that of blocks next to each other.
"""
import math
import random
import statistics


def quiet_ms(wall, cpu, wait):
    """Of one step: lists with a number per rank, in ms. NaN where one is: the kernel did not tell."""
    blocked = [w - c - r for w, c, r in zip(wall, cpu, wait, strict=True)]
    if any(map(math.isnan, blocked)):
        return math.nan
    return statistics.fmean(cpu) + max(0.0, min(blocked))  # the clocks are read one after the other


def bootstrap_interval(values, confidence=0.9, draws=10000, seed=1):
    """(low, high): percentile interval of the median under resampling (Efron 1979). One value gives itself twice."""
    rng = random.Random(seed)
    medians = sorted(statistics.median(rng.choices(values, k=len(values))) for _ in range(draws))
    cut = (1 - confidence) / 2
    return medians[int(cut * draws)], medians[min(draws - 1, int((1 - cut) * draws))]


def ratio(ours, theirs):
    """Of two lists of blocks' figures, pair by pair: {median, low, high, blocks}."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    low, high = bootstrap_interval(ratios)
    return {"median": statistics.median(ratios), "low": low, "high": high, "blocks": len(ratios)}
