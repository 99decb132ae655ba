"""What computed an attempt: code, libraries and device. Trials that differ in them differ by more than their arms.

What is not known, as of ledgers that were written before it was recorded, differs from nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path

import specvit
from specvit.errors import SpecsweepError

DECIDING_LIBRARIES = ("python", "torch", "torchvision", "timm", "numpy")
"""Whose versions decide the numbers of a trial, beside our own code; of Python, the minor version."""


@dataclass(frozen=True)
class Computation:
    """What computed the numbers of an attempt, as far as it is known.

    Attributes:
        code: Package, ``specvit`` and those whose parts the sweep uses, to the digest of its sources.
        versions: Library to version.
        device: Kind and name, e.g. ``cuda NVIDIA H200``; empty if it is not known.
    """

    code: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    device: str = ""

    @classmethod
    def make(cls, code: Mapping[str, str], versions: Mapping[str, str], device: str = "") -> Computation:
        """Return the computation by the libraries among ``versions`` that decide numbers."""
        deciding = {name: versions[name] for name in DECIDING_LIBRARIES if name in versions}
        if "python" in deciding:
            deciding["python"] = ".".join(deciding["python"].split(".")[:2])
        return cls(code, deciding, device)


def find_differences(computations: Iterable[Computation]) -> dict[str, list[str]]:
    """Return in what computations differ.

    Returns:
        ``code``, ``versions``, ``devices``, as far as they differ, to what it is, human-readable: ``specvit``;
        ``torch 2.13.0 and 2.14.0``; ``cpu and cuda NVIDIA H200``.
    """
    values: dict[str, dict[str, dict[str, None]]] = {"code": {}, "versions": {}, "devices": {}}
    for each in dict.fromkeys(map(_hashable, computations)):
        for kind, known in zip(values, each, strict=True):
            for name, value in known:
                values[kind].setdefault(name, {})[value] = None
    found = {
        "code": [name for name, digests in values["code"].items() if len(digests) > 1],
        "versions": [f"{name} {' and '.join(each)}" for name, each in values["versions"].items() if len(each) > 1],
        "devices": [" and ".join(each) for each in values["devices"].values() if len(each) > 1],
    }
    return {kind: texts for kind, texts in found.items() if texts}


def differences_text(differences: Mapping[str, Iterable[str]]) -> str:
    """Return what was found in words: ``code (specvit) and versions (torch 2.13.0 and 2.14.0)``."""
    return " and ".join(f"{kind} ({', '.join(texts)})" for kind, texts in differences.items())


def code_digests(parts: Iterable[object] = ()) -> dict[str, str]:
    """Return the digests of ``specvit``, and of the packages of other people that ``parts`` are of, by package.

    Args:
        parts: Data sources, recipes, comparators and probes that are used.
    """
    packages = {type(part).__module__.partition(".")[0] for part in parts}
    return {name: package_digest(name) for name in ("specvit", *sorted(packages - {"specvit"}))}


@cache
def package_digest(package: str) -> str:
    """Return a digest of the source files of a package, as it is installed here.

    Raises:
        SpecsweepError: If one of them cannot be read.
    """
    module = specvit if package == "specvit" else import_module(package)
    folders = [Path(folder).resolve() for folder in getattr(module, "__path__", ())]
    files = [(path, str(path.relative_to(folder))) for folder in folders for path in sorted(folder.rglob("*.py"))]
    if not folders and module.__file__ is not None:
        files = [(Path(module.__file__), Path(module.__file__).name)]
    digest = hashlib.sha256()
    for path, name in files:
        digest.update(f"{package}/{name}\0".encode())
        try:
            digest.update(path.read_bytes())
        except OSError as error:
            raise SpecsweepError(f"{path}: cannot be read ({error.strerror})") from error
    return digest.hexdigest()


def _hashable(computation: Computation) -> tuple[tuple[tuple[str, str], ...], ...]:
    device = (("", computation.device),) if computation.device else ()
    return tuple(computation.code.items()), tuple(computation.versions.items()), device
