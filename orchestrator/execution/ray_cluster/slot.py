"""A slot of an executor: the processes that work on one job, and how their ends become one event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from orchestrator.execution.capacity import Placement
from orchestrator.execution.executor import Job
from orchestrator.trials.events import Event, Failed, Finished
from orchestrator.trials.records import Cause
from orchestrator.trials.resources import WHOLE_CORE, ResourceRequest


@dataclass
class Slot:
    """Hold the workers of a slot and what they are at.

    Attributes:
        share: What a job occupies on it.
        places: Where its workers are, one for each process.
        workers: The main one first, which runs the attempt; the others assist.
        placement: What holds room for several workers; None for a single one.
        hosts: To come: the addresses of several workers' machines.
        job: What is run; None = the slot is free.
        events: To come: the events of the job.
        assisting: To come, of each other worker that has not done its part: its CPU seconds.
        core_seconds: CPU seconds of the other workers that have.
        is_leaving: Whether one of its machines is about to go, so that it takes no other job.
    """

    share: ResourceRequest = WHOLE_CORE
    places: tuple[Placement, ...] = ()
    workers: list[Any] = field(default_factory=list)
    placement: Any = None
    hosts: list[Any] = field(default_factory=list)
    job: Job | None = None
    events: Any = None
    assisting: list[Any] = field(default_factory=list)
    core_seconds: float = 0.0
    is_leaving: bool = False

    @property
    def awaited(self) -> list[Any]:
        """Return all that is to come."""
        return [] if self.job is None else [self.events, *self.assisting]

    @property
    def node_ids(self) -> frozenset[str]:
        """Return the ids of its nodes."""
        return frozenset(place.node_id for place in self.places)

    def free(self) -> Job:
        """Make room for the next job; return the last one."""
        assert self.job is not None
        job = self.job
        self.job, self.events, self.assisting, self.core_seconds = None, None, [], 0.0
        return job


def lost(job: Job, error: str, cause: Cause) -> Failed:
    """Return the end of an attempt that nothing more will be heard of."""
    return Failed(job.trial_id, job.attempt, error=error, traceback="", cause=cause)


_NODE_TEXTS = (
    *("node has died", "node died", "node is dead", "the node it ran on", "node was preempted"),
    *("node is being drained", "not schedulable"),  # the second is what is said of a node that was chosen just before
)
_MEMORY_TEXTS = ("running low on memory", "out of memory", "memory usage threshold")


def cause_of_loss(text: str) -> Cause:
    """Tell from Ray's words why a worker ended."""
    lower = text.lower()
    if any(part in lower for part in _MEMORY_TEXTS):
        return Cause.HOST_MEMORY
    return Cause.NODE if any(part in lower for part in _NODE_TEXTS) else Cause.WORKER


def reason_of(error: Exception) -> str:
    """Say in a line why a task has no result: what it raised, or how its process ended."""
    raised = getattr(error, "cause", None)
    text = f"{type(raised).__name__}: {raised}" if isinstance(raised, Exception) else str(error)
    return text.strip().splitlines()[0] if text.strip() else type(error).__name__


_MESSAGE_ERRORS = ("RuntimeError", "ConnectionError", "ConnectionResetError", "BrokenPipeError", "TimeoutError")
_MESSAGE_TEXTS = ("connection", "broken pipe", "timed out", "timeout", "remote process exited", "network error")


def is_connection_error(reason: str) -> bool:
    """Tell whether ``ERROR: text`` says no more than that another process was not heard of."""
    kind, _, text = reason.partition(":")
    # torch has RuntimeError of gloo, and DistStoreError, DistNetworkError, DistBackendError.
    is_kind = kind in _MESSAGE_ERRORS or kind.startswith("Dist")
    return is_kind and any(part in text.lower() for part in _MESSAGE_TEXTS)


class ExitKind(Enum):
    """Say how another worker came not to do its part."""

    LOST = "its process ended"
    SILENT = "it does not answer"
    RAISED = "the trial raised something in it"


@dataclass(frozen=True)
class WorkerLoss:
    """Say why another worker did not do its part: ``reason`` in a line, the whole ``text``, and its fate."""

    reason: str
    text: str
    fate: ExitKind


def merge_outcomes(end: Event, *, core_seconds: float, losses: Sequence[WorkerLoss]) -> Event:
    """Return the end of an attempt with what the other workers have to add to it.

    Args:
        end: What the main worker told.
        core_seconds: CPU seconds of the other workers.
        losses: Of those that did not do their part. The main one mostly hears only that they fell silent. One that
            is silent itself was lost if that is all that the main one tells; else it may well wait for the main one,
            whose error is the cause.
    """
    if isinstance(end, Finished):
        return replace(end, core_seconds=end.core_seconds + core_seconds)
    if not isinstance(end, Failed):
        return end
    is_heard = is_connection_error(end.error)
    reasons = {fate: [loss.reason for loss in losses if loss.fate is fate] for fate in ExitKind}
    raised = [reason for reason in reasons[ExitKind.RAISED] if reason != end.error and not is_connection_error(reason)]
    lost = reasons[ExitKind.LOST] or (reasons[ExitKind.SILENT] if is_heard and not raised else [])
    if lost:
        error = f"a worker was lost: {lost[0]}" + ("" if is_heard else f"; the main process: {end.error}")
    else:
        error = "; another process: ".join([end.error, *dict.fromkeys([*raised, *reasons[ExitKind.SILENT]])])
    return replace(
        end,
        error=error,
        traceback="\n".join([end.traceback, *(loss.text for loss in losses)]),
        cause=Cause.WORKER if lost else end.cause,
    )
