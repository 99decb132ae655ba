"""The seam where trials are executed: what the scheduler sends, and what comes back.

The scheduler talks to an ``Executor``; Ray serves users, the calling process serves tests. What comes back
is a stream of events, each a value: a trial that raises is an event too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from orchestrator.records import State
from specvit.config import TrialConfig
from specvit.readings import Reading


@dataclass(frozen=True)
class StateFile:
    """Say where a trial's state is kept while it trains, and how many seconds lie between two times of saving."""

    path: Path
    every_s: float


@dataclass(frozen=True)
class Job:
    """Hold one attempt at a trial.

    Attributes:
        trial_id: The trial.
        attempt: Number of the attempt, from 1.
        label: The name it carries on the dashboard and in the terminal.
        config: What is computed.
        state: Where the attempt keeps its state, and goes on from that of the attempt before; None = nowhere.
        weights: Folder that keeps the trained weights; None = they are not kept.
    """

    trial_id: str
    attempt: int
    label: str
    config: TrialConfig
    state: StateFile | None = None
    weights: Path | None = None


@dataclass(frozen=True)
class Event:
    """Hold what every event has: the attempt that it speaks of."""

    trial_id: str
    attempt: int


@dataclass(frozen=True)
class Started(Event):
    """Tell that a worker has taken the attempt up."""

    worker: str


@dataclass(frozen=True)
class Progressed(Event):
    """Tell how far the attempt is: ``step`` of ``steps``, at ``images_per_s``."""

    step: int
    steps: int
    images_per_s: float


@dataclass(frozen=True)
class Reported(Event):
    """Carry the metrics of a rung."""

    step: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Finished(Event):
    """Carry the results of a trial that ran to its end. ``core_seconds`` is CPU time, ``seconds`` wall time.

    Both count also what attempts before it took, up to the states that it went on from.
    """

    metrics: Mapping[str, float]
    seconds: float
    core_seconds: float
    diagnostics: tuple[Reading, ...] = ()


@dataclass(frozen=True)
class Pruned(Event):
    """Tell that the attempt obeyed a prune order at ``step``."""

    step: int
    seconds: float


@dataclass(frozen=True)
class Failed(Event):
    """Carry the exception that ended the attempt: ``error`` in one line, and the whole ``traceback``.

    Where a worker was ``lost``, the trial itself is not to blame, and another attempt may go on from its state.
    """

    error: str
    traceback: str
    seconds: float = field(default=0.0)
    lost: bool = False


END_STATES: Mapping[type[Event], State] = {
    Finished: State.DONE,
    Pruned: State.PRUNED,
    Failed: State.FAILED,
}
"""The events that end an attempt, and where they leave its trial."""


class Executor(Protocol):
    """Run jobs somewhere. Not thread safe: the scheduler's loop is its only caller."""

    @property
    def num_slots(self) -> int:
        """Return how many jobs can run at once."""

    def submit(self, job: Job) -> None:
        """Start ``job`` in a free slot; the caller sees to it that there is one."""

    def prune(self, trial_id: str) -> None:
        """Ask the running trial to stop before its next step; returns at once."""

    def poll(self, timeout_s: float) -> Sequence[Event]:
        """Return the events since the last call, waiting up to ``timeout_s`` for the first one."""

    def close(self) -> None:
        """Stop what runs and free what was taken; safe to call twice."""
