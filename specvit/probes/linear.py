"""Placeholder; the probe is being written."""

from __future__ import annotations

from typing import ClassVar

from specvit.probes.base import Metric, Probe, ProbeSplit
from specvit.settings import settings


@settings
class Linear(Probe):
    """Placeholder."""

    name: ClassVar[str] = "linear"
    needs: ClassVar[str] = "labels"
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("linear_top1", "linear top-1"),)

    def evaluate(self, train: ProbeSplit, val: ProbeSplit, *, num_classes: int, seed: int) -> dict[str, float]:
        """Evaluate."""
        raise NotImplementedError
