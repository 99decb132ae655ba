"""The index of kept weights: which file is of which arm and seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from orchestrator.trials.records import TrialRecord
from specvit.errors import SpecsweepError
from specvit.files.atomic import write_atomically
from specvit.kept_weights import FOLDER_NAME, INDEX_NAME, IndexRow, render_index


def index_rows(records: Sequence[TrialRecord]) -> list[IndexRow]:
    """Return the rows of the index, in the order of the trials; of trials that share a backbone each has its own."""
    return [
        IndexRow(
            group=record.trial.group,
            arm=record.trial.arm,
            seed=record.trial.seed,
            name=PurePosixPath(file.path).stem,
            probed="yes" if file.is_probed else "no",
            path=file.path,
            sha256=file.sha256,
            trial=record.trial.trial_id,
        )
        for record in records
        for file in record.weights
    ]


def write_index(folder: Path, records: Sequence[TrialRecord]) -> tuple[Path, ...]:
    """Write ``weights/index.csv`` below the folder of a sweep's results; nothing where no weights are kept.

    Raises:
        SpecsweepError: If it cannot be written.
    """
    rows = index_rows(records)
    if not rows:
        return ()
    path = folder / FOLDER_NAME / INDEX_NAME
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise SpecsweepError(f"{path.parent}: cannot be made ({error.strerror})") from error
    write_atomically(path, render_index(rows))
    return (path,)
