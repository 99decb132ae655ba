"""A slot of an executor: the processes that work on one job, and how their ends become one event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.executor import Event, Failed, Finished, Job


@dataclass
class Slot:
    """Hold the workers of a slot and what they are at.

    Attributes:
        workers: The main one first, which runs the attempt; the others assist.
        placement: What holds room for several workers; None for a single one.
        hosts: To come: the addresses of several workers' machines.
        job: What is run; None = the slot is free.
        events: To come: the events of the job.
        assisting: To come, of each other worker that has not done its part: its CPU seconds.
        core_seconds: CPU seconds of the other workers that have.
    """

    workers: list[Any] = field(default_factory=list)
    placement: Any = None
    hosts: list[Any] = field(default_factory=list)
    job: Job | None = None
    events: Any = None
    assisting: list[Any] = field(default_factory=list)
    core_seconds: float = 0.0

    @property
    def awaited(self) -> list[Any]:
        """Return all that is to come."""
        return [] if self.job is None else [self.events, *self.assisting]

    def free(self) -> Job:
        """Make room for the next job; return the last one."""
        assert self.job is not None
        job = self.job
        self.job, self.events, self.assisting, self.core_seconds = None, None, [], 0.0
        return job


@dataclass(frozen=True)
class Loss:
    """Say why another worker did not do its part: ``reason`` in a line, the whole ``text``, and who is to blame.

    The worker itself where it was ``lost``; else something that the trial raised in it.
    """

    reason: str
    text: str
    lost: bool


def ended_together(end: Event, *, core_seconds: float, losses: Sequence[Loss]) -> Event:
    """Return the end of an attempt with what the other workers have to add to it.

    Args:
        end: What the main worker told.
        core_seconds: CPU seconds of the other workers.
        losses: Of those that did not do their part. The main one mostly hears only that they fell silent.
    """
    if isinstance(end, Finished):
        return replace(end, core_seconds=end.core_seconds + core_seconds)
    if not isinstance(end, Failed):
        return end
    lost = [loss.reason for loss in losses if loss.lost]
    others = dict.fromkeys(loss.reason for loss in losses if loss.reason != end.error)
    return replace(
        end,
        error=f"a worker was lost: {lost[0]}" if lost else "; another process: ".join([end.error, *others]),
        traceback="\n".join([end.traceback, *(loss.text for loss in losses)]),
        lost=bool(lost),
    )
