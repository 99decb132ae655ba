"""The ledger of a sweep, mirrored to a store: SQLite needs a local disk, so what is uploaded are snapshots.

A snapshot has a name of its own, ``ledger.GENERATION.SHA.sqlite``; ``ledger.json`` names the newest and is written
after it, so that a reader finds a whole one whenever a driver dies. Which copy of the ledger goes on is decided by what
the local folder knows of the mirror, not by clocks: if ``ledger.json`` names a snapshot that was made or fetched here,
the local ledger has all that is there and maybe more; else another machine has gone on, and its ledger is fetched.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import socket
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from orchestrator.ledger.errors import translate_sqlite_errors
from orchestrator.ledger.ledger import LEDGER_NAME
from orchestrator.storage.checkpoint_store import RemoteCheckpoints
from orchestrator.storage.remote_folder import RemoteError, RemoteFolder
from specvit.errors import SpecsweepError
from specvit.files.atomic import write_atomically
from specvit.files.checksum import sha256_of

POINTER_NAME = "ledger.json"
MIRROR_EVERY_S = 30.0
"""Least seconds between two uploads while a sweep runs: so much is lost where a driver's machine is."""

LEDGER_FILES = (LEDGER_NAME, f"{LEDGER_NAME}-wal", f"{LEDGER_NAME}-shm")
"""The ledger, and what SQLite keeps beside it while it is open."""

OWN_FOLDER = ".mirror"
"""Folder of what is known here about the mirror, in the folder of a sweep's results."""

SNAPSHOT_NAME = re.compile(r"ledger\.(?P<generation>[0-9]{1,18})\.[0-9a-f]{16}\.sqlite")
_KEPT_SNAPSHOTS = 2
"""The newest, and the one before, which a reader may be at."""

_KNOWN_NAME = "known.json"
_FIRST_AFTER_S = 5.0
"""When a sweep's first upload is: others see it soon after it began."""

