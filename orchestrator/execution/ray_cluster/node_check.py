"""Whether a node can run the sweep's trials as the driver's machine would: the same code, and the data within reach."""

from __future__ import annotations

import hashlib
import logging
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import orchestrator
import specvit
from orchestrator.execution.capacity import ClusterError, Node
from specvit.data import Dataset, DataSource
from specvit.errors import DataError
from specvit.plugins import plugin_versions

_LOG = logging.getLogger(__name__)

_PACKAGES = ("torch", "timm", "numpy")
"""Whose versions decide the numbers of a trial, beside our own code."""


@dataclass(frozen=True)
class NodeRequirements:
    """Say what a node must have.

    Attributes:
        code: Digest of the packages ``specvit`` and ``orchestrator``.
        versions: Of the libraries that decide numbers.
        seen_path: A file in the results folder; a node that does not see it keeps no states. None = not asked.
    """

    code: str
    versions: Mapping[str, str]
    seen_path: Path | None = None

    @classmethod
    def of_this_code(cls, seen_path: Path | None = None) -> NodeRequirements:
        """Return what this process has."""
        return cls(code_digest(), library_versions(), seen_path)


@dataclass(frozen=True)
class NodeReport:
    """What a node has: as ``NodeRequirements``, its ``host``, data it ``cannot_read``, whether it sees the path."""

    host: str
    code: str
    versions: Mapping[str, str]
    cannot_read: tuple[str, ...]
    sees_path: bool


@cache
def code_digest() -> str:
    """Return a digest of the source files of ``specvit`` and ``orchestrator``, as they are installed here."""
    digest = hashlib.sha256()
    for package in (specvit, orchestrator):
        folder = Path(package.__path__[0]).resolve()
        for path in sorted(folder.rglob("*.py")):
            digest.update(f"{package.__name__}/{path.relative_to(folder)}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that decide numbers, packages that add parts among them."""
    return {package: metadata.version(package) for package in _PACKAGES} | plugin_versions()


def look(
    wanted: NodeRequirements, references: Mapping[DataSource, Any], *, fetch: Callable[[Any], Dataset]
) -> NodeReport:
    """Say what this machine has.

    Args:
        wanted: What it must have.
        references: Where the data of each source are.
        fetch: Fetches data; raises a ``DataError`` if this machine cannot read them.
    """
    cannot_read = []
    for source, reference in references.items():
        try:
            fetch(reference)
        except DataError as error:
            cannot_read.append(f"{source.name}: {error}")
    return NodeReport(
        host=socket.gethostname(),
        code=code_digest(),
        versions=library_versions(),
        cannot_read=tuple(cannot_read),
        sees_path=wanted.seen_path is None or wanted.seen_path.exists(),
    )


def compare(wanted: NodeRequirements, found: NodeReport) -> str:
    """Say what a node lacks; empty if it can run trials."""
    for package, version in wanted.versions.items():
        if found.versions.get(package) != version:
            return f"{found.host} has {package} {found.versions.get(package)}, but the driver {version}"
    if found.code != wanted.code:
        return f"{found.host} has other code of specsweep than the driver; install the same there"
    if found.cannot_read:
        return f"{found.host} cannot read data: {'; '.join(found.cannot_read)}"
    return ""


class NodeChecks:
    """Ask every node of a cluster once what it has, and remember which can be used."""

    def __init__(self, ask: Callable[[Node], Any], answer: Callable[[Any, float], str | None]) -> None:
        """Take how to ask.

        Args:
            ask: Asks a node; returns what the answer is found by.
            answer: Returns what a node lacks, empty if nothing, or None if it has not answered within some seconds.
        """
        self._ask = ask
        self._answer = answer
        self._asked: dict[str, Any] = {}
        self._passed: dict[str, bool] = {}

    def require(self, nodes: Sequence[Node], *, timeout_s: float) -> None:
        """Check the nodes that a cluster begins with, all at the same time.

        Raises:
            ClusterError: If one lacks something.
        """
        for node_id, wrong in self._answers(nodes, timeout_s=timeout_s):
            if wrong:
                raise ClusterError(f"node {node_id[:12]} of the cluster: {wrong}")

    def passed(self, nodes: Sequence[Node]) -> tuple[Node, ...]:
        """Return the nodes that can be used; of those that are new, the ones that have answered."""
        for node_id, wrong in self._answers(nodes, timeout_s=0.0):
            if wrong:
                _LOG.warning("node %s has joined the cluster, but is not used: %s", node_id[:12], wrong)
        return tuple(node for node in nodes if self._passed.get(node.node_id))

    def _answers(self, nodes: Sequence[Node], *, timeout_s: float) -> Iterator[tuple[str, str]]:
        for node in nodes:
            if node.node_id not in self._passed and node.node_id not in self._asked:
                self._asked[node.node_id] = self._ask(node)
        until_s = time.monotonic() + timeout_s
        for node_id, asked in list(self._asked.items()):
            wrong = self._answer(asked, max(0.0, until_s - time.monotonic()))
            if wrong is None and timeout_s:
                wrong = f"it did not answer within {timeout_s:g} s"
            if wrong is not None:
                del self._asked[node_id]
                self._passed[node_id] = not wrong
                yield node_id, wrong
