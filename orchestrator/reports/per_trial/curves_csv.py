"""``curves.csv``: what trials reported at their rungs, in long form; written from records, and read back into them.

Rungs score a held-out part of the training images, and hold each term of the loss; what trials ended with is in
``trials.csv``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from orchestrator.reports.per_trial.csv_rows import read_rows, render_rows
from orchestrator.trials.records import Report, TrialRecord

CSV_NAME = "curves.csv"
COLUMNS = ("group", "arm", "role", "seed", "trial_id", "state", "step", "metric", "value")

_MOST_ROWS = 2_000_000


def curve_rows(records: Sequence[TrialRecord]) -> Iterator[tuple[object, ...]]:
    """Yield a row for each trial, rung and metric, of the columns ``COLUMNS``."""
    for record in records:
        trial = record.trial
        place = (trial.group, trial.arm, str(trial.role), trial.seed, trial.trial_id, str(record.state))
        for report in record.reports:
            yield from ((*place, report.step, metric, value) for metric, value in report.metrics.items())


def render_curves(records: Sequence[TrialRecord]) -> str:
    """Return the rungs as CSV, in full precision."""
    return render_rows(COLUMNS, curve_rows(records))


def add_reports(records: Sequence[TrialRecord], content: bytes, name: str = CSV_NAME) -> tuple[TrialRecord, ...]:
    """Return records with what a file that ``render_curves`` wrote, or a stranger, says of their rungs.

    Args:
        records: The trials, without rungs.
        content: The file's bytes.
        name: What messages call the file.

    Raises:
        SpecsweepError: If a value is not what its column is for, or of a trial that is not among the records.
    """
    steps: dict[str, dict[int, dict[str, float]]] = {record.trial.trial_id: {} for record in records}
    _, rows = read_rows(content, name, required=COLUMNS, most_rows=_MOST_ROWS)
    for row in rows:
        of_trial = steps.get(row.text("trial_id"))
        if of_trial is None:
            row.refuse("trial_id", "that of a trial in trials.csv")
        metrics, metric = of_trial.setdefault(row.integer("step", least=0), {}), row.text("metric")
        if metric in metrics:
            row.refuse("metric", "another one than in the rows above of this step")
        metrics[metric] = row.any_number("value") if row.text("value") else math.nan  # older files have empty cells
    return tuple(
        replace(record, reports=tuple(Report(step, of_step) for step, of_step in steps[record.trial.trial_id].items()))
        for record in records
    )
