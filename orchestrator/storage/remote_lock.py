"""One driver to a URL: a lock for stores that have none, by a counter that its holder keeps raising.

``lock.json`` says who holds the folder; its ``beat`` goes up every period. Whoever finds a lock watches its beat for
some periods, by the own clock alone, and takes it over only if the beat did not change.

What this cannot guarantee: a store has no lock that ends with its holder. A holder that was suspended, or cut off
from the store, for longer than another driver watches, comes back and finds its lock taken; until it looks again, up
to a period later, two drivers run the same trials. It mirrors nothing then, for it looks before every upload, but
between that look and the upload lies a moment. Where the store has no conditional writes, two drivers that come in
the same moment are told apart by reading back who wrote last, which fails if one of them is held up for longer than
``SETTLE_PERIODS`` between its look and its write. No record is damaged by any of this: ledgers are uploaded under names
of their own, and the last one to be named in ``ledger.json`` counts.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import threading
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Self

from orchestrator.storage.folder_lock import LockedError
from orchestrator.storage.remote_folder import RemoteError, RemoteFolder
from specvit.errors import SpecsweepError

LOCK_NAME = "lock.json"
PERIOD_S = 30.0
"""Seconds between two beats."""

WATCHED_PERIODS = 2.0
"""How long a beat must stand still until its lock is taken over: a single beat may come late through a slow store."""

SETTLE_PERIODS = 1 / 30
"""How long after its write a driver reads back whether the lock is still its own."""

_LONGEST_PERIOD_S = 600.0
_LOOKS_PER_PERIOD = 20

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """What ``lock.json`` says.

    Attributes:
        token: Random text that tells this holding of the lock from all others.
        host: Where the holder runs.
        pid: Its process there.
        since: When it took the lock, by its clock; for people.
        beat: How often it has renewed the lock.
        period_s: Seconds between two renewals.
    """

    token: str
    host: str
    pid: int
    since: str
    beat: int = 0
    period_s: float = PERIOD_S

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} (since {self.since})"

    @classmethod
    def parse(cls, data: bytes) -> Self | None:
        """Read a lock's file; None if it is none."""
        try:
            values = json.loads(data)
            holder = cls(**values)
            texts = (holder.token, holder.host, holder.since)
            period_s = float(holder.period_s)
        except (ValueError, TypeError, OverflowError, RecursionError):
            return None
        # It comes from a place that others write to, and is shown in terminals.
        are_texts = all(isinstance(text, str) and text.isprintable() for text in texts)
        are_numbers = isinstance(holder.pid, int) and isinstance(holder.beat, int)
        return holder if are_texts and are_numbers and 0 < period_s <= _LONGEST_PERIOD_S else None


_NOBODY = Holder(token="", host="a machine that does not say", pid=0, since="?")


def read_holder(folder: RemoteFolder) -> Holder | None:
    """Return who holds a folder, or held it and died; None if nobody does.

    Raises:
        RemoteError: If that cannot be found out.
    """
    data = folder.get_bytes(LOCK_NAME)
    return None if data is None else Holder.parse(data) or _NOBODY


class RemoteLock:
    """The lock of a folder, held by this process from ``acquire`` to ``release``."""

    def __init__(self, folder: RemoteFolder, *, period_s: float = PERIOD_S) -> None:
        """Take the folder; nothing is done yet.

        Args:
            folder: What to hold.
            period_s: Seconds between two beats.
        """
        self._folder = folder
        since = datetime.now(UTC).isoformat(timespec="seconds")
        self._own = Holder(secrets.token_hex(16), socket.gethostname(), os.getpid(), since, period_s=period_s)
        self._taken_by: Holder | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._send_heartbeats, name="lock's heartbeat", daemon=True)

    @property
    def token(self) -> str:
        """Return the text that tells this holding from all others."""
        return self._own.token

    @property
    def taken_by(self) -> Holder | None:
        """Return who has taken the lock over, as far as is known now; None = it is ours."""
        return self._taken_by

    def acquire(self, *, dead_token: str = "") -> None:
        """Take the lock, after watching whether a holder that is named there lives.

        Args:
            dead_token: Of a holding whose process is known to have ended; its lock is taken over at once.

        Raises:
            LockedError: If another process holds the folder.
            RemoteError: If the store cannot be used.
        """
        found = read_holder(self._folder)
        if found is not None and found.token != dead_token:
            found = self._watch(found)
        try:
            self._write_first(is_free=found is None)
        except BaseException:
            self.release()  # also of a lock that was written when Ctrl-C came
            raise
        self._thread.start()

    def is_ours(self) -> bool:
        """Look whether the lock is still ours; once it is not, it is never again.

        Raises:
            RemoteError: If that cannot be found out.
        """
        if self._taken_by is None:
            holder = read_holder(self._folder)
            if holder is None or holder.token != self._own.token:
                self._taken_by = holder or _NOBODY
        return self._taken_by is None

    def release(self) -> None:
        """Give the lock back if it is ours; safe to call twice. A store that cannot be reached is only told of."""
        if self._ended.is_set():
            return
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(self._own.period_s)
        try:
            if self.is_ours():
                self._folder.delete(LOCK_NAME)
        except SpecsweepError as error:
            _LOG.warning("%s; the next run on another machine waits to see that this one has ended", error)

    def _write_first(self, *, is_free: bool) -> None:
        data = json.dumps(asdict(self._own)).encode()
        if not is_free:
            self._folder.put_bytes(LOCK_NAME, data)
        elif not self._folder.create(LOCK_NAME, data):
            raise self._refusal(read_holder(self._folder) or _NOBODY)
        time.sleep(self._own.period_s * SETTLE_PERIODS)
        if not self.is_ours():
            raise self._refusal(self._taken_by or _NOBODY)

    def _watch(self, found: Holder) -> Holder | None:
        """Return a holder once it has shown no life for long enough, or None once it has given the lock back."""
        period_s = max(found.period_s, self._own.period_s)
        wait_s = WATCHED_PERIODS * period_s
        _LOG.warning(
            "%s: is held by %s; watching for up to %.0f s whether that lives", self._folder, found, wait_s
        )
        deadline = time.monotonic() + wait_s
        while time.monotonic() < deadline:
            time.sleep(period_s / _LOOKS_PER_PERIOD)
            now = read_holder(self._folder)
            if now is not None and now != found:
                raise self._refusal(now)
            if now is None:
                return None
        _LOG.warning("%s: the lock of %s is taken over, for it showed no life", self._folder, found)
        return found

    def _refusal(self, holder: Holder) -> LockedError:
        return LockedError(f"{self._folder} is in use by {holder}; wait for it or stop it")

    def _send_heartbeats(self) -> None:
        while not self._ended.wait(self._own.period_s):
            try:
                if not self.is_ours():
                    _LOG.warning("%s: was taken over by %s", self._folder, self._taken_by)
                    return
                self._own = replace(self._own, beat=self._own.beat + 1)
                self._folder.put_bytes(LOCK_NAME, json.dumps(asdict(self._own)).encode())
            except RemoteError as error:
                _LOG.warning("%s; the lock is renewed later", error)
