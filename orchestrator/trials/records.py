"""What the ledger gives back: one frozen record per trial, from which every table and view is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from orchestrator.trials.computation import Computation
from orchestrator.trials.trial import TrialInfo
from specvit.kept_weights import WeightsFile
from specvit.training.cost import TrainingCost

UNKNOWN = Computation()
"""Of an attempt of which it was not recorded what computed it."""


class State(StrEnum):
    """Where a trial stands."""

    WAITING = "waiting"
    PENDING = "pending"
    """It was given a place, but no worker has started on it: others may hold what it takes."""
    RUNNING = "running"
    DONE = "done"
    PRUNED = "pruned"
    FAILED = "failed"
    SKIPPED = "left out"
    """It waits, but the sweep's budget has no room for it."""


class Cause(StrEnum):
    """Why an attempt failed, which decides what is done about it."""

    RAISED = "raised"
    """The trial raised an exception that may be its own; another attempt resumes the saved state, until it is the same
    exception again."""
    IO = "io"
    """A file, a store or a connection failed; another attempt resumes the saved state."""
    DEVICE = "device"
    """A GPU or its driver failed; likewise."""
    DIVERGED = "diverged"
    """A number of the training is not finite; it would be so again."""
    INVALID = "invalid"
    """The configuration or the data cannot be used; likewise."""
    GPU_MEMORY = "gpu_memory"
    """The memory of its share of a GPU ran out; another attempt gets a larger share."""
    HOST_MEMORY = "host_memory"
    """The memory of its machine ran out; likewise."""
    WORKER = "worker"
    """Its process ended; another attempt resumes the saved state."""
    STALLED = "stalled"
    """It made no progress, and was killed; likewise."""
    NODE = "node"
    """Its machine, or the cluster, was lost, which says nothing of the trial; likewise, as often as it takes."""


WHY_NOT_AGAIN: Mapping[Cause, str] = {
    Cause.DIVERGED: "it would diverge again",
    Cause.INVALID: "the configuration or the data have to change first",
}
"""Causes of failures that are not tried again, and why not, human-readable."""

DECIDED = "its arm was decided, or stopped as futile, by fewer seeds"
"""Why a trial is left out that a sweep whose seeds grow does not need."""

WITHOUT_WEIGHTS = "its training is on record, its weights are not; --retrain trains it again"
"""Why a trial is left out whose new probes have nothing to look at."""


@dataclass(frozen=True)
class Report:
    """The metrics of one rung, reported at optimizer step ``step``."""

    step: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class TrialUsage:
    """What all attempts at a trial took, those that came to nothing among them.

    Attributes:
        attempts: How many there were.
        held_s: Seconds for which they held what they ran on.
        gpu_s: The same times their GPUs.
        troubles: How an attempt ended that did not count to how often: a cause of failures, or ``lost``.
    """

    attempts: int
    held_s: float
    gpu_s: float
    troubles: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class TrialRecord:
    """A trial with all that its ledger knows of it. Results are those of its newest attempt.

    Attributes:
        trial: Its place in the table.
        state: Where it stands.
        num_attempts: How often it was started.
        reports: Rungs of the newest attempt, by step.
        metrics: Final metrics; empty unless the trial is done.
        steps: Optimizer steps of the whole trial, or None before the first sign of progress.
        step: The last step reported.
        cause: Why its newest attempt failed, or None.
        skip_reason: Why it is left out, e.g. which budget has no room for it, or None.
        computation: What computed its newest attempt.
        seconds: Wall time of the attempt that ended it, and of those before whose states it resumed, or None.
        core_seconds: CPU time, likewise.
        cost: What its training took; None if it had none, is not done, or it was not recorded.
        weights: The files of its trained weights that are kept, with paths below the folder of weights.
        trained_by: The trial whose training its result rests on; None = its own.
        added_later: Names of the metrics that were measured after that trial was done, on its kept weights.
        error: One line on why it failed or was pruned, or None.
        traceback: The whole traceback of the failure, or None.
    """

    trial: TrialInfo
    state: State
    num_attempts: int = 0
    reports: tuple[Report, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    steps: int | None = None
    step: int = 0
    seconds: float | None = None
    core_seconds: float | None = None
    cost: TrainingCost | None = None
    error: str | None = None
    traceback: str | None = None
    cause: Cause | None = None
    skip_reason: str | None = None
    computation: Computation = UNKNOWN
    weights: tuple[WeightsFile, ...] = ()
    trained_by: str | None = None
    added_later: frozenset[str] = frozenset()
