"""The commands that look at a sweep from elsewhere, while it runs and after it: status, logs, events.

They read the ledger, and write nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.arguments import (
    DEFAULT_RESULTS,
    EXIT_FAILED_TRIALS,
    EXIT_INTERRUPTED,
    NoLedgerError,
    Overrides,
    ResultsRoot,
    Target,
    open_ledger,
    refuse_url,
)
from orchestrator.cli.console import complain, make_console, print_raw
from specvit.errors import SpecsweepError

if TYPE_CHECKING:
    from orchestrator.ledger.ledger import Ledger

Interval = Annotated[
    float, typer.Option("--interval", min=0.1, metavar="SECONDS", help="Time between two looks of --follow.")
]


MIRROR_INTERVAL_S = 10.0
"""Least time between two looks at a mirrored ledger, which is fetched for each."""


def status(
    target: Target,
    overrides: Overrides = None,
    results: ResultsRoot = DEFAULT_RESULTS,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow",
            help="Wait for the sweep to start, and look again until it ends; exits 1 if a trial has no result then.",
        ),
    ] = False,
    interval: Interval = 2.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; with --follow a line whenever something has changed.")
    ] = False,
) -> None:
    """Show where a sweep stands: trials by state, time left, what runs, what was pruned or failed and why, results."""
    from orchestrator.monitoring.follow import follow_status, look_at_mirror, poll_status
    from orchestrator.monitoring.status import SweepStatus, render_status
    from orchestrator.storage.remote_folder import is_url
    from orchestrator.storage.views import is_view

    open_it = partial(open_ledger, target, results, overrides)
    if not follow:
        with open_it() as ledger:
            standing = SweepStatus.read(ledger)
        if as_json:
            print_raw(json.dumps(standing.to_json(), indent=2))
        else:
            make_console().print(render_status(standing))
        return
    every_s = max(interval, MIRROR_INTERVAL_S)
    try:
        _wait_for_ledger(open_it, interval_s=every_s if is_url(target) or is_url(results) else interval)
        with open_it() as ledger:
            if is_view(ledger.path.parent):
                looks = look_at_mirror(open_it, interval_s=every_s)
            else:
                looks = poll_status(ledger, interval_s=interval)
            if as_json:
                for standing in looks:
                    print_raw(json.dumps(standing.to_json()))
            else:
                standing = follow_status(make_console(), looks)
    except KeyboardInterrupt as error:
        raise typer.Exit(EXIT_INTERRUPTED) from error
    if not standing.all_done:
        raise typer.Exit(EXIT_FAILED_TRIALS)


def _wait_for_ledger(open_it: Callable[[], AbstractContextManager[Ledger]], *, interval_s: float) -> None:
    """Wait until a sweep that somebody is about to start has a ledger, and say so."""
    is_told = False
    while True:
        try:
            with open_it():
                return
        except NoLedgerError as error:
            if not is_told:
                place = str(error).partition(": no ledger")[0]
                complain(f"{place}: no ledger here yet; waiting for the sweep to start")
            is_told = True
            time.sleep(interval_s)


def logs(
    target: Target,
    trial: Annotated[
        str | None,
        typer.Argument(
            metavar="[TRIAL]",
            help="A trial's label, its arm or a part that no other has, or 4 or more digits that its id begins with.",
        ),
    ] = None,
    overrides: Overrides = None,
    results: ResultsRoot = DEFAULT_RESULTS,
    attempt: Annotated[int | None, typer.Option(min=1, metavar="N", help="Show this attempt only.")] = None,
) -> None:
    """Show every attempt at a trial: times, rungs, log, error, traceback. Without TRIAL: what failed, a line each."""
    from orchestrator.ledger.attempts import find_trial, select_attempts, select_failed, select_names
    from orchestrator.monitoring.attempt_view import render_failures, render_history

    if attempt is not None and trial is None:
        raise SpecsweepError("--attempt: needs a TRIAL whose attempt it is")
    with open_ledger(target, results, overrides) as ledger, ledger.snapshot() as connection:
        if trial is None:
            shown = render_failures(select_failed(connection))
        else:
            name = find_trial(select_names(connection), trial)
            attempts = select_attempts(connection, name.trial_id)
            if attempt is not None and attempt > len(attempts):
                raise SpecsweepError(f"--attempt: of {name.label} there are {len(attempts)} so far, not {attempt}")
            shown = render_history(name, attempts if attempt is None else attempts[attempt - 1 : attempt])
    make_console().print(shown, soft_wrap=True)


def events(
    target: Target,
    overrides: Overrides = None,
    results: ResultsRoot = DEFAULT_RESULTS,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with what is new until no run holds the results folder.")
    ] = False,
    interval: Interval = 1.0,
) -> None:
    """Print what happened as JSON lines for other tools, an object a line, by time.

    Every object has kind, at (ISO 8601, UTC), trial_id, attempt, label, group, arm, role and seed. The kinds, and
    the keys of their own: registered, a run began (sweep, run, trials); begun, an attempt was handed to an executor
    and is pending (share, gpus); started, a worker took it up (worker); log (number, level, text); rung (step,
    metrics); done (metrics, seconds, core_seconds; of the training alone training_s, training_images_per_s,
    peak_memory_gib, peak_gpu_memory_gib); pruned (step, seconds, why); failed (cause, error, seconds); lost, its run
    ended before it did (step); left_out, the budget has no room for the trial (reason).

    What does not apply is null: the trial of registered, at and attempt of left_out. Metrics that are not finite are
    the texts "NaN", "Infinity" and "-Infinity".
    """
    from orchestrator.ledger.event_stream import EventReader, encode
    from orchestrator.monitoring.follow import follow_events
    from orchestrator.storage.views import is_view

    if follow:
        refuse_url(target, results, why="events of a mirrored ledger come in lumps; ask again without --follow")
    open_it = partial(open_ledger, target, results, overrides)
    if follow:
        try:
            _wait_for_ledger(open_it, interval_s=interval)
        except KeyboardInterrupt as error:
            raise typer.Exit(EXIT_INTERRUPTED) from error
    with open_it() as ledger:
        if not follow:
            with ledger.snapshot() as connection:
                news = EventReader().poll(connection)
            for happening in news:
                print_raw(encode(happening))
            return
        if is_view(ledger.path.parent):
            raise SpecsweepError("--follow: events of a mirrored ledger come in lumps; ask again without it")
        try:
            for happening in follow_events(ledger, interval_s=interval):
                print_raw(encode(happening))
        except KeyboardInterrupt as error:
            raise typer.Exit(EXIT_INTERRUPTED) from error
