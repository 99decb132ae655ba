"""The rungs of a sweep as curves over training: a table in long form, and a figure.

Rungs score a held-out part of the training images, tables the reported split: they are not points of one curve.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from orchestrator.reports.curves_figure import draw_curves
from orchestrator.trials.records import TrialRecord
from specvit.files.atomic import write_atomically

CSV_NAME, FIGURE_NAME = "curves.csv", "curves.png"

COLUMNS = ("group", "arm", "role", "seed", "trial_id", "state", "step", "metric", "value")


def build_curves(records: Sequence[TrialRecord]) -> pd.DataFrame:
    """List what every trial reported at its rungs.

    Args:
        records: All trials of a sweep, in its order.

    Returns:
        One row per trial, rung and metric, with the columns ``COLUMNS``; pruned and failed trials are there too.
    """
    rows = [
        (*(getattr(record.trial, name) for name in COLUMNS[:5]), str(record.state), report.step, metric, value)
        for record in records
        for report in record.reports
        for metric, value in report.metrics.items()
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def write_curves(folder: Path, records: Sequence[TrialRecord]) -> tuple[Path, ...]:
    """Write ``curves.csv`` and ``curves.png``, if there was a rung.

    Args:
        folder: The folder of the sweep's results.
        records: All trials of the sweep, in its order.

    Returns:
        The paths; none if no trial has come to a rung.

    Raises:
        SpecsweepError: If a file cannot be written; the text names it.
    """
    curves = build_curves(records)
    if curves.empty:
        return ()
    table, figure = folder / CSV_NAME, folder / FIGURE_NAME
    write_atomically(table, curves.to_csv(index=False, lineterminator="\n"))
    draw_curves(curves, figure)
    return table, figure
