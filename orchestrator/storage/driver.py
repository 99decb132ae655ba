"""Whether the driver that is named as holding results still runs, as far as a reader can tell.

The lock of a plain folder is the kernel's and ends with its holder. Where a ledger is mirrored, ``lock.json`` names the
driver, which writes it anew every period; if it is killed, the file stays. On the machine of the driver's working copy
the lock of that copy tells whether it runs. Elsewhere nothing does: known is only how long ago the file was written, by
the store's clock against this machine's.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.storage.folder_lock import is_held
from orchestrator.storage.ledger_mirror import OWN_FOLDER
from orchestrator.storage.remote_folder import RemoteFolder
from orchestrator.storage.remote_lock import LOCK_NAME, read_holder
from orchestrator.storage.results_folder import TOKEN_NAME, has_mirror, local_copy, read_note

SILENT_PERIODS = 10
"""Periods of the lock, of 30 s, after which a driver elsewhere no longer counts as running.

A driver takes a lock over after two, but watches it itself; here a slow store, caches of NFS and two clocks come in.
"""


@dataclass(frozen=True)
class Driver:
    """The driver that is named as holding mirrored results.

    Attributes:
        name: Its process and machine, and since when.
        is_running: Whether it runs, as far as can be told.
        is_certain: Whether that is known, from a lock on this machine.
        silent_s: Seconds since it was last heard of; None = the store does not say.
    """

    name: str
    is_running: bool
    is_certain: bool
    silent_s: float | None


def find_driver(folder: RemoteFolder) -> Driver | None:
    """Return the driver that holds mirrored results, or held them and died; None if none is named.

    Raises:
        RemoteError: If that cannot be found out.
    """
    holder = read_holder(folder)
    if holder is None:
        return None
    written_at = folder.modified_at(LOCK_NAME)
    silent_s = None if written_at is None else max(0.0, (datetime.now(UTC) - written_at).total_seconds())
    own = local_copy(folder) / OWN_FOLDER
    if holder.token and read_note(own / TOKEN_NAME) == holder.token:
        return Driver(str(holder), is_held(own), is_certain=True, silent_s=silent_s)
    is_running = silent_s is None or silent_s <= SILENT_PERIODS * holder.period_s
    return Driver(str(holder), is_running, is_certain=False, silent_s=silent_s)


def is_in_use(folder: Path) -> bool:
    """Return whether a run holds a folder of results, here or, where its ledger is mirrored, on any machine.

    Raises:
        RemoteError: If that cannot be found out.
    """
    if not has_mirror(folder):
        return is_held(folder)
    driver = find_driver(RemoteFolder(f"file://{folder.resolve()}"))
    return driver is not None and driver.is_running
