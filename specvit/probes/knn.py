"""Placeholder; the probe is being written."""

from __future__ import annotations

from typing import ClassVar

from specvit.probes.base import Metric, Probe, ProbeSplit
from specvit.settings import settings


@settings
class Knn(Probe):
    """Placeholder."""

    name: ClassVar[str] = "knn"
    needs: ClassVar[str] = "labels"
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("knn_top1", "kNN top-1"),)

    def evaluate(self, train: ProbeSplit, val: ProbeSplit, *, num_classes: int, seed: int) -> dict[str, float]:
        """Evaluate."""
        raise NotImplementedError
