"""Events of an attempt while it runs, each a value: a trial that raises is an event too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.trials.records import Cause, State
from specvit.diagnostics.measurement import Measurement
from specvit.kept_weights import WeightsFile
from specvit.training.cost import TrainingCost


@dataclass(frozen=True)
class Event:
    """What every event has: the attempt that it speaks of."""

    trial_id: str
    attempt: int


@dataclass(frozen=True)
class Started(Event):
    """A worker has started the attempt, pending so far, on a ``device``: kind and name, empty if it is not known."""

    worker: str
    device: str = ""


@dataclass(frozen=True)
class Progressed(Event):
    """How far the attempt is: ``step`` of ``steps``, at ``images_per_s``."""

    step: int
    steps: int
    images_per_s: float


@dataclass(frozen=True)
class Reported(Event):
    """The metrics of a rung."""

    step: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Logged(Event):
    """A line that the attempt's code logged, or a warning: ``level`` as ``logging`` names it, and the ``text``."""

    level: str
    text: str


@dataclass(frozen=True)
class Finished(Event):
    """The results of a trial that ran to its end. ``core_seconds`` is CPU time, ``seconds`` wall time.

    Both count also what attempts before it took, up to the states that it resumed. ``cost`` is that of the training
    alone, None if there was none. ``weights`` are the files that were kept, with paths below the folder of weights.
    """

    metrics: Mapping[str, float]
    seconds: float
    core_seconds: float
    diagnostics: tuple[Measurement, ...] = ()
    cost: TrainingCost | None = None
    weights: tuple[WeightsFile, ...] = ()


@dataclass(frozen=True)
class Pruned(Event):
    """The attempt obeyed a prune command at ``step``; ``why`` says what the command was given for, if that is known."""

    step: int
    seconds: float
    why: str = ""


@dataclass(frozen=True)
class Failed(Event):
    """The failure that ended the attempt: ``error`` in one line, the whole ``traceback``, and the ``cause``."""

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