_FETCHES = 5
_LAST_TRIES_AFTER_S = (0.0, 1.0, 3.0)

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pointer:
    """What ``ledger.json`` says.

    Attributes:
        generation: How often the ledger was mirrored up to then, by all machines together.
        sha256: Of the snapshot.
        host: Who made it; for people, like ``pid`` and ``at``.
        pid: Likewise.
        at: Likewise.
    """

    generation: int
    sha256: str
    host: str
    pid: int
    at: str

    @property
    def snapshot_name(self) -> str:
        """Return the name of the snapshot's file."""
        return f"ledger.{self.generation}.{self.sha256[:16]}.sqlite"

    @classmethod
    def make(cls, generation: int, sha256: str) -> Self:
        """Return the pointer to a snapshot that this process has made."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(generation, sha256, socket.gethostname(), os.getpid(), now)

    @classmethod
    def parse(cls, data: bytes, *, place: str) -> Self:
        """Read the file.

        Raises:
            RemoteError: If it is none.
        """
        try:
            pointer = cls(**json.loads(data))
            is_counted = type(pointer.generation) is int and SNAPSHOT_NAME.fullmatch(pointer.snapshot_name)
            if is_counted and re.fullmatch("[0-9a-f]{64}", pointer.sha256):
                return pointer
        except (ValueError, TypeError, RecursionError):
            pass
        raise RemoteError(f"{place}: does not say where the ledger is; is it a file of specsweep?")


def read_pointer(remote: RemoteFolder) -> Pointer | None:
    """Return what a folder says of its ledger; None if none was mirrored there.

    Raises:
        RemoteError: If that cannot be found out.
    """
    data = remote.get_bytes(POINTER_NAME)
    return None if data is None else Pointer.parse(data, place=f"{remote}/{POINTER_NAME}")


def fetch_ledger(remote: RemoteFolder, target: Path, *, known_sha256: str = "") -> Pointer | None:
    """Download the newest snapshot.

    Args:
        remote: Where it is mirrored.
        target: The file to write, in an existing folder.
        known_sha256: Of the snapshot that ``target`` is; if that is the newest, nothing is downloaded.

    Returns:
        What was fetched; None, and nothing is written, if no ledger was mirrored there.

    Raises:
        RemoteError: If the store cannot be used, or the snapshot is missing or damaged.
    """
    incoming = target.with_name(f".{target.name}.incoming.{os.getpid()}")
    missing = ""
    try:
        for _ in range(_FETCHES):
            pointer = read_pointer(remote)
            if pointer is None or (pointer.sha256 == known_sha256 and target.exists()):
                return pointer
            if remote.get(pointer.snapshot_name, incoming):
                if sha256_of(incoming) == pointer.sha256:
                    incoming.replace(target)
                    return pointer
                missing = f"{pointer.snapshot_name}: is damaged"
            else:
                missing = f"{pointer.snapshot_name}: is missing"
            # The driver may have put a newer one in its place meanwhile.
    finally:
        incoming.unlink(missing_ok=True)
    raise RemoteError(f"{remote}/{missing}, which {POINTER_NAME} names as the ledger")


class LedgerMirror:
    """A store's copy of one ledger, kept up to date by the driver that holds the lock."""

    def __init__(
        self,
        remote: RemoteFolder,
        folder: Path,
        *,
        is_ours: Callable[[], bool],
        states: RemoteCheckpoints,
        every_s: float = MIRROR_EVERY_S,
    ) -> None:
        """Take the places; nothing is done yet.

        Args:
            remote: Where to mirror to.
            folder: The local folder of the sweep's results, which has the ledger.
            is_ours: Looks whether this process still holds the lock of ``remote``.
            states: States of trials; those of trials that have ended go once the mirror has the ends on record.
            every_s: Least seconds between two uploads.
        """
        self._remote = remote
        self._folder = folder
        self._own = folder / OWN_FOLDER
        self._is_ours = is_ours
        self._states = states
        self._every_s = every_s
        self._known, self._uploading = self._read_known()
        self._snapshots: deque[str] = deque()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ledger's mirror", daemon=True)

    def reconcile(self) -> None:
        """Bring the local ledger to where the sweep stands; to be called before it is opened.

        A local ledger with records that the mirror lacks, while the mirror has others, is put aside, not deleted.

        Raises:
            SpecsweepError: If the store or the ledger cannot be used, or the mirror is gone.
        """
        self._snapshots = deque(sorted(filter(SNAPSHOT_NAME.fullmatch, self._remote.names()), key=_generation))
        pointer = read_pointer(self._remote)
        local = self._folder / LEDGER_NAME
        if pointer is None:
            if self._known is not None and local.exists():
                raise SpecsweepError(
                    f"{self._remote}: the ledger that was mirrored there is gone; to go on from the copy on this "
                    f"machine, delete {self._own / _KNOWN_NAME}; to begin anew, delete {self._folder}"
                )
            return
        if local.exists() and pointer.sha256 in {known.sha256 for known in (self._known, self._uploading) if known}:
            self._write_known(pointer)
            return
        if local.exists():
            self._quarantine()
        fetched = fetch_ledger(self._remote, local)
        if fetched is not None:
            self._write_known(fetched)

    def start(self) -> None:
        """Begin to mirror now and then, in a thread."""
        self._thread.start()

    def close(self) -> str:
        """End the thread and mirror what is left.

        Returns:
            Why that was not possible; empty if it was.
        """
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        reason = ""
        for pause_s in _LAST_TRIES_AFTER_S:
            time.sleep(pause_s)
            try:
                self.mirror()
                return ""
            except (SpecsweepError, OSError) as error:
                reason = str(error)
        return reason

    def mirror(self) -> None:
        """Upload the ledger as it is now, unless the mirror has it; then let go of the states of ended trials.

        Raises:
            SpecsweepError: If that is not possible.
        """
        pending_deletes = self._states.pending_deletes()  # before the snapshot, which thus has the ends of their trials
        if not self._has_ledger():
            return
        snapshot = self._own / "snapshot.sqlite"
        sha256 = self._snapshot(snapshot)
        try:
            is_new = self._known is None or sha256 != self._known.sha256
            if (is_new or pending_deletes) and not self._is_ours():
                return
            if is_new:
                self._upload(snapshot, sha256)
        finally:
            snapshot.unlink(missing_ok=True)
        self._states.delete(pending_deletes)

    def _upload(self, snapshot: Path, sha256: str) -> None:
        uploading = Pointer.make((self._known.generation if self._known else 0) + 1, sha256)
        # On record first: if this process dies right after the upload, the next one knows its own ledger.
        self._write_known(self._known, uploading)
        self._remote.put(uploading.snapshot_name, snapshot)
        self._remote.put_bytes(POINTER_NAME, json.dumps(asdict(uploading)).encode())
        self._write_known(uploading)
        self._snapshots.append(uploading.snapshot_name)
        while len(self._snapshots) > _KEPT_SNAPSHOTS:
            self._remote.delete(self._snapshots[0])
            self._snapshots.popleft()

    def _has_ledger(self) -> bool:
        """Return whether there is a ledger, and not just a file in which it is about to be made."""
        if not (self._folder / LEDGER_NAME).exists():
            return False
        with self._connection() as connection:
            return bool(connection.execute("SELECT COUNT(*) FROM sqlite_schema").fetchone()[0])

    def _snapshot(self, target: Path) -> str:
        """Write the ledger as it is at one moment into a file; return its SHA-256. Writers are not kept waiting."""
        target.unlink(missing_ok=True)
        with self._connection() as connection:
            connection.execute("VACUUM INTO ?", (str(target),))
        return sha256_of(target)

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        source = self._folder / LEDGER_NAME
        address = f"{source.resolve().as_uri()}?mode=ro"
        with translate_sqlite_errors(source), closing(sqlite3.connect(address, uri=True)) as connection:
            yield connection

    def _quarantine(self) -> None:
        """Make room for the mirror's ledger; what it lacks is kept."""
        snapshot = self._own / "snapshot.sqlite"
        is_mirrored = self._known is not None and self._snapshot(snapshot) == self._known.sha256
        snapshot.unlink(missing_ok=True)
        aside = self._own / f"aside-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
        aside.mkdir()
        for name in LEDGER_FILES:
            if (self._folder / name).exists():
                (self._folder / name).rename(aside / name)
        if is_mirrored:
            shutil.rmtree(aside)
            return
        _LOG.warning(
            "%s: another machine has gone on with this sweep; the ledger of this one, whose last records "
            "were not mirrored, was put aside in %s",
            self._remote,
            aside,
        )

    def _run(self) -> None:
        is_behind, wait_s = False, min(self._every_s, _FIRST_AFTER_S)
        while not self._ended.wait(wait_s):
            wait_s = self._every_s
            try:
                self.mirror()
            except (SpecsweepError, OSError) as error:
                if not is_behind:
                    _LOG.warning("%s; it is tried again every %.0f s", error, self._every_s)
                is_behind = True
                continue
            if is_behind:
                _LOG.warning("%s: is up to date again", self._remote)
            is_behind = False

    def _read_known(self) -> tuple[Pointer | None, Pointer | None]:
        """Return the snapshot that the mirror had last, as far as is known here, and one that may have followed."""
        path = self._own / _KNOWN_NAME
        if not path.exists():
            return None, None
        try:
            values = json.loads(path.read_text())
            known, uploading = (Pointer(**values[key]) if values[key] else None for key in ("known", "offered"))
        except (ValueError, TypeError, KeyError) as error:
            raise SpecsweepError(f"{path}: is damaged; delete it to begin from what is mirrored") from error
        return known, uploading

    def _write_known(self, known: Pointer | None, uploading: Pointer | None = None) -> None:
        self._known, self._uploading = known, uploading
        values = {"known": known and asdict(known), "offered": uploading and asdict(uploading)}
        write_atomically(self._own / _KNOWN_NAME, json.dumps(values))


def _generation(name: str) -> int:
    match = SNAPSHOT_NAME.fullmatch(name)
    return int(match["generation"]) if match else 0
