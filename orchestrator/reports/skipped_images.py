"""How many bad images trials left out for others, for the tables: only where a sweep file lets them be skipped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.trials.records import State, TrialRecord

METRIC = "skipped_images"
"""The metric of a trial that counts them, each file once."""


@dataclass(frozen=True)
class SkippedImages:
    """Bad images that trials of a table have left out.

    Attributes:
        trials: Number of trials that have left out some.
        least: Files that one of these has left out, at least.
        most: Likewise, at most.
    """

    trials: int
    least: int
    most: int


def collect_skipped(records: Sequence[TrialRecord]) -> SkippedImages | None:
    """Return what trials that are done have left out; None if that is nothing."""
    values = (record.metrics.get(METRIC, 0.0) for record in records if record.state is State.DONE)
    counts = [int(value) for value in values if math.isfinite(value) and value >= 1]
    return SkippedImages(len(counts), min(counts), max(counts)) if counts else None


def skipped_note(skipped: SkippedImages | None) -> str | None:
    """Return the sentence that says how many bad images were skipped; None if there are none."""
    if skipped is None:
        return None
    files = f"{skipped.least:,}" if skipped.least == skipped.most else f"{skipped.least:,} to {skipped.most:,}"
    return (
        f"Bad images: {skipped.trials} trial{'s' * (skipped.trials != 1)} skipped {files} "
        f"file{'s' * (skipped.most != 1)} each and took other images in their place; the logs of the trials name them."
    )
