"""What ``publish`` does: put the tables of a finished sweep where they are kept, apart from the runs of a machine."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.provenance import Provenance
from orchestrator.reports.result_files import write_results
from orchestrator.trials.records import State
from specvit.errors import SpecsweepError

STUDIES = "studies"
"""Folder of the published studies, beside the runs."""

_WITH_RESULT = (State.DONE, State.PRUNED)


def publish(ledger: Ledger, destination: Path) -> tuple[Path, ...]:
    """Write the tables of a sweep, its curves, its file and its environment to a folder.

    Args:
        ledger: Of the sweep, open for reading.
        destination: The folder; it is made if it is not there, and what it holds by the same names is replaced.

    Returns:
        The files, in the order of their names.

    Raises:
        SpecsweepError: If a trial has no result, or results come from different code or libraries.
    """
    records = ledger.records()
    others = Counter(str(record.state) for record in records if record.state not in _WITH_RESULT)
    if others:
        counts = ", ".join(f"{count} {state}" for state, count in others.items())
        raise SpecsweepError(
            f"{ledger.path.parent}: not published: {counts} of {len(records)} trials; run the sweep to its end first"
        )
    _refuse_mixed(ledger)
    provenance = ledger.newest_provenance()
    assert provenance is not None  # a run has begun what has a result
    destination.mkdir(parents=True, exist_ok=True)
    write_results(destination, records, ledger.sweep(), diagnostics=ledger.diagnostics(), provenance=provenance)
    return tuple(sorted(path for path in destination.iterdir() if path.is_file()))


def _refuse_mixed(ledger: Ledger) -> None:
    """Raise if trials of one table were computed by different code or libraries."""
    found = ledger.provenance_of_results()
    different = [name for name, values in _compared(found).items() if len(set(values)) > 1]
    if different:
        raise SpecsweepError(
            f"{ledger.path.parent}: not published: its trials were computed with different {' and '.join(different)} "
            f"in {len(found)} runs; run the sweep anew into a folder of its own (--name)"
        )


def _compared(found: tuple[Provenance, ...]) -> dict[str, list[object]]:
    return {
        "code": [(provenance.git_sha, provenance.git_dirty) for provenance in found],
        "versions": [tuple(sorted(provenance.versions.items())) for provenance in found],
    }
