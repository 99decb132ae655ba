"""Whether a run may write to a results folder: it must be the same sweep's, and computed by the same code.

A run of one sweep does not take the place of another's by having the same name; and numbers of different code or
libraries do not come to stand side by side unless that is asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from orchestrator.ledger.ledger import Ledger
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.computation import Computation, differences_text, find_differences
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


def check_computation(ledger: Ledger, now: Computation, trial_ids: Collection[str]) -> None:
    """Check that trials which are done were computed by the code and the libraries that would compute more of them.

    Args:
        ledger: Of the folder that the sweep is to write to.
        now: What would compute; its device is not known yet.
        trial_ids: The trials beside which others are to stand.

    Raises:
        SpecsweepError: If some were computed otherwise.
    """
    done = [computation for trial_id, computation in ledger.computations().items() if trial_id in trial_ids]
    distinct = {id(computation): computation for computation in done}
    others = {key for key, computation in distinct.items() if find_differences((computation, now))}
    if others:
        different = differences_text(find_differences((now, *(distinct[key] for key in others))))
        count = sum(id(computation) in others for computation in done)
        raise SpecsweepError(
            f"{ledger.path.parent}: {count} of {len(done)} trials that are done were computed with different "
            f"{different} than others would be now: 'specsweep redo' computes them again, --accept-mixed runs the "
            "others all the same and has the table mark what it compares, --name NAME begins a folder of its own"
        )


def _shown(path: str) -> str:
    """Return a path as short as it can be said from here."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path
