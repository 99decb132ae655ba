"""Looking at a ledger again and again, while a sweep runs elsewhere and until it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live

from orchestrator.ledger.event_stream import EventReader, EventRow
from orchestrator.monitoring.status import SweepStatus, is_running, render_status

if TYPE_CHECKING:
    from orchestrator.ledger.ledger import Ledger

MAX_LINES = 15
"""Trials that a section of a status that is redrawn lists at most: it has to fit on a screen."""


def follow_status(console: Console, looks: Iterable[SweepStatus]) -> SweepStatus:
    """Print where a sweep stands, until it ends.

    On a terminal a block that is redrawn and gives way to a last status. Elsewhere a new block whenever more has
    changed than how far the running trials are.

    Args:
        console: Where to.
        looks: The standings, up to one of a sweep that has ended; at least one.

    Returns:
        The last standing.
    """
    if not console.is_terminal or console.is_dumb_terminal:
        return _print_changes(console, looks)
    with Live(console=console, auto_refresh=False, transient=True) as live:
        for standing in looks:
            live.update(render_status(standing, max_lines=MAX_LINES), refresh=True)
    console.print(render_status(standing))
    return standing


def _print_changes(console: Console, looks: Iterable[SweepStatus]) -> SweepStatus:
    shown: object = None
    for standing in looks:
        if shown != standing.apart_from_progress:
            console.print(render_status(standing))
            shown = standing.apart_from_progress
    return standing


def follow_events(
    ledger: Ledger, *, interval_s: float, sleep: Callable[[float], None] = time.sleep
) -> Iterator[EventRow]:
    """Yield every event of a sweep once: those so far, then new ones, until no run holds the results folder."""
    reader = EventReader()
    before = None
    while True:
        # In this order, what a run wrote before it let go of the folder is still read.
        held, version = is_running(ledger.path.parent), ledger.version()
        if version != before:
            with ledger.snapshot() as connection:
                news = reader.poll(connection)
            yield from news
            before = version
        if not held:
            return
        sleep(interval_s)


def look_at_mirror(
    open_ledger: Callable[[], AbstractContextManager[Ledger]],
    *,
    interval_s: float,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[SweepStatus]:
    """Yield the standings of a ledger that is fetched for each look; the last one is of a sweep that has ended."""
    while True:
        with open_ledger() as ledger:
            standing = SweepStatus.read(ledger)
        yield standing
        if standing.has_ended:
            return
        sleep(interval_s)


def poll_status(
    ledger: Ledger, *, interval_s: float, sleep: Callable[[float], None] = time.sleep
) -> Iterator[SweepStatus]:
    """Yield a standing whenever something may have changed; the last one is of a sweep that has ended.

    Args:
        ledger: The sweep's ledger, open for reading.
        interval_s: Seconds between two looks.
        sleep: Waits so many seconds.
    """
    before = None
    while True:
        now = (is_running(ledger.path.parent), ledger.version())
        if now != before:
            standing = SweepStatus.read(ledger)
            yield standing
            if standing.has_ended:
                return
            before = now
        sleep(interval_s)
