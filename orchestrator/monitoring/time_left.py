"""How long the rest of a sweep takes, from how long its trials have taken so far."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from orchestrator.scheduling.durations import TrialDurations
from orchestrator.trials.trial import Role


@dataclass(frozen=True)
class Running:
    """A running trial: its group and role, the seconds that it has run, and how far it is."""

    group_id: str
    role: Role
    elapsed_s: float
    step: int = 0
    steps: int | None = None


def seconds_left(
    waiting: Mapping[tuple[str, Role], int],
    running: Iterable[Running],
    durations: TrialDurations,
    *,
    num_slots: int,
    least_s: Callable[[Mapping[str, float]], float] | None = None,
) -> float | None:
    """Return the wall time that is left by estimate, or None as long as nothing has been measured.

    Args:
        waiting: Number of trials that wait, by group and role.
        running: Those that run.
        durations: How long trials take, as far as has been measured.
        num_slots: How many run at once.
        least_s: Returns the least time that the cluster takes for seconds of work, by group; None = work is divided
            by the slots.
    """
    work: defaultdict[str, float] = defaultdict(float)
    longest, num_left = 0.0, 0
    for (group_id, role), count in waiting.items():
        length = durations.estimate(group_id, role) if count else 0.0
        if length is None:
            return None
        work[group_id] += count * length
        longest = max(longest, length)
        num_left += count
    for trial in running:
        left = _left_of(trial, durations.estimate(trial.group_id, trial.role))
        if left is None:
            return None
        work[trial.group_id] += left
        longest = max(longest, left)
        num_left += 1
    if least_s is not None:
        return max(least_s(work), longest)
    return sum(work.values()) / max(1, min(num_slots, num_left))


def _left_of(trial: Running, length: float | None) -> float | None:
    if length is not None:
        return max(0.0, length - trial.elapsed_s)
    # No trial has ended yet: its own pace is all there is to go by.
    return trial.elapsed_s * (trial.steps - trial.step) / trial.step if trial.steps and trial.step else None
