"""Attempts that were replaced and are heard of all the same: nothing changes."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from orchestrator.execution.executor import Job, Place
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.provenance import collect_provenance
from orchestrator.reports.ablation_table import build_tables
from orchestrator.reports.rendering.markdown_table import render_markdown
from orchestrator.reports.result_files import render_csv
from orchestrator.run import LEDGER_NAME, describe
from orchestrator.scheduling.allocation import Allocator
from orchestrator.scheduling.protocols import SweepCallback
from orchestrator.scheduling.scheduler import Scheduler
from orchestrator.storage.checkpoint_store import CheckpointStore
from orchestrator.sweep.grid import expand
from orchestrator.sweep.loading import load_sweep
from orchestrator.trials.events import Event, Failed, Finished, Logged, Progressed, Pruned, Reported, Started
from orchestrator.trials.records import Cause, State
from orchestrator.trials.resources import ResourceRequest
from orchestrator.trials.trial import Trial

from ..long_run import IS_LONG
from ..orchestrator.plain_slots import PlainSlots
from .harness.finished_sweeps import dump, select
from .harness.killed_sweeps import SHORT

MOMENTS = ("waits again", "is handed out", "has reported", "has ended")
CLOCKED = {"submitted_at", "started_at", "ended_at", "reported_at", "logged_at", "held_s"}


def late(trial_id: str, attempt: int) -> list[Event]:
    """Return an event of every kind of an attempt, each with something that nobody else tells."""
    key = trial_id, attempt
    return [
        Started(*key, worker="late"),
        Progressed(*key, step=99, steps=99, images_per_s=99.0),
        Reported(*key, step=1, metrics={"knn_top1": 99.0}),
        Reported(*key, step=3, metrics={"knn_top1": 99.0}),
        Logged(*key, level="WARNING", text="late"),
        Failed(*key, error="late", traceback="late", seconds=99.0, cause=Cause.NODE),
        Failed(*key, error="late", traceback="late", seconds=99.0),
        Pruned(*key, step=99, seconds=99.0),
        Finished(*key, metrics={"knn_top1": 99.0}, seconds=99.0, core_seconds=99.0),
    ]


class Listener(SweepCallback):
    """Observer and judge: keep what was heard."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def on_event(self, event: Event) -> None:
        self.heard.append(event)

    def on_retry(self, event: Failed, why: str) -> None:  # noqa: ARG002
        self.heard.append(event)

    def on_skip(self, trials: Sequence[Trial], reason: str) -> None:  # noqa: ARG002
        self.heard.append(reason)

    def report(self, trial_id: str, step: int, value: float) -> tuple[str, ...]:
        self.heard.append((trial_id, step, value))
        return ()

    def why(self, trial_id: str) -> str:
        return f"{trial_id} is hopeless"

    def end(self, trial_id: str, state: State) -> None:
        self.heard.append((trial_id, state))


@dataclass
class Scene:
    """Hold a ledger with two trials and what is at work on them."""

    folder: Path
    ledger: Ledger
    trials: Sequence[Trial]
    shares: Allocator
    listener: Listener = field(default_factory=Listener)

    def everything(self) -> dict[str, Any]:
        """Return all that late events could change: ledger, tables, states, what the view and the judge heard."""
        info, records = self.ledger.sweep(), self.ledger.records()
        tables = build_tables(records, info.metrics)
        return {
            "ledger": dump(self.folder),
            "tables": (render_markdown(tables, info), render_csv(tables, info)),
            "states": {path.name: path.read_bytes() for path in self.folder.glob("checkpoints/*")},
            "heard": list(self.listener.heard),
        }

    def run(self, executor: Player) -> None:
        scheduler = Scheduler(
            ledger=self.ledger,
            judge=self.listener,
            judged_metric="knn_top1",
            executor=executor,
            callbacks=[self.listener],
            states=CheckpointStore(self.folder / "checkpoints", every_s=1.0),
            allocator=self.shares,
        )
        assert scheduler.run(self.trials)


