"""Why a worker has no result: told from the words of Ray's and torch's messages, and merged into one event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

import ray

from orchestrator.execution.executor import Job
from orchestrator.execution.ray_cluster.actor import FailedAttemptError
from orchestrator.trials.events import Event, Failed, Finished
from orchestrator.trials.records import Cause

_TEXTS: tuple[tuple[str, Cause, str], ...] = (
    # A worker that the memory monitor killed is lost "on a node": memory goes first.
    ("running low on memory", Cause.HOST_MEMORY, "Ray's memory monitor, in the raylet"),
    ("memory usage threshold", Cause.HOST_MEMORY, "Ray's memory monitor, in older releases"),
    ("out of memory", Cause.HOST_MEMORY, "ray.exceptions.OutOfMemoryError"),
    ("node has died", Cause.NODE, "Ray's control service, of an actor"),
    ("node died", Cause.NODE, "Ray's raylet, of the owner of a worker"),
    ("node is dead", Cause.NODE, "Ray's core worker, of a connection"),
    ("node was preempted", Cause.NODE, "Ray's control service, of an actor; its core worker, of a task"),
    ("the node it ran on", Cause.NODE, "Ray, in older releases"),
    ("node is being drained", Cause.NODE, "Ray, in older releases"),
    ("not schedulable", Cause.NODE, "ray.exceptions.ActorUnschedulableError: the node was chosen just before it went"),
    ("connection", Cause.WORKER, "gloo: 'Connection closed by peer'; sockets: 'connection reset by peer'"),
    ("broken pipe", Cause.WORKER, "sockets"),
    ("timed out", Cause.WORKER, "gloo: 'Timed out waiting'; torch's stores: 'socket has timed out'"),
    ("timeout", Cause.WORKER, "torch's stores: 'wait timeout after 300000ms'"),
    ("remote process exited", Cause.WORKER, "NCCL"),
    ("network error", Cause.WORKER, "NCCL"),
)
"""What a message contains, in lower case, the cause that it tells of, and who writes so.

Of a worker's loss the first of Ray's texts counts; torch's are what its peers raise when a worker falls silent.
"""

_PEER_ERRORS = ("RuntimeError", "ConnectionError", "ConnectionResetError", "BrokenPipeError", "TimeoutError")
"""What a lost peer raises: RuntimeError is gloo's; torch adds DistStoreError, DistNetworkError, DistBackendError."""


def cause_of_loss(text: str) -> Cause:
    """Return why a worker ended, by Ray's words."""
    lower = text.lower()
    return next((cause for part, cause, _ in _TEXTS if part in lower), Cause.WORKER)


def is_connection_error(reason: str) -> bool:
    """Return whether ``ERROR: text`` tells of no more than a silent peer."""
    kind, _, text = reason.partition(":")
    is_kind = kind in _PEER_ERRORS or kind.startswith("Dist")
    return is_kind and any(part in text.lower() for part, cause, _ in _TEXTS if cause is Cause.WORKER)


def is_raised(error: Exception) -> bool:
    """Return whether a task has raised the error, so that its process still runs."""
    return isinstance(error, ray.exceptions.RayTaskError)


def event_of(error: Exception) -> Failed | None:
    """Return the last event of an attempt that failed by itself; None if it was lost."""
    cause = getattr(error, "cause", None)
    return cause.event if isinstance(cause, FailedAttemptError) else None


def reason_of(error: Exception) -> str:
    """Return in a line why a task has no result: what it raised, or how its process ended."""
    raised = getattr(error, "cause", None)
    text = f"{type(raised).__name__}: {raised}" if isinstance(raised, Exception) else str(error)
    return text.strip().splitlines()[0] if text.strip() else type(error).__name__


def lost_attempt(job: Job, error: str, cause: Cause, traceback: str = "") -> Failed:
    """Return the end of an attempt whose main worker sends no more events."""
    return Failed(job.trial_id, job.attempt, error=error, traceback=traceback, cause=cause)


class ExitKind(Enum):
    """How another worker came not to do its part."""

    LOST = "its process ended"
    SILENT = "it does not answer"
    RAISED = "the trial raised something in it"


@dataclass(frozen=True)
class WorkerLoss:
    """Another worker that did not do its part: the ``reason`` in a line, the whole ``text``, and how it ended."""

    reason: str
    text: str
    kind: ExitKind

    @classmethod
    def of(cls, error: Exception) -> WorkerLoss:
        """Return the loss that an error of Ray's tells of."""
        return cls(reason_of(error), str(error), ExitKind.RAISED if is_raised(error) else ExitKind.LOST)


SILENT_WORKER = WorkerLoss(ExitKind.SILENT.value, "", ExitKind.SILENT)
"""The loss of a worker that has neither ended nor raised."""


def merge_outcomes(end: Event, *, core_seconds: float, losses: Sequence[WorkerLoss]) -> Event:
    """Return the end of an attempt with what the other workers have to add to it.

    Args:
        end: The main worker's last event.
        core_seconds: CPU seconds of the other workers.
        losses: Of those that did not do their part. The main one mostly raises only that they fell silent. One that
            is silent itself was lost if the main one tells of nothing else; else it may well wait for the main one,
            whose error is the cause.
    """
    if isinstance(end, Finished):
        return replace(end, core_seconds=end.core_seconds + core_seconds)
    if not isinstance(end, Failed):
        return end
    is_peer_lost = is_connection_error(end.error)
    reasons = {kind: [loss.reason for loss in losses if loss.kind is kind] for kind in ExitKind}
    raised = [reason for reason in reasons[ExitKind.RAISED] if reason != end.error and not is_connection_error(reason)]
    lost = reasons[ExitKind.LOST] or (reasons[ExitKind.SILENT] if is_peer_lost and not raised else [])
    if lost:
        error = f"a worker was lost: {lost[0]}" + ("" if is_peer_lost else f"; the main process: {end.error}")
    else:
        error = "; another process: ".join([end.error, *dict.fromkeys([*raised, *reasons[ExitKind.SILENT]])])
    return replace(
        end,
        error=error,
        traceback="\n".join([end.traceback, *(loss.text for loss in losses)]),
        cause=Cause.WORKER if lost else end.cause,
    )
