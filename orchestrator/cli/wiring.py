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

from specvit.errors import ConfigError
from specvit.messages import escape_control_chars

if TYPE_CHECKING:
    from orchestrator.execution.executor import Executor
    from orchestrator.run import Datasets, Outcome
    from orchestrator.scheduling.protocols import View
    from orchestrator.sweep.schema import Sweep
    from orchestrator.trials.resources import ResourceRequest
    from orchestrator.trials.trial import Trial


def data_loader(console: Console) -> Callable[[Sequence[Trial]], Datasets]:
    """Return what loads the data of trials, and says so."""

    def load(trials: Sequence[Trial]) -> Datasets:
        from orchestrator.run import load_datasets
        from specvit.data.reading.progress import LOGGER

        started = time.monotonic()
        with log_to_console(console, LOGGER, title="data", level=logging.INFO):
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

    def __init__(self, console: Console, title: str) -> None:
        super().__init__()
        self._console = console
        self._title = title

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line."""
        self._console.print(f"{self._title}: {escape_control_chars(record.getMessage())}", markup=False, soft_wrap=True)


@contextmanager
def log_to_console(console: Console, logger: logging.Logger, *, title: str, level: int) -> Iterator[None]:
    """Print what is logged: how far a load is, or what happens to a cluster."""
    handler, before = _ConsoleHandler(console, title), logger.level
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def executor_factory(
    console: Console, sweep: Sweep, *, local: bool, address: str | None, slots: int | None, folder: Path
) -> Callable[[Datasets, Sequence[ResourceRequest]], Executor]:
    """Return what makes the executor, and says where trials will run.

    Args:
        console: Where to print.
        sweep: The sweep, whose ``resources`` a trial occupies.
        local: Whether trials run in this process, one by one, instead of on Ray.
        address: Of a running Ray cluster; None = a cluster of this machine is started.
        slots: Trials to run at once, at most; None = as many as there is room for.
        folder: Folder of the sweep's results, which nodes are to see.

    Raises:
        ConfigError: If a trial is to be trained by several processes in this one.
    """
    from orchestrator.sweep.resource_settings import share_of

    kinds = [share_of(sweep.file.resources, scale) for scale in {group.model.scale for group in sweep.groups}]
    processes = max(share.processes for share in kinds)
    if local and processes > 1:
        raise ConfigError(f"resources.processes: must be 1 where trials run in this process, not {processes}; use Ray")

    def make(datasets: Datasets, shares: Sequence[ResourceRequest]) -> Executor:
        if local:
            from orchestrator.execution.local import LocalExecutor

            console.print(f"{len(shares)} trials to run, one by one in this process", markup=False)
            return LocalExecutor(datasets, num_threads=max(1, int(max(share.cpus for share in kinds))))
        from orchestrator.execution.ray_cluster.executor import RayExecutor
        from orchestrator.execution.ray_cluster.node_check import NodeRequirements
        from orchestrator.storage.folder_lock import LOCK_NAME

        ray_executor = RayExecutor(
            datasets,
            shares=shares,
            max_slots=min(len(shares), slots or len(shares)),
            address=address,
            wanted=NodeRequirements.of_this_code((folder / LOCK_NAME).resolve()),
        )
        shared = f", by {processes} processes each" if processes > 1 else ""
        console.print(f"{len(shares)} trials to run, {ray_executor.num_slots} at once{shared}", markup=False)
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
    from orchestrator.monitoring.live_view import LiveView
    from orchestrator.monitoring.prometheus import Telemetry
    from orchestrator.monitoring.sweep_progress import SweepProgress

    @contextmanager
    def make(records: Any, executor: Executor) -> Iterator[View]:
        board = SweepProgress(records, num_slots=lambda: executor.num_slots, shown_metric=sweep.pruning_metric)
        view = LiveView(console, board, title=sweep.name)
        publish = getattr(executor, "publish", None)
        told = view if publish is None else Telemetry(view, board, publish, sweep=sweep.name)
        with (
            log_to_console(console, logging.getLogger("orchestrator"), title="sweep", level=logging.WARNING),
            told as shown,
        ):
            yield shown

    return make


def print_outcome(console: Console, outcome: Outcome, folder: Path) -> None:
    """Print the tables of a run, and where they were written."""
    from orchestrator.reports.ablation_table import build_tables
    from orchestrator.reports.table_files import render_rich

    if outcome.num_run == 0:
        console.print("nothing to run: every trial of this sweep has a result", markup=False)
    console.print(render_rich(build_tables(outcome.records, outcome.info.metrics), outcome.info))
    paths = [folder / "table.md", folder / "table.csv", *outcome.written]
    written = Text(f"written: {', '.join(map(str, paths))}", style="dim")
    console.print(written, soft_wrap=True)
