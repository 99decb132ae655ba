"""Whether a node can run the sweep's trials as the driver's machine would: by its code, its data, and its devices."""

from __future__ import annotations

import hashlib
import socket
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from orchestrator.trials.computation import package_digest
from specvit.data import Dataset, DataSource
from specvit.errors import DataError
from specvit.plugins import plugin_versions

_PACKAGES = ("torch", "timm", "numpy")
"""Whose versions decide the numbers of a trial, beside our own code."""


_WRITTEN_BYTES = 1 << 16


@dataclass(frozen=True)
class NodeRequirements:
    """What a node must have.

    Attributes:
        code: Digest of the packages ``specvit`` and ``orchestrator``.
        versions: Of the libraries that decide numbers.
        seen_path: A file in the results folder; a node that does not see it keeps no states. None = not asked.
        with_gpus: Whether trials compute on its GPUs.
    """

    code: str
    versions: Mapping[str, str]
    seen_path: Path | None = None
    with_gpus: bool = False

    @classmethod
    def of_this_code(cls, seen_path: Path | None = None) -> NodeRequirements:
        """Return what this process has."""
        return cls(code_digest(), library_versions(), seen_path)


@dataclass(frozen=True)
class NodeReport:
    """What a node has: as ``NodeRequirements``, and its ``host``, data it ``cannot_read``, whether it sees the path.

    ``fault`` is what goes wrong where something is computed or written there; empty if nothing.
    """

    host: str
    code: str
    versions: Mapping[str, str]
    cannot_read: tuple[str, ...]
    sees_path: bool
    fault: str = ""


@cache
def code_digest() -> str:
    """Return a digest of the source files of ``specvit`` and ``orchestrator``, as they are installed here."""
    digests = [package_digest(package) for package in ("specvit", "orchestrator")]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that decide numbers, packages that add parts among them."""
    return {package: metadata.version(package) for package in _PACKAGES} | plugin_versions()


def inspect_node(
    wanted: NodeRequirements, references: Mapping[DataSource, Any], *, fetch: Callable[[Any], Dataset]
) -> NodeReport:
    """Return what this machine has.

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
        fault=_find_fault(wanted),
    )


def _find_fault(wanted: NodeRequirements) -> str:
    from specvit.device import find_fault

    try:
        with tempfile.TemporaryFile() as file:
            file.write(bytes(_WRITTEN_BYTES))
            file.flush()
    except OSError as error:
        return f"temporary files cannot be written ({error})"
    return find_fault(with_gpus=wanted.with_gpus)


def mismatch(wanted: NodeRequirements, found: NodeReport) -> str:
    """Return what a node lacks, human-readable; empty if it can run trials."""
    for package, version in wanted.versions.items():
        if found.versions.get(package) != version:
            return f"{found.host} has {package} {found.versions.get(package)}, but the driver {version}"
    if found.code != wanted.code:
        return f"{found.host} has other code of specsweep than the driver; install the same there"
    if found.cannot_read:
        return f"{found.host} cannot read data: {'; '.join(found.cannot_read)}"
    if found.fault:
        return f"{found.host} cannot compute: {found.fault}"
    return ""
