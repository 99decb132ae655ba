"""What can be said of a cluster without Ray: whether somebody listens there, and how many trials it has room for."""

from __future__ import annotations

import math
import socket
from collections.abc import Mapping, Sequence

from orchestrator.sweep_schema import Resources
from specvit.errors import SpecsweepError

CONNECT_TIMEOUT_S = 10.0
"""Longest wait for a cluster's first answer."""

_KINDS = (("CPUs", "CPU", "cpus"), ("GPUs", "GPU", "gpus"))
"""What people say, what Ray says, and the field of ``Resources``."""


class ClusterError(SpecsweepError):
    """Signal a cluster that cannot run the trials; the text says what is missing."""


def check_reachable(address: str) -> None:
    """Complain of a ``host:port`` where nobody listens: Ray itself would try for more than ten minutes.

    Raises:
        ClusterError: If nobody does.
    """
    host, _, port = address.rpartition(":")
    if "://" in address or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(f"no Ray cluster at {address}: {error}") from error


def count_slots(nodes: Sequence[Mapping[str, float]], resources: Resources, *, max_slots: int) -> int:
    """Count the trials that can run at once; a process needs all that it takes on one node.

    Args:
        nodes: What each node has, by Ray's names (``CPU``, ``GPU``).
        resources: What one trial takes.
        max_slots: Largest number that is of use.

    Raises:
        ClusterError: If there is no room for a single trial.
    """
    processes = resources.processes
    for text, name, field in _KINDS:
        each = getattr(resources, field)
        has = sum(node.get(name, 0.0) for node in nodes)
        if has < each * processes:
            shared = f" ({processes} processes of {each:g})" if processes > 1 else ""
            raise ClusterError(f"a trial takes {each * processes:g} {text}{shared}, but the cluster has {has:g}")
    room = sum(_room(node, resources, at_most=max_slots * processes) for node in nodes)
    if room < processes:
        takes = " and ".join(f"{getattr(resources, field):g} {text}" for text, _, field in _KINDS)
        raise ClusterError(
            f"a trial takes {processes} process{'es' * (processes > 1)} with {takes} on one node, "
            f"but the nodes of the cluster have room for {room}"
        )
    return min(max_slots, room // processes)


def _room(node: Mapping[str, float], resources: Resources, *, at_most: int) -> int:
    """Return how many processes fit on a node."""
    limits = [_times(node.get("CPU", 0.0), resources.cpus)]
    if resources.gpus >= 1:
        limits.append(_times(node.get("GPU", 0.0), resources.gpus))
    elif resources.gpus > 0:
        # A share is one of a single GPU: two GPUs have room for four processes with 0.4 each, not five.
        limits.append(_times(1.0, resources.gpus) * math.floor(node.get("GPU", 0.0)))
    return min(at_most, *limits)


def _times(has: float, wanted: float) -> int:
    return int(has / wanted + 1e-9)
