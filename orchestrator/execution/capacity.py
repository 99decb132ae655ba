"""What nodes have, what trials reserve of it, and how many have room: arithmetic, without Ray."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from orchestrator.execution.executor import Machine
from orchestrator.trials.resources import ResourceRequest
from specvit.errors import SpecsweepError
from specvit.memory import GIB

_EPSILON = 1e-9
_SHOWN_JOBS = 3
_UNITS = {"CPU": ("CPUs", 1), "GPU": ("GPUs", 1), "memory": ("GiB of memory", GIB)}


class ClusterError(SpecsweepError):
    """A cluster that cannot run the trials; the text says what is missing."""


class ClusterLostError(ClusterError):
    """A cluster that went while a sweep ran on it, and did not come back."""


@dataclass(frozen=True)
class Node:
    """A node of a cluster.

    Attributes:
        node_id: Its id.
        has: Amounts by Ray's names: ``CPU``, ``GPU``, ``memory`` in bytes, custom ones.
        labels: Its labels.
        address: Where its daemon listens, ``host:port``.
    """

    node_id: str
    has: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)
    address: str = ""


@dataclass(frozen=True)
class Placement:
    """What a process occupies on a node: amounts by Ray's names, and of which GPUs how much."""

    node_id: str
    amounts: Mapping[str, float]
    gpus: Mapping[int, float]


def amounts_of(share: ResourceRequest) -> dict[str, float]:
    """Return what a process of a trial takes, by Ray's names."""
    amounts = {"CPU": share.cpus, "GPU": share.gpus, "memory": share.memory_gib * GIB, **dict(share.custom)}
    return {name: amount for name, amount in amounts.items() if amount > 0}


