"""How long trials will take, from those that have been measured."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean

from orchestrator.trials.records import State, TrialRecord
from orchestrator.trials.trial import Role


class TrialDurations:
    """How long trials take: the means of those that are done, by arm, or else by group, floors apart."""

    def __init__(self, records: Iterable[TrialRecord] = ()) -> None:
        """Record the seconds of trials that are done."""
        self._sums: dict[tuple[str, bool], tuple[float, int]] = {}
        self._arms: dict[str, tuple[float, int]] = {}
        self._guesses: dict[bool, float | None] = {}
        for record in records:
            if record.state is State.DONE and record.seconds is not None:
                self.add(record.trial.group_id, record.trial.role, record.seconds, record.trial.arm_id)

    @property
    def is_known(self) -> bool:
        """Return whether a trial was measured."""
        return bool(self._sums)

    def add(self, group_id: str, role: Role, seconds: float, arm_id: str = "") -> None:
        """Record the seconds of one more trial."""
        self._guesses.clear()
        total, count = self._sums.get((group_id, not role.is_trained), (0.0, 0))
        self._sums[group_id, not role.is_trained] = (total + seconds, count + 1)
        if arm_id:
            total, count = self._arms.get(arm_id, (0.0, 0))
            self._arms[arm_id] = (total + seconds, count + 1)

    def estimate(self, group_id: str, role: Role, arm_id: str = "") -> float | None:
        """Return the wall seconds to expect of a trial: the mean of its like, or of other groups; None if unknown.

        Its like are those of its arm, if one of them was measured, and else those of its group.
        Floors and external backbones are not trained: they say nothing of the other trials, which in turn are taken for
        an upper bound for them.
        """
        if arm_id in self._arms:
            total, count = self._arms[arm_id]
            return total / count
        is_floor = not role.is_trained
        if (group_id, is_floor) in self._sums:
            total, count = self._sums[group_id, is_floor]
            return total / count
        if is_floor not in self._guesses:
            self._guesses[is_floor] = self._guess(is_floor=is_floor)
        return self._guesses[is_floor]

    def _guess(self, *, is_floor: bool) -> float | None:
        """Return the seconds to expect of a trial whose group was not measured."""
        means = {key: total / count for key, (total, count) in self._sums.items()}
        alike = [mean for (_, of_floors), mean in means.items() if of_floors == is_floor]
        if not alike and is_floor:
            alike = list(means.values())
        return fmean(alike) if alike else None
