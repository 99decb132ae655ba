"""A driver of sweeps in this process that keeps what it called, and orders that are given while it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from orchestrator.execution.executor import Executor, Job, Place
from orchestrator.execution.local import LocalExecutor
from orchestrator.run import Datasets, Outcome, load_datasets, run_sweep
from orchestrator.storage.command_inbox import Cancel, Prune, Retry, send
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.events import Event, Finished
from orchestrator.trials.resources import ResourceRequest
from orchestrator.trials.trial import Trial

from ..watcher import Watcher


def never(event: Event) -> bool:
    return False


class Driver:
    """Run sweeps into one folder in this process; keep what was called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.loads: list[int] = []
        self.submitted: list[str] = []
        self.executors: list[LocalExecutor] = []
        self.watcher = Watcher(never)

    def run(self, sweep: Sweep, *, stop_after: Callable[[Event], bool] = never) -> Outcome:
        self.loads, self.submitted, self.executors = [], [], []
        self.watcher = Watcher(stop_after)
        return run_sweep(
            sweep,
            folder=self.folder,
            make_executor=self._make_executor,
            callbacks=[self.watcher],
            load_data=self._load_data,
            should_stop=lambda: self.watcher.wants_to_stop,
        )

    def _make_executor(self, datasets: Datasets, _: Sequence[ResourceRequest]) -> Executor:
        driver = self

        class Recording(LocalExecutor):
            def submit(self, job: Job) -> Place:
                driver.submitted.append(job.label)
                return super().submit(job)

        self.executors.append(Recording(datasets))
        return self.executors[-1]

    def _load_data(self, trials: Sequence[Trial]) -> Datasets:
        self.loads.append(len(trials))
        return load_datasets(trials)


def results(outcome: Outcome) -> dict[str, dict[str, float]]:
    return {record.trial.label: dict(record.metrics) for record in outcome.records}


def order_once(folder: Path, order: Cancel | Prune | Retry, kind: type[Event] = Finished) -> Callable[[Event], bool]:
    """Give an order at the first event of a kind."""
    orders = [order]

    def give_it(event: Event) -> bool:
        if isinstance(event, kind) and orders:
            send(folder, orders.pop())
        return False

    return give_it