class Capacity:
    """What is free on the nodes of a cluster; a process needs all that it takes on one node."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        """Take the nodes, all free."""
        self._nodes = {node.node_id: node for node in nodes}
        self._free = {node.node_id: dict(node.has) for node in nodes}
        self._gpus = {node.node_id: [1.0] * math.floor(node.has.get("GPU", 0.0)) for node in nodes}

    def reserve(self, share: ResourceRequest, avoid: frozenset[str] = frozenset()) -> tuple[Placement, ...] | None:
        """Reserve room for the processes of a trial, on the first nodes that have it; None if there is none.

        Args:
            share: What the trial takes.
            avoid: Ids of nodes that are not to be used.
        """
        places: list[Placement] = []
        amounts = amounts_of(share)
        nodes = [node for node_id, node in self._nodes.items() if node_id not in avoid]
        for _ in range(share.processes):
            place = next(filter(None, (self._place(node, amounts, share) for node in nodes)), None)
            if place is None:
                self.release(places)
                return None
            self.mark_used([place])
            places.append(place)
        return tuple(places)

    def mark_used(self, places: Sequence[Placement]) -> None:
        """Record places as used; those on nodes that are gone do not count."""
        self._change(places, -1.0)

    def mark_others(self, node_id: str, amounts: Mapping[str, float]) -> None:
        """Record what others than this run use of a node: of GPUs, whole ones and a part, those where it fits best."""
        if node_id not in self._nodes:
            return
        for name, amount in amounts.items():
            self._free[node_id][name] = self._free[node_id].get(name, 0.0) - amount
        gpus, left = self._gpus[node_id], amounts.get("GPU", 0.0)
        while left > _EPSILON and gpus:
            part = 1.0 if left >= 1 else left
            index = min(range(len(gpus)), key=lambda n: (gpus[n] < part - _EPSILON, gpus[n] if part < 1 else -n))
            gpus[index] -= part
            left -= part

    def release(self, places: Sequence[Placement]) -> None:
        """Record places as free again, likewise."""
        self._change(places, 1.0)

    def _change(self, places: Sequence[Placement], sign: float) -> None:
        for place in places:
            if place.node_id in self._nodes:
                for name, amount in place.amounts.items():
                    self._free[place.node_id][name] = self._free[place.node_id].get(name, 0.0) + sign * amount
                for index, part in place.gpus.items():
                    self._gpus[place.node_id][index] += sign * part

    def _place(self, node: Node, amounts: Mapping[str, float], share: ResourceRequest) -> Placement | None:
        if any(node.labels.get(name) != value for name, value in share.labels):
            return None
        free = self._free[node.node_id]
        if any(free.get(name, 0.0) < amount - _EPSILON for name, amount in amounts.items()):
            return None
        # A share is one of a single GPU: two GPUs have room for four processes with 0.4 each, not five.
        part, wanted = min(1.0, share.gpus), max(1, math.ceil(share.gpus)) if share.gpus else 0
        gpus = self._gpus[node.node_id]
        fitting = [index for index, rest in enumerate(gpus) if rest >= part - _EPSILON][:wanted]
        if len(fitting) < wanted:
            return None
        return Placement(node.node_id, amounts, dict.fromkeys(fitting, part))


def count_slots(
    nodes: Sequence[Node],
    share: ResourceRequest,
    *,
    max_slots: int,
    others: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
) -> int:
    """Return how many trials can run at once.

    Args:
        nodes: The nodes, all free.
        share: What one trial takes.
        max_slots: Largest number that is of use.
        others: What others use of the nodes, by their ids.

    Returns:
        Their number, at most ``max_slots``.
    """
    capacity = Capacity(nodes)
    for node_id, amounts in others.items():
        capacity.mark_others(node_id, amounts)
    return next((count for count in range(max_slots) if capacity.reserve(share) is None), max_slots)


class LowerBound:
    """The shortest time in which nodes can do work, whoever does it in which order.

    No more of a resource is used at once than all nodes have, and no more trials of a kind run than there is room for.
    """

    def __init__(self, nodes: Sequence[Node], *, max_slots: int) -> None:
        """Take the nodes, all free, and how many trials run at once, at most."""
        self._nodes, self._max_slots = nodes, max_slots
        self._totals: defaultdict[str, float] = defaultdict(float)
        for node in nodes:
            for name, amount in node.has.items():
                self._totals[name] += amount
        self._counts: dict[ResourceRequest, int] = {}

    def seconds(self, work: Mapping[ResourceRequest, float]) -> float:
        """Return how long work takes at least.

        Args:
            work: Seconds of all trials together, by what each occupies.
        """
        bounds = [sum(work.values()) / max(1, self._max_slots)]
        used: defaultdict[str, float] = defaultdict(float)
        for share, seconds in work.items():
            for name, amount in amounts_of(share).items():
                used[name] += amount * share.processes * seconds
            if share not in self._counts:
                self._counts[share] = max(1, count_slots(self._nodes, share, max_slots=self._max_slots))
            bounds.append(seconds / self._counts[share])
        bounds += [amount / self._totals[name] for name, amount in used.items() if self._totals[name] > 0]
        return max(bounds)


def machine_for(nodes: Sequence[Node], share: ResourceRequest) -> Machine:
    """Return the machine with the most memory on which trials of a share run."""
    machines = [
        Machine(node.has.get("memory", 0.0) / GIB, max(1, count // share.processes))
        for node in nodes
        if (count := count_slots([node], ResourceRequest(**{**vars(share), "processes": 1}), max_slots=10_000))
    ]
    return max(machines, key=lambda machine: machine.memory_gib, default=Machine())


def check_room(nodes: Sequence[Node], share: ResourceRequest) -> None:
    """Raise if the nodes have no room for a trial, even when they are free.

    Raises:
        ClusterError: If they have none.
    """
    if count_slots(nodes, share, max_slots=1):
        return
    processes = share.processes
    for name, each in amounts_of(share).items():
        text, unit = _UNITS.get(name, (name, 1))
        has = sum(node.has.get(name, 0.0) for node in nodes)
        if has < each * processes:
            shared = f" ({processes} processes of {each / unit:g})" if processes > 1 else ""
            raise ClusterError(
                f"a trial takes {each * processes / unit:g} {text}{shared}, but the cluster has {has / unit:g}"
            )
    takes = f"{share.cpus:g} CPUs and {share.gpus:g} GPUs"
    labels = "".join(f", {name}={value}" for name, value in share.labels)
    room = count_slots(nodes, ResourceRequest(**{**vars(share), "processes": 1}), max_slots=processes)
    raise ClusterError(
        f"a trial takes {processes} process{'es' * (processes > 1)} with {takes} on one node{labels}, "
        f"but the nodes of the cluster have room for {room}"
    )


def describe_others(nodes: Sequence[Node], others: Mapping[str, Mapping[str, float]], jobs: Sequence[str]) -> str:
    """Return what others hold of the nodes, human-readable; empty if nothing.

    Args:
        nodes: The nodes.
        others: What others hold of them, by their ids and by the names of resources.
        jobs: Who they may be.
    """
    names = dict.fromkeys(name for amounts in others.values() for name in amounts)
    held = []
    for name in names:
        text, unit = _UNITS.get(name, (name, 1))
        amount = sum(amounts.get(name, 0.0) for amounts in others.values()) / unit
        has = sum(node.has.get(name, 0.0) for node in nodes) / unit
        held.append(f"{amount:.4g} of {has:.4g} {text}")
    if not held:
        return ""
    more = [f"and {len(jobs) - _SHOWN_JOBS} more"] if len(jobs) > _SHOWN_JOBS else []
    beside = "; ".join([*jobs[:_SHOWN_JOBS], *more])
    return f"others hold {', '.join(held)}" + (f"; jobs beside this one: {beside}" if beside else "")
