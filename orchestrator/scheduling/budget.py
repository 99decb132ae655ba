"""What a sweep may cost: hours of a run, GPU hours of all runs, and which seeds still fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from orchestrator.sweep.resolved import Limits

_HOUR_S = 3600.0


@dataclass(frozen=True)
class Work:
    """How long a trial takes, in seconds, and how many GPUs it occupies."""

    seconds: float
    gpus: float


class Budget:
    """An account of a run's hours and of the sweep's GPU hours."""

    def __init__(self, limits: Limits, *, clock: Callable[[], float], gpu_hours_used: float = 0.0) -> None:
        """Start the clock.

        Args:
            limits: What the sweep may cost.
            clock: Seconds, monotonic.
            gpu_hours_used: What earlier runs of the sweep have taken.
        """
        self._limits = limits
        self._clock = clock
        self._started_s = clock()
        self._gpu_s = gpu_hours_used * _HOUR_S

    @property
    def is_bounded(self) -> bool:
        """Return whether there is a bound at all."""
        return self._limits.time_budget_h is not None or self._limits.max_gpu_hours is not None

    def spend(self, work: Work) -> None:
        """Record an attempt that has ended."""
        self._gpu_s += work.seconds * work.gpus

    def spent(self, running: Iterable[Work]) -> str:
        """Return which bound has been reached, human-readable; empty if none has.

        Args:
            running: What the running attempts have taken so far.
        """
        limits = self._limits
        if limits.time_budget_h is not None and self._clock() - self._started_s >= limits.time_budget_h * _HOUR_S:
            return self._time_text()
        if limits.max_gpu_hours is not None and self._gpu_s + _gpu_s(running) >= limits.max_gpu_hours * _HOUR_S:
            return self._gpu_text()
        return ""

    def too_small_for(self, to_do: Sequence[Work], *, running: Sequence[Work], least_s: float) -> str:
        """Return which bound a seed would break, human-readable; empty if it may fit.

        Args:
            to_do: The trials of the seed, those that come before, and what is left of the running ones.
            running: What the running attempts have taken so far.
            least_s: How long all that takes at least, shared by all that trials run on.
        """
        limits = self._limits
        if limits.time_budget_h is not None:
            room_s = limits.time_budget_h * _HOUR_S - (self._clock() - self._started_s)
            if max(least_s, *(work.seconds for work in to_do), 0.0) > room_s:
                return self._time_text()
        if limits.max_gpu_hours is not None:
            taken_s = self._gpu_s + _gpu_s(running) + _gpu_s(to_do)
            if taken_s > limits.max_gpu_hours * _HOUR_S:
                return self._gpu_text()
        return ""

    def _time_text(self) -> str:
        return f"the time budget of {self._limits.time_budget_h:g} h"

    def _gpu_text(self) -> str:
        return f"the budget of {self._limits.max_gpu_hours:g} GPU hours"


def _gpu_s(work: Iterable[Work]) -> float:
    return sum(one.seconds * one.gpus for one in work)
