"""What ``publish`` does: put the tables of a finished sweep where they are kept, apart from the runs of a machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from orchestrator.ledger.ledger import Ledger
from orchestrator.reports.per_trial.sweep_data import SweepData
from orchestrator.reports.result_files import write_results
from orchestrator.trials.computation import differences_text, find_differences
from orchestrator.trials.records import State, TrialRecord
from specvit.errors import SpecsweepError

_WITH_RESULT = (State.DONE, State.PRUNED)


def publish(ledger: Ledger, destination: Path, *, accept_mixed: bool = False) -> tuple[Path, ...]:
    """Write the tables of a sweep, its curves, its file and its environment to a folder.

    Kept weights stay where they are, and so does their index.

    Args:
        ledger: Of the sweep, open for reading.
        destination: The folder; it is made if it is not there, and what it holds by the same names is replaced.
        accept_mixed: Whether trials may have been computed with different code, versions or devices.

    Returns:
        The files, in the order of their names.

    Raises:
        SpecsweepError: If a trial has no result, or results come from different code, libraries or devices.
    """
    records = ledger.records()
    others = Counter(str(record.state) for record in records if record.state not in _WITH_RESULT)
    if others:
        counts = ", ".join(f"{count} {state}" for state, count in others.items())
        raise SpecsweepError(
            f"{ledger.path.parent}: not published: {counts} of {len(records)} trials; run the sweep to its end first"
        )
    if not accept_mixed:
        _refuse_mixed(ledger.path.parent, records)
    provenance = ledger.newest_provenance()
    assert provenance is not None  # a run has begun what has a result
    destination.mkdir(parents=True, exist_ok=True)
    data = SweepData(ledger.sweep(), records, ledger.training_ids())
    write_results(
        destination, data, diagnostics=ledger.diagnostics(), provenance=provenance, usage=ledger.usage()
    )
    return tuple(sorted(path for path in destination.iterdir() if path.is_file()))


def _refuse_mixed(folder: Path, records: Sequence[TrialRecord]) -> None:
    """Raise if the trials of a sweep were computed with different code, libraries or devices."""
    computations = {id(record.computation): record.computation for record in records if record.state is State.DONE}
    different = find_differences(computations.values())
    if different:
        raise SpecsweepError(
            f"{folder}: not published: its trials were computed with different {differences_text(different)}; "
            "'specsweep redo' computes trials again, --accept-mixed publishes them as they are, marked in the table"
        )
