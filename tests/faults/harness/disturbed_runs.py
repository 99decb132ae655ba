"""Runs of sweeps on Ray while workers and nodes are lost, and what must hold of the ledgers that they leave."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from orchestrator.execution.executor import Executor, Job, Machine, Place
from orchestrator.execution.local import LocalExecutor
from orchestrator.execution.ray_cluster.executor import RayExecutor
from orchestrator.run import LEDGER_NAME, Datasets, Outcome, load_datasets, run_sweep
from orchestrator.scheduling.protocols import SweepCallback
from orchestrator.sweep.grid import expand
from orchestrator.sweep.loading import load_sweep
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.events import END_STATES, Event, Failed, Progressed, Started
from orchestrator.trials.resources import ResourceRequest
from orchestrator.trials.trial import Trial

from ...measured_columns import MEASURED
from ...waiting import LIMIT_S, PATIENCE_S, wait_for
from . import stand_in
from .stand_in import RUNGS, StandIn

FILE: dict[str, object] = {
    "data": {"source": "scenes", "num_train": 64, "num_val": 32},
    "objective": {"recipe": "dinov2_cpu", "steps": stand_in.STEPS, "batch_size": 8},
    "probes": {"knn": {}},
    "rungs": {"count": 2, "num_images": 32},
    "ablate": {"components": ["none", "norm"]},
    "floors": [],
    "checkpoint_every_s": 1e-4,
    "checkpoint_max_share": 1,
}
"""A sweep whose trials save their states after every step."""


def write_sweep(folder: Path, **changes: object) -> Path:
    """Write a sweep's file; JSON is YAML."""
    path = folder / "disturbed.yaml"
    path.write_text(json.dumps(FILE | changes))
    return path


def make_sweep(folder: Path, **changes: object) -> Sweep:
    """Write a sweep's file and read it."""
    return load_sweep(write_sweep(folder, **changes))


class Watcher(SweepCallback):
    """An observer of a run: keep the events, and do what is to be done when something happens."""

    def __init__(
        self,
        on_event: Callable[[Event], object] = lambda _: None,
        on_tick: Callable[[], object] = lambda: None,
    ) -> None:
        self._on_event, self._on_tick = on_event, on_tick
        self.events: list[Event] = []
        self.again: list[tuple[Failed, str]] = []
        self.running: dict[str, int] = {}
        self.pids: set[int] = set()
        self.attempts: set[tuple[str, int]] = set()
        self.wants_to_stop = False
        self._begun_s = time.monotonic()

    def on_event(self, event: Event) -> None:
        """Hear of an event."""
        self.events.append(event)
        if isinstance(event, Started):
            self.running[event.trial_id] = pid_of(event)
            self.pids.add(pid_of(event))
            self.attempts.add((event.trial_id, event.attempt))
        elif type(event) in END_STATES:
            self._ended(event)
        self._on_event(event)

    def on_retry(self, event: Failed, why: str) -> None:
        """Hear that a trial will be tried again."""
        self.events.append(event)
        self.again.append((event, why))
        self._ended(event)

    def _ended(self, event: Event) -> None:
        self.running.pop(event.trial_id, None)
        self.attempts.discard((event.trial_id, event.attempt))

    def on_tick(self) -> None:
        """Hear that time has passed."""
        assert time.monotonic() - self._begun_s < LIMIT_S, f"only {self.events[-20:]}"
        self._on_tick()

    def steps(self, trial_id: str, attempt: int) -> list[int]:
        """Return the steps that were heard of in an attempt, in order."""
        heard = (e for e in self.events if isinstance(e, Progressed))
        return [event.step for event in heard if (event.trial_id, event.attempt) == (trial_id, attempt)]


def pid_of(event: Started) -> int:
    """Return the id of the process that runs an attempt; all nodes are on this machine."""
    return int(event.worker.rpartition(":")[2])


class Lent:
    """Lend an executor to a run without letting it be closed."""

    def __init__(self, executor: RayExecutor) -> None:
        self._executor = executor
        self.has_room: Callable[..., bool] = executor.has_room
        self.fits: Callable[..., bool] = executor.fits
        self.least_s: Callable[[Mapping[ResourceRequest, float]], float] = executor.least_s
        self.held_by_others: Callable[[], str] = executor.held_by_others
        self.machine: Callable[[ResourceRequest], Machine] = executor.machine
        self.submit: Callable[[Job], Place] = executor.submit
        self.prune: Callable[[str], None] = executor.prune
        self.kill: Callable[[str], None] = executor.kill
        self.poll: Callable[[float], Sequence[Event]] = executor.poll

    @property
    def num_slots(self) -> int:
        """Return how many trials run at once."""
        return self._executor.num_slots

    def close(self) -> None:
        """Leave it open."""


class Shared:
    """Keep an executor open for several tests; another one can take its place, since a process has one at a time."""

    def __init__(self, make: Callable[[], RayExecutor]) -> None:
        self._make = make
        self._executor: RayExecutor | None = None

    def open(self) -> RayExecutor:
        """Return the executor, made anew if it was closed."""
        if self._executor is None:
            self._executor = self._make()
        return self._executor

    def close(self) -> None:
        """Close the executor, until it is opened again."""
        if self._executor is not None:
            self._executor.close()
            self._executor = None


