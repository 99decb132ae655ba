"""Placeholder; the probe is being written."""

from __future__ import annotations

from typing import ClassVar

from specvit.probes.base import Metric, Probe, ProbeSplit
from specvit.settings import settings


@settings
class Segmentation(Probe):
    """Placeholder."""

    name: ClassVar[str] = "segmentation"
    needs: ClassVar[str] = "masks"
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("miou", "mIoU"),)

    def evaluate(self, train: ProbeSplit, val: ProbeSplit, *, num_classes: int, seed: int) -> dict[str, float]:
        """Evaluate."""
        raise NotImplementedError
