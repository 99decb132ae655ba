"""What a trial occupies, and what trials are given after one ran out of memory."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_GPUS = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True)
class ResourceRequest:
    """What one trial occupies, on one machine or, with several processes, on several.

    Attributes:
        cpus: CPU cores of each process.
        gpus: GPUs of each process; below 1, a share of one.
        processes: Processes that train the trial together.
        memory_gib: Memory of the machine that each process reserves, in GiB; 0 = none is reserved.
        custom: Ray's custom resources, by name, of each process.
        labels: Labels that a machine must have, by Ray's label selectors.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    processes: int = 1
    memory_gib: float = 0.0
    custom: tuple[tuple[str, float], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()

    @property
    def total_gpus(self) -> float:
        """Return the GPUs of all processes."""
        return self.gpus * self.processes

    def __str__(self) -> str:
        """Return the request, human-readable: ``1 core, 4 GPUs, 2 processes``."""
        parts = [
            _count(self.cpus, "core", "cores"),
            _count(self.gpus, "GPU", "GPUs") if self.gpus else "",
            f"{self.processes} processes" if self.processes > 1 else "",
            f"{self.memory_gib:g} GiB of memory" if self.memory_gib else "",
            *(f"{amount:g} {name}" for name, amount in self.custom),
            *(f"{name}={value}" for name, value in self.labels),
        ]
        return ", ".join(filter(None, parts))


WHOLE_CORE = ResourceRequest()
"""One core of any machine."""


@dataclass(frozen=True)
class ResourceFloor:
    """What trials of a scale get at least, since one of them ran out of memory.

    Attributes:
        gpus: GPUs of each process.
        memory_gib: Memory of the machine that each process reserves.
        micro_batch: Images computed at once, at most; None = no bound.
    """

    gpus: float = 0.0
    memory_gib: float = 0.0
    micro_batch: int | None = None

    def __str__(self) -> str:
        """Return the floor, human-readable: ``0.5 GPUs a process, micro-batches of at most 8``."""
        parts = [
            f"{self.gpus:g} GPUs a process" if self.gpus else "",
            f"{self.memory_gib:g} GiB of memory a process" if self.memory_gib else "",
            f"micro-batches of at most {self.micro_batch}" if self.micro_batch is not None else "",
        ]
        return ", ".join(filter(None, parts))


def _count(number: float, one: str, many: str) -> str:
    return f"{number:g} {one if number == 1 else many}"


def usable_cores() -> int:
    """Return the cores that this process may use, which a scheduler may have made fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def visible_gpus() -> int:
    """Return the NVIDIA GPUs that this process may use, by their driver's files; 0 also where there are no such files.

    torch would tell more, but takes seconds to import.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return sum(name.strip() not in ("", "-1", "NoDevFiles") for name in named.split(","))
    return sum(1 for _ in _GPUS.iterdir()) if _GPUS.is_dir() else 0


def gpus_in_vain(gpus: float, shares: Iterable[ResourceRequest]) -> str:
    """Return a line on GPUs that are there while no trial asks for one; empty if that is not so.

    Args:
        gpus: GPUs that are there.
        shares: What the trials occupy.
    """
    if not gpus or any(share.gpus for share in shares):
        return ""
    what = "1 GPU is" if gpus == 1 else f"{gpus:g} GPUs are"
    return f"{what} there, but no trial asks for one; --set resources.gpus=1 gives one to each trial"
