"""What ``run`` is put together from: data, executor and view, each telling the console what it does."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from orchestrator.plain_text import visible
from specvit.errors import ConfigError

if TYPE_CHECKING:
    from orchestrator.executor import Executor
    from orchestrator.run import Datasets, Outcome
    from orchestrator.sweep_schema import Sweep
    from orchestrator.trials import Trial


def data_loader(console: Console) -> Callable[[Sequence[Trial]], Datasets]:
    """Return what loads the data of trials, and says so."""

    def load(trials: Sequence[Trial]) -> Datasets:
        from orchestrator.run import load_datasets

        started = time.monotonic()
        with _told_on(console):
            datasets = load_datasets(trials)
        for source, dataset in datasets.items():
            classes = [f"{num} classes in {target}, " for target, num in dataset.num_classes.items() if num]
            console.print(
                f"data: {source.name}, {len(dataset.train)} images to train on, {len(dataset.val)} to report on, "
                f"{''.join(classes)}{source.image_size} px, loaded in {time.monotonic() - started:.1f} s",
                markup=False,
                soft_wrap=True,
            )
        return datasets

    return load


class _ConsoleHandler(logging.Handler):
    """Print what a log says, as it is."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line."""
        self._console.print(f"data: {visible(record.getMessage())}", markup=False, soft_wrap=True)


@contextmanager
def _told_on(console: Console) -> Iterator[None]:
    """Print how far a load is: what ``specvit.data`` logs."""
    from specvit.data.loading_progress import LOGGER

    handler, level = _ConsoleHandler(console), LOGGER.level
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)


def executor_factory(
    console: Console, sweep: Sweep, *, local: bool, address: str | None, slots: int | None
) -> Callable[[Datasets, int], Executor]:
    """Return what makes the executor, and says where trials will run.

    Args:
        console: Where to print.
        sweep: The sweep, whose ``resources`` a trial occupies.
        local: Whether trials run in this process, one by one, instead of on Ray.
        address: Of a running Ray cluster; None = a cluster of this machine is started.
        slots: Trials to run at once, at most; None = as many as there is room for.

    Raises:
        ConfigError: If a trial is to be trained by several processes in this one.
    """
    processes = sweep.resources.processes
    if local and processes > 1:
        raise ConfigError(f"resources.processes: must be 1 where trials run in this process, not {processes}; use Ray")

    def make(datasets: Datasets, num_trials: int) -> Executor:
        if local:
            from orchestrator.local_executor import LocalExecutor

            console.print(f"{num_trials} trials to run, one by one in this process", markup=False)
            return LocalExecutor(datasets, num_threads=max(1, int(sweep.resources.cpus)))
        from orchestrator.ray_executor import RayExecutor

        ray_executor = RayExecutor(
            datasets,
            resources=sweep.resources,
            max_slots=min(num_trials, slots or num_trials),
            address=address,
        )
        shared = f", by {processes} processes each" if processes > 1 else ""
        console.print(f"{num_trials} trials to run, {ray_executor.num_slots} at once{shared}", markup=False)
        if ray_executor.dashboard_url:
            console.print(
                f"Ray dashboard: {ray_executor.dashboard_url} (it asks for a token; "
                f"'{Path(sys.executable).with_name('ray')} get-auth-token' prints it)",
                markup=False,
                soft_wrap=True,
            )
        return ray_executor

    return make


def view_factory(console: Console, sweep: Sweep) -> Callable[..., Any]:
    """Return what makes the view of a running sweep."""
    from orchestrator.board import Board
    from orchestrator.progress import SweepView

    def make(records: Any, executor: Executor) -> SweepView:
        board = Board(records, num_slots=executor.num_slots, shown_metric=sweep.pruning_metric)
        return SweepView(console, board, title=sweep.name)

    return make


def print_outcome(console: Console, outcome: Outcome, folder: Path) -> None:
    """Print the tables of a run, and where they were written."""
    from orchestrator.rendering import render_rich
    from orchestrator.tables import build_tables

    if outcome.num_run == 0:
        console.print("nothing to run: every trial of this sweep has a result", markup=False)
    console.print(render_rich(build_tables(outcome.records, outcome.info.metrics), outcome.info))
    paths = [folder / "table.md", folder / "table.csv", *outcome.written]
    written = Text(f"written: {', '.join(map(str, paths))}", style="dim")
    console.print(written, soft_wrap=True)
