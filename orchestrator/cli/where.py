"""Where trials run: the options that say so, and the executor made of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from specvit.errors import ConfigError

if TYPE_CHECKING:
    from orchestrator.execution.executor import Executor
    from orchestrator.run import Datasets, SweepRun
    from orchestrator.sweep.resolved import Sweep
    from orchestrator.trials.resources import ResourceRequest


class ExecutorName(StrEnum):
    """The executors."""

    RAY = "ray"
    LOCAL = "local"


ExecutorOption = Annotated[
    ExecutorName,
    typer.Option("--executor", help="ray: a cluster, this machine being the smallest. local: one by one."),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="Address of a running Ray cluster; 'auto' finds one on this machine. Default: RAY_ADDRESS, which Ray sets "
        "in its jobs, or else a cluster of this machine is started.",
    ),
]
Slots = Annotated[
    int | None,
    typer.Option("--slots", min=1, help="Trials to run at once, at most; default: as many as there is room for."),
]


@dataclass(frozen=True)
class Where:
    """Where trials run, as the options say.

    Attributes:
        executor: By what.
        address: Of a running Ray cluster; None = a cluster of this machine is started.
        slots: Trials to run at once, at most; None = as many as there is room for.
        pdb: Whether a trial that raises opens the debugger.
    """

    executor: ExecutorName
    address: str | None = None
    slots: int | None = None
    pdb: bool = False


def _requests(sweep: Sweep) -> list[ResourceRequest]:
    """Return what trials occupy, by the file, for each of their scales."""
    from orchestrator.sweep.resource_settings import share_of

    return [share_of(sweep.file.resources, scale) for scale in {group.model.scale for group in sweep.groups}]


def check_processes(sweep: Sweep, where: Where) -> None:
    """Raise ``ConfigError`` if several processes are to train a trial in this one."""
    processes = max(request.processes for request in _requests(sweep))
    if where.executor is ExecutorName.LOCAL and processes > 1:
        raise ConfigError(f"resources.processes: must be 1 where trials run in this process, not {processes}; use Ray")


def make_executor(console: Console, prepared: SweepRun, where: Where, common: Path | None) -> Executor:
    """Make the executor, and print where trials will run; nodes are to see ``common``, unless it is None."""
    from orchestrator.trials.resources import visible_gpus

    requests = _requests(prepared.sweep)
    if where.executor is ExecutorName.LOCAL:
        from orchestrator.execution.local import DebugExecutor, LocalExecutor

        console.print(f"{len(prepared.pending)} trials to run, one by one in this process", markup=False)
        _tell_of_gpus(console, visible_gpus(), requests)
        num_threads = max(1, int(max(request.cpus for request in requests)))
        return (DebugExecutor if where.pdb else LocalExecutor)(prepared.datasets, num_threads=num_threads)
    from orchestrator.execution.ray_cluster.executor import RayExecutor
    from orchestrator.execution.ray_cluster.node_check import NodeRequirements
    from orchestrator.storage.folder_lock import LOCK_NAME

    def make(datasets: Datasets, shares: Sequence[ResourceRequest]) -> RayExecutor:
        return RayExecutor(
            datasets,
            shares=shares,
            max_slots=min(len(shares), where.slots or len(shares)),
            address=where.address,
            job_name=prepared.sweep.name,
            wanted=NodeRequirements.of_this_code((common / LOCK_NAME).resolve() if common else None),
        )

    executor = prepared.make_executor(make)
    processes = max(request.processes for request in requests)
    shared = f", by {processes} processes each" if processes > 1 else ""
    console.print(f"{len(prepared.pending)} trials to run, {executor.num_slots} at once{shared}", markup=False)
    if held := executor.held_by_others():
        console.print(held, style="yellow", markup=False, soft_wrap=True)
    _tell_of_gpus(console, executor.num_gpus, requests)
    if executor.dashboard_url:
        console.print(
            f"Ray dashboard: {executor.dashboard_url} (it asks for a token; "
            f"'{Path(sys.executable).with_name('ray')} get-auth-token' prints it)",
            markup=False,
            soft_wrap=True,
        )
    return executor


def _tell_of_gpus(console: Console, gpus: float, requests: Sequence[ResourceRequest]) -> None:
    """Print a line on GPUs that no trial asks for, if there are any."""
    from orchestrator.trials.resources import gpus_in_vain

    if line := gpus_in_vain(gpus, requests):
        console.print(line, style="yellow", markup=False, soft_wrap=True)
