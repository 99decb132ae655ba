"""The states of running trials, a file each, from which an interrupted trial goes on.

A trial's worker writes its file (``specvit.training.checkpoint``); the driver, which chose the path, deletes it, and
only once the ledger has on record how the trial ended: whenever a process dies, a result or a state is there.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.trials.events import Event, Failed
from orchestrator.trials.records import Cause
from specvit.files.regular import reject_symlink

if TYPE_CHECKING:
    from orchestrator.storage.remote_checkpoints import RemoteCheckpoints

FOLDER_NAME = "checkpoints"
"""Folder of the states, in the folder of a sweep's results."""

WEIGHTS_NAME = "weights"
"""Folder of kept weights, likewise."""

_SUFFIX = ".safetensors"
_OWN_FILE = re.compile(rf"\.?(?P<trial_id>[0-9a-f]{{64}}){re.escape(_SUFFIX)}(\.[0-9]+)?")
"""A state, or what a process that was killed while writing one has left."""
_UNNAMED_FILE = re.compile(r"\.tmp[0-9A-Za-z]{6}")
"""What safetensors calls a file until it is complete."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class StateFile:
    """Say where a trial's state is kept while it trains, and how many seconds lie between two times of saving.

    Attributes:
        path: The file.
        every_s: Seconds between two times of saving.
        url: Where the state is shared if machines have no folder in common; workers then keep a copy of their own,
            and of ``path`` only the name counts. Empty = ``path`` is shared.
    """

    path: Path
    every_s: float
    url: str = ""


class CheckpointStore:
    """Know the file of every trial's state, and delete it in time."""

    def __init__(self, folder: Path, *, every_s: float, shared: RemoteCheckpoints | None = None) -> None:
        """Take the folder; it need not exist.

        Args:
            folder: Where the states are, or will be.
            every_s: Seconds between two times of saving; 0 = states are neither saved nor used.
            shared: The states at a URL, where workers keep them; None = they share the folder.

        Raises:
            SpecsweepError: If the folder is a link: another sweep's states, behind it, would be deleted.
        """
        reject_symlink(folder)
        self._folder = folder.resolve()  # workers need not run in this process's folder
        self._every_s = every_s
        self._shared = shared

    def file_of(self, trial_id: str) -> StateFile | None:
        """Return where a trial keeps its state; None if it keeps none."""
        if self._every_s == 0:
            return None
        path = self._folder / f"{trial_id}{_SUFFIX}"
        if self._shared is None:
            return StateFile(path, self._every_s)
        self._shared.keep(path.name)
        return StateFile(path, self._every_s, url=self._shared.url_of(path.name))

    def ended(self, event: Event) -> None:
        """Delete the state of a trial whose end is on record.

        A trial that was lost with its worker, or ran out of memory, goes on from its state. One that raised an
        exception has to begin anew, so that it cannot fail for ever from a state that is bad.
        """
        if not (isinstance(event, Failed) and event.cause is not Cause.RAISED):
            self._delete({event.trial_id})
            if self._shared is not None:
                self._shared.discard(f"{event.trial_id}{_SUFFIX}")

    def clean(self, keep: Collection[str]) -> None:
        """Delete the states of all trials but those in ``keep``, and the folder once it is empty.

        Only while no trial runs: what is half written is deleted too.
        """
        self._delete({trial_id for trial_id, _ in self._files()} - set(keep))
        if self._shared is not None:
            for name in self._shared.names():
                match = _OWN_FILE.fullmatch(name)
                if match is not None and match["trial_id"] not in keep:
                    self._shared.discard(name)
        for path in self._folder.glob(".tmp*"):
            if _UNNAMED_FILE.fullmatch(path.name):
                _unlink(path)
        with suppress(OSError):
            self._folder.rmdir()

    def _delete(self, trial_ids: Collection[str]) -> None:
        for trial_id, path in self._files():
            if trial_id in trial_ids:
                _unlink(path)

    def _files(self) -> list[tuple[str, Path]]:
        """Return the id of its trial and the path of every file of ours; what users put here is not."""
        if not self._folder.is_dir():
            return []
        matches = [(_OWN_FILE.fullmatch(path.name), path) for path in self._folder.iterdir()]
        return [(match["trial_id"], path) for match, path in matches if match is not None]


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        # It costs room on the disk, no result: the end of a trial is on record.
        _LOG.warning("%s: cannot be deleted (%s)", path, error)
