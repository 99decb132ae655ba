"""``metrics.csv``: what trials ended with, in long form: a row a trial and metric, as tools for figures take it.

It follows from ``trials.csv``, which has the same numbers by columns; nothing is read back from it. What rungs reported
on the way is in ``curves.csv``, and is not comparable: rungs score a held-out part of the training images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.reports.per_trial.csv_rows import render_rows
from orchestrator.reports.per_trial.trials_csv import metric_names
from orchestrator.trials.records import TrialRecord

CSV_NAME = "metrics.csv"
COLUMNS = ("group", "arm", "role", "seed", "trial_id", "metric", "value")


def metric_rows(records: Sequence[TrialRecord], metrics: Sequence[str]) -> Iterator[tuple[object, ...]]:
    """Yield a row for each trial that is done and each metric that it has, of the columns ``COLUMNS``.

    Args:
        records: All trials of the sweep, in its order.
        metrics: Names of the table's metrics, which come first.
    """
    names = metric_names(records, metrics)
    for record in records:
        trial, found = record.trial, record.metrics
        place = (trial.group, trial.arm, str(trial.role), trial.seed, trial.trial_id)
        yield from ((*place, name, found[name]) for name in names if name in found)


def render_metrics(records: Sequence[TrialRecord], metrics: Sequence[str]) -> str:
    """Return them as CSV, in full precision; likewise."""
    return render_rows(COLUMNS, metric_rows(records, metrics))
