"""What the arms of a group have reported at the rungs, as differences to the baseline of the same seed.

Arms and baseline see the same images with the same random numbers, seed by seed; what a seed does to all of them is
gone from the difference. Differences are above 0 where the arm is better, whichever way the metric is up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.trials.records import State, TrialRecord
from orchestrator.trials.trial import Role, TrialInfo

_WORST = 1e300
"""Stands for a value that is not finite, or larger: worse than any, yet a number that can be averaged."""


@dataclass(frozen=True)
class Differences:
    """What a pruner is shown of an arm at a rung.

    Attributes:
        number: The arm's place in its group, from 0.
        step: Optimizer step of the rung.
        rung: Number of the rung, from 1.
        by_seed: The arm's differences at the rung, by seed, its own and those before it.
        own: By rung up to this one, the mean of the arm's differences over the seeds that ``others`` have too.
        others: By place in the group, the same of the arms that can be compared, the baseline (all 0) among them.
        num_seeds: Over how many seeds ``own`` and ``others`` are means.
        num_arms: Arms of the group, with the baseline.
    """

    number: int
    step: int
    rung: int
    by_seed: tuple[float, ...]
    own: Mapping[int, float]
    others: Mapping[int, Mapping[int, float]]
    num_seeds: int
    num_arms: int


class PairedDifferences:
    """The values that the trials of a group have reported, and what can be compared of them.

    Args:
        records: The trials of the group's baseline and arms, in the order of the sweep.
        higher_is_better: Which way is up.
    """

    def __init__(self, records: Sequence[TrialRecord], *, higher_is_better: bool) -> None:
        self._sign = 1.0 if higher_is_better else -1.0
        self._trials: dict[str, TrialInfo] = {record.trial.trial_id: record.trial for record in records}
        self._seeds = list(dict.fromkeys(record.trial.seed for record in records))
        self._arms = list(dict.fromkeys(record.trial.arm_id for record in records))
        self._baseline = next((r.trial.arm_id for r in records if r.trial.role is Role.BASELINE), None)
        self._ids = {(trial.arm_id, trial.seed): trial_id for trial_id, trial in self._trials.items()}
        self._values: dict[str, dict[int, float]] = {trial_id: {} for trial_id in self._trials}
        self._over = {r.trial.trial_id for r in records if r.state not in (State.WAITING, State.PENDING, State.RUNNING)}

    def add(self, trial_id: str, step: int, value: float) -> bool:
        """Record a rung's value; return whether it is new. One that is NaN or beyond 1e300 is worse than all others."""
        values = self._values[trial_id]
        is_new = step not in values
        if is_new:
            values[step] = self._sign * value if abs(value) < _WORST else -_WORST
        return is_new

    def end(self, trial_id: str) -> None:
        """Record that a trial is over: nobody waits for its further rungs."""
        self._over.add(trial_id)

    def of_arm(self, trial_id: str, step: int, num_others: int) -> Differences | None:
        """Return what is known of a trial's arm at a rung, by its own seed and those before it.

        Seeds with too few others to compare with are left out, its own one first if it has just begun; so an arm is
        always compared with others by the same seeds. What was pruned counts as far as it came.

        Args:
            trial_id: A trial that reported the rung.
            step: Optimizer step of the rung.
            num_others: Other arms, the baseline among them, that it takes; all of them where there are fewer.

        Returns:
            The differences; None while the rung cannot be judged: the baseline of its seed has not come to it, or
            the arm's trial of an earlier seed is to come to it yet, or too few others have.
        """
        trial = self._trials[trial_id]
        seeds = self._known_seeds(trial, step)
        if seeds is None:
            return None
        by_seed = tuple(self._difference(trial.arm_id, seed, step) for seed in seeds)
        others = [arm for arm in self._arms if arm != trial.arm_id]
        shared = sorted(seeds, key=lambda seed: -sum(self._has(arm, seed, step) for arm in others))
        while (beside := [arm for arm in others if all(self._has(arm, seed, step) for seed in shared)]) and shared:
            if len(beside) >= min(num_others, len(others)):
                break
            shared.pop()
        if not shared:
            return None
        steps = [known for known in self._steps() if known <= step]
        return Differences(
            number=self._arms.index(trial.arm_id),
            step=step,
            rung=len(steps),
            by_seed=by_seed,
            own=self._means(trial.arm_id, shared, steps),
            others={self._arms.index(arm): self._means(arm, shared, steps) for arm in beside},
            num_seeds=len(shared),
            num_arms=len(self._arms),
        )

    def _known_seeds(self, trial: TrialInfo, step: int) -> list[int] | None:
        """Return the seeds up to a trial's own by which its arm has a difference; None if one is to come yet."""
        if not self._has(trial.arm_id, trial.seed, step) or not self._has(self._baseline, trial.seed, step):
            return None
        known = []
        for seed in self._seeds[: self._seeds.index(trial.seed) + 1]:
            if not self._has(trial.arm_id, seed, step):
                lacks = trial.arm_id
            elif not self._has(self._baseline, seed, step):
                lacks = self._baseline or ""
            else:
                known.append(seed)
                continue
            lacking = self._ids.get((lacks, seed))
            if lacking is not None and lacking not in self._over:
                return None
        return known

    def _steps(self) -> list[int]:
        """Return the steps of the baseline's rungs, in their order: these are the rungs of the group."""
        ids = (self._ids.get((self._baseline or "", seed)) for seed in self._seeds)
        return sorted({step for trial_id in ids if trial_id is not None for step in self._values[trial_id]})

    def _has(self, arm_id: str | None, seed: int, step: int) -> bool:
        trial_id = self._ids.get((arm_id or "", seed))
        return trial_id is not None and step in self._values[trial_id]

    def _difference(self, arm_id: str, seed: int, step: int) -> float:
        baseline = self._ids[self._baseline or "", seed]
        return self._values[self._ids[arm_id, seed]][step] - self._values[baseline][step]

    def _means(self, arm_id: str, seeds: Sequence[int], steps: Sequence[int]) -> dict[int, float]:
        """Return an arm's mean differences by rung, of the rungs that it has with all the seeds."""
        return {
            rung: math.fsum(self._difference(arm_id, seed, step) / len(seeds) for seed in seeds)
            for rung, step in enumerate(steps, start=1)
            if all(self._has(arm, seed, step) for arm in (arm_id, self._baseline) for seed in seeds)
        }
