"""The message to webhooks at the end of a run: what became of it, in JSON that Slack reads too."""

from __future__ import annotations

import html
import json
import math
import socket
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPException
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from orchestrator.reports.ablation_table import tables_of
from orchestrator.reports.rendering.formatting import format_seconds
from orchestrator.reports.rendering.verdict_text import sentences_of
from orchestrator.storage.folder_lock import LockedError
from orchestrator.trials.records import State
from specvit.errors import SpecsweepError
from specvit.messages import one_line

if TYPE_CHECKING:
    from orchestrator.ledger.registration import SweepInfo
    from orchestrator.sweep_run import SweepRun
    from orchestrator.trials.records import TrialRecord

TRIES = 3
TIMEOUT_S = 5.0
"""Of a try."""
PAUSES_S = (1.0, 3.0)
"""Before the second try, and the third."""

_MOST_CHARS = 3000
_MOST_ERROR_CHARS = 500
_DONE, _STOPPED, _FAILED = "done", "stopped", "failed"


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Takes a redirect for a failure: it could lead to another scheme, and makes a GET of a POST."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002
        return None


class Notifier:
    """The sender of a run's message: a context around the run. It sends in the background; Python ends after that."""

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        sweep: str,
        warn: Callable[[str], object],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Take what there is before the run.

        Args:
            addresses: Where to; none = nothing is sent.
            sweep: Name of the sweep.
            warn: Called once for each address that cannot be reached, from another thread; nothing is raised.
            clock: Seconds, monotonic.
            sleep: Waits so many seconds.
        """
        self._addresses, self._sweep, self._warn = addresses, sweep, warn
        self._clock, self._sleep, self._began_s = clock, sleep, clock()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send a message if the run has ended before it began, unless another one holds the results."""
        if error is not None and not isinstance(error, LockedError):
            self._send(_status_of(error), error=error)

    def wait(self) -> None:
        """Wait until the message is out, or could not be sent."""
        for thread in self._threads:
            thread.join()

    @contextmanager
    def watching(self, run: SweepRun) -> Iterator[None]:
        """Send the message when this context closes, which is while the ledger is open; returns before it is out."""
        if not self._addresses or not run.pending:
            yield
            return
        try:
            yield
        except BaseException as error:
            self._send(_status_of(error), run, error=error)
            raise
        self._send(_DONE if run.finished else _STOPPED, run)

    def _send(self, status: str, run: SweepRun | None = None, *, error: BaseException | None = None) -> None:
        if self._threads or not self._addresses:
            return
        records: Sequence[TrialRecord] = ()
        info: SweepInfo | None = None
        if run is not None:
            with suppress(SpecsweepError):  # the ledger itself may be what has failed
                records, info = run.ledger.records(), run.info
        seconds = self._clock() - self._began_s
        message = compose(self._sweep, status, records, info, seconds=seconds, error=error)
        body = json.dumps(message).encode()
        for address in self._addresses:
            thread = threading.Thread(target=self._post, args=(address, body), name="notify")
            self._threads.append(thread)
            thread.start()

    def _post(self, address: str, body: bytes) -> None:
        opener = urllib.request.build_opener(_NoRedirects)
        headers = {"Content-Type": "application/json", "User-Agent": "specsweep"}
        request = urllib.request.Request(address, data=body, headers=headers, method="POST")
        reason = ""
        for pause_s in (*PAUSES_S, math.inf):
            try:
                with opener.open(request, timeout=TIMEOUT_S):
                    return
            except urllib.error.HTTPError as error:
                reason = f"HTTP status {error.code}"
                error.close()
            except (OSError, HTTPException, ValueError) as error:
                reason = type(error).__name__ if address in str(error) else one_line(str(error))
            if pause_s < math.inf:
                self._sleep(pause_s)
        host = urlsplit(address).hostname  # the rest of the address may be a secret
        self._warn(f"notify: no message was taken by {host}: {reason}, {TRIES} tries")


def _status_of(error: BaseException) -> str:
    return _STOPPED if isinstance(error, KeyboardInterrupt) else _FAILED


def compose(
    sweep: str,
    status: str,
    records: Sequence[TrialRecord],
    info: SweepInfo | None,
    *,
    seconds: float,
    error: BaseException | None = None,
) -> dict[str, Any]:
    """Return the message.

    Args:
        sweep: Name of the sweep.
        status: ``done``, ``stopped`` or ``failed``; a sweep that is done and has failed trials becomes ``failed``.
        records: Its trials, as far as they are known.
        info: The sweep, likewise.
        seconds: Wall time of the run.
        error: What ended the run.

    Returns:
        ``sweep``, ``status``, ``trials`` (state to number), ``verdicts`` (the sentences above the tables), ``seconds``,
        ``host``, ``error`` (in one line, or null), and all of it as ``text``.
    """
    counts = Counter(str(record.state) for record in records)
    if status == _DONE and counts[State.FAILED]:
        status = _FAILED
    verdicts = [] if info is None or status == _STOPPED else _verdicts(records, info)
    reason = None if error is None else (one_line(str(error)) or type(error).__name__)[:_MOST_ERROR_CHARS]
    host = socket.gethostname()
    head = f"{sweep}: {status} on {host} after {format_seconds(seconds)}"
    parts = [head, ", ".join(f"{count} {state}" for state, count in counts.items()), reason or "", *verdicts]
    return {
        "sweep": sweep,
        "status": status,
        "trials": dict(counts),
        "verdicts": verdicts,
        "seconds": round(seconds, 1),
        "host": host,
        "error": reason,
        # Slack takes <, > and & for markup; labels come from sweep files.
        "text": html.escape("\n".join(filter(None, parts))[:_MOST_CHARS], quote=False),
    }


def _verdicts(records: Sequence[TrialRecord], info: SweepInfo) -> list[str]:
    return [
        f"{group}: {sentence}" if group else sentence
        for group, table in tables_of(records, info).items()
        for sentence in sentences_of(table)
    ]

