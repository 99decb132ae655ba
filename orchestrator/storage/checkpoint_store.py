"""The states of running trials, a file each, from which an interrupted trial resumes.

A trial's worker writes its file (``specvit.training.checkpoint``); the driver, which chose the path, deletes it, and
only once the ledger has on record how the trial ended: whenever a process dies, a result or a state is there.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from orchestrator.storage.remote_folder import Location, RemoteFolder
from orchestrator.trials.events import Event, Failed
from specvit.errors import SpecsweepError
from specvit.files.regular import reject_symlink

FOLDER_NAME = "checkpoints"
"""Folder of the states, in the folder of a sweep's results."""

_SUFFIX = ".safetensors"
_OWN_FILE = re.compile(rf"\.?(?P<trial_id>[0-9a-f]{{64}}){re.escape(_SUFFIX)}(\.[0-9a-f]+)?")
"""A state, or what a process that was killed while writing one has left."""
_UNNAMED_FILE = re.compile(r"\.tmp[0-9A-Za-z]{6}")
"""What safetensors calls a file until it is complete."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class StateFile:
    """Where a trial's state is kept while it trains, and how often it is saved.

    Attributes:
        location: The file; one in a store if machines have no folder in common, and workers then keep a copy.
        every_s: Least seconds between two times of saving.
        max_share: Share of the trial's time that saving may take; 1 = any.
    """

    location: Location
    every_s: float
    max_share: float = 1.0


class RemoteCheckpoints:
    """The states in a store, where workers of any machine find them (``orchestrator.execution.worker_files``).

    They are deleted late: not before the mirror of the ledger has on record how their trials ended, so that whenever a
    driver's machine is lost, its successor finds a result or a state of every trial. Deleting is left to the mirror's
    thread; the scheduler, which only schedules it, does not wait for the store.
    """

    def __init__(self, folder: RemoteFolder) -> None:
        """Take the folder of the states; it need not exist."""
        self.folder = folder
        self._pending: set[str] = set()
        self._lock = threading.Lock()
        self._deleting = threading.Lock()

    def names(self) -> tuple[str, ...]:
        """Return the names of the files that are there; of a store that cannot be used, none."""
        try:
            return self.folder.names()
        except SpecsweepError as error:
            _LOG.warning("%s; states of trials that have ended may be left there", error)
            return ()

    def schedule_delete(self, name: str) -> None:
        """Have a file deleted once what the ledger has on record now is mirrored."""
        with self._lock:
            self._pending.add(name)

    def cancel_delete(self, name: str) -> None:
        """Make sure that a file which is written from now on stays: one that is to be deleted is deleted first."""
        with self._lock:
            is_pending = name in self._pending
        if is_pending:
            self.delete({name})
            with self._lock:
                self._pending.discard(name)

    def pending_deletes(self) -> frozenset[str]:
        """Return the files that are to be deleted, as things are now."""
        with self._lock:
            return frozenset(self._pending)

    def delete(self, names: Collection[str]) -> None:
        """Delete those of the files whose deletion is still scheduled; where it fails, it stays so, with a warning."""
        for name in names:
            with self._deleting:
                with self._lock:
                    if name not in self._pending:
                        continue
                try:
                    self.folder.delete(name)
                except SpecsweepError as error:
                    _LOG.warning("%s", error)
                    continue
                with self._lock:
                    self._pending.discard(name)


class CheckpointStore:
    """The files of all trials' states, in a folder or in a store, each deleted in time."""

    def __init__(
        self, folder: Path, *, every_s: float, max_share: float = 1.0, shared: RemoteCheckpoints | None = None
    ) -> None:
        """Take the folder; it need not exist.

        Args:
            folder: Where the states are, or will be.
            every_s: Least seconds between two times of saving; 0 = states are neither saved nor used.
            max_share: Share of a trial's time that saving may take; 1 = any.
            shared: The states at a URL, where workers keep them; None = they share the folder.

        Raises:
            SpecsweepError: If the folder is a link: another sweep's states, behind it, would be deleted.
        """
        reject_symlink(folder)
        self._folder = folder.resolve()  # workers need not run in this process's folder
        self._every_s, self._max_share = every_s, max_share
        self._shared = shared

    def file_of(self, trial_id: str) -> StateFile | None:
        """Return where a trial keeps its state; None if it keeps none."""
        if self._every_s == 0:
            return None
        name = f"{trial_id}{_SUFFIX}"
        if self._shared is None:
            return StateFile(self._folder / name, self._every_s, self._max_share)
        self._shared.cancel_delete(name)
        return StateFile(self._shared.folder / name, self._every_s, self._max_share)

    def ended(self, event: Event) -> None:
        """Delete the state of a trial whose numbers are on record, or that was pruned; one that failed resumes from it.

        A state cannot be bad without being noticed: it is refused unless it has the hash that it states.
        """
        if not isinstance(event, Failed):
            self._delete({event.trial_id})
            if self._shared is not None:
                self._shared.schedule_delete(f"{event.trial_id}{_SUFFIX}")

    def prune(self, keep: Collection[str]) -> None:
        """Delete the states of all trials but those in ``keep``, and the folder once it is empty.

        Only while no trial runs: what is half written is deleted too.
        """
        self._delete({trial_id for trial_id, _ in self._files()} - set(keep))
        if self._shared is not None:
            for name in self._shared.names():
                match = _OWN_FILE.fullmatch(name)
                if match is not None and match["trial_id"] not in keep:
                    self._shared.schedule_delete(name)
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
