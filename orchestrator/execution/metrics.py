"""A value for Prometheus: what an executor publishes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

TEXTS: Mapping[str, str] = {
    "specsweep_trials": "Trials of a sweep by state",
    "specsweep_rung_metric": "Newest metric of a running trial, from its rungs or its end",
    "specsweep_images_per_second": "Images that all running trials of a sweep train on in a second",
    "specsweep_retries": "Attempts that failed and were followed by another, by cause",
    "specsweep_slots": "Trials that the cluster has room for at once",
    "specsweep_slots_busy": "Trials that run",
    "specsweep_seconds_left": "Estimated seconds to the end of a sweep",
}
"""The metrics, and what they mean."""


@dataclass(frozen=True)
class Sample:
    """A value to publish: what a gauge is set to, or by how much a counter grows."""

    name: str
    value: float
    tags: Mapping[str, str]
    is_counter: bool = False

    @property
    def text(self) -> str:
        """Return what the metric means."""
        return TEXTS[self.name]