def run(
    sweep: Sweep,
    folder: Path,
    executor: Executor | Callable[[Sequence[ResourceRequest]], Executor],
    datasets: Datasets,
    watcher: Watcher | None = None,
) -> Outcome:
    """Run a sweep; on a lent executor, or on one that is made and closed."""
    watcher = watcher or Watcher()
    return run_sweep(
        sweep,
        folder=folder,
        make_executor=lambda _, shares: executor(shares) if callable(executor) else executor,
        callbacks=[watcher],
        load_data=lambda _: datasets,
        should_stop=lambda: watcher.wants_to_stop,
    )


@dataclass
class Ground:
    """Hold what a file of tests shares: the data, the stand-in, and tables of runs that nothing disturbed."""

    datasets: Datasets
    stand_in: StandIn
    _tables: dict[Any, str] = field(default_factory=dict)

    def run(
        self,
        sweep: Sweep,
        folder: Path,
        executor: Executor | Callable[[Sequence[ResourceRequest]], Executor],
        watcher: Watcher | None = None,
    ) -> Outcome:
        """Run a sweep on the data."""
        return run(sweep, folder, executor, self.datasets, watcher)

    def undisturbed_table(self, sweep: Sweep, folder: Path, *, real: bool = False) -> str:
        """Return the table of the sweep, run one by one in this process without saving a state."""
        trials = tuple(trial.trial_id for trial in expand(sweep))
        if (trials, real) not in self._tables:
            with pytest.MonkeyPatch.context() as patch:
                if not real:
                    self.stand_in.order({}, step_s=0.0)
                    patch.setattr("specvit.trial.run_trial", self.stand_in)
                outcome = self.run(sweep, folder, LocalExecutor(self.datasets))
            assert outcome.num_failed == 0
            self._tables[trials, real] = table(folder)
        return self._tables[trials, real]


def make_ground(folder: Path) -> Ground:
    """Load the data; the stand-in keeps its orders in ``folder``."""
    folder.mkdir()
    ray_pickles_by_value()
    return Ground(load_datasets(expand(make_sweep(folder.parent))), StandIn(folder))


def ray_pickles_by_value() -> None:
    """Let workers have the stand-in as it is here: this folder is no package that they could import."""
    import ray

    ray.cloudpickle.register_pickle_by_value(stand_in)


@contextmanager
def ray_cluster(**head: Any) -> Iterator[Any]:
    """Start a cluster of one node; it ends with the context."""
    from ray.cluster_utils import Cluster

    args = {"include_dashboard": False, "dashboard_host": "127.0.0.1"}
    cluster = Cluster(initialize_head=True, head_node_args=args | head)
    try:
        yield cluster
    finally:
        import ray

        ray.shutdown()
        cluster.shutdown()


def table(folder: Path) -> str:
    """Return the final table, without what differs from run to run."""
    return pd.read_csv(folder / "table.csv", dtype=str).drop(columns=MEASURED).to_csv()


def rows(folder: Path, query: str, *values: object) -> list[Any]:
    """Ask the ledger by plain SQLite."""
    address = f"{(folder / LEDGER_NAME).resolve().as_uri()}?mode=ro"
    connection = sqlite3.connect(address, uri=True)
    try:
        return connection.execute(query, values).fetchall()
    finally:
        connection.close()


def count(folder: Path, table_and_condition: str) -> int:
    """Count rows of a ledger that is being written; none where there is no ledger yet."""
    try:
        return int(rows(folder, f"SELECT COUNT(*) FROM {table_and_condition}")[0][0])
    except sqlite3.OperationalError:
        return 0


def check_invariants(folder: Path, trials: Sequence[Trial], *, rungs: Sequence[int] = RUNGS) -> None:
    """See that each arm and seed came to its end exactly once, and that every rung is on record exactly once."""
    done = rows(folder, "SELECT trial_id, attempt FROM attempts WHERE state = 'done' ORDER BY trial_id")
    assert [trial_id for trial_id, _ in done] == sorted(trial.trial_id for trial in trials)
    assert rows(folder, "SELECT COUNT(*) FROM attempts WHERE state = 'running'") == [(0,)]
    for trial_id, last in done:
        attempts = rows(folder, "SELECT attempt FROM attempts WHERE trial_id = ? ORDER BY attempt", trial_id)
        assert [attempt for (attempt,) in attempts] == list(range(1, last + 1))
        reports = {attempt: {} for (attempt,) in attempts}
        for attempt, step, metrics in rows(
            folder, "SELECT attempt, step, metrics FROM reports WHERE trial_id = ? ORDER BY step", trial_id
        ):
            assert step not in reports[attempt]
            reports[attempt][step] = metrics
        assert list(reports[last]) == list(rungs)
        for earlier in reports.values():
            assert list(earlier.items()) == list(reports[last].items())[: len(earlier)]


def causes(folder: Path, trial: Trial) -> list[str | None]:
    """Return why the attempts at a trial failed, in order; None for the one that did not."""
    found = rows(folder, "SELECT cause FROM attempts WHERE trial_id = ? ORDER BY attempt", trial.trial_id)
    return [cause for (cause,) in found]


def wait_until(holds: Callable[[], object], *, patience_s: float = 2 * PATIENCE_S) -> None:
    """Wait for something that comes by itself; Ray may spend a minute on finding that something is gone."""
    wait_for(holds, patience_s=patience_s, period_s=0.05)


def shares_of(folder: Path, trial_id: str) -> list[Mapping[str, Any]]:
    """Return what the attempts at a trial occupied."""
    found = rows(folder, "SELECT share FROM attempts WHERE trial_id = ? ORDER BY attempt", trial_id)
    return [json.loads(share) for (share,) in found]
