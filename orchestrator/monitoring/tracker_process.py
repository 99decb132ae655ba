"""The process of a tracker: it reads a ledger that another process writes, and tells the tracker what is new.

Its request is a line of JSON on stdin, and the end of stdin is that of the run. What goes wrong first is a line on
stdout; all else, with what the tracker's package prints, goes to stderr, which is a file.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from orchestrator.ledger.event_stream import EventReader
from orchestrator.ledger.ledger import Ledger
from orchestrator.secrets import without_password
from orchestrator.trackers import SelectedTrackers, Tracker
from orchestrator.trackers.feed import Feed, SentRuns
from specvit.config import ModelSettings
from specvit.messages import one_line

POLL_S = 1.0
"""Time between two looks at the ledger."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 10.0, 300.0
"""Time before a tracker that failed is told again; it doubles each time."""

_MOST_CHARS = 300
_SECTIONS = ("model", "objective", "data")
"""Sections of a configuration whose settings runs show."""
_OF_DATA = ("source", "image_size")

Wait = Callable[[float], bool]
"""Waits so many seconds, or until the run has ended; returns whether it has."""


@dataclass(frozen=True)
class Request:
    """What a tracker's process is to do; see ``orchestrator.monitoring.tracking.TrackerProcess``."""

    tracker: Tracker
    ledger: Path
    folder: Path
    fresh: bool

    @classmethod
    def read(cls, line: str) -> Request:
        """Return the request that a line of JSON holds."""
        given = json.loads(line)
        (tracker,) = TypeAdapter(SelectedTrackers).validate_python([given["tracker"]])
        return cls(tracker, Path(given["ledger"]), Path(given["folder"]), given["fresh"])


def follow(request: Request, *, wait: Wait, report: Callable[[str], object]) -> bool:
    """Report a sweep to a tracker until its run has ended; begin again whenever the tracker fails.

    Args:
        request: What is to be told to whom.
        wait: See ``Wait``.
        report: Called with the first thing that goes wrong.

    Returns:
        Whether all was told at the end.
    """
    pause_s, reported, fresh = FIRST_PAUSE_S, False, request.fresh
    while True:
        has_ended = wait(0)
        try:
            _follow_once(request, fresh=fresh, wait=wait)
            return True
        except (Exception, SystemExit) as error:  # whatever a tracker's package may raise
            traceback.print_exc()
            if not reported:
                report(one_line(without_password(f"{type(error).__name__}: {error}"))[:_MOST_CHARS])
            reported, fresh = True, False
        if has_ended:
            return False
        wait(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _follow_once(request: Request, *, fresh: bool, wait: Wait) -> None:
    with Ledger.read(request.ledger) as ledger:
        sweep = ledger.sweep().name
        place = request.tracker.destination(request.folder, sweep=sweep)
        sent = request.folder / f"sent-{hashlib.sha256(place.encode()).hexdigest()[:8]}.txt"
        first = ledger.provenance()[0]
        feed = Feed(
            partial(request.tracker.connect, request.folder, sweep=sweep),
            sweep=sweep,
            namespace=f"{first.host} {first.started_at}",
            settings=_settings(ledger),
            sent=SentRuns(sent, fresh=fresh),
        )
        reader, version = EventReader(reads_logs=False), -1
        while True:
            has_ended = wait(0 if version < 0 else POLL_S)
            if (now := ledger.version()) != version:
                version = now
                with ledger.snapshot(reads_logs=False) as connection:
                    events = reader.poll(connection)
                feed.take(events)
            if has_ended:
                feed.close()
                return


def _settings(ledger: Ledger) -> dict[str, dict[str, str | int | float | bool]]:
    """Return what trials are run with, by id: what their groups share, and their sizes."""
    groups = {group_id: _flat(config) for group_id, config in ledger.group_configs().items()}
    trials = (record.trial for record in ledger.records(with_reports=False))
    return {
        trial.trial_id: {
            "parameters": trial.num_parameters,
            "extra_parameters_percent": trial.extra_parameters_percent,
            **groups.get(trial.group_id, {}),
        }
        for trial in trials
    }


def _flat(config: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    """Return the settings of a configuration by dotted names, without those that say where something lies."""
    return {
        f"{section}.{name}": value
        for section in _SECTIONS
        for name, value in config.get(section, {}).items()
        if isinstance(value, str | int | float | bool)
        and name not in ModelSettings.path_fields
        and (section != "data" or name in _OF_DATA)
    }


def main() -> int:
    """Read the request from stdin and follow it; return the exit code."""
    reports = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a package prints is no report
    os.nice(19)  # trials come first
    parent, first = os.getppid(), sys.stdin.buffer.raw.readline()  # type: ignore[union-attr]

    def wait(seconds: float) -> bool:
        """Wait; the run has also ended if its driver has, and something that it started holds the pipe open."""
        until_s = time.monotonic() + seconds
        while True:
            left_s = until_s - time.monotonic()
            if select.select([0], [], [], max(0.0, min(left_s, 1.0)))[0] or os.getppid() != parent:
                return True
            if left_s <= 0:
                return False

    def report(text: str) -> None:
        print(text, file=reports, flush=True)

    return 0 if follow(Request.read(first.decode()), wait=wait, report=report) else 1


if __name__ == "__main__":
    sys.exit(main())