class Player(PlainSlots):
    """Play two trials on one slot; the first one's first attempt is lost, and heard of again at some moment."""

    def __init__(self, scene: Scene, moment: str) -> None:
        self.scene = scene
        self.moment = moment
        self.before: dict[str, Any] = {}
        self.after: dict[str, Any] = {}
        self.num_slots = 1
        self._jobs: list[Job] = []
        self._is_free = True
        self._play = self._script()

    def has_room(self, share: ResourceRequest, avoid: frozenset[str] = frozenset()) -> bool:  # noqa: ARG002
        return self._is_free

    def submit(self, job: Job) -> Place:
        self._jobs.append(job)
        self._is_free = False
        return Place()

    def prune(self, _: str, why: str = "") -> None:  # noqa: ARG002
        raise AssertionError("nothing is to be pruned")

    def kill(self, _: str) -> None:
        raise AssertionError("nothing is to be killed")

    def poll(self, _: float) -> Sequence[Event]:
        return next(self._play)

    def close(self) -> None:
        pass

    def _late(self, moment: str, job: Job) -> Iterator[Sequence[Event]]:
        if moment == self.moment:
            self.before = self.scene.everything()
            yield late(job.trial_id, job.attempt)
            self.after = self.scene.everything()

    def _script(self) -> Iterator[Sequence[Event]]:
        first = self._jobs[-1]
        assert first.state is not None
        first.state.location.parent.mkdir(exist_ok=True)
        first.state.location.write_text("state")
        yield [Started(first.trial_id, 1, worker="w:1"), *reported(first, 1)]
        yield [Failed(first.trial_id, 1, error="the node was lost", traceback="", seconds=1.0, cause=Cause.NODE)]
        assert len(self._jobs) == 1
        yield from self._late("waits again", first)
        self._is_free = True
        yield []
        second = self._jobs[-1]
        assert (second.trial_id, second.attempt) == (first.trial_id, 2)
        yield from self._late("is handed out", first)
        yield [Started(second.trial_id, 2, worker="w:2"), *reported(second, 1)]
        yield from self._late("has reported", first)
        yield [*reported(second, 3), *finished(second)]
        self._is_free = True
        yield []
        other = self._jobs[-1]
        assert other.trial_id != first.trial_id
        yield [Started(other.trial_id, 1, worker="w:3")]
        yield from self._late("has ended", first)
        yield from self._late("has ended too", second)
        yield finished(other)


def reported(job: Job, step: int) -> list[Event]:
    return [Reported(job.trial_id, job.attempt, step=step, metrics={"knn_top1": 10.0 * step})]


def finished(job: Job) -> list[Event]:
    return [Finished(job.trial_id, job.attempt, metrics={"knn_top1": 50.0}, seconds=2.0, core_seconds=1.0)]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    yield from scene_in(tmp_path)


def scene_in(folder: Path) -> Iterator[Scene]:
    folder.mkdir(exist_ok=True)
    (folder / "late.yaml").write_text(json.dumps(SHORT.sections))
    sweep = load_sweep(folder / "late.yaml")
    trials = [trial for trial in expand(sweep) if trial.role != "floor"][:2]
    with Ledger.open(folder / LEDGER_NAME) as ledger:
        ledger.register(describe(sweep, trials, {}), trials, collect_provenance())
        yield Scene(folder, ledger, trials, Allocator(sweep.file.resources, {}, remember=ledger.write_resource_floor))


@pytest.mark.parametrize("moment", [*MOMENTS, "has ended too"])
def test_what_a_replaced_attempt_tells_changes_nothing_when_its_trial(moment: str, scene: Scene) -> None:
    player = Player(scene, moment)
    scene.run(player)
    assert player.before
    assert player.after == player.before
    assert [(record.state, record.num_attempts) for record in scene.ledger.records()] == [
        (State.DONE, 2),
        (State.DONE, 1),
    ]


@pytest.mark.parametrize("seed", range(100 if IS_LONG else 8))
def test_what_a_replaced_attempt_tells_in_between_other_events_changes_nothing(seed: int, tmp_path: Path) -> None:
    ends = []
    for name, num_late in (("without", 0), ("with", 40)):
        for scene in scene_in(tmp_path / name):
            scene.run(Interrupted(scene, random.Random(seed), num_late))
            end = scene.everything()
            ends.append({**end, "ledger": unclocked(scene.folder)})
    assert ends[0] == ends[1]


class Interrupted(Player):
    """Play the same, with events of attempts that are over in the midst of any batch."""

    def __init__(self, scene: Scene, draw: random.Random, num_late: int) -> None:
        super().__init__(scene, moment="never")
        self._draw = draw
        self._num_late = num_late
        self._over: list[Event] = []

    def poll(self, _: float) -> Sequence[Event]:
        events = list(super().poll(0.0))
        if self._over:
            for _ in range(self._draw.randint(0, self._num_late)):
                events.insert(self._draw.randint(0, len(events)), self._draw.choice(self._over))
        for event in filter(is_end, tuple(events)):
            self._over += late(event.trial_id, event.attempt)
        return events


def is_end(event: Event) -> bool:
    """Tell whether an event ended an attempt; those that come late ended nothing."""
    return (isinstance(event, Failed) and event.error != "late") or (isinstance(event, Finished) and event.seconds < 99)


def unclocked(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return what a ledger holds without times of day and lengths of time."""
    tables = ("attempts", "reports", "logs", "diagnostics", "skipped", "resource_floors")
    rows = {table: [dict(row) for row in select(folder, f"SELECT * FROM {table}")] for table in tables}
    return {table: [{name: row[name] for name in row.keys() - CLOCKED} for row in rows[table]] for table in tables}
