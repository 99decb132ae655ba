"""How long the rest of a sweep takes, from how long its trials have taken so far."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Protocol

from orchestrator.scheduling.durations import TrialDurations
from orchestrator.trials.trial import Role

_LEAST_PACE = 0.05
"""Share of a trial's steps from which on its pace tells how long it takes."""


class Durations(Protocol):
    """How long trials take, as in ``orchestrator.scheduling.durations``."""

    def estimate(self, group_id: str, role: Role) -> float | None:
        """Return the wall seconds to expect of a trial; None if unknown."""


@dataclass(frozen=True)
class TimeLeft:
    """The wall seconds that are left, and whether they are a guess: no trial has ended yet."""

    seconds: float
    is_guess: bool


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
    durations: Durations,
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


def time_left(
    waiting: Mapping[tuple[str, Role], int],
    running: Sequence[Running],
    durations: TrialDurations,
    *,
    num_slots: int,
    guess: Callable[[str, Role], float | None],
    least_s: Callable[[Mapping[str, float]], float] | None = None,
) -> TimeLeft | None:
    """Return the wall time that is left, by guess as long as nothing has been measured.

    The guess is the pace of the trials that run, or else what is known without any.

    Args:
        waiting: As ``seconds_left`` takes it.
        running: Likewise.
        durations: Likewise.
        num_slots: Likewise.
        guess: Returns the wall seconds of a trial that nothing was measured of, by group and role; None if unknown.
        least_s: Likewise.

    Returns:
        None if there is no guess either.
    """
    seconds = seconds_left(waiting, running, durations, num_slots=num_slots, least_s=least_s)
    if seconds is not None:
        return TimeLeft(seconds, is_guess=seconds > 0 and not durations.is_known)
    guessed = _Guesses(durations, running, guess)
    seconds = seconds_left(waiting, running, guessed, num_slots=num_slots, least_s=least_s)
    return None if seconds is None else TimeLeft(seconds, is_guess=True)


class _Guesses:
    """How long trials take: as measured, or else by the pace of those that run, or else by guess."""

    def __init__(
        self, durations: TrialDurations, running: Iterable[Running], guess: Callable[[str, Role], float | None]
    ) -> None:
        self._durations = durations
        self._guess = guess
        paces: defaultdict[str, list[float]] = defaultdict(list)
        for trial in running:
            if trial.role.is_trained and trial.steps and trial.step >= _LEAST_PACE * trial.steps:
                paces[trial.group_id].append(trial.elapsed_s * trial.steps / trial.step)
        self._paces = {group_id: fmean(seconds) for group_id, seconds in paces.items()}

    def estimate(self, group_id: str, role: Role) -> float | None:
        """Return the wall seconds to expect of a trial; None if unknown."""
        if (known := self._durations.estimate(group_id, role)) is not None:
            return known
        if role.is_trained and group_id in self._paces:
            return self._paces[group_id]
        return self._guess(group_id, role)


def _left_of(trial: Running, length: float | None) -> float | None:
    if length is not None:
        return max(0.0, length - trial.elapsed_s)
    # No trial has ended yet: its own pace is all there is to go by.
    return trial.elapsed_s * (trial.steps - trial.step) / trial.step if trial.steps and trial.step else None
