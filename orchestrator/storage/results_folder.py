"""Results at a URL or on a network file system: a working folder on this machine, mirrored there while a sweep runs.

The driver works in ``~/.cache/specsweep/results/HASH/NAME`` (for other places see ``local_disk``). If it is killed, the
next run on the same machine goes on from there; on another machine, from what was mirrored last: what the last
``MIRROR_EVERY_S`` seconds recorded is then lost, and those trials are simply run again. The ledger is mirrored while
the sweep runs; tables, curves and the sweep file follow at the end; states and weights are uploaded by the workers. A
store that fails in the middle stops no sweep.

A folder on a network file system, or with a mirrored ledger in it, is such a store too, by its ``file://`` URL. Other
than behind a URL, commands to a run lie in it, and its file lock is taken as well, where it has one.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from orchestrator.ledger.ledger import LEDGER_NAME
from orchestrator.storage.checkpoint_store import FOLDER_NAME as STATES_FOLDER
from orchestrator.storage.checkpoint_store import RemoteCheckpoints
from orchestrator.storage.command_inbox import FOLDER_NAME as COMMANDS_FOLDER
from orchestrator.storage.folder_lock import LOCK_NAME, CannotLockError, LockedError, hold_lock
from orchestrator.storage.ledger_mirror import (
    LEDGER_FILES,
    MIRROR_EVERY_S,
    OWN_FOLDER,
    POINTER_NAME,
    LedgerMirror,
)
from orchestrator.storage.local_disk import IN_PLACE, MIRROR, PLACE_VARIABLE, forced_place, network_type, working_root
from orchestrator.storage.remote_folder import RemoteFolder, is_url
from orchestrator.storage.remote_lock import PERIOD_S, RemoteLock
from orchestrator.trackers.base import FOLDER_NAME as TRACKERS_FOLDER
from specvit.errors import SpecsweepError
from specvit.files.atomic import write_atomically
from specvit.files.regular import read_regular, reject_symlink
from specvit.kept_weights import FOLDER_NAME as WEIGHTS_FOLDER

_STAYING = frozenset({*LEDGER_FILES, LOCK_NAME, COMMANDS_FOLDER, OWN_FOLDER, STATES_FOLDER, TRACKERS_FOLDER})
"""What lies in the local folder and is not uploaded as it is."""

_MOST_BYTES = 1 << 16
"""Room for what is noted in a file of ours."""

MOVED_NAME = "ledger.moved.sqlite"
"""What a ledger in a folder on a network file system is called once it is mirrored instead."""

TOKEN_NAME = "token"
"""File beside what is known of the mirror, with the token of the lock that was last taken from this machine."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Remote:
    """Where workers keep states and weights.

    Attributes:
        folder: The folder of the sweep's results.
        states: Those of running trials.
        weights: Folder of kept weights.
        path: The folder as a path, where commands to the run come; None = it is behind a URL.
    """

    folder: RemoteFolder
    states: RemoteCheckpoints
    weights: RemoteFolder
    path: Path | None = None


class ResultsFolder:
    """The folder of a sweep's results on this machine, for as long as ``results_folder`` is open."""

    def __init__(self, local: Path, remote: Remote | None = None, lock: RemoteLock | None = None) -> None:
        """Take what there is.

        Args:
            local: The folder to work in.
            remote: Where it is mirrored; None = nowhere.
            lock: The lock on that.
        """
        self.local = local
        self.remote = remote
        self._lock = lock

    def __str__(self) -> str:
        return str(self.local if self.remote is None else self.path or self.remote.folder)

    @property
    def path(self) -> Path | None:
        """Return where the results are on a file system; None if they are behind a URL."""
        return self.local if self.remote is None else self.remote.path

    def is_taken_over(self) -> bool:
        """Return whether another driver has taken these results over; returns at once."""
        return self._lock is not None and self._lock.taken_by is not None


