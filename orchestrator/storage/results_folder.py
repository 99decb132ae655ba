"""Results at a URL: a working folder on this machine, mirrored to a store while a sweep runs.

The driver works in ``~/.cache/specsweep/results/HASH/NAME`` (or below ``$XDG_CACHE_HOME``). If it is killed, the next
run on the same machine goes on from there; on another machine, from what was mirrored last: what the last
``MIRROR_EVERY_S`` seconds recorded is then lost, and those trials are simply run again. The ledger is mirrored while
the sweep runs; tables, curves and the sweep file follow at the end; states and weights are uploaded by the workers. A
store that fails in the middle stops no sweep.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.ledger.ledger import LEDGER_NAME
from orchestrator.storage.checkpoint_store import FOLDER_NAME as STATES_FOLDER
from orchestrator.storage.checkpoint_store import WEIGHTS_NAME, RemoteCheckpoints
from orchestrator.storage.command_inbox import FOLDER_NAME as COMMANDS_FOLDER
from orchestrator.storage.folder_lock import LOCK_NAME, LockedError, hold_lock
from orchestrator.storage.ledger_mirror import (
    LEDGER_FILES,
    MIRROR_EVERY_S,
    OWN_FOLDER,
    POINTER_NAME,
    LedgerMirror,
    fetch_ledger,
)
from orchestrator.storage.remote_folder import RemoteError, RemoteFolder, is_url
from orchestrator.storage.remote_lock import PERIOD_S, RemoteLock, read_holder
from specvit.errors import SpecsweepError
from specvit.files.atomic import write_atomically
from specvit.files.regular import read_regular

_STAYING = frozenset({*LEDGER_FILES, LOCK_NAME, COMMANDS_FOLDER, OWN_FOLDER, STATES_FOLDER})
"""What lies in the local folder and is not uploaded as it is."""

_MOST_BYTES = 1 << 16
"""Room for what is noted in a file of ours."""

_TOKEN_NAME = "token"
_VIEWED_NAME = "viewed.json"

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Remote:
    """Where workers keep states and weights.

    Attributes:
        folder: The folder of the sweep's results.
        states: Those of running trials.
        weights: Folder of kept weights.
    """

    folder: RemoteFolder
    states: RemoteCheckpoints
    weights: RemoteFolder


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
        return str(self.local if self.remote is None else self.remote.folder)

    def is_taken_over(self) -> bool:
        """Return whether another driver has taken these results over; returns at once."""
        return self._lock is not None and self._lock.taken_by is not None


@contextmanager
def results_folder(
    location: str | Path, name: str, *, mirror_every_s: float = MIRROR_EVERY_S, period_s: float = PERIOD_S
) -> Iterator[ResultsFolder]:
    """Give the folder to run a sweep in; one that is at a URL is fetched before, mirrored meanwhile, and left whole.

    Args:
        location: Path or URL of the folder that holds a folder per sweep.
        name: Name of the sweep.
        mirror_every_s: Least seconds between two uploads of the ledger.
        period_s: Seconds between two beats of the lock on the URL.

    Raises:
        LockedError: If another process holds the results, or has taken them over meanwhile.
        SpecsweepError: If the store cannot be used when this begins. What fails later is told of by warnings.
    """
    if not is_url(str(location)):
        yield ResultsFolder(Path(location) / name)
        return
    folder = RemoteFolder(str(location)) / name
    local = _cache_folder("results", str(location)) / name
    with ExitStack() as stack:
        own = local / OWN_FOLDER
        try:
            stack.enter_context(hold_lock(own))
        except LockedError as error:
            raise LockedError(f"{folder}: {error}") from error
        lock = RemoteLock(folder, period_s=period_s)
        # A lock that was taken from this folder, which is ours alone now: its process has ended.
        lock.acquire(dead_token=_read(own / _TOKEN_NAME))
        stack.callback(lock.release)
        write_atomically(own / _TOKEN_NAME, lock.token)
        states = RemoteCheckpoints(folder / STATES_FOLDER)
        mirror = LedgerMirror(folder, local, is_ours=lock.is_ours, states=states, every_s=mirror_every_s)
        mirror.reconcile()
        mirror.start()
        stack.callback(_leave, folder, local, mirror, lock)
        yield ResultsFolder(local, Remote(folder, states, folder / WEIGHTS_NAME), lock)
    if lock.taken_by is not None:
        raise LockedError(
            f"{folder} was taken over by {lock.taken_by}, to which this process looked dead; what it has recorded "
            f"since then is in {local} alone"
        )


def local_view(location: str | Path, *, name: str | None = None) -> Path:
    """Turn a place of results into a local folder to read ledgers from; a path is given back as it is.

    Of a URL, the mirrored ledgers are fetched into a cache: of a folder of one sweep's results that sweep's, of a
    folder that holds a folder per sweep those of all sweeps, or of one. The view of a running sweep is as old as the
    last upload. Where nothing is mirrored, the view is an empty folder.

    Args:
        location: Path or URL.
        name: The one sweep that is asked for; None = all that are there.

    Raises:
        RemoteError: If the store cannot be used.
    """
    if not is_url(str(location)):
        return Path(location)
    folder = RemoteFolder(str(location))
    view = _cache_folder("views", folder.url)
    with _cannot_be_written(view):
        view.mkdir(parents=True, exist_ok=True)
    if name is None and folder.get_bytes(POINTER_NAME) is not None:
        _fetch_view(folder, view)
        return view
    names = folder.names(folders=True) if name is None else (name,)
    for sweep_name in names:
        if "/" in sweep_name or sweep_name in {"", ".", ".."}:
            continue  # no name of a sweep; it would lead out of the cache
        _fetch_view(folder / sweep_name, view / sweep_name)
    return view


def holder_of_view(view: Path) -> str:
    """Return who held the results when their view was fetched; empty if nobody did, or if this is no view.

    A driver that was killed without a chance to give its lock back counts as holding it until its successor does.
    """
    return _viewed(view).get("holder", "")


def _fetch_view(folder: RemoteFolder, view: Path) -> None:
    """Bring the view of one sweep up to date; it goes if nothing is mirrored any more."""
    ledger = view / LEDGER_NAME
    with _cannot_be_written(view):
        view.mkdir(parents=True, exist_ok=True)
    known = _viewed(view)
    pointer = fetch_ledger(folder, ledger, known_sha256=known.get("sha256", ""))
    if pointer is None:
        ledger.unlink(missing_ok=True)
    holder = read_holder(folder)
    note = {"sha256": pointer.sha256 if pointer else "", "holder": str(holder) if holder else ""}
    write_atomically(view / _VIEWED_NAME, json.dumps(note))


def _viewed(view: Path) -> dict[str, str]:
    """Return what is known here of a view; nothing if it is none."""
    try:
        note = json.loads(_read(view / _VIEWED_NAME))
        return {key: str(note[key]) for key in ("sha256", "holder")}
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}


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


def _cache_folder(kind: str, url: str) -> Path:
    """Return the folder of this machine for a URL; nothing is made."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "specsweep" / kind / hashlib.sha256(RemoteFolder(url).url.encode()).hexdigest()[:16]


@contextmanager
def _cannot_be_written(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RemoteError(f"{folder}: cannot be made ({error.strerror})") from error


def _read(path: Path) -> str:
    """Return the text of a file; empty if there is none that can be read."""
    try:
        return read_regular(path, most_bytes=_MOST_BYTES).decode()
    except (OSError, ValueError):
        return ""
