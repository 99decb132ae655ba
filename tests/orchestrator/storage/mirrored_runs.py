"""Whole sweeps whose ledgers are mirrored; stand-ins compute their trials (``tests/faults/harness/stand_ins``)."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from orchestrator.execution.executor import Job, Place
from orchestrator.execution.local import LocalExecutor
from orchestrator.run import Outcome, run_sweep
from orchestrator.storage.results_folder import results_folder
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.events import Event
from specvit.data import Dataset, DataSource

from ...faults.harness.stand_ins import InStepAttempt
from ..watcher import Watcher

PERIOD_S = 0.2
EVERY_S = 0.05
STEPS = 18


class StandInExecutor(LocalExecutor):
    """Run stand-ins; an attempt at ``held``, if that is a trial, does not come to its end."""

    def __init__(self, datasets: Mapping[DataSource, Dataset], *, held: str = "") -> None:
        super().__init__(datasets)
        self._held = held

    def submit(self, job: Job) -> Place:
        kind = HeldAttempt if job.trial_id == self._held else SteppedAttempt
        self._running = kind(job, self._datasets)
        return Place()


class SteppedAttempt(InStepAttempt):
    """Compute no further before the last event was taken, unless nobody will take it."""

    def _wait(self) -> None:
        while not self._events.empty() and not self.should_stop():
            time.sleep(1e-4)


class HeldAttempt(SteppedAttempt):
    """Stand still before the last step, for ever."""

    def computed(self, step: int) -> None:
        super().computed(step)
        if step == STEPS - 1:
            threading.Event().wait()


def run(
    sweep: Sweep,
    url: str,
    stop_after: Callable[[Event], bool] = lambda _: False,
    *,
    executor: Callable[[Mapping[DataSource, Dataset]], LocalExecutor] = StandInExecutor,
) -> tuple[Outcome, Watcher]:
    watcher = Watcher(stop_after)
    with results_folder(url, sweep.name, mirror_every_s=EVERY_S, period_s=PERIOD_S) as folder:
        outcome = run_sweep(
            sweep,
            folder=folder.local,
            remote=folder.remote,
            make_executor=lambda datasets, _: executor(datasets),
            callbacks=[watcher],
            should_stop=lambda: watcher.wants_to_stop or folder.is_taken_over(),
        )
    return outcome, watcher


def results(outcome: Outcome) -> list[dict[str, float]]:
    return [dict(record.metrics) for record in outcome.records]


def drive(sweep: Sweep, url: str, held: str, folder: Path) -> None:
    """Run the sweep up to the end of the trial ``held``, which does not come."""
    tempfile.tempdir = str(folder)  # a killed driver leaves temporary files behind
    run(sweep, url, executor=partial(StandInExecutor, held=held))
