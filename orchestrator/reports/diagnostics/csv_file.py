"""The measurements of ``specvit.diagnostics`` as a table: one row per trial, block, site, quantity."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from orchestrator.trials.records import TrialRecord
from specvit.diagnostics.measurement import Measurement
from specvit.files.atomic import write_atomically

CSV_NAME = "diagnostics.csv"

_PLACE = ("block", "site", "quantity", "value")
_TRIAL = ("group", "arm", "role", "seed", "trial_id")


def render_measurements(measurements: Iterable[Measurement]) -> str:
    """Return measurements as CSV in full precision; what is not a number is an empty field."""
    return _render(_PLACE, ((), measurements))


def write_diagnostics(
    folder: Path, records: Sequence[TrialRecord], diagnostics: Mapping[str, tuple[Measurement, ...]]
) -> tuple[Path, ...]:
    """Write ``diagnostics.csv``, if there is something to write.

    Args:
        folder: The folder of the sweep's results.
        records: All trials of the sweep, in its order.
        diagnostics: Trial id to its measurements, from ``Ledger.diagnostics``.

    Returns:
        The path; none if no trial has measurements.

    Raises:
        SpecsweepError: If the file cannot be written; the text names it.
    """
    if not diagnostics:
        return ()
    path = folder / CSV_NAME
    write_atomically(path, render_diagnostics(records, diagnostics))
    return (path,)


def render_diagnostics(
    records: Sequence[TrialRecord], diagnostics: Mapping[str, tuple[Measurement, ...]]
) -> str:
    """Return the measurements of a sweep's trials as CSV, likewise."""
    blocks = (
        (tuple(getattr(record.trial, name) for name in _TRIAL), diagnostics[record.trial.trial_id])
        for record in records
        if record.trial.trial_id in diagnostics
    )
    return _render((*_TRIAL, *_PLACE), *blocks)


def _render(header: Sequence[str], *blocks: tuple[tuple[object, ...], Iterable[Measurement]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for start, measurements in blocks:
        for measurement in measurements:
            value = "" if math.isnan(measurement.value) else repr(float(measurement.value))
            writer.writerow((*start, measurement.block, measurement.site, measurement.quantity, value))
    return text.getvalue()
