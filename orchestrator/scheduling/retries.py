"""Whether a trial that failed is tried again: with more memory, or as often as the limits allow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from orchestrator.execution.executor import Job, Machine
from orchestrator.scheduling.allocation import Allocator
from orchestrator.sweep.resolved import Limits
from orchestrator.trials.events import Failed
from orchestrator.trials.records import Cause
from orchestrator.trials.resources import ResourceRequest
from orchestrator.trials.trial import Trial

MAX_NODE_LOSSES = 20
"""How often a trial is tried again because its machine was lost: it may be the trial that brings machines down."""

_MEMORY = (Cause.GPU_MEMORY, Cause.HOST_MEMORY)


class RetryPolicy:
    """What decides on a failed trial. Losses of machines are counted apart: they are seldom the trial's fault."""

    def __init__(self, allocator: Allocator, limits: Limits) -> None:
        """Take what gives trials more memory, and how often they may fail."""
        self._allocator, self._limits = allocator, limits
        self._failures: Counter[tuple[str, bool]] = Counter()

    def reason(
        self, trial: Trial, job: Job, event: Failed, *, machine_for: Callable[[ResourceRequest], Machine]
    ) -> str:
        """Return why a trial that failed is tried again, human-readable; empty if it is given up.

        Args:
            trial: The trial.
            job: The attempt that failed.
            event: How it failed.
            machine_for: Returns the machine on which trials run that occupy so much.
        """
        if event.cause in _MEMORY:
            more = self._allocator.grow(
                trial, ran_with=job.share, ran_config=job.config, cause=event.cause, machine=machine_for(job.share)
            )
            if more:
                return f"with {more}"
        is_node = event.cause is Cause.NODE
        key = event.trial_id, is_node
        self._failures[key] += 1
        allowed = MAX_NODE_LOSSES if is_node else self._limits.max_retries
        return f"retry {self._failures[key]} of {allowed}" if self._failures[key] <= allowed else ""

    def forget(self, trial_id: str) -> None:
        """Forget the failures of a trial: somebody asked for it again."""
        self._failures[trial_id, False] = self._failures[trial_id, True] = 0
