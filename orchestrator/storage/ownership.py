"""Whose results a folder holds: a run of one sweep does not take the place of another's by having the same name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from orchestrator.ledger.ledger import Ledger
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.trial import Trial
from specvit.errors import SpecsweepError


def check_owner(ledger: Ledger, sweep: Sweep, trials: Sequence[Trial]) -> None:
    """Check that a sweep may write to a ledger: it is new, or of the same file, or loses no trial by it.

    Args:
        ledger: Of the folder that the sweep is to write to.
        sweep: The sweep.
        trials: Its trials.

    Raises:
        SpecsweepError: If another file's sweep would lose its place in the tables.
    """
    runs = ledger.provenance()
    before = runs[-1].sweep_file if runs else None
    here = str(sweep.path.resolve())
    if before in (None, here) or ledger.sweep().text == sweep.text:
        return
    records = ledger.records(with_reports=False)
    ids = {trial.trial_id for trial in trials}
    shared = sum(record.trial.trial_id in ids for record in records)
    if shared == len(records):
        return
    raise SpecsweepError(
        f"{ledger.path.parent}: holds the results of another sweep file, {_shown(before)}, with {len(records)} trials, "
        f"of which {shared} are among the {len(ids)} of {sweep.path}: give --name NAME for a folder of its own, or "
        "--replace to put this sweep in the other's place"
    )


def _shown(path: str) -> str:
    """Return a path as short as it can be said from here."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path
