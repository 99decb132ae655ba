"""How often arms are pruned that are all alike, and one that is bad: the judge, driven without training."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping

import numpy as np
import pytest

from orchestrator.scheduling.pruning import Judge
from orchestrator.sweep.pruning_settings import (
    AnyPruner,
    MedianPruning,
    PercentilePruning,
    SuccessiveHalvingPruning,
    WilcoxonPruning,
)
from orchestrator.trials.records import State

from .test_pruning import make_record

NUM_ARMS = 10
END_NOISE, RUNG_NOISE = 1.0, 0.5
"""Standard deviations of what a trial comes to, and of a rung's value around that."""


class Sweep:
    """A sweep of a baseline and ten arms, of which the larger are slower, judged while it runs."""

    def __init__(
        self, rng: np.random.Generator, *, num_seeds: int, num_rungs: int, shift: Mapping[int, float] | None = None
    ) -> None:
        # The baseline first, then the largest arms: the order in which trials start. What a seed does to all is large.
        self.order = [(seed, arm) for seed in range(num_seeds) for arm in (0, *range(NUM_ARMS, 0, -1))]
        self.num_rungs = num_rungs
        of_seed = 5.0 * rng.normal(size=num_seeds)
        ends = {key: END_NOISE * rng.normal() + of_seed[key[0]] + (shift or {}).get(key[1], 0.0) for key in self.order}
        self.values = {key: end + RUNG_NOISE * rng.normal(size=num_rungs) for key, end in ends.items()}
        self.records = [
            make_record(f"arm-{arm}", "baseline" if arm == 0 else "arm", seed=seed) for seed, arm in self.order
        ]
        self.keys = dict(zip([record.trial.trial_id for record in self.records], self.order, strict=True))
        self.ids = {key: trial_id for trial_id, key in self.keys.items()}

    def run(self, pruner: AnyPruner, *, num_slots: int) -> set[tuple[int, int]]:
        """Run it by so many at once; return the seeds and arms that were pruned."""
        judge = Judge(pruner, higher_is_better=True, records=self.records, num_rungs=self.num_rungs)
        waiting, pruned = list(self.order), set()
        running: list[tuple[float, int, tuple[int, int]]] = []
        now = 0.0
        while waiting or running:
            while waiting and len(running) < num_slots:
                key = waiting.pop(0)
                heapq.heappush(running, (now + 1.0 + 0.1 * key[1], 0, key))
            now, rung, key = heapq.heappop(running)
            if rung == self.num_rungs:
                judge.end(self.ids[key], State.DONE)
                continue
            found = judge.report(self.ids[key], rung, float(self.values[key][rung]))
            alive = {key, *(other for _, _, other in running)}
            for trial_id in found:
                if self.keys[trial_id] in alive:
                    pruned.add(self.keys[trial_id])
                    judge.end(trial_id, State.PRUNED)
            running = [entry for entry in running if entry[2] not in pruned]
            heapq.heapify(running)
            if key not in pruned:
                heapq.heappush(running, (now + 1.0 + 0.1 * key[1], rung + 1, key))
        return pruned


def rates(
    pruner: AnyPruner, *, num_sweeps: int, num_seeds: int, num_rungs: int, num_slots: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the percent of trials that were pruned, by seed and by arm, the smallest first."""
    rng = np.random.default_rng(0)
    by_seed: Counter[int] = Counter()
    by_arm: Counter[int] = Counter()
    for _ in range(num_sweeps):
        sweep = Sweep(rng, num_seeds=num_seeds, num_rungs=num_rungs)
        for seed, arm in sweep.run(pruner, num_slots=num_slots):
            by_seed[seed] += 1
            by_arm[arm] += 1
    return (
        100 * np.array([by_seed[seed] for seed in range(num_seeds)]) / (num_sweeps * NUM_ARMS),
        100 * np.array([by_arm[arm] for arm in range(1, NUM_ARMS + 1)]) / (num_sweeps * num_seeds),
    )


@pytest.mark.long
@pytest.mark.parametrize(("num_rungs", "num_slots"), [(1, 11), (3, 4)])
def test_wilcoxon_prunes_arms_that_are_alike_at_its_rate_in_every_seed_and_of_every_size(
    num_rungs: int, num_slots: int
) -> None:
    by_seed, by_arm = rates(WilcoxonPruning(), num_sweeps=80, num_seeds=5, num_rungs=num_rungs, num_slots=num_slots)
    # Two seeds cannot say it at a level of 0.2, and of three one outcome in eight can; 3 of 16 and 5 of 32 follow.
    nominal = [0.0, 0.0, 12.5, 18.75, 15.6] if num_rungs == 1 else [0.0, 0.0, 20.0, 20.0, 20.0]
    # Within 5 points, and 2.8 for sampling: two standard errors if the 800 trials shared no baselines, which they do.
    assert by_seed == pytest.approx(nominal, abs=5.0 + 2.8)
    smallest, largest = by_arm[:4].mean(), by_arm[-4:].mean()
    assert [smallest, largest] == pytest.approx(2 * [by_seed.mean()], abs=5.0)


@pytest.mark.long
@pytest.mark.parametrize(
    # Of eleven with the baseline Optuna keeps five; a percentile of ten others lies at place 1 + 0.25 * 9 of eleven.
    ("pruner", "nominal"),
    [(MedianPruning(), 50.0), (PercentilePruning(), 100 * 3.25 / 11), (SuccessiveHalvingPruning(), 100 * (1 - 5 / 11))],
)
@pytest.mark.parametrize("num_slots", [4, 33])
def test_pruners_that_compare_arms_prune_arms_that_are_alike_at_their_rates(
    pruner: AnyPruner, nominal: float, num_slots: int
) -> None:
    by_seed, by_arm = rates(pruner, num_sweeps=80, num_seeds=3, num_rungs=1, num_slots=num_slots)
    # With few slots the first seed's largest arms have ended before there is anything to compare them with.
    comparable = slice(None) if num_slots == 33 else slice(1, None)
    assert by_seed[comparable] == pytest.approx(nominal, abs=5.0)
    if num_slots == 33:
        # An arm's seeds share what is known of it: as good as 320 trials, whose two standard errors are 5 points.
        smallest, largest = by_arm[:4].mean(), by_arm[-4:].mean()
        assert [smallest, largest] == pytest.approx(2 * [nominal], abs=5.0 + 5.0)


@pytest.mark.long
def test_an_arm_that_is_bad_is_pruned_most_of_the_time() -> None:
    rng = np.random.default_rng(1)
    sweeps = [Sweep(rng, num_seeds=4, num_rungs=3, shift={5: -2.0}) for _ in range(60)]
    pruned = [sweep.run(WilcoxonPruning(), num_slots=4) for sweep in sweeps]
    share = [np.mean([(seed, 5) in found for found in pruned]) for seed in (2, 3)]
    assert min(share) > 0.7


def test_the_order_of_reports_does_not_matter() -> None:
    rng = np.random.default_rng(2)
    for _ in range(2):
        sweep = Sweep(rng, num_seeds=4, num_rungs=1, shift={2: -3.0, 5: -2.0})
        found = []
        for order in (sweep.order, sweep.order[::-1], rng.permutation(sweep.order)):
            judge = Judge(WilcoxonPruning(), higher_is_better=True, records=sweep.records)
            keys = [(int(seed), int(arm)) for seed, arm in order]
            reports = [(sweep.ids[key], float(sweep.values[key][0])) for key in keys]
            found.append({name for trial_id, value in reports for name in judge.report(trial_id, 0, value)})
        assert found[0]
        assert found[0] == found[1] == found[2]