@contextmanager
def results_folder(
    location: str | Path, name: str, *, mirror_every_s: float = MIRROR_EVERY_S, period_s: float = PERIOD_S
) -> Iterator[ResultsFolder]:
    """Give the folder to run a sweep in.

    One that is at a URL or on a network file system is fetched before, mirrored meanwhile, and left whole. A ledger
    that lies in such a folder itself, as of before, is taken from there and kept under another name.

    Args:
        location: Path or URL of the folder that holds a folder per sweep.
        name: Name of the sweep.
        mirror_every_s: Least seconds between two uploads of the ledger.
        period_s: Seconds between two beats of the lock on it.

    Raises:
        LockedError: If another process holds the results, or has taken them over meanwhile.
        SpecsweepError: If the store cannot be used when this begins. What fails later is told of by warnings.
    """
    path: Path | None = None
    if is_url(str(location)):
        folder = RemoteFolder(str(location)) / name
    else:
        path = Path(location) / name
        if not _is_to_be_mirrored(path):
            yield ResultsFolder(path)
            return
        path = path.resolve()
        folder = RemoteFolder(f"file://{path}")
        for kind in (STATES_FOLDER, WEIGHTS_FOLDER):
            reject_symlink(path / kind)
    local = local_copy(folder)
    with ExitStack() as stack:
        own = local / OWN_FOLDER
        try:
            stack.enter_context(hold_lock(own))
        except LockedError as error:
            raise LockedError(f"{folder}: {error}") from error
        lock = RemoteLock(folder, period_s=period_s)
        # A lock that was taken from this folder, which is ours alone now: its process has ended.
        lock.acquire(dead_token=read_note(own / TOKEN_NAME))
        stack.callback(lock.release)
        write_atomically(own / TOKEN_NAME, lock.token)
        if path is not None:
            with suppress(CannotLockError):
                stack.enter_context(hold_lock(path))
        states = RemoteCheckpoints(folder / STATES_FOLDER)
        mirror = LedgerMirror(folder, local, is_ours=lock.is_ours, states=states, every_s=mirror_every_s)
        if path is not None and (path / LEDGER_NAME).exists():
            _move_in(path, local, mirror)
        mirror.reconcile()
        mirror.start()
        if path is not None:
            stack.callback(_remove_if_empty, path / STATES_FOLDER)
        stack.callback(_leave, folder, local, mirror, lock)
        yield ResultsFolder(local, Remote(folder, states, folder / WEIGHTS_FOLDER, path), lock)
    if lock.taken_by is not None:
        raise LockedError(
            f"{folder} was taken over by {lock.taken_by}, to which this process looked dead; what it has recorded "
            f"since then is in {local} alone"
        )


def local_copy(folder: RemoteFolder) -> Path:
    """Return the folder on this machine in which a driver works on results that are mirrored; it need not exist."""
    return cache_folder("results", folder.parent.url) / folder.name


def has_mirror(folder: Path) -> bool:
    """Return whether what is in a folder of results is a mirrored ledger."""
    return (folder / POINTER_NAME).exists()


def _is_to_be_mirrored(folder: Path) -> bool:
    """Return whether a run works on this machine's disk and mirrors its ledger to ``folder``.

    Raises:
        SpecsweepError: If it is to work in a folder whose ledger is mirrored.
    """
    place = forced_place()
    if place == IN_PLACE and has_mirror(folder):
        raise SpecsweepError(
            f"{folder}: {PLACE_VARIABLE} is {IN_PLACE!r}, but the ledger here is a mirrored one; unset it, or copy the "
            f"newest ledger.*.sqlite to {LEDGER_NAME} and delete {POINTER_NAME}"
        )
    return place == MIRROR or has_mirror(folder) or (not place and bool(network_type(folder)))


def _move_in(path: Path, local: Path, mirror: LedgerMirror) -> None:
    """Mirror a ledger that lies in the folder itself, and give it another name; nobody writes to it."""
    if not has_mirror(path):
        for source in reversed(LEDGER_FILES[:2]):  # the log first: whenever this ends, no ledger lacks its log
            (local / source).unlink(missing_ok=True)
            if (path / source).exists():
                shutil.copyfile(path / source, local / source)
        mirror.mirror()
    if has_mirror(path):
        for name in LEDGER_FILES[:2]:
            with suppress(FileNotFoundError):
                (path / name).replace(path / name.replace(LEDGER_NAME, MOVED_NAME))
        (path / LEDGER_FILES[2]).unlink(missing_ok=True)


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _leave(folder: RemoteFolder, local: Path, mirror: LedgerMirror, lock: RemoteLock) -> None:
    """Upload what the run has left in the local folder; say so if that is not possible."""
    reason = mirror.close()
    if lock.taken_by is not None:
        return
    try:
        for path in sorted(local.rglob("*")):
            place = path.relative_to(local)
            if path.is_file() and place.parts[0] not in _STAYING:
                target = folder
                for part in place.parts[:-1]:
                    target = target / part
                target.put(path.name, path)
    except (SpecsweepError, OSError) as error:
        reason = reason or str(error)
    if reason:
        _LOG.warning(
            "%s; the results are whole in %s, but not at %s: running the same command again uploads them",
            reason,
            local,
            folder,
        )


def cache_folder(kind: str, url: str) -> Path:
    """Return the folder of this machine for a kind of copies of what is at a URL; it need not exist."""
    return working_root() / kind / hashlib.sha256(RemoteFolder(url).url.encode()).hexdigest()[:16]


def read_note(path: Path) -> str:
    """Return the text of a small file of ours; empty if there is none that can be read."""
    try:
        return read_regular(path, most_bytes=_MOST_BYTES).decode()
    except (OSError, ValueError):
        return ""
