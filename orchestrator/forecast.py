"""How long trials will take, from those that have been measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from orchestrator.records import State, TrialRecord


@dataclass(frozen=True)
class Forecast:
    """Hold how much is to do, and how long it will take.

    Attributes:
        num_pending: Trials without a result.
        num_measured: Done trials that the forecast rests on.
        work_s: Seconds of trials that are to do, on one slot after the other; None if nothing was measured.
        num_slots: Slots that share the work.
    """

    num_pending: int
    num_measured: int
    work_s: float | None
    num_slots: int

    @property
    def seconds(self) -> float | None:
        """Return the wall time that is left, or None if nothing was measured."""
        if self.work_s is None:
            return None
        return self.work_s / max(1, min(self.num_slots, self.num_pending))


class Lengths:
    """Know how long trials take: the means of those that are done, by group, floors apart."""

    def __init__(self, records: Iterable[TrialRecord] = ()) -> None:
        """Learn from the records of trials that are done."""
        self._sums: dict[tuple[str, bool], tuple[float, int]] = {}
        for record in records:
            if record.state is State.DONE and record.seconds is not None:
                self.add(record.group_id, record.role, record.seconds)

    def add(self, group_id: str, role: str, seconds: float) -> None:
        """Learn from one more trial."""
        total, count = self._sums.get((group_id, role == "floor"), (0.0, 0))
        self._sums[group_id, role == "floor"] = (total + seconds, count + 1)

    def of(self, group_id: str, role: str) -> float | None:
        """Guess the wall seconds of a trial: the mean of its like, or else of those in other groups; None if unknown.

        Floors are not trained: they say nothing of the other trials, which in turn are an upper bound for them.
        """
        is_floor = role == "floor"
        if (group_id, is_floor) in self._sums:
            total, count = self._sums[group_id, is_floor]
            return total / count
        means = {key: total / count for key, (total, count) in self._sums.items()}
        alike = [mean for (_, of_floors), mean in means.items() if of_floors == is_floor]
        if not alike and is_floor:
            alike = list(means.values())
        return fmean(alike) if alike else None


def forecast(
    pending: Sequence[tuple[str, str]], measured_records: Sequence[TrialRecord], *, num_slots: int
) -> Forecast:
    """Forecast the wall time of trials.

    Args:
        pending: Group id and role of every trial that is to do.
        measured_records: Records to learn from, of this sweep or of another with the same groups.
        num_slots: How many trials run at once, at least 1.
    """
    measured = Lengths(measured_records)
    lengths = [measured.of(group_id, role) for group_id, role in pending]
    known = [length for length in lengths if length is not None]
    num_measured = sum(record.state is State.DONE for record in measured_records)
    return Forecast(
        num_pending=len(pending),
        num_measured=num_measured,
        work_s=sum(known) if len(known) == len(lengths) else None,
        num_slots=num_slots,
    )


def format_seconds(seconds: float | None) -> str:
    """Write a duration for people: ``45 s``, ``12 min``, ``3 h 20 min``; ``?`` for None."""
    if seconds is None:
        return "?"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
