"""Jobs of real trials, and what is to be known of the processes that run them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import ray

from orchestrator.execution.executor import Job
from orchestrator.execution.ray_cluster.executor import RayExecutor
from orchestrator.sweep.grid import expand
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.resources import ResourceRequest
from orchestrator.trials.trial import Trial

ALONE, PAIR = ResourceRequest(cpus=0.5), ResourceRequest(cpus=0.25, processes=2)


def real_job(trial: Trial, *, attempt: int = 1, label: str = "", share: ResourceRequest = ALONE) -> Job:
    return Job(trial.trial_id, attempt, label or trial.label, trial.config, share=share)


def ray_token() -> str:
    """Return the token of Ray's that this user has."""
    return (Path.home() / ".ray" / "auth_token").read_text().strip()


def may_trace() -> bool:
    """Return whether this user may look into processes that it did not start."""
    scope = Path("/proc/sys/kernel/yama/ptrace_scope")
    return os.geteuid() == 0 or not scope.exists() or scope.read_text().strip() == "0"


def long_trial(make_sweep: Callable[..., Sweep]) -> Trial:
    """Return a trial that goes on until it is stopped; its data are those of the other trials."""
    objective = {"recipe": "dinov2_cpu", "steps": 100_000, "batch_size": 8}
    return expand(make_sweep(objective=objective, rungs={"count": 9_999, "num_images": 8}))[0]


needs_proc = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads Linux's /proc")


def pids_of(executor: RayExecutor) -> list[int]:
    """Return the ids of the processes of the one slot that there is, the main one first."""
    (slot,) = executor._slots
    return [ray.get(worker.__ray_call__.remote(lambda _: os.getpid())) for worker in slot.workers]


def num_open_ports(pid: int) -> tuple[int, int]:
    """Count the ports at which a process listens to this machine alone, and those at which it listens to others."""
    inodes = {link.readlink().name.strip("socket:[]") for link in Path(f"/proc/{pid}/fd").iterdir()}
    tables = (Path("/proc/net") / name for name in ("tcp", "tcp6"))
    rows = [line.split() for table in tables for line in table.read_text().splitlines()[1:]]
    hosts = [row[1].partition(":")[0] for row in rows if row[3] == "0A" and row[9] in inodes]
    local = sum(host == "0100007F" for host in hosts)  # 127.0.0.1 as the kernel writes it
    return local, len(hosts) - local
