"""A scheduler whose trials are played by scripts, a letter a virtual second."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.execution.executor import Job, Machine, Place
from orchestrator.ledger.ledger import Ledger
from orchestrator.scheduling.allocation import Allocator
from orchestrator.scheduling.budget import Budget
from orchestrator.scheduling.durations import TrialDurations
from orchestrator.scheduling.protocols import SweepCallback
from orchestrator.scheduling.scheduler import Scheduler
from orchestrator.storage.checkpoint_store import CheckpointStore
from orchestrator.storage.command_inbox import Command
from orchestrator.sweep.resolved import Limits
from orchestrator.sweep.resource_settings import Resources
from orchestrator.trials.events import (
    END_STATES,
    Event,
    Failed,
    Finished,
    Logged,
    Progressed,
    Pruned,
    Reported,
    Started,
)
from orchestrator.trials.records import Cause, State
from orchestrator.trials.resources import ResourceRequest
from orchestrator.trials.trial import Trial

from ..conftest import Clock
from ..plain_slots import PlainSlots

_ENDS: dict[str, Cause] = {
    "X": Cause.RAISED,
    "E": Cause.RAISED,
    "O": Cause.IO,
    "C": Cause.DEVICE,
    "D": Cause.DIVERGED,
    "I": Cause.INVALID,
    "G": Cause.GPU_MEMORY,
    "H": Cause.HOST_MEMORY,
    "W": Cause.WORKER,
    "N": Cause.NODE,
}


def make_event(letter: str, job: Job, position: int) -> Event | None:
    """Make the event that a letter of a script stands for; ``.`` is silence.

    ``s`` starts, ``p`` progresses, ``r`` reports a rung at step 2, ``l`` logs a line, ``F`` finishes, and a cause's
    letter fails: raised ``X``, and always the same ``E``, I/O ``O``, device ``C``, diverged ``D``, invalid ``I``, GPU
    memory ``G``, host memory ``H``, worker ``W``, node ``N``.
    """
    key = (job.trial_id, job.attempt)
    match letter:
        case ".":
            return None
        case "s":
            return Started(*key, worker="node:1")
        case "p":
            return Progressed(*key, step=position, steps=100, images_per_s=10.0)
        case "r":
            return Reported(*key, step=2, metrics={"knn_top1": 30.0})
        case "l":
            return Logged(*key, level="WARNING", text=f"line {position}")
        case "F":
            return Finished(*key, metrics={"knn_top1": 50.0}, seconds=float(position), core_seconds=1.0)
    text = letter if letter in "EOC" else f"{letter} {job.attempt}"
    return Failed(*key, error=text, traceback=f"trace of {text}", cause=_ENDS[letter])


class ScriptedExecutor(PlainSlots):
    """Play scripts, a letter of each running job with every poll, which takes a second of a clock of its own.

    A job has room where ``num_slots`` allow it and its share of the ``gpus`` is free.
    """

    def __init__(
        self,
        clock: Clock,
        scripts: Mapping[str, Sequence[str]],
        *,
        num_slots: int,
        gpus: float,
        machine: Machine,
        deaf: set[str],
        late: dict[int, list[Event]],
    ) -> None:
        self.num_slots = num_slots
        self.jobs: list[Job] = []
        self.pruned: list[str] = []
        self.killed: list[str] = []
        self.others = ""
        self._deaf, self._late = deaf, late
        self._begun_s = clock.now_s
        self._clock = clock
        self._scripts = scripts
        self._gpus = gpus
        self._machine = machine
        self._playing: dict[str, tuple[Job, str, int]] = {}
        self._why: dict[str, str] = {}

    @property
    def running(self) -> list[str]:
        return list(self._playing)

    def has_room(self, share: ResourceRequest, avoid: frozenset[str] = frozenset()) -> bool:  # noqa: ARG002
        taken = sum(job.share.gpus * job.share.processes for job, _, _ in self._playing.values())
        return len(self._playing) < self.num_slots and taken + share.gpus * share.processes <= self._gpus

    def held_by_others(self) -> str:
        return self.others

    def machine(self, share: ResourceRequest) -> Machine:  # noqa: ARG002
        return self._machine

    def submit(self, job: Job) -> Place:
        assert self.has_room(job.share)
        assert job.trial_id not in self._playing
        scripts = self._scripts.get(job.trial_id, ["spF"])
        self.jobs.append(job)
        self._playing[job.trial_id] = job, scripts[min(job.attempt, len(scripts)) - 1], 0
        return Place()

    def prune(self, trial_id: str, why: str = "") -> None:
        self.pruned.append(trial_id)
        self._why[trial_id] = why

    def kill(self, trial_id: str) -> None:
        self.killed.append(trial_id)
        del self._playing[trial_id]

    def poll(self, timeout_s: float) -> Sequence[Event]:  # noqa: ARG002
        self._clock.now_s += 1.0
        events = list(self._late.get(round(self._clock.now_s - self._begun_s), ()))
        for trial_id, (job, script, position) in list(self._playing.items()):
            letter = script[position] if position < len(script) else "."
            self._playing[trial_id] = job, script, position + 1
            event = make_event(letter, job, position)
            if trial_id in self.pruned and not isinstance(event, Failed) and trial_id not in self._deaf:
                event = Pruned(
                    trial_id, job.attempt, step=position, seconds=float(position), why=self._why[trial_id]
                )
            if event is not None:
                events.append(event)
            if type(event) in END_STATES:
                del self._playing[trial_id]
                self.pruned = [pruned for pruned in self.pruned if pruned != trial_id]
        return events

    def close(self) -> None:
        pass


class Stage(SweepCallback):
    """Run a real scheduler on a real ledger with scripted trials, and keep what observer and judge heard."""

    def __init__(self, ledger: Ledger, trials: Sequence[Trial], clock: Clock) -> None:
        self.ledger, self.trials, self.clock = ledger, trials, clock
        self.heard: list[Event] = []
        self.again: list[tuple[Failed, str]] = []
        self.left: list[tuple[list[str], str]] = []
        self.ends: list[tuple[str, State]] = []
        self.submissions: list[str] = []
        self.hopeless: set[str] = set()
        self.on_record: list[bool] = []
        """Whether what observer and judge heard of was in the file at that moment."""
        self.orders: dict[int, list[Command]] = {}
        """Orders by the number of seconds since the start of the run."""
        self.late: dict[int, list[Event]] = {}
        """Events of whatever attempt, that come beside those of the scripts; likewise."""
        self.deaf: set[str] = set()
        """Trials that do not obey an order to stop."""
        self.held_by_others = ""

    def run(
        self,
        scripts: Mapping[Trial, Sequence[str]] | None = None,
        *,
        trials: Sequence[Trial] | None = None,
        num_slots: int = 1,
        gpus: float = 0.0,
        machine: Machine | None = None,
        limits: Limits | None = None,
        resources: Mapping[str, Any] | None = None,
        seconds_at_most: int = 200,
        states: CheckpointStore | None = None,
    ) -> bool:
        limits = limits or Limits()
        by_id = {trial.trial_id: texts for trial, texts in (scripts or {}).items()}
        self.executor = ScriptedExecutor(
            self.clock,
            by_id,
            num_slots=num_slots,
            gpus=gpus,
            machine=machine or Machine(),
            deaf=self.deaf,
            late=self.late,
        )
        self.executor.others = self.held_by_others
        begun_s = self.clock.now_s

        def orders() -> Sequence[Command]:
            return self.orders.pop(round(self.clock.now_s - begun_s), ())

        def is_too_long() -> bool:
            return self.clock.now_s - begun_s > seconds_at_most

        self.scheduler = Scheduler(
            ledger=self.ledger,
            judge=self,
            judged_metric="knn_top1",
            executor=self.executor,
            callbacks=[self],
            states=states,
            allocator=Allocator(
                Resources(**(resources or {})),
                self.ledger.resource_floors(),
                remember=self.ledger.write_resource_floor,
            ),
            limits=limits,
            budget=Budget(limits, clock=self.clock, gpu_hours_used=self.ledger.gpu_hours()),
            durations=TrialDurations(self.ledger.records()),
            trials_by_id={trial.trial_id: trial for trial in self.trials},
            commands=orders,
            should_stop=is_too_long,
            clock=self.clock,
        )
        return self.scheduler.run(self.trials if trials is None else trials)

    def states_of(self, *trials: Trial) -> list[State]:
        states = {record.trial.trial_id: record.state for record in self.ledger.records()}
        return [states[trial.trial_id] for trial in trials or self.trials]

    def attempts(self, trial: Trial) -> list[Any]:
        """Return what is on record of every attempt at a trial, in their order."""
        with sqlite3.connect(f"file:{self.ledger.path}?mode=ro", uri=True) as connection:
            connection.row_factory = sqlite3.Row
            query = "SELECT * FROM attempts WHERE trial_id = ? ORDER BY attempt"
            return connection.execute(query, (trial.trial_id,)).fetchall()

    def on_submit(self, trial: Trial) -> None:
        self.submissions.append(trial.trial_id)
        self.on_record.append(self.attempts(trial)[-1]["state"] in ("running", "pruned"))

    def on_event(self, event: Event) -> None:
        self.heard.append(event)
        if type(event) in END_STATES:
            trial = next(trial for trial in self.trials if trial.trial_id == event.trial_id)
            self.on_record.append(self.attempts(trial)[event.attempt - 1]["state"] == END_STATES[type(event)])

    def on_retry(self, event: Failed, why: str) -> None:
        self.again.append((event, why))
        trial = next(trial for trial in self.trials if trial.trial_id == event.trial_id)
        self.on_record.append(self.attempts(trial)[event.attempt - 1]["state"] == "failed")

    def on_skip(self, trials: Sequence[Trial], reason: str) -> None:
        self.left.append(([trial.trial_id for trial in trials], reason))

    def report(self, trial_id: str, step: int, value: float) -> Sequence[str]:  # noqa: ARG002
        return [trial_id] if trial_id in self.hopeless else []

    def why(self, trial_id: str) -> str:
        return f"{trial_id} is hopeless"

    def end(self, trial_id: str, state: State) -> None:
        self.ends.append((trial_id, state))

    def exempt(self, trial_id: str) -> None:
        pass


@pytest.fixture
def stage(ledger: Ledger, trials: tuple[Trial, ...], clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Run a scheduler with scripted trials; the ledger goes by the same clock as the scheduler."""
    monkeypatch.setattr("orchestrator.ledger.progress_buffer.time", SimpleNamespace(monotonic=clock))
    return Stage(ledger, trials, clock)
