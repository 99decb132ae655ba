"""The states of running trials in a store, where workers of any machine find them.

The workers' side is ``orchestrator.execution.worker_files``.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection

from orchestrator.storage.remote_folder import RemoteFolder
from specvit.errors import SpecsweepError

_LOG = logging.getLogger(__name__)


class RemoteCheckpoints:
    """Delete states late: not before the mirror of the ledger has on record how their trials ended.

    Whenever a driver's machine is lost, its successor finds a result or a state of every trial. Deleting is the
    mirror's thread's; the scheduler, which only says what may go, does not wait for the store.
    """

    def __init__(self, folder: RemoteFolder) -> None:
        """Take the folder of the states; it need not exist."""
        self._folder = folder
        self._doomed: set[str] = set()
        self._lock = threading.Lock()
        self._deleting = threading.Lock()

    def url_of(self, name: str) -> str:
        """Return the URL of a state's file."""
        return f"{self._folder}/{name}"

    def names(self) -> tuple[str, ...]:
        """Return the names of the files that are there; of a store that cannot be used, none."""
        try:
            return self._folder.names()
        except SpecsweepError as error:
            _LOG.warning("%s; states of trials that have ended may be left there", error)
            return ()

    def discard(self, name: str) -> None:
        """Say that a file may go, once what the ledger has on record now is mirrored."""
        with self._lock:
            self._doomed.add(name)

    def keep(self, name: str) -> None:
        """Make sure that a file which is written from now on stays: if it was to go, it goes first."""
        with self._lock:
            is_doomed = name in self._doomed
        if is_doomed:
            self.delete({name})
            with self._lock:
                self._doomed.discard(name)

    def pending_deletes(self) -> frozenset[str]:
        """Return what may go, as things are now."""
        with self._lock:
            return frozenset(self._doomed)

    def delete(self, names: Collection[str]) -> None:
        """Delete files, those of them that may still go; what cannot be deleted stays doomed, and is told of."""
        for name in names:
            with self._deleting:
                with self._lock:
                    if name not in self._doomed:
                        continue
                try:
                    self._folder.delete(name)
                except SpecsweepError as error:
                    _LOG.warning("%s", error)
                    continue
                with self._lock:
                    self._doomed.discard(name)
