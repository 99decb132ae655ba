"""Who is told of a run besides the terminal: trackers while it goes on, webhooks at its end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console

from orchestrator.cli.console import complain

if TYPE_CHECKING:
    from orchestrator.notify import Notifier
    from orchestrator.storage.results_folder import ResultsFolder
    from orchestrator.sweep.resolved import Sweep
    from orchestrator.sweep_run import SweepRun


def make_notifier(sweep: Sweep) -> Notifier:
    """Check all that a sweep's trackers and webhooks need before any work begins; return what tells the webhooks.

    Raises:
        ConfigError: If a tracker's package is not installed, or the environment holds no addresses where it should.
    """
    from orchestrator.notify import Notifier
    from orchestrator.secrets import PLACEHOLDER, VARIABLE, resolve_addresses

    for tracker in sweep.file.trackers:
        tracker.check_installed()
    given = [address.get_secret_value() for address in sweep.file.notify]
    if PLACEHOLDER in given and not os.environ.get(VARIABLE):
        complain(f"notify: the environment variable {VARIABLE} is not set, so nobody is told by it")
    return Notifier(resolve_addresses(given, os.environ), sweep=sweep.name, warn=complain)


@contextmanager
def told(console: Console, prepared: SweepRun, folder: ResultsFolder, notifier: Notifier) -> Iterator[None]:
    """Report a run to trackers and webhooks while this context is open; print where trackers show it."""
    from orchestrator.monitoring.tracking import tracking

    trackers, results = prepared.sweep.file.trackers, folder.local.absolute()
    for tracker in trackers:
        place = tracker.destination(tracker.folder_in(results), sweep=prepared.sweep.name)
        console.print(f"tracker {tracker.name}: {place}", markup=False, soft_wrap=True)
    with notifier.watching(prepared), tracking(trackers, ledger=prepared.ledger.path, results=results, warn=complain):
        yield
