"""The seam where trials are executed: what the scheduler sends, and what comes back.

The scheduler talks to an ``Executor``; Ray serves users, the calling process serves tests. What comes back
is a stream of events, each a value: a trial that raises is an event too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from orchestrator.storage.remote_folder import RemoteFolder
from orchestrator.trials.records import Cause, State
from specvit.config import TrialConfig
from specvit.diagnostics.measurement import Reading


@dataclass(frozen=True)
class StateFile:
    """Say where a trial's state is kept while it trains, and how many seconds lie between two times of saving.

    Attributes:
        path: The file.
        every_s: Seconds between two times of saving.
        url: Where the state is shared if machines have no folder in common; workers then keep a copy of their own,
            and of ``path`` only the name counts. Empty = ``path`` is shared.
    """

    path: Path
    every_s: float
    url: str = ""


@dataclass(frozen=True)
class Share:
    """Say what one trial occupies, on one machine or, with several processes, on several.

    Attributes:
        cpus: CPU cores of each process.
        gpus: GPUs of each process; below 1, a share of one.
        processes: Processes that train the trial together.
        memory_gib: Memory of the machine that each process reserves, in GiB; 0 = none is reserved.
        custom: Ray's custom resources, by name, of each process.
        labels: Labels that a machine must have, by Ray's label selectors.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    processes: int = 1
    memory_gib: float = 0.0
    custom: tuple[tuple[str, float], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()


WHOLE_CORE = Share()
"""One core of any machine."""


@dataclass(frozen=True)
class Job:
    """Hold one attempt at a trial.

    Attributes:
        trial_id: The trial.
        attempt: Number of the attempt, from 1.
        label: The name it carries on the dashboard and in the terminal.
        config: What is computed.
        state: Where the attempt keeps its state, and goes on from that of the attempt before; None = nowhere.
        weights: Folder that keeps the trained weights, a path or at a URL; None = they are not kept.
        share: What it occupies.
    """

    trial_id: str
    attempt: int
    label: str
    config: TrialConfig
    state: StateFile | None = None
    weights: Path | RemoteFolder | None = None
    share: Share = WHOLE_CORE


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
class Logged(Event):
    """Carry what the attempt's code logged or warned of: ``level`` as ``logging`` names it, and the ``text``."""

    level: str
    text: str


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
    """Tell what ended the attempt: ``error`` in one line, the whole ``traceback``, and the ``cause``."""

    error: str
    traceback: str
    seconds: float = field(default=0.0)
    cause: Cause = Cause.RAISED


END_STATES: Mapping[type[Event], State] = {
    Finished: State.DONE,
    Pruned: State.PRUNED,
    Failed: State.FAILED,
}
"""The events that end an attempt, and where they leave its trial."""


@dataclass(frozen=True)
class Machine:
    """Say of a machine how much memory can be reserved there, in GiB (0 = none), and how many trials run on it."""

    memory_gib: float = 0.0
    num_trials: int = 1


class Executor(Protocol):
    """Run jobs somewhere. Not thread safe: the scheduler's loop is its only caller."""

    @property
    def num_slots(self) -> int:
        """Return how many jobs can run at once, as things are now."""

    def has_room(self, share: Share) -> bool:
        """Tell whether a job that occupies ``share`` could start now."""

    def machine(self, share: Share) -> Machine:
        """Return what a machine is like on which jobs run that occupy ``share`` each."""

    def submit(self, job: Job) -> None:
        """Start ``job``; the caller has seen to it that there is room."""

    def prune(self, trial_id: str) -> None:
        """Ask the running trial to stop before its next step; returns at once."""

    def kill(self, trial_id: str) -> None:
        """End the running trial at once, whatever it does; nothing more is heard of its attempt."""

    def poll(self, timeout_s: float) -> Sequence[Event]:
        """Return the events since the last call, waiting up to ``timeout_s`` for the first one."""

    def close(self) -> None:
        """Stop what runs and free what was taken; safe to call twice."""
