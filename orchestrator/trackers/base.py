"""What a tracker is: its settings in a sweep file, and the client that writes runs to its store."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from specvit.errors import ConfigError
from specvit.settings import settings

FOLDER_NAME = "trackers"
"""Folder of local stores, in the folder of a sweep's results."""

NOT_STARTED = -1
"""Last step of a run that holds no point yet."""

_OTHER = re.compile(r"[^A-Za-z0-9@+=.,_-]+")
_LONGEST = 100


@dataclass(frozen=True)
class TrackedRun:
    """A trial as a tracker shows it: a run.

    Attributes:
        key: Tells it from all other runs, also of other sweeps, and is the same whenever it is told: 32 hex digits.
        name: Human-readable: the arm and the seed, after the group where there are several.
        sweep: Name of the sweep, which groups its runs.
        group: The trial's group; empty if the sweep has one group only.
        arm: Its arm.
        role: What the arm is to its group.
        seed: Its seed.
        trial_id: Its id.
        settings: What it was run with, by dotted names: ``objective.lr``.
    """

    key: str
    name: str
    sweep: str
    group: str
    arm: str
    role: str
    seed: int
    trial_id: str
    settings: Mapping[str, str | int | float | bool] = field(default_factory=dict)

    @property
    def parameters(self) -> dict[str, str | int | float | bool]:
        """Return all that tells it from the other runs of its sweep, by name."""
        own: dict[str, str | int | float | bool]
        own = {"arm": self.arm, "role": self.role, "seed": self.seed, "trial_id": self.trial_id}
        return {**({"group": self.group} if self.group else {}), **own, **self.settings}

    @property
    def path(self) -> Path:
        """Return a relative path of plain characters that no other run has: ``GROUP/ARM-seed-N-KEY``."""
        group, arm = (_OTHER.sub("-", text).strip("-.")[:_LONGEST] for text in (self.group, self.arm))
        return Path(group) / "-".join(filter(None, (arm, f"seed-{self.seed}", self.key[:8])))


class TrackerClient(ABC):
    """A connection to a tracker's store. All times are seconds since 1970."""

    @abstractmethod
    def begin(self, run: TrackedRun, *, at: float) -> int:
        """Open a run, a new one or one that was written to before.

        Returns:
            The last step that it holds; ``NOT_STARTED`` = nothing, so that all its points are to be logged.
        """

    @abstractmethod
    def log(self, run: TrackedRun, metrics: Mapping[str, float], *, step: int, at: float) -> None:
        """Add a point to a run that is open; steps only grow."""

    @abstractmethod
    def end(self, run: TrackedRun, state: str, *, at: float) -> None:
        """Close a run, with what became of its trial: ``done``, ``pruned``, ``failed`` or ``interrupted``."""

    def close(self) -> None:  # noqa: B027
        """Write what is left to write, if anything is; all runs are closed."""


@settings
class Tracker(ABC):
    """The settings of a tracker: a file of this package, used as ``trackers: [name]``.

    A subclass adds ``tracker: Literal["its_name"] = "its_name"`` and sets ``name`` to the same text. Settings load
    without the tracker's package: import it inside ``connect``, which is called in a process of its own.
    """

    name: ClassVar[str]
    package: ClassVar[str] = ""
    """The module that it needs beyond the core, which the extra of the tracker's name installs; empty = none."""

    folder: str | None = None
    """Folder of what it keeps on this machine (``~`` is expanded); none given = ``trackers/NAME`` beside the ledger."""

    @abstractmethod
    def connect(self, folder: Path, *, sweep: str) -> TrackerClient:
        """Open the store.

        Args:
            folder: Its folder on this machine; it exists.
            sweep: Name of the sweep.
        """

    @abstractmethod
    def destination(self, folder: Path, *, sweep: str) -> str:
        """Return where runs go, without passwords: a command that shows them, or an address; human-readable."""

    def folder_in(self, results: Path) -> Path:
        """Return the folder of what it keeps on this machine, for a sweep with a folder of results."""
        return results / FOLDER_NAME / self.name if self.folder is None else Path(self.folder).expanduser().absolute()

    def check_installed(self) -> None:
        """Check that its package is installed; nothing is imported.

        Raises:
            ConfigError: If it is not; the text says how to install it.
        """
        found = find_spec(self.package) if self.package else None
        # A folder of the package's name has a specification too, but no file.
        if self.package and (found is None or found.origin is None):
            raise ConfigError(
                f"trackers: {self.name!r} needs the package {self.package!r}, which is not installed: "
                f'pip install "specsweep[{self.name}]"'
            )
